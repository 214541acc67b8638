//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod conv;
pub mod create;
pub mod elementwise;
pub mod movement;
pub mod pool;
pub mod reduce;
pub mod reduce_rows;
pub mod resample;

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
    conv::OPERATORS,
    pool::OPERATORS,
    resample::OPERATORS,
];
