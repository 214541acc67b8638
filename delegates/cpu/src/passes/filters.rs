//! Weights of layers on bytes, packed: integers with a scale for each output, without zero points.

use super::bytes::{DEQUANTIZE, scale_of};
use super::conv::pair;
use super::{Target, bytes, floats, is_constant};
use crate::graph::{Graph, Node, ValueId, float};
use delegraph_cpu_kernels::quant::static8::{self, Conv};
use delegraph_sdk::DType;
use delegraph_sdk::image::Arg;

const DEQUANTIZE_CHANNEL: &str = "quantized_decomposed::dequantize_per_channel";

/// Integer weights, and a scale for each output channel.
pub struct Weight {
    /// `[outputs, channels of a group, height, width]`, without what a layer has not.
    numbers: Vec<i8>,
    /// One an output.
    pub scales: Vec<f64>,
    sizes: Vec<i64>,
}

/// The integer weights that a value is the floats of.
pub fn of(graph: &Graph, target: &Target<'_>, makers: &[Option<usize>], value: ValueId) -> Option<Weight> {
    let node = &graph.nodes[makers[value]?];
    let values = node.value(0)?;
    if !is_constant(graph, values) || graph.values[values].dtype != DType::I8 {
        return None;
    }
    let numbers: Vec<i8> = bytes(graph, target, values)?.iter().map(|b| *b as i8).collect();
    let sizes = graph.sizes(values)?;
    let channels = *sizes.first()? as usize;
    match node.op.as_str() {
        DEQUANTIZE => {
            let scale = scale_of(node)?;
            (scale.zero == 0).then(|| Weight {
                numbers,
                scales: vec![scale.scale; channels],
                sizes,
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
            (zero && float(node.args.get(3)) == Some(0.0) && scales.len() == channels).then_some(Weight {
                numbers,
                scales,
                sizes,
            })
        }
        _ => None,
    }
}

/// The packed matrix of a linear layer.
pub fn linear(graph: &mut Graph, node: &Node, weight: &Weight) -> Option<ValueId> {
    let &[outputs, inputs] = weight.sizes.as_slice() else {
        return None;
    };
    let shape = static8::Shape {
        inputs: usize::try_from(inputs).ok()?,
        outputs: usize::try_from(outputs).ok()?,
    };
    let mut out = Vec::new();
    static8::pack(shape, &weight.numbers, &mut out);
    Some(constant(graph, node, out))
}

fn constant(graph: &mut Graph, node: &Node, packed: Vec<u8>) -> ValueId {
    let name = format!("{} packed", graph.values[node.outputs[0]].name);
    graph.constant(&name, DType::U8, &[packed.len() as i64], packed)
}

/// The packed filters of a convolution of one or two dimensions of `x`, and what steps want to know of it: method, kernel, stride, padding, dilation,
/// groups.
pub fn convolution(graph: &mut Graph, node: &Node, x: ValueId, weight: &Weight) -> Option<(ValueId, Vec<Arg>)> {
    let rank = graph.values[x].dims.len();
    let (out_channels, depth, kh, kw) = match weight.sizes[..] {
        [outputs, depth, kh, kw] if rank == 4 => (outputs, depth, kh, kw),
        [outputs, depth, kw] if rank == 3 => (outputs, depth, 1, kw),
        _ => return None,
    };
    let list = |at: usize, default: i64| pair(&graph.int_list(node.args.get(at))?, rank, default);
    let (stride, padding, dilation) = (list(3, 1)?, list(4, 0)?, list(5, 1)?);
    let groups = match node.op.as_str() {
        "aten::convolution" if !matches!(node.args.get(6), Some(Arg::Bool(false))) => return None,
        "aten::convolution" => float(node.args.get(8))? as i64,
        _ => float(node.args.get(6)).map_or(1, |g| g as i64),
    };
    let channels = graph.size(x, 1)?;
    let natural = |x: i64| usize::try_from(x).ok();
    let two = |p: [i64; 2]| Some([natural(p[0])?, natural(p[1])?]);
    let conv = Conv {
        batch: 1,
        size: [1, 1],
        channels: [natural(channels)?, natural(out_channels)?],
        kernel: two([kh, kw])?,
        stride: two(stride)?,
        before: two(padding)?,
        after: two(padding)?,
        dilation: two(dilation)?,
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
        && out_channels % groups == 0;
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
    let packed = constant(graph, node, out);
    let mut form = vec![Arg::Str(method.to_string())];
    for list in [
        &[kh, kw][..],
        &stride,
        &[padding[0], padding[0], padding[1], padding[1]],
        &dilation,
    ] {
        form.push(graph.ints(list));
    }
    form.push(Arg::Int(groups));
    Some((packed, form))
}
