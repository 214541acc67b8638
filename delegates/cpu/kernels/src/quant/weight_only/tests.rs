use super::*;
use crate::quant::q4::{Scales, Width};
use crate::{Activation, Serial};

fn random(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state >> 8
}

struct Two;

impl Pool for Two {
    fn threads(&self) -> usize {
        2
    }
    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(body);
    }
}

#[test]
fn floats_by_every_code_are_right_on_every_instruction_set() {
    let sizes: [(usize, usize, usize, usize); 10] = [
        (1, 32, 16, 32),
        (2, 33, 17, 32),
        (3, 300, 40, 64),
        (5, 70, 8, 32),
        (7, 1, 1, 32),
        (8, 64, 24, 32),
        (13, 600, 33, 128),
        (125, 40, 20, 32),
        (9, 0, 5, 32),
        (0, 7, 5, 32),
    ];
    for (rows, inputs, outputs, group) in sizes {
        for bits in [8u32, 4, 2] {
            for with_zeros in [false, true] {
                let state = &mut (rows as u32 * 31 + inputs as u32 + bits);
                let low = -(1i32 << (bits - 1));
                let groups = inputs.div_ceil(group);
                let mut real = |scale: f32| (random(state) as f32 / (1 << 23) as f32 - 1.0) * scale;
                let x: Vec<f32> = (0..rows * inputs).map(|_| real(1.0)).collect();
                let scales: Vec<f32> = (0..outputs * groups).map(|_| real(0.1)).collect();
                let bias: Vec<f32> = (0..outputs).map(|_| real(1.0)).collect();
                let residual: Vec<f32> = (0..outputs * rows).map(|_| real(1.0)).collect();
                let zeros: Option<Vec<f32>> = with_zeros.then(|| (0..outputs * groups).map(|_| real(2.0)).collect());
                let values: Vec<i8> = (0..outputs * inputs)
                    .map(|_| (random(state) % (1 << bits)) as i32 + low)
                    .map(|v| v as i8)
                    .collect();
                for width in [Width::Eight, Width::Sixteen] {
                    let (four, own);
                    let (shape, list);
                    let weights = if bits == 4 {
                        four = q4::pack(
                            outputs,
                            inputs,
                            group,
                            &values,
                            &scales,
                            zeros.as_deref(),
                            width,
                            Scales::Exact,
                        )
                        .unwrap();
                        Weights::Four(q4::Weights::new(four.0, &four.1).unwrap())
                    } else {
                        let code = if bits == 8 { Bits::Eight } else { Bits::Two };
                        own = pack(
                            code,
                            outputs,
                            inputs,
                            group,
                            &values,
                            &scales,
                            zeros.as_deref(),
                            Scales::Exact,
                        );
                        (shape, list) = own.unwrap();
                        Weights::Values(Values::new(shape, &list).unwrap())
                    };
                    for isa in Isa::all() {
                        let mut made = Vec::new();
                        for pool in [&Serial as &dyn Pool, &Two] {
                            let mut scratch = vec![f32::NAN; scratch_len(&weights, rows, pool)];
                            let mut y = vec![f32::NAN; rows * outputs + 1];
                            let epilogue = Epilogue {
                                bias: Some(&bias),
                                residual: Some(&residual),
                                residual_last: bits == 8,
                                activation: Activation::Relu,
                            };
                            linear(isa, pool, &x, rows, &weights, &epilogue, &mut scratch, &mut y);
                            assert!(y.pop().unwrap().is_nan());
                            made.push(y);
                        }
                        let same = made[0].iter().zip(&made[1]).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{isa} {bits} {rows} {inputs} {outputs}");
                        for (at, have) in made[0].iter().enumerate() {
                            let (row, output) = (at / outputs, at % outputs);
                            let (mut sum, mut reach) =
                                (0f64, 1f64 + f64::from(bias[output].abs() + residual[at].abs()));
                            for k in 0..inputs {
                                let index = output * groups + k / group;
                                let zero = zeros.as_ref().map_or(0.0, |zeros| f64::from(zeros[index]));
                                let (value, scale) = (f64::from(values[output * inputs + k]), f64::from(scales[index]));
                                let x = f64::from(x[row * inputs + k]);
                                sum += x * (value - zero) * scale;
                                // Bits and zero points are shifted to be positive, but for 8 bits.
                                let shift = if bits == 8 { 0.0 } else { f64::from(-low) };
                                reach += (x * scale).abs() * ((value + shift).abs() + (zero + shift).abs());
                            }
                            let (bias, residual) = (f64::from(bias[output]), f64::from(residual[at]));
                            let want = if bits == 8 {
                                (sum + bias).max(0.0) + residual
                            } else {
                                (sum + bias + residual).max(0.0)
                            };
                            // Each of the sums has at most as many roundings as inputs, and a few.
                            let bound = reach * f64::from(f32::EPSILON) * (inputs + 8) as f64;
                            assert!(
                                (f64::from(*have) - want).abs() <= bound,
                                "{isa} {bits} {width:?} {rows} {inputs} {outputs} at {at}: {have}, not {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn one_scale_a_channel_may_have_any_number_of_inputs() {
    let values: Vec<i8> = (0..3 * 37).map(|i| (i * 7 % 256) as u8 as i8).collect();
    let scales = [0.5, 0.25, 2.0];
    let (shape, bytes) = pack(Bits::Eight, 3, 37, 37, &values, &scales, None, Scales::Exact).unwrap();
    let weights = Weights::Values(Values::new(shape, &bytes).unwrap());
    for isa in Isa::all() {
        for rows in [1, 9] {
            let x = vec![1.0; 37 * rows];
            let (mut scratch, mut y) = (vec![0.0; scratch_len(&weights, rows, &Serial)], vec![0.0; 3 * rows]);
            linear(
                isa,
                &Serial,
                &x,
                rows,
                &weights,
                &Epilogue::default(),
                &mut scratch,
                &mut y,
            );
            let want = |n: usize| values[n * 37..][..37].iter().map(|v| f32::from(*v)).sum::<f32>() * scales[n];
            assert!((0..3 * rows).all(|i| y[i] == want(i % 3)), "{isa} {rows}");
        }
    }
}
