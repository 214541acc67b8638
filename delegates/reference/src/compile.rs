//! A graph becomes a blob: the image itself.
//!
//! There is nothing to translate: the evaluator reads the image. Weights are left with the host and taken by id at load, so
//! that the blob and the fallback share one copy of them.

use crate::caps;
use delegraph_sdk::image::{ImageView, Kind, NodeIndex};
use delegraph_sdk::{Compiled, Error, Section};

/// The section that holds the image.
pub const SECTION: &str = "image";

/// Checks the graph once more, and stores it.
///
/// # Errors
/// The first node that is not taken: a delegate may be asked to compile what it was not asked about.
pub fn compile(graph: &ImageView<'_>) -> Result<Compiled, Error> {
    check(graph)?;
    Ok(Compiled {
        sections: vec![Section {
            name: SECTION.to_string(),
            align: 8,
            bytes: graph.bytes().to_vec(),
        }],
        ..Compiled::default()
    })
}

/// The operator of every node.
///
/// # Errors
/// A node that is not taken, or an input or output that is no tensor.
pub fn check(graph: &ImageView<'_>) -> Result<Vec<&'static caps::Operator>, Error> {
    for value in graph.inputs().iter().chain(graph.outputs().iter()) {
        if !matches!(graph.value(value).kind(), Kind::Tensor(_)) {
            let name = graph.value(value).name();
            return Err(Error::unsupported(format!("`{name}` is a number, not a tensor")));
        }
    }
    let accept = |index| {
        let node = graph.node(NodeIndex(index));
        caps::accept(&node).map_err(|refusal| Error::unsupported(refusal.text).at(node.index()))
    };
    (0..graph.node_count()).map(accept).collect()
}
