//! Outputs that lie where the caller wants them: the tensor moves out of the plan's memory, and its producer writes there at once.

use super::Executor;
use crate::error::RunError;
use crate::input;
use crate::load::Loaded;
use crate::memory::MemoryId;
use crate::state::State;
use crate::step::{Condition, Io, Step};
use crate::tensors::{Place, SlotId};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use delegraph_kernels::{Growable, Lent};
use delegraph_pte::model::Dynamism;

/// An output that was moved.
#[derive(Debug)]
pub(crate) struct Moved {
    output: usize,
    slot: SlotId,
    /// Where the plan has it.
    home: Place,
    memory: MemoryId,
}

impl Executor {
    /// Bytes of the largest value of an output that can be moved to memory of the caller's.
    ///
    /// # Errors
    /// There is no such output, or a sentence that says why it has to stay in the method's memory: it is an input, a constant, state or a
    /// number, it has no bound, or other tensors see its bytes.
    pub fn can_move_output(&self, index: usize) -> Result<usize, String> {
        if let Some(moved) = self.moved.iter().find(|moved| moved.output == index) {
            return Ok(self.loaded.tensors.slots[moved.slot.0 as usize].capacity);
        }
        let slot = movable(&self.loaded, &self.state, index)?;
        Ok(self.loaded.tensors.slots[slot.0 as usize].capacity)
    }

    /// Has an output written to memory of the caller's from now on, of which `size` bytes are the output's: what lies behind its elements is
    /// unspecified after a run. `None`: to the method's own again. Views of the last run's outputs end.
    ///
    /// # Errors
    /// It cannot be moved ([`Executor::can_move_output`]), or does not fit. Nothing has changed then.
    pub fn move_output(&mut self, index: usize, memory: Option<Box<dyn Lent>>, size: usize) -> Result<(), RunError> {
        let fail = |problem: String| RunError::Output { index, problem };
        if let Some(lent) = &memory {
            let capacity = self.can_move_output(index).map_err(fail)?;
            if size < capacity || lent.words().len() < size.div_ceil(16) {
                return Err(fail(format!("{size} bytes of memory are given, it needs {capacity}")));
            }
        }
        let at = self.moved.iter().position(|moved| moved.output == index);
        let (slot, place) = match (memory, at) {
            (None, None) => return Ok(()),
            (None, Some(at)) => {
                let moved = self.moved.swap_remove(at);
                self.engine.memories[moved.memory.0 as usize] = Growable::default();
                self.loaded.tensors.memory_lens[moved.memory.0 as usize] = 0;
                (moved.slot, moved.home)
            }
            (Some(lent), Some(at)) => {
                let id = self.moved[at].memory.0 as usize;
                self.engine.memories[id] = Growable::lent(lent);
                if self.loaded.tensors.memory_lens[id] == size {
                    return Ok(());
                }
                self.loaded.tensors.memory_lens[id] = size;
                let slot = self.moved[at].slot;
                (slot, self.loaded.tensors.slots[slot.0 as usize].place.clone())
            }
            (Some(lent), None) => {
                let slot = movable(&self.loaded, &self.state, index).map_err(fail)?;
                let memory = self.loaded.tensors.moved_memory(size);
                match self.engine.memories.get_mut(memory.0 as usize) {
                    Some(left) => *left = Growable::lent(lent),
                    None => self.engine.memories.push(Growable::lent(lent)),
                }
                self.moved.push(Moved {
                    output: index,
                    slot,
                    home: self.loaded.tensors.slots[slot.0 as usize].place.clone(),
                    memory,
                });
                (slot, Place::Arena { memory, start: 0 })
            }
        };
        self.loaded.tensors.slots[slot.0 as usize].place = place;
        self.plan_again(slot).map_err(fail)
    }

    /// Plans anew how steps and regions borrow a tensor that has moved.
    fn plan_again(&mut self, slot: SlotId) -> Result<(), String> {
        let slots = &self.loaded.tensors.slots;
        for step in &mut self.loaded.steps {
            let io = match step {
                Step::Kernel(step) => Some(&mut step.io),
                Step::Delegate { io, .. } | Step::MoveTensor { io: Some(io), .. } => Some(io),
                Step::JumpFalse {
                    condition: Condition::Tensor(io),
                    ..
                } => Some(io),
                _ => None,
            };
            if let Some(io) = io.filter(|io| touches(io, slot)) {
                let (reads, writes) = ends(io);
                *io = Io::new(slots, &reads, &writes)?;
            }
        }
        for region in &mut self.regions {
            if touches(&region.io, slot) {
                region.plan_again(&self.loaded, &self.state)?;
            }
        }
        self.lendable = input::lendable(&self.loaded);
        self.inputs_kept = input::kept(&self.loaded);
        Ok(())
    }

    /// Whether the last run read an input where the caller had it, and copied nothing.
    pub fn was_lent(&self, index: usize) -> bool {
        self.was_lent.get(index) == Some(&true)
    }
}

/// The tensors of a step, those that it reads and those that it writes.
pub(crate) fn ends(io: &Io) -> (Vec<SlotId>, Vec<SlotId>) {
    let reads = io.reads.iter().map(|read| read.slot).collect();
    (reads, io.writes.iter().map(|write| write.slot).collect())
}

fn touches(io: &Io, slot: SlotId) -> bool {
    io.reads.iter().any(|read| read.slot == slot) || io.writes.iter().any(|write| write.slot == slot)
}

/// The tensor of an output, if it can lie anywhere: nobody sees its bytes under another name.
fn movable(loaded: &Loaded, state: &State, index: usize) -> Result<SlotId, String> {
    let plan = loaded.plan();
    let no = |why: &str| Err(String::from(why));
    let Some(&value) = plan.outputs.get(index) else {
        return Err(format!("the method has {} outputs", plan.outputs.len()));
    };
    let Some(slot) = loaded.tensors.slot(value) else {
        return no("it is no tensor");
    };
    let tensor = &loaded.tensors.slots[slot.0 as usize];
    if tensor.dynamism == Dynamism::Unbounded {
        return no("its size has no bound");
    }
    if !matches!(tensor.place, Place::Arena { .. } | Place::Own(_)) {
        return no("it is a constant");
    }
    if !tensor.dim_order.is_sorted() {
        return no("it does not lie in memory row-major");
    }
    if plan.inputs.contains(&value) || plan.outputs.iter().filter(|other| **other == value).count() > 1 {
        return no("it is an input, or another output, too");
    }
    if state.holds(&loaded.tensors, slot) {
        return no("it is state");
    }
    let writes = |step: &Step| {
        step.io()
            .is_some_and(|io| io.writes.iter().any(|write| write.slot == slot))
    };
    let Some(first) = loaded.steps.iter().position(writes) else {
        return no("nothing writes it");
    };
    let aliased = |step: &Step| match step {
        Step::View { from, to, .. } | Step::MoveTensor { from, to, io: None } => *from == slot || *to == slot,
        _ => false,
    };
    if loaded.steps.iter().any(aliased) {
        return no("other tensors are views of it");
    }
    let Some((memory, range)) = tensor.arena_range() else {
        return Ok(slot);
    };
    // Others may have had its memory before it was made; whoever has it later sees its bytes, or overwrites them.
    let overlaps = |other: SlotId| {
        let place = loaded.tensors.slots[other.0 as usize].arena_range();
        other != slot
            && place.is_some_and(|(home, bytes)| home == memory && bytes.start < range.end && range.start < bytes.end)
    };
    let jumps = loaded.steps.iter().any(|step| matches!(step, Step::JumpFalse { .. }));
    let from = if jumps { 0 } else { first };
    for (at, step) in loaded.steps.iter().enumerate().skip(from) {
        let shared = match step {
            Step::View { from, to, .. } | Step::MoveTensor { from, to, io: None } => overlaps(*from) || overlaps(*to),
            Step::JumpFalse {
                condition: Condition::Tensor(io),
                ..
            } => io.reads.iter().any(|read| overlaps(read.slot)),
            step => step.io().is_some_and(|io| {
                // What its first writer reads lies where it did.
                let read = (at != first || jumps) && io.reads.iter().any(|read| overlaps(read.slot));
                read || io.writes.iter().any(|write| overlaps(write.slot))
            }),
        };
        if shared {
            return no("its memory is shared with other tensors");
        }
    }
    let mut outputs = plan.outputs.iter().filter_map(|&value| loaded.tensors.slot(value));
    match outputs.any(overlaps) {
        true => no("its memory is another output's, too"),
        false => Ok(slot),
    }
}
