//! Convolutions of 3 by 3 with stride 1 by Winograd's F(4x4, 3x3): tiles of 6 by 6 pixels and the filters are transformed, multiplied number by
//! number (36 products of matrices), and transformed back to 4 by 4 pixels. That is a quarter of the products of the direct form.
//!
//! **Error.** With `B`, `G` and `A` the transforms of tile, filter and output, each number is off by at most about `(channels + 40) * 2^-23`
//! times the number that comes out where all of `d`, `g` and the transforms are replaced by their magnitudes. That is some hundred times
//! the bound of the direct form at worst (`A` grows by up to 19, `B` by up to 10, each twice). Random numbers are far from it: of 64 channels the
//! worst of an image is below 1e-5 of the largest output, which a test asks for. An infinity or a NaN in the input spoils its whole tile, not just
//! what it is part of.

use super::{Shape, transform};
use crate::gemm::drive::{self, Job};
use crate::gemm::finish::Finish;
use crate::gemm::rows::Rows;
use crate::gemm::{self, Stored, check};
use crate::pool::{self, Pool, Serial, Shared};
use crate::simd::dispatch;
use crate::{Epilogue, Isa};
use std::ops::Range;

/// Bytes of transformed tiles, in and out, that one thread works on at once.
const BLOCK_BYTES: usize = 640 << 10;
/// Tiles at once at least: with fewer, the weights' way here takes longer than the products.
const FEWEST: usize = 24;
/// Floats between the matrices of a block, so that they do not all fall on the same lines of a cache.
const GAP: usize = 16;

/// Whether there is such a form of the convolution.
pub fn fits(shape: &Shape) -> bool {
    shape.kernel == [3, 3] && shape.stride == [1, 1] && shape.dilation == [1, 1] && shape.groups == 1
}

/// Whether it is also faster than the direct form, as it was found on Zen 4 (1.1 to 3.8 times from 8 channels on): there are at most half as many
/// products, and where the filters, which are four times as large as those of the direct form, come from afar, enough tiles that share them.
pub fn worth(shape: &Shape) -> bool {
    let [height, width] = shape.output();
    let count = tiles(shape).iter().product::<usize>();
    let channels = shape.channels.min(shape.out_channels);
    let few = 36 * shape.channels * shape.out_channels <= 1 << 20 || shape.batch * count >= 12;
    fits(shape) && channels >= 8 && few && count > 0 && height * width >= 8 * count
}

/// Elements of packed weights: 36 times those of a product of `channels` by `out_channels`.
pub fn packed_len(shape: &Shape, width: usize) -> usize {
    36 * gemm::packed_len(shape.channels, shape.out_channels, width)
}

/// Transforms and packs weights, which `source(output channel, channel, y, x)` gives: 36 matrices, each as [`gemm::pack`] makes them.
///
/// # Panics
/// If `out` is shorter than [`packed_len`].
pub fn pack(shape: &Shape, width: usize, source: impl Fn(usize, usize, usize, usize) -> f32, out: &mut [f32]) {
    let each = gemm::packed_len(shape.channels, shape.out_channels, width);
    let out = &mut out[..36 * each];
    out.fill(0.0);
    for column in 0..shape.out_channels {
        for row in 0..shape.channels {
            let filter = transform::filter(|y, x| f64::from(source(column, row, y, x)));
            let at = column / width * shape.channels * width + row * width + column % width;
            filter
                .iter()
                .enumerate()
                .for_each(|(i, x)| out[i * each + at] = *x as f32);
        }
    }
}

/// Rows and columns of tiles.
fn tiles(shape: &Shape) -> [usize; 2] {
    shape.output().map(|size| size.div_ceil(4))
}

/// In how many parts tiles are divided, each with its own scratch, and how many tiles a part works on at once.
fn division(shape: &Shape, threads: usize) -> (usize, usize) {
    let tiles = shape.batch * tiles(shape).iter().product::<usize>();
    let threads = threads.max(1);
    let parts = if tiles >= threads * FEWEST { threads } else { 1 };
    let each = tiles.div_ceil(parts).max(1);
    let most = (BLOCK_BYTES / (36 * 4 * (shape.channels + shape.out_channels).max(1))).max(FEWEST);
    (parts, each.div_ceil(each.div_ceil(most)))
}

fn block_len(shape: &Shape, tiles: usize) -> usize {
    36 * (tiles * (shape.channels + shape.out_channels) + 2 * GAP)
}

/// Floats of scratch that [`conv`] asks for with so many threads.
pub fn scratch_len(shape: &Shape, threads: usize) -> usize {
    let (parts, tiles) = division(shape, threads);
    parts * block_len(shape, tiles)
}

/// The convolution, channels last. `weights` are as [`pack`] made them, in panels of `width` columns; the residual is laid out as the output.
///
/// # Panics
/// If a slice is too short (`scratch`: [`scratch_len`] of the pool's threads), or the shape does not fit ([`fits`]).
pub fn conv(
    isa: Isa,
    pool: &dyn Pool,
    shape: &Shape,
    input: &[f32],
    weights: Stored<'_>,
    width: usize,
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
) {
    shape.check();
    assert!(fits(shape), "no 3 by 3 with stride 1");
    assert!(matches!(width, 8 | 16 | 32), "panels of {width} columns");
    let [height, out_width] = shape.output();
    let rows = shape.batch * height * out_width;
    assert!(
        input.len() >= shape.batch * shape.height * shape.width * shape.channels,
        "too short an input"
    );
    assert!(weights.len() >= packed_len(shape, width), "too few weights");
    assert!(out.len() >= rows * shape.out_channels, "too short an output");
    assert!(
        scratch.len() >= scratch_len(shape, pool.threads()),
        "too little scratch"
    );
    check(epilogue, rows, shape.out_channels, shape.out_channels);
    if rows == 0 || shape.out_channels == 0 {
        return;
    }
    let [down, across] = tiles(shape);
    let (parts, most) = division(shape, pool.threads());
    let (scratch, each) = (Shared::new(scratch), block_len(shape, most));
    let all = shape.batch * down * across;
    let finish = Finish::new(epilogue, shape.out_channels);
    let work = Work {
        isa,
        shape,
        input,
        weights,
        width,
        out: Shared::new(out),
        finish,
    };
    let part = |pool: &dyn Pool, part: usize| {
        let range = pool::range(all, parts, part, 1);
        let mut first = range.start;
        while first < range.end {
            let some = first..(first + most).min(range.end);
            first = some.end;
            // SAFETY: each part has its own scratch, which is checked above.
            work.block(pool, some, unsafe { scratch.from(part * each) });
        }
    };
    match parts {
        1 => part(pool, 0),
        _ => pool.run(parts, &|at| part(&Serial, at)),
    }
}

struct Work<'a> {
    isa: Isa,
    shape: &'a Shape,
    input: &'a [f32],
    weights: Stored<'a>,
    width: usize,
    out: Shared<f32>,
    finish: Finish,
}

impl Work<'_> {
    /// Some tiles, from the input to the output.
    fn block(&self, pool: &dyn Pool, tiles: Range<usize>, scratch: Shared<f32>) {
        let (shape, count) = (self.shape, tiles.len());
        let (channels, outputs) = (shape.channels, shape.out_channels);
        let (step_in, step_out) = (count * channels + GAP, count * outputs + GAP);
        // SAFETY: the scratch has 36 matrices in and 36 out.
        let sums = unsafe { scratch.from(36 * step_in) };
        let parts = pool::parts(pool, count, channels * 20);
        pool.run(parts, &|part| {
            let some = pool::range(count, parts, part, 1);
            let op = transform::Tiles {
                shape,
                input: self.input,
                first: tiles.start,
                some,
                to: scratch,
                step: step_in,
            };
            dispatch(self.isa, op);
        });
        let each = gemm::packed_len(channels, outputs, self.width);
        let parts = pool::parts(pool, 36, count * channels * outputs / 32);
        pool.run(parts, &|part| {
            for at in pool::range(36, parts, part, 1) {
                let range = at * each..(at + 1) * each;
                let job = Job {
                    // SAFETY: as above.
                    source: Rows::plain(unsafe { scratch.at(at * step_in) }, channels),
                    rows: count,
                    positions: 1,
                    depth: channels,
                    weights: match self.weights {
                        Stored::F32(all) => Stored::F32(&all[range]),
                        Stored::F16(all) => Stored::F16(&all[range]),
                        Stored::BF16(all) => Stored::BF16(&all[range]),
                    },
                    n: outputs,
                    width: self.width,
                    step: self.width,
                    panel: channels * self.width,
                    // SAFETY: as above.
                    out: unsafe { sums.from(at * step_out) },
                    out_stride: outputs,
                    finish: Finish::new(&Epilogue::default(), 0),
                };
                // SAFETY: all of it is there, and each matrix is one part's.
                unsafe { drive::run(self.isa, &Serial, &job) };
            }
        });
        let parts = pool::parts(pool, count, outputs * 20);
        pool.run(parts, &|part| {
            let some = pool::range(count, parts, part, 1);
            let (out, finish) = (self.out, self.finish);
            dispatch(
                self.isa,
                transform::Pixels {
                    shape,
                    from: sums,
                    step: step_out,
                    first: tiles.start,
                    some,
                    out,
                    finish,
                },
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::tests::plain;
    use crate::gemm::tests::{Several, epilogues, finish, numbers};

    /// For each output, what comes out where everything is its magnitude.
    fn magnitudes(shape: &Shape, input: &[f32], weight: &impl Fn(usize, usize, usize, usize) -> f32) -> Vec<f64> {
        let [height, width] = shape.output();
        let mut all = vec![0.0; shape.batch * height * width * shape.out_channels];
        let [down, across] = tiles(shape);
        for tile in 0..shape.batch * down * across {
            let (image, ty, tx) = (tile / across / down, tile / across % down, tile % across);
            for out in 0..shape.out_channels {
                let mut sums = [0.0; 36];
                for channel in 0..shape.channels {
                    let filter = transform::magnitude(&transform::FILTER, |y, x| weight(out, channel, y, x));
                    let pixels = transform::magnitude(&transform::TILE, |y, x| {
                        let y = (ty * 4 + y).wrapping_sub(shape.padding[0][0]);
                        let x = (tx * 4 + x).wrapping_sub(shape.padding[1][0]);
                        match y < shape.height && x < shape.width {
                            true => input[((image * shape.height + y) * shape.width + x) * shape.channels + channel],
                            false => 0.0,
                        }
                    });
                    (0..36).for_each(|i| sums[i] += filter[i] * pixels[i]);
                }
                for (y, x) in (0..16)
                    .map(|i| (ty * 4 + i / 4, tx * 4 + i % 4))
                    .filter(|(y, x)| *y < height && *x < width)
                {
                    let (a, b) = (transform::OUTPUT[y % 4], transform::OUTPUT[x % 4]);
                    let sum: f64 = (0..36).map(|i| (a[i / 6] * b[i % 6]).abs() * sums[i]).sum();
                    all[((image * height + y) * width + x) * shape.out_channels + out] = sum;
                }
            }
        }
        all
    }

    fn same(size: [usize; 3], channels: [usize; 2], padding: [[usize; 2]; 2], width: usize, epilogue_at: usize) {
        let shape = &Shape {
            batch: size[0],
            height: size[1],
            width: size[2],
            channels: channels[0],
            out_channels: channels[1],
            kernel: [3, 3],
            stride: [1, 1],
            padding,
            dilation: [1, 1],
            groups: 1,
        };
        let input = numbers(shape.batch * shape.height * shape.width * shape.channels, 5);
        let weights = numbers(shape.out_channels * shape.terms(), 6);
        let weight =
            |out: usize, channel: usize, y: usize, x: usize| weights[(out * shape.channels + channel) * 9 + y * 3 + x];
        let mut packed = vec![f32::NAN; packed_len(shape, width)];
        pack(shape, width, weight, &mut packed);
        let get = |image: usize, y: usize, x: usize, channel: usize| {
            input[((image * shape.height + y) * shape.width + x) * shape.channels + channel]
        };
        let want = plain(shape, get, weight);
        let bounds = magnitudes(shape, &input, &weight);
        let (bias, residual) = (numbers(shape.out_channels, 3), numbers(want.len(), 4));
        let epilogue = epilogues(&bias, &residual)[epilogue_at % 6];
        for isa in Isa::all() {
            for threads in [1, 2, 5] {
                let mut scratch = vec![f32::NAN; scratch_len(shape, threads)];
                let mut out = vec![f32::NAN; want.len()];
                let (pool, stored) = (Several(threads), Stored::F32(&packed));
                conv(
                    isa,
                    &pool,
                    shape,
                    &input,
                    stored,
                    width,
                    &mut out,
                    &epilogue,
                    &mut scratch,
                );
                for (at, (have, (sum, _))) in out.iter().zip(&want).enumerate() {
                    let want = finish(
                        &epilogue,
                        *sum,
                        at % shape.out_channels,
                        epilogue.residual.map(|all| all[at]),
                    );
                    let bound = (shape.channels as f64 + 40.0) * f64::from(f32::EPSILON) * (bounds[at] * 2.0 + 4.0);
                    let off = (f64::from(*have) - want).abs();
                    assert!(off <= bound, "{isa} {shape:?}: [{at}] {have}, not {want}");
                }
            }
        }
    }

    #[test]
    fn tiles_of_every_size_are_right() {
        let mut at = 0;
        for size in [[1, 4, 4], [2, 5, 9], [1, 3, 14], [1, 12, 7], [0, 4, 4], [1, 1, 1]] {
            for channels in [[1, 1], [3, 17], [16, 8], [21, 40]] {
                for padding in [[[1, 1], [1, 1]], [[0, 0], [0, 0]], [[2, 0], [0, 3]]] {
                    at += 1;
                    same(size, channels, padding, [8, 16, 32][at % 3], at / 3);
                }
            }
        }
        // Several blocks.
        same([1, 50, 46], [18, 5], [[1, 1], [1, 1]], 16, 3);
    }

    #[test]
    fn it_is_worth_it_where_tiles_are_full_and_many() {
        let shape = |size: usize, channels: usize| Shape {
            batch: 1,
            height: size,
            width: size,
            channels,
            out_channels: channels,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [[1, 1], [1, 1]],
            dilation: [1, 1],
            groups: 1,
        };
        assert!(worth(&shape(64, 64)) && worth(&shape(14, 256)) && worth(&shape(8, 32)));
        assert!(!worth(&shape(7, 512)) && !worth(&shape(64, 3)) && !worth(&shape(5, 64)) && !worth(&shape(0, 64)));
        assert!(!worth(&Shape {
            stride: [2, 2],
            ..shape(64, 64)
        }));
    }

    #[test]
    fn the_error_is_small_beside_the_output() {
        let shape = &Shape {
            batch: 1,
            height: 16,
            width: 16,
            channels: 64,
            out_channels: 16,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [[1, 1], [1, 1]],
            dilation: [1, 1],
            groups: 1,
        };
        let (input, weights) = (numbers(16 * 16 * 64, 1), numbers(16 * 64 * 9, 2));
        let weight = |out: usize, channel: usize, y: usize, x: usize| weights[(out * 64 + channel) * 9 + y * 3 + x];
        let want = plain(shape, |_, y, x, channel| input[(y * 16 + x) * 64 + channel], weight);
        let mut packed = vec![0.0; packed_len(shape, 16)];
        pack(shape, 16, weight, &mut packed);
        for isa in Isa::all() {
            let (mut out, mut scratch) = (vec![0.0; want.len()], vec![0.0; scratch_len(shape, 1)]);
            let (stored, epilogue) = (Stored::F32(&packed), Epilogue::default());
            conv(
                isa,
                &Serial,
                shape,
                &input,
                stored,
                16,
                &mut out,
                &epilogue,
                &mut scratch,
            );
            let off = out
                .iter()
                .zip(&want)
                .map(|(have, (want, _))| (f64::from(*have) - want).abs())
                .fold(0.0, f64::max);
            let largest = want.iter().map(|(want, _)| want.abs()).fold(0.0, f64::max);
            assert!(off / largest < 1e-5, "{isa}: {}", off / largest);
        }
    }
}
