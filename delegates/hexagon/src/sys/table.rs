//! The library's table of functions. A slot is only read where we use it, and an empty one is an error that names it.

use super::layout::{Config, EventData, Handle, OpConfig, OperationName, Tensor};
use super::log::LogCallback;
use delegraph_sdk::{Error, Status};
use std::ffi::{c_char, c_void};

/// Makes a struct of the functions that are used, with their slots.
macro_rules! table {
    ($(#[$doc:meta])* $table:ident { $($slot:literal $name:ident($($type:ty),*);)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $table {
            $($name: Option<unsafe extern "C" fn($($type),*) -> u64>,)*
        }

        impl $table {
            /// Reads the slots.
            ///
            /// # Safety
            /// `slots` points to a table of this kind that has every slot named here.
            pub unsafe fn read(slots: *const *const c_void) -> $table {
                $table {
                    // SAFETY: the slot is there, as the caller says; it is null, or a function of this type.
                    $($name: unsafe {
                        std::mem::transmute::<*const c_void, Option<unsafe extern "C" fn($($type),*) -> u64>>(slots.add($slot).read())
                    },)*
                }
            }

            $(
                /// The function of this slot.
                ///
                /// # Errors
                /// The library has none.
                pub fn $name(&self) -> Result<unsafe extern "C" fn($($type),*) -> u64, Error> {
                    self.$name.ok_or_else(|| empty($slot, stringify!($name)))
                }
            )*
        }
    };
}

fn empty(slot: usize, name: &str) -> Error {
    let name: Vec<&str> = name.split('_').collect();
    Error::new(
        Status::VENDOR,
        format!(
            "the QNN library has no function `{}` (slot {slot} of its table is empty)",
            name.join(" ")
        ),
    )
}

table! {
    /// A backend's functions. They return 0, or the number of an error.
    Table {
        1 backend_create(Handle, *const *const Config, *mut Handle);
        4 backend_build_id(*mut *const c_char);
        6 backend_supported_operations(Handle, *mut u32, *mut *const OperationName);
        7 backend_validate(Handle, OpConfig);
        8 backend_free(Handle);
        9 context_create(Handle, Handle, *const *const Config, *mut Handle);
        11 context_binary_size(Handle, *mut u64);
        12 context_binary(Handle, *mut c_void, u64, *mut u64);
        13 context_from_binary(Handle, Handle, *const *const Config, *const c_void, u64, *mut Handle, Handle);
        14 context_free(Handle, Handle);
        15 graph_create(Handle, *const c_char, *const *const Config, *mut Handle);
        18 graph_add_node(Handle, OpConfig);
        19 graph_finalize(Handle, Handle, Handle);
        20 graph_retrieve(Handle, *const c_char, *mut Handle);
        21 graph_execute(Handle, *const Tensor, u32, *mut Tensor, u32, Handle, Handle);
        24 graph_tensor(Handle, *mut Tensor);
        25 log_create(LogCallback, u32, *mut Handle);
        27 log_free(Handle);
        28 profile_create(Handle, u32, *mut Handle);
        30 profile_events(Handle, *mut *const u64, *mut u32);
        31 profile_sub_events(u64, *mut *const u64, *mut u32);
        32 profile_event_data(u64, *mut EventData);
        34 profile_free(Handle);
        40 device_create(Handle, *const *const Config, *mut Handle);
        43 device_free(Handle);
        48 error_message(u64, *mut *const c_char);
    }
}

table! {
    /// The system library's functions.
    SystemTable {
        0 context_create(*mut Handle);
        2 context_metadata(Handle, *const c_void, u64, *mut *const super::layout::BinaryInfo);
        3 context_free(Handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_slot_is_an_error_that_names_it() {
        let slots = [std::ptr::null(); 49];
        // SAFETY: it has every slot.
        let table = unsafe { Table::read(slots.as_ptr()) };
        let error = table.graph_finalize().unwrap_err();
        assert_eq!(error.code, Status::VENDOR);
        assert!(error.message.contains("`graph finalize` (slot 19"), "{error}");
    }
}
