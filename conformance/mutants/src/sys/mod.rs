//! What only unsafe code can do wrong: the table, structs and sinks of the C side ([`table`]), and other people's memory ([`memory`]).

pub mod memory;
mod table;

use crate::{Mutant, is};
use delegraph_sdk::{Status, c, roles};

/// The entry of the delegate.
///
/// # Safety
/// As `delegraph.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dg_delegate_entry_v1(
    host: *const c::HostApi,
    out_table: *mut *const c::DelegateApi,
) -> Status {
    if is("refuses-larger-host") && !host.is_null() {
        // SAFETY: every table begins with its size.
        let size = unsafe { (&raw const (*host).struct_size).read() };
        if size as usize > size_of::<c::HostApi>() {
            return Status::BAD_STRUCT;
        }
    }
    let mut plain = std::ptr::null();
    type Roles = (
        roles::CompileSet,
        roles::Run,
        roles::Submit,
        roles::External,
        roles::State,
    );
    // SAFETY: as above; the output is valid for the call.
    let status = unsafe { delegraph_sdk::entry::<Mutant, Roles>(host, &mut plain) };
    // SAFETY: on OK it is the SDK's table, which is constant.
    let Some(plain) = (unsafe { plain.as_ref() }).filter(|_| status == Status::OK) else {
        return status;
    };
    if out_table.is_null() {
        return Status::INVALID_ARGUMENT;
    }
    // SAFETY: the caller gives an output that is valid for a write.
    unsafe { out_table.write(table::changed(plain)) };
    Status::OK
}
