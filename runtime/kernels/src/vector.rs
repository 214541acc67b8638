//! Loops over slices of `f32` that become vector instructions: the usual functions as polynomials without branches, and the sums of rows.
//!
//! Each loop is compiled twice for x86_64, plainly and for AVX2; both give the same bits, because nothing here is a fused
//! multiply-add. Functions are good to 2 units in the last place. The polynomials were fitted for this file: smallest largest relative error on the interval
//! named beside them.

use crate::math::{Num, Real};
use crate::wide::Wide;

/// Functions of a slice, element by element.
pub(crate) trait Bulk: Real {
    #[allow(missing_docs)]
    fn exps(x: &[Self], to: &mut [Self]);
    #[allow(missing_docs)]
    fn sigmoids(x: &[Self], to: &mut [Self]);
    #[allow(missing_docs)]
    fn tanhs(x: &[Self], to: &mut [Self]);
    #[allow(missing_docs)]
    fn erfs(x: &[Self], to: &mut [Self]);
    /// `x * sigmoid(x)`
    fn silus(x: &[Self], to: &mut [Self]);
    /// `x / 2 * (1 + erf(x / sqrt(2)))`
    fn gelus(x: &[Self], to: &mut [Self]);
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
    fn gelus_by_tanh(x: &[Self], to: &mut [Self]);
    /// The largest element; NaN if one is, minus infinity of none.
    fn largest(x: &[Self]) -> Self;
    /// Puts `exp(x - shift)` in the place of each element and gives the sum.
    fn shifted_exps(x: &mut [Self], shift: Self) -> f64;
    /// The sum of `exp(x - shift)`.
    fn sum_of_exps(x: &[Self], shift: Self) -> f64;
    /// The sum of the elements.
    fn sum(x: &[Self]) -> f64;
    /// The sum of the squared differences from `mean`.
    fn squares(x: &[Self], mean: f64) -> f64;
    /// `(x - mean) * deviation * weight + bias`, in double precision.
    fn normalized(x: &[Self], moments: (f64, f64), weight: &[Self], bias: &[Self], to: &mut [Self]);
}

/// Functions that are compiled for AVX2 as well, and run so where the machine has it.
macro_rules! vectorized {
    ($($(#[$attribute:meta])* $pub:vis fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {
        $($(#[$attribute])* $pub fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn with_avx2($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                if crate::gemm::have_avx2() {
                    // SAFETY: the machine has AVX2; the line before asks.
                    return unsafe { with_avx2($($arg),*) };
                }
            }
            body($($arg),*)
        })*
    };
}

/// Sums side by side: as many as two registers hold.
const SUMS: usize = 16;

macro_rules! each {
    ($x:ident, $to:ident, $f:expr) => {
        for (slot, &x) in $to.iter_mut().zip($x) {
            *slot = $f(x);
        }
    };
}

mod loops {
    use super::{SUMS, erf, exp, sigmoid, tanh};

    vectorized! {
        pub fn exps(x: &[f32], to: &mut [f32]) {
            each!(x, to, exp)
        }
        pub fn sigmoids(x: &[f32], to: &mut [f32]) {
            each!(x, to, sigmoid)
        }
        pub fn tanhs(x: &[f32], to: &mut [f32]) {
            each!(x, to, tanh)
        }
        pub fn erfs(x: &[f32], to: &mut [f32]) {
            each!(x, to, erf)
        }
        pub fn silus(x: &[f32], to: &mut [f32]) {
            each!(x, to, |x: f32| x / (1.0 + exp(-x)))
        }
        pub fn gelus(x: &[f32], to: &mut [f32]) {
            each!(x, to, |x: f32| 0.5 * x * (1.0 + erf(x * core::f32::consts::FRAC_1_SQRT_2)))
        }
        pub fn gelus_by_tanh(x: &[f32], to: &mut [f32]) {
            const SCALE: f32 = 0.797_884_6;
            each!(x, to, |x: f32| 0.5 * x * (1.0 + tanh(SCALE * (x + 0.044715 * x * x * x))))
        }
        pub fn largest(x: &[f32]) -> f32 {
            let mut most = [f32::NEG_INFINITY; SUMS];
            let mut strange = [0u32; SUMS];
            let (chunks, rest) = x.as_chunks::<SUMS>();
            for chunk in chunks {
                for i in 0..SUMS {
                    most[i] = if chunk[i] > most[i] { chunk[i] } else { most[i] };
                    strange[i] |= u32::from(chunk[i].is_nan());
                }
            }
            for (i, &x) in rest.iter().enumerate() {
                most[i] = if x > most[i] { x } else { most[i] };
                strange[i] |= u32::from(x.is_nan());
            }
            if strange.iter().any(|&found| found != 0) {
                return f32::NAN;
            }
            most.into_iter().fold(f32::NEG_INFINITY, f32::max)
        }
        pub fn shifted_exps(x: &mut [f32], shift: f32) -> f64 {
            let mut sums = [0f64; SUMS];
            let (chunks, rest) = x.as_chunks_mut::<SUMS>();
            for chunk in chunks {
                for (sum, x) in sums.iter_mut().zip(chunk) {
                    *x = exp(*x - shift);
                    *sum += f64::from(*x);
                }
            }
            for (sum, x) in sums.iter_mut().zip(rest) {
                *x = exp(*x - shift);
                *sum += f64::from(*x);
            }
            sums.iter().sum()
        }
        pub fn sum_of_exps(x: &[f32], shift: f32) -> f64 {
            let mut sums = [0f64; SUMS];
            let (chunks, rest) = x.as_chunks::<SUMS>();
            for chunk in chunks {
                for (sum, &x) in sums.iter_mut().zip(chunk) {
                    *sum += f64::from(exp(x - shift));
                }
            }
            for (sum, &x) in sums.iter_mut().zip(rest) {
                *sum += f64::from(exp(x - shift));
            }
            sums.iter().sum()
        }
        /// The sum of the elements.
        pub fn sum(x: &[f32]) -> f64 {
            let mut sums = [0f64; SUMS];
            let (chunks, rest) = x.as_chunks::<SUMS>();
            for chunk in chunks {
                for (sum, &x) in sums.iter_mut().zip(chunk) {
                    *sum += f64::from(x);
                }
            }
            for (sum, &x) in sums.iter_mut().zip(rest) {
                *sum += f64::from(x);
            }
            sums.iter().sum()
        }
        /// The sum of the squared differences from `mean`.
        pub fn squares(x: &[f32], mean: f64) -> f64 {
            let mut sums = [0f64; SUMS];
            let (chunks, rest) = x.as_chunks::<SUMS>();
            for chunk in chunks {
                for (sum, &x) in sums.iter_mut().zip(chunk) {
                    let x = f64::from(x) - mean;
                    *sum += x * x;
                }
            }
            for (sum, &x) in sums.iter_mut().zip(rest) {
                let x = f64::from(x) - mean;
                *sum += x * x;
            }
            sums.iter().sum()
        }
        /// `(x - zero) * scale`
        pub fn dequantized_i8(x: &[i8], zero: f32, scale: f32, to: &mut [f32]) {
            each!(x, to, |x: i8| (f32::from(x) - zero) * scale)
        }
        /// `(x - zero) * scale`
        pub fn dequantized_u8(x: &[u8], zero: f32, scale: f32, to: &mut [f32]) {
            each!(x, to, |x: u8| (f32::from(x) - zero) * scale)
        }
        /// `x * factor + shift`
        pub fn affine(x: &[f32], factor: f32, shift: f32, to: &mut [f32]) {
            each!(x, to, |x: f32| x * factor + shift)
        }
        /// `(x - mean) * deviation * weight + bias`, in double precision.
        pub fn normalized(x: &[f32], mean: f64, deviation: f64, weight: &[f32], bias: &[f32], to: &mut [f32]) {
            for (((slot, &x), &w), &b) in to.iter_mut().zip(x).zip(weight).zip(bias) {
                *slot = ((f64::from(x) - mean) * deviation * f64::from(w) + f64::from(b)) as f32;
            }
        }
    }
}
pub(crate) use loops::{affine, dequantized_i8, dequantized_u8};

impl Bulk for f32 {
    fn exps(x: &[f32], to: &mut [f32]) {
        loops::exps(x, to);
    }
    fn sigmoids(x: &[f32], to: &mut [f32]) {
        loops::sigmoids(x, to);
    }
    fn tanhs(x: &[f32], to: &mut [f32]) {
        loops::tanhs(x, to);
    }
    fn erfs(x: &[f32], to: &mut [f32]) {
        loops::erfs(x, to);
    }
    fn silus(x: &[f32], to: &mut [f32]) {
        loops::silus(x, to);
    }
    fn gelus(x: &[f32], to: &mut [f32]) {
        loops::gelus(x, to);
    }
    fn gelus_by_tanh(x: &[f32], to: &mut [f32]) {
        loops::gelus_by_tanh(x, to);
    }
    fn largest(x: &[f32]) -> f32 {
        loops::largest(x)
    }
    fn shifted_exps(x: &mut [f32], shift: f32) -> f64 {
        loops::shifted_exps(x, shift)
    }
    fn sum_of_exps(x: &[f32], shift: f32) -> f64 {
        loops::sum_of_exps(x, shift)
    }
    fn sum(x: &[f32]) -> f64 {
        loops::sum(x)
    }
    fn squares(x: &[f32], mean: f64) -> f64 {
        loops::squares(x, mean)
    }
    fn normalized(x: &[f32], (mean, deviation): (f64, f64), weight: &[f32], bias: &[f32], to: &mut [f32]) {
        loops::normalized(x, mean, deviation, weight, bias, to);
    }
}

impl Bulk for f64 {
    fn exps(x: &[f64], to: &mut [f64]) {
        each!(x, to, Real::exp);
    }
    fn sigmoids(x: &[f64], to: &mut [f64]) {
        each!(x, to, Real::sigmoid);
    }
    fn tanhs(x: &[f64], to: &mut [f64]) {
        each!(x, to, Real::tanh);
    }
    fn erfs(x: &[f64], to: &mut [f64]) {
        each!(x, to, Real::gauss_erf);
    }
    fn silus(x: &[f64], to: &mut [f64]) {
        each!(x, to, |x: f64| x / (1.0 + Real::exp(-x)));
    }
    fn gelus(x: &[f64], to: &mut [f64]) {
        each!(x, to, |x: f64| 0.5
            * x
            * (1.0 + Real::gauss_erf(x * core::f64::consts::FRAC_1_SQRT_2)));
    }
    fn gelus_by_tanh(x: &[f64], to: &mut [f64]) {
        // sqrt(2 / pi)
        let scale = core::f64::consts::FRAC_2_SQRT_PI * core::f64::consts::FRAC_1_SQRT_2;
        each!(x, to, |x: f64| 0.5
            * x
            * (1.0 + Real::tanh(scale * (x + 0.044715 * x * x * x))));
    }
    fn largest(x: &[f64]) -> f64 {
        x.iter().fold(f64::NEG_INFINITY, |have, &x| have.larger(x))
    }
    fn shifted_exps(x: &mut [f64], shift: f64) -> f64 {
        let mut sum = 0.0;
        for x in x {
            *x = Real::exp(*x - shift);
            sum += *x;
        }
        sum
    }
    fn sum_of_exps(x: &[f64], shift: f64) -> f64 {
        x.iter().fold(0.0, |sum, &x| sum.plus(Real::exp(x - shift)))
    }
    fn sum(x: &[f64]) -> f64 {
        x.iter().sum()
    }
    fn squares(x: &[f64], mean: f64) -> f64 {
        x.iter().map(|x| (x - mean) * (x - mean)).sum()
    }
    fn normalized(x: &[f64], (mean, deviation): (f64, f64), weight: &[f64], bias: &[f64], to: &mut [f64]) {
        for (((slot, &x), &w), &b) in to.iter_mut().zip(x).zip(weight).zip(bias) {
            *slot = (x - mean) * deviation * w + b;
        }
    }
}

/// `e^x`: 2 to a whole power, times a polynomial on half a power of two to either side of 0.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Numbers of this size have a last bit of one, so adding it rounds, and the whole number is in the low bits of the sum.
    const BIG: f32 = 1.5 * 8_388_608.0;
    // ln(2) in two parts; products of the first with whole powers are exact.
    const LN2: f32 = 355.0 / 512.0;
    const REST: f32 = -2.121_944_4e-4;
    // Beyond these the result is 0 and infinite. NaN stays.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x * core::f32::consts::LOG2_E + BIG;
    let whole = shifted - BIG;
    let r = x - whole * LN2 - whole * REST;
    let p = 1.381_446_5e-3;
    let p = p * r + 8.368_781e-3;
    let p = p * r + 4.166_839_4e-2;
    let p = p * r + 0.166_665_2;
    let p = p * r + 0.499_999_93;
    let p = (p * r * r + r) + 1.0;
    // The power in two steps, because results may be subnormal.
    let power = (shifted.to_bits() as i32).wrapping_sub(BIG.to_bits() as i32);
    let half = power >> 1;
    p * power_of_two(half) * power_of_two(power.wrapping_sub(half))
}

/// `2^power` for powers of normal numbers.
#[inline(always)]
fn power_of_two(power: i32) -> f32 {
    f32::from_bits((power.wrapping_add(127) as u32) << 23)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let large = 1.0 - 2.0 / (exp(2.0 * size) + 1.0);
    // Up to 0.625.
    let z = x * x;
    let p = -5.704_978_4e-3;
    let p = p * z + 2.063_907_9e-2;
    let p = p * z - 5.373_971e-2;
    let p = p * z + 0.133_314_42;
    let p = p * z - 0.333_332_8;
    let small = size + size * z * p;
    (if size < 0.625 { small } else { large }).copysign(x)
}

/// The error function.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let size = x.abs();
    // From 0.9375 on: 1 - erfc, whose logarithm is smooth. At 4 this is 1.
    let t = if size > 4.0 { 4.0 } else { size };
    let p = -1.939_014_3e-4;
    let p = p * t + 3.023_170_2e-3;
    let p = p * t - 2.214_667e-2;
    let p = p * t + 0.103_764_36;
    let p = p * t + 0.637_373_7;
    let p = p * t + 1.127_561_3;
    let p = p * t + 2.234_946e-4;
    let large = 1.0 - exp(-p);
    let z = x * x;
    let p = 8.267_459e-5;
    let p = p * z - 8.118_074_6e-4;
    let p = p * z + 5.198_83e-3;
    let p = p * z - 2.685_849_7e-2;
    let p = p * z + 0.112_836_79;
    let p = p * z - 0.376_126_32;
    let p = p * z + 0.128_379_17;
    let small = size + size * p;
    (if size < 0.9375 { small } else { large }).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units of the last place of `want`.
    fn ulps(got: f32, want: f64) -> f64 {
        if got.is_nan() && want.is_nan() || f64::from(got) == want || got.is_infinite() && want.abs() > 3.402_823_5e38 {
            return 0.0;
        }
        let near = (want as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f32::from_bits(near.to_bits() + 1) - near;
        (f64::from(got) - want).abs() / f64::from(unit)
    }

    /// Floats of both signs and every exponent.
    fn floats() -> impl Iterator<Item = f32> {
        (0..=u32::MAX >> 9).map(|i| f32::from_bits(i << 9 | i & 0x1ff))
    }

    fn check(name: &str, f: impl Fn(f32) -> f32, want: impl Fn(f64) -> f64, most: f64) {
        let mut worst = (0.0, 0.0);
        for x in floats() {
            let off = ulps(f(x), want(f64::from(x)));
            if off.is_nan() || off > worst.0 {
                worst = (off, x);
            }
        }
        assert!(worst.0 <= most, "{name}: {} ulp at {:e}", worst.0, worst.1);
    }

    #[test]
    fn functions_are_right_to_the_last_places_on_all_exponents() {
        check("exp", exp, libm::exp, 1.5);
        check("tanh", tanh, libm::tanh, 2.0);
        check("erf", erf, libm::erf, 2.0);
        // Below, `1 + e^-x` is infinite before the result is 0, in PyTorch too.
        let normal = |x: f32| if x > -87.0 { sigmoid(x) } else { 0.0 };
        check(
            "sigmoid",
            normal,
            |x| {
                if x > -87.0 {
                    1.0 / (1.0 + libm::exp(-x))
                } else {
                    x.min(0.0) * 0.0
                }
            },
            2.5,
        );
    }

    #[test]
    fn ends_and_signs_are_kept() {
        assert_eq!(
            (exp(f32::INFINITY), exp(f32::NEG_INFINITY), exp(-0.0)),
            (f32::INFINITY, 0.0, 1.0)
        );
        for f in [tanh, erf] {
            assert_eq!((f(f32::INFINITY), f(f32::NEG_INFINITY)), (1.0, -1.0));
            assert_eq!(f(-0.0).to_bits(), (-0.0f32).to_bits());
        }
        for f in [exp, tanh, erf, sigmoid] {
            assert!(f(f32::NAN).is_nan() && f(-f32::NAN).is_nan());
        }
    }

    #[test]
    fn rows_of_any_length_are_summed_and_searched() {
        for len in 0..40 {
            let x: Vec<f32> = (0..len).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
            let want: f64 = x.iter().map(|&x| f64::from(x)).sum();
            assert_eq!(f32::sum(&x), want);
            assert_eq!(
                f32::squares(&x, 1.0),
                x.iter().map(|&x| (f64::from(x) - 1.0).powi(2)).sum::<f64>()
            );
            assert_eq!(f32::largest(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut exps = x.clone();
            let total = f32::shifted_exps(&mut exps, 5.0);
            assert!((total - f32::sum_of_exps(&x, 5.0)).abs() < 1e-12);
            assert!((total - x.iter().map(|&x| f64::from(x - 5.0).exp()).sum::<f64>()).abs() < 1e-5);
            for at in 0..len {
                let mut x = x.clone();
                x[at] = f32::NAN;
                assert!(f32::largest(&x).is_nan());
            }
        }
    }
}
