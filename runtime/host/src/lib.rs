//! The plugin host: finds manifests, loads delegates, shakes hands, calls them safely.
//!
//! A bad candidate is recorded with a reason and never stops the others. Libraries are loaded on first use and never
//! unmapped. Whatever a delegate answers is checked before anybody sees it. This crate knows no graph: a graph comes as the
//! bytes of its image, weights by id, tensors as bytes with a dtype and sizes.

mod api;
mod blob;
mod call;
pub mod claims;
mod delegate;
mod delegate_options;
mod discover;
mod error;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod external;
mod file_identity;
mod host;
mod loader;
mod local;
mod look;
mod manifest;
mod memory;
mod options;
mod raw;
mod session;
mod sinks;
mod staging;
mod states;
mod submit;
pub mod trust;
mod weights;
#[cfg(target_os = "linux")]
pub mod worker;

pub use api::{Logger, set_logger};
pub use blob::BlobSource;
pub use call::{CallOptions, ProfileEvent, Progress, now_ns};
pub use claims::{Claims, Unclaimed};
pub use delegate::{BlobVerdict, Delegate, Device, DeviceKind, Info, NodeVerdict, Partition, Weights};
pub use delegraph_abi::c::LogLevel;
pub use delegraph_abi::{StaticEntry, Status};
pub use discover::Candidate;
pub use error::{DelegateError, HostError, SetError};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use external::{Handle, HandleType, Handles, Origin};
pub use file_identity::{FileIdentity, LibraryFile};
pub use host::Host;
pub use look::{Look, look};
pub use manifest::{Manifest, Numeric, Pass, ProgramWish, SandboxWishes, host_triple};
pub use memory::{Arena, Memory, PAGE, Window};
pub use options::{HostOptions, Isolation, Payloads, WorkerOptions};
pub use session::{Copies, Input, Output, Pending, Session};
pub use states::StateInfo;
