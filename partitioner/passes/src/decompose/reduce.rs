//! Reductions, order statistics and differences.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};
use delegraph_types::DType;

pub(super) const RULES: Rules = &[
    ("aten::sum", |rw| {
        let dtype = rw.arg(1);
        one(rw.emit(
            "aten::sum.dim_IntList",
            args![rw.arg(0), Vec::<i64>::new(), false, dtype],
        ))
    }),
    ("aten::nansum", |rw| {
        let x = rw.tensor(0)?;
        let dtype = rw.dtype(x)?;
        let x = match dtype.is_float() {
            true => {
                let nan = rw.unary("aten::isnan", x)?;
                rw.select_where(nan, 0, x)?
            }
            false if dtype.is_complex() => return Err(rw.unsupported(format!("dtype {dtype}"))),
            false => x,
        };
        one(rw.emit("aten::sum.dim_IntList", args![x, rw.arg(1), rw.arg(2), rw.arg(3)]))
    }),
    ("aten::nanmean", |rw| {
        let x = rw.tensor(0)?;
        let x = match rw.dtype_arg(3)? {
            Some(dtype) => rw.cast(x, dtype)?,
            None => x,
        };
        let nan = rw.unary("aten::isnan", x)?;
        let some = rw.unary("aten::logical_not", nan)?;
        let wide = rw.upcast(x)?;
        let dtype = rw.dtype(wide)?;
        let kept = rw.select_where(nan, 0, wide)?;
        let sum = rw.emit("aten::sum.dim_IntList", args![kept, rw.arg(1), rw.arg(2)])?;
        let count = rw.emit("aten::sum.dim_IntList", args![some, rw.arg(1), rw.arg(2), dtype])?;
        one(rw.div(sum, count))
    }),
    ("aten::sum_to_size", |rw| {
        let (x, want) = (rw.tensor(0)?, rw.exprs(1)?);
        let have = rw.shape(x)?;
        let lead = have.len().saturating_sub(want.len());
        let dims: Vec<i64> = (0..have.len())
            .filter(|&d| d < lead || (want[d - lead].as_int() == Some(1) && have[d].as_int() != Some(1)))
            .map(|d| d as i64)
            .collect();
        if dims.is_empty() {
            return Ok(Some(vec![x]));
        }
        let sum = rw.sum(x, dims, true)?;
        one(rw.view(sum, want))
    }),
    ("aten::count_nonzero", count_nonzero),
    ("aten::count_nonzero.dim_IntList", count_nonzero),
    ("aten::all", |rw| all(rw, "aten::any", Vec::new())),
    ("aten::all.dim", |rw| {
        all(rw, "aten::any.dim", vec![rw.arg(1), rw.arg(2)])
    }),
    ("aten::all.dims", |rw| {
        all(rw, "aten::any.dims", vec![rw.arg(1), rw.arg(2)])
    }),
    ("aten::aminmax", |rw| {
        let x = rw.tensor(0)?;
        let dims = rw.dims_or_all(1, rw.rank(x)?)?;
        let keepdim = rw.bool(2)?;
        let low = rw.emit("aten::amin", args![x, dims.clone(), keepdim])?;
        let high = rw.emit("aten::amax", args![x, dims, keepdim])?;
        Ok(Some(vec![low, high]))
    }),
    ("aten::var", |rw| deviation(rw, Form::Unbiased, false)),
    ("aten::var.dim", |rw| deviation(rw, Form::Dim, false)),
    ("aten::std", |rw| deviation(rw, Form::Unbiased, true)),
    ("aten::std.dim", |rw| deviation(rw, Form::Dim, true)),
    ("aten::std.correction", |rw| deviation(rw, Form::Correction, true)),
    ("aten::var_mean", |rw| var_mean(rw, Form::Unbiased)),
    ("aten::var_mean.dim", |rw| var_mean(rw, Form::Dim)),
    ("aten::std_mean", |rw| std_mean(rw, Form::Unbiased)),
    ("aten::std_mean.dim", |rw| std_mean(rw, Form::Dim)),
    ("aten::std_mean.correction", |rw| std_mean(rw, Form::Correction)),
    ("aten::logsumexp", log_sum_exp),
    ("aten::trace", |rw| {
        let x = rw.tensor(0)?;
        let diagonal = rw.emit("aten::diagonal", args![x])?;
        one(rw.emit("aten::sum.dim_IntList", args![diagonal, vec![0]]))
    }),
    ("aten::diff", diff),
    ("aten::msort", |rw| {
        let sorted = rw.emit_many("aten::sort", args![rw.arg(0), 0])?;
        Ok(Some(sorted[..1].to_vec()))
    }),
    ("aten::argsort", |rw| {
        let sorted = rw.emit_many("aten::sort", args![rw.arg(0), rw.arg(1), rw.arg(2)])?;
        Ok(Some(sorted[1..].to_vec()))
    }),
    ("aten::argsort.stable", |rw| {
        let sorted = rw.emit_many("aten::sort.stable", args![rw.arg(0), rw.arg(1), rw.arg(2), rw.arg(3)])?;
        Ok(Some(sorted[1..].to_vec()))
    }),
    ("aten::kthvalue", |rw| {
        let x = rw.tensor(0)?;
        let (rank, k, keepdim) = (rw.rank(x)?, rw.expr(1)?, rw.bool(3)?);
        if rank == 0 {
            let index = rw.full(Vec::new(), 0, DType::I64)?;
            return Ok(Some(vec![x, index]));
        }
        let dim = rw.dim(2, rank)?;
        let sorted = rw.emit_many("aten::sort", args![x, dim as i64])?;
        let at = k - Expr::Int(1);
        let mut out = Vec::with_capacity(2);
        for part in sorted {
            let picked = rw.select(part, dim, at.clone())?;
            out.push(if keepdim { rw.unsqueeze(picked, dim)? } else { picked });
        }
        Ok(Some(out))
    }),
    ("aten::median", |rw| {
        let x = rw.tensor(0)?;
        let count = Expr::product(&rw.shape(x)?);
        let flat = rw.view(x, vec![count])?;
        let (value, _) = median(rw, flat, 0)?;
        Ok(Some(vec![value]))
    }),
    ("aten::median.dim", |rw| {
        let x = rw.tensor(0)?;
        let (rank, keepdim) = (rw.rank(x)?, rw.bool(2)?);
        if rank == 0 {
            let index = rw.full(Vec::new(), 0, DType::I64)?;
            return Ok(Some(vec![x, index]));
        }
        let dim = rw.dim(1, rank)?;
        let (value, index) = median(rw, x, dim)?;
        match keepdim {
            true => Ok(Some(vec![rw.unsqueeze(value, dim)?, rw.unsqueeze(index, dim)?])),
            false => Ok(Some(vec![value, index])),
        }
    }),
    ("aten::bucketize.Tensor", |rw| {
        let (x, boundaries, right) = (rw.tensor(0)?, rw.tensor(1)?, rw.bool(3)?);
        one(rank_in(rw, x, boundaries, right))
    }),
    ("aten::searchsorted.Tensor", |rw| {
        let (mut sorted, x) = (rw.tensor(0)?, rw.tensor(1)?);
        let right = match rw.is_none(4) {
            true => rw.bool(3)?,
            false => rw.text(4)? == "right",
        };
        let rank = rw.rank(sorted)?;
        if let Some(order) = rw.optional_tensor(5)? {
            sorted = rw.emit("aten::gather", args![sorted, rank as i64 - 1, order])?;
        }
        if rank > 1 {
            sorted = rw.unsqueeze(sorted, rank - 1)?;
        }
        one(rank_in(rw, x, sorted, right))
    }),
    ("aten::linalg_cross", |rw| {
        let dim = rw.int(2)?;
        cross(rw, dim)
    }),
    ("aten::cross", |rw| {
        let dim = match rw.optional_int(2)? {
            Some(dim) => dim,
            None => {
                let shape = rw.output_type(0)?.shape;
                let found = shape.iter().position(|s| s.as_int() == Some(3));
                found.ok_or_else(|| rw.invalid("no dimension of size 3"))? as i64
            }
        };
        cross(rw, dim)
    }),
];

/// How an overload says what to divide by.
#[derive(Clone, Copy)]
enum Form {
    /// `(self, unbiased)`
    Unbiased,
    /// `(self, dim, unbiased, keepdim)`
    Dim,
    /// `(self, dim, correction, keepdim)`
    Correction,
}

/// dims, correction and keepdim of a variance.
fn variance_args(rw: &Rewrite, form: Form) -> Result<(Arg, Arg, Arg), PassError> {
    Ok(match form {
        Form::Unbiased => (Arg::None, Arg::int(i64::from(rw.bool(1)?)), Arg::Bool(false)),
        Form::Dim => (rw.arg(1), Arg::int(i64::from(rw.bool(2)?)), rw.arg(3)),
        Form::Correction => match rw.is_none(2) {
            true => (rw.arg(1), Arg::int(1), rw.arg(3)),
            false => (rw.arg(1), rw.arg(2), rw.arg(3)),
        },
    })
}

fn deviation(rw: &mut Rewrite, form: Form, root: bool) -> Replacement {
    let (dims, correction, keepdim) = variance_args(rw, form)?;
    let x = rw.tensor(0)?;
    // The square root is taken before rounding to a half.
    let x = if root { rw.upcast(x)? } else { x };
    let variance = rw.emit("aten::var.correction", args![x, dims, correction, keepdim])?;
    match root {
        true => one(rw.unary("aten::sqrt", variance)),
        false => Ok(Some(vec![variance])),
    }
}

fn var_mean(rw: &mut Rewrite, form: Form) -> Replacement {
    let (dims, correction, keepdim) = variance_args(rw, form)?;
    let x = rw.tensor(0)?;
    rw.emit_many("aten::var_mean.correction", args![x, dims, correction, keepdim])
        .map(Some)
}

fn std_mean(rw: &mut Rewrite, form: Form) -> Replacement {
    let (dims, correction, keepdim) = variance_args(rw, form)?;
    let x = rw.tensor(0)?;
    let x = rw.upcast(x)?;
    let parts = rw.emit_many("aten::var_mean.correction", args![x, dims, correction, keepdim])?;
    let deviation = rw.unary("aten::sqrt", parts[0])?;
    Ok(Some(vec![deviation, parts[1]]))
}

fn count_nonzero(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    let dims = rw.dims_or_all(1, rw.rank(x)?)?;
    let some = rw.emit("aten::ne.Scalar", args![x, 0])?;
    one(rw.emit("aten::sum.dim_IntList", args![some, dims, false, DType::I64]))
}

/// All are true unless any is false.
fn all(rw: &mut Rewrite, any: &str, rest: Vec<Arg>) -> Replacement {
    let x = rw.tensor(0)?;
    let not = rw.unary("aten::logical_not", x)?;
    let mut args = args![not];
    args.extend(rest);
    let any = rw.emit(any, args)?;
    one(rw.unary("aten::logical_not", any))
}

/// `max + log Σ exp(x - max)`; an infinite maximum is not subtracted.
fn log_sum_exp(rw: &mut Rewrite) -> Replacement {
    let (x, keepdim) = (rw.tensor(0)?, rw.bool(2)?);
    let dims = rw.dims_or_all(1, rw.rank(x)?)?;
    let x = rw.upcast(x)?;
    let shape = rw.shape(x)?;
    if dims.is_empty() {
        return Ok(Some(vec![x]));
    }
    if shape.iter().any(|s| s.as_int() == Some(0)) {
        let power = rw.unary("aten::exp", x)?;
        let sum = rw.sum(power, dims, keepdim)?;
        return one(rw.unary("aten::log", sum));
    }
    let high = rw.emit("aten::amax", args![x, dims.clone(), true])?;
    let infinite = rw.unary("aten::isinf", high)?;
    let high = rw.select_where(infinite, 0.0, high)?;
    let shifted = rw.sub(x, high)?;
    let power = rw.unary("aten::exp", shifted)?;
    let sum = rw.sum(power, dims.clone(), keepdim)?;
    let log = rw.unary("aten::log", sum)?;
    let high = match keepdim {
        true => high,
        false => rw.emit("aten::squeeze.dims", args![high, dims])?,
    };
    one(rw.add(log, high))
}

/// Differences of neighbours, `n` times over.
fn diff(rw: &mut Rewrite) -> Replacement {
    let (x, n) = (rw.tensor(0)?, rw.int(1)?);
    let dim = rw.dim(2, rw.rank(x)?)?;
    let items: Vec<ValueId> = [rw.optional_tensor(3)?, Some(x), rw.optional_tensor(4)?]
        .into_iter()
        .flatten()
        .collect();
    let mut y = rw.cat(items, dim)?;
    let op = match rw.dtype(y)? {
        DType::Bool => "aten::logical_xor",
        _ => "aten::sub.Tensor",
    };
    if !(0..=64).contains(&n) {
        return Err(rw.unsupported(format!("order {n}")));
    }
    for _ in 0..n {
        let size = rw.size(y, dim)?;
        if size.as_int() == Some(0) {
            break;
        }
        let behind = rw.slice(y, dim, Expr::Int(1), size.clone())?;
        let before = rw.slice(y, dim, Expr::Int(0), size - Expr::Int(1))?;
        y = rw.binary(op, behind, before)?;
    }
    Ok(Some(vec![y]))
}

/// The lower middle value along `dim` and where it was; a NaN anywhere is the median, and the first of them its place.
fn median(rw: &mut Rewrite, x: ValueId, dim: usize) -> Result<(ValueId, ValueId), PassError> {
    let size = rw.size(x, dim)?;
    let middle = (size - Expr::Int(1)).floor_div(Expr::Int(2));
    let sorted = rw.emit_many("aten::sort", args![x, dim as i64])?;
    let (mut value, mut index) = (
        rw.select(sorted[0], dim, middle.clone())?,
        rw.select(sorted[1], dim, middle)?,
    );
    if rw.dtype(x)?.is_float() {
        let nan = rw.unary("aten::isnan", x)?;
        let any = rw.emit("aten::any.dim", args![nan, dim as i64])?;
        value = rw.select_where(any, f64::NAN, value)?;
        let nan = rw.cast(nan, DType::I32)?;
        let first = rw.emit("aten::argmax", args![nan, dim as i64, false])?;
        index = rw.select_where(any, first, index)?;
    }
    Ok((value, index))
}

/// How many of `sorted`'s last dimension come before each `x`: `<` it, or `<=` it from the right. NaN comes after all.
fn rank_in(rw: &mut Rewrite, x: ValueId, sorted: ValueId, right: bool) -> Result<ValueId, PassError> {
    let dtype = rw.output_type(0)?.dtype;
    let rank = rw.rank(x)?;
    let x = rw.unsqueeze(x, rank)?;
    let op = if right { "aten::gt.Tensor" } else { "aten::ge.Tensor" };
    let after = rw.binary(op, sorted, x)?;
    let before = rw.unary("aten::logical_not", after)?;
    rw.emit("aten::sum.dim_IntList", args![before, vec![-1], false, dtype])
}

/// `a.roll(-1) * b.roll(-2) - a.roll(-2) * b.roll(-1)` along a dimension of size 3.
fn cross(rw: &mut Rewrite, dim: i64) -> Replacement {
    let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
    let ty = rw.output_type(0)?;
    let dim = rw.dim_of(dim, ty.rank())? as i64;
    let (a, b) = (rw.cast(a, ty.dtype)?, rw.cast(b, ty.dtype)?);
    let (a, b) = (rw.expand(a, ty.shape.clone())?, rw.expand(b, ty.shape)?);
    let roll = |rw: &mut Rewrite, x: ValueId, by: i64| rw.emit("aten::roll", args![x, vec![by], vec![dim]]);
    let (a1, a2) = (roll(rw, a, -1)?, roll(rw, a, -2)?);
    let (b1, b2) = (roll(rw, b, -1)?, roll(rw, b, -2)?);
    let (left, right) = (rw.mul(a1, b2)?, rw.mul(a2, b1)?);
    one(rw.sub(left, right))
}
