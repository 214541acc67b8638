//! What lies between layers on bytes: sums and products of two tensors, functions by tables, means over pixels, and what makes bytes of floats.
//!
//! ```text
//! real(q) = float(q - zero) * scale
//! pair    = quantized(real(a) + real(b))               each step rounded to a float; or the difference, or the product
//! mean    = quantized(float(sum of (q - zero)) * factor)   with `factor = scale / pixels`, the sum exact
//! ```

use super::stage::Place;
use super::{Bytes, Grid, Target};
use crate::pool::{self, Pool};
use crate::simd::{Op, Simd, dispatch};
use crate::{Activation, Isa};

/// Bytes and their scale.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a> {
    /// With their zero point.
    pub bytes: Bytes<'a>,
    /// What one step of them is.
    pub scale: f32,
}

/// A function of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
}

/// Sizes of [`pair`]: `a` has `rows` of `columns`, and each row of `b` goes with `rows_each` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Rows of `a` and of the output.
    pub rows: usize,
    /// Numbers of a row.
    pub columns: usize,
    /// Rows of `a` for each row of `b`; not 0.
    pub rows_each: usize,
}

/// Elements that one thread computes at least.
const CHUNK: usize = 4096;

/// A function of two tensors of bytes.
///
/// # Panics
/// A slice is too short.
pub fn pair(isa: Isa, pool: &dyn Pool, function: Pair, a: Scaled, b: Scaled, sizes: Rows, target: &mut Target) {
    let total = sizes.rows * sizes.columns;
    let place = Place::new(target, total);
    if total == 0 {
        return;
    }
    let others = sizes.rows.div_ceil(sizes.rows_each.max(1)) * sizes.columns;
    assert!(
        a.bytes.len() >= total && b.bytes.len() >= others,
        "an argument is too short"
    );
    // Where both are alike, rows say nothing.
    let sizes = match sizes.rows_each {
        0 | 1 => Rows {
            rows: total.div_ceil(CHUNK),
            columns: CHUNK,
            rows_each: 1,
        },
        _ => sizes,
    };
    let parts = pool::parts(pool, sizes.rows, sizes.columns / 8);
    let (a, b) = (Source::of(&a), Source::of(&b));
    pool.run(parts, &|part| {
        for row in pool::range(sizes.rows, parts, part, 1) {
            let start = row * sizes.columns;
            let work = Both {
                function,
                a: a.from(start),
                b: b.from(row / sizes.rows_each * sizes.columns),
                start,
                count: sizes.columns.min(total - start),
                place,
            };
            dispatch(isa, work);
        }
    });
}

/// Where bytes begin, and what they mean.
#[derive(Clone, Copy)]
pub(super) struct Source {
    at: *const u8,
    signed: bool,
    zero: i32,
    scale: f32,
}

// SAFETY: it is made of slices that are borrowed while parts run, and read only.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

impl Source {
    pub(super) fn of(scaled: &Scaled) -> Source {
        Source {
            at: scaled.bytes.pointer(),
            signed: scaled.bytes.signed(),
            zero: scaled.bytes.zero(),
            scale: scaled.scale,
        }
    }

    fn from(self, skip: usize) -> Source {
        Source {
            at: self.at.wrapping_add(skip),
            ..self
        }
    }

    /// Reals of `n` bytes from one on.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    pub(super) unsafe fn real<S: Simd>(&self, s: S, skip: usize, n: usize) -> S::F {
        // SAFETY: as the caller says.
        unsafe {
            let q = load(s, self.at.wrapping_add(skip), self.signed, n);
            s.mul(s.to_f(s.sub_i(q, s.splat_i(self.zero))), s.splat(self.scale))
        }
    }
}

/// # Safety
/// There are `n` bytes.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, from: *const u8, signed: bool, n: usize) -> S::I {
    // SAFETY: as the caller says.
    unsafe {
        let mut part = [0u8; 16];
        let from = match n == S::LANES {
            true => from,
            false => {
                std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), n);
                part.as_ptr()
            }
        };
        match signed {
            true => s.load_i8(from.cast()),
            false => s.load_u8(from),
        }
    }
}

struct Both {
    function: Pair,
    a: Source,
    b: Source,
    start: usize,
    count: usize,
    place: Place,
}

impl Op for Both {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.function {
            Pair::Add => self.each(s, |a, b| s.add(a, b)),
            Pair::Sub => self.each(s, |a, b| s.sub(a, b)),
            Pair::Mul => self.each(s, |a, b| s.mul(a, b)),
        }
    }
}

impl Both {
    #[inline(always)]
    fn each<S: Simd>(&self, s: S, function: impl Fn(S::F, S::F) -> S::F) {
        let whole = self.count / S::LANES * S::LANES;
        // SAFETY: `pair` saw that both operands and the output have so many, and no other part has them.
        unsafe {
            if let (Place::Bytes(out, grid), true, true) = (self.place, self.a.signed, self.b.signed) {
                for at in (0..whole).step_by(S::LANES) {
                    let (a, b) = (self.a.real(s, at, S::LANES), self.b.real(s, at, S::LANES));
                    s.store_u8(out.at(self.start + at), grid.quantized(s, function(a, b)));
                }
            } else {
                for at in (0..whole).step_by(S::LANES) {
                    let (a, b) = (self.a.real(s, at, S::LANES), self.b.real(s, at, S::LANES));
                    self.place.put(s, function(a, b), self.start + at, S::LANES);
                }
            }
            if whole < self.count {
                let n = self.count - whole;
                let (a, b) = (self.a.real(s, whole, n), self.b.real(s, whole, n));
                self.place.put(s, function(a, b), self.start + whole, n);
            }
        }
    }
}

/// What becomes of each byte by a function between two scales: the byte's bits are the index.
pub fn table(function: Activation, signed: bool, zero: i32, scale: f32, grid: &Grid) -> [u8; 256] {
    std::array::from_fn(|bits| {
        let q = if signed {
            i32::from(bits as u8 as i8)
        } else {
            bits as i32
        };
        let real = function.of((q - zero) as f32 * scale);
        let made = (real * grid.inverse).round_ties_even() + grid.zero as f32;
        made.clamp(grid.low as f32, grid.high as f32) as i32 as u8
    })
}

/// Looks bytes up in a [`table`].
///
/// # Panics
/// `x` is shorter than `out`.
pub fn map(pool: &dyn Pool, table: &[u8; 256], x: &[u8], out: &mut [u8]) {
    let x = &x[..out.len()];
    let parts = pool::parts(pool, out.len().div_ceil(CHUNK), CHUNK / 2);
    let (total, shared) = (out.len(), pool::Shared::new(out));
    pool.run(parts, &|part| {
        let range = pool::range(total, parts, part, CHUNK);
        // SAFETY: parts have ranges of their own.
        let out = unsafe { shared.slice(range.clone()) };
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512vbmi") && Isa::best() >= Isa::Avx512 {
            // SAFETY: the machine has it, and both are as long.
            return unsafe { super::vnni::map(table, &x[range], out) };
        }
        for (to, byte) in out.iter_mut().zip(&x[range]) {
            *to = table[usize::from(*byte)];
        }
    });
}

/// Means over `pixels` pixels of `channels` channels each, for each of `batch` images; see the module for `factor`.
///
/// # Panics
/// A slice is too short, or a sum may not fit 32 bits: there are more than 2^22 pixels.
pub fn mean(isa: Isa, pool: &dyn Pool, x: Bytes, factor: f32, sizes: [usize; 3], target: &mut Target) {
    let [batch, pixels, channels] = sizes;
    assert!(pixels <= 1 << 22, "too many pixels for a sum");
    assert!(x.len() >= batch * pixels * channels, "an argument is too short");
    let place = Place::new(target, batch * channels);
    let blocks = channels.div_ceil(16);
    let parts = pool::parts(pool, batch * blocks, pixels);
    let x = Source::of(&Scaled {
        bytes: x,
        scale: factor,
    });
    pool.run(parts, &|part| {
        for unit in pool::range(batch * blocks, parts, part, 1) {
            let (image, channel) = (unit / blocks, unit % blocks * 16);
            let work = Sum {
                x: x.from(image * pixels * channels + channel),
                pixels,
                channels,
                count: 16.min(channels - channel),
                place,
                at: image * channels + channel,
            };
            dispatch(isa, work);
        }
    });
}

struct Sum {
    x: Source,
    pixels: usize,
    channels: usize,
    count: usize,
    place: Place,
    at: usize,
}

impl Op for Sum {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for skip in (0..self.count).step_by(S::LANES) {
            let n = S::LANES.min(self.count - skip);
            let mut sum = s.splat_i(self.x.zero.wrapping_mul(self.pixels as i32).wrapping_neg());
            // SAFETY: `mean` saw that pixels have these channels, and so has the output.
            unsafe {
                let mut from = self.x.at.wrapping_add(skip);
                for _ in 0..self.pixels {
                    sum = s.add_i(sum, load(s, from, self.x.signed, n));
                    from = from.wrapping_add(self.channels);
                }
                self.place
                    .put(s, s.mul(s.to_f(sum), s.splat(self.x.scale)), self.at + skip, n);
            }
        }
    }
}

/// Makes bytes of floats.
///
/// # Panics
/// The output is too short.
pub fn quantize(isa: Isa, pool: &dyn Pool, x: &[f32], target: &mut Target) {
    let place = Place::new(target, x.len());
    let chunks = x.len().div_ceil(CHUNK);
    let parts = pool::parts(pool, chunks, CHUNK / 8);
    pool.run(parts, &|part| {
        let range = pool::range(x.len(), parts, part, CHUNK);
        dispatch(isa, Floats { x, range, place });
    });
}

struct Floats<'a> {
    x: &'a [f32],
    range: std::ops::Range<usize>,
    place: Place,
}

impl Op for Floats<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut at = self.range.start;
        while at < self.range.end {
            let n = S::LANES.min(self.range.end - at);
            // SAFETY: the range is of the input and the output, of which no other part has it.
            unsafe { self.place.put(s, s.load_part(self.x.as_ptr().add(at), n), at, n) };
            at += n;
        }
    }
}

/// Channels that [`quantize_last`] takes.
pub const FEW: usize = 4;

/// Makes bytes of images of at most [`FEW`] planes of `pixels` floats, and puts the planes of each pixel side by side. The target is of bytes.
///
/// # Panics
/// A slice is too short, there are more planes, or the target is of floats.
pub fn quantize_last(isa: Isa, pool: &dyn Pool, x: &[f32], sizes: [usize; 3], target: &mut Target) {
    let [batch, channels, pixels] = sizes;
    let total = batch * channels * pixels;
    assert!(channels <= FEW && x.len() >= total, "an argument is too short");
    let Place::Bytes(out, grid) = Place::new(target, total) else {
        panic!("the target is of floats");
    };
    if total == 0 {
        return;
    }
    let stripes = pixels.div_ceil(CHUNK);
    let parts = pool::parts(pool, batch * stripes, CHUNK / 2);
    pool.run(parts, &|part| {
        for unit in pool::range(batch * stripes, parts, part, 1) {
            let (image, first) = (unit / stripes, unit % stripes * CHUNK);
            let planes = Planes {
                x: &x[image * channels * pixels..][..channels * pixels],
                grid,
                pixels: first..pixels.min(first + CHUNK),
                channels,
                // SAFETY: the image is in the output.
                out: unsafe { out.from(image * channels * pixels) },
            };
            dispatch(isa, planes);
        }
    });
}

struct Planes<'a> {
    x: &'a [f32],
    grid: Grid,
    pixels: std::ops::Range<usize>,
    channels: usize,
    out: pool::Shared<u8>,
}

impl Op for Planes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.channels {
            1 => self.planes::<S, 1>(s),
            2 => self.planes::<S, 2>(s),
            3 => self.planes::<S, 3>(s),
            _ => self.planes::<S, 4>(s),
        }
    }
}

impl Planes<'_> {
    #[inline(always)]
    fn planes<S: Simd, const C: usize>(&self, s: S) {
        let all = self.x.len() / C;
        let mut at = self.pixels.start;
        while at < self.pixels.end {
            let n = S::LANES.min(self.pixels.end - at);
            let mut word = s.splat_i(0);
            // Each pixel in a lane, the last plane on top.
            for c in (0..C).rev() {
                // SAFETY: the pixels are in the plane.
                let x = unsafe { s.load_part(self.x.as_ptr().add(c * all + at), n) };
                let q = s.and_i(self.grid.quantized(s, x), s.splat_i(0xff));
                word = s.or_i(s.shl_i::<8>(word), q);
            }
            let mut words = [0i32; 16];
            // SAFETY: there is room for all lanes; the output has these pixels, and no other part has them.
            unsafe {
                s.store_i(words.as_mut_ptr(), word);
                let to = self.out.at(at * C);
                let (fours, rest) = words[..n].as_chunks::<4>();
                for (p, [a, b, c, d]) in fours.iter().enumerate() {
                    let low = u64::from(*a as u32) | u64::from(*b as u32) << (8 * C);
                    let high = u64::from(*c as u32) | u64::from(*d as u32) << (8 * C);
                    let all = (u128::from(low) | u128::from(high) << (16 * C)).to_le_bytes();
                    std::ptr::copy_nonoverlapping(all.as_ptr(), to.add(4 * p * C), 4 * C);
                }
                for (p, word) in rest.iter().enumerate() {
                    let p = 4 * fours.len() + p;
                    std::ptr::copy_nonoverlapping(word.to_le_bytes().as_ptr(), to.add(p * C), C);
                }
            }
            at += n;
        }
    }
}
