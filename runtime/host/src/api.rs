//! The host's table: what a delegate can call. Everything is checked; nothing panics.

use crate::blob::{blob_release, blob_retain};
use crate::call::{Details, HostCall, MAX_EVENTS, ProfileEvent, Progress, now_ns};
use crate::raw::{read, text};
use crate::sinks::{
    blob_begin_section, blob_keep_state, blob_require, blob_set_driver_range, blob_set_precision, blob_set_verdict,
    blob_write, part_atomic_set, part_node_verdict,
};
use crate::submit::fence_signal;
use crate::weights::{weight_map, weight_release, weight_retain, weight_share_key, weight_unmap};
use delegraph_abi::{Status, c, newest_minor};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Receives log lines of delegates: backend, level, text.
pub type Logger = fn(backend: &str, level: c::LogLevel, text: &str);

static LOGGER: OnceLock<Logger> = OnceLock::new();
static LEVEL: AtomicU32 = AtomicU32::new(0);

/// Sends the log lines of all delegates of this process, up to a level, somewhere; without it they are dropped. The first logger
/// counts, and the last level.
pub fn set_logger(level: c::LogLevel, logger: Logger) {
    let _ = LOGGER.set(logger);
    LEVEL.store(level.0, Ordering::Relaxed);
}

/// Whether lines of a level are written.
fn logs(level: c::LogLevel) -> bool {
    level.0 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes a line of a delegate's, or of the host's own about one.
pub(crate) fn log(backend: &str, level: c::LogLevel, line: &str) {
    if let Some(logger) = LOGGER.get().filter(|_| logs(level)) {
        logger(backend, level, line);
    }
}

/// The most that is written.
#[cfg(target_os = "linux")]
pub(crate) fn log_level() -> c::LogLevel {
    c::LogLevel(LEVEL.load(Ordering::Relaxed))
}

/// The table that a delegate of a major of the ABI is given, valid as long as the process; `None`: this host does not know the major.
pub(crate) fn host_api(major: u16) -> Option<&'static c::HostApi> {
    // The functions of major 0 are those of 1.0, so that its table is the same as far as it goes. It states its own version: SDKs of
    // major 0 look at it.
    static NEWEST: c::HostApi = TABLE;
    static MAJOR_0: c::HostApi = c::HostApi {
        struct_size: c::HostApi::MAJOR_SIZE as u32,
        major: 0,
        minor: match newest_minor(0) {
            Some(minor) => minor,
            None => 0,
        },
        ..TABLE
    };
    match major {
        c::ABI_MAJOR => Some(&NEWEST),
        0 => Some(&MAJOR_0),
        _ => None,
    }
}

const TABLE: c::HostApi = c::HostApi {
    call_set_error: Some(call_set_error),
    call_is_cancelled: Some(call_is_cancelled),
    log_emit: Some(log_emit),
    parallel_threads: Some(parallel_threads),
    parallel_for: Some(parallel_for),
    weight_map: Some(weight_map),
    weight_retain: Some(weight_retain),
    weight_release: Some(weight_release),
    part_node_verdict: Some(part_node_verdict),
    part_atomic_set: Some(part_atomic_set),
    blob_set_precision: Some(blob_set_precision),
    blob_begin_section: Some(blob_begin_section),
    blob_write: Some(blob_write),
    blob_set_verdict: Some(blob_set_verdict),
    get_extension: Some(get_extension),
    call_time_left_ns: Some(call_time_left_ns),
    call_correlation_id: Some(call_correlation_id),
    call_progress: Some(call_progress),
    log_enabled: Some(log_enabled),
    clock_now_ns: Some(clock_now_ns),
    profile_enabled: Some(profile_enabled),
    profile_emit: Some(profile_emit),
    weight_unmap: Some(weight_unmap),
    weight_share_key: Some(weight_share_key),
    blob_set_driver_range: Some(blob_set_driver_range),
    blob_require: Some(blob_require),
    fence_signal: Some(fence_signal),
    blob_keep_state: Some(blob_keep_state),
    call_set_error_graph: Some(call_set_error_graph),
    blob_retain: Some(blob_retain),
    blob_release: Some(blob_release),
    ..c::HostApi::new()
};

unsafe extern "C" fn call_set_error(
    call: *const c::Call,
    _code: Status,
    vendor_code: i64,
    node: u32,
    message: *const u8,
    message_size: u64,
    hint: *const u8,
    hint_size: u64,
) {
    // SAFETY: the delegate passes the call that it was given, and texts that are valid for this call.
    unsafe {
        let Some(call) = HostCall::from_ptr(call) else {
            return;
        };
        // A text that cannot be taken is replaced by why.
        let details = Details {
            vendor_code,
            node: (node != c::NO_NODE).then_some(node),
            message: text("the delegate's message", message, message_size).unwrap_or_else(|why| why),
            hint: text("the delegate's hint", hint, hint_size).unwrap_or_default(),
        };
        call.set_details(details);
    }
}

unsafe extern "C" fn call_set_error_graph(call: *const c::Call, graph: u64) {
    // SAFETY: as in `call_set_error`.
    if let Some(call) = unsafe { HostCall::from_ptr(call) } {
        call.set_graph(graph);
    }
}

unsafe extern "C" fn call_is_cancelled(call: *const c::Call) -> u32 {
    // SAFETY: as in `call_set_error`.
    let call = unsafe { HostCall::from_ptr(call) };
    u32::from(call.is_some_and(|call| call.options.is_cancelled()))
}

unsafe extern "C" fn log_emit(call: *const c::Call, level: c::LogLevel, line: *const u8, line_size: u64) {
    // SAFETY: as in `call_set_error`.
    unsafe {
        if let Some(call) = HostCall::from_ptr(call)
            && logs(level)
            && let Ok(line) = text("a log line", line, line_size)
        {
            log(call.backend, level, &line);
        }
    }
}

unsafe extern "C" fn parallel_threads(call: *const c::Call) -> u32 {
    // SAFETY: as in `call_set_error`.
    let call = unsafe { HostCall::from_ptr(call) };
    call.map_or(1, |call| u32::try_from(call.parallel.threads()).unwrap_or(u32::MAX))
}

/// What a delegate wants to be handed back on other threads.
struct Context(*mut std::ffi::c_void);

// SAFETY: the contract makes a body and its context usable on any thread; here the pointer is only passed on.
unsafe impl Sync for Context {}

impl Context {
    fn pointer(&self) -> *mut std::ffi::c_void {
        self.0
    }
}

unsafe extern "C" fn parallel_for(
    call: *const c::Call,
    count: u64,
    body: c::ParallelBody,
    context: *mut std::ffi::c_void,
) -> Status {
    // SAFETY: as in `call_set_error`.
    let Some(call) = (unsafe { HostCall::from_ptr(call) }) else {
        return Status::INVALID_ARGUMENT;
    };
    let (Some(body), Ok(count)) = (body, usize::try_from(count)) else {
        return Status::INVALID_ARGUMENT;
    };
    let context = &Context(context);
    // SAFETY: the delegate passes a function that is valid for this call, on any thread.
    call.parallel
        .run(count, &|index| unsafe { body(context.pointer(), index as u64) });
    Status::OK
}

unsafe extern "C" fn get_extension(_name: *const u8, _size: u64, _min_revision: u32) -> *const std::ffi::c_void {
    // None so far.
    std::ptr::null()
}

unsafe extern "C" fn call_time_left_ns(call: *const c::Call) -> u64 {
    // SAFETY: as in `call_set_error`.
    let call = unsafe { HostCall::from_ptr(call) };
    call.map_or(u64::MAX, |call| call.options.time_left_ns())
}

unsafe extern "C" fn call_correlation_id(call: *const c::Call) -> u64 {
    // SAFETY: as in `call_set_error`.
    let call = unsafe { HostCall::from_ptr(call) };
    call.map_or(0, |call| call.options.correlation)
}

unsafe extern "C" fn call_progress(call: *const c::Call, done: u64, total: u64, words: *const u8, size: u64) {
    // SAFETY: as in `call_set_error`.
    unsafe {
        if let Some(call) = HostCall::from_ptr(call)
            && let Some(progress) = call.options.progress
        {
            let words = text("progress", words, size).unwrap_or_default();
            progress(Progress {
                done,
                total,
                text: &words,
            });
        }
    }
}

unsafe extern "C" fn log_enabled(_call: *const c::Call, level: c::LogLevel) -> u32 {
    u32::from(logs(level))
}

unsafe extern "C" fn clock_now_ns(_call: *const c::Call) -> u64 {
    now_ns()
}

unsafe extern "C" fn profile_enabled(call: *const c::Call) -> u32 {
    // SAFETY: as in `call_set_error`.
    let call = unsafe { HostCall::from_ptr(call) };
    u32::from(call.is_some_and(|call| call.options.profile.is_some()))
}

unsafe extern "C" fn profile_emit(call: *const c::Call, events: *const *const c::ProfileEvent, count: u64) {
    // SAFETY: as in `call_set_error`; each event is checked as every struct of a delegate's is.
    unsafe {
        let Some(call) = HostCall::from_ptr(call).filter(|call| call.options.profile.is_some()) else {
            return;
        };
        if events.is_null() || !events.is_aligned() {
            return;
        }
        for i in 0..usize::try_from(count).unwrap_or(MAX_EVENTS).min(MAX_EVENTS) {
            let Ok(event) = read(events.add(i).read()) else { return };
            call.options.record(ProfileEvent {
                name: text("an event's name", event.name, event.name_size).unwrap_or_default(),
                node: (event.node != c::NO_NODE).then_some(event.node),
                lane: event.lane,
                start_ns: event.start_ns,
                end_ns: event.end_ns,
                bytes: event.bytes,
                operations: event.operations,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CallOptions;
    use std::sync::Mutex;

    #[test]
    fn an_event_of_an_older_library_has_no_operations() {
        let host = host_api(c::ABI_MAJOR).unwrap();
        let heard = Mutex::new(Vec::new());
        let options = CallOptions {
            profile: Some(&heard),
            ..CallOptions::default()
        };
        let call = HostCall::new(host, "old", &options, delegraph_types::Parallel::SERIAL);
        let event = c::ProfileEvent {
            end_ns: 7,
            bytes: 8,
            operations: 9,
            ..c::ProfileEvent::new()
        };
        // What lies behind a struct of 1.0 is the library's own.
        let old = c::ProfileEvent {
            struct_size: c::ProfileEvent::MAJOR_SIZE as u32,
            ..event
        };
        let later = c::ProfileEvent {
            struct_size: size_of::<c::ProfileEvent>() as u32,
            ..event
        };
        assert!(old.struct_size < later.struct_size);
        let events = [&raw const old, &raw const later];
        // SAFETY: the call and the events live.
        unsafe { host.profile_emit.unwrap()(call.as_ptr(), events.as_ptr(), 2) };
        let heard: Vec<_> = heard.into_inner().unwrap();
        let known: Vec<_> = heard.iter().map(|event| (event.bytes, event.operations)).collect();
        assert_eq!(known, [(8, 0), (8, 9)]);
    }
}
