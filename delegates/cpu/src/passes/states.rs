//! States that grow by rows, as caches of keys and values do, are written in place.

use super::Target;
use crate::graph::{Graph, ValueId, float};
use crate::steps::state::NAME;
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// Rewrites `aten::index_copy` of a state that nothing else reads.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    if !target.states {
        return Ok(());
    }
    let makers = graph.makers();
    for state in graph.states.clone() {
        let (before, after) = (graph.inputs[state.input as usize], graph.outputs[state.output as usize]);
        let Some(at) = makers[after] else { continue };
        let node = &graph.nodes[at];
        let rank = graph.values[before].dims.len() as i64;
        let dim = float(node.args.get(1))
            .map(|dim| dim as i64)
            .map(|dim| if dim < 0 { dim + rank } else { dim });
        let reads = |value: ValueId| {
            graph
                .nodes
                .iter()
                .enumerate()
                .filter(move |(_, node)| node.reads().any(|v| v == value))
        };
        let fits = node.op == "aten::index_copy"
            && node.value(0) == Some(before)
            && node
                .value(2)
                .is_some_and(|index| graph.values[index].dtype == DType::I64)
            && dim.is_some_and(|dim| (0..rank).contains(&dim))
            && graph.sizes(before).is_some()
            && reads(before).count() == 1
            && node.reads().filter(|value| *value == before).count() == 1
            && !graph.outputs.contains(&before)
            && graph.outputs.iter().filter(|output| **output == after).count() == 1;
        if fits {
            let node = &mut graph.nodes[at];
            node.op = NAME.to_string();
            node.args[1] = Arg::Int(dim.unwrap_or(0));
            node.args.truncate(4);
        }
    }
    Ok(())
}
