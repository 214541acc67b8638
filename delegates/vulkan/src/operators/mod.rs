//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod attention;
pub mod attention_few;
pub mod conv;
pub mod create;
pub mod elementwise;
pub mod fold;
pub mod grid_sampler;
pub mod index;
pub mod linear;
pub mod matmul;
pub mod movement;
pub mod norm;
pub mod pool;
pub mod product;
pub mod quantize;
pub mod quantized_linear;
pub mod reduce;
pub mod reduce_distance;
pub mod reduce_rows;
pub mod resample;
pub mod scan;
pub mod softmax;
pub mod sort;
pub mod sort_search;
pub mod strided;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[
    elementwise::OPERATORS,
    create::OPERATORS,
    movement::views::OPERATORS,
    movement::rearrange::OPERATORS,
    movement::pad::OPERATORS,
    movement::join::OPERATORS,
    movement::parts::OPERATORS,
    reduce::OPERATORS,
    index::gather::OPERATORS,
    index::scatter::OPERATORS,
    softmax::OPERATORS,
    norm::OPERATORS,
    scan::OPERATORS,
    sort::OPERATORS,
    sort_search::OPERATORS,
    reduce_distance::OPERATORS,
    grid_sampler::OPERATORS,
    matmul::OPERATORS,
    linear::OPERATORS,
    attention::OPERATORS,
    quantize::OPERATORS,
    conv::OPERATORS,
    pool::OPERATORS,
    resample::OPERATORS,
    fold::OPERATORS,
];
