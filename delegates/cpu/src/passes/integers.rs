//! Between layers on integers: what the graph computes in floats between a dequantization and a quantization becomes a step from bytes to bytes.
//!
//! Sums and products of two tensors, functions of one, and means over pixels become steps. What only moves elements, between two of the same scale,
//! moves bytes. A quantization of what has that very scale already is nothing.

use super::bytes::{DEQUANTIZE, QUANTIZE, Scale, bound, scale_of};
use super::{Target, activation, layout};
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::{integers as step, pooling, resize};
use crate::view;
use delegraph_cpu_kernels::Activation;
use delegraph_cpu_kernels::quant::static8::{self, FEW, Grid, inverse};
use delegraph_sdk::image::{Arg, ExprIndex};
use delegraph_sdk::{DType, Error};

/// Rewrites what is between layers. Layouts are settled: a permutation is where it stays.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, _: &Target<'_>) -> Result<(), Error> {
    moved(graph);
    graph.sweep();
    let (makers, uses) = (graph.makers(), graph.uses());
    for at in 0..graph.nodes.len() {
        if let Some(node) = made(graph, &makers, &uses, at) {
            graph.nodes[at] = node;
        }
    }
    graph.sweep();
    turned(graph);
    graph.sweep();
    Ok(())
}

/// The bytes that a value is the floats of, and their scale.
fn bytes_of(graph: &Graph, makers: &[Option<usize>], value: ValueId) -> Option<(ValueId, Scale)> {
    let node = &graph.nodes[makers[value]?];
    let scale = scale_of(node).filter(|_| node.op == DEQUANTIZE)?;
    let x = node.value(0)?;
    let (least, most) = range(scale.dtype);
    let fits = graph.values[x].dtype == scale.dtype
        && graph.values[value].dtype == DType::F32
        && (least..=most).contains(&scale.zero);
    fits.then_some((x, scale))
}

fn range(dtype: DType) -> (i64, i64) {
    if dtype == DType::U8 { (0, 255) } else { (-128, 127) }
}

/// The scale of a node that makes bytes of floats.
fn quantized(graph: &Graph, node: &Node) -> Option<Scale> {
    let scale = scale_of(node).filter(|_| node.op == QUANTIZE)?;
    let (least, most) = range(scale.dtype);
    let fits = graph.values[node.outputs[0]].dtype == scale.dtype
        && graph.values[node.value(0)?].dtype == DType::F32
        && least <= scale.low
        && scale.low <= scale.high
        && scale.high <= most
        && scale.zero.unsigned_abs() < 1 << 20;
    fits.then_some(scale)
}

/// Moves bytes in place of floats, and takes out quantizations of what has that scale.
fn moved(graph: &mut Graph) {
    let mut makers = graph.makers();
    // Nodes that come before others, by these.
    let mut before: Vec<(usize, Vec<Node>)> = Vec::new();
    for at in 0..graph.nodes.len() {
        let Some(scale) = quantized(graph, &graph.nodes[at]) else {
            continue;
        };
        // Limits that are narrower than the bytes would do something.
        if (scale.low, scale.high) != range(scale.dtype) {
            continue;
        }
        let Some(value) = graph.nodes[at].value(0) else {
            continue;
        };
        let output = graph.nodes[at].outputs[0];
        if let Some((x, own)) = bytes_of(graph, &makers, value)
            && own == scale
        {
            for node in &mut graph.nodes {
                node.replace(output, x);
            }
            // An output of the region keeps its own name: a copy is what is left.
            if graph.outputs.contains(&output) {
                continue;
            }
            makers[output] = makers[x];
            continue;
        }
        let Some(maker) = makers[value] else { continue };
        if let Some(mut made) = on_bytes(graph, &makers, maker, scale, output)
            && let Some(node) = made.pop()
        {
            graph.nodes[at] = node;
            before.push((at, made));
        }
    }
    for (at, made) in before.into_iter().rev() {
        graph.nodes.splice(at..at, made);
    }
}

/// Whether a node gives numbers that it reads, and would give the same ones of bytes of one scale.
fn moves(node: &Node) -> bool {
    let word = |words: &[&str]| matches!(node.args.get(1), Some(Arg::Str(word)) if words.contains(&word.as_str()));
    match node.op.as_str() {
        layout::PERMUTE | "aten::cat" => true,
        pooling::NAME => word(&["max"]),
        resize::NAME => word(&["nearest", "nearest_exact"]),
        op => view::is_same(op),
    }
}

/// The nodes that move bytes in place of the floats that `maker` moves; the last gives `output`. Bytes of another scale go through a table: one tensor
/// behind the move, which may be smaller then, several before it.
fn on_bytes(
    graph: &mut Graph,
    makers: &[Option<usize>],
    maker: usize,
    scale: Scale,
    output: ValueId,
) -> Option<Vec<Node>> {
    let node = graph.nodes[maker].clone();
    if !moves(&node) || node.outputs.len() != 1 {
        return None;
    }
    let reads: Vec<ValueId> = node.reads().collect();
    let (mut moved, mut made, mut from) = (node.clone(), Vec::new(), Vec::new());
    for value in &reads {
        from.push(source_of(graph, makers, *value, &mut made)?);
    }
    let mut behind = None;
    for (value, (x, own)) in reads.iter().zip(from) {
        let mut x = x;
        if own != scale && reads.len() == 1 {
            behind = Some(own);
        } else if own != scale {
            let name = format!("{} bytes", graph.values[*value].name);
            let to = graph.value(&name, scale.dtype, graph.values[*value].dims.clone());
            made.push(mapped(graph, &node, x, own, scale, to));
            x = to;
        }
        moved.replace(*value, x);
    }
    moved.outputs = vec![output];
    if let Some(own) = behind {
        let dims = graph.values[output].dims.clone();
        let name = format!("{} moved", graph.values[output].name);
        let middle = graph.value(&name, own.dtype, dims);
        moved.outputs = vec![middle];
        made.push(moved);
        moved = mapped(graph, &node, middle, own, scale, output);
    }
    made.push(moved);
    Some(made)
}

/// The bytes that a value is the floats of, and their scale. Where it is moved from such floats, nodes that move bytes are added to `made`.
fn source_of(
    graph: &mut Graph,
    makers: &[Option<usize>],
    value: ValueId,
    made: &mut Vec<Node>,
) -> Option<(ValueId, Scale)> {
    if let Some(found) = bytes_of(graph, makers, value) {
        return Some(found);
    }
    let node = graph.nodes[(*makers.get(value)?)?].clone();
    if !moves(&node) || node.outputs.len() != 1 {
        return None;
    }
    let (mut moved, mut common) = (node.clone(), None);
    for read in node.reads() {
        let (x, scale) = source_of(graph, makers, read, made)?;
        if *common.get_or_insert(scale) != scale {
            return None;
        }
        moved.replace(read, x);
    }
    let scale = common?;
    let name = format!("{} bytes", graph.values[value].name);
    let to = graph.value(&name, scale.dtype, graph.values[value].dims.clone());
    moved.outputs = vec![to];
    made.push(moved);
    Some((to, scale))
}

/// The node that gives bytes of another scale.
fn mapped(graph: &mut Graph, node: &Node, x: ValueId, from: Scale, to: Scale, output: ValueId) -> Node {
    let table = table(graph, Activation::None, from, to, output);
    Node {
        op: step::MAP.to_string(),
        args: vec![arg(x), arg(table)],
        outputs: vec![output],
        source: node.source,
    }
}

/// The bytes of a function of each byte, as a constant.
fn table(graph: &mut Graph, function: Activation, from: Scale, to: Scale, output: ValueId) -> ValueId {
    let grid = Grid {
        inverse: inverse(to.scale),
        zero: to.zero as i32,
        low: to.low as i32,
        high: to.high as i32,
    };
    let signed = from.dtype == DType::I8;
    let bytes = static8::table(function, signed, from.zero as i32, from.scale as f32, &grid);
    let name = format!("{} table", graph.values[output].name);
    graph.constant(&name, DType::U8, &[256], bytes.to_vec())
}

/// The step in place of a quantization and what it reads.
fn made(graph: &mut Graph, makers: &[Option<usize>], uses: &[u32], at: usize) -> Option<Node> {
    let node = graph.nodes[at].clone();
    let scale = quantized(graph, &node)?;
    let value = node.value(0)?;
    let mut limits = [scale.low, scale.high];
    let own = |op: &str, mut args: Vec<Arg>, limits: [i64; 2]| {
        args.push(Arg::Float(f64::from(inverse(scale.scale))));
        args.extend([scale.zero, limits[0], limits[1]].map(Arg::Int));
        Node {
            op: op.to_string(),
            args,
            ..node.clone()
        }
    };
    let plain = own(step::QUANTIZE, vec![arg(value), Arg::Bool(false)], limits);
    let Some(mut maker) = makers[value].filter(|_| uses[value] == 1) else {
        return Some(plain);
    };
    // A bound before the quantization is a bound on integers.
    if let Some(bounds) = bound(&graph.nodes[maker])
        && let Some(inner) = graph.nodes[maker].value(0)
        && uses[inner] == 1
        && let Some(before) = makers[inner]
        && pair_of(&graph.nodes[before]).is_some()
    {
        let low = limits[0].max(scale.quantized(bounds[0]));
        limits = [low, limits[1].min(scale.quantized(bounds[1])).max(low)];
        maker = before;
    }
    let source = graph.nodes[maker].clone();
    if let Some(function) = pair_of(&source) {
        let (a, b) = (source.value(0)?, source.value(1)?);
        let operands = bytes_of(graph, makers, a).zip(bytes_of(graph, makers, b));
        let Some(((mut x, mut own_x), (mut y, mut own_y))) = operands else {
            return Some(plain);
        };
        let alike = |a: &[ExprIndex], b: &[ExprIndex]| {
            let pairs = a.iter().zip(b);
            let known = |(a, b): (&ExprIndex, &ExprIndex)| {
                a == b || graph.known(*a).is_some_and(|a| graph.known(*b) == Some(a))
            };
            a.len() == b.len() && pairs.into_iter().all(known)
        };
        let is_pixel = |a: ValueId, b: ValueId| {
            let (a, b) = (&graph.values[a].dims, &graph.values[b].dims);
            let ones = |dims: &[ExprIndex]| dims.iter().all(|dim| graph.known(*dim) == Some(1));
            a.len() == 4 && b.len() == 4 && alike(&a[..1], &b[..1]) && alike(&a[3..], &b[3..]) && ones(&b[1..3])
        };
        let same = alike(&graph.values[x].dims, &graph.values[y].dims);
        // One pixel for all of an image goes second.
        if !same && !is_pixel(x, y) {
            if function == "sub" || !is_pixel(y, x) {
                return Some(plain);
            }
            ((x, own_x), (y, own_y)) = ((y, own_y), (x, own_x));
        }
        let args = vec![
            arg(x),
            arg(y),
            Arg::Str(function.to_string()),
            Arg::Float(own_x.scale),
            Arg::Int(own_x.zero),
            Arg::Float(own_y.scale),
            Arg::Int(own_y.zero),
        ];
        return Some(own(step::PAIR, args, limits));
    }
    if let Some(function) = activation::of(&source)
        && let Some((x, own_x)) = bytes_of(graph, makers, source.value(0)?)
        && let Some(function) =
            crate::steps::function(function.word, function.numbers[0] as f32, function.numbers[1] as f32)
    {
        let table = table(graph, function, own_x, scale, node.outputs[0]);
        return Some(Node {
            op: step::MAP.to_string(),
            args: vec![arg(x), arg(table)],
            ..node
        });
    }
    if source.op == pooling::NAME
        && matches!(source.args.get(1), Some(Arg::Str(reduce)) if reduce != "max")
        && let Some((x, own_x)) = bytes_of(graph, makers, source.value(0)?)
    {
        let mut args = source.args.clone();
        args[0] = arg(x);
        args.extend([Arg::Float(own_x.scale), Arg::Int(own_x.zero)]);
        return Some(own(pooling::BYTES, args, limits));
    }
    if source.op == "aten::mean.dim"
        && let Some((x, own_x)) = bytes_of(graph, makers, source.value(0)?)
        && let Some(sizes) = graph.sizes(x)
        && sizes.len() == 4
        && graph.int_list(source.args.get(1)).as_deref() == Some(&[1, 2])
        && (1..1 << 22).contains(&sizes[1].saturating_mul(sizes[2]))
    {
        let factor = (own_x.scale / (sizes[1] * sizes[2]) as f64) as f32;
        let args = vec![arg(x), Arg::Float(f64::from(factor)), Arg::Int(own_x.zero)];
        return Some(own(step::MEAN, args, limits));
    }
    Some(plain)
}

/// The word of a function of two tensors.
fn pair_of(node: &Node) -> Option<&'static str> {
    let whole = matches!(node.args.get(2), None | Some(Arg::None)) || float(node.args.get(2)) == Some(1.0);
    let two = node.value(0).is_some() && node.value(1).is_some() && whole;
    match node.op.as_str() {
        "aten::add.Tensor" if two => Some("add"),
        "aten::sub.Tensor" if two => Some("sub"),
        "aten::mul.Tensor" if two => Some("mul"),
        _ => None,
    }
}

/// Images of a few channels are made bytes and turned in one.
fn turned(graph: &mut Graph) {
    let (makers, uses) = (graph.makers(), graph.uses());
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        if node.op != layout::PERMUTE || graph.int_list(node.args.get(1)).as_deref() != Some(&layout::LAST) {
            continue;
        }
        let Some(value) = node.value(0) else { continue };
        let few = graph.size(value, 1).is_some_and(|c| (1..=FEW as i64).contains(&c));
        let Some(maker) = makers[value].filter(|maker| {
            let node = &graph.nodes[*maker];
            few && uses[value] == 1 && node.op == step::QUANTIZE && node.args.get(1) == Some(&Arg::Bool(false))
        }) else {
            continue;
        };
        let mut args = graph.nodes[maker].args.clone();
        args[1] = Arg::Bool(true);
        let node = &mut graph.nodes[at];
        (node.op, node.args) = (step::QUANTIZE.to_string(), args);
    }
}
