//! Functions of the role [`crate::External`].

use super::import::{self, Buffer};
use super::{bad_struct, guard, instance};
use crate::sys::sized_mut;
use crate::{Context, Error, External, ExternalMemory, HandleType, Mapped, Origin, Status};
use delegraph_abi::c;
use std::os::fd::{BorrowedFd, IntoRawFd};

/// A device, as the contract counts them.
fn device_of(device: u32) -> Option<u32> {
    (device != c::NONE).then_some(device)
}

fn unknown(handle_type: c::HandleType) -> Error {
    Error::unsupported(format!("memory of handle type {} is not known here", handle_type.0))
}

pub(super) unsafe extern "C" fn buffer_handle_types<D: External>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    device: u32,
    out_import: *mut u64,
    out_export: *mut u64,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |_| {
            let (Some(import), Some(export)) = (out_import.as_mut(), out_export.as_mut()) else {
                return Err(bad_struct("out_import"));
            };
            let handles = instance::<D>(delegate)?.delegate.handles(device_of(device));
            (*import, *export) = (handles.import.bits(), handles.export.bits());
            Ok(())
        })
    }
}

/// `buffer_import` of a delegate that takes more than host pointers.
pub(super) unsafe extern "C" fn buffer_import<D: External>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    desc: *const c::BufferDesc,
    out_buffer: *mut *mut c::Buffer,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |call| {
            let desc = import::description(desc)?;
            let out = out_buffer.as_mut().ok_or_else(|| bad_struct("out_buffer"))?;
            let (delegate, context) = (&instance::<D>(delegate)?.delegate, Context::new(*call));
            if desc.handle_type == c::HandleType::HOST_POINTER {
                let buffer = delegate.import(import::host_memory(&desc)?, &context)?;
                *out = Buffer::new(buffer, None).into_raw();
                return Ok(());
            }
            let handle = HandleType::of(desc.handle_type).ok_or_else(|| unknown(desc.handle_type))?;
            if desc.fd < 0 || desc.size == 0 {
                let problem = format!("descriptor {} with {} bytes is no memory", desc.fd, desc.size);
                return Err(Error::invalid(problem));
            }
            let origin = Origin {
                driver_uuid: desc.driver_uuid,
                device_uuid: desc.device_uuid,
                memory_type: desc.memory_type,
                dedicated: desc.dedicated != 0,
            };
            // The host keeps it open during the call.
            let fd = BorrowedFd::borrow_raw(desc.fd);
            let buffer = delegate.import_external(ExternalMemory::new(handle, fd, desc.size, origin), &context)?;
            let mapped = delegate.mapped(&buffer);
            *out = Buffer::new(buffer, mapped).into_raw();
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn buffer_export<D: External>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    device: u32,
    handle_type: c::HandleType,
    size: u64,
    out_desc: *mut c::BufferDesc,
    out_buffer: *mut *mut c::Buffer,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |call| {
            let out = out_buffer.as_mut().ok_or_else(|| bad_struct("out_buffer"))?;
            // The descriptor comes last of what an older host does not know.
            let desc = sized_mut(out_desc, size_of::<c::BufferDesc>()).map_err(|_| bad_struct("dg_buffer_desc"))?;
            let handle = HandleType::of(handle_type).ok_or_else(|| unknown(handle_type))?;
            if size == 0 {
                return Err(Error::invalid("no bytes are asked for"));
            }
            let delegate = &instance::<D>(delegate)?.delegate;
            let made = delegate.export(device_of(device), handle, size, &Context::new(*call))?;
            let mapped = delegate.mapped(&made.buffer);
            desc.handle_type = handle_type;
            desc.size = made.size;
            desc.memory_type = made.origin.memory_type;
            desc.dedicated = u32::from(made.origin.dedicated);
            desc.driver_uuid = made.origin.driver_uuid;
            desc.device_uuid = made.origin.device_uuid;
            desc.fd = made.fd.into_raw_fd();
            *out = Buffer::new(made.buffer, mapped).into_raw();
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn buffer_map(
    buffer: *mut c::Buffer,
    call: *const c::Call,
    out_pointer: *mut *mut std::ffi::c_void,
    out_size: *mut u64,
) -> Status {
    // SAFETY: see `super::get_info`; `buffer` was made by this SDK and is not released.
    unsafe {
        guard(call, |_| {
            let (Some(pointer), Some(size)) = (out_pointer.as_mut(), out_size.as_mut()) else {
                return Err(bad_struct("out_pointer"));
            };
            let buffer = Buffer::borrow(buffer).ok_or_else(|| Error::invalid("the buffer is NULL"))?;
            let Some(Mapped {
                pointer: at,
                size: bytes,
            }) = buffer.mapped
            else {
                return Err(Error::unsupported("the processor does not see this buffer here"));
            };
            (*pointer, *size) = (at.cast(), bytes as u64);
            Ok(())
        })
    }
}
