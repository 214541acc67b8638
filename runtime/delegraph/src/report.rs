//! What ran where, and why.

use crate::{CacheReport, MemoryReport};
use serde::Serialize;
use std::collections::BTreeMap;

/// A region of the program and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegionState {
    /// First instruction.
    pub start: u32,
    /// One past the last.
    pub end: u32,
    /// Nodes, as the delegate saw them.
    pub nodes: u64,
    /// Operators with counts.
    pub operators: Vec<(String, u32)>,
    /// The backend that it is bound to.
    pub backend: Option<String>,
    /// Why other candidates are not, or no longer.
    pub refusals: Vec<(String, String)>,
    /// Times the delegate ran it.
    pub delegated_runs: u64,
    /// Times it ran portably.
    pub portable_runs: u64,
    /// What the self-check found; `None`: it is off, or the delegate did not run the region yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_check: Option<String>,
    /// Where the delegate's libraries are: `in process`, `worker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// The lower precision that the bound blob declares, such as `f16`; empty: that of the graph.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub precision: String,
    /// Buffers that the delegate keeps on its side between runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_states: Vec<String>,
    /// Bytes of them that were copied to the delegate and back, in all runs: a steady run copies none.
    #[serde(skip_serializing_if = "is_zero")]
    pub kept_state_bytes: u64,
    /// Tensors that were copied because they did not lie where the delegate needs them, in all runs.
    pub copied_tensors: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// The sizes that it was compiled for, where it was not for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<BucketState>,
    /// Of `portable_runs`, those of other sizes.
    #[serde(skip_serializing_if = "is_zero")]
    pub other_sizes: u64,
    /// Memories of the app's that the delegate uses in place.
    #[serde(skip_serializing_if = "is_zero")]
    pub shared_memories: u64,
}

/// Sizes that a region was compiled for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketState {
    /// In words: `s77=1, s78=16..128`.
    pub sizes: String,
    /// Times the delegate ran them.
    pub runs: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The report of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Every region of the method.
    pub regions: Vec<RegionState>,
    /// Kernel calls outside regions, and nodes of regions that run portably.
    pub portable_nodes: u64,
    /// Why a program that holds nothing for the configuration's backends was not partitioned for them, and runs as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_partitioned: Option<String>,
    /// Backends of the configuration that its `[[device]]` rules deny here, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<(String, String)>,
    /// What delegates failed at when the model was partitioned for them at load, which is more than that they did not support
    /// something; the nodes run otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<(String, String)>,
    /// What the load had of the cache of compiled blobs; `None`: it had none, or had nothing to compile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheReport>,
    /// What became of inputs and outputs in memory of the app's; `None`: there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryReport>,
}

impl RunReport {
    /// Nodes of regions that a delegate runs.
    pub fn delegated_nodes(&self) -> u64 {
        self.regions
            .iter()
            .filter(|r| r.backend.is_some() && r.portable_runs == 0)
            .map(|r| r.nodes)
            .sum()
    }

    /// Regions that ran portably.
    pub fn fallbacks(&self) -> u64 {
        self.regions
            .iter()
            .filter(|r| r.backend.is_none() || r.portable_runs > 0)
            .count() as u64
    }

    /// `reference ran 120 nodes in 3 regions, portable kernels 62`
    pub fn ran(&self) -> String {
        let mut by_backend: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for region in self.regions.iter().filter(|r| r.portable_runs == 0) {
            if let Some(backend) = &region.backend {
                let slot = by_backend.entry(backend).or_default();
                slot.0 += region.nodes;
                slot.1 += 1;
            }
        }
        let mut parts: Vec<String> = by_backend
            .iter()
            .map(|(backend, (nodes, regions))| {
                format!(
                    "{backend} ran {nodes} nodes in {regions} region{}",
                    if *regions == 1 { "" } else { "s" }
                )
            })
            .collect();
        parts.push(format!("portable kernels {}", self.portable_nodes));
        parts.join(", ")
    }

    /// What each region's tensors cost in copies, because they did not lie as its delegate requires: a line for each that had any.
    pub fn copies(&self) -> Vec<String> {
        let copied = self.regions.iter().filter(|region| region.copied_tensors > 0);
        copied
            .map(|region| {
                format!(
                    "{} in instructions {}..{}: {} tensors ({} bytes) copied in {} runs",
                    region.backend.as_deref().unwrap_or("nobody"),
                    region.start,
                    region.end,
                    region.copied_tensors,
                    region.copied_bytes,
                    region.delegated_runs
                )
            })
            .collect()
    }

    /// What delegates keep between runs: a line for each region that has any.
    pub fn kept(&self) -> Vec<String> {
        let kept = self.regions.iter().filter(|region| !region.kept_states.is_empty());
        kept.map(|region| {
            format!(
                "{} in instructions {}..{} keeps `{}`: {} bytes of it moved in {} runs",
                region.backend.as_deref().unwrap_or("nobody"),
                region.start,
                region.end,
                region.kept_states.join("`, `"),
                region.kept_state_bytes,
                region.delegated_runs + region.portable_runs
            )
        })
        .collect()
    }

    /// What regions were compiled for sizes of their own, and what ran: a line for each.
    pub fn sizes(&self) -> Vec<String> {
        let sized = self.regions.iter().filter(|region| !region.buckets.is_empty());
        sized
            .map(|region| {
                let runs = region
                    .buckets
                    .iter()
                    .map(|bucket| format!("{} ran {}x", bucket.sizes, bucket.runs));
                format!(
                    "{} in instructions {}..{}: {}; other sizes {}x, portably",
                    region.backend.as_deref().unwrap_or("nobody"),
                    region.start,
                    region.end,
                    runs.collect::<Vec<_>>().join(", "),
                    region.other_sizes
                )
            })
            .collect()
    }

    /// Why regions ran portably, or that none did.
    pub fn why_portable(&self) -> String {
        let fallen: Vec<&RegionState> = self
            .regions
            .iter()
            .filter(|r| r.backend.is_none() || r.portable_runs > 0)
            .collect();
        if fallen.is_empty() {
            if let Some(reason) = &self.not_partitioned {
                return format!("the program runs as it is: {reason}");
            }
            if self.regions.is_empty() && !self.denied.is_empty() {
                let denied = self
                    .denied
                    .iter()
                    .map(|(backend, reason)| format!("{backend}: {reason}"));
                return denied.collect::<Vec<_>>().join("; ");
            }
            return "no region fell back".to_string();
        }
        let nodes: u64 = fallen.iter().map(|r| r.nodes).sum();
        let mut reasons: Vec<String> = fallen
            .iter()
            .flat_map(|r| &r.refusals)
            .map(|(backend, reason)| format!("{backend}: {reason}"))
            .collect();
        reasons.sort();
        reasons.dedup();
        format!(
            "{} of {} regions ({nodes} nodes) ran portably: {}",
            fallen.len(),
            self.regions.len(),
            reasons.join("; ")
        )
    }
}
