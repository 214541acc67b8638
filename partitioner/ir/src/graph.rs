//! Graphs, nodes, values and arguments.

use crate::{ConstantId, Expr, NodeId, Op, RegionId, StateId, TensorType, Type, ValueId};
use delegraph_opset::Param;
use delegraph_types::{DType, Scalar};
use rustc_hash::FxHashMap;

/// Memory format of an argument (`c10::MemoryFormat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub enum MemoryFormat {
    Contiguous,
    Preserve,
    ChannelsLast,
    ChannelsLast3d,
}

/// An argument of a node. `node.args[i]` belongs to `op.schema().params[i]`; every default is filled in.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Arg {
    /// `None`, or a parameter that means nothing here (generator, device).
    None,
    /// A tensor, or a number read at run time.
    Value(ValueId),
    /// An integer, possibly symbolic; at a Tensor parameter it is a wrapped number.
    Int(Expr),
    /// A float; at a Tensor parameter it is a wrapped number.
    Float(#[serde(with = "crate::serialize::float_bits")] f64),
    /// A boolean; at a Tensor parameter it is a wrapped number.
    Bool(bool),
    /// A boolean or float computed from sizes (a comparison of sizes, a true division).
    Sym(Expr),
    /// A string.
    Str(String),
    /// A `ScalarType`.
    DType(DType),
    /// A memory format.
    MemoryFormat(MemoryFormat),
    /// `int[]`
    Ints(Vec<Expr>),
    /// `float[]`
    Floats(#[serde(with = "crate::serialize::floats_bits")] Vec<f64>),
    /// `bool[]`
    Bools(Vec<bool>),
    /// `Scalar[]`
    Scalars(#[serde(with = "crate::serialize::scalars_bits")] Vec<Scalar>),
    /// `Tensor[]`
    Values(Vec<ValueId>),
    /// `Tensor?[]`
    OptionalValues(Vec<Option<ValueId>>),
    /// A subgraph of a higher-order operator; its values are its own, everything it reads is an input of it.
    Graph(Box<Graph>),
}

impl Arg {
    /// A constant `int[]`.
    pub fn ints(items: &[i64]) -> Arg {
        Arg::Ints(items.iter().map(|&i| Expr::Int(i)).collect())
    }

    /// A constant integer.
    pub fn int(value: i64) -> Arg {
        Arg::Int(Expr::Int(value))
    }

    /// A number as an argument.
    pub fn scalar(value: Scalar) -> Arg {
        match value {
            Scalar::Bool(b) => Arg::Bool(b),
            Scalar::Int(i) => Arg::int(i),
            Scalar::Float(f) => Arg::Float(f),
        }
    }

    /// The value, if it is one.
    pub fn as_value(&self) -> Option<ValueId> {
        match self {
            Arg::Value(v) => Some(*v),
            _ => None,
        }
    }

    /// The constant integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Arg::Int(e) => e.as_int(),
            _ => None,
        }
    }

    /// The number, if it is a constant one.
    pub fn as_scalar(&self) -> Option<Scalar> {
        match self {
            Arg::Int(e) => e.as_int().map(Scalar::Int),
            Arg::Float(f) => Some(Scalar::Float(*f)),
            Arg::Bool(b) => Some(Scalar::Bool(*b)),
            _ => None,
        }
    }

    /// The boolean, if it is a constant one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Arg::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The integers, if all are constant.
    pub fn as_ints(&self) -> Option<Vec<i64>> {
        match self {
            Arg::Ints(items) => items.iter().map(Expr::as_int).collect(),
            _ => None,
        }
    }

    /// Values that the argument reads (a subgraph reads none: its inputs are arguments of the node).
    pub fn values(&self) -> impl Iterator<Item = ValueId> + '_ {
        let (one, many, optional): (Option<ValueId>, &[ValueId], &[Option<ValueId>]) = match self {
            Arg::Value(v) => (Some(*v), &[], &[]),
            Arg::Values(vs) => (None, vs, &[]),
            Arg::OptionalValues(vs) => (None, &[], vs),
            _ => (None, &[], &[]),
        };
        one.into_iter()
            .chain(many.iter().copied())
            .chain(optional.iter().copied().flatten())
    }

    /// Replaces every value that the argument reads.
    pub fn map_values(&mut self, mut f: impl FnMut(ValueId) -> ValueId) {
        match self {
            Arg::Value(v) => *v = f(*v),
            Arg::Values(vs) => vs.iter_mut().for_each(|v| *v = f(*v)),
            Arg::OptionalValues(vs) => vs.iter_mut().flatten().for_each(|v| *v = f(*v)),
            _ => {}
        }
    }

    /// Size expressions in the argument.
    pub fn exprs(&self) -> &[Expr] {
        match self {
            Arg::Int(e) | Arg::Sym(e) => std::slice::from_ref(e),
            Arg::Ints(items) => items,
            _ => &[],
        }
    }
}

macro_rules! arg_from {
    ($($ty:ty => $make:expr),* $(,)?) => {
        $(impl From<$ty> for Arg {
            fn from(value: $ty) -> Arg {
                $make(value)
            }
        })*
    };
}

arg_from! {
    ValueId => Arg::Value,
    Vec<ValueId> => Arg::Values,
    Vec<Option<ValueId>> => Arg::OptionalValues,
    Expr => Arg::Int,
    Vec<Expr> => Arg::Ints,
    i64 => Arg::int,
    Vec<i64> => |items: Vec<i64>| Arg::ints(&items),
    f64 => Arg::Float,
    bool => Arg::Bool,
    Scalar => Arg::scalar,
    DType => Arg::DType,
}

/// `None` gives [`Arg::None`].
impl<T: Into<Arg>> From<Option<T>> for Arg {
    fn from(value: Option<T>) -> Arg {
        value.map_or(Arg::None, Into::into)
    }
}

/// An operator applied to arguments.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Node {
    /// Unique within the graph; of the exported program where it came from one.
    pub name: String,
    /// What it computes: always a functional operator (never in-place, never an out-variant).
    #[serde(with = "crate::serialize::op_name")]
    pub op: Op,
    /// One for each parameter of the schema.
    pub args: Vec<Arg>,
    /// One for each returned value; a returned list is flattened.
    pub outputs: Vec<ValueId>,
    /// The exporting program's source line, where the file has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The delegated region that the node belongs to. Decompositions inherit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionId>,
}

impl Node {
    /// Values that the node reads, in argument order, repeats included.
    pub fn inputs(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.args.iter().flat_map(Arg::values)
    }

    /// The argument of this parameter name.
    pub fn arg(&self, name: &str) -> Option<&Arg> {
        self.args.get(self.op.schema().position(name)?)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Def {
    /// An input of the graph.
    Input,
    /// Output of some node.
    Node,
    /// A constant of the module.
    Constant(ConstantId),
    /// The state as it was before the run.
    State(StateId),
}

/// An SSA value.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Value {
    /// Unique within the graph.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Its origin.
    pub def: Def,
}

/// An input of a graph, in the order of the flattened arguments of the method.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Input {
    /// Name of the argument.
    pub name: String,
    /// What it is.
    pub kind: InputKind,
}

/// What an input is.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum InputKind {
    /// A tensor or run-time number.
    Value(ValueId),
    /// A Python number, string or None that was fixed at export: a caller may give exactly this.
    Literal(Arg),
}

/// An output of a graph.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Output {
    /// A tensor or run-time number; may be an input or a constant.
    Value(ValueId),
    /// A literal (`Arg::None`, a number), or a size (`Arg::Int` with symbols).
    Literal(Arg),
}

/// What a mutation writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum MutationTarget {
    /// A mutable buffer.
    State(StateId),
    /// The input at this position of [`Graph::inputs`].
    Input(u32),
}

/// A write that takes effect when the graph has run: the only kind of mutation there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mutation {
    /// Where to.
    pub target: MutationTarget,
    /// What.
    pub value: ValueId,
}

/// A method, or a subgraph of a higher-order operator.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Graph {
    /// Method name, or the subgraph's.
    pub name: String,
    /// In the order of the flattened arguments.
    pub inputs: Vec<Input>,
    /// In the order of the flattened results.
    pub outputs: Vec<Output>,
    /// Writes at the end of the run.
    pub mutations: Vec<Mutation>,
    /// In execution order: every value is defined before it is read.
    pub nodes: Vec<Node>,
    /// Indexed by [`ValueId`].
    pub values: Vec<Value>,
    /// Pytree text of arguments and results as torch.export writes it (`ContainerMetadata` of a `.pte`); empty if unknown.
    pub in_spec: String,
    /// See `in_spec`.
    pub out_spec: String,
}

impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        self.name == other.name && self.op == other.op && self.args == other.args && self.outputs == other.outputs
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.name == other.name && self.ty == other.ty && self.def == other.def
    }
}

/// The table has no such operator.
#[derive(Debug, Clone, thiserror::Error)]
#[error("operator `{0}` is not in the operator table")]
pub struct UnknownOp(pub String);

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph {
            name: name.into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            mutations: Vec::new(),
            nodes: Vec::new(),
            values: Vec::new(),
            in_spec: String::new(),
            out_spec: String::new(),
        }
    }

    /// Adds a value without a node.
    pub fn add_value(&mut self, name: impl Into<String>, ty: Type, def: Def) -> ValueId {
        self.values.push(Value {
            name: name.into(),
            ty,
            def,
        });
        ValueId::from(self.values.len() - 1)
    }

    /// Adds an input at the end.
    pub fn add_input(&mut self, name: impl Into<String>, ty: Type) -> ValueId {
        let name = name.into();
        let value = self.add_value(name.clone(), ty, Def::Input);
        self.inputs.push(Input {
            name,
            kind: InputKind::Value(value),
        });
        value
    }

    /// Adds a value that is a constant of the module.
    pub fn add_constant(&mut self, name: impl Into<String>, ty: TensorType, id: ConstantId) -> ValueId {
        self.add_value(name, ty.into(), Def::Constant(id))
    }

    /// Adds an output at the end.
    pub fn add_output(&mut self, value: ValueId) {
        self.outputs.push(Output::Value(value));
    }

    /// Appends a node with new output values; arguments that are not given are filled with the schema's defaults.
    ///
    /// # Errors
    /// The operator is not in the table.
    pub fn push(&mut self, op: &str, args: Vec<Arg>, types: Vec<Type>) -> Result<Vec<ValueId>, UnknownOp> {
        let op = Op::find(op).ok_or_else(|| UnknownOp(op.to_string()))?;
        let name = format!("{}_{}", base_name(op), self.nodes.len());
        let outputs: Vec<ValueId> = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| {
                let name = if i == 0 { name.clone() } else { format!("{name}_{i}") };
                self.add_value(name, ty, Def::Node)
            })
            .collect();
        self.nodes.push(Node {
            name,
            op,
            args: fill_defaults(op, args),
            outputs: outputs.clone(),
            source: None,
            region: None,
        });
        Ok(outputs)
    }

    /// The value's record.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The type of a value that is known to be a tensor.
    pub fn tensor(&self, id: ValueId) -> Option<&TensorType> {
        self.values.get(id.index())?.ty.as_tensor()
    }

    /// The node of this id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Node ids in execution order.
    pub fn node_ids(&self) -> impl ExactSizeIterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId::from)
    }

    /// For each value, the node that makes it.
    pub fn producers(&self) -> Vec<Option<NodeId>> {
        let mut producers = vec![None; self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for output in &node.outputs {
                producers[output.index()] = Some(NodeId::from(i));
            }
        }
        producers
    }

    /// For each value, the nodes that read it (each once, in order).
    pub fn users(&self) -> Vec<Vec<NodeId>> {
        let mut users: Vec<Vec<NodeId>> = vec![Vec::new(); self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for input in node.inputs() {
                let list = &mut users[input.index()];
                if list.last() != Some(&NodeId::from(i)) {
                    list.push(NodeId::from(i));
                }
            }
        }
        users
    }

    /// Values read after the last node: outputs and mutations.
    pub fn results(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.outputs
            .iter()
            .filter_map(|o| match o {
                Output::Value(v) => Some(*v),
                Output::Literal(_) => None,
            })
            .chain(self.mutations.iter().map(|m| m.value))
    }

    /// Redirects every read of the keys of `map` to its values (followed once).
    pub fn replace_uses(&mut self, map: &FxHashMap<ValueId, ValueId>) {
        let swap = |v: ValueId| map.get(&v).copied().unwrap_or(v);
        for node in &mut self.nodes {
            node.args.iter_mut().for_each(|arg| arg.map_values(swap));
        }
        for output in &mut self.outputs {
            if let Output::Value(v) = output {
                *v = swap(*v);
            }
        }
        for mutation in &mut self.mutations {
            mutation.value = swap(mutation.value);
        }
    }
}

/// `aten::add.Tensor` -> `add`
fn base_name(op: Op) -> &'static str {
    let name = op.name();
    let name = name.rsplit_once("::").map_or(name, |(_, n)| n);
    name.split('.').next().unwrap_or(name)
}

/// Extends `args` to the length of the schema with its defaults.
pub fn fill_defaults(op: Op, mut args: Vec<Arg>) -> Vec<Arg> {
    args.extend(op.schema().params.iter().skip(args.len()).map(default_arg));
    args
}

/// The argument that stands for a parameter that was not given; [`Arg::None`] where there is no default.
pub fn default_arg(param: &Param) -> Arg {
    use delegraph_opset::{BaseType, Default};
    match &param.default {
        None | Some(Default::None) => Arg::None,
        Some(Default::Bool(b)) => Arg::Bool(*b),
        Some(Default::Int(i)) if param.ty.base == BaseType::DType => {
            DType::from_pte(*i as i8).map_or(Arg::None, Arg::DType)
        }
        Some(Default::Int(_)) if param.ty.base == BaseType::MemoryFormat => Arg::MemoryFormat(MemoryFormat::Contiguous),
        Some(Default::Int(_)) if matches!(param.ty.base, BaseType::Device | BaseType::Layout) => Arg::None,
        Some(Default::Int(i)) => Arg::int(*i),
        Some(Default::Float(f)) => Arg::Float(*f),
        Some(Default::Str(s)) => Arg::Str(s.clone()),
        Some(Default::Ints(items)) => Arg::ints(items),
        Some(Default::Floats(items)) => Arg::Floats(items.clone()),
        Some(Default::Bools(items)) => Arg::Bools(items.clone()),
    }
}
