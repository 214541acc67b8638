//! Replaces nodes by other nodes: the engine under every decomposition.
//!
//! A [`Rule`] looks at one node and either keeps it or emits what computes the same values. The engine gives new nodes their
//! types (from `delegraph_ir::infer`), their names, and the `source` and `region` of the node that they replace; it rewrites
//! what was emitted in turn, and walks subgraphs too. One pass, linear in the nodes read and made.
//!
//! Two promises matter to others. The values that a replaced node made keep their ids, names and recorded types wherever a
//! new node makes them; only an identity is replaced by what it copies, unless it is tagged or a tagged node reads it: then it
//! becomes `aten::clone`, as a region's blob knows the values at its border.
//! Nothing moves between regions, because new nodes stand where the old one stood.

use crate::PassError;
use delegraph_ir::{
    Arg, Bytes, Constant, Constants, Def, Expr, Graph, Module, Node, Op, Output, Symbols, TensorType, Type, ValueId,
};
use delegraph_types::{DType, Dims, Operand, Scalar, result_dtype};
use rustc_hash::{FxHashMap, FxHashSet};

/// What a rule gives: the values that replace the node's outputs, one each, or `None` to keep the node.
pub type Replacement = Result<Option<Vec<ValueId>>, PassError>;

/// Replaces one node.
pub type Rule = fn(&mut Rewrite) -> Replacement;

/// Builds a list of arguments from plain values.
#[macro_export]
#[doc(hidden)]
macro_rules! args {
    ($($item:expr),* $(,)?) => { vec![$(delegraph_ir::Arg::from($item)),*] };
}

/// A replacement of a replacement of a … this deep is a loop among the rules.
const MAX_DEPTH: u32 = 32;

/// Rewrites every node that `rule_of` has a rule for and `keep` does not protect, in every graph and subgraph, and then what
/// came of it, for up to `levels` levels.
///
/// `keep` is given the graph for its values only: the node list is being rewritten.
///
/// # Errors
/// A rule's error, with the node's name. The module is then only good to be dropped.
pub fn rewrite(
    module: &mut Module,
    rule_of: &dyn Fn(Op) -> Option<Rule>,
    keep: &dyn Fn(&Graph, &Node) -> bool,
    levels: u32,
) -> Result<(), PassError> {
    let mut walk = Walk {
        constants: &mut module.constants,
        symbols: &module.symbols,
        rule_of,
        keep,
        levels,
    };
    for graph in &mut module.graphs {
        walk.graph(graph)?;
    }
    Ok(())
}

struct Walk<'a> {
    constants: &'a mut Constants,
    symbols: &'a Symbols,
    rule_of: &'a dyn Fn(Op) -> Option<Rule>,
    keep: &'a dyn Fn(&Graph, &Node) -> bool,
    levels: u32,
}

impl Walk<'_> {
    fn graph(&mut self, graph: &mut Graph) -> Result<(), PassError> {
        let nodes = std::mem::take(&mut graph.nodes);
        let mut done = Vec::with_capacity(nodes.len());
        // A region's blob reads these values, whatever becomes of the nodes that read them now.
        let tagged = nodes.iter().filter(|n| n.region.is_some());
        let border: FxHashSet<ValueId> = tagged.flat_map(Node::inputs).collect();
        let mut names = Names::of(&nodes);
        let mut aliases = Aliases::default();
        let mut pending = Vec::new();
        for node in nodes {
            pending.push((node, 0u32));
            while let Some((mut node, depth)) = pending.pop() {
                for arg in &mut node.args {
                    arg.map_values(|v| aliases.resolve(v));
                    if let Arg::Graph(subgraph) = arg {
                        self.graph(subgraph)?;
                    }
                }
                let rule = match depth < self.levels {
                    true => (self.rule_of)(node.op).filter(|_| !(self.keep)(graph, &node)),
                    false => None,
                };
                let Some(rule) = rule else {
                    done.push(node);
                    continue;
                };
                if depth >= MAX_DEPTH {
                    return Err(PassError::bug(&node, "the rules go round in circles"));
                }
                let mut step = Rewrite {
                    first_new: graph.values.len(),
                    border: &border,
                    graph,
                    constants: self.constants,
                    symbols: self.symbols,
                    names: &mut names,
                    node,
                    emitted: Vec::new(),
                };
                match rule(&mut step)? {
                    None => done.push(step.node),
                    Some(values) => {
                        let emitted = step.finish(values, &mut aliases)?;
                        pending.extend(emitted.into_iter().rev().map(|n| (n, depth + 1)));
                    }
                }
            }
        }
        graph.nodes = done;
        for output in &mut graph.outputs {
            if let Output::Value(v) = output {
                *v = aliases.resolve(*v);
            }
        }
        for mutation in &mut graph.mutations {
            mutation.value = aliases.resolve(mutation.value);
        }
        Ok(())
    }
}

/// Values that stand for others since an identity went away.
#[derive(Default)]
struct Aliases(FxHashMap<ValueId, ValueId>);

impl Aliases {
    fn resolve(&self, mut value: ValueId) -> ValueId {
        while let Some(&next) = self.0.get(&value) {
            value = next;
        }
        value
    }
}

/// Names in use, and the last number given to each stem so that a long unrolling stays linear.
pub(crate) struct Names {
    used: FxHashSet<String>,
    next: FxHashMap<String, u32>,
}

impl Names {
    pub fn of(nodes: &[Node]) -> Names {
        Names {
            used: nodes.iter().map(|n| n.name.clone()).collect(),
            next: FxHashMap::default(),
        }
    }

    pub fn fresh(&mut self, stem: &str) -> String {
        let next = match self.next.get_mut(stem) {
            Some(next) => next,
            None => self.next.entry(stem.to_string()).or_insert(0),
        };
        loop {
            let name = format!("{stem}.{next}");
            *next += 1;
            if self.used.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// One node being replaced: its arguments, and a place to emit nodes to.
pub struct Rewrite<'a> {
    graph: &'a mut Graph,
    constants: &'a mut Constants,
    symbols: &'a Symbols,
    names: &'a mut Names,
    node: Node,
    emitted: Vec<Node>,
    /// Values that nodes of regions read.
    border: &'a FxHashSet<ValueId>,
    /// Values from here on were made by this rewrite.
    first_new: usize,
}

impl Rewrite<'_> {
    /// The node being replaced.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Ranges of the symbols.
    pub fn symbols(&self) -> &Symbols {
        self.symbols
    }

    /// An error: the node breaks its operator's rules.
    pub fn invalid(&self, problem: impl Into<String>) -> PassError {
        PassError::invalid(&self.node, problem)
    }

    /// An error: valid, but not done here.
    pub fn unsupported(&self, problem: impl Into<String>) -> PassError {
        PassError::unsupported(&self.node, problem)
    }

    /// The type of a tensor value.
    pub fn ty(&self, value: ValueId) -> Result<&TensorType, PassError> {
        self.graph
            .tensor(value)
            .ok_or_else(|| PassError::bug(&self.node, format!("{value} is not a tensor")))
    }

    /// Sizes of a tensor value.
    pub fn shape(&self, value: ValueId) -> Result<Vec<Expr>, PassError> {
        Ok(self.ty(value)?.shape.clone())
    }

    /// Size of one dimension of a tensor value.
    pub fn size(&self, value: ValueId, dim: usize) -> Result<Expr, PassError> {
        let found = self.ty(value)?.shape.get(dim).cloned();
        found.ok_or_else(|| self.invalid(format!("there is no dimension {dim}")))
    }

    /// Sizes of a tensor value, all of which must be constant.
    pub fn static_shape(&self, value: ValueId) -> Result<Vec<i64>, PassError> {
        let ty = self.ty(value)?;
        let sizes: Option<Vec<i64>> = ty.shape.iter().map(Expr::as_int).collect();
        sizes.ok_or_else(|| self.unsupported(format!("a dynamic size in {ty}")))
    }

    /// Element type of a tensor value.
    pub fn dtype(&self, value: ValueId) -> Result<DType, PassError> {
        Ok(self.ty(value)?.dtype)
    }

    /// Number of dimensions of a tensor value.
    pub fn rank(&self, value: ValueId) -> Result<usize, PassError> {
        Ok(self.ty(value)?.rank())
    }

    /// The recorded type of the node's output at `index`.
    pub fn output_type(&self, index: usize) -> Result<TensorType, PassError> {
        let value = self.node.outputs.get(index).copied();
        let value = value.ok_or_else(|| PassError::bug(&self.node, format!("there is no output {index}")))?;
        Ok(self.ty(value)?.clone())
    }

    /// The recorded types of the node's outputs.
    pub fn output_types(&self) -> Vec<Type> {
        self.node
            .outputs
            .iter()
            .map(|&v| self.graph.value(v).ty.clone())
            .collect()
    }

    /// The dtype that these arguments promote to.
    pub fn promoted(&self, args: &[Arg]) -> Result<DType, PassError> {
        let operands: Option<Vec<Operand>> = args
            .iter()
            .map(|arg| match arg {
                Arg::Value(v) => match &self.graph.value(*v).ty {
                    Type::Tensor(t) => Some(Operand::tensor(t.dtype, t.rank())),
                    Type::Int(_) => Some(Operand::Number(Scalar::Int(0))),
                    Type::Float => Some(Operand::Number(Scalar::Float(0.0))),
                    Type::Bool => Some(Operand::Number(Scalar::Bool(false))),
                },
                Arg::Int(_) => Some(Operand::Number(Scalar::Int(0))),
                Arg::Sym(_) => Some(Operand::Number(Scalar::Float(0.0))),
                other => other.as_scalar().map(Operand::Number),
            })
            .collect();
        operands
            .and_then(result_dtype)
            .ok_or_else(|| self.invalid("its operands have no common dtype"))
    }

    /// Emits a node with one result.
    pub fn emit(&mut self, op: &str, args: Vec<Arg>) -> Result<ValueId, PassError> {
        let values = self.emit_many(op, args)?;
        match values.first() {
            Some(&value) => Ok(value),
            None => Err(PassError::bug(&self.node, format!("`{op}` gives nothing"))),
        }
    }

    /// Emits a node.
    pub fn emit_many(&mut self, op: &str, args: Vec<Arg>) -> Result<Vec<ValueId>, PassError> {
        let op = self.find(op)?;
        let args = delegraph_ir::fill_defaults(op, args);
        let types = delegraph_ir::infer(op, &args, self.graph, self.symbols)
            .map_err(|e| PassError::bug(&self.node, format!("its part `{}`: {e}", op.name())))?;
        Ok(self.emit_typed(op, args, types))
    }

    /// Emits a node whose type cannot be inferred: sizes that depend on data.
    pub fn emit_as(&mut self, op: &str, args: Vec<Arg>, types: Vec<Type>) -> Result<Vec<ValueId>, PassError> {
        let op = self.find(op)?;
        let args = delegraph_ir::fill_defaults(op, args);
        Ok(self.emit_typed(op, args, types))
    }

    fn find(&self, op: &str) -> Result<Op, PassError> {
        Op::find(op).ok_or_else(|| PassError::bug(&self.node, format!("there is no operator `{op}`")))
    }

    fn emit_typed(&mut self, op: Op, args: Vec<Arg>, types: Vec<Type>) -> Vec<ValueId> {
        let name = self.names.fresh(&self.node.name);
        let outputs: Vec<ValueId> = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| {
                let name = if i == 0 { name.clone() } else { format!("{name}_{i}") };
                self.graph.add_value(name, ty, Def::Node)
            })
            .collect();
        self.emitted.push(Node {
            name,
            op,
            args,
            outputs: outputs.clone(),
            source: self.node.source.clone(),
            region: self.node.region,
        });
        outputs
    }

    /// A constant tensor of little-endian `bytes`.
    pub fn constant(&mut self, dtype: DType, sizes: &[i64], bytes: Vec<u8>) -> Result<ValueId, PassError> {
        let dims = Dims::new(sizes).map_err(|e| self.invalid(e.to_string()))?;
        if dims.numel().and_then(|n| n.checked_mul(dtype.size())) != Some(bytes.len()) {
            return Err(PassError::bug(
                &self.node,
                format!("{} bytes for {dtype}[{dims}]", bytes.len()),
            ));
        }
        let name = self.names.fresh(&self.node.name);
        let id = self
            .constants
            .push(Constant::contiguous(name.clone(), dtype, dims, Bytes::from(bytes)));
        Ok(self.graph.add_constant(name, TensorType::fixed(dtype, sizes), id))
    }

    /// A constant `i64` tensor.
    pub fn constant_i64(&mut self, sizes: &[i64], items: &[i64]) -> Result<ValueId, PassError> {
        self.constant(DType::I64, sizes, items.iter().flat_map(|i| i.to_le_bytes()).collect())
    }

    /// A constant `f32` tensor.
    pub fn constant_f32(&mut self, sizes: &[i64], items: &[f32]) -> Result<ValueId, PassError> {
        self.constant(DType::F32, sizes, items.iter().flat_map(|i| i.to_le_bytes()).collect())
    }

    /// Makes the node's outputs come from the new nodes.
    fn finish(mut self, values: Vec<ValueId>, aliases: &mut Aliases) -> Result<Vec<Node>, PassError> {
        if values.len() != self.node.outputs.len() {
            let (want, have) = (self.node.outputs.len(), values.len());
            return Err(PassError::bug(
                &self.node,
                format!("{have} replacements for {want} outputs"),
            ));
        }
        let mut renamed: FxHashMap<ValueId, ValueId> = FxHashMap::default();
        let outputs = self.node.outputs.clone();
        for (&output, value) in outputs.iter().zip(values) {
            let mut value = self.matched(output, value)?;
            let is_new = |rw: &Rewrite, v: ValueId| v.index() >= rw.first_new && rw.graph.value(v).def == Def::Node;
            let stays = self.node.region.is_some() || self.border.contains(&output);
            if stays && (!is_new(&self, value) || renamed.contains_key(&value)) {
                value = self.emit("aten::clone", args![value])?;
            }
            if is_new(&self, value) && !renamed.contains_key(&value) {
                renamed.insert(value, output);
            } else {
                aliases.0.insert(output, renamed.get(&value).copied().unwrap_or(value));
            }
        }
        let swap = |v: ValueId| renamed.get(&v).copied().unwrap_or(v);
        for node in &mut self.emitted {
            node.args.iter_mut().for_each(|arg| arg.map_values(swap));
            node.outputs.iter_mut().for_each(|v| *v = swap(*v));
            if node.outputs.first().is_some_and(|v| Some(v) == outputs.first()) {
                node.name = self.node.name.clone();
            }
        }
        Ok(self.emitted)
    }

    /// `value`, cast where its dtype is not the recorded one of `output`.
    fn matched(&mut self, output: ValueId, value: ValueId) -> Result<ValueId, PassError> {
        let (Some(want), Some(have)) = (self.graph.tensor(output), self.graph.tensor(value)) else {
            let same = std::mem::discriminant(&self.graph.value(output).ty)
                == std::mem::discriminant(&self.graph.value(value).ty);
            return match same {
                true => Ok(value),
                false => Err(PassError::bug(&self.node, "its replacement is of another kind")),
            };
        };
        let differs = |(a, b): (&Expr, &Expr)| matches!((a.as_int(), b.as_int()), (Some(a), Some(b)) if a != b);
        if want.rank() != have.rank() || want.shape.iter().zip(&have.shape).any(differs) {
            return Err(PassError::bug(
                &self.node,
                format!("its replacement is {have}, not {want}"),
            ));
        }
        match want.dtype == have.dtype {
            true => Ok(value),
            false => {
                let dtype = want.dtype;
                self.emit("aten::_to_copy", args![value, dtype])
            }
        }
    }
}
