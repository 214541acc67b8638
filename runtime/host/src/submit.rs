//! Runs that go on after the call that began them: fences.

use crate::call::lock;
use crate::raw::text;
use delegraph_abi::{Status, c};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The end of one submitted run.
#[derive(Default)]
pub(crate) struct Fence {
    outcome: Mutex<Option<(Status, String)>>,
    signalled: Condvar,
}

/// Fences that are not signalled, by the number that a delegate gets in place of an address: one that is signalled twice, or when
/// its run is long over, is found out.
static FENCES: Mutex<(usize, BTreeMap<usize, Arc<Fence>>)> = Mutex::new((0, BTreeMap::new()));

/// A fence that a delegate can signal, until it is dropped.
pub(crate) struct Registered {
    number: usize,
    pub fence: Arc<Fence>,
}

impl Registered {
    pub fn new() -> Registered {
        let fence = Arc::new(Fence::default());
        let mut fences = lock(&FENCES);
        fences.0 += 1;
        let number = fences.0;
        fences.1.insert(number, fence.clone());
        Registered { number, fence }
    }

    pub fn as_ptr(&self) -> *mut c::Fence {
        std::ptr::without_provenance_mut(self.number)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&FENCES).1.remove(&self.number);
    }
}

impl Fence {
    pub fn signal(&self, status: Status, message: String) {
        *lock(&self.outcome) = Some((status, message));
        self.signalled.notify_all();
    }

    /// Waits; `None`: it was not signalled until then.
    pub fn wait(&self, until: Option<Instant>) -> Option<(Status, String)> {
        let mut outcome = lock(&self.outcome);
        loop {
            if let Some(outcome) = &*outcome {
                return Some(outcome.clone());
            }
            outcome = match until {
                None => self.signalled.wait(outcome).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        return None;
                    }
                    let waited = self.signalled.wait_timeout(outcome, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

pub(crate) unsafe extern "C" fn fence_signal(
    fence: *mut c::Fence,
    status: Status,
    message: *const u8,
    message_size: u64,
) -> Status {
    let Some(fence) = lock(&FENCES).1.remove(&fence.addr()) else {
        return Status::INVALID_ARGUMENT;
    };
    // SAFETY: the delegate passes a text that is valid for this call.
    let message = unsafe { text("a message", message, message_size) }.unwrap_or_else(|why| why);
    fence.signal(status, message);
    Status::OK
}
