//! What the host does during a call, and what it hears.

use crate::case::Failure;
use crate::driver::lock;
use delegraph_abi::Status;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Something that is done within a host function, by the name of the function.
pub type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// What the host does during a call.
#[derive(Clone)]
pub struct Script {
    /// Set it, from any thread, and the caller wants no result any more.
    pub cancel: Arc<AtomicBool>,
    /// When the call has to have ended.
    pub deadline: Option<Instant>,
    /// Threads that `parallel_for` uses.
    pub threads: u32,
    /// Whether the run's events are wanted.
    pub profile: bool,
    /// The number that the call has in logs.
    pub correlation: u64,
    /// Which of the host's functions fail.
    pub fail: Fail,
    /// Called at the beginning of each of the host's functions that are given a call or weights, on the thread that called it.
    pub hook: Option<Hook>,
    /// Which form the host's structs have.
    pub structs: Structs,
    /// What is heard. Scripts that are cloned share it.
    pub heard: Arc<Heard>,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            cancel: Arc::default(),
            deadline: None,
            threads: 2,
            profile: false,
            correlation: 0,
            fail: Fail::default(),
            hook: None,
            structs: Structs::default(),
            heard: Arc::default(),
        }
    }
}

/// The form in which structs are handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Structs {
    /// As this version has them.
    #[default]
    Ours,
    /// As the first minor of this major had them: the byte behind each must not be touched. Empty lists are NULL, here and below.
    First(u16),
    /// As a later minor may have them: longer, with zeros behind what is known, and the byte behind those must not be touched.
    Longer,
    /// As this version has them, with extensions that nobody knows.
    Extended,
    /// As this version has them, but the struct of this name states this size.
    Small(&'static str, u32),
}

/// Host functions that fail: after so many calls that succeed. `None`: never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fail {
    /// `weight_map` gives NOT_FOUND.
    pub weight_map: Option<u64>,
    /// `weight_retain` gives UNSUPPORTED.
    pub weight_retain: Option<u64>,
    /// `blob_retain` gives UNSUPPORTED.
    pub blob_retain: Option<u64>,
    /// Blobs come without an owner.
    pub no_owner: bool,
    /// `blob_begin_section` gives INVALID_ARGUMENT.
    pub blob_begin_section: Option<u64>,
    /// `blob_write` gives OUT_OF_MEMORY.
    pub blob_write: Option<u64>,
    /// `part_node_verdict` gives INVALID_ARGUMENT.
    pub part_node_verdict: Option<u64>,
    /// `parallel_for` gives INVALID_ARGUMENT and calls nothing.
    pub parallel_for: Option<u64>,
}

/// What a delegate did during the calls of a script.
#[derive(Default)]
pub struct Heard {
    /// How often each of the host's functions was called.
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Text and level of log lines.
    pub logs: Mutex<Vec<(u32, String)>>,
    /// Events of runs.
    pub events: Mutex<Vec<Event>>,
    /// Steps done, steps in all, text.
    pub progress: Mutex<Vec<(u64, u64, String)>>,
    /// Calls of `call_is_cancelled` and `call_time_left_ns`.
    pub asked: AtomicU64,
}

impl Heard {
    /// How often a host function was called.
    pub fn count(&self, function: &str) -> u64 {
        lock(&self.counts).get(function).copied().unwrap_or(0)
    }

    /// Counts a call; gives how many there were before.
    pub(crate) fn called(&self, function: &'static str) -> u64 {
        let mut counts = lock(&self.counts);
        let count = counts.entry(function).or_default();
        *count += 1;
        *count - 1
    }
}

/// Something that took time, as the delegate says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Event {
    pub name: String,
    pub node: Option<u32>,
    pub lane: u32,
    pub start_ns: u64,
    pub end_ns: u64,
    pub bytes: u64,
    pub operations: u64,
}

impl Script {
    /// Cancels from now on.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::SeqCst);
    }

    /// The same with a deadline.
    pub fn until(mut self, deadline: Instant) -> Script {
        self.deadline = Some(deadline);
        self
    }

    /// A host function was called.
    pub(crate) fn entered(&self, function: &'static str) {
        self.heard.called(function);
        if let Some(hook) = &self.hook {
            hook(function);
        }
    }

    /// The same with something that is done within host functions.
    pub fn hooked(mut self, hook: Hook) -> Script {
        self.hook = Some(hook);
        self
    }

    /// The same with so many threads in `parallel_for`.
    pub fn on(mut self, threads: u32) -> Script {
        self.threads = threads;
        self
    }

    /// With structs of another form.
    pub fn of(structs: Structs) -> Script {
        Script {
            structs,
            ..Script::default()
        }
    }

    /// The same with functions that fail.
    pub fn failing(mut self, fail: Fail) -> Script {
        self.fail = fail;
        self
    }
}

/// A call that did not give DG_OK, with what the delegate said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The delegate's function.
    pub function: &'static str,
    /// Its status.
    pub status: Status,
    /// As given to `call_set_error`.
    pub vendor_code: i64,
    /// The node that it names.
    pub node: Option<u32>,
    /// As given to `call_set_error`; empty: it said nothing.
    pub message: String,
    /// As given to `call_set_error`.
    pub hint: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` gave {}", self.function, self.status)?;
        match self.message.is_empty() {
            true => f.write_str(" and said nothing"),
            false => write!(f, ": {}", self.message),
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Failure::fail(refused.to_string())
    }
}
