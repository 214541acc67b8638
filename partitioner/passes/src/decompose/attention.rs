//! Scaled dot product attention, as `at::_scaled_dot_product_attention_math` computes it.

use super::Rules;
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};
use delegraph_types::DType;

pub(super) const RULES: Rules = &[
    ("aten::scaled_dot_product_attention", |rw| {
        // query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
        let parts = attend(rw, rw.optional_tensor(3)?, 4, rw.bool(5)?, 6)?;
        Ok(Some(vec![parts.output]))
    }),
    ("aten::_scaled_dot_product_attention_math", |rw| {
        // …, attn_mask, dropout_p, is_causal, dropout_mask, scale, enable_gqa
        if !rw.is_none(6) {
            return Err(rw.unsupported("a dropout mask"));
        }
        let parts = attend(rw, rw.optional_tensor(3)?, 4, rw.bool(5)?, 7)?;
        Ok(Some(vec![parts.output, parts.weights]))
    }),
    ("aten::_scaled_dot_product_flash_attention_for_cpu", |rw| {
        // query, key, value, dropout_p, is_causal, attn_mask, scale -> output, logsumexp
        let parts = attend(rw, rw.optional_tensor(5)?, 3, rw.bool(4)?, 6)?;
        let log_sum = rw.emit("aten::logsumexp", args![parts.scores, vec![-1], false])?;
        Ok(Some(vec![parts.output, log_sum]))
    }),
];

/// What attention computes on its way.
struct Parts {
    output: ValueId,
    /// After softmax.
    weights: ValueId,
    /// Before softmax, masked.
    scores: ValueId,
}

/// `softmax(query keyᵀ scale + mask) value`; halves in `f32`. `dropout_p` and `scale` are argument positions.
fn attend(
    rw: &mut Rewrite,
    mask: Option<ValueId>,
    dropout_p: usize,
    is_causal: bool,
    scale: usize,
) -> Result<Parts, PassError> {
    let (query, key, value) = (rw.tensor(0)?, rw.tensor(1)?, rw.tensor(2)?);
    if rw.float(dropout_p)? != 0.0 {
        return Err(rw.unsupported("dropout"));
    }
    let rank = rw.rank(query)?;
    if rank < 2 || rw.rank(key)? < 2 || rw.rank(value)? < 2 {
        return Err(rw.invalid("query, key and value must have two dimensions at least"));
    }
    let scale = match rw.optional_float(scale)? {
        Some(scale) => scale,
        None => match rw.size(query, rank - 1)?.as_int() {
            Some(width @ 1..) => 1.0 / (width as f64).sqrt(),
            _ => return Err(rw.unsupported("a dynamic width of the query")),
        },
    };
    let (query, key, value) = (rw.upcast(query)?, rw.upcast(key)?, rw.upcast(value)?);
    let key = grouped(rw, key, query)?;
    let value = grouped(rw, value, query)?;
    let query = rw.mul(query, scale)?;
    let key = rw.transpose_last(key)?;
    let mut scores = rw.binary("aten::matmul", query, key)?;
    // Where a whole row is masked, the result is 0 and not NaN; only then is the guard needed.
    let mut may_be_empty = None;
    if is_causal {
        if mask.is_some() {
            return Err(rw.invalid("`is_causal` and `attn_mask` exclude each other"));
        }
        let at_rank = rw.rank(scores)?;
        let (rows, columns) = (rw.size(scores, at_rank - 2)?, rw.size(scores, at_rank - 1)?);
        let rows = rw.arange(0, rows)?;
        let rows = rw.unsqueeze(rows, 1)?;
        let columns = rw.arange(0, columns)?;
        let seen = rw.binary("aten::le.Tensor", columns, rows)?;
        scores = rw.select_where(seen, scores, f64::NEG_INFINITY)?;
    }
    if let Some(mask) = mask {
        if rw.dtype(mask)? == DType::Bool {
            scores = rw.select_where(mask, scores, f64::NEG_INFINITY)?;
            may_be_empty = Some(rw.emit("aten::any.dim", args![mask, -1, true])?);
        } else {
            let mask = rw.upcast(mask)?;
            scores = rw.add(scores, mask)?;
            may_be_empty = Some(any_finite(rw, scores, -1)?);
        }
    }
    let mut weights = rw.emit("aten::_softmax", args![scores, -1, false])?;
    if let Some(some) = may_be_empty {
        weights = rw.select_where(some, weights, 0.0)?;
    }
    let output = rw.binary("aten::matmul", weights, value)?;
    Ok(Parts {
        output,
        weights,
        scores,
    })
}

/// Softmax that gives zeros for a row of -inf.
pub(super) fn safe_softmax(rw: &mut Rewrite, x: ValueId, dim: usize) -> Result<ValueId, PassError> {
    let weights = rw.emit("aten::_softmax", args![x, dim as i64, false])?;
    let some = any_finite(rw, x, dim as i64)?;
    rw.select_where(some, weights, 0.0)
}

/// True for rows along `dim` that hold anything but -inf.
fn any_finite(rw: &mut Rewrite, x: ValueId, dim: i64) -> Result<ValueId, PassError> {
    let kept = rw.emit("aten::ne.Scalar", args![x, f64::NEG_INFINITY])?;
    rw.emit("aten::any.dim", args![kept, dim, true])
}

/// Grouped query attention: each key or value head serves several query heads that follow each other.
fn grouped(rw: &mut Rewrite, x: ValueId, query: ValueId) -> Result<ValueId, PassError> {
    let grouped = rw.node().arg("enable_gqa").and_then(Arg::as_bool) == Some(true);
    let (rank, query_rank) = (rw.rank(x)?, rw.rank(query)?);
    if !grouped || rank < 3 || query_rank < 3 {
        return Ok(x);
    }
    let (heads, query_heads) = (rw.size(x, rank - 3)?, rw.size(query, query_rank - 3)?);
    if heads == query_heads {
        return Ok(x);
    }
    let (Some(have), Some(want)) = (heads.as_int(), query_heads.as_int()) else {
        return Err(rw.unsupported("a dynamic number of heads"));
    };
    if have <= 0 || want % have != 0 {
        return Err(rw.invalid(format!("{want} query heads over {have} key heads")));
    }
    repeat_each(rw, x, rank - 3, &Expr::Int(want / have))
}

/// Repeats each slice of `dim` `times` in place: `a b` -> `a a b b`.
pub(super) fn repeat_each(rw: &mut Rewrite, x: ValueId, dim: usize, times: &Expr) -> Result<ValueId, PassError> {
    let mut merged = rw.shape(x)?;
    let mut shape = merged.clone();
    shape.insert(dim + 1, times.clone());
    merged[dim] = merged[dim].clone() * times.clone();
    let x = rw.unsqueeze(x, dim + 1)?;
    let x = rw.expand(x, shape)?;
    rw.view(x, merged)
}
