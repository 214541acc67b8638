//! Runs a graph node by node on the portable kernels, so that every value can be looked at while it lives.
//!
//! What is run is a portable copy of the module: composites are decomposed, but every value of the original graph is still
//! made, under its id. A value is dropped when the last node that reads it has run.

use crate::sample::{Item, Sample, is_number};
use crate::{QuantError, control};
use delegraph_ir::{
    Arg, Constant, Def, Expr, Graph, InputKind, Module, MutationTarget, Node, Output, RegionId, Symbol, Type, ValueId,
};
use delegraph_opset::BaseType;
use delegraph_passes::{RunError, run_sized_by_kernel, to_portable};
use delegraph_types::{DType, Dims};
use rustc_hash::FxHashMap;

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Datum {
    /// A tensor.
    Tensor(Constant),
    /// A number that is read at run time.
    Int(i64),
    /// As `Int`.
    Float(f64),
    /// As `Int`.
    Bool(bool),
}

impl Datum {
    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Constant> {
        match self {
            Datum::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

/// A method that can be run, with the states that it keeps.
pub(crate) struct Machine {
    module: Module,
    /// For each node, the values that nobody reads once it has run.
    dropped: Vec<Vec<ValueId>>,
    states: Vec<Option<Constant>>,
}

impl Machine {
    /// Of the first method of a module.
    ///
    /// # Errors
    /// An operator has no portable form.
    pub fn new(module: &Module) -> Result<Machine, QuantError> {
        let mut module = module.clone();
        module.graphs.truncate(1);
        // The values that a region reads and makes are kept by every pass.
        for node in module.graphs.iter_mut().flat_map(|graph| &mut graph.nodes) {
            node.region = Some(RegionId(0));
        }
        to_portable(&mut module)?;
        let mut machine = Machine {
            dropped: module.graphs.first().map(dropped).unwrap_or_default(),
            states: Vec::new(),
            module,
        };
        machine.reset();
        Ok(machine)
    }

    /// States as before the first run.
    pub fn reset(&mut self) {
        let constants = &self.module.constants;
        let states = self.module.states.iter();
        self.states = states
            .map(|state| match state.initial {
                Some(id) => constants.find(id).cloned(),
                None => {
                    let dims = state.ty.static_dims()?;
                    let bytes = vec![0; dims.numel()?.checked_mul(state.ty.dtype.size())?];
                    Some(Constant::contiguous(&*state.name, state.ty.dtype, dims, bytes.into()))
                }
            })
            .collect();
    }

    /// Starts a run.
    ///
    /// # Errors
    /// The sample does not fit the method.
    pub fn start<'a>(&'a mut self, sample: &'a Sample) -> Result<Run<'a>, QuantError> {
        if sample.fresh {
            self.reset();
        }
        let graph = self.module.graphs.first();
        let graph = graph.ok_or_else(|| QuantError::Bug("a module without a method".to_string()))?;
        let mut scope = Scope::new(&self.module, &self.states, graph, &sample.name);
        for (input, item) in graph.inputs.iter().zip(&sample.inputs) {
            if let (InputKind::Value(value), Item::Tensor(tensor)) = (&input.kind, item) {
                let wrong = |problem: String| QuantError::Sample {
                    sample: sample.name.clone(),
                    problem: format!("input `{}` {problem}", input.name),
                };
                let ty = &graph.value(*value).ty;
                let have = format!("{}{:?}", tensor.dtype, tensor.sizes.as_slice());
                scope
                    .give(*value, tensor)
                    .ok_or_else(|| wrong(format!("is {have}, the method wants {ty}")))?;
            }
        }
        Ok(Run {
            scope,
            dropped: &self.dropped,
            at: 0,
        })
    }

    /// Ends a run: states become what it wrote.
    pub fn end(&mut self, written: Vec<(usize, Constant)>) {
        for (state, value) in written {
            if let Some(slot) = self.states.get_mut(state) {
                *slot = Some(value);
            }
        }
    }
}

/// For each node, the values that are read for the last time by it, or made by it and read by nobody.
fn dropped(graph: &Graph) -> Vec<Vec<ValueId>> {
    let mut last: Vec<Option<usize>> = vec![None; graph.values.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for value in node.inputs().chain(node.outputs.iter().copied()) {
            last[value.index()] = Some(i);
        }
    }
    for value in graph.results() {
        last[value.index()] = None;
    }
    let mut dropped = vec![Vec::new(); graph.nodes.len()];
    for (value, last) in last.into_iter().enumerate() {
        if let Some(node) = last {
            dropped[node].push(ValueId::from(value));
        }
    }
    dropped
}

/// A run of the method.
pub(crate) struct Run<'a> {
    scope: Scope<'a>,
    dropped: &'a [Vec<ValueId>],
    at: usize,
}

impl<'a> Run<'a> {
    /// Runs the next node and gives it; `None`: all have run. What the node before it dropped is gone then.
    ///
    /// # Errors
    /// The node cannot be run.
    pub fn step(&mut self) -> Result<Option<&'a Node>, QuantError> {
        if let Some(before) = self.at.checked_sub(1).and_then(|i| self.dropped.get(i)) {
            before.iter().for_each(|value| self.scope.values[value.index()] = None);
        }
        let Some(node) = self.scope.graph.nodes.get(self.at) else {
            return Ok(None);
        };
        self.at += 1;
        self.scope.execute(node)?;
        Ok(Some(node))
    }

    /// What a value is, if it has been made and somebody still reads it.
    pub fn value(&self, value: ValueId) -> Option<Datum> {
        self.scope.find(value)
    }

    /// What the method returns: tensors only, by position.
    pub fn outputs(&self) -> Vec<Option<Constant>> {
        let outputs = self.scope.graph.outputs.iter();
        outputs
            .map(|output| match output {
                Output::Value(value) => self.scope.find(*value)?.tensor().cloned(),
                Output::Literal(_) => None,
            })
            .collect()
    }

    /// What the run wrote to states.
    pub fn written(&self) -> Vec<(usize, Constant)> {
        let mutations = self.scope.graph.mutations.iter();
        mutations
            .filter_map(|mutation| match mutation.target {
                MutationTarget::State(state) => {
                    Some((state.index(), self.scope.find(mutation.value)?.tensor()?.clone()))
                }
                MutationTarget::Input(_) => None,
            })
            .collect()
    }
}

/// The values of one graph, or of one call of a subgraph.
pub(crate) struct Scope<'a> {
    module: &'a Module,
    states: &'a [Option<Constant>],
    pub graph: &'a Graph,
    sample: &'a str,
    values: Vec<Option<Datum>>,
    symbols: FxHashMap<Symbol, i64>,
}

impl<'a> Scope<'a> {
    fn new(module: &'a Module, states: &'a [Option<Constant>], graph: &'a Graph, sample: &'a str) -> Scope<'a> {
        Scope {
            module,
            states,
            graph,
            sample,
            values: vec![None; graph.values.len()],
            symbols: FxHashMap::default(),
        }
    }

    /// The scope of a subgraph of this one.
    pub fn inner(&self, graph: &'a Graph) -> Scope<'a> {
        Scope {
            symbols: self.symbols.clone(),
            ..Scope::new(self.module, self.states, graph, self.sample)
        }
    }

    fn find(&self, value: ValueId) -> Option<Datum> {
        if let Some(datum) = self.values.get(value.index())? {
            return Some(datum.clone());
        }
        let constant = match self.graph.value(value).def {
            Def::Constant(id) => self.module.constants.find(id)?.clone(),
            Def::State(id) => self.states.get(id.index())?.clone()?,
            Def::Input | Def::Node => return None,
        };
        Some(Datum::Tensor(constant))
    }

    /// Gives an input its value. `None`: it is of another type, or a size contradicts what is known.
    fn give(&mut self, value: ValueId, tensor: &Constant) -> Option<()> {
        let ty = &self.graph.value(value).ty;
        let datum = match ty {
            Type::Tensor(ty) => {
                (ty.dtype == tensor.dtype && ty.rank() == tensor.sizes.rank()).then_some(())?;
                for (size, actual) in ty.shape.iter().zip(tensor.sizes.iter()) {
                    bind(&mut self.symbols, size, *actual);
                    (self.size(size)? == *actual).then_some(())?;
                }
                Datum::Tensor(tensor.clone())
            }
            ty => number(ty, tensor)?,
        };
        if let (Type::Int(expr), Datum::Int(i)) = (ty, &datum) {
            bind(&mut self.symbols, expr, *i);
        }
        self.values[value.index()] = Some(datum);
        Some(())
    }

    fn size(&self, expr: &Expr) -> Option<i64> {
        expr.eval(&|symbol| self.symbols.get(symbol).copied())
    }

    pub fn error(&self, node: &Node, problem: impl Into<String>) -> QuantError {
        QuantError::Node {
            sample: self.sample.to_string(),
            node: node.name.clone(),
            op: node.op.name(),
            problem: problem.into(),
        }
    }

    /// The value of a symbolic number, as a boolean.
    pub fn truth(&self, expr: &Expr) -> Option<bool> {
        Some(expr.eval_f64(&|symbol| self.symbols.get(symbol).copied())? != 0.0)
    }

    /// The values of an argument that is a list of values.
    pub fn list(&self, node: &Node, arg: &Arg) -> Result<Vec<Datum>, QuantError> {
        let found: Option<Vec<Datum>> = match arg {
            Arg::Values(values) => values.iter().map(|value| self.find(*value)).collect(),
            Arg::None => Some(Vec::new()),
            _ => None,
        };
        found.ok_or_else(|| self.error(node, "a value is read before it is made"))
    }

    /// The value of an argument.
    pub fn datum(&self, value: ValueId) -> Option<Datum> {
        self.find(value)
    }

    /// Runs one node.
    fn execute(&mut self, node: &'a Node) -> Result<(), QuantError> {
        let results = match node.op.name() {
            "aten::item" | "aten::_local_scalar_dense" => vec![self.read_number(node)?],
            name if name.starts_with("higher_order::") => control::run(self, node)?,
            _ => self.kernel(node)?,
        };
        if results.len() != node.outputs.len() {
            return Err(self.error(node, format!("{} results of {}", results.len(), node.outputs.len())));
        }
        for (value, datum) in node.outputs.iter().zip(results) {
            match (&self.graph.value(*value).ty, &datum) {
                (Type::Tensor(ty), Datum::Tensor(tensor)) if ty.rank() == tensor.sizes.rank() => {
                    for (size, actual) in ty.shape.iter().zip(tensor.sizes.iter()) {
                        bind(&mut self.symbols, size, *actual);
                    }
                }
                (Type::Int(expr), Datum::Int(i)) => bind(&mut self.symbols, expr, *i),
                _ => {}
            }
            self.values[value.index()] = Some(datum);
        }
        Ok(())
    }

    /// Runs a subgraph on operands and gives its outputs.
    pub fn call(&self, node: &Node, graph: &'a Graph, operands: Vec<Datum>) -> Result<Vec<Datum>, QuantError> {
        let mut scope = self.inner(graph);
        let wanted = graph.inputs.iter().filter_map(|input| match input.kind {
            InputKind::Value(value) => Some(value),
            InputKind::Literal(_) => None,
        });
        for (value, operand) in wanted.zip(operands) {
            match operand {
                Datum::Tensor(tensor) => scope
                    .give(value, &tensor)
                    .ok_or_else(|| self.error(node, "an operand does not fit the subgraph"))?,
                number => {
                    if let (Type::Int(expr), Datum::Int(i)) = (&graph.value(value).ty, &number) {
                        bind(&mut scope.symbols, expr, *i);
                    }
                    scope.values[value.index()] = Some(number);
                }
            }
        }
        for inner in &graph.nodes {
            scope.execute(inner)?;
        }
        let outputs = graph.outputs.iter().map(|output| match output {
            Output::Value(value) => scope.find(*value),
            Output::Literal(Arg::Int(expr)) => scope.size(expr).map(Datum::Int),
            Output::Literal(Arg::Float(f)) => Some(Datum::Float(*f)),
            Output::Literal(Arg::Bool(b)) => Some(Datum::Bool(*b)),
            Output::Literal(_) => None,
        });
        let outputs: Option<Vec<Datum>> = outputs.collect();
        outputs.ok_or_else(|| self.error(node, "an output of the subgraph is not made"))
    }

    fn read_number(&self, node: &Node) -> Result<Datum, QuantError> {
        let source = node
            .args
            .first()
            .and_then(Arg::as_value)
            .and_then(|value| self.find(value));
        let ty = node.outputs.first().map(|value| &self.graph.value(*value).ty);
        match (source, ty) {
            (Some(Datum::Tensor(tensor)), Some(ty)) => number(ty, &tensor),
            _ => None,
        }
        .ok_or_else(|| self.error(node, "what it reads is no number"))
    }

    fn kernel(&self, node: &Node) -> Result<Vec<Datum>, QuantError> {
        let failed = |source: RunError| QuantError::Run {
            sample: self.sample.to_string(),
            node: node.name.clone(),
            op: node.op.name(),
            source,
        };
        let params = &node.op.schema().params;
        let args: Option<Vec<Arg>> = node
            .args
            .iter()
            .enumerate()
            .map(|(i, arg)| self.known(arg, params.get(i).is_some_and(|p| p.ty.base == BaseType::Bool)))
            .collect();
        let args = args.ok_or_else(|| self.error(node, "a size that it is given is not known"))?;
        let dtypes: Option<Vec<DType>> = node
            .outputs
            .iter()
            .map(|value| self.graph.tensor(*value).map(|ty| ty.dtype))
            .collect();
        let dtypes = dtypes.ok_or_else(|| self.error(node, "its result is no tensor"))?;
        let constant = |value: ValueId| self.find(value)?.tensor().cloned();
        let results = run_sized_by_kernel(node.op, &args, &constant, &dtypes).map_err(failed)?;
        let name = |i: usize| self.graph.value(node.outputs[i]).name.clone();
        let results = results.into_iter().enumerate();
        Ok(results
            .map(|(i, (dtype, sizes, bytes))| Datum::Tensor(Constant::contiguous(name(i), dtype, sizes, bytes)))
            .collect())
    }

    /// An argument without symbols and without numbers that are values.
    fn known(&self, arg: &Arg, boolean: bool) -> Option<Arg> {
        Some(match arg {
            Arg::Int(expr) => Arg::int(self.size(expr)?),
            Arg::Sym(expr) if boolean => Arg::Bool(self.truth(expr)?),
            Arg::Sym(expr) => Arg::Float(expr.eval_f64(&|symbol| self.symbols.get(symbol).copied())?),
            Arg::Ints(items) => Arg::Ints(
                items
                    .iter()
                    .map(|e| self.size(e).map(Expr::Int))
                    .collect::<Option<_>>()?,
            ),
            Arg::Value(value) if is_number(&self.graph.value(*value).ty) => match self.find(*value)? {
                Datum::Int(i) => Arg::int(i),
                Datum::Float(f) => Arg::Float(f),
                Datum::Bool(b) => Arg::Bool(b),
                Datum::Tensor(_) => return None,
            },
            other => other.clone(),
        })
    }
}

/// Takes a size for what tells the value of a symbol.
fn bind(symbols: &mut FxHashMap<Symbol, i64>, size: &Expr, actual: i64) {
    if let Some((symbol, factor, rest)) = size.as_linear()
        && let Some(difference) = actual.checked_sub(rest)
        && difference % factor == 0
    {
        symbols.entry(symbol).or_insert(difference / factor);
    }
}

/// A tensor of one element as a number of this type.
fn number(ty: &Type, tensor: &Constant) -> Option<Datum> {
    (tensor.sizes.numel() == Some(1)).then_some(())?;
    let bytes = tensor.to_contiguous()?;
    let bytes = bytes.as_slice();
    let float = || match tensor.dtype {
        DType::F32 => Some(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        DType::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    };
    let int = || match tensor.dtype {
        DType::I64 => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
        DType::I32 => Some(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        DType::I16 => Some(i64::from(i16::from_le_bytes(bytes.try_into().ok()?))),
        DType::I8 => Some(i64::from(*bytes.first()? as i8)),
        DType::U8 | DType::Bool => Some(i64::from(*bytes.first()?)),
        _ => None,
    };
    Some(match ty {
        Type::Int(_) => Datum::Int(int()?),
        Type::Float => Datum::Float(float().or_else(|| int().map(|i| i as f64))?),
        Type::Bool => Datum::Bool(int()? != 0),
        Type::Tensor(_) => return None,
    })
}

/// The elements of a tensor of f32.
pub(crate) fn floats(tensor: &Constant) -> Option<Vec<f32>> {
    (tensor.dtype == DType::F32).then_some(())?;
    let bytes = tensor.to_contiguous()?;
    let (items, _) = bytes.as_slice().as_chunks::<4>();
    Some(items.iter().map(|item| f32::from_le_bytes(*item)).collect())
}

/// A tensor of one dimension.
pub(crate) fn line(length: usize) -> Dims {
    Dims::filled(1, length as i64)
}
