//! Memory planning: gives every tensor an offset in an arena, so that tensors that live at the same time never overlap.
//!
//! Knows sizes and lifetimes only, no graph. Small plans are placed greedily by size, which is close to the lower bound in
//! practice; large ones by a sweep over time with a free list, so that the cost stays `n log n`.
//!
//! ```
//! use delegraph_plan::{Request, plan};
//!
//! let request = |bytes, first, last| Request { bytes, first, last };
//! let plan = plan(&[request(100, 0, 1), request(50, 1, 2), request(100, 2, 3)]);
//! assert_eq!(plan.offsets[0], plan.offsets[2], "their lifetimes do not meet");
//! assert_eq!(plan.bytes, 112 + 64);
//! ```

use std::collections::BTreeMap;

/// Every offset is a multiple of this many bytes (ExecuTorch's own planner uses 16 too).
pub const ALIGNMENT: u64 = 16;

/// Up to this many tensors are placed greedily by size (quadratic); more are placed by the sweep.
const GREEDY_LIMIT: usize = 2_048;

/// A tensor's need of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its size.
    pub bytes: u64,
    /// First step at which it is alive.
    pub first: u32,
    /// Last step at which it is alive, included.
    pub last: u32,
}

impl Request {
    fn overlaps(&self, other: &Request) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Bytes taken in the arena: an empty tensor takes none.
    fn padded(&self) -> u64 {
        self.bytes.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
    }
}

/// Where everything goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One a request, in bytes.
    pub offsets: Vec<u64>,
    /// Size of the arena.
    pub bytes: u64,
}

/// Plans one arena.
pub fn plan(requests: &[Request]) -> Plan {
    if requests.len() <= GREEDY_LIMIT {
        greedy_by_size(requests)
    } else {
        sweep(requests)
    }
}

/// Largest first; each goes to the lowest gap among those already placed that live at the same time.
fn greedy_by_size(requests: &[Request]) -> Plan {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].bytes), requests[i].first, i));
    let mut offsets = vec![0u64; requests.len()];
    // Sorted by offset.
    let mut placed: Vec<usize> = Vec::new();
    let mut bytes = 0;
    for i in order {
        let need = requests[i].padded();
        let mut at = 0u64;
        for &j in placed.iter().filter(|&&j| requests[j].overlaps(&requests[i])) {
            if offsets[j] >= at.saturating_add(need) {
                break;
            }
            at = at.max(offsets[j] + requests[j].padded());
        }
        offsets[i] = at;
        bytes = bytes.max(at.saturating_add(need));
        let position = placed.partition_point(|&j| offsets[j] <= at);
        placed.insert(position, i);
    }
    Plan { offsets, bytes }
}

/// In order of first use, best fit in a free list that coalesces.
fn sweep(requests: &[Request]) -> Plan {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (requests[i].first, std::cmp::Reverse(requests[i].bytes), i));
    let mut offsets = vec![0u64; requests.len()];
    let mut free: FreeList = FreeList::default();
    // (last, index) of those alive.
    let mut alive: std::collections::BTreeSet<(u32, usize)> = std::collections::BTreeSet::new();
    let mut bytes = 0u64;
    for i in order {
        while let Some(&(last, j)) = alive.first() {
            if last >= requests[i].first {
                break;
            }
            alive.pop_first();
            free.give(offsets[j], requests[j].padded());
        }
        let need = requests[i].padded();
        offsets[i] = free.take(need).unwrap_or_else(|| {
            // Extend the hole at the end of the arena, if there is one, else append.
            let start = free.take_tail(bytes).unwrap_or(bytes);
            bytes = start.saturating_add(need);
            start
        });
        if need > 0 {
            alive.insert((requests[i].last, i));
        }
    }
    Plan { offsets, bytes }
}

/// Free ranges, by offset and by size.
#[derive(Default)]
struct FreeList {
    by_offset: BTreeMap<u64, u64>,
    by_size: std::collections::BTreeSet<(u64, u64)>,
}

impl FreeList {
    fn insert(&mut self, offset: u64, size: u64) {
        self.by_offset.insert(offset, size);
        self.by_size.insert((size, offset));
    }

    fn remove(&mut self, offset: u64, size: u64) {
        self.by_offset.remove(&offset);
        self.by_size.remove(&(size, offset));
    }

    fn take(&mut self, need: u64) -> Option<u64> {
        if need == 0 {
            return Some(0);
        }
        let &(size, offset) = self.by_size.range((need, 0)..).next()?;
        self.remove(offset, size);
        if size > need {
            self.insert(offset + need, size - need);
        }
        Some(offset)
    }

    /// Removes the range that ends at `end` and gives its start.
    fn take_tail(&mut self, end: u64) -> Option<u64> {
        let (&offset, &size) = self.by_offset.last_key_value()?;
        (offset + size == end).then(|| {
            self.remove(offset, size);
            offset
        })
    }

    fn give(&mut self, mut offset: u64, mut size: u64) {
        if let Some((&before, &length)) = self.by_offset.range(..offset).next_back()
            && before + length == offset
        {
            self.remove(before, length);
            offset = before;
            size += length;
        }
        if let Some(&length) = self.by_offset.get(&(offset + size)) {
            self.remove(offset + size, length);
            size += length;
        }
        self.insert(offset, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain linear congruential generator: the same requests on every machine.
    fn requests(count: usize, seed: u64) -> Vec<Request> {
        let mut state = seed;
        let mut next = |limit: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % limit
        };
        (0..count)
            .map(|_| {
                let first = next(count as u64) as u32;
                Request {
                    bytes: next(5_000),
                    first,
                    last: first + next(20) as u32,
                }
            })
            .collect()
    }

    fn check(requests: &[Request], plan: &Plan) {
        for (i, a) in requests.iter().enumerate() {
            assert_eq!(plan.offsets[i] % ALIGNMENT, 0);
            assert!(plan.offsets[i] + a.bytes <= plan.bytes);
            for (j, b) in requests.iter().enumerate().skip(i + 1) {
                let apart =
                    plan.offsets[i] + a.bytes <= plan.offsets[j] || plan.offsets[j] + b.bytes <= plan.offsets[i];
                assert!(apart || !a.overlaps(b) || a.bytes == 0 || b.bytes == 0, "{i} {j}");
            }
        }
    }

    #[test]
    fn no_two_live_tensors_overlap_in_either_planner() {
        for seed in 0..20 {
            let requests = requests(200, seed);
            check(&requests, &greedy_by_size(&requests));
            check(&requests, &sweep(&requests));
        }
    }

    #[test]
    fn greedy_is_near_the_lower_bound_on_a_chain() {
        let chain: Vec<Request> = (0..50)
            .map(|i| Request {
                bytes: 160,
                first: i,
                last: i + 1,
            })
            .collect();
        assert_eq!(greedy_by_size(&chain).bytes, 320);
        assert_eq!(sweep(&chain).bytes, 320);
    }

    #[test]
    fn large_plans_stay_fast_enough_to_run_here() {
        let requests = requests(20_000, 7);
        let plan = plan(&requests);
        assert_eq!(plan.offsets.len(), requests.len());
    }
}
