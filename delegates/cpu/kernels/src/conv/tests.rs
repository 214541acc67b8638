use super::*;
use crate::gemm::tests::{Several, close, epilogues, finish, numbers};

/// The smallest of its kind, to be changed.
fn shape(size: [usize; 2], channels: [usize; 2], kernel: [usize; 2]) -> Shape {
    Shape {
        batch: 1,
        height: size[0],
        width: size[1],
        channels: channels[0],
        out_channels: channels[1],
        kernel,
        stride: [1; 2],
        padding: [[0; 2]; 2],
        dilation: [1; 2],
        groups: 1,
    }
}

/// Sums in `f64` and of magnitudes, one pair for each number of the output, channels last. `input(image, y, x, channel)` and `weight(output
/// channel, channel of the group, y, x)`.
pub(crate) fn plain(
    shape: &Shape,
    input: impl Fn(usize, usize, usize, usize) -> f32,
    weight: impl Fn(usize, usize, usize, usize) -> f32,
) -> Vec<(f64, f64)> {
    let [height, width] = shape.output();
    let mut all = Vec::new();
    for at in 0..shape.batch * height * width * shape.out_channels {
        let (out, pixel) = (at % shape.out_channels, at / shape.out_channels);
        let (x, y, image) = (pixel % width, pixel / width % height, pixel / width / height);
        let group = out / shape.group_outputs();
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for term in 0..shape.terms() {
            let (channel, place) = (term % shape.group_channels(), term / shape.group_channels());
            let (down, across) = (place / shape.kernel[1], place % shape.kernel[1]);
            let y = (y * shape.stride[0] + down * shape.dilation[0]).wrapping_sub(shape.padding[0][0]);
            let x = (x * shape.stride[1] + across * shape.dilation[1]).wrapping_sub(shape.padding[1][0]);
            if y < shape.height && x < shape.width {
                let one = f64::from(input(image, y, x, group * shape.group_channels() + channel))
                    * f64::from(weight(out, channel, down, across));
                (sum, magnitude) = (sum + one, magnitude + one.abs());
            }
        }
        all.push((sum, magnitude));
    }
    all
}

fn same(shape: &Shape, width: usize, epilogue_at: usize) {
    let input = numbers(shape.batch * shape.height * shape.width * shape.channels, 1);
    let weights = numbers(shape.out_channels * shape.terms(), 2);
    let weight = |out: usize, channel: usize, y: usize, x: usize| {
        weights[((out * shape.group_channels() + channel) * shape.kernel[0] + y) * shape.kernel[1] + x]
    };
    let mut packed = vec![f32::NAN; packed_len(shape, width)];
    pack(shape, width, weight, &mut packed);
    let [height, out_width] = shape.output();
    let count = shape.batch * height * out_width * shape.out_channels;
    let (bias, residual) = (numbers(shape.out_channels, 3), numbers(count, 4));
    let epilogue = epilogues(&bias, &residual)[epilogue_at % 6];
    for layout in [Layout::ChannelsLast, Layout::ChannelsFirst] {
        let get = |image: usize, y: usize, x: usize, channel: usize| match layout {
            Layout::ChannelsLast => input[((image * shape.height + y) * shape.width + x) * shape.channels + channel],
            Layout::ChannelsFirst => input[((image * shape.channels + channel) * shape.height + y) * shape.width + x],
        };
        let want = plain(shape, get, weight);
        for isa in Isa::all() {
            let mut scratch = vec![f32::NAN; scratch_len(shape, layout, 3)];
            let mut run = |pool: &dyn Pool| {
                let mut out = vec![f32::NAN; count];
                let stored = Stored::F32(&packed);
                conv(
                    isa,
                    pool,
                    shape,
                    layout,
                    &input,
                    stored,
                    width,
                    &mut out,
                    &epilogue,
                    &mut scratch,
                );
                out
            };
            let out = run(&Serial);
            for (at, (have, (sum, magnitude))) in out.iter().zip(&want).enumerate() {
                let want = finish(
                    &epilogue,
                    *sum,
                    at % shape.out_channels,
                    epilogue.residual.map(|all| all[at]),
                );
                let fine = close(*have, want, magnitude * 2.0 + 4.0, shape.terms());
                assert!(fine, "{isa} {shape:?} {layout:?}: [{at}] {have}, not {want}");
            }
            let other = run(&Several(3));
            assert!(
                out.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{isa} {shape:?}"
            );
        }
    }
}

#[test]
fn every_kernel_step_and_border_is_right() {
    let mut at = 0;
    for kernel in [[1, 1], [3, 3], [1, 5], [2, 3], [7, 7]] {
        for stride in [[1, 1], [2, 2], [1, 3]] {
            for padding in [[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 2], [3, 1]]] {
                for dilation in [[1, 1], [2, 1], [1, 2]] {
                    at += 1;
                    let channels = [[1, 1], [3, 17], [16, 9], [20, 33]][at % 4];
                    let one = shape([[9, 11], [7, 7], [13, 8]][at % 3], channels, kernel);
                    let one = Shape {
                        batch: 1 + at % 2,
                        stride,
                        padding,
                        dilation,
                        ..one
                    };
                    same(&one, [8, 16, 32][at % 3], at);
                }
            }
        }
    }
}

#[test]
fn groups_have_their_own_weights() {
    for (groups, channels) in [(2, [6, 10]), (3, [9, 3]), (5, [5, 10]), (4, [64, 68])] {
        for kernel in [[1, 1], [3, 3]] {
            let one = shape([6, 5], channels, kernel);
            same(
                &Shape {
                    groups,
                    padding: [[1, 1], [1, 1]],
                    ..one
                },
                8,
                groups,
            );
            same(
                &Shape {
                    groups,
                    stride: [2, 1],
                    ..one
                },
                16,
                groups + 1,
            );
        }
    }
}

#[test]
fn small_and_empty_ones_are_right() {
    for size in [[0, 3], [1, 1], [2, 1], [1, 9]] {
        let one = shape(size, [4, 5], [3, 3]);
        same(&one, 16, 1);
        same(
            &Shape {
                padding: [[1, 1], [1, 1]],
                ..one
            },
            16,
            3,
        );
        same(
            &Shape {
                padding: [[4, 4], [4, 4]],
                ..one
            },
            16,
            2,
        );
        same(
            &Shape {
                kernel: [1, 1],
                batch: 0,
                ..one
            },
            16,
            2,
        );
        same(
            &Shape {
                channels: 0,
                padding: [[1, 1], [1, 1]],
                ..one
            },
            16,
            1,
        );
    }
    // Many channels: sums in several parts.
    same(&shape([4, 5], [700, 20], [3, 1]), 32, 4);
    same(
        &Shape {
            padding: [[1, 1], [1, 1]],
            ..shape([4, 5], [130, 20], [3, 3])
        },
        16,
        4,
    );
}

#[test]
fn one_filter_a_channel_is_right() {
    let mut at = 0;
    for channels in [1, 3, 4, 15, 16, 17, 31, 40] {
        for kernel in [[3, 3], [5, 5], [1, 3], [4, 2]] {
            for stride in [[1, 1], [2, 2], [1, 3]] {
                for padding in [[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 3], [2, 4]]] {
                    at += 1;
                    let size = [[5, 6], [9, 16], [3, 1], [7, 23], [0, 4]][at % 5];
                    let dilation = [[1, 1], [1, 1], [2, 1], [1, 2]][at / 5 % 4];
                    let one = shape(size, [channels; 2], kernel);
                    let one = Shape {
                        batch: 1 + at % 2,
                        stride,
                        padding,
                        dilation,
                        groups: channels,
                        ..one
                    };
                    one_filter(&one, at);
                }
            }
        }
    }
}

#[test]
fn groups_of_few_channels_are_right() {
    let mut at = 0;
    for (groups, each) in [
        (32, [4, 4]),
        (7, [3, 3]),
        (5, [8, 8]),
        (3, [16, 16]),
        (9, [1, 2]),
        (6, [2, 1]),
        (2, [7, 5]),
        (2, [1, 1]),
    ] {
        for kernel in [[1, 1], [3, 3], [1, 4]] {
            for (stride, padding) in [
                ([1, 1], [[1, 1], [1, 1]]),
                ([2, 2], [[0, 0], [0, 0]]),
                ([1, 2], [[2, 0], [0, 3]]),
            ] {
                at += 1;
                let one = shape([[7, 6], [5, 13], [9, 4]][at % 3], each.map(|n| n * groups), kernel);
                let one = Shape {
                    batch: 1 + at % 2,
                    stride,
                    padding,
                    dilation: [[1, 1], [1, 2]][at / 2 % 2],
                    groups,
                    ..one
                };
                few_channels(&one, at);
            }
        }
    }
    assert!(!grouped::fits(&shape([3, 3], [4, 4], [1, 1]), 16), "one group");
}

fn few_channels(shape: &Shape, epilogue_at: usize) {
    let input = numbers(shape.batch * shape.height * shape.width * shape.channels, 1);
    let weights = numbers(shape.out_channels * shape.terms(), 2);
    let weight = |out: usize, channel: usize, y: usize, x: usize| {
        weights[((out * shape.group_channels() + channel) * shape.kernel[0] + y) * shape.kernel[1] + x]
    };
    let get = |image: usize, y: usize, x: usize, channel: usize| {
        input[((image * shape.height + y) * shape.width + x) * shape.channels + channel]
    };
    let want = plain(shape, get, weight);
    let (bias, residual) = (numbers(shape.out_channels, 3), numbers(want.len(), 4));
    let epilogue = epilogues(&bias, &residual)[epilogue_at % 6];
    for width in [8, 16] {
        if !grouped::fits(shape, width) {
            assert!(shape.group_channels().max(shape.group_outputs()) > width);
            continue;
        }
        let mut packed = vec![f32::NAN; grouped::packed_len(shape, width)];
        grouped::pack(shape, width, weight, &mut packed);
        for isa in Isa::all() {
            for threads in [1, 3] {
                let mut out = vec![f32::NAN; want.len()];
                let mut scratch = vec![f32::NAN; grouped::scratch_len(shape, width, threads)];
                let pool = Several(threads);
                grouped::conv(
                    isa,
                    &pool,
                    shape,
                    &input,
                    &packed,
                    width,
                    &mut out,
                    &epilogue,
                    &mut scratch,
                );
                for (at, (have, (sum, magnitude))) in out.iter().zip(&want).enumerate() {
                    let want = finish(
                        &epilogue,
                        *sum,
                        at % shape.out_channels,
                        epilogue.residual.map(|all| all[at]),
                    );
                    let fine = close(*have, want, magnitude * 2.0 + 4.0, shape.terms());
                    assert!(fine, "{isa} {width} {shape:?}: [{at}] {have}, not {want}");
                }
            }
        }
    }
}

fn one_filter(shape: &Shape, epilogue_at: usize) {
    let input = numbers(shape.batch * shape.height * shape.width * shape.channels, 1);
    let weights = numbers(shape.out_channels * shape.terms(), 2);
    let weight = |channel: usize, y: usize, x: usize| weights[(channel * shape.kernel[0] + y) * shape.kernel[1] + x];
    let mut packed = vec![f32::NAN; depthwise::packed_len(shape)];
    depthwise::pack(shape, weight, &mut packed);
    let get = |image: usize, y: usize, x: usize, channel: usize| {
        input[((image * shape.height + y) * shape.width + x) * shape.channels + channel]
    };
    let want = plain(shape, get, |out, _, y, x| weight(out, y, x));
    let (bias, residual) = (numbers(shape.out_channels, 3), numbers(want.len(), 4));
    let epilogue = epilogues(&bias, &residual)[epilogue_at % 6];
    for isa in Isa::all() {
        for threads in [1, 3] {
            let mut out = vec![f32::NAN; want.len()];
            depthwise::conv(isa, &Several(threads), shape, &input, &packed, &mut out, &epilogue);
            for (at, (have, (sum, magnitude))) in out.iter().zip(&want).enumerate() {
                let want = finish(
                    &epilogue,
                    *sum,
                    at % shape.out_channels,
                    epilogue.residual.map(|all| all[at]),
                );
                let fine = close(*have, want, magnitude * 2.0 + 4.0, shape.terms());
                assert!(fine, "{isa} {shape:?}: [{at}] {have}, not {want}");
            }
        }
    }
}
