//! Dividing work among threads, without knowing what threads are.

use core::fmt;

/// Calls the parts of a piece of work, on several threads where there are some.
///
/// There is one for a process (`delegraph-threads`); everything that divides work uses that one, delegates too, so that no two
/// pools ever compete for the cores. A machine without threads has [`Serial`].
pub trait ParallelFor: Sync {
    /// Threads that could work at once, the calling one included. At least 1.
    fn threads(&self) -> usize;

    /// Calls `body` once for each index below `parts`, in any order and at most on `threads` threads at once, the calling one
    /// included, and returns when all calls have returned. A call within a call is done on its own thread.
    fn run(&self, threads: usize, parts: usize, body: &(dyn Fn(usize) + Sync));
}

/// One thread: the parts one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl ParallelFor for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, _threads: usize, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(body);
    }
}

/// Leave to use some of a process's threads. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Parallel {
    pool: &'static dyn ParallelFor,
    threads: usize,
}

impl Parallel {
    /// The calling thread alone.
    pub const SERIAL: Parallel = Parallel {
        pool: &Serial,
        threads: 1,
    };

    /// At most `threads` threads of `pool`; 0 counts as 1.
    pub fn new(pool: &'static dyn ParallelFor, threads: usize) -> Parallel {
        Parallel {
            pool,
            threads: threads.clamp(1, pool.threads().max(1)),
        }
    }

    /// Threads that may work at once, the calling one included.
    pub fn threads(self) -> usize {
        self.threads
    }

    /// See [`ParallelFor::run`].
    pub fn run(self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        if self.threads == 1 || parts <= 1 {
            (0..parts).for_each(body);
        } else {
            self.pool.run(self.threads, parts, body);
        }
    }
}

impl Default for Parallel {
    fn default() -> Parallel {
        Parallel::SERIAL
    }
}

impl fmt::Debug for Parallel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parallel").field("threads", &self.threads).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};

    struct Many;

    impl ParallelFor for Many {
        fn threads(&self) -> usize {
            3
        }

        fn run(&self, threads: usize, parts: usize, body: &(dyn Fn(usize) + Sync)) {
            assert!(threads == 3 && parts > 1);
            (0..parts).rev().for_each(body);
        }
    }

    #[test]
    fn every_part_is_called_and_no_more_threads_are_asked_for_than_there_are() {
        for parallel in [Parallel::SERIAL, Parallel::new(&Many, 0), Parallel::new(&Many, 9)] {
            for parts in 0..5 {
                let called = AtomicUsize::new(0);
                parallel.run(parts, &|part| {
                    called.fetch_add(1 << (8 * part), Ordering::Relaxed);
                });
                let all = (0..parts).map(|part| 1 << (8 * part)).sum();
                assert_eq!(called.into_inner(), all);
            }
        }
        assert_eq!(Parallel::new(&Many, 9).threads(), 3);
        assert_eq!(Parallel::new(&Many, 2).threads(), 2);
    }
}
