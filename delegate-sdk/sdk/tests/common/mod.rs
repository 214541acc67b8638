//! A host in the small, as a host in C would be: a table of functions, objects behind pointers, and notes of what was said to it.
#![allow(dead_code)]

pub mod probe;
pub mod run;

use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType, StaticEntry, Status, c};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Which host it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Minor {
    /// Its table ends with the first minor. Behind the end lie the later functions all the same: who reads too far gets answers.
    Zero,
    /// The table of this SDK.
    One,
    /// A larger table, with functions that nobody knows yet.
    Later,
}

/// What was said to the host in a call.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Heard {
    pub error: Option<(Status, i64, u32, String, String)>,
    pub logs: Vec<String>,
    pub progress: Vec<(u64, u64, String)>,
    pub events: Vec<(String, u32, u32, u64, u64, u64)>,
    pub verdicts: Vec<(u32, u32)>,
    pub drivers: Option<(String, String)>,
    pub requirements: Vec<(u32, u32, u32, u32)>,
    pub sections: Vec<(String, u32, Vec<u8>)>,
    pub verdict: Option<(c::BlobVerdict, String)>,
}

/// A call, and everything that takes answers in it: the sinks are this as well.
#[repr(C)]
pub struct Call {
    public: c::Call,
    pub heard: Mutex<Heard>,
    pub cancelled: AtomicBool,
    pub profiling: AtomicBool,
    pub time_left: u64,
}

// SAFETY: the pointer within is to a table that lives for ever and does not change.
unsafe impl Sync for Call {}

impl Call {
    pub fn new(minor: Minor) -> Call {
        Call {
            public: c::Call {
                host: host_table(minor),
                ..c::Call::new()
            },
            heard: Mutex::default(),
            cancelled: AtomicBool::new(false),
            profiling: AtomicBool::new(true),
            time_left: 1_500_000_000,
        }
    }

    pub fn as_ptr(&self) -> *const c::Call {
        std::ptr::from_ref(self).cast()
    }

    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    pub fn sink<T>(&self) -> *mut T {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// Weights 0 and up.
pub struct Weights {
    pub bytes: Vec<Vec<u8>>,
    pub unmapped: Mutex<Vec<u32>>,
    pub retained: AtomicI64,
}

impl Weights {
    pub fn new(bytes: &[&[u8]]) -> Weights {
        Weights {
            bytes: bytes.iter().map(|b| b.to_vec()).collect(),
            unmapped: Mutex::default(),
            retained: AtomicI64::new(0),
        }
    }

    pub fn as_ptr(&self) -> *mut c::Weights {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// The end of a run.
#[derive(Default)]
pub struct Fence {
    pub signals: Mutex<Vec<(Status, String)>>,
    bell: Condvar,
}

impl Fence {
    pub fn as_ptr(&self) -> *mut c::Fence {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// The one signal. It waits for it, and a while longer for one too many.
    #[track_caller]
    pub fn signal(&self) -> (Status, String) {
        let signals = self.signals.lock().unwrap();
        let patience = Duration::from_secs(20);
        let (signals, _) = self
            .bell
            .wait_timeout_while(signals, patience, |s| s.is_empty())
            .unwrap();
        let (signals, _) = self
            .bell
            .wait_timeout_while(signals, Duration::from_millis(30), |s| s.len() < 2)
            .unwrap();
        assert_eq!(signals.len(), 1, "signals: {signals:?}");
        signals[0].clone()
    }
}

unsafe fn text(data: *const u8, size: u64) -> String {
    assert!(!data.is_null());
    // SAFETY: the delegate gives a text that is valid for the call.
    String::from_utf8(unsafe { std::slice::from_raw_parts(data, size as usize) }.to_vec()).unwrap()
}

unsafe fn call_of<'a, T>(call: *const T) -> &'a Call {
    // SAFETY: the delegate passes the call or sink that it was given.
    unsafe { call.cast::<Call>().as_ref() }.unwrap()
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
    // SAFETY: the arguments are as the contract says, here and below.
    unsafe {
        let error = (
            code,
            vendor_code,
            node,
            text(message, message_size),
            text(hint, hint_size),
        );
        call_of(call).heard.lock().unwrap().error = Some(error);
    }
}

unsafe extern "C" fn call_is_cancelled(call: *const c::Call) -> u32 {
    // SAFETY: see `call_set_error`.
    unsafe { call_of(call) }.cancelled.load(Ordering::SeqCst).into()
}

unsafe extern "C" fn log_emit(call: *const c::Call, level: c::LogLevel, line: *const u8, size: u64) {
    // SAFETY: see `call_set_error`.
    unsafe {
        let line = format!("{}: {}", level.0, text(line, size));
        call_of(call).heard.lock().unwrap().logs.push(line);
    }
}

unsafe extern "C" fn weight_map(
    weights: *const c::Weights,
    id: u32,
    out_data: *mut *const u8,
    out_size: *mut u64,
) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe {
        let weights = weights.cast::<Weights>().as_ref().unwrap();
        let Some(bytes) = weights.bytes.get(id as usize) else {
            return Status::NOT_FOUND;
        };
        (*out_data, *out_size) = (bytes.as_ptr(), bytes.len() as u64);
        Status::OK
    }
}

unsafe extern "C" fn weight_retain(weights: *const c::Weights) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe { &*weights.cast::<Weights>() }
        .retained
        .fetch_add(1, Ordering::SeqCst);
    Status::OK
}

unsafe extern "C" fn weight_release(weights: *const c::Weights) {
    // SAFETY: see `call_set_error`.
    unsafe { &*weights.cast::<Weights>() }
        .retained
        .fetch_sub(1, Ordering::SeqCst);
}

unsafe extern "C" fn weight_unmap(weights: *const c::Weights, id: u32) {
    // SAFETY: see `call_set_error`.
    unsafe { &*weights.cast::<Weights>() }.unmapped.lock().unwrap().push(id);
}

unsafe extern "C" fn weight_share_key(weights: *const c::Weights, id: u32, out_key: *mut u64) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe {
        let weights = &*weights.cast::<Weights>();
        match weights.bytes.get(id as usize) {
            None => Status::NOT_FOUND,
            // Too short to be worth a key.
            Some(bytes) if bytes.len() < 2 => Status::UNSUPPORTED,
            Some(bytes) => {
                out_key.write(u64::from(bytes[0]));
                out_key.add(1).write(u64::from(bytes[1]));
                Status::OK
            }
        }
    }
}

unsafe extern "C" fn part_node_verdict(
    sink: *mut c::PartSink,
    node: u32,
    supported: u32,
    _: c::Reason,
    _: *const u8,
    _: u64,
) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe { call_of(sink) }
        .heard
        .lock()
        .unwrap()
        .verdicts
        .push((node, supported));
    Status::OK
}

unsafe extern "C" fn part_atomic_set(_: *mut c::PartSink, _: *const u32, _: u64) -> Status {
    Status::OK
}

unsafe extern "C" fn blob_set_precision(_: *mut c::BlobSink, _: *const u8, _: u64) -> Status {
    Status::OK
}

unsafe extern "C" fn blob_begin_section(sink: *mut c::BlobSink, name: *const u8, size: u64, align: u32) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe {
        let section = (text(name, size), align, Vec::new());
        call_of(sink).heard.lock().unwrap().sections.push(section);
    }
    Status::OK
}

unsafe extern "C" fn blob_write(sink: *mut c::BlobSink, data: *const u8, size: u64) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe {
        let bytes = std::slice::from_raw_parts(data, size as usize);
        let mut heard = call_of(sink).heard.lock().unwrap();
        heard.sections.last_mut().unwrap().2.extend_from_slice(bytes);
    }
    Status::OK
}

unsafe extern "C" fn blob_set_verdict(
    sink: *mut c::CheckSink,
    verdict: c::BlobVerdict,
    why: *const u8,
    size: u64,
) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe { call_of(sink).heard.lock().unwrap().verdict = Some((verdict, text(why, size))) };
    Status::OK
}

unsafe extern "C" fn blob_set_driver_range(
    sink: *mut c::BlobSink,
    min: *const u8,
    min_size: u64,
    max: *const u8,
    max_size: u64,
) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe { call_of(sink).heard.lock().unwrap().drivers = Some((text(min, min_size), text(max, max_size))) };
    Status::OK
}

unsafe extern "C" fn blob_require(
    sink: *mut c::BlobSink,
    is_output: u32,
    index: u32,
    alignment: u32,
    size_multiple: u32,
) -> Status {
    if alignment > 4096 {
        return Status::INVALID_ARGUMENT;
    }
    // SAFETY: see `call_set_error`.
    let heard = unsafe { &call_of(sink).heard };
    heard
        .lock()
        .unwrap()
        .requirements
        .push((is_output, index, alignment, size_multiple));
    Status::OK
}

/// What the host has beside the contract.
pub static HOST_EXTENSION: u64 = 4711;

unsafe extern "C" fn get_extension(name: *const u8, size: u64, min_revision: u32) -> *const c_void {
    // SAFETY: see `call_set_error`.
    match unsafe { text(name, size) }.as_str() {
        "x.tests.host" if min_revision <= 2 => (&raw const HOST_EXTENSION).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn call_time_left_ns(call: *const c::Call) -> u64 {
    // SAFETY: see `call_set_error`.
    unsafe { call_of(call) }.time_left
}

unsafe extern "C" fn call_correlation_id(_: *const c::Call) -> u64 {
    77
}

unsafe extern "C" fn call_progress(call: *const c::Call, done: u64, total: u64, what: *const u8, size: u64) {
    // SAFETY: see `call_set_error`.
    unsafe {
        let step = (done, total, text(what, size));
        call_of(call).heard.lock().unwrap().progress.push(step);
    }
}

unsafe extern "C" fn log_enabled(_: *const c::Call, level: c::LogLevel) -> u32 {
    (level.0 <= c::LogLevel::INFO.0).into()
}

unsafe extern "C" fn clock_now_ns(_: *const c::Call) -> u64 {
    1234
}

unsafe extern "C" fn profile_enabled(call: *const c::Call) -> u32 {
    // SAFETY: see `call_set_error`.
    unsafe { call_of(call) }.profiling.load(Ordering::SeqCst).into()
}

unsafe extern "C" fn profile_emit(call: *const c::Call, events: *const *const c::ProfileEvent, count: u64) {
    // SAFETY: see `call_set_error`.
    unsafe {
        for event in std::slice::from_raw_parts(events, count as usize) {
            let e = &**event;
            assert_eq!(
                (e.struct_size as usize, e.struct_id),
                (size_of::<c::ProfileEvent>(), c::ProfileEvent::ID.0)
            );
            let event = (text(e.name, e.name_size), e.node, e.lane, e.start_ns, e.end_ns, e.bytes);
            call_of(call).heard.lock().unwrap().events.push(event);
        }
    }
}

unsafe extern "C" fn fence_signal(fence: *mut c::Fence, status: Status, why: *const u8, size: u64) -> Status {
    // SAFETY: see `call_set_error`.
    unsafe {
        let fence = fence.cast::<Fence>().as_ref().unwrap();
        fence.signals.lock().unwrap().push((status, text(why, size)));
        fence.bell.notify_all();
    }
    Status::OK
}

/// The host's table; it lives for ever, as the contract wants it.
pub fn host_table(minor: Minor) -> *const c::HostApi {
    let mut api = c::HostApi {
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
        // Without threads to lend: the delegate's own has to do.
        parallel_threads: None,
        parallel_for: None,
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
        ..c::HostApi::new()
    };
    #[repr(C)]
    struct Larger {
        api: c::HostApi,
        unknown: [usize; 8],
    }
    match minor {
        Minor::Zero => (api.struct_size, api.minor) = (c::HostApi::FIRST_SIZE as u32, 0),
        Minor::One => {}
        Minor::Later => (api.struct_size, api.minor) = (size_of::<Larger>() as u32, 9),
    }
    let unknown = [usize::MAX; 8];
    (&raw const Box::leak(Box::new(Larger { api, unknown })).api).cast()
}

/// The delegate's table.
pub fn table(entry: StaticEntry, minor: Minor) -> &'static c::DelegateApi {
    let mut table = std::ptr::null();
    // SAFETY: the host's table lives for ever, and the entry keeps the contract.
    unsafe {
        assert_eq!(entry.entry()(host_table(minor), &mut table), Status::OK);
        &*table
    }
}

/// Starts a delegate with an option `mode`.
pub fn start(api: &c::DelegateApi, call: &Call, mode: &str) -> Result<*mut c::Delegate, Status> {
    let key = "mode";
    let option = c::Kv {
        key: key.as_ptr(),
        key_size: key.len() as u64,
        r#type: c::KvType::STR,
        str_value: mode.as_ptr(),
        str_value_size: mode.len() as u64,
        ..c::Kv::new()
    };
    let options = [&raw const option];
    let init = c::Init {
        options: options.as_ptr(),
        option_count: 1,
        ..c::Init::new()
    };
    let mut delegate = std::ptr::null_mut();
    // SAFETY: all of it outlives the call.
    match unsafe { api.initialize.unwrap()(call.as_ptr(), &init, &mut delegate) } {
        Status::OK => Ok(delegate),
        status => Err(status),
    }
}

/// The image of `relu(x)`, x of 2 f32.
pub fn image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let two = image.int(2);
    let ty = Type::tensor(DType::F32, &[two]);
    let x = image.input("x", &ty);
    let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    image.output(y);
    image.finish().unwrap()
}
