//! Which buffers a region alone reads and writes, so that its image names them and a delegate may keep them.
//!
//! No state of an image grows: that runs append, with zeros behind what they appended, cannot be told from a graph whose positions are
//! inputs.

use delegraph_ir::{Def, Graph, Module, Mutation, MutationTarget, NodeId, StateId, Type, ValueId};
use delegraph_tag::{Boundary, Reads};

/// A state of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegionState {
    /// The buffer's name in the module.
    pub name: String,
    /// Position among the border's inputs: before the run.
    pub input: u32,
    /// Position among the border's outputs: after the run.
    pub output: u32,
}

/// The states of a region: buffers whose value before a run is read in the region and nowhere else, whose value after it is made there
/// and read outside by nothing but the write at the end of the graph. That another method uses the buffer is no hindrance: its session has its
/// own, and takes the contents over where it is told to.
pub(crate) fn states_of(
    module: &Module,
    graph: &Graph,
    nodes: &[NodeId],
    boundary: &Boundary,
    reads: &Reads,
) -> Vec<RegionState> {
    let mut states: Vec<RegionState> = graph
        .mutations
        .iter()
        .filter_map(|mutation| state_of(module, graph, nodes, boundary, reads, mutation))
        .collect();
    // A name stands for one state, whatever the module says.
    let names: Vec<String> = states.iter().map(|state| state.name.clone()).collect();
    states.retain(|state| names.iter().filter(|name| **name == state.name).count() == 1);
    states
}

fn state_of(
    module: &Module,
    graph: &Graph,
    nodes: &[NodeId],
    boundary: &Boundary,
    reads: &Reads,
    mutation: &Mutation,
) -> Option<RegionState> {
    let MutationTarget::State(id) = mutation.target else {
        return None;
    };
    let state = module.states.get(id.index())?;
    let before = only_value_of(graph, id)?;
    let after = mutation.value;
    let position = |values: &[ValueId], value| values.iter().position(|v| *v == value);
    let input = position(&boundary.inputs, before)?;
    let output = position(&boundary.outputs, after)?;
    let inside = |value: ValueId| {
        let read = nodes.iter().flat_map(|node| graph.node(*node).inputs());
        read.filter(|v| *v == value).count() as u32
    };
    let fits = |value| matches!(&graph.value(value).ty, Type::Tensor(ty) if *ty == state.ty);
    let alone = reads.count(before) == inside(before) && reads.count(after) == inside(after) + 1;
    (alone && fits(before) && fits(after)).then(|| RegionState {
        name: state.name.clone(),
        input: input as u32,
        output: output as u32,
    })
}

/// The value that is the state before the run, if there is but one.
fn only_value_of(graph: &Graph, id: StateId) -> Option<ValueId> {
    let mut values = (0..graph.values.len()).filter(|i| graph.values[*i].def == Def::State(id));
    let first = values.next()?;
    values.next().is_none().then(|| ValueId::from(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::{Arg, State, TensorType};
    use delegraph_types::DType;

    fn ty() -> TensorType {
        TensorType::fixed(DType::F32, &[4])
    }

    /// `total += x; y = relu(total)`, where the third node reads something else.
    fn module() -> (Module, ValueId, ValueId) {
        let mut module = Module::default();
        module.states.push(State {
            name: "total".into(),
            ty: ty(),
            initial: None,
        });
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty().into());
        let before = graph.add_value("total", ty().into(), Def::State(StateId(0)));
        let args = vec![before.into(), x.into(), Arg::int(1)];
        let after = graph.push("aten::add.Tensor", args, vec![ty().into()]).unwrap()[0];
        let y = graph.push("aten::relu", vec![after.into()], vec![ty().into()]).unwrap()[0];
        let z = graph.push("aten::relu", vec![x.into()], vec![ty().into()]).unwrap()[0];
        graph.add_output(y);
        graph.add_output(z);
        graph.mutations.push(Mutation {
            target: MutationTarget::State(StateId(0)),
            value: after,
        });
        module.graphs.push(graph);
        (module, before, after)
    }

    fn found(module: &Module, nodes: &[u32]) -> Vec<RegionState> {
        let graph = &module.graphs[0];
        let nodes: Vec<NodeId> = nodes.iter().map(|node| NodeId(*node)).collect();
        let reads = Reads::of(graph);
        states_of(module, graph, &nodes, &Boundary::of(graph, &nodes, &reads), &reads)
    }

    #[test]
    fn a_buffer_that_one_region_reads_and_writes_is_its_state() {
        let (module, ..) = module();
        let total = |input, output| RegionState {
            name: "total".into(),
            input,
            output,
        };
        assert_eq!(found(&module, &[0, 1]), [total(0, 0)]);
        assert_eq!(found(&module, &[0, 1, 2]), [total(0, 0)]);
        assert_eq!(found(&module, &[2, 0, 1]), [total(1, 1)]);
        assert_eq!(found(&module, &[1, 2]), [], "it is not written here");
        assert_eq!(found(&module, &[0, 2]), [], "another node reads what it becomes");
    }

    #[test]
    fn who_else_sees_it_makes_it_the_host_s() {
        let (mut module, before, after) = module();
        module.graphs[0].add_output(after);
        assert_eq!(found(&module, &[0, 1, 2]), [], "what it becomes is an output");
        module.graphs[0].outputs.pop();
        assert_eq!(found(&module, &[0, 1, 2]).len(), 1);
        module.graphs[0].add_output(before);
        assert_eq!(found(&module, &[0, 1, 2]), [], "what it was is an output");
        module.graphs[0].outputs.pop();
        let mut peek = Graph::new("peek");
        let seen = peek.add_value("total", ty().into(), Def::State(StateId(0)));
        peek.add_output(seen);
        module.graphs.push(peek);
        assert_eq!(found(&module, &[0, 1, 2]).len(), 1, "another method has its own");
    }

    #[test]
    fn what_two_states_become_is_no_state_of_a_region() {
        let (mut module, _, after) = module();
        let second = State {
            name: "second".into(),
            ..module.states[0].clone()
        };
        module.states.push(second);
        let graph = &mut module.graphs[0];
        let before = graph.add_value("second", ty().into(), Def::State(StateId(1)));
        graph
            .push("aten::relu", vec![before.into()], vec![ty().into()])
            .unwrap();
        graph.mutations.push(Mutation {
            target: MutationTarget::State(StateId(1)),
            value: after,
        });
        assert_eq!(found(&module, &[0, 1, 2, 3]), []);
    }
}
