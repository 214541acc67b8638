//! Removes nodes that nothing reads.

use delegraph_ir::{Arg, Graph, Module, RegionId, ValueId};
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
pub(crate) fn sweep(graph: &mut Graph, roots: &FxHashSet<ValueId>) {
    let mut live: FxHashSet<ValueId> = graph.results().collect();
    live.extend(roots);
    let mut keep = vec![false; graph.nodes.len()];
    for (node, keep) in graph.nodes.iter().zip(&mut keep).rev() {
        *keep = node.outputs.iter().any(|v| live.contains(v));
        if *keep {
            live.extend(node.inputs());
        }
    }
    let mut keep = keep.into_iter();
    graph.nodes.retain(|_| keep.next().unwrap_or(true));
    for arg in graph.nodes.iter_mut().flat_map(|n| &mut n.args) {
        if let Arg::Graph(subgraph) = arg {
            let given = region_outputs(subgraph);
            sweep(subgraph, &given);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::{TensorType, Type};
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
}
