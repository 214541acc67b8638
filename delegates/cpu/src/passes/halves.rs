//! Numbers of 16 bits are computed as `f32`.
//!
//! Layers, attention, norms and their functions on `f16` and `bf16` become ones on `f32`, and so does the arithmetic between them, with conversions where
//! tensors come in, go out, or are read by anything else. Between them nothing is rounded, so that results are nearer to exact ones than those of a graph
//! that rounds after every operator. Arithmetic that follows no layer rounds as the graph says. Matrices of `linear` stay in 16 bits.

use super::{Target, floats, is_constant, to_bytes};
use crate::graph::{From, Graph, Node, ValueId, arg};
use crate::steps::convert::NAME;
use delegraph_sdk::image::{Arg, ValueIndex};
use delegraph_sdk::{DType, Error};
use std::collections::{HashMap, HashSet};

/// Layers and their functions.
const LAYERS: &[&str] = &[
    "_adaptive_avg_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "addmm",
    "avg_pool1d",
    "avg_pool2d",
    "baddbmm",
    "batch_norm",
    "bmm",
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "elu",
    "gelu",
    "group_norm",
    "gru.input",
    "hardsigmoid",
    "hardswish",
    "layer_norm",
    "linear",
    "_log_softmax",
    "log_softmax.int",
    "lstm.input",
    "matmul",
    "mm",
    "_native_batch_norm_legit_no_training",
    "native_group_norm",
    "native_layer_norm",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "_softmax",
    "softmax.int",
    "tanh",
];
/// What follows a layer: arithmetic, and what moves elements.
const FOLLOWING: &[&str] = &[
    "abs",
    "add.Scalar",
    "add.Tensor",
    "alias",
    "cat",
    "chunk",
    "clamp",
    "clone",
    "contiguous",
    "div.Scalar",
    "div.Tensor",
    "erf",
    "exp",
    "expand",
    "flatten.using_ints",
    "hardtanh",
    "leaky_relu",
    "max_pool2d",
    "max_pool2d_with_indices",
    "maximum",
    "mean.dim",
    "minimum",
    "mul.Scalar",
    "mul.Tensor",
    "neg",
    "permute",
    "pow.Tensor_Scalar",
    "relu",
    "reshape",
    "rsqrt",
    "select.int",
    "slice.Tensor",
    "split.Tensor",
    "split_with_sizes",
    "sqrt",
    "squeeze",
    "squeeze.dim",
    "squeeze.dims",
    "stack",
    "sub.Scalar",
    "sub.Tensor",
    "t",
    "transpose.int",
    "unflatten.int",
    "unsqueeze",
    "view",
];

/// Rewrites what is computed on halves.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    if !graph.values.iter().any(|value| is_half(value.dtype)) {
        return Ok(());
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let mut pass = Pass {
        graph,
        target,
        floats: HashMap::new(),
        same: HashMap::new(),
        derived: HashSet::new(),
        done: Vec::with_capacity(nodes.len() * 2),
    };
    for node in nodes {
        pass.node(node);
    }
    let Pass { same, done, .. } = pass;
    graph.nodes = done;
    for output in &mut graph.outputs {
        *output = same.get(output).copied().unwrap_or(*output);
    }
    graph.sweep();
    Ok(())
}

/// Halves as the floats that they become: for asking which nodes would be steps.
pub fn as_floats(graph: &mut Graph) {
    for value in &mut graph.values {
        if is_half(value.dtype) {
            value.dtype = DType::F32;
        }
    }
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

struct Pass<'g, 't> {
    graph: &'g mut Graph,
    target: &'g Target<'t>,
    /// Of a value of halves: the same as floats.
    floats: HashMap<ValueId, ValueId>,
    /// What stands for values that a conversion made, which is no more.
    same: HashMap<ValueId, ValueId>,
    /// What was computed of what a layer computed.
    derived: HashSet<ValueId>,
    done: Vec<Node>,
}

impl Pass<'_, '_> {
    fn half(&self, value: ValueId) -> bool {
        is_half(self.graph.values[value].dtype)
    }

    fn node(&mut self, mut node: Node) {
        let same = &self.same;
        map_values(&mut node, |value| same.get(&value).copied().unwrap_or(value));
        let reads: Vec<ValueId> = node.reads().collect();
        let halves = reads.iter().chain(&node.outputs).any(|value| self.half(*value));
        let name = node.op.strip_prefix("aten::").unwrap_or("");
        let layer = LAYERS.contains(&name);
        let follows = reads.iter().any(|value| self.derived.contains(value));
        if layer || follows {
            self.derived.extend(node.outputs.iter().copied());
        }
        let typed = node.args.iter().any(|arg| matches!(arg, Arg::DType(_)));
        if halves && matches!(name, "to.dtype" | "_to_copy") && self.conversion(&node) {
            return;
        }
        let known = follows && reads.iter().any(|value| self.floats.contains_key(value));
        let computed = layer || known && FOLLOWING.contains(&name);
        if !halves || typed || !computed {
            self.done.push(node);
            return;
        }
        // A product's matrix stays as it is: it is packed so.
        let kept = (name == "linear").then(|| node.value(1)).flatten();
        let kept = kept.filter(|weight| {
            is_constant(self.graph, *weight) && self.graph.sizes(*weight).is_some_and(|sizes| sizes.len() == 2)
        });
        let mut twins: HashMap<ValueId, ValueId> = HashMap::new();
        for value in reads {
            if self.half(value) && Some(value) != kept {
                twins.insert(value, self.as_float(value, &node));
            }
        }
        map_values(&mut node, |value| twins.get(&value).copied().unwrap_or(value));
        let mut back = Vec::new();
        for output in &mut node.outputs {
            if !is_half(self.graph.values[*output].dtype) {
                continue;
            }
            let half = *output;
            let (name, dims) = (
                self.graph.values[half].name.clone(),
                self.graph.values[half].dims.clone(),
            );
            *output = self.graph.value(&name, DType::F32, dims);
            self.floats.insert(half, *output);
            self.derived.insert(*output);
            back.push(Node {
                op: NAME.to_string(),
                args: vec![arg(*output)],
                outputs: vec![half],
                source: node.source,
            });
        }
        self.done.push(node);
        // What nobody reads is swept.
        self.done.extend(back);
    }

    /// A conversion of the model's between halves and floats; false: it is another one.
    fn conversion(&mut self, node: &Node) -> bool {
        let (Some(from), [to]) = (node.value(0), node.outputs.as_slice()) else {
            return false;
        };
        let types = [from, *to].map(|value| self.graph.values[value].dtype);
        let plain = node
            .args
            .iter()
            .skip(1)
            .all(|arg| matches!(arg, Arg::DType(_) | Arg::None | Arg::Bool(_)));
        match types {
            _ if !plain => false,
            [half, DType::F32] if is_half(half) => {
                let float = self.as_float(from, node);
                if self.derived.contains(&from) {
                    self.derived.insert(float);
                }
                self.same.insert(*to, float);
                true
            }
            // What the model rounds is rounded.
            [DType::F32, half] if is_half(half) => {
                self.done.push(Node {
                    op: NAME.to_string(),
                    args: vec![arg(from)],
                    ..node.clone()
                });
                true
            }
            _ => false,
        }
    }

    /// The floats of a value of halves.
    fn as_float(&mut self, value: ValueId, reader: &Node) -> ValueId {
        if let Some(known) = self.floats.get(&value) {
            return *known;
        }
        let (name, dims) = (
            self.graph.values[value].name.clone(),
            self.graph.values[value].dims.clone(),
        );
        let constant = is_constant(self.graph, value)
            .then(|| floats(self.graph, self.target, value))
            .flatten();
        let made = match constant {
            Some(numbers) => {
                self.graph.packed.push(to_bytes(&numbers));
                let made = self.graph.value(&name, DType::F32, dims);
                self.graph.values[made].from = From::Packed(self.graph.packed.len() - 1);
                made
            }
            None => {
                let made = self.graph.value(&name, DType::F32, dims);
                self.done.push(Node {
                    op: NAME.to_string(),
                    args: vec![arg(value)],
                    outputs: vec![made],
                    source: reader.source,
                });
                made
            }
        };
        self.floats.insert(value, made);
        made
    }
}

/// Replaces the values that a node reads.
fn map_values(node: &mut Node, map: impl Fn(ValueId) -> ValueId) {
    let each = |value: &mut ValueIndex| value.0 = map(value.0 as usize) as u32;
    for arg in &mut node.args {
        match arg {
            Arg::Value(value) => each(value),
            Arg::Values(list) => list.iter_mut().for_each(each),
            Arg::OptionalValues(list) => list.iter_mut().flatten().for_each(each),
            _ => {}
        }
    }
}
