//! The worker's side of a session: a thread that waits for runs.

use super::protocol::page;
use super::sys::{self, Page};
use crate::call::{CallOptions, ProfileEvent, lock};
use crate::local::{LocalSession, StateOp};
use crate::{DelegateError, Memory};
use delegraph_abi::{Status, c};
use delegraph_types::Parallel;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the worker looks at the page before it sleeps.
const LOOKS: u32 = 4000;

/// What the thread of a session shares with the one that answers the host.
pub(crate) struct Shared {
    page: Page,
    asked: OwnedFd,
    answered: OwnedFd,
    tensors: usize,
    outputs: usize,
    /// By number; `None`: the host is done with that one.
    memories: Mutex<Vec<Option<Arc<Memory>>>>,
    ended: AtomicBool,
}

impl Shared {
    pub fn new(
        page: OwnedFd,
        asked: OwnedFd,
        answered: OwnedFd,
        tensors: usize,
        outputs: usize,
    ) -> std::io::Result<Shared> {
        Ok(Shared {
            page: Page::of(page, page::words(tensors))?,
            asked,
            answered,
            tensors,
            outputs,
            memories: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    pub fn add(&self, memory: Arc<Memory>) {
        lock(&self.memories).push(Some(memory));
    }

    pub fn forget(&self, number: u64) {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(memory) = lock(&self.memories).get_mut(number) {
            *memory = None;
        }
    }

    pub fn stop(&self) {
        self.page.set(page::STOP, 1);
        self.ended.store(true, Ordering::Release);
        let _ = sys::signal(&self.asked);
    }
}

/// Starts the thread of a session, which ends, and unloads it, when it is told to stop.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    session: LocalSession,
    backend: Arc<str>,
    threads: fn(usize) -> Parallel,
) -> std::io::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(format!("{backend}-session"));
    builder.spawn(move || {
        let mut runner = Runner {
            session,
            memories: Vec::new(),
            sizes: Vec::new(),
            tensors: Vec::new(),
            backend,
            threads,
        };
        let mut last = 0;
        while let Some(run) = wait(&shared, last) {
            last = run;
            let outcome = match shared.page.get(page::OP) {
                page::RUN => runner.run(&shared),
                op => runner.state(&shared, op),
            };
            answer(&shared, outcome, run);
        }
    })
}

/// Waits for the next run; `None`: there will be none.
fn wait(shared: &Shared, last: u64) -> Option<u64> {
    let page = &shared.page;
    let asked = || match page.get(page::REQUEST) {
        run if run != last => Some(run),
        _ => None,
    };
    let stopped = || shared.ended.load(Ordering::Acquire);
    for _ in 0..LOOKS {
        if let Some(run) = asked() {
            return Some(run);
        }
        if stopped() {
            return None;
        }
        std::hint::spin_loop();
    }
    loop {
        page.set(page::WORKER_SLEEPS, 1);
        std::sync::atomic::fence(Ordering::SeqCst);
        let found = asked();
        if found.is_some() || stopped() {
            page.set(page::WORKER_SLEEPS, 0);
            return found.filter(|_| !stopped());
        }
        let slept = sys::take_signals(&shared.asked);
        page.set(page::WORKER_SLEEPS, 0);
        slept.ok()?;
    }
}

fn answer(shared: &Shared, outcome: Result<(), DelegateError>, run: u64) {
    let page = &shared.page;
    let (status, vendor_code, node) = match &outcome {
        Ok(()) => (Status::OK, 0, None),
        Err(error) => {
            page.set_text(page::MESSAGE, page::MESSAGE_ROOM, &error.message);
            page.set_text(page::HINT, page::HINT_ROOM, &error.hint);
            (error.code, error.vendor_code, error.node)
        }
    };
    page.set(page::STATUS, u64::from(status.0 as u32));
    page.set(page::VENDOR_CODE, vendor_code as u64);
    page.set(page::NODE, u64::from(node.unwrap_or(c::NO_NODE)));
    page.set(page::RESPONSE, run);
    std::sync::atomic::fence(Ordering::SeqCst);
    if page.get(page::HOST_SLEEPS) != 0 {
        let _ = sys::signal(&shared.answered);
    }
}

struct Runner {
    session: LocalSession,
    memories: Vec<Option<Arc<Memory>>>,
    sizes: Vec<[i64; c::MAX_RANK as usize]>,
    tensors: Vec<c::Tensor>,
    backend: Arc<str>,
    threads: fn(usize) -> Parallel,
}

impl Runner {
    /// Takes notice of memories that have come since, and lets go of those that the host is done with.
    fn take_memories(&mut self, shared: &Shared) {
        let memories = lock(&shared.memories);
        for (known, now) in self.memories.iter().zip(memories.iter()) {
            if let (Some(known), None) = (known, now) {
                self.session.unshare(known);
            }
        }
        for memory in memories.iter().skip(self.memories.len()).flatten() {
            self.session.share(memory);
        }
        self.memories.clone_from(&memories);
    }

    /// The memory of a number.
    fn memory(&self, number: u64) -> Option<&Arc<Memory>> {
        self.memories.get(usize::try_from(number).ok()?)?.as_ref()
    }

    /// Begins or ends this process's access to memories of others, as far as the delegate does not have them by a handle.
    fn access(&self, begin: bool) -> Result<(), DelegateError> {
        for memory in self.memories.iter().flatten() {
            if memory.handle().is_some() && self.session.reads_mapped(memory) {
                let done = match begin {
                    true => memory.begin_access(memory.is_writable()).map(drop),
                    false => memory.end_access(),
                };
                done.map_err(|error| {
                    let problem = format!("the system's access to memory: {error}");
                    DelegateError::new(&self.backend, Status::INTERNAL, problem)
                })?;
            }
        }
        Ok(())
    }

    /// Does something to a state.
    fn state(&mut self, shared: &Shared, op: u64) -> Result<(), DelegateError> {
        let page = &shared.page;
        let (state, number) = (page.get(page::STATE) as u32, page.get(page::NUMBER));
        let size = page.get(page::DATA_SIZE) as usize;
        let left = page.get(page::TIME_LEFT);
        let cancelled = || page.get(page::CANCEL) != 0;
        let options = CallOptions {
            cancel: Some(&cancelled),
            deadline: deadline(left),
            correlation: page.get(page::CORRELATION),
            ..CallOptions::default()
        };
        let mut bytes = Vec::new();
        match op {
            page::COMMIT => self.session.state(StateOp::Commit(number != 0), &options),
            page::RESET => self.session.state(StateOp::Reset(state), &options),
            page::TRUNCATE => self.session.state(StateOp::Truncate(state, number), &options),
            page::SNAPSHOT | page::RESTORE => {
                bytes
                    .try_reserve_exact(size)
                    .map_err(|_| DelegateError::new(&self.backend, Status::OUT_OF_MEMORY, "no memory for a state"))?;
                bytes.resize(size, 0);
                self.take_memories(shared);
                let memory = self.memory(page.get(page::DATA_MEMORY));
                let memory = memory.filter(|memory| size <= memory.size());
                if memory.is_none() && size > 0 {
                    return Err(invalid(&self.backend, "a state lies in no shared memory"));
                }
                let place = memory.map(|memory| memory.as_ptr());
                // The delegate gets bytes of this process, which nobody changes meanwhile.
                if op == page::RESTORE {
                    if let Some(place) = place {
                        // SAFETY: the memory has so many bytes, and both are apart.
                        unsafe { std::ptr::copy_nonoverlapping(place.cast_const(), bytes.as_mut_ptr(), size) }
                    }
                    self.session.state(StateOp::Restore(state, &bytes), &options)
                } else {
                    let outcome = self.session.state(StateOp::Snapshot(state, &mut bytes), &options);
                    if let Some(place) = place {
                        // SAFETY: as above.
                        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, size) }
                    }
                    outcome
                }
            }
            _ => Err(invalid(&self.backend, "something is asked for that is not known")),
        }
    }

    fn run(&mut self, shared: &Shared) -> Result<(), DelegateError> {
        self.take_memories(shared);
        let invalid = |problem: &str| DelegateError::new(&self.backend, Status::INVALID_ARGUMENT, problem);
        let page = &shared.page;
        let (inputs, outputs) = (page.get(page::INPUTS) as usize, page.get(page::OUTPUTS) as usize);
        if inputs.checked_add(outputs) != Some(shared.tensors) || outputs != shared.outputs {
            return Err(invalid("another number of tensors than the blob has"));
        }
        self.sizes.clear();
        self.sizes.resize(shared.tensors, [0; c::MAX_RANK as usize]);
        self.tensors.clear();
        for (i, sizes) in self.sizes.iter_mut().enumerate() {
            let at = page::FIRST_TENSOR + i * page::TENSOR_WORDS;
            let word = |k: usize| page.get(at + k);
            let (offset, size, rank) = (word(1) as usize, word(2) as usize, word(4) as usize);
            let kept = word(0) == page::NO_MEMORY;
            let memory = self.memories.get(word(0) as usize).and_then(Option::as_ref);
            let inside = |memory: &&Arc<Memory>| offset.checked_add(size).is_some_and(|end| end <= memory.size());
            let memory = memory.filter(inside);
            if memory.is_none() && !(kept && size == 0) {
                return Err(invalid("a tensor lies in no shared memory"));
            }
            if rank > sizes.len() {
                return Err(invalid("a tensor has too many dimensions"));
            }
            for (k, size) in sizes[..rank].iter_mut().enumerate() {
                *size = word(5 + k) as i64;
            }
            // SAFETY: the offset lies within the memory.
            let data = memory.map_or(std::ptr::null_mut(), |memory| unsafe { memory.as_ptr().add(offset) });
            let (buffer, buffer_offset) = self.session.buffer_of(data, size);
            self.tensors.push(c::Tensor {
                dtype: delegraph_abi::DType(word(3) as u32),
                rank: rank as u32,
                sizes: sizes.as_mut_ptr(),
                data: data.cast(),
                data_size: size as u64,
                buffer,
                buffer_offset,
                ..c::Tensor::new()
            });
        }
        let profile = Mutex::new(Vec::new());
        let cancelled = || page.get(page::CANCEL) != 0;
        let left = page.get(page::TIME_LEFT);
        let threads = page.get(page::THREADS) as usize;
        let options = CallOptions {
            parallel: (threads > 0).then(|| (self.threads)(threads)),
            cancel: Some(&cancelled),
            deadline: deadline(left),
            correlation: page.get(page::CORRELATION),
            progress: None,
            profile: (page.get(page::PROFILE) != 0).then_some(&profile),
        };
        let base = self.tensors.as_mut_ptr();
        // SAFETY: the pointers lie within the list, which is not touched while the run goes on.
        let place = |i: usize| unsafe { base.add(i) };
        let given: Vec<*const c::Tensor> = (0..inputs).map(|i| place(i).cast_const()).collect();
        let taken: Vec<*mut c::Tensor> = (inputs..shared.tensors).map(place).collect();
        self.access(true)?;
        // SAFETY: the tensors lie in memory that is mapped as long as this runner is; the host keeps its hands off until the run
        // has ended, and reads what it finds as a stranger's bytes.
        let outcome = unsafe { self.session.execute(&given, &taken, &options) };
        self.access(false)?;
        for i in inputs..shared.tensors {
            let at = page::FIRST_TENSOR + i * page::TENSOR_WORDS;
            for (k, size) in self.sizes[i].iter().enumerate() {
                page.set(at + 5 + k, *size as u64);
            }
        }
        let events = profile.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        send_events(page, &events);
        outcome
    }
}

fn invalid(backend: &Arc<str>, problem: &str) -> DelegateError {
    DelegateError::new(backend, Status::INVALID_ARGUMENT, problem)
}

/// When so many nanoseconds are over; all ones: never.
fn deadline(left: u64) -> Option<Instant> {
    Some(left)
        .filter(|left| *left != u64::MAX)
        .and_then(|left| Instant::now().checked_add(Duration::from_nanos(left)))
}

fn send_events(page: &Page, events: &[ProfileEvent]) {
    for (i, event) in events.iter().take(page::MAX_EVENTS).enumerate() {
        let at = page::FIRST_EVENT + i * page::EVENT_WORDS;
        page.set_text(at, 7, &event.name);
        page.set(at + 7, u64::from(event.node.unwrap_or(c::NO_NODE)));
        page.set(at + 8, u64::from(event.lane));
        page.set(at + 9, event.start_ns);
        page.set(at + 10, event.end_ns);
        page.set(at + 11, event.bytes);
        page.set(at + 12, event.operations);
    }
    page.set(page::EVENTS, events.len().min(page::MAX_EVENTS) as u64);
}
