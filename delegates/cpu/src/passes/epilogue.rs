//! What follows a product or a convolution and can be done before its result is stored: a bias, a residual, a function.

use super::activation::{self, Function};
use super::{Target, is_constant};
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::{conv, dynamic_conv, linear, quantized, transposed};
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// Where a step has its ends.
struct Places {
    bias: usize,
    /// Where there can be one; `residual_last` follows the function's numbers then.
    residual: Option<usize>,
    function: usize,
}

fn places(node: &Node) -> Option<Places> {
    let (bias, residual, function) = match node.op.as_str() {
        linear::NAME => (linear::BIAS, Some(linear::BIAS + 1), linear::FUNCTION),
        conv::NAME => (conv::BIAS, Some(conv::BIAS + 1), conv::FUNCTION),
        transposed::NAME => (transposed::BIAS, None, transposed::FUNCTION),
        dynamic_conv::NAME => (dynamic_conv::BIAS, None, dynamic_conv::FUNCTION),
        quantized::LINEAR => (quantized::BIAS, Some(quantized::BIAS + 1), quantized::FUNCTION),
        quantized::ROWS => (quantized::ROWS_BIAS, None, quantized::ROWS_FUNCTION),
        _ => return None,
    };
    Some(Places {
        bias,
        residual,
        function,
    })
}

/// Joins nodes.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, _: &Target<'_>) -> Result<(), Error> {
    let uses = graph.uses();
    let mut makers = graph.makers();
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        if node.outputs.len() != 1 || places(node).is_some() {
            continue;
        }
        // The one that is made last, where both operands are products: the other is ready by then.
        let mut reads: Vec<(usize, ValueId)> = node.reads().filter_map(|v| Some((makers[v]?, v))).collect();
        reads.sort_unstable();
        let joined = reads.iter().rev().find_map(|(maker, value)| {
            (uses[*value] == 1)
                .then(|| join(graph, *maker, *value, at))
                .flatten()
                .map(|node| (*maker, node))
        });
        let Some((maker, joined)) = joined else { continue };
        graph.nodes[maker].outputs.clear();
        graph.nodes[maker].args.clear();
        makers[joined.outputs[0]] = Some(at);
        graph.nodes[at] = joined;
    }
    graph.nodes.retain(|node| !node.outputs.is_empty());
    Ok(())
}

/// The node that does what the step `maker` and then the node `at` do, which alone reads `value`, the step's output.
fn join(graph: &Graph, maker: usize, value: ValueId, at: usize) -> Option<Node> {
    let (step, node) = (&graph.nodes[maker], &graph.nodes[at]);
    let Places {
        bias,
        residual,
        function,
    } = places(step)?;
    let output = node.outputs[0];
    let same = |a: ValueId| graph.values[a].dims == graph.values[output].dims && graph.values[a].dtype == DType::F32;
    if !same(value) || !same(output) {
        return None;
    }
    let bare = matches!(&step.args[function], Arg::Str(word) if word == Function::NONE.word);
    let has_residual = residual.is_some_and(|at| step.args[at] != Arg::None);
    let mut joined = Node {
        outputs: node.outputs.clone(),
        source: node.source,
        ..step.clone()
    };
    if let Some(found) = activation::of(node) {
        let last = has_residual && joined.args[function + 3] == Arg::Bool(true);
        if !bare || last {
            return None;
        }
        joined.args.splice(function..function + 3, found.args());
        return Some(joined);
    }
    if node.op != "aten::add.Tensor"
        || !matches!(node.args.get(2), None | Some(Arg::None)) && float(node.args.get(2)) != Some(1.0)
    {
        return None;
    }
    let (a, b) = (node.value(0)?, node.value(1)?);
    let other = if a == value { b } else { a };
    if other == value || has_residual {
        return None;
    }
    if same(other) {
        joined.args[residual?] = arg(other);
        joined.args[function + 3] = Arg::Bool(!bare);
        return Some(joined);
    }
    // A row of numbers, one a column.
    let dims = &graph.values[other].dims;
    let columns = graph.values[output].dims.last()?;
    let row = dims
        .last()
        .is_some_and(|d| graph.known(*d).is_some() && graph.known(*d) == graph.known(*columns))
        && dims[..dims.len() - 1].iter().all(|d| graph.known(*d) == Some(1))
        && dims.len() <= graph.values[output].dims.len();
    if bare
        && row
        && joined.args[bias] == Arg::None
        && is_constant(graph, other)
        && graph.values[other].dtype == DType::F32
    {
        joined.args[bias] = arg(other);
        return Some(joined);
    }
    None
}
