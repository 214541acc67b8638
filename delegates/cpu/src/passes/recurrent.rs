//! LSTMs and GRUs, a step a layer and direction, before anybody unrolls them.

use super::{Target, floats, is_constant, to_bytes};
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::recurrent::NAME;
use delegraph_cpu_kernels::recurrent::{Cell, pack};
use delegraph_sdk::image::{Arg, ValueIndex};
use delegraph_sdk::{DType, Error};

/// A network that a node is.
struct Net {
    cell: Cell,
    x: ValueId,
    states: Vec<ValueId>,
    params: Vec<ValueId>,
    biases: bool,
    layers: usize,
    directions: usize,
    batch_first: bool,
    hidden: i64,
}

/// Rewrites nodes.
///
/// # Errors
/// A weight that is not there.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        match net(graph, &node).and_then(|net| rewrite(graph, target, &node, &net)) {
            Some(made) => graph.nodes.extend(made),
            None => graph.nodes.push(node),
        }
    }
    Ok(())
}

/// Whether a node is a network that steps compute.
pub fn is_taken(graph: &Graph, node: &Node) -> bool {
    net(graph, node).is_some()
}

fn net(graph: &Graph, node: &Node) -> Option<Net> {
    let cell = match node.op.as_str() {
        "aten::lstm.input" => Cell::Lstm,
        "aten::gru.input" => Cell::Gru,
        _ => return None,
    };
    let list = |at: usize| match node.args.get(at) {
        Some(Arg::Values(list)) => Some(list.iter().map(|v| v.0 as usize).collect::<Vec<_>>()),
        Some(Arg::Value(value)) => Some(vec![value.0 as usize]),
        _ => None,
    };
    let flag = |at: usize| float(node.args.get(at)).is_some_and(|x| x != 0.0);
    let (states, params) = (list(1)?, list(2)?);
    let net = Net {
        cell,
        x: node.value(0)?,
        hidden: graph.size(*states.first()?, 2)?,
        states,
        params,
        biases: flag(3),
        layers: float(node.args.get(4))? as usize,
        directions: if flag(7) { 2 } else { 1 },
        batch_first: flag(8),
    };
    let each = if net.biases { 4 } else { 2 };
    let random = flag(6) && float(node.args.get(5)) != Some(0.0);
    let dims = |value: ValueId| graph.values[value].dims.len();
    let all_floats = node
        .reads()
        .chain(node.outputs.iter().copied())
        .all(|v| graph.values[v].dtype == DType::F32);
    let fits = all_floats
        && !random
        && dims(net.x) == 3
        && net.states.len() == if cell == Cell::Lstm { 2 } else { 1 }
        && net
            .states
            .iter()
            .all(|state| dims(*state) == 3 && graph.size(*state, 2) == Some(net.hidden))
        && net.layers > 0
        && net.params.len() == net.layers * net.directions * each
        && net
            .params
            .iter()
            .all(|param| is_constant(graph, *param) && graph.sizes(*param).is_some())
        && graph.size(net.x, 2).is_some();
    if !fits {
        return None;
    }
    // Projections have other sizes.
    let gates = cell.gates() as i64 * net.hidden;
    for (unit, params) in net.params.chunks(each).enumerate() {
        let inputs = match unit / net.directions {
            0 => graph.size(net.x, 2)?,
            _ => net.hidden * net.directions as i64,
        };
        let sizes: Vec<Vec<i64>> = params.iter().filter_map(|param| graph.sizes(*param)).collect();
        let want = [vec![gates, inputs], vec![gates, net.hidden], vec![gates], vec![gates]];
        if sizes[..] != want[..each] {
            return None;
        }
    }
    Some(net)
}

fn rewrite(graph: &mut Graph, target: &Target<'_>, node: &Node, net: &Net) -> Option<Vec<Node>> {
    let name = graph.values[node.outputs[0]].name.clone();
    let each = if net.biases { 4 } else { 2 };
    let mut made = Vec::new();
    let new = |op: &str, args: Vec<Arg>, outputs: Vec<ValueId>| Node {
        op: op.to_string(),
        args,
        outputs,
        source: node.source,
    };
    let (one, hidden) = (graph.int(1), graph.int(net.hidden));
    let batch = graph.values[net.states[0]].dims[1];
    let units = net.layers * net.directions;
    let mut x = net.x;
    let mut lasts: [Vec<ValueId>; 2] = [Vec::new(), Vec::new()];
    for layer in 0..net.layers {
        let mut sides = Vec::new();
        for direction in 0..net.directions {
            let unit = layer * net.directions + direction;
            let params = &net.params[unit * each..(unit + 1) * each];
            let numbers: Vec<Vec<f32>> = params
                .iter()
                .map(|param| floats(graph, target, *param))
                .collect::<Option<_>>()?;
            let inputs = graph.size(x, 2)? as usize;
            let bias = |at: usize| numbers.get(at).map(Vec::as_slice);
            let packed = pack(
                net.cell,
                inputs,
                net.hidden as usize,
                &numbers[0],
                &numbers[1],
                bias(2),
                bias(3),
            );
            let packed = graph.constant(
                &format!("{name} packed {unit}"),
                DType::F32,
                &[packed.len() as i64],
                to_bytes(&packed),
            );
            let mut firsts = Vec::new();
            for state in &net.states {
                if units == 1 {
                    firsts.push(*state);
                    continue;
                }
                let first = graph.value(&format!("{name} state {unit}"), DType::F32, vec![one, batch, hidden]);
                let at = unit as i64;
                let args = vec![arg(*state), Arg::Int(0), Arg::Int(at), Arg::Int(at + 1), Arg::Int(1)];
                made.push(new("aten::slice.Tensor", args, vec![first]));
                firsts.push(first);
            }
            let mut dims = graph.values[x].dims.clone();
            dims[2] = hidden;
            let side = graph.value(&format!("{name} {unit}"), DType::F32, dims);
            let mut outputs = vec![side];
            for last in lasts.iter_mut().take(net.states.len()) {
                let value = graph.value(&format!("{name} last {unit}"), DType::F32, vec![one, batch, hidden]);
                last.push(value);
                outputs.push(value);
            }
            let word = if net.cell == Cell::Lstm { "lstm" } else { "gru" };
            let mut args = vec![
                arg(x),
                arg(firsts[0]),
                arg(packed),
                firsts.get(1).map_or(Arg::None, |c| arg(*c)),
            ];
            args.extend([Arg::Str(word.to_string()), Arg::Int(net.hidden)]);
            args.extend([Arg::Bool(net.batch_first), Arg::Bool(direction == 1)]);
            made.push(new(NAME, args, outputs));
            sides.push(side);
        }
        x = match sides[..] {
            [one] => one,
            _ => {
                let mut dims = graph.values[sides[0]].dims.clone();
                dims[2] = graph.int(net.hidden * 2);
                let both = graph.value(&format!("{name} both {layer}"), DType::F32, dims);
                let list = sides.iter().map(|v| ValueIndex(*v as u32)).collect();
                made.push(new("aten::cat", vec![Arg::Values(list), Arg::Int(2)], vec![both]));
                both
            }
        };
    }
    // The results under the names that others read.
    let dims = graph.values[node.outputs[0]].dims.clone();
    made.push(new("aten::view", vec![arg(x), Arg::Ints(dims)], vec![node.outputs[0]]));
    for (last, output) in lasts.iter().zip(node.outputs.iter().skip(1)) {
        match last[..] {
            [one] => {
                let dims = graph.values[*output].dims.clone();
                made.push(new("aten::view", vec![arg(one), Arg::Ints(dims)], vec![*output]));
            }
            _ => {
                let list = last.iter().map(|v| ValueIndex(*v as u32)).collect();
                made.push(new("aten::cat", vec![Arg::Values(list), Arg::Int(0)], vec![*output]));
            }
        }
    }
    Some(made)
}
