//! The running call, as a delegate sees it.
//!
//! On a host that is older than a function, asking gives the plain answer (no deadline, number 0, nobody profiles), and telling does
//! nothing.

use crate::Extension;
use crate::sys::RawCall;
use delegraph_abi::image::NodeIndex;
use std::time::Duration;

/// The running call.
pub struct Context<'a> {
    call: RawCall,
    target: &'a str,
}

impl<'a> Context<'a> {
    pub(crate) fn new(call: RawCall) -> Context<'a> {
        Context { call, target: "" }
    }

    /// The context of a call that is about a target.
    pub(crate) fn for_target(call: RawCall, target: &'a str) -> Context<'a> {
        Context { call, target }
    }

    /// What the graph is compiled for: one of the manifest's targets, as the user named it. Empty: this machine, or anything, and in
    /// every call but [`crate::Compile::partition`] and [`crate::Compile::compile`]. A host that is older than ABI 0.2 names it in
    /// `compile` alone.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The caller wants no result any more: return soon, with any error.
    pub fn is_cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    /// How many threads [`Context::parallel_for`] uses at once, the calling one included.
    pub fn threads(&self) -> usize {
        self.call.threads()
    }

    /// Calls `body` once for each index below `count`, in any order, on the host's threads and this one, and returns when all calls
    /// have returned. Use this, and no threads of your own: all delegates and the host's kernels share one pool, so that they do not
    /// fight for the cores. A call within `body` runs on its own thread; a panic in it is passed on when all parts have ended.
    pub fn parallel_for(&self, count: usize, body: impl Fn(usize) + Sync) {
        self.call.parallel_for(count, &body);
    }

    /// How long the caller still waits; zero: return soon, with `TIMEOUT`. `None`: for ever, or the host does not say.
    pub fn time_left(&self) -> Option<Duration> {
        self.call.time_left_ns().map(Duration::from_nanos)
    }

    /// The number that the host's log and profile give to this run; 0: none.
    pub fn correlation_id(&self) -> u64 {
        self.call.correlation_id()
    }

    /// Says how far a long call is: `done` of `total` steps, 0 of 0 where that is not known, and what is being done.
    pub fn progress(&self, done: u64, total: u64, text: &str) {
        self.call.progress(done, total, text);
    }

    /// Writes a line to the host's log.
    pub fn log(&self, level: LogLevel, message: &str) {
        self.call.log(level as u32, message);
    }

    /// Whether a line of this level would be written: ask before composing a costly one.
    pub fn log_enabled(&self, level: LogLevel) -> bool {
        self.call.log_enabled(level as u32)
    }

    /// Whether the host knows [`crate::Compiled::requirements`], as hosts do from ABI 0.1 on. A requirement that is stated to one that does not
    /// is an error of `compile`: leave out those that the blob can do without.
    pub fn takes_requirements(&self) -> bool {
        self.call.takes_requirements()
    }

    /// Whether the host knows [`crate::Compiled::kept_states`], as hosts do from ABI 0.1 on.
    pub fn takes_states(&self) -> bool {
        self.call.takes_states()
    }

    /// The host's monotonic clock, in nanoseconds from an unspecified origin: the one that [`ProfileEvent`]s are in. 0 on a host that
    /// is older than ABI 0.1, which takes no events either.
    pub fn now_ns(&self) -> u64 {
        self.call.now_ns()
    }

    /// Whether somebody wants to know what takes the time in this run. If not, measure nothing.
    pub fn profiling(&self) -> bool {
        self.call.profile_enabled()
    }

    /// Hands over events of this run.
    pub fn profile(&self, events: &[ProfileEvent<'_>]) {
        self.call.profile(events);
    }

    /// The host's table of this name, of this revision or a later one.
    pub fn extension(&self, name: &str, min_revision: u32) -> Option<Extension> {
        Extension::from_host(self.call.extension(name, min_revision))
    }
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum LogLevel {
    Error = delegraph_abi::c::LogLevel::ERROR.0,
    Warn = delegraph_abi::c::LogLevel::WARN.0,
    Info = delegraph_abi::c::LogLevel::INFO.0,
    Debug = delegraph_abi::c::LogLevel::DEBUG.0,
    Trace = delegraph_abi::c::LogLevel::TRACE.0,
}

/// Something that took time in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProfileEvent<'a> {
    /// What ran: a kernel, a copy, a wait.
    pub name: &'a str,
    /// Node of the graph image that it did; `None`: of none in particular.
    pub node: Option<NodeIndex>,
    /// Where it ran: a queue, a core, an engine. Events of one lane do not overlap.
    pub lane: u32,
    /// In nanoseconds of [`Context::now_ns`].
    pub start_ns: u64,
    /// Not before `start_ns`.
    pub end_ns: u64,
    /// Bytes moved; 0: not known.
    pub bytes: u64,
    /// Arithmetic operations of it, a multiply and an add as two; 0: not known. A host that is older than ABI 1.2 does not see them.
    pub operations: u64,
}
