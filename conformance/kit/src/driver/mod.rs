//! A host that is made for testing.
//!
//! [`Library`] is a loaded library, [`Instance`] an initialized delegate, [`Loaded`] a session. Every call takes a [`Script`]: what the host
//! will do during the call (cancel, run late, let its functions fail) and what it hears. Whatever the delegate does that the contract forbids
//! and that can be seen from here is a *violation*: [`take_violations`]. A case in which one happens has failed.
//!
//! Tensors, weights, sections and images lie in [`Guarded`] memory: pages that may not be touched follow them, and what must not be written
//! is read-only, so that a delegate that strays dies at the place.

mod call;
mod fence;
mod sinks;
mod sys;
mod tensor;
mod weights;

pub use call::{Event, Fail, Heard, Hook, Refused, Script, Structs};
pub use fence::{FenceEnd, Submitted};
pub use sinks::NodeAnswer;
pub use sys::external::{ExportedBuffer, HandleText, Seen, Shareable, close_descriptor, descriptors, is_open};
pub use sys::instance::{Answers, Compiled, DeviceText, Imported, Instance};
pub use sys::library::{HostShape, InfoText, Library};
pub use sys::memory::{Guarded, Place};
pub use sys::process;
pub use sys::session::{Extra, Flight, Loaded};
pub use tensor::{Tensor, UNWRITTEN};
pub use weights::HostWeights;

use std::sync::{Mutex, MutexGuard, PoisonError};

static VIOLATIONS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Most violations that are kept: the first ones say what is wrong.
const MOST: usize = 64;

/// Notes something that the contract forbids.
pub fn violation(what: impl Into<String>) {
    let mut all = lock(&VIOLATIONS);
    if all.len() < MOST {
        all.push(what.into());
    }
}

/// What was noted since the last call of this function.
pub fn take_violations() -> Vec<String> {
    std::mem::take(&mut *lock(&VIOLATIONS))
}

/// A lock whose holder cannot leave things half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
