//! A region becomes a blob.

use crate::caps;
use crate::encoder::Encoder;
use crate::facts::Facts;
use delegraph_sdk::image::{ImageView, Kind, NodeIndex, Sizes};
use delegraph_sdk::{Compiled, Context, Error, Section};

/// The section that holds the graph image.
pub const IMAGE: &str = "image";

/// Compiles a graph, for any device.
///
/// # Errors
/// A node that is not taken, or an input or output that is no tensor.
pub fn compile(graph: &ImageView<'_>, _: &Context<'_>) -> Result<Compiled, Error> {
    for value in graph.inputs().iter().chain(graph.outputs().iter()) {
        if !matches!(graph.value(value).kind(), Kind::Tensor(_)) {
            let name = graph.value(value).name();
            return Err(Error::unsupported(format!("`{name}` is a number, not a tensor")));
        }
    }
    for index in 0..graph.node_count() {
        let node = graph.node(NodeIndex(index));
        caps::accept(&node).map_err(|refusal| Error::unsupported(refusal.text).at(node.index()))?;
    }
    // Where all sizes are known, the region is lowered once: what cannot be is refused now.
    let sizes = Sizes::new(graph);
    if graph.values().all(|value| sizes.dims(graph, value.index()).is_some()) {
        let mut facts = Facts::weakest();
        facts.limits.storage_range = u64::MAX;
        Encoder::encode(*graph, &sizes, &facts)?;
    }
    Ok(Compiled {
        sections: vec![Section {
            name: IMAGE.to_string(),
            align: 8,
            bytes: graph.bytes().to_vec(),
        }],
        ..Compiled::default()
    })
}
