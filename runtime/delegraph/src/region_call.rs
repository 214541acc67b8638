//! A delegate's session as the executor calls it.

use crate::bind::in_one_line;
use crate::memory::{Memories, Shown};
use crate::trace::{Callee, Recorder};
use delegraph_executor::{Arenas, RegionCall, RegionError};
use delegraph_host::{Arena, CallOptions, DelegateError, Input, Memory, Output, Session, Status};
use delegraph_kernels::{Growable, Lent, Out, Tensor};
use delegraph_types::Dims;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A session of a region.
pub(crate) struct SessionCall {
    session: Session,
    outputs: Vec<Dims>,
    /// By tensor, inputs first: the session keeps the state that it is. Empty: it keeps none.
    kept: Vec<bool>,
    /// Row-major copies of inputs that lie otherwise; kept between runs.
    gathered: Vec<Growable>,
    /// Empty between runs; kept for their allocations.
    given: Vec<Input<'static>>,
    taken: Vec<Output<'static>>,
    actual: Vec<Dims>,
    callee: Callee,
    watch: Watch,
    /// Memories of the app's that the session was shown.
    shown: Shown,
    counts: Arc<Counts>,
}

/// What the runs of a region cost.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) copied_tensors: AtomicU64,
    pub(crate) copied_bytes: AtomicU64,
    /// Memories of the app's that the delegate uses in place.
    pub(crate) memories: AtomicU64,
}

/// What every region's call hears and tells.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    /// Set when the run's result is not wanted any more.
    pub(crate) cancel: Option<Arc<AtomicBool>>,
    /// Counts runs, for the delegates' logs.
    pub(crate) runs: Arc<AtomicU64>,
    /// Hears what takes the time, where somebody wants to know.
    pub(crate) recorder: Arc<Mutex<Option<Recorder>>>,
    /// Memories of the app's that tensors may lie in.
    pub(crate) memories: Memories,
}

impl Watch {
    /// Has every later call profiled.
    pub(crate) fn set_recorder(&self, recorder: Recorder) {
        *self.recorder.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorder);
    }

    fn recorder(&self) -> Option<Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The memory of activations, which delegates may be shown.
#[derive(Default)]
pub(crate) struct SharedArenas(Mutex<Option<Arc<Memory>>>);

impl SharedArenas {
    /// The memory that was given out.
    pub(crate) fn memory(&self) -> Option<Arc<Memory>> {
        self.0.lock().ok()?.clone()
    }
}

impl Arenas for SharedArenas {
    fn arena(&self, size: usize) -> Option<Box<dyn Lent>> {
        let arena = Arena::new(size).ok()?;
        *self.0.lock().ok()? = Some(arena.memory());
        Some(Box::new(LentArena(arena)))
    }
}

struct LentArena(Arena);

impl Lent for LentArena {
    fn words(&self) -> &[u128] {
        self.0.words()
    }

    fn words_mut(&mut self) -> &mut [u128] {
        self.0.words_mut()
    }
}

impl SessionCall {
    pub(crate) fn new(
        session: Session,
        outputs: Vec<Dims>,
        inputs: usize,
        callee: Callee,
        watch: Watch,
    ) -> SessionCall {
        let mut kept = Vec::new();
        if !session.states().is_empty() {
            kept.resize(inputs + outputs.len(), false);
        }
        for state in session.states() {
            for at in [state.input, inputs + state.output] {
                if let Some(kept) = kept.get_mut(at) {
                    *kept = true;
                }
            }
        }
        // Other regions and instructions may fail that belong to the run.
        let mut session = session;
        session.commit_states_later(true);
        SessionCall {
            kept,
            session,
            gathered: (0..inputs).map(|_| Growable::default()).collect(),
            given: Vec::with_capacity(inputs),
            taken: Vec::with_capacity(outputs.len()),
            actual: Vec::with_capacity(outputs.len()),
            outputs,
            callee,
            watch,
            shown: Shown::default(),
            counts: Arc::default(),
        }
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// What a failure means to the executor.
    fn region_error(&self, error: &DelegateError) -> RegionError {
        let text = in_one_line(&error.to_string());
        match error.code {
            Status::DEVICE_LOST if self.session.lost_state().is_some() => RegionError::StateLost(text),
            code => by_status(code, text),
        }
    }
}

impl RegionCall for SessionCall {
    fn execute(&mut self, inputs: &[Tensor<'_>], outputs: &mut [Out<'_>]) -> Result<(), RegionError> {
        self.shown.follow(&self.watch.memories, &mut self.session, &self.counts);
        let failed = |error: &dyn std::fmt::Display| RegionError::Failed(error.to_string());
        let keeps = |kept: &[bool], tensor: usize| kept.get(tensor).copied().unwrap_or(false);
        for (i, (tensor, copy)) in inputs.iter().zip(&mut self.gathered).enumerate() {
            if !tensor.is_contiguous() && !keeps(&self.kept, i) {
                gather(tensor, copy).map_err(|error| failed(&error))?;
            }
        }
        let mut given = emptied(std::mem::take(&mut self.given));
        for (i, (tensor, copy)) in inputs.iter().zip(&self.gathered).enumerate() {
            let length = tensor.numel() * tensor.dtype().size();
            given.push(Input {
                dtype: tensor.dtype(),
                sizes: tensor.sizes(),
                bytes: if keeps(&self.kept, i) {
                    &[]
                } else if tensor.is_contiguous() {
                    tensor.room()
                } else {
                    &copy.bytes()[..length]
                },
            });
        }
        for (out, largest) in outputs.iter_mut().zip(&self.outputs) {
            out.resize(largest).map_err(|error| failed(&error))?;
            if !out.is_contiguous() {
                return Err(RegionError::Failed("an output is not row-major".to_string()));
            }
        }
        let mut taken = emptied_outputs(std::mem::take(&mut self.taken));
        for (i, out) in outputs.iter_mut().enumerate() {
            taken.push(Output {
                dtype: out.dtype(),
                sizes: *out.sizes(),
                bytes: match keeps(&self.kept, inputs.len() + i) {
                    true => &mut [],
                    false => out.room_mut(),
                },
            });
        }
        let cancel = self.watch.cancel.as_deref();
        let cancelled = || cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed));
        let recorder = self.watch.recorder();
        let events = Mutex::new(Vec::new());
        let options = CallOptions {
            cancel: cancel.is_some().then_some(&cancelled),
            correlation: self.watch.runs.load(Ordering::Relaxed),
            profile: recorder.is_some().then_some(&events),
            ..CallOptions::default()
        };
        let outcome = self.session.execute_with(&given, &mut taken, &options);
        if let Some(recorder) = recorder {
            let events = events.into_inner().unwrap_or_else(PoisonError::into_inner);
            recorder.called(&self.callee, events, outcome.is_err());
        }
        let copies = self.session.copies();
        self.counts.copied_tensors.store(copies.tensors, Ordering::Relaxed);
        self.counts.copied_bytes.store(copies.bytes, Ordering::Relaxed);
        // The sizes that the delegate gave, before its view of the bytes ends.
        self.actual.clear();
        self.actual.extend(taken.iter().map(|output| output.sizes));
        self.given = emptied(given);
        self.taken = emptied_outputs(taken);
        outcome.map_err(|error| self.region_error(&error))?;
        for (out, sizes) in outputs.iter_mut().zip(&self.actual) {
            out.resize(sizes).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    fn commit(&mut self, accept: bool) -> Result<(), RegionError> {
        let ended = self.session.commit_states(accept);
        ended.map_err(|error| self.region_error(&error))
    }

    fn reset_state(&mut self, state: usize) -> Result<(), RegionError> {
        let reset = self.session.reset_state(state);
        reset.map_err(|error| untaken(&error))
    }

    fn read_state(&mut self, state: usize, out: &mut [u8]) -> Result<(), RegionError> {
        let read = self.session.snapshot_state_into(state, out);
        read.map_err(|error| self.region_error(&error))
    }

    fn write_state(&mut self, state: usize, bytes: &[u8]) -> Result<(), RegionError> {
        let written = self.session.restore_state(state, bytes);
        written.map_err(|error| untaken(&error))
    }
}

fn by_status(code: Status, text: String) -> RegionError {
    match code {
        Status::DEVICE_LOST => RegionError::Lost(text),
        Status::TIMEOUT => RegionError::Late(text),
        Status::NOT_READY | Status::DEVICE_BUSY | Status::CANCELLED => RegionError::Busy(text),
        _ => RegionError::Failed(text),
    }
}

/// A state that the session does not take: it may well be lost there, and would not be with this.
fn untaken(error: &DelegateError) -> RegionError {
    by_status(error.code, in_one_line(&error.to_string()))
}

/// The room of a list for the next run: collecting an emptied list in place keeps its allocation.
fn emptied<'a>(mut list: Vec<Input<'_>>) -> Vec<Input<'a>> {
    list.clear();
    let none = |input: Input<'_>| Input {
        dtype: input.dtype,
        sizes: &[],
        bytes: &[],
    };
    list.into_iter().map(none).collect()
}

/// As [`emptied`].
fn emptied_outputs<'a>(mut list: Vec<Output<'_>>) -> Vec<Output<'a>> {
    list.clear();
    let none = |output: Output<'_>| Output {
        dtype: output.dtype,
        sizes: output.sizes,
        bytes: &mut [],
    };
    list.into_iter().map(none).collect()
}

/// Copies a tensor's elements to row-major order.
fn gather(tensor: &Tensor<'_>, into: &mut Growable) -> Result<(), delegraph_kernels::KernelError> {
    let view = crate::TensorView {
        dtype: tensor.dtype(),
        shape: *tensor.sizes(),
        strides: *tensor.strides(),
        bytes: tensor.bytes(),
    };
    view.write_contiguous(into.reserve(tensor.numel() * tensor.dtype().size())?);
    Ok(())
}
