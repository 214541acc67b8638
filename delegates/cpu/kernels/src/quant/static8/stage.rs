//! What becomes of an integer sum.

use crate::Activation;
use crate::pool::Shared;
use crate::simd::Simd;
use std::ops::Range;

/// What is added to sums.
#[derive(Debug, Clone, Copy, Default)]
pub enum Bias<'a> {
    /// Nothing.
    #[default]
    None,
    /// Integers at the scale of the products, added before anything is rounded.
    Integers(&'a [i32]),
    /// Floats.
    Floats(&'a [f32]),
}

/// How reals become bytes: `clamp(round(real * inverse) + zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// See [`inverse`].
    pub inverse: f32,
    /// The zero point.
    pub zero: i32,
    /// The least number.
    pub low: i32,
    /// The largest number.
    pub high: i32,
}

impl Grid {
    /// All bytes are allowed, so that instructions which saturate bound numbers as well.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only VNNI asks"))]
    fn is_whole(&self) -> bool {
        matches!((self.low, self.high), (-128, 127) | (0, 255))
    }

    #[inline(always)]
    pub(super) fn quantized<S: Simd>(&self, s: S, real: S::F) -> S::I {
        // Bounds are integers: it is the same before the number is rounded, and what is no number becomes the lower one.
        let (low, high) = (self.low - self.zero, self.high - self.zero);
        let bound = s.max(s.splat(low as f32), s.mul(real, s.splat(self.inverse)));
        s.add_i(s.to_i(s.min(bound, s.splat(high as f32))), s.splat_i(self.zero))
    }
}

/// The factor of a scale, as PyTorch has it: divided in `f64`, then rounded.
pub fn inverse(scale: f64) -> f32 {
    (1.0 / scale) as f32
}

/// Where results go.
#[derive(Debug)]
pub enum Target<'a> {
    /// Signed bytes.
    I8(&'a mut [i8], Grid),
    /// Unsigned bytes.
    U8(&'a mut [u8], Grid),
    /// Reals.
    F32(&'a mut [f32]),
}

/// From sums to results.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    /// One for each channel: the scale of its products.
    pub multiplier: &'a [f32],
    /// One for each channel, or none.
    pub bias: Bias<'a>,
    /// A function of reals. A clamp of quantized numbers is done better by the limits of [`Grid`].
    pub activation: Activation,
}

impl Stage<'_> {
    pub(super) fn fits(&self, channels: usize) -> bool {
        let bias = match self.bias {
            Bias::None => true,
            Bias::Integers(bias) => bias.len() >= channels,
            Bias::Floats(bias) => bias.len() >= channels,
        };
        bias && self.multiplier.len() >= channels
    }

    /// Whether numbers need no bounds before they are bytes, since instructions that saturate bound them as well: all bytes are allowed, and no sum of
    /// `inputs` products leaves 32 bits on its way.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only VNNI asks"))]
    pub(super) fn saturates(&self, grid: &Grid, inputs: usize, channels: Range<usize>) -> bool {
        let largest = |all: &[f32]| all.iter().fold(0.0, |most: f64, x| most.max(f64::from(*x).abs()));
        let (integers, floats) = match self.bias {
            Bias::None => (0.0, 0.0),
            Bias::Integers(bias) => {
                let sizes = bias[channels.clone()].iter().map(|x| f64::from(*x).abs());
                (sizes.fold(0.0, f64::max), 0.0)
            }
            Bias::Floats(bias) => (0.0, largest(&bias[channels.clone()])),
        };
        // A byte and a zero point are up to 255 apart, and weights are -128 at least.
        let sum = inputs as f64 * 255.0 * 128.0 + integers;
        let steps = (sum * largest(&self.multiplier[channels]) + floats) * f64::from(grid.inverse.abs());
        grid.is_whole() && steps < 2e9
    }

    /// What belongs to `n` channels from `c` on.
    ///
    /// # Safety
    /// There are `n` more channels.
    #[inline(always)]
    pub(super) unsafe fn lanes<S: Simd>(&self, s: S, c: usize, n: usize) -> Lanes<S> {
        // SAFETY: as the caller says; integers of 32 bits are loaded as floats are.
        unsafe {
            Lanes {
                multiplier: load(s, self.multiplier.as_ptr().add(c), n),
                bias: match self.bias {
                    Bias::None => s.splat(0.0),
                    Bias::Integers(bias) => load(s, bias.as_ptr().cast::<f32>().add(c), n),
                    Bias::Floats(bias) => load(s, bias.as_ptr().add(c), n),
                },
            }
        }
    }

    /// Reals of sums; `QUICK`: there is no function. `scale` multiplies before the multiplier, where there is one.
    #[inline(always)]
    pub(super) fn real<S: Simd, const QUICK: bool>(
        &self,
        s: S,
        lanes: &Lanes<S>,
        acc: S::I,
        scale: Option<f32>,
    ) -> S::F {
        let acc = match self.bias {
            Bias::Integers(_) => s.add_i(acc, s.bits(lanes.bias)),
            _ => acc,
        };
        let mut real = s.to_f(acc);
        if let Some(scale) = scale {
            real = s.mul(real, s.splat(scale));
        }
        real = s.mul(real, lanes.multiplier);
        if let Bias::Floats(_) = self.bias {
            real = s.add(real, lanes.bias);
        }
        match self.activation {
            _ if QUICK => real,
            Activation::None => real,
            function => function.apply(s, real),
        }
    }
}

/// # Safety
/// There are `n` numbers.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, from: *const f32, n: usize) -> S::F {
    // SAFETY: as the caller says.
    unsafe {
        match n == S::LANES {
            true => s.load(from),
            false => s.load_part(from, n),
        }
    }
}

/// What belongs to a few channels of a [`Stage`].
pub(super) struct Lanes<S: Simd> {
    multiplier: S::F,
    /// Floats, or the bits of integers.
    bias: S::F,
}

/// A [`Target`] that parts share.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Bytes(Shared<u8>, Grid),
    Reals(Shared<f32>),
}

impl Place {
    pub(super) fn new(target: &mut Target, len: usize) -> Place {
        // SAFETY: a signed byte is a byte.
        let bytes =
            |bytes: &mut [i8]| unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) };
        let (place, room) = match target {
            Target::I8(list, grid) => (Place::Bytes(Shared::new(bytes(list)), *grid), list.len()),
            Target::U8(list, grid) => (Place::Bytes(Shared::new(list), *grid), list.len()),
            Target::F32(list) => (Place::Reals(Shared::new(list)), list.len()),
        };
        assert!(room >= len, "the output is too short");
        place
    }

    /// Writes the first `n` lanes.
    ///
    /// # Safety
    /// The output has them, and nobody else writes there.
    #[inline(always)]
    pub(super) unsafe fn put<S: Simd>(&self, s: S, real: S::F, at: usize, n: usize) {
        // SAFETY: as the caller says.
        unsafe {
            match self {
                Place::Reals(out) => s.store_part(out.at(at), real, n),
                Place::Bytes(out, grid) => {
                    let q = grid.quantized(s, real);
                    if n == S::LANES {
                        s.store_u8(out.at(at), q);
                    } else {
                        let mut lanes = [0u8; 16];
                        s.store_u8(lanes.as_mut_ptr(), q);
                        std::ptr::copy_nonoverlapping(lanes.as_ptr(), out.at(at), n);
                    }
                }
            }
        }
    }
}
