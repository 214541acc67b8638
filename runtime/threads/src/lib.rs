//! The thread pool of a process.
//!
//! Work in a model comes in pieces of microseconds, one after the other, so that a fork and join must cost less than a piece: a
//! worker that has done its part waits for the next one spinning, and sleeps only when none comes for a while. The caller works
//! too, and never waits for a thread that has not begun: on a machine that is busy with something else it does all parts itself. Each
//! thread begins with the same share of the parts every time, since it has near it what it wrote in the piece before, and then helps
//! with those of others.
//!
//! ```
//! use delegraph_types::Parallel;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! let sum = AtomicUsize::new(0);
//! let parallel = Parallel::new(delegraph_threads::pool(), 2);
//! parallel.run(100, &|part| {
//!     sum.fetch_add(part, Ordering::Relaxed);
//! });
//! assert_eq!(sum.into_inner(), 4950);
//! ```

mod pool;
mod sys;

pub use pool::{Pool, default_threads, pool};
