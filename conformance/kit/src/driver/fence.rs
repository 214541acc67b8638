//! Ends of submitted runs.

use crate::driver::{lock, violation};
use delegraph_abi::Status;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a submitted run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceEnd {
    /// Its outcome.
    pub status: Status,
    /// The delegate's words.
    pub message: String,
    /// When it was signalled.
    pub at: Instant,
}

/// A fence of the host's.
#[derive(Default)]
pub(crate) struct Fence {
    state: Mutex<State>,
    signalled: Condvar,
}

#[derive(Default)]
struct State {
    end: Option<FenceEnd>,
    count: u64,
    /// Address and size of each output.
    outputs: Vec<(usize, usize)>,
    /// Their bytes at the signal.
    copies: Vec<Vec<u8>>,
    call: Arc<AtomicBool>,
}

/// Every fence of the process, at the number, less one, that the delegate gets in place of an address. A number is never used again, so that
/// a second signal is always found out; what is behind it is forgotten once its run has ended and so many others were begun.
static FENCES: Mutex<Vec<Option<Arc<Fence>>>> = Mutex::new(Vec::new());

/// How many fences stay.
const KEPT: usize = 256;

/// A new fence and its number. The signal sets `call`, and copies what lies at `outputs`.
pub(crate) fn new_fence(call: Arc<AtomicBool>, outputs: Vec<(usize, usize)>) -> (usize, Arc<Fence>) {
    let mut fences = lock(&FENCES);
    let fence = Arc::<Fence>::default();
    {
        let mut state = lock(&fence.state);
        (state.call, state.outputs) = (call, outputs);
    }
    if let Some(old) = fences.len().checked_sub(KEPT)
        && fences[old]
            .as_ref()
            .is_some_and(|fence| lock(&fence.state).end.is_some())
    {
        fences[old] = None;
    }
    fences.push(Some(fence.clone()));
    (fences.len(), fence)
}

/// The fence of a number. `None`: there was none; `Some(None)`: it is forgotten.
fn find(number: usize) -> Option<Option<Arc<Fence>>> {
    lock(&FENCES).get(number.checked_sub(1)?).cloned()
}

/// Address and size of the outputs of a run that has not ended.
pub(crate) fn outputs(number: usize) -> Vec<(usize, usize)> {
    let fence = find(number).flatten();
    fence.map_or_else(Vec::new, |fence| std::mem::take(&mut lock(&fence.state).outputs))
}

/// What the host's `fence_signal` does.
pub(crate) fn signal(number: usize, status: Status, message: String, copies: Vec<Vec<u8>>) -> Status {
    let fence = match find(number) {
        Some(Some(fence)) => fence,
        Some(None) => {
            violation("a fence was signalled again, long after its run");
            return Status::INVALID_ARGUMENT;
        }
        None => {
            violation(format!(
                "`fence_signal` was given a fence that does not exist: {number:#x}"
            ));
            return Status::INVALID_ARGUMENT;
        }
    };
    let mut state = lock(&fence.state);
    state.count += 1;
    if state.count > 1 {
        violation(format!("a fence was signalled {} times", state.count));
        return Status::INVALID_ARGUMENT;
    }
    let at = Instant::now();
    state.call.store(true, Ordering::SeqCst);
    state.copies = copies;
    state.end = Some(FenceEnd { status, message, at });
    fence.signalled.notify_all();
    Status::OK
}

/// A run that was submitted.
#[derive(Clone)]
pub struct Submitted {
    pub(crate) fence: Arc<Fence>,
}

impl Submitted {
    /// Waits; `None`: it has not ended until then.
    pub fn wait(&self, time: Duration) -> Option<FenceEnd> {
        let until = Instant::now() + time;
        let mut state = lock(&self.fence.state);
        loop {
            if let Some(end) = &state.end {
                return Some(end.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.fence.signalled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The bytes of each output when it was signalled, once.
    pub fn at_signal(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.fence.state).copies)
    }

    /// How often it was signalled so far.
    pub fn signals(&self) -> u64 {
        lock(&self.fence.state).count
    }
}
