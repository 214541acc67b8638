//! Operators that pad, repeat and roll.

use super::edges::{Beyond, Edge, window};
use super::views::{broadcast, row};
use super::{Axis, View, as_it_lies, show, strided, view_of};
use crate::caps::{Operator, Refusal};
use crate::encoder::Encoder;
use crate::node::{Node, wrap};
use crate::operators::create::bits_of;
use crate::tensor::Layout;
use delegraph_sdk::Error;
use delegraph_sdk::image::{ArgView, NodeView};

/// The operators that pad, repeat and roll.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::pad",
        accept: accept_pad,
        encode: |node, e| {
            let beyond = match node.str(2)? {
                "reflect" => Beyond::Mirror,
                "replicate" => Beyond::Last,
                "circular" => Beyond::Wrap,
                _ => Beyond::Filling,
            };
            pad(node, e, beyond, 3)
        },
    },
    row("aten::constant_pad_nd", |node, e| pad(node, e, Beyond::Filling, 2)),
    row("aten::_pad_circular", |node, e| pad(node, e, Beyond::Wrap, 2)),
    row("aten::reflection_pad1d", |node, e| pad(node, e, Beyond::Mirror, 2)),
    row("aten::reflection_pad2d", |node, e| pad(node, e, Beyond::Mirror, 2)),
    row("aten::reflection_pad3d", |node, e| pad(node, e, Beyond::Mirror, 2)),
    row("aten::replication_pad1d", |node, e| pad(node, e, Beyond::Last, 2)),
    row("aten::replication_pad2d", |node, e| pad(node, e, Beyond::Last, 2)),
    row("aten::replication_pad3d", |node, e| pad(node, e, Beyond::Last, 2)),
    row("aten::repeat", repeat),
    row("aten::tile", repeat),
    row("aten::roll", roll),
];

fn accept_pad(node: &NodeView<'_>) -> Result<(), Refusal> {
    super::moves(node)?;
    match node.arg(2) {
        ArgView::Str("constant" | "reflect" | "replicate" | "circular") => Ok(()),
        mode => Err(Refusal::attribute(format!("`mode` is `{mode:?}`"))),
    }
}

/// Pairs of numbers, the last dimension's first. `number`: the argument that has the filling.
fn pad(node: &Node<'_>, e: &mut Encoder<'_>, beyond: Beyond, number: usize) -> Result<(), Error> {
    let (value, out) = (node.value(0)?, node.output(0)?);
    let (dims, out_dims) = (e.dims(value)?, e.dims(out)?);
    let rank = dims.len();
    let amounts = node.ints(1)?;
    let bits = match beyond {
        Beyond::Filling => match node.optional_scalar(number)? {
            Some(number) => bits_of(e.dtype(out)?, number)?,
            None => 0,
        },
        _ => 0,
    };
    let mut before = vec![0i64; rank];
    for (i, pair) in amounts.chunks_exact(2).enumerate() {
        let at = rank.checked_sub(i + 1);
        let at = at.ok_or_else(|| Error::invalid("more paddings than dimensions"))?;
        before[at] = pair[0];
        if i64::from(dims[at]) + pair[0] + pair[1] != i64::from(out_dims[at]) {
            return Err(Error::invalid("the paddings do not make up the output"));
        }
    }
    let edge = |d: usize, stride| Edge {
        size: out_dims[d],
        stride,
        before: before[d],
        extent: dims[d],
        beyond,
    };
    let mut x = as_it_lies(e, value)?;
    if x.layout == Layout::Nhwc4 {
        let axes = View::of(&x).axes;
        let channels = edge(1, 1);
        let padded = |n: u32| n.next_multiple_of(4);
        // Channels of the padding stay 0.
        let zero = bits == 0 || beyond != Beyond::Filling;
        let channels = match channels.is_plain() {
            true if zero || dims[1] % 4 == 0 => Some(Edge {
                size: padded(channels.size),
                extent: padded(channels.size),
                ..channels
            }),
            false if beyond == Beyond::Filling && zero => Some(Edge {
                size: padded(channels.size),
                ..channels
            }),
            _ => None,
        };
        if let (Some(channels), false) = (channels, out_dims.contains(&0)) {
            let made = e.output(node, 0, Layout::Nhwc4)?;
            let edges = [0, 2, 3].map(|d| edge(d, axes[d].stride));
            return window(e, (&x, 0), &[&edges[..], &[channels]].concat(), bits, &made);
        }
        x = e.input(node, 0)?;
    }
    let edges: Vec<Edge> = View::of(&x)
        .axes
        .iter()
        .enumerate()
        .map(|(d, axis)| edge(d, axis.stride))
        .collect();
    let made = e.output(node, 0, Layout::RowMajor)?;
    window(e, (&x, 0), &edges, bits, &made)
}

/// Copies one after another along every dimension.
fn repeat(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (view, value) = (view_of(e, node, 0)?, node.output(0)?);
    let dims = e.dims(value)?;
    if let Ok(view) = broadcast(view.clone(), &dims) {
        return show(e, value, &view);
    }
    let missing = dims.len().checked_sub(view.axes.len());
    let missing = missing.ok_or_else(|| Error::invalid("there are fewer repeats than dimensions"))?;
    let front = dims[..missing]
        .iter()
        .map(|size| Edge::plain(Axis { size: *size, stride: 0 }));
    let again = view.axes.iter().zip(&dims[missing..]).map(|(axis, size)| Edge {
        size: *size,
        beyond: Beyond::Wrap,
        ..Edge::plain(*axis)
    });
    let edges: Vec<Edge> = front.chain(again).collect();
    let out = e.output(node, 0, Layout::RowMajor)?;
    window(e, (&view.source, 0), &edges, 0, &out)
}

/// Moves elements along dimensions; what falls off the end comes in at the start.
fn roll(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (shifts, along) = (node.ints(1)?, node.ints(2)?);
    let (source, edges) = if along.is_empty() {
        let source = e.input(node, 0)?;
        let flat = Axis {
            size: source.count(),
            stride: 1,
        };
        (
            source,
            vec![rolled(Edge::plain(flat), shifts.first().copied().unwrap_or(0))],
        )
    } else {
        let view = view_of(e, node, 0)?;
        let mut edges: Vec<Edge> = view.axes.iter().map(|a| Edge::plain(*a)).collect();
        for (shift, d) in shifts.iter().zip(&along) {
            let at = wrap(*d, edges.len())?;
            if let Some(edge) = edges.get_mut(at) {
                *edge = rolled(*edge, *shift);
            }
        }
        (view.source, edges)
    };
    let out = e.output(node, 0, Layout::RowMajor)?;
    if edges.iter().all(Edge::is_plain) {
        let axes = edges.iter().map(|a| Axis {
            size: a.size,
            stride: a.stride,
        });
        let view = View {
            source,
            start: 0,
            axes: axes.collect(),
        };
        return strided(e, &view, &out);
    }
    window(e, (&source, 0), &edges, 0, &out)
}

fn rolled(edge: Edge, shift: i64) -> Edge {
    let size = i64::from(edge.size.max(1));
    Edge {
        before: (edge.before + shift.rem_euclid(size)) % size,
        beyond: Beyond::Wrap,
        ..edge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_count_from_either_end() {
        let edge = Edge::plain(Axis { size: 5, stride: 1 });
        assert_eq!(rolled(edge, -7).before, 3);
        assert_eq!(rolled(rolled(edge, 4), 3).before, 2);
    }
}
