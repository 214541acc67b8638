//! Memory planning: gives every tensor an offset in an arena, so that tensors that live at the same time never overlap.
//!
//! Knows sizes and lifetimes only, no graph. Small plans are placed greedily by size, which is close to the lower bound in
//! practice; large ones by a sweep over time with a free list, so that the cost stays `n log n`.
//!
//! ```
//! use delegraph_plan::{Request, plan};
//!
//! let request = |bytes, first, last| Request { bytes, first, last, alignment: 16 };
//! let plan = plan(&[request(100, 0, 1), request(50, 1, 2), request(100, 2, 3)]);
//! assert_eq!(plan.offsets[0], plan.offsets[2], "their lifetimes do not meet");
//! assert_eq!(plan.bytes, 112 + 64);
//! ```

use std::collections::BTreeMap;

/// Every offset is a multiple of this many bytes (ExecuTorch's own planner uses 16 too), or of more where a request asks for it.
pub const ALIGNMENT: u64 = 16;

/// Up to this many tensors are placed greedily by size (quadratic); more are placed by the sweep.
const GREEDY_LIMIT: usize = 2_048;

/// Free ranges that the sweep tries for one tensor before it takes one that is large enough in any case.
const TRIED: usize = 16;

/// A tensor's need of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its size.
    pub bytes: u64,
    /// First step at which it is alive.
    pub first: u32,
    /// Last step at which it is alive, included.
    pub last: u32,
    /// Its offset is a multiple of this, in bytes: a power of two. What is less than [`ALIGNMENT`] is that.
    pub alignment: u64,
}

impl Request {
    fn overlaps(&self, other: &Request) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Bytes taken in the arena: an empty tensor takes none.
    fn padded(&self) -> u64 {
        self.bytes.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
    }

    /// The first offset from `at` on where it may lie. An empty tensor lies anywhere.
    fn aligned(&self, at: u64) -> u64 {
        let alignment = self.alignment.max(ALIGNMENT);
        at.div_ceil(alignment).saturating_mul(alignment)
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
            at = requests[i].aligned(at.max(offsets[j] + requests[j].padded()));
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
        offsets[i] = free.take(&requests[i]).unwrap_or_else(|| {
            // Extend the hole at the end of the arena, if there is one, else append.
            let hole = free.take_tail(bytes).unwrap_or(bytes);
            let start = requests[i].aligned(hole);
            if start > hole {
                free.give(hole, start - hole);
            }
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

    /// The smallest range that holds the request for certain, or the smallest that holds it as it happens to lie.
    fn take(&mut self, request: &Request) -> Option<u64> {
        let need = request.padded();
        if need == 0 {
            return Some(0);
        }
        let fits = |&&(size, offset): &&(u64, u64)| request.aligned(offset) - offset + need <= size;
        // Few ranges are tried, so that the cost stays that of a look-up; one so much larger fits wherever it lies.
        let certain = need.saturating_add(request.alignment.max(ALIGNMENT) - ALIGNMENT);
        let near = self.by_size.range((need, 0)..).take(TRIED).find(fits);
        let &(size, offset) = near.or_else(|| self.by_size.range((certain, 0)..).next())?;
        let start = request.aligned(offset);
        let end = start + need;
        self.remove(offset, size);
        if start > offset {
            self.insert(offset, start - offset);
        }
        if offset + size > end {
            self.insert(end, offset + size - end);
        }
        Some(start)
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

    /// A plain linear congruential generator: the same requests on every machine. A third ask for more than the usual alignment.
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
                    alignment: match next(3) {
                        0 => 1 << next(13),
                        _ => 0,
                    },
                }
            })
            .collect()
    }

    fn check(requests: &[Request], plan: &Plan) {
        for (i, a) in requests.iter().enumerate() {
            assert_eq!(plan.offsets[i] % ALIGNMENT, 0);
            assert_eq!(plan.offsets[i] % a.alignment.max(1), 0, "{i} asks for {}", a.alignment);
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
                alignment: 0,
            })
            .collect();
        assert_eq!(greedy_by_size(&chain).bytes, 320);
        assert_eq!(sweep(&chain).bytes, 320);
    }

    #[test]
    fn alignment_costs_at_most_what_a_naive_planner_pays_for_it() {
        for seed in 0..20 {
            let requests = requests(200, seed);
            // One after another, nothing shared: every tensor pays its size and the gap before it.
            let naive = requests.iter().fold(0, |end, r| r.aligned(end) + r.padded());
            for plan in [greedy_by_size(&requests), sweep(&requests)] {
                assert!(plan.bytes <= naive, "{} of {naive}", plan.bytes);
            }
            // Requests that ask for nothing more lie as they would without the field.
            let plain: Vec<Request> = requests.iter().map(|r| Request { alignment: 0, ..*r }).collect();
            let usual: Vec<Request> = requests.iter().map(|r| Request { alignment: 16, ..*r }).collect();
            assert_eq!(greedy_by_size(&plain), greedy_by_size(&usual));
            assert_eq!(sweep(&plain), sweep(&usual));
        }
    }

    #[test]
    fn a_gap_before_an_aligned_tensor_serves_others() {
        let request = |bytes, first, last, alignment| Request {
            bytes,
            first,
            last,
            alignment,
        };
        let requests = [request(16, 0, 9, 0), request(64, 1, 9, 4096), request(4000, 2, 9, 0)];
        for plan in [greedy_by_size(&requests), sweep(&requests)] {
            check(&requests, &plan);
            assert_eq!(plan.bytes, 4096 + 64, "{:?}", plan.offsets);
        }
    }

    #[test]
    fn large_plans_stay_fast_enough_to_run_here() {
        let requests = requests(20_000, 7);
        let plan = plan(&requests);
        assert_eq!(plan.offsets.len(), requests.len());
    }
}
