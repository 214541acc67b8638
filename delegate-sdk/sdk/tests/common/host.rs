//! The host's functions.

use super::{Call, Fence, Minor, Owner, Weights};
use delegraph_abi::{Status, c};
use std::ffi::c_void;
use std::sync::atomic::Ordering;

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

unsafe extern "C" fn blob_retain(owner: *const c::BlobOwner) -> Status {
    // SAFETY: see `call_set_error`.
    let owner = unsafe { &*owner.cast::<Owner>() };
    owner.asked.fetch_add(1, Ordering::SeqCst);
    if owner.refuses {
        return Status::UNSUPPORTED;
    }
    owner.retained.fetch_add(1, Ordering::SeqCst);
    Status::OK
}

unsafe extern "C" fn blob_release(owner: *const c::BlobOwner) {
    // SAFETY: see `call_set_error`.
    unsafe { &*owner.cast::<Owner>() }
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
            let (size, whole) = ((**event).struct_size as usize, size_of::<c::ProfileEvent>());
            assert_eq!((size, (**event).struct_id), (whole, c::ProfileEvent::ID.0));
            // A host of 1.0 knows no more than what its struct has.
            let known = if (*(*call).host).minor == 0 {
                c::ProfileEvent::MAJOR_SIZE
            } else {
                whole
            };
            let mut e = c::ProfileEvent::new();
            std::ptr::copy_nonoverlapping(event.cast::<u8>(), (&raw mut e).cast::<u8>(), known);
            let event = (
                text(e.name, e.name_size),
                e.node,
                e.lane,
                e.start_ns,
                e.end_ns,
                e.bytes,
                e.operations,
            );
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
        blob_retain: Some(blob_retain),
        blob_release: Some(blob_release),
        ..c::HostApi::new()
    };
    #[repr(C)]
    struct Larger {
        api: c::HostApi,
        unknown: [usize; 8],
    }
    match minor {
        Minor::Zero => (api.struct_size, api.minor) = (c::HostApi::FIRST_SIZE as u32, 0),
        Minor::First => (api.struct_size, api.minor) = (c::HostApi::MAJOR_SIZE as u32, 0),
        Minor::One => {}
        Minor::Later => (api.struct_size, api.minor) = (size_of::<Larger>() as u32, 9),
    }
    let unknown = [usize::MAX; 8];
    (&raw const Box::leak(Box::new(Larger { api, unknown })).api).cast()
}
