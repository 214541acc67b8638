//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod conv;
pub mod elementwise;
pub mod movement;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[conv::OPERATORS, elementwise::OPERATORS, movement::OPERATORS];
