//! Functions of the role [`crate::Import`].

use super::{bad_struct, guard, instance};
use crate::sys::{HostMemory, Mapped, sized};
use crate::{Context, Error, Import, Status};
use delegraph_abi::c;
use std::any::Any;

/// What a `dg_buffer` of this SDK is. Sessions do not know the delegate's type.
pub(crate) struct Buffer {
    /// What the delegate made.
    pub any: Box<dyn Any + Send + Sync>,
    /// Where the processor sees it, as the delegate says.
    #[cfg_attr(not(unix), allow(dead_code))]
    pub mapped: Option<Mapped>,
}

impl Buffer {
    pub fn new(any: impl Any + Send + Sync, mapped: Option<Mapped>) -> Buffer {
        let any = Box::new(any);
        Buffer { any, mapped }
    }

    pub fn into_raw(self) -> *mut c::Buffer {
        Box::into_raw(Box::new(self)).cast()
    }

    /// # Safety
    /// NULL, or what [`Buffer::into_raw`] gave and `buffer_release` did not take back during `'a`.
    pub unsafe fn borrow<'a>(buffer: *const c::Buffer) -> Option<&'a Buffer> {
        // SAFETY: as the caller says.
        unsafe { buffer.cast::<Buffer>().as_ref() }
    }
}

/// # Safety
/// `desc` comes from the host.
pub(super) unsafe fn description(desc: *const c::BufferDesc) -> Result<c::BufferDesc, Error> {
    // SAFETY: as the caller says.
    unsafe { sized(desc, c::BufferDesc::FIRST_SIZE) }.map_err(|_| bad_struct("dg_buffer_desc"))
}

pub(super) fn host_memory(desc: &c::BufferDesc) -> Result<HostMemory, Error> {
    HostMemory::new(desc.pointer.cast(), desc.size)
        .ok_or_else(|| Error::invalid("address and size of an imported buffer must be multiples of 4096"))
}

pub(super) unsafe extern "C" fn buffer_import<D: Import>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    desc: *const c::BufferDesc,
    out_buffer: *mut *mut c::Buffer,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |call| {
            let desc = description(desc)?;
            let out = out_buffer.as_mut().ok_or_else(|| bad_struct("out_buffer"))?;
            if desc.handle_type != c::HandleType::HOST_POINTER {
                return Err(Error::unsupported(format!(
                    "memory of handle type {} is not known here",
                    desc.handle_type.0
                )));
            }
            let delegate = &instance::<D>(delegate)?.delegate;
            let buffer = delegate.import(host_memory(&desc)?, &Context::new(*call))?;
            *out = Buffer::new(buffer, None).into_raw();
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn buffer_release(buffer: *mut c::Buffer, call: *const c::Call) {
    // SAFETY: `buffer` was made by `buffer_import` or `buffer_export` and is not used again.
    unsafe {
        guard(call, |_| {
            if !buffer.is_null() {
                drop(Box::from_raw(buffer.cast::<Buffer>()));
            }
            Ok(())
        });
    }
}
