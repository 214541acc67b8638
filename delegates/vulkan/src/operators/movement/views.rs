//! Views that keep the order along each dimension. Most show memory as it is; the others are made contiguous.

use super::{Axis, View, as_it_lies, movable, moves, show, view_of};
use crate::caps::{self, Operator, Refusal};
use crate::encoder::Encoder;
use crate::node::{Node, wrap};
use crate::operators::movement::edges::slice_channels_last;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::Error;
use delegraph_sdk::image::Source;

type Encode = fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>;

/// A row of the table whose tensors are all of one type.
pub const fn row(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: moves,
        encode,
    }
}

/// A row of the table whose other tensors only give sizes.
const fn first(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: |node| {
            movable(node)?;
            match caps::dtype(node, 0) == caps::output_dtype(node) {
                true => Ok(()),
                false => Err(Refusal::dtype(format!("`{}` of different types", node.op()))),
            }
        },
        encode,
    }
}

/// The operators that show a tensor in other sizes, in another order of dimensions, stretched, or in parts.
pub const OPERATORS: &[Operator] = &[
    row("aten::view", reshape),
    row("aten::view_copy", reshape),
    row("aten::_unsafe_view", reshape),
    row("aten::_reshape_alias", reshape),
    row("aten::reshape", reshape),
    row("aten::_reshape_copy", reshape),
    first("aten::reshape_as", reshape),
    first("aten::view_as", reshape),
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
    first("aten::expand_as", expand),
    row("aten::broadcast_tensors", broadcast_all),
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
    row("aten::tensor_split.sections", split),
    row("aten::split_copy.Tensor", split),
    row("aten::split.sizes", split),
    row("aten::split_with_sizes", split),
    row("aten::split_with_sizes_copy", split),
    row("aten::unsafe_split.Tensor", split),
    row("aten::unsafe_split_with_sizes", split),
    row("aten::chunk", split),
    row("aten::unsafe_chunk", split),
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
pub(super) fn shown(node: &Node<'_>, e: &mut Encoder<'_>, view: &View) -> Result<(), Error> {
    show(e, node.output(0)?, view)
}

/// True for operators that [`permuted`] may look behind.
pub fn joins_dimensions(op: &str) -> bool {
    matches!(
        op,
        "aten::view" | "aten::reshape" | "aten::_unsafe_view" | "aten::flatten.using_ints"
    )
}

/// The tensor at argument 0 as a view of what it was before height and width were joined, where that lies channels last.
fn before_joined(node: &Node<'_>, e: &Encoder<'_>) -> Result<Option<View>, Error> {
    let (image, value) = (node.view().image(), node.value(0)?);
    let Source::Node(maker) = image.value(value).source() else {
        return Ok(None);
    };
    let maker = image.node(maker);
    let before = maker.arg(0).value().filter(|_| joins_dimensions(maker.op()));
    let Some(x) = before.and_then(|v| e.found(v, Layout::Nhwc4)) else {
        return Ok(None);
    };
    let view = View::of(&x);
    let ([n, c, h, w], dims) = (&view.axes[..], e.dims(value)?) else {
        return Ok(None);
    };
    let plane = Axis {
        size: h.size * w.size,
        stride: w.stride,
    };
    if dims != [n.size, c.size, plane.size] {
        return Ok(None);
    }
    let axes = vec![*n, *c, plane];
    Ok(Some(View { axes, ..view }))
}

fn permuted(node: &Node<'_>, e: &mut Encoder<'_>, order: &[usize]) -> Result<(), Error> {
    let view = match before_joined(node, e)? {
        Some(view) => view,
        None => view_of(e, node, 0)?,
    };
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

pub(super) fn dims_of(list: &[i64], rank: usize) -> Result<Vec<usize>, Error> {
    list.iter().map(|d| wrap(*d, rank)).collect()
}

/// Number of dimensions of the tensor at argument 0.
pub(super) fn rank(node: &Node<'_>, e: &Encoder<'_>) -> Result<usize, Error> {
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
    expanded(node, e, 0)
}

fn expanded(node: &Node<'_>, e: &mut Encoder<'_>, argument: usize) -> Result<(), Error> {
    let dims = e.dims(node.output(0)?)?;
    let view = broadcast(view_of(e, node, argument)?, &dims)?;
    shown(node, e, &view)
}

/// Each tensor of a list, stretched to the sizes that they have together.
fn broadcast_all(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    for (i, value) in node.values(0)?.into_iter().enumerate() {
        let out = node.output(i)?;
        let (view, dims) = (View::of(&as_it_lies(e, value)?), e.dims(out)?);
        show(e, out, &broadcast(view, &dims)?)?;
    }
    Ok(())
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
