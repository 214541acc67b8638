//! Workers, and when they sleep.

use crate::sys::Stage;
use delegraph_types::ParallelFor;
use std::cell::Cell;
use std::fmt;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Threads of a pool at most.
pub(crate) const MOST: usize = 64;
/// How long a worker waits for the next piece of work before it sleeps: longer than what lies between two operators of a model,
/// and so short that nobody notices when a model is done.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks at the stage between two looks at the clock.
const LOOKS: u32 = 64;

/// The pool of this process. Workers are made when they are first needed, and live as long as the process.
pub fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(default_threads()))
}

/// Threads that the machine and the system's limits (affinity, control groups) let this process run at once.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Threads that share one piece of work at a time. A second piece that comes while the first is under way, or from within it, is
/// done by the thread that brings it: nobody waits for somebody else's work.
pub struct Pool {
    threads: usize,
    shared: Arc<Shared>,
}

struct Shared {
    stage: Stage,
    sharing: Mutex<Sharing>,
    sleeping: [AtomicBool; MOST],
}

/// What the thread that shares work holds.
struct Sharing {
    workers: Vec<Thread>,
    /// Of the last piece of work.
    number: usize,
}

thread_local! {
    /// This thread is in a part of some piece of work.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// This thread is busy as long as this lives.
struct Busy;

impl Busy {
    /// `None`: it is busy already.
    fn begin() -> Option<Busy> {
        (!BUSY.replace(true)).then_some(Busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.set(false);
    }
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Pool {
        Pool {
            threads: threads.clamp(1, MOST),
            shared: Arc::new(Shared {
                stage: Stage::new(),
                sharing: Mutex::new(Sharing {
                    workers: Vec::new(),
                    number: 0,
                }),
                sleeping: [const { AtomicBool::new(false) }; MOST],
            }),
        }
    }
}

impl Shared {
    fn try_share(&self) -> Option<MutexGuard<'_, Sharing>> {
        match self.sharing.try_lock() {
            Ok(sharing) => Some(sharing),
            // A part of an earlier piece of work panicked; the stage was closed before that was passed on.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Makes workers until there are `wanted`, or as many as the system gives.
    fn grow(self: &Arc<Self>, workers: &mut Vec<Thread>, wanted: usize) {
        while workers.len() < wanted {
            let number = workers.len();
            let shared = self.clone();
            let made = std::thread::Builder::new()
                .name(format!("delegraph-{number}"))
                .spawn(move || shared.work(number));
            match made {
                Ok(handle) => workers.push(handle.thread().clone()),
                Err(_) => return,
            }
        }
    }

    /// The life of a worker.
    fn work(&self, worker: usize) {
        let _busy = Busy::begin();
        let (mut done, mut since, mut looks) = (0, Instant::now(), 0u32);
        loop {
            let present = self.stage.present();
            if present != 0 && present != done {
                done = self.stage.help(worker);
                (since, looks) = (Instant::now(), 0);
                continue;
            }
            std::hint::spin_loop();
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS) && since.elapsed() > PATIENCE {
                self.sleep(worker, done);
                since = Instant::now();
            }
        }
    }

    fn sleep(&self, worker: usize, done: usize) {
        let sleeping = &self.sleeping[worker];
        // This is said first, and then looked once more whether there is work; `wake` comes after the work was shared. So one of
        // the two sees the other.
        sleeping.store(true, Ordering::SeqCst);
        let present = self.stage.present();
        if present != 0 && present != done {
            sleeping.store(false, Ordering::SeqCst);
            return;
        }
        while sleeping.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    fn wake(&self, workers: &[Thread]) {
        for (worker, sleeping) in workers.iter().zip(&self.sleeping) {
            if sleeping.load(Ordering::SeqCst) && sleeping.swap(false, Ordering::SeqCst) {
                worker.unpark();
            }
        }
    }
}

impl ParallelFor for Pool {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, threads: usize, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        let helpers = threads.min(self.threads).min(parts).saturating_sub(1);
        let alone = || (0..parts).for_each(body);
        if helpers == 0 {
            return alone();
        }
        // Nobody else may share work then: a thread that is busy is in the way of itself.
        let Some(_busy) = Busy::begin() else {
            return alone();
        };
        let shared = &self.shared;
        let Some(mut sharing) = shared.try_share() else {
            return alone();
        };
        shared.grow(&mut sharing.workers, helpers);
        sharing.number = sharing.number.wrapping_add(1).max(1);
        let Sharing { workers, number } = &*sharing;
        let wake = || shared.wake(&workers[..helpers.min(workers.len())]);
        // SAFETY: the lock is held until the call has returned, and the numbers follow each other.
        unsafe { shared.stage.share(*number, parts, helpers, body, wake) };
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_types::Parallel;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    /// More threads than some machines have, so that the system interrupts parts anywhere.
    fn parallel(threads: usize) -> Parallel {
        Parallel::new(Box::leak(Box::new(Pool::new(threads))), threads)
    }

    fn counts(parallel: Parallel, parts: usize) -> Vec<usize> {
        let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
        parallel.run(parts, &|part| {
            counts[part].fetch_add(1, Ordering::Relaxed);
        });
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn each_part_is_called_once() {
        for threads in [1, 2, 5] {
            let parallel = parallel(threads);
            for round in 0..2000 {
                let parts = round % 11;
                assert_eq!(counts(parallel, parts), vec![1; parts]);
            }
        }
    }

    #[test]
    fn workers_that_sleep_are_woken() {
        let parallel = parallel(3);
        for _ in 0..5 {
            // Both workers and this thread have to come, or the barrier holds them for ever.
            let barrier = Barrier::new(3);
            parallel.run(3, &|_| {
                barrier.wait();
            });
            std::thread::sleep(PATIENCE * 4);
        }
    }

    #[test]
    fn each_thread_begins_with_its_share() {
        let parallel = parallel(2);
        let caller = std::thread::current().id();
        for _ in 0..100 {
            // Neither thread goes on before the other has come.
            let barrier = Barrier::new(2);
            parallel.run(4, &|part| {
                if part % 2 == 0 {
                    assert_eq!(std::thread::current().id() == caller, part == 0);
                    barrier.wait();
                }
            });
        }
    }

    #[test]
    fn no_more_threads_work_than_were_asked_for() {
        let pool: &'static Pool = Box::leak(Box::new(Pool::new(4)));
        assert_eq!(counts(Parallel::new(pool, 4), 9), [1; 9]);
        let two = Parallel::new(pool, 2);
        for _ in 0..500 {
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            two.run(8, &|_| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::hint::spin_loop();
                now.fetch_sub(1, Ordering::SeqCst);
            });
            assert!(most.into_inner() <= 2);
        }
    }

    #[test]
    fn work_within_work_and_work_of_several_users_is_done() {
        let parallel = parallel(4);
        let sum = Arc::new(AtomicUsize::new(0));
        let users: Vec<_> = (0..4)
            .map(|_| {
                let sum = sum.clone();
                std::thread::spawn(move || {
                    for _ in 0..200 {
                        parallel.run(4, &|_| {
                            parallel.run(3, &|part| {
                                sum.fetch_add(part + 1, Ordering::Relaxed);
                            });
                        });
                    }
                })
            })
            .collect();
        for user in users {
            user.join().unwrap();
        }
        assert_eq!(sum.load(Ordering::Relaxed), 4 * 200 * 4 * 6);
    }

    #[test]
    fn a_panic_is_passed_on_and_the_pool_goes_on() {
        let parallel = parallel(3);
        for bad in 0..6 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                parallel.run(6, &|part| {
                    if part == bad {
                        std::panic::resume_unwind(Box::new(part));
                    }
                });
            }));
            assert_eq!(outcome.unwrap_err().downcast_ref::<usize>(), Some(&bad));
            assert_eq!(counts(parallel, 7), [1; 7]);
        }
    }
}
