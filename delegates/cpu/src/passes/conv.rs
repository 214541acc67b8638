//! Convolutions with constant weights: channels last, with packed weights. What permutes the dimensions around them is left to `layout.rs`.

use super::activation::Function;
use super::{Target, floats, is_constant, to_bytes};
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::conv as step;
use delegraph_cpu_kernels::conv::{self, Shape, depthwise, grouped, winograd};
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};
use std::collections::HashMap;

/// A convolution that a node is.
struct Conv {
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    stride: Vec<i64>,
    padding: Vec<i64>,
    dilation: Vec<i64>,
    groups: i64,
}

/// Rewrites convolutions of one and two dimensions.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let mut packed: HashMap<(ValueId, String), ValueId> = HashMap::new();
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        match convolution(graph, &node).and_then(|conv| rewrite(graph, target, &node, &conv, &mut packed)) {
            Some(made) => graph.nodes.extend(made),
            None => graph.nodes.push(node),
        }
    }
    Ok(())
}

/// The convolution that a node is, if it is one of `f32` with constant weights.
fn convolution(graph: &Graph, node: &Node) -> Option<Conv> {
    let ints = |at: usize| graph.int_list(node.args.get(at));
    let optional = |at: usize| match node.args.get(at) {
        None | Some(Arg::None) => Some(None),
        Some(Arg::Value(value)) => Some(Some(value.0 as usize)),
        _ => None,
    };
    let groups = |at: usize| float(node.args.get(at)).map_or(1, |g| g as i64);
    let (groups, transposed) = match node.op.as_str() {
        "aten::conv2d" | "aten::conv1d" => (groups(6), false),
        "aten::convolution" => (groups(8), !matches!(node.args.get(6), Some(Arg::Bool(false)))),
        _ => return None,
    };
    let conv = Conv {
        x: node.value(0)?,
        weight: node.value(1)?,
        bias: optional(2)?,
        stride: ints(3)?,
        padding: ints(4)?,
        dilation: ints(5)?,
        groups,
    };
    let rank = graph.values[conv.x].dims.len();
    let is_float = |value: ValueId| graph.values[value].dtype == DType::F32;
    let fits = !transposed
        && (rank == 3 || rank == 4)
        && graph.values[conv.weight].dims.len() == rank
        && is_constant(graph, conv.weight)
        && [conv.x, conv.weight, node.outputs[0]].into_iter().all(is_float)
        && conv
            .bias
            .is_none_or(|bias| is_float(bias) && graph.values[bias].dims.len() == 1);
    fits.then_some(conv)
}

/// Both numbers of a list of one or two; of one dimension, the second.
pub(super) fn pair(list: &[i64], rank: usize, default: i64) -> Option<[i64; 2]> {
    match (list, rank) {
        ([], _) => Some([default; 2]),
        ([a], 4) => Some([*a; 2]),
        ([a, b], 4) => Some([*a, *b]),
        ([a], 3) => Some([default, *a]),
        _ => None,
    }
}

/// The nodes that do the same.
fn rewrite(
    graph: &mut Graph,
    target: &Target<'_>,
    node: &Node,
    conv: &Conv,
    packed: &mut HashMap<(ValueId, String), ValueId>,
) -> Option<Vec<Node>> {
    let rank = graph.values[conv.x].dims.len();
    let weight_sizes = graph.sizes(conv.weight)?;
    let natural = |x: i64| usize::try_from(x).ok();
    let (kh, kw) = if rank == 4 {
        (weight_sizes[2], weight_sizes[3])
    } else {
        (1, weight_sizes[2])
    };
    let [stride, padding, dilation] = [
        pair(&conv.stride, rank, 1)?,
        pair(&conv.padding, rank, 0)?,
        pair(&conv.dilation, rank, 1)?,
    ];
    let channels = graph.size(conv.x, 1)?;
    let shape = Shape {
        batch: 1,
        // Sizes that are not known yet count as large ones: they only say which method is worth it.
        height: if rank == 4 {
            graph.size(conv.x, 2).and_then(natural).unwrap_or(64)
        } else {
            1
        },
        width: graph.size(conv.x, rank - 1).and_then(natural).unwrap_or(64),
        channels: natural(channels)?,
        out_channels: natural(weight_sizes[0])?,
        kernel: [natural(kh)?, natural(kw)?],
        stride: [natural(stride[0])?, natural(stride[1])?],
        padding: [[natural(padding[0])?; 2], [natural(padding[1])?; 2]],
        dilation: [natural(dilation[0])?, natural(dilation[1])?],
        groups: natural(conv.groups)?,
    };
    let limits = [shape.kernel, shape.stride, shape.dilation]
        .iter()
        .flatten()
        .all(|x| (1..1 << 12).contains(x))
        && shape.padding.iter().flatten().all(|p| *p < 1 << 12)
        && shape.groups > 0
        && shape.channels > 0
        && shape.channels.is_multiple_of(shape.groups)
        && shape.out_channels.is_multiple_of(shape.groups)
        && weight_sizes[1] as usize == shape.channels / shape.groups;
    if !limits {
        return None;
    }
    let method = match shape.groups {
        groups if groups == shape.channels && groups == shape.out_channels && groups > 1 => "depthwise",
        _ if grouped::fits(&shape, target.packing.lanes) => "grouped",
        _ if target.winograd && winograd::worth(&shape) => "winograd",
        _ => "gemm",
    };
    let width = match method {
        "grouped" => target.packing.lanes,
        _ => target.packing.panel,
    };
    let key = (conv.weight, format!("{method} {}", shape.groups));
    let weight = match packed.get(&key) {
        Some(known) => *known,
        None => {
            let numbers = floats(graph, target, conv.weight)?;
            let (depth, kh, kw) = (shape.channels / shape.groups, shape.kernel[0], shape.kernel[1]);
            let source = |o: usize, i: usize, y: usize, x: usize| numbers[((o * depth + i) * kh + y) * kw + x];
            let out = match method {
                "depthwise" => {
                    let mut out = vec![0.0f32; depthwise::packed_len(&shape)];
                    depthwise::pack(&shape, |c, y, x| source(c, 0, y, x), &mut out);
                    out
                }
                "grouped" => {
                    let mut out = vec![0.0f32; grouped::packed_len(&shape, width)];
                    grouped::pack(&shape, width, source, &mut out);
                    out
                }
                "winograd" => {
                    let mut out = vec![0.0f32; winograd::packed_len(&shape, width)];
                    winograd::pack(&shape, width, source, &mut out);
                    out
                }
                _ => {
                    let mut out = vec![0.0f32; conv::packed_len(&shape, width)];
                    conv::pack(&shape, width, source, &mut out);
                    out
                }
            };
            let name = format!("{} packed", graph.values[conv.weight].name);
            let made = graph.constant(&name, DType::F32, &[out.len() as i64], to_bytes(&out));
            packed.insert(key, made);
            made
        }
    };
    let mut args = vec![arg(weight), conv.bias.map_or(Arg::None, arg), Arg::None];
    args.extend([Arg::Str(method.to_string()), Arg::Str("nhwc".to_string())]);
    args.push(graph.ints(&[kh, kw]));
    args.push(graph.ints(&stride));
    args.push(graph.ints(&[padding[0], padding[0], padding[1], padding[1]]));
    args.push(graph.ints(&dilation));
    args.extend([Arg::Int(conv.groups), Arg::Int(width as i64)]);
    args.extend(Function::NONE.args());
    args.push(Arg::Bool(false));
    Some(around(graph, node, conv.x, step::NAME, args, DType::F32))
}

/// The nodes that do a step on images with channels last in place of a node on `x`, which has channels first. One dimension is an image of one row.
/// `args` are the step's behind the image; its result is of `dtype`.
pub(super) fn around(
    graph: &mut Graph,
    node: &Node,
    x: ValueId,
    step: &str,
    args: Vec<Arg>,
    dtype: DType,
) -> Vec<Node> {
    let mut made = Vec::new();
    let name = graph.values[node.outputs[0]].name.clone();
    let new = |op: &str, args: Vec<Arg>, output: ValueId| Node {
        op: op.to_string(),
        args,
        outputs: vec![output],
        source: node.source,
    };
    let is_row = graph.values[x].dims.len() == 3;
    let one = graph.int(1);
    let (mut input, mut dims) = (x, graph.values[node.outputs[0]].dims.clone());
    if is_row {
        let [n, c, length] = graph.values[x].dims[..] else {
            return made;
        };
        let from = graph.values[x].dtype;
        input = graph.value(&format!("{name} image"), from, vec![n, c, one, length]);
        made.push(new("aten::unsqueeze", vec![arg(x), Arg::Int(2)], input));
        dims.insert(2, one);
    }
    let x = super::layout::permuted(graph, &mut made, input, &super::layout::LAST, node.source);
    let output = graph.value(&format!("{name} nhwc"), dtype, vec![dims[0], dims[2], dims[3], dims[1]]);
    let args = std::iter::once(arg(x)).chain(args).collect();
    made.push(new(step, args, output));
    let result = node.outputs[0];
    if is_row {
        let image = super::layout::permuted(graph, &mut made, output, &super::layout::FIRST, node.source);
        let row = graph.ints(&[2]);
        made.push(new("aten::squeeze.dims", vec![arg(image), row], result));
    } else {
        let order = graph.ints(&super::layout::FIRST);
        made.push(new(super::layout::PERMUTE, vec![arg(output), order], result));
    }
    made
}
