//! Memory by handle, for C. Where a system has no such memory, every function that would make one refuses.

use super::pointers::{give, handle, null, take};
use super::{Memory, Session, guard};
use crate::error::Failure;
use crate::generated::MemoryDesc;
use std::ffi::c_void;
use std::sync::Arc;

/// A size of C's.
fn size_of_c(size: u64, what: &str) -> Result<usize, Failure> {
    let size = usize::try_from(size).ok().filter(|size| isize::try_from(*size).is_ok());
    size.ok_or_else(|| Failure::usage(format!("`{what}` is more than this machine's memory")))
}

/// Hands a memory over.
///
/// # Safety
/// `out` is NULL or may be written.
unsafe fn hand(
    out: *mut *mut Memory,
    make: impl FnOnce() -> Result<Arc<delegraph::Memory>, Failure>,
) -> Result<(), Failure> {
    if out.is_null() {
        return Err(null("out"));
    }
    // SAFETY: by the caller, here and below.
    unsafe { out.write(std::ptr::null_mut()) };
    let memory = Box::new(Memory(make()?));
    // SAFETY: as above.
    unsafe { out.write(Box::into_raw(memory)) };
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod handles {
    use super::{Failure, MemoryDesc, Session};
    use crate::generated::handletype as handle_type;
    use delegraph::{Handle, HandleType, Origin};
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::sync::Arc;

    fn kind(code: u32) -> Result<HandleType, Failure> {
        match code {
            handle_type::OPAQUE_FD => Ok(HandleType::OpaqueFd),
            handle_type::DMA_BUF => Ok(HandleType::DmaBuf),
            handle_type::MEMFD => Ok(HandleType::Memfd),
            other => Err(Failure::usage(format!("there is no handle type {other}"))),
        }
    }

    /// # Safety
    /// NULL, or 16 bytes that may be read.
    unsafe fn uuid(bytes: *const std::ffi::c_void) -> [u8; 16] {
        match bytes.is_null() {
            true => [0; 16],
            // SAFETY: by the caller.
            false => unsafe { bytes.cast::<[u8; 16]>().read_unaligned() },
        }
    }

    /// # Safety
    /// As the header says of `desc`.
    pub(super) unsafe fn import(
        session: Option<&Session>,
        desc: &MemoryDesc,
    ) -> Result<Arc<delegraph::Memory>, Failure> {
        let kind = kind(desc.handle_type)?;
        if desc.fd < 0 {
            return Err(Failure::usage(format!("`fd` is {}: no descriptor", desc.fd)));
        }
        // SAFETY: not -1, and the caller's for this call; it is duplicated, and a number that is not open is an error of that.
        let fd = unsafe { BorrowedFd::borrow_raw(desc.fd) }.try_clone_to_owned();
        let refused = |error| Failure::usage(format!("`fd` is {}: {error}", desc.fd));
        let fd = fd.map_err(refused)?;
        let handle = match kind {
            HandleType::DmaBuf => Handle::dma_buf(fd),
            HandleType::Memfd => Handle::memfd(fd),
            HandleType::OpaqueFd => {
                // SAFETY: by the caller.
                let (driver_uuid, device_uuid) = unsafe { (uuid(desc.driver_uuid), uuid(desc.device_uuid)) };
                let origin = Origin {
                    driver_uuid,
                    device_uuid,
                    memory_type: desc.memory_type,
                    dedicated: desc.dedicated != 0,
                };
                Handle::opaque(fd, desc.size, origin)
            }
        };
        let handle = handle.map_err(refused)?;
        if desc.size != 0 && desc.size != handle.size() {
            let (given, have) = (desc.size, handle.size());
            return Err(Failure::usage(format!("`size` is {given}, there are {have} bytes")));
        }
        match session {
            Some(session) => session.enter()?.import_memory(handle),
            None if kind == HandleType::OpaqueFd => Err(Failure::usage(
                "`session` is NULL\n  hint: only a delegate of a session can map an opaque descriptor",
            )),
            None => {
                let memory = delegraph::Memory::of_handle(handle);
                memory.map(Arc::new).map_err(refused)
            }
        }
    }

    pub(super) fn export(session: &Session, code: u32, size: u64) -> Result<Arc<delegraph::Memory>, Failure> {
        session.enter()?.export_memory(kind(code)?, size)
    }

    pub(super) fn describe(memory: &delegraph::Memory) -> Result<MemoryDesc, Failure> {
        let handle = memory.handle();
        let handle = handle.ok_or_else(|| Failure::usage("the memory has no handle"))?;
        let origin = handle.origin_ref();
        Ok(MemoryDesc {
            struct_size: 0,
            handle_type: match handle.kind() {
                HandleType::OpaqueFd => handle_type::OPAQUE_FD,
                HandleType::DmaBuf => handle_type::DMA_BUF,
                HandleType::Memfd => handle_type::MEMFD,
            },
            fd: handle.fd().as_raw_fd(),
            memory_type: origin.memory_type,
            size: handle.size(),
            dedicated: u32::from(origin.dedicated),
            reserved: 0,
            driver_uuid: origin.driver_uuid.as_ptr().cast(),
            device_uuid: origin.device_uuid.as_ptr().cast(),
        })
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod handles {
    use super::{Failure, MemoryDesc, Session};
    use std::sync::Arc;

    fn none<T>() -> Result<T, Failure> {
        Err(Failure::usage(
            "memory by handle is not supported on this system\n  hint: give the bytes as `data`",
        ))
    }

    /// # Safety
    /// Any pointers.
    pub(super) unsafe fn import(_: Option<&Session>, _: &MemoryDesc) -> Result<Arc<delegraph::Memory>, Failure> {
        none()
    }

    pub(super) fn export(_: &Session, _: u32, _: u64) -> Result<Arc<delegraph::Memory>, Failure> {
        none()
    }

    pub(super) fn describe(_: &delegraph::Memory) -> Result<MemoryDesc, Failure> {
        none()
    }
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_memory_import(
    session: *mut Session,
    desc: *const MemoryDesc,
    out: *mut *mut Memory,
) -> u32 {
    guard(|| {
        if desc.is_null() {
            return Err(null("desc"));
        }
        // SAFETY: by the header, here and below.
        let desc = unsafe { take(desc) }?;
        // SAFETY: as above.
        let session = unsafe { session.as_ref() };
        // SAFETY: as above.
        unsafe { hand(out, || handles::import(session, &desc)) }
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_memory_export(
    session: *mut Session,
    handle_type: u32,
    size: u64,
    out: *mut *mut Memory,
) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let session = unsafe { handle(session.cast_const(), "session") }?;
        // SAFETY: as above.
        unsafe { hand(out, || handles::export(session, handle_type, size)) }
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_memory_describe(memory: *const Memory, out: *mut MemoryDesc) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let memory = unsafe { handle(memory, "memory") }?;
        if out.is_null() {
            return Err(null("out"));
        }
        let own = handles::describe(&memory.0)?;
        // SAFETY: as above.
        unsafe { give(out, &own) }
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_memory_read(
    memory: *const Memory,
    offset: u64,
    bytes: *mut c_void,
    size: u64,
) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let memory = unsafe { handle(memory, "memory") }?;
        let (offset, size) = (size_of_c(offset, "offset")?, size_of_c(size, "size")?);
        if size == 0 {
            return Ok(());
        }
        if bytes.is_null() {
            return Err(null("bytes"));
        }
        // SAFETY: as above: so many bytes may be written there, and are nobody else's during the call. They may hold anything before.
        let into = unsafe {
            std::ptr::write_bytes(bytes.cast::<u8>(), 0, size);
            std::slice::from_raw_parts_mut(bytes.cast::<u8>(), size)
        };
        memory
            .0
            .read_at(offset, into)
            .map_err(|error| Failure::usage(error.to_string()))
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_memory_write(
    memory: *const Memory,
    offset: u64,
    bytes: *const c_void,
    size: u64,
) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let memory = unsafe { handle(memory, "memory") }?;
        let offset = size_of_c(offset, "offset")?;
        // SAFETY: as above.
        let bytes = unsafe { super::pointers::bytes(bytes, size, "bytes") }?;
        memory
            .0
            .write_at(offset, bytes)
            .map_err(|error| Failure::usage(error.to_string()))
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_memory_free(memory: *mut Memory) {
    guard(|| {
        if !memory.is_null() {
            // SAFETY: `hand` made it by `Box::into_raw`; the header says that it is freed once.
            drop(unsafe { Box::from_raw(memory) });
        }
        Ok(())
    });
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_bind_output(
    session: *mut Session,
    index: u64,
    memory: *const Memory,
    offset: u64,
    size: u64,
) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let mut inner = unsafe { handle(session.cast_const(), "session") }?.enter()?;
        let index = size_of_c(index, "index")?;
        // SAFETY: as above.
        let Some(memory) = (unsafe { memory.as_ref() }) else {
            return inner.unbind_output(index);
        };
        inner.bind_output(index, &memory.0, size_of_c(offset, "offset")?, size_of_c(size, "size")?)
    })
}

/// See `capi.toml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_session_forget_memory(session: *mut Session, memory: *const Memory) -> u32 {
    guard(|| {
        // SAFETY: by the header, here and below.
        let mut inner = unsafe { handle(session.cast_const(), "session") }?.enter()?;
        // SAFETY: as above.
        inner.forget_memory(&unsafe { handle(memory, "memory") }?.0)
    })
}
