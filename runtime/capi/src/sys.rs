//! The exported functions, and all that touches pointers of C. Everything else of this crate is safe.
//!
//! Every function runs in a guard: a panic becomes `DELEGRAPH_INTERNAL`, nothing unwinds into C. What a function promises is
//! in `capi.toml`; a Rust caller promises the same about pointers as a C one.
#![allow(clippy::missing_safety_doc)]

mod memory;
mod pointers;

use crate::error::{Failure, keep, last};
use crate::generated::{
    BORROW_BYTES, Counts, ErrorInfo, ModelOptions, SessionOptions, Slot, Value as CValue, kind, status,
};
use crate::session::Shape;
use crate::{Memory, Model, Session};
use delegraph::{Bytes, Config, DType, Dims, MemoryView, Source, Value};
pub use memory::*;
pub use pointers::Versioned;
use pointers::{Kept, bytes, give, handle, needed_text, null, optional_text, size_of_given, take};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

fn guard(call: impl FnOnce() -> Result<(), Failure>) -> u32 {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => status::OK,
        Ok(Err(failure)) => keep(failure),
        Err(panic) => {
            let failure = Failure::panicked(&*panic);
            // The payload's own end may panic too; that one is let go.
            std::mem::forget(panic);
            keep(failure)
        }
    }
}

/// Options of a model, read.
#[derive(Default)]
struct Given {
    flags: u32,
    name: Option<String>,
    config: Config,
    data: Option<Source>,
}

/// # Safety
/// NULL, or as `delegraph_model_options` says.
unsafe fn model_options(options: *const ModelOptions) -> Result<Given, Failure> {
    if options.is_null() {
        return Ok(Given::default());
    }
    // SAFETY: by the caller, here and below.
    let options = unsafe { take(options) }?;
    if options.flags & !BORROW_BYTES != 0 {
        return Err(Failure::usage(format!(
            "`flags` is {:#x}: there is no such flag",
            options.flags
        )));
    }
    // SAFETY: as above.
    let path = unsafe { optional_text(options.config_path, "config_path") }?;
    let config = match (path, options.config_text.is_null()) {
        (Some(_), false) => return Err(Failure::usage("`config_path` and `config_text` are both given")),
        (Some(path), true) => delegraph::config_from_file(path.as_ref())?,
        (None, true) => Config::default(),
        (None, false) => {
            // SAFETY: as above.
            let text = unsafe { bytes(options.config_text.cast(), options.config_text_size, "config_text") }?;
            let text = std::str::from_utf8(text).map_err(|_| Failure::usage("`config_text` is not UTF-8"))?;
            delegraph::config_from_text(text)?
        }
    };
    // SAFETY: as above.
    let data = unsafe { optional_text(options.data_path, "data_path") }?;
    // SAFETY: as above.
    let name = unsafe { optional_text(options.name, "name") }?;
    Ok(Given {
        flags: options.flags,
        name: name.map(str::to_string),
        config,
        data: data.map(Source::open).transpose()?,
    })
}

/// Makes a model and hands it over.
///
/// # Safety
/// `out` is NULL or may be written; `options` as for [`model_options`].
unsafe fn model(
    options: *const ModelOptions,
    out: *mut *mut Model,
    source: impl FnOnce(&Given) -> Result<Source, Failure>,
) -> u32 {
    guard(|| {
        if out.is_null() {
            return Err(null("out"));
        }
        // SAFETY: by the caller, here and below.
        unsafe { out.write(std::ptr::null_mut()) };
        // SAFETY: as above.
        let given = unsafe { model_options(options) }?;
        let source = source(&given)?;
        let model = Box::new(Model::new(source, given.config, given.data)?);
        // SAFETY: as above.
        unsafe { out.write(Box::into_raw(model)) };
        Ok(())
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_last_error(out: *mut ErrorInfo) -> u32 {
    // The size first: a struct that is too small is the new last error, and `last` must not be read while it is written.
    if !out.is_null() {
        // SAFETY: not NULL, and the caller's by the header.
        let checked = guard(|| unsafe { size_of_given(out) }.map(|_| ()));
        if checked != status::OK {
            return checked;
        }
    }
    let read = last(|last| {
        if !out.is_null() {
            let own = ErrorInfo {
                struct_size: 0,
                status: last.status,
                kind: last.kind.as_ptr(),
                message: last.message.as_ptr(),
                hint: last.hint.as_ptr(),
            };
            // SAFETY: as above; its size was checked.
            let _ = unsafe { give(out, &own) };
        }
        last.status
    });
    read.unwrap_or(status::INTERNAL)
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_model_from_path(
    path: *const c_char,
    options: *const ModelOptions,
    out: *mut *mut Model,
) -> u32 {
    // SAFETY: by the header.
    unsafe { model(options, out, |_| Ok(Source::open(needed_text(path, "path")?)?)) }
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_model_from_bytes(
    bytes: *const c_void,
    size: u64,
    options: *const ModelOptions,
    out: *mut *mut Model,
) -> u32 {
    let read = |given: &Given| {
        // SAFETY: by the header; where they are kept, for as long as `Kept` says.
        let bytes = unsafe { pointers::bytes(bytes, size, "bytes") }?;
        let name = given.name.as_deref().unwrap_or("bytes");
        Ok(if given.flags & BORROW_BYTES != 0 {
            let kept = Kept::new(bytes);
            Source::from_shared(Bytes::new(Arc::new(kept)), name)
        } else {
            Source::from_bytes(bytes.to_vec(), name)
        })
    };
    // SAFETY: by the header.
    unsafe { model(options, out, read) }
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_model_from_fd(
    fd: i32,
    offset: u64,
    size: u64,
    options: *const ModelOptions,
    out: *mut *mut Model,
) -> u32 {
    let read = |given: &Given| {
        let whole = descriptor(fd, given.name.as_deref().unwrap_or("descriptor"))?;
        let length = whole.bytes().as_slice().len() as u64;
        Ok(match (offset, size) {
            (0, 0) => whole,
            (_, 0) => whole.window(offset, length.saturating_sub(offset))?,
            _ => whole.window(offset, size)?,
        })
    };
    // SAFETY: by the header.
    unsafe { model(options, out, read) }
}

#[cfg(unix)]
fn descriptor(fd: i32, name: &str) -> Result<Source, Failure> {
    use std::os::fd::BorrowedFd;
    if fd < 0 {
        return Err(Failure::usage(format!("`fd` is {fd}: no descriptor")));
    }
    // SAFETY: not -1, and the caller's for this call; it is duplicated, and a number that is not open is an error of that.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let owned = borrowed.try_clone_to_owned();
    let owned = owned.map_err(|error| Failure::usage(format!("`fd` is {fd}: {error}")))?;
    let file = std::fs::File::from(owned);
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(Failure::usage(format!("`fd` is {fd}: no regular file")));
    }
    Ok(Source::from_file(&file, name)?)
}

#[cfg(not(unix))]
fn descriptor(_: i32, _: &str) -> Result<Source, Failure> {
    Err(Failure::usage(
        "this system has no file descriptors\n  hint: give the path or the bytes",
    ))
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_model_method(model: *const Model, index: u64) -> *const c_char {
    let mut name = std::ptr::null();
    guard(|| {
        // SAFETY: by the header.
        let model = unsafe { handle(model, "model") }?;
        let method = usize::try_from(index).ok().and_then(|index| model.methods.get(index));
        name = method.map_or(std::ptr::null(), |method| method.as_ptr());
        Ok(())
    });
    name
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_model_free(model: *mut Model) {
    guard(|| {
        if !model.is_null() {
            // SAFETY: `model()` made it by `Box::into_raw`; the header says that it is freed once.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_open(
    model: *const Model,
    options: *const SessionOptions,
    out: *mut *mut Session,
) -> u32 {
    guard(|| {
        if out.is_null() {
            return Err(null("out"));
        }
        // SAFETY: by the header, here and below.
        unsafe { out.write(std::ptr::null_mut()) };
        // SAFETY: as above.
        let model = unsafe { handle(model, "model") }?;
        let (mut threads, mut method) = (None, None);
        if !options.is_null() {
            // SAFETY: as above.
            let options = unsafe { take(options) }?;
            threads = (options.threads > 0).then_some(options.threads as usize);
            // SAFETY: as above.
            method = unsafe { optional_text(options.method, "method") }?;
        }
        let session = Box::new(Session::open(model, method, threads)?);
        // SAFETY: as above.
        unsafe { out.write(Box::into_raw(session)) };
        Ok(())
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_counts(session: *const Session, out: *mut Counts) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let session = unsafe { handle(session, "session") }?;
        let count = |which| Ok::<u64, Failure>(session.places(which)?.len() as u64);
        let own = Counts {
            struct_size: 0,
            reserved: 0,
            inputs: count(crate::generated::list::INPUTS)?,
            outputs: count(crate::generated::list::OUTPUTS)?,
            states: count(crate::generated::list::STATES)?,
        };
        if out.is_null() {
            return Err(null("out"));
        }
        // SAFETY: as above.
        unsafe { give(out, &own) }
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_slot(session: *const Session, list: u32, index: u64, out: *mut Slot) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let session = unsafe { handle(session, "session") }?;
        let places = session.places(list)?;
        let place = usize::try_from(index).ok().and_then(|index| places.get(index));
        let place = place.ok_or_else(|| Failure::usage(format!("the list has {} places", places.len())))?;
        let own = Slot {
            struct_size: 0,
            kind: place.kind,
            dtype: place.dtype,
            rank: place.sizes.len() as u32,
            dynamic: u32::from(place.dynamic),
            fixed: u32::from(place.fixed),
            name: place.name.as_ptr(),
            sizes: place.sizes.as_ptr(),
            data_size: place.data_size,
        };
        if out.is_null() {
            return Err(null("out"));
        }
        // SAFETY: as above.
        unsafe { give(out, &own) }
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_run(session: *mut Session, inputs: *const CValue, count: u64) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let session = unsafe { handle(session, "session") }?;
        let mut inner = session.enter()?;
        let mut values = Vec::new();
        if count > 0 {
            if inputs.is_null() {
                return Err(null("inputs"));
            }
            let takes = session.places(crate::generated::list::INPUTS)?.len();
            if count > takes as u64 {
                return Err(Failure::usage(format!(
                    "{count} inputs are given, the method takes {takes}"
                )));
            }
            // SAFETY: as above: there is at least one.
            let size = unsafe { size_of_given(inputs) }?;
            for i in 0..count as usize {
                // Elements lie as far apart as the caller's struct is large, which a newer or older header decides.
                let at = inputs.wrapping_byte_add(i * size);
                // SAFETY: the `i`-th of `count` structs of `size` bytes.
                if unsafe { size_of_given(at) }? != size {
                    return Err(Failure::usage(format!(
                        "input {i} has another struct_size than input 0"
                    )));
                }
                // SAFETY: as above; what it points to is the caller's until the call returns.
                values.push(unsafe { value(&take(at)?, i) }?);
            }
        }
        inner.run(&values)
    })
}

/// An argument.
///
/// # Safety
/// What it points to may be read for `'a`.
unsafe fn value<'a>(given: &CValue, index: usize) -> Result<Value<'a>, Failure> {
    let wrong = |what: String| Failure::usage(format!("input {index}: {what}"));
    Ok(match given.kind {
        kind::NONE => Value::None,
        kind::INT => Value::Int(given.int_value),
        kind::FLOAT => Value::Float(given.float_value),
        kind::BOOL => Value::Bool(given.int_value != 0),
        kind::TEXT => {
            // SAFETY: by the caller, here and below.
            let text = unsafe { bytes(given.data, given.data_size, "data") }?;
            Value::Str(std::str::from_utf8(text).map_err(|_| wrong("the text is not UTF-8".to_string()))?)
        }
        kind::TENSOR => {
            let code = i8::try_from(given.dtype).ok().and_then(DType::from_pte);
            let dtype = code.ok_or_else(|| wrong(format!("there is no dtype {}", given.dtype)))?;
            let mut shape = Dims::default();
            if given.rank > 0 && given.sizes.is_null() {
                return Err(wrong("`sizes` is NULL".to_string()));
            }
            if given.rank as usize > delegraph::MAX_RANK {
                return Err(wrong(format!("rank {} is above {}", given.rank, delegraph::MAX_RANK)));
            }
            for d in 0..given.rank as usize {
                // SAFETY: as above: `rank` sizes stand there.
                let size = unsafe { given.sizes.add(d).read_unaligned() };
                let size = i64::try_from(size).map_err(|_| wrong(format!("size {size} is too large")))?;
                shape.push(size).map_err(|error| wrong(error.to_string()))?;
            }
            // SAFETY: as above.
            if let Some(memory) = unsafe { given.memory.as_ref() } {
                if !given.data.is_null() {
                    return Err(wrong("`data` and `memory` are both given".to_string()));
                }
                let offset = usize::try_from(given.memory_offset);
                let offset =
                    offset.map_err(|_| wrong("`memory_offset` is more than this machine's memory".to_string()))?;
                return Ok(Value::Memory(MemoryView {
                    dtype,
                    shape,
                    memory: &memory.0,
                    offset,
                }));
            }
            // SAFETY: as above.
            let data = unsafe { bytes(given.data, given.data_size, "data") }
                .map_err(|_| wrong(format!("`data` is NULL or too large with {} bytes", given.data_size)))?;
            let want = shape.numel().and_then(|count| count.checked_mul(dtype.size()));
            if want != Some(data.len()) {
                return Err(wrong(format!(
                    "`data_size` is {}, but {dtype}[{shape}] has {} bytes",
                    data.len(),
                    want.map_or("too many".to_string(), |want| want.to_string())
                )));
            }
            Value::tensor(dtype, shape, data)
        }
        other => return Err(wrong(format!("there is no kind {other}"))),
    })
}

fn shown(shape: &Shape<'_>) -> CValue {
    let mut own = CValue {
        struct_size: 0,
        kind: kind::NONE,
        dtype: 0,
        rank: 0,
        sizes: std::ptr::null(),
        data: std::ptr::null(),
        data_size: 0,
        int_value: 0,
        float_value: 0.0,
        memory: std::ptr::null(),
        memory_offset: 0,
    };
    match *shape {
        Shape::None => {}
        Shape::Tensor { dtype, sizes, data } => {
            own.kind = kind::TENSOR;
            own.dtype = dtype;
            own.rank = sizes.len() as u32;
            own.sizes = sizes.as_ptr();
            own.data = data.as_ptr().cast();
            own.data_size = data.len() as u64;
        }
        Shape::Int(value) => {
            own.kind = kind::INT;
            own.int_value = value;
        }
        Shape::Float(value) => {
            own.kind = kind::FLOAT;
            own.float_value = value;
        }
        Shape::Bool(value) => {
            own.kind = kind::BOOL;
            own.int_value = i64::from(value);
        }
        Shape::Text(text) => {
            own.kind = kind::TEXT;
            own.data = text.as_ptr().cast();
            own.data_size = text.len() as u64;
        }
    }
    own
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_output(session: *mut Session, index: u64, out: *mut CValue) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let mut inner = unsafe { handle(session, "session") }?.enter()?;
        if out.is_null() {
            return Err(null("out"));
        }
        let own = shown(&inner.output(index)?);
        // SAFETY: as above.
        unsafe { give(out, &own) }
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_state(session: *mut Session, name: *const c_char, out: *mut CValue) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let mut inner = unsafe { handle(session, "session") }?.enter()?;
        // SAFETY: as above.
        let name = unsafe { needed_text(name, "name") }?;
        if out.is_null() {
            return Err(null("out"));
        }
        let own = shown(&inner.state(name)?);
        // SAFETY: as above.
        unsafe { give(out, &own) }
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_reset(session: *mut Session) -> u32 {
    guard(|| {
        // SAFETY: by the header.
        unsafe { handle(session, "session") }?.enter()?.reset();
        Ok(())
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_adopt_state(
    session: *mut Session,
    from: *mut Session,
    taken: *mut u64,
) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let mut inner = unsafe { handle(session, "session") }?.enter()?;
        // SAFETY: as above.
        let from = unsafe { handle(from, "from") }?;
        if std::ptr::eq(session, from) {
            return Err(Failure::usage("`session` and `from` are the same"));
        }
        let count = inner.adopt_state(&mut *from.enter()?)?;
        if !taken.is_null() {
            // SAFETY: as above.
            unsafe { taken.write(count) };
        }
        Ok(())
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_report(session: *mut Session, json: *mut *const c_char) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let mut inner = unsafe { handle(session, "session") }?.enter()?;
        if json.is_null() {
            return Err(null("json"));
        }
        // SAFETY: as above.
        unsafe { json.write(inner.report().as_ptr()) };
        Ok(())
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_free(session: *mut Session) {
    guard(|| {
        if !session.is_null() {
            // SAFETY: `delegraph_session_open` made it by `Box::into_raw`; the header says that it is freed once, and that no
            // call of it is under way.
            drop(unsafe { Box::from_raw(session) });
        }
        Ok(())
    });
}
