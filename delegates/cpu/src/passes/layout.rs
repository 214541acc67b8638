//! Where images have their channels last: what permutes dimensions around convolutions is moved down the graph until it meets its opposite.
//!
//! A permutation is a node `cpu::permute`; so a value's sizes say how it lies, and nothing else has to know.

use super::{Target, bytes, is_constant};
use crate::graph::{Graph, Node, ValueId, arg, float};
use delegraph_sdk::Error;
use delegraph_sdk::image::{Arg, NodeIndex};
use std::collections::{HashMap, HashSet};

/// The operator of a permutation.
pub const PERMUTE: &str = crate::steps::layout::NAME;
/// From channels first to channels last.
pub const LAST: [i64; 4] = [0, 2, 3, 1];
/// From channels last to channels first.
pub const FIRST: [i64; 4] = [0, 3, 1, 2];

/// Operators of one tensor, element by element.
const UNARY: [&str; 35] = [
    "aten::abs",
    "aten::clamp",
    "aten::clone",
    "aten::cos",
    "aten::elu",
    "aten::eq.Scalar",
    "aten::exp",
    "aten::ge.Scalar",
    "aten::gelu",
    "aten::gt.Scalar",
    "aten::hardsigmoid",
    "aten::hardswish",
    "aten::hardtanh",
    "aten::le.Scalar",
    "aten::leaky_relu",
    "aten::log",
    "aten::lt.Scalar",
    "aten::mish",
    "aten::ne.Scalar",
    "aten::neg",
    "aten::pow.Tensor_Scalar",
    "aten::reciprocal",
    "aten::relu",
    "aten::relu6",
    "aten::rsqrt",
    "aten::sigmoid",
    "aten::silu",
    "aten::sin",
    "aten::softplus",
    "aten::sqrt",
    "aten::tanh",
    "aten::mul.Scalar",
    "aten::add.Scalar",
    "quantized_decomposed::dequantize_per_tensor",
    "quantized_decomposed::quantize_per_tensor",
];

/// Operators of two tensors, element by element, their other arguments being numbers.
const BINARY: [&str; 6] = [
    "aten::add.Tensor",
    "aten::div.Tensor",
    "aten::maximum",
    "aten::minimum",
    "aten::mul.Tensor",
    "aten::sub.Tensor",
];

/// Operators that move elements alone, and views.
const MOVES: [&str; 7] = [
    "aten::_unsafe_view",
    "aten::clone",
    "aten::contiguous",
    "aten::permute",
    "aten::reshape",
    "aten::transpose.int",
    "aten::view",
];

/// `value` with its dimensions in another order, by a node at the end of `made` if there has to be one.
pub fn permuted(
    graph: &mut Graph,
    made: &mut Vec<Node>,
    value: ValueId,
    order: &[i64; 4],
    source: NodeIndex,
) -> ValueId {
    let old = &graph.values[value];
    let dims = order.iter().map(|d| old.dims[*d as usize]).collect();
    let (name, dtype) = (
        format!("{} {}", old.name, if *order == LAST { "nhwc" } else { "nchw" }),
        old.dtype,
    );
    let new = graph.value(&name, dtype, dims);
    let args = vec![arg(value), graph.ints(order)];
    made.push(Node {
        op: PERMUTE.to_string(),
        args,
        outputs: vec![new],
        source,
    });
    new
}

/// Moves permutations down, and takes out those that undo each other.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let read = graph
        .nodes
        .iter()
        .flat_map(Node::reads)
        .chain(graph.outputs.iter().copied())
        .collect();
    let nodes = std::mem::take(&mut graph.nodes);
    let moves = nodes.iter().filter(|node| MOVES.contains(&node.op.as_str()));
    let moves = moves.map(|node| (node.outputs[0], node.clone())).collect();
    let mut pass = Pass {
        graph,
        target,
        // Of a value with channels first, the one with channels last that has the same elements; and the other way round.
        last: HashMap::new(),
        first: HashMap::new(),
        same: HashMap::new(),
        images: HashMap::new(),
        moves,
        read,
    };
    for mut node in nodes {
        let reads: Vec<ValueId> = node.reads().collect();
        for value in reads {
            if let Some(same) = pass.same.get(&value) {
                node.replace(value, *same);
            }
        }
        pass.node(node);
    }
    let same = std::mem::take(&mut pass.same);
    // An output that is another value under its own name.
    for output in &mut graph.outputs {
        if let Some(value) = same.get(output) {
            *output = *value;
        }
    }
    graph.sweep();
    Ok(())
}

pub(super) struct Pass<'g, 'a> {
    pub(super) graph: &'g mut Graph,
    target: &'g Target<'a>,
    pub(super) last: HashMap<ValueId, ValueId>,
    first: HashMap<ValueId, ValueId>,
    pub(super) same: HashMap<ValueId, ValueId>,
    /// Of a value of one dimension, the image of one row that it is, with channels first.
    images: HashMap<ValueId, ValueId>,
    /// Nodes that change sizes and the order of dimensions alone, by their outputs.
    pub(super) moves: HashMap<ValueId, Node>,
    /// Values that somebody reads.
    pub(super) read: HashSet<ValueId>,
}

impl Pass<'_, '_> {
    fn node(&mut self, node: Node) {
        if node.op == PERMUTE {
            let order = self.graph.int_list(node.args.get(1)).unwrap_or_default();
            let (Some(input), output) = (node.value(0), node.outputs[0]) else {
                return;
            };
            let known = match order.as_slice() {
                order if order == LAST => self.last.get(&input),
                order if order == FIRST => self.first.get(&input),
                _ => None,
            };
            if let Some(known) = known {
                self.same.insert(output, *known);
                return;
            }
            if order == LAST {
                self.pair(input, output);
            } else if order == FIRST {
                self.pair(output, input);
            }
            self.graph.nodes.push(node);
            return;
        }
        if !self.shuffled_channels(&node) && !self.in_a_row(&node) && !self.moved(&node) {
            self.graph.nodes.push(node);
        }
    }

    /// Does a node of images of one row on the images; says whether it did.
    fn in_a_row(&mut self, node: &Node) -> bool {
        let (Some(x), &[output]) = (node.value(0), node.outputs.as_slice()) else {
            return false;
        };
        let image = self.images.get(&x).copied();
        match (node.op.as_str(), image) {
            ("aten::squeeze.dims", _) => {
                let row = self.graph.int_list(node.args.get(1)).is_some_and(|dims| dims == [2]);
                if row && self.last.contains_key(&x) && self.graph.values[output].dims.len() == 3 {
                    self.images.insert(output, x);
                }
                false
            }
            ("aten::unsqueeze", Some(image)) if float(node.args.get(1)) == Some(2.0) => {
                self.same.insert(output, image);
                true
            }
            (op, Some(_)) if UNARY.contains(&op) || BINARY.contains(&op) => {
                let mut made = node.clone();
                for value in node.reads() {
                    let Some(image) = self.images.get(&value).copied() else {
                        return false;
                    };
                    made.replace(value, image);
                }
                let old = self.graph.values[output].clone();
                if old.dims.len() != 3 {
                    return false;
                }
                let mut dims = old.dims;
                dims.insert(2, self.graph.int(1));
                let image = self.graph.value(&format!("{} image", old.name), old.dtype, dims);
                made.outputs = vec![image];
                self.node(made);
                let row = self.graph.ints(&[2]);
                self.graph.nodes.push(Node {
                    op: "aten::squeeze.dims".to_string(),
                    args: vec![arg(image), row],
                    outputs: vec![output],
                    source: node.source,
                });
                self.images.insert(output, image);
                true
            }
            _ => false,
        }
    }

    pub(super) fn pair(&mut self, first: ValueId, last: ValueId) {
        self.last.insert(first, last);
        self.first.insert(last, first);
    }

    /// How many elements, where that is known.
    fn count(&self, value: ValueId) -> i64 {
        self.graph.sizes(value).map_or(i64::MAX / 4, |sizes| {
            sizes.iter().fold(1, |count: i64, size| count.saturating_mul(*size))
        })
    }

    fn rank(&self, value: ValueId) -> usize {
        self.graph.values[value].dims.len()
    }

    /// Does a node with channels last, if its operands are so and it can be; says whether it did.
    fn moved(&mut self, node: &Node) -> bool {
        let reads: Vec<ValueId> = node.reads().collect();
        if !reads.iter().any(|value| self.last.contains_key(value)) || node.op.starts_with("cpu::") {
            return false;
        }
        if UNARY.contains(&node.op.as_str()) && reads.len() == 1 && node.outputs.len() == 1 {
            return self.replaced(node, &reads, node.args.clone(), 4);
        }
        let several = BINARY.contains(&node.op.as_str()) && reads.len() == 2 || node.op == "aten::where.self";
        if several {
            return self.replaced(node, &reads, node.args.clone(), 4);
        }
        let axis = |dim: i64| {
            let dim = if dim < 0 { dim + 4 } else { dim };
            // Where a dimension of channels first is with channels last.
            LAST.iter().position(|d| *d == dim).map(|d| d as i64)
        };
        let mut args = node.args.clone();
        match node.op.as_str() {
            "aten::cat" => {
                let dim = float(node.args.get(1)).map_or(0, |d| d as i64);
                let Some(dim) = axis(dim) else { return false };
                args.truncate(1);
                args.push(Arg::Int(dim));
                self.replaced(node, &reads, args, 4)
            }
            "aten::slice.Tensor" => {
                let dim = float(node.args.get(1)).map_or(0, |d| d as i64);
                let Some(dim) = axis(dim) else { return false };
                args[1] = Arg::Int(dim);
                self.replaced(node, &reads, args, 4)
            }
            "aten::mean.dim" | "aten::sum.dim_IntList" | "aten::amax" => {
                let Some(dims) = self.graph.int_list(node.args.get(1)) else {
                    return false;
                };
                let keep = matches!(node.args.get(2), Some(Arg::Bool(true) | Arg::Int(1)));
                let mut places: Vec<i64> = dims.iter().filter_map(|d| axis(*d)).collect();
                places.sort_unstable();
                if places.len() != dims.len() || dims.is_empty() || !keep && places != [1, 2] {
                    return false;
                }
                args[1] = self.graph.ints(&places);
                self.replaced(node, &reads, args, if keep { 4 } else { 2 })
            }
            "aten::adaptive_avg_pool2d" | "aten::_adaptive_avg_pool2d" => {
                if !matches!(self.graph.int_list(node.args.get(1)).as_deref(), Some([1, 1] | [1])) {
                    return self.pooled_to(node, &reads);
                }
                let dims = self.graph.ints(&[1, 2]);
                let mean = Node {
                    op: "aten::mean.dim".to_string(),
                    args: vec![node.args[0].clone(), dims, Arg::Bool(true), Arg::None],
                    ..node.clone()
                };
                let args = mean.args.clone();
                self.replaced(&mean, &reads, args, 4)
            }
            "aten::adaptive_max_pool2d" => self.pooled_to(node, &reads),
            "aten::max_pool2d" | "aten::max_pool2d_with_indices" | "aten::avg_pool2d" => self.pooled(node, &reads),
            "aten::upsample_nearest2d"
            | "aten::upsample_nearest2d.vec"
            | "aten::_upsample_nearest_exact2d"
            | "aten::_upsample_nearest_exact2d.vec"
            | "aten::upsample_bilinear2d"
            | "aten::upsample_bilinear2d.vec" => self.resized(node, &reads),
            "aten::constant_pad_nd" => {
                let Some(mut pads) = self.graph.int_list(node.args.get(1)) else {
                    return false;
                };
                pads.resize(8, 0);
                // From the last dimension to the first: channels, columns, rows, images.
                let turned = [pads[4], pads[5], pads[0], pads[1], pads[2], pads[3], pads[6], pads[7]];
                args[1] = self.graph.ints(&turned);
                self.replaced(node, &reads, args, 4)
            }
            "aten::split_with_sizes" | "aten::split_with_sizes_copy" => {
                let dim = float(node.args.get(2)).map_or(0, |d| d as i64);
                axis(dim).is_some_and(|dim| self.split(node, dim))
            }
            "aten::pixel_shuffle" | "aten::pixel_unshuffle" => self.shuffled(node, reads[0]),
            _ => false,
        }
    }

    /// Does a node on operands with channels last, with other arguments. Its result has channels last if it has four dimensions, and is as it
    /// was if it has `2`.
    pub(super) fn replaced(&mut self, node: &Node, reads: &[ValueId], args: Vec<Arg>, rank: usize) -> bool {
        if node.outputs.len() != 1 || self.rank(node.outputs[0]) != rank {
            return false;
        }
        let ready: i64 = reads
            .iter()
            .filter(|v| self.last.contains_key(v))
            .map(|v| self.count(*v))
            .fold(0, i64::saturating_add);
        let mut others: i64 = 0;
        for value in reads {
            if self.last.contains_key(value) || is_constant(self.graph, *value) && self.graph.sizes(*value).is_some() {
                continue;
            }
            match self.rank(*value) {
                0 => {}
                4 => others = others.saturating_add(self.count(*value)),
                _ => return false,
            }
        }
        if others > ready {
            return false;
        }
        let mut made = Node { args, ..node.clone() };
        let mut before = Vec::new();
        for value in reads {
            let Some(turned) = self.turned(*value, &mut before, node.source) else {
                return false;
            };
            made.replace(*value, turned);
        }
        self.graph.nodes.extend(before);
        if rank != 4 {
            self.graph.nodes.push(made);
            return true;
        }
        let at = self.graph.nodes.len();
        made.outputs = vec![self.turned_back(node.outputs[0], node.source)];
        self.graph.nodes.insert(at, made);
        true
    }

    /// A value with channels last.
    fn turned(&mut self, value: ValueId, before: &mut Vec<Node>, source: NodeIndex) -> Option<ValueId> {
        if let Some(known) = self.last.get(&value) {
            return Some(*known);
        }
        let rank = self.rank(value);
        if rank == 0 {
            return Some(value);
        }
        if is_constant(self.graph, value) {
            let sizes = self.graph.sizes(value)?;
            if sizes.iter().all(|size| *size == 1) || rank == 4 && sizes[1] == 1 && sizes[2] == 1 && sizes[3] == 1 {
                return Some(value);
            }
            let width = self.graph.values[value].dtype.size()?;
            let mut full = vec![1i64; 4usize.checked_sub(rank)?];
            full.extend(&sizes);
            let turned = turn(&bytes(self.graph, self.target, value)?, &full, width);
            let (name, dtype) = (
                format!("{} nhwc", self.graph.values[value].name),
                self.graph.values[value].dtype,
            );
            let sizes: Vec<i64> = LAST.iter().map(|d| full[*d as usize]).collect();
            let made = self.graph.constant(&name, dtype, &sizes, turned);
            self.pair(value, made);
            return Some(made);
        }
        if rank != 4 {
            return None;
        }
        let made = permuted(self.graph, before, value, &LAST, source);
        self.pair(value, made);
        Some(made)
    }
}

/// The elements of a tensor of four dimensions, channels last.
fn turn(bytes: &[u8], sizes: &[i64], width: usize) -> Vec<u8> {
    let [n, c, h, w] = [sizes[0], sizes[1], sizes[2], sizes[3]].map(|x| x as usize);
    let mut out = Vec::with_capacity(bytes.len());
    for image in 0..n {
        for pixel in 0..h * w {
            for channel in 0..c {
                let at = ((image * c + channel) * h * w + pixel) * width;
                out.extend_from_slice(&bytes[at..at + width]);
            }
        }
    }
    out
}
