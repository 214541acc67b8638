//! Views. Most show memory as it is; the others are made contiguous.

use super::{Axis, View, as_it_lies, movable, moves, show, view_of};
use crate::caps::Operator;
use crate::encoder::Encoder;
use crate::node::{Node, wrap};
use crate::operators::movement::edges::slice_channels_last;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::Error;

type Encode = fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>;

/// A row of the table whose tensors are all of one type.
pub const fn row(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: moves,
        encode,
    }
}

/// The operators that show or reorder the elements of one tensor.
pub const OPERATORS: &[Operator] = &[
    row("aten::view", reshape),
    row("aten::view_copy", reshape),
    row("aten::_unsafe_view", reshape),
    row("aten::_reshape_alias", reshape),
    row("aten::reshape", reshape),
    row("aten::reshape_as", reshape),
    row("aten::view_as", reshape),
    row("aten::flatten.using_ints", reshape),
    row("aten::unflatten.int", reshape),
    row("aten::ravel", reshape),
    row("aten::squeeze", reshape),
    row("aten::squeeze.dim", reshape),
    row("aten::squeeze.dims", reshape),
    row("aten::squeeze_copy", reshape),
    row("aten::squeeze_copy.dim", reshape),
    row("aten::squeeze_copy.dims", reshape),
    row("aten::unsqueeze", reshape),
    row("aten::unsqueeze_copy", reshape),
    row("aten::atleast_1d", reshape),
    row("aten::atleast_2d", reshape),
    row("aten::atleast_3d", reshape),
    Operator {
        name: "aten::view.dtype",
        accept: movable,
        encode: reinterpret,
    },
    Operator {
        name: "aten::view_copy.dtype",
        accept: movable,
        encode: reinterpret,
    },
    row("aten::alias_copy", same),
    row("aten::detach_copy", same),
    row("aten::lift", same),
    row("aten::lift_fresh", same),
    row("aten::contiguous", same),
    row("aten::resolve_conj", same),
    row("aten::resolve_neg", same),
    row("dim_order_ops::_clone_dim_order", same),
    row("aten::permute", permute),
    row("aten::permute_copy", permute),
    row("aten::movedim.intlist", move_dims),
    row("aten::movedim.int", move_dims),
    row("aten::transpose.int", transpose),
    row("aten::transpose_copy.int", transpose),
    row("aten::swapaxes", transpose),
    row("aten::swapdims", transpose),
    row("aten::t", reverse),
    row("aten::t_copy", reverse),
    row("aten::numpy_T", reverse),
    row("aten::mT", |node, e| transposed(node, e, -2, -1)),
    row("aten::expand", expand),
    row("aten::expand_copy", expand),
    row("aten::expand_as", expand),
    row("aten::broadcast_to", expand),
    row("aten::slice.Tensor", slice),
    row("aten::slice_copy.Tensor", slice),
    row("aten::narrow", narrow),
    row("aten::narrow_copy", narrow),
    row("aten::select.int", select),
    row("aten::select_copy.int", select),
    row("aten::unbind.int", unbind),
    row("aten::unbind_copy.int", unbind),
    row("aten::split.Tensor", split),
    row("aten::split_copy.Tensor", split),
    row("aten::split.sizes", split),
    row("aten::split_with_sizes", split),
    row("aten::split_with_sizes_copy", split),
    row("aten::unsafe_split.Tensor", split),
    row("aten::unsafe_split_with_sizes", split),
    row("aten::chunk", split),
    row("aten::unsafe_chunk", split),
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
];

/// The same elements in order: the graph says in which sizes.
fn reshape(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let out = node.output(0)?;
    let (x, dims) = (node.value(0)?, e.dims(out)?);
    if dims == e.dims(x)? {
        return same(node, e);
    }
    let tensor = e.input(node, 0)?.reshaped(&dims)?;
    e.set(out, tensor);
    Ok(())
}

/// The same bytes as another type.
fn reinterpret(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let out = node.output(0)?;
    let source = e.input(node, 0)?;
    let tensor = Tensor {
        dtype: e.dtype(out)?,
        dims: e.dims(out)?,
        ..source.clone()
    };
    if tensor.bytes() != source.bytes() {
        return Err(Error::invalid("another type does not fill the same bytes"));
    }
    e.set(out, tensor);
    Ok(())
}

fn same(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let tensor = as_it_lies(e, node.value(0)?)?;
    e.set(node.output(0)?, tensor);
    Ok(())
}

/// Shows a view as the first output.
fn shown(node: &Node<'_>, e: &mut Encoder<'_>, view: &View) -> Result<(), Error> {
    show(e, node.output(0)?, view)
}

fn permuted(node: &Node<'_>, e: &mut Encoder<'_>, order: &[usize]) -> Result<(), Error> {
    let view = view_of(e, node, 0)?;
    let mut seen = vec![false; view.axes.len()];
    order.iter().for_each(|d| seen[*d] = true);
    if order.len() != seen.len() || seen.contains(&false) {
        return Err(Error::invalid(format!(
            "{order:?} is no order of {} dimensions",
            seen.len()
        )));
    }
    shown(node, e, &view.permuted(order))
}

fn dims_of(list: &[i64], rank: usize) -> Result<Vec<usize>, Error> {
    list.iter().map(|d| wrap(*d, rank)).collect()
}

/// Number of dimensions of the tensor at argument 0.
fn rank(node: &Node<'_>, e: &Encoder<'_>) -> Result<usize, Error> {
    Ok(e.dims(node.value(0)?)?.len())
}

fn permute(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let order = dims_of(&node.ints(1)?, rank(node, e)?)?;
    permuted(node, e, &order)
}

/// Moves dimensions; the others keep their order.
fn move_dims(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let rank = rank(node, e)?;
    if rank == 0 {
        return same(node, e);
    }
    let (from, to) = (dims_of(&node.ints(1)?, rank)?, dims_of(&node.ints(2)?, rank)?);
    let mut rest = (0..rank).filter(|d| !from.contains(d));
    let mut order = Vec::with_capacity(rank);
    for d in 0..rank {
        let moved = to.iter().position(|t| *t == d).and_then(|i| from.get(i).copied());
        order.extend(moved.or_else(|| rest.next()));
    }
    permuted(node, e, &order)
}

fn transpose(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    transposed(node, e, node.int(1)?, node.int(2)?)
}

fn transposed(node: &Node<'_>, e: &mut Encoder<'_>, a: i64, b: i64) -> Result<(), Error> {
    let rank = rank(node, e)?;
    if rank == 0 {
        return same(node, e);
    }
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(wrap(a, rank)?, wrap(b, rank)?);
    permuted(node, e, &order)
}

fn reverse(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let order: Vec<usize> = (0..rank(node, e)?).rev().collect();
    permuted(node, e, &order)
}

/// A view with its dimensions of size 1 repeated, and more in front.
///
/// # Errors
/// The sizes do not fit.
pub fn broadcast(mut view: View, dims: &[u32]) -> Result<View, Error> {
    let misfit = || Error::invalid(format!("a tensor does not broadcast to {dims:?}"));
    let missing = dims.len().checked_sub(view.axes.len()).ok_or_else(misfit)?;
    for (axis, dim) in view.axes.iter_mut().zip(&dims[missing..]) {
        match (axis.size, *dim) {
            (have, want) if have == want => {}
            (1, want) => *axis = Axis { size: want, stride: 0 },
            _ => return Err(misfit()),
        }
    }
    let front = dims[..missing].iter().map(|size| Axis { size: *size, stride: 0 });
    view.axes.splice(0..0, front);
    Ok(view)
}

fn expand(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let dims = e.dims(node.output(0)?)?;
    let view = broadcast(view_of(e, node, 0)?, &dims)?;
    shown(node, e, &view)
}

/// A slice as Python takes it: `(start, length)`, whatever the bounds.
pub fn slice_bounds(size: u32, start: Option<i64>, end: Option<i64>, step: i64) -> Result<(i64, u32), Error> {
    let size = i64::from(size);
    let bound = |at: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(0, size);
    let (start, end) = (bound(start.unwrap_or(0)), bound(end.unwrap_or(i64::MAX)));
    if step < 1 {
        return Err(Error::invalid(format!("`step` is {step}, less than 1")));
    }
    Ok((start, ((end - start).max(0) as u64).div_ceil(step as u64) as u32))
}

/// Some elements of a dimension of argument 0 as an output. What lies channels last stays so.
fn part(
    node: &Node<'_>,
    e: &mut Encoder<'_>,
    output: usize,
    at: usize,
    (start, len, step): (i64, u32, i64),
) -> Result<(), Error> {
    let (out, x) = (node.output(output)?, as_it_lies(e, node.value(0)?)?);
    if x.layout == Layout::Nhwc4 {
        return slice_channels_last(e, out, &x, at, (start, len, step));
    }
    let view = View::of(&x).sliced(at, start, len, step);
    show(e, out, &view)
}

fn size_at(node: &Node<'_>, e: &Encoder<'_>, argument: usize) -> Result<(usize, u32), Error> {
    let dims = e.dims(node.value(0)?)?;
    let at = node.dim(argument, dims.len())?;
    let size = dims.get(at).copied();
    Ok((
        at,
        size.ok_or_else(|| Error::invalid("a number without dimensions has no slices"))?,
    ))
}

fn slice(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (at, size) = size_at(node, e, 1)?;
    let bound = |i| Ok::<_, Error>(node.optional_scalar(i)?.map(|s| s.int()));
    let step = node.int(4)?;
    let (start, len) = slice_bounds(size, bound(2)?, bound(3)?, step)?;
    part(node, e, 0, at, (start, len, step))
}

fn narrow(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (at, size) = size_at(node, e, 1)?;
    let (start, len) = (node.int(2)?, node.int(3)?);
    let start = if start < 0 { start + i64::from(size) } else { start };
    let len = u32::try_from(len).map_err(|_| Error::invalid(format!("`length` is {len}")))?;
    part(node, e, 0, at, (start, len, 1))
}

/// An index counted from the end where it is negative.
///
/// # Errors
/// It is out of range.
pub fn position(index: i64, size: u32) -> Result<i64, Error> {
    let counted = if index < 0 {
        index.saturating_add(i64::from(size))
    } else {
        index
    };
    match (0..i64::from(size)).contains(&counted) {
        true => Ok(counted),
        false => Err(Error::invalid(format!(
            "index {index} is out of range for {size} elements"
        ))),
    }
}

fn selected(node: &Node<'_>, e: &mut Encoder<'_>, output: usize, at: usize, index: i64) -> Result<(), Error> {
    let mut view = view_of(e, node, 0)?.sliced(at, index, 1, 1);
    view.axes.remove(at);
    show(e, node.output(output)?, &view)
}

fn select(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (at, size) = size_at(node, e, 1)?;
    selected(node, e, 0, at, position(node.int(2)?, size)?)
}

fn unbind(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (at, size) = size_at(node, e, 1)?;
    if node.view().outputs().iter().count() != size as usize {
        return Err(Error::invalid("there are other outputs than slices"));
    }
    (0..size as usize).try_for_each(|i| selected(node, e, i, at, i as i64))
}

/// Consecutive parts of a dimension; the graph says how long each is.
fn split(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (at, size) = size_at(node, e, 2)?;
    let mut start = 0;
    for i in 0..node.view().outputs().iter().count() {
        let len = e.dims(node.output(i)?)?.get(at).copied().unwrap_or(0);
        part(node, e, i, at, (start, len, 1))?;
        start += i64::from(len);
    }
    match start == i64::from(size) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "parts of {start} together do not make up {size}"
        ))),
    }
}

fn flip(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let along = dims_of(&node.ints(1)?, rank(node, e)?)?;
    flipped(node, e, &along)
}

fn flipped(node: &Node<'_>, e: &mut Encoder<'_>, along: &[usize]) -> Result<(), Error> {
    let mut view = view_of(e, node, 0)?;
    for d in along {
        if let Some(size) = view.axes.get(*d).map(|a| a.size).filter(|s| *s > 0) {
            view = view.sliced(*d, i64::from(size) - 1, size, -1);
        }
    }
    shown(node, e, &view)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_as_python_takes_them() {
        assert_eq!(slice_bounds(5, Some(-2), None, 1).unwrap(), (3, 2));
        assert_eq!(slice_bounds(5, Some(4), Some(2), 1).unwrap(), (4, 0));
        assert_eq!(slice_bounds(5, None, Some(i64::MAX), 2).unwrap(), (0, 3));
        assert!(slice_bounds(5, None, None, 0).is_err());
    }

    #[test]
    fn indices_count_from_the_end() {
        assert_eq!(position(-1, 3).unwrap(), 2);
        assert!(position(3, 3).is_err());
        assert!(position(-4, 3).is_err());
    }
}
