//! Lays tensors of images out with their channels last: a graph as a delegate that asks for `nhwc` gets it.
//!
//! In this form, an operator of [`is_spatial`] reads and makes `[N, H, W, C]` where the operator table says `[N, C, H, W]`; its
//! weights, and its arguments but those tensors, are as in the table. All other operators mean what the table says, and sizes are
//! stated as the elements lie. What enters and leaves the graph keeps its sizes, so that whoever takes the same nodes in
//! another form takes the same tensors: between the two stand explicit `permute`s, which cancel inside.
//!
//! Operators on single elements are moved to the other side of a permutation where that saves one.

use delegraph_ir::{Arg, Def, Graph, Node, NodeId, Op, Quant, TensorType, Type, ValueId, fill_defaults};
use rustc_hash::FxHashMap;

/// `[N, C, H, W]` to `[N, H, W, C]`.
const TO_LAST: [i64; 4] = [0, 2, 3, 1];
/// And back.
const TO_FIRST: [i64; 4] = [0, 3, 1, 2];

/// Whether an operator, on four dimensions, takes its tensors with the channels last: convolution, pooling, resampling, batch
/// norm.
pub fn is_spatial(op: &str) -> bool {
    matches!(
        op,
        "aten::conv2d"
            | "aten::conv2d.padding"
            | "aten::convolution"
            | "aten::conv_transpose2d.input"
            | "aten::max_pool2d"
            | "aten::max_pool2d_with_indices"
            | "aten::avg_pool2d"
            | "aten::adaptive_avg_pool2d"
            | "aten::_adaptive_avg_pool2d"
            | "aten::upsample_nearest2d"
            | "aten::upsample_nearest2d.vec"
            | "aten::upsample_bilinear2d"
            | "aten::upsample_bilinear2d.vec"
            | "aten::batch_norm"
            | "aten::_native_batch_norm_legit_no_training"
    )
}

/// Operators of which each element of the result comes of the same one of every tensor.
fn is_elementwise(op: &str) -> bool {
    matches!(
        op,
        "aten::relu"
            | "aten::relu6"
            | "aten::hardtanh"
            | "aten::clamp"
            | "aten::clamp_min"
            | "aten::clamp_max"
            | "aten::leaky_relu"
            | "aten::elu"
            | "aten::sigmoid"
            | "aten::tanh"
            | "aten::silu"
            | "aten::gelu"
            | "aten::hardswish"
            | "aten::hardsigmoid"
            | "aten::mish"
            | "aten::softplus"
            | "aten::abs"
            | "aten::neg"
            | "aten::exp"
            | "aten::sqrt"
            | "aten::rsqrt"
            | "aten::add.Tensor"
            | "aten::sub.Tensor"
            | "aten::mul.Tensor"
            | "aten::div.Tensor"
            | "aten::add.Scalar"
            | "aten::sub.Scalar"
            | "aten::mul.Scalar"
            | "aten::div.Scalar"
            | "aten::maximum"
            | "aten::minimum"
            | "aten::clone"
            | "quantized_decomposed::quantize_per_tensor"
            | "quantized_decomposed::dequantize_per_tensor"
    )
}

/// The nodes of a graph, in execution order, laid out with channels last; `outputs` are the values that are read outside of
/// them. The result has these nodes alone, and for each of its nodes the one that it is, or that it was put in for.
pub fn channels_last(graph: &Graph, nodes: &[NodeId], outputs: &[ValueId]) -> (Graph, Vec<NodeId>) {
    let mut laid = Graph::new(&graph.name);
    laid.values.clone_from(&graph.values);
    let mut layout = Layout {
        graph: laid,
        origins: Vec::with_capacity(nodes.len()),
        last: FxHashMap::default(),
        pending: FxHashMap::default(),
    };
    for id in nodes {
        layout.node(graph.node(*id), *id);
    }
    for value in outputs {
        layout.first(*value);
    }
    (layout.graph, layout.origins)
}

struct Layout {
    graph: Graph,
    origins: Vec<NodeId>,
    /// For each value that is there with its channels last, the value that is it.
    last: FxHashMap<ValueId, ValueId>,
    /// Values that are there with their channels last only, and who makes them.
    pending: FxHashMap<ValueId, NodeId>,
}

impl Layout {
    fn node(&mut self, node: &Node, id: NodeId) {
        let is_turned = |layout: &Layout, value: &ValueId| layout.last.contains_key(value);
        match node.op.name() {
            op if is_spatial(op) && self.is_image(node.args.first()) => self.spatial(node, id),
            op if is_elementwise(op) && self.turns(node) => self.turned(node, id),
            "aten::cat" if self.turns(node) && self.dims(node, 1).is_some() => {
                let dims = self.dims(node, 1).unwrap_or_default();
                self.turned_with(node, id, &|args| args[1] = Arg::int(dims[0]));
            }
            "aten::mean.dim" if self.turns(node) && self.dims(node, 1).is_some() => {
                let dims = self.dims(node, 1).unwrap_or_default();
                let kept = node.args.get(2) == Some(&Arg::Bool(true));
                let mut sorted = dims.clone();
                sorted.sort_unstable();
                match (kept, sorted.as_slice()) {
                    (true, _) => self.turned_with(node, id, &|args| args[1] = Arg::ints(&dims)),
                    // The other two stay in order, `[N, C]`: the result is the same.
                    (false, [1, 2]) => {
                        let mut made = node.clone();
                        made.args[1] = Arg::ints(&dims);
                        made.args[0].map_values(|v| self.last[&v]);
                        self.push(made, id);
                    }
                    (false, _) => self.plain(node, id),
                }
            }
            // An exporter's own permutation is one more that may cancel; it is made only if somebody wants its result.
            "aten::permute"
                if node
                    .args
                    .get(1)
                    .and_then(Arg::as_ints)
                    .is_some_and(|d| is_order(&d, &TO_FIRST)) =>
            {
                match (node.args.first().and_then(Arg::as_value), node.outputs.first()) {
                    (Some(source), Some(result)) if !is_turned(self, &source) => {
                        self.last.insert(*result, source);
                        self.pending.insert(*result, id);
                    }
                    _ => self.plain(node, id),
                }
            }
            _ => self.plain(node, id),
        }
    }

    /// Dimensions that an argument names, as those of the other order.
    fn dims(&self, node: &Node, at: usize) -> Option<Vec<i64>> {
        let dims = match node.args.get(at)? {
            Arg::Int(dim) => vec![dim.as_int()?],
            arg => arg.as_ints()?,
        };
        let place = |dim: &i64| {
            let dim = dim
                .checked_add(4 * i64::from(*dim < 0))
                .filter(|d| (0..4).contains(d))?;
            TO_LAST.iter().position(|d| *d == dim).map(|p| p as i64)
        };
        let dims: Vec<i64> = dims.iter().map(place).collect::<Option<_>>()?;
        (!dims.is_empty()).then_some(dims)
    }

    fn is_image(&self, arg: Option<&Arg>) -> bool {
        let tensor = arg.and_then(Arg::as_value).and_then(|v| self.graph.tensor(v));
        tensor.is_some_and(|t| t.rank() == 4)
    }

    /// Whether an operator on elements goes to the other side: all its tensors have four dimensions, none is a weight, and at
    /// least half of them are there with their channels last.
    fn turns(&self, node: &Node) -> bool {
        let values: Vec<ValueId> = node.inputs().collect();
        let fits = |v: &ValueId| {
            let value = self.graph.value(*v);
            value.ty.as_tensor().is_some_and(|t| t.rank() == 4) && !matches!(value.def, Def::Constant(_))
        };
        let results = node.outputs.iter().take(1).all(|v| match &self.graph.value(*v).ty {
            Type::Tensor(ty) => ty.rank() == 4 || node.op.name() == "aten::mean.dim",
            _ => false,
        });
        let there = values.iter().filter(|v| self.last.contains_key(v)).count();
        values.iter().all(fits) && results && there > 0 && there * 2 >= values.len()
    }

    fn plain(&mut self, node: &Node, id: NodeId) {
        for value in node.inputs() {
            self.first(value);
        }
        self.push(node.clone(), id);
    }

    /// Only the first tensor is an image; weights stay.
    fn spatial(&mut self, node: &Node, id: NodeId) {
        let mut made = node.clone();
        if let Some(input) = node.args.first().and_then(Arg::as_value) {
            made.args[0] = Arg::Value(self.turn(input, id));
        }
        for value in node.inputs().skip(1) {
            self.first(value);
        }
        self.results(&mut made, id);
        self.push(made, id);
    }

    fn turned(&mut self, node: &Node, id: NodeId) {
        self.turned_with(node, id, &|_| {});
    }

    fn turned_with(&mut self, node: &Node, id: NodeId, change: &dyn Fn(&mut Vec<Arg>)) {
        let mut made = node.clone();
        for arg in &mut made.args {
            arg.map_values(|value| self.turn(value, id));
        }
        change(&mut made.args);
        self.results(&mut made, id);
        self.push(made, id);
    }

    /// Gives a node results with their channels last.
    fn results(&mut self, node: &mut Node, id: NodeId) {
        for output in &mut node.outputs {
            let value = *output;
            if self.graph.tensor(value).is_some_and(|t| t.rank() == 4) {
                *output = self.turned_value(value);
                self.last.insert(value, *output);
                self.pending.insert(value, id);
            }
        }
    }

    /// The value with its channels last; permuted if it is not there.
    fn turn(&mut self, value: ValueId, reader: NodeId) -> ValueId {
        if let Some(turned) = self.last.get(&value) {
            return *turned;
        }
        let turned = self.turned_value(value);
        self.permute(value, turned, &TO_LAST, reader);
        self.last.insert(value, turned);
        turned
    }

    /// Makes a value that is there with its channels last only.
    fn first(&mut self, value: ValueId) {
        if let Some(maker) = self.pending.remove(&value) {
            let turned = self.last[&value];
            self.permute(turned, value, &TO_FIRST, maker);
        }
    }

    fn permute(&mut self, from: ValueId, to: ValueId, order: &[i64], id: NodeId) {
        let Some(op) = Op::find("aten::permute") else {
            unreachable!("the table has `permute`")
        };
        let name = format!("{}.permute", self.graph.value(to).name);
        let node = Node {
            name,
            op,
            args: fill_defaults(op, vec![from.into(), Arg::ints(order)]),
            outputs: vec![to],
            source: None,
            region: None,
        };
        self.push(node, id);
    }

    fn push(&mut self, node: Node, id: NodeId) {
        self.graph.nodes.push(node);
        self.origins.push(id);
    }

    /// A new value like this one with its channels last.
    fn turned_value(&mut self, value: ValueId) -> ValueId {
        let old = self.graph.value(value);
        let name = format!("{}.nhwc", old.name);
        let ty = match &old.ty {
            Type::Tensor(ty) => Type::Tensor(turned_type(ty)),
            other => other.clone(),
        };
        self.graph.add_value(name, ty, Def::Node)
    }
}

fn turned_type(ty: &TensorType) -> TensorType {
    let pick = |d: &i64| ty.shape.get(*d as usize).cloned();
    let mut turned = TensorType::new(ty.dtype, TO_LAST.iter().filter_map(pick).collect());
    turned.quant.clone_from(&ty.quant);
    match &mut turned.quant {
        Some(Quant::PerAxis { axis, .. }) => {
            let place = TO_LAST.iter().position(|d| *d == i64::from(*axis));
            *axis = place.map_or(*axis, |p| p as u32);
        }
        Some(Quant::PerBlock { block, .. }) => {
            *block = TO_LAST.iter().filter_map(|d| block.get(*d as usize).copied()).collect();
        }
        _ => {}
    }
    turned
}

fn is_order(dims: &[i64], order: &[i64; 4]) -> bool {
    dims.len() == 4 && dims.iter().map(|d| d.rem_euclid(4)).eq(order.iter().copied())
}
