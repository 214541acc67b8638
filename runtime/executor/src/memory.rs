//! Memories and how one step borrows several parts of them at once, some to read and some to write.
//!
//! A memory is an arena of the plan or the own memory of an unplanned tensor. What a step needs is sorted by place at load
//! ([`Piece`]), so that a run cuts each memory from front to back with `split_at_mut`: no `unsafe` is needed.

use alloc::vec::Vec;
use core::ops::Range;
use delegraph_kernels::Growable;

/// Index of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemoryId(pub u32);

/// A part of a memory that a step borrows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub memory: MemoryId,
    pub part: Part,
}

/// Which part, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Bytes to read.
    Read(Range<usize>),
    /// Bytes to write.
    Write(Range<usize>),
    /// All bytes, to read.
    ReadAll,
    /// The memory itself, to grow and write.
    Grow,
}

/// A borrowed piece.
#[derive(Debug)]
pub(crate) enum Carved<'a> {
    Read(&'a [u8]),
    /// Taken by the output that owns it.
    Write(Option<&'a mut [u8]>),
    Grow(Option<&'a mut Growable>),
}

/// Borrows `pieces`, which are sorted by memory and start and do not overlap. `None` if they do not fit the memories.
pub(crate) fn carve<'a>(memories: &'a mut [Growable], pieces: &[Piece], out: &mut Vec<Carved<'a>>) -> Option<()> {
    let (mut rest, mut first) = (memories, 0usize);
    let mut next = 0;
    while let Some(piece) = pieces.get(next) {
        let skip = (piece.memory.0 as usize).checked_sub(first)?;
        let (memory, tail) = core::mem::take(&mut rest).get_mut(skip..)?.split_first_mut()?;
        rest = tail;
        first += skip + 1;
        match piece.part {
            Part::Grow => {
                out.push(Carved::Grow(Some(memory)));
                next += 1;
            }
            Part::ReadAll => {
                out.push(Carved::Read(memory.bytes()));
                next += 1;
            }
            Part::Read(_) | Part::Write(_) => {
                let (mut bytes, mut at) = (memory.bytes_mut(), 0usize);
                while let Some(same) = pieces.get(next).filter(|other| other.memory == piece.memory) {
                    let (Part::Read(range) | Part::Write(range)) = &same.part else {
                        return None;
                    };
                    let skip = range.start.checked_sub(at)?;
                    let len = range.end.checked_sub(range.start)?;
                    let (part, tail) = core::mem::take(&mut bytes).get_mut(skip..)?.split_at_mut_checked(len)?;
                    (bytes, at) = (tail, range.end);
                    out.push(match same.part {
                        Part::Read(_) => Carved::Read(part),
                        _ => Carved::Write(Some(part)),
                    });
                    next += 1;
                }
            }
        }
    }
    Some(())
}

/// No bytes, aligned for every dtype.
pub(crate) fn no_bytes() -> &'static [u8] {
    bytemuck::cast_slice::<u128, u8>(&[])
}

/// No bytes to write, aligned for every dtype.
pub(crate) fn no_bytes_mut() -> &'static mut [u8] {
    bytemuck::cast_slice_mut::<u128, u8>(&mut [])
}

/// An empty vector that keeps the allocation of `used`, for elements of the same layout (the same type with another
/// lifetime): the standard library collects such an iterator in place.
pub(crate) fn recycle<A, B>(mut used: Vec<A>) -> Vec<B> {
    const { assert!(size_of::<A>() == size_of::<B>() && align_of::<A>() == align_of::<B>()) };
    used.clear();
    used.into_iter().map(|_| unreachable!("it was cleared")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_only_where_they_fit() {
        let mut memories = alloc::vec![Growable::default(), Growable::default(), Growable::default()];
        memories[0].reserve(64).unwrap();
        memories[2].reserve(32).unwrap();
        memories[2].bytes_mut()[8] = 7;
        let piece = |memory, part| Piece {
            memory: MemoryId(memory),
            part,
        };
        let pieces = [
            piece(0, Part::Write(0..16)),
            piece(0, Part::Read(16..64)),
            piece(1, Part::Grow),
            piece(2, Part::Read(8..16)),
        ];
        let mut carved = Vec::new();
        carve(&mut memories, &pieces, &mut carved).unwrap();
        assert!(matches!(&carved[0], Carved::Write(Some(bytes)) if bytes.len() == 16));
        assert!(matches!(&carved[1], Carved::Read(bytes) if bytes.len() == 48));
        assert!(matches!(&carved[3], Carved::Read(bytes) if bytes[0] == 7));
        for bad in [piece(0, Part::Read(60..70)), piece(3, Part::Grow)] {
            assert!(carve(&mut memories, &[bad], &mut Vec::new()).is_none());
        }
        let overlapping = [piece(0, Part::Read(0..16)), piece(0, Part::Write(8..24))];
        assert!(carve(&mut memories, &overlapping, &mut Vec::new()).is_none());
    }

    #[test]
    fn a_recycled_vector_keeps_its_allocation() {
        let used: Vec<&'static [u8]> = Vec::with_capacity(40);
        let pointer = used.as_ptr() as usize;
        let again: Vec<&[u8]> = recycle(used);
        assert_eq!((again.as_ptr() as usize, again.capacity()), (pointer, 40));
    }
}
