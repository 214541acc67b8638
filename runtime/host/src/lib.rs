//! The plugin host: finds manifests, loads delegates, shakes hands, calls them safely.
//!
//! A bad candidate is recorded with a reason and never stops the others. Libraries are loaded on first use and never
//! unmapped. Whatever a delegate answers is checked before anybody sees it. This crate knows no graph: a graph comes as the
//! bytes of its image, weights by id, tensors as bytes with a dtype and sizes.

mod delegate;
mod error;
mod manifest;
mod options;
mod session;

pub use delegate::{
    BlobVerdict, Candidate, Delegate, Device, DeviceKind, Host, Info, NodeVerdict, Partition, StaticDelegate, Weights,
};
pub use delegraph_abi::Status;
pub use error::{DelegateError, HostError};
pub use manifest::Manifest;
pub use options::HostOptions;
pub use session::{Input, Output, Session};
