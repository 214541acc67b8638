//! What lowering hands to the emitter.

use delegraph_ir::{ConstantId, RegionId, ValueId};

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
    /// The graph image that its owner compiled.
    pub image: Vec<u8>,
    /// In order of preference.
    pub candidates: Vec<CompiledCandidate>,
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
}
