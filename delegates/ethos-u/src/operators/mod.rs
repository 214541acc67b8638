//! Operators by family: each file has a table of [`Operator`]s and lowers them.

mod elementwise;
mod layers;
mod movement;
mod norm;
mod pool;
pub mod quantize;
mod resize;
mod softmax;
mod table;
mod transposed;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[
    layers::OPERATORS,
    transposed::OPERATORS,
    elementwise::OPERATORS,
    table::OPERATORS,
    pool::OPERATORS,
    movement::OPERATORS,
    softmax::OPERATORS,
    norm::OPERATORS,
    resize::OPERATORS,
    quantize::OPERATORS,
];
