//! Loading, and reading what a delegate hands over.

use delegraph_abi::c;
use std::path::Path;

/// A struct of the ABI.
pub(crate) trait Struct: Copy {
    const NAME: &'static str;
    /// Bytes at the first version of all.
    const FIRST_SIZE: usize;
    /// Bytes at the first version of the newest major.
    const MAJOR_SIZE: usize;
    const ID: Option<u32>;
    const EMPTY: Self;
}

macro_rules! structs {
    ($($ty:ident $name:literal $id:expr;)*) => {
        $(impl Struct for c::$ty {
            const NAME: &'static str = $name;
            const FIRST_SIZE: usize = c::$ty::FIRST_SIZE;
            const MAJOR_SIZE: usize = c::$ty::MAJOR_SIZE;
            const ID: Option<u32> = $id;
            const EMPTY: Self = c::$ty::new();
        })*
    };
}

structs! {
    DelegateInfo "dg_delegate_info" Some(c::DelegateInfo::ID.0);
    DeviceInfo "dg_device_info" Some(c::DeviceInfo::ID.0);
    ProfileEvent "dg_profile_event" Some(c::ProfileEvent::ID.0);
    DelegateApi "dg_delegate_api" None;
    Kv "dg_kv" Some(c::Kv::ID.0);
    Init "dg_init" Some(c::Init::ID.0);
    Graph "dg_graph" Some(c::Graph::ID.0);
    Target "dg_target" Some(c::Target::ID.0);
    BlobMeta "dg_blob_meta" Some(c::BlobMeta::ID.0);
    Section "dg_section" Some(c::Section::ID.0);
    Blob "dg_blob" Some(c::Blob::ID.0);
    Tensor "dg_tensor" Some(c::Tensor::ID.0);
    HostApi "dg_host_api" None;
}

/// Bytes of a struct at the first minor of a major.
pub(crate) fn first_size<T: Struct>(major: u16) -> usize {
    match major {
        c::ABI_MAJOR => T::MAJOR_SIZE,
        _ => T::FIRST_SIZE,
    }
}

/// Copies a delegate's struct: as much of it as both sides know, the rest unset.
///
/// # Safety
/// `pointer` is NULL, or points to as many readable bytes as its first four say.
pub(crate) unsafe fn read<T: Struct>(pointer: *const T) -> Result<T, String> {
    let name = T::NAME;
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(format!("`{name}` is at {pointer:p}"));
    }
    // SAFETY: every struct begins with its size; the caller vouches for the pointer.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if size < T::FIRST_SIZE {
        return Err(format!(
            "`struct_size` of `{name}` is {size}, the first minor's is {}",
            T::FIRST_SIZE
        ));
    }
    let mut copy = T::EMPTY;
    // SAFETY: `size` bytes are readable; no more than `copy` holds are copied; every field may hold any bytes.
    unsafe {
        let out = (&raw mut copy).cast::<u8>();
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), out, size.min(size_of::<T>()));
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

/// A text that a delegate owns.
///
/// # Safety
/// `data` is NULL or points to `size` readable bytes.
pub(crate) unsafe fn text(what: &str, data: *const u8, size: u64) -> Result<String, String> {
    if size == 0 {
        return Ok(String::new());
    }
    if data.is_null() || size > 1 << 20 {
        return Err(format!("`{what}` is a text of {size} bytes at {data:p}"));
    }
    // SAFETY: the caller vouches for the pointer.
    let bytes = unsafe { std::slice::from_raw_parts(data, size as usize) };
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("`{what}` is no UTF-8"))
}

/// Loads a library, never to unload it, and finds its entry of a major, or the newest; gives the major too.
pub(crate) fn load(path: &Path, wanted: Option<u16>) -> Result<(u16, c::EntryFn), String> {
    let shown = path.display();
    let path = std::path::absolute(path).map_err(|error| format!("`{shown}`: {error}"))?;
    let reason = |error: libloading::Error| match std::error::Error::source(&error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    // SAFETY: running the library's initializers is what is tested, in a process of its own.
    let library = unsafe {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL)
    };
    let library = library.map_err(|error| format!("`{shown}` cannot be loaded: {}", reason(error)))?;
    let library = std::mem::ManuallyDrop::new(library);
    let mut problems = Vec::new();
    for (major, name) in c::ENTRIES {
        if wanted.is_some_and(|wanted| wanted != major) {
            continue;
        }
        // SAFETY: the symbol's type is what the contract gives to these names.
        match unsafe { library.get::<c::EntryFn>(name.as_bytes()) } {
            Ok(symbol) => return Ok((major, *symbol)),
            Err(error) => problems.push(format!("`{name}`: {}", reason(error))),
        }
    }
    match (wanted, problems.is_empty()) {
        (Some(major), true) => Err(format!(
            "the manifest of `{shown}` is made for major version {major} of the ABI, which the kit does not know"
        )),
        _ => Err(format!("`{shown}` does not export {}", problems.join(", nor "))),
    }
}
