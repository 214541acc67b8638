use super::*;
use crate::Serial;

fn numbers(n: usize, step: usize, middle: f32) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * step) % 1009) as f32 / 251.0 - 2.0 + middle)
        .collect()
}

/// Mean and variance.
fn moments_of(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (
        mean,
        x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / x.len() as f64,
    )
}

#[test]
fn rows_are_normalised_as_in_doubles() {
    for n in [1, 2, 7, 16, 17, 33, 100, 384, 1000, 5003] {
        for middle in [0.0, 1000.0, -30_000.0] {
            let rows = 3;
            let x = numbers(rows * n, 7919, middle);
            let (residual, weight, bias) = (numbers(rows * n, 31, 0.0), numbers(n, 17, 1.0), numbers(n, 5, 0.0));
            for (root_mean_square, add, weighted) in [
                (false, false, true),
                (false, true, false),
                (true, true, true),
                (true, false, false),
            ] {
                let norm = Norm {
                    columns: n,
                    root_mean_square,
                    weight: weighted.then_some(&weight[..]),
                    bias: (weighted && !root_mean_square).then_some(&bias[..]),
                    epsilon: 1e-5,
                };
                for isa in Isa::all() {
                    let (mut out, mut sum) = (vec![0.0; rows * n], vec![0.0; rows * n]);
                    let extra = add.then_some(&residual[..]);
                    norm.run(isa, &Serial, &x, extra, add.then_some(&mut sum[..]), &mut out);
                    let mut staged = vec![0.0; rows * n];
                    norm.run(isa, &Serial, &x, extra, None, &mut staged);
                    assert_eq!(out, staged);
                    for row in 0..rows {
                        let at = |i: usize| row * n + i;
                        let y: Vec<f64> = (0..n)
                            .map(|i| f64::from(if add { x[at(i)] + residual[at(i)] } else { x[at(i)] }))
                            .collect();
                        assert!(!add || (0..n).all(|i| f64::from(sum[at(i)]) == y[i]));
                        let (mean, variance) = match root_mean_square {
                            true => (0.0, y.iter().map(|y| y * y).sum::<f64>() / n as f64),
                            false => moments_of(&y),
                        };
                        for (i, y) in y.iter().enumerate() {
                            let normal = (y - mean) / (variance + 1e-5).sqrt();
                            let w = norm.weight.map_or(1.0, |w| f64::from(w[i]));
                            let want = normal * w + norm.bias.map_or(0.0, |b| f64::from(b[i]));
                            // Sums of up to 2048 / 4 floats a lane: their errors are some 20 halves of an ulp at most times the root of the
                            // count; the rest is a few roundings of the result.
                            let bound = 3e-6 * (normal.abs() + 0.1) * (w.abs() + 0.1) + 1e-6 * want.abs();
                            let have = f64::from(out[at(i)]);
                            assert!(
                                (have - want).abs() <= bound,
                                "{isa}, {n}, {middle}, {root_mean_square}: {have}, not {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn groups_are_normalised_in_both_layouts() {
    for (batch, channels, spatial, groups) in [
        (1, 4, 9, 2),
        (2, 32, 49, 8),
        (1, 30, 1200, 3),
        (3, 7, 1, 7),
        (1, 6, 1025, 1),
        (2, 0, 5, 1),
        (1, 64, 16, 32),
    ] {
        let n = batch * channels * spatial;
        let x = numbers(n, 7919, 500.0);
        let (weight, bias) = (numbers(channels, 17, 1.0), numbers(channels, 5, 0.0));
        for weighted in [true, false] {
            let norm = GroupNorm {
                batch,
                channels,
                spatial,
                groups,
                weight: weighted.then_some(&weight[..]),
                bias: weighted.then_some(&bias[..]),
                epsilon: 1e-3,
            };
            let mut nhwc = vec![0.0; n];
            for image in 0..batch {
                for channel in 0..channels {
                    for place in 0..spatial {
                        nhwc[(image * spatial + place) * channels + channel] =
                            x[(image * channels + channel) * spatial + place];
                    }
                }
            }
            for isa in Isa::all() {
                let (mut first, mut last) = (vec![0.0; n], vec![0.0; n]);
                norm.run_nchw(isa, &Serial, &x, &mut first);
                let mut scratch = vec![f32::NAN; norm.scratch_len()];
                norm.run_nhwc(isa, &Serial, &nhwc, &mut last, &mut scratch);
                for image in 0..batch {
                    for group in 0..groups {
                        let each = channels / groups;
                        let start = (image * channels + group * each) * spatial;
                        let y: Vec<f64> = x[start..][..each * spatial].iter().map(|x| f64::from(*x)).collect();
                        let (mean, variance) = moments_of(&y);
                        for (i, y) in y.iter().enumerate() {
                            let channel = group * each + i / spatial;
                            let normal = (y - mean) / (variance + 1e-3).sqrt();
                            let (w, b) = match weighted {
                                true => (f64::from(weight[channel]), f64::from(bias[channel])),
                                false => (1.0, 0.0),
                            };
                            let want = normal * w + b;
                            let bound = 3e-6 * (normal.abs() + 0.1) * (w.abs() + 0.1) + 1e-6 * (want.abs() + b.abs());
                            let place = i % spatial;
                            for have in [first[start + i], last[(image * spatial + place) * channels + channel]] {
                                let error = (f64::from(have) - want).abs();
                                assert!(error <= bound, "{isa}, {channels} x {spatial}: {have}, not {want}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_row() {
    let norm = Norm {
        columns: 20,
        root_mean_square: false,
        weight: None,
        bias: None,
        epsilon: 1e-5,
    };
    let mut x = numbers(40, 3, 0.0);
    x[5] = f32::NAN;
    for isa in Isa::all() {
        let mut out = vec![0.0; 40];
        norm.run(isa, &Serial, &x, None, None, &mut out);
        assert!(out[..20].iter().all(|x| x.is_nan()) && out[20..].iter().all(|x| x.is_finite()));
    }
}
