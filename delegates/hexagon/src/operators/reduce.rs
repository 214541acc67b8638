//! Reductions, and what looks along a dimension: sums, means, extremes and where they are, sums so far, the largest few.
//!
//! A tensor that lies channels last is reduced as it lies where what is left has an order that the result may have; else it is turned first.

use super::common::{Elements, Steps, bytes_of, elements, floats, give, plain, same};
use crate::builder::{Builder, Layout, axis};
use crate::caps::{Operator, Refusal};
use crate::graph::{DataType, Param, Quantization, TensorId};
use crate::node::{Node, wrap};
use delegraph_sdk::image::ValueIndex;

macro_rules! operator {
    ($name:literal, $lower:expr) => {
        Operator {
            name: $name,
            lower: $lower,
        }
    };
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    operator!("aten::mean.dim", |n, b| over(n, b, "ReduceMean")),
    operator!("aten::sum.dim_IntList", |n, b| over(n, b, "ReduceSum")),
    operator!("aten::mean", |n, b| whole(n, b, "ReduceMean")),
    operator!("aten::sum", |n, b| whole(n, b, "ReduceSum")),
    operator!("aten::amax", |n, b| over(n, b, "ReduceMax")),
    operator!("aten::amin", |n, b| over(n, b, "ReduceMin")),
    operator!("aten::max", |n, b| whole(n, b, "ReduceMax")),
    operator!("aten::min", |n, b| whole(n, b, "ReduceMin")),
    operator!("aten::max.dim", |n, b| both(n, b, "ReduceMax", "Argmax")),
    operator!("aten::min.dim", |n, b| both(n, b, "ReduceMin", "Argmin")),
    operator!("aten::argmax", |n, b| place(n, b, "Argmax")),
    operator!("aten::argmin", |n, b| place(n, b, "Argmin")),
    operator!("aten::any", |n, b| truth(n, b, "ReduceMax", false)),
    operator!("aten::any.dim", |n, b| truth(n, b, "ReduceMax", true)),
    operator!("aten::any.dims", |n, b| truth(n, b, "ReduceMax", true)),
    operator!("aten::all", |n, b| truth(n, b, "ReduceMin", false)),
    operator!("aten::all.dim", |n, b| truth(n, b, "ReduceMin", true)),
    operator!("aten::all.dims", |n, b| truth(n, b, "ReduceMin", true)),
    operator!("aten::var.correction", |n, b| spread(n, b, false, true)),
    operator!("aten::std.correction", |n, b| spread(n, b, true, true)),
    operator!("aten::var.dim", |n, b| spread(n, b, false, false)),
    operator!("aten::std.dim", |n, b| spread(n, b, true, false)),
    operator!("aten::cumsum", so_far),
    operator!("aten::topk", largest),
];

/// Dimensions to reduce: those of a list, or all.
fn dims_of(node: &Node<'_>, i: usize, rank: usize) -> Result<Vec<usize>, Refusal> {
    let given = node.optional_ints(i)?.unwrap_or_default();
    if given.is_empty() {
        return Ok((0..rank).collect());
    }
    let mut dims = Vec::with_capacity(given.len());
    for dim in given {
        dims.push(wrap(dim, rank)?);
    }
    dims.sort_unstable();
    dims.dedup();
    Ok(dims)
}

/// The layout that a result has if a tensor that lies channels last is reduced as it lies; `None`: none that there is.
fn left_over(rank: usize, dims: &[usize], keep: bool) -> Option<Layout> {
    if keep {
        return Some(Layout::ChannelsLast);
    }
    // The dimensions that are left, as they lie.
    let lies = [0].into_iter().chain(2..rank).chain([1]);
    let left: Vec<usize> = lies.filter(|d| !dims.contains(d)).collect();
    let mut sorted = left.clone();
    sorted.sort_unstable();
    if left == sorted {
        return Some(Layout::RowMajor);
    }
    let last = sorted.len() >= 3 && sorted[1] == 1 && left.last() == Some(&1);
    last.then_some(Layout::ChannelsLast)
}

/// Where a reduction reads its tensor, and where its result then is.
fn layouts(b: &Builder<'_>, x: ValueIndex, dims: &[usize], keep: bool) -> (Layout, Layout) {
    let rank = b.image().value(x).rank();
    match b.layout_of(x) {
        Layout::ChannelsLast if rank >= 3 => match left_over(rank, dims, keep) {
            Some(result) => (Layout::ChannelsLast, result),
            None => (Layout::RowMajor, Layout::RowMajor),
        },
        _ => (Layout::RowMajor, Layout::RowMajor),
    }
}

fn axes(dims: &[usize], rank: usize, layout: Layout) -> Vec<u32> {
    let mut axes: Vec<u32> = dims.iter().map(|d| axis(*d, rank, layout)).collect();
    axes.sort_unstable();
    axes
}

fn params(axes: &[u32], keep: bool) -> Vec<(&'static str, Param)> {
    vec![("axes", Param::list(axes)), ("keep_dims", Param::Bool(keep))]
}

/// Over the dimensions of argument 1; argument 2: whether they stay as 1.
fn over(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let rank = b.image().value(node.value(0)?).rank();
    let dims = dims_of(node, 1, rank)?;
    reduce(node, b, op, &dims, node.bool(2)?)
}

fn whole(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let rank = b.image().value(node.value(0)?).rank();
    reduce(node, b, op, &(0..rank).collect::<Vec<_>>(), false)
}

fn reduce(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str, dims: &[usize], keep: bool) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let kind = elements(b, x)?;
    let selects = matches!(op, "ReduceMax" | "ReduceMin");
    let taken = kind == Elements::Float || kind.is_fixed() || (selects && kind != Elements::Bool);
    if !taken || kind != elements(b, out)? {
        return Err(Refusal::dtype("integer sums, or a result of another type"));
    }
    let rank = b.image().value(x).rank();
    let (layout, result) = layouts(b, x, dims, keep);
    let read = b.read(x, layout)?;
    if rank == 0 {
        return same(b, read, out, result);
    }
    let written = b.write(out, result)?;
    b.op(op, params(&axes(dims, rank, layout), keep), &[read], &[written]);
    Ok(())
}

/// Largest or smallest along a dimension, and where it is.
fn both(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str, place: &'static str) -> Result<(), Refusal> {
    let (x, keep) = (node.value(0)?, node.bool(2)?);
    let rank = b.image().value(x).rank();
    let dim = node.dim(1, rank)?;
    reduce(node, b, op, &[dim], keep)?;
    places(node, b, place, x, 1, Some(dim), keep)
}

fn place(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let x = node.value(0)?;
    let rank = b.image().value(x).rank();
    let dim = match node.is_none(1) {
        true => None,
        false => Some(node.dim(1, rank)?),
    };
    places(node, b, op, x, 0, dim, node.bool(2)?)
}

/// Where the largest or smallest is: along a dimension, or in all elements in their order.
fn places(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    op: &'static str,
    x: ValueIndex,
    output: usize,
    dim: Option<usize>,
    keep: bool,
) -> Result<(), Refusal> {
    let out = node.output(output)?;
    let kind = elements(b, x)?;
    if kind == Elements::Bool {
        return Err(Refusal::dtype("booleans"));
    }
    if op == "Argmin" && matches!(kind, Elements::Int | Elements::Index) {
        return Err(Refusal::dtype("the place of the smallest of integers of 32 bits"));
    }
    let rank = b.image().value(x).rank();
    let (layout, result) = match dim {
        Some(dim) => layouts(b, x, &[dim], keep),
        None => (Layout::RowMajor, Layout::RowMajor),
    };
    let read = b.read(x, layout)?;
    let along = |axis: u32, keep: bool| vec![("axis", Param::U32(axis)), ("keep_dims", Param::Bool(keep))];
    match dim {
        Some(dim) if rank > 0 => {
            let written = b.write(out, result)?;
            b.op(op, along(axis(dim, rank, layout), keep), &[read], &[written]);
            Ok(())
        }
        _ => {
            let count = b.tensor(read).elements() as u32;
            let flat = b.reshaped(read, &[count])?;
            let index = b.temporary(DataType::Int32, &[1], Quantization::None);
            b.op(op, along(0, true), &[flat], &[index]);
            same(b, index, out, Layout::RowMajor)
        }
    }
}

/// Of booleans, as bytes.
fn truth(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str, along: bool) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if elements(b, x)? != Elements::Bool {
        return Err(Refusal::dtype("not of booleans"));
    }
    let rank = b.image().value(x).rank();
    let (dims, keep) = match along {
        true => (dims_of(node, 1, rank)?, node.bool(2)?),
        false => ((0..rank).collect(), false),
    };
    let (layout, result) = layouts(b, x, &dims, keep);
    let read = b.read(x, layout)?;
    if rank == 0 {
        return same(b, read, out, result);
    }
    let bytes = bytes_of(b, read);
    let dims_out = b.arranged_dims(out, result)?;
    let reduced = b.temporary(DataType::UFixed8, &dims_out, plain());
    b.op(op, params(&axes(&dims, rank, layout), keep), &[bytes], &[reduced]);
    let written = b.write(out, result)?;
    b.op("Cast", Vec::new(), &[reduced], &[written]);
    Ok(())
}

/// Variance, or its root: the mean of squares about the mean, so that nothing cancels.
fn spread(node: &Node<'_>, b: &mut Builder<'_>, root: bool, correction: bool) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.image().value(x).rank();
    let dims = dims_of(node, 1, rank)?;
    let correction = match correction {
        true => node.optional_scalar(2)?.map_or(1.0, |s| s.float()),
        false => f64::from(u8::from(node.bool(2)?)),
    };
    let keep = node.bool(3)?;
    if rank == 0 {
        return Err(Refusal::shape("no dimensions"));
    }
    let (layout, result) = layouts(b, x, &dims, keep);
    let read = floats(b, x, rank, layout)?;
    let axes = axes(&dims, rank, layout);
    let mut kept = b.tensor(read).dims.clone();
    let count: f64 = axes.iter().map(|axis| f64::from(kept[*axis as usize])).product();
    axes.iter().for_each(|axis| kept[*axis as usize] = 1);
    if count <= correction {
        return Err(Refusal::attribute("fewer elements than the correction takes away"));
    }
    let mean = b.temporary(DataType::Float16, &kept, Quantization::None);
    b.op("ReduceMean", params(&axes, true), &[read], &[mean]);
    let apart = b.binary("ElementWiseSubtract", read, mean);
    let square = b.binary("ElementWiseMultiply", apart, apart);
    let variance = b.like(mean);
    b.op("ReduceMean", params(&axes, true), &[square], &[variance]);
    let variance = b.with("ElementWiseMultiply", variance, count / (count - correction))?;
    let answer = match root {
        true => b.unary("ElementWiseSquareRoot", variance),
        false => variance,
    };
    let dims = b.arranged_dims(out, result)?;
    let answer = b.reshaped(answer, &dims)?;
    give(b, answer, out, result)
}

/// Most elements that are summed up one by one.
const LONGEST_SUM: u32 = 16;

fn so_far(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if elements(b, x)? != Elements::Float || elements(b, out)? != Elements::Float {
        return Err(Refusal::dtype("not of floats"));
    }
    let rank = b.image().value(x).rank();
    let dim = node.dim(1, rank)?;
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    if rank == 0 {
        return same(b, read, out, layout);
    }
    if b.dims(x)?[dim] > LONGEST_SUM {
        return Err(Refusal::shape(format!(
            "the library adds in f16, which more than {LONGEST_SUM} elements in a row lose their digits in"
        )));
    }
    let written = b.write(out, layout)?;
    let params = vec![
        ("axis", Param::U32(axis(dim, rank, layout))),
        ("exclusive", Param::Bool(false)),
        ("reverse", Param::Bool(false)),
    ];
    b.op("CumulativeSum", params, &[read], &[written]);
    Ok(())
}

/// The largest or smallest few along the last dimension, in order. Of equal ones any may come first, as in PyTorch.
fn largest(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let x = node.value(0)?;
    let (values, indices) = (node.output(0)?, node.output(1)?);
    let rank = b.image().value(x).rank();
    let dim = node.dim(2, rank)?;
    if rank == 0 || dim + 1 != rank {
        return Err(Refusal::attribute("not along the last dimension"));
    }
    if elements(b, x)? == Elements::Bool {
        return Err(Refusal::dtype("booleans"));
    }
    let count = u32::try_from(node.int(1)?).map_err(|_| Refusal::attribute("a negative count"))?;
    let params = vec![("k", Param::U32(count)), ("largest", Param::Bool(node.bool(3)?))];
    let read: TensorId = b.read(x, Layout::RowMajor)?;
    let written = [b.write(values, Layout::RowMajor)?, b.write(indices, Layout::RowMajor)?];
    b.op("TopK", params, &[read], &written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_keeps_an_order_or_is_turned() {
        // [N, C, H, W] lies as [N, H, W, C].
        assert_eq!(left_over(4, &[2, 3], false), Some(Layout::RowMajor));
        assert_eq!(left_over(4, &[1], false), Some(Layout::RowMajor));
        assert_eq!(left_over(4, &[3], false), Some(Layout::ChannelsLast));
        assert_eq!(left_over(4, &[0], false), None);
        assert_eq!(left_over(4, &[0, 2], false), None);
        assert_eq!(left_over(4, &[0, 1, 2, 3], false), Some(Layout::RowMajor));
        assert_eq!(left_over(3, &[2], false), Some(Layout::RowMajor));
        assert_eq!(left_over(4, &[0], true), Some(Layout::ChannelsLast));
    }
}
