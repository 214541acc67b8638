//! A delegate's session as the executor calls it.

use crate::bind::in_one_line;
use crate::buckets::Buckets;
use crate::memory::{Memories, Shown};
use crate::trace::{Callee, Recorder};
use delegraph_executor::{Arenas, RegionCall, RegionError};
use delegraph_host::{Arena, CallOptions, DelegateError, Input, Memory, Output, Session, Status};
use delegraph_kernels::{Growable, Lent, Out, Tensor};
use delegraph_types::Dims;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A loaded blob of a region.
pub(crate) struct Lane {
    pub(crate) session: Session,
    /// The largest sizes of each output.
    pub(crate) outputs: Vec<Dims>,
    pub(crate) callee: Callee,
    /// The bucket that it is for; `None`: all sizes.
    pub(crate) bucket: Option<usize>,
    /// Memories of the app's that the session was shown.
    pub(crate) shown: Shown,
}

/// The sessions of a region: one for all sizes, or one for each bucket.
pub(crate) struct SessionCall {
    lanes: Vec<Lane>,
    /// The lane that ran last, and has the states that are kept.
    current: usize,
    /// By tensor, inputs first: the session keeps the state that it is. Empty: it keeps none.
    kept: Vec<bool>,
    /// Row-major copies of inputs that lie otherwise; kept between runs.
    gathered: Vec<Growable>,
    /// Empty between runs; kept for their allocations.
    given: Vec<Input<'static>>,
    taken: Vec<Output<'static>>,
    actual: Vec<Dims>,
    watch: Watch,
    counts: Arc<Counts>,
}

/// What the runs of a region cost.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) copied_tensors: AtomicU64,
    pub(crate) copied_bytes: AtomicU64,
    /// Runs of each lane that has a bucket.
    pub(crate) bucket_runs: Vec<AtomicU64>,
    /// Calls with sizes of no bucket.
    pub(crate) other_sizes: AtomicU64,
    /// Bytes of kept states that went from the session of one bucket to that of another.
    pub(crate) moved_bytes: AtomicU64,
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
    /// Hears what takes the time, where somebody wants to know; the first says whether there is one, so that a run need not look.
    pub(crate) recorder: Arc<(AtomicBool, Mutex<Option<Recorder>>)>,
    /// Which bucket a run is in.
    pub(crate) buckets: Arc<Buckets>,
    /// Memories of the app's that tensors may lie in.
    pub(crate) memories: Memories,
}

impl Watch {
    /// Has every later call profiled.
    pub(crate) fn set_recorder(&self, recorder: Recorder) {
        *self.recorder.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorder);
        self.recorder.0.store(true, Ordering::Release);
    }

    fn recorder(&self) -> Option<Recorder> {
        if !self.recorder.0.load(Ordering::Acquire) {
            return None;
        }
        self.recorder.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    /// `lanes` are not empty, and keep the same states.
    pub(crate) fn new(lanes: Vec<Lane>, inputs: usize, watch: Watch) -> SessionCall {
        let (mut kept, mut lanes) = (Vec::new(), lanes);
        let outputs = lanes.first().map_or(0, |lane| lane.outputs.len());
        let states = lanes.first().map_or(&[][..], |lane| lane.session.states());
        if !states.is_empty() {
            kept.resize(inputs + outputs, false);
        }
        for state in states {
            for at in [state.input, inputs + state.output] {
                if let Some(kept) = kept.get_mut(at) {
                    *kept = true;
                }
            }
        }
        // Other regions and instructions may fail that belong to the run.
        lanes.iter_mut().for_each(|lane| lane.session.commit_states_later(true));
        let buckets = lanes.iter().filter(|lane| lane.bucket.is_some());
        let counts = Counts {
            bucket_runs: buckets.map(|_| AtomicU64::new(0)).collect(),
            ..Counts::default()
        };
        SessionCall {
            kept,
            lanes,
            current: 0,
            gathered: (0..inputs).map(|_| Growable::default()).collect(),
            given: Vec::with_capacity(inputs),
            taken: Vec::with_capacity(outputs),
            actual: Vec::with_capacity(outputs),
            watch,
            counts: Arc::new(counts),
        }
    }

    /// The lane that runs the sizes of this run.
    fn lane(&self) -> Result<usize, RegionError> {
        let chosen = self.watch.buckets.chosen();
        let fits = |lane: &Lane| lane.bucket.is_none() || lane.bucket == chosen;
        self.lanes.iter().position(fits).ok_or_else(|| {
            self.counts.other_sizes.fetch_add(1, Ordering::Relaxed);
            let compiled: Vec<usize> = self.lanes.iter().filter_map(|lane| lane.bucket).collect();
            RegionError::Sizes(self.watch.buckets.none_of(&compiled))
        })
    }

    /// Gives the states that the lane before kept to the one that runs now.
    fn hand_over(&mut self, to: usize) -> Result<(), RegionError> {
        let from = std::mem::replace(&mut self.current, to);
        if from == to || self.kept.is_empty() {
            return Ok(());
        }
        for state in 0..self.lanes[from].session.states().len() {
            let bytes = self.lanes[from].session.states()[state].bytes;
            let mut room = vec![0; usize::try_from(bytes).unwrap_or(0)];
            let read = self.lanes[from].session.snapshot_state_into(state, &mut room);
            let moved = read.and_then(|()| self.lanes[to].session.restore_state(state, &room));
            if let Err(error) = moved {
                // The states are where they were.
                self.current = from;
                return Err(self.region_error(&error));
            }
            self.counts.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn session(&mut self) -> &mut Session {
        &mut self.lanes[self.current].session
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// What a failure means to the executor.
    fn region_error(&self, error: &DelegateError) -> RegionError {
        let text = in_one_line(&error.to_string());
        match error.code {
            Status::DEVICE_LOST if self.lanes[self.current].session.lost_state().is_some() => {
                RegionError::StateLost(text)
            }
            code => by_status(code, text),
        }
    }
}

impl RegionCall for SessionCall {
    fn execute(&mut self, inputs: &[Tensor<'_>], outputs: &mut [Out<'_>]) -> Result<(), RegionError> {
        for lane in &mut self.lanes {
            lane.shown.follow(&self.watch.memories, &mut lane.session, &self.counts);
        }
        let failed = |error: &dyn std::fmt::Display| RegionError::Failed(error.to_string());
        let at = self.lane()?;
        self.hand_over(at)?;
        let lane = &mut self.lanes[at];
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
        for (out, largest) in outputs.iter_mut().zip(&lane.outputs) {
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
        let outcome = lane.session.execute_with(&given, &mut taken, &options);
        if let Some(recorder) = recorder {
            let events = events.into_inner().unwrap_or_else(PoisonError::into_inner);
            recorder.called(&lane.callee, events, outcome.is_err());
        }
        if outcome.is_ok()
            && let Some(runs) = self.counts.bucket_runs.get(at)
        {
            runs.fetch_add(1, Ordering::Relaxed);
        }
        let copies = self.lanes.iter().map(|lane| lane.session.copies());
        let (tensors, bytes) = copies.fold((0, 0), |sum, copies| (sum.0 + copies.tensors, sum.1 + copies.bytes));
        self.counts.copied_tensors.store(tensors, Ordering::Relaxed);
        self.counts.copied_bytes.store(bytes, Ordering::Relaxed);
        // The sizes that the delegate gave, before its view of the bytes ends; none where all are the largest.
        self.actual.clear();
        if taken
            .iter()
            .zip(&self.lanes[at].outputs)
            .any(|(output, largest)| output.sizes != *largest)
        {
            self.actual.extend(taken.iter().map(|output| output.sizes));
        }
        self.given = emptied(given);
        self.taken = emptied_outputs(taken);
        outcome.map_err(|error| self.region_error(&error))?;
        for (out, sizes) in outputs.iter_mut().zip(&self.actual) {
            out.resize(sizes).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    fn commit(&mut self, accept: bool) -> Result<(), RegionError> {
        let ended = self.session().commit_states(accept);
        ended.map_err(|error| self.region_error(&error))
    }

    fn reset_state(&mut self, state: usize) -> Result<(), RegionError> {
        let reset = self.session().reset_state(state);
        reset.map_err(|error| untaken(&error))
    }

    fn read_state(&mut self, state: usize, out: &mut [u8]) -> Result<(), RegionError> {
        let read = self.session().snapshot_state_into(state, out);
        read.map_err(|error| self.region_error(&error))
    }

    fn write_state(&mut self, state: usize, bytes: &[u8]) -> Result<(), RegionError> {
        let written = self.session().restore_state(state, bytes);
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
