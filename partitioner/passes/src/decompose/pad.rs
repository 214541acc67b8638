//! Padding by mode.

use super::{Replacement, Rules, one};
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr};

pub(super) const RULES: Rules = &[
    ("aten::pad", |rw| {
        let (mode, value) = (rw.text(2)?, rw.arg(3));
        pad(rw, &mode, value)
    }),
    ("aten::_pad_enum", |rw| {
        // at::padding_mode, in its order.
        let mode = match rw.int(2)? {
            0 => "reflect",
            1 => "replicate",
            2 => "circular",
            3 => "constant",
            other => return Err(rw.invalid(format!("padding mode {other}"))),
        };
        let value = rw.arg(3);
        pad(rw, mode, value)
    }),
    ("aten::_pad_circular", |rw| pad(rw, "circular", Arg::None)),
];

fn pad(rw: &mut Rewrite, mode: &str, value: Arg) -> Replacement {
    let (x, pads) = (rw.tensor(0)?, rw.exprs(1)?);
    if mode == "constant" {
        let value = if value == Arg::None { Arg::int(0) } else { value };
        return one(rw.emit("aten::constant_pad_nd", args![x, pads, value]));
    }
    let spatial = pads.len() / 2;
    let rank = rw.rank(x)?;
    if pads.len() % 2 != 0 || spatial == 0 || spatial > 3 || spatial > rank {
        return Err(rw.unsupported(format!("`{mode}` with {} numbers on rank {rank}", pads.len())));
    }
    match mode {
        "reflect" => {
            let op = [
                "aten::reflection_pad1d",
                "aten::reflection_pad2d",
                "aten::reflection_pad3d",
            ][spatial - 1];
            one(rw.emit(op, args![x, pads]))
        }
        "replicate" => {
            let op = [
                "aten::replication_pad1d",
                "aten::replication_pad2d",
                "aten::replication_pad3d",
            ][spatial - 1];
            one(rw.emit(op, args![x, pads]))
        }
        "circular" => circular(rw, &pads),
        other => Err(rw.invalid(format!("padding mode `{other}`"))),
    }
}

/// Both ends continue with the other; negative numbers cut.
fn circular(rw: &mut Rewrite, pads: &[Expr]) -> Replacement {
    let mut x = rw.tensor(0)?;
    let rank = rw.rank(x)?;
    for (i, pair) in pads.chunks_exact(2).enumerate() {
        let dim = rank - 1 - i;
        let (Some(before), Some(after)) = (pair[0].as_int(), pair[1].as_int()) else {
            return Err(rw.unsupported("a dynamic padding"));
        };
        let size = rw.size(x, dim)?;
        if size.as_int().is_some_and(|n| before > n || after > n) {
            return Err(rw.invalid("the padding wraps around more than once"));
        }
        let (low, high) = (Expr::Int((-before).max(0)), size.clone() - Expr::Int((-after).max(0)));
        let mut parts = Vec::new();
        if before > 0 {
            parts.push(rw.slice(x, dim, size.clone() - Expr::Int(before), size.clone())?);
        }
        parts.push(rw.slice(x, dim, low, high)?);
        if after > 0 {
            parts.push(rw.slice(x, dim, Expr::Int(0), Expr::Int(after))?);
        }
        x = rw.cat(parts, dim)?;
    }
    Ok(Some(vec![x]))
}
