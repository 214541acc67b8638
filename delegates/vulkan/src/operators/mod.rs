//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod elementwise;
pub mod movement;
pub mod reduce;
pub mod reduce_rows;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[elementwise::OPERATORS, movement::OPERATORS, reduce::OPERATORS];
