//! What this machine does at most: products of floats, products of bytes, bytes read from memory. Kernels are judged by it.
//!
//! | peak | how |
//! | --- | --- |
//! | floats | chains of [`Simd::fma`] in registers, in the instruction set that [`dispatch`] picks |
//! | bytes | a product of the kernels' own ([`static8::linear`] with [`Dot::best`]) that fits the second cache |
//! | memory | sums over a list that no cache holds |
//!
//! The best of many rounds counts, each some milliseconds long, from the first thread's start to the last one's end. The threads are of this
//! module: a pool that is busy with something else would do one part after the other, and the rates of all would be those of one.

use crate::quant::Dot;
use crate::quant::static8::{self, Bias, Bytes, Shape, Stage, Target, Weights};
use crate::simd::{Op, Simd, dispatch};
use crate::{Activation, Isa, Serial};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Rates a second, of all threads together. 0: could not be measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Peaks {
    /// Operations on floats of 32 bits: a multiply and an add are two.
    pub floats: f64,
    /// The same of bytes that are multiplied and summed in 32 bits.
    pub bytes: f64,
    /// Bytes read from memory.
    pub memory: f64,
}

/// How long a round is at least.
const ROUND: Duration = Duration::from_millis(5);
/// Floats that no cache holds: 256 MiB.
const LONG: usize = 64 << 20;

/// Measures them on so many threads, each for about so long.
pub fn measure(threads: usize, each: Duration) -> Peaks {
    let threads = threads.max(1);
    Peaks {
        floats: floats(threads, each),
        bytes: bytes(threads, each),
        memory: memory(threads, each),
    }
}

fn floats(threads: usize, each: Duration) -> f64 {
    rate(threads, each, &|_, times| {
        let steps = times * 4096;
        black_box(dispatch(
            Isa::best(),
            Chains {
                steps: black_box(steps),
            },
        )) as f64
    })
}

/// Sums that do not wait for each other: more than what an addition's latency times the units of any machine asks for, and few enough for
/// the registers of all.
const CHAINS: usize = 12;

/// Gives how many operations it did.
struct Chains {
    steps: usize,
}

impl Op for Chains {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        // Sums go towards 2, and are no constants to a compiler.
        let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(1.0)));
        let mut sums = [s.splat(black_box(0.0)); CHAINS];
        for _ in 0..self.steps {
            for sum in &mut sums {
                *sum = s.fma(*sum, a, b);
            }
        }
        let mut all = 0.0;
        for sum in sums {
            all += s.sum(sum);
        }
        black_box(all);
        2 * self.steps * CHAINS * S::LANES
    }
}

fn bytes(threads: usize, each: Duration) -> f64 {
    // Multiples of every tile's rows and columns.
    const ROWS: usize = 96;
    let shape = Shape {
        inputs: 512,
        outputs: 256,
    };
    let number = |i: usize| (i * 37 % 251) as u8 as i8;
    let weights: Vec<i8> = (0..shape.inputs * shape.outputs).map(number).collect();
    let mut packed = Vec::new();
    static8::pack(shape, &weights, &mut packed);
    let x: Vec<i8> = (0..ROWS * shape.inputs).map(number).collect();
    let multiplier = vec![1.0; shape.outputs];
    rate(threads, each, &|_, times| {
        let Some(weights) = Weights::new(shape, &packed) else {
            return 0.0;
        };
        let stage = Stage {
            multiplier: &multiplier,
            bias: Bias::None,
            activation: Activation::None,
        };
        let mut scratch = vec![0.0; static8::linear_scratch_len(shape.inputs, &Serial)];
        let mut out = vec![0.0; ROWS * shape.outputs];
        for _ in 0..times {
            let mut target = Target::F32(&mut out);
            let x = Bytes::I8(black_box(&x), 3);
            static8::linear(
                Dot::best(),
                &Serial,
                x,
                ROWS,
                weights,
                &stage,
                &mut scratch,
                &mut target,
            );
        }
        black_box(&out);
        (2 * times * ROWS * shape.inputs * shape.outputs) as f64
    })
}

fn memory(threads: usize, each: Duration) -> f64 {
    let mut list: Vec<f32> = Vec::new();
    if list.try_reserve_exact(LONG).is_err() {
        return 0.0;
    }
    // Written, so that there is memory behind every page.
    list.resize(LONG, 1.0);
    let part = LONG / threads;
    rate(threads, each, &|thread, times| {
        let mine = &list[thread * part..(thread + 1) * part];
        for _ in 0..times {
            black_box(dispatch(Isa::best(), Sum(black_box(mine))));
        }
        (times * size_of_val(mine)) as f64
    })
}

struct Sum<'a>(&'a [f32]);

impl Op for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 8];
        let mut chunks = self.0.chunks_exact(8 * S::LANES);
        for chunk in &mut chunks {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a chunk has eight vectors.
                *sum = s.add(*sum, unsafe { s.load(chunk.as_ptr().add(i * S::LANES)) });
            }
        }
        let mut all = chunks.remainder().iter().sum();
        for sum in sums {
            all += s.sum(sum);
        }
        all
    }
}

/// The best rate of rounds in which every thread does `work(thread, times)`, which gives how much it did.
fn rate(threads: usize, each: Duration, work: &(dyn Fn(usize, usize) -> f64 + Sync)) -> f64 {
    let mut times = 1;
    let mut took = ROUND;
    while times < 1 << 40 {
        let started = Instant::now();
        work(0, times);
        took = started.elapsed();
        if took >= ROUND {
            break;
        }
        times *= 2;
    }
    let rounds = (each.as_secs_f64() / took.as_secs_f64()).clamp(3.0, 1000.0) as usize;
    let barrier = Barrier::new(threads);
    let run = |thread: usize| -> Vec<(Instant, Instant, f64)> {
        let round = |_| {
            barrier.wait();
            let started = Instant::now();
            let done = work(thread, times);
            (started, Instant::now(), done)
        };
        (0..rounds).map(round).collect()
    };
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        all.push(run(0));
        all.extend(others.into_iter().filter_map(|other| other.join().ok()));
    });
    let of_round = |at: usize| {
        let first = all.iter().map(|rounds| rounds[at].0).min()?;
        let last = all.iter().map(|rounds| rounds[at].1).max()?;
        let done: f64 = all.iter().map(|rounds| rounds[at].2).sum();
        Some(done / last.duration_since(first).as_secs_f64().max(1e-9))
    };
    (0..rounds).filter_map(of_round).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_lanes() {
        for isa in Isa::all() {
            struct Lanes;
            impl Op for Lanes {
                type Output = usize;

                #[inline(always)]
                fn run<S: Simd>(self, _: S) -> usize {
                    S::LANES
                }
            }
            assert_eq!(
                dispatch(isa, Chains { steps: 10 }),
                2 * 10 * 12 * dispatch(isa, Lanes),
                "{isa}"
            );
        }
    }

    #[test]
    fn every_number_of_a_list_is_summed() {
        let list: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        for isa in Isa::all() {
            for n in [0, 1, 127, 128, 129, 1000] {
                assert_eq!(
                    dispatch(isa, Sum(&list[..n])),
                    (n * n.saturating_sub(1) / 2) as f32,
                    "{isa}"
                );
            }
        }
    }

    #[test]
    fn a_rate_is_of_all_threads() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (calls, wait) = (AtomicUsize::new(0), Duration::from_millis(20));
        let have = rate(3, Duration::ZERO, &|_, times| {
            calls.fetch_add(1, SeqCst);
            std::thread::sleep(wait);
            times as f64
        });
        assert_eq!(
            calls.into_inner(),
            1 + 3 * 3,
            "one to see how long it takes, then three rounds"
        );
        // Sleeping threads sleep at once, and no less than they were told.
        assert!(have > 0.0 && have <= 3.0 / wait.as_secs_f64(), "{have}");
    }
}
