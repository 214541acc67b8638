//! Views that reorder elements within dimensions: reversed, on diagonals, in windows, from channels to space and back.

use super::parts::put;
use super::views::{broadcast, dims_of, rank, row, shown};
use super::{Axis, View, as_it_lies, moves, show, view_of};
use crate::caps::{Operator, Refusal};
use crate::encoder::Encoder;
use crate::node::{Node, Scalar, wrap};
use crate::operators::create::filled;
use delegraph_sdk::Error;
use delegraph_sdk::image::ArgView;

/// The operators that reorder elements within dimensions.
pub const OPERATORS: &[Operator] = &[
    row("aten::flip", flip),
    row("aten::fliplr", |node, e| flipped(node, e, &[1])),
    row("aten::flipud", |node, e| flipped(node, e, &[0])),
    row("aten::diagonal", diagonal),
    row("aten::diagonal_copy", diagonal),
    row("aten::unfold", unfold),
    row("aten::unfold_copy", unfold),
    row("aten::as_strided", as_strided),
    row("aten::as_strided_copy", as_strided),
    row("aten::pixel_shuffle", pixel_shuffle),
    row("aten::pixel_unshuffle", pixel_unshuffle),
    row("aten::channel_shuffle", channel_shuffle),
    row("aten::native_channel_shuffle", channel_shuffle),
    row("aten::repeat_interleave.self_int", repeat_interleave),
    row("aten::rot90", rotate),
    row("aten::diag_embed", diagonal_embed),
    Operator {
        name: "aten::meshgrid.indexing",
        accept: |node| {
            moves(node)?;
            match node.arg(1) {
                ArgView::Str("ij" | "xy") => Ok(()),
                other => Err(Refusal::attribute(format!("`indexing` is `{other:?}`"))),
            }
        },
        encode: |node, e| grid_of(node, e, node.str(1)? == "xy"),
    },
    row("aten::meshgrid", |node, e| grid_of(node, e, false)),
];

fn flip(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let along = dims_of(&node.ints(1)?, rank(node, e)?)?;
    flipped(node, e, &along)
}

fn flipped(node: &Node<'_>, e: &mut Encoder<'_>, along: &[usize]) -> Result<(), Error> {
    let mut view = view_of(e, node, 0)?;
    for d in along {
        view = reversed(view, *d);
    }
    shown(node, e, &view)
}

fn reversed(view: View, at: usize) -> View {
    match view.axes.get(at).map(|a| a.size).filter(|s| *s > 0) {
        Some(size) => view.sliced(at, i64::from(size) - 1, size, -1),
        None => view,
    }
}

/// The view of a diagonal of a tensor; the graph says how long it is.
///
/// # Errors
/// There are not two dimensions.
pub fn diagonal_of(mut view: View, (offset, a, b): (i64, usize, usize), len: u32) -> Result<View, Error> {
    let (Some(first), Some(second)) = (view.axes.get(a).copied(), view.axes.get(b).copied()) else {
        return Err(Error::invalid("a diagonal needs two dimensions"));
    };
    if a == b {
        return Err(Error::invalid("a diagonal needs two dimensions"));
    }
    view.start += offset.max(0) * second.stride - offset.min(0) * first.stride;
    let stride = first.stride + second.stride;
    view.axes = (0..view.axes.len())
        .filter(|d| *d != a && *d != b)
        .map(|d| view.axes[d])
        .collect();
    view.axes.push(Axis { size: len, stride });
    Ok(view)
}

fn diagonal(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let view = view_of(e, node, 0)?;
    let rank = view.axes.len();
    let place = (node.int(1)?, node.dim(2, rank)?, node.dim(3, rank)?);
    let len = e.dims(node.output(0)?)?.last().copied().unwrap_or(0);
    shown(node, e, &diagonal_of(view, place, len)?)
}

/// Windows of a dimension, as a new last one.
fn unfold(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let mut view = view_of(e, node, 0)?;
    let dims = e.dims(node.output(0)?)?;
    let (Some(window), step) = (dims.last(), node.int(3)?) else {
        return Err(Error::invalid("windows need a dimension"));
    };
    if view.axes.is_empty() {
        let size = *window;
        view.axes.push(Axis { size, stride: 1 });
        return shown(node, e, &view);
    }
    let at = node.dim(1, view.axes.len())?;
    let axis = view.axes[at];
    view.axes[at] = Axis {
        size: dims.get(at).copied().unwrap_or(0),
        stride: axis.stride * step,
    };
    view.axes.push(Axis { size: *window, ..axis });
    shown(node, e, &view)
}

/// Tensors are contiguous here, so that strides mean what they say.
fn as_strided(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let source = e.input(node, 0)?;
    let (sizes, strides) = (e.dims(node.output(0)?)?, node.ints(2)?);
    let start = node.optional_scalar(3)?.map_or(0, |s| s.int());
    if sizes.len() != strides.len() {
        return Err(Error::invalid("there are not as many strides as sizes"));
    }
    let axes = sizes
        .into_iter()
        .zip(strides)
        .map(|(size, stride)| Axis { size, stride });
    let axes = axes.collect();
    shown(node, e, &View { source, start, axes })
}

/// The last three dimensions of a view, and those before them.
fn planes(view: &View) -> Result<(Vec<Axis>, [Axis; 3]), Error> {
    match view.axes.as_slice() {
        [front @ .., c, h, w] => Ok((front.to_vec(), [*c, *h, *w])),
        _ => Err(Error::invalid("three dimensions at least")),
    }
}

/// A dimension in two: which block, and where in it.
fn blocks(axis: Axis, block: u32) -> [Axis; 2] {
    let outer = Axis {
        size: axis.size / block,
        stride: axis.stride * i64::from(block),
    };
    [outer, Axis { size: block, ..axis }]
}

fn factor(node: &Node<'_>) -> Result<u32, Error> {
    let factor = node.int(1)?;
    u32::try_from(factor)
        .ok()
        .filter(|f| *f > 0)
        .ok_or_else(|| Error::invalid(format!("a factor of {factor}")))
}

/// Channels become space: `[.., c*r*r, h, w]` to `[.., c, h*r, w*r]`.
fn pixel_shuffle(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (mut view, r) = (view_of(e, node, 0)?, factor(node)?);
    let (mut axes, [c, h, w]) = planes(&view)?;
    let [c, x] = blocks(c, r);
    let [c, y] = blocks(c, r);
    axes.extend([c, h, y, w, x]);
    view.axes = axes;
    shown(node, e, &view)
}

/// The way back of [`pixel_shuffle`].
fn pixel_unshuffle(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (mut view, r) = (view_of(e, node, 0)?, factor(node)?);
    let (mut axes, [c, h, w]) = planes(&view)?;
    let ([h, y], [w, x]) = (blocks(h, r), blocks(w, r));
    axes.extend([c, y, x, h, w]);
    view.axes = axes;
    shown(node, e, &view)
}

/// Deals the channels out over groups.
fn channel_shuffle(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (mut view, groups) = (view_of(e, node, 0)?, factor(node)?);
    let Some(axis) = view.axes.get(1).copied().filter(|a| a.size % groups == 0) else {
        return Err(Error::invalid("the channels do not fall into the groups"));
    };
    let [group, within] = blocks(axis, axis.size / groups);
    view.axes.splice(1..2, [within, group]);
    shown(node, e, &view)
}

/// Each element of a dimension so many times.
fn repeat_interleave(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let repeats = node.int(1)?;
    let repeats = u32::try_from(repeats).map_err(|_| Error::invalid(format!("{repeats} repeats")))?;
    let again = Axis {
        size: repeats,
        stride: 0,
    };
    let mut view = match node.optional_scalar(2)? {
        Some(dim) => {
            let mut view = view_of(e, node, 0)?;
            let at = wrap(dim.int(), view.axes.len())?;
            view.axes.insert((at + 1).min(view.axes.len()), again);
            view
        }
        None => {
            let flat = e.input(node, 0)?;
            let mut view = View::of(&flat.reshaped(&[flat.count()])?);
            view.axes.push(again);
            view
        }
    };
    if view.axes.iter().any(|a| a.size == 0) {
        view.axes = vec![Axis { size: 0, stride: 0 }];
    }
    shown(node, e, &view)
}

/// Quarters of a turn in the plane of two dimensions.
fn rotate(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let mut view = view_of(e, node, 0)?;
    let [a, b] = dims_of(&node.ints(2)?, view.axes.len())?[..] else {
        return Err(Error::invalid("a plane has two dimensions"));
    };
    let quarters = node.int(1)?.rem_euclid(4);
    let along: &[usize] = match quarters {
        1 => &[b],
        2 => &[a, b],
        3 => &[a],
        _ => &[],
    };
    for d in along {
        view = reversed(view, *d);
    }
    if quarters % 2 == 1 && a.max(b) < view.axes.len() {
        view.axes.swap(a, b);
    }
    shown(node, e, &view)
}

/// The last dimension as a diagonal of two new ones, zeros elsewhere.
fn diagonal_embed(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let view = view_of(e, node, 0)?;
    let out = filled(node, e, Scalar::Int(0))?;
    let rank = out.dims.len();
    let place = (node.int(1)?, node.dim(2, rank)?, node.dim(3, rank)?);
    let len = view.axes.last().map_or(0, |a| a.size);
    put(e, &view, &diagonal_of(View::of(&out), place, len)?)
}

/// Vectors as coordinates of the points of a grid. `swapped`: the first two dimensions of the grid change places.
fn grid_of(node: &Node<'_>, e: &mut Encoder<'_>, swapped: bool) -> Result<(), Error> {
    for (i, value) in node.values(0)?.into_iter().enumerate() {
        let out = node.output(i)?;
        let (x, dims) = (View::of(&as_it_lies(e, value)?), e.dims(out)?);
        let at = match (swapped && dims.len() > 1, i) {
            (true, 0) => 1,
            (true, 1) => 0,
            _ => i,
        };
        let one = Axis { size: 1, stride: 0 };
        let mut axes = vec![one; dims.len()];
        if let (Some(slot), Some(axis)) = (axes.get_mut(at), x.axes.first()) {
            *slot = *axis;
        }
        show(e, out, &broadcast(View { axes, ..x }, &dims)?)?;
    }
    Ok(())
}
