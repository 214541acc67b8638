//! Normalisation and softmax in one step.

use super::Target;
use crate::graph::{Graph, Node, float};
use crate::steps::norm::{GROUP_NORM, NORM, SOFTMAX};
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// Rewrites nodes.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, _: &Target<'_>) -> Result<(), Error> {
    let uses = graph.uses();
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let single = node.outputs.iter().skip(1).all(|output| uses[*output] == 0);
        let floats = node
            .reads()
            .chain(node.outputs.first().copied())
            .all(|v| graph.values[v].dtype == DType::F32);
        if !single || !floats {
            continue;
        }
        let Some((op, args)) = step(graph, node) else { continue };
        let node = &mut graph.nodes[at];
        (node.op, node.args) = (op.to_string(), args);
        node.outputs.truncate(1);
    }
    root_mean_squares(graph);
    Ok(())
}

/// Whether a node is one of them, whose first result alone is read.
pub fn is_taken(graph: &Graph, node: &Node) -> bool {
    let floats = node
        .reads()
        .chain(node.outputs.first().copied())
        .all(|v| graph.values[v].dtype == DType::F32);
    node.outputs.len() == 1 && floats && step(graph, node).is_some()
}

/// Finds `x * rsqrt(mean(x * x) + epsilon)`, and the weight that it may be multiplied with.
fn root_mean_squares(graph: &mut Graph) {
    let makers = graph.makers();
    for at in 0..graph.nodes.len() {
        if graph.nodes[at].op != "aten::mul.Tensor" {
            continue;
        }
        if let Some(args) = root_mean_square(graph, &makers, at) {
            let node = &mut graph.nodes[at];
            (node.op, node.args) = (NORM.to_string(), args);
        }
    }
    // The weight is multiplied with what the step made, if nobody else reads that.
    let uses = graph.uses();
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        if node.op != "aten::mul.Tensor" {
            continue;
        }
        let (Some(a), Some(b)) = (node.value(0), node.value(1)) else {
            continue;
        };
        for (normal, weight) in [(a, b), (b, a)] {
            let Some(maker) = makers[normal] else { continue };
            let step = &graph.nodes[maker];
            let fresh = step.op == NORM && step.args[1] == Arg::None && step.args[2] == Arg::None;
            let row = graph.values[weight].dims.len() == 1
                && graph.values[weight].dtype == DType::F32
                && Some(&Arg::Int(graph.size(weight, 0).unwrap_or(-1))) == step.args.get(3);
            // The weight has to be there where the step is.
            let early = makers[weight].is_none();
            if fresh
                && row
                && early
                && uses[normal] == 1
                && graph.values[node.outputs[0]].dims == graph.values[normal].dims
            {
                let output = graph.nodes[at].outputs[0];
                graph.nodes[maker].args[1] = crate::graph::arg(weight);
                graph.nodes[maker].outputs = vec![output];
                graph.nodes[at].outputs.clear();
                break;
            }
        }
    }
    graph.nodes.retain(|node| !node.outputs.is_empty());
}

fn root_mean_square(graph: &Graph, makers: &[Option<usize>], at: usize) -> Option<Vec<Arg>> {
    let node = &graph.nodes[at];
    let made = |value: usize, op: &str| makers[value].map(|m| &graph.nodes[m]).filter(|n| n.op == op);
    let (a, b) = (node.value(0)?, node.value(1)?);
    let (x, root) = match (made(a, "aten::rsqrt"), made(b, "aten::rsqrt")) {
        (_, Some(root)) => (a, root),
        (Some(root), _) => (b, root),
        _ => return None,
    };
    let sum =
        made(root.value(0)?, "aten::add.Tensor").or_else(|| made(root.value(0).unwrap_or(0), "aten::add.Scalar"))?;
    let epsilon = float(sum.args.get(1))?;
    let mean = made(sum.value(0)?, "aten::mean.dim")?;
    let rank = graph.values[x].dims.len() as i64;
    let dims = graph.int_list(mean.args.get(1))?;
    let keep = matches!(mean.args.get(2), Some(Arg::Bool(true) | Arg::Int(1)));
    let square = makers[mean.value(0)?].map(|m| &graph.nodes[m])?;
    let of_x = match square.op.as_str() {
        "aten::pow.Tensor_Scalar" => square.value(0) == Some(x) && float(square.args.get(1)) == Some(2.0),
        "aten::mul.Tensor" => square.value(0) == Some(x) && square.value(1) == Some(x),
        _ => false,
    };
    let last = matches!(dims[..], [dim] if dim == -1 || dim == rank - 1);
    let columns = graph.size(x, rank as usize - 1)?;
    let floats = graph.values[x].dtype == DType::F32 && graph.values[node.outputs[0]].dtype == DType::F32;
    (of_x && last && keep && floats && columns > 0).then(|| {
        vec![
            crate::graph::arg(x),
            Arg::None,
            Arg::None,
            Arg::Int(columns),
            Arg::Bool(true),
            Arg::Float(epsilon),
        ]
    })
}

fn step(graph: &Graph, node: &Node) -> Option<(&'static str, Vec<Arg>)> {
    let x = node.value(0)?;
    let rank = graph.values[x].dims.len();
    let given = |at: usize| node.args.get(at).cloned().unwrap_or(Arg::None);
    let rows = |weight: usize, bias: Option<usize>, squares: bool, epsilon: f64| {
        let columns = graph
            .int_list(node.args.get(1))?
            .iter()
            .try_fold(1i64, |count, size| count.checked_mul(*size))?;
        // Weights have the sizes of a row.
        let args = vec![
            given(0),
            given(weight),
            bias.map_or(Arg::None, given),
            Arg::Int(columns),
            Arg::Bool(squares),
            Arg::Float(epsilon),
        ];
        (columns > 0).then_some((NORM, args))
    };
    let last = |log: bool| {
        let dim = float(node.args.get(1))? as i64;
        let dtype = matches!(
            node.args.get(2),
            None | Some(Arg::None | Arg::Bool(false) | Arg::DType(DType::F32))
        );
        (dtype && rank > 0 && (dim == -1 || dim == rank as i64 - 1)).then(|| (SOFTMAX, vec![given(0), Arg::Bool(log)]))
    };
    match node.op.as_str() {
        "aten::layer_norm" | "aten::native_layer_norm" => {
            rows(2, Some(3), false, float(node.args.get(4)).unwrap_or(1e-5))
        }
        "aten::rms_norm" => rows(
            2,
            None,
            true,
            float(node.args.get(3)).unwrap_or(f64::from(f32::EPSILON)),
        ),
        "aten::group_norm" if rank >= 2 => {
            let epsilon = float(node.args.get(4)).unwrap_or(1e-5);
            let args = vec![
                given(0),
                given(2),
                given(3),
                given(1),
                Arg::Float(epsilon),
                Arg::Str("nchw".to_string()),
            ];
            Some((GROUP_NORM, args))
        }
        "aten::softmax.int" | "aten::_softmax" => last(false),
        "aten::log_softmax.int" | "aten::_log_softmax" => last(true),
        _ => None,
    }
}
