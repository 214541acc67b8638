//! Pointers of C into Rust and back: structs with sizes, texts, bytes, handles.

use crate::error::Failure;
use std::ffi::{CStr, c_char, c_void};

/// A struct that begins with its size.
///
/// # Safety
/// It is `repr(C)`, its first field is `struct_size: u32`, and all zeros is a value of it.
pub unsafe trait Versioned: Copy {
    /// In C.
    const NAME: &'static str;
    /// Bytes of its first minor.
    const FIRST: usize;
}

pub(super) fn null(what: &str) -> Failure {
    Failure::usage(format!("`{what}` is NULL"))
}

/// The size that a caller gives a struct.
///
/// # Safety
/// `given` is not NULL and at least its first field may be read.
pub(super) unsafe fn size_of_given<T: Versioned>(given: *const T) -> Result<usize, Failure> {
    // SAFETY: by the caller, and `struct_size` is the first field of every such struct.
    let size = unsafe { given.cast::<u32>().read_unaligned() } as usize;
    if size < T::FIRST {
        return Err(Failure::usage(format!(
            "`{}` has struct_size {size}, less than {}\n  hint: set it to sizeof({})",
            T::NAME,
            T::FIRST,
            T::NAME
        )));
    }
    Ok(size)
}

/// Reads a struct of the caller's; fields that it does not have are zero.
///
/// # Safety
/// `given` is not NULL, and as many bytes as it states may be read.
pub(super) unsafe fn take<T: Versioned>(given: *const T) -> Result<T, Failure> {
    // SAFETY: by the caller.
    let size = unsafe { size_of_given(given) }?;
    let mut own = std::mem::MaybeUninit::<T>::zeroed();
    let both = size.min(size_of::<T>());
    // SAFETY: `both` bytes lie in both structs, which do not overlap; all zeros, and so any prefix that the caller filled over
    // them, is a value of `T` by the promise of `Versioned`.
    unsafe {
        std::ptr::copy_nonoverlapping(given.cast::<u8>(), own.as_mut_ptr().cast::<u8>(), both);
        Ok(own.assume_init())
    }
}

/// Fills a struct of the caller's, as far as it has room; its `struct_size` stays.
///
/// # Safety
/// `out` is not NULL, and as many bytes as it states may be read and written.
pub(super) unsafe fn give<T: Versioned>(out: *mut T, own: &T) -> Result<(), Failure> {
    // SAFETY: by the caller.
    let size = unsafe { size_of_given(out) }?;
    let (both, first) = (size.min(size_of::<T>()), size_of::<u32>());
    // SAFETY: `both` bytes lie in both structs, and `first` of them are left out at both starts; `own` is ours, so that they do
    // not overlap.
    unsafe {
        let (from, to) = (std::ptr::from_ref(own).cast::<u8>(), out.cast::<u8>());
        std::ptr::copy_nonoverlapping(from.add(first), to.add(first), both - first);
    }
    Ok(())
}

/// Text that may be absent.
///
/// # Safety
/// NULL, or ended by NUL and unchanged for `'a`.
pub(super) unsafe fn optional_text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str();
    text.map(Some)
        .map_err(|_| Failure::usage(format!("`{what}` is not UTF-8")))
}

/// # Safety
/// As [`optional_text`].
pub(super) unsafe fn needed_text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: by the caller.
    unsafe { optional_text(text, what) }?.ok_or_else(|| null(what))
}

/// # Safety
/// `size` bytes may be read, unchanged for `'a`.
pub(super) unsafe fn bytes<'a>(data: *const c_void, size: u64, what: &str) -> Result<&'a [u8], Failure> {
    let size = usize::try_from(size).ok().filter(|size| isize::try_from(*size).is_ok());
    let size = size.ok_or_else(|| Failure::usage(format!("`{what}` has more bytes than this machine's memory")))?;
    match (data.is_null(), size) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(null(what)),
        // SAFETY: by the caller; not NULL, and no larger than an allocation can be.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) }),
    }
}

/// A handle.
///
/// # Safety
/// NULL, or one that this library gave and that is not freed for `'a`.
pub(super) unsafe fn handle<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: by the caller. Handles are shared references only: what changes lies behind a lock.
    unsafe { handle.as_ref() }.ok_or_else(|| null(what))
}

/// Bytes that the caller keeps.
pub(super) struct Kept(*const u8, usize);

impl Kept {
    pub(super) fn new(bytes: &[u8]) -> Kept {
        Kept(bytes.as_ptr(), bytes.len())
    }
}

// SAFETY: the caller of `delegraph_model_from_bytes` promises that nobody changes the bytes until model and sessions are freed.
unsafe impl Send for Kept {}
// SAFETY: as above.
unsafe impl Sync for Kept {}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: made from a slice by `delegraph_model_from_bytes`, whose caller keeps it as long as this is there.
        unsafe { std::slice::from_raw_parts(self.0, self.1) }
    }
}
