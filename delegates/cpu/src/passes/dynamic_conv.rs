//! Convolutions of images that become bytes by a scale that is chosen when they are there, by integer weights.

use super::activation::Function;
use super::conv::around;
use super::dynamic::{self, Dynamic};
use super::{Target, filters, is_constant, to_bytes};
use crate::graph::{Graph, Node, arg};
use crate::steps::dynamic_conv as step;
use crate::steps::quantized::scheme_args;
use delegraph_cpu_kernels::quant::dynamic::Extent;
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// Rewrites convolutions.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let makers = graph.makers();
    let mut made = Vec::with_capacity(graph.nodes.len());
    for at in 0..graph.nodes.len() {
        match layer(graph, target, &makers, at) {
            Some(nodes) => made.extend(nodes),
            None => made.push(graph.nodes[at].clone()),
        }
    }
    graph.nodes = made;
    graph.sweep();
    Ok(())
}

fn layer(graph: &mut Graph, target: &Target<'_>, makers: &[Option<usize>], at: usize) -> Option<Vec<Node>> {
    let node = graph.nodes[at].clone();
    if !matches!(node.op.as_str(), "aten::conv1d" | "aten::conv2d" | "aten::convolution")
        || graph.values[node.outputs[0]].dtype != DType::F32
    {
        return None;
    }
    let Dynamic { x, scheme } = dynamic::of(graph, makers, node.value(0)?)?;
    let weight = filters::of(graph, target, makers, node.value(1)?)?;
    let bias = match node.value(2) {
        None => None,
        Some(bias) if is_constant(graph, bias) && graph.values[bias].dtype == DType::F32 => Some(bias),
        Some(_) => return None,
    };
    // Pixels of a row have channels of their own: no scale is one of a row here.
    if scheme.extent != Extent::Tensor {
        return None;
    }
    let (packed, form) = filters::convolution(graph, &node, x, &weight)?;
    let scales: Vec<f32> = weight.scales.iter().map(|scale| *scale as f32).collect();
    let name = format!("{} scales", graph.values[node.outputs[0]].name);
    let scales = graph.constant(&name, DType::F32, &[scales.len() as i64], to_bytes(&scales));
    let mut args = vec![arg(packed), arg(scales), bias.map_or(Arg::None, arg)];
    args.extend(form);
    args.extend(scheme_args(scheme));
    args.extend(Function::NONE.args());
    Some(around(graph, &node, x, step::NAME, args, DType::F32))
}
