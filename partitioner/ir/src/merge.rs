//! One module of two: methods that share weights, buffers and symbols.

use crate::{
    Arg, Constant, ConstantId, Def, Expr, Graph, InputKind, Module, MutationTarget, Output, Quant, State, StateId,
    Symbol, Type,
};
use rustc_hash::FxHashMap;

/// Why two modules do not make one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Both have a method of this name.
    #[error("both have a method `{0}`")]
    Method(String),
    /// Both have a buffer of this name, and it is not the same one.
    #[error("the buffer `{name}` is {one} in one of them and {other} in the other")]
    State {
        /// Its name.
        name: String,
        /// Its type.
        one: String,
        /// Its type in the other module.
        other: String,
    },
}

impl Module {
    /// Adds the methods of another module. Constants of equal contents, dtype and sizes are one, and so are buffers of one name; symbols of one name
    /// and another range are given another name.
    ///
    /// # Errors
    /// Methods of one name, or buffers of one name and other types.
    pub fn merge(&mut self, other: Module) -> Result<(), MergeError> {
        if let Some(graph) = other.graphs.iter().find(|graph| self.graph(&graph.name).is_some()) {
            return Err(MergeError::Method(graph.name.clone()));
        }
        for state in &other.states {
            self.check_state(state, &other)?;
        }
        let constants = self.merge_constants(&other);
        let states = self.merge_states(&other, &constants);
        let symbols = self.merge_symbols(&other);
        let into = Into {
            constants,
            states,
            symbols,
        };
        for mut graph in other.graphs {
            into.graph(&mut graph);
            self.graphs.push(graph);
        }
        Ok(())
    }

    fn merge_constants(&mut self, other: &Module) -> Vec<ConstantId> {
        let mut of_name: FxHashMap<&str, Vec<ConstantId>> = FxHashMap::default();
        for (id, constant) in self.constants.iter() {
            of_name.entry(&constant.name).or_default().push(id);
        }
        let same = |constant: &Constant| {
            let known = of_name.get(constant.name.as_str())?;
            known.iter().copied().find(|id| is_same(&self.constants[*id], constant))
        };
        let found: Vec<Option<ConstantId>> = other.constants.iter().map(|(_, constant)| same(constant)).collect();
        let mut ids = Vec::with_capacity(found.len());
        for (found, (_, constant)) in found.into_iter().zip(other.constants.iter()) {
            ids.push(found.unwrap_or_else(|| self.constants.push(constant.clone())));
        }
        ids
    }

    /// A buffer of the same name is the same: its type, and what it begins with.
    fn check_state(&self, state: &State, other: &Module) -> Result<(), MergeError> {
        let Some(known) = self.states.iter().find(|known| known.name == state.name) else {
            return Ok(());
        };
        let initial = |module: &Module, state: &State| state.initial.and_then(|id| module.constants.find(id).cloned());
        let alike = match (initial(self, known), initial(other, state)) {
            (None, None) => true,
            (Some(a), Some(b)) => is_same(&a, &b),
            _ => false,
        };
        let words = |state: &State, begins: &str| format!("{}{begins}", state.ty);
        match (known.ty == state.ty, alike) {
            (true, true) => Ok(()),
            (same, _) => Err(MergeError::State {
                name: state.name.clone(),
                one: words(known, ""),
                other: words(state, if same { " with another beginning" } else { "" }),
            }),
        }
    }

    fn merge_states(&mut self, other: &Module, constants: &[ConstantId]) -> Vec<StateId> {
        let mut ids = Vec::with_capacity(other.states.len());
        for state in &other.states {
            let known = self.states.iter().position(|known| known.name == state.name);
            if let Some(at) = known {
                ids.push(StateId::from(at));
                continue;
            }
            ids.push(StateId::from(self.states.len()));
            self.states.push(State {
                initial: state.initial.map(|id| constants[id.index()]),
                ..state.clone()
            });
        }
        ids
    }

    fn merge_symbols(&mut self, other: &Module) -> FxHashMap<Symbol, Expr> {
        let mut renamed = FxHashMap::default();
        for (symbol, range) in &other.symbols.ranges {
            let mut name = symbol.clone();
            if self.symbols.ranges.get(symbol).is_some_and(|known| known != range) {
                let mut numbered = (2..).map(|number| Symbol::new(&format!("{symbol}_{number}")));
                let taken = |name: &Symbol| {
                    [&self.symbols, &other.symbols]
                        .iter()
                        .any(|s| s.ranges.contains_key(name))
                };
                name = numbered.find(|name| !taken(name)).unwrap_or(name);
                renamed.insert(symbol.clone(), Expr::Symbol(name.clone()));
            }
            self.symbols.ranges.insert(name, *range);
        }
        renamed
    }
}

fn is_same(a: &Constant, b: &Constant) -> bool {
    let windows = |c: &Constant| (c.storage.address(), c.offset, c.strides);
    (a.dtype, a.sizes) == (b.dtype, b.sizes) && {
        let here = windows(a) == windows(b);
        here || match (a.to_contiguous(), b.to_contiguous()) {
            (Some(a), Some(b)) => a.as_slice() == b.as_slice(),
            _ => false,
        }
    }
}

/// What another module's ids and symbols are in this one.
struct Into {
    constants: Vec<ConstantId>,
    states: Vec<StateId>,
    symbols: FxHashMap<Symbol, Expr>,
}

impl Into {
    fn graph(&self, graph: &mut Graph) {
        for value in &mut graph.values {
            match &mut value.def {
                Def::Constant(id) => *id = self.constants[id.index()],
                Def::State(id) => *id = self.states[id.index()],
                Def::Input | Def::Node => {}
            }
            match &mut value.ty {
                Type::Tensor(tensor) => {
                    tensor.shape.iter_mut().for_each(|size| self.expr(size));
                    self.quant(&mut tensor.quant);
                }
                Type::Int(value) => self.expr(value),
                Type::Float | Type::Bool => {}
            }
        }
        for mutation in &mut graph.mutations {
            if let MutationTarget::State(id) = &mut mutation.target {
                *id = self.states[id.index()];
            }
        }
        for node in &mut graph.nodes {
            node.args.iter_mut().for_each(|arg| self.arg(arg));
        }
        for input in &mut graph.inputs {
            if let InputKind::Literal(arg) = &mut input.kind {
                self.arg(arg);
            }
        }
        for output in &mut graph.outputs {
            if let Output::Literal(arg) = output {
                self.arg(arg);
            }
        }
    }

    fn arg(&self, arg: &mut Arg) {
        match arg {
            Arg::Int(expr) | Arg::Sym(expr) => self.expr(expr),
            Arg::Ints(exprs) => exprs.iter_mut().for_each(|expr| self.expr(expr)),
            Arg::Graph(graph) => self.graph(graph),
            _ => {}
        }
    }

    fn quant(&self, quant: &mut Option<Quant>) {
        if let Some(
            Quant::PerAxis {
                scales, zero_points, ..
            }
            | Quant::PerBlock {
                scales, zero_points, ..
            },
        ) = quant
        {
            for id in std::iter::once(scales).chain(zero_points) {
                *id = self.constants[id.index()];
            }
        }
    }

    fn expr(&self, expr: &mut Expr) {
        if !self.symbols.is_empty() {
            *expr = expr.substitute(&|symbol| self.symbols.get(symbol).cloned());
        }
    }
}
