//! The plugin host: finds manifests, loads delegates, shakes hands, calls them safely.
//!
//! A bad candidate is recorded with a reason and never stops the others. Libraries are loaded on first use and never
//! unmapped. Whatever a delegate answers is checked before anybody sees it. This crate knows no graph: a graph comes as the
//! bytes of its image, weights by id, tensors as bytes with a dtype and sizes.

mod api;
mod delegate;
mod discover;
mod error;
mod host;
mod loader;
mod manifest;
mod options;
mod raw;
mod session;
pub mod trust;

pub use api::{Logger, set_logger};
pub use delegate::{BlobVerdict, Delegate, Device, DeviceKind, Info, NodeVerdict, Partition, Weights};
pub use delegraph_abi::c::LogLevel;
pub use delegraph_abi::{StaticEntry, Status};
pub use discover::Candidate;
pub use error::{DelegateError, HostError};
pub use host::Host;
pub use manifest::{Manifest, Pass, host_triple};
pub use options::HostOptions;
pub use session::{Input, Output, Session};
