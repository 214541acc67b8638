//! A loaded delegate: partition, compile, judge and load blobs. Whatever it answers is checked before anybody sees it.

use crate::api::{BlobSink, CheckSink, HostCall, PartSink, WeightsHandle};
use crate::loader::Handshake;
use crate::raw::{read, text};
use crate::{DelegateError, Pass, Session};
use delegraph_abi::envelope::{self, Envelope, Meta, Section, TensorSpec};
use delegraph_abi::image::{ImageView, Kind, List, ValueIndex, verify};
use delegraph_abi::{Status, c};
use delegraph_types::Parallel;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Version of the operator table that it was built for.
    pub opset: String,
    /// Minor of the ABI that it was built with.
    pub abi_minor: u16,
    /// Name of the form of its blobs.
    pub format: String,
    /// Version of that form.
    pub format_version: u32,
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

/// Most devices that a delegate may list.
const MAX_DEVICES: u64 = 1024;

/// A loaded delegate. Shared between threads; ended when the last session and the last user are gone.
pub struct Delegate {
    backend: Arc<str>,
    info: Info,
    pub(crate) api: c::DelegateApi,
    handle: *mut c::Delegate,
    /// Held during every call into a delegate that asked for it (`DG_FEATURE_SERIALIZED`).
    serial: Option<Mutex<()>>,
    passes: Vec<Pass>,
    /// Threads that it may borrow.
    pub(crate) parallel: Parallel,
}

// SAFETY: the contract lets a delegate be called from any thread, from several at once unless it asks for `serial`.
unsafe impl Send for Delegate {}
// SAFETY: as above.
unsafe impl Sync for Delegate {}

impl Delegate {
    /// Starts a delegate whose table passed the handshake.
    pub(crate) fn start(
        handshake: Handshake,
        options: Option<&serde_json::Value>,
        passes: Vec<Pass>,
        parallel: Parallel,
    ) -> Result<Delegate, DelegateError> {
        let Handshake { api, info } = handshake;
        let backend: Arc<str> = info.name.as_str().into();
        let serial = api.features[0] & c::Feature::SERIALIZED.0 != 0;
        let mut delegate = Delegate {
            backend,
            info,
            api,
            handle: std::ptr::null_mut(),
            serial: serial.then(Mutex::default),
            passes,
            parallel,
        };
        let options = plain_options(options).map_err(|problem| delegate.error(Status::INVALID_ARGUMENT, problem))?;
        let entries: Vec<c::Kv> = options.iter().map(PlainOption::entry).collect();
        let pointers: Vec<*const c::Kv> = entries.iter().map(std::ptr::from_ref).collect();
        let (name, version) = ("delegraph", env!("CARGO_PKG_VERSION"));
        let init = c::Init {
            host_name: name.as_ptr(),
            host_name_size: name.len() as u64,
            host_version: version.as_ptr(),
            host_version_size: version.len() as u64,
            options: pointers.as_ptr(),
            option_count: pointers.len() as u64,
            ..c::Init::new()
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: every pointer lives until the call returns.
        delegate.call(|api, call| unsafe { api.initialize.map(|f| f(call, &init, &mut handle)) })?;
        if handle.is_null() {
            return Err(delegate.error(Status::INTERNAL, "`initialize` succeeded but gave no delegate"));
        }
        delegate.handle = handle;
        Ok(delegate)
    }

    /// Backend id.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// What the host is to do to a graph before this delegate sees it.
    pub fn passes(&self) -> &[Pass] {
        &self.passes
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
        let mut count = 0;
        self.enumerate(0, std::ptr::null_mut(), &mut count)?;
        if count > MAX_DEVICES {
            return Err(self.error(
                Status::INTERNAL,
                format!("it lists {count} devices, more than {MAX_DEVICES}"),
            ));
        }
        let mut records = vec![std::ptr::null(); count as usize];
        if count > 0 {
            let mut now = count;
            self.enumerate(count, records.as_mut_ptr(), &mut now)?;
            // A device may have gone since it was counted.
            records.truncate(now as usize);
        }
        // SAFETY: the contract makes every record constant until `shutdown`, its texts too.
        let devices = records.into_iter().map(|record| unsafe { device(record) });
        devices
            .collect::<Result<_, _>>()
            .map_err(|problem| self.error(Status::INTERNAL, problem))
    }

    fn enumerate(&self, capacity: u64, out: *mut *const c::DeviceInfo, count: &mut u64) -> Result<(), DelegateError> {
        // SAFETY: `out` has room for `capacity` pointers.
        self.call(|api, call| unsafe { api.device_enumerate.map(|f| f(self.handle, call, capacity, out, count)) })
    }

    /// Asks which nodes of a graph image it takes.
    ///
    /// # Errors
    /// The image is malformed, the delegate failed, or did not answer for every node.
    pub fn partition(&self, image: &[u8]) -> Result<Partition, DelegateError> {
        self.require(self.info.compiles, "compile")?;
        let view = self.verified(image)?;
        let placed = Aligned::new(image, IMAGE_ALIGN);
        let graph = c::Graph {
            image: placed.bytes().as_ptr(),
            image_size: image.len() as u64,
            ..c::Graph::new()
        };
        let sink = PartSink::new(view.node_count());
        // SAFETY: the graph and the sink live until the call returns.
        let outcome =
            self.call(|api, call| unsafe { api.partition.map(|f| f(self.handle, call, &graph, sink.as_ptr())) });
        let answers = sink.answers();
        if let Some(problem) = answers.problem {
            return Err(self.error(Status::INTERNAL, format!("its answer is out of contract: {problem}")));
        }
        outcome?;
        let count = answers.verdicts.len();
        let given: Vec<NodeVerdict> = answers.verdicts.into_iter().map_while(|verdict| verdict).collect();
        if given.len() < count {
            let node = view.node(delegraph_abi::image::NodeIndex(given.len() as u32));
            let problem = format!("it gave no verdict on node {} (`{}`)", given.len(), node.op());
            return Err(self.error(Status::INTERNAL, problem));
        }
        Ok(Partition {
            verdicts: given,
            atomic_sets: answers.atomic_sets,
        })
    }

    /// Compiles a graph image; gives the blob in its envelope.
    ///
    /// # Errors
    /// The image is malformed, or the delegate refused; `node` names the node where it can.
    pub fn compile(&self, image: &[u8], weights: &dyn Weights, target: &str) -> Result<Vec<u8>, DelegateError> {
        self.require(self.info.compiles, "compile")?;
        let view = self.verified(image)?;
        let specs = |list: List<'_, ValueIndex>| -> Result<Vec<TensorSpec>, DelegateError> {
            list.iter().map(|value| self.spec(&view, value)).collect()
        };
        let (inputs, outputs) = (specs(view.inputs())?, specs(view.outputs())?);
        let placed = Aligned::new(image, IMAGE_ALIGN);
        // SAFETY: the handle is dropped at the end of this function, which borrows the weights.
        let handle = unsafe { WeightsHandle::borrowed(weights) };
        let graph = c::Graph {
            image: placed.bytes().as_ptr(),
            image_size: image.len() as u64,
            weights: handle.as_ptr(),
            ..c::Graph::new()
        };
        let target_struct = c::Target {
            name: target.as_ptr(),
            name_size: target.len() as u64,
            ..c::Target::new()
        };
        let sink = BlobSink::default();
        // SAFETY: everything handed over lives until the call returns.
        let outcome = self.call(|api, call| unsafe {
            api.compile
                .map(|f| f(self.handle, call, &graph, &target_struct, sink.as_ptr()))
        });
        let parts = sink.parts();
        if let Some(problem) = parts.problem {
            return Err(self.error(Status::INTERNAL, format!("its blob is out of contract: {problem}")));
        }
        outcome?;
        let meta = Meta {
            delegate: self.info.name.clone(),
            delegate_version: self.info.version.clone(),
            format: self.info.format.clone(),
            format_version: self.info.format_version,
            target: target.to_string(),
            precision: parts.precision,
            abi_minor: u32::from(self.info.abi_minor),
            graph_hash: sha256(image),
            inputs,
            outputs,
        };
        let sections: Vec<Section<'_>> = parts
            .sections
            .iter()
            .map(|(name, align, bytes)| Section {
                name,
                align: *align,
                bytes,
            })
            .collect();
        envelope::write(&meta, &sections, sha256)
            .map_err(|error| self.error(Status::INTERNAL, format!("its blob is out of contract: {error}")))
    }

    /// Judges a blob by its envelope. The payload's hash is not computed here; [`Delegate::load`] does.
    ///
    /// # Errors
    /// The delegate failed; a damaged blob is a verdict and no error.
    pub fn check_blob(&self, blob: &[u8]) -> Result<BlobVerdict, DelegateError> {
        self.require(self.info.runs, "run")?;
        let envelope = match envelope::parse(blob) {
            Ok(envelope) => envelope,
            Err(error) => return Ok(BlobVerdict::Corrupt(error.to_string())),
        };
        let meta = meta_struct(&envelope);
        let sink = CheckSink::default();
        // SAFETY: the metadata and the sink live until the call returns.
        self.call(|api, call| unsafe { api.blob_check.map(|f| f(self.handle, call, &meta, sink.as_ptr())) })?;
        let (verdict, reason) = match sink.verdict() {
            Some(Ok(answer)) => answer,
            Some(Err(problem)) => return Err(self.error(Status::INTERNAL, problem)),
            None => return Err(self.error(Status::INTERNAL, "`blob_check` succeeded but gave no verdict")),
        };
        Ok(match verdict {
            c::BlobVerdict::OPTIMAL => BlobVerdict::Optimal,
            c::BlobVerdict::RECOMPILE_BETTER => BlobVerdict::RecompileBetter(reason),
            c::BlobVerdict::UNSUPPORTED_HERE => BlobVerdict::UnsupportedHere(reason),
            c::BlobVerdict::NOT_MINE => BlobVerdict::NotMine(reason),
            c::BlobVerdict::CORRUPT => BlobVerdict::Corrupt(reason),
            other => BlobVerdict::UnsupportedHere(format!("unknown verdict {}: {reason}", other.0)),
        })
    }

    /// Loads a blob. Its bytes are needed for the call only; `weights` for the life of the session.
    ///
    /// # Errors
    /// The blob is damaged or not fit, or the delegate failed.
    pub fn load(self: &Arc<Self>, blob: &[u8], weights: Arc<dyn Weights>) -> Result<Session, DelegateError> {
        self.require(self.info.runs, "run")?;
        let corrupt = |problem: String| self.error(Status::BLOB_CORRUPT, problem);
        let envelope = envelope::parse(blob).map_err(|error| corrupt(error.to_string()))?;
        if sha256(envelope.payload) != envelope.payload_hash {
            return Err(corrupt("the blob's payload does not match its hash".to_string()));
        }
        // Sections lie aligned within the blob; where the blob itself lies otherwise, they are moved.
        let placed: Vec<Aligned<'_>> = envelope
            .sections
            .iter()
            .map(|s| Aligned::new(s.bytes, s.align))
            .collect();
        let sections: Vec<c::Section> = envelope
            .sections
            .iter()
            .zip(&placed)
            .map(|(section, placed)| c::Section {
                name: section.name.as_ptr(),
                name_size: section.name.len() as u64,
                data: placed.bytes().as_ptr(),
                size: section.bytes.len() as u64,
                ..c::Section::new()
            })
            .collect();
        let pointers: Vec<*const c::Section> = sections.iter().map(std::ptr::from_ref).collect();
        let meta = meta_struct(&envelope);
        let handle = WeightsHandle::shared(weights);
        let blob = c::Blob {
            meta: &meta,
            sections: pointers.as_ptr(),
            section_count: pointers.len() as u64,
            weights: handle.as_ptr(),
            ..c::Blob::new()
        };
        let mut session = std::ptr::null_mut();
        // SAFETY: everything handed over lives until the call returns; the weights longer, by what the session keeps.
        self.call(|api, call| unsafe { api.session_load.map(|f| f(self.handle, call, &blob, &mut session)) })?;
        if session.is_null() {
            return Err(self.error(Status::INTERNAL, "`session_load` succeeded but gave no session"));
        }
        Ok(Session::new(
            self.clone(),
            session,
            &envelope.meta.inputs,
            &envelope.meta.outputs,
        ))
    }

    /// Calls a function of the table with a fresh call object, and turns its status into a result.
    pub(crate) fn call(
        &self,
        function: impl FnOnce(&c::DelegateApi, *const c::Call) -> Option<Status>,
    ) -> Result<(), DelegateError> {
        self.call_on(self.parallel, function)
    }

    /// [`Delegate::call`], which may borrow these threads.
    pub(crate) fn call_on(
        &self,
        parallel: Parallel,
        function: impl FnOnce(&c::DelegateApi, *const c::Call) -> Option<Status>,
    ) -> Result<(), DelegateError> {
        let call = HostCall::new(&self.backend, None, parallel);
        let _serial = self.serial();
        // The handshake made sure of the mandatory functions.
        let status = function(&self.api, call.as_ptr()).unwrap_or(Status::UNSUPPORTED);
        if status == Status::OK {
            return Ok(());
        }
        let details = call.details().unwrap_or_default();
        let mut error = self.error(status, details.message);
        if error.message.is_empty() {
            error.message = "it gave no reason".to_string();
        }
        error.vendor_code = details.vendor_code;
        error.node = details.node;
        error.hint = details.hint;
        Err(error)
    }

    /// The lock of a delegate that wants one call at a time.
    pub(crate) fn serial(&self) -> Option<MutexGuard<'_, ()>> {
        self.serial
            .as_ref()
            .map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn error(&self, code: Status, message: impl Into<String>) -> DelegateError {
        DelegateError::new(&self.backend, code, message)
    }

    fn require(&self, has: bool, role: &str) -> Result<(), DelegateError> {
        match has {
            true => Ok(()),
            false => Err(self.error(Status::UNSUPPORTED, format!("this library cannot {role}"))),
        }
    }

    fn verified<'a>(&self, image: &'a [u8]) -> Result<ImageView<'a>, DelegateError> {
        verify(image).map_err(|error| self.error(Status::INVALID_ARGUMENT, format!("the graph image: {error}")))
    }

    fn spec(&self, image: &ImageView<'_>, value: ValueIndex) -> Result<TensorSpec, DelegateError> {
        let value = image.value(value);
        match value.kind() {
            Kind::Tensor(dtype) => Ok(TensorSpec {
                dtype,
                rank: value.rank() as u32,
            }),
            _ => {
                let problem = format!("`{}` at the border of the graph is no tensor", value.name());
                Err(self.error(Status::INVALID_ARGUMENT, problem))
            }
        }
    }
}

impl Drop for Delegate {
    fn drop(&mut self) {
        if self.handle.is_null() {
            return;
        }
        let call = HostCall::new(&self.backend, None, self.parallel);
        let _serial = self.serial();
        if let Some(shutdown) = self.api.shutdown {
            // SAFETY: sessions hold a count of this delegate, so none is left; it is not used again.
            unsafe { shutdown(self.handle, call.as_ptr()) }
        }
    }
}

/// SHA-256 of bytes.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The envelope's metadata as the contract hands it over; borrows the envelope.
fn meta_struct(envelope: &Envelope<'_>) -> c::BlobMeta {
    let meta = &envelope.meta;
    c::BlobMeta {
        delegate: meta.delegate.as_ptr(),
        delegate_size: meta.delegate.len() as u64,
        delegate_version: meta.delegate_version.as_ptr(),
        delegate_version_size: meta.delegate_version.len() as u64,
        format: meta.format.as_ptr(),
        format_size: meta.format.len() as u64,
        target: meta.target.as_ptr(),
        target_size: meta.target.len() as u64,
        precision: meta.precision.as_ptr(),
        precision_size: meta.precision.len() as u64,
        format_version: meta.format_version,
        abi_minor: meta.abi_minor,
        graph_hash: meta.graph_hash.as_ptr(),
        payload_size: envelope.payload.len() as u64,
        ..c::BlobMeta::new()
    }
}

/// # Safety
/// `record` is NULL or a device record of the contract.
unsafe fn device(record: *const c::DeviceInfo) -> Result<Device, String> {
    // SAFETY: as the caller says.
    unsafe {
        let raw = read(record)?;
        Ok(Device {
            id: raw.id,
            kind: match raw.kind {
                c::DeviceKind::CPU => DeviceKind::Cpu,
                c::DeviceKind::GPU => DeviceKind::Gpu,
                c::DeviceKind::NPU => DeviceKind::Npu,
                c::DeviceKind::DSP => DeviceKind::Dsp,
                c::DeviceKind::MCU => DeviceKind::Mcu,
                other => DeviceKind::Other(other.0),
            },
            name: text("a device's name", raw.name, raw.name_size)?,
            vendor: text("a device's vendor", raw.vendor, raw.vendor_size)?,
            arch: text("a device's arch", raw.arch, raw.arch_size)?,
            driver: text("a device's driver", raw.driver, raw.driver_size)?,
            memory: raw.memory,
        })
    }
}

/// A key and a plain value.
struct PlainOption<'a> {
    key: &'a str,
    value: Plain<'a>,
}

enum Plain<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
}

impl PlainOption<'_> {
    fn entry(&self) -> c::Kv {
        let mut kv = c::Kv {
            key: self.key.as_ptr(),
            key_size: self.key.len() as u64,
            ..c::Kv::new()
        };
        match self.value {
            Plain::Bool(b) => (kv.r#type, kv.int_value) = (c::KvType::BOOL, i64::from(b)),
            Plain::Int(i) => (kv.r#type, kv.int_value) = (c::KvType::INT, i),
            Plain::Float(f) => (kv.r#type, kv.float_value) = (c::KvType::FLOAT, f),
            Plain::Str(s) => {
                kv.r#type = c::KvType::STR;
                (kv.str_value, kv.str_value_size) = (s.as_ptr(), s.len() as u64);
            }
        }
        kv
    }
}

fn plain_options(options: Option<&serde_json::Value>) -> Result<Vec<PlainOption<'_>>, String> {
    let Some(options) = options else {
        return Ok(Vec::new());
    };
    let table = options.as_object().ok_or("its options are no table")?;
    table
        .iter()
        .map(|(key, value)| {
            let value = match value {
                serde_json::Value::Bool(b) => Plain::Bool(*b),
                serde_json::Value::String(s) => Plain::Str(s),
                serde_json::Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                    (Some(i), _) => Plain::Int(i),
                    (None, Some(f)) => Plain::Float(f),
                    (None, None) => return Err(format!("option `{key}` is a number that does not fit")),
                },
                _ => return Err(format!("option `{key}` is neither a number, a text nor a boolean")),
            };
            Ok(PlainOption { key, value })
        })
        .collect()
}

/// Alignment of a graph image, as the contract gives it.
const IMAGE_ALIGN: u32 = 8;

/// Bytes at an alignment: as they lie, or copied where they lie otherwise.
enum Aligned<'a> {
    InPlace(&'a [u8]),
    Copied { room: Vec<u8>, start: usize },
}

impl<'a> Aligned<'a> {
    fn new(bytes: &'a [u8], align: u32) -> Aligned<'a> {
        let align = align as usize;
        if bytes.as_ptr().align_offset(align) == 0 {
            return Aligned::InPlace(bytes);
        }
        let mut room: Vec<u8> = Vec::with_capacity(bytes.len() + align);
        // Filled within its capacity, so that it does not move and the start stays aligned.
        let start = room.as_ptr().align_offset(align).min(align);
        room.resize(start, 0);
        room.extend_from_slice(bytes);
        Aligned::Copied { room, start }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Aligned::InPlace(bytes) => bytes,
            Aligned::Copied { room, start } => &room[*start..],
        }
    }
}
