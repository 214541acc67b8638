//! The C side: raw calls to the host, and reading what it hands over. All `unsafe` of the SDK is here and in `table.rs`.

use crate::{Error, Status};
use delegraph_abi::c;
use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::slice;
use std::sync::{Mutex, PoisonError};

/// The running call.
#[derive(Clone, Copy)]
pub(crate) struct RawCall {
    call: *const c::Call,
    host: HostTable,
}

/// The host's table, of which as much is there as its own size says: an older host has a shorter one.
#[derive(Clone, Copy)]
pub(crate) struct HostTable(*const c::HostApi);

// SAFETY: the table is constant and lives as long as the process.
unsafe impl Send for HostTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}

impl HostTable {
    /// Checks what can be checked.
    ///
    /// # Safety
    /// `host` is NULL or a host table that lives as long as the process.
    pub unsafe fn new(host: *const c::HostApi) -> Result<HostTable, Status> {
        // SAFETY: only the leading size is read, which every table has; then it is known that the first minor is there.
        unsafe {
            let size = host.cast::<u32>().as_ref().ok_or(Status::BAD_STRUCT)?;
            if (*size as usize) < c::HostApi::FIRST_SIZE || (&raw const (*host).major).read() != c::ABI_MAJOR {
                return Err(Status::BAD_STRUCT);
            }
        }
        Ok(HostTable(host))
    }

    /// The function at an offset, if the host has it.
    ///
    /// # Safety
    /// `offset` and `F` are those of an optional function of the table.
    pub unsafe fn function<F: Copy>(self, offset: usize) -> Option<F> {
        // SAFETY: the table begins with its size; a function that lies within it may be read. NULL is `None`.
        unsafe {
            if self.0.cast::<u32>().read() as usize >= offset + size_of::<Option<F>>() {
                self.0.cast::<u8>().add(offset).cast::<Option<F>>().read()
            } else {
                None
            }
        }
    }
}

/// `host_function!(host, log_emit)`: the function, if this host has it.
macro_rules! host_function {
    ($host:expr, $name:ident) => {{
        // The type is the member's, which the closure's inference ties to the offset.
        fn typed<F: Copy>(host: $crate::sys::HostTable, offset: usize, _: fn(&c::HostApi) -> Option<F>) -> Option<F> {
            // SAFETY: offset and type are of one member.
            unsafe { host.function::<F>(offset) }
        }
        typed($host, std::mem::offset_of!(c::HostApi, $name), |table| table.$name)
    }};
}
pub(crate) use host_function;

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

    pub fn host(&self) -> HostTable {
        self.host
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

/// The host's weights.
#[derive(Clone, Copy)]
pub(crate) struct RawWeights {
    weights: *const c::Weights,
    host: HostTable,
}

// SAFETY: the contract lets every host function be called from any thread; the pointer is only passed to them.
unsafe impl Send for RawWeights {}
// SAFETY: as above.
unsafe impl Sync for RawWeights {}

impl RawWeights {
    /// `weights` may be NULL: there are none then.
    pub fn new(weights: *const c::Weights, call: &RawCall) -> RawWeights {
        RawWeights {
            weights,
            host: call.host,
        }
    }

    /// The bytes live as long as the handle does: [`crate::Weights`] and [`crate::KeptWeights`] give them their lifetimes.
    pub fn map<'a>(&self, id: u32) -> Result<&'a [u8], Error> {
        let missing = || Error::new(Status::NOT_FOUND, format!("there is no weight {id}"));
        let map = host_function!(self.host, weight_map)
            .filter(|_| !self.weights.is_null())
            .ok_or_else(missing)?;
        let (mut data, mut size) = (std::ptr::null(), 0);
        // SAFETY: the handle is alive, see above; both outputs are valid for writes.
        let status = unsafe { map(self.weights, id, &mut data, &mut size) };
        if status != Status::OK {
            return Err(missing());
        }
        // SAFETY: on OK the host gives bytes that live as long as the handle.
        Ok(unsafe { bytes(data, size) })
    }

    pub fn retain(&self) -> Result<(), Error> {
        let refused = || Error::new(Status::UNSUPPORTED, "the host keeps weights only for what `load` makes");
        let retain = host_function!(self.host, weight_retain)
            .filter(|_| !self.weights.is_null())
            .ok_or_else(refused)?;
        // SAFETY: the handle is alive.
        match unsafe { retain(self.weights) } {
            Status::OK => Ok(()),
            _ => Err(refused()),
        }
    }

    pub fn release(&self) {
        if let Some(release) = host_function!(self.host, weight_release) {
            // SAFETY: called once for each `retain`, by the drop of what it made.
            unsafe { release(self.weights) }
        }
    }
}

/// Copies a struct of the host's: as much of it as both sides know, the rest unset.
///
/// # Safety
/// `pointer` is NULL or points to a struct of the ABI that begins with its size.
pub(crate) unsafe fn sized<T: Copy + Default>(pointer: *const T, first_size: usize) -> Result<T, Status> {
    // SAFETY: every struct of the ABI begins with its size.
    let size = unsafe { pointer.cast::<u32>().as_ref() }.ok_or(Status::BAD_STRUCT)?;
    let size = *size as usize;
    if size < first_size {
        return Err(Status::BAD_STRUCT);
    }
    let mut copy = T::default();
    // SAFETY: `size` bytes are there, and no more than `copy` holds are copied; every field of the ABI's structs may hold any
    // bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(
            pointer.cast::<u8>(),
            (&raw mut copy).cast::<u8>(),
            size.min(size_of::<T>()),
        );
    }
    Ok(copy)
}

/// Bytes of the host's.
///
/// # Safety
/// `data` is valid for `size` bytes during `'a`; it may be NULL where `size` is 0.
pub(crate) unsafe fn bytes<'a>(data: *const u8, size: u64) -> &'a [u8] {
    if data.is_null() || size == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(data, size as usize) }
}

/// As [`bytes`], for writing.
///
/// # Safety
/// As [`bytes`], and nobody else has the bytes during `'a`.
pub(crate) unsafe fn bytes_mut<'a>(data: *mut u8, size: u64) -> &'a mut [u8] {
    if data.is_null() || size == 0 {
        return &mut [];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts_mut(data, size as usize) }
}

/// Text of the host's.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(data: *const u8, size: u64) -> Result<&'a str, Error> {
    // SAFETY: as the caller promises.
    std::str::from_utf8(unsafe { bytes(data, size) }).map_err(|_| Error::invalid("a text of the host is not UTF-8"))
}

/// A list of pointers.
///
/// # Safety
/// As [`bytes`], in items.
pub(crate) unsafe fn pointers<'a, T>(data: *const T, count: u64) -> &'a [T] {
    if data.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(data, count as usize) }
}

/// A Rust type that holds elements.
pub trait Element: Copy + sealed::Sealed + 'static {}

mod sealed {
    /// Plain numbers: every run of bytes of the right size is one.
    pub trait Sealed {}
}

macro_rules! elements {
    ($($ty:ty),*) => {
        $(impl sealed::Sealed for $ty {}
        impl Element for $ty {})*
    };
}

elements!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

/// Bytes as elements; `None` if they are misaligned or not a whole number of them.
pub(crate) fn as_elements<T: Element>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: every run of bytes is a value of an `Element`.
    let (before, items, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(items)
}

/// As [`as_elements`], for writing.
pub(crate) fn as_elements_mut<T: Element>(bytes: &mut [u8]) -> Option<&mut [T]> {
    // SAFETY: every run of bytes is a value of an `Element`, and back.
    let (before, items, after) = unsafe { bytes.align_to_mut::<T>() };
    (before.is_empty() && after.is_empty()).then_some(items)
}
