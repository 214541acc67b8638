//! What rewrites a region. Each pass leaves a graph that computes the same; what it makes of nodes are steps of the delegate's own.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod bytes;
pub mod channels;
pub mod constants;
pub mod conv;
pub mod dynamic;
pub mod dynamic_conv;
pub mod elementwise;
pub mod epilogue;
pub mod filters;
pub mod halves;
mod images;
pub mod integers;
pub mod layout;
pub mod linear;
pub mod matrix;
pub mod norm;
pub mod quantized;
pub mod recurrent;
pub mod states;
pub mod transposed;

use crate::family::Packing;
use crate::graph::{From, Graph, Node, ValueId};
use delegraph_sdk::{DType, Error, Weights};
use half::{bf16, f16};
use std::borrow::Cow;

/// What passes know besides the graph.
pub struct Target<'a> {
    /// The host's weights.
    pub weights: &'a Weights<'a>,
    /// What weights are packed by. Every machine reads every packing.
    pub packing: Packing,
    /// Sessions keep states.
    pub states: bool,
    /// Convolutions of 3 by 3 may be computed by fewer products, with a larger error.
    pub winograd: bool,
}

/// Rewrites a graph. Says whether layers compute on integers, whose sums are exact where the graph rounds.
///
/// # Errors
/// A weight that is not there.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<bool, Error> {
    halves::run(graph, target)?;
    let integers = bytes::run(graph, target)?;
    dynamic_conv::run(graph, target)?;
    quantized::run(graph, target)?;
    constants::run(graph, target)?;
    recurrent::run(graph, target)?;
    attention::run(graph, target)?;
    transposed::run(graph, target)?;
    batch_norm::run(graph, target)?;
    linear::run(graph, target)?;
    conv::run(graph, target)?;
    layout::run(graph, target)?;
    integers::run(graph, target)?;
    channels::join(graph);
    norm::run(graph, target)?;
    epilogue::run(graph, target)?;
    elementwise::run(graph, target)?;
    states::run(graph, target)?;
    graph.sweep();
    Ok(integers)
}

/// For each node, whether it is one that a pass makes a step of, whether it has a kernel or not.
pub fn taken(graph: &Graph) -> Vec<bool> {
    let inner = quantized::taken(graph);
    let is_taken = |node: &Node| {
        recurrent::is_taken(graph, node)
            || attention::is_taken(graph, node)
            || norm::is_taken(graph, node)
            || linear::is_taken(graph, node)
    };
    graph
        .nodes
        .iter()
        .zip(inner)
        .map(|(node, inner)| inner || is_taken(node))
        .collect()
}

/// The bytes of a constant.
pub fn bytes<'a>(graph: &'a Graph, target: &'a Target<'_>, value: ValueId) -> Option<Cow<'a, [u8]>> {
    match graph.values[value].from {
        From::Host(id) => target.weights.bytes(id).ok().map(Cow::Borrowed),
        From::Packed(at) => Some(Cow::Borrowed(&graph.packed[at])),
        _ => None,
    }
}

/// The numbers of a constant of a float type, as `f32`.
pub fn floats(graph: &Graph, target: &Target<'_>, value: ValueId) -> Option<Vec<f32>> {
    let bytes = bytes(graph, target, value)?;
    Some(match graph.values[value].dtype {
        DType::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        DType::F16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f16::from_le_bytes(*b).to_f32())
            .collect(),
        DType::BF16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| bf16::from_le_bytes(*b).to_f32())
            .collect(),
        _ => return None,
    })
}

/// Whether a value is a constant.
pub fn is_constant(graph: &Graph, value: ValueId) -> bool {
    matches!(graph.values[value].from, From::Host(_) | From::Packed(_))
}

/// Numbers as bytes.
pub fn to_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}
