//! What goes into a region and what comes out.

use delegraph_ir::{Arg, Def, Expr, Graph, Node, NodeId, Symbol, Type, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// How often each value is read: by nodes, outputs and mutations.
#[derive(Debug, Clone)]
pub struct Reads {
    counts: Vec<u32>,
}

impl Reads {
    /// Counts the reads of a graph.
    pub fn of(graph: &Graph) -> Reads {
        let mut counts = vec![0; graph.values.len()];
        for value in graph.nodes.iter().flat_map(|n| n.inputs()).chain(graph.results()) {
            counts[value.index()] += 1;
        }
        Reads { counts }
    }

    /// Reads of one value.
    pub fn count(&self, value: ValueId) -> u32 {
        self.counts[value.index()]
    }
}

/// The border of a set of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boundary {
    /// Values from outside, constants excepted, in order of first use.
    pub inputs: Vec<ValueId>,
    /// Constants that it reads, in order of first use.
    pub constants: Vec<ValueId>,
    /// Values made inside that others read, in the order in which they are made.
    pub outputs: Vec<ValueId>,
}

impl Boundary {
    /// The border of `nodes`, which are in execution order. Costs the size of the set, not of the graph.
    pub fn of(graph: &Graph, nodes: &[NodeId], reads: &Reads) -> Boundary {
        let mut inside: FxHashMap<ValueId, u32> = FxHashMap::default();
        for id in nodes {
            inside.extend(graph.node(*id).outputs.iter().map(|v| (*v, 0)));
        }
        let mut seen: FxHashSet<ValueId> = FxHashSet::default();
        let mut boundary = Boundary::default();
        for value in nodes.iter().flat_map(|id| graph.node(*id).inputs()) {
            if let Some(count) = inside.get_mut(&value) {
                *count += 1;
            } else if seen.insert(value) {
                match graph.value(value).def {
                    Def::Constant(_) => boundary.constants.push(value),
                    _ => boundary.inputs.push(value),
                }
            }
        }
        for output in nodes.iter().flat_map(|id| &graph.node(*id).outputs) {
            if inside[output] < reads.count(*output) {
                boundary.outputs.push(*output);
            }
        }
        boundary
    }
}

/// For each node, whether an output or a mutation needs it in the end.
pub fn live(graph: &Graph) -> Vec<bool> {
    let producers = graph.producers();
    let mut live = vec![false; graph.nodes.len()];
    for node in graph.results().filter_map(|v| producers[v.index()]) {
        live[node.index()] = true;
    }
    for i in (0..graph.nodes.len()).rev() {
        if live[i] {
            for node in graph.nodes[i].inputs().filter_map(|v| producers[v.index()]) {
                live[node.index()] = true;
            }
        }
    }
    live
}

/// Nodes of a region that need a symbol which nothing gives them: neither a dimension of a region input nor a node of the
/// region that comes before. A delegate sees tensors only, so such a size would be unknown to it.
pub(crate) fn unbound(graph: &Graph, nodes: &[NodeId], boundary: &Boundary) -> Vec<(NodeId, Symbol)> {
    let mut bound: FxHashSet<Symbol> = FxHashSet::default();
    for input in &boundary.inputs {
        bind(graph, *input, &mut bound);
    }
    let mut left_out = Vec::new();
    for id in nodes {
        let node = graph.node(*id);
        let mut missing = None;
        for expr in node.args.iter().flat_map(|a| a.exprs()) {
            expr.for_each_symbol(&mut |s| {
                if !bound.contains(s) {
                    missing = Some(s.clone());
                }
            });
        }
        left_out.extend(missing.map(|symbol| (*id, symbol)));
        // A node that is left out binds too: what it makes becomes an input of the others.
        for output in &node.outputs {
            bind(graph, *output, &mut bound);
        }
    }
    left_out
}

/// Which node first gives a size that no input of the graph does (`u0` of `nonzero`).
pub(crate) struct SizeGivers {
    /// `None`: an input.
    giver_of: FxHashMap<Symbol, Option<NodeId>>,
}

impl SizeGivers {
    pub fn new(graph: &Graph) -> SizeGivers {
        let mut givers = SizeGivers {
            giver_of: FxHashMap::default(),
        };
        for (i, value) in graph.values.iter().enumerate() {
            if value.def != Def::Node {
                givers.give(graph, ValueId::from(i), None);
            }
        }
        givers
    }

    /// Adds the givers of the sizes that the node's arguments hold, its subgraphs included; then what it gives itself. To be
    /// called in execution order.
    pub fn visit(&mut self, graph: &Graph, id: NodeId, givers: &mut Vec<u32>) {
        let node = graph.node(id);
        // A subgraph binds nothing that this graph does not: its symbols are looked up here, unknown ones are its own.
        self.needs(node, givers);
        for output in &node.outputs {
            // A size that is no linear expression gives nothing and can only be had from others.
            for size in graph
                .tensor(*output)
                .into_iter()
                .flat_map(|t| &t.shape)
                .filter(|e| e.as_linear().is_none())
            {
                self.find(size, givers);
            }
            self.give(graph, *output, Some(id));
        }
    }

    fn needs(&self, node: &Node, givers: &mut Vec<u32>) {
        for arg in &node.args {
            arg.exprs().iter().for_each(|expr| self.find(expr, givers));
            if let Arg::Graph(body) = arg {
                body.nodes.iter().for_each(|inner| self.needs(inner, givers));
            }
        }
    }

    fn find(&self, expr: &Expr, givers: &mut Vec<u32>) {
        expr.for_each_symbol(&mut |symbol| {
            givers.extend(self.giver_of.get(symbol).copied().flatten().map(|id| id.0));
        });
    }

    fn give(&mut self, graph: &Graph, value: ValueId, giver: Option<NodeId>) {
        let mut give = |expr: &Expr| {
            if expr.as_int().is_none()
                && let Some((symbol, _, _)) = expr.as_linear()
            {
                self.giver_of.entry(symbol).or_insert(giver);
            }
        };
        match &graph.value(value).ty {
            Type::Tensor(tensor) => tensor.shape.iter().for_each(give),
            Type::Int(expr) => give(expr),
            Type::Float | Type::Bool => {}
        }
    }
}

/// Adds the symbols that the sizes of a tensor give away.
fn bind(graph: &Graph, value: ValueId, bound: &mut FxHashSet<Symbol>) {
    for size in graph.tensor(value).into_iter().flat_map(|t| &t.shape) {
        if size.as_int().is_none()
            && let Some((symbol, _, _)) = size.as_linear()
        {
            bound.insert(symbol);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::TensorType;
    use delegraph_types::DType;

    fn ty(shape: Vec<Expr>) -> Type {
        TensorType::new(DType::F32, shape).into()
    }

    #[test]
    fn a_boundary_is_what_crosses_it() {
        let mut graph = Graph::new("forward");
        let four = || ty(vec![Expr::Int(4)]);
        let x = graph.add_input("x", four());
        let w = graph.add_constant("w", TensorType::fixed(DType::F32, &[4]), delegraph_ir::ConstantId(0));
        let a = graph
            .push("aten::mul.Tensor", vec![x.into(), w.into()], vec![four()])
            .unwrap()[0];
        let b = graph
            .push("aten::mul.Tensor", vec![a.into(), a.into()], vec![four()])
            .unwrap()[0];
        let c = graph
            .push("aten::mul.Tensor", vec![b.into(), x.into()], vec![four()])
            .unwrap()[0];
        graph.add_output(c);
        let reads = Reads::of(&graph);
        let first = Boundary::of(&graph, &[NodeId(0), NodeId(1)], &reads);
        assert_eq!(
            (first.inputs, first.constants, first.outputs),
            (vec![x], vec![w], vec![b])
        );
        let last = Boundary::of(&graph, &[NodeId(2)], &reads);
        assert_eq!((last.inputs, last.outputs), (vec![b, x], vec![c]));
    }

    #[test]
    fn a_size_that_no_input_gives_leaves_its_node_out() {
        let mut graph = Graph::new("forward");
        let s = Expr::symbol("s7");
        let x = graph.add_input("x", ty(vec![s.clone() * Expr::Int(2)]));
        let y = graph.add_input("y", ty(vec![Expr::Int(4)]));
        let size = |e: &Expr| vec![Arg::Ints(vec![e.clone(), Expr::Int(4)])];
        for input in [x, y] {
            let mut args: Vec<Arg> = vec![input.into()];
            args.extend(size(&s));
            let made = graph
                .push("aten::expand", args, vec![ty(vec![s.clone(), Expr::Int(4)])])
                .unwrap()[0];
            graph.add_output(made);
        }
        let reads = Reads::of(&graph);
        let check = |nodes: &[NodeId]| unbound(&graph, nodes, &Boundary::of(&graph, nodes, &reads));
        assert_eq!(check(&[NodeId(0), NodeId(1)]), []);
        assert_eq!(check(&[NodeId(1)]), [(NodeId(1), Symbol::new("s7"))]);
    }
}
