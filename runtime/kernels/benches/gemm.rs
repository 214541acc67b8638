//! Our matrix products, as operators, beside the `gemm` crate: one thread, median of many runs, interleaved.
//!
//! `cargo bench -p delegraph-kernels --bench gemm [-- SHAPE]` prints one line for each shape; SHAPE (`1x1024x1024`) picks one.

use delegraph_kernels::{Arg, Buffer, Call, Kernel, Out, Scratch, Tensor, find};
use delegraph_types::{DType, Dims, f16};
use std::time::{Duration, Instant};

/// m, k, n; each with B stored as k x n (`mm`) and as n x k (`linear`).
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 1024, 1024),
    (1, 4096, 4096),
    (8, 1024, 1024),
    (128, 384, 384),
    (128, 384, 1536),
    (128, 1536, 384),
    (197, 768, 3072),
    (1024, 1024, 1024),
    (3136, 576, 64),
    (49, 4608, 512),
];

fn main() {
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    println!("{}", machine());
    println!(
        "{:<18} {:<7} {:>10} {:>10} {:>9} {:>7}",
        "m x k x n", "B", "ours us", "gemm us", "GFLOP/s", "ratio"
    );
    let mut log = 0.0;
    let mut count = 0;
    for (m, k, n) in SHAPES {
        let name = format!("{m}x{k}x{n}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        for transposed in [false, true] {
            let (ours, theirs) = compare(m, k, n, transposed);
            let ratio = theirs / ours;
            log += ratio.ln();
            count += 1;
            println!(
                "{name:<18} {:<7} {:>10.1} {:>10.1} {:>9.1} {ratio:>7.2}",
                if transposed { "n x k" } else { "k x n" },
                ours * 1e6,
                theirs * 1e6,
                (2 * m * k * n) as f64 / ours * 1e-9,
            );
        }
    }
    println!(
        "geometric mean of the ratios: {:.3}",
        (log / f64::from(count.max(1))).exp()
    );
    for (m, k, n) in [(1, 4096, 4096), (128, 384, 1536)] {
        let half = operator::<f16>(m, k, n, true, DType::F16);
        println!("{m}x{k}x{n} in f16: {:.1} us", half * 1e6);
    }
}

/// What the measurements depend on.
fn machine() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = {
        let mut features = Vec::new();
        macro_rules! note {
            ($($name:tt)*) => { $(if std::is_x86_feature_detected!($name) { features.push($name); })* };
        }
        note!("avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vnni");
        features.join(" ")
    };
    #[cfg(not(target_arch = "x86_64"))]
    let features = "no features looked for";
    let name = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = name
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    format!("{}: {features}", name.trim_start_matches(['\t', ' ', ':']))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// How often to run something of so many operations.
fn rounds(m: usize, k: usize, n: usize) -> usize {
    (4_000_000_000 / (2 * m * k * n)).clamp(15, 2000)
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1013) as f32 * 1e-3 - 0.5).collect()
}

fn tensor<'a, T: bytemuck::Pod>(dtype: DType, sizes: &[usize], data: &'a [T]) -> Tensor<'a> {
    let sizes = Dims::new(&sizes.iter().map(|&s| s as i64).collect::<Vec<_>>()).unwrap();
    // They stay for as long as the process, as the few shapes of a benchmark may.
    let [sizes, strides] = Box::leak(Box::new([sizes, sizes.contiguous_strides()]));
    Tensor::new(dtype, sizes, strides, bytemuck::cast_slice(data)).unwrap()
}

/// One call of `mm` or `linear`.
fn multiply(kernel: Kernel, a: Tensor, b: Tensor, out: &mut [u8], sizes: Dims, scratch: &mut Scratch) {
    let dtype = a.dtype();
    let args = [Arg::Tensor(a), Arg::Tensor(b), Arg::None];
    let mut outs = [Out::new(dtype, sizes, &Dims::SCALAR, Buffer::Fixed(out))];
    let mut call = Call {
        args: &args,
        outs: &mut outs,
        scratch,
        result: None,
    };
    kernel(&mut call).unwrap();
}

fn kernel(transposed: bool) -> Kernel {
    find(if transposed { "aten::linear.out" } else { "aten::mm.out" }).unwrap()
}

/// Seconds of ours and of the crate's product, which are checked against each other.
fn compare(m: usize, k: usize, n: usize, transposed: bool) -> (f64, f64) {
    let (a, b) = (numbers(m * k), numbers(k * n));
    let (mut c, mut theirs) = (vec![0f32; m * n], vec![0f32; m * n]);
    let b_sizes = if transposed { [n, k] } else { [k, n] };
    let (b_rows, b_columns) = if transposed { (1, k as isize) } else { (n as isize, 1) };
    let sizes = Dims::new(&[m as i64, n as i64]).unwrap();
    let mut scratch = Scratch::default();
    let kernel = kernel(transposed);
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..rounds(m, k, n) {
        let start = Instant::now();
        let (left, right) = (tensor(DType::F32, &[m, k], &a), tensor(DType::F32, &b_sizes, &b));
        multiply(
            kernel,
            left,
            right,
            bytemuck::cast_slice_mut(&mut c),
            sizes,
            &mut scratch,
        );
        times.0.push(start.elapsed());
        let start = Instant::now();
        // SAFETY: the slices have m x k, k x n and m x n elements at these strides.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                theirs.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr(),
                1,
                k as isize,
                b.as_ptr(),
                b_columns,
                b_rows,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        times.1.push(start.elapsed());
    }
    let scale = theirs.iter().fold(1f32, |most, x| most.max(x.abs()));
    assert!(
        c.iter().zip(&theirs).all(|(x, y)| (x - y).abs() <= 1e-4 * scale),
        "the products differ"
    );
    (median(times.0), median(times.1))
}

/// Seconds of our product of another type.
fn operator<T: bytemuck::Pod>(m: usize, k: usize, n: usize, transposed: bool, dtype: DType) -> f64 {
    let (a, b, mut c) = (
        vec![T::zeroed(); m * k],
        vec![T::zeroed(); k * n],
        vec![T::zeroed(); m * n],
    );
    let b_sizes = if transposed { [n, k] } else { [k, n] };
    let sizes = Dims::new(&[m as i64, n as i64]).unwrap();
    let mut scratch = Scratch::default();
    let mut times = Vec::new();
    for _ in 0..rounds(m, k, n) {
        let start = Instant::now();
        let (left, right) = (tensor(dtype, &[m, k], &a), tensor(dtype, &b_sizes, &b));
        multiply(
            kernel(transposed),
            left,
            right,
            bytemuck::cast_slice_mut(&mut c),
            sizes,
            &mut scratch,
        );
        times.push(start.elapsed());
    }
    median(times)
}
