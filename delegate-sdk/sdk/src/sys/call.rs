//! The running call: what a delegate asks of the host while it works.

use super::{HostTable, host_function, sized};
use crate::{Error, ProfileEvent, Status};
use delegraph_abi::c;
use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

/// The running call.
#[derive(Clone, Copy)]
pub(crate) struct RawCall {
    call: *const c::Call,
    host: HostTable,
}

// SAFETY: the contract lets every host function be called from any thread; the pointers are only passed to them.
unsafe impl Send for RawCall {}
// SAFETY: as above.
unsafe impl Sync for RawCall {}

impl RawCall {
    /// Checks the host's call object and table.
    ///
    /// # Safety
    /// `call` is NULL or what the host passed to the function that runs, and outlives the result.
    pub unsafe fn new(call: *const c::Call) -> Result<RawCall, Status> {
        // SAFETY: NULL is turned into an error by `sized`; else it is the host's call object.
        let checked = unsafe { sized(call, c::Call::FIRST_SIZE) }?;
        // SAFETY: `dg_call::host` lives as long as the process.
        let host = unsafe { HostTable::new(checked.host) }?;
        Ok(RawCall { call, host })
    }

    pub fn set_error(&self, error: &Error) {
        let Some(set_error) = host_function!(self.host, call_set_error) else {
            return;
        };
        let node = error.node.map_or(c::NO_NODE, |n| n.0);
        let (message, hint) = (&error.message, &error.hint);
        // SAFETY: the call runs; the texts live until the function returns, which copies them.
        unsafe {
            set_error(
                self.call,
                error.code,
                error.vendor_code,
                node,
                message.as_ptr(),
                message.len() as u64,
                hint.as_ptr(),
                hint.len() as u64,
            );
        }
    }

    /// Which graph of a set the error is about; to be called beside [`RawCall::set_error`]. A host that asks for sets takes it.
    pub fn set_error_graph(&self, graph: u64) {
        if let Some(set_graph) = host_function!(self.host, call_set_error_graph) {
            // SAFETY: the call runs.
            unsafe { set_graph(self.call, graph) }
        }
    }

    pub fn is_cancelled(&self) -> bool {
        // SAFETY: the call runs.
        host_function!(self.host, call_is_cancelled).is_some_and(|f| unsafe { f(self.call) } != 0)
    }

    pub fn log(&self, level: u32, text: &str) {
        if let Some(log) = host_function!(self.host, log_emit) {
            // SAFETY: the call runs; the text lives until the function returns.
            unsafe { log(self.call, c::LogLevel(level), text.as_ptr(), text.len() as u64) }
        }
    }

    pub fn threads(&self) -> usize {
        // SAFETY: the call runs.
        let threads = host_function!(self.host, parallel_threads).map_or(1, |f| unsafe { f(self.call) });
        threads.max(1) as usize
    }

    /// Calls `body` for each index below `count`. A panic of a part is passed on when all have ended.
    pub fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        let work = Work {
            body,
            panic: Mutex::new(None),
        };
        let Some(parallel_for) = host_function!(self.host, parallel_for) else {
            return (0..count).for_each(body);
        };
        let context = std::ptr::from_ref(&work).cast_mut().cast();
        // SAFETY: the call runs; `work` outlives it, and `part` is made for a context of that type.
        let status = unsafe { parallel_for(self.call, count as u64, Some(part), context) };
        if status != Status::OK {
            return (0..count).for_each(body);
        }
        let panic = work.panic.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Whether a line of this level would be written. A host that cannot say takes every line that it is given.
    pub fn log_enabled(&self, level: u32) -> bool {
        match host_function!(self.host, log_enabled) {
            // SAFETY: the call runs.
            Some(enabled) => unsafe { enabled(self.call, c::LogLevel(level)) != 0 },
            None => host_function!(self.host, log_emit).is_some(),
        }
    }

    /// Nanoseconds until the deadline; `None`: there is none, or the host does not say.
    pub fn time_left_ns(&self) -> Option<u64> {
        // SAFETY: the call runs.
        let left = host_function!(self.host, call_time_left_ns).map(|f| unsafe { f(self.call) });
        left.filter(|left| *left != u64::MAX)
    }

    pub fn correlation_id(&self) -> u64 {
        // SAFETY: the call runs.
        host_function!(self.host, call_correlation_id).map_or(0, |f| unsafe { f(self.call) })
    }

    pub fn progress(&self, done: u64, total: u64, text: &str) {
        if let Some(progress) = host_function!(self.host, call_progress) {
            // SAFETY: the call runs; the text lives until the function returns.
            unsafe { progress(self.call, done, total, text.as_ptr(), text.len() as u64) }
        }
    }

    pub fn takes_requirements(&self) -> bool {
        host_function!(self.host, blob_require).is_some()
    }

    pub fn takes_states(&self) -> bool {
        host_function!(self.host, blob_keep_state).is_some()
    }

    pub fn now_ns(&self) -> u64 {
        // SAFETY: the call runs.
        host_function!(self.host, clock_now_ns).map_or(0, |f| unsafe { f(self.call) })
    }

    pub fn profile_enabled(&self) -> bool {
        // SAFETY: the call runs.
        host_function!(self.host, profile_enabled).is_some_and(|f| unsafe { f(self.call) } != 0)
    }

    pub fn profile(&self, events: &[ProfileEvent<'_>]) {
        let Some(emit) = host_function!(self.host, profile_emit) else {
            return;
        };
        let events: Vec<c::ProfileEvent> = events.iter().map(event_record).collect();
        let pointers: Vec<*const c::ProfileEvent> = events.iter().map(std::ptr::from_ref).collect();
        // SAFETY: the call runs; events and their names live until the function returns, which copies them.
        unsafe { emit(self.call, pointers.as_ptr(), pointers.len() as u64) }
    }

    /// The host's table of this name; NULL: it has none.
    pub fn extension(&self, name: &str, min_revision: u32) -> *const c_void {
        let find = host_function!(self.host, get_extension);
        // SAFETY: the text lives until the function returns.
        find.map_or(std::ptr::null(), |f| unsafe {
            f(name.as_ptr(), name.len() as u64, min_revision)
        })
    }

    pub fn host(&self) -> HostTable {
        self.host
    }
}

/// The record borrows the event's name.
fn event_record(event: &ProfileEvent<'_>) -> c::ProfileEvent {
    c::ProfileEvent {
        name: event.name.as_ptr(),
        name_size: event.name.len() as u64,
        node: event.node.map_or(c::NO_NODE, |node| node.0),
        lane: event.lane,
        start_ns: event.start_ns,
        end_ns: event.end_ns,
        bytes: event.bytes,
        operations: event.operations,
        ..c::ProfileEvent::new()
    }
}

/// What [`RawCall::parallel_for`] hands to [`part`].
struct Work<'w> {
    body: &'w (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// One part. Nothing may unwind into the host.
unsafe extern "C" fn part(context: *mut c_void, index: u64) {
    // SAFETY: `parallel_for` passed a pointer to its work, which lives until all parts have returned and is shared only.
    let work = unsafe { &*context.cast_const().cast::<Work<'_>>() };
    let outcome = catch_unwind(AssertUnwindSafe(|| (work.body)(index as usize)));
    if let Err(panic) = outcome {
        let mut slot = work.panic.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(panic);
    }
}
