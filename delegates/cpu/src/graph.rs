//! A region while it is compiled: a graph that passes rewrite, read from the host's image and written as the program's.
//!
//! Nodes are in the order of execution and keep the names of the operator table until a pass makes them one of the delegate's own, whose names begin
//! with `cpu::`. Sizes are expressions of the new image, which has all of the old one's.

use delegraph_sdk::image::{
    Arg, ArgView, Expr, ExprIndex, ImageBuilder, ImageView, Kind, NodeIndex, Source, Type, ValueIndex,
};
use delegraph_sdk::{DType, Error};
use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

/// Index of a value of a [`Graph`].
pub type ValueId = usize;

/// Ids of weights that the blob holds, from here on; below are the host's.
pub const PACKED: u32 = 1 << 31;

/// A tensor.
#[derive(Debug, Clone)]
pub struct Value {
    /// As the model names it.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub dims: Vec<ExprIndex>,
    /// Where it comes from.
    pub from: From,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The caller, at this position.
    Input(u32),
    /// A node: its place in [`Graph::nodes`] when it was made.
    Node,
    /// A weight of the host's, by its id.
    Host(u32),
    /// One of [`Graph::packed`].
    Packed(usize),
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Operator.
    pub op: String,
    /// Arguments; values are ids of this graph.
    pub args: Vec<Arg>,
    /// Outputs.
    pub outputs: Vec<ValueId>,
    /// The node of the host's image that it does, or the last of several.
    pub source: NodeIndex,
}

/// A graph.
pub struct Graph {
    builder: ImageBuilder,
    known: HashMap<u32, i64>,
    /// Tensors.
    pub values: Vec<Value>,
    /// In the order of execution.
    pub nodes: Vec<Node>,
    /// Values that the caller gives.
    pub inputs: Vec<ValueId>,
    /// Values that the caller gets.
    pub outputs: Vec<ValueId>,
    /// Bytes of weights that the blob will hold.
    pub packed: Vec<Vec<u8>>,
    /// What inputs are in one run, outputs were in the run before.
    pub states: Vec<State>,
}

/// What a packed weight holds. Weights of equal bytes in two programs have equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    /// Bytes; the largest come first.
    pub size: Reverse<usize>,
    hash: u64,
    /// Which one it is, of those of equal bytes in its program.
    number: u32,
}

/// A state of a graph.
#[derive(Debug, Clone)]
pub struct State {
    /// Its name in the program.
    pub name: String,
    /// Position among the inputs.
    pub input: u32,
    /// Position among the outputs.
    pub output: u32,
    /// Dimension along which it grows.
    pub growth_axis: Option<u32>,
}

impl Graph {
    /// A graph of nothing.
    pub fn empty() -> Graph {
        Graph {
            builder: ImageBuilder::new(""),
            known: HashMap::new(),
            values: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            packed: Vec::new(),
            states: Vec::new(),
        }
    }

    /// Reads an image.
    ///
    /// # Errors
    /// A value that is no tensor, or an argument of a kind that is not known.
    pub fn read(image: &ImageView<'_>) -> Result<Graph, Error> {
        let mut builder = ImageBuilder::new(image.name());
        builder.opset(image.opset());
        builder.normal_form(image.normal_form());
        let mut exprs: Vec<ExprIndex> = Vec::with_capacity(image.expr_count() as usize);
        let mut known = HashMap::new();
        for at in 0..image.expr_count() {
            let made = match image.expr(ExprIndex(at)) {
                Expr::Int(value) => builder.int(value),
                Expr::Float(value) => builder.float(value),
                Expr::Symbol(index) => {
                    let symbol = image.symbol(index);
                    builder.symbol(symbol.name, symbol.min, symbol.max)
                }
                Expr::Op(op, operands) => {
                    let operands: Vec<ExprIndex> = operands.iter().map(|e| exprs[e.0 as usize]).collect();
                    builder.op(op, &operands)
                }
            };
            if let Some(value) = image.const_int(ExprIndex(at)) {
                known.insert(made.0, value);
            }
            exprs.push(made);
        }
        let mut graph = Graph {
            builder,
            known,
            values: Vec::new(),
            nodes: Vec::new(),
            inputs: image.inputs().iter().map(|v| v.0 as usize).collect(),
            outputs: image.outputs().iter().map(|v| v.0 as usize).collect(),
            packed: Vec::new(),
            states: image
                .states()
                .map(|state| State {
                    name: state.name.to_string(),
                    input: state.input,
                    output: state.output,
                    growth_axis: state.growth_axis,
                })
                .collect(),
        };
        for value in image.values() {
            let Kind::Tensor(dtype) = value.kind() else {
                return Err(Error::unsupported(format!(
                    "`{}` is a number, not a tensor",
                    value.name()
                )));
            };
            graph.values.push(Value {
                name: value.name().to_string(),
                dtype,
                dims: value.dims().iter().map(|e| exprs[e.0 as usize]).collect(),
                from: match value.source() {
                    Source::Input(at) => From::Input(at),
                    Source::Weight(index) => From::Host(image.weight(index).id()),
                    Source::Node(_) => From::Node,
                },
            });
        }
        for node in image.nodes() {
            let args: Option<Vec<Arg>> = node.args().map(|arg| graph.copied(&exprs, &arg)).collect();
            let args = args.ok_or_else(|| {
                Error::unsupported(format!("`{}` has an argument of an unknown kind", node.op())).at(node.index())
            })?;
            graph.nodes.push(Node {
                op: node.op().to_string(),
                args,
                outputs: node.outputs().iter().map(|v| v.0 as usize).collect(),
                source: node.index(),
            });
        }
        Ok(graph)
    }

    fn copied(&mut self, exprs: &[ExprIndex], arg: &ArgView<'_>) -> Option<Arg> {
        Some(match arg {
            ArgView::None => Arg::None,
            ArgView::Int(value) => Arg::Int(*value),
            ArgView::Expr(expr) => Arg::Expr(exprs[expr.0 as usize]),
            ArgView::Float(value) => Arg::Float(*value),
            ArgView::Bool(value) => Arg::Bool(*value),
            ArgView::Str(text) => Arg::Str(text.to_string()),
            ArgView::DType(dtype) => Arg::DType(*dtype),
            ArgView::MemoryFormat(format) => Arg::MemoryFormat(*format),
            ArgView::Value(value) => Arg::Value(*value),
            ArgView::Ints(ints) => Arg::Ints(ints.exprs().iter().map(|e| exprs[e.0 as usize]).collect()),
            ArgView::Numbers(numbers) => {
                let items: Vec<Arg> = numbers.iter().map(|n| self.copied(exprs, &n)).collect::<Option<_>>()?;
                let floats = |item: &Arg| if let Arg::Float(f) = item { Some(*f) } else { None };
                let bools = |item: &Arg| if let Arg::Bool(b) = item { Some(*b) } else { None };
                if let Some(floats) = items.iter().map(floats).collect() {
                    Arg::Floats(floats)
                } else if let Some(bools) = items.iter().map(bools).collect() {
                    Arg::Bools(bools)
                } else {
                    Arg::Scalars(items)
                }
            }
            ArgView::Values(list) => Arg::Values(list.iter().collect()),
            ArgView::OptionalValues(list) => Arg::OptionalValues(list.iter().collect()),
            ArgView::Unknown(_) => return None,
        })
    }

    /// A constant size.
    pub fn int(&mut self, value: i64) -> ExprIndex {
        let expr = self.builder.int(value);
        self.known.insert(expr.0, value);
        expr
    }

    /// A list of constant integers.
    pub fn ints(&mut self, values: &[i64]) -> Arg {
        Arg::Ints(values.iter().map(|v| self.int(*v)).collect())
    }

    /// The value of a size that is constant.
    pub fn known(&self, expr: ExprIndex) -> Option<i64> {
        self.known.get(&expr.0).copied()
    }

    /// The sizes of a value, where all are constant.
    pub fn sizes(&self, value: ValueId) -> Option<Vec<i64>> {
        self.values[value].dims.iter().map(|dim| self.known(*dim)).collect()
    }

    /// One size of a value, where it is constant.
    pub fn size(&self, value: ValueId, dim: usize) -> Option<i64> {
        self.known(*self.values[value].dims.get(dim)?)
    }

    /// A list argument of constant integers; `None` in the schema is an empty list.
    pub fn int_list(&self, arg: Option<&Arg>) -> Option<Vec<i64>> {
        match arg {
            Some(Arg::Ints(items)) => items.iter().map(|e| self.known(*e)).collect(),
            Some(Arg::Int(value)) => Some(vec![*value]),
            Some(Arg::None) | None => Some(Vec::new()),
            _ => None,
        }
    }

    /// A new value that a node will make.
    pub fn value(&mut self, name: &str, dtype: DType, dims: Vec<ExprIndex>) -> ValueId {
        self.values.push(Value {
            name: name.to_string(),
            dtype,
            dims,
            from: From::Node,
        });
        self.values.len() - 1
    }

    /// A new constant of the blob's own.
    pub fn constant(&mut self, name: &str, dtype: DType, sizes: &[i64], bytes: Vec<u8>) -> ValueId {
        let dims = sizes.iter().map(|size| self.int(*size)).collect();
        self.packed.push(bytes);
        self.values.push(Value {
            name: name.to_string(),
            dtype,
            dims,
            from: From::Packed(self.packed.len() - 1),
        });
        self.values.len() - 1
    }

    /// For each value, how often nodes and outputs read it.
    pub fn uses(&self) -> Vec<u32> {
        let mut uses = vec![0; self.values.len()];
        for node in &self.nodes {
            for value in node.reads() {
                uses[value] += 1;
            }
        }
        for output in &self.outputs {
            uses[*output] += 1;
        }
        uses
    }

    /// For each value, the node that makes it.
    pub fn makers(&self) -> Vec<Option<usize>> {
        let mut makers = vec![None; self.values.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            for output in &node.outputs {
                makers[*output] = Some(at);
            }
        }
        makers
    }

    /// Takes out the nodes of which nothing is read.
    pub fn sweep(&mut self) {
        let mut live = vec![false; self.values.len()];
        for output in &self.outputs {
            live[*output] = true;
        }
        let mut keep = vec![false; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate().rev() {
            keep[at] = node.outputs.iter().any(|output| live[*output]);
            if keep[at] {
                node.reads().for_each(|value| live[value] = true);
            }
        }
        let mut keep = keep.into_iter();
        self.nodes.retain(|_| keep.next().unwrap_or(true));
    }

    /// The packed weights that are read, in the order of what they hold, the largest first: programs of the same weights have them alike, so that a
    /// file stores them once.
    pub fn contents(&self) -> Vec<(Content, ValueId)> {
        let mut seen = HashSet::new();
        let mut own: Vec<(Content, ValueId)> = Vec::new();
        for id in self.reads() {
            if let From::Packed(at) = self.values[id].from
                && seen.insert(id)
            {
                let bytes = &self.packed[at];
                let mut hasher = DefaultHasher::new();
                bytes.hash(&mut hasher);
                let content = Content {
                    size: Reverse(bytes.len()),
                    hash: hasher.finish(),
                    number: 0,
                };
                own.push((content, id));
            }
        }
        own.sort_unstable();
        for at in 1..own.len() {
            let before = own[at - 1].0;
            if (own[at].0.size, own[at].0.hash) == (before.size, before.hash) {
                own[at].0.number = before.number + 1;
            }
        }
        own
    }

    /// The values that nodes and outputs read, each as often.
    fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        let nodes = self.nodes.iter().flat_map(Node::reads);
        nodes.chain(self.outputs.iter().copied())
    }

    /// The program's image, and its packed weights, numbered in the order of the result: those of `order` first. Only weights that are read are in it.
    ///
    /// # Errors
    /// A mistake of a pass: the image would be refused.
    pub fn write(mut self, order: &[ValueId]) -> Result<(Vec<u8>, Vec<Vec<u8>>), Error> {
        let mut sections: Vec<Vec<u8>> = Vec::new();
        let mut map: HashMap<ValueId, ValueIndex> = HashMap::new();
        for input in &self.inputs {
            let value = &self.values[*input];
            let made = self.builder.input(&value.name, &Type::tensor(value.dtype, &value.dims));
            map.insert(*input, made);
        }
        let read: Vec<ValueId> = order.iter().copied().chain(self.reads()).collect();
        let nodes = std::mem::take(&mut self.nodes);
        let outputs = std::mem::take(&mut self.outputs);
        for id in read {
            let value = &self.values[id];
            let weight = match value.from {
                From::Host(weight) => weight,
                From::Packed(at) if !map.contains_key(&id) => {
                    sections.push(std::mem::take(&mut self.packed[at]));
                    PACKED + sections.len() as u32 - 1
                }
                _ => continue,
            };
            if map.contains_key(&id) {
                continue;
            }
            let sizes: Option<Vec<i64>> = value.dims.iter().map(|dim| self.known.get(&dim.0).copied()).collect();
            let sizes = sizes
                .ok_or_else(|| Error::internal(format!("weight `{}` has sizes that are not known", value.name)))?;
            let weight = self.builder.weight(weight, value.dtype, &sizes);
            let made = self
                .builder
                .weight_value(&value.name, &Type::tensor(value.dtype, &value.dims), weight);
            map.insert(id, made);
        }
        for node in &nodes {
            let lost = || Error::internal(format!("`{}` reads what was not made", node.op)).at(node.source);
            let index = |value: &ValueIndex| map.get(&(value.0 as usize)).copied().ok_or_else(lost);
            let mut args: Vec<Arg> = Vec::with_capacity(node.args.len() + 1);
            for arg in &node.args {
                args.push(match arg {
                    Arg::Value(value) => Arg::Value(index(value)?),
                    Arg::Values(list) => Arg::Values(list.iter().map(index).collect::<Result<_, _>>()?),
                    Arg::OptionalValues(list) => {
                        let each = |value: &Option<ValueIndex>| value.as_ref().map(index).transpose();
                        Arg::OptionalValues(list.iter().map(each).collect::<Result<_, _>>()?)
                    }
                    other => other.clone(),
                });
            }
            let types: Vec<(String, Type)> = node
                .outputs
                .iter()
                .map(|id| {
                    (
                        self.values[*id].name.clone(),
                        Type::tensor(self.values[*id].dtype, &self.values[*id].dims),
                    )
                })
                .collect();
            let outputs: Vec<(&str, &Type)> = types.iter().map(|(name, ty)| (name.as_str(), ty)).collect();
            // The node of the host's image is its name: errors and profiles are told by it.
            let made = self
                .builder
                .node(&node.source.0.to_string(), &node.op, &args, &outputs, "");
            for (id, made) in node.outputs.iter().zip(made) {
                map.insert(*id, made);
            }
        }
        for output in &outputs {
            let made = map.get(output).copied();
            self.builder
                .output(made.ok_or_else(|| Error::internal("an output was not made"))?);
        }
        for state in &self.states {
            self.builder
                .state(&state.name, state.input, state.output, state.growth_axis);
        }
        let image = self
            .builder
            .finish()
            .map_err(|e| Error::internal(format!("the program is not right: {e}")))?;
        Ok((image, sections))
    }
}

impl Node {
    /// The values that it reads, each as often as it does.
    pub fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.args.iter().flat_map(|arg| {
            let list: Vec<ValueId> = match arg {
                Arg::Value(value) => vec![value.0 as usize],
                Arg::Values(list) => list.iter().map(|v| v.0 as usize).collect(),
                Arg::OptionalValues(list) => list.iter().flatten().map(|v| v.0 as usize).collect(),
                _ => Vec::new(),
            };
            list
        })
    }

    /// The value at an argument.
    pub fn value(&self, at: usize) -> Option<ValueId> {
        match self.args.get(at) {
            Some(Arg::Value(value)) => Some(value.0 as usize),
            _ => None,
        }
    }

    /// Reads another value wherever it read `from`.
    pub fn replace(&mut self, from: ValueId, to: ValueId) {
        let swap = |value: &mut ValueIndex| {
            if value.0 as usize == from {
                *value = ValueIndex(to as u32);
            }
        };
        for arg in &mut self.args {
            match arg {
                Arg::Value(value) => swap(value),
                Arg::Values(list) => list.iter_mut().for_each(swap),
                Arg::OptionalValues(list) => list.iter_mut().flatten().for_each(swap),
                _ => {}
            }
        }
    }
}

/// A value as an argument.
pub fn arg(value: ValueId) -> Arg {
    Arg::Value(ValueIndex(value as u32))
}

/// A number as a float.
pub fn float(arg: Option<&Arg>) -> Option<f64> {
    match arg? {
        Arg::Float(value) => Some(*value),
        Arg::Int(value) => Some(*value as f64),
        Arg::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    }
}
