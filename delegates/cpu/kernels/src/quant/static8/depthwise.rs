//! Convolutions of each channel by itself, in NHWC.
//!
//! Lanes are channels. Products are summed in floats, which is exact: up to 256 pixels of a kernel, nothing gets to 2^24. Larger kernels are summed in integers.

use super::stage::Place;
use super::{Bytes, Conv, Stage, Target};
use crate::Activation;
use crate::pool::{self, Pool};
use crate::quant::Dot;
use crate::simd::{Op, Simd, dispatch};

/// Pixels of a kernel whose sums are exact in floats: each product is below 2^15, and zero points double them.
const EXACT: usize = 256;
/// Neighbouring pixels that are computed together.
const PIXELS: usize = 4;

/// Bytes of packed weights: a float for each pixel of the kernel and channel, and the sum of each channel.
pub fn depthwise_packed_len(conv: &Conv) -> usize {
    (conv.kernel[0] * conv.kernel[1] + 1) * conv.channels[0] * 4
}

/// Packs weights in HWC, kernel height times kernel width times channels: little-endian floats, and the sum of each channel behind them.
///
/// # Panics
/// There are fewer weights.
pub fn pack_depthwise(conv: &Conv, weights: &[i8]) -> Vec<u8> {
    let channels = conv.channels[0];
    let weights = &weights[..conv.kernel[0] * conv.kernel[1] * channels];
    let mut bytes: Vec<u8> = weights.iter().flat_map(|w| f32::from(*w).to_le_bytes()).collect();
    for c in 0..channels {
        let sum: i32 = weights
            .iter()
            .skip(c)
            .step_by(channels.max(1))
            .map(|w| i32::from(*w))
            .sum();
        bytes.extend_from_slice(&(sum as f32).to_le_bytes());
    }
    bytes
}

/// A depthwise convolution with weights of [`pack_depthwise`]; `conv` has as many channels in as out, and its groups are not read. See the module for
/// what is computed.
///
/// # Panics
/// A slice is too short.
pub fn depthwise2d(
    dot: Dot,
    pool: &dyn Pool,
    conv: &Conv,
    x: Bytes,
    weights: &[u8],
    stage: &Stage,
    target: &mut Target,
) {
    let channels = conv.channels[0];
    assert!(
        channels == conv.channels[1],
        "depthwise means as many channels out as in"
    );
    assert!(
        x.len() >= conv.input_len() && stage.fits(channels),
        "an argument is too short"
    );
    assert!(weights.len() >= depthwise_packed_len(conv), "weights are missing");
    let place = Place::new(target, conv.output_len());
    let lines = conv.batch * conv.output()[0];
    if conv.output_len() == 0 {
        return;
    }
    let work = conv.output()[1] * channels * conv.kernel[0] * conv.kernel[1] / 16;
    let parts = pool::parts(pool, lines, work);
    let job = Job {
        conv: *conv,
        x,
        weights: weights.as_ptr().cast(),
        stage: *stage,
        place,
    };
    let job = &job;
    let isa = dot.checked().isa();
    pool.run(parts, &|part| {
        for line in pool::range(lines, parts, part, 1) {
            dispatch(isa, Line { job, line });
        }
    });
}

struct Job<'a> {
    conv: Conv,
    x: Bytes<'a>,
    weights: *const f32,
    stage: Stage<'a>,
    place: Place,
}

// SAFETY: weights are read only, and each line of the output is written by one part.
unsafe impl Sync for Job<'_> {}

struct Line<'a> {
    job: &'a Job<'a>,
    line: usize,
}

impl Op for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let conv = &self.job.conv;
        match (self.job.x.signed(), conv.kernel[0] * conv.kernel[1] <= EXACT) {
            (true, true) => line::<S, true, true>(s, &self),
            (false, true) => line::<S, false, true>(s, &self),
            (true, false) => line::<S, true, false>(s, &self),
            (false, false) => line::<S, false, false>(s, &self),
        }
    }
}

#[inline(always)]
fn line<S: Simd, const SIGNED: bool, const FLOATS: bool>(s: S, line: &Line) {
    let conv = &line.job.conv;
    let width = conv.output()[1];
    let whole = |right: usize| conv.inside(1, right) == (0, conv.kernel[1]);
    let full = conv.channels[0] >= S::LANES;
    let mut right = 0;
    while right < width {
        // SAFETY: the pixels are in the line.
        unsafe {
            // Between two pixels whose kernels are inside, all are.
            if full && right + PIXELS <= width && whole(right) && whole(right + PIXELS - 1) {
                let down = line.line % conv.output()[0];
                let plain = FLOATS && conv.dilation == [1, 1] && conv.inside(0, down) == (0, conv.kernel[0]);
                match (plain, conv.kernel, conv.stride[1]) {
                    (true, [3, 3], 1) => inner::<S, SIGNED, 3, 1, { PIXELS + 2 }>(s, line, right),
                    (true, [3, 3], 2) => inner::<S, SIGNED, 3, 2, { 2 * PIXELS + 1 }>(s, line, right),
                    (true, [5, 5], 1) => inner::<S, SIGNED, 5, 1, { PIXELS + 4 }>(s, line, right),
                    (true, [5, 5], 2) => inner::<S, SIGNED, 5, 2, { 2 * PIXELS + 3 }>(s, line, right),
                    _ => pixels::<S, SIGNED, FLOATS, PIXELS, true>(s, line, right),
                }
                right += PIXELS;
                continue;
            }
            match full {
                true => pixels::<S, SIGNED, FLOATS, 1, true>(s, line, right),
                false => pixels::<S, SIGNED, FLOATS, 1, false>(s, line, right),
            }
            right += 1;
        }
    }
}

/// [`PIXELS`] pixels whose kernels of `K` by `K` are inside: `X` columns of the image are each read once for all of them, `STEP` from one to the next.
#[inline(always)]
unsafe fn inner<S: Simd, const SIGNED: bool, const K: usize, const STEP: usize, const X: usize>(
    s: S,
    line: &Line,
    right: usize,
) {
    let job = line.job;
    let conv = &job.conv;
    let (stage, place, channels) = (job.stage, job.place, conv.channels[0]);
    let [height, width] = conv.output();
    let (image, down) = (line.line / height, line.line % height);
    let first = (image * conv.size[0] + conv.pixel(0, down, 0)) * conv.size[1] + conv.pixel(1, right, 0);
    let (pixel, row) = (channels, conv.size[1] * channels);
    let from = first * channels;
    let zero = s.splat(-job.x.zero() as f32);
    let mut c = 0;
    while c < channels {
        // The last lanes overlap those before.
        c = c.min(channels - S::LANES);
        // SAFETY: all pixels are in the image, weights and the stage have all channels, and lanes are no more.
        unsafe {
            let weights = job.weights.add(c);
            let start = s.mul(s.load(weights.add(K * K * channels)), zero);
            let mut sums = [start; PIXELS];
            for i in 0..K {
                let from = job.x.pointer().add(from + i * row + c);
                let mut x = [s.splat(0.0); X];
                for (place, x) in x.iter_mut().enumerate() {
                    *x = s.to_f(bytes::<S, SIGNED, true>(s, from.add(place * pixel), S::LANES));
                }
                for j in 0..K {
                    let w = s.load(weights.add((i * K + j) * channels));
                    for (p, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(x[p * STEP + j], w, *sum);
                    }
                }
            }
            let lanes = stage.lanes(s, c, S::LANES);
            let at = line.line * width * channels + right * channels + c;
            match place {
                Place::Bytes(out, grid) if stage.activation == Activation::None => {
                    for (p, sum) in sums.into_iter().enumerate() {
                        let real = stage.real::<S, true>(s, &lanes, s.to_i(sum), None);
                        s.store_u8(out.at(at + p * channels), grid.quantized(s, real));
                    }
                }
                _ => {
                    for (p, sum) in sums.into_iter().enumerate() {
                        let real = stage.real::<S, false>(s, &lanes, s.to_i(sum), None);
                        place.put(s, real, at + p * channels, S::LANES);
                    }
                }
            }
        }
        c += S::LANES;
    }
}

/// `P` pixels from `right` on; more than one only where their kernels are inside of the line. `FULL`: there are as many channels as lanes.
#[inline(always)]
unsafe fn pixels<S: Simd, const SIGNED: bool, const FLOATS: bool, const P: usize, const FULL: bool>(
    s: S,
    line: &Line,
    right: usize,
) {
    let job = line.job;
    let conv = &job.conv;
    let [height, width] = conv.output();
    let (channels, [tall, wide]) = (conv.channels[0], conv.kernel);
    let (image, down) = (line.line / height, line.line % height);
    let (rows, columns) = (conv.inside(0, down), conv.inside(1, right));
    let zero = job.x.zero();
    let step = conv.stride[1] * channels;
    let mut c = 0;
    while c < channels {
        // The last lanes overlap those before, where there are enough.
        if FULL && c + S::LANES > channels {
            c = channels - S::LANES;
        }
        let n = if FULL { S::LANES } else { channels - c };
        // SAFETY: pixels that are inside are in the image, weights have all channels, and only `n` of them are read.
        unsafe {
            macro_rules! weight {
                ($at:expr) => {{
                    let from = job.weights.add($at * channels + c);
                    if FULL { s.load(from) } else { s.load_part(from, n) }
                }};
            }
            let start = s.mul(weight!((tall * wide)), s.splat(-zero as f32));
            let mut floats = [start; P];
            let mut ints = [s.to_i(start); P];
            macro_rules! meet {
                ($p:expr, $x:expr, $w:expr) => {
                    if FLOATS {
                        floats[$p] = s.fma(s.to_f($x), $w, floats[$p]);
                    } else {
                        ints[$p] = s.add_i(ints[$p], s.mul_i($x, s.to_i($w)));
                    }
                };
            }
            for i in 0..tall {
                let within = rows.0 <= i && i < rows.1;
                let (first, behind) = if within { columns } else { (wide, wide) };
                for j in (0..first).chain(behind..wide) {
                    let w = weight!((i * wide + j));
                    for p in 0..P {
                        meet!(p, s.splat_i(zero), w);
                    }
                }
                if first >= behind {
                    continue;
                }
                let y = image * conv.size[0] + conv.pixel(0, down, i);
                let from = (y * conv.size[1] + conv.pixel(1, right, first)) * channels + c;
                let mut from = job.x.pointer().add(from);
                for j in first..behind {
                    let w = weight!((i * wide + j));
                    for p in 0..P {
                        meet!(p, bytes::<S, SIGNED, FULL>(s, from.add(p * step), n), w);
                    }
                    // The last one may be far behind the image, and is not read.
                    from = from.wrapping_add(conv.dilation[1] * channels);
                }
            }
            let lanes = job.stage.lanes(s, c, n);
            for p in 0..P {
                let acc = if FLOATS { s.to_i(floats[p]) } else { ints[p] };
                let real = job.stage.real::<S, false>(s, &lanes, acc, None);
                job.place
                    .put(s, real, (line.line * width + right + p) * channels + c, n);
            }
        }
        c += n;
    }
}

/// # Safety
/// There are `n` bytes.
#[inline(always)]
unsafe fn bytes<S: Simd, const SIGNED: bool, const FULL: bool>(s: S, from: *const u8, n: usize) -> S::I {
    // SAFETY: as the caller says.
    unsafe {
        if FULL {
            return if SIGNED {
                s.load_i8(from.cast())
            } else {
                s.load_u8(from)
            };
        }
        let mut all = [0u8; 16];
        std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), n);
        if SIGNED {
            s.load_i8(all.as_ptr().cast())
        } else {
            s.load_u8(all.as_ptr())
        }
    }
}
