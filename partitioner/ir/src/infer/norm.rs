//! Normalizations.

use super::Rule;
use super::call::{Call, Result, to_float};
use super::reduce::reduced;
use crate::{Expr, TensorType, Type};
use delegraph_types::DType;

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "layer_norm" | "group_norm" | "batch_norm" | "instance_norm" | "quantized_batch_norm" => |c| c.like(c.first()?),
        "rms_norm" => |c| {
            let t = c.first()?;
            let dtype = c
                .optional_tensor("weight")?
                .map_or(t.dtype, |w| DType::promote(t.dtype, w.dtype));
            c.one(dtype, t.shape.clone())
        },
        "native_layer_norm" => native_layer_norm,
        "native_group_norm" => native_group_norm,
        "_native_batch_norm_legit_no_training" => |c| batch_norm(c, 0),
        "_native_batch_norm_legit" | "native_batch_norm" | "_batch_norm_no_update" => |c| batch_norm(c, 1),
        "_native_batch_norm_legit_functional" => |c| batch_norm(c, 2),
        "cosine_similarity" => |c| {
            let t = TensorType::new(DType::promote(c.tensor("x1")?.dtype, c.tensor("x2")?.dtype), pair(c)?);
            c.one(t.dtype, reduced(c, &t)?)
        },
        "pairwise_distance" => |c| {
            let mut shape = pair(c)?;
            let dtype = to_float(c.promoted(&["x1", "x2"])?).real();
            if shape.pop().is_some() && c.bool("keepdim")? {
                shape.push(Expr::Int(1));
            }
            c.one(dtype, shape)
        },
        "_weight_norm" => |c| c.like(c.first()?),
        "_weight_norm_interface" => |c| {
            let (v, g) = (c.tensor("v")?, c.tensor("g")?);
            Ok(vec![
                c.made(v.dtype, v.shape.clone())?,
                c.made(g.dtype, g.shape.clone())?,
            ])
        },
        _ => return None,
    })
}

fn pair(c: &Call) -> Result<Vec<Expr>> {
    c.broadcast_of(&["x1", "x2"])
}

fn native_layer_norm(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let normalized = c.ints("normalized_shape")?;
    if normalized.len() > t.rank() || normalized.is_empty() {
        return c.invalid(format!("{} normalized dimensions of {t}", normalized.len()));
    }
    let at = t.rank() - normalized.len();
    let mut shape = t.shape[..at].to_vec();
    shape.resize(t.rank(), Expr::Int(1));
    let dtype = statistics_dtype(c, t)?;
    Ok(vec![
        c.made(t.dtype, t.shape.clone())?,
        c.made(dtype, shape.clone())?,
        c.made(dtype, shape)?,
    ])
}

/// Statistics have the input's dtype, unless the parameters are wider than a half input.
fn statistics_dtype(c: &Call, t: &TensorType) -> Result<DType> {
    Ok(c.optional_tensor("weight")?
        .map_or(t.dtype, |w| DType::promote(t.dtype, w.dtype)))
}

fn native_group_norm(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let shape = vec![c.int("N")?, c.int("group")?];
    let dtype = statistics_dtype(c, t)?;
    Ok(vec![
        c.made(t.dtype, t.shape.clone())?,
        c.made(dtype, shape.clone())?,
        c.made(dtype, shape)?,
    ])
}

/// `statistics`: 0 none are saved, 1 the batch's are saved, 2 the running ones are returned too.
fn batch_norm(c: &Call, statistics: usize) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 2)?;
    let training = c.has("training") && c.bool("training")?;
    let size = if statistics == 0 || !training {
        Expr::Int(0)
    } else {
        t.shape[1].clone()
    };
    let dtype = statistics_dtype(c, t)?;
    let saved = c.made(dtype, vec![size])?;
    let mut types = vec![c.made(t.dtype, t.shape.clone())?, saved.clone(), saved];
    if statistics == 2 {
        for name in ["running_mean", "running_var"] {
            let running = c.tensor(name)?;
            types.push(c.made(running.dtype, running.shape.clone())?);
        }
    }
    if c.schema.returns.len() == 4 {
        types.push(c.made(DType::U8, vec![Expr::Int(0)])?);
    }
    Ok(types)
}
