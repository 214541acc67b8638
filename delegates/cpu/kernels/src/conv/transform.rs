//! The transforms of Winograd's F(4x4, 3x3), for the points 0, 1, -1, 2, -2 and infinity.

use super::Shape;
use crate::gemm::finish::{Finish, Second};
use crate::pool::Shared;
use crate::simd::{Op, Simd};
use std::ops::Range;

/// Of a filter.
pub(crate) const FILTER: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Of a tile of the input, as [`tile`] computes it.
#[cfg(test)]
pub(crate) const TILE: [[f64; 6]; 6] = [
    [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
    [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
    [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
    [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
    [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
    [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
];

/// To the output, as [`pixels`] computes it.
#[cfg(test)]
pub(crate) const OUTPUT: [[f64; 6]; 4] = [
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
    [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
    [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
];

/// A filter of 3 by 3, transformed.
pub(crate) fn filter(source: impl Fn(usize, usize) -> f64) -> [f64; 36] {
    std::array::from_fn(|i| {
        let (a, b) = (FILTER[i / 6], FILTER[i % 6]);
        (0..9).map(|at| a[at / 3] * b[at % 3] * source(at / 3, at % 3)).sum()
    })
}

/// Magnitudes of what a transform adds up.
#[cfg(test)]
pub(crate) fn magnitude<const N: usize>(by: &[[f64; N]; 6], source: impl Fn(usize, usize) -> f32) -> [f64; 36] {
    std::array::from_fn(|i| {
        let (a, b) = (by[i / 6], by[i % 6]);
        let one = |at: usize| (a[at / N] * b[at % N] * f64::from(source(at / N, at % N))).abs();
        (0..N * N).map(one).sum()
    })
}

/// One dimension of a tile.
#[inline(always)]
fn tile<S: Simd>(s: S, d: [S::F; 6]) -> [S::F; 6] {
    let (four, two) = (s.splat(4.0), s.splat(2.0));
    let (minus_four, minus_five) = (s.splat(-4.0), s.splat(-5.0));
    let even = s.fma(minus_four, d[2], d[4]);
    let odd = s.fma(minus_four, d[1], d[3]);
    let near = s.sub(d[4], d[2]);
    let far = s.mul(two, s.sub(d[3], d[1]));
    [
        s.fma(four, d[0], s.fma(minus_five, d[2], d[4])),
        s.add(even, odd),
        s.sub(even, odd),
        s.add(near, far),
        s.sub(near, far),
        s.fma(four, d[1], s.fma(minus_five, d[3], d[5])),
    ]
}

/// One dimension of the output.
#[inline(always)]
fn pixels<S: Simd>(s: S, m: [S::F; 6]) -> [S::F; 4] {
    let (plus, minus) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let (wide, narrow) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.add(m[0], s.add(plus, wide)),
        s.fma(s.splat(2.0), narrow, minus),
        s.fma(s.splat(4.0), wide, plus),
        s.add(m[5], s.fma(s.splat(8.0), narrow, minus)),
    ]
}

/// Image, row and column of a tile.
fn place(shape: &Shape, tile: usize) -> [usize; 3] {
    let [down, across] = shape.output().map(|size| size.div_ceil(4));
    [tile / across / down, tile / across % down * 4, tile % across * 4]
}

/// Transforms tiles of the input: number `i` of tile `t` and its channels go to `i * step + t * channels`.
pub(crate) struct Tiles<'a> {
    pub shape: &'a Shape,
    pub input: &'a [f32],
    /// The tile that `some` count from.
    pub first: usize,
    pub some: Range<usize>,
    pub to: Shared<f32>,
    pub step: usize,
}

impl Op for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, channels) = (self.shape, self.shape.channels);
        for tile in self.some.clone() {
            let [image, y, x] = place(shape, self.first + tile);
            let (y, x) = (
                y as isize - shape.padding[0][0] as isize,
                x as isize - shape.padding[1][0] as isize,
            );
            let at = (image * shape.height) as isize + y;
            let at = (at * shape.width as isize + x) * channels as isize;
            let edge = y < 0 || x < 0 || y + 6 > shape.height as isize || x + 6 > shape.width as isize;
            for channel in (0..channels).step_by(S::LANES) {
                let part = channels < S::LANES;
                // The last ones overlap those before: they come out the same.
                let channel = if part { 0 } else { channel.min(channels - S::LANES) };
                let from = self.input.as_ptr().wrapping_offset(at + channel as isize);
                // SAFETY: pixels that are inside are read alone; the matrices are this part's at these tiles.
                unsafe {
                    let to = self.to.at(tile * channels + channel);
                    match (part, edge) {
                        (true, _) => self.one::<S, true, true>(s, from, y, x, to),
                        (_, true) => self.one::<S, true, false>(s, from, y, x, to),
                        _ => self.one::<S, false, false>(s, from, y, x, to),
                    }
                }
            }
        }
    }
}

impl Tiles<'_> {
    #[allow(clippy::needless_range_loop, reason = "it goes along the other dimension")]
    /// # Safety
    /// Pixels at `from` are there, or `EDGE`; a vector of channels, or `PART`.
    #[inline(always)]
    unsafe fn one<S: Simd, const EDGE: bool, const PART: bool>(
        &self,
        s: S,
        from: *const f32,
        y: isize,
        x: isize,
        to: *mut f32,
    ) {
        let (shape, n) = (self.shape, self.shape.channels);
        let row = shape.width * n;
        let mut half = [[s.splat(0.0); 6]; 6];
        for (across, half) in half.iter_mut().enumerate() {
            let column = from.wrapping_add(across * n);
            let outside = EDGE && !(0..shape.width as isize).contains(&(x + across as isize));
            if outside {
                continue;
            }
            let load = |down: usize| {
                if EDGE && !(0..shape.height as isize).contains(&(y + down as isize)) {
                    return s.splat(0.0);
                }
                let from = column.wrapping_add(down * row);
                // SAFETY: as the caller says.
                unsafe { if PART { s.load_part(from, n) } else { s.load(from) } }
            };
            *half = tile(s, [load(0), load(1), load(2), load(3), load(4), load(5)]);
        }
        for down in 0..6 {
            let done = tile(s, std::array::from_fn(|across| half[across][down]));
            for (across, x) in done.into_iter().enumerate() {
                // SAFETY: as the caller says.
                unsafe {
                    let to = to.add((down * 6 + across) * self.step);
                    if PART { s.store_part(to, x, n) } else { s.store(to, x) }
                }
            }
        }
    }
}

/// Transforms sums back to pixels and stores them.
pub(crate) struct Pixels<'a> {
    pub shape: &'a Shape,
    /// Number `i` of tile `t` and its channels are at `i * step + t * channels`.
    pub from: Shared<f32>,
    pub step: usize,
    /// The tile that `some` count from.
    pub first: usize,
    pub some: Range<usize>,
    pub out: Shared<f32>,
    pub finish: Finish,
}

impl Op for Pixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, channels) = (self.shape, self.shape.out_channels);
        let [height, width] = shape.output();
        for tile in self.some.clone() {
            let [image, y, x] = place(shape, self.first + tile);
            let (rows, columns) = ((height - y).min(4), (width - x).min(4));
            let first = (image * height + y) * width + x;
            for channel in (0..channels).step_by(S::LANES) {
                let part = channels < S::LANES;
                // The last ones overlap those before: they come out the same.
                let channel = if part { 0 } else { channel.min(channels - S::LANES) };
                // SAFETY: the sums are there, and the pixels are this part's.
                unsafe {
                    let from = self.from.at(tile * channels + channel);
                    match part {
                        true => self.one::<S, true>(s, from, first, [rows, columns], channel),
                        false => self.one::<S, false>(s, from, first, [rows, columns], channel),
                    }
                }
            }
            for row in (0..rows).filter(|_| self.finish.twice()) {
                s.outline(Second {
                    finish: self.finish,
                    // SAFETY: the output has a first element.
                    out: unsafe { self.out.at(0) },
                    stride: channels,
                    row: first + row * width,
                    rows: columns,
                    column: 0,
                    columns: channels,
                });
            }
        }
    }
}

impl Pixels<'_> {
    #[allow(clippy::needless_range_loop, reason = "it goes along the other dimension")]
    /// # Safety
    /// The sums are there, as are the pixels; a vector of channels, or `PART`.
    #[inline(always)]
    unsafe fn one<S: Simd, const PART: bool>(
        &self,
        s: S,
        from: *const f32,
        first: usize,
        size: [usize; 2],
        channel: usize,
    ) {
        let n = self.shape.out_channels;
        let width = self.shape.output()[1];
        let mut half = [[s.splat(0.0); 4]; 6];
        for (across, half) in half.iter_mut().enumerate() {
            let load = |down: usize| {
                // SAFETY: as the caller says.
                unsafe {
                    let from = from.add((down * 6 + across) * self.step);
                    if PART { s.load_part(from, n) } else { s.load(from) }
                }
            };
            *half = pixels(s, [load(0), load(1), load(2), load(3), load(4), load(5)]);
        }
        for down in 0..size[0] {
            let done = pixels(s, std::array::from_fn(|across| half[across][down]));
            for (across, sum) in done.into_iter().enumerate().take(size[1]) {
                let row = first + down * width + across;
                // SAFETY: as the caller says.
                unsafe {
                    let x = self.finish.one(s, sum, row, channel, PART.then_some(n));
                    let to = self.out.at(row * n + channel);
                    if PART { s.store_part(to, x, n) } else { s.store(to, x) }
                }
            }
        }
    }
}
