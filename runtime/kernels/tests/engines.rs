//! The engines under the kernels against plain loops over indices: any sizes (empty ones too), dtypes and orders in memory.
//!
//! Elements are small quarters, so that sums and products are exact and only the last rounding is left to compare.

mod common;

use common::{Held, Wanted, call, close};
use delegraph_kernels::Arg;
use delegraph_types::{DType, Operand, result_dtype};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

const FLOATS: &[DType] = &[DType::F32, DType::F64, DType::F16, DType::BF16];
const NUMBERS: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U8,
];
const ALL: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U8,
    DType::Bool,
];

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x5eed),
        ..ProptestConfig::default()
    }
}

fn order(rank: usize) -> impl Strategy<Value = Vec<u8>> {
    Just((0..rank as u8).collect::<Vec<u8>>()).prop_shuffle()
}

fn held(dtypes: &'static [DType], sizes: Vec<i64>) -> impl Strategy<Value = Held> {
    let count = sizes.iter().product::<i64>() as usize;
    (select(dtypes), order(sizes.len()), vec(-12i32..=12, count)).prop_map(move |(dtype, order, items)| {
        let items: Vec<f64> = items.into_iter().map(|i| f64::from(i) / 4.0).collect();
        Held::ordered(dtype, &sizes, order, &items)
    })
}

fn sizes(rank: std::ops::RangeInclusive<usize>, least: i64) -> impl Strategy<Value = Vec<i64>> {
    vec(least..=4, rank)
}

/// A tensor and one of its dimensions.
fn with_dim(dtypes: &'static [DType], least: i64) -> impl Strategy<Value = (Held, usize)> {
    sizes(1..=4, least).prop_flat_map(move |sizes| {
        let rank = sizes.len();
        (held(dtypes, sizes), 0..rank)
    })
}

/// Every index of a shape in row-major order.
fn indices(sizes: &[i64]) -> Vec<Vec<i64>> {
    let mut all = vec![Vec::new()];
    for &size in sizes {
        all = all
            .into_iter()
            .flat_map(|index: Vec<i64>| (0..size).map(move |i| [&index[..], &[i]].concat()))
            .collect();
    }
    all
}

fn flat(index: &[i64], sizes: &[i64]) -> usize {
    index.iter().zip(sizes).fold(0, |at, (i, size)| at * size + i) as usize
}

/// The same dtype, or 64-bit integers.
fn summed(dtype: DType) -> DType {
    if dtype.is_float() { dtype } else { DType::I64 }
}

/// One call with one output; its sizes and elements against those wanted, rounded to the dtype.
fn check(
    name: &str,
    args: &[Arg],
    out: Wanted,
    dtype: DType,
    sizes: &[i64],
    want: &[f64],
) -> Result<(), TestCaseError> {
    let (outs, _) = call(name, args, vec![out]).map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
    same(name, &outs[0], dtype, sizes, want)
}

fn same(name: &str, got: &Held, dtype: DType, sizes: &[i64], want: &[f64]) -> Result<(), TestCaseError> {
    let want = Held::new(dtype, sizes, want).items();
    prop_assert_eq!(got.sizes.as_slice(), sizes, "{}", name);
    let (rtol, atol) = match dtype {
        DType::F64 => (1e-12, 1e-12),
        DType::F32 => (1e-6, 1e-6),
        DType::F16 => (1e-3, 1e-4),
        DType::BF16 => (1e-2, 1e-3),
        _ => (0.0, 0.0),
    };
    let items = got.items();
    let wrong = items.iter().zip(&want).position(|(a, b)| !close(*a, *b, rtol, atol));
    prop_assert!(wrong.is_none(), "{} {} {:?}\ninstead of {:?}", name, dtype, items, want);
    Ok(())
}

/// A shape, and two that broadcast to it.
fn broadcast() -> impl Strategy<Value = (Vec<i64>, Held, Held, Vec<u8>)> {
    let narrowed = |sizes: Vec<i64>| {
        let rank = sizes.len();
        (0..=rank, vec(any::<bool>(), rank)).prop_map(move |(lead, ones)| {
            let kept = sizes.iter().zip(&ones).skip(lead);
            kept.map(|(&size, &one)| if one { 1 } else { size })
                .collect::<Vec<i64>>()
        })
    };
    sizes(0..=4, 0).prop_flat_map(move |whole| {
        // The first keeps one half of the dimensions, so that both together make the whole.
        let other = narrowed(whole.clone());
        (Just(whole), other).prop_flat_map(|(whole, other)| {
            let rank = whole.len();
            (held(ALL, whole.clone()), held(ALL, other), order(rank))
                .prop_map(move |(a, b, order)| (whole.clone(), a, b, order))
        })
    })
}

/// The element of a tensor that broadcasts to the index.
fn spread(items: &[f64], sizes: &[i64], index: &[i64]) -> f64 {
    let index = &index[index.len() - sizes.len()..];
    let own: Vec<i64> = index
        .iter()
        .zip(sizes)
        .map(|(&i, &size)| if size == 1 { 0 } else { i })
        .collect();
    items[flat(&own, sizes)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn elementwise((sizes, a, b, order) in broadcast(), swapped in any::<bool>()) {
        let (a, b) = if swapped { (b, a) } else { (a, b) };
        let operands = [&a, &b].map(|t| Operand::tensor(t.dtype, t.sizes.rank()));
        let dtype = result_dtype(operands).unwrap();
        // Operands are converted first, so that -1 among bytes is 255.
        let converted = |t: &Held| Held::new(dtype, &t.sizes, &t.items()).items();
        let (x, y) = (converted(&a), converted(&b));
        let each = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            let all = indices(&sizes);
            all.iter().map(|i| f(spread(&x, &a.sizes, i), spread(&y, &b.sizes, i))).collect()
        };
        let pair = [Arg::Tensor(a.tensor()), Arg::Tensor(b.tensor())];
        let with_alpha = [pair[0], pair[1], Arg::Int(1)];
        let out = |dtype| Wanted::New(dtype, order.clone());
        check("aten::add.out", &with_alpha, out(dtype), dtype, &sizes, &each(&|a, b| a + b))?;
        if dtype != DType::Bool {
            check("aten::sub.out", &with_alpha, out(dtype), dtype, &sizes, &each(&|a, b| a - b))?;
        }
        check("aten::mul.out", &pair, out(dtype), dtype, &sizes, &each(&|a, b| a * b))?;
        check("aten::maximum.out", &pair, out(dtype), dtype, &sizes, &each(&f64::max))?;
        let less = each(&|a, b| f64::from(u8::from(a < b)));
        check("aten::lt.Tensor_out", &pair, out(DType::Bool), DType::Bool, &sizes, &less)?;
    }

    #[test]
    fn reductions((input, _) in with_dim(NUMBERS, 0), chosen in vec(any::<bool>(), 4), keep in any::<bool>()) {
        let sizes = input.sizes.to_vec();
        let dims: Vec<i64> = (0..sizes.len() as i64).filter(|&d| chosen[d as usize]).collect();
        // An empty list means every dimension.
        let reduced = |d: usize| dims.is_empty() || chosen[d];
        let to: Vec<i64> = sizes.iter().enumerate().map(|(d, &size)| if reduced(d) { 1 } else { size }).collect();
        let shown: Vec<i64> = (0..to.len()).filter(|&d| keep || !reduced(d)).map(|d| to[d]).collect();
        let count = to.iter().product::<i64>() as usize;
        let (mut sums, mut most) = (vec![0.0; count], vec![f64::NEG_INFINITY; count]);
        let items = input.items();
        for (at, index) in indices(&sizes).iter().enumerate() {
            let index: Vec<i64> = index.iter().zip(&to).map(|(&i, &size)| i.min(size - 1)).collect();
            let slot = flat(&index, &to);
            sums[slot] += items[at];
            most[slot] = most[slot].max(items[at]);
        }
        let args = [Arg::Tensor(input.tensor()), Arg::Ints(&dims), Arg::Bool(keep)];
        let with_dtype = [args[0], args[1], args[2], Arg::None];
        let dtype = summed(input.dtype);
        check("aten::sum.IntList_out", &with_dtype, common::new(dtype), dtype, &shown, &sums)?;
        let each = (0..sizes.len()).filter(|&d| reduced(d)).map(|d| sizes[d]).product::<i64>() as f64;
        if input.dtype.is_float() {
            let means: Vec<f64> = sums.iter().map(|sum| sum / each).collect();
            check("aten::mean.out", &with_dtype, common::new(dtype), dtype, &shown, &means)?;
        }
        if each > 0.0 {
            check("aten::amax.out", &args, common::new(input.dtype), input.dtype, &shown, &most)?;
        }
    }

    #[test]
    fn scans((input, dim) in with_dim(NUMBERS, 0)) {
        let (sizes, items) = (input.sizes.to_vec(), input.items());
        let (mut sums, mut most) = (items.clone(), items.clone());
        let mut places = vec![0.0; items.len()];
        for index in indices(&sizes).iter().filter(|index| index[dim] > 0) {
            let mut before = index.clone();
            before[dim] -= 1;
            let (at, before) = (flat(index, &sizes), flat(&before, &sizes));
            sums[at] += sums[before];
            // The last of equal ones, as PyTorch.
            (most[at], places[at]) = match most[before] > items[at] {
                true => (most[before], places[before]),
                false => (items[at], index[dim] as f64),
            };
        }
        let dtype = summed(input.dtype);
        let args = [Arg::Tensor(input.tensor()), Arg::Int(dim as i64), Arg::None];
        check("aten::cumsum.out", &args, common::new(dtype), dtype, &sizes, &sums)?;
        let outs = vec![common::new(input.dtype), common::new(DType::I64)];
        let (outs, _) = call("aten::cummax.out", &args[..2], outs).unwrap();
        same("cummax", &outs[0], input.dtype, &sizes, &most)?;
        same("cummax", &outs[1], DType::I64, &sizes, &places)?;
    }

    #[test]
    fn gathers_and_scatters(
        (input, dim) in with_dim(NUMBERS, 1),
        lengths in vec(0i64..=4, 4),
        draws in vec(0i64..1000, 256),
        back in order(4),
    ) {
        let sizes = input.sizes.to_vec();
        let shape: Vec<i64> = (0..sizes.len()).map(|d| if d == dim { lengths[d] } else { lengths[d].min(sizes[d]) }).collect();
        let all = indices(&shape);
        let picks: Vec<i64> = (0..all.len()).map(|i| draws[i] % sizes[dim]).collect();
        let order: Vec<u8> = back.into_iter().filter(|&d| usize::from(d) < sizes.len()).collect();
        let index = Held::ordered(DType::I64, &shape, order, &picks.iter().map(|&i| i as f64).collect::<Vec<_>>());
        let items = input.items();
        let place = |i: usize| {
            let mut at = all[i].clone();
            at[dim] = picks[i];
            flat(&at, &sizes)
        };
        let read: Vec<f64> = (0..all.len()).map(|i| items[place(i)]).collect();
        let args = [Arg::Tensor(input.tensor()), Arg::Int(dim as i64), Arg::Tensor(index.tensor()), Arg::Bool(false)];
        check("aten::gather.out", &args, common::new(input.dtype), input.dtype, &shape, &read)?;
        // Quarters: the sums of a few are exact in every dtype but the narrowest.
        if !matches!(input.dtype, DType::BF16) {
            let source = Held::new(input.dtype, &shape, &read);
            let mut sums = items.clone();
            (0..all.len()).for_each(|i| sums[place(i)] += read[i]);
            let args = [args[0], args[1], args[2], Arg::Tensor(source.tensor())];
            check("aten::scatter_add.out", &args, common::new(input.dtype), input.dtype, &sizes, &sums)?;
        }
        let row: Vec<i64> = picks.iter().take(5).copied().collect();
        let rows = Held::new(DType::I64, &[row.len() as i64], &row.iter().map(|&i| i as f64).collect::<Vec<_>>());
        let mut taken = sizes.clone();
        taken[dim] = row.len() as i64;
        let want: Vec<f64> = indices(&taken)
            .into_iter()
            .map(|mut at| {
                at[dim] = row[at[dim] as usize];
                items[flat(&at, &sizes)]
            })
            .collect();
        let args = [Arg::Tensor(input.tensor()), Arg::Int(dim as i64), Arg::Tensor(rows.tensor())];
        check("aten::index_select.out", &args, common::new(input.dtype), input.dtype, &taken, &want)?;
    }

    #[test]
    fn pooling(
        image in (1i64..=2, 1i64..=2, 1i64..=7, 1i64..=7).prop_flat_map(|(n, c, h, w)| held(FLOATS, vec![n, c, h, w])),
        kernel in vec(1i64..=3, 2),
        stride in vec(1i64..=3, 2),
        padding in vec(0i64..=1, 2),
        (ceil, counted) in any::<(bool, bool)>(),
    ) {
        let sizes = image.sizes.to_vec();
        let padding: Vec<i64> = padding.iter().zip(&kernel).map(|(&p, &k)| p.min(k / 2)).collect();
        let count = |d: usize| {
            let span = sizes[2 + d] + 2 * padding[d] - kernel[d];
            let mut count = if ceil { (span + stride[d] - 1).div_euclid(stride[d]) } else { span.div_euclid(stride[d]) } + 1;
            if ceil && (count - 1) * stride[d] >= sizes[2 + d] + padding[d] {
                count -= 1;
            }
            count
        };
        let shape = [sizes[0], sizes[1], count(0), count(1)];
        prop_assume!(shape[2] > 0 && shape[3] > 0);
        let items = image.items();
        let (mut most, mut places, mut means) = (Vec::new(), Vec::new(), Vec::new());
        for index in indices(&shape) {
            let (mut best, mut sum, mut inside, mut all) = ((f64::NEG_INFINITY, 0.0), 0.0, 0i64, 0i64);
            for tap in indices(&kernel) {
                let at: Vec<i64> = (0..2).map(|d| index[2 + d] * stride[d] - padding[d] + tap[d]).collect();
                all += i64::from((0..2).all(|d| at[d] < sizes[2 + d] + padding[d]));
                if (0..2).all(|d| (0..sizes[2 + d]).contains(&at[d])) {
                    let x = items[flat(&[index[0], index[1], at[0], at[1]], &sizes)];
                    if x > best.0 {
                        best = (x, (at[0] * sizes[3] + at[1]) as f64);
                    }
                    sum += x;
                    inside += 1;
                }
            }
            most.push(best.0);
            places.push(best.1);
            means.push(sum / if counted { all } else { inside } as f64);
        }
        let args = [Arg::Tensor(image.tensor()), Arg::Ints(&kernel), Arg::Ints(&stride), Arg::Ints(&padding)];
        let max = [&args[..], &[Arg::Ints(&[1, 1]), Arg::Bool(ceil)]].concat();
        let outs = vec![common::new(image.dtype), common::new(DType::I64)];
        let (outs, _) = call("aten::max_pool2d_with_indices.out", &max, outs).unwrap();
        same("max_pool2d", &outs[0], image.dtype, &shape, &most)?;
        same("max_pool2d", &outs[1], DType::I64, &shape, &places)?;
        let average = [&args[..], &[Arg::Bool(ceil), Arg::Bool(counted), Arg::None]].concat();
        check("aten::avg_pool2d.out", &average, common::new(image.dtype), image.dtype, &shape, &means)?;
    }

    #[test]
    fn convolutions(
        (input, weight, groups) in (1i64..=2, 1i64..=2, 1i64..=3, 1i64..=3, vec(1i64..=6, 2), vec(1i64..=3, 2)).prop_flat_map(
            |(n, groups, from, to, size, kernel)| {
                let input = held(&FLOATS[..2], vec![n, groups * from, size[0], size[1]]);
                (input, held(&FLOATS[..2], vec![groups * to, from, kernel[0], kernel[1]]), Just(groups))
            },
        ),
        (stride, padding, dilation) in (vec(1i64..=3, 2), vec(0i64..=2, 2), vec(1i64..=2, 2)),
        transposed in any::<bool>(),
    ) {
        // A transposed convolution reads what the other gives.
        let weight = Held::ordered(input.dtype, &weight.sizes, weight.order.clone(), &weight.items());
        let (x, w) = (input.sizes.to_vec(), weight.sizes.to_vec());
        let (from, to) = (w[1], w[0] / groups);
        let input = match transposed {
            false => input,
            true => {
                let sizes = [x[0], w[0], x[2], x[3]];
                let count = sizes.iter().product::<i64>() as usize;
                let items = input.items();
                Held::new(input.dtype, &sizes, &(0..count).map(|i| items[i * 7 % items.len()]).collect::<Vec<_>>())
            }
        };
        let size = |d: usize| match transposed {
            false => (x[2 + d] + 2 * padding[d] - dilation[d] * (w[2 + d] - 1) - 1).div_euclid(stride[d]) + 1,
            true => (x[2 + d] - 1) * stride[d] - 2 * padding[d] + dilation[d] * (w[2 + d] - 1) + 1,
        };
        let shape = [x[0], if transposed { groups * from } else { w[0] }, size(0), size(1)];
        prop_assume!(shape[2] > 0 && shape[3] > 0);
        let (items, weights) = (input.items(), weight.items());
        let mut want = vec![0.0; shape.iter().product::<i64>() as usize];
        // Over the pairs of a plain convolution: `o` of its result reads `i` of its input.
        let (read, given) = if transposed { (&shape[..], &input.sizes[..]) } else { (&input.sizes[..], &shape[..]) };
        for o in indices(given) {
            let group = o[1] / to;
            for tap in indices(&[from, w[2], w[3]]) {
                let at = |d: usize| o[2 + d] * stride[d] - padding[d] + tap[1 + d] * dilation[d];
                let i = [o[0], group * from + tap[0], at(0), at(1)];
                if (2..4).all(|d| (0..read[d]).contains(&i[d])) {
                    let weight = weights[flat(&[o[1], tap[0], tap[1], tap[2]], &w)];
                    let (o, i) = (flat(&o, given), flat(&i, read));
                    let (slot, x) = if transposed { (i, o) } else { (o, i) };
                    want[slot] += items[x] * weight;
                }
            }
        }
        let args = [
            Arg::Tensor(input.tensor()),
            Arg::Tensor(weight.tensor()),
            Arg::None,
            Arg::Ints(&stride),
            Arg::Ints(&padding),
            Arg::Ints(&dilation),
            Arg::Bool(transposed),
            Arg::Ints(&[0, 0]),
            Arg::Int(groups),
        ];
        check("aten::convolution.out", &args, common::new(input.dtype), input.dtype, &shape, &want)?;
    }

    #[test]
    fn matrix_products(
        (a, b) in (0i64..=20, 0i64..=20, 0i64..=20, select(&[DType::F32, DType::F64, DType::F16, DType::I64, DType::I32][..]))
            .prop_flat_map(|(m, k, n, dtype)| {
                let cast = move |t: Held| Held::ordered(dtype, &t.sizes, t.order.clone(), &t.items());
                (held(&FLOATS[..1], vec![m, k]).prop_map(cast), held(&FLOATS[..1], vec![k, n]).prop_map(cast))
            }),
    ) {
        let (m, k, n) = (a.sizes[0], a.sizes[1], b.sizes[1]);
        let (x, y) = (a.items(), b.items());
        let product = |i: i64, j: i64| -> f64 { (0..k).map(|d| x[(i * k + d) as usize] * y[(d * n + j) as usize]).sum() };
        let want: Vec<f64> = indices(&[m, n]).iter().map(|at| product(at[0], at[1])).collect();
        let args = [Arg::Tensor(a.tensor()), Arg::Tensor(b.tensor())];
        check("aten::mm.out", &args, common::new(a.dtype), a.dtype, &[m, n], &want)?;
    }

    #[test]
    fn sorting((input, dim) in with_dim(NUMBERS, 0), descending in any::<bool>(), k in 0i64..=4) {
        let (sizes, items) = (input.sizes.to_vec(), input.items());
        let (mut values, mut places) = (vec![0.0; items.len()], vec![0.0; items.len()]);
        for first in indices(&sizes).iter().filter(|index| index[dim] == 0) {
            let at = |i: i64| {
                let mut index = first.clone();
                index[dim] = i;
                flat(&index, &sizes)
            };
            let mut row: Vec<i64> = (0..sizes[dim]).collect();
            row.sort_by(|&a, &b| {
                let order = items[at(a)].total_cmp(&items[at(b)]);
                if descending { order.reverse() } else { order }
            });
            for (i, &from) in row.iter().enumerate() {
                (values[at(i as i64)], places[at(i as i64)]) = (items[at(from)], from as f64);
            }
        }
        let outs = || vec![common::new(input.dtype), common::new(DType::I64)];
        let args = [Arg::Tensor(input.tensor()), Arg::Bool(true), Arg::Int(dim as i64), Arg::Bool(descending)];
        let (sorted, _) = call("aten::sort.values_stable", &args, outs()).unwrap();
        same("sort", &sorted[0], input.dtype, &sizes, &values)?;
        same("sort", &sorted[1], DType::I64, &sizes, &places)?;
        let k = k.min(sizes[dim]);
        let mut top = sizes.clone();
        top[dim] = k;
        let want: Vec<f64> = indices(&top).iter().map(|index| values[flat(index, &sizes)]).collect();
        let args = [args[0], Arg::Int(k), Arg::Int(dim as i64), Arg::Bool(descending), Arg::Bool(true)];
        let (best, _) = call("aten::topk.values", &args, outs()).unwrap();
        same("topk", &best[0], input.dtype, &top, &want)?;
    }
}
