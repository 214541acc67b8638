//! The worker's side: loads one library, and does what the host asks for.

use super::protocol::{Failure, Limits, Reply, Request, Shared, Start, VERSION, WeightPlace, control};
use super::sys::{self, Map, Page};
use crate::blob::BlobSource;
use crate::call::{CallOptions, Progress, lock};
use crate::delegate::Weights;
use crate::external::Handle;
use crate::local::Local;
use crate::trust::{CheckedFile, CheckedLibrary, Library};
use crate::{DelegateError, Memory, SetError, loader};
use delegraph_abi::Status;
use delegraph_abi::c::LogLevel;
use delegraph_abi::envelope;
use delegraph_abi::image::{ImageView, verify};
use delegraph_types::Parallel;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where replies go: log lines come from any thread.
static OUT: OnceLock<Mutex<UnixStream>> = OnceLock::new();

/// Serves the host at the other end of standard input until it hangs up. `threads` gives leave to use so many threads of the
/// process's pool.
///
/// # Errors
/// Standard input is no socket of a host, or the host speaks another version.
pub fn serve(threads: fn(usize) -> Parallel) -> std::io::Result<()> {
    // Whoever made the socket is gone: nobody is served.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // SAFETY: descriptor 0 is this process's own; it is given up here, and nothing else uses standard input.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    // Descriptor 0 stays taken, or the next file would be somebody's standard input.
    let _ = OUT.set(Mutex::new(socket.try_clone()?));
    let mut worker: Option<Worker> = None;
    while let Some((bytes, files)) = sys::receive(&socket)? {
        let request: Request = serde_json::from_slice(&bytes).map_err(std::io::Error::other)?;
        let (reply, file) = match (request, &mut worker) {
            (Request::Start(start), none @ None) => match Worker::start(start, files, threads) {
                Ok((started, info)) => {
                    *none = Some(started);
                    (Reply::Started(Box::new(info)), None)
                }
                Err(failure) => (Reply::Failed(failure), None),
            },
            (request, Some(worker)) => worker
                .answer(request, files)
                .unwrap_or_else(|f| (Reply::Failed(f), None)),
            (_, None) => return Err(std::io::Error::other("nothing was started")),
        };
        let file = file.as_ref().map(|file| file.as_fd());
        say(&reply, file.as_slice())?;
    }
    // Sessions end before their delegate, which is shut down.
    drop(worker);
    Ok(())
}

fn say(reply: &Reply, files: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(reply).map_err(std::io::Error::other)?;
    match OUT.get() {
        Some(out) => sys::send(&lock(out), &bytes, files),
        None => Ok(()),
    }
}

fn log_line(_backend: &str, level: LogLevel, text: &str) {
    let text = text.to_string();
    let _ = say(&Reply::Log { level: level.0, text }, &[]);
}

fn failure(code: Status, message: impl Into<String>) -> Failure {
    Failure {
        code: code.0,
        message: message.into(),
        ..Failure::default()
    }
}

impl From<DelegateError> for Failure {
    fn from(error: DelegateError) -> Failure {
        Failure {
            code: error.code.0,
            vendor_code: error.vendor_code,
            node: error.node,
            graph: None,
            message: error.message,
            hint: error.hint,
        }
    }
}

impl From<SetError> for Failure {
    fn from(SetError { graph, error }: SetError) -> Failure {
        Failure {
            graph: graph.map(|graph| graph as u64),
            ..Failure::from(error)
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        failure(Status::INVALID_ARGUMENT, format!("what came from the host: {error}"))
    }
}

/// What is to be loaded: the files that the host checked, or what lies at the path.
fn library_of(start: &Start, files: &mut impl Iterator<Item = OwnedFd>) -> Result<Library, String> {
    let mut checked = Vec::new();
    for (path, sha256) in &start.checked {
        let file = files.next().ok_or("a checked file did not come")?;
        checked.push(CheckedFile::received(path, file.into(), *sha256)?);
    }
    let mut checked = checked.into_iter();
    Ok(match checked.next() {
        Some(library) => Library::Checked(CheckedLibrary::received(library, checked.collect())),
        None => Library::AsFound(start.library.clone()),
    })
}

/// The delegate and its sessions.
struct Worker {
    sessions: BTreeMap<u64, Session>,
    local: Arc<Local>,
    control: Arc<Page>,
    granted: Parallel,
    threads: fn(usize) -> Parallel,
}

struct Session {
    shared: Arc<super::serve_session::Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn start(
        start: Start,
        files: Vec<OwnedFd>,
        threads: fn(usize) -> Parallel,
    ) -> Result<(Worker, crate::Info), Failure> {
        let refuse = |why: String| failure(Status::INVALID_ARGUMENT, why);
        if start.version != VERSION {
            return Err(refuse(format!(
                "the worker is of version {VERSION}, the host of {}",
                start.version
            )));
        }
        crate::set_logger(LogLevel(start.log_level), log_line);
        let mut files = files.into_iter();
        let library = library_of(&start, &mut files).map_err(refuse)?;
        let page = files.next().ok_or_else(|| refuse("no control page came".to_string()))?;
        let control = Arc::new(Page::of(page, control::WORDS)?);
        super::sandbox::limit_memory(start.memory)?;
        if start.sandbox.starts_programs() {
            sys::end_group_with_parent()?;
        }
        // Before anything of the vendor's runs: a library's initializers run when it is loaded.
        super::sandbox::enter(&start.sandbox, &start.library, start.temp.as_deref()).map_err(refuse)?;
        let entry = loader::load(library).and_then(|entries| entries.of(start.abi_major));
        // SAFETY: that the library keeps the contract where it cannot be checked is what loading it rests on.
        let handshake = unsafe { loader::shake_hands(entry.map_err(refuse)?, None) }.map_err(refuse)?;
        let granted = threads(start.threads);
        let local = Local::start(handshake, start.options.as_ref(), granted).map_err(|error| {
            let mut failure = Failure::from(error);
            failure.message = format!("it did not start: {}", failure.message);
            failure
        })?;
        let info = local.info.clone();
        let worker = Worker {
            sessions: BTreeMap::new(),
            local: Arc::new(local),
            control,
            granted,
            threads,
        };
        Ok((worker, info))
    }

    fn answer(&mut self, request: Request, files: Vec<OwnedFd>) -> Result<(Reply, Option<OwnedFd>), Failure> {
        let missing = || failure(Status::INVALID_ARGUMENT, "a descriptor did not come");
        let mut files = files.into_iter();
        let mut next = || files.next().ok_or_else(missing);
        let reply = match request {
            Request::Start(_) => return Err(failure(Status::INVALID_ARGUMENT, "it has started already")),
            Request::Devices => Reply::Devices(self.local.devices()?),
            Request::Partition { target, limits } => {
                let image = Map::sealed(&next()?)?;
                let view = verify(image.bytes()).map_err(|e| failure(Status::INVALID_ARGUMENT, e.to_string()))?;
                Reply::Partition(self.limited(limits, |options| self.local.partition(&view, &target, options))?)
            }
            Request::Compile {
                target,
                weights,
                limits,
            } => {
                let image = Map::sealed(&next()?)?;
                let view = verify(image.bytes()).map_err(|e| failure(Status::INVALID_ARGUMENT, e.to_string()))?;
                let weights = MappedWeights::new(&weights, files)?;
                let blob = self.limited(limits, |options| self.local.compile(&view, &weights, &target, options))?;
                return Ok((Reply::Compiled, Some(sys::sealed_file("delegraph-blob", &[&blob])?)));
            }
            Request::CompileSet { target, graphs, limits } => {
                let images = Map::sealed(&next()?)?;
                let maps = MappedWeights::map(files)?;
                let mut given = Vec::with_capacity(graphs.len());
                for graph in &graphs {
                    let image = part(images.bytes(), graph.image).ok_or_else(missing)?;
                    let view = verify(image).map_err(|e| failure(Status::INVALID_ARGUMENT, e.to_string()))?;
                    given.push((view, MappedWeights::of(maps.clone(), &graph.weights)?));
                }
                let given: Vec<(ImageView<'_>, &dyn Weights)> = given
                    .iter()
                    .map(|(view, weights)| (*view, weights as &dyn Weights))
                    .collect();
                let blobs = self.limited(limits, |options| self.local.compile_set(&given, &target, options))?;
                let sizes = blobs.iter().map(|blob| blob.len() as u64).collect();
                let parts: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
                let file = sys::sealed_file("delegraph-blobs", &parts)?;
                return Ok((Reply::CompiledSet(sizes), Some(file)));
            }
            Request::Check => {
                let blob = Map::sealed(&next()?)?;
                let envelope = envelope::parse(blob.bytes());
                let envelope = envelope.map_err(|e| failure(Status::BLOB_CORRUPT, e.to_string()))?;
                Reply::Checked(self.local.check_blob(&envelope)?)
            }
            Request::Load {
                session,
                device,
                apart,
                weights,
                tensors,
                limits,
            } => {
                let blob = Map::sealed(&next()?)?;
                let (page, asked, answered) = (next()?, next()?, next()?);
                let sections: BTreeMap<[u8; 32], Map> = apart
                    .into_iter()
                    .map(|hash| Ok((hash, Map::sealed(&next()?)?)))
                    .collect::<Result<_, Failure>>()?;
                let source: Arc<dyn BlobSource> = Arc::new(MappedBlob { blob, sections });
                let envelope = envelope::parse(source.blob());
                let mut envelope = envelope.map_err(|e| failure(Status::BLOB_CORRUPT, e.to_string()))?;
                // The host has compared the hashes.
                envelope
                    .resolve(&|hash| source.section(hash))
                    .map_err(|e| failure(Status::BLOB_CORRUPT, e.to_string()))?;
                let weights = Arc::new(MappedWeights::new(&weights, files)?);
                let loaded = self.limited(limits, |options| {
                    let kept = Some(source.clone());
                    self.local.load(&envelope, kept, weights.clone(), device, options)
                })?;
                let outputs = envelope.meta.outputs.len();
                let shared = super::serve_session::Shared::new(page, asked, answered, tensors as usize, outputs)?;
                let shared = Arc::new(shared);
                let thread =
                    super::serve_session::spawn(shared.clone(), loaded, self.local.backend.clone(), self.threads)?;
                let thread = Some(thread);
                self.sessions.insert(session, Session { shared, thread });
                Reply::Done
            }
            Request::Share { session, size, kind } => {
                let memory = match kind {
                    Shared::Own => Memory::of(next()?, size),
                    Shared::Memfd => Handle::memfd(next()?).and_then(Memory::of_handle),
                    Shared::DmaBuf => Handle::dma_buf(next()?).and_then(Memory::of_handle),
                }?;
                let session = self.sessions.get(&session);
                let session = session.ok_or_else(|| failure(Status::NOT_FOUND, "there is no such session"))?;
                session.shared.add(Arc::new(memory));
                Reply::Done
            }
            Request::Unshare { session, number } => {
                let session = self.sessions.get(&session);
                let session = session.ok_or_else(|| failure(Status::NOT_FOUND, "there is no such session"))?;
                session.shared.forget(number);
                Reply::Done
            }
            Request::Unload { session } => {
                self.sessions.remove(&session);
                Reply::Done
            }
        };
        Ok((reply, None))
    }

    /// Makes a call that keeps to the host's limits.
    fn limited<T, E>(&self, limits: Limits, call: impl FnOnce(&CallOptions<'_>) -> Result<T, E>) -> Result<T, E> {
        let cancelled = || self.control.get(control::CANCEL) != 0;
        let progress = |progress: Progress<'_>| {
            let Progress { done, total, text } = progress;
            let text = text.to_string();
            let _ = say(&Reply::Progress { done, total, text }, &[]);
        };
        let options = CallOptions {
            parallel: Some(limits.threads.map_or(self.granted, self.threads)),
            cancel: Some(&cancelled),
            deadline: limits
                .time_left_ns
                .and_then(|left| Instant::now().checked_add(Duration::from_nanos(left))),
            correlation: limits.correlation,
            progress: limits.wants_progress.then_some(&progress),
            profile: None,
        };
        call(&options)
    }
}

/// The bytes at an offset, of a size.
fn part(bytes: &[u8], (offset, size): (u64, u64)) -> Option<&[u8]> {
    let bytes = bytes.get(usize::try_from(offset).ok()?..)?;
    bytes.get(..usize::try_from(size).ok()?)
}

/// A blob in sealed files: mapped as long as the delegate keeps it.
struct MappedBlob {
    blob: Map,
    /// The sections that lie elsewhere, by hash.
    sections: BTreeMap<[u8; 32], Map>,
}

impl BlobSource for MappedBlob {
    fn blob(&self) -> &[u8] {
        self.blob.bytes()
    }

    fn section(&self, hash: &[u8; 32]) -> Option<&[u8]> {
        self.sections.get(hash).map(Map::bytes)
    }
}

/// Weights in sealed files.
struct MappedWeights {
    maps: Arc<Vec<Map>>,
    places: BTreeMap<u32, WeightPlace>,
}

impl MappedWeights {
    fn new(places: &[WeightPlace], files: impl Iterator<Item = OwnedFd>) -> Result<MappedWeights, Failure> {
        MappedWeights::of(MappedWeights::map(files)?, places)
    }

    /// The files that graphs of a set share.
    fn map(files: impl Iterator<Item = OwnedFd>) -> Result<Arc<Vec<Map>>, Failure> {
        let maps = files.map(|file| Map::sealed(&file)).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(maps))
    }

    fn of(maps: Arc<Vec<Map>>, places: &[WeightPlace]) -> Result<MappedWeights, Failure> {
        for place in places {
            let map = maps.get(place.file as usize);
            let end = place.offset.checked_add(place.size);
            if map.is_none_or(|map| end.is_none_or(|end| end > map.bytes().len() as u64)) {
                return Err(failure(
                    Status::INVALID_ARGUMENT,
                    format!("weight {} lies outside of its file", place.id),
                ));
            }
        }
        let places = places.iter().map(|place| (place.id, *place)).collect();
        Ok(MappedWeights { maps, places })
    }
}

impl Weights for MappedWeights {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        let place = self.places.get(&id)?;
        let bytes = self.maps.get(place.file as usize)?.bytes();
        bytes.get(place.offset as usize..)?.get(..place.size as usize)
    }

    fn ids(&self) -> Vec<u32> {
        self.places.keys().copied().collect()
    }

    fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        self.places.get(&id)?.key
    }
}
