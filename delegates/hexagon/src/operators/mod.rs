//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod activation;
pub mod attention;
pub mod cast;
pub mod common;
pub mod compare;
pub mod conv;
pub mod create;
pub mod elementwise;
mod images;
pub mod index;
#[cfg(test)]
mod layer_tests;
pub mod linear;
pub mod matmul;
pub mod movement;
pub mod norm;
pub mod pixel;
pub mod pool;
pub mod quantize;
pub mod reduce;
pub mod resize;
pub mod slices;
pub mod softmax;
pub mod unary;
mod weight;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[
    elementwise::OPERATORS,
    compare::OPERATORS,
    unary::OPERATORS,
    activation::OPERATORS,
    softmax::OPERATORS,
    reduce::OPERATORS,
    movement::OPERATORS,
    slices::OPERATORS,
    index::OPERATORS,
    cast::OPERATORS,
    create::OPERATORS,
    quantize::OPERATORS,
    conv::OPERATORS,
    linear::OPERATORS,
    matmul::OPERATORS,
    attention::OPERATORS,
    norm::OPERATORS,
    pool::OPERATORS,
    resize::OPERATORS,
    pixel::OPERATORS,
];
