//! Tables of functions that are no part of the contract.

use std::ffi::c_void;

/// A constant table of functions beside the contract, under a name like `x.vendor.name`. Both sides know its C type from a header
/// that is theirs; the contract passes its address on and looks no further.
#[derive(Debug, Clone, Copy)]
pub struct Extension(*const c_void);

impl Extension {
    /// Vouches for a table.
    ///
    /// # Safety
    /// The host casts it to the C type that its name and revision stand for, and calls what is in it, on any thread, at any time.
    pub const unsafe fn new<T: Sync>(table: &'static T) -> Extension {
        Extension(std::ptr::from_ref(table).cast())
    }

    pub(crate) fn from_host(table: *const c_void) -> Option<Extension> {
        (!table.is_null()).then_some(Extension(table))
    }

    /// Its address; never NULL, valid for the life of the process.
    pub const fn as_ptr(self) -> *const c_void {
        self.0
    }
}
