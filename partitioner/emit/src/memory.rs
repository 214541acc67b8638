//! Lifetimes to arenas.

use crate::values::{STATES, Values};
use delegraph_plan::{ALIGNMENT, Request, plan};
use delegraph_pte::model::{Allocation, EValue, Storage};
use std::ops::Range;

/// What is alive when a loop begins stays alive until it ends: the next iteration reads it again.
/// Inner loops come before the loops around them.
pub(crate) fn extend_over_loops(values: &mut Values, loops: &[Range<u32>]) {
    for range in loops {
        for life in values.lives.iter_mut().flatten() {
            if life.first < range.start && life.last >= range.start && life.last < range.end {
                life.last = range.end;
            }
        }
    }
}

/// Plans every arena, writes each tensor's place, and returns the arenas' sizes (index = memory id, 0 reserved).
pub(crate) fn place(values: &mut Values) -> Vec<u64> {
    let mut sizes = vec![0u64];
    let arenas = values.lives.iter().flatten().map(|life| life.arena).max().unwrap_or(1);
    for arena in 1..=arenas {
        let members: Vec<usize> = (0..values.items.len())
            .filter(|&i| values.lives[i].is_some_and(|life| life.arena == arena))
            .collect();
        let requests: Vec<Request> = members
            .iter()
            .filter_map(|&i| values.lives[i])
            .map(|life| Request {
                bytes: life.room,
                alignment: life.alignment,
                // States live for ever and never share.
                first: if arena == STATES { 0 } else { life.first },
                last: if arena == STATES { u32::MAX } else { life.last },
            })
            .collect();
        let planned = plan(&requests);
        for (&i, &offset) in members.iter().zip(&planned.offsets) {
            let allocation = Allocation {
                memory_id: arena,
                offset,
            };
            if let EValue::Tensor(tensor) = &mut values.items[i] {
                tensor.storage = match tensor.storage {
                    Storage::MutableWithState(_, segment, index) => {
                        Storage::MutableWithState(allocation, segment, index)
                    }
                    _ => Storage::Arena(allocation),
                };
            }
        }
        sizes.push(planned.bytes.div_ceil(ALIGNMENT) * ALIGNMENT);
    }
    sizes
}
