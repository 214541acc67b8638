//! Random operators: the same numbers from the same seed, others from each call, and distributed as they say.

mod common;

use common::{Held, call_with, new};
use delegraph_kernels::{Arg, Scratch};
use delegraph_types::{DType, Dims};

const COUNT: usize = 40_000;

fn draw(name: &str, args: &[Arg], dtype: DType, scratch: &mut Scratch) -> Vec<f64> {
    let (outs, _) = call_with(name, args, vec![new(dtype)], scratch).unwrap_or_else(|error| panic!("{name}: {error}"));
    outs[0].items()
}

/// Mean and variance within five standard errors: a fixed seed makes this a fixed answer.
fn moments(name: &str, items: &[f64], mean: f64, variance: f64, fourth: f64) {
    let count = items.len() as f64;
    let got = items.iter().sum::<f64>() / count;
    let spread = items.iter().map(|x| (x - got).powi(2)).sum::<f64>() / count;
    let error = 5.0 * (variance / count).sqrt();
    assert!((got - mean).abs() <= error, "{name}: mean {got} instead of {mean}");
    let error = 5.0 * ((fourth - variance * variance) / count).sqrt();
    assert!(
        (spread - variance).abs() <= error,
        "{name}: variance {spread} instead of {variance}"
    );
}

/// Pearson's statistic over equally likely buckets, against its mean and five deviations.
fn buckets(name: &str, counts: &[usize]) {
    let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    let statistic: f64 = counts.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
    let freedom = counts.len() as f64 - 1.0;
    let limit = freedom + 5.0 * (2.0 * freedom).sqrt();
    assert!(statistic < limit, "{name}: {statistic} over {} buckets", counts.len());
}

#[test]
fn a_seed_gives_the_same_numbers_for_ever_and_each_call_others() {
    let sizes = [4];
    let args = [Arg::Ints(&sizes)];
    let run = |seed: Option<u64>| {
        let mut scratch = Scratch::default();
        if let Some(seed) = seed {
            scratch.seed(seed);
        }
        [0, 1].map(|_| draw("aten::rand.out", &args, DType::F32, &mut scratch))
    };
    assert_eq!(run(None), run(Some(0)));
    let [first, second] = run(Some(1));
    assert_eq!(run(Some(1)), [first.clone(), second.clone()]);
    assert!(first != second && first != run(Some(0))[0]);
}

#[test]
fn layouts_and_lengths_do_not_matter() {
    let items = |sizes: &[i64], order: Vec<u8>| {
        let args = [Arg::Ints(sizes)];
        let out = common::Wanted::New(DType::F64, order);
        let (outs, _) = call_with("aten::randn.out", &args, vec![out], &mut Scratch::default()).unwrap();
        outs[0].items()
    };
    let all = items(&[6], Vec::new());
    assert_eq!(items(&[2, 3], vec![1, 0]), all);
    assert_eq!(items(&[3], Vec::new()), all[..3]);
}

#[test]
fn numbers_are_distributed_as_the_operators_say() {
    let sizes = [COUNT as i64];
    let like = Held::new(DType::F32, &sizes, &vec![0.0; COUNT]);
    let like = Arg::Tensor(like.tensor());
    let mut scratch = Scratch::default();
    let scratch = &mut scratch;
    let ints = Arg::Ints(&sizes);
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        let items = draw("aten::rand.out", &[ints], dtype, scratch);
        let mut counts = [0usize; 64];
        items.iter().for_each(|&x| counts[(x * 64.0) as usize] += 1);
        buckets("rand", &counts);
        // A grid of 256 points has its mean a little below a half.
        let below = if dtype == DType::BF16 { 1.0 / 512.0 } else { 0.0 };
        moments("rand", &items, 0.5 - below, 1.0 / 12.0, 1.0 / 80.0);
        let items = draw("aten::randn.out", &[ints], dtype, scratch);
        moments("randn", &items, 0.0, 1.0, 3.0);
    }
    let items = draw(
        "aten::uniform.out",
        &[like, Arg::Float(-1.0), Arg::Float(3.0)],
        DType::F32,
        scratch,
    );
    moments("uniform", &items, 1.0, 16.0 / 12.0, 256.0 / 80.0);
    assert!(items.iter().all(|x| (-1.0..3.0).contains(x)));
    let args = [Arg::Float(2.0), Arg::Float(3.0), ints];
    moments(
        "normal",
        &draw("aten::normal.float_float_out", &args, DType::F32, scratch),
        2.0,
        9.0,
        243.0,
    );
    // Quartiles of the normal distribution.
    let items = draw("aten::randn_like.out", &[like], DType::F64, scratch);
    let mut counts = [0usize; 4];
    for x in items {
        counts[usize::from(x > -0.674_489_750_196) + usize::from(x > 0.0) + usize::from(x > 0.674_489_750_196)] += 1;
    }
    buckets("randn_like", &counts);
    let items = draw("aten::exponential.out", &[like, Arg::Float(2.0)], DType::F32, scratch);
    moments("exponential", &items, 0.5, 0.25, 9.0 / 16.0);
    let items = draw("aten::geometric.out", &[like, Arg::Float(0.25)], DType::F32, scratch);
    moments("geometric", &items, 4.0, 12.0, 12.0 * (1.0 + 9.0 * 12.0));
    let items = draw(
        "aten::bernoulli.float_out",
        &[like, Arg::Float(0.25)],
        DType::Bool,
        scratch,
    );
    moments("bernoulli", &items, 0.25, 0.1875, 0.1875 * (1.0 - 3.0 * 0.1875));
    for (name, args, dtype, low, high) in [
        ("aten::randint.out", vec![Arg::Int(10), ints], DType::I64, 0, 10),
        (
            "aten::randint.low_out",
            vec![Arg::Int(-3), Arg::Int(4), ints],
            DType::I32,
            -3,
            4,
        ),
        ("aten::randint_like.out", vec![like, Arg::Int(7)], DType::F32, 0, 7),
        (
            "aten::random.from_out",
            vec![like, Arg::Int(5), Arg::Int(9)],
            DType::U8,
            5,
            9,
        ),
        ("aten::random.out", vec![like], DType::I8, 0, 128),
    ] {
        let mut counts = vec![0usize; (high - low) as usize];
        for x in draw(name, &args, dtype, scratch) {
            counts[(x as i64 - low) as usize] += 1;
        }
        buckets(name, &counts);
    }
    let weights = Held::new(DType::F32, &[4], &[1.0, 0.0, 2.0, 1.0]);
    let args = [Arg::Tensor(weights.tensor()), Arg::Int(COUNT as i64), Arg::Bool(true)];
    let mut counts = [0usize; 4];
    for x in draw("aten::multinomial.out", &args, DType::I64, scratch) {
        counts[x as usize] += 1;
    }
    assert_eq!(counts[1], 0);
    buckets("multinomial", &[counts[0] + counts[3], counts[2]]);
}

#[test]
fn a_permutation_has_every_number_once_and_any_order() {
    let mut scratch = Scratch::default();
    for (dtype, count) in [
        (DType::I64, 1000),
        (DType::I32, 1),
        (DType::F32, 100),
        (DType::I8, 128),
        (DType::I64, 0),
    ] {
        let mut items = draw("aten::randperm.out", &[Arg::Int(count)], dtype, &mut scratch);
        let shuffled = items.clone();
        items.sort_by(f64::total_cmp);
        assert_eq!(items, (0..count).map(|i| i as f64).collect::<Vec<f64>>());
        assert!(count < 100 || shuffled != items);
    }
    let mut counts = [0usize; 24];
    for _ in 0..12_000 {
        let items = draw("aten::randperm.out", &[Arg::Int(4)], DType::I64, &mut scratch);
        let rank = |i: usize| items[i + 1..].iter().filter(|&&x| x < items[i]).count();
        counts[rank(0) * 6 + rank(1) * 2 + rank(2)] += 1;
    }
    buckets("randperm", &counts);
}

#[test]
fn dropout_scales_what_it_keeps_and_says_which() {
    let ones = Held::new(DType::F32, &[COUNT as i64], &vec![1.0; COUNT]);
    let run = |p: f64, train: bool| {
        let args = [Arg::Tensor(ones.tensor()), Arg::Float(p), Arg::Bool(train)];
        let outs = vec![new(DType::F32), new(DType::Bool)];
        let (outs, _) = call_with("aten::native_dropout.out", &args, outs, &mut Scratch::default()).unwrap();
        (outs[0].items(), outs[1].items())
    };
    let (items, mask) = run(0.2, true);
    moments("dropout", &mask, 0.8, 0.16, 0.16 * (1.0 - 3.0 * 0.16));
    assert!(
        items
            .iter()
            .zip(&mask)
            .all(|(x, kept)| *x == if *kept == 1.0 { 1.25 } else { 0.0 })
    );
    assert_eq!(run(0.2, false), (vec![1.0; COUNT], vec![1.0; COUNT]));
    assert_eq!(run(1.0, true), (vec![0.0; COUNT], vec![0.0; COUNT]));
}

#[test]
fn what_no_distribution_has_is_an_error() {
    let one = Held::new(DType::F32, &[1], &[2.0]);
    let one = Arg::Tensor(one.tensor());
    let sizes = Dims::filled(1, 3);
    let ints = Arg::Ints(&sizes);
    for (name, args, dtype) in [
        ("aten::bernoulli.out", vec![one], DType::F32),
        ("aten::rand.out", vec![ints], DType::I64),
        ("aten::randint.out", vec![Arg::Int(0), ints], DType::I64),
        ("aten::randint.out", vec![Arg::Int(300), ints], DType::U8),
        ("aten::randperm.out", vec![Arg::Int(-1)], DType::I64),
        ("aten::randperm.out", vec![Arg::Int(129)], DType::I8),
        (
            "aten::normal.float_float_out",
            vec![Arg::Float(0.0), Arg::Float(-1.0), ints],
            DType::F32,
        ),
        (
            "aten::uniform.out",
            vec![one, Arg::Float(1.0), Arg::Float(0.0)],
            DType::F32,
        ),
        (
            "aten::multinomial.out",
            vec![one, Arg::Int(2), Arg::Bool(false)],
            DType::I64,
        ),
    ] {
        let called = call_with(name, &args, vec![new(dtype)], &mut Scratch::default());
        assert!(called.is_err(), "{name} {args:?}");
    }
}
