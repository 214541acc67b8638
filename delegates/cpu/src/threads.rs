//! The host's threads, as kernels see them.

use delegraph_cpu_kernels::Pool;
use delegraph_sdk::Context;
use delegraph_types::{Parallel, ParallelFor};
use std::cell::Cell;

/// The threads of a call.
pub struct Threads<'a> {
    context: &'a Context<'a>,
    threads: usize,
}

impl<'a> Threads<'a> {
    /// Those that the host lends to the call.
    pub fn new(context: &'a Context<'a>) -> Threads<'a> {
        Threads {
            context,
            threads: context.threads(),
        }
    }
}

impl Pool for Threads<'_> {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        match parts {
            0 => {}
            1 => body(0),
            _ if self.threads == 1 => (0..parts).for_each(body),
            _ => self.context.parallel_for(parts, body),
        }
    }
}

/// So many threads, asked for scratch and never run on: what is given is done by the calling one.
pub struct Count(pub usize);

impl Pool for Count {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(body);
    }
}

thread_local! {
    /// The pool of the call that runs on this thread, for portable kernels, which ask for one that lives for ever.
    static LENT: Cell<Option<&'static dyn Pool>> = const { Cell::new(None) };
}

/// A pool that passes on what it is given to the one of the running call.
struct Running;

static RUNNING: Running = Running;

impl ParallelFor for Running {
    fn threads(&self) -> usize {
        LENT.with(Cell::get).map_or(1, Pool::threads)
    }

    fn run(&self, _threads: usize, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        match LENT.with(Cell::get) {
            Some(pool) => pool.run(parts, body),
            None => (0..parts).for_each(body),
        }
    }
}

/// Puts back what was lent before, also when the body panics.
struct Back(Option<&'static dyn Pool>);

impl Drop for Back {
    fn drop(&mut self) {
        LENT.with(|lent| lent.set(self.0));
    }
}

/// Calls `body` with a pool for portable kernels, which is `pool` for as long as it runs on this thread.
pub fn lend<R>(pool: &dyn Pool, body: impl FnOnce(Parallel) -> R) -> R {
    // SAFETY: the reference is forgotten before `pool` ends: `Back` puts the former one back when `body` returns or panics, and other threads
    // do not see this thread's.
    let lasting: &'static dyn Pool = unsafe { std::mem::transmute::<&dyn Pool, &'static dyn Pool>(pool) };
    let _back = Back(LENT.with(|lent| lent.replace(Some(lasting))));
    body(Parallel::new(&RUNNING, pool.threads()))
}
