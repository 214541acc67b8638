//! Normalization layers, vector norms and what is built on them.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};
use delegraph_types::DType;

pub(super) const RULES: Rules = &[
    ("aten::layer_norm", |rw| {
        let parts = rw.emit_many(
            "aten::native_layer_norm",
            args![rw.arg(0), rw.arg(1), rw.arg(2), rw.arg(3), rw.arg(4)],
        )?;
        Ok(Some(parts[..1].to_vec()))
    }),
    ("aten::group_norm", |rw| {
        let (x, groups) = (rw.tensor(0)?, rw.int(1)?);
        let (weight, bias, eps) = (rw.arg(2), rw.arg(3), rw.arg(4));
        group_norm(rw, x, weight, bias, groups, eps)
    }),
    ("aten::instance_norm", instance_norm),
    ("aten::batch_norm", |rw| {
        // Nothing to normalize: PyTorch returns it as it is, whatever its rank.
        if rw.shape(rw.tensor(0)?)?.contains(&Expr::Int(0)) {
            return one(rw.emit("aten::clone", args![rw.arg(0)]));
        }
        let parts = batch_norm(rw)?;
        Ok(Some(parts[..1].to_vec()))
    }),
    ("aten::native_batch_norm", |rw| batch_norm(rw).map(Some)),
    ("aten::_native_batch_norm_legit_functional", batch_norm_functional),
    ("aten::rms_norm", |rw| {
        let x = rw.tensor(0)?;
        let count = rw.exprs(1)?.len();
        one(rms_norm(rw, x, count, 2, 3))
    }),
    ("aten::linalg_vector_norm", |rw| {
        let (x, order, keepdim) = (rw.tensor(0)?, rw.float(1)?, rw.bool(3)?);
        let dims = rw.dims_or_all(2, rw.rank(x)?)?;
        vector_norm_of(rw, x, order, dims, keepdim, 4)
    }),
    ("aten::linalg_norm", |rw| {
        let (x, keepdim) = (rw.tensor(0)?, rw.bool(3)?);
        let rank = rw.rank(x)?;
        let dims = rw.dims_or_all(2, rank)?;
        if !rw.is_none(1) && (dims.len() > 1 || (rw.is_none(2) && rank > 1)) {
            return Err(rw.unsupported("a matrix norm of a given order"));
        }
        let order = rw.optional_float(1)?.unwrap_or(2.0);
        vector_norm_of(rw, x, order, dims, keepdim, 4)
    }),
    ("aten::linalg_norm.ord_str", frobenius),
    ("aten::linalg_matrix_norm.str_ord", frobenius),
    ("aten::frobenius_norm.dim", |rw| {
        let (x, keepdim) = (rw.tensor(0)?, rw.bool(2)?);
        let dims = rw.dims_or_all(1, rw.rank(x)?)?;
        vector_norm_of(rw, x, 2.0, dims, keepdim, usize::MAX)
    }),
    ("aten::norm.Scalar", |rw| norm(rw, None, None, usize::MAX)),
    ("aten::norm.ScalarOpt_dtype", |rw| norm(rw, None, None, 2)),
    ("aten::norm.ScalarOpt_dim", |rw| norm(rw, Some(2), Some(3), usize::MAX)),
    ("aten::norm.ScalarOpt_dim_dtype", |rw| norm(rw, Some(2), Some(3), 4)),
    ("aten::renorm", renorm),
    ("aten::norm_except_dim", |rw| {
        let (v, power, dim) = (rw.tensor(0)?, rw.float(1)?, rw.int(2)?);
        one(norm_except(rw, v, power, dim))
    }),
    ("aten::_weight_norm", |rw| {
        let (v, g, dim) = (rw.tensor(0)?, rw.tensor(1)?, rw.int(2)?);
        let norm = norm_except(rw, v, 2.0, dim)?;
        let factor = rw.div(g, norm)?;
        one(rw.mul(v, factor))
    }),
    ("aten::_weight_norm_interface", |rw| {
        let (v, g, dim) = (rw.tensor(0)?, rw.tensor(1)?, rw.int(2)?);
        rw.real_only(v)?;
        let norm = norm_except(rw, v, 2.0, dim)?;
        let factor = rw.div(g, norm)?;
        let dtype = rw.output_type(1)?.dtype;
        let (y, norm) = (rw.mul(v, factor)?, rw.cast(norm, dtype)?);
        Ok(Some(vec![y, norm]))
    }),
    ("aten::cosine_similarity", cosine_similarity),
    ("aten::pairwise_distance", |rw| {
        let (a, b, order) = (rw.tensor(0)?, rw.tensor(1)?, rw.float(2)?);
        let gap = rw.sub(a, b)?;
        let gap = rw.add(gap, rw.arg(3))?;
        let (rank, keepdim) = (rw.rank(gap)?, rw.bool(4)?);
        if rank == 0 {
            return Err(rw.invalid("vectors are expected"));
        }
        one(vector_norm(rw, gap, order, vec![rank as i64 - 1], keepdim))
    }),
    ("aten::cdist", |rw| distances(rw)),
    ("aten::_cdist_forward", |rw| distances(rw)),
];

/// input, weight, bias, running_mean, running_var, training, momentum, eps -> output, mean, 1/std
///
/// In training mode the batch's own statistics are used. PyTorch changes the running ones besides: importing has made writes of
/// that, so a node here means the results alone.
fn batch_norm(rw: &mut Rewrite) -> Result<Vec<ValueId>, PassError> {
    let training = rw.bool(5)?;
    let [x, weight, bias, mean, variance] = [0, 1, 2, 3, 4].map(|i| rw.arg(i));
    let (momentum, eps) = (rw.arg(6), rw.arg(7));
    let parts = if !training {
        if rw.is_none(3) || rw.is_none(4) {
            return Err(rw.invalid("no running statistics outside training"));
        }
        let op = "aten::_native_batch_norm_legit_no_training";
        rw.emit_many(op, vec![x, weight, bias, mean, variance, momentum, eps])?
    } else {
        let op = "aten::_native_batch_norm_legit.no_stats";
        rw.emit_many(op, vec![x, weight, bias, Arg::Bool(true), momentum, eps])?
    };
    Ok(parts[..3].to_vec())
}

/// The form that returns the running statistics instead of changing them: the one whose training mode is a function.
fn batch_norm_functional(rw: &mut Rewrite) -> Replacement {
    let (mean, variance) = (rw.tensor(3)?, rw.tensor(4)?);
    if !rw.bool(5)? {
        let mut parts = batch_norm(rw)?;
        parts.extend([mean, variance]);
        return Ok(Some(parts));
    }
    let (x, momentum) = (rw.tensor(0)?, rw.float(6)?);
    let args = vec![x.into(), rw.arg(1), rw.arg(2), Arg::Bool(true), rw.arg(6), rw.arg(7)];
    let mut parts = rw.emit_many("aten::_native_batch_norm_legit.no_stats", args)?;
    parts.truncate(3);
    let dims: Vec<i64> = (0..rw.rank(x)? as i64).filter(|&d| d != 1).collect();
    let wide = rw.upcast(x)?;
    let new_mean = rw.emit("aten::mean.dim", args![wide, dims.clone(), false])?;
    let new_variance = rw.emit("aten::var.correction", args![wide, dims, 1, false])?;
    for (old, new) in [(mean, new_mean), (variance, new_variance)] {
        let (kept, added) = (rw.mul(old, 1.0 - momentum)?, rw.mul(new, momentum)?);
        parts.push(rw.add(kept, added)?);
    }
    Ok(Some(parts))
}

fn group_norm(rw: &mut Rewrite, x: ValueId, weight: Arg, bias: Arg, groups: i64, eps: Arg) -> Replacement {
    let shape = rw.shape(x)?;
    let [batch, channels, rest @ ..] = shape.as_slice() else {
        return Err(rw.invalid("a batch and a channel dimension are expected"));
    };
    let (batch, channels, rest) = (batch.clone(), channels.clone(), Expr::product(rest));
    let args = args![x, weight, bias, batch, channels, rest, groups, eps];
    let parts = rw.emit_many("aten::native_group_norm", args)?;
    Ok(Some(parts[..1].to_vec()))
}

/// Over the input's own statistics it is a group norm of one channel a group; else a batch norm.
fn instance_norm(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    let [weight, bias, mean, variance] = [1, 2, 3, 4].map(|i| rw.arg(i));
    let (own, momentum, eps) = (rw.bool(5)?, rw.arg(6), rw.arg(7));
    if own {
        let Some(channels) = rw.size(x, 1)?.as_int() else {
            return Err(rw.unsupported("a dynamic number of channels"));
        };
        return group_norm(rw, x, weight, bias, channels, eps);
    }
    let op = "aten::_native_batch_norm_legit_no_training";
    let parts = rw.emit_many(op, vec![Arg::Value(x), weight, bias, mean, variance, momentum, eps])?;
    Ok(Some(parts[..1].to_vec()))
}

/// `x / sqrt(mean(x²) + eps)` over the last `count` dimensions.
fn rms_norm(rw: &mut Rewrite, x: ValueId, count: usize, weight: usize, eps: usize) -> Result<ValueId, PassError> {
    let (rank, dtype) = (rw.rank(x)?, rw.dtype(x)?);
    if count > rank {
        return Err(rw.invalid("more normalized dimensions than dimensions"));
    }
    let eps = rw.optional_float(eps)?.unwrap_or(match rw.compute_dtype(dtype) {
        DType::F64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    });
    let dims: Vec<i64> = (rank - count..rank).map(|d| d as i64).collect();
    let wide = rw.upcast(x)?;
    let square = rw.emit("aten::pow.Tensor_Scalar", args![wide, 2])?;
    let mean = rw.emit("aten::mean.dim", args![square, dims, true])?;
    let shifted = rw.add(mean, eps)?;
    let factor = rw.unary("aten::rsqrt", shifted)?;
    let mut y = rw.mul(wide, factor)?;
    if let Some(weight) = rw.optional_tensor(weight)? {
        y = rw.mul(y, weight)?;
    }
    rw.cast(y, dtype)
}

/// A vector norm, with the dtype argument at `dtype` (if the operator has one).
fn vector_norm_of(
    rw: &mut Rewrite,
    x: ValueId,
    order: f64,
    dims: Vec<i64>,
    keepdim: bool,
    dtype: usize,
) -> Replacement {
    let x = match rw.dtype_arg(dtype)? {
        Some(dtype) => rw.cast(x, dtype)?,
        None => x,
    };
    one(vector_norm(rw, x, order, dims, keepdim))
}

/// `(Σ |x|^order)^(1/order)` with the limits for 0 and ±inf. Halves are summed in `f32`.
pub(super) fn vector_norm(
    rw: &mut Rewrite,
    x: ValueId,
    order: f64,
    dims: Vec<i64>,
    keepdim: bool,
) -> Result<ValueId, PassError> {
    // Of complex numbers it is that of their lengths.
    let x = match rw.dtype(x)?.is_complex() {
        true => rw.unary("aten::abs", x)?,
        false => x,
    };
    let wide = rw.upcast(x)?;
    if dims.is_empty() {
        // A 0-dim tensor.
        return match order {
            0.0 => {
                let some = rw.emit("aten::ne.Scalar", args![wide, 0])?;
                let dtype = rw.dtype(wide)?;
                rw.cast(some, dtype)
            }
            _ => rw.unary("aten::abs", wide),
        };
    }
    if order == 0.0 {
        let some = rw.emit("aten::ne.Scalar", args![wide, 0])?;
        let dtype = rw.dtype(wide)?;
        return rw.emit("aten::sum.dim_IntList", args![some, dims, keepdim, dtype]);
    }
    if order == 2.0 {
        let square = rw.mul(wide, wide)?;
        let sum = rw.sum(square, dims, keepdim)?;
        return rw.unary("aten::sqrt", sum);
    }
    let size = rw.unary("aten::abs", wide)?;
    if order == f64::INFINITY {
        return rw.emit("aten::amax", args![size, dims, keepdim]);
    }
    if order == f64::NEG_INFINITY {
        return rw.emit("aten::amin", args![size, dims, keepdim]);
    }
    if order == 1.0 {
        return rw.sum(size, dims, keepdim);
    }
    let power = rw.emit("aten::pow.Tensor_Scalar", args![size, order])?;
    let sum = rw.sum(power, dims, keepdim)?;
    rw.emit("aten::pow.Tensor_Scalar", args![sum, 1.0 / order])
}

fn norm(rw: &mut Rewrite, dims: Option<usize>, keepdim: Option<usize>, dtype: usize) -> Replacement {
    let (x, order) = (rw.tensor(0)?, rw.optional_float(1)?.unwrap_or(2.0));
    let dims = rw.dims_or_all(dims.unwrap_or(usize::MAX), rw.rank(x)?)?;
    let keepdim = match keepdim {
        Some(index) => rw.bool(index)?,
        None => false,
    };
    vector_norm_of(rw, x, order, dims, keepdim, dtype)
}

/// self, ord, dim, keepdim, dtype
fn frobenius(rw: &mut Rewrite) -> Replacement {
    let (x, order, keepdim) = (rw.tensor(0)?, rw.text(1)?, rw.bool(3)?);
    if order != "fro" {
        return Err(rw.unsupported(format!("the norm `{order}`")));
    }
    let dims = rw.dims_or_all(2, rw.rank(x)?)?;
    vector_norm_of(rw, x, 2.0, dims, keepdim, 4)
}

/// The norm over all dimensions but one, kept as size 1; a `dim` of -1 keeps none.
fn norm_except(rw: &mut Rewrite, x: ValueId, order: f64, dim: i64) -> Result<ValueId, PassError> {
    let rank = rw.rank(x)?;
    if dim == -1 {
        let dims = (0..rank as i64).collect();
        return vector_norm(rw, x, order, dims, false);
    }
    let kept = rw.dim_of(dim, rank)? as i64;
    let dims: Vec<i64> = (0..rank as i64).filter(|&d| d != kept).collect();
    vector_norm(rw, x, order, dims, true)
}

/// Slices of `dim` longer than `maxnorm` are scaled down to it.
fn renorm(rw: &mut Rewrite) -> Replacement {
    let (x, order, limit) = (rw.tensor(0)?, rw.float(1)?, rw.float(3)?);
    let dim = rw.dim(2, rw.rank(x)?)?;
    let norm = norm_except(rw, x, order, dim as i64)?;
    // The summand is ATen's guard against a division by zero.
    let guarded = rw.add(norm, 1e-7)?;
    let inverse = rw.unary("aten::reciprocal", guarded)?;
    let factor = rw.mul(inverse, limit)?;
    let long = rw.emit("aten::gt.Scalar", args![norm, limit])?;
    let factor = rw.select_where(long, factor, 1.0)?;
    one(rw.mul(x, factor))
}

/// Sum of products of the two vectors, each over its norm, which is `eps` at least.
fn cosine_similarity(rw: &mut Rewrite) -> Replacement {
    let (a, b, eps) = (rw.tensor(0)?, rw.tensor(1)?, rw.float(3)?);
    let (sa, sb) = (rw.shape(a)?, rw.shape(b)?);
    let shape = rw.broadcast(&[&sa, &sb])?;
    let dim = rw.dim(2, shape.len())? as i64;
    let dtype = rw.output_type(0)?.dtype;
    let (a, b) = (rw.cast(a, dtype)?, rw.cast(b, dtype)?);
    let (a, b) = (rw.expand(a, shape.clone())?, rw.expand(b, shape)?);
    let unit = |rw: &mut Rewrite, x: ValueId| -> Result<ValueId, PassError> {
        // Rounded to a half before the division, as in PyTorch.
        let norm = vector_norm(rw, x, 2.0, vec![dim], true)?;
        let norm = rw.cast(norm, dtype)?;
        let norm = rw.emit("aten::clamp", args![norm, eps])?;
        rw.div(x, norm)
    };
    let (a, b) = (unit(rw, a)?, unit(rw, b)?);
    let products = rw.mul(a, b)?;
    one(rw.sum(products, vec![dim], false))
}

/// Norms of the differences of all rows of x1 `[…, p, m]` and x2 `[…, r, m]`.
fn distances(rw: &mut Rewrite) -> Replacement {
    let (a, b, order) = (rw.tensor(0)?, rw.tensor(1)?, rw.float(2)?);
    rw.real_only(a)?;
    rw.real_only(b)?;
    let (ra, rb) = (rw.rank(a)?, rw.rank(b)?);
    if ra < 2 || rb < 2 {
        return Err(rw.invalid("both inputs need two dimensions at least"));
    }
    let (a, b) = (rw.unsqueeze(a, ra - 1)?, rw.unsqueeze(b, rb - 2)?);
    let gap = rw.sub(a, b)?;
    let last = rw.rank(gap)? as i64 - 1;
    one(vector_norm(rw, gap, order, vec![last], false))
}
