//! How a program is run.

use crate::self_check::SelfCheck;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::AtomicBool;
use delegraph_kernels::Lent;
use delegraph_types::Parallel;

/// What happens when a delegate fails while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// The range runs portably, now and from now on.
    #[default]
    Quarantine,
    /// The range runs portably this time; the delegate is asked again next time.
    Retry,
    /// The run fails, naming the operators.
    Deny,
}

/// Gives arenas that devices or other processes work in, too.
pub trait Arenas: Send + Sync {
    /// Zeroed memory of at least `size` bytes; `None`: the executor allocates.
    fn arena(&self, size: usize) -> Option<Box<dyn Lent>>;
}

impl fmt::Debug for dyn Arenas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("arenas")
    }
}

/// Options of an executor.
#[derive(Debug, Clone)]
pub struct Options {
    /// What happens when a delegate fails.
    pub fallback: Fallback,
    /// Instructions that one run may execute: ends endless loops.
    pub max_steps: u64,
    /// Bytes that arenas may take at load, and each tensor whose size is only known at run time. `None`: 2 GiB and 16 times
    /// the file, so that a small hostile file cannot take all memory.
    pub memory_limit: Option<u64>,
    /// Where the random operators of each method begin: two executors of one seed draw the same numbers. 0 unless set.
    pub seed: u64,
    /// Threads that portable kernels may use: the calling one alone unless set. Their number changes no result.
    pub parallel: Parallel,
    /// Set from another thread to end a run at the next instruction.
    pub cancel: Option<Arc<AtomicBool>>,
    /// Where the arena of activations comes from; `None`: the executor allocates it. State never lies there.
    pub arenas: Option<Arc<dyn Arenas>>,
    /// Compares each region with its instructions on the first run that its delegate does; `None`: nothing is compared.
    pub self_check: Option<Arc<dyn SelfCheck>>,
    /// Copies the states that delegates keep after every run, so that a delegate that loses them costs no state: its regions go on
    /// portably. Each run then moves them once. Off: they are fetched when they are needed, and one that is lost is an error.
    pub copy_states: bool,
    /// Regions are bound before the first run: an operator without a kernel is no error of the load, since a delegate may do it
    /// ([`crate::Executor::cannot_run`] tells after [`crate::Executor::bind`]).
    pub delegates_follow: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            fallback: Fallback::default(),
            max_steps: 10_000_000,
            memory_limit: None,
            seed: 0,
            parallel: Parallel::SERIAL,
            cancel: None,
            arenas: None,
            self_check: None,
            copy_states: false,
            delegates_follow: false,
        }
    }
}

/// One executed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// First instruction.
    pub instruction: u32,
    /// One past the last instruction; more than one step for a region.
    pub end: u32,
    /// A delegate was asked, or would have been but for an earlier failure.
    pub region: bool,
    /// Operator, backend, or kind of instruction.
    pub name: &'a str,
    /// [`Trace::now`] before and after.
    pub start: u64,
    /// See `start`.
    pub stop: u64,
}

/// Sees every step of a run, with the clock to time it by.
pub trait Trace: Send {
    /// The present time, in any unit.
    fn now(&mut self) -> u64;
    /// A step ended (also one that failed).
    fn record(&mut self, event: Event<'_>);
}
