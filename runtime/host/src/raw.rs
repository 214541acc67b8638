//! Reading what a delegate hands over, with every check that can be made on a pointer.

use delegraph_abi::c;

/// A struct of the ABI.
pub(crate) trait Struct: Copy {
    /// Name in the header.
    const NAME: &'static str;
    /// Bytes at the first minor.
    const FIRST_SIZE: usize;
    /// `struct_id`; `None` for tables.
    const ID: Option<u32>;
    /// Every field unset.
    const EMPTY: Self;
}

impl Struct for c::DelegateInfo {
    const NAME: &'static str = "dg_delegate_info";
    const FIRST_SIZE: usize = c::DelegateInfo::FIRST_SIZE;
    const ID: Option<u32> = Some(c::DelegateInfo::ID.0);
    const EMPTY: Self = c::DelegateInfo::new();
}

impl Struct for c::DeviceInfo {
    const NAME: &'static str = "dg_device_info";
    const FIRST_SIZE: usize = c::DeviceInfo::FIRST_SIZE;
    const ID: Option<u32> = Some(c::DeviceInfo::ID.0);
    const EMPTY: Self = c::DeviceInfo::new();
}

impl Struct for c::DelegateApi {
    const NAME: &'static str = "dg_delegate_api";
    const FIRST_SIZE: usize = c::DelegateApi::FIRST_SIZE;
    const ID: Option<u32> = None;
    const EMPTY: Self = c::DelegateApi::new();
}

impl Struct for c::ProfileEvent {
    const NAME: &'static str = "dg_profile_event";
    const FIRST_SIZE: usize = c::ProfileEvent::FIRST_SIZE;
    const ID: Option<u32> = Some(c::ProfileEvent::ID.0);
    const EMPTY: Self = c::ProfileEvent::new();
}

/// Copies a delegate's struct: as much of it as both sides know, the rest unset.
///
/// # Safety
/// `pointer` is NULL, or points to as many readable bytes as its first four say.
pub(crate) unsafe fn read<T: Struct>(pointer: *const T) -> Result<T, String> {
    let name = T::NAME;
    if pointer.is_null() {
        return Err(format!("`{name}` is NULL"));
    }
    if !pointer.is_aligned() {
        return Err(format!("`{name}` is misaligned"));
    }
    // SAFETY: every struct begins with its size; the caller vouches for the pointer.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if size < T::FIRST_SIZE {
        let least = T::FIRST_SIZE;
        return Err(format!(
            "`struct_size` of `{name}` is {size}, the first minor's is {least}"
        ));
    }
    let mut copy = T::EMPTY;
    // SAFETY: `size` bytes are readable; no more than `copy` holds are copied; every field of the ABI's structs may hold any
    // bytes (function pointers are optional, so a zero one is None).
    unsafe {
        std::ptr::copy_nonoverlapping(
            pointer.cast::<u8>(),
            (&raw mut copy).cast::<u8>(),
            size.min(size_of::<T>()),
        );
    }
    if let Some(expected) = T::ID {
        // SAFETY: the id follows the size in every struct that has one.
        let id = unsafe { (&raw const copy).cast::<u32>().add(1).read() };
        if id != expected {
            return Err(format!("`struct_id` of `{name}` is {id}, not {expected}"));
        }
    }
    Ok(copy)
}

/// Largest text that is taken from a delegate.
const MAX_TEXT: u64 = 1 << 16;

/// Copies a text of a delegate's.
///
/// # Safety
/// `data` is NULL or points to `size` readable bytes.
pub(crate) unsafe fn text(what: &str, data: *const u8, size: u64) -> Result<String, String> {
    if size == 0 {
        return Ok(String::new());
    }
    if data.is_null() {
        return Err(format!("{what} is NULL but not empty"));
    }
    if size > MAX_TEXT {
        return Err(format!("{what} has {size} bytes, more than {MAX_TEXT}"));
    }
    // SAFETY: the caller vouches for the pointer; the size fits.
    let bytes = unsafe { std::slice::from_raw_parts(data, size as usize) };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_string()),
        Err(_) => Err(format!("{what} is not UTF-8")),
    }
}
