//! Which bytes live from one run to the next, and how a failed run leaves them as they were.

use crate::engine::Engine;
use crate::load::{Loaded, is_static};
use crate::memory::MemoryId;
use crate::step::Step;
use crate::tensors::{Place, Slot, SlotId, Tensors};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_kernels::KernelError;
use delegraph_pte::model::{EValue, Storage};
use delegraph_types::Dims;

/// ExecuTorch's own convention: mutable buffers lie in this arena.
const STATE_ARENA: u32 = 2;

/// The state of a method.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// State tensors, each byte range once, with their names where the file has them.
    pub tensors: Vec<(SlotId, Option<String>)>,
    /// Disjoint byte ranges of all state tensors, sorted.
    ranges: Vec<(MemoryId, Range<usize>)>,
    /// By instruction: it writes state.
    pub writers: Vec<bool>,
    /// An instruction that can fail follows a write, so state is saved before the first write.
    pub needs_snapshot: bool,
    /// From this instruction on nothing can fail, and a run is not ended between.
    pub commit: usize,
    saved: Vec<u8>,
    /// By range: it is in `saved`.
    saved_ranges: Vec<bool>,
    saved_sizes: Vec<Dims>,
    taken: bool,
}

impl State {
    /// Finds the state tensors: those with an initial state, the named ones of the state arena, and those that the
    /// instructions read before anything in this run wrote them.
    pub fn new(loaded: &Loaded) -> State {
        let tensors = &loaded.tensors;
        let plan = loaded.plan();
        let mut found: Vec<SlotId> = Vec::new();
        for (index, slot) in tensors.slots.iter().enumerate() {
            let EValue::Tensor(tensor) = &plan.values[slot.value as usize] else {
                continue;
            };
            let named = tensor.name.is_some()
                && matches!(tensor.storage, Storage::Arena(allocation) if allocation.memory_id == STATE_ARENA);
            if named || matches!(tensor.storage, Storage::MutableWithState(..)) {
                found.push(SlotId(index as u32));
            }
        }
        let mut written = Written::default();
        for &input in &plan.inputs {
            if let Some(slot) = tensors.slot(input) {
                written.add(tensors, slot);
            }
        }
        for step in &loaded.steps {
            let Some(io) = step.io() else { continue };
            let in_place = matches!(step, Step::Kernel(kernel) if kernel.reads_outs);
            let outs = io.writes.iter().map(|write| write.slot).filter(|_| in_place);
            for slot in io.reads.iter().map(|read| read.slot).chain(outs) {
                if !written.covers(tensors, slot) {
                    found.push(slot);
                }
            }
            for write in &io.writes {
                written.add(tensors, write.slot);
            }
        }
        State::from_slots(loaded, found)
    }

    fn from_slots(loaded: &Loaded, found: Vec<SlotId>) -> State {
        let tensors = &loaded.tensors;
        let plan = loaded.plan();
        let mut state = State::default();
        let mut ranges: Vec<(MemoryId, Range<usize>)> = Vec::new();
        let mut seen: BTreeMap<(MemoryId, usize, usize), ()> = BTreeMap::new();
        for slot in found {
            let tensor = &tensors.slots[slot.0 as usize];
            let Some((memory, range)) = tensor.arena_range() else {
                continue;
            };
            if range.is_empty() || seen.insert((memory, range.start, range.end), ()).is_some() {
                continue;
            }
            let name = match &plan.values[tensor.value as usize] {
                EValue::Tensor(tensor) => tensor.name.clone(),
                _ => None,
            };
            ranges.push((memory, range));
            state.tensors.push((slot, name));
        }
        ranges.sort_by_key(|(memory, range)| (*memory, range.start));
        for (memory, range) in ranges {
            match state.ranges.last_mut() {
                Some((last, have)) if *last == memory && range.start <= have.end => have.end = have.end.max(range.end),
                _ => state.ranges.push((memory, range)),
            }
        }
        state.writers = loaded
            .steps
            .iter()
            .map(|step| {
                step.io()
                    .is_some_and(|io| io.writes.iter().any(|write| state.holds(tensors, write.slot)))
            })
            .collect();
        let first = state.writers.iter().position(|writes| *writes);
        state.commit = loaded.steps.len();
        if let Some(first) = first {
            let safe = loaded.steps[first..]
                .iter()
                .enumerate()
                .all(|(i, step)| cannot_fail(loaded, step, first + i));
            match safe {
                true => state.commit = first,
                false => state.needs_snapshot = true,
            }
        }
        state
    }

    /// The instruction before which delegates hear that what they did to states counts. From there on either nothing can fail, or what
    /// was written by then is put back.
    pub fn delegates_end(&self, loaded: &Loaded) -> usize {
        match self.needs_snapshot {
            true => loaded.steps.len(),
            false => self.commit,
        }
    }

    /// Has a part of a memory saved by itself, so that it can be left out.
    pub fn set_apart(&mut self, memory: MemoryId, part: &Range<usize>) {
        let cut = |(other, range): (MemoryId, Range<usize>)| {
            let clamped = |at: usize| at.clamp(range.start, range.end);
            let (start, end) = match other == memory {
                true => (clamped(part.start), clamped(part.end)),
                false => (range.start, range.end),
            };
            let pieces = [range.start..start, start..end, end..range.end];
            pieces
                .into_iter()
                .filter(|piece| !piece.is_empty())
                .map(move |piece| (other, piece))
        };
        self.ranges = core::mem::take(&mut self.ranges).into_iter().flat_map(cut).collect();
    }

    /// True if a state tensor lies in a memory.
    pub fn lies_in(&self, memory: MemoryId) -> bool {
        self.ranges.iter().any(|(other, _)| *other == memory)
    }

    /// True if the tensor shares bytes with a state tensor.
    pub fn holds(&self, tensors: &Tensors, slot: SlotId) -> bool {
        let Some((memory, range)) = tensors.slots[slot.0 as usize].arena_range() else {
            return false;
        };
        // The ranges are disjoint and sorted: only the last that starts before the end can overlap.
        let before = self
            .ranges
            .partition_point(|(other, have)| (*other, have.start) < (memory, range.end));
        before > 0 && {
            let (other, have) = &self.ranges[before - 1];
            *other == memory && have.end > range.start
        }
    }

    /// Before the first write of a run: saves all state but that which `elsewhere` says a delegate has.
    pub fn save(
        &mut self,
        engine: &Engine,
        elsewhere: impl Fn(MemoryId, &Range<usize>) -> bool,
    ) -> Result<(), KernelError> {
        if self.taken {
            return Ok(());
        }
        self.saved.clear();
        self.saved_ranges.clear();
        self.saved_ranges
            .extend(self.ranges.iter().map(|(memory, range)| !elsewhere(*memory, range)));
        let ranges = || self.ranges.iter().zip(&self.saved_ranges).filter(|(_, saved)| **saved);
        let total = ranges().map(|((_, range), _)| range.len()).sum::<usize>();
        self.saved
            .try_reserve_exact(total)
            .map_err(|_| KernelError::OutOfMemory(total))?;
        for ((memory, range), _) in ranges() {
            let bytes = engine.memories[memory.0 as usize].bytes();
            // An arena that was never allocated is all zeros.
            match bytes.get(range.clone()) {
                Some(bytes) => self.saved.extend_from_slice(bytes),
                None => self.saved.resize(self.saved.len() + range.len(), 0),
            }
        }
        self.saved_sizes.clear();
        let sizes = self.tensors.iter().map(|(slot, _)| *engine.shapes.sizes(*slot));
        self.saved_sizes.extend(sizes);
        self.taken = true;
        Ok(())
    }

    /// After a run: puts the state back if the run failed.
    pub fn finish(&mut self, engine: &mut Engine, slots: &[Slot], failed: bool) {
        if !core::mem::take(&mut self.taken) || !failed {
            return;
        }
        let mut at = 0;
        let ranges = self.ranges.iter().zip(&self.saved_ranges).filter(|(_, saved)| **saved);
        for ((memory, range), _) in ranges {
            let saved = self.saved.get(at..at + range.len());
            at += range.len();
            let bytes = engine.memories[memory.0 as usize].bytes_mut().get_mut(range.clone());
            if let (Some(saved), Some(bytes)) = (saved, bytes) {
                bytes.copy_from_slice(saved);
            }
        }
        for ((slot, _), sizes) in self.tensors.iter().zip(&self.saved_sizes) {
            engine.shapes.set(slots, *slot, sizes);
        }
    }
}

/// True for a copy between tensors of one dtype and fixed equal sizes, and for what does nothing that can fail.
fn cannot_fail(loaded: &Loaded, step: &Step, instruction: usize) -> bool {
    let copies = match step {
        Step::Free(_) | Step::MoveNumber { .. } => return true,
        Step::Kernel(kernel) => loaded.name_of(instruction) == "aten::copy_" && !kernel.reads_outs,
        Step::MoveTensor { .. } => true,
        _ => false,
    };
    let Some(io) = step.io().filter(|_| copies) else {
        return false;
    };
    let ([read], [write]) = (&io.reads[..], &io.writes[..]) else {
        return false;
    };
    let slot = |id: SlotId| &loaded.tensors.slots[id.0 as usize];
    let fixed = |id: SlotId| is_static(&loaded.tensors, id);
    let (from, to) = (slot(read.slot), slot(write.slot));
    let planned = matches!(to.place, Place::Arena { .. }) && !matches!(from.place, Place::Own(_));
    // Copies of inputs that share bytes need memory.
    planned
        && io.copies.is_empty()
        && io.lazy.is_empty()
        && fixed(read.slot)
        && fixed(write.slot)
        && from.dtype == to.dtype
        && from.sizes == to.sizes
}

/// Bytes that the run wrote so far, as disjoint intervals by start.
#[derive(Default)]
struct Written {
    intervals: BTreeMap<(MemoryId, usize), usize>,
}

impl Written {
    fn add(&mut self, tensors: &Tensors, slot: SlotId) {
        let Some((memory, mut range)) = tensors.slots[slot.0 as usize].arena_range() else {
            return;
        };
        if range.is_empty() {
            return;
        }
        // Joins every interval that touches the new one; each is removed once, so this is linear over all.
        while let Some((&(other, start), &end)) = self.intervals.range(..=(memory, range.end)).next_back() {
            if other != memory || end < range.start {
                break;
            }
            range = range.start.min(start)..range.end.max(end);
            self.intervals.remove(&(other, start));
        }
        self.intervals.insert((memory, range.start), range.end);
    }

    fn covers(&self, tensors: &Tensors, slot: SlotId) -> bool {
        let Some((memory, range)) = tensors.slots[slot.0 as usize].arena_range() else {
            return true;
        };
        let before = self.intervals.range(..=(memory, range.start)).next_back();
        range.is_empty() || before.is_some_and(|(&(other, _), &end)| other == memory && end >= range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_apart_is_saved_by_itself_or_not_at_all() {
        let (states, other) = (MemoryId(0), MemoryId(1));
        let mut state = State {
            ranges: alloc::vec![(states, 0..64), (other, 0..16)],
            ..State::default()
        };
        for part in [16..32, 48..64, 16..32] {
            state.set_apart(states, &part);
        }
        let cut = [
            (states, 0..16),
            (states, 16..32),
            (states, 32..48),
            (states, 48..64),
            (other, 0..16),
        ];
        assert_eq!(state.ranges, cut);

        let mut engine = Engine::default();
        for len in [64, 16] {
            let mut memory = delegraph_kernels::Growable::default();
            memory.reserve(len).unwrap().fill(7);
            engine.memories.push(memory);
        }
        let elsewhere = |memory, part: &Range<usize>| (memory, part) == (states, &(16..32));
        state.save(&engine, elsewhere).unwrap();
        assert_eq!(state.saved.len(), 64);
        engine.memories.iter_mut().for_each(|memory| memory.bytes_mut().fill(9));
        state.finish(&mut engine, &[], true);
        let bytes = engine.memories[0].bytes();
        assert!(
            bytes[16..32].iter().all(|byte| *byte == 9),
            "it is not the buffer's to put back"
        );
        let rest = bytes[..16].iter().chain(&bytes[32..]).chain(engine.memories[1].bytes());
        assert!(rest.into_iter().all(|byte| *byte == 7));
    }
}
