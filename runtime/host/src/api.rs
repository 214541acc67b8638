//! The host's table: what a delegate can call. Everything is checked; nothing panics.

use crate::raw::text;
use crate::{NodeVerdict, Weights};
use delegraph_abi::{Status, c};
use delegraph_types::Parallel;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Receives log lines of delegates: backend, level, text.
pub type Logger = fn(backend: &str, level: c::LogLevel, text: &str);

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Sends the log lines of all delegates of this process somewhere; without it they are dropped. The first call counts.
pub fn set_logger(logger: Logger) {
    let _ = LOGGER.set(logger);
}

/// A line of the host's own about a backend.
pub(crate) fn log(backend: &str, level: c::LogLevel, text: &str) {
    if let Some(logger) = LOGGER.get() {
        logger(backend, level, text);
    }
}

/// The table, valid as long as the process.
pub(crate) static HOST_API: c::HostApi = c::HostApi {
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
    ..c::HostApi::new()
};

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
    backend: &'a str,
    cancel: Option<&'a AtomicBool>,
    parallel: Parallel,
    details: Mutex<Option<Details>>,
}

impl<'a> HostCall<'a> {
    pub fn new(backend: &'a str, cancel: Option<&'a AtomicBool>, parallel: Parallel) -> HostCall<'a> {
        HostCall {
            public: c::Call {
                host: &raw const HOST_API,
                ..c::Call::new()
            },
            backend,
            cancel,
            parallel,
            details: Mutex::new(None),
        }
    }

    pub fn as_ptr(&self) -> *const c::Call {
        (self as *const Self).cast()
    }

    pub fn details(self) -> Option<Details> {
        self.details.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Safety
    /// `call` is NULL or what `as_ptr` gave for the call that runs.
    unsafe fn from_ptr<'b>(call: *const c::Call) -> Option<&'b HostCall<'b>> {
        // SAFETY: the caller vouches for it; the public part is the first field of a repr(C) struct.
        unsafe { call.cast::<HostCall<'b>>().as_ref() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        *lock(&call.details) = Some(details);
    }
}

unsafe extern "C" fn call_is_cancelled(call: *const c::Call) -> u32 {
    // SAFETY: as in `call_set_error`.
    let call = unsafe { HostCall::from_ptr(call) };
    let cancelled = call.and_then(|c| c.cancel).is_some_and(|c| c.load(Ordering::Relaxed));
    u32::from(cancelled)
}

unsafe extern "C" fn log_emit(call: *const c::Call, level: c::LogLevel, line: *const u8, line_size: u64) {
    // SAFETY: as in `call_set_error`.
    unsafe {
        if let (Some(call), Some(logger)) = (HostCall::from_ptr(call), LOGGER.get())
            && let Ok(line) = text("a log line", line, line_size)
        {
            logger(call.backend, level, &line);
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

/// Weights as a delegate holds them. It lives in an `Arc`, of which each `weight_retain` takes one count more.
pub(crate) struct WeightsHandle {
    source: WeightsSource,
    retained: AtomicUsize,
}

enum WeightsSource {
    /// Of the call that runs; the handle dies with it.
    Borrowed(*const dyn Weights),
    Shared(Arc<dyn Weights>),
}

// SAFETY: `Weights` is Sync, and a borrowed one is read during the call that borrows it only.
unsafe impl Send for WeightsHandle {}
// SAFETY: as above.
unsafe impl Sync for WeightsHandle {}

impl WeightsHandle {
    pub fn shared(weights: Arc<dyn Weights>) -> Arc<WeightsHandle> {
        Arc::new(WeightsHandle {
            source: WeightsSource::Shared(weights),
            retained: AtomicUsize::new(0),
        })
    }

    /// # Safety
    /// The handle is dropped before `weights` is.
    pub unsafe fn borrowed(weights: &dyn Weights) -> Arc<WeightsHandle> {
        // SAFETY: only the lifetime is changed, and the caller promises that it is kept.
        let weights: &'static dyn Weights =
            unsafe { std::mem::transmute::<&dyn Weights, &'static dyn Weights>(weights) };
        Arc::new(WeightsHandle {
            source: WeightsSource::Borrowed(weights),
            retained: AtomicUsize::new(0),
        })
    }

    pub fn as_ptr(self: &Arc<Self>) -> *mut c::Weights {
        Arc::as_ptr(self).cast_mut().cast()
    }

    fn bytes(&self, id: u32) -> Option<&[u8]> {
        match &self.source {
            // SAFETY: the handle lives no longer than what it borrows.
            WeightsSource::Borrowed(weights) => unsafe { &**weights }.bytes(id),
            WeightsSource::Shared(weights) => weights.bytes(id),
        }
    }
}

unsafe extern "C" fn weight_map(
    weights: *const c::Weights,
    id: u32,
    out_data: *mut *const u8,
    out_size: *mut u64,
) -> Status {
    // SAFETY: the delegate passes the handle that it was given, and valid outputs.
    unsafe {
        let Some(handle) = weights.cast::<WeightsHandle>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        if out_data.is_null() || out_size.is_null() {
            return Status::INVALID_ARGUMENT;
        }
        let Some(bytes) = handle.bytes(id) else {
            return Status::NOT_FOUND;
        };
        out_data.write(bytes.as_ptr());
        out_size.write(bytes.len() as u64);
        Status::OK
    }
}

unsafe extern "C" fn weight_retain(weights: *const c::Weights) -> Status {
    // SAFETY: as in `weight_map`; the handle lies in an `Arc`.
    unsafe {
        let pointer = weights.cast::<WeightsHandle>();
        match pointer.as_ref() {
            None => Status::INVALID_ARGUMENT,
            Some(handle) => match handle.source {
                WeightsSource::Borrowed(_) => Status::UNSUPPORTED,
                WeightsSource::Shared(_) => {
                    handle.retained.fetch_add(1, Ordering::Relaxed);
                    Arc::increment_strong_count(pointer);
                    Status::OK
                }
            },
        }
    }
}

unsafe extern "C" fn weight_release(weights: *const c::Weights) {
    // SAFETY: as in `weight_map`; a count is given back only if one was taken.
    unsafe {
        let pointer = weights.cast::<WeightsHandle>();
        let taken = |n: usize| n.checked_sub(1);
        let released = pointer.as_ref().is_some_and(|handle| {
            let update = handle.retained.fetch_update(Ordering::AcqRel, Ordering::Relaxed, taken);
            update.is_ok()
        });
        if released {
            Arc::decrement_strong_count(pointer);
        }
    }
}

/// Takes the answers of a partition call.
#[derive(Default)]
pub(crate) struct PartSink(Mutex<PartAnswers>);

/// What has been answered so far.
#[derive(Default)]
pub(crate) struct PartAnswers {
    pub verdicts: Vec<Option<NodeVerdict>>,
    pub atomic_sets: Vec<Vec<u32>>,
    /// First answer that was out of contract.
    pub problem: Option<String>,
    /// Members of all sets together, so that sets cannot grow without end.
    members: u64,
}

impl PartSink {
    pub fn new(nodes: u32) -> PartSink {
        PartSink(Mutex::new(PartAnswers {
            verdicts: vec![None; nodes as usize],
            ..PartAnswers::default()
        }))
    }

    pub fn as_ptr(&self) -> *mut c::PartSink {
        (self as *const Self).cast_mut().cast()
    }

    pub fn answers(self) -> PartAnswers {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartAnswers {
    fn refuse(&mut self, problem: String) -> Status {
        self.problem.get_or_insert(problem);
        Status::INVALID_ARGUMENT
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
    // SAFETY: the delegate passes the sink that it was given, and a text that is valid for this call.
    unsafe {
        let Some(sink) = sink.cast::<PartSink>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        let words = text("a reason", words, words_size);
        let mut answers = lock(&sink.0);
        let words = match words {
            Ok(words) => words,
            Err(why) => return answers.refuse(format!("node {node}: {why}")),
        };
        let count = answers.verdicts.len();
        match answers.verdicts.get_mut(node as usize) {
            None => answers.refuse(format!("a verdict on node {node} of {count}")),
            Some(Some(_)) => answers.refuse(format!("two verdicts on node {node}")),
            Some(slot) => {
                let supported = supported != 0;
                let named = || reason.name().map_or("no reason given".to_string(), reason_words);
                *slot = Some(NodeVerdict {
                    supported,
                    code: if supported { 0 } else { reason.0 },
                    reason: match (supported, words.is_empty()) {
                        (true, _) => String::new(),
                        (false, true) => named(),
                        (false, false) => words,
                    },
                });
                Status::OK
            }
        }
    }
}

/// `DYNAMIC_SHAPE` -> `dynamic shape`
fn reason_words(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', " ")
}

unsafe extern "C" fn part_atomic_set(sink: *mut c::PartSink, nodes: *const u32, count: u64) -> Status {
    // SAFETY: as in `part_node_verdict`; the list is read after its size was checked.
    unsafe {
        let Some(sink) = sink.cast::<PartSink>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        let mut answers = lock(&sink.0);
        let total = answers.verdicts.len() as u64;
        answers.members += count.min(total + 1);
        // Sets that share nodes are merged later; more members than this say nothing new.
        if count > total || answers.members > total.saturating_mul(16) {
            return answers.refuse(format!("atomic sets of more nodes than the graph's {total} can need"));
        }
        if count > 0 && (nodes.is_null() || !nodes.is_aligned()) {
            return answers.refuse("an atomic set is NULL or misaligned".to_string());
        }
        let set = match count {
            0 => Vec::new(),
            _ => std::slice::from_raw_parts(nodes, count as usize).to_vec(),
        };
        if let Some(node) = set.iter().find(|n| u64::from(**n) >= total) {
            return answers.refuse(format!("an atomic set names node {node} of {total}"));
        }
        answers.atomic_sets.push(set);
        Status::OK
    }
}

/// Takes the blob of a compile call.
#[derive(Default)]
pub(crate) struct BlobSink(Mutex<BlobParts>);

/// What has been written so far.
#[derive(Default)]
pub(crate) struct BlobParts {
    pub precision: String,
    pub sections: Vec<(String, u32, Vec<u8>)>,
    /// First thing that was out of contract.
    pub problem: Option<String>,
}

impl BlobSink {
    pub fn as_ptr(&self) -> *mut c::BlobSink {
        (self as *const Self).cast_mut().cast()
    }

    pub fn parts(self) -> BlobParts {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Safety
    /// `sink` is NULL or what `as_ptr` gave for the call that runs.
    unsafe fn with(sink: *mut c::BlobSink, body: impl FnOnce(&mut BlobParts) -> Result<(), String>) -> Status {
        // SAFETY: the caller vouches for it.
        let Some(sink) = (unsafe { sink.cast::<BlobSink>().as_ref() }) else {
            return Status::INVALID_ARGUMENT;
        };
        let mut parts = lock(&sink.0);
        match body(&mut parts) {
            Ok(()) => Status::OK,
            Err(problem) => {
                parts.problem.get_or_insert(problem);
                Status::INVALID_ARGUMENT
            }
        }
    }
}

unsafe extern "C" fn blob_set_precision(sink: *mut c::BlobSink, precision: *const u8, size: u64) -> Status {
    // SAFETY: the delegate passes the sink that it was given, and a text that is valid for this call.
    unsafe {
        BlobSink::with(sink, |parts| {
            parts.precision = text("the precision", precision, size)?;
            Ok(())
        })
    }
}

unsafe extern "C" fn blob_begin_section(sink: *mut c::BlobSink, name: *const u8, size: u64, align: u32) -> Status {
    // SAFETY: as in `blob_set_precision`.
    unsafe {
        BlobSink::with(sink, |parts| {
            let name = text("a section's name", name, size)?;
            if !align.is_power_of_two() || align > delegraph_abi::envelope::MAX_ALIGN {
                return Err(format!("section `{name}` asks for an alignment of {align}"));
            }
            if parts.sections.iter().any(|(n, ..)| *n == name) {
                return Err(format!("two sections are called `{name}`"));
            }
            parts.sections.push((name, align, Vec::new()));
            Ok(())
        })
    }
}

unsafe extern "C" fn blob_write(sink: *mut c::BlobSink, data: *const u8, size: u64) -> Status {
    // SAFETY: as in `blob_set_precision`.
    unsafe {
        BlobSink::with(sink, |parts| {
            let section = parts.sections.last_mut();
            let (.., bytes) = section.ok_or("bytes are written before a section begins")?;
            let count = usize::try_from(size).map_err(|_| "more bytes than fit in memory".to_string())?;
            if count == 0 {
                return Ok(());
            }
            if data.is_null() {
                return Err("the bytes written are NULL".to_string());
            }
            bytes
                .try_reserve(count)
                .map_err(|_| format!("{count} more bytes do not fit in memory"))?;
            bytes.extend_from_slice(std::slice::from_raw_parts(data, count));
            Ok(())
        })
    }
}

/// Takes the verdict of a check call.
#[derive(Default)]
pub(crate) struct CheckSink(Mutex<Option<Result<(c::BlobVerdict, String), String>>>);

impl CheckSink {
    pub fn as_ptr(&self) -> *mut c::CheckSink {
        (self as *const Self).cast_mut().cast()
    }

    pub fn verdict(self) -> Option<Result<(c::BlobVerdict, String), String>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

unsafe extern "C" fn blob_set_verdict(
    sink: *mut c::CheckSink,
    verdict: c::BlobVerdict,
    reason: *const u8,
    size: u64,
) -> Status {
    // SAFETY: the delegate passes the sink that it was given, and a text that is valid for this call.
    unsafe {
        let Some(sink) = sink.cast::<CheckSink>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        let answer = text("the reason of a verdict", reason, size).map(|reason| (verdict, reason));
        let status = if answer.is_ok() {
            Status::OK
        } else {
            Status::INVALID_ARGUMENT
        };
        *lock(&sink.0) = Some(answer);
        status
    }
}
