//! Regions to blobs: takes each tagged region out of the graph, writes its graph image, and has delegates compile it.
//!
//! A region that a delegate refuses to compile is tagged again without the node that it names. This crate knows the host
//! and the graph, and nothing of `.pte` files.

mod region;

pub use region::{CompiledCandidate, CompiledRegion};
