//! Parts that wait in slots, each taken by one thread.

use crate::KernelError;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use delegraph_types::Parallel;

/// A part that nobody has taken yet, or why it failed.
pub(super) struct Slot<P>(UnsafeCell<State<P>>);

enum State<P> {
    Empty,
    Waiting(P),
    Failed(KernelError),
}

// SAFETY: a slot is touched by one thread at a time: `each` gives every index to one call only, and whoever owns the slots reads
// them when all calls have returned. Parts and errors may move to another thread.
unsafe impl<P: Send> Sync for Slot<P> {}

impl<P> Slot<P> {
    pub fn new(part: Option<P>) -> Slot<P> {
        Slot(UnsafeCell::new(part.map_or(State::Empty, State::Waiting)))
    }

    pub fn outcome(self) -> Result<(), KernelError> {
        match self.0.into_inner() {
            State::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Calls `body` with the part of each slot.
pub(super) fn each<P: Send>(
    parallel: Parallel,
    slots: &[Slot<P>],
    body: &(dyn Fn(P) -> Result<(), KernelError> + Sync),
) {
    // Indices are given out here, so that none is given twice, whatever the pool calls.
    let next = AtomicUsize::new(0);
    let one = |_| {
        let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) else {
            return;
        };
        // SAFETY: this index is given to this call alone.
        let state = unsafe { core::mem::replace(&mut *slot.0.get(), State::Empty) };
        if let State::Waiting(part) = state
            && let Err(error) = body(part)
        {
            // SAFETY: as above.
            unsafe { *slot.0.get() = State::Failed(error) };
        }
    };
    parallel.run(slots.len(), &one);
}
