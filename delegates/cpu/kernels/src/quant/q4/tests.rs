use super::*;
use crate::quant::dynamic::Formula;
use crate::{Activation, Serial};

struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }
    fn real(&mut self) -> f32 {
        self.next() as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A pool that runs its parts backwards.
struct Backwards(usize);

impl Pool for Backwards {
    fn threads(&self) -> usize {
        self.0
    }
    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(body);
    }
}

struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    group: usize,
    x: Vec<f32>,
    values: Vec<i8>,
    scales: Vec<f32>,
    zeros: Option<Vec<f32>>,
    bias: Vec<f32>,
}

fn case(rows: usize, inputs: usize, outputs: usize, group: usize, zeros: u32, halves: bool) -> Case {
    let mut random = Random(rows as u32 * 7 + inputs as u32 * 13 + outputs as u32);
    let groups = inputs.div_ceil(group);
    Case {
        rows,
        inputs,
        outputs,
        group,
        x: (0..rows * inputs).map(|_| random.real() + 0.3).collect(),
        values: (0..outputs * inputs).map(|_| (random.next() % 16) as i8 - 8).collect(),
        scales: (0..outputs * groups)
            .map(|_| {
                let scale = random.real() * 0.1;
                if halves {
                    half::f16::from_f32(scale).to_f32()
                } else {
                    scale
                }
            })
            .collect(),
        zeros: match zeros {
            0 => None,
            1 => Some(
                (0..outputs * groups)
                    .map(|_| (random.next() % 16) as f32 - 8.0)
                    .collect(),
            ),
            _ => Some((0..outputs * groups).map(|_| random.real() * 8.0).collect()),
        },
        bias: (0..outputs).map(|_| random.real()).collect(),
    }
}

const FORMULA: Formula = Formula::AffineAsymmetric { eps: f32::MIN_POSITIVE };

fn run(case: &Case, dot: Dot, pool: &dyn Pool, width: Width) -> Vec<f32> {
    let (shape, bytes) = pack(
        case.outputs,
        case.inputs,
        case.group,
        &case.values,
        &case.scales,
        case.zeros.as_deref(),
        width,
        Scales::Exact,
    )
    .unwrap();
    assert_eq!(bytes.len(), shape.packed_len());
    // An odd address, since nothing is asked of it.
    let mut moved = vec![0u8; 1];
    moved.extend_from_slice(&bytes);
    let weights = Weights::new(shape, &moved[1..]).unwrap();
    let mut scratch = vec![f32::NAN; shape.scratch_len(case.rows)];
    let mut y = vec![f32::NAN; case.rows * case.outputs + 3];
    let epilogue = Epilogue {
        bias: Some(&case.bias),
        activation: Activation::Relu,
        ..Epilogue::default()
    };
    linear(
        dot,
        pool,
        Scheme::rows(FORMULA),
        &case.x,
        case.rows,
        &weights,
        &epilogue,
        &mut scratch,
        &mut y,
    );
    assert!(
        y[case.rows * case.outputs..].iter().all(|y| y.is_nan()),
        "written behind the end"
    );
    y.truncate(case.rows * case.outputs);
    y
}

/// In wide floats from the same bytes, with a bound for each result's error.
fn plain(case: &Case) -> Vec<(f64, f64)> {
    let groups = case.inputs.div_ceil(case.group);
    let mut out = Vec::new();
    for row in 0..case.rows {
        let mut bytes = vec![0i8; case.inputs];
        let x = &case.x[row * case.inputs..][..case.inputs];
        let made = super::super::dynamic::quantize_row(crate::Isa::Scalar, FORMULA, x, &mut bytes);
        for output in 0..case.outputs {
            let (mut sum, mut reach) = (0f64, 0f64);
            for (k, byte) in bytes.iter().enumerate() {
                let index = output * groups + k / case.group;
                let zero = case.zeros.as_ref().map_or(0.0, |zeros| f64::from(zeros[index]));
                let scale = f64::from(case.scales[index]);
                let weight = f64::from(case.values[output * case.inputs + k]) - zero;
                sum += scale * weight * f64::from(i32::from(*byte) - made.zero);
                // What is added up: bits by bytes, zero points by bytes, and the correction.
                let value = f64::from(case.values[output * case.inputs + k]) + 8.0;
                let parts = (value + (zero + 8.0).abs()) * f64::from(byte.unsigned_abs())
                    + weight.abs() * f64::from(made.zero.abs());
                reach += scale.abs() * parts;
            }
            let scale = f64::from(made.scale);
            let real = sum * scale + f64::from(case.bias[output]);
            // One rounding a group and one of its zero point, and a few behind them.
            let steps = (2 * groups + 6) as f64;
            let bound = steps * f64::from(f32::EPSILON) * (reach * scale + f64::from(case.bias[output].abs())) + 1e-30;
            out.push((real.max(0.0), bound));
        }
    }
    out
}

#[test]
fn every_way_to_multiply_gives_the_same_bits_and_they_are_right() {
    let sizes = [
        (1, 32, 8, 32),
        (1, 64, 17, 32),
        (2, 33, 16, 32),
        (3, 128, 5, 64),
        (4, 100, 33, 32),
        (5, 300, 9, 128),
        (7, 96, 40, 96),
        (8, 512, 24, 256),
        (15, 160, 16, 64),
        (17, 31, 1, 32),
        (70, 64, 50, 32),
        (1, 1, 1, 32),
    ];
    for (rows, inputs, outputs, group) in sizes {
        for zeros in 0..3 {
            for halves in [false, true] {
                let case = case(rows, inputs, outputs, group, zeros, halves);
                let first = run(&case, Dot::Scalar, &Serial, Width::Eight);
                for ((have, (want, bound)), at) in first.iter().zip(plain(&case)).zip(0..) {
                    assert!(
                        (f64::from(*have) - want).abs() <= bound,
                        "{rows} {inputs} {outputs} {group} {zeros} at {at}: {have}, not {want}"
                    );
                }
                for dot in Dot::all() {
                    for width in [Width::Eight, Width::Sixteen] {
                        for threads in [1, 3] {
                            let have = run(&case, dot, &Backwards(threads), width);
                            let same = have.iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits());
                            assert!(
                                same,
                                "{dot:?} {width:?} {rows} {inputs} {outputs} {group} {zeros} {halves}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_largest_numbers_do_not_wrap() {
    for dot in Dot::all() {
        for width in [Width::Eight, Width::Sixteen] {
            for group in [32, 256] {
                let mut case = case(4, 512, 16, group, 0, true);
                // Bytes of -128, or 127, by bits of 15.
                case.values.fill(7);
                case.scales.fill(1.0);
                case.bias.fill(0.0);
                case.x.fill(-1.0);
                for row in 0..2 {
                    case.x[row * 512..][..512].fill(255.0);
                }
                let want = plain(&case);
                for (have, (want, bound)) in run(&case, dot, &Serial, width).iter().zip(want) {
                    assert!((f64::from(*have) - want).abs() <= bound, "{dot:?} {have} {want}");
                }
            }
        }
    }
}

#[test]
fn nothing_times_something_is_the_bias() {
    for dot in Dot::all() {
        assert_eq!(run(&case(0, 64, 8, 32, 0, true), dot, &Serial, Width::Eight), []);
        assert_eq!(run(&case(3, 64, 0, 32, 0, true), dot, &Serial, Width::Eight), []);
        let empty = case(2, 0, 3, 32, 0, true);
        let want: Vec<f32> = (0..6).map(|i| empty.bias[i % 3].max(0.0)).collect();
        assert_eq!(run(&empty, dot, &Serial, Width::Sixteen), want);
    }
}

#[test]
fn a_nan_stays_in_its_row() {
    for dot in Dot::all() {
        let mut case = case(3, 64, 20, 32, 0, true);
        case.x[64 + 5] = f32::NAN;
        let y = run(&case, dot, &Serial, Width::best(dot));
        for (i, y) in y.iter().enumerate() {
            assert_eq!(y.is_nan(), i / 20 == 1, "{dot:?} {i}");
        }
    }
}

#[test]
fn weights_are_read_as_they_were_packed() {
    for width in [Width::Eight, Width::Sixteen] {
        for zeros in 0..3 {
            let case = case(1, 100, 19, 64, zeros, true);
            let (shape, bytes) = pack(
                19,
                100,
                64,
                &case.values,
                &case.scales,
                case.zeros.as_deref(),
                width,
                Scales::Exact,
            )
            .unwrap();
            let weights = Weights::new(shape, &bytes).unwrap();
            assert!(Weights::new(shape, &bytes[1..]).is_none());
            for output in 0..19 {
                for k in 0..100 {
                    let index = output * 2 + k / 64;
                    let zero = case.zeros.as_ref().map_or(0.0, |zeros| zeros[index]) + 8.0;
                    let want = ((case.values[output * 100 + k] + 8) as u8, case.scales[index], zero);
                    assert_eq!(weights.at(output, k), want);
                }
                let mut row = [f32::NAN; 100];
                weights.row(output, &mut row);
                for (k, got) in row.iter().enumerate() {
                    let (bits, scale, zero) = weights.at(output, k);
                    assert_eq!(*got, (f32::from(bits) - zero) * scale);
                }
            }
        }
    }
    let refused =
        |group, len, value| pack(1, len, group, &[value; 32], &[1.0], None, Width::Eight, Scales::Exact).err();
    assert_eq!(refused(48, 32, 0), Some(PackError::Group));
    assert_eq!(refused(32, 33, 0), Some(PackError::Len));
    assert_eq!(refused(32, 32, 8), Some(PackError::Value));
}
