//! What lowering hands to the emitter.

use crate::Bucket;
use delegraph_ir::{ConstantId, RegionId, ValueId};

/// A node of a graph image, as a program's author knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageNode {
    /// Its name in the graph.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// The line of the exporting program; empty: not known.
    pub source: String,
}

/// A region with its compiled candidates. The graph's nodes of this region carry the same [`RegionId`].
#[derive(Debug, Clone)]
pub struct CompiledRegion {
    /// The tag of its nodes.
    pub id: RegionId,
    /// Tensors that it reads, in the order of the blobs' inputs. Constants are not among them.
    pub inputs: Vec<ValueId>,
    /// Tensors that it makes and others read, in the order of the blobs' outputs.
    pub outputs: Vec<ValueId>,
    /// Operators as the delegates saw them, with counts, most frequent first.
    pub operators: Vec<(String, u32)>,
    /// The graph image that its owner compiled; with buckets, that of the first.
    pub image: Vec<u8>,
    /// The graph images of the other buckets.
    pub more_images: Vec<Vec<u8>>,
    /// In order of preference; of one backend, in the order of the buckets.
    pub candidates: Vec<CompiledCandidate>,
    /// The file may be written without the weights that it reads, but for those that its candidates take from the host: its delegates can
    /// do it then, and the portable kernels cannot.
    pub leaves_weights: bool,
}

/// A blob for a region.
#[derive(Debug, Clone)]
pub struct CompiledCandidate {
    /// Backend id.
    pub backend: String,
    /// What it was compiled for; empty: anything.
    pub target: String,
    /// Lower precision that it computes in; empty: that of the graph.
    pub precision: String,
    /// The blob with its envelope.
    pub blob: Vec<u8>,
    /// Weights that it takes from the host: (id in the graph image, constant).
    pub weights: Vec<(u32, ConstantId)>,
    /// The nodes of the image that it was compiled from, in order: what a node's number in a profile means.
    pub nodes: Vec<ImageNode>,
    /// The sizes that it was compiled for; `None`: the full range of the program.
    pub bucket: Option<CompiledBucket>,
}

/// Sizes that a blob was compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledBucket {
    /// Of the program's symbols.
    pub bucket: Bucket,
    /// The largest sizes of each output.
    pub outputs: Vec<Vec<i64>>,
}

/// The nodes of an image, in order.
pub(crate) fn nodes_of(image: &[u8]) -> Vec<ImageNode> {
    // The image was written here; if it were damaged after all, the blob would not exist, and profiles lose no more than names.
    let Ok(view) = delegraph_abi::image::verify(image) else {
        return Vec::new();
    };
    let node = |node: delegraph_abi::image::NodeView<'_>| ImageNode {
        name: node.name().to_string(),
        operator: node.op().to_string(),
        source: node.debug().to_string(),
    };
    view.nodes().map(node).collect()
}
