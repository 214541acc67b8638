//! Convolutions of each channel by itself, in NHWC.
//!
//! Lanes are channels. Where a machine has no better way, products are summed in floats, which is exact: up to 256 pixels of a kernel, nothing gets to 2^24. Larger kernels are summed in integers.

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

/// Where the sums begin in packed weights.
fn sums_at(conv: &Conv) -> usize {
    (conv.kernel[0] * conv.kernel[1] * conv.channels[0]).next_multiple_of(64)
}

/// Bytes of packed weights: a byte for each pixel of the kernel and channel, and at the next multiple of 64, the sum of each channel in 32 bits.
pub fn depthwise_packed_len(conv: &Conv) -> usize {
    sums_at(conv) + conv.channels[0] * 4
}

/// Packs weights in HWC, kernel height times kernel width times channels, and the sum of each channel, little-endian, behind them.
///
/// # Panics
/// There are fewer weights.
pub fn pack_depthwise(conv: &Conv, weights: &[i8]) -> Vec<u8> {
    let channels = conv.channels[0];
    let weights = &weights[..conv.kernel[0] * conv.kernel[1] * channels];
    let mut bytes: Vec<u8> = weights.iter().map(|w| *w as u8).collect();
    bytes.resize(sums_at(conv), 0);
    for c in 0..channels {
        let own = weights.iter().skip(c).step_by(channels);
        let sum: i32 = own.map(|w| i32::from(*w)).sum();
        bytes.extend_from_slice(&sum.to_le_bytes());
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
        weights: weights.as_ptr(),
        // SAFETY: the weights are as long as is asked for above.
        sums: unsafe { weights.as_ptr().add(sums_at(conv)).cast() },
        stage: *stage,
        place,
        saturates: match &place {
            Place::Bytes(_, grid) => stage.saturates(grid, conv.kernel[0] * conv.kernel[1], 0..channels),
            Place::Reals(_) => false,
        },
    };
    let job = &job;
    let (dot, isa) = (dot.checked(), dot.checked().isa());
    pool.run(parts, &|part| {
        for line in pool::range(lines, parts, part, 1) {
            if !job.by_columns(dot, line) {
                dispatch(isa, Line { job, line });
            }
        }
    });
}

struct Job<'a> {
    conv: Conv,
    x: Bytes<'a>,
    weights: *const u8,
    /// One for each channel, at any address.
    sums: *const i32,
    stage: Stage<'a>,
    place: Place,
    /// See [`Stage::saturates`].
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only VNNI asks"))]
    saturates: bool,
}

// SAFETY: weights are read only, and each line of the output is written by one part.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// Computes a line in the way of machines with AVX2 or VNNI, and says whether it did.
    #[cfg(target_arch = "x86_64")]
    fn by_columns(&self, dot: Dot, line: usize) -> bool {
        let conv = &self.conv;
        let Place::Bytes(out, grid) = self.place else {
            return false;
        };
        match dot {
            Dot::Vnni => {}
            Dot::Avx2 if conv.channels[0] >= super::taps::WIDTH => {}
            _ => return false,
        }
        let known = matches!(conv.kernel, [3, 3] | [5, 5]) && matches!(conv.stride[1], 1 | 2);
        let small = grid.zero.unsigned_abs() <= super::direct::SMALL;
        if !known || !small || conv.dilation != [1, 1] || self.stage.activation != Activation::None {
            return false;
        }
        let [height, width] = conv.output();
        let (image, down) = (line / height, line % height);
        let (first, behind) = conv.inside(0, down);
        let mut rows = [std::ptr::null(); super::columns::MOST];
        for (i, row) in rows.iter_mut().enumerate().take(behind).skip(first) {
            let at = (image * conv.size[0] + conv.pixel(0, down, i)) * conv.size[1] * conv.channels[0];
            *row = self.x.pointer().wrapping_add(at);
        }
        // SAFETY: this machine has `dot`, lines are in the image, and whoever made the job saw that everything has its size.
        unsafe {
            let line = columns::Line {
                rows,
                channels: conv.channels[0],
                from: conv.size[1],
                to: width,
                before: conv.before[1],
                signed: self.x.signed(),
                zero: self.x.zero(),
                weights: self.weights,
                sums: self.sums,
                stage: self.stage,
                grid,
                saturates: self.saturates,
                out: out.at(line * width * conv.channels[0]),
            };
            use super::{columns, taps};
            match (dot, conv.kernel[0], conv.stride[1]) {
                (Dot::Vnni, 3, 1) => columns::line::<3, 1>(&line),
                (Dot::Vnni, 3, _) => columns::line::<3, 2>(&line),
                (Dot::Vnni, _, 1) => columns::line::<5, 1>(&line),
                (Dot::Vnni, _, _) => columns::line::<5, 2>(&line),
                (_, 3, 1) => taps::line::<3, 1>(&line),
                (_, 3, _) => taps::line::<3, 2>(&line),
                (_, _, 1) => taps::line::<5, 1>(&line),
                _ => taps::line::<5, 2>(&line),
            }
        }
        true
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn by_columns(&self, _: Dot, _: usize) -> bool {
        false
    }
}

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
    let (conv, job) = (&line.job.conv, line.job);
    let (channels, taps) = (conv.channels[0], conv.kernel[0] * conv.kernel[1]);
    // Weights of a few channels as floats, and what sums of them begin with.
    let mut floats = [0.0f32; (EXACT + 1) * 16];
    let mut c = 0;
    while c < channels {
        let full = channels >= S::LANES;
        // The last lanes overlap those before, where there are enough.
        if full {
            c = c.min(channels - S::LANES);
        }
        let n = S::LANES.min(channels - c);
        // SAFETY: weights and sums have `n` more channels; pixels are in the line.
        unsafe {
            let sums = match full {
                true => s.load_i(job.sums.add(c)),
                false => {
                    let mut all = [0i32; 16];
                    for (i, sum) in all[..n].iter_mut().enumerate() {
                        *sum = job.sums.add(c + i).read_unaligned();
                    }
                    s.load_i(all.as_ptr())
                }
            };
            let start = s.mul_i(sums, s.splat_i(-job.x.zero()));
            if FLOATS {
                for tap in 0..taps {
                    let from = job.weights.add(tap * channels + c);
                    let w = match full {
                        true => bytes::<S, true, true>(s, from, n),
                        false => bytes::<S, true, false>(s, from, n),
                    };
                    s.store(floats.as_mut_ptr().add(tap * S::LANES), s.to_f(w));
                }
            }
            let part = Part {
                line,
                c,
                n,
                floats: floats.as_ptr(),
                start,
            };
            part.run::<SIGNED, FLOATS>(s, full);
        }
        c += n;
    }
}

/// A few channels of a line.
struct Part<'a, S: Simd> {
    line: &'a Line<'a>,
    c: usize,
    n: usize,
    /// Weights, for each pixel of the kernel as many as there are lanes.
    floats: *const f32,
    start: S::I,
}

impl<S: Simd> Part<'_, S> {
    /// # Safety
    /// The channels are there.
    #[inline(always)]
    unsafe fn run<const SIGNED: bool, const FLOATS: bool>(&self, s: S, full: bool) {
        let conv = &self.line.job.conv;
        let width = conv.output()[1];
        let whole = |right: usize| conv.inside(1, right) == (0, conv.kernel[1]);
        let down = self.line.line % conv.output()[0];
        let plain = FLOATS && conv.dilation == [1, 1] && conv.inside(0, down) == (0, conv.kernel[0]);
        let mut right = 0;
        while right < width {
            // SAFETY: the pixels are in the line.
            unsafe {
                // Between two pixels whose kernels are inside, all are.
                if full && right + PIXELS <= width && whole(right) && whole(right + PIXELS - 1) {
                    match (plain, conv.kernel, conv.stride[1]) {
                        (true, [3, 3], 1) => self.inner::<SIGNED, 3, 1, { PIXELS + 2 }>(s, right),
                        (true, [3, 3], 2) => self.inner::<SIGNED, 3, 2, { 2 * PIXELS + 1 }>(s, right),
                        (true, [5, 5], 1) => self.inner::<SIGNED, 5, 1, { PIXELS + 4 }>(s, right),
                        (true, [5, 5], 2) => self.inner::<SIGNED, 5, 2, { 2 * PIXELS + 3 }>(s, right),
                        _ => self.pixels::<SIGNED, FLOATS, PIXELS, true>(s, right),
                    }
                    right += PIXELS;
                    continue;
                }
                match full {
                    true => self.pixels::<SIGNED, FLOATS, 1, true>(s, right),
                    false => self.pixels::<SIGNED, FLOATS, 1, false>(s, right),
                }
                right += 1;
            }
        }
    }

    /// [`PIXELS`] pixels whose kernels of `K` by `K` are inside: `X` columns of the image are each read once for all of them, `STEP` from one to the next.
    ///
    /// # Safety
    /// They are, and there are as many channels as lanes.
    #[inline(always)]
    unsafe fn inner<const SIGNED: bool, const K: usize, const STEP: usize, const X: usize>(&self, s: S, right: usize) {
        let (job, c) = (self.line.job, self.c);
        let conv = &job.conv;
        let (stage, place, channels) = (job.stage, job.place, conv.channels[0]);
        let [height, width] = conv.output();
        let (image, down) = (self.line.line / height, self.line.line % height);
        let first = (image * conv.size[0] + conv.pixel(0, down, 0)) * conv.size[1] + conv.pixel(1, right, 0);
        let (pixel, row) = (channels, conv.size[1] * channels);
        // SAFETY: all pixels are in the image, weights and the stage have all channels, and lanes are no more.
        unsafe {
            let mut sums = [s.to_f(self.start); PIXELS];
            for i in 0..K {
                let from = job.x.pointer().add(first * channels + i * row + c);
                let mut x = [s.splat(0.0); X];
                for (place, x) in x.iter_mut().enumerate() {
                    *x = s.to_f(bytes::<S, SIGNED, true>(s, from.add(place * pixel), S::LANES));
                }
                for j in 0..K {
                    let w = s.load(self.floats.add((i * K + j) * S::LANES));
                    for (p, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(x[p * STEP + j], w, *sum);
                    }
                }
            }
            let lanes = stage.lanes(s, c, S::LANES);
            let at = self.line.line * width * channels + right * channels + c;
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
    }

    /// `P` pixels from `right` on; more than one only where their kernels are inside of the line. `FULL`: there are as many channels as lanes.
    ///
    /// # Safety
    /// The pixels and channels are there.
    #[inline(always)]
    unsafe fn pixels<const SIGNED: bool, const FLOATS: bool, const P: usize, const FULL: bool>(
        &self,
        s: S,
        right: usize,
    ) {
        let (job, c, n) = (self.line.job, self.c, self.n);
        let conv = &job.conv;
        let [height, width] = conv.output();
        let (channels, [tall, wide]) = (conv.channels[0], conv.kernel);
        let (image, down) = (self.line.line / height, self.line.line % height);
        let (rows, columns) = (conv.inside(0, down), conv.inside(1, right));
        let zero = job.x.zero();
        let step = conv.stride[1] * channels;
        // SAFETY: pixels that are inside are in the image, weights have all channels, and only `n` of them are read.
        unsafe {
            let mut floats = [s.to_f(self.start); P];
            let mut ints = [self.start; P];
            macro_rules! meet {
                ($at:expr, $x:expr) => {
                    if FLOATS {
                        let w = s.load(self.floats.add($at * S::LANES));
                        for (p, sum) in floats.iter_mut().enumerate() {
                            *sum = s.fma(s.to_f($x(p)), w, *sum);
                        }
                    } else {
                        let w = bytes::<S, true, FULL>(s, job.weights.add($at * channels + c), n);
                        for (p, sum) in ints.iter_mut().enumerate() {
                            *sum = s.add_i(*sum, s.mul_i($x(p), w));
                        }
                    }
                };
            }
            for i in 0..tall {
                let within = rows.0 <= i && i < rows.1;
                let (first, behind) = if within { columns } else { (wide, wide) };
                for j in (0..first).chain(behind..wide) {
                    meet!((i * wide + j), |_: usize| s.splat_i(zero));
                }
                if first >= behind {
                    continue;
                }
                let y = image * conv.size[0] + conv.pixel(0, down, i);
                let from = (y * conv.size[1] + conv.pixel(1, right, first)) * channels + c;
                let mut from = job.x.pointer().add(from);
                for j in first..behind {
                    meet!((i * wide + j), |p: usize| bytes::<S, SIGNED, FULL>(
                        s,
                        from.add(p * step),
                        n
                    ));
                    // The last one may be far behind the image, and is not read.
                    from = from.wrapping_add(conv.dilation[1] * channels);
                }
            }
            let lanes = job.stage.lanes(s, c, n);
            for p in 0..P {
                let acc = if FLOATS { s.to_i(floats[p]) } else { ints[p] };
                let real = job.stage.real::<S, false>(s, &lanes, acc, None);
                job.place
                    .put(s, real, (self.line.line * width + right + p) * channels + c, n);
            }
        }
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
