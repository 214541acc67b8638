//! The call object: what a function of a delegate's is called with, and what it says back.

use delegraph_abi::c;
use delegraph_types::Parallel;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How far a long call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Steps done.
    pub done: u64,
    /// Of so many; 0: not known.
    pub total: u64,
    /// What is being done, in the delegate's words.
    pub text: &'a str,
}

/// Something that took time in a delegate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileEvent {
    /// What ran.
    pub name: String,
    /// Node of the graph image that it did.
    pub node: Option<u32>,
    /// Where it ran: events of one lane do not overlap.
    pub lane: u32,
    /// Nanoseconds of [`now_ns`].
    pub start_ns: u64,
    /// Not before `start_ns`.
    pub end_ns: u64,
    /// Bytes moved; 0: not known.
    pub bytes: u64,
    /// Arithmetic operations, a multiply and an add as two; 0: not known, as of every library that is older than ABI 1.2.
    pub operations: u64,
}

/// Most events that one call may hand over.
pub(crate) const MAX_EVENTS: usize = 1 << 16;

/// What a call may use, when it has to end, and who hears of it. Nothing is set by default.
#[derive(Clone, Copy, Default)]
pub struct CallOptions<'a> {
    /// Threads that the delegate may borrow; `None`: those of the host's options.
    pub parallel: Option<Parallel>,
    /// True when no result is wanted any more; asked from any thread. A delegate of the contract asks from time to time; one in a worker
    /// process that does not stop is ended soon after.
    pub cancel: Option<&'a (dyn Fn() -> bool + Sync)>,
    /// When the call has to have ended. A delegate in this process can only be told; one in a worker process is ended.
    pub deadline: Option<Instant>,
    /// A number for logs and profiles; 0: none.
    pub correlation: u64,
    /// Hears how far the call is.
    pub progress: Option<&'a (dyn Fn(Progress<'_>) + Sync)>,
    /// Takes the delegate's own events; without it the delegate measures nothing.
    pub profile: Option<&'a Mutex<Vec<ProfileEvent>>>,
}

impl CallOptions<'_> {
    /// Nanoseconds until the deadline; `u64::MAX`: there is none.
    pub(crate) fn time_left_ns(&self) -> u64 {
        self.deadline.map_or(u64::MAX, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_nanos();
            u64::try_from(left).unwrap_or(u64::MAX - 1)
        })
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancelled| cancelled())
    }

    /// Takes an event, if somebody wants it and it is no nonsense.
    pub(crate) fn record(&self, event: ProfileEvent) {
        if let Some(profile) = self.profile {
            let mut events = lock(profile);
            if events.len() < MAX_EVENTS && event.end_ns >= event.start_ns {
                events.push(event);
            }
        }
    }
}

/// The monotonic clock that profiles are in, in nanoseconds: one for all processes of a machine where the system has such a
/// clock, else one for this process.
pub fn now_ns() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
    }
    #[cfg(not(target_os = "linux"))]
    {
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// What a delegate said of a failure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    pub vendor_code: i64,
    pub node: Option<u32>,
    pub message: String,
    pub hint: String,
}

/// The running call. A delegate sees the first field.
#[repr(C)]
pub(crate) struct HostCall<'a> {
    public: c::Call,
    pub backend: &'a str,
    pub options: CallOptions<'a>,
    pub parallel: Parallel,
    details: Mutex<Option<Details>>,
    /// Of a set of graphs, the one that the error is about.
    graph: Mutex<Option<u64>>,
}

impl<'a> HostCall<'a> {
    /// `host` is the table that the delegate's entry was given.
    pub fn new(
        host: &'static c::HostApi,
        backend: &'a str,
        options: &CallOptions<'a>,
        parallel: Parallel,
    ) -> HostCall<'a> {
        HostCall {
            public: c::Call { host, ..c::Call::new() },
            backend,
            options: *options,
            parallel: options.parallel.unwrap_or(parallel),
            details: Mutex::new(None),
            graph: Mutex::new(None),
        }
    }

    pub fn as_ptr(&self) -> *const c::Call {
        (self as *const Self).cast()
    }

    pub fn set_details(&self, details: Details) {
        *lock(&self.details) = Some(details);
    }

    pub fn set_graph(&self, graph: u64) {
        *lock(&self.graph) = Some(graph);
    }

    pub fn graph(&self) -> Option<u64> {
        *lock(&self.graph)
    }

    pub fn take_details(&self) -> Option<Details> {
        lock(&self.details).take()
    }

    /// # Safety
    /// `call` is NULL or what `as_ptr` gave for the call that runs.
    pub unsafe fn from_ptr<'b>(call: *const c::Call) -> Option<&'b HostCall<'b>> {
        // SAFETY: the caller vouches for it; the public part is the first field of a repr(C) struct.
        unsafe { call.cast::<HostCall<'b>>().as_ref() }
    }
}

/// A lock whose holder cannot leave things half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
