//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod elementwise;
pub mod movement;
pub mod norm;
pub mod reduce;
pub mod reduce_rows;
pub mod softmax;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[
    elementwise::OPERATORS,
    movement::OPERATORS,
    reduce::OPERATORS,
    softmax::OPERATORS,
    norm::OPERATORS,
];
