//! The delegation overlay: which ranges of a portable plan delegates can take over, and their blobs.
//!
//! It lies in `named_data` under [`OVERLAY_KEY`] as JSON, the graph's IR under [`IR_KEY`], blobs under the keys that the
//! overlay names. A newer writer may add fields that a reader may pass over; what may not be passed over is under another key.
//! ExecuTorch reads `named_data` only by key, so it runs the portable plan and never looks.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Key of the overlay in `named_data`.
pub const OVERLAY_KEY: &str = "delegraph.overlay.v0";
/// Key of the serialized IR in `named_data`.
pub const IR_KEY: &str = "delegraph.ir.v0";

/// The overlay of a program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// One entry a method that has regions.
    pub methods: Vec<MethodOverlay>,
}

/// The regions of one method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MethodOverlay {
    /// Plan name.
    pub method: String,
    /// Sorted by `start`; ranges do not overlap.
    pub regions: Vec<Region>,
}

/// A contiguous range of a plan's instructions that a delegate can take over as one atomic step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// First instruction.
    pub start: u32,
    /// One past the last instruction.
    pub end: u32,
    /// Tensor values (indices into the plan's values) that the delegate reads, in the order of the blob's inputs.
    pub inputs: Vec<u32>,
    /// Tensor values that it writes, in the order of the blob's outputs.
    pub outputs: Vec<u32>,
    /// For each input, then each output: bytes from the tensor's first byte on that no other value takes while this one is alive, where
    /// that is more than the tensor's largest size; 0: nothing beyond it. A list that ends earlier says 0 for the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<u64>,
    /// Operators of the region as the delegate saw them, with counts; for reports and `fallback = "deny"`.
    pub operators: Vec<(String, u32)>,
    /// In the order of preference at compile time.
    pub candidates: Vec<Candidate>,
}

/// A delegate's way to run a region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Backend id, for example `vulkan`.
    pub backend: String,
    /// What it was compiled for; empty: anything.
    pub target: String,
    /// Lower precision that the blob computes in (`f16`, `int8`); empty: that of the graph.
    pub precision: String,
    /// Key in `named_data` of the blob with its envelope.
    pub blob: String,
    /// Weights that the delegate takes from the host by id: (id in the graph image, constant buffer index in the program).
    pub weights: Vec<(u32, u32)>,
}
