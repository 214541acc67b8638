//! The host's side of a session in a worker: a run is a number in a shared page, tensors are places in shared memory.

use super::client::Remote;
use super::process::{GRACE, Process, Silence};
use super::protocol::{WeightPlace, page};
use super::sys::{self, Page};
use crate::call::{CallOptions, ProfileEvent};
use crate::local::StateOp;
use crate::{Copies, DelegateError, Memory};
use delegraph_abi::{Status, c};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the host looks at the page before it sleeps. A sleep and a wake cost some ten microseconds.
const LOOKS: u32 = 2000;
/// How often a sleeping host looks whether it was cancelled.
const NAP: Duration = Duration::from_millis(5);

/// What a blob is loaded again from.
pub(crate) struct Reload {
    /// Sections of the blob that lie elsewhere, by hash.
    pub apart: Vec<([u8; 32], Arc<OwnedFd>)>,
    pub blob: OwnedFd,
    /// SHA-256 of its payload.
    pub hash: [u8; 32],
    pub places: Vec<WeightPlace>,
    pub files: Vec<Arc<OwnedFd>>,
    pub device: Option<u32>,
    pub tensors: usize,
    pub keeps_states: bool,
}

/// How host and worker talk about one session.
pub(crate) struct Loaded {
    pub page: Page,
    /// Signalled when a run is asked for.
    pub asked: OwnedFd,
    /// Signalled when one has ended.
    pub answered: OwnedFd,
}

/// A session in a worker.
pub(crate) struct RemoteSession {
    remote: Arc<Remote>,
    process: Arc<Process>,
    number: u64,
    loaded: Loaded,
    reload: Reload,
    /// Memories that the worker maps, by number; `None`: it has forgotten that one.
    memories: Vec<Option<Arc<Memory>>>,
    /// Where tensors are copied that lie in none of them: index in `memories`.
    staging: Option<usize>,
    run: u64,
}

impl RemoteSession {
    pub fn new(remote: Arc<Remote>, process: Arc<Process>, number: u64, loaded: Loaded, reload: Reload) -> Self {
        RemoteSession {
            remote,
            process,
            number,
            loaded,
            reload,
            memories: Vec::new(),
            staging: None,
            run: 0,
        }
    }

    /// Has the worker map a memory.
    pub fn share(&mut self, memory: &Arc<Memory>) -> bool {
        if self.memories.iter().flatten().any(|known| Arc::ptr_eq(known, memory)) {
            return true;
        }
        let shared = self.remote.share(&self.process, self.number, memory).is_ok();
        if shared {
            self.memories.push(Some(memory.clone()));
        }
        shared
    }

    /// Has the worker forget a memory. It does so before its next run.
    pub fn unshare(&mut self, memory: &Arc<Memory>) {
        let known = |known: &Option<Arc<Memory>>| known.as_ref().is_some_and(|known| Arc::ptr_eq(known, memory));
        if let Some(number) = self.memories.iter().position(known) {
            self.memories[number] = None;
            // A worker that is gone has forgotten it.
            let _ = self.remote.unshare(&self.process, self.number, number);
        }
    }

    /// Hands the memories of others over to the worker, and takes them back: this process's accesses rest meanwhile.
    pub fn pause_access(&self, pause: bool) -> Result<(), DelegateError> {
        for memory in self.memories.iter().flatten() {
            memory.pause(pause).map_err(|error| self.remote.failure(&error))?;
        }
        Ok(())
    }

    /// The memory that tensors are staged in.
    fn staged(&self, staging: usize) -> Option<&Arc<Memory>> {
        self.memories.get(staging).and_then(Option::as_ref)
    }

    /// Loads the blob in a new worker, where the old one died: true, and the states that it kept are gone.
    pub fn revive(&mut self, options: &CallOptions<'_>) -> Result<bool, DelegateError> {
        self.remote.check_quarantine(&self.reload.hash)?;
        if !self.process.is_dead() {
            return Ok(false);
        }
        let process = self.remote.process()?;
        let (number, loaded) = self.remote.load_in(&process, &self.reload, options)?;
        let staging = self.staging.and_then(|staging| self.staged(staging)).cloned();
        self.memories.retain(Option::is_some);
        let is_staging = |memory: &Option<Arc<Memory>>| {
            let both = memory.as_ref().zip(staging.as_ref());
            both.is_some_and(|(memory, staging)| Arc::ptr_eq(memory, staging))
        };
        self.staging = self.memories.iter().position(is_staging);
        for memory in self.memories.iter().flatten() {
            self.remote.share(&process, number, memory)?;
        }
        (self.process, self.number, self.loaded, self.run) = (process, number, loaded, 0);
        Ok(true)
    }

    /// Refuses what must not happen in a new process.
    fn alive(&self) -> Result<(), DelegateError> {
        match self.process.is_dead() {
            true => Err(self
                .remote
                .error(Status::NOT_READY, "its process died, and what it kept with it")),
            false => Ok(()),
        }
    }

    /// Runs once.
    ///
    /// # Safety
    /// As [`crate::local::LocalSession::execute`].
    pub unsafe fn execute(
        &mut self,
        inputs: &[*const c::Tensor],
        outputs: &[*mut c::Tensor],
        options: &CallOptions<'_>,
    ) -> Result<Copies, DelegateError> {
        let options = self.remote.run_options(options);
        match self.reload.keeps_states {
            // Whoever knows of the states revives it, and says that they are lost.
            true => self.alive()?,
            false => {
                self.revive(&options)?;
            }
        }
        let tensors = || {
            inputs
                .iter()
                .copied()
                .chain(outputs.iter().map(|tensor| tensor.cast_const()))
        };
        // SAFETY: as the caller says, here and below.
        let staged = unsafe { self.stage(tensors()) }?;
        let mut copies = Copies::default();
        let mut place = 0;
        for (i, tensor) in tensors().enumerate() {
            // SAFETY: see above.
            let (tensor, sizes) = unsafe {
                let tensor = &*tensor;
                (tensor, std::slice::from_raw_parts(tensor.sizes, tensor.rank as usize))
            };
            let size = tensor.data_size as usize;
            let at = page::FIRST_TENSOR + i * page::TENSOR_WORDS;
            let (memory, offset) = match (self.find(tensor), staged) {
                _ if tensor.data.is_null() => (page::NO_MEMORY as usize, 0),
                (Some(found), _) => found,
                (None, Some(staging)) => {
                    place = placed(place, tensor);
                    if i < inputs.len()
                        && let Some(room) = self.staged(staging)
                    {
                        // SAFETY: `stage` made room for all tensors that lie elsewhere.
                        unsafe {
                            let to = room.as_ptr().add(place);
                            std::ptr::copy_nonoverlapping(tensor.data.cast::<u8>().cast_const(), to, size);
                        }
                        copies.tensors += 1;
                        copies.bytes += size as u64;
                    }
                    let found = (staging, place);
                    place += size;
                    found
                }
                (None, None) => unreachable!("`stage` makes room for every tensor that lies elsewhere"),
            };
            let words = [
                memory as u64,
                offset as u64,
                size as u64,
                u64::from(tensor.dtype.0),
                u64::from(tensor.rank),
            ];
            for (k, word) in words.into_iter().enumerate() {
                self.loaded.page.set(at + k, word);
            }
            for (k, size) in sizes.iter().enumerate() {
                self.loaded.page.set(at + 5 + k, *size as u64);
            }
        }
        let page = &self.loaded.page;
        page.set(page::OP, page::RUN);
        page.set(page::INPUTS, inputs.len() as u64);
        page.set(page::OUTPUTS, outputs.len() as u64);
        self.ask(&options);
        if let Err(silence) = self.wait(&options) {
            return Err(self
                .remote
                .died(&self.process, &silence, Some(&self.reload.hash), "`session_execute`"));
        }
        self.answer(&options)?;
        self.remote.well();
        for (i, tensor) in outputs.iter().enumerate() {
            let at = page::FIRST_TENSOR + (inputs.len() + i) * page::TENSOR_WORDS;
            // SAFETY: see above; outputs are the caller's alone.
            unsafe {
                let tensor = &**tensor;
                for k in 0..tensor.rank as usize {
                    tensor.sizes.add(k).write(self.loaded.page.get(at + 5 + k) as i64);
                }
                if !tensor.data.is_null()
                    && self.find(tensor).is_none()
                    && let Some(staging) = staged
                {
                    let (offset, size) = (self.loaded.page.get(at + 1) as usize, tensor.data_size as usize);
                    // The page may say anything by now.
                    if let Some(room) = self.staged(staging)
                        && offset.checked_add(size).is_some_and(|end| end <= room.size())
                    {
                        let from = room.as_ptr().add(offset).cast_const();
                        std::ptr::copy_nonoverlapping(from, tensor.data.cast::<u8>(), size);
                    }
                    copies.tensors += 1;
                    copies.bytes += size as u64;
                }
            }
        }
        Ok(copies)
    }

    /// Does something to a state, in the process that has the session: revive it before.
    pub fn state(&mut self, op: StateOp<'_>, options: &CallOptions<'_>) -> Result<(), DelegateError> {
        self.alive()?;
        let options = self.remote.run_options(options);
        let size = match &op {
            StateOp::Snapshot(_, out) => out.len(),
            StateOp::Restore(_, bytes) => bytes.len(),
            _ => 0,
        };
        let staging = match size {
            0 => None,
            size => self.room(size)?,
        };
        let memory = staging.and_then(|staging| self.staged(staging)).cloned();
        let (code, state, number) = match &op {
            StateOp::Commit(accept) => (page::COMMIT, 0, u64::from(*accept)),
            StateOp::Reset(state) => (page::RESET, *state, 0),
            StateOp::Truncate(state, length) => (page::TRUNCATE, *state, *length),
            StateOp::Snapshot(state, _) => (page::SNAPSHOT, *state, 0),
            StateOp::Restore(state, bytes) => {
                if let Some(memory) = &memory {
                    // SAFETY: the memory has room for them, and no run is under way that would use it.
                    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.as_ptr(), bytes.len()) }
                }
                (page::RESTORE, *state, 0)
            }
        };
        let page = &self.loaded.page;
        page.set(page::OP, code);
        page.set(page::STATE, u64::from(state));
        page.set(page::NUMBER, number);
        page.set(page::DATA_SIZE, size as u64);
        page.set(
            page::DATA_MEMORY,
            staging.map_or(page::NO_MEMORY, |staging| staging as u64),
        );
        self.ask(&options);
        if let Err(silence) = self.wait(&options) {
            let blob = Some(&self.reload.hash);
            return Err(self
                .remote
                .died(&self.process, &silence, blob, "a function `session_state_`"));
        }
        self.answer(&options)?;
        self.remote.well();
        if let (StateOp::Snapshot(_, out), Some(memory)) = (op, memory) {
            // SAFETY: as above; the worker has answered, and what it may still write are bytes that nobody relies on.
            unsafe { std::ptr::copy_nonoverlapping(memory.as_ptr().cast_const(), out.as_mut_ptr(), out.len()) }
        }
        Ok(())
    }

    /// The memory that a tensor lies in, and where.
    fn find(&self, tensor: &c::Tensor) -> Option<(usize, usize)> {
        let lies = |(i, memory): (usize, &Option<Arc<Memory>>)| {
            let memory = memory.as_ref()?;
            let offset = memory.offset_of(tensor.data.cast::<u8>().cast_const(), tensor.data_size as usize)?;
            (Some(i) != self.staging).then_some((i, offset))
        };
        self.memories.iter().enumerate().find_map(lies)
    }

    /// Makes room for the tensors that lie in no shared memory.
    ///
    /// # Safety
    /// The tensors are sound.
    unsafe fn stage(
        &mut self,
        tensors: impl Iterator<Item = *const c::Tensor>,
    ) -> Result<Option<usize>, DelegateError> {
        let mut need = 0;
        for tensor in tensors {
            // SAFETY: as the caller says.
            let tensor = unsafe { &*tensor };
            if !tensor.data.is_null() && self.find(tensor).is_none() {
                need = placed(need, tensor) + tensor.data_size as usize;
            }
        }
        if need == 0 && self.staging.is_none() {
            // Tensors of no bytes lie somewhere, too.
            need = 1;
        }
        self.room(need)
    }

    /// Has memory of so many bytes in which things are copied.
    fn room(&mut self, need: usize) -> Result<Option<usize>, DelegateError> {
        let holds = |staging: &usize| self.staged(*staging).is_some_and(|memory| memory.size() >= need);
        if let Some(staging) = self.staging.filter(holds) {
            return Ok(Some(staging));
        }
        let memory = Arc::new(Memory::new(need).map_err(|error| self.remote.failure(&error))?);
        self.remote.share(&self.process, self.number, &memory)?;
        self.memories.push(Some(memory));
        self.staging = Some(self.memories.len() - 1);
        Ok(self.staging)
    }

    /// Asks for what the page describes.
    fn ask(&mut self, options: &CallOptions<'_>) {
        let page = &self.loaded.page;
        self.run += 1;
        page.set(page::CANCEL, 0);
        page.set(page::TIME_LEFT, options.time_left_ns());
        page.set(page::CORRELATION, options.correlation);
        page.set(
            page::THREADS,
            options.parallel.map_or(0, |parallel| parallel.threads() as u64),
        );
        page.set(page::PROFILE, u64::from(options.profile.is_some()));
        page.set(page::EVENTS, 0);
        page.set(page::REQUEST, self.run);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        if page.get(page::WORKER_SLEEPS) != 0 {
            let _ = sys::signal(&self.loaded.asked);
        }
    }

    /// Waits for the end of the run.
    fn wait(&self, options: &CallOptions<'_>) -> Result<(), Silence> {
        let page = &self.loaded.page;
        let ended = || page.get(page::RESPONSE) == self.run;
        for _ in 0..LOOKS {
            if ended() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        let mut stop_at: Option<Instant> = None;
        loop {
            page.set(page::HOST_SLEEPS, 1);
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            if ended() {
                page.set(page::HOST_SLEEPS, 0);
                return Ok(());
            }
            let mut waited = [
                PollFd::new(&self.loaded.answered, PollFlags::IN),
                PollFd::new(&self.process.ended, PollFlags::IN),
            ];
            let nap = Timespec {
                tv_sec: 0,
                tv_nsec: NAP.as_nanos() as i64,
            };
            let _ = poll(&mut waited, Some(&nap));
            let [answered, died] = waited.map(|fd| !fd.revents().is_empty());
            page.set(page::HOST_SLEEPS, 0);
            if answered {
                let _ = sys::take_signals(&self.loaded.answered);
            }
            if ended() {
                return Ok(());
            }
            if died || self.process.is_dead() {
                return Err(Silence::Died(String::new()));
            }
            let late = options.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if late || options.is_cancelled() {
                page.set(page::CANCEL, u64::from(options.is_cancelled()));
                if Instant::now() >= *stop_at.get_or_insert_with(|| Instant::now() + GRACE) {
                    return Err(if late { Silence::Late } else { Silence::Unwanted });
                }
            }
        }
    }

    /// Reads the outcome of the run that has ended.
    fn answer(&self, options: &CallOptions<'_>) -> Result<(), DelegateError> {
        let page = &self.loaded.page;
        let events = (page.get(page::EVENTS) as usize).min(page::MAX_EVENTS);
        for i in 0..events {
            let at = page::FIRST_EVENT + i * page::EVENT_WORDS;
            options.record(ProfileEvent {
                name: page.text(at, 7),
                node: u32::try_from(page.get(at + 7)).ok().filter(|node| *node != c::NO_NODE),
                lane: page.get(at + 8) as u32,
                start_ns: page.get(at + 9),
                end_ns: page.get(at + 10),
                bytes: page.get(at + 11),
                operations: page.get(at + 12),
            });
        }
        let status = Status(page.get(page::STATUS) as u32 as i32);
        if status == Status::OK {
            return Ok(());
        }
        let mut error = self.remote.error(status, page.text(page::MESSAGE, page::MESSAGE_ROOM));
        error.hint = page.text(page::HINT, page::HINT_ROOM);
        error.vendor_code = page.get(page::VENDOR_CODE) as i64;
        error.node = u32::try_from(page.get(page::NODE))
            .ok()
            .filter(|node| *node != c::NO_NODE);
        Err(error)
    }
}

/// Where a tensor's copy lies, from `place` on: as aligned as the tensor is, up to a page.
fn placed(place: usize, tensor: &c::Tensor) -> usize {
    place.next_multiple_of(1 << (tensor.data as usize).trailing_zeros().clamp(6, 12))
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        self.remote.unload(&self.process, self.number);
    }
}
