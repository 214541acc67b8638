//! Windows on tensors that reach beyond their edges: padding, and what wraps around.

use super::{Axis, View, WIDE, filling, kind, units, widening};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::tensor::{Layout, Tensor, checked_count};
use delegraph_sdk::Error;
use delegraph_sdk::image::ValueIndex;

/// What stands beyond an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// A number.
    Filling = 0,
    /// The elements before the edge, backwards.
    Mirror = 1,
    /// The element at the edge.
    Last = 2,
    /// The elements of the other end.
    Wrap = 3,
}

/// A dimension of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// How many.
    pub size: u32,
    /// Elements of the source from one to the next.
    pub stride: i64,
    /// How many stand before the first of the source; negative: how many of it are left out.
    pub before: i64,
    /// How many the source has.
    pub extent: u32,
    /// What stands beyond.
    pub beyond: Beyond,
}

impl Edge {
    /// A dimension as it is.
    pub fn plain(axis: Axis) -> Edge {
        Edge {
            size: axis.size,
            stride: axis.stride,
            before: 0,
            extent: axis.size,
            beyond: Beyond::Filling,
        }
    }

    /// True if nothing stands beyond its ends, and nothing is left out.
    pub fn is_plain(&self) -> bool {
        self.before == 0 && self.extent == self.size
    }

    /// True if runs of so many elements can be taken as one.
    fn comes_in(&self, run: i64) -> bool {
        let whole = |n: i64| n % run == 0;
        let aligned = whole(self.before) && whole(i64::from(self.extent));
        whole(i64::from(self.size)) && (self.is_plain() || aligned && self.keeps_order())
    }

    fn keeps_order(&self) -> bool {
        matches!(self.beyond, Beyond::Filling | Beyond::Wrap)
    }

    fn check(&self) -> Result<(), Error> {
        let after = i64::from(self.size) - self.before - i64::from(self.extent);
        let enough = match self.beyond {
            Beyond::Filling => true,
            _ if self.before <= 0 && after <= 0 => true,
            Beyond::Mirror => self.before.max(after) < i64::from(self.extent),
            _ => self.extent > 0,
        };
        match enough {
            true => Ok(()),
            false => Err(Error::invalid("there are not so many elements to pad with")),
        }
    }
}

/// Edges without those of size 1, neighbours joined where they are one.
fn compact(edges: &[Edge]) -> Vec<Edge> {
    let mut kept: Vec<Edge> = Vec::with_capacity(edges.len());
    for edge in edges.iter().filter(|a| a.size != 1 || !a.is_plain()) {
        let joins = |outer: &Edge| {
            edge.is_plain()
                && (outer.is_plain() || outer.keeps_order())
                && outer.stride == edge.stride * i64::from(edge.size)
        };
        match kept.last_mut().filter(|outer| joins(outer)) {
            Some(outer) => {
                *outer = Edge {
                    size: outer.size.saturating_mul(edge.size),
                    stride: edge.stride,
                    before: outer.before * i64::from(edge.size),
                    extent: outer.extent.saturating_mul(edge.size),
                    beyond: outer.beyond,
                }
            }
            None => kept.push(*edge),
        }
    }
    kept
}

/// Writes the elements of a window to a new tensor `out`, in order. `start`: the place of the source's first element. `bits`: the filling.
///
/// # Errors
/// There is not enough to pad with, or the device cannot.
pub fn window(
    e: &mut Encoder<'_>,
    (source, start): (&Tensor, i64),
    edges: &[Edge],
    bits: u64,
    out: &Tensor,
) -> Result<(), Error> {
    let count = checked_count(&edges.iter().map(|a| a.size).collect::<Vec<_>>())?;
    if count != out.stored() {
        return Err(Error::invalid(format!(
            "{count} elements do not make up {:?}",
            out.dims
        )));
    }
    edges.iter().try_for_each(Edge::check)?;
    if count == 0 {
        return Ok(());
    }
    let mut start = start;
    let mut edges = compact(edges);
    let mut kind = kind(out.dtype);
    let filling = filling(bits, kind);
    let by = widening(kind, |by| match edges.split_last() {
        Some((last, outer)) => {
            last.stride == 1 && last.comes_in(by) && start % by == 0 && outer.iter().all(|a| a.stride % by == 0)
        }
        None => false,
    });
    kind += by;
    start >>= by;
    if let Some((last, outer)) = edges.split_last_mut() {
        outer.iter_mut().for_each(|a| a.stride >>= by);
        last.size >>= by;
        last.extent >>= by;
        last.before >>= by;
    }
    let count = count >> by;
    let mut params = vec![count, kind, filling[0], filling[1], start as u32, edges.len() as u32];
    params.extend(
        edges
            .iter()
            .flat_map(|a| [a.size, a.stride as u32, a.before as u32, a.extent, a.beyond as u32]),
    );
    let kernel = if kind == WIDE {
        &kernels::EDGE_WIDE
    } else {
        &kernels::EDGE_WORDS
    };
    let groups = grid(units(count, kind), 64);
    e.dispatch(kernel, &[read(source), write(out)], &params, groups)
}

/// Some elements of a dimension of a tensor that lies channels last, as a value that does too.
///
/// # Errors
/// As [`window`].
pub fn slice_channels_last(
    e: &mut Encoder<'_>,
    value: ValueIndex,
    x: &Tensor,
    at: usize,
    (start, len, step): (i64, u32, i64),
) -> Result<(), Error> {
    let dims = e.dims(value)?;
    let view = View::of(x).sliced(at, start, len, step);
    let [n, c, h, w] = view.axes[..] else {
        return Err(Error::internal("only tensors of four dimensions lie channels last"));
    };
    // Channels of the padding are 0.
    let channels = Edge {
        size: c.size.next_multiple_of(4),
        ..Edge::plain(c)
    };
    let [mut n, h, w] = [n, h, w].map(Edge::plain);
    if c.size == 0 {
        n.size = 0;
    }
    let first = u64::try_from(view.start).unwrap_or(0) * u64::from(x.element());
    if at == 0 && step == 1 && first % 256 == 0 && len > 0 && !dims.contains(&0) {
        let tensor = Tensor {
            offset: x.offset + first,
            dims,
            ..x.clone()
        };
        e.set(value, tensor);
        return Ok(());
    }
    // The padding of the source takes the place of a filling, where it is all that is left.
    let channels = match at != 1 {
        true => Edge {
            extent: channels.size,
            ..channels
        },
        false => channels,
    };
    let out = e.make(x.dtype, &dims, Layout::Nhwc4)?;
    window(e, (x, view.start), &[n, h, w, channels], 0, &out)?;
    e.set(value, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_dimensions_join_what_is_padded() {
        let plain = |size, stride| Edge::plain(Axis { size, stride });
        let padded = Edge {
            size: 5,
            before: 1,
            ..plain(3, 8)
        };
        let joined = Edge {
            size: 40,
            before: 8,
            extent: 24,
            stride: 1,
            ..padded
        };
        assert_eq!(compact(&[plain(1, 24), padded, plain(8, 1)]), [joined]);
        assert!(joined.comes_in(4) && !joined.comes_in(16));
        let mirrored = Edge {
            beyond: Beyond::Mirror,
            ..padded
        };
        assert_eq!(compact(&[mirrored, plain(8, 1)]).len(), 2);
    }

    #[test]
    fn mirrors_need_what_they_show() {
        let edge = Edge {
            size: 6,
            stride: 1,
            before: 2,
            extent: 3,
            beyond: Beyond::Mirror,
        };
        assert!(edge.check().is_ok());
        assert!(Edge { before: 3, ..edge }.check().is_err());
        assert!(
            Edge {
                extent: 0,
                before: 1,
                beyond: Beyond::Wrap,
                ..edge
            }
            .check()
            .is_err()
        );
    }
}
