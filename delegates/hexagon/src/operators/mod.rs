//! Operators by family: each file has a table of [`Operator`]s and lowers them.

pub mod elementwise;

use crate::caps::Operator;

/// The families.
pub const FAMILIES: &[&[Operator]] = &[elementwise::OPERATORS];
