//! Operators that reduce or scan dimensions.

use super::Rule;
use super::call::{Call, Result, to_float};
use crate::{Arg, Expr, TensorType, Type};
use delegraph_types::DType;

pub(super) fn rule(base: &str, overload: &str) -> Option<Rule> {
    Some(match base {
        "sum" | "prod" | "nansum" => |c| {
            let t = c.first()?;
            let dtype = match c.dtype("dtype")? {
                Some(dtype) => dtype,
                None if t.dtype.is_float() || t.dtype.is_complex() => t.dtype,
                None => DType::I64,
            };
            c.one(dtype, reduced(c, t)?)
        },
        "mean" | "nanmean" => |c| {
            let t = c.first()?;
            c.one(c.dtype("dtype")?.unwrap_or(t.dtype), reduced(c, t)?)
        },
        "any" | "all" | "_is_all_true" | "_is_any_true" => |c| {
            let t = c.first()?;
            // A quirk of PyTorch: bytes stay bytes.
            let dtype = if t.dtype == DType::U8 { DType::U8 } else { DType::Bool };
            c.one(dtype, reduced(c, t)?)
        },
        "amax" | "amin" => |c| {
            let t = c.first()?;
            c.one(t.dtype, reduced(c, t)?)
        },
        "var" | "std" => |c| {
            let t = c.first()?;
            c.one(t.dtype.real(), reduced(c, t)?)
        },
        "var_mean" | "std_mean" => |c| {
            let t = c.first()?;
            let shape = reduced(c, t)?;
            Ok(vec![c.made(t.dtype.real(), shape.clone())?, c.made(t.dtype, shape)?])
        },
        "argmax" | "argmin" => |c| c.one(DType::I64, reduced(c, c.first()?)?),
        "count_nonzero" => |c| c.one(DType::I64, reduced(c, c.first()?)?),
        "logsumexp" | "special_logsumexp" => |c| {
            let t = c.first()?;
            c.one(to_float(t.dtype), reduced(c, t)?)
        },
        "norm" | "linalg_vector_norm" | "frobenius_norm" | "linalg_norm" | "linalg_matrix_norm" => |c| {
            let t = c.first()?;
            c.one(c.dtype("dtype")?.unwrap_or(t.dtype).real(), reduced(c, t)?)
        },
        // A `dim` of -1 keeps no dimension.
        "norm_except_dim" => |c| {
            let t = c.first()?;
            if c.fixed_int("dim")? == -1 {
                return c.one(t.dtype.real(), Vec::new());
            }
            let kept = c.dim("dim", t.rank())?;
            let sizes = t.shape.iter().enumerate();
            let sizes = sizes.map(|(d, size)| if d == kept { size.clone() } else { Expr::Int(1) });
            c.one(t.dtype.real(), sizes.collect())
        },
        "max" | "min" if overload == "other" => {
            |c| c.one(c.promoted(&["self", "other"])?, c.broadcast_of(&["self", "other"])?)
        }
        "max" | "min" | "median" | "nanmedian" if overload.is_empty() => |c| {
            let t = c.first()?;
            c.one(t.dtype, Vec::new())
        },
        "max" | "min" | "median" | "nanmedian" | "mode" | "kthvalue" => with_indices,
        "cummax" | "cummin" => |c| {
            let t = c.first()?;
            Ok(vec![
                c.made(t.dtype, t.shape.clone())?,
                c.made(DType::I64, t.shape.clone())?,
            ])
        },
        "aminmax" | "_aminmax" => |c| {
            let t = c.first()?;
            let shape = reduced(c, t)?;
            Ok(vec![c.made(t.dtype, shape.clone())?, c.made(t.dtype, shape)?])
        },
        "cumsum" | "cumprod" => |c| {
            let t = c.first()?;
            let dtype = match c.dtype("dtype")? {
                Some(dtype) => dtype,
                None if t.dtype.is_float() || t.dtype.is_complex() => t.dtype,
                None => DType::I64,
            };
            c.one(dtype, t.shape.clone())
        },
        "logcumsumexp" | "_logcumsumexp" => |c| {
            let t = c.first()?;
            c.one(t.dtype, t.shape.clone())
        },
        "softmax" | "log_softmax" | "special_softmax" | "special_log_softmax" | "softmin" | "_safe_softmax" => |c| {
            let t = c.first()?;
            c.one(c.dtype("dtype")?.unwrap_or(to_float(t.dtype)), t.shape.clone())
        },
        "_softmax" | "_log_softmax" => |c| {
            let t = c.first()?;
            let dtype = if c.bool("half_to_float")? { DType::F32 } else { t.dtype };
            c.one(dtype, t.shape.clone())
        },
        "_masked_softmax" => |c| c.like(c.first()?),
        "trace" => |c| {
            let t = c.first()?;
            let dtype = if t.dtype.is_float() || t.dtype.is_complex() {
                t.dtype
            } else {
                DType::I64
            };
            c.one(dtype, Vec::new())
        },
        "equal" => |c| c.one(DType::Bool, Vec::new()),
        _ => return None,
    })
}

/// The shape without the dimensions of argument `dim`, or with sizes of 1 there under `keepdim`.
pub(super) fn reduced(c: &Call, t: &TensorType) -> Result<Vec<Expr>> {
    let rank = t.rank();
    let dims = match c.arg("dim") {
        Arg::None => None,
        Arg::Ints(items) if items.is_empty() => None,
        _ => c.dims("dim", rank)?,
    };
    let gone = |d: usize| dims.as_ref().is_none_or(|dims| dims.contains(&d));
    let keep = c.bool("keepdim")?;
    Ok(t.shape
        .iter()
        .enumerate()
        .filter(|(d, _)| keep || !gone(*d))
        .map(|(d, size)| if gone(d) { Expr::Int(1) } else { size.clone() })
        .collect())
}

/// Values and their positions.
fn with_indices(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let shape = reduced(c, t)?;
    Ok(vec![c.made(t.dtype, shape.clone())?, c.made(DType::I64, shape)?])
}
