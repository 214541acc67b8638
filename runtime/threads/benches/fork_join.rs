//! What a fork and join cost, on two threads and on all. `cargo bench -p delegraph-threads`
//!
//! *empty*: parts that do nothing, which the caller may well have done before anybody comes. *met*: each thread takes a part and
//! waits for the others, so that all have to come; on a machine that is busy otherwise this shows how long threads wait for a core.
//! Back to back and 20 us apart workers spin; 1 ms apart they sleep.

use delegraph_types::Parallel;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Median, and the worst of nine in ten, in microseconds.
fn time(parallel: Parallel, pause: u64, rounds: usize, body: impl Fn(usize) + Sync, before: impl Fn()) -> (f64, f64) {
    let mut took: Vec<f64> = (0..rounds)
        .map(|_| {
            let until = Instant::now() + Duration::from_micros(pause);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            before();
            let start = Instant::now();
            parallel.run(parallel.threads(), &body);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], took[took.len() * 9 / 10])
}

fn main() {
    let all = delegraph_threads::default_threads();
    println!("microseconds: median, 90 %");
    let mut counts = vec![2, all];
    counts.dedup();
    for threads in counts {
        let parallel = Parallel::new(delegraph_threads::pool(), threads);
        let arrived = AtomicUsize::new(0);
        for (pause, rounds) in [(0, 20_000), (20, 5_000), (1_000, 500)] {
            let empty = time(
                parallel,
                pause,
                rounds,
                |part| {
                    black_box(part);
                },
                || {},
            );
            let meet = |_| {
                arrived.fetch_add(1, Ordering::AcqRel);
                while arrived.load(Ordering::Acquire) < threads {
                    std::hint::spin_loop();
                }
            };
            let met = time(parallel, pause, rounds, meet, || arrived.store(0, Ordering::Release));
            println!(
                "{threads} threads, {pause} us apart: empty {:.2}, {:.2}; met {:.2}, {:.2}",
                empty.0, empty.1, met.0, met.1
            );
        }
    }
}
