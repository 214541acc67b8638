//! The rules of the IR, checked. Anything may be handed in: a module read from a file is not to be trusted before.

use crate::infer::{InferError, infer};
use crate::{
    Arg, Constant, ConstantId, Def, Expr, Graph, InputKind, Module, MutationTarget, Node, Output, Quant, Symbol,
    TensorType, Type, Value, ValueId,
};
use delegraph_opset::{BaseType, Op, Param};
use delegraph_types::MAX_RANK;
use rustc_hash::FxHashSet;

/// The first rule that a module breaks, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Constants, states, symbols or the list of methods.
    #[error("{0}")]
    Module(String),
    /// A graph's inputs, outputs or values.
    #[error("graph `{graph}`: {problem}")]
    Graph {
        /// Its name.
        graph: String,
        /// What is wrong.
        problem: String,
    },
    /// A node.
    #[error("graph `{graph}`, node `{node}` ({op}): {problem}")]
    Node {
        /// The graph's name.
        graph: String,
        /// The node's name.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong.
        problem: String,
    },
}

/// Subgraphs deeper than this are refused.
const MAX_DEPTH: usize = 32;
/// Size expressions of more parts than this are refused.
const MAX_PARTS: usize = 1024;

/// Checks every rule of the IR: ids in range, each value defined once and before it is read, arguments of the kinds that the
/// schema says, symbols bound before use, subgraphs that fit their operators, and types that agree with shape propagation
/// where that knows them.
///
/// # Errors
/// The first rule that is broken.
pub fn verify(module: &Module) -> Result<(), VerifyError> {
    verify_shared(module).map_err(VerifyError::Module)?;
    let mut names = FxHashSet::default();
    for graph in &module.graphs {
        if !names.insert(graph.name.as_str()) {
            return Err(VerifyError::Module(format!("two methods are called `{}`", graph.name)));
        }
        Verifier {
            module,
            graph,
            depth: 0,
        }
        .run(&mut FxHashSet::default())?;
    }
    Ok(())
}

fn verify_shared(module: &Module) -> Result<(), String> {
    for (symbol, range) in &module.symbols.ranges {
        if range.max.is_some_and(|max| max < range.min) {
            return Err(format!("symbol `{symbol}` has an empty range"));
        }
    }
    for (id, constant) in module.constants.iter() {
        if !lies_inside(constant) {
            let Constant { name, dtype, sizes, .. } = constant;
            return Err(format!(
                "constant {id} `{name}`: {dtype} of {sizes} does not lie in its storage"
            ));
        }
    }
    for (i, state) in module.states.iter().enumerate() {
        let place = |problem: String| format!("state s{i} `{}`: {problem}", state.name);
        tensor_type(module, &state.ty).map_err(place)?;
        let Some(dims) = state.ty.static_dims() else {
            return Err(place(format!("{} has no constant sizes", state.ty)));
        };
        if let Some(id) = state.initial {
            match module.constants.find(id) {
                Some(c) if c.dtype == state.ty.dtype && c.sizes == dims => {}
                Some(c) => return Err(place(format!("its initial value is {} of {}", c.dtype, c.sizes))),
                None => return Err(place(format!("constant {id} does not exist"))),
            }
        }
    }
    Ok(())
}

/// True if every element of the window is inside the storage.
fn lies_inside(c: &Constant) -> bool {
    if c.sizes.rank() != c.strides.rank() {
        return false;
    }
    match c.sizes.numel() {
        None => return false,
        Some(0) => return true,
        Some(_) => {}
    }
    let (mut low, mut high) = (c.offset as i128, c.offset as i128);
    for d in 0..c.sizes.rank() {
        let reach = i128::from(c.sizes[d] - 1) * i128::from(c.strides[d]);
        *(if reach < 0 { &mut low } else { &mut high }) += reach;
    }
    low >= 0 && (high + 1) * c.dtype.size() as i128 <= c.storage.as_slice().len() as i128
}

fn tensor_type(module: &Module, ty: &TensorType) -> Result<(), String> {
    if ty.rank() > MAX_RANK {
        return Err(format!("rank {} is above the limit of {MAX_RANK}", ty.rank()));
    }
    for size in &ty.shape {
        expr(size)?;
        if size.as_int().is_some_and(|s| s < 0) {
            return Err(format!("a size of `{size}`"));
        }
    }
    let constant = |id: &ConstantId| match module.constants.find(*id) {
        Some(_) => Ok(()),
        None => Err(format!("constant {id} does not exist")),
    };
    match &ty.quant {
        None | Some(Quant::PerTensor { .. }) => Ok(()),
        Some(Quant::PerAxis { axis, .. }) if *axis as usize >= ty.rank() => {
            Err(format!("quantization axis `{axis}` of rank {}", ty.rank()))
        }
        Some(Quant::PerBlock { block, .. }) if block.len() != ty.rank() || block.contains(&0) => {
            Err(format!("quantization block {block:?} of rank {}", ty.rank()))
        }
        Some(
            Quant::PerAxis {
                scales, zero_points, ..
            }
            | Quant::PerBlock {
                scales, zero_points, ..
            },
        ) => {
            constant(scales)?;
            zero_points.as_ref().map_or(Ok(()), constant)
        }
    }
}

/// An expression that can be computed with.
fn expr(e: &Expr) -> Result<(), String> {
    fn parts(e: &Expr, left: &mut usize) -> bool {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        match e {
            Expr::Op(_, args) => args.iter().all(|a| parts(a, left)),
            _ => true,
        }
    }
    if !parts(e, &mut { MAX_PARTS }) {
        return Err(format!("a size expression of more than {MAX_PARTS} parts"));
    }
    match e.is_well_formed() {
        true => Ok(()),
        false => Err("a size expression with a wrong number of operands".to_string()),
    }
}

/// One graph, and its subgraphs.
struct Verifier<'m> {
    module: &'m Module,
    graph: &'m Graph,
    depth: usize,
}

impl<'m> Verifier<'m> {
    /// `bound` holds the symbols that are known where the graph starts, and afterwards those known at its end.
    fn run(&self, bound: &mut FxHashSet<Symbol>) -> Result<(), VerifyError> {
        let here = |problem: String| VerifyError::Graph {
            graph: self.graph.name.clone(),
            problem,
        };
        if self.depth > MAX_DEPTH {
            return Err(here(format!("subgraphs are nested deeper than {MAX_DEPTH}")));
        }
        let mut defined = vec![false; self.graph.values.len()];
        self.values(&mut defined).map_err(here)?;
        self.inputs(&mut defined, bound).map_err(here)?;
        let mut unbound = Vec::new();
        for value in self.graph.values.iter().filter(|v| v.def == Def::Input) {
            type_exprs(&value.ty, &mut |e| unbound_symbols(e, bound, &mut unbound));
        }
        if let (0, Some(symbol)) = (self.depth, unbound.first()) {
            return Err(here(format!("no input has a size that gives symbol `{symbol}`")));
        }
        bound.extend(unbound);
        for node in &self.graph.nodes {
            let place = |problem: String| VerifyError::Node {
                graph: self.graph.name.clone(),
                node: node.name.clone(),
                op: node.op.name().to_string(),
                problem,
            };
            self.arguments(node, &defined, bound).map_err(place)?;
            for arg in &node.args {
                if let Arg::Graph(sub) = arg {
                    self.subgraph(sub, bound)?;
                }
            }
            self.higher_order(node).map_err(place)?;
            let fresh = self.outputs(node, &mut defined, bound).map_err(place)?;
            self.inferred(node, &fresh).map_err(place)?;
        }
        self.results(&defined, bound).map_err(here)
    }

    fn subgraph(&self, sub: &'m Graph, bound: &FxHashSet<Symbol>) -> Result<(), VerifyError> {
        let verifier = Verifier {
            module: self.module,
            graph: sub,
            depth: self.depth + 1,
        };
        verifier.run(&mut bound.clone())
    }

    fn value(&self, id: ValueId) -> Result<&'m Value, String> {
        let found = self.graph.values.get(id.index());
        found.ok_or_else(|| format!("value {id} does not exist"))
    }

    /// Every value's type, and the origin of those that are read; leaves are defined from the start.
    fn values(&self, defined: &mut [bool]) -> Result<(), String> {
        let mut read = vec![false; self.graph.values.len()];
        for id in self
            .graph
            .nodes
            .iter()
            .flat_map(Node::inputs)
            .chain(self.graph.results())
        {
            if let Some(read) = read.get_mut(id.index()) {
                *read = true;
            }
        }
        for (i, (value, defined)) in self.graph.values.iter().zip(defined).enumerate() {
            let place = |problem: String| format!("value `{}`: {problem}", value.name);
            match &value.ty {
                Type::Tensor(t) => tensor_type(self.module, t).map_err(place)?,
                Type::Int(e) => expr(e).map_err(place)?,
                Type::Float | Type::Bool => {}
            }
            match value.def {
                Def::Input | Def::Node => {}
                _ if !read[i] => {}
                Def::Constant(id) => {
                    let constant = self.module.constants.find(id);
                    let constant = constant.ok_or_else(|| place(format!("constant {id} does not exist")))?;
                    let fits = value.ty.as_tensor().is_some_and(|t| {
                        t.dtype == constant.dtype && t.static_dims().as_ref() == Some(&constant.sizes)
                    });
                    if !fits {
                        let Constant { dtype, sizes, .. } = constant;
                        return Err(place(format!(
                            "its type is {}, constant {id} is {dtype} of {sizes}",
                            value.ty
                        )));
                    }
                    *defined = true;
                }
                Def::State(id) => {
                    if self.depth > 0 {
                        return Err(place("a subgraph cannot read a state".to_string()));
                    }
                    let state = self.module.states.get(id.index());
                    let state = state.ok_or_else(|| place(format!("state {id} does not exist")))?;
                    if value.ty.as_tensor() != Some(&state.ty) {
                        return Err(place(format!("its type is {}, state {id} is {}", value.ty, state.ty)));
                    }
                    *defined = true;
                }
            }
        }
        Ok(())
    }

    fn inputs(&self, defined: &mut [bool], bound: &mut FxHashSet<Symbol>) -> Result<(), String> {
        for input in &self.graph.inputs {
            let id = match &input.kind {
                InputKind::Value(id) => *id,
                InputKind::Literal(literal) if self.depth == 0 => {
                    self.literal(literal, &FxHashSet::default(), false)?;
                    continue;
                }
                InputKind::Literal(_) => return Err(format!("input `{}` of a subgraph is a literal", input.name)),
            };
            let value = self.value(id)?;
            if value.def != Def::Input {
                return Err(format!("input `{}` is a value that is defined elsewhere", input.name));
            }
            if std::mem::replace(&mut defined[id.index()], true) {
                return Err(format!("value `{}` is two inputs", value.name));
            }
            type_exprs(&value.ty, &mut |e| drop(bind(e, bound)));
        }
        Ok(())
    }

    /// A literal holds no value; where `sized` it may hold sizes.
    fn literal(&self, literal: &Arg, bound: &FxHashSet<Symbol>, sized: bool) -> Result<(), String> {
        if literal.values().next().is_some() || matches!(literal, Arg::Graph(_)) {
            return Err("a literal cannot hold a value".to_string());
        }
        for e in literal.exprs() {
            expr(e)?;
            if !sized && !e.is_constant() {
                return Err(format!("`{e}` is no constant"));
            }
        }
        self.bound(literal.exprs(), bound)
    }

    fn bound(&self, exprs: &[Expr], bound: &FxHashSet<Symbol>) -> Result<(), String> {
        let mut unbound = Vec::new();
        exprs.iter().for_each(|e| unbound_symbols(e, bound, &mut unbound));
        match unbound.first() {
            Some(symbol) => Err(format!("symbol `{symbol}` has no value here")),
            None => Ok(()),
        }
    }

    fn arguments(&self, node: &Node, defined: &[bool], bound: &FxHashSet<Symbol>) -> Result<(), String> {
        let schema = node.op.schema();
        if schema.is_in_place() || schema.outs().next().is_some() {
            return Err("the operator writes to its arguments".to_string());
        }
        if node.args.len() != schema.params.len() {
            return Err(format!(
                "{} arguments for {} parameters",
                node.args.len(),
                schema.params.len()
            ));
        }
        for (param, arg) in schema.params.iter().zip(&node.args) {
            let place = |problem: String| format!("argument `{}`: {problem}", param.name);
            for id in arg.values() {
                let value = self.value(id).map_err(place)?;
                if !defined[id.index()] {
                    return Err(place(format!("value `{}` is read before it is defined", value.name)));
                }
            }
            arg.exprs().iter().try_for_each(expr).map_err(place)?;
            self.bound(arg.exprs(), bound).map_err(place)?;
            if !self.fits(param, arg, node) {
                return Err(place(format!("expected {}", expected(param))));
            }
        }
        Ok(())
    }

    /// True if the argument is of the kind that the parameter takes.
    fn fits(&self, param: &Param, arg: &Arg, node: &Node) -> bool {
        use BaseType as B;
        let ty = param.ty;
        let number = |id: &ValueId| {
            self.graph
                .values
                .get(id.index())
                .is_some_and(|v| !matches!(v.ty, Type::Tensor(_)))
        };
        if *arg == Arg::None {
            return ty.optional
                || matches!(
                    ty.base,
                    B::DType | B::Layout | B::Device | B::MemoryFormat | B::Generator
                );
        }
        if ty.list {
            let higher_order = node.op.name().starts_with("higher_order::");
            return match (ty.base, arg) {
                (B::Tensor, Arg::Values(items)) => higher_order || !items.iter().any(number),
                (B::Tensor, Arg::OptionalValues(items)) => {
                    (ty.optional_items || items.iter().all(Option::is_some)) && !items.iter().flatten().any(number)
                }
                (B::Int, Arg::Ints(_)) => true,
                (B::Int, Arg::Int(_)) => ty.length.is_some(),
                (B::Float, Arg::Floats(_)) => true,
                (B::Bool, Arg::Bools(_)) => true,
                (B::Scalar, Arg::Scalars(_) | Arg::Ints(_) | Arg::Floats(_) | Arg::Bools(_)) => true,
                (B::Float | B::Bool, Arg::Ints(items)) => items.is_empty(),
                _ => false,
            };
        }
        match (ty.base, arg) {
            // A number in place of a tensor is a wrapped number.
            (B::Tensor, Arg::Value(_) | Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) | Arg::Sym(_)) => true,
            (B::Int | B::Float | B::Bool, Arg::Value(id)) => number(id),
            (B::Scalar | B::Any, Arg::Value(_)) => true,
            (B::Int, Arg::Int(_) | Arg::Bool(_) | Arg::Sym(_)) => true,
            (B::Float, Arg::Float(_) | Arg::Int(_) | Arg::Sym(_)) => true,
            (B::Bool, Arg::Bool(_) | Arg::Sym(_) | Arg::Int(_)) => true,
            (B::Scalar | B::Any, Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) | Arg::Sym(_)) => true,
            (B::Str, Arg::Str(_)) => true,
            (B::DType, Arg::DType(_)) => true,
            (B::Layout | B::Device, Arg::Str(_) | Arg::Int(_)) => true,
            (B::MemoryFormat, Arg::MemoryFormat(_)) => true,
            (B::Graph, Arg::Graph(_)) => true,
            _ => false,
        }
    }

    /// Subgraphs take the operands that the operator gives them, and return what it needs.
    fn higher_order(&self, node: &Node) -> Result<(), String> {
        let Some(name) = node.op.name().strip_prefix("higher_order::") else {
            return Ok(());
        };
        let graph = |i: usize| match node.args.get(i) {
            Some(Arg::Graph(graph)) => Ok(&**graph),
            _ => Err("expected a graph".to_string()),
        };
        let count = |i: usize| node.args.get(i).map_or(0, |a| a.values().count());
        let outputs = node.outputs.len();
        let check = |graph: &Graph, inputs: usize, outputs: usize| {
            let have = (graph.inputs.len(), graph.outputs.len());
            if !graph.mutations.is_empty() {
                return Err(format!("graph `{}` writes to a state or an input", graph.name));
            }
            match have == (inputs, outputs) {
                true => Ok(()),
                false => Err(format!(
                    "graph `{}` takes {} and returns {} values, not {inputs} and {outputs}",
                    graph.name, have.0, have.1
                )),
            }
        };
        match name {
            "cond" => {
                check(graph(1)?, count(3), outputs)?;
                check(graph(2)?, count(3), outputs)
            }
            "map" => check(graph(0)?, count(1) + count(2), outputs),
            "scan" => check(graph(0)?, count(1) + count(2) + count(3), outputs),
            "while_loop" => {
                check(graph(0)?, count(2) + count(3), 1)?;
                check(graph(1)?, count(2) + count(3), outputs)
            }
            _ => Ok(()),
        }
    }

    /// Defines the node's outputs; gives the symbols that they are the first to tell.
    fn outputs(&self, node: &Node, defined: &mut [bool], bound: &mut FxHashSet<Symbol>) -> Result<Vec<Symbol>, String> {
        let mut fresh = Vec::new();
        let returns = &node.op.schema().returns;
        let lists = returns.iter().filter(|r| r.ty.list).count();
        let (have, want) = (node.outputs.len(), returns.len() - lists);
        if have < want || (have > want && lists == 0) {
            return Err(format!("{have} outputs for {want} returned values"));
        }
        for id in &node.outputs {
            let value = self.value(*id)?;
            if value.def != Def::Node {
                return Err(format!("output `{}` is a value that is defined elsewhere", value.name));
            }
            if std::mem::replace(&mut defined[id.index()], true) {
                return Err(format!("output `{}` is defined twice", value.name));
            }
            type_exprs(&value.ty, &mut |e| fresh.extend(bind(e, bound)));
        }
        for id in &node.outputs {
            let mut result = Ok(());
            type_exprs(&self.value(*id)?.ty, &mut |e| {
                if result.is_ok() {
                    result = self.bound(std::slice::from_ref(e), bound);
                }
            });
            result?;
        }
        Ok(fresh)
    }

    /// Recorded types agree with shape propagation: same dtype and rank, no two different constant sizes, and no new symbol
    /// where the size is known.
    fn inferred(&self, node: &Node, fresh: &[Symbol]) -> Result<(), String> {
        let types = match infer(node.op, &node.args, self.graph, &self.module.symbols) {
            Ok(types) => types,
            Err(InferError::Invalid { problem, .. }) => return Err(problem),
            Err(InferError::Unsupported { .. } | InferError::DataDependent { .. }) => return Ok(()),
        };
        if types.len() != node.outputs.len() {
            return Err(format!(
                "{} outputs, the operator gives {}",
                node.outputs.len(),
                types.len()
            ));
        }
        let exact = sizes_are_given(node.op);
        for (id, want) in node.outputs.iter().zip(&types) {
            let value = self.value(*id)?;
            let agree = match (&value.ty, want) {
                (Type::Tensor(have), Type::Tensor(want)) => {
                    // PyTorch's meta function of this operator disagrees with its kernel about dtypes.
                    let loose = node.op.name() == "quantized_decomposed::choose_qparams_per_token";
                    (have.dtype == want.dtype || loose)
                        && have.rank() == want.rank()
                        && have
                            .shape
                            .iter()
                            .zip(&want.shape)
                            .all(|(a, b)| sizes_agree(a, b, fresh, exact))
                }
                (have, want) => std::mem::discriminant(have) == std::mem::discriminant(want),
            };
            if !agree {
                return Err(format!(
                    "output `{}` is {}, the operator gives {want}",
                    value.name, value.ty
                ));
            }
        }
        Ok(())
    }

    fn results(&self, defined: &[bool], bound: &FxHashSet<Symbol>) -> Result<(), String> {
        for output in &self.graph.outputs {
            match output {
                Output::Value(id) => self.result(*id, defined).map(drop)?,
                Output::Literal(literal) => self.literal(literal, bound, true)?,
            }
        }
        for mutation in &self.graph.mutations {
            let have = &self.result(mutation.value, defined)?.ty;
            let target = match mutation.target {
                MutationTarget::State(id) => match self.module.states.get(id.index()) {
                    Some(state) => Type::Tensor(state.ty.clone()),
                    None => return Err(format!("state {id} does not exist")),
                },
                MutationTarget::Input(i) => match self.graph.inputs.get(i as usize).map(|input| &input.kind) {
                    Some(InputKind::Value(id)) => self.value(*id)?.ty.clone(),
                    _ => return Err(format!("input {i}, which is written to, is no value")),
                },
            };
            let agree = match (have.as_tensor(), target.as_tensor()) {
                (Some(a), Some(b)) => {
                    a.dtype == b.dtype
                        && a.rank() == b.rank()
                        && a.shape.iter().zip(&b.shape).all(|(a, b)| sizes_agree(a, b, &[], false))
                }
                _ => false,
            };
            if !agree {
                return Err(format!("{have} is written to {target}"));
            }
        }
        Ok(())
    }

    fn result(&self, id: ValueId, defined: &[bool]) -> Result<&'m Value, String> {
        let value = self.value(id)?;
        match defined[id.index()] {
            true => Ok(value),
            false => Err(format!("value `{}` is returned but never defined", value.name)),
        }
    }
}

/// Different constants disagree; what a symbol stands for is not known here.
/// True for operators that make a tensor of the sizes that they are given: they tell no symbol. (A slice may: PyTorch names
/// the size of one whose ends depend on data.)
fn sizes_are_given(op: Op) -> bool {
    let base = op.name().strip_prefix("aten::").unwrap_or_default();
    let base = base.split('.').next().unwrap_or(base);
    base.starts_with("new_") || base.ends_with("_like") || matches!(base, "full" | "zeros" | "ones" | "empty")
}

fn sizes_agree(recorded: &Expr, inferred: &Expr, fresh: &[Symbol], exact: bool) -> bool {
    match (recorded.as_int(), inferred.as_int()) {
        (Some(a), Some(b)) => a == b,
        (None, constant) if exact || constant.is_some() => {
            let mut known = true;
            recorded.for_each_symbol(&mut |symbol| known &= !fresh.contains(symbol));
            known
        }
        _ => true,
    }
}

/// Calls `f` with the sizes of a type.
fn type_exprs(ty: &Type, f: &mut dyn FnMut(&Expr)) {
    match ty {
        Type::Tensor(t) => t.shape.iter().for_each(f),
        Type::Int(e) => f(e),
        Type::Float | Type::Bool => {}
    }
}

/// A size that is linear in one symbol gives its value.
/// Binds the symbol that a size tells; gives it if it is new.
fn bind(e: &Expr, bound: &mut FxHashSet<Symbol>) -> Option<Symbol> {
    if e.is_constant() {
        return None;
    }
    let (symbol, _, _) = e.as_linear()?;
    bound.insert(symbol.clone()).then_some(symbol)
}

fn unbound_symbols(e: &Expr, bound: &FxHashSet<Symbol>, unbound: &mut Vec<Symbol>) {
    e.for_each_symbol(&mut |symbol| {
        if !bound.contains(symbol) {
            unbound.push(symbol.clone());
        }
    });
}

fn expected(param: &Param) -> String {
    let base = format!("{:?}", param.ty.base).to_lowercase();
    let list = if param.ty.list {
        "a list of type "
    } else {
        "an argument of type "
    };
    format!("{list}{base}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, Input, Mutation, State, StateId, SymbolRange};
    use delegraph_types::{DType, Dims};

    fn wide() -> Type {
        TensorType::new(DType::F32, vec![Expr::symbol("s0"), Expr::Int(3)]).into()
    }

    /// `relu(x + w)` with a branch, over a symbolic size.
    fn sound() -> Module {
        let mut module = Module::default();
        let dims = Dims::new(&[3]).unwrap();
        let w = module
            .constants
            .push(Constant::contiguous("w", DType::F32, dims, vec![0; 12].into()));
        let three = TensorType::fixed(DType::F32, &[3]);
        module.states.push(State {
            name: "cache".into(),
            ty: three.clone(),
            initial: Some(w),
        });
        module
            .symbols
            .ranges
            .insert(Symbol::new("s0"), SymbolRange { min: 1, max: Some(8) });
        let mut branch = Graph::new("branch");
        let a = branch.add_input("a", wide());
        let b = branch.push("aten::relu", vec![a.into()], vec![wide()]).unwrap()[0];
        branch.add_output(b);
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", wide());
        let w = graph.add_constant("w", three.clone(), w);
        let cache = graph.add_value("cache", three.into(), Def::State(StateId(0)));
        let sum = graph
            .push("aten::add.Tensor", vec![x.into(), w.into()], vec![wide()])
            .unwrap()[0];
        let flag = graph.add_input("flag", TensorType::fixed(DType::Bool, &[]).into());
        let args = vec![
            flag.into(),
            Arg::Graph(Box::new(branch.clone())),
            Arg::Graph(Box::new(branch)),
            Arg::Values(vec![sum]),
        ];
        let y = graph.push("higher_order::cond", args, vec![wide()]).unwrap()[0];
        graph.add_output(y);
        graph.outputs.push(Output::Literal(Arg::Int(Expr::symbol("s0"))));
        graph.mutations.push(Mutation {
            target: MutationTarget::State(StateId(0)),
            value: cache,
        });
        module.graphs.push(graph);
        module
    }

    #[test]
    fn a_sound_module_passes() {
        verify(&sound()).unwrap();
    }

    #[test]
    fn every_broken_rule_is_found() {
        type Break = fn(&mut Module);
        fn sub(m: &mut Module) -> &mut Graph {
            match &mut m.graphs[0].nodes[1].args[1] {
                Arg::Graph(graph) => graph,
                _ => unreachable!(),
            }
        }
        let cases: &[(&str, Break)] = &[
            ("does not exist", |m| {
                m.graphs[0].nodes[0].args[0] = Arg::Value(ValueId(77))
            }),
            ("before it is defined", |m| m.graphs[0].nodes.swap(0, 1)),
            ("arguments for", |m| drop(m.graphs[0].nodes[0].args.pop())),
            ("expected an argument of type tensor", |m| {
                m.graphs[0].nodes[0].args[1] = Arg::Str("w".into())
            }),
            ("defined twice", |m| {
                let node = m.graphs[0].nodes[0].clone();
                m.graphs[0].nodes.push(node);
            }),
            ("the operator gives", |m| {
                m.graphs[0].values[3].ty = TensorType::fixed(DType::F16, &[2, 3]).into();
            }),
            ("the operator gives", |m| {
                m.graphs[0].values[3].ty = TensorType::fixed(DType::F32, &[2, 4]).into();
            }),
            ("do not broadcast", |m| {
                m.graphs[0].values[0].ty = TensorType::new(DType::F32, vec![Expr::symbol("s0"), 4.into()]).into();
            }),
            ("has no value here", |m| {
                m.graphs[0].nodes[0].args[2] = Arg::Int(Expr::symbol("s9"))
            }),
            ("the operator gives", |m| {
                let fresh = TensorType::new(DType::F32, vec![Expr::symbol("s0"), Expr::symbol("s9")]);
                let output = m.graphs[0].nodes[0].outputs[0];
                m.graphs[0].values[output.index()].ty = fresh.into();
            }),
            ("no input has a size", |m| {
                let square = Expr::symbol("s0") * Expr::symbol("s0");
                m.graphs[0].values[0].ty = TensorType::new(DType::F32, vec![square, 3.into()]).into();
            }),
            ("takes 1 and returns 1 values, not 1 and 2", |m| {
                let extra = m.graphs[0].add_value("extra", wide(), Def::Node);
                m.graphs[0].nodes[1].outputs.push(extra);
            }),
            ("never defined", |m| {
                let dead = m.graphs[0].add_value("dead", wide(), Def::Node);
                m.graphs[0].add_output(dead);
            }),
            ("cannot read a state", |m| {
                let ty = TensorType::fixed(DType::F32, &[3]).into();
                let cache = sub(m).add_value("cache", ty, Def::State(StateId(0)));
                sub(m).add_output(cache);
            }),
            ("is a literal", |m| {
                let input = Input {
                    name: "k".into(),
                    kind: InputKind::Literal(Arg::int(1)),
                };
                sub(m).inputs.push(input);
            }),
            ("does not lie in its storage", |m| m.constants[ConstantId(0)].offset = 1),
            ("its initial value is", |m| {
                m.states[0].ty = TensorType::fixed(DType::F32, &[4])
            }),
            ("its type is", |m| {
                m.graphs[0].values[1].ty = TensorType::fixed(DType::F64, &[3]).into()
            }),
            ("constant c9 does not exist", |m| {
                m.graphs[0].values[1].def = Def::Constant(ConstantId(9))
            }),
            ("empty range", |m| {
                m.symbols
                    .ranges
                    .insert(Symbol::new("s1"), SymbolRange { min: 3, max: Some(2) });
            }),
            ("two methods", |m| {
                let graph = m.graphs[0].clone();
                m.graphs.push(graph);
            }),
            ("wrong number of operands", |m| {
                let odd = Expr::Op(crate::ExprOp::FloorDiv, vec![Expr::symbol("s0")]);
                m.graphs[0].nodes[0].args[2] = Arg::Int(odd);
            }),
            ("more than 1024 parts", |m| {
                let long = Expr::Op(crate::ExprOp::Add, vec![Expr::symbol("s0"); 2000]);
                m.graphs[0].nodes[0].args[2] = Arg::Int(long);
            }),
            ("a size of `-1`", |m| {
                m.graphs[0].values[0].ty = TensorType::fixed(DType::F32, &[-1]).into()
            }),
            ("above the limit", |m| {
                m.graphs[0].values[0].ty = TensorType::fixed(DType::F32, &[1; 17]).into()
            }),
            ("quantization axis", |m| {
                let mut ty = TensorType::fixed(DType::I8, &[3]);
                ty.quant = Some(Quant::PerAxis {
                    axis: 1,
                    scales: ConstantId(0),
                    zero_points: None,
                    quant_min: -128,
                    quant_max: 127,
                });
                m.graphs[0].add_value("q", ty.into(), Def::Node);
            }),
            ("is written to", |m| m.graphs[0].mutations[0].value = ValueId(0)),
            ("is two inputs", |m| {
                let input = m.graphs[0].inputs[0].clone();
                m.graphs[0].inputs.push(input);
            }),
            ("writes to its arguments", |m| {
                m.graphs[0].nodes[0].op = Op::find("aten::add_.Tensor").unwrap();
            }),
        ];
        for (i, (want, breaks)) in cases.iter().enumerate() {
            let mut module = sound();
            breaks(&mut module);
            let error = verify(&module).expect_err(want).to_string();
            assert!(error.contains(want), "case {i}: `{want}` not in `{error}`");
        }
    }

    #[test]
    fn a_window_with_an_overflowing_extent_is_refused() {
        let mut module = sound();
        let constant = &mut module.constants[ConstantId(0)];
        constant.strides = Dims::new(&[i64::MAX]).unwrap();
        constant.storage = Bytes::from(vec![0; 4]);
        assert!(verify(&module).is_err());
    }
}
