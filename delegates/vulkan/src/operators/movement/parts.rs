//! Tensors with some of their elements replaced by those of another.

use super::rearrange::diagonal_of;
use super::views::{position, row, slice_bounds};
use super::{Axis, View, WIDE, bound, kind, strided, view_of, widening};
use crate::caps::Operator;
use crate::encoder::{Encoder, grid};
use crate::kernels;
use crate::node::Node;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::Error;

/// The operators that write a part of a tensor which sizes tell.
pub const OPERATORS: &[Operator] = &[
    row("aten::slice_scatter", slice_scatter),
    row("aten::select_scatter", select_scatter),
    row("aten::diagonal_scatter", diagonal_scatter),
];

/// A tensor for the first output with the elements of argument 0, what an operator then writes to: a copy, or the memory itself where nobody
/// needs it any more.
///
/// # Errors
/// As [`strided`].
pub fn copied(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<Tensor, Error> {
    let view = view_of(e, node, 0)?;
    let value = node.output(0)?;
    if let Some(spare) = e.spare(node, 0).filter(|t| t.dtype == view.source.dtype) {
        e.set(value, spare.clone());
        return Ok(spare);
    }
    let out = e.output(node, 0, Layout::RowMajor)?;
    if out.dims != view.source.dims {
        return Err(Error::invalid("the output has other sizes than what it is made of"));
    }
    strided(e, &view, &out)?;
    Ok(out)
}

/// A dimension of two views.
#[derive(Clone, Copy)]
struct Pair {
    size: u32,
    from: i64,
    to: i64,
}

/// Writes the elements of a view to those of another, which is a part of a tensor that was made before.
///
/// # Errors
/// Their sizes differ, one reaches beyond its tensor, or the device cannot.
pub fn put(e: &mut Encoder<'_>, from: &View, to: &View) -> Result<(), Error> {
    let sizes = |view: &View| view.axes.iter().map(|a| a.size).collect::<Vec<_>>();
    if sizes(from) != sizes(to) {
        let (from, to) = (sizes(from), sizes(to));
        return Err(Error::invalid(format!("elements of {from:?} do not fill {to:?}")));
    }
    if from.check()? == 0 {
        return Ok(());
    }
    to.check()?;
    put_boxes(e, from, to)
}

/// As [`put`], in boxes of which the device binds both sides.
fn put_boxes(e: &mut Encoder<'_>, from: &View, to: &View) -> Result<(), Error> {
    let range = e.facts().limits.storage_range;
    let bytes = |view: &View| view.bound().map_or(0, |part| part.bytes.next_multiple_of(16));
    if bytes(from).max(bytes(to)) <= range {
        return put_once(e, from, to);
    }
    // The side that is too much is cut where it reaches farthest.
    let wide = if bytes(from) > range { from } else { to };
    let reach = |axis: &Axis| i64::from(axis.size - 1) * axis.stride.abs();
    let axes = wide
        .axes
        .iter()
        .enumerate()
        .filter(|(_, axis)| axis.size > 1 && axis.stride != 0);
    let Some((at, axis)) = axes.max_by_key(|(_, axis)| reach(axis)) else {
        return Err(Error::internal("an element is more than the device binds"));
    };
    let half = axis.size / 2;
    for (start, len) in [(0, half), (half, axis.size - half)] {
        let part = |view: &View| view.clone().sliced(at, i64::from(start), len, 1);
        put_boxes(e, &part(from), &part(to))?;
    }
    Ok(())
}

fn put_once(e: &mut Encoder<'_>, from: &View, to: &View) -> Result<(), Error> {
    let ((source, start), (target, first)) = (bound(e, from), bound(e, to));
    let mut pairs: Vec<Pair> = Vec::with_capacity(from.axes.len());
    for (a, b) in from.axes.iter().zip(&to.axes).filter(|(a, _)| a.size != 1) {
        let (size, inner) = (a.size, i64::from(a.size));
        let joins = |outer: &&mut Pair| outer.from == a.stride * inner && outer.to == b.stride * inner;
        let pair = Pair {
            size,
            from: a.stride,
            to: b.stride,
        };
        match pairs.last_mut().filter(joins) {
            Some(outer) => {
                *outer = Pair {
                    size: outer.size * size,
                    ..pair
                }
            }
            None => pairs.push(pair),
        }
    }
    let mut kind = kind(to.source.dtype);
    let by = widening(kind, |by| match pairs.split_last() {
        Some((last, outer)) => {
            let whole = |n: i64| n % by == 0;
            (last.from, last.to) == (1, 1)
                && whole(i64::from(last.size))
                && whole(start)
                && whole(first)
                && outer.iter().all(|p| whole(p.from) && whole(p.to))
        }
        None => false,
    });
    kind += by;
    if let Some((last, outer)) = pairs.split_last_mut() {
        last.size >>= by;
        for pair in outer {
            pair.from >>= by;
            pair.to >>= by;
        }
    }
    let count = pairs.iter().map(|p| p.size).product();
    let mut params = vec![
        count,
        kind,
        (start >> by) as u32,
        (first >> by) as u32,
        pairs.len() as u32,
    ];
    params.extend(pairs.iter().flat_map(|p| [p.size, p.from as u32, p.to as u32]));
    let kernel = match kind {
        WIDE => &kernels::PART_WIDE,
        2 | 3 => &kernels::PART_WORDS,
        _ => &kernels::PART_LANES,
    };
    e.dispatch(kernel, &[source, target.written()], &params, grid(count, 64))
}

fn slice_scatter(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let src = view_of(e, node, 1)?;
    let out = copied(node, e)?;
    let at = node.dim(2, out.dims.len())?;
    let bound = |i| Ok::<_, Error>(node.optional_scalar(i)?.map(|s| s.int()));
    let step = node.int(5)?;
    let size = out.dims.get(at).copied().unwrap_or(0);
    let (start, len) = slice_bounds(size, bound(3)?, bound(4)?, step)?;
    put(e, &src, &View::of(&out).sliced(at, start, len, step))
}

fn select_scatter(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let mut src = view_of(e, node, 1)?;
    let out = copied(node, e)?;
    let at = node.dim(2, out.dims.len())?;
    let index = position(node.int(3)?, out.dims.get(at).copied().unwrap_or(0))?;
    let at_most = at.min(src.axes.len());
    src.axes.insert(at_most, Axis { size: 1, stride: 0 });
    put(e, &src, &View::of(&out).sliced(at, index, 1, 1))
}

fn diagonal_scatter(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let src = view_of(e, node, 1)?;
    let out = copied(node, e)?;
    let rank = out.dims.len();
    let place = (node.int(2)?, node.dim(3, rank)?, node.dim(4, rank)?);
    let len = src.axes.last().map_or(0, |a| a.size);
    put(e, &src, &diagonal_of(View::of(&out), place, len)?)
}
