//! Removes nodes that nothing reads.

use delegraph_ir::{Arg, Expr, Graph, InputKind, Module, Node, Output, RegionId, Symbol, Type, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Removes every node whose results nobody reads, in subgraphs too. Assertions, which have no result, go with them.
///
/// What a region gives to the rest of the graph is kept even where the rest stopped reading it: the compiled region has it as
/// an output.
pub fn remove_dead_nodes(module: &mut Module) {
    let given: Vec<FxHashSet<ValueId>> = module.graphs.iter().map(region_outputs).collect();
    for (graph, given) in module.graphs.iter_mut().zip(&given) {
        sweep(graph, given);
    }
}

/// Values of tagged nodes that are read outside their region.
pub(crate) fn region_outputs(graph: &Graph) -> FxHashSet<ValueId> {
    let mut region_of: FxHashMap<ValueId, RegionId> = FxHashMap::default();
    for node in &graph.nodes {
        if let Some(region) = node.region {
            region_of.extend(node.outputs.iter().map(|v| (*v, region)));
        }
    }
    let mut outputs = FxHashSet::default();
    if region_of.is_empty() {
        return outputs;
    }
    for node in &graph.nodes {
        let reads = node
            .inputs()
            .filter(|v| region_of.get(v).is_some_and(|r| node.region != Some(*r)));
        outputs.extend(reads);
    }
    outputs.extend(graph.results().filter(|v| region_of.contains_key(v)));
    outputs
}

/// One backwards walk. `roots` are kept besides what the graph returns and writes.
///
/// A node whose result nobody reads may still be the one that gives a symbol its value (`item()` gives `u0`): it stays while
/// an expression reads the symbol.
pub(crate) fn sweep(graph: &mut Graph, roots: &FxHashSet<ValueId>) {
    sweep_in(graph, roots, FxHashSet::default());
}

/// `bound`: symbols that have a value outside of this subgraph.
fn sweep_in(graph: &mut Graph, roots: &FxHashSet<ValueId>, mut bound: FxHashSet<Symbol>) {
    for input in &graph.inputs {
        if let InputKind::Value(value) = input.kind {
            add_symbols(exprs(&graph.value(value).ty), &mut bound);
        }
    }
    // The symbols that each node is the first to give.
    let mut given: Vec<Vec<Symbol>> = Vec::with_capacity(graph.nodes.len());
    let mut bounds: Vec<FxHashSet<Symbol>> = Vec::new();
    for node in &graph.nodes {
        if node.args.iter().any(|arg| matches!(arg, Arg::Graph(_))) {
            bounds.push(bound.clone());
        }
        let types = node.outputs.iter().flat_map(|v| exprs(&graph.value(*v).ty));
        let linear = types.filter_map(|e| Some(e.as_linear()?.0));
        given.push(linear.filter(|symbol| bound.insert(symbol.clone())).collect());
    }
    let mut live: FxHashSet<ValueId> = graph.results().collect();
    live.extend(roots);
    let mut read: FxHashSet<Symbol> = FxHashSet::default();
    for output in &graph.outputs {
        if let Output::Literal(arg) = output {
            symbols_of(arg, &mut read);
        }
    }
    let mut keep = vec![false; graph.nodes.len()];
    for ((node, given), keep) in graph.nodes.iter().zip(&given).zip(&mut keep).rev() {
        *keep = node.outputs.iter().any(|v| live.contains(v)) || given.iter().any(|s| read.contains(s));
        if *keep {
            live.extend(node.inputs());
            symbols_read(graph, node, &mut read);
        }
    }
    let (mut keep, mut bounds) = (keep.into_iter(), bounds.into_iter());
    graph.nodes.retain_mut(|node| {
        let subgraphs = node.args.iter_mut().filter_map(|arg| match arg {
            Arg::Graph(subgraph) => Some(subgraph),
            _ => None,
        });
        let mut subgraphs = subgraphs.peekable();
        let outside = if subgraphs.peek().is_some() {
            bounds.next()
        } else {
            None
        };
        let kept = keep.next().unwrap_or(true);
        if kept {
            for subgraph in subgraphs {
                let given = region_outputs(subgraph);
                sweep_in(subgraph, &given, outside.clone().unwrap_or_default());
            }
        }
        kept
    });
}

/// The symbols that a node needs: in its arguments, and in sizes of its results that do not tell them.
fn symbols_read(graph: &Graph, node: &Node, into: &mut FxHashSet<Symbol>) {
    node.args.iter().for_each(|arg| symbols_of(arg, into));
    let types = node.outputs.iter().flat_map(|v| exprs(&graph.value(*v).ty));
    add_symbols(types.filter(|e| e.as_linear().is_none()), into);
}

fn symbols_of(arg: &Arg, into: &mut FxHashSet<Symbol>) {
    if let Arg::Graph(subgraph) = arg {
        for node in &subgraph.nodes {
            symbols_read(subgraph, node, into);
        }
        for output in &subgraph.outputs {
            if let Output::Literal(arg) = output {
                symbols_of(arg, into);
            }
        }
    }
    add_symbols(arg.exprs(), into);
}

fn add_symbols<'a>(exprs: impl IntoIterator<Item = &'a Expr>, into: &mut FxHashSet<Symbol>) {
    for e in exprs {
        e.for_each_symbol(&mut |symbol| {
            into.insert(symbol.clone());
        });
    }
}

fn exprs(ty: &Type) -> &[Expr] {
    match ty {
        Type::Tensor(tensor) => &tensor.shape,
        Type::Int(e) => std::slice::from_ref(e),
        Type::Float | Type::Bool => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::TensorType;
    use delegraph_types::DType;

    fn ty() -> Type {
        TensorType::fixed(DType::F32, &[2]).into()
    }

    #[test]
    fn what_nobody_reads_goes_and_the_rest_stays_in_order() {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty());
        let a = graph.push("aten::relu", vec![x.into()], vec![ty()]).unwrap()[0];
        let dead = graph.push("aten::exp", vec![a.into()], vec![ty()]).unwrap()[0];
        graph.push("aten::neg", vec![dead.into()], vec![ty()]).unwrap();
        let b = graph.push("aten::sin", vec![a.into()], vec![ty()]).unwrap()[0];
        graph
            .push("aten::_assert_async.msg", vec![a.into(), Arg::Str("no".into())], vec![])
            .unwrap();
        graph.add_output(b);
        module.graphs.push(graph);
        remove_dead_nodes(&mut module);
        let names: Vec<&str> = module.graphs[0].nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(names, ["aten::relu", "aten::sin"]);
    }

    #[test]
    fn outputs_of_a_region_stay() {
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty());
        let a = graph.push("aten::relu", vec![x.into()], vec![ty()]).unwrap()[0];
        graph.nodes[0].region = Some(RegionId(0));
        let b = graph.push("aten::neg", vec![a.into()], vec![ty()]).unwrap()[0];
        graph.add_output(b);
        let given = region_outputs(&graph);
        // A rewrite stops reading the region's value.
        graph.nodes[1].args[0] = x.into();
        sweep(&mut graph, &given);
        assert_eq!(graph.nodes.len(), 2);
        sweep(&mut graph, &FxHashSet::default());
        assert_eq!(graph.nodes.len(), 1);
    }

    #[test]
    fn what_gives_a_symbol_stays_while_the_symbol_is_read() {
        let number = |name: &str| Type::Int(Expr::symbol(name));
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty());
        let count = TensorType::fixed(DType::I64, &[]);
        let n = graph.add_input("n", count.into());
        graph.push("aten::item", vec![n.into()], vec![number("u0")]).unwrap();
        graph.push("aten::item", vec![n.into()], vec![number("u1")]).unwrap();
        let sized = TensorType::new(DType::F32, vec![Expr::symbol("u0")]);
        let zeros = graph
            .push(
                "aten::full",
                vec![Arg::Ints(vec![Expr::symbol("u0")])],
                vec![sized.clone().into()],
            )
            .unwrap()[0];
        // It repeats `u0`, but does not give it.
        graph.push("aten::neg", vec![zeros.into()], vec![sized.into()]).unwrap();
        graph.add_output(x);
        graph.add_output(zeros);
        sweep(&mut graph, &FxHashSet::default());
        let names: Vec<&str> = graph.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(names, ["aten::item", "aten::full"]);
        assert_eq!(graph.value(graph.nodes[0].outputs[0]).ty, number("u0"));
    }
}
