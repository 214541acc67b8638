//! Layers that PT2E has quantized ahead of time: integers in, integer weights, integers out.
//!
//! What the graph says is `quantize(layer(dequantize(x), dequantize(weight)))`; the step computes the layer's sums exactly in integers. A bound on
//! what comes out (`relu`, `hardtanh`) is a bound on the integers, also where the graph quantizes before it and again behind it by the same scale.

use super::conv::around;
use super::{Target, activation, filters, is_constant, to_bytes};
use crate::graph::{From, Graph, Node, ValueId, arg, float};
use crate::steps::bytes as step;
use delegraph_cpu_kernels::quant::static8::inverse;
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// What makes floats of integers by one scale.
pub const DEQUANTIZE: &str = "quantized_decomposed::dequantize_per_tensor";
/// What makes integers of floats by one scale.
pub const QUANTIZE: &str = "quantized_decomposed::quantize_per_tensor";

/// A scale, a zero point, and the least and largest integer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// What one step is.
    pub scale: f64,
    /// The integer that stands for 0.
    pub zero: i64,
    /// The least integer.
    pub low: i64,
    /// The largest one.
    pub high: i64,
    /// Signed or unsigned bytes.
    pub dtype: DType,
}

impl Scale {
    /// The integer of a real.
    pub fn quantized(&self, x: f64) -> i64 {
        let step = (x as f32 * inverse(self.scale)).round_ties_even() as f64 + self.zero as f64;
        step.clamp(self.low as f64, self.high as f64) as i64
    }
}

/// Rewrites layers. Says whether there were any.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<bool, Error> {
    let mut any = false;
    let mut at = 0;
    while at < graph.nodes.len() {
        if matches!(
            graph.nodes[at].op.as_str(),
            "aten::linear" | "aten::conv1d" | "aten::conv2d" | "aten::convolution"
        ) && let Some(made) = layer(graph, target, at)
        {
            let count = made.len();
            graph.nodes.splice(at..=at, made);
            at += count;
            any = true;
        } else {
            at += 1;
        }
    }
    graph.sweep();
    Ok(any)
}

/// The scale of a node that quantizes or dequantizes by one scale.
pub fn scale_of(node: &Node) -> Option<Scale> {
    let dtype = match node.args.get(5)? {
        Arg::DType(dtype) if matches!(*dtype, DType::I8 | DType::U8) => *dtype,
        _ => return None,
    };
    let int = |at: usize| float(node.args.get(at)).map(|x| x as i64);
    Some(Scale {
        scale: float(node.args.get(1))?,
        zero: int(2)?,
        low: int(3)?,
        high: int(4)?,
        dtype,
    })
}

/// The nodes that do a layer and what follows it up to the integers.
fn layer(graph: &mut Graph, target: &Target<'_>, at: usize) -> Option<Vec<Node>> {
    let (makers, uses) = (graph.makers(), graph.uses());
    let node = graph.nodes[at].clone();
    let before = &graph.nodes[makers[node.value(0)?]?];
    if before.op != DEQUANTIZE || graph.values[node.outputs[0]].dtype != DType::F32 {
        return None;
    }
    let (x, x_scale) = (before.value(0)?, scale_of(before)?);
    if graph.values[x].dtype != x_scale.dtype {
        return None;
    }
    let weight = filters::of(graph, target, &makers, node.value(1)?)?;
    let bias = match node.value(2) {
        None => None,
        Some(bias) if is_constant(graph, bias) && graph.values[bias].dtype == DType::F32 => Some(bias),
        Some(_) => return None,
    };
    let multiplier: Vec<f32> = weight
        .scales
        .iter()
        .map(|scale| (x_scale.scale * scale) as f32)
        .collect();
    // What follows: bounds, a quantization, and bounds between the same one.
    let readers = readers(graph);
    let next = |value: ValueId| match (uses[value], readers.get(&value)) {
        (1, Some(reader)) => Some(&graph.nodes[*reader]),
        _ => None,
    };
    let mut bounds = [f64::NEG_INFINITY, f64::INFINITY];
    let mut output = node.outputs[0];
    let mut last = next(output);
    if let Some(reader) = last
        && let Some(found) = bound(reader)
    {
        bounds = found;
        output = reader.outputs[0];
        last = next(output);
    }
    let grid = last.filter(|reader| reader.op == QUANTIZE).and_then(scale_of);
    let mut limits = [0, 0];
    if let (Some(scale), Some(reader)) = (grid, last) {
        let quantized = |x: f64| scale.quantized(x);
        limits = [quantized(bounds[0]), quantized(bounds[1])];
        output = reader.outputs[0];
        // Integers that are made floats, bounded, and made the same integers again.
        if let Some(back) = next(output).filter(|node| node.op == DEQUANTIZE && scale_of(node) == Some(scale))
            && let Some(inner) = next(back.outputs[0])
            && let Some(found) = bound(inner)
            && let Some(again) =
                next(inner.outputs[0]).filter(|node| node.op == QUANTIZE && scale_of(node) == Some(scale))
        {
            limits = [limits[0].max(quantized(found[0])), limits[1].min(quantized(found[1]))];
            output = again.outputs[0];
        }
    } else if bounds != [f64::NEG_INFINITY, f64::INFINITY] {
        // Floats are asked for: the bound is a node of its own.
        output = node.outputs[0];
    }
    let dtype = grid.map_or(DType::F32, |grid| grid.dtype);
    let mut ends = vec![Arg::Int(x_scale.zero)];
    match grid {
        Some(grid) => {
            ends.push(Arg::Float(f64::from(inverse(grid.scale))));
            ends.extend([grid.zero, limits[0], limits[1]].map(Arg::Int));
        }
        None => ends.extend([Arg::Float(1.0), Arg::Int(0), Arg::Int(-128), Arg::Int(127)]),
    }
    let is_linear = node.op == "aten::linear";
    let (packed, form) = match is_linear {
        true => (filters::linear(graph, &node, &weight)?, Vec::new()),
        false => filters::convolution(graph, &node, x, &weight)?,
    };
    let name = graph.values[node.outputs[0]].name.clone();
    let multiplier = graph.constant(
        &format!("{name} multiplier"),
        DType::F32,
        &[multiplier.len() as i64],
        to_bytes(&multiplier),
    );
    let mut args = vec![arg(packed), arg(multiplier), bias.map_or(Arg::None, arg)];
    args.extend(form);
    args.extend(ends);
    let whole = Node {
        outputs: vec![output],
        ..node.clone()
    };
    let nodes = match is_linear {
        true => {
            graph.values[output].dtype = dtype;
            args.insert(0, arg(x));
            vec![Node {
                op: step::LINEAR.to_string(),
                args,
                ..whole
            }]
        }
        false => around(graph, &whole, x, step::CONV, args, dtype),
    };
    // Whoever made the output before makes nothing now.
    for (other, node) in graph.nodes.iter_mut().enumerate() {
        if other != at && node.outputs.contains(&output) {
            let unread = graph.values.len();
            let value = graph.values[output].clone();
            graph.values.push(value);
            node.outputs
                .iter_mut()
                .filter(|v| **v == output)
                .for_each(|v| *v = unread);
        }
    }
    debug_assert!(graph.values[output].from == From::Node);
    Some(nodes)
}

/// For each value, one of its readers.
fn readers(graph: &Graph) -> std::collections::HashMap<ValueId, usize> {
    let each = graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(at, node)| node.reads().map(move |value| (value, at)));
    each.collect()
}

/// The bounds of a function that is one.
pub fn bound(node: &Node) -> Option<[f64; 2]> {
    let function = activation::of(node)?;
    match function.word {
        "relu" => Some([0.0, f64::INFINITY]),
        "clamp" => Some(function.numbers),
        _ => None,
    }
}
