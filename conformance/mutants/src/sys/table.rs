//! Defects of the table, and of functions that stand in front of the SDK's.

use super::memory;
use crate::{active, is};
use delegraph_sdk::{Reason, Status, c};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The SDK's table, which the functions below call.
static PLAIN: OnceLock<&'static c::DelegateApi> = OnceLock::new();

/// The table as this mutant shows it. It is constant for the life of the process, unless that is the defect.
pub fn changed(plain: &'static c::DelegateApi) -> &'static c::DelegateApi {
    static TABLE: OnceLock<c::DelegateApi> = OnceLock::new();
    let plain = *PLAIN.get_or_init(|| plain);
    if is("table-varies") {
        return Box::leak(Box::new(*plain));
    }
    TABLE.get_or_init(|| {
        let mut api = *plain;
        match active() {
            "missing-function" => api.blob_check = None,
            "small-table" => api.struct_size = c::DelegateApi::FIRST_SIZE as u32 - 8,
            "import-without-functions" => (api.buffer_import, api.buffer_release) = (None, None),
            "external-without-functions" => api.buffer_map = None,
            "wrong-layout-hash" | "wrong-struct-id" | "other-name" | "other-version" => api.get_info = Some(get_info),
            "ignores-capacity" | "unknown-device-kind" => api.device_enumerate = Some(device_enumerate),
            "any-extension" => api.get_extension = Some(get_extension),
            "refuses-extensions" => api.initialize = Some(initialize),
            "two-verdicts" | "ignores-verdict-sink" | "crashes-on-damaged-image" | "accepts-newer-image" => {
                api.partition = Some(partition);
            }
            "ignores-blob-sink" | "reads-behind-host" => api.compile = Some(compile),
            "unloads-in-order" | "frees-twice" | "aborts-on-error" | "reads-behind-structs" | "releases-blob-twice" => {
                api.session_load = Some(session_load);
            }
            "fence-twice" | "fence-and-error" => api.session_submit = Some(session_submit),
            _ => {}
        }
        match active() {
            "unloads-in-order" | "leaks-session" | "releases-blob-twice" => api.session_unload = Some(session_unload),
            "aborts-on-error" => api.session_execute = Some(session_execute),
            _ => {}
        }
        api
    })
}

/// Calls a function of the SDK's table.
macro_rules! plain {
    ($name:ident($($argument:expr),*)) => {
        match PLAIN.get().and_then(|api| api.$name) {
            // SAFETY: the arguments are what the host passed, under the contract.
            Some(function) => unsafe { function($($argument),*) },
            None => Status::INTERNAL,
        }
    };
}

unsafe extern "C" fn get_info(call: *const c::Call, out_info: *mut *const c::DelegateInfo) -> Status {
    static INFO: OnceLock<Info> = OnceLock::new();
    struct Info(c::DelegateInfo);
    // SAFETY: its pointers are of constant texts.
    unsafe impl Send for Info {}
    // SAFETY: as above.
    unsafe impl Sync for Info {}
    let mut plain = std::ptr::null();
    let status = plain!(get_info(call, &mut plain));
    // SAFETY: on OK it is the SDK's constant record.
    let Some(plain) = (unsafe { plain.as_ref() }).filter(|_| status == Status::OK) else {
        return status;
    };
    let info = INFO.get_or_init(|| {
        let mut info = *plain;
        match active() {
            "wrong-layout-hash" => info.layout_hash ^= 1,
            "wrong-struct-id" => info.struct_id = c::Init::ID.0,
            "other-name" => (info.name, info.name_size) = ("mutamt".as_ptr(), 6),
            _ => (info.version, info.version_size) = ("9.9.9".as_ptr(), 5),
        }
        Info(info)
    });
    // SAFETY: the host gives NULL or an output that is valid for a write.
    match unsafe { out_info.as_mut() } {
        Some(out) => *out = &info.0,
        None => return Status::BAD_STRUCT,
    }
    Status::OK
}

unsafe extern "C" fn device_enumerate(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    capacity: u64,
    out_devices: *mut *const c::DeviceInfo,
    out_count: *mut u64,
) -> Status {
    let capacity = if is("ignores-capacity") { u64::MAX } else { capacity };
    let status = plain!(device_enumerate(delegate, call, capacity, out_devices, out_count));
    if is("unknown-device-kind") && status == Status::OK && capacity > 0 && !out_devices.is_null() {
        // SAFETY: the SDK has written the first device there. The record borrows texts that live as long as the delegate.
        unsafe {
            let mut device = **out_devices;
            device.kind = c::DeviceKind(99);
            out_devices.write(Box::leak(Box::new(device)));
        }
    }
    status
}

/// Knows every name.
unsafe extern "C" fn get_extension(_: *const u8, _: u64, _: u32) -> *const std::ffi::c_void {
    static TABLE: [u64; 4] = [0; 4];
    (&raw const TABLE).cast()
}

unsafe extern "C" fn initialize(
    call: *const c::Call,
    init: *const c::Init,
    out_delegate: *mut *mut c::Delegate,
) -> Status {
    // SAFETY: the host gives NULL or a struct that begins as every struct of the contract does.
    match unsafe { init.as_ref() } {
        Some(init) if !init.next.is_null() => Status::BAD_STRUCT,
        _ => plain!(initialize(call, init, out_delegate)),
    }
}

unsafe extern "C" fn partition(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    graph: *const c::Graph,
    sink: *mut c::PartSink,
) -> Status {
    let status = plain!(partition(delegate, call, graph, sink));
    match active() {
        "two-verdicts" if status == Status::OK => {
            // SAFETY: the call runs, and the first minor of the host's table has the function.
            let verdict = unsafe { (*(*call).host).part_node_verdict };
            if let Some(verdict) = verdict {
                // SAFETY: the sink is valid until this function returns.
                unsafe { verdict(sink, 0, 1, Reason::NONE, std::ptr::null(), 0) };
            }
            Status::OK
        }
        "ignores-verdict-sink" => Status::OK,
        "accepts-newer-image" if status == Status::INVALID_ARGUMENT => Status::OK,
        "crashes-on-damaged-image" if status == Status::INVALID_ARGUMENT => {
            memory::fault();
            status
        }
        _ => status,
    }
}

unsafe extern "C" fn compile(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    graph: *const c::Graph,
    target: *const c::Target,
    sink: *mut c::BlobSink,
) -> Status {
    if is("reads-behind-host") {
        // SAFETY: the call runs, and its host's table lives as long as the process.
        memory::look_behind(unsafe { (*call).host });
    }
    match plain!(compile(delegate, call, graph, target, sink)) {
        _ if is("ignores-blob-sink") => Status::OK,
        status => status,
    }
}

/// Sessions in the order of their loading.
static LOADED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

unsafe extern "C" fn session_load(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    blob: *const c::Blob,
    out_session: *mut *mut c::Session,
) -> Status {
    if is("reads-behind-structs") {
        memory::look_behind(blob);
    }
    let status = plain!(session_load(delegate, call, blob, out_session));
    match active() {
        "frees-twice" if status != Status::OK => memory::free_twice(),
        "aborts-on-error" if status != Status::OK => std::process::abort(),
        "unloads-in-order" if status == Status::OK => {
            // SAFETY: on OK the SDK has written the session.
            let session = unsafe { out_session.read() }.addr();
            LOADED.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
        "releases-blob-twice" if status == Status::OK => {
            // SAFETY: on OK the SDK has written the session; a blob that reaches so far has an owner or NULL.
            let (session, owner) = unsafe {
                let reaches = (*blob).struct_size as usize >= size_of::<c::Blob>();
                (
                    out_session.read().addr(),
                    if reaches { (*blob).owner } else { std::ptr::null_mut() },
                )
            };
            // SAFETY: the call runs; only a host that reaches so far gives an owner.
            let release = (!owner.is_null()).then(|| unsafe { (*(*call).host).blob_release });
            if let Some(release) = release.flatten() {
                let kept = (session, owner.expose_provenance(), release);
                OWNERS.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
            }
        }
        _ => {}
    }
    status
}

/// Sessions whose blobs are kept, with what is to be released once more when they are gone.
static OWNERS: Mutex<Vec<(usize, usize, Release)>> = Mutex::new(Vec::new());

type Release = unsafe extern "C" fn(*const c::BlobOwner);

unsafe extern "C" fn session_unload(session: *mut c::Session, call: *const c::Call) {
    if is("leaks-session") {
        return;
    }
    if is("unloads-in-order") {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.pop() != Some(session.addr()) && !session.is_null() {
            memory::fault();
        }
    }
    if let Some(unload) = PLAIN.get().and_then(|api| api.session_unload) {
        // SAFETY: the arguments are the host's.
        unsafe { unload(session, call) };
    }
    let mut owners = OWNERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = owners.iter().position(|(loaded, ..)| *loaded == session.addr()) {
        let (_, owner, release) = owners.swap_remove(at);
        // SAFETY: there is none; the session has released it already.
        unsafe { release(std::ptr::with_exposed_provenance(owner)) };
    }
}

unsafe extern "C" fn session_execute(
    session: *mut c::Session,
    call: *const c::Call,
    inputs: *const *const c::Tensor,
    input_count: u64,
    outputs: *const *mut c::Tensor,
    output_count: u64,
) -> Status {
    let status = plain!(session_execute(
        session,
        call,
        inputs,
        input_count,
        outputs,
        output_count
    ));
    if status != Status::OK {
        std::process::abort();
    }
    status
}

unsafe extern "C" fn session_submit(
    session: *mut c::Session,
    call: *const c::Call,
    inputs: *const *const c::Tensor,
    input_count: u64,
    outputs: *const *mut c::Tensor,
    output_count: u64,
    fence: *mut c::Fence,
) -> Status {
    // SAFETY: the call runs here; the host has the function, or nothing was submitted.
    let signal = unsafe { (*(*call).host).fence_signal };
    let status = plain!(session_submit(
        session,
        call,
        inputs,
        input_count,
        outputs,
        output_count,
        fence
    ));
    if status == Status::OK
        && is("fence-twice")
        && let Some(signal) = signal
    {
        // SAFETY: there is none; the run has ended, and its fence with it (`session` ends it before it returns).
        unsafe { signal(fence, Status::OK, std::ptr::null(), 0) };
    }
    match active() {
        "fence-and-error" => Status::INTERNAL,
        _ => status,
    }
}
