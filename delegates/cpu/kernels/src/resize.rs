//! Images of another size, with dense channels, `[batch, height, width, channels]`.

use crate::Isa;
use crate::lanes::{load, store};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};

/// Where a place of the output reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// The place `floor(at * ratio)`.
    Nearest,
    /// The place `floor((at + 0.5) * ratio)`.
    NearestExact,
    /// Between the four places around `max((at + 0.5) * ratio - 0.5, 0)`.
    Bilinear,
    /// Between the four places around `at * ratio`, so that corners meet corners.
    BilinearCorners,
}

/// Another size. Of two numbers, the first is of the height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resize {
    /// How many images there are.
    pub batch: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Places of the input, at least one.
    pub input: [usize; 2],
    /// Places of the output.
    pub output: [usize; 2],
    /// Places of the input for one of the output, as [`Resize::ratio`] or a scale gives them.
    pub ratio: [f32; 2],
    /// Where places read.
    pub sampling: Sampling,
}

impl Resize {
    /// The ratio that sizes alone give, as PyTorch computes it without scales.
    pub fn ratio(sampling: Sampling, input: usize, output: usize) -> f32 {
        match (sampling, output) {
            (Sampling::BilinearCorners, 0 | 1) | (_, 0) => 0.0,
            (Sampling::BilinearCorners, _) => (input as f32 - 1.0) / (output as f32 - 1.0),
            _ => input as f32 / output as f32,
        }
    }

    /// Resizes.
    ///
    /// # Panics
    /// A slice is shorter than its sizes say, or the input has no place.
    pub fn run(&self, isa: Isa, pool: &dyn Pool, x: &[f32], out: &mut [f32]) {
        if let Sampling::Nearest | Sampling::NearestExact = self.sampling {
            return self.copy(pool, x, out);
        }
        let (c, rows) = (self.channels, self.batch * self.output[0]);
        if !self.check(x.len(), out.len()) {
            return;
        }
        let parts = pool::parts(pool, rows, self.output[1] * (c / 4 + 4));
        let out = Shared::new(out);
        pool.run(parts, &|part| {
            dispatch(
                isa,
                Lines {
                    resize: self,
                    x,
                    rows: pool::range(rows, parts, part, 1),
                    out,
                },
            );
        });
    }

    /// Resizes elements of any kind, each to the place before.
    ///
    /// # Panics
    /// As [`Resize::run`].
    pub fn copy<T: Copy + Send + Sync>(&self, pool: &dyn Pool, x: &[T], out: &mut [T]) {
        let (c, rows, [height, width]) = (self.channels, self.batch * self.output[0], self.input);
        if !self.check(x.len(), out.len()) {
            return;
        }
        let length = self.output[1] * c;
        let parts = pool::parts(pool, rows, length * size_of::<T>() / 16 + 4 * self.output[1]);
        let out = Shared::new(out);
        pool.run(parts, &|part| {
            // The row of the input that was copied last, and where to.
            let mut last: Option<(usize, usize)> = None;
            for row in pool::range(rows, parts, part, 1) {
                let (image, y) = (row / self.output[0], row % self.output[0]);
                let line = image * height + self.place(0, y).0;
                // SAFETY: the row of the output is of this part.
                let to = unsafe { out.slice(row * length..(row + 1) * length) };
                if let Some((from, made)) = last
                    && from == line
                {
                    // SAFETY: as above; it is another row than `to`.
                    to.copy_from_slice(unsafe { out.slice(made * length..(made + 1) * length) });
                    continue;
                }
                let from = &x[line * width * c..][..width * c];
                for (x, to) in to.chunks_exact_mut(c).enumerate() {
                    to.copy_from_slice(&from[self.place(1, x).0 * c..][..c]);
                }
                last = Some((line, row));
            }
        });
    }

    /// Whether there is anything to do.
    fn check(&self, input: usize, output: usize) -> bool {
        let count = self.batch * self.output[0] * self.output[1] * self.channels;
        if count == 0 {
            return false;
        }
        let [height, width] = self.input;
        assert!(height > 0 && width > 0 && input >= self.batch * height * width * self.channels);
        assert!(output >= count, "the output is there");
        true
    }

    /// The place before, the place behind, and how far it is on the way.
    #[inline(always)]
    fn place(&self, which: usize, at: usize) -> (usize, usize, f32) {
        let (ratio, last) = (self.ratio[which], self.input[which] - 1);
        let source = match self.sampling {
            Sampling::Nearest | Sampling::BilinearCorners => at as f32 * ratio,
            Sampling::NearestExact => (at as f32 + 0.5) * ratio,
            Sampling::Bilinear => ((at as f32 + 0.5) * ratio - 0.5).max(0.0),
        };
        let before = (source as usize).min(last);
        match self.sampling {
            Sampling::Nearest | Sampling::NearestExact => (before, before, 0.0),
            _ => (before, (before + 1).min(last), (source - before as f32).min(1.0)),
        }
    }
}

struct Lines<'a> {
    resize: &'a Resize,
    x: &'a [f32],
    rows: std::ops::Range<usize>,
    out: Shared<f32>,
}

impl Op for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let a = self.resize;
        let c = a.channels;
        for row in self.rows {
            let (image, y) = (row / a.output[0], row % a.output[0]);
            let (top, bottom, down) = a.place(0, y);
            let line = |y: usize| self.x[(image * a.input[0] + y) * a.input[1] * c..][..a.input[1] * c].as_ptr();
            let (top, bottom) = (line(top), line(bottom));
            for x in 0..a.output[1] {
                let (left, right, along) = a.place(1, x);
                // SAFETY: places are in the input; the row of the output is of this part.
                unsafe {
                    let to = self.out.at((row * a.output[1] + x) * c);
                    let (down, up) = (s.splat(down), s.splat(1.0 - down));
                    let (along, back) = (s.splat(along), s.splat(1.0 - along));
                    for at in (0..c).step_by(S::LANES) {
                        let len = (c - at).min(S::LANES);
                        let get = |line: *const f32, place: usize| load(s, line.add(place * c + at), len);
                        let upper = s.fma(get(top, right), along, s.mul(get(top, left), back));
                        let lower = s.fma(get(bottom, right), along, s.mul(get(bottom, left), back));
                        store(s, to.add(at), s.fma(lower, down, s.mul(upper, up)), len);
                    }
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
    fn places_read_what_is_around_them() {
        for (channels, input, output) in [
            (1, [2, 2], [4, 4]),
            (3, [5, 7], [10, 14]),
            (33, [4, 4], [7, 3]),
            (16, [1, 1], [3, 2]),
            (5, [9, 6], [1, 1]),
        ] {
            for sampling in [
                Sampling::Nearest,
                Sampling::NearestExact,
                Sampling::Bilinear,
                Sampling::BilinearCorners,
            ] {
                let ratio = [0, 1].map(|d| Resize::ratio(sampling, input[d], output[d]));
                let resize = Resize {
                    batch: 2,
                    channels,
                    input,
                    output,
                    ratio,
                    sampling,
                };
                let n = 2 * input[0] * input[1] * channels;
                let x: Vec<f32> = (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
                for isa in Isa::all() {
                    let mut out = vec![9.0; 2 * output[0] * output[1] * channels];
                    resize.run(isa, &Serial, &x, &mut out);
                    for (at, have) in out.iter().enumerate() {
                        let (c, rest) = (at % channels, at / channels);
                        let (ox, rest) = (rest % output[1], rest / output[1]);
                        let (oy, image) = (rest % output[0], rest / output[0]);
                        let get = |y: usize, x_: usize| {
                            let (y, x_) = (y.min(input[0] - 1), x_.min(input[1] - 1));
                            f64::from(x[((image * input[0] + y) * input[1] + x_) * channels + c])
                        };
                        // In exact fractions but for the bilinear ones, which are continuous.
                        let source = |which: usize, o: usize| -> f64 {
                            let (i, n) = (input[which] as f64, output[which] as f64);
                            let o = o as f64;
                            match sampling {
                                Sampling::Nearest => (o * i / n).floor(),
                                Sampling::NearestExact => ((2.0 * o + 1.0) * i / (2.0 * n)).floor(),
                                Sampling::Bilinear => ((o + 0.5) * i / n - 0.5).max(0.0),
                                Sampling::BilinearCorners if n > 1.0 => o * (i - 1.0) / (n - 1.0),
                                Sampling::BilinearCorners => 0.0,
                            }
                        };
                        let (y, px) = (source(0, oy), source(1, ox));
                        let (y0, x0) = (y.floor(), px.floor());
                        let (dy, dx) = (y - y0, px - x0);
                        let (y0, x0) = (y0 as usize, x0 as usize);
                        let want = (get(y0, x0) * (1.0 - dx) + get(y0, x0 + 1) * dx) * (1.0 - dy)
                            + (get(y0 + 1, x0) * (1.0 - dx) + get(y0 + 1, x0 + 1) * dx) * dy;
                        assert!(
                            (f64::from(*have) - want).abs() < 4e-6,
                            "{isa}, {resize:?}: {have}, not {want}"
                        );
                    }
                }
            }
        }
    }
}
