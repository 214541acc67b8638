//! The host's table, as a delegate under test sees it. Each function counts its calls, and notes what the contract forbids.

use crate::driver::call::{Event, Script, Structs};
use crate::driver::sinks::{BlobParts, NodeAnswer, PartAnswers, Sink, Verdicts};
use crate::driver::sys::memory::Guarded;
use crate::driver::weights::HostWeights;
use crate::driver::{fence, lock, violation};
use delegraph_abi::{Status, c};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The running call. A delegate sees the first field.
#[repr(C)]
pub(crate) struct HostCall {
    public: c::Call,
    pub script: Script,
    pub error: Mutex<Option<Said>>,
    /// Set with the end of the call; for a submitted run, with the signal of its fence.
    pub ended: Arc<AtomicBool>,
}

/// What a delegate gave to `call_set_error`.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub code: Status,
    pub vendor_code: i64,
    pub node: Option<u32>,
    pub message: String,
    pub hint: String,
}

// SAFETY: the public part is a pointer to a constant table.
unsafe impl Send for HostCall {}
// SAFETY: as above.
unsafe impl Sync for HostCall {}

impl HostCall {
    pub fn new(host: *const c::HostApi, script: &Script) -> Box<HostCall> {
        let mut public = c::Call { host, ..c::Call::new() };
        match script.structs {
            Structs::Small("dg_call", size) => public.struct_size = size,
            // What follows is the host's own, as the contract says.
            Structs::Longer => public.struct_size += 32,
            Structs::Extended => public.next = super::hand::extensions(),
            _ => {}
        }
        Box::new(HostCall {
            public,
            script: script.clone(),
            error: Mutex::default(),
            ended: Arc::default(),
        })
    }

    pub fn as_ptr(&self) -> *const c::Call {
        (self as *const HostCall).cast()
    }
}

/// The weights of a call or session, as a delegate sees them.
pub(crate) struct WeightsHandle {
    /// `None`: nobody may ask for them any more.
    pub weights: Mutex<Option<Arc<HostWeights>>>,
    /// The call that it was given to is over.
    pub ended: AtomicBool,
    /// Whether `weight_retain` is granted.
    pub grant: bool,
    pub retained: AtomicI64,
    pub script: Script,
}

impl WeightsHandle {
    /// What is kept of it from here on is the handle alone, unless they are still retained.
    pub fn let_go(&self) {
        self.ended.store(true, Ordering::SeqCst);
        if self.retained.load(Ordering::SeqCst) <= 0 {
            *lock(&self.weights) = None;
        }
    }

    fn weights(&self) -> Option<Arc<HostWeights>> {
        lock(&self.weights).clone()
    }
}

/// What holds the sections of a blob that is loaded, as a delegate sees it.
pub(crate) struct BlobHandle {
    /// `None`: nobody may read them any more.
    pub sections: Mutex<Option<Arc<Vec<Guarded>>>>,
    /// `session_load` has returned.
    pub ended: AtomicBool,
    pub retained: AtomicI64,
    pub script: Script,
}

impl BlobHandle {
    /// Whether the delegate may read the sections after the load.
    pub fn is_retained(&self) -> bool {
        self.retained.load(Ordering::SeqCst) > 0
    }

    /// Makes the sections untouchable, where nobody retains them: who reads them now faults.
    pub fn close(&self) -> Result<(), String> {
        match &*lock(&self.sections) {
            Some(sections) if !self.is_retained() => sections.iter().try_for_each(Guarded::close_shared),
            _ => Ok(()),
        }
    }

    /// What is kept of it from here on is the handle alone.
    pub fn let_go(&self) {
        *lock(&self.sections) = None;
    }
}

/// Calls, sinks and handles that are over stay in memory for a while, so that a delegate that uses one is found out.
static OVER: Mutex<VecDeque<Box<dyn Send>>> = Mutex::new(VecDeque::new());

/// How many those are.
const KEPT: usize = 512;

/// Keeps something that a delegate must not use any more.
pub(crate) fn keep_over(what: Box<dyn Send>) {
    let dropped = {
        let mut over = lock(&OVER);
        over.push_back(what);
        if over.len() > KEPT { over.pop_front() } else { None }
    };
    drop(dropped);
}

/// The call behind a pointer of a delegate's. Notes one that is NULL or over.
unsafe fn call_of<'a>(function: &'static str, call: *const c::Call) -> Option<&'a HostCall> {
    if call.is_null() {
        violation(format!("`{function}` was called with no call"));
        return None;
    }
    // SAFETY: the delegate passes a call that it was given; those that are over stay in memory for a while.
    let call = unsafe { &*call.cast::<HostCall>() };
    if call.ended.load(Ordering::SeqCst) {
        violation(format!("`{function}` was called with a call that is over"));
        return None;
    }
    call.script.entered(function);
    Some(call)
}

unsafe fn sink_of<'a, P, T>(function: &'static str, sink: *mut P) -> Option<&'a Sink<T>> {
    if sink.is_null() {
        violation(format!("`{function}` was called with no sink"));
        return None;
    }
    // SAFETY: the delegate passes the sink that it was given; those that are over stay in memory for a while.
    let sink = unsafe { &*sink.cast::<Sink<T>>() };
    if sink.ended.load(Ordering::SeqCst) {
        violation(format!("`{function}` was called with the sink of a call that is over"));
        return None;
    }
    Some(sink)
}

/// A text of a delegate's; notes one that is none.
unsafe fn text(function: &'static str, data: *const u8, size: u64) -> String {
    if size == 0 {
        return String::new();
    }
    if data.is_null() || size > 1 << 20 {
        violation(format!("`{function}` was given a text of {size} bytes at {data:p}"));
        return String::new();
    }
    // SAFETY: the delegate vouches for the bytes.
    let bytes = unsafe { std::slice::from_raw_parts(data, size as usize) };
    if std::str::from_utf8(bytes).is_err() {
        violation(format!("`{function}` was given a text that is no UTF-8"));
    }
    String::from_utf8_lossy(bytes).into_owned()
}

unsafe extern "C" fn call_set_error(
    call: *const c::Call,
    code: Status,
    vendor_code: i64,
    node: u32,
    message: *const u8,
    message_size: u64,
    hint: *const u8,
    hint_size: u64,
) {
    // SAFETY: as the functions say.
    unsafe {
        let Some(call) = call_of("call_set_error", call) else {
            return;
        };
        *lock(&call.error) = Some(Said {
            code,
            vendor_code,
            node: (node != c::NO_NODE).then_some(node),
            message: text("call_set_error", message, message_size),
            hint: text("call_set_error", hint, hint_size),
        });
    }
}

unsafe extern "C" fn call_set_error_graph(call: *const c::Call, _graph: u64) {
    // SAFETY: as the function says. That it came is counted, and which graph it is no case depends on.
    let _ = unsafe { call_of("call_set_error_graph", call) };
}

unsafe extern "C" fn call_is_cancelled(call: *const c::Call) -> u32 {
    // SAFETY: as the function says.
    let Some(call) = (unsafe { call_of("call_is_cancelled", call) }) else {
        return 1;
    };
    call.script.heard.asked.fetch_add(1, Ordering::Relaxed);
    u32::from(call.script.cancel.load(Ordering::SeqCst))
}

unsafe extern "C" fn log_emit(call: *const c::Call, level: c::LogLevel, line: *const u8, size: u64) {
    // SAFETY: as the functions say.
    unsafe {
        let Some(call) = call_of("log_emit", call) else { return };
        lock(&call.script.heard.logs).push((level.0, text("log_emit", line, size)));
    }
}

unsafe fn weights_of<'a>(function: &'static str, weights: *const c::Weights) -> Option<&'a WeightsHandle> {
    if weights.is_null() {
        violation(format!("`{function}` was called with no weights"));
        return None;
    }
    // SAFETY: the delegate passes the weights that it was given; those that are over stay in memory for a while.
    let handle = unsafe { &*weights.cast::<WeightsHandle>() };
    if handle.ended.load(Ordering::SeqCst) && handle.retained.load(Ordering::SeqCst) <= 0 {
        violation(format!(
            "`{function}` was called with weights that are over and were not retained"
        ));
        return None;
    }
    handle.script.entered(function);
    Some(handle)
}

unsafe extern "C" fn weight_map(
    weights: *const c::Weights,
    id: u32,
    out_data: *mut *const u8,
    out_size: *mut u64,
) -> Status {
    // SAFETY: the delegate vouches for the places of the outputs.
    unsafe {
        let Some(handle) = weights_of("weight_map", weights) else {
            return Status::INVALID_ARGUMENT;
        };
        let Some(all) = handle.weights() else {
            return Status::NOT_FOUND;
        };
        let before = all.mapped.fetch_add(1, Ordering::SeqCst);
        if handle.script.fail.weight_map.is_some_and(|after| before >= after) {
            return Status::NOT_FOUND;
        }
        let Some(memory) = all.get(id) else {
            return Status::NOT_FOUND;
        };
        if out_data.is_null() || out_size.is_null() {
            violation("`weight_map` was given no place for its outputs");
            return Status::INVALID_ARGUMENT;
        }
        out_data.write(memory.as_ptr());
        out_size.write(memory.bytes().len() as u64);
        Status::OK
    }
}

unsafe extern "C" fn weight_retain(weights: *const c::Weights) -> Status {
    // SAFETY: as the function says.
    let Some(handle) = (unsafe { weights_of("weight_retain", weights) }) else {
        return Status::INVALID_ARGUMENT;
    };
    let before = handle.script.heard.count("weight_retain") - 1;
    if !handle.grant || handle.script.fail.weight_retain.is_some_and(|after| before >= after) {
        return Status::UNSUPPORTED;
    }
    handle.retained.fetch_add(1, Ordering::SeqCst);
    if let Some(all) = handle.weights() {
        all.retained.fetch_add(1, Ordering::SeqCst);
    }
    Status::OK
}

unsafe extern "C" fn weight_release(weights: *const c::Weights) {
    // SAFETY: as the function says.
    let Some(handle) = (unsafe { weights_of("weight_release", weights) }) else {
        return;
    };
    if let Some(all) = handle.weights() {
        all.retained.fetch_sub(1, Ordering::SeqCst);
    }
    if handle.retained.fetch_sub(1, Ordering::SeqCst) <= 0 {
        violation("`weight_release` was called more often than `weight_retain`");
    }
}

unsafe fn owner_of<'a>(function: &'static str, owner: *const c::BlobOwner) -> Option<&'a BlobHandle> {
    if owner.is_null() {
        violation(format!("`{function}` was called with no owner"));
        return None;
    }
    // SAFETY: the delegate passes the owner that it was given; those that are over stay in memory for a while.
    let handle = unsafe { &*owner.cast::<BlobHandle>() };
    if handle.ended.load(Ordering::SeqCst) && !handle.is_retained() {
        violation(format!(
            "`{function}` was called with the owner of a blob that is over and is not retained"
        ));
        return None;
    }
    handle.script.entered(function);
    Some(handle)
}

unsafe extern "C" fn blob_retain(owner: *const c::BlobOwner) -> Status {
    // SAFETY: as the function says.
    let Some(handle) = (unsafe { owner_of("blob_retain", owner) }) else {
        return Status::INVALID_ARGUMENT;
    };
    let before = handle.script.heard.count("blob_retain") - 1;
    if handle.script.fail.blob_retain.is_some_and(|after| before >= after) {
        return Status::UNSUPPORTED;
    }
    handle.retained.fetch_add(1, Ordering::SeqCst);
    Status::OK
}

unsafe extern "C" fn blob_release(owner: *const c::BlobOwner) {
    // SAFETY: as the function says.
    let Some(handle) = (unsafe { owner_of("blob_release", owner) }) else {
        return;
    };
    if handle.retained.fetch_sub(1, Ordering::SeqCst) <= 0 {
        violation("`blob_release` was called more often than `blob_retain`");
    }
    if handle.ended.load(Ordering::SeqCst)
        && let Err(problem) = handle.close()
    {
        violation(format!("the kit: {problem}"));
    }
}

unsafe extern "C" fn part_node_verdict(
    sink: *mut c::PartSink,
    node: u32,
    supported: u32,
    reason: c::Reason,
    words: *const u8,
    words_size: u64,
) -> Status {
    // SAFETY: as the functions say.
    unsafe {
        let Some(sink) = sink_of::<_, PartAnswers>("part_node_verdict", sink) else {
            return Status::INVALID_ARGUMENT;
        };
        let text = text("part_node_verdict", words, words_size);
        sink.with(|answers| {
            let fails = answers
                .fail_after
                .is_some_and(|after| answers.nodes.len() as u64 >= after);
            if fails {
                answers.failed += 1;
                return Status::INVALID_ARGUMENT;
            }
            let again = !answers.seen.insert(node);
            answers.nodes.push((
                node,
                NodeAnswer {
                    supported,
                    reason,
                    text,
                },
            ));
            match node >= answers.count || again {
                true => Status::INVALID_ARGUMENT,
                false => Status::OK,
            }
        })
    }
}

unsafe extern "C" fn part_atomic_set(sink: *mut c::PartSink, nodes: *const u32, count: u64) -> Status {
    // SAFETY: the delegate vouches for the list.
    unsafe {
        let Some(sink) = sink_of::<_, PartAnswers>("part_atomic_set", sink) else {
            return Status::INVALID_ARGUMENT;
        };
        if count > 1 << 24 || (count > 0 && (nodes.is_null() || !nodes.is_aligned())) {
            violation(format!("`part_atomic_set` was given {count} nodes at {nodes:p}"));
            return Status::INVALID_ARGUMENT;
        }
        let set = if count == 0 {
            Vec::new()
        } else {
            std::slice::from_raw_parts(nodes, count as usize).to_vec()
        };
        sink.with(|answers| answers.sets.push(set));
        Status::OK
    }
}

unsafe fn blob_of<'a>(function: &'static str, sink: *mut c::BlobSink) -> Option<&'a Sink<BlobParts>> {
    // SAFETY: as the function says.
    unsafe { sink_of(function, sink) }
}

unsafe extern "C" fn blob_set_precision(sink: *mut c::BlobSink, precision: *const u8, size: u64) -> Status {
    // SAFETY: as the functions say.
    unsafe {
        let Some(sink) = blob_of("blob_set_precision", sink) else {
            return Status::INVALID_ARGUMENT;
        };
        let precision = text("blob_set_precision", precision, size);
        sink.with(|parts| parts.precision = precision);
        Status::OK
    }
}

unsafe extern "C" fn blob_set_driver_range(
    sink: *mut c::BlobSink,
    min: *const u8,
    min_size: u64,
    max: *const u8,
    max_size: u64,
) -> Status {
    // SAFETY: as the functions say.
    unsafe {
        let Some(sink) = blob_of("blob_set_driver_range", sink) else {
            return Status::INVALID_ARGUMENT;
        };
        let drivers = [
            text("blob_set_driver_range", min, min_size),
            text("blob_set_driver_range", max, max_size),
        ];
        sink.with(|parts| parts.drivers = drivers);
        Status::OK
    }
}

unsafe extern "C" fn blob_require(
    sink: *mut c::BlobSink,
    is_output: u32,
    index: u32,
    alignment: u32,
    size_multiple: u32,
) -> Status {
    // SAFETY: as the function says.
    let Some(sink) = (unsafe { blob_of("blob_require", sink) }) else {
        return Status::INVALID_ARGUMENT;
    };
    if alignment > 4096 || size_multiple > 4096 || (alignment != 0 && !alignment.is_power_of_two()) {
        violation(format!(
            "`blob_require` was given an alignment of {alignment}, a multiple of {size_multiple}"
        ));
        return Status::INVALID_ARGUMENT;
    }
    sink.with(|parts| {
        parts
            .requirements
            .push((is_output != 0, index, alignment, size_multiple))
    });
    Status::OK
}

unsafe extern "C" fn blob_keep_state(sink: *mut c::BlobSink, state: u32) -> Status {
    // SAFETY: as the function says.
    let Some(sink) = (unsafe { blob_of("blob_keep_state", sink) }) else {
        return Status::INVALID_ARGUMENT;
    };
    sink.with(|parts| parts.states.push(state));
    Status::OK
}

unsafe extern "C" fn blob_begin_section(sink: *mut c::BlobSink, name: *const u8, size: u64, align: u32) -> Status {
    // SAFETY: as the functions say.
    unsafe {
        let Some(sink) = blob_of("blob_begin_section", sink) else {
            return Status::INVALID_ARGUMENT;
        };
        let name = text("blob_begin_section", name, size);
        sink.with(|parts| {
            if parts
                .fail
                .blob_begin_section
                .is_some_and(|after| parts.sections.len() as u64 >= after)
            {
                parts.failed += 1;
                return Status::INVALID_ARGUMENT;
            }
            if !align.is_power_of_two() || align > 4096 || parts.sections.iter().any(|(other, ..)| *other == name) {
                violation(format!(
                    "`blob_begin_section` was given `{name}` with an alignment of {align}"
                ));
                return Status::INVALID_ARGUMENT;
            }
            parts.sections.push((name, align, Vec::new()));
            Status::OK
        })
    }
}

unsafe extern "C" fn blob_write(sink: *mut c::BlobSink, data: *const u8, size: u64) -> Status {
    // SAFETY: the delegate vouches for the bytes.
    unsafe {
        let Some(sink) = blob_of("blob_write", sink) else {
            return Status::INVALID_ARGUMENT;
        };
        sink.with(|parts| {
            parts.writes += 1;
            if parts.fail.blob_write.is_some_and(|after| parts.writes > after) {
                parts.failed += 1;
                return Status::OUT_OF_MEMORY;
            }
            let Some((.., bytes)) = parts.sections.last_mut() else {
                violation("`blob_write` was called before `blob_begin_section`");
                return Status::INVALID_ARGUMENT;
            };
            if size > 0 && data.is_null() {
                violation("`blob_write` was given no bytes");
                return Status::INVALID_ARGUMENT;
            }
            if size > 0 {
                bytes.extend_from_slice(std::slice::from_raw_parts(data, size as usize));
            }
            Status::OK
        })
    }
}

unsafe extern "C" fn blob_set_verdict(
    sink: *mut c::CheckSink,
    verdict: c::BlobVerdict,
    reason: *const u8,
    size: u64,
) -> Status {
    // SAFETY: as the functions say.
    unsafe {
        let Some(sink) = sink_of::<_, Verdicts>("blob_set_verdict", sink) else {
            return Status::INVALID_ARGUMENT;
        };
        let reason = text("blob_set_verdict", reason, size);
        sink.with(|verdicts| verdicts.push((verdict, reason)));
        Status::OK
    }
}

unsafe extern "C" fn parallel_threads(call: *const c::Call) -> u32 {
    // SAFETY: as the function says.
    let call = unsafe { call_of("parallel_threads", call) };
    call.map_or(1, |call| call.script.threads.max(1))
}

/// What a delegate wants to be handed back on other threads.
struct Context(*mut c_void);

// SAFETY: the contract makes a body and its context usable on any thread; here the pointer is only passed on.
unsafe impl Sync for Context {}

impl Context {
    fn pointer(&self) -> *mut c_void {
        self.0
    }
}

unsafe extern "C" fn parallel_for(
    call: *const c::Call,
    count: u64,
    body: c::ParallelBody,
    context: *mut c_void,
) -> Status {
    // SAFETY: as the function says.
    let Some(call) = (unsafe { call_of("parallel_for", call) }) else {
        return Status::INVALID_ARGUMENT;
    };
    let before = call.script.heard.count("parallel_for") - 1;
    if call.script.fail.parallel_for.is_some_and(|after| before >= after) {
        return Status::INVALID_ARGUMENT;
    }
    let Some(body) = body else {
        violation("`parallel_for` was given no body");
        return Status::INVALID_ARGUMENT;
    };
    let context = &Context(context);
    let next = &AtomicU64::new(0);
    let work = move || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            // SAFETY: the delegate passes a function that is valid for this call, on any thread.
            unsafe { body(context.pointer(), index) };
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..u64::from(call.script.threads.clamp(1, 8)).min(count) {
            scope.spawn(work);
        }
        work();
    });
    Status::OK
}

unsafe extern "C" fn get_extension(_name: *const u8, _size: u64, _min_revision: u32) -> *const c_void {
    std::ptr::null()
}

unsafe extern "C" fn call_time_left_ns(call: *const c::Call) -> u64 {
    // SAFETY: as the function says.
    let Some(call) = (unsafe { call_of("call_time_left_ns", call) }) else {
        return 0;
    };
    call.script.heard.asked.fetch_add(1, Ordering::Relaxed);
    call.script.deadline.map_or(u64::MAX, |deadline| {
        u64::try_from(deadline.saturating_duration_since(Instant::now()).as_nanos()).unwrap_or(u64::MAX - 1)
    })
}

unsafe extern "C" fn call_correlation_id(call: *const c::Call) -> u64 {
    // SAFETY: as the function says.
    let call = unsafe { call_of("call_correlation_id", call) };
    call.map_or(0, |call| call.script.correlation)
}

unsafe extern "C" fn call_progress(call: *const c::Call, done: u64, total: u64, words: *const u8, size: u64) {
    // SAFETY: as the functions say.
    unsafe {
        let Some(call) = call_of("call_progress", call) else {
            return;
        };
        let words = text("call_progress", words, size);
        if total > 0 && done > total {
            violation(format!("`call_progress` was given step {done} of {total}"));
        }
        lock(&call.script.heard.progress).push((done, total, words));
    }
}

unsafe extern "C" fn log_enabled(_call: *const c::Call, _level: c::LogLevel) -> u32 {
    1
}

/// The clock of profiles.
pub(crate) fn now_ns() -> u64 {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    // Not 0 at its origin: a delegate that states 0 has measured nothing.
    let since: Duration = ORIGIN.get_or_init(Instant::now).elapsed();
    1_000_000_000 + u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
}

unsafe extern "C" fn clock_now_ns(_call: *const c::Call) -> u64 {
    now_ns()
}

unsafe extern "C" fn profile_enabled(call: *const c::Call) -> u32 {
    // SAFETY: as the function says.
    let call = unsafe { call_of("profile_enabled", call) };
    u32::from(call.is_some_and(|call| call.script.profile))
}

unsafe extern "C" fn profile_emit(call: *const c::Call, events: *const *const c::ProfileEvent, count: u64) {
    // SAFETY: the delegate vouches for the events.
    unsafe {
        let Some(call) = call_of("profile_emit", call) else {
            return;
        };
        if count > 0 && (events.is_null() || !events.is_aligned()) {
            violation(format!("`profile_emit` was given {count} events at {events:p}"));
            return;
        }
        for i in 0..count.min(1 << 16) as usize {
            let event = match super::raw::read::<c::ProfileEvent>(events.add(i).read()) {
                Ok(event) => event,
                Err(problem) => return violation(format!("`profile_emit`: {problem}")),
            };
            if event.end_ns < event.start_ns {
                violation("`profile_emit` was given an event that ends before it starts");
            }
            lock(&call.script.heard.events).push(Event {
                name: text("profile_emit", event.name, event.name_size),
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

unsafe extern "C" fn weight_unmap(weights: *const c::Weights, _id: u32) {
    // SAFETY: as the function says.
    let _ = unsafe { weights_of("weight_unmap", weights) };
}

unsafe extern "C" fn weight_share_key(weights: *const c::Weights, id: u32, out_key: *mut u64) -> Status {
    // SAFETY: the delegate vouches for the place of the output.
    unsafe {
        let Some(handle) = weights_of("weight_share_key", weights) else {
            return Status::INVALID_ARGUMENT;
        };
        let Some(all) = handle.weights() else {
            return Status::NOT_FOUND;
        };
        let Some(memory) = all.get(id) else {
            return Status::NOT_FOUND;
        };
        if out_key.is_null() {
            violation("`weight_share_key` was given no place for the key");
            return Status::INVALID_ARGUMENT;
        }
        out_key.write(memory.as_ptr().addr() as u64);
        out_key.add(1).write(memory.bytes().len() as u64);
        Status::OK
    }
}

unsafe extern "C" fn fence_signal(
    fence: *mut c::Fence,
    status: Status,
    message: *const u8,
    message_size: u64,
) -> Status {
    // SAFETY: as the function says.
    let message = unsafe { text("fence_signal", message, message_size) };
    let places = fence::outputs(fence.addr());
    // SAFETY: the outputs are the host's from here on; whoever submitted the run keeps them until it has ended.
    let copies = places.into_iter().map(|(data, size)| unsafe {
        let data = std::ptr::with_exposed_provenance::<u8>(data);
        std::slice::from_raw_parts(data, size).to_vec()
    });
    fence::signal(fence.addr(), status, message, copies.collect())
}

/// Every function of the newest version, whose major and minor it states.
pub(crate) const HOST_API: c::HostApi = c::HostApi {
    call_set_error: Some(call_set_error),
    call_is_cancelled: Some(call_is_cancelled),
    log_emit: Some(log_emit),
    weight_map: Some(weight_map),
    weight_retain: Some(weight_retain),
    weight_release: Some(weight_release),
    part_node_verdict: Some(part_node_verdict),
    part_atomic_set: Some(part_atomic_set),
    blob_set_precision: Some(blob_set_precision),
    blob_begin_section: Some(blob_begin_section),
    blob_write: Some(blob_write),
    blob_set_verdict: Some(blob_set_verdict),
    parallel_threads: Some(parallel_threads),
    parallel_for: Some(parallel_for),
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
