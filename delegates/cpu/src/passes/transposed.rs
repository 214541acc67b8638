//! Transposed convolutions with constant weights. Those of stride 1 are ordinary ones by the kernel turned around; the others are a step, channels last.

use super::activation::Function;
use super::conv::{around, pair};
use super::{Target, floats, is_constant, to_bytes};
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::transposed as step;
use delegraph_cpu_kernels::conv::Transposed;
use delegraph_cpu_kernels::conv::transposed as kernel;
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// A transposed convolution that a node is.
struct Conv {
    x: ValueId,
    /// Its weight is `[channels, out_channels / groups, height, width]`.
    weight: ValueId,
    bias: Option<ValueId>,
    /// What is added to the output's sizes.
    added: [i64; 2],
    shape: Transposed,
}

/// Rewrites transposed convolutions of one and two dimensions.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        let made = convolution(graph, &node)
            .and_then(|conv| turned(graph, target, &node, &conv).or_else(|| spread(graph, target, &node, &conv)));
        match made {
            Some(made) => graph.nodes.extend(made),
            None => graph.nodes.push(node),
        }
    }
    Ok(())
}

/// The transposed convolution that a node is, if it is one of `f32` with constant weights.
fn convolution(graph: &Graph, node: &Node) -> Option<Conv> {
    if node.op != "aten::convolution" || !matches!(node.args.get(6), Some(Arg::Bool(true) | Arg::Int(1))) {
        return None;
    }
    let (x, weight) = (node.value(0)?, node.value(1)?);
    let bias = match node.args.get(2) {
        None | Some(Arg::None) => None,
        Some(Arg::Value(value)) => Some(value.0 as usize),
        _ => return None,
    };
    let rank = graph.values[x].dims.len();
    let is_float = |value: ValueId| graph.values[value].dtype == DType::F32;
    let row = |bias: ValueId| is_float(bias) && graph.values[bias].dims.len() == 1;
    let fits = (rank == 3 || rank == 4)
        && graph.values[weight].dims.len() == rank
        && is_constant(graph, weight)
        && [x, weight, node.outputs[0]].into_iter().all(is_float)
        && bias.is_none_or(row);
    if !fits {
        return None;
    }
    let list = |at: usize, default: i64| pair(&graph.int_list(node.args.get(at))?, rank, default);
    let (stride, padding, dilation, added) = (list(3, 1)?, list(4, 0)?, list(5, 1)?, list(7, 0)?);
    let groups = float(node.args.get(8))? as i64;
    let sizes = graph.sizes(weight)?;
    let (kh, kw) = if rank == 4 { (sizes[2], sizes[3]) } else { (1, sizes[2]) };
    let within = |numbers: [i64; 2], least: i64| numbers.iter().all(|x| (least..1 << 12).contains(x));
    let fits = [[kh, kw], stride, dilation]
        .into_iter()
        .all(|numbers| within(numbers, 1))
        && [padding, added].into_iter().all(|numbers| within(numbers, 0))
        && groups > 0
        && sizes[0] > 0
        && sizes[0] % groups == 0
        && sizes[1] > 0
        && graph.size(x, 1) == Some(sizes[0]);
    let natural = |numbers: [i64; 2]| numbers.map(|x| x as usize);
    fits.then(|| Conv {
        x,
        weight,
        bias,
        added,
        shape: Transposed {
            batch: 1,
            height: 1,
            width: 1,
            channels: sizes[0] as usize,
            out_channels: (sizes[1] * groups) as usize,
            kernel: natural([kh, kw]),
            stride: natural(stride),
            padding: natural(padding),
            output: [1; 2],
            dilation: natural(dilation),
            groups: groups as usize,
        },
    })
}

/// An ordinary convolution that does the same, where the stride is 1.
fn turned(graph: &mut Graph, target: &Target<'_>, node: &Node, conv: &Conv) -> Option<Vec<Node>> {
    let shape = &conv.shape;
    if shape.stride != [1; 2] || conv.added != [0; 2] {
        return None;
    }
    let border = |which: usize| {
        let reach = (shape.kernel[which] - 1) * shape.dilation[which];
        reach.checked_sub(shape.padding[which]).map(|border| border as i64)
    };
    let border = [border(0)?, border(1)?];
    let numbers = floats(graph, target, conv.weight)?;
    let [kh, kw] = shape.kernel;
    let (depth, n) = (shape.channels / shape.groups, shape.out_channels / shape.groups);
    let mut out = Vec::with_capacity(numbers.len());
    for channel in 0..shape.out_channels {
        for from in 0..depth {
            let filter = (channel / n * depth + from) * n + channel % n;
            out.extend(numbers[filter * kh * kw..][..kh * kw].iter().rev());
        }
    }
    let rank = graph.values[conv.weight].dims.len();
    let mut sizes = vec![shape.out_channels as i64, depth as i64];
    sizes.extend(&graph.sizes(conv.weight)?[2..]);
    let name = format!("{} turned", graph.values[conv.weight].name);
    let weight = graph.constant(&name, DType::F32, &sizes, to_bytes(&out));
    let mut made = node.clone();
    made.args[1] = arg(weight);
    made.args[4] = graph.ints(&border[4 - rank..]);
    made.args[6] = Arg::Bool(false);
    Some(vec![made])
}

/// The step.
fn spread(graph: &mut Graph, target: &Target<'_>, node: &Node, conv: &Conv) -> Option<Vec<Node>> {
    let (shape, width) = (&conv.shape, target.packing.panel);
    let numbers = floats(graph, target, conv.weight)?;
    let ([kh, kw], n) = (shape.kernel, shape.out_channels / shape.groups);
    let source = |channel: usize, out: usize, y: usize, x: usize| numbers[((channel * n + out) * kh + y) * kw + x];
    let mut out = vec![0.0f32; kernel::packed_len(shape, width)];
    kernel::pack(shape, width, source, &mut out);
    let name = format!("{} packed", graph.values[conv.weight].name);
    let weight = graph.constant(&name, DType::F32, &[out.len() as i64], to_bytes(&out));
    let mut args = vec![arg(weight), conv.bias.map_or(Arg::None, arg)];
    for list in [shape.kernel, shape.stride, shape.padding, shape.dilation] {
        args.push(graph.ints(&list.map(|x| x as i64)));
    }
    args.extend([Arg::Int(shape.groups as i64), Arg::Int(width as i64)]);
    args.extend(Function::NONE.args());
    Some(around(graph, node, conv.x, step::NAME, args, DType::F32))
}
