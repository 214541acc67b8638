//! An executor's state between runs, and how a run ends what delegates did to theirs.

use super::Executor;
use crate::error::{RegionError, RunError};
use crate::kept::{Held, KeptState, Phase};
use crate::memory::MemoryId;
use crate::output;
use crate::region::Region;
use crate::self_check::Checked;
use crate::tensors::{Shapes, Slot};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_kernels::Tensor;

/// Bytes of initial states that are looked at together.
const PAGE: usize = 4096;

impl Executor {
    /// Whether the call of a region of these instructions, inputs and outputs may keep a state: nobody else reads or writes the buffer,
    /// but for one copy of what the region makes of it.
    ///
    /// # Errors
    /// Who else does, or what else is in the way.
    pub fn can_keep(
        &self,
        instructions: Range<u32>,
        inputs: &[u32],
        outputs: &[u32],
        state: &KeptState,
    ) -> Result<(), String> {
        let slots = |values: &[u32]| {
            let slot = |value: &u32| self.loaded.tensors.slot(*value);
            let slots: Option<Vec<_>> = values.iter().map(slot).collect();
            slots.ok_or_else(|| "an input or output of the region is no tensor".to_string())
        };
        let (inputs, outputs) = (slots(inputs)?, slots(outputs)?);
        let instructions = instructions.start as usize..instructions.end as usize;
        Held::new(state, &self.loaded, &self.state, instructions, &inputs, &outputs).map(drop)
    }

    /// Puts every buffer back to its initial state (zeros where the file has none), also one that a delegate keeps, lost or not.
    pub fn reset(&mut self) {
        self.initialise();
        let states = self.regions.iter_mut().flat_map(|region| &mut region.states);
        states.for_each(Held::overwritten);
    }

    /// Names of the state tensors that have one.
    pub fn state_names(&self) -> impl Iterator<Item = &str> {
        self.state.tensors.iter().filter_map(|(_, name)| name.as_deref())
    }

    /// The present content of the state tensor of this name. One that a delegate keeps is fetched, and it goes on keeping it.
    ///
    /// # Errors
    /// A delegate keeps it, and does not give it or has lost it.
    pub fn state(&mut self, name: &str) -> Result<Option<Tensor<'_>>, RunError> {
        let mut states = self.state.tensors.iter();
        let Some(&(slot, _)) = states.find(|(_, have)| have.as_deref() == Some(name)) else {
            return Ok(None);
        };
        let place = self.loaded.tensors.slots[slot.0 as usize].arena_range();
        if let Some((region, state)) = keeper(&self.regions, &place) {
            self.regions[region].fetch(&mut self.engine, Some(state))?;
        }
        Ok(output::tensor(&self.loaded, &self.engine, &*self.data, slot).ok())
    }

    /// Takes the contents of state tensors of the same name, dtype and sizes from another method. Returns how many. What delegates of both
    /// keep goes from one to the other, and through neither method's buffers.
    ///
    /// # Errors
    /// A delegate of the other method does not give one that it keeps. Buffers are as they were then; what this method's delegates keep may be
    /// lost, and then each run says so until it is reset or takes contents again.
    pub fn adopt_state(&mut self, other: &mut Executor) -> Result<usize, RunError> {
        let mut room = Vec::new();
        let mut handed: Vec<Handed> = Vec::new();
        // A self-check needs the buffers.
        let states = self.state.tensors.iter().enumerate();
        for (index, (slot, name)) in states.filter(|_| self.options.self_check.is_none()) {
            let place = self.loaded.tensors.slots[slot.0 as usize].arena_range();
            let ours = keeper(&self.regions, &place);
            let theirs = name
                .as_deref()
                .and_then(|name| other.kept_alone(name, &self.loaded.tensors.slots[slot.0 as usize]));
            let (Some(to), Some(from)) = (ours, theirs) else {
                continue;
            };
            handed.push(Handed { index, to, from });
        }
        // The others first: where one cannot be had, nothing was taken.
        let alone: Vec<(usize, usize)> = handed.iter().map(|handed| handed.from).collect();
        for (at, region) in other.regions.iter_mut().enumerate() {
            for state in 0..region.states.len() {
                if !alone.contains(&(at, state)) {
                    region.fetch(&mut other.engine, Some(state))?;
                }
            }
        }
        for (done, pair) in handed.iter().enumerate() {
            let (to, from) = (pair.to, pair.from);
            if let Err(error) = other.regions[from.0].read(from.1, &mut room) {
                for pair in &handed[..done] {
                    self.regions[pair.to.0].half_taken(pair.to.1);
                }
                return Err(error);
            }
            if !self.regions[to.0].take(to.1, &room) {
                // The delegate gets it before the next run, or the instructions go on with it.
                let (memory, range) = self.regions[to.0].states[to.1].place();
                let buffer = self.engine.memories[memory.0 as usize].bytes_mut();
                if let Some(buffer) = buffer.get_mut(range.clone()).filter(|to| to.len() == room.len()) {
                    buffer.copy_from_slice(&room);
                }
                self.regions[to.0].states[to.1].overwritten();
            }
        }
        let mut adopted = handed.len();
        for (index, (slot, name)) in self.state.tensors.iter().enumerate() {
            if handed.iter().any(|handed| handed.index == index) {
                continue;
            }
            let Some(from) = name.as_deref().and_then(|name| other.state(name).ok().flatten()) else {
                continue;
            };
            let target = &self.loaded.tensors.slots[slot.0 as usize];
            let Some((memory, range)) = target.arena_range() else {
                continue;
            };
            let to = self.engine.memories[memory.0 as usize]
                .bytes_mut()
                .get_mut(range.clone());
            let (Some(to), true) = (
                to,
                from.dtype() == target.dtype && *from.strides() == target.strides(from.sizes()),
            ) else {
                continue;
            };
            let bytes = from.bytes();
            if let Some(to) = to.get_mut(..bytes.len()) {
                to.copy_from_slice(bytes);
                self.engine.shapes.set(&self.loaded.tensors.slots, *slot, from.sizes());
                if let Some((region, state)) = keeper(&self.regions, &Some((memory, range))) {
                    self.regions[region].states[state].overwritten();
                }
                adopted += 1;
            }
        }
        Ok(adopted)
    }

    /// The region and the index there of a state of this name that its delegate alone has; of the same sizes, dtype and order as `like`.
    fn kept_alone(&self, name: &str, like: &Slot) -> Option<(usize, usize)> {
        let mut states = self.state.tensors.iter();
        let &(slot, _) = states.find(|(_, have)| have.as_deref() == Some(name))?;
        let slot = &self.loaded.tensors.slots[slot.0 as usize];
        let same = (slot.dtype, slot.sizes, slot.dim_order) == (like.dtype, like.sizes, like.dim_order);
        let (region, state) = keeper(&self.regions, &slot.arena_range()).filter(|_| same)?;
        self.regions[region].states[state].alone().then_some((region, state))
    }

    pub(super) fn initialise(&mut self) {
        let arenas = self.loaded.plan().buffer_sizes.len();
        for memory in self.engine.memories.iter_mut().take(arenas) {
            memory.bytes_mut().fill(0);
        }
        self.initial_states();
    }

    /// Gives buffers their initial states, in memory that is zero. What is zero in the file is not written, so that memory which no run
    /// reads is never touched.
    pub(super) fn initial_states(&mut self) {
        self.engine.shapes = Shapes::new(&self.loaded.tensors.slots);
        for (memory, start, range) in &self.loaded.tensors.initial {
            let from = self.data.bytes().get(range.clone());
            let to = self.engine.memories[memory.0 as usize].bytes_mut();
            if let (Some(from), Some(to)) = (from, to.get_mut(*start..*start + range.len())) {
                for (from, to) in from.chunks(PAGE).zip(to.chunks_mut(PAGE)) {
                    if from.iter().any(|byte| *byte != 0) {
                        to.copy_from_slice(from);
                    }
                }
            }
        }
    }

    /// Has delegates end what they did to states in this run: from here on it cannot fail, or what it writes is put back.
    pub(super) fn end_delegates(&mut self, at: usize) -> Result<(), RunError> {
        for region in self.regions.iter_mut().filter(|region| region.phase == Phase::Ran) {
            if let Err(error) = region.accept() {
                region.failed(&error, self.options.fallback);
                return Err(region.unended(error));
            }
        }
        let Some(check) = self.options.self_check.clone() else {
            return Ok(());
        };
        for region in self.regions.iter_mut().filter(|region| region.proof) {
            region.proof = false;
            let (loaded, data) = (&self.loaded, &*self.data);
            let Err(error) = region.prove(&*check, &self.engine, loaded, data, at) else {
                continue;
            };
            region.report.checked = match &error {
                RegionError::Differs(how) => Checked::Differs(how.clone()),
                other => Checked::Impossible(other.to_string()),
            };
            region.report.delegated -= 1;
            if !region.failed(&error, self.options.fallback) {
                return Err(region.denied(error));
            }
            // The buffers have what the instructions made of the states, or will have it.
            region.phase = Phase::Idle;
            region.report.portable += 1;
        }
        Ok(())
    }

    /// A run has ended: what delegates did to states counts, or does not.
    pub(super) fn end_regions(&mut self, counts: bool) {
        self.open = false;
        for region in &mut self.regions {
            if !counts {
                region.roll_back();
                continue;
            }
            region.settle();
            if self.options.copy_states {
                // What fails here shows when the copy would be needed.
                let _ = region.fetch(&mut self.engine, None);
            }
        }
    }
}

/// A state that goes from one delegate to another: its index among this method's, and the regions with their own indices.
struct Handed {
    index: usize,
    to: (usize, usize),
    from: (usize, usize),
}

/// The region whose delegate keeps the state of a place, and its index there.
fn keeper(regions: &[Region], place: &Option<(MemoryId, Range<usize>)>) -> Option<(usize, usize)> {
    let (memory, range) = place.as_ref()?;
    regions.iter().enumerate().find_map(|(index, region)| {
        let state = region.states.iter().position(|held| held.place() == (*memory, range))?;
        Some((index, state))
    })
}
