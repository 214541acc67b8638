//! The tensors of a method: where each one's bytes are.

use crate::LoadError;
use crate::load::ProgramData;
use crate::memory::MemoryId;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_pte::Verified;
use delegraph_pte::model::{Allocation, Dynamism, EValue, Plan, Storage, Tensor};
use delegraph_types::{DType, Dims};

/// Index of a tensor of the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId(pub u32);

/// A tensor of the method.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Its value in the plan.
    pub value: u32,
    pub dtype: DType,
    /// Sizes, or their upper bounds.
    pub sizes: Dims,
    /// Dimensions from the outermost to the innermost in memory.
    pub dim_order: Dims,
    /// That is the order of the dimensions themselves.
    pub row_major: bool,
    pub dynamism: Dynamism,
    pub place: Place,
    /// Bytes at `sizes`.
    pub capacity: usize,
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Arena {
        memory: MemoryId,
        start: usize,
    },
    /// A memory of its own that grows.
    Own(MemoryId),
    /// In the program's file.
    Constant(Range<usize>),
    /// A constant that is not aligned in the file, copied at load.
    Copied(MemoryId),
    /// In a data file: index into [`Tensors::externals`].
    External(u32),
    /// Nowhere: the file was written without this value of the plan.
    LeftOut(u32),
}

impl Slot {
    /// Strides in elements at these sizes.
    pub fn strides(&self, sizes: &Dims) -> Dims {
        if self.row_major || self.dim_order.rank() != sizes.rank() {
            return sizes.contiguous_strides();
        }
        let mut order = [0u8; delegraph_types::MAX_RANK];
        for (slot, d) in order.iter_mut().zip(self.dim_order.iter()) {
            *slot = *d as u8;
        }
        // The verifier found a permutation.
        sizes
            .strides_of_dim_order(&order[..sizes.rank()])
            .unwrap_or_else(|| sizes.contiguous_strides())
    }

    /// The part of an arena that it may take.
    pub fn arena_range(&self) -> Option<(MemoryId, Range<usize>)> {
        match self.place {
            Place::Arena { memory, start } => Some((memory, start..start + self.capacity)),
            _ => None,
        }
    }
}

/// Whether sizes are the same. They are few: a call of the general comparison of memory takes longer than all of this.
#[inline]
pub(crate) fn same_sizes(a: &[i64], b: &[i64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b)
}

/// The present sizes of every tensor, and the strides that follow from them.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    sizes: Vec<Dims>,
    strides: Vec<Dims>,
}

impl Shapes {
    /// The sizes that the plan has.
    pub fn new(slots: &[Slot]) -> Shapes {
        Shapes {
            sizes: slots.iter().map(|slot| slot.sizes).collect(),
            strides: slots.iter().map(|slot| slot.strides(&slot.sizes)).collect(),
        }
    }

    /// Present sizes.
    pub fn sizes(&self, slot: SlotId) -> &Dims {
        &self.sizes[slot.0 as usize]
    }

    /// Present strides, in elements.
    pub fn strides(&self, slot: SlotId) -> &Dims {
        &self.strides[slot.0 as usize]
    }

    /// Gives a tensor other sizes.
    pub fn set(&mut self, slots: &[Slot], slot: SlotId, sizes: &[i64]) {
        let at = slot.0 as usize;
        if !same_sizes(&self.sizes[at], sizes)
            && let Ok(sizes) = Dims::new(sizes)
        {
            self.strides[at] = slots[at].strides(&sizes);
            self.sizes[at] = sizes;
        }
    }
}

/// All tensors of a method, and the memories that they need.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    pub slots: Vec<Slot>,
    /// By value of the plan.
    pub of_value: Vec<Option<SlotId>>,
    /// Bytes of each memory at load; own memories start empty. The first ones are the arenas, index = memory id.
    pub memory_lens: Vec<usize>,
    /// Value index of each external tensor.
    pub externals: Vec<u32>,
    /// Constants to copy at load.
    pub copied: Vec<(MemoryId, Range<usize>)>,
    /// Initial states: where, and the file's bytes.
    pub initial: Vec<(MemoryId, usize, Range<usize>)>,
    /// Arenas that inputs and initial states need from the start, and memories of the caller's.
    early: BTreeSet<MemoryId>,
    /// Memories of the caller's, one an output that was moved there.
    pub moved: BTreeSet<MemoryId>,
}

/// Arenas from this id on hold the inside of delegated regions and are allocated when a region first runs portably.
pub(crate) const FIRST_LAZY_ARENA: u32 = 3;

/// Most bytes that a planner leaves behind a tensor: delegates ask for multiples of at most as many.
const MOST_ROOM: usize = 4096;

impl Tensors {
    pub fn new(program: &Verified, plan: &Plan, data: &dyn ProgramData) -> Result<Tensors, LoadError> {
        let file = data.bytes();
        if file.len() as u64 != program.file_len() {
            return Err(LoadError::Data(format!(
                "the file has {} bytes, {} were checked",
                file.len(),
                program.file_len()
            )));
        }
        let count = plan
            .values
            .iter()
            .filter(|value| matches!(value, EValue::Tensor(_)))
            .count();
        let mut tensors = Tensors {
            slots: Vec::with_capacity(count),
            of_value: Vec::with_capacity(plan.values.len()),
            memory_lens: alloc::vec![0; plan.buffer_sizes.len().max(1)],
            ..Tensors::default()
        };
        for (value, evalue) in plan.values.iter().enumerate() {
            let EValue::Tensor(tensor) = evalue else {
                tensors.of_value.push(None);
                continue;
            };
            let wrong = |problem: &str| LoadError::Data(format!("value {value}: {problem}"));
            let capacity = tensor
                .sizes
                .numel()
                .and_then(|n| n.checked_mul(tensor.dtype.size()))
                .ok_or_else(|| wrong("too large"))?;
            let item = tensor.dtype.align();
            let in_file = |offsets: Option<&Vec<u64>>, index: u32| {
                let start = offsets.and_then(|offsets| offsets.get(index as usize)).copied();
                start
                    .and_then(|start| usize::try_from(start).ok())
                    .and_then(|start| Some(start..start.checked_add(capacity)?))
                    .filter(|range| range.end <= file.len())
                    .ok_or_else(|| wrong("its data is not in the file"))
            };
            let place = match tensor.storage {
                Storage::Constant(index) => {
                    let range = in_file(Some(&program.constant_offsets), index)?;
                    if (file.as_ptr() as usize + range.start).is_multiple_of(item) || range.is_empty() {
                        Place::Constant(range)
                    } else {
                        let memory = tensors.own_memory();
                        tensors.copied.push((memory, range));
                        Place::Copied(memory)
                    }
                }
                Storage::Arena(allocation) => tensors.arena(allocation, capacity).ok_or_else(|| wrong("too large"))?,
                Storage::MutableWithState(allocation, segment, index) => {
                    let offsets = program.mutable_segments.get(segment as usize).map(|s| &s.1);
                    let range = in_file(offsets, index)?;
                    let place = tensors.arena(allocation, capacity).ok_or_else(|| wrong("too large"))?;
                    if let Place::Arena { memory, start } = place {
                        tensors.initial.push((memory, start, range));
                    }
                    place
                }
                Storage::External => tensors.external(data, tensor, value as u32, capacity)?,
                Storage::Unplanned => Place::Own(tensors.own_memory()),
            };
            let mut dim_order = tensor.sizes;
            for (slot, d) in dim_order.iter_mut().zip(&tensor.dim_order) {
                *slot = i64::from(*d);
            }
            tensors.of_value.push(Some(SlotId(tensors.slots.len() as u32)));
            tensors.slots.push(Slot {
                value: value as u32,
                dtype: tensor.dtype,
                sizes: tensor.sizes,
                row_major: dim_order.iter().enumerate().all(|(i, d)| *d == i as i64),
                dim_order,
                dynamism: tensor.dynamism,
                place,
                capacity,
            });
        }
        // The room that a delegate asked for behind the last tensor. A file's sizes are not trusted beyond that.
        for (len, planned) in tensors.memory_lens.iter_mut().zip(&plan.buffer_sizes) {
            let planned = usize::try_from(*planned).unwrap_or(usize::MAX);
            if *len > 0 && planned > *len {
                *len = planned.min(len.saturating_add(MOST_ROOM));
            }
        }
        let inputs = plan.inputs.iter().filter_map(|&value| tensors.slot(value));
        let inputs = inputs.filter_map(|slot| tensors.slots[slot.0 as usize].arena_range());
        let initial = tensors.initial.iter().map(|(memory, ..)| *memory);
        tensors.early = inputs.map(|(memory, _)| memory).chain(initial).collect();
        Ok(tensors)
    }

    /// The tensor of this value.
    pub fn slot(&self, value: u32) -> Option<SlotId> {
        self.of_value.get(value as usize).copied().flatten()
    }

    /// True if the memory is allocated when it is first used.
    pub fn is_lazy(&self, memory: MemoryId) -> bool {
        memory.0 >= FIRST_LAZY_ARENA && !self.early.contains(&memory)
    }

    /// Bytes of all arenas, those that are allocated later too.
    pub fn arena_bytes(&self) -> u64 {
        self.memory_lens
            .iter()
            .map(|len| *len as u64)
            .fold(0, u64::saturating_add)
    }

    /// A memory of the caller's, of this size.
    pub fn moved_memory(&mut self, size: usize) -> MemoryId {
        // One that an output has left is taken again.
        let left = self
            .moved
            .iter()
            .find(|memory| self.memory_lens[memory.0 as usize] == 0);
        let memory = match left.copied() {
            Some(memory) => memory,
            None => self.own_memory(),
        };
        self.memory_lens[memory.0 as usize] = size;
        self.early.insert(memory);
        self.moved.insert(memory);
        memory
    }

    fn own_memory(&mut self) -> MemoryId {
        self.memory_lens.push(0);
        MemoryId(self.memory_lens.len() as u32 - 1)
    }

    /// A tensor of a data file.
    fn external(
        &mut self,
        data: &dyn ProgramData,
        tensor: &Tensor,
        value: u32,
        capacity: usize,
    ) -> Result<Place, LoadError> {
        let name = tensor.name.as_deref().unwrap_or_default();
        let Some(bytes) = data.external(name) else {
            return match data.is_left_out(name) {
                true => Ok(Place::LeftOut(value)),
                false => Err(LoadError::Data(format!("no external data for `{name}`"))),
            };
        };
        if bytes.len() < capacity {
            return Err(LoadError::Data(format!(
                "external data for `{name}` has {} bytes, {} {} needs {capacity}",
                bytes.len(),
                tensor.dtype,
                tensor.sizes
            )));
        }
        if !(bytes.as_ptr() as usize).is_multiple_of(tensor.dtype.align()) {
            return Err(LoadError::Data(format!(
                "external data for `{name}` is not aligned for {}",
                tensor.dtype
            )));
        }
        self.externals.push(value);
        Ok(Place::External(self.externals.len() as u32 - 1))
    }

    /// An arena grows to the last byte that a tensor may use, whatever the file says its size is.
    fn arena(&mut self, allocation: Allocation, capacity: usize) -> Option<Place> {
        let start = usize::try_from(allocation.offset).ok()?;
        let len = self.memory_lens.get_mut(allocation.memory_id as usize)?;
        *len = (*len).max(start.checked_add(capacity)?);
        Some(Place::Arena {
            memory: MemoryId(allocation.memory_id),
            start,
        })
    }
}
