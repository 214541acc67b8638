//! The C side: raw calls to the host, and reading what it hands over. All `unsafe` of the SDK is here and in `table`.

mod blob;
mod call;
pub mod environment;
mod host;
mod run;
mod weights;

pub(crate) use blob::{KeptBytes, RawOwner};
pub(crate) use call::RawCall;
pub(crate) use host::{HostTable, host_function};
pub use run::{HostMemory, Mapped};
pub(crate) use run::{RawRun, room_of, view_of};
pub(crate) use weights::RawWeights;

use crate::{Error, Status};
use std::slice;

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
    if size >= size_of::<T>() {
        // SAFETY: all of it is there.
        return Ok(unsafe { pointer.read_unaligned() });
    }
    let mut copy = T::default();
    // SAFETY: `size` bytes are there, and no more than `copy` holds are copied; every field of the ABI's structs may hold any
    // bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut copy).cast::<u8>(), size);
    }
    Ok(copy)
}

/// A struct of the host's that is written, which has at least so many bytes.
///
/// # Safety
/// `pointer` is NULL or points to a struct of the ABI that begins with its size and is the caller's alone during `'a`; `size` covers it.
#[cfg(unix)]
pub(crate) unsafe fn sized_mut<'a, T>(pointer: *mut T, size: usize) -> Result<&'a mut T, Status> {
    // SAFETY: every struct of the ABI begins with its size.
    let given = unsafe { pointer.cast::<u32>().as_ref() }.ok_or(Status::BAD_STRUCT)?;
    if (*given as usize) < size.max(size_of::<T>()) {
        return Err(Status::BAD_STRUCT);
    }
    // SAFETY: all of it is there, and nobody else has it.
    unsafe { pointer.as_mut() }.ok_or(Status::BAD_STRUCT)
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
