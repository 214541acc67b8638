//! Padding.

use super::Rule;
use super::call::{Call, Result};
use crate::{Expr, Type};

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "constant_pad_nd" | "pad" | "_pad_enum" | "_pad_circular" => |c| pad(c, "pad"),
        "reflection_pad1d" | "reflection_pad2d" | "reflection_pad3d" | "replication_pad1d" | "replication_pad2d"
        | "replication_pad3d" => |c| pad(c, "padding"),
        _ => return None,
    })
}

/// Pairs of (before, after), the last dimension first.
fn pad(c: &Call, name: &str) -> Result<Vec<Type>> {
    let t = c.first()?;
    let amounts = c.ints(name)?;
    if amounts.len() % 2 != 0 || amounts.len() / 2 > t.rank() {
        return c.invalid(format!("{} amounts of padding for {t}", amounts.len()));
    }
    let mut shape = t.shape.clone();
    for (i, pair) in amounts.chunks(2).enumerate() {
        let size: &mut Expr = &mut shape[t.rank() - 1 - i];
        *size = size.clone() + pair[0].clone() + pair[1].clone();
    }
    c.one(t.dtype, shape)
}
