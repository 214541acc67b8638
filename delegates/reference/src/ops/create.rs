//! Stub.

use crate::caps::Operator;

/// The rows.
pub const TABLE: &[Operator] = &[];
