//! Pooling of images whose channels are dense, `[batch, height, width, channels]`.

use crate::Isa;
use crate::lanes::{load, store};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};

/// Windows over images. Of two numbers, the first is of the height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// How many images there are.
    pub batch: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Places of the input.
    pub input: [usize; 2],
    /// Places of the output. It is the caller's to round up or down; windows that begin behind the input see nothing.
    pub output: [usize; 2],
    /// Places of a window.
    pub kernel: [usize; 2],
    /// From one window to the next.
    pub stride: [usize; 2],
    /// Places before the input.
    pub padding: [usize; 2],
    /// From one place of a window to the next.
    pub dilation: [usize; 2],
}

/// What a window gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The largest number; NaN if there is one, and -infinity of none.
    Max,
    /// The mean.
    Average {
        /// Places of the padding count as zeros.
        count_padding: bool,
        /// What sums are divided by instead of how many there are.
        divisor: Option<usize>,
    },
}

impl Windows {
    /// Elements of the input.
    pub fn inputs(&self) -> usize {
        self.batch * self.input[0] * self.input[1] * self.channels
    }

    /// Elements of the output.
    pub fn outputs(&self) -> usize {
        self.batch * self.output[0] * self.output[1] * self.channels
    }

    /// Pools.
    ///
    /// # Panics
    /// A slice is shorter than its sizes say.
    pub fn run(&self, isa: Isa, pool: &dyn Pool, pooling: Pooling, x: &[f32], out: &mut [f32]) {
        let (c, rows) = (self.channels, self.batch * self.output[0]);
        assert!(
            x.len() >= self.batch * self.input[0] * self.input[1] * c,
            "the input is there"
        );
        assert!(out.len() >= rows * self.output[1] * c, "the output is there");
        let work = self.output[1] * (c / 16 + 1) * (self.kernel[0] * self.kernel[1] / 2 + 2);
        let parts = pool::parts(pool, rows, work);
        let out = Shared::new(out);
        pool.run(parts, &|part| {
            let rows = pool::range(rows, parts, part, 1);
            dispatch(
                isa,
                Pieces {
                    windows: self,
                    pooling,
                    x,
                    rows,
                    out,
                },
            );
        });
    }

    /// The places of a window along one direction: the first, how many, and how many count with the padding.
    #[inline(always)]
    pub(crate) fn span(&self, which: usize, at: usize) -> (usize, usize, usize) {
        let w = self;
        let (input, dilation) = (w.input[which] as isize, w.dilation[which].max(1) as isize);
        let start = (at * w.stride[which]) as isize - w.padding[which] as isize;
        let kernel = w.kernel[which] as isize;
        let skipped = if start < 0 {
            (-start + dilation - 1) / dilation
        } else {
            0
        };
        let fit = (input - start + dilation - 1).div_euclid(dilation).clamp(0, kernel);
        let padded = (input + w.padding[which] as isize - start + dilation - 1)
            .div_euclid(dilation)
            .clamp(0, kernel);
        let count = (fit - skipped).max(0);
        (
            (start + skipped * dilation).max(0) as usize,
            count as usize,
            padded as usize,
        )
    }
}

struct Pieces<'a> {
    windows: &'a Windows,
    pooling: Pooling,
    x: &'a [f32],
    rows: std::ops::Range<usize>,
    out: Shared<f32>,
}

impl Op for Pieces<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let w = self.windows;
        let c = w.channels;
        let dilation = [w.dilation[0].max(1), w.dilation[1].max(1)];
        for row in self.rows.clone() {
            let (image, y) = (row / w.output[0], row % w.output[0]);
            let (y0, height, tall) = w.span(0, y);
            for x in 0..w.output[1] {
                let (x0, width, wide) = w.span(1, x);
                let factor = match self.pooling {
                    Pooling::Max => 1.0,
                    Pooling::Average { divisor: Some(n), .. } => 1.0 / n as f32,
                    Pooling::Average {
                        count_padding: true, ..
                    } => 1.0 / (tall * wide).max(1) as f32,
                    Pooling::Average { .. } => 1.0 / (height * width).max(1) as f32,
                };
                let none = height * width == 0;
                let from = match none {
                    true => self.x.as_ptr(),
                    false => self.x[((image * w.input[0] + y0) * w.input[1] + x0) * c..].as_ptr(),
                };
                let (down, along) = (dilation[0] * w.input[1] * c, dilation[1] * c);
                // SAFETY: places of the window are in the input; the row of the output is of this part.
                unsafe {
                    let to = self.out.at((row * w.output[1] + x) * c);
                    let mut at = 0;
                    while at < c {
                        let vectors = (c - at) / S::LANES;
                        let len = (c - at).min(S::LANES);
                        let (height, width) = if none { (0, 0) } else { (height, width) };
                        let window = Window {
                            from: from.add(at),
                            down,
                            along,
                            height,
                            width,
                        };
                        at += match (self.pooling, vectors) {
                            (Pooling::Max, 4..) => largest::<S, 4>(s, window, S::LANES, to.add(at)),
                            (Pooling::Max, _) => largest::<S, 1>(s, window, len, to.add(at)),
                            (_, 4..) => mean::<S, 4>(s, window, S::LANES, factor, to.add(at)),
                            _ => mean::<S, 1>(s, window, len, factor, to.add(at)),
                        };
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Window {
    from: *const f32,
    down: usize,
    along: usize,
    height: usize,
    width: usize,
}

/// `N` vectors of channels: how many channels they are.
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn largest<S: Simd, const N: usize>(s: S, window: Window, len: usize, to: *mut f32) -> usize {
    let mut tops = [s.splat(f32::NEG_INFINITY); N];
    // SAFETY: as the caller says.
    unsafe {
        for y in 0..window.height {
            for x in 0..window.width {
                let from = window.from.add(y * window.down + x * window.along);
                for (n, top) in tops.iter_mut().enumerate() {
                    let value = load(s, from.add(n * S::LANES), len);
                    // The method keeps the NaN of its first operand alone.
                    *top = s.select(s.eq(value, value), s.max(*top, value), value);
                }
            }
        }
        for (n, top) in tops.iter().enumerate() {
            store(s, to.add(n * S::LANES), *top, len);
        }
    }
    N * len
}

/// As [`largest`].
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn mean<S: Simd, const N: usize>(s: S, window: Window, len: usize, factor: f32, to: *mut f32) -> usize {
    let mut sums = [s.splat(0.0); N];
    // SAFETY: as the caller says.
    unsafe {
        for y in 0..window.height {
            // Rows are summed on their own: the sums of large windows stay as small as they can.
            let mut row = [s.splat(0.0); N];
            for x in 0..window.width {
                let from = window.from.add(y * window.down + x * window.along);
                for (n, sum) in row.iter_mut().enumerate() {
                    *sum = s.add(*sum, load(s, from.add(n * S::LANES), len));
                }
            }
            for (sum, row) in sums.iter_mut().zip(row) {
                *sum = s.add(*sum, row);
            }
        }
        for (n, sum) in sums.iter().enumerate() {
            store(s, to.add(n * S::LANES), s.mul(*sum, s.splat(factor)), len);
        }
    }
    N * len
}

/// The mean over all places of `[batch, spatial, channels]`: `[batch, channels]`. Without places it is NaN, as in PyTorch.
///
/// # Panics
/// A slice is shorter than its sizes say.
pub fn global_average(
    isa: Isa,
    pool: &dyn Pool,
    batch: usize,
    spatial: usize,
    channels: usize,
    x: &[f32],
    out: &mut [f32],
) {
    assert!(
        x.len() >= batch * spatial * channels && out.len() >= batch * channels,
        "input and output are there"
    );
    if spatial == 0 {
        out[..batch * channels].fill(f32::NAN);
        return;
    }
    const PIECE: usize = 64;
    let pieces = channels.div_ceil(PIECE);
    let parts = pool::parts(pool, batch * pieces, spatial * 4);
    let out = Shared::new(out);
    pool.run(parts, &|part| {
        let units = pool::range(batch * pieces, parts, part, 1);
        dispatch(
            isa,
            Means {
                spatial,
                channels,
                pieces,
                units,
                piece: PIECE,
                x,
                out,
            },
        );
    });
}

struct Means<'a> {
    spatial: usize,
    channels: usize,
    pieces: usize,
    piece: usize,
    units: std::ops::Range<usize>,
    x: &'a [f32],
    out: Shared<f32>,
}

impl Op for Means<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.channels;
        // Sixteen places a row, so to speak.
        let (rows, rest) = (self.spatial / 16, self.spatial % 16);
        for unit in self.units {
            let (image, first) = (unit / self.pieces, unit % self.pieces * self.piece);
            let end = (first + self.piece).min(c);
            let x = self.x[image * self.spatial * c..].as_ptr();
            let factor = 1.0 / self.spatial as f32;
            let mut at = first;
            while at < end {
                // SAFETY: all places are there, and the channels of the output are of this part.
                unsafe {
                    let to = self.out.at(image * c + at);
                    let window = Window {
                        from: x.add(at),
                        down: 16 * c,
                        along: c,
                        height: rows,
                        width: 16,
                    };
                    let tail = Window {
                        from: x.add(rows * 16 * c + at),
                        height: 1,
                        width: rest,
                        ..window
                    };
                    let (len, four) = ((end - at).min(S::LANES), end - at >= 4 * S::LANES);
                    let mut sums = [0.0f32; 64];
                    let sum = sums.as_mut_ptr();
                    let n = match four {
                        true => {
                            mean::<S, 4>(s, tail, S::LANES, factor, sum);
                            mean::<S, 4>(s, window, S::LANES, factor, to)
                        }
                        false => {
                            mean::<S, 1>(s, tail, len, factor, sum);
                            mean::<S, 1>(s, window, len, factor, to)
                        }
                    };
                    for (i, sum) in sums.iter().enumerate().take(n) {
                        *to.add(i) += *sum;
                    }
                    at += n;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;

    #[test]
    fn windows_give_what_their_places_do() {
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
            windows(130, [8, 6], [4, 6], [3, 1], [2, 1], [0, 0], [2, 3]),
            windows(17, [6, 6], [4, 4], [2, 3], [2, 2], [1, 1], [1, 1]),
            windows(16, [9, 9], [7, 7], [3, 3], [1, 1], [2, 2], [3, 3]),
        ] {
            let n = w.batch * w.input[0] * w.input[1] * w.channels;
            let mut x: Vec<f32> = (0..n).map(|i| ((i * 7919) % 1009) as f32 / 100.0 - 5.0).collect();
            for pooling in [
                Pooling::Max,
                Pooling::Average {
                    count_padding: true,
                    divisor: None,
                },
                Pooling::Average {
                    count_padding: false,
                    divisor: None,
                },
                Pooling::Average {
                    count_padding: false,
                    divisor: Some(5),
                },
            ] {
                x[n / 2] = if pooling == Pooling::Max { f32::NAN } else { 1.0 };
                for isa in Isa::all() {
                    let mut out = vec![0.0; w.batch * w.output[0] * w.output[1] * w.channels];
                    w.run(isa, &Serial, pooling, &x, &mut out);
                    for (at, have) in out.iter().enumerate() {
                        let (c, rest) = (at % w.channels, at / w.channels);
                        let (ox, rest) = (rest % w.output[1], rest / w.output[1]);
                        let (oy, image) = (rest % w.output[0], rest / w.output[0]);
                        let (mut sum, mut top, mut count, mut padded) = (0.0f64, f32::NEG_INFINITY, 0, 0);
                        for ky in 0..w.kernel[0] {
                            for kx in 0..w.kernel[1] {
                                let place = |which: usize, o: usize, k: usize| {
                                    (o * w.stride[which] + k * w.dilation[which]) as isize - w.padding[which] as isize
                                };
                                let (y, px) = (place(0, oy, ky), place(1, ox, kx));
                                let (h, wide) = (w.input[0] as isize, w.input[1] as isize);
                                if y < h + w.padding[0] as isize && px < wide + w.padding[1] as isize {
                                    padded += 1;
                                }
                                if (0..h).contains(&y) && (0..wide).contains(&px) {
                                    let value = x[((image * w.input[0] + y as usize) * w.input[1] + px as usize)
                                        * w.channels
                                        + c];
                                    sum += f64::from(value);
                                    if value > top || value.is_nan() || top.is_nan() {
                                        top = if top.is_nan() { top } else { value };
                                    }
                                    count += 1;
                                }
                            }
                        }
                        let want = match pooling {
                            Pooling::Max => f64::from(top),
                            Pooling::Average { divisor: Some(n), .. } => sum / n as f64,
                            Pooling::Average {
                                count_padding: true, ..
                            } => sum / f64::from(padded.max(1)),
                            Pooling::Average { .. } => sum / f64::from(count.max(1)),
                        };
                        let same = f64::from(*have) == want || (have.is_nan() && want.is_nan());
                        assert!(
                            same || (f64::from(*have) - want).abs() < 1e-5,
                            "{isa}, {w:?}, {pooling:?}: {have}, not {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn means_are_over_all_places() {
        for (batch, spatial, channels) in [(1, 1, 1), (2, 49, 3), (1, 17, 100), (3, 200, 64), (2, 5, 79), (1, 0, 4)] {
            let x: Vec<f32> = (0..batch * spatial * channels)
                .map(|i| ((i * 7919) % 1009) as f32 / 100.0)
                .collect();
            for isa in Isa::all() {
                let mut out = vec![0.0; batch * channels];
                global_average(isa, &Serial, batch, spatial, channels, &x, &mut out);
                for (at, have) in out.iter().enumerate() {
                    let (image, c) = (at / channels, at % channels);
                    let sum: f64 = (0..spatial)
                        .map(|i| f64::from(x[(image * spatial + i) * channels + c]))
                        .sum();
                    let want = sum / spatial as f64;
                    let same = have.is_nan() && want.is_nan();
                    assert!(
                        same || (f64::from(*have) - want).abs() < 1e-5,
                        "{isa}, {spatial}: {have}, not {want}"
                    );
                }
            }
        }
    }
}
