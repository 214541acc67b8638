//! Speeds of products of quantized numbers: `cargo bench -p delegraph-cpu-kernels --bench quantized [-- NAME]`.
//!
//! Each line is a case and a way to multiply: medians, beside the machine's own peak of FMA and its reading speed in the same run.

use delegraph_cpu_kernels::quant::dynamic::{Formula, RowShape, Scheme, quantize_rows};
use delegraph_cpu_kernels::quant::static8::{self, Conv};
use delegraph_cpu_kernels::quant::{Dot, q4, weight_only};
use delegraph_cpu_kernels::simd::{Op, Simd, dispatch};
use delegraph_cpu_kernels::{Epilogue, Isa, Pool, Serial};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// Threads that wait for work by spinning.
struct Spinning {
    threads: usize,
    state: std::sync::Arc<State>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    round: AtomicUsize,
    next: AtomicUsize,
    parts: AtomicUsize,
    busy: AtomicUsize,
    body: std::sync::Mutex<Option<usize>>,
    stop: AtomicBool,
}

impl Spinning {
    fn new(threads: usize) -> Spinning {
        let state = std::sync::Arc::new(State::default());
        let workers = (1..threads)
            .map(|_| {
                let state = state.clone();
                std::thread::spawn(move || {
                    let mut seen = 0;
                    while !state.stop.load(Ordering::Acquire) {
                        let round = state.round.load(Ordering::Acquire);
                        if round == seen {
                            std::thread::yield_now();
                            continue;
                        }
                        seen = round;
                        let body = state.body.lock().unwrap().unwrap();
                        // SAFETY: the one who waits in `run` keeps what is pointed at until all are done.
                        let body = unsafe { *(body as *const &(dyn Fn(usize) + Sync)) };
                        work(&state, body);
                        state.busy.fetch_sub(1, Ordering::AcqRel);
                    }
                })
            })
            .collect();
        Spinning {
            threads,
            state,
            workers,
        }
    }
}

fn work(state: &State, body: &(dyn Fn(usize) + Sync)) {
    loop {
        let part = state.next.fetch_add(1, Ordering::AcqRel);
        if part >= state.parts.load(Ordering::Acquire) {
            return;
        }
        body(part);
    }
}

impl Pool for Spinning {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        if parts <= 1 {
            return (0..parts).for_each(body);
        }
        let state = &self.state;
        *state.body.lock().unwrap() = Some(&raw const body as usize);
        state.next.store(0, Ordering::Release);
        state.parts.store(parts, Ordering::Release);
        state.busy.store(self.threads - 1, Ordering::Release);
        state.round.fetch_add(1, Ordering::AcqRel);
        work(state, body);
        while state.busy.load(Ordering::Acquire) > 0 {
            std::hint::spin_loop();
        }
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        self.workers.drain(..).for_each(|worker| worker.join().unwrap());
    }
}

/// Seconds of one call: the median and the best.
fn seconds(times: usize, mut body: impl FnMut(usize)) -> (f64, f64) {
    body(0);
    let mut all: Vec<f64> = (0..times)
        .map(|i| {
            let start = Instant::now();
            body(i);
            start.elapsed().as_secs_f64()
        })
        .collect();
    all.sort_by(f64::total_cmp);
    (all[times / 2], all[0])
}

struct Fma;

impl Op for Fma {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 10];
        let (a, b) = (s.splat(black_box(1.0)), s.splat(black_box(0.5)));
        for _ in 0..100_000 {
            for sum in &mut sums {
                *sum = s.fma(a, b, *sum);
            }
        }
        sums.into_iter().map(|x| s.sum(x)).sum()
    }
}

fn limits() {
    for isa in Isa::all() {
        let lanes = match isa {
            Isa::Avx512 => 16.0,
            Isa::Avx2 => 8.0,
            _ => 4.0,
        };
        let (median, best) = seconds(15, |_| {
            black_box(dispatch(isa, Fma));
        });
        let gflops = 2.0 * lanes * 1e6 / 1e9;
        println!(
            "peak FMA {isa}: {:.0} GFLOP/s (best {:.0})",
            gflops / median,
            gflops / best
        );
    }
    let memory = vec![1u64; 16 << 20];
    let (median, best) = seconds(7, |_| {
        let sum: u64 = memory.iter().fold(0, |sum, x| sum ^ x);
        black_box(sum);
    });
    let gigabytes = memory.len() as f64 * 8.0 / 1e9;
    println!(
        "reading, one stream: {:.1} GB/s (best {:.1})",
        gigabytes / median,
        gigabytes / best
    );
}

/// Floats that become bytes.
fn rounding() {
    let shape = RowShape {
        rows: 64,
        inputs: 2048,
        group: 32,
    };
    let x: Vec<f32> = (0..64 * 2048).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
    let mut scratch = vec![0.0; shape.scratch_len()];
    for isa in Isa::all() {
        for formula in [
            Formula::AffineAsymmetric { eps: 1e-7 },
            Formula::TokenAsymmetric { wide: true },
        ] {
            let (median, best) = seconds(21, |_| {
                black_box(quantize_rows(
                    isa,
                    &Serial,
                    Scheme::rows(formula),
                    &x,
                    shape,
                    -8,
                    &mut scratch,
                ));
            });
            let giga = x.len() as f64 / 1e9;
            println!(
                "rows {isa} {formula:?}: {:.2} G/s (best {:.2})",
                giga / median,
                giga / best
            );
        }
    }
}

fn four_bits(pools: &[&dyn Pool]) {
    // Where products bind, and not memory, fewer outputs show the same and are interrupted less.
    let cases: [(usize, usize, &[usize]); 4] = [
        (2048, 8192, &[1, 4]),
        (8192, 2048, &[1, 4]),
        (2048, 1024, &[64]),
        (8192, 256, &[64]),
    ];
    for (inputs, outputs, counts) in cases {
        let mut ways: Vec<_> = Dot::all().into_iter().map(|dot| (dot, q4::Width::best(dot))).collect();
        ways.push((Dot::of(Isa::Avx2), q4::Width::Sixteen));
        for (dot, width) in ways {
            let shape = q4::Shape {
                inputs,
                outputs,
                group: 32,
                width,
                precision: q4::Precision::F16,
                zeros: false,
            };
            // 226 MB, more than caches hold.
            let copies = 24;
            let mut state = 1u32;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            // Scales are any bytes with an exponent that is no NaN.
            let bytes: Vec<u8> = (0..shape.packed_len()).map(|_| next() & 0x3b).collect();
            let all: Vec<Vec<u8>> = vec![bytes; copies];
            for &rows in counts {
                if dot == Dot::Scalar && rows > 1 {
                    continue;
                }
                let x: Vec<f32> = (0..rows * inputs).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
                let mut scratch = vec![0.0; shape.scratch_len(rows)];
                let mut y = vec![0.0; rows * outputs];
                for pool in pools {
                    let times = if dot == Dot::Scalar { 3 } else { 2 * copies };
                    let (median, best) = seconds(times, |i| {
                        let weights = q4::Weights::new(shape, &all[i % copies]).unwrap();
                        let scheme = Scheme::rows(Formula::AffineAsymmetric { eps: f32::MIN_POSITIVE });
                        let plain = Epilogue::default();
                        q4::linear(dot, *pool, scheme, &x, rows, &weights, &plain, &mut scratch, &mut y);
                    });
                    let giga = 2.0 * (rows * inputs * outputs) as f64 / 1e9;
                    let bytes = shape.packed_len() as f64 / 1e9;
                    println!(
                        "q4 {inputs}x{outputs} m={rows} {} {width:?} threads={}: {:.1} GOP/s (best {:.1}), {:.1} GB/s (best {:.1})",
                        dot.name(),
                        pool.threads(),
                        giga / median,
                        giga / best,
                        bytes / median,
                        bytes / best
                    );
                }
            }
        }
    }
}

/// Weights of 8, 4 and 2 bits with floats.
fn floats(pools: &[&dyn Pool]) {
    let (inputs, copies) = (2048usize, 12);
    let precision = q4::Precision::F16;
    let ways = [8, 4, 2]
        .into_iter()
        .flat_map(|bits| Isa::all().into_iter().map(move |isa| (bits, isa)));
    let cases: [(usize, &[usize]); 2] = [(4096, &[1, 4]), (512, &[64])];
    for ((bits, isa), (outputs, counts)) in ways.flat_map(|way| cases.map(|case| (way, case))) {
        let width = if isa == Isa::Avx512 {
            q4::Width::Sixteen
        } else {
            q4::Width::Eight
        };
        let four = q4::Shape {
            inputs,
            outputs,
            group: 32,
            width,
            precision,
            zeros: false,
        };
        let kind = if bits == 8 {
            weight_only::Bits::Eight
        } else {
            weight_only::Bits::Two
        };
        let own = weight_only::Shape {
            inputs,
            outputs,
            group: 32,
            bits: kind,
            precision,
            zeros: false,
        };
        let len = if bits == 4 { four.packed_len() } else { own.packed_len() };
        let all: Vec<Vec<u8>> = vec![(0..len).map(|i| (i * 37 % 251) as u8 & 0x3b).collect(); copies];
        for &rows in counts {
            if isa == Isa::Scalar && rows > 1 {
                continue;
            }
            let x: Vec<f32> = (0..rows * inputs).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
            let mut y = vec![0.0; rows * outputs];
            for pool in pools {
                let mut scratch = Vec::new();
                let times = if isa == Isa::Scalar { 3 } else { 2 * copies };
                let (median, best) = seconds(times, |i| {
                    let bytes = &all[i % copies];
                    let weights = match bits {
                        4 => weight_only::Weights::Four(q4::Weights::new(four, bytes).unwrap()),
                        _ => weight_only::Weights::Values(weight_only::Values::new(own, bytes).unwrap()),
                    };
                    scratch.resize(weight_only::scratch_len(&weights, rows, *pool), 0.0);
                    let plain = Epilogue::default();
                    weight_only::linear(isa, *pool, &x, rows, &weights, &plain, &mut scratch, &mut y);
                });
                let (giga, bytes) = (2.0 * (rows * inputs * outputs) as f64 / 1e9, len as f64 / 1e9);
                println!(
                    "w{bits} floats {inputs}x{outputs} m={rows} {isa} threads={}: {:.1} GFLOP/s (best {:.1}), {:.1} GB/s (best {:.1})",
                    pool.threads(),
                    giga / median,
                    giga / best,
                    bytes / median,
                    bytes / best
                );
            }
        }
    }
}

/// Layers of MobileNetV2 on bytes: size, channels, kernel, stride, depthwise.
const LAYERS: [(usize, [usize; 2], usize, usize, bool); 9] = [
    (224, [3, 32], 3, 2, false),
    (112, [32, 32], 3, 1, true),
    (112, [16, 96], 1, 1, false),
    (112, [96, 96], 3, 2, true),
    (56, [24, 144], 1, 1, false),
    (28, [192, 32], 1, 1, false),
    (14, [384, 384], 3, 1, true),
    (14, [384, 64], 1, 1, false),
    (7, [320, 1280], 1, 1, false),
];

fn images(pools: &[&dyn Pool]) {
    for (size, channels, kernel, stride, depthwise) in LAYERS {
        let pad = kernel / 2;
        let conv = Conv {
            batch: 1,
            size: [size; 2],
            channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            before: [pad; 2],
            after: [pad; 2],
            dilation: [1; 2],
            groups: if depthwise { channels[0] } else { 1 },
        };
        let x: Vec<i8> = (0..conv.input_len()).map(|i| (i * 89) as i8).collect();
        let each = if depthwise { 1 } else { channels[0] };
        let weights: Vec<i8> = (0..kernel * kernel * each * channels[1])
            .map(|i| (i * 57) as i8)
            .collect();
        let packed = if depthwise {
            static8::pack_depthwise(&conv, &weights)
        } else {
            static8::pack_conv2d(&conv, &weights)
        };
        let (multiplier, bias) = (vec![0.001f32; channels[1]], vec![3i32; channels[1]]);
        let stage = static8::Stage {
            multiplier: &multiplier,
            bias: static8::Bias::Integers(&bias),
            activation: Default::default(),
        };
        let grid = static8::Grid {
            inverse: static8::inverse(0.05),
            zero: 3,
            low: -128,
            high: 127,
        };
        let mut y = vec![0i8; conv.output_len()];
        for dot in Dot::all().into_iter().filter(|dot| *dot != Dot::Scalar) {
            for pool in pools {
                let mut scratch = vec![0.0; static8::conv2d_scratch_len(&conv, *pool)];
                let winograd =
                    !depthwise && static8::conv2d_by_winograd(dot, &conv, &static8::Bytes::I8(&x, -3), &packed);
                let (median, best) = seconds(15, |_| {
                    let (x, mut to) = (static8::Bytes::I8(&x, -3), static8::Target::I8(&mut y, grid));
                    match depthwise {
                        true => static8::depthwise2d(dot, *pool, &conv, x, &packed, &stage, &mut to),
                        false => {
                            static8::conv2d(dot, *pool, &conv, winograd, x, &packed, &stage, &mut scratch, &mut to)
                        }
                    }
                });
                let giga = 2.0 * (conv.output_len() * kernel * kernel * each) as f64 / 1e9;
                println!(
                    "int8 {size}x{size} {channels:?} {kernel}x{kernel}/{stride}{} {} threads={}: {:.1} GOP/s (best {:.1}), {:.0} us",
                    if depthwise { " depthwise" } else { "" },
                    dot.name(),
                    pool.threads(),
                    giga / median,
                    giga / best,
                    best * 1e6
                );
            }
        }
    }
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let on = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let two = Spinning::new(2);
    let pools: [&dyn Pool; 2] = [&Serial, &two];
    limits();
    if on("rows") {
        rounding();
    }
    if on("q4") {
        four_bits(&pools);
    }
    if on("floats") {
        floats(&pools);
    }
    if on("int8") {
        images(&pools);
    }
}
