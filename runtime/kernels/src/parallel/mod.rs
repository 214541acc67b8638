//! Work divided among threads: each gets parts of the output, and memory of its own.
//!
//! How work is divided never changes a result: parts do not share sums. An engine that does divide a sum (`accumulate.rs`) cuts it at
//! places that depend on sizes alone.

mod sys;

use crate::KernelError;
use delegraph_types::Parallel;
use sys::Slot;

/// Parts that are handed out at a time. More wait for the next round.
const MOST: usize = 64;
/// Parts for each thread, so that one that is interrupted leaves some to the others.
const EACH: usize = 4;
/// Units of work, of about a nanosecond, that are worth another thread.
const GRAIN: usize = 1 << 14;

/// Calls `body` with each part, on the threads that there are. An error ends it; of several, the first part's is given.
///
/// # Errors
/// What `body` gives.
pub(crate) fn each<P: Send>(
    parallel: Parallel,
    parts: impl ExactSizeIterator<Item = P>,
    body: impl Fn(P) -> Result<(), KernelError> + Sync,
) -> Result<(), KernelError> {
    let mut parts = parts;
    if parallel.threads() == 1 || parts.len() <= 1 {
        return parts.try_for_each(body);
    }
    while parts.len() > 0 {
        let count = parts.len().min(MOST);
        let slots: [Slot<P>; MOST] = core::array::from_fn(|i| Slot::new(if i < count { parts.next() } else { None }));
        sys::each(parallel, &slots[..count], &body);
        slots.into_iter().try_for_each(Slot::outcome)?;
    }
    Ok(())
}

/// How many of `count` items make a part, if each is `units` of work (of about a nanosecond): at least one, a multiple of `multiple`, and
/// all of them where dividing is not worth it.
pub(crate) fn portion(parallel: Parallel, count: usize, units: usize, multiple: usize) -> usize {
    let most = parallel.threads().saturating_mul(EACH).min(MOST);
    let parts = match parallel.threads() {
        1 => 1,
        _ => (count.saturating_mul(units) / GRAIN).clamp(1, most),
    };
    count.div_ceil(parts).max(1).next_multiple_of(multiple.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use delegraph_types::ParallelFor;

    /// Threads that are made for each piece of work, in an order that nobody knows.
    struct Scoped;

    impl ParallelFor for Scoped {
        fn threads(&self) -> usize {
            4
        }

        fn run(&self, threads: usize, parts: usize, body: &(dyn Fn(usize) + Sync)) {
            let next = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        while let part @ 0.. = next.fetch_add(1, Ordering::Relaxed)
                            && part < parts
                        {
                            body(part);
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn each_part_is_done_once_and_the_first_error_is_given() {
        let parallel = Parallel::new(&Scoped, 4);
        for count in [0, 1, 2, 63, 64, 65, 200] {
            let mut data = vec![0u32; count * 3];
            each(parallel, data.chunks_mut(3).enumerate(), |(i, chunk)| {
                chunk.iter_mut().for_each(|x| *x += i as u32 + 1);
                Ok(())
            })
            .unwrap();
            assert!(data.iter().enumerate().all(|(i, &x)| x == i as u32 / 3 + 1));
        }
        let failed = each(parallel, 0..50usize, |i| match i % 10 {
            7 => Err(KernelError::OutOfMemory(i)),
            _ => Ok(()),
        });
        assert!(matches!(failed, Err(KernelError::OutOfMemory(7))));
    }

    #[test]
    fn small_work_is_not_divided_and_portions_cover_all() {
        let parallel = Parallel::new(&Scoped, 4);
        assert_eq!(portion(parallel, 1000, 1, 512), 1024);
        assert_eq!(portion(Parallel::SERIAL, 1 << 30, 1, 1), 1 << 30);
        assert_eq!(portion(parallel, 1 << 20, 1, 512), 1 << 16);
        assert_eq!(portion(parallel, 3, 1 << 20, 1), 1);
        assert_eq!(portion(parallel, 0, 5, 1), 1);
    }
}
