use super::*;
use crate::pool::Pool;
use crate::pooling::Windows;
use crate::quant::Dot;
use crate::quant::dynamic::{Extent, Formula, Scheme, quantize_row};
use crate::{Activation, Isa, Serial};

struct Three;

impl Pool for Three {
    fn threads(&self) -> usize {
        3
    }
    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(body);
    }
}

struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }
    fn bytes(&mut self, n: usize) -> Vec<i8> {
        // Many of the extremes, where products are largest.
        (0..n)
            .map(|_| match self.next() % 4 {
                0 => -128,
                1 => 127,
                _ => self.next() as i8,
            })
            .collect()
    }
    fn reals(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n)
            .map(|_| (self.next() as f32 / (1 << 24) as f32 + 0.01) * scale)
            .collect()
    }
}

/// The module's formula, number by number.
fn plain(acc: i64, c: usize, stage: &Stage, grid: Option<Grid>) -> f32 {
    let real = match stage.bias {
        Bias::None => acc as f32 * stage.multiplier[c],
        Bias::Integers(bias) => (acc + i64::from(bias[c])) as f32 * stage.multiplier[c],
        Bias::Floats(bias) => acc as f32 * stage.multiplier[c] + bias[c],
    };
    let real = stage.activation.of(real);
    match grid {
        None => real,
        Some(g) => ((real * g.inverse).round_ties_even() + g.zero as f32).clamp(g.low as f32, g.high as f32),
    }
}

const SIGNED: Grid = Grid {
    inverse: 0.37,
    zero: 3,
    low: -128,
    high: 127,
};
const UNSIGNED: Grid = Grid {
    inverse: 0.21,
    zero: 7,
    low: 0,
    high: 255,
};

/// Runs a layer for every kind of input, target and bias, and compares.
fn check(
    what: &str,
    channels: usize,
    len: usize,
    x: &[i8],
    sums: &dyn Fn(&dyn Fn(i8) -> i64, i64) -> Vec<i64>,
    run: &dyn Fn(Bytes, &Stage, &mut Target),
) {
    let mut random = Random(channels as u32 + len as u32);
    let multiplier = random.reals(channels, 0.01);
    let floats = random.reals(channels, 3.0);
    let ints: Vec<i32> = (0..channels).map(|_| random.next() as i32 % 2000 - 1000).collect();
    let unsigned: Vec<u8> = x.iter().map(|x| *x as u8).collect();
    for (which, bias) in [Bias::None, Bias::Integers(&ints), Bias::Floats(&floats)]
        .into_iter()
        .enumerate()
    {
        let stage = Stage {
            multiplier: &multiplier,
            bias,
            activation: if which == 1 { Activation::Relu } else { Activation::None },
        };
        let (input, acc) = if which % 2 == 0 {
            (Bytes::I8(x, -5), sums(&|x| i64::from(x), -5))
        } else {
            (Bytes::U8(&unsigned, 131), sums(&|x| i64::from(x as u8), 131))
        };
        assert_eq!(acc.len(), len);
        let want = |grid| {
            acc.iter()
                .enumerate()
                .map(move |(i, acc)| plain(*acc, i % channels.max(1), &stage, grid))
        };
        let mut reals = vec![f32::NAN; len];
        run(input, &stage, &mut Target::F32(&mut reals));
        assert!(want(None).eq(reals), "{what}: reals, {which}");
        // All bytes; some; and numbers beyond 16 and beyond 32 bits, too.
        let with = |inverse, low, high, grid: Grid| Grid {
            inverse,
            low,
            high,
            ..grid
        };
        for grid in [
            SIGNED,
            with(0.37, -100, 90, SIGNED),
            with(4e3, -128, 127, SIGNED),
            with(4e7, -128, 127, SIGNED),
        ] {
            let mut bytes = vec![0i8; len];
            run(input, &stage, &mut Target::I8(&mut bytes, grid));
            assert!(
                want(Some(grid)).map(|q| q as i8).eq(bytes),
                "{what}: signed, {which}, {grid:?}"
            );
        }
        for grid in [
            UNSIGNED,
            with(0.21, 7, 90, UNSIGNED),
            with(4e3, 0, 255, UNSIGNED),
            with(4e7, 0, 255, UNSIGNED),
        ] {
            let mut bytes = vec![0u8; len];
            run(input, &stage, &mut Target::U8(&mut bytes, grid));
            assert!(
                want(Some(grid)).map(|q| q as u8).eq(bytes),
                "{what}: unsigned, {which}, {grid:?}"
            );
        }
    }
}

#[test]
fn linear_layers_are_exact_on_every_machine() {
    for (rows, inputs, outputs) in [
        (0, 3, 4),
        (2, 0, 3),
        (1, 1, 1),
        (1, 70, 33),
        (3, 4, 16),
        (5, 31, 17),
        (9, 130, 40),
        (33, 67, 5),
        (70, 16, 100),
    ] {
        let mut random = Random(rows as u32 * 3 + inputs as u32);
        let (x, w) = (random.bytes(rows * inputs), random.bytes(inputs * outputs));
        let shape = Shape { inputs, outputs };
        let mut packed = Vec::new();
        pack(shape, &w, &mut packed);
        let weights = Weights::new(shape, &packed).unwrap();
        let sums = |of: &dyn Fn(i8) -> i64, zero: i64| {
            let at = |row: usize, n: usize| {
                (0..inputs)
                    .map(|k| (of(x[row * inputs + k]) - zero) * i64::from(w[n * inputs + k]))
                    .sum()
            };
            (0..rows * outputs).map(|i| at(i / outputs, i % outputs)).collect()
        };
        for dot in Dot::all() {
            for pool in [&Serial as &dyn Pool, &Three] {
                let what = format!("{dot:?} {rows} {inputs} {outputs}");
                check(&what, outputs, rows * outputs, &x, &sums, &|x, stage, target| {
                    let mut scratch = vec![f32::NAN; linear_scratch_len(inputs, pool)];
                    linear(dot, pool, x, rows, weights, stage, &mut scratch, target);
                });
            }
        }
    }
}

fn convolutions() -> Vec<Conv> {
    let plain = Conv {
        batch: 1,
        size: [5, 6],
        channels: [3, 7],
        kernel: [3, 3],
        stride: [1, 1],
        before: [1, 1],
        after: [1, 1],
        dilation: [1, 1],
        groups: 1,
    };
    vec![
        plain,
        Conv {
            kernel: [1, 1],
            before: [0, 0],
            after: [0, 0],
            channels: [20, 33],
            batch: 2,
            ..plain
        },
        Conv {
            stride: [2, 2],
            before: [0, 0],
            channels: [16, 16],
            size: [9, 9],
            ..plain
        },
        Conv {
            dilation: [2, 1],
            stride: [1, 2],
            channels: [4, 6],
            groups: 2,
            ..plain
        },
        Conv {
            kernel: [5, 2],
            before: [4, 3],
            after: [4, 0],
            size: [2, 3],
            dilation: [1, 3],
            ..plain
        },
        Conv {
            size: [1, 1],
            kernel: [3, 3],
            before: [0, 0],
            after: [0, 0],
            ..plain
        },
        Conv { size: [0, 4], ..plain },
        // More rows than a block, more panels than a tile, and lines of the kernel that are no multiple of four bytes.
        Conv {
            size: [11, 13],
            channels: [5, 131],
            ..plain
        },
        Conv {
            size: [9, 17],
            channels: [8, 80],
            groups: 2,
            dilation: [1, 2],
            ..plain
        },
    ]
}

fn sums(conv: &Conv, x: &[i8], w: &[i8], of: &dyn Fn(i8) -> i64, zero: i64) -> Vec<i64> {
    let [height, width] = conv.output();
    let (own, out) = (conv.channels[0] / conv.groups, conv.channels[1] / conv.groups);
    let mut all = Vec::new();
    for (b, y, z, n) in (0..conv.output_len()).map(|i| {
        let (n, pixel) = (i % conv.channels[1], i / conv.channels[1]);
        (pixel / (height * width), pixel / width % height, pixel % width, n)
    }) {
        let mut sum = 0;
        for (i, j, c) in (0..conv.kernel[0] * conv.kernel[1] * own)
            .map(|k| (k / own / conv.kernel[1], k / own % conv.kernel[1], k % own))
        {
            let row = (y * conv.stride[0] + i * conv.dilation[0]) as i64 - conv.before[0] as i64;
            let column = (z * conv.stride[1] + j * conv.dilation[1]) as i64 - conv.before[1] as i64;
            if (0..conv.size[0] as i64).contains(&row) && (0..conv.size[1] as i64).contains(&column) {
                let pixel = (b * conv.size[0] + row as usize) * conv.size[1] + column as usize;
                let value = of(x[pixel * conv.channels[0] + n / out * own + c]) - zero;
                sum += value * i64::from(w[((n * conv.kernel[0] + i) * conv.kernel[1] + j) * own + c]);
            }
        }
        all.push(sum);
    }
    all
}

#[test]
fn convolutions_are_exact_on_every_machine() {
    for conv in convolutions() {
        let mut random = Random(7);
        let x = random.bytes(conv.input_len());
        let w = random.bytes(conv.channels[1] * conv.kernel[0] * conv.kernel[1] * conv.channels[0] / conv.groups);
        let packed = pack_conv2d(&conv, &w);
        assert_eq!(packed.len(), conv.packed_len());
        for dot in Dot::all() {
            for pool in [&Serial as &dyn Pool, &Three] {
                let all = |of: &dyn Fn(i8) -> i64, zero: i64| sums(&conv, &x, &w, of, zero);
                check(
                    &format!("{dot:?} {conv:?}"),
                    conv.channels[1],
                    conv.output_len(),
                    &x,
                    &all,
                    &|x, stage, target| {
                        let mut scratch = vec![f32::NAN; conv2d_scratch_len(&conv, pool)];
                        let winograd = conv2d_by_winograd(dot, &conv, &x, &packed);
                        conv2d(dot, pool, &conv, winograd, x, &packed, stage, &mut scratch, target);
                    },
                );
            }
        }
    }
}

/// What a convolution makes of bytes by one way to multiply.
fn bytes_of(dot: Dot, conv: &Conv, x: Bytes, w: &[u8], stage: &Stage, pool: &dyn Pool) -> (bool, Vec<i8>) {
    let mut scratch = vec![f32::NAN; conv2d_scratch_len(conv, pool)];
    let mut out = vec![0i8; conv.output_len()];
    let winograd = conv2d_by_winograd(dot, conv, &x, w);
    let mut target = Target::I8(&mut out, SIGNED);
    conv2d(dot, pool, conv, winograd, x, w, stage, &mut scratch, &mut target);
    (winograd, out)
}

#[test]
fn convolutions_of_3_by_3_are_exact_with_fewer_products() {
    for (size, channels, batch, after) in [
        ([7, 7], [16, 16], 1, 1),
        ([9, 13], [48, 40], 2, 1),
        ([4, 8], [128, 17], 1, 1),
        ([22, 19], [32, 16], 3, 0),
    ] {
        let conv = Conv {
            batch,
            size,
            channels,
            after: [1, after],
            ..convolutions()[0]
        };
        let mut random = Random(size[1] as u32);
        let x = random.bytes(conv.input_len());
        let unsigned: Vec<u8> = x.iter().map(|x| *x as u8).collect();
        let w = random.bytes(channels[1] * 9 * channels[0]);
        let multiplier = random.reals(channels[1], 0.0001);
        let stage = Stage {
            multiplier: &multiplier,
            bias: Bias::None,
            activation: Activation::None,
        };
        let packed = pack_conv2d(&conv, &w);
        let inputs = [-128, 127, 3].map(|zero| Bytes::I8(&x, zero));
        for x in inputs
            .into_iter()
            .chain([0, 255].map(|zero| Bytes::U8(&unsigned, zero)))
        {
            let (_, want) = bytes_of(Dot::Scalar, &conv, x, &packed, &stage, &Serial);
            for dot in Dot::all() {
                for pool in [&Serial as &dyn Pool, &Three] {
                    let (winograd, got) = bytes_of(dot, &conv, x, &packed, &stage, pool);
                    assert_eq!(winograd, dot == Dot::Avx2, "{dot:?} {conv:?}");
                    assert!(got == want, "{dot:?} {conv:?} {}", x.zero());
                }
            }
        }
    }
}

#[test]
fn sums_that_may_be_large_are_not_computed_with_fewer_products() {
    let conv = Conv {
        size: [8, 8],
        channels: [128, 16],
        ..convolutions()[0]
    };
    let (x, w) = (vec![127i8; conv.input_len()], vec![-128i8; 16 * 9 * 128]);
    let packed = pack_conv2d(&conv, &w);
    let multiplier = [1e-6; 16];
    let stage = Stage {
        multiplier: &multiplier,
        bias: Bias::None,
        activation: Activation::None,
    };
    let (_, want) = bytes_of(Dot::Scalar, &conv, Bytes::I8(&x, -128), &packed, &stage, &Serial);
    for dot in Dot::all() {
        let (winograd, got) = bytes_of(dot, &conv, Bytes::I8(&x, -128), &packed, &stage, &Serial);
        assert!(!winograd && got == want, "{dot:?}");
        // A zero point in the middle halves the largest input.
        let middle = conv2d_by_winograd(dot, &conv, &Bytes::I8(&x, 0), &packed);
        assert_eq!(middle, dot == Dot::Avx2, "{dot:?}");
    }
}

#[test]
fn depthwise_convolutions_are_exact_on_every_machine() {
    let mut all = Vec::new();
    for conv in convolutions() {
        for channels in [1, 3, 8, 17, 40] {
            all.push(Conv {
                channels: [channels, channels],
                groups: channels,
                ..conv
            });
        }
    }
    let large = Conv {
        size: [20, 20],
        kernel: [17, 17],
        channels: [5, 5],
        groups: 5,
        ..convolutions()[0]
    };
    all.push(large);
    // Wide enough for pixels side by side.
    for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (4, 1)] {
        for channels in [4, 16, 23, 32, 45] {
            let (kernel, stride) = ([kernel; 2], [stride; 2]);
            all.push(Conv {
                size: [9, 21],
                kernel,
                stride,
                channels: [channels; 2],
                groups: channels,
                ..convolutions()[0]
            });
        }
    }
    for conv in all {
        let channels = conv.channels[0];
        let mut random = Random(11);
        let x = random.bytes(conv.input_len());
        let w = random.bytes(conv.kernel[0] * conv.kernel[1] * channels);
        // From HWC to a row for each channel.
        let taps = conv.kernel[0] * conv.kernel[1];
        let rows: Vec<i8> = (0..channels * taps)
            .map(|i| w[i % taps * channels + i / taps])
            .collect();
        let packed = pack_depthwise(&conv, &w);
        assert_eq!(packed.len(), depthwise_packed_len(&conv));
        for dot in Dot::all() {
            let all = |of: &dyn Fn(i8) -> i64, zero: i64| sums(&conv, &x, &rows, of, zero);
            check(
                &format!("{dot:?} {conv:?}"),
                channels,
                conv.output_len(),
                &x,
                &all,
                &|x, stage, target| {
                    depthwise2d(dot, &Three, &conv, x, &packed, stage, target);
                },
            );
        }
    }
}

#[test]
fn rows_quantized_here_are_exact_too() {
    for (rows, inputs, outputs, zeros, extent) in [
        (1, 64, 20, false, Extent::Row),
        (6, 33, 17, true, Extent::Row),
        (40, 7, 3, false, Extent::Row),
        (14, 40, 70, true, Extent::Row),
        (6, 33, 17, true, Extent::Tensor),
        (300, 300, 3, false, Extent::Tensor),
    ] {
        let mut random = Random(rows as u32);
        let (w, multiplier) = (random.bytes(inputs * outputs), random.reals(outputs, 0.1));
        let x: Vec<f32> = random.reals(rows * inputs, 2.0).iter().map(|x| x - 0.7).collect();
        let (shape, mut packed) = (Shape { inputs, outputs }, Vec::new());
        pack(shape, &w, &mut packed);
        let bias = random.reals(outputs, 1.0);
        let stage = Stage {
            multiplier: &multiplier,
            bias: Bias::Floats(&bias),
            activation: Activation::None,
        };
        let formula = Formula::AffineAsymmetric { eps: f32::MIN_POSITIVE };
        let others: Vec<i32> = (0..outputs as i32).map(|n| n % 11 - 5).collect();
        let others = if zeros { &others[..] } else { &[] };
        for dot in Dot::all() {
            let mut scratch = vec![f32::NAN; linear_dynamic_scratch_len(inputs, rows, &Three)];
            let mut y = vec![f32::NAN; rows * outputs];
            let weights = Weights::new(shape, &packed).unwrap();
            linear_dynamic(
                dot,
                &Three,
                Scheme { formula, extent },
                &x,
                rows,
                weights,
                others,
                &stage,
                &mut scratch,
                &mut Target::F32(&mut y),
            );
            // One scale for all rows is that of one long row.
            let length = if extent == Extent::Row { inputs } else { rows * inputs };
            let mut bytes = vec![0i8; rows * inputs];
            let pieces = x.chunks(length).zip(bytes.chunks_mut(length));
            let made: Vec<_> = pieces
                .map(|(x, bytes)| quantize_row(Isa::Scalar, formula, x, bytes))
                .collect();
            for (i, y) in y.iter().enumerate() {
                let (row, n) = (i / outputs, i % outputs);
                let made = made[row * inputs / length];
                let products = bytes[row * inputs..][..inputs]
                    .iter()
                    .zip(&w[n * inputs..])
                    .map(|(x, w)| (i32::from(*x) - made.zero) * (i32::from(*w) - others.get(n).unwrap_or(&0)));
                let want = products.sum::<i32>() as f32 * made.scale * multiplier[n] + bias[n];
                assert_eq!(*y, want, "{dot:?} {rows} {inputs} {outputs} {i}");
            }
        }
    }
}

/// The byte of a real, as plain arithmetic has it.
fn byte(real: f32, g: Grid) -> i32 {
    ((real * g.inverse).round_ties_even() + g.zero as f32).clamp(g.low as f32, g.high as f32) as i32
}

#[test]
fn two_tensors_of_bytes_become_one() {
    // Rows of a few channels for one pixel of the other, and both alike.
    for (rows, columns, rows_each) in [(0, 5, 1), (1, 1, 1), (1, 5000, 1), (6, 37, 3), (4, 16, 4)] {
        let mut random = Random(columns as u32);
        let (x, y) = (random.bytes(rows * columns), random.bytes(rows * columns));
        let y = &y[..rows.div_ceil(rows_each) * columns];
        let unsigned: Vec<u8> = x.iter().map(|x| *x as u8).collect();
        let sizes = Rows {
            rows,
            columns,
            rows_each,
        };
        for isa in Isa::all() {
            for (function, of) in [
                (Pair::Add, (|a, b| a + b) as fn(f32, f32) -> f32),
                (Pair::Sub, |a, b| a - b),
                (Pair::Mul, |a, b| a * b),
            ] {
                let b = Scaled {
                    bytes: Bytes::I8(y, -3),
                    scale: 0.07,
                };
                let want = |i: usize, a: f32, grid: Grid| {
                    let (row, column) = (i / columns, i % columns);
                    let b = f32::from(y[row / rows_each * columns + column]) + 3.0;
                    byte(of(a, b * 0.07), grid)
                };
                let a = Scaled {
                    bytes: Bytes::I8(&x, 9),
                    scale: 0.11,
                };
                let mut out = vec![0i8; rows * columns];
                pair(isa, &Three, function, a, b, sizes, &mut Target::I8(&mut out, SIGNED));
                for (i, out) in out.iter().enumerate() {
                    let want = want(i, (f32::from(x[i]) - 9.0) * 0.11, SIGNED);
                    assert_eq!(i32::from(*out), want, "{isa} {function:?} {sizes:?} {i}");
                }
                let a = Scaled {
                    bytes: Bytes::U8(&unsigned, 130),
                    scale: 0.11,
                };
                let mut out = vec![0u8; rows * columns];
                pair(isa, &Serial, function, a, b, sizes, &mut Target::U8(&mut out, UNSIGNED));
                for (i, out) in out.iter().enumerate() {
                    let want = want(i, (f32::from(unsigned[i]) - 130.0) * 0.11, UNSIGNED);
                    assert_eq!(i32::from(*out), want, "{isa} {function:?} {sizes:?} {i}, unsigned");
                }
            }
        }
    }
}

#[test]
fn tables_have_what_a_function_makes_of_each_byte() {
    let (scale, zero) = (0.05, -4);
    let made = table(Activation::HardSwish, true, zero, scale, &UNSIGNED);
    let x: Vec<u8> = (0..=255).cycle().take(9000).collect();
    let mut out = vec![7u8; x.len()];
    map(&Three, &made, &x, &mut out);
    for (x, out) in x.iter().zip(&out) {
        let real = f64::from(*x as i8 as i32 - zero) * f64::from(scale);
        let real = real * (real + 3.0).clamp(0.0, 6.0) / 6.0;
        let want = (real * f64::from(UNSIGNED.inverse) + f64::from(UNSIGNED.zero)).clamp(0.0, 255.0);
        assert!((want - f64::from(*out)).abs() <= 0.5 + 1e-4, "{x}: {out}, not {want}");
    }
}

#[test]
fn means_over_pixels_are_of_exact_sums() {
    for [batch, pixels, channels] in [[1, 49, 40], [2, 1, 3], [3, 64, 16], [0, 2, 2]] {
        let x = Random(5).bytes(batch * pixels * channels);
        let unsigned: Vec<u8> = x.iter().map(|x| *x as u8).collect();
        let factor = (0.3 / pixels as f64) as f32;
        let want = |of: &dyn Fn(usize) -> i32, at: usize| {
            let (image, c) = (at / channels, at % channels);
            let sum: i32 = (0..pixels).map(|p| of((image * pixels + p) * channels + c)).sum();
            byte(sum as f32 * factor, SIGNED)
        };
        for isa in Isa::all() {
            let mut out = vec![0i8; batch * channels];
            let sizes = [batch, pixels, channels];
            let target = &mut Target::I8(&mut out, SIGNED);
            mean(isa, &Three, Bytes::I8(&x, -7), factor, sizes, target);
            let all = (0..batch * channels).map(|at| want(&|i| i32::from(x[i]) + 7, at));
            assert!(all.eq(out.iter().map(|q| i32::from(*q))), "{isa} {sizes:?}");
            let target = &mut Target::I8(&mut out, SIGNED);
            mean(isa, &Serial, Bytes::U8(&unsigned, 121), factor, sizes, target);
            let all = (0..batch * channels).map(|at| want(&|i| i32::from(unsigned[i]) - 121, at));
            assert!(all.eq(out.iter().map(|q| i32::from(*q))), "{isa} {sizes:?}, unsigned");
        }
    }
}

#[test]
fn floats_become_bytes_in_their_order_and_with_channels_last() {
    for [batch, channels, pixels] in [[1, 3, 50], [2, 1, 5000], [2, 4, 17], [1, 2, 4097], [0, 3, 3]] {
        let x: Vec<f32> = Random(8)
            .reals(batch * channels * pixels, 900.0)
            .iter()
            .map(|x| x - 400.0)
            .collect();
        for isa in Isa::all() {
            let mut out = vec![0i8; x.len()];
            quantize(isa, &Three, &x, &mut Target::I8(&mut out, SIGNED));
            let all = x.iter().map(|x| byte(*x, SIGNED));
            assert!(all.eq(out.iter().map(|q| i32::from(*q))), "{isa} {}", x.len());
            let mut out = vec![0u8; x.len()];
            let sizes = [batch, channels, pixels];
            quantize_last(isa, &Three, &x, sizes, &mut Target::U8(&mut out, UNSIGNED));
            for (i, out) in out.iter().enumerate() {
                let (pixel, c) = (i / channels, i % channels);
                let (image, pixel) = (pixel / pixels, pixel % pixels);
                let want = byte(x[(image * channels + c) * pixels + pixel], UNSIGNED);
                assert_eq!(i32::from(*out), want, "{isa} {sizes:?} {i}");
            }
        }
    }
}

#[test]
fn windows_of_bytes_are_those_of_numbers() {
    let windows = |channels, input, output, kernel, stride, padding, dilation| Windows {
        batch: 2,
        channels,
        input,
        output,
        kernel,
        stride,
        padding,
        dilation,
    };
    for w in [
        windows(1, [4, 5], [2, 2], [2, 2], [2, 2], [0, 0], [1, 1]),
        windows(3, [7, 7], [4, 4], [3, 3], [2, 2], [1, 1], [1, 1]),
        windows(67, [5, 9], [3, 5], [3, 3], [2, 2], [1, 1], [1, 1]),
        windows(17, [8, 6], [4, 6], [3, 1], [2, 1], [0, 0], [2, 3]),
    ] {
        let x = Random(w.channels as u32).bytes(w.inputs());
        let unsigned: Vec<u8> = x.iter().map(|x| *x as u8).collect();
        for isa in Isa::all() {
            for (bytes, q) in [
                (Bytes::I8(&x, -7), x.iter().map(|q| i32::from(*q)).collect::<Vec<_>>()),
                (
                    Bytes::U8(&unsigned, 131),
                    unsigned.iter().map(|q| i32::from(*q)).collect(),
                ),
            ] {
                let scaled = Scaled { bytes, scale: 0.0371 };
                // Of each window, the bytes in it and how many places there are with the padding.
                let all: Vec<(Vec<i32>, usize)> = (0..w.outputs())
                    .map(|at| {
                        let (c, rest) = (at % w.channels, at / w.channels);
                        let (ox, rest) = (rest % w.output[1], rest / w.output[1]);
                        let (oy, image) = (rest % w.output[0], rest / w.output[0]);
                        let (mut inside, mut padded) = (Vec::new(), 0);
                        for ky in 0..w.kernel[0] {
                            for kx in 0..w.kernel[1] {
                                let place = |which: usize, o: usize, k: usize| {
                                    (o * w.stride[which] + k * w.dilation[which]) as isize - w.padding[which] as isize
                                };
                                let (y, px) = (place(0, oy, ky), place(1, ox, kx));
                                let (tall, wide) = (w.input[0] as isize, w.input[1] as isize);
                                padded +=
                                    usize::from(y < tall + w.padding[0] as isize && px < wide + w.padding[1] as isize);
                                if (0..tall).contains(&y) && (0..wide).contains(&px) {
                                    let at = (image * w.input[0] + y as usize) * w.input[1] + px as usize;
                                    inside.push(q[at * w.channels + c]);
                                }
                            }
                        }
                        (inside, padded)
                    })
                    .collect();
                let mut out = vec![77u8; w.outputs()];
                largest(isa, &Three, &w, bytes, &mut out);
                for (have, (inside, _)) in out.iter().zip(&all) {
                    let have = if bytes.signed() {
                        i32::from(*have as i8)
                    } else {
                        i32::from(*have)
                    };
                    assert_eq!(Some(&have), inside.iter().max(), "{isa} {w:?}");
                }
                for (count_padding, divisor) in [(true, None), (false, None), (false, Some(5))] {
                    let mut out = vec![77i8; w.outputs()];
                    average(
                        isa,
                        &Three,
                        &w,
                        count_padding,
                        divisor,
                        scaled,
                        &mut Target::I8(&mut out, SIGNED),
                    );
                    for (have, (inside, padded)) in out.iter().zip(&all) {
                        let reals = inside.iter().map(|q| (q - bytes.zero()) as f32 * scaled.scale);
                        let count = if count_padding { *padded } else { inside.len() };
                        let real = reals.fold(0.0f32, |sum, x| sum + x) / divisor.unwrap_or(count) as f32;
                        assert_eq!(
                            i32::from(*have),
                            byte(real, SIGNED),
                            "{isa} {w:?} {count_padding} {divisor:?}"
                        );
                    }
                }
            }
        }
    }
}
