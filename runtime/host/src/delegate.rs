//! Stub of the host: the types are final, the calls answer an error.

use crate::{DelegateError, HostError, HostOptions, Manifest, Session};
use delegraph_abi::Status;
use std::path::PathBuf;
use std::sync::Arc;

/// A delegate that could be used, or why not.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Backend id; the file's stem where the manifest could not be read.
    pub backend: String,
    /// The manifest; `None`: a library named outright, or a static table.
    pub manifest_path: Option<PathBuf>,
    /// The library as found on disk.
    pub library: Option<PathBuf>,
    /// What the manifest says.
    pub manifest: Option<Manifest>,
    /// Why it is not used; filled when it is discovered, or when its load failed.
    pub refusal: Option<String>,
}

/// What a delegate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Backend id.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Semantic version.
    pub version: String,
    /// Names one build; may be empty.
    pub build: String,
    /// Minor of the ABI that it was built with.
    pub abi_minor: u16,
    /// It can partition and compile.
    pub compiles: bool,
    /// It can load and run.
    pub runs: bool,
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DeviceKind {
    Cpu,
    Gpu,
    Npu,
    Dsp,
    Mcu,
    /// One that this host has no name for.
    Other(u32),
}

/// A device that a delegate found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Number within the delegate.
    pub id: u32,
    /// Kind.
    pub kind: DeviceKind,
    /// Name for people.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Architecture or chip; a target that `compile` takes, where the delegate has targets.
    pub arch: String,
    /// Driver version; may be empty.
    pub driver: String,
    /// Bytes of its memory; 0: not known.
    pub memory: u64,
}

/// A delegate's answer for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVerdict {
    /// It takes the node.
    pub supported: bool,
    /// Reason code of the contract; 0 where supported.
    pub code: u32,
    /// In its own words; empty where supported.
    pub reason: String,
}

/// A delegate's answer for a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// One a node of the image.
    pub verdicts: Vec<NodeVerdict>,
    /// Sets of nodes of which it wants all or none.
    pub atomic_sets: Vec<Vec<u32>>,
}

/// What a delegate thinks of a blob, without loading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobVerdict {
    /// Made for exactly this.
    Optimal,
    /// Runs; compiling again would do better.
    RecompileBetter(String),
    /// A blob of this delegate that does not run here.
    UnsupportedHere(String),
    /// A blob of another delegate.
    NotMine(String),
    /// Damaged.
    Corrupt(String),
}

/// Weights by the id that the graph image gives them.
pub trait Weights: Send + Sync {
    /// The bytes of a weight, contiguous and row-major; `None`: there is no such weight.
    fn bytes(&self, id: u32) -> Option<&[u8]>;
}

/// Stub.
#[derive(Debug, Clone, Copy)]
pub struct StaticDelegate(());

/// The delegates of this process.
pub struct Host {
    candidates: Vec<Candidate>,
}

impl Host {
    /// Finds candidates. Never fails: a bad one is recorded with the reason.
    pub fn discover(options: HostOptions) -> Host {
        let _ = options;
        Host { candidates: Vec::new() }
    }

    /// Every candidate found, in the order of preference, refused ones included (static tables are not listed).
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The delegate of a backend, loaded on first use. Failure is remembered as success is.
    ///
    /// # Errors
    /// Nobody offers the backend, or whoever does was refused.
    pub fn delegate(&self, backend: &str) -> Result<Arc<Delegate>, HostError> {
        Err(HostError::Unknown {
            backend: backend.to_string(),
            hint: String::new(),
        })
    }
}

/// A loaded delegate.
pub struct Delegate {
    backend: Arc<str>,
    info: Info,
}

impl Delegate {
    /// Backend id.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// What it says of itself.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Its devices.
    ///
    /// # Errors
    /// The delegate failed.
    pub fn devices(&self) -> Result<Vec<Device>, DelegateError> {
        Err(self.stub())
    }

    /// Asks which nodes of a graph image it takes.
    ///
    /// # Errors
    /// The delegate failed, or did not answer for every node.
    pub fn partition(&self, image: &[u8]) -> Result<Partition, DelegateError> {
        let _ = image;
        Err(self.stub())
    }

    /// Compiles a graph image; gives the blob in its envelope.
    ///
    /// # Errors
    /// The delegate refused; `node` names the node where it can.
    pub fn compile(&self, image: &[u8], weights: &dyn Weights, target: &str) -> Result<Vec<u8>, DelegateError> {
        let _ = (image, weights, target);
        Err(self.stub())
    }

    /// Judges a blob by its envelope.
    ///
    /// # Errors
    /// The delegate failed; a damaged blob is a verdict and no error.
    pub fn check_blob(&self, blob: &[u8]) -> Result<BlobVerdict, DelegateError> {
        let _ = blob;
        Err(self.stub())
    }

    /// Loads a blob. Its bytes are needed for the call only; `weights` for the life of the session.
    ///
    /// # Errors
    /// The blob is damaged or not fit, or the delegate failed.
    pub fn load(self: &Arc<Self>, blob: &[u8], weights: Arc<dyn Weights>) -> Result<Session, DelegateError> {
        let _ = (blob, weights);
        Err(self.stub())
    }

    fn stub(&self) -> DelegateError {
        DelegateError::new(&self.backend, Status::INTERNAL, "not connected yet")
    }
}
