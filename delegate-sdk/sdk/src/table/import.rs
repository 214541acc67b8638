//! Functions of the role [`crate::Import`].

use super::{bad_struct, guard, instance};
use crate::sys::{HostMemory, sized};
use crate::{Context, Error, Import, Status};
use delegraph_abi::c;
use std::any::Any;

/// What a `dg_buffer` of this SDK is. Sessions do not know the delegate's type.
type Buffer = Box<dyn Any + Send + Sync>;

pub(super) unsafe extern "C" fn buffer_import<D: Import>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    desc: *const c::BufferDesc,
    out_buffer: *mut *mut c::Buffer,
) -> Status {
    // SAFETY: see `super::get_info`.
    unsafe {
        guard(call, |call| {
            let desc = sized(desc, c::BufferDesc::FIRST_SIZE).map_err(|_| bad_struct("dg_buffer_desc"))?;
            let out = out_buffer.as_mut().ok_or_else(|| bad_struct("out_buffer"))?;
            if desc.handle_type != c::HandleType::HOST_POINTER {
                return Err(Error::unsupported(format!(
                    "memory of handle type {} is not known here",
                    desc.handle_type.0
                )));
            }
            let memory = HostMemory::new(desc.pointer.cast(), desc.size)
                .ok_or_else(|| Error::invalid("address and size of an imported buffer must be multiples of 4096"))?;
            let delegate = &instance::<D>(delegate)?.delegate;
            let buffer: Buffer = Box::new(delegate.import(memory, &Context::new(*call))?);
            *out = Box::into_raw(Box::new(buffer)).cast();
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn buffer_release(buffer: *mut c::Buffer, call: *const c::Call) {
    // SAFETY: `buffer` was made by `buffer_import` and is not used again.
    unsafe {
        guard(call, |_| {
            if !buffer.is_null() {
                drop(Box::from_raw(buffer.cast::<Buffer>()));
            }
            Ok(())
        });
    }
}
