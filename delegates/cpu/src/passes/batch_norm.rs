//! Batch normalisation: folded into the convolution before it, or one product and one sum a channel.

use super::{Target, floats, to_bytes};
use crate::graph::{Graph, Node, ValueId, arg, float};
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};
use std::collections::HashMap;

/// Rewrites nodes.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let uses = graph.uses();
    let nodes = std::mem::take(&mut graph.nodes);
    // Where each value is made, among the nodes that are done.
    let mut makers: HashMap<ValueId, usize> = HashMap::new();
    for node in nodes {
        let single = node.outputs.iter().skip(1).all(|output| uses[*output] == 0);
        let Some(channels) = single.then(|| channels(graph, target, &node)).flatten() else {
            node.outputs.iter().for_each(|output| {
                makers.insert(*output, graph.nodes.len());
            });
            graph.nodes.push(node);
            continue;
        };
        let x = channels.x;
        let folded = match makers.get(&x) {
            Some(at) if uses[x] == 1 => fold(graph, target, *at, &channels, node.outputs[0]),
            _ => None,
        };
        match folded {
            Some(()) => {
                makers.insert(node.outputs[0], makers[&x]);
            }
            None => {
                let made = scaled(graph, &node, &channels);
                graph.nodes.extend(made);
            }
        }
    }
    Ok(())
}

/// What a node multiplies channels with, and adds to them.
struct Channels {
    x: ValueId,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Lets a convolution with constant weights do it. The node gives `output` then.
fn fold(graph: &mut Graph, target: &Target<'_>, at: usize, channels: &Channels, output: ValueId) -> Option<()> {
    let conv = &graph.nodes[at];
    let plain = match conv.op.as_str() {
        "aten::conv2d" | "aten::conv1d" => true,
        "aten::convolution" => matches!(conv.args.get(6), Some(Arg::Bool(false))),
        _ => false,
    };
    let weight = conv.value(1)?;
    let sizes = graph.sizes(weight)?;
    if !plain || graph.values[weight].dtype != DType::F32 || sizes.first() != Some(&(channels.scale.len() as i64)) {
        return None;
    }
    let mut numbers = floats(graph, target, weight)?;
    let bias = match conv.value(2) {
        Some(bias) => floats(graph, target, bias)?,
        None => vec![0.0; channels.scale.len()],
    };
    let each = numbers.len() / channels.scale.len().max(1);
    for (filter, scale) in numbers.chunks_mut(each.max(1)).zip(&channels.scale) {
        filter.iter_mut().for_each(|x| *x *= scale);
    }
    let bias: Vec<f32> = bias
        .iter()
        .zip(&channels.scale)
        .zip(&channels.shift)
        .map(|((b, scale), shift)| b * scale + shift)
        .collect();
    let name = graph.values[weight].name.clone();
    let weight = graph.constant(&format!("{name} folded"), DType::F32, &sizes, to_bytes(&numbers));
    let bias = graph.constant(
        &format!("{name} bias"),
        DType::F32,
        &[bias.len() as i64],
        to_bytes(&bias),
    );
    let conv = &mut graph.nodes[at];
    conv.args[1] = arg(weight);
    if conv.args.len() < 3 {
        conv.args.push(Arg::None);
    }
    conv.args[2] = arg(bias);
    conv.outputs = vec![output];
    Some(())
}

fn channels(graph: &Graph, target: &Target<'_>, node: &Node) -> Option<Channels> {
    let epsilon = match node.op.as_str() {
        "aten::_native_batch_norm_legit_no_training" => float(node.args.get(6))?,
        "aten::batch_norm" if matches!(node.args.get(5), Some(Arg::Bool(false) | Arg::Int(0))) => {
            float(node.args.get(7))?
        }
        _ => return None,
    };
    let (x, output) = (node.value(0)?, *node.outputs.first()?);
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
    Some(Channels { x, scale, shift })
}

/// One product and one sum.
fn scaled(graph: &mut Graph, node: &Node, channels: &Channels) -> [Node; 2] {
    let Channels { x, scale, shift } = channels;
    let (x, output) = (*x, node.outputs[0]);
    let mut sizes = vec![1; graph.values[x].dims.len() - 1];
    sizes[0] = scale.len() as i64;
    let name = graph.values[output].name.clone();
    let scale = graph.constant(&format!("{name} scale"), DType::F32, &sizes, to_bytes(scale));
    let shift = graph.constant(&format!("{name} shift"), DType::F32, &sizes, to_bytes(shift));
    let dims = graph.values[output].dims.clone();
    let scaled = graph.value(&format!("{name} scaled"), DType::F32, dims);
    let new = |op: &str, args: Vec<Arg>, output: usize| Node {
        op: op.to_string(),
        args,
        outputs: vec![output],
        source: node.source,
    };
    [
        new("aten::mul.Tensor", vec![arg(x), arg(scale)], scaled),
        new("aten::add.Tensor", vec![arg(scaled), arg(shift)], output),
    ]
}
