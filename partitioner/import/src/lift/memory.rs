//! Reaching definitions by byte range: which write the bytes of a tensor hold.
//!
//! ExecuTorch's planner gives one place to many tensors, one after the other, and a view is a second tensor at the place of
//! the first. So a tensor's name says nothing: what counts is which write last covered exactly its bytes.

use super::byte_count;
use delegraph_ir::ValueId;
use delegraph_pte::model::{Storage, Tensor};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where a tensor's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Planned memory.
    Arena { memory: u32, range: Range<u64> },
    /// Memory that nothing else shares: allocated at run time, or none because there are no elements.
    Own(u32),
    /// In a file: never written.
    Constant,
}

impl Place {
    pub(super) fn of(value: u32, tensor: &Tensor) -> Place {
        match tensor.storage {
            Storage::Constant(_) | Storage::External => Place::Constant,
            Storage::Unplanned => Place::Own(value),
            Storage::Arena(allocation) | Storage::MutableWithState(allocation, ..) => {
                match byte_count(tensor).and_then(|n| Some((n, allocation.offset.checked_add(n)?))) {
                    Some((1.., end)) => Place::Arena {
                        memory: allocation.memory_id,
                        range: allocation.offset..end,
                    },
                    _ => Place::Own(value),
                }
            }
        }
    }
}

/// Index of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DefinitionId(u32);

/// A write to the bytes of a tensor.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    /// The value of the plan that was written.
    pub writer: u32,
    /// What was written.
    pub value: ValueId,
    /// The input of this position is changed by the write, as the caller sees it.
    pub input: Option<u32>,
    place: Place,
}

/// What the bytes of a place hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Exactly what one write left there.
    Whole(DefinitionId),
    /// Nothing was written there.
    Nothing,
    /// Something else; the values of the plan that wrote parts of it, a few of them.
    Parts(Vec<u32>),
}

/// A range of an arena that still holds what a definition wrote there.
#[derive(Debug, Clone, Copy)]
struct Piece {
    end: u64,
    definition: DefinitionId,
}

/// All memory of a method, as the instructions so far leave it.
#[derive(Debug, Default)]
pub(super) struct Memory {
    definitions: Vec<Definition>,
    /// Disjoint pieces by their start.
    arenas: FxHashMap<u32, BTreeMap<u64, Piece>>,
    own: FxHashMap<u32, DefinitionId>,
}

impl Memory {
    pub(super) fn definition(&self, id: DefinitionId) -> &Definition {
        &self.definitions[id.0 as usize]
    }

    /// Writes a value to a place. Nothing may be written to a constant: the caller sees to that.
    pub(super) fn write(&mut self, place: Place, writer: u32, value: ValueId, input: Option<u32>) -> DefinitionId {
        let id = DefinitionId(self.definitions.len() as u32);
        match &place {
            Place::Constant => {}
            Place::Own(own) => {
                self.own.insert(*own, id);
            }
            Place::Arena { memory, range } => {
                let pieces = self.arenas.entry(*memory).or_default();
                cut(pieces, range);
                pieces.insert(
                    range.start,
                    Piece {
                        end: range.end,
                        definition: id,
                    },
                );
            }
        }
        self.definitions.push(Definition {
            writer,
            value,
            input,
            place,
        });
        id
    }

    /// Forgets what memory of its own a value has.
    pub(super) fn free(&mut self, value: u32) {
        self.own.remove(&value);
    }

    pub(super) fn find(&self, place: &Place) -> Found {
        let (memory, range) = match place {
            Place::Constant => return Found::Nothing,
            Place::Own(own) => return self.own.get(own).map_or(Found::Nothing, |id| Found::Whole(*id)),
            Place::Arena { memory, range } => (memory, range),
        };
        let Some(pieces) = self.arenas.get(memory) else {
            return Found::Nothing;
        };
        let before = pieces.range(..=range.start).next_back();
        let before = before.filter(|(_, piece)| piece.end > range.start);
        if let Some((&start, piece)) = before
            && start == range.start
            && piece.end == range.end
            && self.definition(piece.definition).place == *place
        {
            return Found::Whole(piece.definition);
        }
        let inside = pieces
            .range(range.start + 1..)
            .take_while(|(start, _)| **start < range.end);
        let mut writers: Vec<u32> = before
            .into_iter()
            .chain(inside)
            .take(4)
            .map(|(_, piece)| self.definition(piece.definition).writer)
            .collect();
        writers.dedup();
        match writers.is_empty() {
            true => Found::Nothing,
            false => Found::Parts(writers),
        }
    }
}

/// Takes `range` out of all pieces. Each call adds at most one piece more than it removes, so the work is linear over all.
fn cut(pieces: &mut BTreeMap<u64, Piece>, range: &Range<u64>) {
    if let Some((_, piece)) = pieces.range_mut(..range.start).next_back()
        && piece.end > range.start
    {
        let rest = *piece;
        piece.end = range.start;
        if rest.end > range.end {
            pieces.insert(range.end, rest);
        }
    }
    while let Some((&start, &piece)) = pieces.range(range.start..range.end).next() {
        pieces.remove(&start);
        if piece.end > range.end {
            pieces.insert(range.end, piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(range: Range<u64>) -> Place {
        Place::Arena { memory: 1, range }
    }

    #[test]
    fn a_read_finds_the_last_write_of_exactly_its_bytes() {
        let mut memory = Memory::default();
        let write = |memory: &mut Memory, range: Range<u64>, writer: u32| {
            memory.write(place(range), writer, ValueId(writer), None)
        };
        let a = write(&mut memory, 0..64, 1);
        let b = write(&mut memory, 64..128, 2);
        assert_eq!(memory.find(&place(0..64)), Found::Whole(a));
        assert_eq!(memory.find(&place(64..128)), Found::Whole(b));
        assert_eq!(memory.find(&place(0..128)), Found::Parts(vec![1, 2]));
        assert_eq!(memory.find(&place(16..32)), Found::Parts(vec![1]));
        assert_eq!(memory.find(&place(128..256)), Found::Nothing);
        // A write inside leaves both ends of the old one, neither of which is a whole value any more.
        let c = write(&mut memory, 16..32, 3);
        assert_eq!(memory.find(&place(16..32)), Found::Whole(c));
        assert_eq!(memory.find(&place(0..64)), Found::Parts(vec![1, 3, 1]));
        assert_eq!(memory.find(&place(0..16)), Found::Parts(vec![1]));
        assert_eq!(memory.find(&place(32..64)), Found::Parts(vec![1]));
        let d = write(&mut memory, 0..128, 4);
        assert_eq!(memory.find(&place(0..128)), Found::Whole(d));
        assert_eq!(memory.arenas[&1].len(), 1);
    }

    #[test]
    fn memory_of_its_own_goes_by_value() {
        let mut memory = Memory::default();
        let a = memory.write(Place::Own(7), 7, ValueId(0), None);
        assert_eq!(memory.find(&Place::Own(7)), Found::Whole(a));
        assert_eq!(memory.find(&Place::Own(8)), Found::Nothing);
        memory.free(7);
        assert_eq!(memory.find(&Place::Own(7)), Found::Nothing);
    }

    #[test]
    fn many_writes_stay_cheap() {
        let mut memory = Memory::default();
        for i in 0..200_000u64 {
            let start = (i * 7919) % 100_000;
            memory.write(place(start..start + 1 + i % 37), i as u32, ValueId(0), None);
        }
        assert!(memory.arenas[&1].len() <= 100_037);
    }
}
