//! Delegated regions: ranges of instructions that one call can do instead.

use crate::error::{BindError, RegionError, RunError};
use crate::kept::{Held, KeptState, Phase};
use crate::load::Loaded;
use crate::options::Fallback;
use crate::run::ends;
use crate::self_check::{Checked, Kept};
use crate::state::State;
use crate::step::{Io, Step};
use crate::tensors::SlotId;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use delegraph_kernels::{Out, Tensor};

/// What does a region's work.
pub trait RegionCall: Send {
    /// Reads the region's inputs and writes its outputs, sizes first ([`Out::resize`]).
    ///
    /// # Errors
    /// The outputs are unspecified then; the executor runs the instructions instead, which write them again.
    fn execute(&mut self, inputs: &[Tensor<'_>], outputs: &mut [Out<'_>]) -> Result<(), RegionError>;

    /// Ends what the last [`RegionCall::execute`] did to the states that the call keeps ([`BoundRegion::kept`]): with `accept` it counts,
    /// without it the states are as before. Called after each that succeeded; where none waits for it, nothing happens.
    ///
    /// # Errors
    /// The states are lost then.
    fn commit(&mut self, _accept: bool) -> Result<(), RegionError> {
        Ok(())
    }

    /// Makes every element of a kept state 0. `state` is an index in [`BoundRegion::kept`], here and below.
    ///
    /// # Errors
    /// The state is as it was, here and below.
    fn reset_state(&mut self, _state: usize) -> Result<(), RegionError> {
        Err(keeps_none())
    }

    /// Copies a kept state, row-major, into `out`, which has exactly its size.
    ///
    /// # Errors
    /// As above; [`RegionError::StateLost`] or [`RegionError::Lost`] where it cannot be had any more.
    fn read_state(&mut self, _state: usize, _out: &mut [u8]) -> Result<(), RegionError> {
        Err(keeps_none())
    }

    /// Makes a kept state what `bytes` hold.
    ///
    /// # Errors
    /// As above.
    fn write_state(&mut self, _state: usize, _bytes: &[u8]) -> Result<(), RegionError> {
        Err(keeps_none())
    }
}

fn keeps_none() -> RegionError {
    RegionError::Failed("it keeps no states".into())
}

/// A region and the call that takes it over.
pub struct BoundRegion {
    /// First instruction.
    pub start: u32,
    /// One past the last instruction.
    pub end: u32,
    /// Tensor values that the call reads.
    pub inputs: Vec<u32>,
    /// Tensor values that it writes.
    pub outputs: Vec<u32>,
    /// For each input, then each output: bytes from the tensor's start on that hold no other value while it is alive, where that is more
    /// than its largest size; 0, or a list that ends earlier: nothing beyond it. The call may read and write there
    /// ([`Tensor::room`], [`Out::room_mut`]). It is the planner's promise: what does not fit the method's memory is passed over, and
    /// a wrong one has other tensors overwritten, as wrong offsets would.
    pub rooms: Vec<usize>,
    /// Backend id, for reports and messages.
    pub backend: String,
    /// Operators with counts, for reports and messages.
    pub operators: Vec<(String, u32)>,
    /// States that the call keeps itself; see [`crate::Executor::can_keep`].
    pub kept: Vec<KeptState>,
    /// The call.
    pub call: Box<dyn RegionCall>,
}

/// What became of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionReport {
    /// First instruction.
    pub start: u32,
    /// One past the last instruction.
    pub end: u32,
    /// Backend id.
    pub backend: String,
    /// Times the delegate did it.
    pub delegated: u64,
    /// Times the instructions ran instead.
    pub portable: u64,
    /// The delegate is not asked any more.
    pub quarantined: bool,
    /// Its last error.
    pub last_error: Option<RegionError>,
    /// What the self-check found.
    pub checked: Checked,
    /// Bytes of kept states that were copied to the delegate and back, in all runs.
    pub moved: u64,
}

impl fmt::Debug for BoundRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "region of `{}`, instructions {} to {}",
            self.backend, self.start, self.end
        )
    }
}

/// A bound region, checked.
#[derive(Debug)]
pub(crate) struct Region {
    pub bound: BoundRegion,
    pub io: Io,
    pub report: RegionReport,
    /// Calls in a row that did not end in time.
    pub late: u32,
    /// The delegate's outputs, while the self-check runs the instructions.
    pub kept: Kept,
    /// What the delegate keeps.
    pub states: Vec<Held>,
    /// Where it is in a run, if it keeps states.
    pub phase: Phase,
    /// The self-check has to look at the states when the run counts.
    pub proof: bool,
    /// Why its instructions cannot run: the delegate alone can do the region.
    pub alone: Option<String>,
}

/// Calls in a row that may not end in time.
const MOST_LATE: u32 = 3;

impl Region {
    /// Checks that the region is one atomic step of the method.
    pub fn new(bound: BoundRegion, loaded: &Loaded, state: &State) -> Result<Region, BindError> {
        let (start, end) = (bound.start as usize, bound.end as usize);
        let fail = |problem: String| BindError {
            start: bound.start,
            end: bound.end,
            problem,
        };
        if start >= end || end > loaded.steps.len() {
            return Err(fail(format!("the method has {} instructions", loaded.steps.len())));
        }
        for (at, step) in loaded.steps.iter().enumerate() {
            let Step::JumpFalse { destination, .. } = step else {
                continue;
            };
            let (inside, to) = ((start..end).contains(&at), *destination as usize);
            if inside && !(start..=end).contains(&to) || !inside && start < to && to < end {
                return Err(fail(format!("the jump of instruction {at} to {to} crosses its border")));
            }
        }
        let slots = |values: &[u32]| {
            values
                .iter()
                .map(|&value| {
                    let slot = loaded.tensors.slot(value);
                    slot.ok_or_else(|| fail(format!("value {value} is no tensor")))
                })
                .collect::<Result<Vec<SlotId>, _>>()
        };
        let (reads, writes) = (slots(&bound.inputs)?, slots(&bound.outputs)?);
        if let Some(slot) = writes.iter().find(|slot| state.holds(&loaded.tensors, **slot)) {
            let value = loaded.tensors.slots[slot.0 as usize].value;
            return Err(fail(format!(
                "output value {value} is state, which a retry would count twice"
            )));
        }
        if state.writers[start..end].iter().any(|writes| *writes) {
            return Err(fail(
                "its instructions write state, which the delegate's call would not".into(),
            ));
        }
        let io = Io::new(&loaded.tensors.slots, &reads, &writes).map_err(&fail)?;
        if !io.copies.is_empty() {
            return Err(fail("an input shares bytes with an output".into()));
        }
        let mut states: Vec<Held> = Vec::with_capacity(bound.kept.len());
        for kept in &bound.kept {
            let held = Held::new(kept, loaded, state, start..end, &reads, &writes).map_err(&fail)?;
            if states
                .iter()
                .any(|other| other.slot == held.slot || other.after == held.after)
            {
                return Err(fail(format!("the state `{}` is kept twice", kept.name)));
            }
            states.push(held);
        }
        let io = roomy(&bound, loaded, state, &reads, &writes).unwrap_or(io);
        let report = RegionReport {
            start: bound.start,
            end: bound.end,
            backend: bound.backend.clone(),
            delegated: 0,
            portable: 0,
            quarantined: false,
            last_error: None,
            checked: Checked::Not,
            moved: 0,
        };
        Ok(Region {
            bound,
            io,
            report,
            late: 0,
            kept: Kept::default(),
            states,
            phase: Phase::Idle,
            proof: false,
            alone: loaded.cannot_run(start..end),
        })
    }

    /// Plans anew how it borrows its tensors, after one has moved.
    pub fn plan_again(&mut self, loaded: &Loaded, state: &State) -> Result<(), String> {
        let (reads, writes) = ends(&self.io);
        self.io = match roomy(&self.bound, loaded, state, &reads, &writes) {
            Some(io) => io,
            None => Io::new(&loaded.tensors.slots, &reads, &writes)?,
        };
        Ok(())
    }

    /// Records a failure; true if the instructions may run instead.
    pub fn failed(&mut self, error: &RegionError, policy: Fallback) -> bool {
        self.report.last_error = Some(error.clone());
        let lasting = match error {
            RegionError::Lost(_) | RegionError::Differs(_) => true,
            RegionError::Failed(_) => policy == Fallback::Quarantine,
            RegionError::Busy(_) | RegionError::Sizes(_) | RegionError::StateLost(_) => false,
            RegionError::Late(_) => {
                self.late += 1;
                policy == Fallback::Quarantine && self.late >= MOST_LATE
            }
        };
        // It can do nothing but ask again.
        self.report.quarantined |= lasting && self.alone.is_none();
        policy != Fallback::Deny && self.alone.is_none()
    }

    /// The error of a run that may not fall back.
    pub fn denied(&self, source: RegionError) -> RunError {
        RunError::Region {
            backend: self.bound.backend.clone(),
            start: self.bound.start,
            end: self.bound.end,
            operators: self.operators(),
            why: match &self.alone {
                None => "fallback is denied".into(),
                Some(reason) => format!("the portable kernels cannot do it: {reason}"),
            },
            source,
        }
    }

    /// `aten.conv2d x3, aten.relu`
    pub fn operators(&self) -> String {
        let mut text = String::new();
        for (name, count) in &self.bound.operators {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(name);
            if *count > 1 {
                text.push_str(&format!(" x{count}"));
            }
        }
        text
    }
}

/// How the region borrows its tensors with the rooms that the planner left. `None`: none, or they cannot be: they reach beyond the
/// memory, into state, or one into another.
fn roomy(bound: &BoundRegion, loaded: &Loaded, state: &State, reads: &[SlotId], writes: &[SlotId]) -> Option<Io> {
    let tensors = &loaded.tensors;
    let mut rooms = bound.rooms.clone();
    let mut any = false;
    for (room, slot) in rooms.iter_mut().zip(reads.iter().chain(writes)) {
        let slot = &tensors.slots[slot.0 as usize];
        let Some((memory, range)) = slot.arena_range().filter(|_| *room > slot.capacity) else {
            continue;
        };
        let end = range.start.checked_add(*room)?;
        let len = *tensors.memory_lens.get(memory.0 as usize)?;
        // What the caller gave for an output is not the planner's: there is the room that it has.
        if end > len && tensors.moved.contains(&memory) {
            *room = 0;
            continue;
        }
        if end > len || state.lies_in(memory) {
            return None;
        }
        any = true;
    }
    let io = any.then(|| Io::with_rooms(&tensors.slots, reads, writes, &rooms).ok())??;
    io.copies.is_empty().then_some(io)
}

/// Stands for a delegate that no instruction calls.
pub(crate) struct NeverCalled;

impl RegionCall for NeverCalled {
    fn execute(&mut self, _: &[Tensor<'_>], _: &mut [Out<'_>]) -> Result<(), RegionError> {
        Err(RegionError::Lost("a delegate that no instruction calls".into()))
    }
}
