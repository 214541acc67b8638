//! Regions to blobs: takes each tagged region out of the graph, writes its graph image, and has delegates compile it.
//!
//! [`lower()`] runs the whole loop. Delegates are asked about the graph with its composite operators whole; what nobody takes
//! whole is decomposed one step and asked about again, until nothing changes; then regions are made and compiled. A region
//! that a delegate refuses to compile is tagged again without the node that it names, or that is found by compiling parts. A delegate whose manifest asks for passes
//! sees a view of the graph: what it says about a node of the view holds for all nodes that are folded into it. This crate
//! knows the host and the graph, and nothing of `.pte` files.

mod backend;
mod bucket;
mod claims;
mod compile;
mod culprit;
pub mod image;
mod lower;
mod region;
mod report;
mod states;
mod view;
mod wants;

pub use backend::{Backend, Hear};
pub use bucket::{Bucket, told_by_inputs};
pub use claims::{ClaimsBackend, Operators};
pub use lower::{LowerError, LowerOptions, Progress, Slot, lower, lower_with};
pub use region::{CompiledBucket, CompiledCandidate, CompiledRegion, ImageNode};
pub use report::{BackendState, CompileProblem, Coverage, Lowered, LoweredGraph, NodeReport, Refusal};
