//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod attention;
pub mod conv;
pub mod elementwise;
mod images;
#[cfg(test)]
mod layer_tests;
pub mod linear;
pub mod matmul;
pub mod norm;
pub mod pixel;
pub mod pool;
pub mod resize;
mod weight;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[
    elementwise::OPERATORS,
    conv::OPERATORS,
    linear::OPERATORS,
    matmul::OPERATORS,
    attention::OPERATORS,
    norm::OPERATORS,
    pool::OPERATORS,
    resize::OPERATORS,
    pixel::OPERATORS,
];
