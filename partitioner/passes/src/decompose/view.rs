//! Operators that only look at the same elements in another shape or order, and casts.
//!
//! The sizes of a reshaping come from the recorded type of its output, where -1 and symbols are already resolved.

use super::{Replacement, Rules, one};
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Expr, ValueId};
use delegraph_types::DType;

pub(super) const RULES: Rules = &[
    ("aten::reshape", reshape),
    ("aten::_unsafe_view", reshape),
    ("aten::_reshape_alias", reshape),
    ("aten::view_as", reshape),
    ("aten::reshape_as", reshape),
    ("aten::flatten.using_ints", reshape),
    ("aten::unflatten.int", reshape),
    ("aten::ravel", reshape),
    ("aten::squeeze", reshape),
    ("aten::atleast_1d", reshape),
    ("aten::atleast_2d", reshape),
    ("aten::atleast_3d", reshape),
    ("aten::broadcast_to", expand),
    ("aten::expand_as", expand),
    ("aten::broadcast_tensors", |rw| {
        let items = rw.tensors(0)?;
        let mut out = Vec::with_capacity(items.len());
        for (i, x) in items.into_iter().enumerate() {
            let shape = rw.output_type(i)?.shape;
            out.push(rw.expand(x, shape)?);
        }
        Ok(Some(out))
    }),
    ("aten::transpose.int", |rw| {
        let x = rw.tensor(0)?;
        let rank = rw.rank(x)?;
        let (a, b) = (rw.dim(1, rank)?, rw.dim(2, rank)?);
        one(rw.transpose(x, a, b))
    }),
    ("aten::t", reverse),
    ("aten::numpy_T", reverse),
    ("aten::mT", swap_last),
    ("aten::mH", swap_conjugate),
    ("aten::adjoint", swap_conjugate),
    ("aten::matrix_H", swap_conjugate),
    ("aten::movedim.int", |rw| {
        let (from, to) = (rw.int(1)?, rw.int(2)?);
        move_dims(rw, &[from], &[to])
    }),
    ("aten::movedim.intlist", |rw| {
        let (from, to) = (rw.ints(1)?, rw.ints(2)?);
        move_dims(rw, &from, &to)
    }),
    ("aten::fliplr", |rw| {
        one(rw.emit("aten::flip", args![rw.arg(0), vec![1]]))
    }),
    ("aten::flipud", |rw| {
        one(rw.emit("aten::flip", args![rw.arg(0), vec![0]]))
    }),
    ("aten::rot90", rot90),
    ("aten::narrow", narrow),
    ("aten::narrow_copy", narrow),
    ("aten::channel_shuffle", channel_shuffle),
    ("aten::native_channel_shuffle", channel_shuffle),
    ("aten::tile", |rw| {
        let (x, mut times) = (rw.tensor(0)?, rw.exprs(1)?);
        let missing = rw.rank(x)?.saturating_sub(times.len());
        times.splice(0..0, vec![Expr::Int(1); missing]);
        one(rw.emit("aten::repeat", args![x, times]))
    }),
    ("aten::repeat_interleave.self_int", |rw| {
        let (mut x, times) = (rw.tensor(0)?, rw.expr(1)?);
        let dim = match rw.is_none(2) {
            true => {
                let count = Expr::product(&rw.shape(x)?);
                x = rw.view(x, vec![count])?;
                0
            }
            false => rw.dim(2, rw.rank(x)?)?,
        };
        one(super::attention::repeat_each(rw, x, dim, &times))
    }),
    ("aten::contiguous", same),
    ("aten::detach", same),
    ("aten::lift", same),
    ("aten::lift_fresh", same),
    ("aten::positive", same),
    ("aten::resolve_conj", same),
    ("aten::resolve_neg", same),
    ("aten::pin_memory", same),
    ("aten::to.dtype", cast),
    ("aten::to.dtype_layout", cast),
    ("aten::to.device", cast),
    ("aten::to.other", cast),
    ("aten::to.prim_Device", cast),
    ("aten::to.prim_dtype", cast),
    ("aten::to.prim_other", cast),
    ("aten::type_as", cast),
    ("aten::_cast_Byte", |rw| cast_to(rw, DType::U8)),
    ("aten::_cast_Char", |rw| cast_to(rw, DType::I8)),
    ("aten::_cast_Short", |rw| cast_to(rw, DType::I16)),
    ("aten::_cast_Int", |rw| cast_to(rw, DType::I32)),
    ("aten::_cast_Long", |rw| cast_to(rw, DType::I64)),
    ("aten::_cast_Half", |rw| cast_to(rw, DType::F16)),
    ("aten::_cast_Float", |rw| cast_to(rw, DType::F32)),
    ("aten::_cast_Double", |rw| cast_to(rw, DType::F64)),
];

fn reshape(rw: &mut Rewrite) -> Replacement {
    let (x, shape) = (rw.tensor(0)?, rw.output_type(0)?.shape);
    one(rw.view(x, shape))
}

fn expand(rw: &mut Rewrite) -> Replacement {
    let (x, shape) = (rw.tensor(0)?, rw.output_type(0)?.shape);
    one(rw.expand(x, shape))
}

fn same(rw: &mut Rewrite) -> Replacement {
    Ok(Some(vec![rw.tensor(0)?]))
}

/// A copy to the recorded dtype of the output; the engine drops it where nothing changes.
fn cast(rw: &mut Rewrite) -> Replacement {
    let dtype = rw.output_type(0)?.dtype;
    cast_to(rw, dtype)
}

fn cast_to(rw: &mut Rewrite, dtype: DType) -> Replacement {
    let x = rw.tensor(0)?;
    match rw.dtype(x)? == dtype {
        true => Ok(Some(vec![x])),
        false => one(rw.emit("aten::_to_copy", args![x, dtype])),
    }
}

fn reverse(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    let order: Vec<usize> = (0..rw.rank(x)?).rev().collect();
    one(rw.permute(x, &order))
}

fn swap_last(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    match rw.rank(x)? {
        0 => Ok(Some(vec![x])),
        _ => one(rw.transpose_last(x)),
    }
}

/// The conjugate of real numbers is what they are.
fn swap_conjugate(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    if !rw.dtype(x)?.is_complex() {
        return swap_last(rw);
    }
    let x = super::spectral::conjugate(rw, x)?;
    match rw.rank(x)? {
        0 => Ok(Some(vec![x])),
        _ => one(rw.transpose_last(x)),
    }
}

fn move_dims(rw: &mut Rewrite, from: &[i64], to: &[i64]) -> Replacement {
    let x = rw.tensor(0)?;
    let rank = rw.rank(x)?;
    if from.len() != to.len() {
        return Err(rw.invalid("the lists of dimensions differ in length"));
    }
    if rank == 0 {
        return Ok(Some(vec![x]));
    }
    let mut order: Vec<Option<usize>> = vec![None; rank];
    let mut moved = vec![false; rank];
    for (&f, &t) in from.iter().zip(to) {
        let (f, t) = (rw.dim_of(f, rank)?, rw.dim_of(t, rank)?);
        if moved[f] || order[t].is_some() {
            return Err(rw.invalid("a dimension is named twice"));
        }
        moved[f] = true;
        order[t] = Some(f);
    }
    let mut rest = (0..rank).filter(|&d| !moved[d]);
    let order: Vec<usize> = order
        .into_iter()
        .filter_map(|slot| slot.or_else(|| rest.next()))
        .collect();
    one(rw.permute(x, &order))
}

/// Quarter turns in the plane of two dimensions, as flips and a transposition.
fn rot90(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    let (rank, dims) = (rw.rank(x)?, rw.ints(2)?);
    let [a, b] = dims.as_slice() else {
        return Err(rw.invalid("two dimensions are expected"));
    };
    let (a, b) = (rw.dim_of(*a, rank)?, rw.dim_of(*b, rank)?);
    if rank < 2 || a == b {
        return Err(rw.invalid("two different dimensions are expected"));
    }
    match rw.int(1)?.rem_euclid(4) {
        1 => {
            let flipped = rw.emit("aten::flip", args![x, vec![b as i64]])?;
            one(rw.transpose(flipped, a, b))
        }
        2 => one(rw.emit("aten::flip", args![x, vec![a as i64, b as i64]])),
        3 => {
            let flipped = rw.emit("aten::flip", args![x, vec![a as i64]])?;
            one(rw.transpose(flipped, a, b))
        }
        _ => Ok(Some(vec![x])),
    }
}

fn narrow(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    let dim = rw.dim(1, rw.rank(x)?)?;
    let (mut start, length) = (rw.expr(2)?, rw.expr(3)?);
    if start.as_int().is_some_and(|s| s < 0) {
        start = start + rw.size(x, dim)?;
    }
    let end = start.clone() + length;
    one(rw.slice(x, dim, start, end))
}

fn channel_shuffle(rw: &mut Rewrite) -> Replacement {
    let (x, groups) = (rw.tensor(0)?, rw.expr(1)?);
    let shape = rw.shape(x)?;
    if shape.len() < 2 {
        return Err(rw.invalid("a batch and a channel dimension are expected"));
    }
    let mut split = shape.clone();
    split.splice(1..2, [groups.clone(), shape[1].clone().floor_div(groups)]);
    let split: ValueId = rw.view(x, split)?;
    let swapped = rw.transpose(split, 1, 2)?;
    one(rw.view(swapped, shape))
}
