//! Operators that rearrange: views, their copies, and what repeats or shifts elements.

use super::Rule;
use super::call::{Call, Result};
use crate::{Expr, TensorType, Type};

pub(super) fn rule(base: &str, overload: &str) -> Option<Rule> {
    Some(match base {
        "view" if overload == "dtype" => view_dtype,
        "view" | "reshape" | "_unsafe_view" | "_reshape" | "_reshape_alias" => reshape,
        "view_as" | "reshape_as" | "expand_as" => |c| c.one(c.first()?.dtype, c.tensor("other")?.shape.clone()),
        "flatten" => flatten,
        "ravel" => |c| {
            let t = c.first()?;
            c.one(t.dtype, vec![Expr::product(&t.shape)])
        },
        "unflatten" => unflatten,
        "permute" => permute,
        "transpose" | "swapaxes" | "swapdims" => transpose,
        "t" | "numpy_T" | "mT" | "mH" | "adjoint" | "matrix_H" => reverse_two,
        "movedim" | "moveaxis" => movedim,
        "unsqueeze" => unsqueeze,
        "squeeze" => squeeze,
        "expand" | "broadcast_to" => expand,
        "slice" => slice,
        "narrow" => narrow,
        "select" => select,
        "diagonal" | "linalg_diagonal" => diagonal,
        "unfold" => unfold,
        "as_strided" | "sum_to_size" => |c| c.one(c.first()?.dtype, c.ints("size")?),
        "repeat" => |c| repeat(c, "repeats"),
        "tile" => |c| repeat(c, "dims"),
        "flip" | "fliplr" | "flipud" | "roll" | "tril" | "triu" | "fft_fftshift" | "fft_ifftshift" => {
            |c| c.like(c.first()?)
        }
        "rot90" => rot90,
        "pixel_shuffle" => pixel_shuffle,
        "pixel_unshuffle" => pixel_unshuffle,
        "channel_shuffle" | "native_channel_shuffle" => |c| c.like(c.first()?),
        "atleast_1d" => |c| atleast(c, 1),
        "atleast_2d" => |c| atleast(c, 2),
        "atleast_3d" => |c| atleast(c, 3),
        "diag_embed" => diag_embed,
        "diag" => diag,
        "diagflat" => |c| {
            let t = c.first()?;
            let side = Expr::product(&t.shape) + Expr::Int(c.fixed_int("offset")?.saturating_abs());
            c.one(t.dtype, vec![side.clone(), side])
        },
        "expand_dims" => unsqueeze,
        _ => return None,
    })
}

/// The sizes that `-1` in `sizes` stands for, given the number of elements.
pub(super) fn infer_sizes(c: &Call, count: &Expr, sizes: &[Expr]) -> Result<Vec<Expr>> {
    let unknown: Vec<usize> = (0..sizes.len()).filter(|&i| sizes[i].as_int() == Some(-1)).collect();
    let known = Expr::product(sizes.iter().filter(|s| s.as_int() != Some(-1)));
    let mut shape = sizes.to_vec();
    match unknown.as_slice() {
        [] => match (count.as_int(), known.as_int()) {
            (Some(a), Some(b)) if a != b => return c.invalid(format!("{a} elements do not fill shape {sizes:?}")),
            _ => {}
        },
        &[at] => {
            shape[at] = match (count.as_int(), known.as_int()) {
                (Some(n), Some(k)) if k != 0 && n % k == 0 => Expr::Int(n / k),
                (_, Some(0)) => return c.invalid("a size of -1 beside a size of 0"),
                (Some(n), Some(k)) => return c.invalid(format!("{n} elements do not divide by {k}")),
                _ => divide(count, &known),
            }
        }
        _ => return c.invalid("more than one size of -1"),
    }
    Ok(shape)
}

/// `count / known` for products that divide: common factors are struck out first, so that symbols cancel.
fn divide(count: &Expr, known: &Expr) -> Expr {
    let factors = |e: &Expr| match e {
        Expr::Op(crate::ExprOp::Mul, items) => items.clone(),
        other => vec![other.clone()],
    };
    let mut top = factors(count);
    let mut bottom = Vec::new();
    for factor in factors(known) {
        match top.iter().position(|f| *f == factor) {
            Some(at) => drop(top.remove(at)),
            None => bottom.push(factor),
        }
    }
    Expr::product(&top).floor_div(Expr::product(&bottom))
}

fn reshape(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let name = if c.has("size") { "size" } else { "shape" };
    let sizes = c.ints(name)?;
    c.one(t.dtype, infer_sizes(c, &Expr::product(&t.shape), &sizes)?)
}

fn view_dtype(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let dtype = c.dtype("dtype")?.unwrap_or(t.dtype);
    let mut shape = t.shape.clone();
    let (from, to) = (t.dtype.size() as i64, dtype.size() as i64);
    if from != to {
        let Some(last) = shape.last_mut() else {
            return c.invalid("a 0-dim tensor cannot change its element size");
        };
        *last = (last.clone() * Expr::Int(from)).floor_div(Expr::Int(to));
    }
    c.one(dtype, shape)
}

fn flatten(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    if t.rank() == 0 {
        return c.one(t.dtype, vec![Expr::Int(1)]);
    }
    let (start, end) = (c.dim("start_dim", t.rank())?, c.dim("end_dim", t.rank())?);
    if start > end {
        return c.invalid("`start_dim` is after `end_dim`");
    }
    let mut shape = t.shape[..start].to_vec();
    shape.push(Expr::product(&t.shape[start..=end]));
    shape.extend_from_slice(&t.shape[end + 1..]);
    c.one(t.dtype, shape)
}

fn unflatten(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let sizes = infer_sizes(c, &t.shape[dim], &c.ints("sizes")?)?;
    let shape = [&t.shape[..dim], &sizes, &t.shape[dim + 1..]].concat();
    c.one(t.dtype, shape)
}

fn permute(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let dims = c.dims("dims", t.rank())?.unwrap_or_default();
    if dims.len() != t.rank() {
        return c.invalid(format!("{} dimensions for {t}", dims.len()));
    }
    c.one(t.dtype, dims.iter().map(|&d| t.shape[d].clone()).collect())
}

fn transpose(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let (a, b) = match c.has("dim0") {
        true => ("dim0", "dim1"),
        false => ("axis0", "axis1"),
    };
    let (a, b) = (c.dim(a, t.rank())?, c.dim(b, t.rank())?);
    let mut shape = t.shape.clone();
    if !shape.is_empty() {
        shape.swap(a, b);
    }
    c.one(t.dtype, shape)
}

/// `t` and `numpy_T` reverse all dimensions, `mT` the last two.
fn reverse_two(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let mut shape = t.shape.clone();
    let name = c.schema.name.as_str();
    let n = shape.len();
    if name.contains("numpy_T") || name.starts_with("aten::t") {
        shape.reverse();
    } else if n >= 2 {
        shape.swap(n - 1, n - 2);
    }
    c.one(t.dtype, shape)
}

fn movedim(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let source = c.dims("source", t.rank())?.unwrap_or_default();
    let destination = c.dims("destination", t.rank())?.unwrap_or_default();
    if source.len() != destination.len() || t.rank() == 0 {
        return if t.rank() == 0 {
            c.like(t)
        } else {
            c.invalid("`source` and `destination` differ in length")
        };
    }
    let mut order: Vec<Option<usize>> = vec![None; t.rank()];
    for (s, d) in source.iter().zip(&destination) {
        order[*d] = Some(*s);
    }
    let mut rest = (0..t.rank()).filter(|d| !source.contains(d));
    let shape = order
        .into_iter()
        .filter_map(|slot| slot.or_else(|| rest.next()))
        .map(|d| t.shape[d].clone())
        .collect();
    c.one(t.dtype, shape)
}

fn unsqueeze(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let dim = c.dim("dim", t.rank() + 1)?;
    let mut shape = t.shape.clone();
    shape.insert(dim, Expr::Int(1));
    c.one(t.dtype, shape)
}

fn squeeze(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let dims = match c.dims("dim", t.rank())? {
        Some(dims) => dims,
        None => (0..t.rank()).collect(),
    };
    let shape = t
        .shape
        .iter()
        .enumerate()
        .filter(|(d, size)| !(dims.contains(d) && size.as_int() == Some(1)))
        .map(|(_, size)| size.clone())
        .collect();
    c.one(t.dtype, shape)
}

fn expand(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let sizes = c.ints("size")?;
    if sizes.len() < t.rank() {
        return c.invalid(format!("{} sizes for {t}", sizes.len()));
    }
    let lead = sizes.len() - t.rank();
    let mut shape = Vec::with_capacity(sizes.len());
    for (i, size) in sizes.iter().enumerate() {
        let old = i.checked_sub(lead).map(|d| &t.shape[d]);
        shape.push(match (size.as_int(), old) {
            (Some(-1), Some(old)) => old.clone(),
            (Some(-1), None) => return c.invalid("a size of -1 for a new dimension"),
            (Some(new), Some(Expr::Int(old))) if *old != 1 && *old != new => {
                return c.invalid(format!("size {old} does not expand to {new}"));
            }
            _ => size.clone(),
        });
    }
    c.one(t.dtype, shape)
}

/// A slice bound as Python takes it: negative ones count from the end, all are clamped to `[0, size]`.
fn slice_bound(c: &Call, bound: Expr, size: &Expr) -> Expr {
    let from_end = match bound.as_int() {
        Some(i) => i < 0,
        None => bound.upper_bound(c.symbols).is_some_and(|high| high < 0),
    };
    let bound = if from_end { size.clone() + bound } else { bound };
    let bound = match (from_end, bound.as_int()) {
        (false, None) => bound,
        _ => c.not_negative(bound),
    };
    if bound.as_int() == Some(i64::MAX) {
        size.clone()
    } else {
        c.smaller(&bound, size)
    }
}

/// The size of `[start:end:step]` of a dimension.
pub(super) fn slice_size(c: &Call, size: &Expr) -> Result<Expr> {
    let start = slice_bound(c, c.optional_int("start")?.unwrap_or(Expr::Int(0)), size);
    let end = slice_bound(c, c.optional_int("end")?.unwrap_or(Expr::Int(i64::MAX)), size);
    let step = c.int("step")?;
    if step.as_int().is_some_and(|s| s <= 0) {
        return c.invalid("`step` has to be positive");
    }
    Ok(c.ceil_div(c.not_negative(end - start), step))
}

fn slice(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let mut shape = t.shape.clone();
    shape[dim] = slice_size(c, &shape[dim])?;
    c.one(t.dtype, shape)
}

fn narrow(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let mut shape = t.shape.clone();
    shape[dim] = c.int("length")?;
    c.one(t.dtype, shape)
}

fn select(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let mut shape = t.shape.clone();
    let size = shape.remove(dim);
    if let (Some(size), Some(index)) = (size.as_int(), c.int("index")?.as_int())
        && !(-size..size).contains(&index)
    {
        return c.invalid(format!("index {index} of a dimension of {size}"));
    }
    c.one(t.dtype, shape)
}

fn diagonal(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 2)?;
    let (a, b) = (c.dim("dim1", t.rank())?, c.dim("dim2", t.rank())?);
    if a == b {
        return c.invalid("`dim1` and `dim2` are the same");
    }
    let offset = c.fixed_int("offset")?;
    let (rows, columns) = (t.shape[a].clone(), t.shape[b].clone());
    let (rows, columns) = match offset {
        0.. => (rows, columns - Expr::Int(offset)),
        _ => (rows + Expr::Int(offset), columns),
    };
    let length = c.not_negative(c.smaller(&rows, &columns));
    let mut shape: Vec<Expr> = (0..t.rank())
        .filter(|&d| d != a && d != b)
        .map(|d| t.shape[d].clone())
        .collect();
    shape.push(length);
    c.one(t.dtype, shape)
}

fn unfold(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let (size, step) = (c.int("size")?, c.int("step")?);
    if step.as_int().is_some_and(|s| s <= 0) || size.as_int().is_some_and(|s| s < 0) {
        return c.invalid("`size` and `step` have to be positive");
    }
    if t.rank() == 0 {
        return c.one(t.dtype, vec![size]);
    }
    let dim = c.dim("dimension", t.rank())?;
    let mut shape = t.shape.clone();
    shape[dim] = (shape[dim].clone() - size.clone()).floor_div(step) + Expr::Int(1);
    shape.push(size);
    c.one(t.dtype, shape)
}

fn repeat(c: &Call, name: &str) -> Result<Vec<Type>> {
    let t = c.first()?;
    let mut times = c.ints(name)?;
    if times.len() < t.rank() {
        if name == "repeats" {
            return c.invalid(format!("{} repeats for {t}", times.len()));
        }
        times.splice(0..0, vec![Expr::Int(1); t.rank() - times.len()]);
    }
    let lead = times.len() - t.rank();
    let shape = times
        .iter()
        .enumerate()
        .map(|(i, n)| match i.checked_sub(lead) {
            Some(d) => t.shape[d].clone() * n.clone(),
            None => n.clone(),
        })
        .collect();
    c.one(t.dtype, shape)
}

fn rot90(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let dims = c.dims("dims", t.rank())?.unwrap_or_default();
    let mut shape = t.shape.clone();
    match dims.as_slice() {
        &[a, b] if t.rank() >= 2 => {
            if c.fixed_int("k")? % 2 != 0 {
                shape.swap(a, b);
            }
        }
        _ => return c.invalid("`dims` has to name two dimensions"),
    }
    c.one(t.dtype, shape)
}

/// (all but the last three sizes, channels, height, width)
fn image(c: &Call, t: &TensorType) -> Result<(Vec<Expr>, [Expr; 3])> {
    c.rank_at_least(t, 3)?;
    let at = t.rank() - 3;
    let [channels, height, width] = [0, 1, 2].map(|i| t.shape[at + i].clone());
    Ok((t.shape[..at].to_vec(), [channels, height, width]))
}

fn pixel_shuffle(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let (mut shape, [channels, height, width]) = image(c, t)?;
    let factor = c.int("upscale_factor")?;
    if factor.as_int().is_none_or(|f| f <= 0) {
        return c.invalid("`upscale_factor` has to be positive");
    }
    shape.push(channels.floor_div(factor.clone() * factor.clone()));
    shape.extend([height * factor.clone(), width * factor]);
    c.one(t.dtype, shape)
}

fn pixel_unshuffle(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let (mut shape, [channels, height, width]) = image(c, t)?;
    let factor = c.int("downscale_factor")?;
    if factor.as_int().is_none_or(|f| f <= 0) {
        return c.invalid("`downscale_factor` has to be positive");
    }
    shape.push(channels * factor.clone() * factor.clone());
    shape.extend([height.floor_div(factor.clone()), width.floor_div(factor)]);
    c.one(t.dtype, shape)
}

fn atleast(c: &Call, rank: usize) -> Result<Vec<Type>> {
    let one = || Expr::Int(1);
    if c.has("tensors") {
        let mut types = Vec::new();
        for t in c.tensors("tensors")? {
            types.push(c.made(t.dtype, atleast_shape(t, rank, one()))?);
        }
        return Ok(types);
    }
    let t = c.first()?;
    c.one(t.dtype, atleast_shape(t, rank, one()))
}

fn atleast_shape(t: &TensorType, rank: usize, one: Expr) -> Vec<Expr> {
    let mut shape = t.shape.clone();
    if shape.len() >= rank {
        return shape;
    }
    match (shape.len(), rank) {
        (0, _) => vec![one; rank],
        (1, 2) => {
            shape.insert(0, one);
            shape
        }
        (1, _) => {
            shape.insert(0, one.clone());
            shape.push(one);
            shape
        }
        _ => {
            shape.push(one);
            shape
        }
    }
}

fn diag_embed(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let rank = t.rank() + 1;
    let (a, b) = (c.dim("dim1", rank)?, c.dim("dim2", rank)?);
    if a == b {
        return c.invalid("`dim1` and `dim2` are the same");
    }
    let offset = c.fixed_int("offset")?;
    let side = t.shape[t.rank() - 1].clone() + Expr::Int(offset.saturating_abs());
    let mut shape = t.shape[..t.rank() - 1].to_vec();
    shape.insert(a.min(b).min(shape.len()), side.clone());
    shape.insert(a.max(b).min(shape.len()), side);
    c.one(t.dtype, shape)
}

fn diag(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let offset = c.fixed_int("diagonal")?;
    match t.rank() {
        1 => {
            let side = t.shape[0].clone() + Expr::Int(offset.saturating_abs());
            c.one(t.dtype, vec![side.clone(), side])
        }
        2 => {
            let (rows, columns) = match offset {
                0.. => (t.shape[0].clone(), t.shape[1].clone() - Expr::Int(offset)),
                _ => (t.shape[0].clone() + Expr::Int(offset), t.shape[1].clone()),
            };
            c.one(t.dtype, vec![c.not_negative(c.smaller(&rows, &columns))])
        }
        _ => c.invalid(format!("{t}: expected a vector or a matrix")),
    }
}
