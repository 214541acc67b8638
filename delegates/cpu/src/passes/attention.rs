//! Attention as one step, which reads queries, keys and values as projections left them: `[batch, time, heads, depth]`.

use super::Target;
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::attention::NAME;
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// Rewrites nodes.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, _: &Target<'_>) -> Result<(), Error> {
    let mut at = 0;
    while at < graph.nodes.len() {
        if let Some(made) = step(graph, at) {
            let count = made.len();
            graph.nodes.splice(at..=at, made);
            at += count;
        } else {
            at += 1;
        }
    }
    graph.sweep();
    Ok(())
}

/// Whether a node is attention that the step computes.
pub fn is_taken(graph: &Graph, node: &Node) -> bool {
    if node.op != "aten::scaled_dot_product_attention" {
        return false;
    }
    let dims = |at: usize| Some(&graph.values[node.value(at)?].dims[..]);
    let (Some(q), Some(k), Some(v)) = (dims(0), dims(1), dims(2)) else {
        return false;
    };
    let floats = node
        .reads()
        .take(3)
        .chain(node.outputs.iter().copied())
        .all(|v| graph.values[v].dtype == DType::F32);
    if !floats || [q, k, v].iter().any(|dims| dims.len() != 4) {
        return false;
    }
    let output = &graph.values[node.outputs[0]].dims;
    let certain = float(node.args.get(4)).is_none_or(|dropout| dropout == 0.0);
    let grouped = float(node.args.get(7)).is_some_and(|x| x != 0.0);
    let heads = match (graph.known(q[1]), graph.known(k[1])) {
        (Some(q), Some(k)) => k > 0 && (q == k || grouped && q % k == 0),
        _ => q[1] == k[1],
    };
    let same = q[0] == k[0] && k[..3] == v[..3] && q[3] == k[3] && output[..] == [q[0], q[1], q[2], v[3]];
    let mask = match node.value(3) {
        None => true,
        Some(mask) => {
            let value = &graph.values[mask];
            let full = [q[0], q[1], q[2], k[2]];
            let fits = |(have, want): (&delegraph_sdk::image::ExprIndex, &delegraph_sdk::image::ExprIndex)| {
                graph.known(*have) == Some(1) || have == want
            };
            matches!(value.dtype, DType::F32 | DType::BOOL)
                && value.dims.len() <= 4
                && value.dims.iter().rev().zip(full.iter().rev()).all(fits)
        }
    };
    certain && heads && same && mask
}

/// The nodes that do the same as an attention node.
fn step(graph: &mut Graph, at: usize) -> Option<Vec<Node>> {
    let node = graph.nodes[at].clone();
    if !is_taken(graph, &node) {
        return None;
    }
    let makers = graph.makers();
    let given = |at: usize| node.args.get(at).cloned().unwrap_or(Arg::None);
    let (q, k, v) = (node.value(0)?, node.value(1)?, node.value(2)?);
    // Heads that were repeated for queries that share them are read where they are.
    let (k, v) = match (shared(graph, &makers, k), shared(graph, &makers, v)) {
        (Some(of_k), Some(of_v)) if graph.values[of_k].dims[1] == graph.values[of_v].dims[1] => (of_k, of_v),
        _ => (k, v),
    };
    let mut before = Vec::new();
    let mut args = Vec::new();
    let mut layouts = Vec::new();
    for value in [q, k, v] {
        match by_time(graph, &makers, value, &mut before) {
            Some(source) => {
                args.push(arg(source));
                layouts.push("bthd");
            }
            None => {
                args.push(arg(value));
                layouts.push("bhtd");
            }
        }
    }
    args.push(given(3));
    args.push(Arg::Bool(matches!(
        node.args.get(5),
        Some(Arg::Bool(true) | Arg::Int(1))
    )));
    args.push(match float(node.args.get(6)) {
        Some(scale) => Arg::Float(scale),
        None => Arg::None,
    });
    let output = node.outputs[0];
    let dims = graph.values[output].dims.clone();
    let heads_first = layouts.join(" ");
    // Whoever reads the result turns it back most of the time: it is made by time, and seen by heads where somebody wants it so.
    let name = format!("{} by time", graph.values[output].name);
    let by_time = graph.value(&name, DType::F32, vec![dims[0], dims[2], dims[1], dims[3]]);
    args.push(Arg::Str(format!("{heads_first} bthd")));
    let attention = Node {
        op: NAME.to_string(),
        args,
        outputs: vec![by_time],
        source: node.source,
    };
    let order = graph.ints(&[0, 2, 1, 3]);
    let turned = Node {
        op: super::layout::PERMUTE.to_string(),
        args: vec![arg(by_time), order],
        outputs: vec![output],
        source: node.source,
    };
    // Readers that turn it back read it as it is.
    let batch_one = graph.known(dims[0]) == Some(1);
    for at in 0..graph.nodes.len() {
        let reader = &graph.nodes[at];
        if reader.value(0) != Some(output) {
            continue;
        }
        let back = match reader.op.as_str() {
            "aten::transpose.int" => {
                let axes = (float(reader.args.get(1))?, float(reader.args.get(2))?);
                matches!(axes, (1.0, 2.0) | (2.0, 1.0) | (-3.0, -2.0) | (-2.0, -3.0))
            }
            "aten::permute" => match graph.int_list(reader.args.get(1)).as_deref() {
                Some([0, 2, 1, 3]) => true,
                Some([2, 0, 1, 3]) => batch_one,
                _ => false,
            },
            _ => false,
        };
        if back {
            let dims = graph.values[reader.outputs[0]].dims.clone();
            let reader = &mut graph.nodes[at];
            reader.op = "aten::view".to_string();
            reader.args = vec![arg(by_time), Arg::Ints(dims)];
        }
    }
    before.extend([attention, turned]);
    Some(before)
}

/// The value `[batch, shared heads, time, depth]` whose heads a value `[batch, heads, time, depth]` repeats, each for a few in a row.
fn shared(graph: &Graph, makers: &[Option<usize>], value: ValueId) -> Option<ValueId> {
    let made = |value: ValueId, ops: &[&str]| {
        makers[value]
            .map(|m| &graph.nodes[m])
            .filter(|n| ops.contains(&n.op.as_str()))
    };
    let joined = made(
        value,
        &[
            "aten::reshape",
            "aten::view",
            "aten::_unsafe_view",
            "aten::flatten.using_ints",
        ],
    )?;
    let repeated = made(joined.value(0)?, &["aten::expand"]).or_else(|| {
        // Its copy may stand between them.
        let copy = made(joined.value(0)?, &["aten::clone"])?;
        made(copy.value(0)?, &["aten::expand"])
    })?;
    let apart = made(repeated.value(0)?, &["aten::unsqueeze"])?;
    let source = apart.value(0)?;
    let ([b, h, t, d], [_, heads, _, _]) = (&graph.values[source].dims[..], &graph.values[value].dims[..]) else {
        return None;
    };
    let wide = &graph.values[repeated.outputs[0]].dims;
    let fits = wide.len() == 5 && wide[0] == *b && wide[1] == *h && wide[3] == *t && wide[4] == *d;
    let (h, heads) = (graph.known(*h)?, graph.known(*heads)?);
    let same =
        graph.values[value].dims[2] == *t && graph.values[value].dims[3] == *d && graph.values[value].dims[0] == *b;
    (fits && same && h > 0 && heads % h == 0 && graph.known(wide[2]) == Some(heads / h)).then_some(source)
}

/// The value `[batch, time, heads, depth]` that a value `[batch, heads, time, depth]` is, turned.
fn by_time(graph: &mut Graph, makers: &[Option<usize>], value: ValueId, before: &mut Vec<Node>) -> Option<ValueId> {
    let dims = graph.values[value].dims.clone();
    let [batch, heads, time, depth] = dims[..] else {
        return None;
    };
    let maker = &graph.nodes[makers[value]?];
    let source = maker.value(0)?;
    let axes = |node: &Node| Some((float(node.args.get(1))?, float(node.args.get(2))?));
    match maker.op.as_str() {
        "aten::transpose.int" if matches!(axes(maker)?, (1.0, 2.0) | (2.0, 1.0) | (-3.0, -2.0) | (-2.0, -3.0)) => {
            Some(source)
        }
        "aten::permute" if graph.int_list(maker.args.get(1))? == [0, 2, 1, 3] => Some(source),
        // Of one image, heads may have been turned before the batch was seen.
        "aten::view" | "aten::reshape" | "aten::unsqueeze" if graph.known(batch) == Some(1) => {
            let turned = &graph.nodes[makers[source]?];
            let inner = turned.value(0)?;
            let swapped = match turned.op.as_str() {
                "aten::transpose.int" => matches!(axes(turned)?, (0.0, 1.0) | (1.0, 0.0)),
                "aten::permute" => graph.int_list(turned.args.get(1))? == [1, 0, 2],
                _ => false,
            };
            let fits =
                graph.values[inner].dims == [time, heads, depth] && graph.values[source].dims == [heads, time, depth];
            if !swapped || !fits {
                return None;
            }
            let place = turned.source;
            let name = format!("{} by time", graph.values[value].name);
            let dims = vec![batch, time, heads, depth];
            let seen = graph.value(&name, DType::F32, dims.clone());
            before.push(Node {
                op: "aten::view".to_string(),
                args: vec![arg(inner), Arg::Ints(dims)],
                outputs: vec![seen],
                source: place,
            });
            Some(seen)
        }
        _ => None,
    }
}
