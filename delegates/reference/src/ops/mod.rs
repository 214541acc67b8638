//! Operators, a file a family. Each file ends in the rows of the table that [`crate::caps`] puts together.

pub mod activation;
pub mod attention;
pub mod binary;
pub mod cast;
pub mod compare;
pub mod conv;
pub mod create;
mod elementwise;
pub mod index;
pub mod join;
pub mod matmul;
pub mod norm;
pub mod pad;
pub mod pool;
pub mod quantized;
pub mod recurrent;
pub mod reduce;
pub mod resample;
pub mod scan;
pub mod scatter;
pub mod softmax;
pub mod sort;
pub mod ternary;
pub mod unary;
pub mod view;
