//! Where the results of steps lie in the one piece of memory that they share.

use crate::sys::ALIGN;

/// Bytes that are needed from one step to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How many.
    pub bytes: usize,
    /// The step that first writes there.
    pub first: usize,
    /// The last step that reads or writes there.
    pub last: usize,
}

/// The first byte of each span, a multiple of [`ALIGN`], and how many bytes there are in all. Spans that are needed at the same step share no
/// byte. The largest are placed first, each in the smallest gap that those leave which are needed at the same time: what a step needs for
/// itself mostly fits where others have nothing yet, or nothing any more.
pub fn place(spans: &[Span]) -> (Vec<usize>, usize) {
    let room = |span: &Span| span.bytes.max(1).next_multiple_of(ALIGN);
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(spans[*at].bytes), spans[*at].first));
    let mut starts: Vec<usize> = vec![0; spans.len()];
    let mut end: usize = 0;
    // Those that have a place, by their first byte.
    let mut placed: Vec<usize> = Vec::with_capacity(spans.len());
    for at in order {
        let (span, wanted) = (&spans[at], room(&spans[at]));
        let mut best: Option<(usize, usize)> = None;
        let mut reach: usize = 0;
        for (other, start) in placed.iter().map(|other| (&spans[*other], starts[*other])) {
            if other.last < span.first || span.last < other.first {
                continue;
            }
            if let Some(gap) = start.checked_sub(reach)
                && gap >= wanted
                && best.is_none_or(|(_, least)| gap < least)
            {
                best = Some((reach, gap));
            }
            reach = reach.max(start.saturating_add(room(other)));
        }
        let start = best.map_or(reach, |(start, _)| start);
        starts[at] = start;
        end = end.max(start.saturating_add(wanted));
        let behind = placed.partition_point(|other| starts[*other] <= start);
        placed.insert(behind, at);
    }
    (starts, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(all: &[(usize, usize, usize)]) -> Vec<Span> {
        all.iter()
            .map(|&(bytes, first, last)| Span { bytes, first, last })
            .collect()
    }

    #[test]
    fn a_chain_takes_what_two_neighbours_take() {
        // A chain of results, each read by the next step alone, with scratch in the first: 48 and 12 lines of 64 bytes are the most at once.
        let chain = spans(&[
            (64 * 16, 0, 1),
            (64 * 16, 1, 2),
            (64 * 8, 2, 3),
            (64 * 48, 3, 4),
            (64 * 12, 4, 5),
            (64 * 6, 0, 0),
        ]);
        assert_eq!(place(&chain).1, 64 * 60);
    }

    #[test]
    fn what_is_needed_at_once_lies_apart() {
        // Made-up lifetimes of all kinds, some to the end, some of no bytes.
        let mut seed = 7u64;
        let mut number = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        for _ in 0..50 {
            let all: Vec<Span> = (0..60)
                .map(|_| {
                    let first = number(40) as usize;
                    let last = match number(8) {
                        0 => usize::MAX,
                        more => first + more as usize - 1,
                    };
                    let bytes = number(1000) as usize * number(2) as usize;
                    Span { bytes, first, last }
                })
                .collect();
            let (starts, end) = place(&all);
            for (a, one) in all.iter().enumerate() {
                assert!(starts[a].is_multiple_of(ALIGN) && starts[a] + one.bytes <= end);
                for (b, other) in all.iter().enumerate().take(a) {
                    let together = one.first <= other.last && other.first <= one.last;
                    let apart = starts[a] + one.bytes <= starts[b] || starts[b] + other.bytes <= starts[a];
                    assert!(apart || !together, "{one:?} and {other:?}");
                }
            }
        }
    }
}
