use super::*;
use crate::{Activation, Serial};
use half::{bf16, f16};

/// Numbers from -1 to 1, always the same.
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Parts in the wrong order, as if by several threads.
pub(crate) struct Several(pub usize);

impl Pool for Several {
    fn threads(&self) -> usize {
        self.0
    }
    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(body);
    }
}

/// The value, and how far a sum of `k` terms in `f32` may be from it: `k` roundings of no more than the sum of magnitudes, and a few more.
pub(crate) fn close(have: f32, want: f64, magnitude: f64, k: usize) -> bool {
    (f64::from(have) - want).abs() <= (k as f64 + 8.0) * f64::from(f32::EPSILON) * (magnitude + 1e-30)
}

pub(crate) fn finish(epilogue: &Epilogue<'_>, sum: f64, column: usize, residual: Option<f32>) -> f64 {
    let mut x = sum + epilogue.bias.map_or(0.0, |bias| f64::from(bias[column]));
    let residual = residual.map_or(0.0, f64::from);
    if !epilogue.residual_last {
        x += residual;
    }
    x = match epilogue.activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Clamp(low, high) => x.clamp(f64::from(low), f64::from(high)),
        Activation::LeakyRelu(slope) => x.max(0.0) + x.min(0.0) * f64::from(slope),
        Activation::HardSwish => x * ((x + 3.0) / 6.0).clamp(0.0, 1.0),
        other => panic!("{other:?} is not used here"),
    };
    if epilogue.residual_last { x + residual } else { x }
}

pub(crate) fn epilogues<'a>(bias: &'a [f32], residual: &'a [f32]) -> Vec<Epilogue<'a>> {
    let (bias, residual) = (Some(bias), Some(residual));
    vec![
        Epilogue::default(),
        Epilogue {
            bias,
            activation: Activation::Relu,
            ..Epilogue::default()
        },
        Epilogue {
            bias,
            residual,
            activation: Activation::Clamp(-0.5, 0.75),
            ..Epilogue::default()
        },
        Epilogue {
            bias,
            residual,
            residual_last: true,
            activation: Activation::Relu,
        },
        Epilogue {
            bias,
            residual,
            residual_last: true,
            activation: Activation::HardSwish,
        },
        Epilogue {
            residual,
            activation: Activation::LeakyRelu(0.1),
            ..Epilogue::default()
        },
    ]
}

fn product(m: usize, k: usize, n: usize, width: usize, kind: usize, epilogue_at: usize) {
    let (a_stride, out_stride, residual_stride) = (k + 3, n + 2, n + 5);
    let a = numbers(m * a_stride, 1);
    let (bias, residual) = (numbers(n, 2), numbers(m * residual_stride, 3));
    let epilogue = epilogues(&bias, &residual)[epilogue_at % 6];
    let plain = numbers(k * n, 4);
    let halves: Vec<u16> = match kind {
        1 => plain.iter().map(|x| f16::from_f32(*x).to_bits()).collect(),
        _ => plain.iter().map(|x| bf16::from_f32(*x).to_bits()).collect(),
    };
    let wide: Vec<f64> = match kind {
        0 => plain.iter().map(|x| f64::from(*x)).collect(),
        1 => halves.iter().map(|x| f16::from_bits(*x).to_f64()).collect(),
        _ => halves.iter().map(|x| bf16::from_bits(*x).to_f64()).collect(),
    };
    let (mut floats, mut words) = (
        vec![f32::NAN; packed_len(k, n, width)],
        vec![0; packed_len(k, n, width)],
    );
    pack_matrix(k, n, width, &plain, n, 1, &mut floats);
    pack_matrix(k, n, width, &halves, n, 1, &mut words);
    let stored = match kind {
        0 => Stored::F32(&floats),
        1 => Stored::F16(&words),
        _ => Stored::BF16(&words),
    };
    let weights = Packed { stored, k, n, width };
    for isa in Isa::all() {
        let mut out = vec![7.0; m * out_stride];
        gemm(
            isa,
            &Serial,
            m,
            &a,
            a_stride,
            &weights,
            &mut out,
            out_stride,
            &epilogue,
            residual_stride,
        );
        for row in 0..m {
            for column in 0..n {
                let terms = || (0..k).map(|i| f64::from(a[row * a_stride + i]) * wide[i * n + column]);
                let magnitude = terms().map(f64::abs).sum::<f64>() + 2.0;
                let residual = epilogue.residual.map(|all| all[row * residual_stride + column]);
                let want = finish(&epilogue, terms().sum(), column, residual);
                let have = out[row * out_stride + column];
                assert!(
                    close(have, want, magnitude * 2.0, k),
                    "{isa} {m} {k} {n}, {width}: [{row}, {column}] {have}, not {want}"
                );
            }
            assert!(
                out[row * out_stride + n..(row + 1) * out_stride]
                    .iter()
                    .all(|x| *x == 7.0)
            );
        }
        for threads in [2, 3, 16] {
            let mut other = vec![7.0; m * out_stride];
            gemm(
                isa,
                &Several(threads),
                m,
                &a,
                a_stride,
                &weights,
                &mut other,
                out_stride,
                &epilogue,
                residual_stride,
            );
            assert!(
                out.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{isa}, {threads} threads"
            );
        }
    }
}

#[test]
fn every_tail_of_rows_and_columns_is_right() {
    let mut at = 0;
    for m in (0..=14).chain([23, 24, 25, 37]) {
        for n in [0, 1, 7, 8, 9, 16, 17, 31, 33, 64, 65, 129] {
            for k in [0, 1, 2, 19] {
                at += 1;
                product(m, k, n, [8, 16, 32][at % 3], at / 3 % 3, at / 9);
            }
        }
    }
}

#[test]
fn every_kind_of_weights_and_epilogue_is_right() {
    for width in [8, 16, 32] {
        for kind in 0..3 {
            for epilogue in 0..6 {
                product(13, 21, 43, width, kind, epilogue);
                product(1, 5, 300, width, kind, epilogue);
            }
        }
    }
}

#[test]
fn long_sums_and_many_rows_are_blocked_rightly() {
    product(5, 2500, 40, 16, 0, 3);
    product(26, 1100, 70, 32, 1, 4);
    product(700, 130, 37, 16, 0, 2);
    product(1, 1030, 520, 32, 2, 1);
    product(2, 777, 263, 8, 0, 5);
}

#[test]
fn what_is_no_number_stays_none() {
    let a = [1.0, f32::NAN, 1.0, f32::INFINITY];
    let mut packed = vec![0.0; packed_len(2, 1, 16)];
    pack(2, 1, 16, |_, _| 1.0, &mut packed);
    let epilogue = Epilogue {
        activation: Activation::Clamp(0.0, 6.0),
        ..Epilogue::default()
    };
    for isa in Isa::all() {
        let mut out = [0.0; 2];
        let weights = Packed {
            stored: Stored::F32(&packed),
            k: 2,
            n: 1,
            width: 16,
        };
        gemm(isa, &Serial, 2, &a, 2, &weights, &mut out, 1, &epilogue, 1);
        assert!(out[0].is_nan() && out[1] == 6.0);
    }
}

#[test]
fn products_of_activations_are_right() {
    let mut at = 0;
    for m in [1, 2, 4, 5, 13] {
        for n in [1, 16, 33, 70] {
            for k in [0, 1, 40, 67] {
                for turned in [false, true] {
                    at += 1;
                    activations(1 + at % 4, [m, k, n], turned, at);
                }
            }
        }
    }
    activations(0, [2, 3, 4], true, 1);
}

fn activations(batch: usize, [m, k, n]: [usize; 3], turned: bool, at: usize) {
    let shape = Batch {
        batch,
        m,
        k,
        n,
        a: [if at.is_multiple_of(3) { 0 } else { m * (k + 1) }, k + 1],
        b: if turned {
            [n * (k + 2), 1, k + 2]
        } else {
            [k * (n + 2), n + 2, 1]
        },
        out: [m * (n + 3) + 1, n + 3],
    };
    let (a, b) = (
        numbers(batch * m * (k + 1), 1),
        numbers(batch * (n * (k + 2)).max(k * (n + 2)), 2),
    );
    let count = batch * shape.out[0];
    let (bias, residual) = (numbers(n, 3), numbers(count, 4));
    let epilogue = epilogues(&bias, &residual)[at % 6];
    for isa in Isa::all() {
        for threads in [1, 2, 3] {
            let mut scratch = vec![f32::NAN; scratch_len(isa, &shape, threads)];
            let mut out = vec![7.0; count];
            matmul(
                isa,
                &Several(threads),
                &shape,
                &a,
                &b,
                &mut out,
                &epilogue,
                &mut scratch,
            );
            for (i, have) in out.iter().enumerate() {
                let (at, row, column) = (
                    i / shape.out[0],
                    i % shape.out[0] / shape.out[1],
                    i % shape.out[0] % shape.out[1],
                );
                if row >= m || column >= n {
                    assert_eq!(*have, 7.0);
                    continue;
                }
                let left = |i: usize| f64::from(a[at * shape.a[0] + row * shape.a[1] + i]);
                let right = |i: usize| f64::from(b[at * shape.b[0] + i * shape.b[1] + column * shape.b[2]]);
                let terms = || (0..k).map(|i| left(i) * right(i));
                let magnitude = terms().map(f64::abs).sum::<f64>() + 2.0;
                let want = finish(&epilogue, terms().sum(), column, epilogue.residual.map(|all| all[i]));
                assert!(
                    close(*have, want, magnitude * 2.0, k),
                    "{isa} {shape:?}: {have}, not {want}"
                );
            }
        }
    }
}
