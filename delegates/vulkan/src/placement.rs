//! Where the storages of a schedule lie in the session's arena, and where barriers are needed.
//!
//! Storages whose lives do not overlap share bytes. Dispatches between two barriers may run at the same time, so a barrier stands before a
//! dispatch that touches bytes which one since the last barrier writes, or writes bytes which one touches.

use crate::schedule::{Schedule, Source};
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
///
/// Time is counted in steps between barriers: what dies in one gives its bytes to the next, so that sharing bytes needs no barrier that the
/// data did not need.
pub fn place(schedule: &Schedule) -> Placement {
    place_beside(schedule, &[])
}

/// As [`place`], where some storages lie elsewhere: those whose flag is set.
pub fn place_beside(schedule: &Schedule, elsewhere: &[bool]) -> Placement {
    let barriers = barriers(schedule);
    let mut lives = lives(schedule, &barriers);
    for (life, _) in lives.iter_mut().zip(elsewhere).filter(|(_, elsewhere)| **elsewhere) {
        *life = None;
    }
    let (offsets, arena) = offsets(schedule, &lives);
    Placement {
        arena,
        offsets,
        barriers,
    }
}

/// First and last step in which a storage is used. Step 0 is before the first dispatch.
fn lives(schedule: &Schedule, barriers: &[bool]) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; schedule.storages.len()];
    let mut touch = |storage: usize, step: usize| {
        let life = lives[storage].get_or_insert((step, step));
        *life = (life.0.min(step), life.1.max(step));
    };
    let mut step = 1;
    for (dispatch, barrier) in schedule.dispatches.iter().zip(barriers) {
        step += usize::from(*barrier);
        dispatch.bindings.iter().for_each(|b| touch(b.storage, step));
    }
    for binding in schedule
        .outputs
        .iter()
        .map(|output| &output.binding)
        .chain(&schedule.flag)
    {
        touch(binding.storage, step + 1);
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
        if let Some((offset, have)) = self.by_offset.last_key_value().map(|(o, s)| (*o, *s))
            && offset + have == self.end
        {
            self.remove(offset, have);
            self.end = offset + size;
            return offset;
        }
        let offset = self.end;
        self.end += size;
        offset
    }

    fn free(&mut self, mut offset: u64, mut size: u64) {
        if let Some((before, have)) = self.by_offset.range(..offset).next_back().map(|(o, s)| (*o, *s))
            && before + have == offset
        {
            self.remove(before, have);
            (offset, size) = (before, have + size);
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

fn barriers(schedule: &Schedule) -> Vec<bool> {
    // By storage: what was written and what was touched since the last barrier.
    let mut since: HashMap<usize, (Ranges, Ranges)> = HashMap::new();
    let mut barriers = Vec::with_capacity(schedule.dispatches.len());
    for dispatch in &schedule.dispatches {
        let used = || {
            dispatch
                .bindings
                .iter()
                .zip(dispatch.kernel.writes)
                .map(|(b, writes)| (b.storage, b.offset, b.offset + b.bytes, *writes))
        };
        let meets = used().any(|(storage, start, end, writes)| {
            since.get(&storage).is_some_and(|(written, touched)| {
                written.overlap(start, end) || (writes && touched.overlap(start, end))
            })
        });
        if meets {
            since.clear();
        }
        barriers.push(meets);
        for (storage, start, end, writes) in used() {
            let (written, touched) = since.entry(storage).or_default();
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
    use crate::schedule::{Binding, Dispatch, Output, Storage};

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
            outputs: vec![Output {
                binding: binding(count),
                sizes: vec![250],
                state: None,
            }],
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
        let lives = lives(&schedule, &placement.barriers);
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
