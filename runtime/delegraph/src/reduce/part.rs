//! Some nodes of a graph as a model of their own, whose inputs are what the portable kernels made of them.

use super::Tensor;
use crate::{Config, Error, LoadOptions, Session, Source, Value};
use delegraph_host::{Host, HostOptions};
use delegraph_ir::{
    Arg, Constant, ConstantId, Def, Expr, Graph, InputKind, Module, NodeId, Output, Symbol, TensorType, Type, ValueId,
};
use delegraph_tag::{Boundary, Reads, builtin_refusal, live};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Values that are all kept from one run of the model; above, each part has its own run.
const KEPT: u64 = 1 << 30;

/// A graph with given inputs, and the values in it as far as they were asked for.
pub(crate) struct Recorded<'m> {
    module: &'m Module,
    graph: &'m Graph,
    inputs: &'m [Value<'m>],
    reads: Reads,
    /// What the inputs tell of the symbols of dynamic dimensions.
    symbols: FxHashMap<Symbol, i64>,
    known: FxHashMap<ValueId, Tensor>,
    keeps_all: bool,
}

/// A part of a graph.
pub(crate) struct Part {
    /// One graph, of constant sizes.
    pub(crate) module: Module,
    /// In the order of its inputs.
    pub(crate) inputs: Vec<Tensor>,
}

impl<'m> Recorded<'m> {
    /// A method with its flattened arguments.
    ///
    /// # Errors
    /// There is no such method.
    pub(crate) fn new(module: &'m Module, method: &str, inputs: &'m [Value<'m>]) -> Result<Recorded<'m>, Error> {
        let graph = module.graph(method).ok_or_else(|| {
            let names: Vec<&str> = module.graphs.iter().map(|graph| graph.name.as_str()).collect();
            Error::Usage(format!("there is no method `{method}`, but `{}`", names.join("`, `")))
        })?;
        let mut recorded = Recorded {
            module,
            graph,
            inputs,
            reads: Reads::of(graph),
            symbols: FxHashMap::default(),
            known: FxHashMap::default(),
            keeps_all: false,
        };
        recorded.bind_symbols();
        Ok(recorded)
    }

    /// The nodes that a delegate could be offered.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        let live = live(self.graph);
        let is_whole = |id: &NodeId| {
            let node = self.graph.node(*id);
            live[id.index()] && builtin_refusal(self.graph, node).is_none()
        };
        self.graph.node_ids().filter(is_whole).collect()
    }

    /// Name, operator and source line of a node.
    pub(crate) fn describe(&self, id: NodeId) -> (String, String, Option<String>) {
        let node = self.graph.node(id);
        (node.name.clone(), node.op.name().to_string(), node.source.clone())
    }

    /// These nodes, which are in execution order, as a model; `None`: they cannot be one.
    ///
    /// # Errors
    /// The model itself does not run on portable kernels.
    pub(crate) fn part(&mut self, nodes: &[NodeId]) -> Result<Option<Part>, Error> {
        let boundary = Boundary::of(self.graph, nodes, &self.reads);
        if boundary.outputs.is_empty() {
            return Ok(None);
        }
        let made = nodes.iter().flat_map(|id| &self.graph.node(*id).outputs).copied();
        let values: Vec<ValueId> = boundary.inputs.iter().copied().chain(made).collect();
        self.record(&values)?;
        let part = self.build(nodes, &boundary);
        if !self.keeps_all {
            self.known.clear();
        }
        Ok(part)
    }

    fn build(&self, nodes: &[NodeId], boundary: &Boundary) -> Option<Part> {
        let mut module = Module::default();
        let mut graph = Graph::new(&self.graph.name);
        let mut new: FxHashMap<ValueId, ValueId> = FxHashMap::default();
        let mut inputs = Vec::with_capacity(boundary.inputs.len());
        for id in &boundary.inputs {
            let tensor = self.known.get(id)?;
            let ty = self.ty(*id)?;
            new.insert(*id, graph.add_input(self.graph.value(*id).name.clone(), ty.into()));
            inputs.push(tensor.clone());
        }
        let mut constants: FxHashMap<ConstantId, ConstantId> = FxHashMap::default();
        for id in &boundary.constants {
            let value = self.graph.value(*id);
            let Def::Constant(old) = value.def else { return None };
            let constant = self.module.constants.find(old)?;
            let own = *constants
                .entry(old)
                .or_insert_with(|| module.constants.push(constant.clone()));
            let ty = TensorType::fixed(constant.dtype, &constant.sizes);
            new.insert(*id, graph.add_constant(value.name.clone(), ty, own));
        }
        for id in nodes {
            let mut node = self.graph.node(*id).clone();
            node.region = None;
            for arg in &mut node.args {
                self.fix(arg)?;
                if arg.values().any(|value| !new.contains_key(&value)) {
                    return None;
                }
                arg.map_values(|value| new.get(&value).copied().unwrap_or(value));
            }
            for output in &mut node.outputs {
                let name = self.graph.value(*output).name.clone();
                let made = graph.add_value(name, self.ty(*output)?.into(), Def::Node);
                new.insert(*output, made);
                *output = made;
            }
            graph.nodes.push(node);
        }
        boundary.outputs.iter().for_each(|id| graph.add_output(new[id]));
        module.graphs.push(graph);
        delegraph_ir::verify(&module).ok()?;
        Some(Part { module, inputs })
    }

    /// The type of a value with the sizes that it had; `None`: it has none that a part may have.
    fn ty(&self, id: ValueId) -> Option<TensorType> {
        let ty = self.graph.tensor(id).filter(|ty| ty.quant.is_none())?;
        Some(TensorType::fixed(ty.dtype, &self.known.get(&id)?.shape))
    }

    /// Makes the sizes of an argument constant; `None`: they are not known.
    fn fix(&self, arg: &mut Arg) -> Option<()> {
        let fixed = |expr: &Expr| {
            let expr = expr.substitute(&|symbol| self.symbols.get(symbol).map(|size| Expr::Int(*size)));
            expr.is_constant().then_some(expr)
        };
        match arg {
            Arg::Int(expr) | Arg::Sym(expr) => *expr = fixed(expr)?,
            Arg::Ints(items) => {
                for item in items {
                    *item = fixed(item)?;
                }
            }
            Arg::Graph(_) => return None,
            _ => {}
        }
        Some(())
    }

    /// What the sizes of the inputs say of symbols.
    fn bind_symbols(&mut self) {
        for (input, value) in self.graph.inputs.iter().zip(self.inputs) {
            let InputKind::Value(id) = input.kind else { continue };
            let mut bind = |expr: &Expr, size: i64| {
                if let Some((symbol, factor, offset)) = expr.as_linear()
                    && factor != 0
                {
                    self.symbols.insert(symbol, (size - offset) / factor);
                }
            };
            match (&self.graph.value(id).ty, value) {
                (Type::Tensor(ty), Value::Tensor(tensor)) => {
                    ty.shape
                        .iter()
                        .zip(tensor.shape.iter())
                        .for_each(|(expr, size)| bind(expr, *size));
                }
                (Type::Int(expr), Value::Int(size)) => bind(expr, *size),
                _ => {}
            }
        }
    }

    /// Runs the model on portable kernels for values that are not known yet.
    fn record(&mut self, wanted: &[ValueId]) -> Result<(), Error> {
        let mut missing: Vec<ValueId> = wanted
            .iter()
            .copied()
            .filter(|id| !self.known.contains_key(id))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.known.is_empty() && self.bytes() <= KEPT {
            self.keeps_all = true;
            // Values of nodes that were cleaned away are still in the list.
            let made = self.graph.nodes.iter().flat_map(|node| &node.outputs).copied();
            let given = |id: &ValueId| matches!(self.graph.value(*id).def, Def::Input | Def::State(_));
            let given = (0..self.graph.values.len()).map(ValueId::from).filter(given);
            missing = made
                .chain(given)
                .filter(|id| self.graph.tensor(*id).is_some())
                .collect();
        }
        missing.sort_unstable();
        missing.dedup();
        let mut made = Vec::new();
        for id in missing {
            match self.graph.value(id).def {
                Def::Node => made.push(id),
                Def::Input => {
                    let position = self
                        .graph
                        .inputs
                        .iter()
                        .position(|input| input.kind == InputKind::Value(id));
                    if let Some(Value::Tensor(view)) = position.and_then(|at| self.inputs.get(at)) {
                        self.known.insert(id, Tensor::of(view));
                    }
                }
                Def::State(state) => {
                    let state = &self.module.states[state.index()];
                    let initial = state.initial.and_then(|id| self.module.constants.find(id));
                    if let Some(shape) = state.ty.static_dims() {
                        let zeros = || vec![0; shape.numel().unwrap_or(0) * state.ty.dtype.size()];
                        let bytes = initial.and_then(Constant::to_contiguous);
                        let bytes = bytes.map_or_else(zeros, |bytes| bytes.as_slice().to_vec());
                        let dtype = state.ty.dtype;
                        self.known.insert(id, Tensor { dtype, shape, bytes });
                    }
                }
                Def::Constant(_) => {}
            }
        }
        if made.is_empty() {
            return Ok(());
        }
        let mut module = self.module.clone();
        let mut graph = self.graph.clone();
        graph.outputs = made.iter().copied().map(Output::Value).collect();
        graph.mutations.clear();
        module.graphs = vec![graph];
        let outputs = run_portably(module, &self.graph.name, self.inputs)?;
        for (id, output) in made.into_iter().zip(outputs) {
            self.known.extend(output.map(|tensor| (id, tensor)));
        }
        Ok(())
    }

    /// What all values take together, as far as their sizes are known before they are made.
    fn bytes(&self) -> u64 {
        let size = |ty: &TensorType| {
            let eval = |expr: &Expr| expr.eval(&|symbol| self.symbols.get(symbol).copied());
            let count = ty
                .shape
                .iter()
                .try_fold(1u64, |count, expr| count.checked_mul(eval(expr)?.try_into().ok()?));
            count.map_or(KEPT, |count| count.saturating_mul(ty.dtype.size() as u64))
        };
        let made = self.graph.values.iter().filter(|value| matches!(value.def, Def::Node));
        let sizes = made.filter_map(|value| value.ty.as_tensor().map(size));
        sizes.fold(0, u64::saturating_add)
    }
}

/// The `.pte` of a module, for portable kernels, with its IR inside.
pub(crate) fn portable(module: Module) -> Result<Vec<u8>, Error> {
    let nobody = Host::discover(HostOptions::default());
    Ok(crate::compile(module, &Config::default(), &nobody, &mut |_| {})?.bytes)
}

/// Runs a module on portable kernels; `None` for an output that is no tensor.
pub(crate) fn run_portably(module: Module, method: &str, inputs: &[Value<'_>]) -> Result<Vec<Option<Tensor>>, Error> {
    let source = Source::from_bytes(portable(module)?, "the model's trace");
    let nobody = Arc::new(Host::discover(HostOptions::default()));
    let mut options = LoadOptions {
        method: method.to_string(),
        ..LoadOptions::default()
    };
    // Every value of the model is kept to the end.
    options.executor.memory_limit = Some(u64::MAX);
    let mut session = Session::open(&source, &Config::default(), &nobody, options)?;
    session.run(inputs)?;
    (0..session.output_count())
        .map(|i| match session.output(i)? {
            Value::Tensor(view) => Ok(Some(Tensor::of(&view))),
            _ => Ok(None),
        })
        .collect()
}
