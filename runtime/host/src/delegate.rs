//! A delegate: partition, compile, judge and load blobs. Whatever it answers is checked before anybody sees it.
//!
//! Behind it are one library that has both roles or two that have one each, and each is loaded in this process or in a worker's.

use crate::blob::BlobSource;
use crate::call::{CallOptions, lock};
use crate::local::{Local, sha256};
use crate::session::Backing;
use crate::{DelegateError, LibraryFile, Pass, Payloads, Session, SetError};
use delegraph_abi::envelope::{self, Envelope};
use delegraph_abi::image::{ImageView, verify};
use delegraph_abi::{Status, c};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, OnceLock};

/// What a delegate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Backend id.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Semantic version.
    pub version: String,
    /// Names one build; may be empty.
    pub build: String,
    /// Major of the ABI whose entry is used.
    pub abi_major: u16,
    /// Minor of that major that it was built with.
    pub abi_minor: u16,
    /// Name of the form of its blobs.
    pub format: String,
    /// Version of that form.
    pub format_version: u32,
    /// It can partition and compile.
    pub compiles: bool,
    /// It can compile several graphs together.
    pub compiles_sets: bool,
    /// It can load and run.
    pub runs: bool,
    /// Version of the operator table that it was built for.
    pub opset: String,
    /// JSON Schema of its options, if it states one.
    pub options_schema: Option<serde_json::Value>,
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

impl DeviceKind {
    pub(crate) fn of(code: c::DeviceKind) -> DeviceKind {
        match code {
            c::DeviceKind::CPU => DeviceKind::Cpu,
            c::DeviceKind::GPU => DeviceKind::Gpu,
            c::DeviceKind::NPU => DeviceKind::Npu,
            c::DeviceKind::DSP => DeviceKind::Dsp,
            c::DeviceKind::MCU => DeviceKind::Mcu,
            other => DeviceKind::Other(other.0),
        }
    }
}

/// A device that a delegate found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeVerdict {
    /// It takes the node.
    pub supported: bool,
    /// Reason code of the contract; 0 where supported.
    pub code: u32,
    /// In its own words; empty where supported.
    pub reason: String,
}

/// A delegate's answer for a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Partition {
    /// One a node of the image.
    pub verdicts: Vec<NodeVerdict>,
    /// Sets of nodes of which it wants all or none.
    pub atomic_sets: Vec<Vec<u32>>,
}

/// What a delegate thinks of a blob, without loading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl BlobVerdict {
    pub(crate) fn of(verdict: c::BlobVerdict, reason: String) -> BlobVerdict {
        match verdict {
            c::BlobVerdict::OPTIMAL => BlobVerdict::Optimal,
            c::BlobVerdict::RECOMPILE_BETTER => BlobVerdict::RecompileBetter(reason),
            c::BlobVerdict::UNSUPPORTED_HERE => BlobVerdict::UnsupportedHere(reason),
            c::BlobVerdict::NOT_MINE => BlobVerdict::NotMine(reason),
            c::BlobVerdict::CORRUPT => BlobVerdict::Corrupt(reason),
            other => BlobVerdict::UnsupportedHere(format!("unknown verdict {}: {reason}", other.0)),
        }
    }
}

/// Weights by the id that the graph image gives them.
pub trait Weights: Send + Sync {
    /// The bytes of a weight, contiguous and row-major; `None`: there is no such weight.
    fn bytes(&self, id: u32) -> Option<&[u8]>;

    /// The ids that there are; asked for where weights go to another process. Unless said otherwise, 0 and those after it without a
    /// gap.
    fn ids(&self) -> Vec<u32> {
        (0..u32::MAX).take_while(|id| self.bytes(*id).is_some()).collect()
    }

    /// A key that two weights of this process share only if their bytes are equal; `None`: not known.
    fn share_key(&self, _id: u32) -> Option<[u64; 2]> {
        None
    }

    /// The bytes are not needed for now.
    fn unmap(&self, _id: u32) {}
}

/// What a delegate is told of a section that several blobs have, where its bytes were not compared with their hash: the same for the same
/// bytes where they lie, and no hash of any bytes, so that what one file says of itself is never taken for another's section.
fn not_compared(hash: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let place = [bytes.as_ptr().addr() as u64, bytes.len() as u64].map(u64::to_le_bytes);
    sha256(&[b"not compared".as_slice(), hash, &place[0], &place[1]].concat())
}

/// Finds the sections of blobs that lie elsewhere in the file, by their SHA-256.
type FindSection<'f, 'b> = &'f dyn Fn(&[u8; 32]) -> Option<&'b [u8]>;

/// A delegate. Shared between threads; ended when the last session and the last user are gone.
pub struct Delegate {
    backend: Arc<str>,
    info: Info,
    passes: Vec<Pass>,
    compiler: Option<Instance>,
    runner: Option<Instance>,
    libraries: Vec<LibraryFile>,
    options_hash: [u8; 32],
    payloads: Payloads,
    /// What compiles, where it is not there yet.
    later: Option<Later>,
}

/// An instance that is made when it is asked for.
struct Later {
    make: Mutex<Option<Make>>,
    made: OnceLock<Result<Instance, String>>,
}

type Make = Box<dyn FnOnce() -> Result<Instance, String> + Send>;

impl Later {
    fn instance(&self, info: &Info) -> Result<&Instance, &str> {
        let make = || {
            let made = match lock(&self.make).take() {
                Some(make) => make()?,
                None => return Err("it was not made".to_string()),
            };
            match made.info() == info {
                true => Ok(made),
                false => Err("the library says something else of itself in another process".to_string()),
            }
        };
        self.made.get_or_init(make).as_ref().map_err(String::as_str)
    }
}

/// A library that is in use.
#[derive(Clone)]
pub(crate) enum Instance {
    /// In this process.
    Local(Arc<Local>),
    /// In a worker's.
    #[cfg(target_os = "linux")]
    Remote(Arc<crate::worker::Remote>),
}

impl Instance {
    pub fn info(&self) -> &Info {
        match self {
            Instance::Local(local) => &local.info,
            #[cfg(target_os = "linux")]
            Instance::Remote(remote) => remote.info(),
        }
    }
}

impl Delegate {
    /// A delegate of one library, or of one that compiles and one that runs.
    ///
    /// # Errors
    /// The second is no fit for the first: a sentence that says why.
    pub(crate) fn new(first: Instance, second: Option<Instance>, passes: Vec<Pass>) -> Result<Delegate, String> {
        let mut info = first.info().clone();
        let (mut compiler, mut runner) = (None, None);
        for instance in [Some(first), second].into_iter().flatten() {
            let own = instance.info();
            if own.format != info.format {
                return Err(format!(
                    "the library that compiles and the one that runs have blobs of two forms, `{}` and `{}`",
                    info.format, own.format
                ));
            }
            info.compiles |= own.compiles;
            info.compiles_sets |= own.compiles_sets;
            info.runs |= own.runs;
            if own.compiles && compiler.is_none() {
                compiler = Some(instance.clone());
            }
            if own.runs && runner.is_none() {
                runner = Some(instance);
            }
        }
        Ok(Delegate {
            backend: info.name.as_str().into(),
            info,
            passes,
            compiler,
            runner,
            libraries: Vec::new(),
            options_hash: crate::delegate_options::hash(None),
            payloads: Payloads::default(),
            later: None,
        })
    }

    /// A delegate of one library that is loaded twice: what runs here, and what compiles by `later`, which is called when something is to be
    /// compiled for the first time.
    ///
    /// # Errors
    /// The library does not run.
    pub(crate) fn divided(
        runner: Instance,
        passes: Vec<Pass>,
        later: impl FnOnce() -> Result<Instance, String> + Send + 'static,
    ) -> Result<Delegate, String> {
        let mut delegate = Delegate::new(runner, None, passes)?;
        if delegate.compiler.take().is_some() {
            delegate.later = Some(Later {
                make: Mutex::new(Some(Box::new(later))),
                made: OnceLock::new(),
            });
        }
        Ok(delegate)
    }

    /// With what it was made of.
    pub(crate) fn made_of(
        mut self,
        libraries: Vec<LibraryFile>,
        options_hash: [u8; 32],
        payloads: Payloads,
    ) -> Delegate {
        self.libraries = libraries;
        self.options_hash = options_hash;
        self.payloads = payloads;
        self
    }

    /// The files that its code was loaded of; none for one that is linked into the program.
    pub fn libraries(&self) -> &[LibraryFile] {
        &self.libraries
    }

    /// SHA-256 of the options that it was started with.
    pub fn options_hash(&self) -> [u8; 32] {
        self.options_hash
    }

    /// Backend id.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// What the host is to do to a graph before this delegate sees it.
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }

    /// What it says of itself; of two libraries, what the first says, with the roles of both.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Where its libraries are: `in process`, `worker`, `worker (compile), in process (run)`.
    pub fn isolation(&self) -> String {
        let place = |instance: &Instance| match instance {
            Instance::Local(_) => "in process",
            #[cfg(target_os = "linux")]
            Instance::Remote(_) => "worker",
        };
        if self.later.is_some() {
            return "worker (compile), in process (run)".to_string();
        }
        match (&self.compiler, &self.runner) {
            (Some(compiler), Some(runner)) if place(compiler) != place(runner) => {
                format!("{} (compile), {} (run)", place(compiler), place(runner))
            }
            (Some(instance), _) | (None, Some(instance)) => place(instance).to_string(),
            (None, None) => String::new(),
        }
    }

    /// Whether what runs is in a worker's process, to which memory has to be shared.
    pub fn runs_in_worker(&self) -> bool {
        match &self.runner {
            #[cfg(target_os = "linux")]
            Some(Instance::Remote(_)) => true,
            _ => false,
        }
    }

    /// Its devices.
    ///
    /// # Errors
    /// The delegate failed.
    pub fn devices(&self) -> Result<Vec<Device>, DelegateError> {
        match self.runner.as_ref().or(self.compiler.as_ref()) {
            Some(Instance::Local(local)) => local.devices(),
            #[cfg(target_os = "linux")]
            Some(Instance::Remote(remote)) => remote.devices(),
            None => Ok(Vec::new()),
        }
    }

    /// What memory its device takes and gives by handle; `None`: the device that sessions are on for which nobody chose. Nothing for a delegate
    /// in a worker, which maps what it is shown ([`Session::share`]).
    ///
    /// # Errors
    /// The delegate failed.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn handles(&self, device: Option<u32>) -> Result<crate::Handles, DelegateError> {
        match &self.runner {
            Some(Instance::Local(local)) => local.handles(device.unwrap_or(c::NONE)).map(crate::Handles::of),
            _ => Ok(crate::Handles::default()),
        }
    }

    /// The memory of a handle as this delegate's device maps it. It can be shared with any session, of this delegate and of others.
    ///
    /// # Errors
    /// The device does not take it, or the processor does not see it there.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn import_memory(&self, handle: crate::Handle, device: Option<u32>) -> Result<crate::Memory, DelegateError> {
        self.in_process()?.import_memory(handle, device.unwrap_or(c::NONE))
    }

    /// New memory of this delegate's device, of at least so many bytes, with a handle to it ([`crate::Memory::handle`]).
    ///
    /// # Errors
    /// The device does not give it by such a handle, has not so much, or the processor does not see it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn export_memory(
        &self,
        kind: crate::HandleType,
        size: u64,
        device: Option<u32>,
    ) -> Result<crate::Memory, DelegateError> {
        self.in_process()?.export_memory(kind, size, device.unwrap_or(c::NONE))
    }

    /// What runs, if it is in this process.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn in_process(&self) -> Result<&Arc<Local>, DelegateError> {
        match self.role(&self.runner, "run")? {
            Instance::Local(local) => Ok(local),
            #[cfg(target_os = "linux")]
            Instance::Remote(_) => Err(self.error(
                Status::UNSUPPORTED,
                "it runs in a worker's process, whose device's memory this process does not see",
            )),
        }
    }

    /// Asks which nodes of a graph image it takes, for `target` as [`Delegate::compile`] takes it. A delegate that is older than ABI 0.2
    /// does not hear of the target.
    ///
    /// # Errors
    /// The image is malformed, the delegate failed, does not have the target, or did not answer for every node.
    pub fn partition(&self, image: &[u8], target: &str) -> Result<Partition, DelegateError> {
        self.partition_with(image, target, &CallOptions::default())
    }

    /// [`Delegate::partition`] with a deadline, progress and so on.
    ///
    /// # Errors
    /// As there.
    pub fn partition_with(
        &self,
        image: &[u8],
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Partition, DelegateError> {
        let compiler = self.compiling()?;
        let view = self.verified(image)?;
        match compiler {
            Instance::Local(local) => local.partition(&view, target, options),
            #[cfg(target_os = "linux")]
            Instance::Remote(remote) => remote.partition(&view, target, options),
        }
    }

    /// Compiles a graph image for a target, empty: this machine, or anything; gives the blob in its envelope.
    ///
    /// # Errors
    /// The image is malformed, or the delegate refused; `node` names the node where it can.
    pub fn compile(&self, image: &[u8], weights: &dyn Weights, target: &str) -> Result<Vec<u8>, DelegateError> {
        self.compile_with(image, weights, target, &CallOptions::default())
    }

    /// [`Delegate::compile`] with a deadline, progress and so on.
    ///
    /// # Errors
    /// As there.
    pub fn compile_with(
        &self,
        image: &[u8],
        weights: &dyn Weights,
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Vec<u8>, DelegateError> {
        let compiler = self.compiling()?;
        let view = self.verified(image)?;
        match compiler {
            Instance::Local(local) => local.compile(&view, weights, target, options),
            #[cfg(target_os = "linux")]
            Instance::Remote(remote) => remote.compile(&view, weights, target, options),
        }
    }

    /// Whether it has [`Delegate::compile_set`]: one library that compiles, and that can compile several graphs together.
    pub fn compiles_sets(&self) -> bool {
        match &self.later {
            Some(_) => self.info.compiles_sets,
            None => self
                .compiler
                .as_ref()
                .is_some_and(|compiler| compiler.info().compiles_sets),
        }
    }

    /// Compiles graphs that one program uses together: for each image with its weights the blob in its envelope. Sections that the
    /// delegate made equal are equal in them.
    ///
    /// # Errors
    /// As [`Delegate::compile`], with the graph where it can be named. There is no blob then.
    pub fn compile_set(&self, graphs: &[(&[u8], &dyn Weights)], target: &str) -> Result<Vec<Vec<u8>>, SetError> {
        self.compile_set_with(graphs, target, &CallOptions::default())
    }

    /// [`Delegate::compile_set`] with a deadline, progress and so on.
    ///
    /// # Errors
    /// As there.
    pub fn compile_set_with(
        &self,
        graphs: &[(&[u8], &dyn Weights)],
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Vec<Vec<u8>>, SetError> {
        let compiler = self.compiling()?;
        if !self.compiles_sets() {
            let problem = "it does not compile several graphs together";
            return Err(self.error(Status::UNSUPPORTED, problem).into());
        }
        let mut verified: Vec<(ImageView<'_>, &dyn Weights)> = Vec::with_capacity(graphs.len());
        for (number, (image, weights)) in graphs.iter().enumerate() {
            let view = self.verified(image).map_err(|error| SetError {
                graph: Some(number),
                error,
            })?;
            verified.push((view, *weights));
        }
        match compiler {
            Instance::Local(local) => local.compile_set(&verified, target, options),
            #[cfg(target_os = "linux")]
            Instance::Remote(remote) => remote.compile_set(&verified, target, options),
        }
    }

    /// Judges a blob by its envelope. The payload's hash is not computed here; [`Delegate::load`] does.
    ///
    /// # Errors
    /// The delegate failed; a damaged blob is a verdict and no error.
    pub fn check_blob(&self, blob: &[u8]) -> Result<BlobVerdict, DelegateError> {
        let runner = self.role(&self.runner, "run")?;
        let envelope = match envelope::parse(blob) {
            Ok(envelope) => envelope,
            Err(error) => return Ok(BlobVerdict::Corrupt(error.to_string())),
        };
        match runner {
            Instance::Local(local) => local.check_blob(&envelope),
            #[cfg(target_os = "linux")]
            Instance::Remote(remote) => remote.check_blob(blob),
        }
    }

    /// Loads a blob. Its bytes are needed for the call only, so that the delegate copies what it needs of them; `weights` for the life of the
    /// session.
    ///
    /// # Errors
    /// The blob is damaged or not fit, or the delegate failed.
    pub fn load(&self, blob: &[u8], weights: Arc<dyn Weights>) -> Result<Session, DelegateError> {
        self.load_with(blob, weights, None, &CallOptions::default())
    }

    /// [`Delegate::load`] on a device of [`Delegate::devices`], by its id, with a deadline and so on.
    ///
    /// # Errors
    /// As there.
    pub fn load_with(
        &self,
        blob: &[u8],
        weights: Arc<dyn Weights>,
        device: Option<u32>,
        options: &CallOptions<'_>,
    ) -> Result<Session, DelegateError> {
        self.load_parts(blob, &|_| None, None, weights, device, options)
    }

    /// [`Delegate::load_with`] of a blob with what holds its bytes, so that the delegate can keep them and use them in place, for as long as it
    /// has use for them. Some of its sections may lie elsewhere, where `source` finds them. Their hashes are compared.
    ///
    /// # Errors
    /// As there; or a section is not found.
    pub fn load_from(
        &self,
        source: Arc<dyn BlobSource>,
        weights: Arc<dyn Weights>,
        device: Option<u32>,
        options: &CallOptions<'_>,
    ) -> Result<Session, DelegateError> {
        let find = |hash: &[u8; 32]| source.section(hash);
        self.load_parts(source.blob(), &find, Some(&source), weights, device, options)
    }

    /// `source`, if there is one, holds the bytes of the blob and all that `find` finds.
    fn load_parts<'b>(
        &self,
        blob: &'b [u8],
        find: FindSection<'_, 'b>,
        source: Option<&Arc<dyn BlobSource>>,
        weights: Arc<dyn Weights>,
        device: Option<u32>,
        options: &CallOptions<'_>,
    ) -> Result<Session, DelegateError> {
        let runner = self.role(&self.runner, "run")?;
        let corrupt = |problem: String| self.error(Status::BLOB_CORRUPT, problem);
        let mut envelope = envelope::parse(blob).map_err(|error| corrupt(error.to_string()))?;
        if !envelope.header_is_whole(sha256) {
            return Err(corrupt("the blob's header does not match its hash".to_string()));
        }
        // A worker tells blobs by their hashes.
        let compares = self.payloads == Payloads::Compared || !matches!(runner, Instance::Local(_));
        if compares && sha256(envelope.payload) != envelope.payload_hash {
            return Err(corrupt("the blob's payload does not match its hash".to_string()));
        }
        envelope.resolve(find).map_err(|error| corrupt(error.to_string()))?;
        for apart in &mut envelope.apart {
            let section = &envelope.sections[apart.section];
            if !compares {
                apart.hash = not_compared(&apart.hash, section.bytes);
            } else if sha256(section.bytes) != apart.hash {
                let problem = format!(
                    "section `{}`, which lies elsewhere in the file, does not match its hash",
                    section.name
                );
                return Err(corrupt(problem));
            }
        }
        let backing = match runner {
            Instance::Local(local) => {
                Backing::Local(local.load(&envelope, source.cloned(), weights, device, options)?)
            }
            #[cfg(target_os = "linux")]
            Instance::Remote(remote) => Backing::Remote(remote.load(blob, &envelope, weights, device, options)?),
        };
        let Envelope { meta, .. } = envelope;
        Ok(Session::new(self.backend.clone(), backing, meta))
    }

    fn compiling(&self) -> Result<&Instance, DelegateError> {
        match &self.later {
            Some(later) => later
                .instance(&self.info)
                .map_err(|reason| self.error(Status::NOT_READY, format!("it runs and cannot compile: {reason}"))),
            None => self.role(&self.compiler, "compile"),
        }
    }

    fn role<'a>(&self, instance: &'a Option<Instance>, role: &str) -> Result<&'a Instance, DelegateError> {
        instance.as_ref().ok_or_else(|| {
            let mut error = self.error(Status::UNSUPPORTED, format!("no library of this delegate can {role}"));
            error.hint =
                "a delegate may come as two libraries, each with its manifest: one compiles, one runs".to_string();
            error
        })
    }

    fn error(&self, code: Status, message: impl Into<String>) -> DelegateError {
        DelegateError::new(&self.backend, code, message)
    }

    fn verified<'a>(&self, image: &'a [u8]) -> Result<ImageView<'a>, DelegateError> {
        verify(image).map_err(|error| self.error(Status::INVALID_ARGUMENT, format!("the graph image: {error}")))
    }
}
