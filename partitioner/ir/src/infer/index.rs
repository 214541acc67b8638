//! Reading and writing at positions that tensors give.

use super::Rule;
use super::call::{Call, Result};
use crate::{Expr, Type};
use delegraph_types::DType;

pub(super) fn rule(base: &str, overload: &str) -> Option<Rule> {
    Some(match base {
        "index" | "_unsafe_index" if overload.starts_with("Tensor") => index,
        "gather" => |c| c.one(c.first()?.dtype, c.tensor("index")?.shape.clone()),
        "take" => |c| c.one(c.first()?.dtype, c.tensor("index")?.shape.clone()),
        "take_along_dim" => take_along_dim,
        "index_select" => index_select,
        "embedding" => |c| {
            let (weight, indices) = (c.tensor("weight")?, c.tensor("indices")?);
            c.rank_at_least(weight, 1)?;
            c.one(weight.dtype, [&indices.shape[..], &weight.shape[1..]].concat())
        },
        "embedding_dense_backward" => |c| {
            let gradient = c.tensor("grad_output")?;
            let width = gradient.shape.last().cloned().unwrap_or(Expr::Int(1));
            c.one(gradient.dtype, vec![c.int("num_weights")?, width])
        },
        "embedding_bag" | "_embedding_bag" | "_embedding_bag_forward_only" => embedding_bag,
        "index_put" | "_unsafe_index_put" | "_index_put_impl" | "scatter" | "scatter_add" | "scatter_reduce"
        | "index_add" | "index_copy" | "index_fill" | "index_reduce" | "put" | "select_scatter" | "slice_scatter"
        | "diagonal_scatter" | "as_strided_scatter" => |c| c.like(c.first()?),
        "one_hot" => |c| {
            let t = c.first()?;
            let classes = c.int("num_classes")?;
            if classes.as_int() == Some(-1) {
                return c.data_dependent();
            }
            c.one(DType::I64, [&t.shape[..], &[classes]].concat())
        },
        "nonzero" | "masked_select" | "argwhere" | "where" | "nonzero_numpy" => |c| c.data_dependent(),
        "multinomial" => |c| {
            let t = c.first()?;
            c.rank_at_least(t, 1)?;
            let mut shape = t.shape.clone();
            shape.pop();
            shape.push(c.int("num_samples")?);
            c.one(DType::I64, shape)
        },
        "nonzero_static" => |c| {
            let rank = c.first()?.rank() as i64;
            c.one(DType::I64, vec![c.int("size")?, Expr::Int(rank)])
        },
        "repeat_interleave" => repeat_interleave,
        _ => return None,
    })
}

/// Where adjacent dimensions are indexed the result's index dimensions take their place; else they come first.
fn index(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let indices = c.optional_tensors("indices")?;
    if indices.len() > t.rank() {
        return c.invalid(format!("{} indices for {t}", indices.len()));
    }
    let mut joined = Vec::new();
    let mut places = Vec::new();
    for (d, slot) in indices.iter().enumerate() {
        let Some(slot) = slot else { continue };
        if matches!(slot.dtype, DType::Bool | DType::U8) {
            return c.data_dependent();
        }
        joined = c.broadcast(&joined, &slot.shape)?;
        places.push(d);
    }
    let (Some(&first), Some(&last)) = (places.first(), places.last()) else {
        return c.like(t);
    };
    let kept = |range: std::ops::Range<usize>| {
        range
            .filter(|d| !places.contains(d))
            .map(|d| t.shape[d].clone())
            .collect::<Vec<Expr>>()
    };
    let shape = if last - first + 1 == places.len() {
        [kept(0..first), joined, kept(first..t.rank())].concat()
    } else {
        [joined, kept(0..t.rank())].concat()
    };
    c.one(t.dtype, shape)
}

fn take_along_dim(c: &Call) -> Result<Vec<Type>> {
    let (t, indices) = (c.first()?, c.tensor("indices")?);
    if !c.given("dim") {
        return c.one(t.dtype, vec![Expr::product(&indices.shape)]);
    }
    if t.rank() != indices.rank() {
        return c.invalid(format!("{t} and indices {indices} differ in rank"));
    }
    let dim = c.dim("dim", t.rank())?;
    let mut shape = Vec::with_capacity(t.rank());
    for d in 0..t.rank() {
        shape.push(match d == dim {
            true => indices.shape[d].clone(),
            false => c.broadcast_size(&t.shape[d], &indices.shape[d])?,
        });
    }
    c.one(t.dtype, shape)
}

fn index_select(c: &Call) -> Result<Vec<Type>> {
    let (t, index) = (c.first()?, c.tensor("index")?);
    let dim = c.dim("dim", t.rank())?;
    let mut shape = t.shape.clone();
    if !shape.is_empty() {
        shape[dim] = index.shape.first().cloned().unwrap_or(Expr::Int(1));
    }
    c.one(t.dtype, shape)
}

fn embedding_bag(c: &Call) -> Result<Vec<Type>> {
    let (weight, indices, offsets) = (c.tensor("weight")?, c.tensor("indices")?, c.tensor("offsets")?);
    if weight.rank() != 2 || offsets.rank() != 1 {
        return c.invalid(format!(
            "weight {weight}, offsets {offsets}: expected a matrix and a vector"
        ));
    }
    let mut bags = offsets.shape[0].clone();
    if c.bool("include_last_offset")? {
        bags = bags - Expr::Int(1);
    }
    let dim = weight.shape[1].clone();
    let mode = c.fixed_int("mode")?;
    let padding = if c.given("padding_idx") {
        c.fixed_int("padding_idx")?
    } else {
        -1
    };
    // What is kept for the backward pass, by PyTorch's meta function (torch/_meta_registrations.py): nothing for plain sums.
    let count = indices.shape.first().cloned().unwrap_or(Expr::Int(1));
    let plain = mode == 0 && padding < 0 && matches!(weight.dtype, DType::F32 | DType::F16);
    let offset2bag = if plain { Expr::Int(0) } else { count };
    let max_indices = if mode == 2 {
        vec![bags.clone(), dim.clone()]
    } else {
        vec![bags.clone()]
    };
    Ok(vec![
        c.made(weight.dtype, vec![bags.clone(), dim])?,
        c.made(indices.dtype, vec![offset2bag])?,
        c.made(indices.dtype, vec![bags])?,
        c.made(indices.dtype, max_indices)?,
    ])
}

fn repeat_interleave(c: &Call) -> Result<Vec<Type>> {
    let total = c.optional_int("output_size")?;
    if !c.has("self") {
        return match total {
            Some(total) => c.one(c.first()?.dtype, vec![total]),
            None => c.data_dependent(),
        };
    }
    let t = c.tensor("self")?;
    let (mut shape, dim) = match c.given("dim") {
        true => (t.shape.clone(), c.dim("dim", t.rank())?),
        false => (vec![Expr::product(&t.shape)], 0),
    };
    if shape.is_empty() {
        shape.push(Expr::Int(1));
    }
    shape[dim] = match (total, c.optional_tensor("repeats")) {
        (Some(total), _) => total,
        (None, Ok(Some(_))) => return c.data_dependent(),
        (None, _) => shape[dim].clone() * c.int("repeats")?,
    };
    c.one(t.dtype, shape)
}
