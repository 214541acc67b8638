//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod attention;
pub mod create;
pub mod elementwise;
pub mod linear;
pub mod matmul;
pub mod movement;
pub mod product;
pub mod quantized_linear;
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
    matmul::OPERATORS,
    linear::OPERATORS,
    attention::OPERATORS,
];
