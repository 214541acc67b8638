//! Views, orders of dimensions, copies of the same elements: no arithmetic, and mostly no node.
//!
//! A permutation is no node where its result is one of the two layouts of what is there already. Other sizes need row-major elements; where
//! only the channels, or nothing but them, are more than 1, both layouts are that (`Builder::read`).

use super::common::{moved, same};
use crate::builder::{Builder, Layout, order};
use crate::caps::{Operator, Refusal};
use crate::graph::{Param, TensorId};
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
    operator!("aten::view", resized),
    operator!("aten::_unsafe_view", resized),
    operator!("aten::reshape", resized),
    operator!("aten::view_copy", resized),
    operator!("aten::flatten.using_ints", resized),
    operator!("aten::unflatten.int", resized),
    operator!("aten::squeeze", resized),
    operator!("aten::squeeze.dim", resized),
    operator!("aten::squeeze.dims", resized),
    operator!("aten::squeeze_copy.dims", resized),
    operator!("aten::unsqueeze", resized),
    operator!("aten::unsqueeze_copy", resized),
    operator!("aten::view_as", resized),
    operator!("aten::reshape_as", resized),
    operator!("aten::permute", |n, b| {
        let rank = b.image().value(n.value(0)?).rank();
        let dims = n.ints(1)?;
        let dims: Result<Vec<usize>, _> = dims.into_iter().map(|d| wrap(d, rank)).collect();
        permuted(n, b, &dims?)
    }),
    operator!("aten::permute_copy", |n, b| {
        let rank = b.image().value(n.value(0)?).rank();
        let dims = n.ints(1)?;
        let dims: Result<Vec<usize>, _> = dims.into_iter().map(|d| wrap(d, rank)).collect();
        permuted(n, b, &dims?)
    }),
    operator!("aten::transpose.int", |n, b| swapped(n, b, |n, rank| Ok((
        n.dim(1, rank)?,
        n.dim(2, rank)?
    )))),
    operator!("aten::transpose_copy.int", |n, b| swapped(n, b, |n, rank| Ok((
        n.dim(1, rank)?,
        n.dim(2, rank)?
    )))),
    operator!("aten::swapaxes", |n, b| swapped(n, b, |n, rank| Ok((
        n.dim(1, rank)?,
        n.dim(2, rank)?
    )))),
    operator!("aten::t", |n, b| swapped(n, b, |_, rank| Ok((
        0,
        rank.saturating_sub(1)
    )))),
    operator!("aten::expand", expanded),
    operator!("aten::expand_copy", expanded),
    operator!("aten::expand_as", expanded),
    operator!("aten::repeat", repeated),
    operator!("aten::tile", repeated),
    operator!("aten::clone", copied),
    operator!("aten::alias", copied),
    operator!("aten::alias_copy", copied),
    operator!("aten::detach", copied),
    operator!("aten::detach_copy", copied),
    operator!("aten::contiguous", copied),
    operator!("aten::lift_fresh_copy", copied),
];

/// The same elements as they lie.
pub fn copied(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    same(b, read, out, layout)
}

/// The same elements in their order under other sizes.
fn resized(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let read = b.read(x, Layout::RowMajor)?;
    same(b, read, out, Layout::RowMajor)
}

fn swapped(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    which: fn(&Node<'_>, usize) -> Result<(usize, usize), Refusal>,
) -> Result<(), Refusal> {
    let rank = b.image().value(node.value(0)?).rank();
    let mut dims: Vec<usize> = (0..rank).collect();
    if rank > 0 {
        let (first, second) = which(node, rank)?;
        dims.swap(first, second);
    }
    permuted(node, b, &dims)
}

/// The transposition that makes a result in a layout of a tensor in a layout.
fn turn(dims: &[usize], from: Layout, to: Layout) -> Vec<u32> {
    let rank = dims.len();
    let lies = |layout: Layout| match layout {
        Layout::RowMajor => (0..rank as u32).collect(),
        Layout::ChannelsLast => order(rank, Layout::ChannelsLast),
    };
    let (there, wanted): (Vec<u32>, Vec<u32>) = (lies(from), lies(to));
    // Place `k` of the result is its dimension `wanted[k]`, which is dimension `dims[wanted[k]]` of the input.
    let place = |dim: usize| there.iter().position(|d| *d as usize == dim).unwrap_or(0) as u32;
    wanted.iter().map(|d| place(dims[*d as usize])).collect()
}

fn permuted(node: &Node<'_>, b: &mut Builder<'_>, dims: &[usize]) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let there = b.layout_of(x);
    // Channels last as it is there, or as it may be written.
    let still = |turn: &[u32]| turn.iter().enumerate().all(|(i, from)| i as u32 == *from);
    for to in [Layout::RowMajor, Layout::ChannelsLast] {
        if still(&turn(dims, there, to)) {
            let read = b.read(x, there)?;
            return same(b, read, out, to);
        }
    }
    let read = b.read(x, there)?;
    let order = turn(dims, there, Layout::RowMajor);
    let turned = b.transposed(read, &order);
    same(b, turned, out, Layout::RowMajor)
}

/// Copies along dimensions.
pub fn tiled(b: &mut Builder<'_>, read: TensorId, out: ValueIndex, multiples: &[u32]) -> Result<(), Refusal> {
    if multiples.iter().all(|m| *m == 1) {
        return same(b, read, out, Layout::RowMajor);
    }
    moved(b, &[read], out, Layout::RowMajor, |b, read, written| {
        b.op("Tile", vec![("multiples", Param::list(multiples))], read, &[written]);
        Ok(())
    })
}

/// The sizes of a value with leading dimensions of 1.
fn widened(b: &mut Builder<'_>, x: ValueIndex, rank: usize) -> Result<(TensorId, Vec<u32>), Refusal> {
    let own = b.logical_dims(x)?;
    let mut dims = vec![1; rank.saturating_sub(own.len())];
    dims.extend(own);
    if dims.is_empty() {
        dims.push(1);
    }
    let read = b.read(x, Layout::RowMajor)?;
    Ok((b.reshaped(read, &dims)?, dims))
}

fn expanded(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let sizes = b.dims(out)?;
    let (read, dims) = widened(b, x, b.image().value(out).rank())?;
    let multiples: Vec<u32> = dims.iter().zip(&sizes).map(|(from, to)| to / from).collect();
    tiled(b, read, out, &multiples)
}

fn repeated(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let sizes = b.dims(out)?;
    let (read, dims) = widened(b, x, b.image().value(out).rank())?;
    let multiples: Vec<u32> = dims.iter().zip(&sizes).map(|(from, to)| to / from).collect();
    tiled(b, read, out, &multiples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_between_layouts_are_no_node() {
        use Layout::{ChannelsLast, RowMajor};
        let still = [0, 1, 2, 3];
        // What lies channels last, permuted to it by hand, is row-major; and the other way round.
        assert_eq!(turn(&[0, 2, 3, 1], ChannelsLast, RowMajor), still);
        assert_eq!(turn(&[0, 3, 1, 2], RowMajor, ChannelsLast), still);
        assert_eq!(turn(&[0, 1, 2, 3], ChannelsLast, ChannelsLast), still);
        assert_eq!(turn(&[0, 2, 3, 1], RowMajor, RowMajor), [0, 2, 3, 1]);
        assert_eq!(turn(&[0, 1, 2, 3], ChannelsLast, RowMajor), [0, 3, 1, 2]);
    }
}
