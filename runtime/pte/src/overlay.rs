//! The delegation overlay: which ranges of a portable plan delegates can take over, and their blobs.
//!
//! It lies in `named_data` under [`OVERLAY_KEY`] as JSON, the graph's IR under [`IR_KEY`], blobs under the keys that the
//! overlay names. A newer writer may add fields that a reader may pass over; what may not be passed over is under another key.
//! ExecuTorch reads `named_data` only by key, so it runs the portable plan and never looks.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Key of the overlay in `named_data`.
pub const OVERLAY_KEY: &str = "delegraph.overlay.v0";
/// What keys in `named_data` of sections that several blobs have begin with; the SHA-256 of the section follows, in hexadecimal digits.
pub const SECTION_KEY: &str = "delegraph.section.";
/// Key of the serialized IR in `named_data`.
pub const IR_KEY: &str = "delegraph.ir.v0";

/// The key of a section that several blobs have, by its SHA-256.
pub fn section_key(hash: &[u8; 32]) -> String {
    hash.iter()
        .fold(String::from(SECTION_KEY), |key, byte| key + &format!("{byte:02x}"))
}

/// The overlay of a program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// One entry a method that has regions.
    pub methods: Vec<MethodOverlay>,
    /// Names of the tensors without data (`EXTERNAL`) that the file was written without on purpose: only instructions of regions read them,
    /// whose delegates have what they need of them. Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// The regions of one method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MethodOverlay {
    /// Plan name.
    pub method: String,
    /// Sorted by `start`; ranges do not overlap.
    pub regions: Vec<Region>,
    /// Sizes that blobs were compiled for in place of the full range, in order of preference. Whoever does not know them passes over the
    /// blobs for them, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<Bucket>,
    /// Where the method's inputs tell the symbols that the buckets name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<SymbolPlace>,
}

/// Sizes that blobs were compiled for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// One a symbol.
    pub sizes: Vec<BucketSize>,
}

/// The sizes of a symbol, both ends included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketSize {
    /// Index in [`MethodOverlay::symbols`].
    pub symbol: u32,
    /// Smallest.
    pub min: i64,
    /// Largest.
    pub max: i64,
}

/// A dynamic size, and which dimension of which input tells it: `size = factor * symbol + offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SymbolPlace {
    /// Its name.
    pub name: String,
    /// Position among the method's inputs.
    pub input: u32,
    /// Dimension of that input.
    pub dimension: u32,
    /// Never 0.
    pub factor: i64,
    /// What is added.
    pub offset: i64,
}

impl SymbolPlace {
    /// The symbol's value where the dimension has this size; `None`: no value makes it.
    pub fn value(&self, size: i64) -> Option<i64> {
        let part = size.checked_sub(self.offset)?;
        (part.checked_rem(self.factor)? == 0).then(|| part / self.factor)
    }
}

impl MethodOverlay {
    /// A bucket in words: `s77=1, s78=16..128`.
    pub fn bucket_name(&self, bucket: u32) -> String {
        let sizes = self
            .buckets
            .get(bucket as usize)
            .map_or(&[][..], |bucket| &bucket.sizes);
        let mut name = String::new();
        for size in sizes {
            let symbol = self.symbols.get(size.symbol as usize).map_or("?", |place| &place.name);
            let comma = if name.is_empty() { "" } else { ", " };
            name += &match size.min == size.max {
                true => format!("{comma}{symbol}={}", size.min),
                false => format!("{comma}{symbol}={}..{}", size.min, size.max),
            };
        }
        name
    }
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
    /// Those that run sizes of a bucket alone; of one backend, in the order of the buckets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bucketed: Vec<BucketedCandidate>,
}

/// A delegate's way to run a region with the sizes of a bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketedCandidate {
    /// Index in [`MethodOverlay::buckets`].
    pub bucket: u32,
    /// Largest sizes of each output there, in the order of the region's outputs.
    pub outputs: Vec<Vec<i64>>,
    /// The blob.
    pub candidate: Candidate,
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
