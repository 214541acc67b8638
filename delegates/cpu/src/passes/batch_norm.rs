//! Batch normalisation that no product took: one product and one sum a channel.

use super::{Target, floats, to_bytes};
use crate::graph::{Graph, Node, arg, float};
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// Rewrites nodes.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let uses = graph.uses();
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        let single = node.outputs.iter().skip(1).all(|output| uses[*output] == 0);
        match single.then(|| rewrite(graph, target, &node)).flatten() {
            Some(made) => graph.nodes.extend(made),
            None => graph.nodes.push(node),
        }
    }
    Ok(())
}

fn rewrite(graph: &mut Graph, target: &Target<'_>, node: &Node) -> Option<[Node; 2]> {
    let epsilon = match node.op.as_str() {
        "aten::_native_batch_norm_legit_no_training" => float(node.args.get(6))?,
        "aten::batch_norm" if matches!(node.args.get(5), Some(Arg::Bool(false) | Arg::Int(0))) => {
            float(node.args.get(7))?
        }
        _ => return None,
    };
    let (x, output) = (node.value(0)?, node.outputs[0]);
    let rank = graph.values[x].dims.len();
    if rank < 2 || graph.values[x].dtype != DType::F32 || graph.values[output].dtype != DType::F32 {
        return None;
    }
    let (mean, variance) = (
        floats(graph, target, node.value(3)?)?,
        floats(graph, target, node.value(4)?)?,
    );
    let optional = |at: usize, default: f32| match node.value(at) {
        Some(value) => floats(graph, target, value),
        None => Some(vec![default; mean.len()]),
    };
    let (weight, bias) = (optional(1, 1.0)?, optional(2, 0.0)?);
    let channels = mean.len();
    if [variance.len(), weight.len(), bias.len()] != [channels; 3] || graph.size(x, 1) != Some(channels as i64) {
        return None;
    }
    let mut scale = Vec::with_capacity(channels);
    let mut shift = Vec::with_capacity(channels);
    for c in 0..channels {
        let factor = f64::from(weight[c]) / (f64::from(variance[c]) + epsilon).sqrt();
        scale.push(factor as f32);
        shift.push((f64::from(bias[c]) - f64::from(mean[c]) * factor) as f32);
    }
    let mut sizes = vec![1; rank - 1];
    sizes[0] = channels as i64;
    let name = graph.values[output].name.clone();
    let scale = graph.constant(&format!("{name} scale"), DType::F32, &sizes, to_bytes(&scale));
    let shift = graph.constant(&format!("{name} shift"), DType::F32, &sizes, to_bytes(&shift));
    let dims = graph.values[output].dims.clone();
    let scaled = graph.value(&format!("{name} scaled"), DType::F32, dims);
    let new = |op: &str, args: Vec<Arg>, output: usize| Node {
        op: op.to_string(),
        args,
        outputs: vec![output],
        source: node.source,
    };
    Some([
        new("aten::mul.Tensor", vec![arg(x), arg(scale)], scaled),
        new("aten::add.Tensor", vec![arg(scaled), arg(shift)], output),
    ])
}
