//! Layers that PT2E has quantized ahead of time: integers in, integer weights, integers out.
//!
//! What the graph says is `quantize(layer(dequantize(x), dequantize(weight)))`; the step computes the layer's sums exactly in integers. A bound on
//! what comes out (`relu`, `hardtanh`) is a bound on the integers, also where the graph quantizes before it and again behind it by the same scale.

use super::{Target, activation, bytes, floats, is_constant, layout, to_bytes};
use crate::graph::{From, Graph, Node, ValueId, arg, float};
use crate::steps::bytes as step;
use delegraph_cpu_kernels::quant::static8::{self, Conv, inverse};
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// What makes floats of integers by one scale.
pub const DEQUANTIZE: &str = "quantized_decomposed::dequantize_per_tensor";
/// What makes integers of floats by one scale.
pub const QUANTIZE: &str = "quantized_decomposed::quantize_per_tensor";
const DEQUANTIZE_CHANNEL: &str = "quantized_decomposed::dequantize_per_channel";

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

/// Integer weights, and a scale for each output channel.
struct Weight {
    numbers: Vec<i8>,
    scales: Vec<f64>,
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
            "aten::linear" | "aten::conv2d" | "aten::convolution"
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

fn weight(graph: &Graph, target: &Target<'_>, makers: &[Option<usize>], value: ValueId) -> Option<Weight> {
    let node = &graph.nodes[makers[value]?];
    let values = node.value(0)?;
    if !is_constant(graph, values) || graph.values[values].dtype != DType::I8 {
        return None;
    }
    let numbers: Vec<i8> = bytes(graph, target, values)?.iter().map(|b| *b as i8).collect();
    let channels = graph.size(values, 0)? as usize;
    match node.op.as_str() {
        DEQUANTIZE => {
            let scale = scale_of(node)?;
            (scale.zero == 0).then(|| Weight {
                numbers,
                scales: vec![scale.scale; channels],
            })
        }
        DEQUANTIZE_CHANNEL => {
            let (scales, zeros) = (node.value(1)?, node.value(2));
            let zero =
                zeros.is_none_or(|zeros| bytes(graph, target, zeros).is_some_and(|all| all.iter().all(|b| *b == 0)));
            let scales: Vec<f64> = match graph.values[scales].dtype {
                DType::F64 => bytes(graph, target, scales)?
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f64::from_le_bytes(*b))
                    .collect(),
                _ => floats(graph, target, scales)?.into_iter().map(f64::from).collect(),
            };
            (zero && float(node.args.get(3)) == Some(0.0) && scales.len() == channels)
                .then_some(Weight { numbers, scales })
        }
        _ => None,
    }
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
    let weight = weight(graph, target, &makers, node.value(1)?)?;
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
    let made = emit(graph, &node, x, &weight, bias, output)?;
    let Emitted {
        op,
        mut args,
        mut nodes,
        result,
        channels_last,
    } = made;
    let name = graph.values[node.outputs[0]].name.clone();
    let multiplier = graph.constant(
        &format!("{name} multiplier"),
        DType::F32,
        &[multiplier.len() as i64],
        to_bytes(&multiplier),
    );
    args[2] = arg(multiplier);
    args.push(Arg::Int(x_scale.zero));
    match grid {
        Some(grid) => {
            args.push(Arg::Float(f64::from(inverse(grid.scale))));
            args.extend([grid.zero, limits[0], limits[1]].map(Arg::Int));
        }
        None => args.extend([Arg::Float(1.0), Arg::Int(0), Arg::Int(-128), Arg::Int(127)]),
    }
    graph.values[result].dtype = grid.map_or(DType::F32, |grid| grid.dtype);
    nodes.push(Node {
        op: op.to_string(),
        args,
        outputs: vec![result],
        source: node.source,
    });
    if channels_last {
        let order = graph.ints(&layout::FIRST);
        nodes.push(Node {
            op: layout::PERMUTE.to_string(),
            args: vec![arg(result), order],
            outputs: vec![output],
            source: node.source,
        });
    }
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

/// A layer as a step, before its ends are said.
struct Emitted {
    op: &'static str,
    /// The third is the multiplier's place.
    args: Vec<Arg>,
    /// What comes before it.
    nodes: Vec<Node>,
    result: ValueId,
    channels_last: bool,
}

fn emit(
    graph: &mut Graph,
    node: &Node,
    x: ValueId,
    weight: &Weight,
    bias: Option<ValueId>,
    output: ValueId,
) -> Option<Emitted> {
    let sizes = graph.sizes(
        graph
            .nodes
            .iter()
            .find(|n| n.outputs.contains(&node.value(1).unwrap_or(0)))?
            .value(0)?,
    )?;
    let natural = |x: i64| usize::try_from(x).ok();
    let name = graph.values[node.outputs[0]].name.clone();
    let optional = bias.map_or(Arg::None, arg);
    if node.op == "aten::linear" {
        let &[outputs, inputs] = sizes.as_slice() else {
            return None;
        };
        let shape = static8::Shape {
            inputs: natural(inputs)?,
            outputs: natural(outputs)?,
        };
        let mut out = Vec::new();
        static8::pack(shape, &weight.numbers, &mut out);
        let packed = graph.constant(&format!("{name} packed"), DType::U8, &[out.len() as i64], out);
        return Some(Emitted {
            op: step::LINEAR,
            args: vec![arg(x), arg(packed), Arg::None, optional],
            nodes: Vec::new(),
            result: output,
            channels_last: false,
        });
    }
    let &[out_channels, depth, kh, kw] = sizes.as_slice() else {
        return None;
    };
    let list = |at: usize, default: i64| match graph.int_list(node.args.get(at))?[..] {
        [] => Some([default; 2]),
        [a] => Some([a; 2]),
        [a, b] => Some([a, b]),
        _ => None,
    };
    let (stride, padding, dilation) = (list(3, 1)?, list(4, 0)?, list(5, 1)?);
    let groups = match node.op.as_str() {
        "aten::convolution" if !matches!(node.args.get(6), Some(Arg::Bool(false))) => return None,
        "aten::convolution" => float(node.args.get(8))? as i64,
        _ => float(node.args.get(6)).map_or(1, |g| g as i64),
    };
    let channels = graph.size(x, 1)?;
    let pair = |p: [i64; 2]| Some([natural(p[0])?, natural(p[1])?]);
    let conv = Conv {
        batch: 1,
        size: [1, 1],
        channels: [natural(channels)?, natural(out_channels)?],
        kernel: pair([kh, kw])?,
        stride: pair(stride)?,
        before: pair(padding)?,
        after: pair(padding)?,
        dilation: pair(dilation)?,
        groups: natural(groups)?,
    };
    let limits = [conv.kernel, conv.stride, conv.dilation]
        .iter()
        .flatten()
        .all(|x| (1..1 << 12).contains(x))
        && conv.before.iter().all(|p| *p < 1 << 12)
        && groups > 0
        && channels > 0
        && channels == depth * groups
        && out_channels % groups == 0
        && graph.values[x].dims.len() == 4;
    if !limits {
        return None;
    }
    let (o, i, h, w) = (conv.channels[1], natural(depth)?, conv.kernel[0], conv.kernel[1]);
    // Channels last, as the image's.
    let mut turned = Vec::with_capacity(weight.numbers.len());
    for filter in weight.numbers.chunks_exact((i * h * w).max(1)).take(o) {
        for place in 0..h * w {
            turned.extend((0..i).map(|channel| filter[channel * h * w + place]));
        }
    }
    let is_depthwise = groups == channels && groups == out_channels && groups > 1;
    let (method, out) = match is_depthwise {
        true => {
            let by_place = (0..h * w).flat_map(|place| (0..o).map(move |channel| (place, channel)));
            let turned: Vec<i8> = by_place
                .map(|(place, channel)| weight.numbers[channel * h * w + place])
                .collect();
            ("depthwise", static8::pack_depthwise(&conv, &turned))
        }
        false => ("gemm", static8::pack_conv2d(&conv, &turned)),
    };
    let packed = graph.constant(&format!("{name} packed"), DType::U8, &[out.len() as i64], out);
    let mut nodes = Vec::new();
    let x = layout::permuted(graph, &mut nodes, x, &layout::LAST, node.source);
    let dims = graph.values[output].dims.clone();
    let result = graph.value(
        &format!("{name} bytes nhwc"),
        DType::I8,
        vec![dims[0], dims[2], dims[3], dims[1]],
    );
    let mut args = vec![arg(x), arg(packed), Arg::None, optional, Arg::Str(method.to_string())];
    for list in [
        &[kh, kw][..],
        &stride,
        &[padding[0], padding[0], padding[1], padding[1]],
        &dilation,
    ] {
        args.push(graph.ints(list));
    }
    args.push(Arg::Int(groups));
    Some(Emitted {
        op: step::CONV,
        args,
        nodes,
        result,
        channels_last: true,
    })
}
