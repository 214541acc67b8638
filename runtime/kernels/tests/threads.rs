//! The number of threads changes no bit of a result: large calls on one thread and on four, which no machine needs to have.

mod common;

use common::{Held, Wanted, call_on, new};
use delegraph_kernels::{Arg, Scratch};
use delegraph_types::{DType, Parallel, ParallelFor};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that are made for each piece of work. Counts the pieces.
struct Four(AtomicUsize);

static FOUR: Four = Four(AtomicUsize::new(0));

impl ParallelFor for Four {
    fn threads(&self) -> usize {
        4
    }

    fn run(&self, threads: usize, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        self.0.fetch_add(1, Ordering::Relaxed);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let part = next.fetch_add(1, Ordering::Relaxed);
                        if part >= parts {
                            return;
                        }
                        body(part);
                    }
                });
            }
        });
    }
}

/// Elements that no order of additions leaves alone.
fn drawn(dtype: DType, sizes: &[i64], order: &[u8]) -> Held {
    let count = sizes.iter().product::<i64>() as usize;
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ count as u64;
    let items: Vec<f64> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f64 / f64::from(1u32 << 22) - 2.0
        })
        .collect();
    Held::ordered(dtype, sizes, order.to_vec(), &items)
}

/// Calls on one thread and on four. `divided`: the call is large enough to use them.
fn same(name: &str, args: &[Arg], outs: impl Fn() -> Vec<Wanted>, divided: bool) {
    let on = |parallel| {
        call_on(parallel, name, args, outs(), &mut Scratch::default())
            .unwrap()
            .0
    };
    let one = on(Parallel::SERIAL);
    let before = FOUR.0.load(Ordering::Relaxed);
    let four = on(Parallel::new(&FOUR, 4));
    for (a, b) in one.iter().zip(&four) {
        let (x, y) = (a.tensor(), b.tensor());
        assert_eq!((x.sizes(), x.strides()), (y.sizes(), y.strides()), "{name}");
        assert!(x.bytes() == y.bytes(), "{name} depends on the number of threads");
    }
    if divided {
        assert!(FOUR.0.load(Ordering::Relaxed) > before, "{name} ran on one thread");
    }
}

const F32: DType = DType::F32;

/// One test: the count of pieces of work is shared.
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    elementwise();
    reductions();
    rows();
    products();
    images();
}

fn elementwise() {
    let (a, b) = (
        drawn(F32, &[4, 33, 41, 29], &[0, 1, 2, 3]),
        drawn(F32, &[33, 1, 29], &[0, 1, 2]),
    );
    let last = drawn(F32, &[4, 33, 41, 29], &[0, 2, 3, 1]);
    let halves = drawn(DType::F16, &[4, 33, 41, 29], &[3, 1, 0, 2]);
    let (t, b, last) = (
        Arg::Tensor(a.tensor()),
        Arg::Tensor(b.tensor()),
        Arg::Tensor(last.tensor()),
    );
    let halves = Arg::Tensor(halves.tensor());
    let one = || vec![new(F32)];
    let channels_last = || vec![Wanted::New(F32, vec![0, 2, 3, 1])];
    same("aten::add.out", &[t, b, Arg::Int(1)], one, true);
    same("aten::add.out", &[last, t, Arg::Float(0.5)], channels_last, true);
    same("aten::mul.out", &[halves, t], one, true);
    same("aten::gelu.out", &[last, Arg::Str("none")], one, true);
    same(
        "aten::eq.Scalar_out",
        &[t, Arg::Float(0.0)],
        || vec![new(DType::Bool)],
        true,
    );
    let mask = drawn(DType::Bool, &[4, 33, 41, 29], &[1, 0, 2, 3]);
    same(
        "aten::where.self_out",
        &[Arg::Tensor(mask.tensor()), last, b],
        one,
        true,
    );
}

fn reductions() {
    let a = drawn(F32, &[67, 129, 83], &[0, 1, 2]);
    let turned = drawn(DType::BF16, &[67, 129, 83], &[2, 0, 1]);
    let long = drawn(F32, &[300_007], &[0]);
    let sets: [&[i64]; 6] = [&[], &[0], &[1], &[2], &[0, 2], &[1, 2]];
    for t in [&a, &turned] {
        for dims in sets {
            let args = [Arg::Tensor(t.tensor()), Arg::Ints(dims), Arg::Bool(false), Arg::None];
            same("aten::sum.IntList_out", &args, || vec![new(F32)], true);
            same("aten::mean.out", &args, || vec![new(F32)], true);
            same("aten::amax.out", &args[..3], || vec![new(t.dtype)], true);
            same("aten::logsumexp.out", &args[..3], || vec![new(t.dtype)], true);
            let turned_out = || vec![Wanted::New(F32, vec![2, 0, 1])];
            let keep = [args[0], args[1], Arg::Bool(true), Arg::None];
            same("aten::sum.IntList_out", &keep, turned_out, false);
        }
    }
    same(
        "aten::sum.out",
        &[Arg::Tensor(long.tensor()), Arg::None],
        || vec![new(F32)],
        true,
    );
    let norm = [
        Arg::Tensor(long.tensor()),
        Arg::Float(3.0),
        Arg::None,
        Arg::Bool(false),
        Arg::None,
    ];
    same("aten::linalg_vector_norm.out", &norm, || vec![new(F32)], true);
}

fn rows() {
    let a = drawn(F32, &[13, 71, 150], &[0, 1, 2]);
    let halves = drawn(DType::F16, &[13, 71, 150], &[1, 2, 0]);
    for t in [&a, &halves] {
        for dim in 0..3 {
            let args = [Arg::Tensor(t.tensor()), Arg::Int(dim), Arg::Bool(false)];
            // Along the first dimension there is one block, which is not divided.
            same("aten::_softmax.out", &args, || vec![new(t.dtype)], dim > 0);
            same("aten::_log_softmax.out", &args, || vec![new(t.dtype)], dim > 0);
        }
    }
    let (w, b) = (drawn(F32, &[71, 150], &[0, 1]), drawn(F32, &[71, 150], &[1, 0]));
    let shape = [71, 150];
    let args = [
        Arg::Tensor(a.tensor()),
        Arg::Ints(&shape),
        Arg::Tensor(w.tensor()),
        Arg::Tensor(b.tensor()),
        Arg::Float(1e-5),
    ];
    let three = || vec![new(F32), new(F32), new(F32)];
    same("aten::native_layer_norm.out", &args, three, true);
    let image = drawn(F32, &[3, 12, 41, 40], &[0, 2, 3, 1]);
    let vector = drawn(F32, &[12], &[0]);
    let args = [
        Arg::Tensor(image.tensor()),
        Arg::Tensor(vector.tensor()),
        Arg::None,
        Arg::Int(3),
        Arg::Int(12),
        Arg::Int(41 * 40),
        Arg::Int(4),
        Arg::Float(1e-5),
    ];
    same("aten::native_group_norm.out", &args, three, true);
}

fn products() {
    for dtype in [F32, DType::F16, DType::F64, DType::I8] {
        let sizes = [
            (1, 500, 900),
            (3, 700, 333),
            (300, 129, 5),
            (130, 257, 310),
            (17, 64, 1000),
            (700, 300, 20),
        ];
        for (m, k, n) in sizes {
            for order in [[0u8, 1], [1, 0]] {
                let (a, b) = (drawn(dtype, &[m, k], &[0, 1]), drawn(dtype, &[k, n], &order));
                let (a, b) = (Arg::Tensor(a.tensor()), Arg::Tensor(b.tensor()));
                let divided = m * k * n > 1 << 22;
                same("aten::mm.out", &[a, b], || vec![new(dtype)], divided);
                same(
                    "aten::mm.out",
                    &[a, b],
                    || vec![Wanted::New(dtype, vec![1, 0])],
                    divided,
                );
            }
        }
        let (a, b) = (
            drawn(dtype, &[24, 33, 40], &[0, 1, 2]),
            drawn(dtype, &[24, 40, 55], &[0, 2, 1]),
        );
        let (a, b) = (Arg::Tensor(a.tensor()), Arg::Tensor(b.tensor()));
        same("aten::bmm.out", &[a, b], || vec![new(dtype)], true);
    }
}

fn images() {
    let image = drawn(F32, &[2, 24, 37, 35], &[0, 1, 2, 3]);
    let one = [1];
    let convolution = |weight: &[i64], groups: i64, transposed: bool, padding: &[i64]| {
        let weight = drawn(F32, weight, &[0, 1, 2, 3]);
        let args = [
            Arg::Tensor(image.tensor()),
            Arg::Tensor(weight.tensor()),
            Arg::None,
            Arg::Ints(&one),
            Arg::Ints(padding),
            Arg::Ints(&one),
            Arg::Bool(transposed),
            Arg::Ints(&[0]),
            Arg::Int(groups),
        ];
        same("aten::convolution.out", &args, || vec![new(F32)], true);
    };
    convolution(&[100, 24, 3, 3], 1, false, &[1]);
    convolution(&[50, 24, 1, 1], 1, false, &[0]);
    convolution(&[48, 1, 3, 3], 24, false, &[1]);
    convolution(&[36, 4, 3, 3], 6, false, &[0]);
    convolution(&[24, 20, 3, 3], 1, true, &[1]);
    convolution(&[24, 20, 1, 1], 1, true, &[0]);
    let (two, zero) = ([2], [0]);
    let pool = [
        Arg::Tensor(image.tensor()),
        Arg::Ints(&two),
        Arg::Ints(&two),
        Arg::Ints(&zero),
        Arg::Ints(&one),
        Arg::Bool(true),
    ];
    same(
        "aten::max_pool2d_with_indices.out",
        &pool,
        || vec![new(F32), new(DType::I64)],
        true,
    );
    let size = [5, 6];
    same(
        "aten::adaptive_avg_pool2d.out",
        &[Arg::Tensor(image.tensor()), Arg::Ints(&size)],
        || vec![new(F32)],
        true,
    );
}
