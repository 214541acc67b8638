//! The host's side: a delegate in a worker process, which is started again when it died.

use super::process::{Process, Silence};
use super::protocol::{Failure, Limits, Reply, Request, SetGraph, Shared, Start, VERSION, WeightPlace, page};
use super::session::{Reload, RemoteSession};
use super::sys::{self, Map, Page};
use crate::call::{CallOptions, lock};
use crate::delegate::{BlobVerdict, Device, Info, Partition, Weights};
use crate::external::HandleType;
use crate::local::sha256;
use crate::trust::{CheckedFile, Library};
use crate::{DelegateError, SetError, WorkerOptions};
use delegraph_abi::Status;
use delegraph_abi::envelope::{self, Envelope};
use delegraph_abi::image::ImageView;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Deaths on one blob after which it is not tried any more.
const MOST_DEATHS: u32 = 3;
/// Time before a worker that died is started again; twice as long each time, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a call that may take its time waits for a start.
const PATIENCE: Duration = LONGEST_PAUSE;
/// What images lie at in their file.
const IMAGE_ALIGN: usize = 8;
/// Weights of at least so many bytes have a file of their own, so that regions share it.
const LARGE_WEIGHT: usize = 1 << 16;
/// Descriptors of a message that are not weights: the blob, its page, events, and the sections that lie elsewhere.
const OTHER_FILES: usize = 8 + MOST_APART;
/// Most sections of a blob that lie elsewhere, in a worker.
const MOST_APART: usize = 64;

/// What a worker is started for.
pub(crate) struct Spec {
    pub backend: String,
    /// With an absolute path. What was checked is what the worker loads, wherever the path leads by then.
    pub library: Library,
    /// Major of the ABI whose entry is used; `None`: the newest.
    pub abi_major: Option<u16>,
    pub options: Option<serde_json::Value>,
    pub worker: WorkerOptions,
    /// The worker binary; `None`: beside the program.
    pub binary: Option<PathBuf>,
    pub sandbox: super::Sandbox,
    pub log_level: u32,
}

/// A delegate in a process of its own.
pub(crate) struct Remote {
    backend: Arc<str>,
    spec: Spec,
    info: Info,
    slot: Mutex<Slot>,
    sessions: AtomicU64,
    /// Deaths by hash of the blob that ran.
    deaths: Mutex<HashMap<[u8; 32], u32>>,
    /// Files of large weights, by share key.
    files: Mutex<HashMap<[u64; 2], Weak<OwnedFd>>>,
    /// Files of sections that several blobs have, by hash.
    sections: Mutex<HashMap<[u8; 32], Weak<OwnedFd>>>,
}

struct Slot {
    process: Option<Arc<Process>>,
    generation: u64,
    /// Deaths since the last call that went well.
    deaths: u32,
    /// How the last one died.
    last: String,
    not_before: Instant,
}

impl Remote {
    /// Starts a worker and has it load the library.
    ///
    /// # Errors
    /// One sentence that says why it cannot be.
    pub fn start(spec: Spec) -> Result<Remote, String> {
        let backend: Arc<str> = spec.backend.as_str().into();
        let (process, info) = start(&spec, &backend, 1)?;
        Ok(Remote {
            backend,
            spec,
            info,
            slot: Mutex::new(Slot {
                process: Some(Arc::new(process)),
                generation: 1,
                deaths: 0,
                last: String::new(),
                not_before: Instant::now(),
            }),
            sessions: AtomicU64::new(0),
            deaths: Mutex::default(),
            files: Mutex::default(),
            sections: Mutex::default(),
        })
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The running worker; started again, if it may be.
    pub fn process(&self) -> Result<Arc<Process>, DelegateError> {
        let mut slot = lock(&self.slot);
        if let Some(process) = slot.process.as_ref().filter(|process| !process.is_dead()) {
            return Ok(process.clone());
        }
        slot.process = None;
        let wait = slot.not_before.saturating_duration_since(Instant::now());
        if wait > Duration::ZERO {
            let problem = format!(
                "{}; deaths in a row: {}, the next start is in {wait:.0?}",
                slot.last, slot.deaths
            );
            return Err(self.error(Status::NOT_READY, problem));
        }
        slot.generation += 1;
        match start(&self.spec, &self.backend, slot.generation) {
            Ok((process, info)) if info == self.info => {
                let process = Arc::new(process);
                slot.process = Some(process.clone());
                Ok(process)
            }
            Ok(_) => Err(self.error(
                Status::DEVICE_LOST,
                "the library has become another since its process was started",
            )),
            Err(problem) => {
                pause(&mut slot, &problem);
                Err(self.error(Status::NOT_READY, problem))
            }
        }
    }

    /// [`Remote::process`], for calls that may take their time: waits for a start that is not far away.
    fn process_in_time(&self, options: &CallOptions<'_>) -> Result<Arc<Process>, DelegateError> {
        let wait = lock(&self.slot).not_before.saturating_duration_since(Instant::now());
        let in_time = options.deadline.is_none_or(|deadline| Instant::now() + wait < deadline);
        if wait <= PATIENCE && in_time && !options.is_cancelled() {
            std::thread::sleep(wait);
        }
        self.process()
    }

    /// Puts down that a worker died, on a blob where it was running one. Gives the error for whoever waited.
    pub fn died(&self, process: &Process, silence: &Silence, blob: Option<&[u8; 32]>, doing: &str) -> DelegateError {
        let how = process.end();
        let (code, problem) = match silence {
            Silence::Died(_) => (Status::NOT_READY, format!("its process died in {doing}: {how}")),
            Silence::Late => (
                Status::TIMEOUT,
                format!("{doing} did not end by its deadline; its process was ended"),
            ),
            Silence::Unwanted => (
                Status::CANCELLED,
                format!("{doing} did not stop when it was cancelled; its process was ended"),
            ),
        };
        let mut slot = lock(&self.slot);
        if slot
            .process
            .as_ref()
            .is_some_and(|current| current.generation == process.generation)
        {
            slot.process = None;
            pause(&mut slot, &problem);
        }
        drop(slot);
        let mut error = self.error(code, problem);
        if let Some(blob) = blob.filter(|_| !matches!(silence, Silence::Unwanted)) {
            let mut deaths = lock(&self.deaths);
            let count = deaths.entry(*blob).or_default();
            *count += 1;
            if *count >= MOST_DEATHS {
                error.code = Status::DEVICE_LOST;
                error.message = format!("{}; this blob is not tried any more after {count} times", error.message);
            }
        }
        error
    }

    /// Refuses a blob that has killed too many workers.
    pub fn check_quarantine(&self, blob: &[u8; 32]) -> Result<(), DelegateError> {
        match lock(&self.deaths).get(blob) {
            Some(count) if *count >= MOST_DEATHS => {
                let problem = format!("quarantined: its process died {count} times on this blob");
                Err(self.error(Status::DEVICE_LOST, problem))
            }
            _ => Ok(()),
        }
    }

    /// A call went well.
    pub fn well(&self) {
        let mut slot = lock(&self.slot);
        slot.deaths = 0;
    }

    fn ask(
        &self,
        process: &Process,
        request: &Request,
        files: &[BorrowedFd<'_>],
        options: &CallOptions<'_>,
        blob: Option<&[u8; 32]>,
        doing: &str,
    ) -> Result<(Reply, Vec<OwnedFd>), DelegateError> {
        match process.ask(request, files, options) {
            Ok((Reply::Failed(failure), _)) => Err(self.failed(failure)),
            Ok(reply) => {
                self.well();
                Ok(reply)
            }
            Err(silence) => Err(self.died(process, &silence, blob, doing)),
        }
    }

    pub fn devices(&self) -> Result<Vec<Device>, DelegateError> {
        let options = self.with_deadline(&CallOptions::default(), self.spec.worker.call_limit);
        match self.ask(
            &*self.process()?,
            &Request::Devices,
            &[],
            &options,
            None,
            "`device_enumerate`",
        )? {
            (Reply::Devices(devices), _) => Ok(devices),
            _ => Err(self.out_of_turn()),
        }
    }

    pub fn partition(
        &self,
        view: &ImageView<'_>,
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Partition, DelegateError> {
        let options = self.with_deadline(options, self.spec.worker.compile_limit);
        let image = self.sealed("delegraph-image", &[view.bytes()])?;
        let request = Request::Partition {
            target: target.to_string(),
            limits: limits(&options),
        };
        let process = self.process_in_time(&options)?;
        let reply = self.ask(&process, &request, &[image.as_fd()], &options, None, "`partition`")?;
        match reply {
            (Reply::Partition(partition), _) if sound(&partition, view.node_count()) => Ok(partition),
            _ => Err(self.out_of_turn()),
        }
    }

    pub fn compile(
        &self,
        view: &ImageView<'_>,
        weights: &dyn Weights,
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Vec<u8>, DelegateError> {
        let options = self.with_deadline(options, self.spec.worker.compile_limit);
        let image = self.sealed("delegraph-image", &[view.bytes()])?;
        let ids: Vec<u32> = view.weights().map(|weight| weight.id()).collect();
        let (places, files) = self.weight_files(&ids, weights)?;
        let request = Request::Compile {
            target: target.to_string(),
            weights: places,
            limits: limits(&options),
        };
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(image.as_fd())
            .chain(files.iter().map(|file| file.as_fd()))
            .collect();
        let process = self.process_in_time(&options)?;
        let graph = sha256(view.bytes());
        let reply = self.ask(&process, &request, &descriptors, &options, None, "`compile`")?;
        let (Reply::Compiled, files) = reply else {
            return Err(self.out_of_turn());
        };
        let blob = files.first().ok_or_else(|| self.out_of_turn())?;
        let blob = Map::sealed(blob)
            .map_err(|error| self.failure(&error))?
            .bytes()
            .to_vec();
        self.check_origin(&blob, &graph)?;
        Ok(blob)
    }

    /// It comes from a stranger: that it is a blob of this graph is checked as it is for a file.
    fn check_origin(&self, blob: &[u8], graph: &[u8; 32]) -> Result<(), DelegateError> {
        let envelope = envelope::parse(blob).map_err(|error| self.error(Status::INTERNAL, error.to_string()))?;
        let whole = sha256(envelope.payload) == envelope.payload_hash && envelope.apart.is_empty();
        if !whole || envelope.meta.delegate != *self.backend || envelope.meta.graph_hash != *graph {
            return Err(self.error(Status::INTERNAL, "its process gave a blob of something else"));
        }
        Ok(())
    }

    pub fn compile_set(
        &self,
        graphs: &[(ImageView<'_>, &dyn Weights)],
        target: &str,
        options: &CallOptions<'_>,
    ) -> Result<Vec<Vec<u8>>, SetError> {
        let options = self.with_deadline(options, self.spec.worker.compile_limit);
        let zeros = [0; IMAGE_ALIGN];
        let mut images: Vec<&[u8]> = Vec::new();
        let mut request: Vec<SetGraph> = Vec::with_capacity(graphs.len());
        let mut end = 0;
        for (view, _) in graphs {
            let image = view.bytes();
            let padding = image.len().next_multiple_of(IMAGE_ALIGN) - image.len();
            images.extend([image, &zeros[..padding]]);
            request.push(SetGraph {
                image: (end as u64, image.len() as u64),
                weights: Vec::new(),
            });
            end += image.len() + padding;
        }
        let together = Together::of(graphs);
        let ids = together.ids();
        let (places, files) = self.weight_files(&ids, &together)?;
        for place in places {
            let (graph, id) = together.0[place.id as usize].0;
            request[graph].weights.push(WeightPlace { id, ..place });
        }
        let images = self.sealed("delegraph-images", &images)?;
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(images.as_fd())
            .chain(files.iter().map(|file| file.as_fd()))
            .collect();
        let request = Request::CompileSet {
            target: target.to_string(),
            graphs: request,
            limits: limits(&options),
        };
        let process = self.process_in_time(&options)?;
        let asked = process.ask(&request, &descriptors, &options);
        let (sizes, files) = match asked {
            Ok((Reply::Failed(failure), _)) => {
                let graph = failure.graph.and_then(|graph| usize::try_from(graph).ok());
                return Err(SetError {
                    graph: graph.filter(|graph| *graph < graphs.len()),
                    error: self.failed(failure),
                });
            }
            Ok((Reply::CompiledSet(sizes), files)) if sizes.len() == graphs.len() => (sizes, files),
            Ok(_) => return Err(self.out_of_turn().into()),
            Err(silence) => return Err(self.died(&process, &silence, None, "`compile_set`").into()),
        };
        self.well();
        let map = files.first().ok_or_else(|| self.out_of_turn())?;
        let map = Map::sealed(map).map_err(|error| self.failure(&error))?;
        let mut rest = map.bytes();
        let mut blobs = Vec::with_capacity(graphs.len());
        for (size, (view, _)) in sizes.into_iter().zip(graphs) {
            let size = usize::try_from(size).ok().filter(|size| *size <= rest.len());
            let (blob, after) = rest.split_at(size.ok_or_else(|| self.out_of_turn())?);
            self.check_origin(blob, &sha256(view.bytes()))?;
            blobs.push(blob.to_vec());
            rest = after;
        }
        Ok(blobs)
    }

    pub fn check_blob(&self, blob: &[u8]) -> Result<BlobVerdict, DelegateError> {
        let options = self.with_deadline(&CallOptions::default(), self.spec.worker.call_limit);
        let file = self.sealed("delegraph-blob", &[blob])?;
        let process = self.process_in_time(&options)?;
        match self.ask(
            &process,
            &Request::Check,
            &[file.as_fd()],
            &options,
            None,
            "`blob_check`",
        )? {
            (Reply::Checked(verdict), _) => Ok(verdict),
            _ => Err(self.out_of_turn()),
        }
    }

    pub fn load(
        self: &Arc<Self>,
        blob: &[u8],
        envelope: &Envelope<'_>,
        weights: Arc<dyn Weights>,
        device: Option<u32>,
        options: &CallOptions<'_>,
    ) -> Result<RemoteSession, DelegateError> {
        let (places, files) = self.weight_files(&weights.ids(), &*weights)?;
        if envelope.apart.len() > MOST_APART {
            let problem = format!("more than {MOST_APART} sections of the blob lie elsewhere");
            return Err(self.error(Status::BLOB_INCOMPATIBLE, problem));
        }
        let apart = envelope.apart.iter().map(|apart| {
            let bytes = envelope.sections[apart.section].bytes;
            Ok((apart.hash, self.section_file(apart.hash, bytes)?))
        });
        let reload = Reload {
            apart: apart.collect::<Result<_, DelegateError>>()?,
            blob: self.sealed("delegraph-blob", &[blob])?,
            hash: identity(envelope),
            places,
            files,
            device,
            tensors: envelope.meta.inputs.len() + envelope.meta.outputs.len(),
            keeps_states: !envelope.meta.states.is_empty(),
        };
        let process = self.process_in_time(options)?;
        let (number, loaded) = self.load_in(&process, &reload, options)?;
        Ok(RemoteSession::new(self.clone(), process, number, loaded, reload))
    }

    /// Loads a blob in a worker: the session's number, page and events.
    pub fn load_in(
        &self,
        process: &Process,
        reload: &Reload,
        options: &CallOptions<'_>,
    ) -> Result<(u64, super::session::Loaded), DelegateError> {
        self.check_quarantine(&reload.hash)?;
        let options = self.with_deadline(options, self.spec.worker.compile_limit);
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let failure = |error: std::io::Error| self.failure(&error);
        let loaded = super::session::Loaded {
            page: Page::new(page::words(reload.tensors)).map_err(failure)?,
            asked: sys::event().map_err(failure)?,
            answered: sys::event().map_err(failure)?,
        };
        let request = Request::Load {
            session: number,
            device: reload.device,
            apart: reload.apart.iter().map(|(hash, _)| *hash).collect(),
            weights: reload.places.clone(),
            tensors: reload.tensors as u64,
            limits: limits(&options),
        };
        let own = [
            reload.blob.as_fd(),
            loaded.page.file.as_fd(),
            loaded.asked.as_fd(),
            loaded.answered.as_fd(),
        ];
        let files: Vec<BorrowedFd<'_>> = own
            .into_iter()
            .chain(reload.apart.iter().map(|(_, file)| file.as_fd()))
            .chain(reload.files.iter().map(|file| file.as_fd()))
            .collect();
        match self.ask(
            process,
            &request,
            &files,
            &options,
            Some(&reload.hash),
            "`session_load`",
        )? {
            (Reply::Done, _) => Ok((number, loaded)),
            _ => Err(self.out_of_turn()),
        }
    }

    /// Shows a memory to a session of a worker. True if it maps it.
    pub fn share(&self, process: &Process, session: u64, memory: &crate::Memory) -> Result<(), DelegateError> {
        let options = self.with_deadline(&CallOptions::default(), self.spec.worker.call_limit);
        let Some((file, kind)) = memory.shareable() else {
            return Err(self.error(Status::UNSUPPORTED, "no other process can map this memory"));
        };
        let request = Request::Share {
            session,
            size: memory.size() as u64,
            kind: match kind {
                None => Shared::Own,
                Some(HandleType::DmaBuf) => Shared::DmaBuf,
                Some(_) => Shared::Memfd,
            },
        };
        match self.ask(process, &request, &[file], &options, None, "`buffer_import`")? {
            (Reply::Done, _) => Ok(()),
            _ => Err(self.out_of_turn()),
        }
    }

    /// Has a session of a worker forget a memory; the numbers of others stay.
    pub fn unshare(&self, process: &Process, session: u64, number: usize) -> Result<(), DelegateError> {
        let options = self.with_deadline(&CallOptions::default(), self.spec.worker.call_limit);
        let number = number as u64;
        let request = Request::Unshare { session, number };
        match self.ask(process, &request, &[], &options, None, "`buffer_release`")? {
            (Reply::Done, _) => Ok(()),
            _ => Err(self.out_of_turn()),
        }
    }

    pub fn unload(&self, process: &Process, session: u64) {
        if !process.is_dead() {
            let options = self.with_deadline(&CallOptions::default(), self.spec.worker.call_limit);
            let _ = self.ask(
                process,
                &Request::Unload { session },
                &[],
                &options,
                None,
                "`session_unload`",
            );
        }
    }

    /// The limit of a run, where the caller gives none.
    pub fn run_options<'a>(&self, options: &CallOptions<'a>) -> CallOptions<'a> {
        self.with_deadline(options, self.spec.worker.run_limit)
    }

    fn with_deadline<'a>(&self, options: &CallOptions<'a>, limit: Duration) -> CallOptions<'a> {
        CallOptions {
            deadline: options.deadline.or_else(|| Instant::now().checked_add(limit)),
            ..*options
        }
    }

    /// Files that hold the weights, and where each lies. Large ones are shared by all who name the same key.
    fn weight_files(
        &self,
        ids: &[u32],
        weights: &dyn Weights,
    ) -> Result<(Vec<WeightPlace>, Vec<Arc<OwnedFd>>), DelegateError> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut places = Vec::new();
        let mut files: Vec<Arc<OwnedFd>> = Vec::new();
        let mut by_key: BTreeMap<[u64; 2], u32> = BTreeMap::new();
        let mut rest: Vec<(u32, &[u8], Option<[u64; 2]>)> = Vec::new();
        for id in ids {
            let Some(bytes) = weights.bytes(id) else { continue };
            let key = weights.share_key(id);
            let Some(shared) =
                key.filter(|_| bytes.len() >= LARGE_WEIGHT && files.len() + OTHER_FILES < sys::MAX_FILES)
            else {
                rest.push((id, bytes, key));
                continue;
            };
            let file = match by_key.get(&shared) {
                Some(file) => *file,
                None => {
                    files.push(self.shared_file(shared, bytes)?);
                    by_key.insert(shared, files.len() as u32 - 1);
                    files.len() as u32 - 1
                }
            };
            places.push(WeightPlace {
                id,
                file,
                offset: 0,
                size: bytes.len() as u64,
                key,
            });
        }
        if !rest.is_empty() {
            let zeros = [0; 64];
            let mut parts: Vec<&[u8]> = Vec::new();
            let mut end = 0;
            for (id, bytes, key) in rest {
                places.push(WeightPlace {
                    id,
                    file: files.len() as u32,
                    offset: end as u64,
                    size: bytes.len() as u64,
                    key,
                });
                let padding = bytes.len().next_multiple_of(64) - bytes.len();
                parts.extend([bytes, &zeros[..padding]]);
                end += bytes.len() + padding;
            }
            files.push(Arc::new(self.sealed("delegraph-weights", &parts)?));
        }
        Ok((places, files))
    }

    fn shared_file(&self, key: [u64; 2], bytes: &[u8]) -> Result<Arc<OwnedFd>, DelegateError> {
        let mut files = lock(&self.files);
        files.retain(|_, file| file.strong_count() > 0);
        if let Some(file) = files.get(&key).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(self.sealed("delegraph-weight", &[bytes])?);
        files.insert(key, Arc::downgrade(&file));
        Ok(file)
    }

    fn section_file(&self, hash: [u8; 32], bytes: &[u8]) -> Result<Arc<OwnedFd>, DelegateError> {
        let mut files = lock(&self.sections);
        files.retain(|_, file| file.strong_count() > 0);
        if let Some(file) = files.get(&hash).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(self.sealed("delegraph-section", &[bytes])?);
        files.insert(hash, Arc::downgrade(&file));
        Ok(file)
    }

    fn sealed(&self, name: &str, parts: &[&[u8]]) -> Result<OwnedFd, DelegateError> {
        sys::sealed_file(name, parts).map_err(|error| self.failure(&error))
    }

    pub fn failure(&self, error: &std::io::Error) -> DelegateError {
        self.error(Status::OUT_OF_MEMORY, format!("memory for its process: {error}"))
    }

    fn failed(&self, failure: Failure) -> DelegateError {
        let mut error = self.error(Status(failure.code), failure.message);
        error.vendor_code = failure.vendor_code;
        error.node = failure.node;
        error.hint = failure.hint;
        error
    }

    fn out_of_turn(&self) -> DelegateError {
        self.error(Status::INTERNAL, "its process answered something that was not asked")
    }

    pub fn error(&self, code: Status, message: impl Into<String>) -> DelegateError {
        DelegateError::new(&self.backend, code, message)
    }
}

/// What tells a blob from others: its bytes, wherever they lie.
fn identity(envelope: &Envelope<'_>) -> [u8; 32] {
    match envelope.apart.is_empty() {
        true => envelope.payload_hash,
        false => {
            let apart = envelope.apart.iter().flat_map(|apart| apart.hash);
            let bytes: Vec<u8> = envelope.payload_hash.into_iter().chain(apart).collect();
            sha256(&bytes)
        }
    }
}

/// The weights of several graphs, numbered through: each with its graph and its id there.
struct Together<'w>(Vec<((usize, u32), &'w dyn Weights)>);

impl<'w> Together<'w> {
    fn of(graphs: &[(ImageView<'_>, &'w dyn Weights)]) -> Together<'w> {
        let of_graph = |(graph, (view, weights)): (usize, &(ImageView<'_>, &'w dyn Weights))| {
            let mut ids: Vec<u32> = view.weights().map(|weight| weight.id()).collect();
            ids.sort_unstable();
            ids.dedup();
            let weights = *weights;
            ids.into_iter().map(move |id| ((graph, id), weights))
        };
        Together(graphs.iter().enumerate().flat_map(of_graph).collect())
    }
}

impl Weights for Together<'_> {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        let ((_, own), weights) = self.0.get(id as usize)?;
        weights.bytes(*own)
    }

    fn ids(&self) -> Vec<u32> {
        (0..self.0.len() as u32).collect()
    }

    fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        let ((_, own), weights) = self.0.get(id as usize)?;
        weights.share_key(*own)
    }
}

fn pause(slot: &mut Slot, how: &str) {
    slot.deaths += 1;
    slot.last = how.to_string();
    let pause = PAUSE.saturating_mul(1 << (slot.deaths - 1).min(16)).min(LONGEST_PAUSE);
    slot.not_before = Instant::now() + pause;
}

fn start(spec: &Spec, backend: &Arc<str>, generation: u64) -> Result<(Process, Info), String> {
    let binary = super::binary(spec.binary.as_deref())?;
    let process = Process::start(&binary, backend, generation, spec.sandbox.temp)
        .map_err(|error| format!("the worker `{}` cannot be started: {error}", binary.display()))?;
    let checked: Vec<&CheckedFile> = match &spec.library {
        Library::AsFound(_) => Vec::new(),
        Library::Checked(library) => [library.file()].into_iter().chain(library.dependents()).collect(),
    };
    let request = Request::Start(Start {
        version: VERSION,
        library: spec.library.path().to_path_buf(),
        abi_major: spec.abi_major,
        checked: checked
            .iter()
            .map(|file| (file.path().to_path_buf(), file.sha256()))
            .collect(),
        options: spec.options.clone(),
        threads: spec.worker.threads,
        log_level: spec.log_level,
        sandbox: spec.sandbox.clone(),
        temp: process.temp().map(std::path::Path::to_path_buf),
        memory: spec.worker.memory,
    });
    let files: Vec<BorrowedFd<'_>> = checked
        .iter()
        .map(|file| file.file().as_fd())
        .chain([process.control()])
        .collect();
    let options = CallOptions {
        deadline: Instant::now().checked_add(spec.worker.compile_limit),
        ..CallOptions::default()
    };
    match process.ask(&request, &files, &options) {
        Ok((Reply::Started(info), _)) if info.name == **backend => Ok((process, *info)),
        Ok((Reply::Started(info), _)) => Err(format!("it is the delegate `{}`, not `{backend}`", info.name)),
        Ok((Reply::Failed(failure), _)) => {
            let hint = match failure.hint.as_str() {
                "" => String::new(),
                hint => format!(" ({hint})"),
            };
            Err(format!("{}{hint}", failure.message))
        }
        Ok(_) => Err("its process answered something that was not asked".to_string()),
        Err(Silence::Late | Silence::Unwanted) => {
            Err("it did not start within its limit; its process was ended".to_string())
        }
        Err(Silence::Died(how)) => Err(format!("its process died while it was loaded: {how}")),
    }
}

fn limits(options: &CallOptions<'_>) -> Limits {
    Limits {
        time_left_ns: options.deadline.map(|_| options.time_left_ns()),
        correlation: options.correlation,
        threads: options.parallel.map(|parallel| parallel.threads()),
        wants_progress: options.progress.is_some(),
    }
}

/// One verdict a node, and sets of nodes that are there.
fn sound(partition: &Partition, nodes: u32) -> bool {
    let sets = partition.atomic_sets.iter().flatten();
    partition.verdicts.len() == nodes as usize && sets.into_iter().all(|node| *node < nodes)
}
