//! Pools of images of bytes, channels last.
//!
//! The largest byte of a window is the largest number. Averages are made as the graph says it, number by number:
//!
//! ```text
//! average = quantized(sum / places)      the sum of float(q - zero) * scale, row by row, each step rounded to a float
//! ```

use super::elements::{Scaled, Source};
use super::stage::Place;
use super::{Bytes, Target};
use crate::Isa;
use crate::pool::{self, Pool, Shared};
use crate::pooling::Windows;
use crate::simd::{Op, Simd, dispatch};

/// The largest byte of each window; of a window without places, the least that there is.
///
/// # Panics
/// A slice is shorter than the sizes say.
pub fn largest(isa: Isa, pool: &dyn Pool, windows: &Windows, x: Bytes, out: &mut [u8]) {
    assert!(
        x.len() >= windows.inputs() && out.len() >= windows.outputs(),
        "an image is missing"
    );
    // SAFETY: a signed byte is a byte.
    let bytes = unsafe { std::slice::from_raw_parts(x.pointer(), x.len()) };
    let rows = windows.batch * windows.output[0];
    let parts = pool::parts(pool, rows, work(windows) / 4);
    let shared = Shared::new(out);
    pool.run(parts, &|part| {
        let rows = pool::range(rows, parts, part, 1);
        let length = windows.output[1] * windows.channels;
        // SAFETY: rows of the output are different places of it.
        let to = unsafe { shared.slice(rows.start * length..rows.end * length) };
        let first = rows.start;
        dispatch(
            isa,
            Largest {
                windows,
                first,
                x: bytes,
                // Bytes with a sign have the order of those without, when their upper bit is turned.
                turn: if x.signed() { 0x80 } else { 0 },
                to,
            },
        );
    });
}

/// Averages of windows. Where places of the padding count, they count as zeros; `divisor` stands for how many there are.
///
/// # Panics
/// A slice is shorter than the sizes say.
pub fn average(
    isa: Isa,
    pool: &dyn Pool,
    windows: &Windows,
    count_padding: bool,
    divisor: Option<usize>,
    x: Scaled,
    target: &mut Target,
) {
    let place = Place::new(target, windows.outputs());
    assert!(x.bytes.len() >= windows.inputs(), "an image is missing");
    let rows = windows.batch * windows.output[0];
    let parts = pool::parts(pool, rows, work(windows));
    let source = Source::of(&x);
    pool.run(parts, &|part| {
        for row in pool::range(rows, parts, part, 1) {
            dispatch(
                isa,
                Average {
                    windows,
                    count_padding,
                    divisor,
                    source,
                    row,
                    place,
                },
            );
        }
    });
}

/// Nanoseconds of a row of the output, about.
fn work(windows: &Windows) -> usize {
    windows.output[1] * (windows.channels / 16 + 1) * (windows.kernel[0] * windows.kernel[1] / 2 + 2)
}

struct Largest<'a> {
    windows: &'a Windows,
    first: usize,
    x: &'a [u8],
    turn: u8,
    to: &'a mut [u8],
}

impl Op for Largest<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (w, c, turn) = (self.windows, self.windows.channels, self.turn);
        if c == 0 {
            return;
        }
        for (at, to) in self.to.chunks_exact_mut(c).enumerate() {
            let (row, x) = (self.first + at / w.output[1], at % w.output[1]);
            let (image, y) = (row / w.output[0], row % w.output[0]);
            let ((y0, height, _), (x0, width, _)) = (w.span(0, y), w.span(1, x));
            // The least byte, its bit turned.
            to.fill(0);
            for down in 0..height {
                for across in 0..width {
                    let (y, x) = (y0 + down * w.dilation[0], x0 + across * w.dilation[1]);
                    let from = &self.x[((image * w.input[0] + y) * w.input[1] + x) * c..][..c];
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = (*to).max(from ^ turn);
                    }
                }
            }
            to.iter_mut().for_each(|to| *to ^= turn);
        }
    }
}

struct Average<'a> {
    windows: &'a Windows,
    count_padding: bool,
    divisor: Option<usize>,
    source: Source,
    row: usize,
    place: Place,
}

impl Op for Average<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (w, c) = (self.windows, self.windows.channels);
        let (image, y) = (self.row / w.output[0], self.row % w.output[0]);
        let (y0, height, tall) = w.span(0, y);
        for x in 0..w.output[1] {
            let (x0, width, wide) = w.span(1, x);
            let places = match (self.divisor, self.count_padding) {
                (Some(divisor), _) => divisor,
                (None, true) => tall * wide,
                (None, false) => height * width,
            };
            let places = s.splat(places.max(1) as f32);
            for channel in (0..c).step_by(S::LANES) {
                let n = (c - channel).min(S::LANES);
                let mut sum = s.splat(0.0);
                for down in 0..height {
                    for across in 0..width {
                        let (y, x) = (y0 + down * w.dilation[0], x0 + across * w.dilation[1]);
                        let at = ((image * w.input[0] + y) * w.input[1] + x) * c + channel;
                        // SAFETY: places of a window are in the image, which is checked.
                        sum = s.add(sum, unsafe { self.source.real(s, at, n) });
                    }
                }
                let at = (self.row * w.output[1] + x) * c + channel;
                // SAFETY: the row of the output is of this part.
                unsafe { self.place.put(s, s.div(sum, places), at, n) };
            }
        }
    }
}
