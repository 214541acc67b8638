//! Sorting and selection by order.

use super::Rule;
use super::call::Call;
use super::call::Result;
use crate::{Expr, Type};
use delegraph_types::DType;

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "sort" => |c| {
            let t = c.first()?;
            Ok(vec![
                c.made(t.dtype, t.shape.clone())?,
                c.made(DType::I64, t.shape.clone())?,
            ])
        },
        "msort" => |c| c.like(c.first()?),
        "argsort" => |c| c.one(DType::I64, c.first()?.shape.clone()),
        "topk" => topk,
        "bucketize" | "searchsorted" => |c| {
            let dtype = if c.bool("out_int32")? { DType::I32 } else { DType::I64 };
            match c.operand("self")? {
                Some((_, shape)) => c.one(dtype, shape.to_vec()),
                None => c.invalid("argument `self`: expected a tensor"),
            }
        },
        "_unique" | "_unique2" | "unique_dim" | "unique_consecutive" | "unique_dim_consecutive" | "bincount" => {
            |c| c.data_dependent()
        }
        "diff" => diff,
        _ => return None,
    })
}

fn topk(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let k = c.int("k")?;
    let mut shape = t.shape.clone();
    if !shape.is_empty() {
        let dim = c.dim("dim", t.rank())?;
        if let (Some(k), Some(n)) = (k.as_int(), shape[dim].as_int())
            && !(0..=n).contains(&k)
        {
            return c.invalid(format!("`k` is {k} for a dimension of {n}"));
        }
        shape[dim] = k;
    }
    Ok(vec![c.made(t.dtype, shape.clone())?, c.made(DType::I64, shape)?])
}

fn diff(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let mut dtype = t.dtype;
    let mut size = t.shape[dim].clone();
    for name in ["prepend", "append"] {
        if let Some(extra) = c.optional_tensor(name)? {
            dtype = DType::promote(dtype, extra.dtype);
            size = size + extra.shape.get(dim).cloned().unwrap_or(Expr::Int(1));
        }
    }
    let mut shape = t.shape.clone();
    shape[dim] = c.not_negative(size - c.int("n")?);
    c.one(dtype, shape)
}
