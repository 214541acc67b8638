//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod attention;
pub mod elementwise;
pub mod linear;
pub mod matmul;
pub mod movement;
pub mod product;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[elementwise::OPERATORS, movement::OPERATORS, matmul::OPERATORS, linear::OPERATORS, attention::OPERATORS];
