//! Convolutions with one filter a channel, channels last.

use super::Shape;
use crate::gemm::check;
use crate::gemm::finish::{Finish, Second};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Epilogue, Isa};
use std::ops::Range;

/// Channels that packed weights are padded to a multiple of: the most lanes there are.
const PADDED: usize = 16;

/// Floats of packed weights: `[kernel height][kernel width][channels, padded with zeros to a multiple of 16]`.
pub fn packed_len(shape: &Shape) -> usize {
    shape.kernel[0] * shape.kernel[1] * shape.channels.next_multiple_of(PADDED)
}

/// Packs weights, which `source(channel, y, x)` gives.
///
/// # Panics
/// If `out` is shorter than [`packed_len`].
pub fn pack(shape: &Shape, source: impl Fn(usize, usize, usize) -> f32, out: &mut [f32]) {
    let padded = shape.channels.next_multiple_of(PADDED);
    let out = &mut out[..packed_len(shape)];
    if padded == 0 {
        return;
    }
    for (place, out) in out.chunks_exact_mut(padded).enumerate() {
        let (y, x) = (place / shape.kernel[1], place % shape.kernel[1]);
        for (channel, out) in out.iter_mut().enumerate() {
            *out = if channel < shape.channels {
                source(channel, y, x)
            } else {
                0.0
            };
        }
    }
}

/// The convolution of each channel with its own filter; `groups`, `channels` and `out_channels` of the shape are the same number. Weights are as
/// [`pack`] made them; the residual is laid out as the output. No scratch is needed.
///
/// # Panics
/// If a slice is too short, or the shape is another one.
pub fn conv(
    isa: Isa,
    pool: &dyn Pool,
    shape: &Shape,
    input: &[f32],
    weights: &[f32],
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
) {
    if shape.channels == 0 {
        return;
    }
    let input = Ring {
        all: input,
        lines: shape.batch * shape.height,
        start: 0,
    };
    ring(isa, pool, shape, input, weights, out, epilogue);
}

/// Lines of images: line `i` is at `(start + i) % lines`.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    pub all: &'a [f32],
    /// How many there is room for.
    pub lines: usize,
    pub start: usize,
}

/// The same of an input that lies in a ring, which has room for all of its lines.
pub(super) fn ring(
    isa: Isa,
    pool: &dyn Pool,
    shape: &Shape,
    input: Ring<'_>,
    weights: &[f32],
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
) {
    shape.check();
    assert!(
        shape.groups == shape.channels && shape.groups == shape.out_channels,
        "more than a filter a channel"
    );
    let [height, width] = shape.output();
    let rows = shape.batch * height * width;
    let room = input.all.len() >= input.lines * shape.width * shape.channels;
    assert!(
        room && input.lines >= shape.batch * shape.height && input.start <= input.lines,
        "too short an input"
    );
    assert!(weights.len() >= packed_len(shape), "too few weights");
    assert!(out.len() >= rows * shape.channels, "too short an output");
    check(epilogue, rows, shape.channels, shape.channels);
    if rows == 0 {
        return;
    }
    let job = Job {
        shape,
        input,
        weights,
        width,
        out: Shared::new(out),
        finish: Finish::new(epilogue, shape.channels),
    };
    let lines = shape.batch * height;
    let work = width * shape.channels * shape.kernel[0] * shape.kernel[1] / 16 + 1;
    let parts = pool::parts(pool, lines, work);
    pool.run(parts, &|part| {
        let lines = pool::range(lines, parts, part, 1);
        dispatch(
            isa,
            Lines {
                job: &job,
                lines,
                height,
            },
        );
    });
}

struct Job<'a> {
    shape: &'a Shape,
    input: Ring<'a>,
    weights: &'a [f32],
    /// Of the output.
    width: usize,
    out: Shared<f32>,
    finish: Finish,
}

/// Lines of the output.
struct Lines<'a> {
    job: &'a Job<'a>,
    lines: Range<usize>,
    height: usize,
}

impl Op for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (job, shape) = (self.job, self.job.shape);
        for line in self.lines {
            let (image, y) = (line / self.height, line % self.height);
            let top = (y * shape.stride[0]) as isize - shape.padding[0][0] as isize;
            let downs = inside(top, shape.dilation[0], shape.height, shape.kernel[0]);
            let (pixels, unbroken) = job.input.from(shape, image, top, &downs);
            let tile = Line {
                job,
                row: line * job.width,
                pixels,
                unbroken,
                downs,
            };
            match (shape.kernel[1], shape.stride[1], shape.dilation[1]) {
                (3, 1, 1) => tile.run::<S, 3, 1>(s),
                (3, 2, 1) => tile.run::<S, 3, 2>(s),
                (5, 1, 1) => tile.run::<S, 5, 1>(s),
                (5, 2, 1) => tile.run::<S, 5, 2>(s),
                _ => tile.run::<S, 0, 0>(s),
            }
        }
    }
}

/// The places, of `count` that are `step` apart, that lie inside of `size`, where the first is at `start`.
fn inside(start: isize, step: usize, size: usize, count: usize) -> Range<usize> {
    let step = step as isize;
    let first = if start < 0 { (-start + step - 1) / step } else { 0 };
    let end = (size as isize - start + step - 1).div_euclid(step).max(0);
    let end = end.min(count as isize);
    first.min(end) as usize..end as usize
}

impl Ring<'_> {
    /// Where the first line begins that rows `downs` of the kernel read, the kernel's first one being at line `top` of an image, and how many of them
    /// are read before the ring begins anew: it has room for all lines, so that it does so once at most.
    fn from(&self, shape: &Shape, image: usize, top: isize, downs: &Range<usize>) -> (*const f32, usize) {
        if downs.is_empty() {
            return (self.all.as_ptr(), usize::MAX);
        }
        let top = (top + (downs.start * shape.dilation[0]) as isize) as usize;
        let line = self.start + image * shape.height + top;
        let line = if line >= self.lines { line - self.lines } else { line };
        let unbroken = (self.lines - line).div_ceil(shape.dilation[0]);
        let pixels = self.all.as_ptr().wrapping_add(line * shape.width * shape.channels);
        (pixels, unbroken)
    }
}

/// A line of the output; `downs` are the rows of the kernel that lie inside.
#[derive(Clone)]
struct Line<'a> {
    job: &'a Job<'a>,
    /// The line's first pixel in the output.
    row: usize,
    /// See [`Ring::from`].
    pixels: *const f32,
    unbroken: usize,
    downs: Range<usize>,
}

impl Line<'_> {
    /// The line in tiles of several columns. `W` places of the kernel and step `D`; 0 for any.
    #[inline(always)]
    fn run<S: Simd, const W: usize, const D: usize>(&self, s: S) {
        let mut x = 0;
        while x < self.job.width {
            let left = self.job.width - x;
            x += match left {
                5.. => self.tile::<S, W, D, 7>(s, x, left.min(7)),
                3.. => self.tile::<S, W, D, 4>(s, x, left.min(4)),
                _ => self.tile::<S, W, D, 2>(s, x, left.min(2)),
            };
        }
        if self.job.finish.twice() {
            let shape = self.job.shape;
            s.outline(Second {
                finish: self.job.finish,
                // SAFETY: the output has a first element.
                out: unsafe { self.job.out.at(0) },
                stride: shape.channels,
                row: self.row,
                rows: self.job.width,
                column: 0,
                columns: shape.channels,
            });
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const W: usize, const D: usize, const T: usize>(&self, s: S, x: usize, count: usize) -> usize {
        let shape = self.job.shape;
        let first = (x * shape.stride[1]) as isize - shape.padding[1][0] as isize;
        let reach = ((T - 1) * shape.stride[1] + (shape.kernel[1] - 1) * shape.dilation[1]) as isize;
        let edge = first < 0 || first + reach >= shape.width as isize;
        match edge {
            true => s.outline(Columns::<W, D, T, true> {
                line: self,
                x,
                count,
                first,
            }),
            false => s.outline(Columns::<W, D, T, false> {
                line: self,
                x,
                count,
                first,
            }),
        }
        count
    }
}

/// `count` of `T` columns of a line, all channels. `EDGE`: some read outside.
struct Columns<'a, const W: usize, const D: usize, const T: usize, const EDGE: bool> {
    line: &'a Line<'a>,
    x: usize,
    count: usize,
    /// The column of the input that the first place of the first column is at.
    first: isize,
}

impl<const W: usize, const D: usize, const T: usize, const EDGE: bool> Op for Columns<'_, W, D, T, EDGE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.line.job.shape.channels;
        if channels < S::LANES {
            // SAFETY: those channels are there.
            return unsafe { self.channels::<S, true>(s, 0, channels) };
        }
        for channel in (0..channels).step_by(S::LANES) {
            // The last ones overlap those before: they come out the same.
            let channel = channel.min(channels - S::LANES);
            // SAFETY: a vector of channels is there.
            unsafe { self.channels::<S, false>(s, channel, S::LANES) };
        }
    }
}

impl<const W: usize, const D: usize, const T: usize, const EDGE: bool> Columns<'_, W, D, T, EDGE> {
    /// One vector of channels from `channel` on.
    ///
    /// # Safety
    /// `n` channels are there: a vector of them unless `PART`.
    #[inline(always)]
    unsafe fn channels<S: Simd, const PART: bool>(&self, s: S, channel: usize, n: usize) {
        let (line, job, shape) = (self.line, self.line.job, self.line.job.shape);
        let padded = shape.channels.next_multiple_of(PADDED);
        let size = shape.width as isize;
        let mut sums = [s.splat(0.0); T];
        let a_line = shape.width * shape.channels;
        let mut pixels = line
            .pixels
            .wrapping_offset(self.first * shape.channels as isize + channel as isize);
        let mut weights = job
            .weights
            .as_ptr()
            .wrapping_add(line.downs.start * shape.kernel[1] * padded + channel);
        for down in 0..line.downs.len() {
            if down == line.unbroken {
                pixels = pixels.wrapping_sub(job.input.lines * a_line);
            }
            // SAFETY: columns that are inside are read alone, and weights are padded.
            unsafe {
                let load = |column: usize| {
                    let from = pixels.wrapping_add(column * shape.channels);
                    if PART { s.load_part(from, n) } else { s.load(from) }
                };
                if W > 0 {
                    let filter: [S::F; W] = std::array::from_fn(|w| s.load(weights.wrapping_add(w * padded)));
                    for column in 0..(T - 1) * D + W {
                        let at = self.first + column as isize;
                        if EDGE && (at < 0 || at >= size) {
                            continue;
                        }
                        let pixel = load(column);
                        for (t, sum) in sums.iter_mut().enumerate() {
                            if column >= t * D && column < t * D + W {
                                *sum = s.fma(pixel, filter[column - t * D], *sum);
                            }
                        }
                    }
                } else {
                    for across in 0..shape.kernel[1] {
                        let weight = s.load(weights.wrapping_add(across * padded));
                        for (t, sum) in sums.iter_mut().enumerate() {
                            let column = t * shape.stride[1] + across * shape.dilation[1];
                            let at = self.first + column as isize;
                            if EDGE && (at < 0 || at >= size) {
                                continue;
                            }
                            *sum = s.fma(load(column), weight, *sum);
                        }
                    }
                }
            }
            pixels = pixels.wrapping_add(shape.dilation[0] * a_line);
            weights = weights.wrapping_add(shape.kernel[1] * padded);
        }
        if !PART && self.count == T {
            let row = line.row + self.x;
            // SAFETY: the pixels and their channels are there, and of this part alone.
            unsafe {
                job.finish.all(s, &mut sums, row, channel);
                let to = job.out.at(row * shape.channels + channel);
                for (t, sum) in sums.iter().enumerate() {
                    s.store(to.add(t * shape.channels), *sum);
                }
            }
            return;
        }
        for (t, sum) in sums.iter().enumerate() {
            if t < self.count {
                let row = line.row + self.x + t;
                // SAFETY: the pixel and its channels are there, and of this part alone.
                unsafe {
                    let part = PART.then_some(n);
                    let x = job.finish.one(s, *sum, row, channel, part);
                    let to = job.out.at(row * shape.channels + channel);
                    if PART { s.store_part(to, x, n) } else { s.store(to, x) }
                }
            }
        }
    }
}
