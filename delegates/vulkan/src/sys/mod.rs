//! The driver, behind safe types. All unsafe code of the delegate is here.
//!
//! - [`Instance`]: the loader, an instance, and the messages of validation layers.
//! - [`Gpu`]: one device with its queue; everything else is made by it and keeps it alive.
//! - [`Buffer`], [`Recording`]: memory, and commands that are recorded once and submitted often.

mod buffer;
mod gpu;
mod instance;
mod recording;

pub use buffer::{Buffer, Place};
pub use gpu::Gpu;
pub use instance::{Instance, Messages};
pub use recording::{Command, Recording};

use ash::vk;
use delegraph_sdk::{Error, Status};

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
