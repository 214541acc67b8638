//! A delegate whose library is loaded in this process.

mod buffers;

pub(crate) use buffers::ImportedBuffer;

use crate::api::log;
use crate::blob::{Aligned, BlobSource, Placed};
use crate::call::{CallOptions, HostCall};
use crate::delegate::{BlobVerdict, Device, DeviceKind, Info, NodeVerdict, Partition, Weights};
use crate::loader::Handshake;
use crate::memory::Memory;
use crate::raw::{read, text};
use crate::sinks::{BlobSink, CheckSink, PartSink};
use crate::submit::{Fence, Registered};
use crate::weights::WeightsHandle;
use crate::{DelegateError, SetError, delegate_options as options};
use buffers::Import;
use delegraph_abi::envelope::{self, Envelope, KeptState, Meta, Section, TensorSpec};
use delegraph_abi::image::{ImageView, Kind, List, NodeIndex, ValueIndex};
use delegraph_abi::{Status, c};
use delegraph_types::Parallel;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Most devices that a delegate may list.
const MAX_DEVICES: u64 = 1024;

/// An initialized delegate.
pub(crate) struct Local {
    pub backend: Arc<str>,
    pub info: Info,
    /// SHA-256 of its options.
    options_hash: [u8; 32],
    /// The table that its entry was given.
    host: &'static c::HostApi,
    api: c::DelegateApi,
    handle: *mut c::Delegate,
    /// Held during every call into a delegate that asked for it (`DG_FEATURE_SERIALIZED`).
    serial: Option<Mutex<()>>,
    /// Threads that it may borrow.
    parallel: Parallel,
    /// Memories that it took notice of.
    imports: Mutex<Vec<(Weak<Memory>, Weak<Import>)>>,
}

// SAFETY: the contract lets a delegate be called from any thread, from several at once unless it asks for `serial`.
unsafe impl Send for Local {}
// SAFETY: as above.
unsafe impl Sync for Local {}

impl Local {
    /// Starts a delegate whose table passed the handshake.
    pub fn start(
        handshake: Handshake,
        given: Option<&serde_json::Value>,
        parallel: Parallel,
    ) -> Result<Local, DelegateError> {
        let Handshake { host, api, info } = handshake;
        let backend: Arc<str> = info.name.as_str().into();
        let serial = api.features[0] & c::Feature::SERIALIZED.0 != 0;
        let mut local = Local {
            backend,
            options_hash: options::hash(given),
            info,
            host,
            api,
            handle: std::ptr::null_mut(),
            serial: serial.then(Mutex::default),
            parallel,
            imports: Mutex::default(),
        };
        let invalid = |problem: String| DelegateError::new(&local.backend, Status::INVALID_ARGUMENT, problem);
        if let Some(schema) = &local.info.options_schema {
            options::check(schema, given).map_err(invalid)?;
        }
        let plain = options::plain(given).map_err(invalid)?;
        let entries: Vec<c::Kv> = plain.iter().map(options::Plain::entry).collect();
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
        local.call(&CallOptions::default(), |api, call| unsafe {
            api.initialize.map(|f| f(call, &init, &mut handle))
        })?;
        if handle.is_null() {
            return Err(local.error(Status::INTERNAL, "`initialize` succeeded but gave no delegate"));
        }
        local.handle = handle;
        Ok(local)
    }

    pub fn devices(&self) -> Result<Vec<Device>, DelegateError> {
        let mut count = 0;
        self.enumerate(0, std::ptr::null_mut(), &mut count)?;
        if count > MAX_DEVICES {
            let problem = format!("it lists {count} devices, more than {MAX_DEVICES}");
            return Err(self.error(Status::INTERNAL, problem));
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
        self.call(&CallOptions::default(), |api, call| unsafe {
            api.device_enumerate.map(|f| f(self.handle, call, capacity, out, count))
        })
    }

    /// `view` is the verified image.
    pub fn partition(
        &self,
        view: &ImageView<'_>,
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Partition, DelegateError> {
        let image = view.bytes();
        let placed = Aligned::new(image, IMAGE_ALIGN);
        let graph = c::Graph {
            image: placed.bytes().as_ptr(),
            image_size: image.len() as u64,
            target: target.as_ptr(),
            target_size: target.len() as u64,
            ..c::Graph::new()
        };
        let sink = PartSink::new(view.node_count());
        // SAFETY: the graph and the sink live until the call returns.
        let outcome = self.call(options, |api, call| unsafe {
            api.partition.map(|f| f(self.handle, call, &graph, sink.as_ptr()))
        });
        let answers = sink.answers();
        if let Some(problem) = answers.problem {
            return Err(self.error(Status::INTERNAL, format!("its answer is out of contract: {problem}")));
        }
        outcome?;
        let count = answers.verdicts.len();
        let given: Vec<NodeVerdict> = answers.verdicts.into_iter().map_while(|verdict| verdict).collect();
        if given.len() < count {
            let node = view.node(NodeIndex(given.len() as u32));
            let problem = format!("it gave no verdict on node {} (`{}`)", given.len(), node.op());
            return Err(self.error(Status::INTERNAL, problem));
        }
        Ok(Partition {
            verdicts: given,
            atomic_sets: answers.atomic_sets,
        })
    }

    /// Compiles a verified image; gives the blob in its envelope.
    pub fn compile(
        &self,
        view: &ImageView<'_>,
        weights: &dyn Weights,
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Vec<u8>, DelegateError> {
        let given = self.given(view, weights)?;
        let (graph, target_struct) = (given.graph(target), target_of(target));
        // SAFETY: everything handed over lives until the call returns.
        let outcome = self.call(options, |api, call| unsafe {
            api.compile
                .map(|f| f(self.handle, call, &graph, &target_struct, given.sink.as_ptr()))
        });
        self.blob_of(given, target, outcome)
    }

    /// Compiles verified images together; gives each blob in its envelope.
    pub fn compile_set(
        &self,
        graphs: &[(ImageView<'_>, &dyn Weights)],
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Vec<Vec<u8>>, SetError> {
        let of_graph = |number: usize| {
            move |error: DelegateError| SetError {
                graph: Some(number),
                error,
            }
        };
        let mut given = Vec::with_capacity(graphs.len());
        for (number, (view, weights)) in graphs.iter().enumerate() {
            given.push(self.given(view, *weights).map_err(of_graph(number))?);
        }
        let structs: Vec<c::Graph> = given.iter().map(|given| given.graph(target)).collect();
        let pointers: Vec<*const c::Graph> = structs.iter().map(std::ptr::from_ref).collect();
        let sinks: Vec<*mut c::BlobSink> = given.iter().map(|given| given.sink.as_ptr()).collect();
        let target_struct = target_of(target);
        let call = HostCall::new(self.host, &self.backend, options, self.parallel);
        let status = {
            let _serial = self.serial();
            // SAFETY: everything handed over lives until the call returns; both lists have one pointer a graph.
            let status = self.api.compile_set.map(|f| unsafe {
                f(
                    self.handle,
                    call.as_ptr(),
                    pointers.as_ptr(),
                    &target_struct,
                    sinks.as_ptr(),
                    pointers.len() as u64,
                )
            });
            status.unwrap_or(Status::UNSUPPORTED)
        };
        let outcome = self.outcome(status, &call);
        let named = call.graph().and_then(|graph| usize::try_from(graph).ok());
        let named = named.filter(|graph| *graph < graphs.len());
        let mut blobs = Vec::with_capacity(given.len());
        for (number, given) in given.into_iter().enumerate() {
            // What a sink was told that is out of contract counts before what the call says.
            let ended = match given.sink.is_sound() {
                true => outcome.clone().map_err(|error| SetError { graph: named, error }),
                false => Ok(()),
            };
            ended?;
            blobs.push(self.blob_of(given, target, Ok(())).map_err(of_graph(number))?);
        }
        Ok(blobs)
    }

    /// What a compiler is given of a graph.
    fn given<'g>(&self, view: &'g ImageView<'g>, weights: &'g dyn Weights) -> Result<Given<'g>, DelegateError> {
        let specs = |list: List<'_, ValueIndex>| -> Result<Vec<TensorSpec>, DelegateError> {
            list.iter().map(|value| self.spec(view, value)).collect()
        };
        Ok(Given {
            view,
            weights,
            inputs: specs(view.inputs())?,
            outputs: specs(view.outputs())?,
            placed: Aligned::new(view.bytes(), IMAGE_ALIGN),
            // SAFETY: it is dropped with what is made here, which borrows the weights.
            handle: unsafe { WeightsHandle::borrowed(weights) },
            sink: BlobSink::default(),
        })
    }

    /// The blob that a compiler wrote, in its envelope.
    fn blob_of(
        &self,
        given: Given<'_>,
        target: &str,
        outcome: Result<(), DelegateError>,
    ) -> Result<Vec<u8>, DelegateError> {
        let Given {
            view,
            weights,
            mut inputs,
            mut outputs,
            sink,
            ..
        } = given;
        let parts = sink.parts();
        let out_of_contract = |problem: &dyn std::fmt::Display| {
            self.error(Status::INTERNAL, format!("its blob is out of contract: {problem}"))
        };
        if let Some(problem) = parts.problem {
            return Err(out_of_contract(&problem));
        }
        outcome?;
        for (is_output, index, requirement) in parts.requirements {
            let side = if is_output { &mut outputs } else { &mut inputs };
            match side.get_mut(index as usize) {
                Some(spec) => spec.requirement = spec.requirement.and(requirement),
                None => {
                    let what = if is_output { "output" } else { "input" };
                    return Err(out_of_contract(&format!("it requires something of {what} {index}")));
                }
            }
        }
        let states = parts.states.iter().map(|state| kept_state(view, *state));
        let states = states
            .collect::<Result<_, _>>()
            .map_err(|problem| out_of_contract(&problem))?;
        let [driver_min, driver_max] = parts.drivers;
        let meta = Meta {
            delegate: self.info.name.clone(),
            delegate_version: self.info.version.clone(),
            format: self.info.format.clone(),
            format_version: self.info.format_version,
            target: target.to_string(),
            precision: parts.precision,
            abi_major: u32::from(self.info.abi_major),
            abi_minor: u32::from(self.info.abi_minor),
            graph_hash: sha256(view.bytes()),
            options_hash: self.options_hash,
            weights_hash: weights_hash(view, weights),
            driver_min,
            driver_max,
            inputs,
            outputs,
            states,
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
        envelope::write(&meta, &sections, sha256).map_err(|error| out_of_contract(&error))
    }

    pub fn check_blob(&self, envelope: &Envelope<'_>) -> Result<BlobVerdict, DelegateError> {
        let meta = meta_struct(envelope);
        let sink = CheckSink::default();
        // SAFETY: the metadata and the sink live until the call returns.
        self.call(&CallOptions::default(), |api, call| unsafe {
            api.blob_check.map(|f| f(self.handle, call, &meta, sink.as_ptr()))
        })?;
        match sink.verdict() {
            Some(Ok((verdict, reason))) => Ok(BlobVerdict::of(verdict, reason)),
            Some(Err(problem)) => Err(self.error(Status::INTERNAL, problem)),
            None => Err(self.error(Status::INTERNAL, "`blob_check` succeeded but gave no verdict")),
        }
    }

    /// Loads a parsed blob whose payload has been compared with its hash. `source`, if there is one, holds the bytes of all its sections; the
    /// delegate can keep them then.
    pub fn load(
        self: &Arc<Self>,
        envelope: &Envelope<'_>,
        source: Option<Arc<dyn BlobSource>>,
        weights: Arc<dyn Weights>,
        device: Option<u32>,
        options: &CallOptions<'_>,
    ) -> Result<LocalSession, DelegateError> {
        if let Some(state) = envelope.meta.states.first()
            && self.api.features[0] & c::Feature::STATE.0 == 0
        {
            let problem = format!(
                "sessions of the blob keep the state `{}`, and this library has no functions for that",
                state.name
            );
            return Err(self.error(Status::BLOB_INCOMPATIBLE, problem));
        }
        // Sections lie aligned within the blob; where the blob itself lies otherwise, they are moved.
        let placed = Placed::new(envelope, source);
        for (position, size) in &placed.moved {
            let Section { name, align, .. } = envelope.sections[*position];
            let line = format!("section `{name}` of {size} bytes was copied: it did not lie at a multiple of {align}");
            log(&self.backend, c::LogLevel::DEBUG, &line);
        }
        let mut share_hashes: Vec<Option<&[u8; 32]>> = vec![None; envelope.sections.len()];
        for apart in &envelope.apart {
            share_hashes[apart.section] = Some(&apart.hash);
        }
        let sections: Vec<c::Section> = envelope
            .sections
            .iter()
            .zip(&placed.data)
            .zip(share_hashes)
            .map(|((section, data), hash)| c::Section {
                name: section.name.as_ptr(),
                name_size: section.name.len() as u64,
                data: *data,
                size: section.bytes.len() as u64,
                share_hash: hash.map_or(std::ptr::null(), |hash| hash.as_ptr()),
                ..c::Section::new()
            })
            .collect();
        let pointers: Vec<*const c::Section> = sections.iter().map(std::ptr::from_ref).collect();
        let meta = meta_struct(envelope);
        let handle = WeightsHandle::shared(weights);
        let blob = c::Blob {
            meta: &meta,
            sections: pointers.as_ptr(),
            section_count: pointers.len() as u64,
            weights: handle.as_ptr(),
            device_chosen: u32::from(device.is_some()),
            device: device.unwrap_or(0),
            owner: placed.owner(),
            ..c::Blob::new()
        };
        let mut session = std::ptr::null_mut();
        // SAFETY: everything handed over lives until the call returns; weights and sections longer, by what the session keeps.
        self.call(options, |api, call| unsafe {
            api.session_load.map(|f| f(self.handle, call, &blob, &mut session))
        })?;
        if session.is_null() {
            return Err(self.error(Status::INTERNAL, "`session_load` succeeded but gave no session"));
        }
        Ok(LocalSession {
            local: self.clone(),
            session,
            device: device.unwrap_or(c::NONE),
            imports: Vec::new(),
            moved_bytes: placed.moved.iter().map(|(_, size)| *size as u64).sum(),
        })
    }

    /// Calls a function of the table with a fresh call object, and turns its status into a result.
    fn call(
        &self,
        options: &CallOptions<'_>,
        function: impl FnOnce(&c::DelegateApi, *const c::Call) -> Option<Status>,
    ) -> Result<(), DelegateError> {
        let call = HostCall::new(self.host, &self.backend, options, self.parallel);
        let _serial = self.serial();
        // The handshake made sure of the mandatory functions.
        let status = function(&self.api, call.as_ptr()).unwrap_or(Status::UNSUPPORTED);
        self.outcome(status, &call)
    }

    fn outcome(&self, status: Status, call: &HostCall<'_>) -> Result<(), DelegateError> {
        if status == Status::OK {
            return Ok(());
        }
        let details = call.take_details().unwrap_or_default();
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
    fn serial(&self) -> Option<MutexGuard<'_, ()>> {
        self.serial
            .as_ref()
            .map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn error(&self, code: Status, message: impl Into<String>) -> DelegateError {
        DelegateError::new(&self.backend, code, message)
    }

    /// What goes in or out at the border of a graph.
    fn spec(&self, image: &ImageView<'_>, value: ValueIndex) -> Result<TensorSpec, DelegateError> {
        let value = image.value(value);
        match value.kind() {
            Kind::Tensor(dtype) => Ok(TensorSpec {
                dtype,
                rank: value.rank() as u32,
                requirement: envelope::Requirement::default(),
            }),
            _ => {
                let problem = format!("`{}` at the border of the graph is no tensor", value.name());
                Err(self.error(Status::INVALID_ARGUMENT, problem))
            }
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.handle.is_null() {
            return;
        }
        let call = HostCall::new(self.host, &self.backend, &CallOptions::default(), self.parallel);
        let _serial = self.serial();
        if let Some(shutdown) = self.api.shutdown {
            // SAFETY: sessions and imports hold a count of this delegate, so none is left; it is not used again.
            unsafe { shutdown(self.handle, call.as_ptr()) }
        }
    }
}

/// A loaded blob. One run at a time.
pub(crate) struct LocalSession {
    local: Arc<Local>,
    session: *mut c::Session,
    /// The device that it is on, or `DG_NONE`.
    device: u32,
    imports: Vec<Arc<Import>>,
    /// Bytes of sections that were copied, because they did not lie aligned.
    pub moved_bytes: u64,
}

// SAFETY: the contract lets the functions of a session be called on any thread, one at a time.
unsafe impl Send for LocalSession {}

impl LocalSession {
    /// Takes notice of a memory that tensors of runs lie in. True if the delegate did.
    pub fn share(&mut self, memory: &Arc<Memory>) -> bool {
        if self.imports.iter().any(|import| Arc::ptr_eq(&import.memory, memory)) {
            return true;
        }
        let import = self.local.import(memory, self.device);
        let taken = import.is_some();
        self.imports.extend(import);
        taken
    }

    /// Forgets a memory: no later run has tensors in it.
    pub fn unshare(&mut self, memory: &Arc<Memory>) {
        self.imports.retain(|import| !Arc::ptr_eq(&import.memory, memory));
    }

    /// Hands memory that the delegate has by a handle over to its device, and takes it back: the processor's accesses rest meanwhile.
    pub fn pause_access(&self, pause: bool) -> Result<(), DelegateError> {
        for import in self.imports.iter().filter(|import| import.by_handle) {
            let paused = import.memory.pause(pause);
            paused.map_err(|error| {
                self.local
                    .error(Status::INTERNAL, format!("the system's access to memory: {error}"))
            })?;
        }
        Ok(())
    }

    /// Whether the delegate looks at a memory where the host sees it.
    #[cfg(target_os = "linux")]
    pub fn reads_mapped(&self, memory: &Arc<Memory>) -> bool {
        let by_handle = |import: &&Arc<Import>| import.by_handle && Arc::ptr_eq(&import.memory, memory);
        !self.imports.iter().any(|import| by_handle(&import))
    }

    /// The imported buffer that bytes lie in, and where in it.
    pub fn buffer_of(&self, data: *const u8, length: usize) -> (*mut c::Buffer, u64) {
        let mut found = self.imports.iter().filter_map(|import| {
            let offset = import.memory.offset_of(data, length)?;
            Some((import.buffer.as_ptr(), offset as u64))
        });
        found.next().unwrap_or((std::ptr::null_mut(), 0))
    }

    /// Runs once.
    ///
    /// # Safety
    /// The tensors are sound and stay so until this returns; no two outputs overlap, nor an output an input.
    pub unsafe fn execute(
        &mut self,
        inputs: &[*const c::Tensor],
        outputs: &[*mut c::Tensor],
        options: &CallOptions<'_>,
    ) -> Result<(), DelegateError> {
        let session = self.session;
        // SAFETY: as the caller says.
        self.local.call(options, |api, call| unsafe {
            api.session_execute.map(|f| {
                f(
                    session,
                    call,
                    inputs.as_ptr(),
                    inputs.len() as u64,
                    outputs.as_ptr(),
                    outputs.len() as u64,
                )
            })
        })
    }

    /// Does something to a state, or ends what a run did to all of them.
    pub fn state(&mut self, op: StateOp<'_>, options: &CallOptions<'_>) -> Result<(), DelegateError> {
        let session = self.session;
        // SAFETY: the session is loaded; bytes live until the call returns, and what is written is borrowed exclusively.
        self.local.call(options, |api, call| unsafe {
            match op {
                StateOp::Commit(accept) => api.session_state_commit.map(|f| f(session, call, u32::from(accept))),
                StateOp::Reset(state) => api.session_state_reset.map(|f| f(session, call, state)),
                StateOp::Truncate(state, length) => api.session_state_truncate.map(|f| f(session, call, state, length)),
                StateOp::Snapshot(state, out) => api
                    .session_state_snapshot
                    .map(|f| f(session, call, state, out.as_mut_ptr().cast(), out.len() as u64)),
                StateOp::Restore(state, bytes) => api
                    .session_state_restore
                    .map(|f| f(session, call, state, bytes.as_ptr().cast(), bytes.len() as u64)),
            }
        })
    }

    /// True if runs can go on while the caller does something else.
    pub fn submits(&self) -> bool {
        self.local.api.features[0] & c::Feature::ASYNC.0 != 0
    }

    /// Begins a run, calls `meanwhile`, and waits for the end.
    ///
    /// # Safety
    /// As [`LocalSession::execute`].
    pub unsafe fn submit<R>(
        &mut self,
        inputs: &[*const c::Tensor],
        outputs: &[*mut c::Tensor],
        options: &CallOptions<'_>,
        meanwhile: impl FnOnce(&Fence) -> R,
    ) -> (R, Result<(), DelegateError>) {
        let local = self.local.clone();
        let call = HostCall::new(local.host, &local.backend, options, local.parallel);
        let registered = Registered::new();
        let status = {
            let _serial = local.serial();
            let submit = local.api.session_submit;
            // SAFETY: as the caller says; the call and the tensors live until the fence is signalled, which is waited for below.
            let status = submit.map(|f| unsafe {
                f(
                    self.session,
                    call.as_ptr(),
                    inputs.as_ptr(),
                    inputs.len() as u64,
                    outputs.as_ptr(),
                    outputs.len() as u64,
                    registered.as_ptr(),
                )
            });
            status.unwrap_or(Status::UNSUPPORTED)
        };
        if status != Status::OK {
            let outcome = local.outcome(status, &call);
            registered.fence.signal(status, String::new());
            return (meanwhile(&registered.fence), outcome);
        }
        // Waits even when `meanwhile` panics: the run reads and writes what the caller lent.
        let end = WaitForEnd(&registered.fence);
        let result = meanwhile(&registered.fence);
        drop(end);
        let (status, message) = registered.fence.wait(None).unwrap_or((Status::INTERNAL, String::new()));
        let mut outcome = local.outcome(status, &call);
        if let Err(error) = &mut outcome
            && !message.is_empty()
        {
            error.message = message;
        }
        (result, outcome)
    }
}

struct WaitForEnd<'a>(&'a Fence);

impl Drop for WaitForEnd<'_> {
    fn drop(&mut self) {
        self.0.wait(None);
    }
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        let call = HostCall::new(
            self.local.host,
            &self.local.backend,
            &CallOptions::default(),
            Parallel::SERIAL,
        );
        if let Some(unload) = self.local.api.session_unload {
            let _serial = self.local.serial();
            // SAFETY: `session_load` made it, no run is under way, and it is not used again.
            unsafe { unload(self.session, call.as_ptr()) }
        }
    }
}

/// SHA-256 of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What can be done to a state that a session keeps, by its index in the graph.
pub(crate) enum StateOp<'a> {
    /// Ends what a run did to all states: its values count, or those before it.
    Commit(bool),
    Reset(u32),
    Truncate(u32, u64),
    Snapshot(u32, &'a mut [u8]),
    Restore(u32, &'a [u8]),
}

/// What an envelope says of a state that sessions keep.
fn kept_state(view: &ImageView<'_>, index: u32) -> Result<KeptState, String> {
    let state = view
        .state(index)
        .ok_or_else(|| format!("it keeps state {index}, which the graph does not have"))?;
    let value = view.inputs().get(state.input as usize).map(|value| view.value(value));
    // The image is verified: there is such an input, and it is a tensor.
    let (dtype, dims) = value.map_or((None, None), |value| (value.dtype(), value.const_dims()));
    let dims = dims.ok_or_else(|| format!("it keeps the state `{}`, whose sizes are not fixed", state.name))?;
    let bytes = dims
        .iter()
        .try_fold(dtype.and_then(|d| d.size()).unwrap_or(0) as u64, |bytes, size| {
            bytes.checked_mul(u64::try_from(*size).ok()?)
        });
    Ok(KeptState {
        state: index,
        name: state.name.to_string(),
        input: state.input,
        output: state.output,
        growth: state.growth_axis.map(|axis| (axis, dims[axis as usize] as u64)),
        bytes: bytes.ok_or_else(|| format!("the state `{}` is too large", state.name))?,
    })
}

/// SHA-256 of a graph's weights with their ids.
fn weights_hash(view: &ImageView<'_>, weights: &dyn Weights) -> [u8; 32] {
    let mut hash = Sha256::new();
    for weight in view.weights() {
        let bytes = weights.bytes(weight.id()).unwrap_or_default();
        hash.update(weight.id().to_le_bytes());
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash.finalize().into()
}

/// The envelope's metadata as the contract hands it over; borrows the envelope.
fn meta_struct(envelope: &Envelope<'_>) -> c::BlobMeta {
    let meta = &envelope.meta;
    let recorded = |hash: &[u8; 32]| match hash.iter().all(|byte| *byte == 0) {
        true => std::ptr::null(),
        false => hash.as_ptr(),
    };
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
        payload_size: envelope.payload_size(),
        driver_min: meta.driver_min.as_ptr(),
        driver_min_size: meta.driver_min.len() as u64,
        driver_max: meta.driver_max.as_ptr(),
        driver_max_size: meta.driver_max.len() as u64,
        options_hash: recorded(&meta.options_hash),
        weights_hash: recorded(&meta.weights_hash),
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
            kind: DeviceKind::of(raw.kind),
            name: text("a device's name", raw.name, raw.name_size)?,
            vendor: text("a device's vendor", raw.vendor, raw.vendor_size)?,
            arch: text("a device's arch", raw.arch, raw.arch_size)?,
            driver: text("a device's driver", raw.driver, raw.driver_size)?,
            memory: raw.memory,
        })
    }
}

/// What a compiler is given of a graph, and where its blob goes.
struct Given<'g> {
    view: &'g ImageView<'g>,
    weights: &'g dyn Weights,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    placed: Aligned<'g>,
    handle: Arc<WeightsHandle>,
    sink: BlobSink,
}

impl Given<'_> {
    /// As the contract hands it over; borrows this.
    fn graph(&self, target: &str) -> c::Graph {
        c::Graph {
            image: self.placed.bytes().as_ptr(),
            image_size: self.view.bytes().len() as u64,
            weights: self.handle.as_ptr(),
            target: target.as_ptr(),
            target_size: target.len() as u64,
            ..c::Graph::new()
        }
    }
}

/// A target as the contract hands it over; borrows the text.
fn target_of(target: &str) -> c::Target {
    c::Target {
        name: target.as_ptr(),
        name_size: target.len() as u64,
        ..c::Target::new()
    }
}

/// Alignment of a graph image, as the contract gives it.
const IMAGE_ALIGN: u32 = 8;
