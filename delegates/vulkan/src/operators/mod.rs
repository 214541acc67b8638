//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod create;
pub mod elementwise;
pub mod movement;
pub mod reduce;
pub mod reduce_rows;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[
    elementwise::OPERATORS,
    create::OPERATORS,
    movement::views::OPERATORS,
    movement::edges::OPERATORS,
    movement::join::OPERATORS,
    movement::parts::OPERATORS,
    reduce::OPERATORS,
];
