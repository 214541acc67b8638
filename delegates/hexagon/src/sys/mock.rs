//! A provider of our own, for tests without Qualcomm's library: it writes down what it is called with, gives out numbered handles, and fails where a
//! test says so.

use super::layout::{self as c, Handle};
use super::library::Library;
use super::lock;
use super::log::LogCallback;
use super::mock_texts::{custom, described, node_text, said};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// One test at a time.
static TURN: Mutex<()> = Mutex::new(());
static STATE: Mutex<Option<State>> = Mutex::new(None);

#[derive(Default)]
struct State {
    calls: Vec<String>,
    /// Results of functions by their first words; 0 for the others.
    codes: BTreeMap<&'static str, u64>,
    /// What is said in the function of this name.
    says: Option<(&'static str, CString)>,
    callback: Option<usize>,
    handles: usize,
    alive: BTreeSet<usize>,
    tensors: u32,
    binary: (u64, u64),
}

/// The mock, for one test.
pub struct Mock {
    _turn: MutexGuard<'static, ()>,
    pub library: Arc<Library>,
}

#[repr(C)]
struct MockProvider {
    head: c::Provider,
    slots: [*const c_void; 69],
}

/// All slots that are set.
fn slots() -> [*const c_void; 69] {
    let mut slots = [std::ptr::null(); 69];
    slots[1] = backend_create as *const c_void;
    slots[4] = build_id as *const c_void;
    slots[6] = operations as *const c_void;
    slots[7] = validate as *const c_void;
    slots[8] = backend_free as *const c_void;
    slots[9] = context_create as *const c_void;
    slots[11] = binary_size as *const c_void;
    slots[12] = binary as *const c_void;
    slots[13] = from_binary as *const c_void;
    slots[14] = context_free as *const c_void;
    slots[15] = graph_create as *const c_void;
    slots[18] = add_node as *const c_void;
    slots[19] = finalize as *const c_void;
    slots[20] = retrieve as *const c_void;
    slots[21] = execute as *const c_void;
    slots[24] = tensor as *const c_void;
    slots[25] = log_create as *const c_void;
    slots[27] = log_free as *const c_void;
    slots[28] = profile_create as *const c_void;
    slots[30] = events as *const c_void;
    slots[31] = sub_events as *const c_void;
    slots[32] = event_data as *const c_void;
    slots[34] = profile_free as *const c_void;
    slots[40] = device_create as *const c_void;
    slots[43] = device_free as *const c_void;
    slots[48] = error_message as *const c_void;
    slots
}

impl Mock {
    pub fn new() -> Mock {
        Mock::without(&[])
    }

    /// With empty slots.
    pub fn without(empty: &[usize]) -> Mock {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *lock(&STATE) = Some(State {
            binary: (8, 6),
            ..State::default()
        });
        Mock {
            library: Arc::new(
                library(
                    c::Version {
                        major: 2,
                        minor: 25,
                        patch: 0,
                    },
                    empty,
                )
                .unwrap(),
            ),
            _turn: turn,
        }
    }

    /// From here on, the function fails with this number.
    pub fn fail(&self, function: &'static str, code: u64) {
        state(|state| state.codes.insert(function, code));
    }

    /// The function says something, by the log.
    pub fn say(&self, function: &'static str, words: &str) {
        state(|state| state.says = Some((function, CString::new(words).unwrap())));
    }

    /// Size that is told of a binary, and how much of it is said to be written.
    pub fn binary(&self, size: u64, written: u64) {
        state(|state| state.binary = (size, written));
    }

    /// What was called since this was asked last.
    pub fn calls(&self) -> Vec<String> {
        state(|state| std::mem::take(&mut state.calls))
    }

    /// How many handles were not freed.
    pub fn alive(&self) -> usize {
        state(|state| state.alive.len())
    }
}

/// A library of this version. Each is another one, so that each test may choose its chip.
pub fn library(core: c::Version, empty: &[usize]) -> Result<Library, delegraph_sdk::Error> {
    let mut slots = slots();
    empty.iter().for_each(|slot| slots[*slot] = std::ptr::null());
    let provider: &'static MockProvider = Box::leak(Box::new(MockProvider {
        head: c::Provider {
            backend: 6,
            name: c"MOCK".as_ptr(),
            core,
            backend_version: c::Version {
                major: 5,
                minor: 1,
                patch: 2,
            },
            table: [],
        },
        slots,
    }));
    // SAFETY: it is constant, for ever, and of this layout.
    unsafe { Library::new((&raw const *provider).cast(), PathBuf::from("/mock/libQnnHtp.so"), None) }
}

fn state<T>(with: impl FnOnce(&mut State) -> T) -> T {
    with(lock(&STATE).as_mut().expect("a mock is there"))
}

/// Writes a call down; says what is to be said; the result.
fn called(name: &'static str, more: &str) -> u64 {
    let (callback, says, code) = state(|state| {
        state.calls.push(match more.is_empty() {
            true => name.to_string(),
            false => format!("{name} {more}"),
        });
        let says = state.says.clone().filter(|(function, _)| *function == name);
        (state.callback, says, state.codes.get(name).copied().unwrap_or(0))
    });
    if let (Some(callback), Some((_, words))) = (callback, says) {
        let mut none = [0u64; 8];
        // SAFETY: it is the callback that was given; the format has no conversion, so that of its arguments only the list itself is read.
        unsafe {
            std::mem::transmute::<usize, LogCallback>(callback)(words.as_ptr(), 1, 0, none.as_mut_ptr().cast());
        }
    }
    code
}

/// Makes a handle if the call goes well. As the library, it may leave anything where it fails.
fn made(name: &'static str, more: &str, out: *mut Handle) -> u64 {
    let code = called(name, more);
    if code == 0 {
        let handle = state(|state| {
            state.handles += 0x100;
            let handle = state.handles;
            state.alive.insert(handle);
            handle
        });
        // SAFETY: the output is ours, valid for a write.
        unsafe { out.write(handle as Handle) };
    }
    code
}

fn freed(name: &'static str, handle: Handle) -> u64 {
    let was = state(|state| state.alive.remove(&(handle as usize)));
    called(name, if was { "" } else { "OF NOTHING" })
}

/// SAFETY: of all functions below: only the delegate calls them, with what the library would get.
unsafe extern "C" fn log_create(callback: LogCallback, level: u32, out: *mut Handle) -> u64 {
    state(|state| state.callback = Some(callback as usize));
    made("log create", &format!("level {level}"), out)
}

unsafe extern "C" fn log_free(handle: Handle) -> u64 {
    freed("log free", handle)
}

unsafe extern "C" fn backend_create(log: Handle, _: *const *const c::Config, out: *mut Handle) -> u64 {
    made("backend create", if log.is_null() { "WITHOUT LOG" } else { "" }, out)
}

unsafe extern "C" fn backend_free(handle: Handle) -> u64 {
    freed("backend free", handle)
}

unsafe extern "C" fn build_id(out: *mut *const c_char) -> u64 {
    // SAFETY: the output is valid for a write.
    unsafe { out.write(c"v1".as_ptr()) };
    0
}

unsafe extern "C" fn operations(_: Handle, count: *mut u32, list: *mut *const c::OperationName) -> u64 {
    struct Names([c::OperationName; 2]);
    // SAFETY: constant texts.
    unsafe impl Sync for Names {}
    const fn named(name: &'static CStr) -> c::OperationName {
        c::OperationName {
            package: c"qti.aisw".as_ptr(),
            name: name.as_ptr(),
            target: std::ptr::null(),
        }
    }
    static NAMES: Names = Names([named(c"Relu"), named(c"Tanh")]);
    // SAFETY: the outputs are valid for a write.
    unsafe {
        count.write(2);
        list.write(NAMES.0.as_ptr());
    }
    called("operations", "")
}

unsafe extern "C" fn device_create(_: Handle, configs: *const *const c::Config, out: *mut Handle) -> u64 {
    // SAFETY: as of the function.
    made("device create", &unsafe { custom(configs) }, out)
}

unsafe extern "C" fn device_free(handle: Handle) -> u64 {
    freed("device free", handle)
}

unsafe extern "C" fn context_create(_: Handle, _: Handle, _: *const *const c::Config, out: *mut Handle) -> u64 {
    made("context create", "", out)
}

unsafe extern "C" fn context_free(handle: Handle, _: Handle) -> u64 {
    freed("context free", handle)
}

unsafe extern "C" fn binary_size(_: Handle, out: *mut u64) -> u64 {
    // SAFETY: the output is valid for a write.
    unsafe { out.write(state(|state| state.binary.0)) };
    called("binary size", "")
}

unsafe extern "C" fn binary(_: Handle, buffer: *mut c_void, size: u64, written: *mut u64) -> u64 {
    // SAFETY: the buffer has `size` bytes, the output is valid for a write.
    unsafe {
        buffer.cast::<u8>().write_bytes(0x42, size as usize);
        written.write(state(|state| state.binary.1));
    }
    called("binary", "")
}

unsafe extern "C" fn from_binary(
    _: Handle,
    _: Handle,
    _: *const *const c::Config,
    buffer: *const c_void,
    size: u64,
    out: *mut Handle,
    _: Handle,
) -> u64 {
    // SAFETY: the buffer has `size` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), size as usize) };
    made("from binary", &format!("{bytes:?}"), out)
}

unsafe extern "C" fn graph_create(
    _: Handle,
    name: *const c_char,
    configs: *const *const c::Config,
    out: *mut Handle,
) -> u64 {
    // SAFETY: as of the function.
    let options = unsafe { custom(configs) };
    // SAFETY: the output is valid for a write. A graph is freed with its context.
    unsafe { out.write(0xface as Handle) };
    called("graph create", format!("{} {options}", said(name)).trim())
}

unsafe extern "C" fn retrieve(_: Handle, name: *const c_char, out: *mut Handle) -> u64 {
    // SAFETY: the output is valid for a write.
    unsafe { out.write(0xface as Handle) };
    called("retrieve", &said(name))
}

unsafe extern "C" fn tensor(_: Handle, tensor: *mut c::Tensor) -> u64 {
    let id = state(|state| {
        state.tensors += 1;
        state.tensors
    });
    // SAFETY: the struct is ours.
    let text = unsafe {
        (*tensor).body.id = id;
        described(&*tensor)
    };
    called("tensor", &text)
}

unsafe extern "C" fn validate(_: Handle, node: c::OpConfig) -> u64 {
    called("validate", &node_text(&node))
}

unsafe extern "C" fn add_node(_: Handle, node: c::OpConfig) -> u64 {
    called("add node", &node_text(&node))
}

unsafe extern "C" fn finalize(_: Handle, _: Handle, _: Handle) -> u64 {
    called("finalize", "")
}

/// Writes to each output the sum of the first bytes of all inputs.
unsafe extern "C" fn execute(
    _: Handle,
    inputs: *const c::Tensor,
    input_count: u32,
    outputs: *mut c::Tensor,
    output_count: u32,
    profile: Handle,
    _: Handle,
) -> u64 {
    // SAFETY: the lists have so many tensors, their buffers so many bytes.
    let ids = unsafe {
        let inputs = std::slice::from_raw_parts(inputs, input_count as usize);
        let outputs = std::slice::from_raw_parts(outputs, output_count as usize);
        let sum = inputs
            .iter()
            .map(|t| t.body.buffer.data.cast::<u8>().read())
            .fold(0u8, u8::wrapping_add);
        for output in outputs {
            output
                .body
                .buffer
                .data
                .cast::<u8>()
                .write_bytes(sum, output.body.buffer.size as usize);
        }
        inputs
            .iter()
            .chain(outputs)
            .map(|t| format!("{}/{}", t.body.id, t.body.buffer.size))
            .collect::<Vec<_>>()
    };
    called(
        "execute",
        &format!("{}{}", ids.join(" "), if profile.is_null() { "" } else { " measured" }),
    )
}

unsafe extern "C" fn profile_create(_: Handle, level: u32, out: *mut Handle) -> u64 {
    made("profile create", &format!("level {level}"), out)
}

unsafe extern "C" fn profile_free(handle: Handle) -> u64 {
    freed("profile free", handle)
}

unsafe extern "C" fn events(_: Handle, list: *mut *const u64, count: *mut u32) -> u64 {
    static EVENTS: [u64; 2] = [10, 20];
    // SAFETY: the outputs are valid for a write.
    unsafe {
        list.write(EVENTS.as_ptr());
        count.write(2);
    }
    called("events", "")
}

unsafe extern "C" fn sub_events(id: u64, list: *mut *const u64, count: *mut u32) -> u64 {
    static PARTS: [u64; 1] = [21];
    // SAFETY: as above.
    unsafe {
        list.write(if id == 20 { PARTS.as_ptr() } else { std::ptr::null() });
        count.write(u32::from(id == 20));
    }
    0
}

unsafe extern "C" fn event_data(id: u64, out: *mut c::EventData) -> u64 {
    let data = c::EventData {
        kind: 400 + id as u32,
        unit: if id == 10 { 1 } else { 3 },
        value: id * 100,
        identifier: if id == 10 { std::ptr::null() } else { c"part".as_ptr() },
    };
    // SAFETY: as above.
    unsafe { out.write(data) };
    0
}

unsafe extern "C" fn error_message(code: u64, out: *mut *const c_char) -> u64 {
    if code != 777 {
        return 10001;
    }
    // SAFETY: as above.
    unsafe { out.write(c"The seventh kind of trouble.\nMore of it.".as_ptr()) };
    0
}
