//! The driver, behind safe types. All unsafe code of the delegate is here.
//!
//! - [`Instance`]: the loader, an instance, and the messages of validation layers.
//! - [`Gpu`]: one device with its queue; everything else is made by it and keeps it alive.
//! - [`Buffer`]: a part of a block of memory, memory of the host's that was imported, or memory of descriptors.
//! - [`Recording`]: commands that are recorded once and submitted often; [`Timeline`]: what was submitted, and how far it is.

mod buffer;
mod devices;
#[cfg(unix)]
mod external;
mod gpu;
mod instance;
mod recording;
mod timeline;

pub use buffer::Buffer;
pub use gpu::{Gpu, allocated, used};
pub use instance::{Instance, Messages};
pub use recording::{Command, Part, Recording};
pub use timeline::{Bell, Timeline, wait_any};

use ash::vk;
use delegraph_sdk::{Error, Status};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a result of Vulkan's is in the contract: the code, the number, and what was being done.
pub(crate) fn error(doing: &str, result: vk::Result) -> Error {
    let code = match result {
        vk::Result::ERROR_DEVICE_LOST => Status::DEVICE_LOST,
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY => Status::DEVICE_MEMORY_EXHAUSTED,
        vk::Result::ERROR_OUT_OF_HOST_MEMORY => Status::OUT_OF_MEMORY,
        vk::Result::TIMEOUT => Status::TIMEOUT,
        _ => Status::VENDOR,
    };
    let mut error = Error::new(code, format!("the driver failed to {doing}: {result:?}"));
    error.vendor_code = i64::from(result.as_raw());
    error
}

/// A lock whose holder leaves nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
