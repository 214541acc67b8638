//! Where the storages of a schedule lie in the session's arena, and where barriers are needed.
//!
//! Storages whose lives do not overlap share bytes. Dispatches between two barriers may run at the same time, so a barrier stands before a
//! dispatch that touches bytes which one since the last barrier writes, or writes bytes which one touches.

use crate::schedule::{Binding, Schedule, Source};
use std::collections::{BTreeMap, BTreeSet};

/// What offsets in the arena are multiples of: the largest alignment that a device may ask for.
pub const ALIGN: u64 = 256;

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Bytes of the arena.
    pub arena: u64,
    /// One a storage: its offset in the arena. `None`: it is a constant, or nothing uses it.
    pub offsets: Vec<Option<u64>>,
    /// One a dispatch: whether a barrier stands before it.
    pub barriers: Vec<bool>,
}

/// Places the storages of a schedule. Takes n log n of its length.
pub fn place(schedule: &Schedule) -> Placement {
    let lives = lives(schedule);
    let (offsets, arena) = offsets(schedule, &lives);
    let barriers = barriers(schedule, &offsets);
    Placement {
        arena,
        offsets,
        barriers,
    }
}

/// First and last moment at which a storage is used. Moment 0 is before the first dispatch, `n + 1` after the last.
fn lives(schedule: &Schedule) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; schedule.storages.len()];
    let mut touch = |storage: usize, moment: usize| {
        let life = lives[storage].get_or_insert((moment, moment));
        *life = (life.0.min(moment), life.1.max(moment));
    };
    for (at, dispatch) in schedule.dispatches.iter().enumerate() {
        dispatch.bindings.iter().for_each(|b| touch(b.storage, at + 1));
    }
    for (binding, _) in &schedule.outputs {
        touch(binding.storage, schedule.dispatches.len() + 1);
    }
    for (life, storage) in lives.iter_mut().zip(&schedule.storages) {
        match (&storage.source, life.as_mut()) {
            (Source::Input(_), Some(life)) => life.0 = 0,
            (Source::Scratch | Source::Input(_), _) => {}
            _ => *life = None,
        }
    }
    lives
}

/// Best fit among the holes, in order of time.
fn offsets(schedule: &Schedule, lives: &[Option<(usize, usize)>]) -> (Vec<Option<u64>>, u64) {
    let mut starts: Vec<(usize, usize)> = lives
        .iter()
        .enumerate()
        .filter_map(|(s, life)| Some((life.as_ref()?.0, s)))
        .collect();
    starts.sort_unstable();
    let mut ends: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut offsets = vec![None; lives.len()];
    let mut holes = Holes::default();
    for (start, storage) in starts {
        while let Some((end, gone)) = ends.first().copied().filter(|(end, _)| *end < start) {
            ends.remove(&(end, gone));
            if let Some(offset) = offsets[gone] {
                holes.free(offset, size(schedule, gone));
            }
        }
        offsets[storage] = Some(holes.take(size(schedule, storage)));
        if let Some((_, end)) = lives[storage] {
            ends.insert((end, storage));
        }
    }
    (offsets, holes.end)
}

fn size(schedule: &Schedule, storage: usize) -> u64 {
    schedule.storages[storage].bytes.next_multiple_of(ALIGN).max(ALIGN)
}

/// Free bytes below `end`.
#[derive(Default)]
struct Holes {
    by_offset: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    end: u64,
}

impl Holes {
    fn take(&mut self, size: u64) -> u64 {
        if let Some((have, offset)) = self.by_size.range((size, 0)..).next().copied() {
            self.remove(offset, have);
            if have > size {
                self.insert(offset + size, have - size);
            }
            return offset;
        }
        // The last hole grows, if it ends where the arena does.
        if let Some((offset, have)) = self.by_offset.last_key_value().map(|(o, s)| (*o, *s)) {
            if offset + have == self.end {
                self.remove(offset, have);
                self.end = offset + size;
                return offset;
            }
        }
        let offset = self.end;
        self.end += size;
        offset
    }

    fn free(&mut self, mut offset: u64, mut size: u64) {
        if let Some((before, have)) = self.by_offset.range(..offset).next_back().map(|(o, s)| (*o, *s)) {
            if before + have == offset {
                self.remove(before, have);
                (offset, size) = (before, have + size);
            }
        }
        if let Some(have) = self.by_offset.get(&(offset + size)).copied() {
            self.remove(offset + size, have);
            size += have;
        }
        self.insert(offset, size);
    }

    fn insert(&mut self, offset: u64, size: u64) {
        self.by_offset.insert(offset, size);
        self.by_size.insert((size, offset));
    }

    fn remove(&mut self, offset: u64, size: u64) {
        self.by_offset.remove(&offset);
        self.by_size.remove(&(size, offset));
    }
}

/// Ranges of bytes, joined where they meet.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn overlap(&self, start: u64, end: u64) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, last)| *last > start)
    }

    fn add(&mut self, mut start: u64, mut end: u64) {
        while let Some((first, last)) = self
            .0
            .range(..=end)
            .next_back()
            .map(|(f, l)| (*f, *l))
            .filter(|(_, l)| *l >= start)
        {
            self.0.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.0.insert(start, end);
    }
}

fn barriers(schedule: &Schedule, offsets: &[Option<u64>]) -> Vec<bool> {
    let (mut written, mut touched) = (Ranges::default(), Ranges::default());
    let range = |binding: &Binding| {
        let start = offsets.get(binding.storage).copied().flatten()? + binding.offset;
        Some((start, start + binding.bytes))
    };
    let mut barriers = Vec::with_capacity(schedule.dispatches.len());
    for dispatch in &schedule.dispatches {
        let used = || {
            dispatch
                .bindings
                .iter()
                .zip(dispatch.kernel.writes)
                .filter_map(|(b, writes)| Some((range(b)?, *writes)))
        };
        let meets =
            used().any(|((start, end), writes)| written.overlap(start, end) || (writes && touched.overlap(start, end)));
        if meets {
            (written, touched) = (Ranges::default(), Ranges::default());
        }
        barriers.push(meets);
        for ((start, end), writes) in used() {
            touched.add(start, end);
            if writes {
                written.add(start, end);
            }
        }
    }
    barriers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;
    use crate::schedule::{Dispatch, Storage};

    fn chain(count: usize) -> Schedule {
        let storage = |source| Storage { bytes: 1000, source };
        let binding = |storage| Binding {
            storage,
            offset: 0,
            bytes: 1000,
        };
        Schedule {
            storages: (0..=count)
                .map(|i| storage(if i == 0 { Source::Input(0) } else { Source::Scratch }))
                .collect(),
            dispatches: (0..count)
                .map(|i| Dispatch {
                    kernel: &kernels::TRANSFER_TO_NHWC4,
                    bindings: vec![binding(i), binding(i + 1)],
                    params: 0..1,
                    groups: [1; 3],
                    node: 0,
                })
                .collect(),
            outputs: vec![(binding(count), vec![250])],
            ..Schedule::default()
        }
    }

    #[test]
    fn a_chain_needs_two_places_and_a_barrier_a_step() {
        let placement = place(&chain(10));
        assert_eq!(placement.arena, 2048);
        assert_eq!(placement.barriers, [[false].as_slice(), &[true; 9]].concat());
    }

    #[test]
    fn what_is_alive_together_never_shares_bytes() {
        let mut schedule = chain(40);
        // Every third storage is read again much later.
        for i in (3..37).step_by(3) {
            schedule.dispatches[i + 3].bindings[0].storage = i - 2;
        }
        let placement = place(&schedule);
        let lives = lives(&schedule);
        for a in 0..lives.len() {
            for b in 0..a {
                let (Some(first), Some(second)) = (lives[a], lives[b]) else {
                    continue;
                };
                if first.0 <= second.1 && second.0 <= first.1 {
                    let (x, y) = (placement.offsets[a].unwrap(), placement.offsets[b].unwrap());
                    assert!(x + 1024 <= y || y + 1024 <= x, "{a} at {x} and {b} at {y}");
                }
            }
        }
    }

    #[test]
    fn independent_dispatches_share_a_barrier() {
        let mut schedule = chain(3);
        schedule.dispatches[1].bindings[0].storage = 0;
        schedule.dispatches[2].bindings[0].storage = 0;
        let placement = place(&schedule);
        assert_eq!(placement.barriers, [false, false, false]);
    }
}
