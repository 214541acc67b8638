//! States that the delegate of a region keeps on its side from run to run: in a device's memory, say.
//!
//! Such a state is a buffer that one region alone reads, and that one copy of what the region makes of it alone writes. While the
//! delegate has it, no run moves a byte of it: the region is called without its elements and the copy is passed over. What a run did
//! counts when the method's run does ([`Region::accept`]), and not before. When the instructions run in the delegate's stead, the state
//! is fetched into the buffer first; what cannot be fetched is an error, and never silently 0.

use crate::engine::Engine;
use crate::error::{RegionError, RunError};
use crate::load::{Loaded, ProgramData};
use crate::memory::MemoryId;
use crate::output;
use crate::region::Region;
use crate::self_check::SelfCheck;
use crate::state::State;
use crate::step::{Condition, Io, Step};
use crate::tensors::{SlotId, Tensors};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_kernels::Tensor;
use delegraph_pte::model::Dynamism;

/// A state that the call of a region keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptState {
    /// Its name, for messages.
    pub name: String,
    /// Which of the region's inputs it is before the run. The call gets it without its elements: they are unspecified.
    pub input: usize,
    /// Which of the region's outputs it is after the run. The call writes no elements to it.
    pub output: usize,
}

/// A kept state of a bound region, and who has it.
#[derive(Debug)]
pub(crate) struct Held {
    pub state: KeptState,
    /// The buffer, and its bytes.
    pub slot: SlotId,
    memory: MemoryId,
    range: Range<usize>,
    /// What the region makes of it.
    pub after: SlotId,
    /// The instruction that copies that to the buffer.
    pub write: usize,
    /// The buffer holds it.
    here: bool,
    /// The delegate holds it.
    there: bool,
    /// Why neither does.
    lost: Option<String>,
}

/// How far a region whose delegate keeps states is in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Its delegate did nothing in this run that could count.
    #[default]
    Idle,
    /// The delegate did it, and waits to hear whether it counts.
    Ran,
    /// It counts.
    Ended,
}

impl Held {
    /// Checks that nobody but the region and one copy, which always runs after it, sees the state; `inputs` and `outputs` are the
    /// region's.
    ///
    /// # Errors
    /// Who else does, or why it cannot be kept.
    pub fn new(
        state: &KeptState,
        loaded: &Loaded,
        states: &State,
        region: Range<usize>,
        inputs: &[SlotId],
        outputs: &[SlotId],
    ) -> Result<Held, String> {
        let fail = |problem: String| Err(format!("the state `{}`: {problem}", state.name));
        let (Some(&slot), Some(&after)) = (inputs.get(state.input), outputs.get(state.output)) else {
            return fail("the region has no such input or output".into());
        };
        let tensors = &loaded.tensors;
        let [buffer, made] = [slot, after].map(|slot| &tensors.slots[slot.0 as usize]);
        let Some((memory, range)) = buffer.arena_range() else {
            return fail("its input is no planned buffer".into());
        };
        let ours = |(have, _): &(SlotId, Option<String>)| {
            tensors.slots[have.0 as usize].arena_range() == Some((memory, range.clone()))
        };
        if range.is_empty() || !states.tensors.iter().any(ours) {
            return fail("its input is no state of the method".into());
        }
        for slot in [buffer, made] {
            let row_major = slot.dim_order.iter().enumerate().all(|(i, d)| *d == i as i64);
            if slot.dynamism != Dynamism::Static || !row_major {
                return fail("its sizes change, or it is not row-major".into());
            }
        }
        if (buffer.dtype, buffer.sizes) != (made.dtype, made.sizes) {
            return fail("what it becomes has another type".into());
        }
        if region.end > states.delegates_end(loaded) {
            return fail("another state is written before the region has run".into());
        }
        let plan = loaded.plan();
        let seen = |slot: SlotId| slot == after || overlaps(tensors, slot, memory, &range);
        for &value in plan.inputs.iter().chain(&plan.outputs) {
            if tensors.slot(value).is_some_and(seen) {
                return fail("an input or output of the method is the same tensor".into());
            }
        }
        let mut write = None;
        for (at, step) in loaded.steps.iter().enumerate() {
            if region.contains(&at) || !touched(step).any(seen) {
                continue;
            }
            let copies = matches!(step, Step::Kernel(kernel) if !kernel.reads_outs)
                && loaded.name_of(at) == "aten::copy_"
                && step.io().is_some_and(|io| is_copy(io, after, slot));
            if !copies || at < region.end || write.replace(at).is_some() {
                return fail(format!("instruction {at}, which is not in the region, uses it too"));
            }
        }
        let Some(write) = write else {
            return fail("nothing writes it at the end".into());
        };
        let between = |at: usize, to: usize| {
            let (low, high) = (at.min(to), at.max(to));
            let inside = region.start <= low && high <= region.end;
            high <= region.start || low > write || inside || (low >= region.end && high <= write)
        };
        for (at, step) in loaded.steps.iter().enumerate() {
            if let Step::JumpFalse { destination, .. } = step
                && !between(at, *destination as usize)
            {
                return fail(format!(
                    "the jump of instruction {at} may pass over the region, or over its write"
                ));
            }
        }
        Ok(Held {
            state: state.clone(),
            slot,
            memory,
            range,
            after,
            write,
            here: true,
            there: false,
            lost: None,
        })
    }

    /// The buffer.
    pub fn place(&self) -> (MemoryId, &Range<usize>) {
        (self.memory, &self.range)
    }

    /// The buffer holds it.
    pub fn here(&self) -> bool {
        self.here
    }

    /// The delegate has it, and the buffer does not.
    pub fn alone(&self) -> bool {
        self.there && !self.here
    }

    /// The buffer has been given another value, which counts from now on.
    pub fn overwritten(&mut self) {
        (self.here, self.there, self.lost) = (true, false, None);
    }

    fn gone(&mut self, why: &str) {
        self.there = false;
        if !self.here && self.lost.is_none() {
            self.lost = Some(why.to_string());
        }
    }

    fn reason(&self) -> RegionError {
        RegionError::StateLost(self.lost.clone().unwrap_or_else(|| "nobody has it".to_string()))
    }
}

/// True if the tensor has bytes of this part of a memory.
fn overlaps(tensors: &Tensors, slot: SlotId, memory: MemoryId, range: &Range<usize>) -> bool {
    let slot = tensors.slots[slot.0 as usize].arena_range();
    slot.is_some_and(|(other, have)| other == memory && have.start < range.end && range.start < have.end)
}

fn is_copy(io: &Io, from: SlotId, to: SlotId) -> bool {
    let reads = io.reads.iter().map(|read| read.slot);
    let writes = io.writes.iter().map(|write| write.slot);
    reads.eq([from]) && writes.eq([to]) && io.copies.is_empty()
}

/// Every tensor that a step looks at.
fn touched(step: &Step) -> impl Iterator<Item = SlotId> + '_ {
    let (io, pair) = match step {
        Step::JumpFalse {
            condition: Condition::Tensor(io),
            ..
        } => (Some(io), None),
        Step::View { from, to, .. } | Step::MoveTensor { from, to, .. } => (step.io(), Some([*from, *to])),
        _ => (step.io(), None),
    };
    let reads = io.into_iter().flat_map(|io| io.reads.iter().map(|read| read.slot));
    let writes = io.into_iter().flat_map(|io| io.writes.iter().map(|write| write.slot));
    reads.chain(writes).chain(pair.into_iter().flatten())
}

impl Region {
    /// Whether its delegate has what the region makes of the states in this run, and the buffers do not get it.
    pub fn done(&self) -> bool {
        self.phase != Phase::Idle && !self.proof
    }

    /// Before a run: the delegate gets the states that it does not have. One whose every element is 0 is not moved.
    ///
    /// # Errors
    /// A state is lost, or the delegate does not take it.
    pub fn give(&mut self, engine: &Engine) -> Result<(), RegionError> {
        for (index, held) in self.states.iter_mut().enumerate().filter(|(_, held)| !held.there) {
            let bytes = engine.memories[held.memory.0 as usize].bytes().get(held.range.clone());
            let Some(bytes) = bytes.filter(|_| held.here) else {
                return Err(held.reason());
            };
            if bytes.iter().all(|byte| *byte == 0) {
                self.bound.call.reset_state(index)?;
            } else {
                self.bound.call.write_state(index, bytes)?;
                self.report.moved += bytes.len() as u64;
            }
            held.there = true;
        }
        Ok(())
    }

    /// Reads states into their buffers, where they are not there yet: that of this index, or all.
    ///
    /// # Errors
    /// A state is lost, or the delegate does not give it.
    pub fn fetch(&mut self, engine: &mut Engine, only: Option<usize>) -> Result<(), RunError> {
        let wanted = |(index, held): &(usize, &mut Held)| !held.here && only.is_none_or(|only| only == *index);
        for (index, held) in self.states.iter_mut().enumerate().filter(wanted) {
            let bytes = engine.memories[held.memory.0 as usize]
                .bytes_mut()
                .get_mut(held.range.clone());
            let read = match bytes {
                Some(bytes) if held.there => {
                    self.report.moved += bytes.len() as u64;
                    self.bound.call.read_state(index, bytes)
                }
                _ => Err(held.reason()),
            };
            if let Err(error) = read {
                if let RegionError::Lost(_) | RegionError::StateLost(_) = error {
                    held.gone(&error.to_string());
                }
                return Err(RunError::State {
                    state: held.state.name.clone(),
                    backend: self.bound.backend.clone(),
                    source: error,
                });
            }
            held.here = true;
        }
        Ok(())
    }

    /// Reads a state that the delegate has into `room`, which gets its size.
    ///
    /// # Errors
    /// As [`Region::fetch`], or no memory.
    pub fn read(&mut self, index: usize, room: &mut Vec<u8>) -> Result<(), RunError> {
        let held = &mut self.states[index];
        let size = held.range.len();
        room.clear();
        let read = match room.try_reserve_exact(size) {
            Ok(()) => {
                room.resize(size, 0);
                self.report.moved += size as u64;
                self.bound.call.read_state(index, room)
            }
            Err(_) => Err(RegionError::Failed(format!("no memory for a copy of {size} bytes"))),
        };
        read.map_err(|error| {
            if let RegionError::Lost(_) | RegionError::StateLost(_) = error {
                held.gone(&error.to_string());
            }
            RunError::State {
                state: held.state.name.clone(),
                backend: self.bound.backend.clone(),
                source: error,
            }
        })
    }

    /// Gives the delegate a state that is not in the buffer; false: it does not take it.
    pub fn take(&mut self, index: usize, bytes: &[u8]) -> bool {
        let held = &mut self.states[index];
        if self.report.quarantined || bytes.len() != held.range.len() {
            return false;
        }
        let taken = self.bound.call.write_state(index, bytes).is_ok();
        if taken {
            self.report.moved += bytes.len() as u64;
            (held.here, held.there, held.lost) = (false, true, None);
        }
        taken
    }

    /// Others that belong to a state that was taken could not be had: it is of no use.
    pub fn half_taken(&mut self, index: usize) {
        let held = &mut self.states[index];
        held.here = false;
        held.gone("another method's states could be had in part only");
    }

    /// The delegate failed, or must not be asked: the instructions go on with the states. What the delegate still has of them is void,
    /// unless the reason passes.
    ///
    /// # Errors
    /// As [`Region::fetch`].
    pub fn take_over(&mut self, engine: &mut Engine, error: Option<&RegionError>) -> Result<(), RunError> {
        self.fetch(engine, None)?;
        let passes = matches!(error, Some(RegionError::Busy(_)));
        for held in self.states.iter_mut().filter(|_| !passes) {
            held.there = false;
        }
        Ok(())
    }

    /// A call has failed: whatever it did counts for nothing.
    pub fn drop_call(&mut self, error: &RegionError) {
        if self.states.is_empty() {
            return;
        }
        self.phase = Phase::Ran;
        self.roll_back();
        if let RegionError::StateLost(why) = error {
            self.states.iter_mut().for_each(|held| held.gone(why));
        }
    }

    /// What the delegate did in this run counts.
    ///
    /// # Errors
    /// The delegate fails: it has the states no more.
    pub fn accept(&mut self) -> Result<(), RegionError> {
        if let Err(error) = self.bound.call.commit(true) {
            self.phase = Phase::Idle;
            let why = format!("a run could not be ended: {error}");
            self.states.iter_mut().for_each(|held| held.gone(&why));
            return Err(error);
        }
        self.phase = Phase::Ended;
        Ok(())
    }

    /// The run of the method counts for nothing.
    pub fn roll_back(&mut self) {
        self.proof = false;
        let why = match core::mem::take(&mut self.phase) {
            Phase::Idle => return,
            Phase::Ran => match self.bound.call.commit(false) {
                Ok(()) => return,
                Err(error) => format!("a run could not be undone: {error}"),
            },
            Phase::Ended => "a run counts for it that counts for nothing else".to_string(),
        };
        self.states.iter_mut().for_each(|held| held.gone(&why));
    }

    /// The run of the method counts.
    pub fn settle(&mut self) {
        let delegated = core::mem::take(&mut self.phase) == Phase::Ended;
        for held in &mut self.states {
            (held.here, held.there) = (!delegated, delegated);
        }
    }

    /// The self-check of states, after the run that counts: compares what the delegate has with what the instructions made, which is in the
    /// buffers from the copies on, and before them, `at` this instruction, where the region put it.
    ///
    /// # Errors
    /// They differ, or the delegate does not give one.
    pub fn prove(
        &mut self,
        check: &dyn SelfCheck,
        engine: &Engine,
        loaded: &Loaded,
        data: &dyn ProgramData,
        at: usize,
    ) -> Result<(), RegionError> {
        for (index, held) in self.states.iter().enumerate() {
            let name = &held.state.name;
            let failed = |problem: String| RegionError::Failed(format!("self-check: the state `{name}`: {problem}"));
            let slot = if at > held.write { held.slot } else { held.after };
            let portable = output::tensor(loaded, engine, data, slot).map_err(failed)?;
            let mut bytes = Vec::new();
            let size = portable.bytes().len();
            bytes
                .try_reserve_exact(size)
                .map_err(|_| failed(format!("no memory for a copy of {size} bytes")))?;
            bytes.resize(size, 0);
            self.bound.call.read_state(index, &mut bytes)?;
            self.report.moved += size as u64;
            let delegate = Tensor::new(portable.dtype(), portable.sizes(), portable.strides(), &bytes)
                .map_err(|error| failed(error.to_string()))?;
            check
                .compare(self.bound.start, held.state.output, &delegate, &portable)
                .map_err(|how| RegionError::Differs(format!("self-check: the state `{name}` {how}")))?;
        }
        Ok(())
    }

    /// The error of a run whose changes to states could not be ended.
    pub fn unended(&self, source: RegionError) -> RunError {
        let names: Vec<&str> = self.states.iter().map(|held| held.state.name.as_str()).collect();
        RunError::State {
            state: names.join("`, `"),
            backend: self.bound.backend.clone(),
            source,
        }
    }
}
