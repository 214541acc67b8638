//! What goes into a region and what comes out.

use delegraph_ir::{Def, Graph, NodeId, ValueId};
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

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::{Expr, TensorType, Type};
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
}
