//! Functions of lanes: exponential, logarithm, logistic function, hyperbolic tangent, error function.
//!
//! A NaN stays one, and infinities give what their limit is. Errors are given in units in the last place (ulp) of the exact result, for machines
//! with and without a fused multiply-add. The polynomials are fits of the least largest error, made for this file.

use crate::simd::Simd;

/// `1.5 * 2^23`: added to a small number, it leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// The natural logarithm of 2 in two parts; the upper has twelve bits, so that its products with exponents are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// The bits of 1.
const ONE: i32 = 0x3f80_0000;

/// `c[0] + x * (c[1] + x * (...))`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, c: [f32; N]) -> S::F {
    let mut sum = s.splat(c[N - 1]);
    for c in c.iter().rev().skip(1) {
        sum = s.fma(sum, x, s.splat(*c));
    }
    sum
}

/// `x = n * ln(2) + r` with `n` an integer and `r` at most half of `ln(2)`: `(ROUND + n, exp(r) - 1)`.
#[inline(always)]
fn reduced<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let shifted = s.add(s.mul(x, s.splat(std::f32::consts::LOG2_E)), s.splat(ROUND));
    let minus = s.sub(s.splat(ROUND), shifted);
    let r = s.fma(minus, s.splat(LN2_LOW), s.fma(minus, s.splat(LN2_HIGH), x));
    (shifted, less_one(s, r))
}

/// `exp(r) - 1` for `r` up to half of `ln(2)`.
#[inline(always)]
fn less_one<S: Simd>(s: S, r: S::F) -> S::F {
    let q = polynomial(
        s,
        r,
        [0.499_999_93, 0.166_665_2, 0.041_668_39, 0.008_368_746, 0.001_381_453_5],
    );
    s.fma(s.mul(r, r), q, r)
}

/// `exp(x)`, within 2 ulp; results too small for a normal number are rounded as they should.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.min(s.max(x, s.splat(-104.0)), s.splat(89.0));
    let (shifted, less_one) = reduced(s, x);
    // The power of two is applied by halves: it is larger, or smaller, than a float may be.
    let n = s.sub_i(s.bits(shifted), s.bits(s.splat(ROUND)));
    let half = s.shr_i::<1>(n);
    let power = |n: S::I| s.of_bits(s.add_i(s.shl_i::<23>(n), s.splat_i(ONE)));
    let scaled = s.mul(s.add(less_one, s.splat(1.0)), power(half));
    s.mul(scaled, power(s.sub_i(n, half)))
}

/// `exp(x)` for `x` up to 88, within 2 ulp of normal numbers; below about -87.7 it is 0. It is what softmax needs, and quicker than [`exp`].
#[inline(always)]
pub fn exp_flushed<S: Simd>(s: S, x: S::F) -> S::F {
    let (shifted, less_one) = reduced(s, s.max(x, s.splat(-88.0)));
    // An exponent of -127 has the bits of 0.
    let power = s.of_bits(s.add_i(s.shl_i::<23>(s.bits(shifted)), s.splat_i(ONE)));
    s.fma(less_one, power, power)
}

/// The natural logarithm, within 2 ulp: -infinity of 0, NaN of what is negative.
#[inline(always)]
pub fn log<S: Simd>(s: S, x: S::F) -> S::F {
    let zero = s.splat(0.0);
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let normal = s.select(tiny, s.mul(x, s.splat(8_388_608.0)), x);
    let bits = s.bits(normal);
    // The mantissa between the roots of 1/2 and of 2.
    let offset = s.sub_i(bits, s.bits(s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let exponent = s.shr_i::<23>(offset);
    let mantissa = s.of_bits(s.sub_i(bits, s.shl_i::<23>(exponent)));
    let n = s.sub(s.to_f(exponent), s.select(tiny, s.splat(23.0), zero));
    let r = s.sub(mantissa, s.splat(1.0));
    let q = polynomial(
        s,
        r,
        [
            0.333_333_13,
            -0.250_000_1,
            0.200_021_2,
            -0.166_680_03,
            0.142_195_29,
            -0.124_054_64,
            0.118_881_96,
            -0.116_762_86,
            0.067_472_74,
        ],
    );
    let square = s.mul(r, r);
    let tail = s.fma(s.mul(r, square), q, s.mul(n, s.splat(LN2_LOW)));
    let small = s.add(r, s.fma(square, s.splat(-0.5), tail));
    let value = s.fma(n, s.splat(LN2_HIGH), small);
    // The ends: a zero, what is below it, infinity, NaN.
    let value = s.select(s.eq(x, zero), s.splat(f32::NEG_INFINITY), value);
    let value = s.select(s.lt(x, zero), s.splat(f32::NAN), value);
    s.select(s.lt(x, s.splat(f32::INFINITY)), value, x)
}

/// `1 / (1 + exp(-x))`, within 3 ulp of normal results; below -88, where it is less than 1e-38, it is 0.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let minus = s.sub(s.splat(0.0), x);
    let e = exp_flushed(s, s.min(minus, s.splat(88.0)));
    let value = s.div(s.splat(1.0), s.add(s.splat(1.0), e));
    s.select(s.lt(x, s.splat(-88.0)), s.splat(0.0), value)
}

/// The hyperbolic tangent, within 3 ulp, around 0 too.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let twice = s.min(s.max(s.add(x, x), s.splat(-30.0)), s.splat(30.0));
    let (shifted, less_one) = reduced(s, twice);
    let power = s.of_bits(s.add_i(s.shl_i::<23>(s.bits(shifted)), s.splat_i(ONE)));
    // exp(2x) - 1
    let e = s.fma(less_one, power, s.sub(power, s.splat(1.0)));
    s.div(e, s.add(e, s.splat(2.0)))
}

/// The error function, within 3 ulp, around 0 too.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    // At 4 the result is 1 in every bit of a float.
    let size = s.min(s.abs(x), s.splat(4.0));
    let near = polynomial(
        s,
        s.mul(size, size),
        [
            std::f32::consts::FRAC_2_SQRT_PI,
            -0.376_126_26,
            0.112_835_85,
            -0.026_853_812,
            0.005_188_327,
            -8.010_191e-4,
            7.853_854e-5,
        ],
    );
    // The complement, beyond 1, is the exponential of a polynomial; its error counts by how small the complement is.
    let exponent = polynomial(
        s,
        size,
        [
            -0.002_619_028,
            -1.117_622,
            -0.654_238_9,
            -0.088_800_73,
            0.014_832_247,
            -0.001_157_283_4,
        ],
    );
    let far = s.sub(s.splat(1.0), exp_flushed(s, exponent));
    let minus = s.sub(s.splat(0.0), far);
    let far = s.select(s.lt(x, s.splat(0.0)), minus, far);
    s.select(s.lt(size, s.splat(1.0)), s.mul(x, near), far)
}

/// `x * (1 + erf(x / sqrt(2))) / 2`, within 4e-7 of the larger of its size and of half of `x` up to 1: what is below 0 has no more digits than that. It is
/// `x`, or 0 below 0, less `|x|` times a half of the complementary error function, whose logarithm is a polynomial.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    // At 11 the tail is 1e-34: fitted up to 5.5, where it counts, the polynomial still goes down there.
    let size = s.min(s.abs(x), s.splat(11.0));
    let exponent = polynomial(
        s,
        size,
        [
            -0.999_999_8,
            -1.151_114_2,
            -0.459_128_38,
            -0.052_753_832,
            0.007_451_284,
            -4.383_233e-4,
            -6.255_563_5e-5,
            1.411_920_6e-5,
            -8.168_448e-7,
        ],
    );
    let shifted = s.add(exponent, s.splat(ROUND));
    let rest = s.add(exponent, s.sub(s.splat(ROUND), shifted));
    let power = s.of_bits(s.add_i(s.shl_i::<23>(s.bits(shifted)), s.splat_i(ONE)));
    let tail = s.fma(less_one(s, s.mul(rest, s.splat(std::f32::consts::LN_2))), power, power);
    // Of minus infinity it is no number, as its product with 0 is.
    let zero = s.splat(0.0);
    let kept = s.fma(s.min(x, zero), zero, s.max(x, zero));
    s.fma(s.sub(zero, size), tail, kept)
}

/// The error function of one number, to about the last bit of a double: the standard library has none.
pub fn erf_wide(x: f64) -> f64 {
    let size = x.abs();
    if x.is_nan() {
        return x;
    }
    if size < 3.0 {
        // exp(-x^2) times a series of which no term is negative.
        let mut term = size;
        let mut sum = size;
        let mut n = 1.0;
        while term > sum * 1e-17 {
            n += 2.0;
            term *= 2.0 * size * size / n;
            sum += term;
        }
        return (std::f64::consts::FRAC_2_SQRT_PI * (-size * size).exp() * sum).copysign(x);
    }
    let tail = if size > 6.0 {
        0.0
    } else {
        // The continued fraction of the complement, from its far end.
        let fraction = (1..=80).rev().fold(size, |below, k| size + f64::from(k) / 2.0 / below);
        (-size * size).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    (1.0 - tail).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::{Op, dispatch};

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Which {
        Exp,
        ExpFlushed,
        Log,
        Sigmoid,
        Tanh,
        Erf,
        Gelu,
    }

    struct Apply<'a>(Which, &'a mut [f32]);

    impl Op for Apply<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for chunk in self.1.chunks_mut(S::LANES) {
                // SAFETY: as many elements are there as are read and written.
                unsafe {
                    let x = s.load_part(chunk.as_ptr(), chunk.len());
                    let y = match self.0 {
                        Which::Exp => exp(s, x),
                        Which::ExpFlushed => exp_flushed(s, x),
                        Which::Log => log(s, x),
                        Which::Sigmoid => sigmoid(s, x),
                        Which::Tanh => tanh(s, x),
                        Which::Erf => erf(s, x),
                        Which::Gelu => gelu(s, x),
                    };
                    s.store_part(chunk.as_mut_ptr(), y, chunk.len());
                }
            }
        }
    }

    fn exact(which: Which, x: f64) -> f64 {
        match which {
            Which::Exp | Which::ExpFlushed => x.exp(),
            Which::Log => x.ln(),
            Which::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Which::Tanh => x.tanh(),
            Which::Erf => erf_wide(x),
            Which::Gelu => 0.5 * x * (1.0 + erf_wide(x / std::f64::consts::SQRT_2)),
        }
    }

    /// The distance from the exact result in units of its last place, of denormals too.
    fn ulps(have: f32, want: f64) -> f64 {
        let rounded = want as f32;
        if have.is_nan() || want.is_nan() || rounded.is_infinite() {
            return if have.to_bits() == rounded.to_bits() || (have.is_nan() && want.is_nan()) {
                0.0
            } else {
                f64::INFINITY
            };
        }
        let exponent = want.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor() as i32;
        (f64::from(have) - want).abs() / 2f64.powi(exponent - 23)
    }

    #[test]
    fn functions_are_within_their_errors_over_all_numbers() {
        // Every 3001st float there is, of both signs, and a dense part where the functions bend.
        let mut all: Vec<f32> = (0..=u32::MAX / 3001).map(|i| f32::from_bits(i * 3001)).collect();
        all.extend((0..400_000).map(|i| (i as f32 - 200_000.0) / 16_384.0));
        all.extend((0..50_000).map(|i| (i as f32 - 25_000.0) / 230.0));
        all.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            88.722_83,
            88.722_84,
            -87.336_55,
            -103.97,
            1e-45,
        ]);
        for isa in Isa::all() {
            for (which, bound) in [
                (Which::Exp, 2.0),
                (Which::ExpFlushed, 2.0),
                (Which::Log, 2.0),
                (Which::Sigmoid, 3.0),
                (Which::Tanh, 3.0),
                (Which::Erf, 3.0),
            ] {
                let mut have = all.clone();
                dispatch(isa, Apply(which, &mut have));
                let (mut worst, mut place) = (0.0, 0.0);
                for (x, have) in all.iter().zip(&have) {
                    let want = exact(which, f64::from(*x));
                    if matches!(which, Which::ExpFlushed | Which::Sigmoid) && want < 1.2e-38 {
                        assert!((0.0..=1.2e-38).contains(have), "{isa}, {which:?} of {x}: {have}");
                        continue;
                    }
                    if which == Which::ExpFlushed && *x > 88.0 {
                        continue;
                    }
                    let error = ulps(*have, want);
                    if error > worst {
                        (worst, place) = (error, *x);
                    }
                }
                println!("{isa}, {which:?}: {worst:.2} ulp, at {place}");
                assert!(worst <= bound, "{isa}, {which:?} of {place}: {worst} ulp");
            }
        }
    }

    #[test]
    fn gelu_is_within_its_error() {
        let mut all: Vec<f32> = (0..=u32::MAX / 3001).map(|i| f32::from_bits(i * 3001)).collect();
        all.extend((0..400_000).map(|i| (i as f32 - 200_000.0) / 16_384.0));
        for isa in Isa::all() {
            let mut have = all.clone();
            dispatch(isa, Apply(Which::Gelu, &mut have));
            for (x, have) in all.iter().zip(&have) {
                let want = exact(Which::Gelu, f64::from(*x));
                let size = want.abs().max(0.5 * f64::from(x.abs()).min(1.0));
                assert!(
                    (f64::from(*have) - want).abs() <= 4e-7 * size + 1e-44 || (have.is_nan() && x.is_nan()),
                    "{isa}, of {x}: {have}, not {want}"
                );
            }
            let mut ends = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN];
            dispatch(isa, Apply(Which::Gelu, &mut ends));
            assert!(ends[0] == f32::INFINITY && ends[2].is_nan(), "{isa}: {ends:?}");
            assert!(ends[1].is_nan() && ends[3].abs() < 1e-30, "{isa}: {ends:?}");
        }
    }

    #[test]
    fn the_wide_error_function_is_that_of_tables() {
        for (x, want) in [
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.5, 0.999_999_256_901_627_7),
            (-1.0, -0.842_700_792_949_714_9),
        ] {
            assert!((erf_wide(x) - want).abs() < 4e-16, "{x}: {}", erf_wide(x));
        }
        assert!((erf_wide(2.999_999_9) - erf_wide(3.0)).abs() < 2e-11);
        assert!(erf_wide(f64::NAN).is_nan() && erf_wide(f64::INFINITY) == 1.0 && erf_wide(f64::NEG_INFINITY) == -1.0);
    }
}
