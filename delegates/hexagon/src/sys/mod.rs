//! Qualcomm's QNN library, behind safe types. All unsafe code of the delegate is here.
//!
//! - [`Library`]: the shared library, opened at run time, and its table of functions. It is never unloaded.
//! - [`Qnn`]: log, backend and device for one chip; it answers about nodes and compiles graphs.
//! - [`LoadedContext`], [`LoadedGraph`]: a context that was made of a binary, and what is executed; [`Profile`]: what an execution measured.
//! - [`System`]: the library that reads what a context binary says of itself.
//!
//! Handles belong to the struct that made them, which frees them when it is dropped; what is made by another keeps it alive. Calls of the library are
//! made one at a time in the whole process (`log::Call`), so everything here may be used and dropped in any thread.

mod context;
mod device;
mod error;
mod execute;
mod info;
mod layout;
mod library;
mod log;
mod profile;
mod quiet;
mod system;
mod table;
mod tensor;
mod words;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod mock_tests;
#[cfg(test)]
mod mock_texts;
#[cfg(test)]
mod system_tests;

pub use context::{CompileError, CompileOptions, Compiled, LoadedContext};
pub use device::Qnn;
pub use execute::LoadedGraph;
pub use info::{GraphInfo, TensorInfo};
pub use library::{Library, Version, find};
pub use log::Sink;
pub use profile::{Event, Level, Profile, Unit};
pub use system::{Metadata, System};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder leaves nothing half done.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
