//! Arithmetic on the computing types with PyTorch's rules, and the mathematical functions with and without `std`.

use crate::wide::Wide;

/// Arithmetic on every [`Wide`] type. Integers wrap; dividing an integer by 0 gives 0 and is refused before.
pub(crate) trait Num: Wide {
    /// `self - other`
    fn minus(self, other: Self) -> Self;
    /// `self / other`, rounded towards zero.
    fn quotient_trunc(self, other: Self) -> Self;
    /// `self / other`, rounded towards minus infinity.
    fn quotient_floor(self, other: Self) -> Self;
    /// What is left of [`Num::quotient_trunc`]: the sign of `self`.
    fn fmod(self, other: Self) -> Self;
    /// What is left of [`Num::quotient_floor`]: the sign of `other`.
    fn remainder(self, other: Self) -> Self;
    /// `self` to the power of `exponent`.
    fn power(self, exponent: Self) -> Self;
    /// Absolute value.
    fn magnitude(self) -> Self;

    /// `-self`
    fn negate(self) -> Self {
        Self::ZERO.minus(self)
    }
    /// The larger one; NaN if either is.
    fn larger(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }
    /// The smaller one; NaN if either is.
    fn smaller(self, other: Self) -> Self {
        if self.is_nan() || self < other { self } else { other }
    }
    /// -1, 0 or 1; 0 for NaN.
    fn sign(self) -> Self {
        if self > Self::ZERO {
            Self::ONE
        } else if self < Self::ZERO {
            Self::ZERO.minus(Self::ONE)
        } else {
            Self::ZERO
        }
    }
    /// Not zero; true for NaN.
    fn truth(self) -> bool {
        self != Self::ZERO
    }
}

impl Num for i64 {
    fn minus(self, other: i64) -> i64 {
        self.wrapping_sub(other)
    }
    fn quotient_trunc(self, other: i64) -> i64 {
        if other == 0 { 0 } else { self.wrapping_div(other) }
    }
    fn quotient_floor(self, other: i64) -> i64 {
        let quotient = self.quotient_trunc(other);
        let inexact = self.fmod(other) != 0;
        quotient.wrapping_sub(i64::from(inexact && (self < 0) != (other < 0)))
    }
    fn fmod(self, other: i64) -> i64 {
        if other == 0 { 0 } else { self.wrapping_rem(other) }
    }
    fn remainder(self, other: i64) -> i64 {
        let rest = self.fmod(other);
        if rest != 0 && (rest < 0) != (other < 0) {
            rest.wrapping_add(other)
        } else {
            rest
        }
    }
    fn power(self, exponent: i64) -> i64 {
        match self {
            _ if exponent >= 0 => {
                let (mut base, mut left, mut result) = (self, exponent, 1i64);
                while left > 0 {
                    if left & 1 == 1 {
                        result = result.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    left >>= 1;
                }
                result
            }
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        }
    }
    fn magnitude(self) -> i64 {
        self.wrapping_abs()
    }
}

/// Mathematical functions, each as in C's library.
pub(crate) trait Real: Num {
    /// Rounded to this type.
    fn from_f64(value: f64) -> Self;
    /// `self / other`
    fn over(self, other: Self) -> Self;
    /// `self * a + b`
    fn times_plus(self, a: Self, b: Self) -> Self {
        self.times(a).plus(b)
    }
    /// 1 / (1 + exp(-self))
    fn sigmoid(self) -> Self {
        Self::ONE.over(Self::ONE.plus(self.negate().exp()))
    }
    /// True for plus and minus infinity.
    fn is_infinite(self) -> bool;
    /// `self` with the sign of `other`.
    fn copysign(self, other: Self) -> Self;
    /// The sign bit.
    fn signbit(self) -> bool;
    /// Rounded, halves to even.
    fn round_even(self) -> Self;
    #[allow(missing_docs)]
    fn exp(self) -> Self;
    #[allow(missing_docs)]
    fn exp2(self) -> Self;
    #[allow(missing_docs)]
    fn expm1(self) -> Self;
    #[allow(missing_docs)]
    fn ln(self) -> Self;
    #[allow(missing_docs)]
    fn log2(self) -> Self;
    #[allow(missing_docs)]
    fn log10(self) -> Self;
    #[allow(missing_docs)]
    fn log1p(self) -> Self;
    #[allow(missing_docs)]
    fn sqrt(self) -> Self;
    #[allow(missing_docs)]
    fn sin(self) -> Self;
    #[allow(missing_docs)]
    fn cos(self) -> Self;
    #[allow(missing_docs)]
    fn tan(self) -> Self;
    #[allow(missing_docs)]
    fn asin(self) -> Self;
    #[allow(missing_docs)]
    fn acos(self) -> Self;
    #[allow(missing_docs)]
    fn atan(self) -> Self;
    #[allow(missing_docs)]
    fn sinh(self) -> Self;
    #[allow(missing_docs)]
    fn cosh(self) -> Self;
    #[allow(missing_docs)]
    fn tanh(self) -> Self;
    #[allow(missing_docs)]
    fn asinh(self) -> Self;
    #[allow(missing_docs)]
    fn acosh(self) -> Self;
    #[allow(missing_docs)]
    fn atanh(self) -> Self;
    #[allow(missing_docs)]
    fn floor(self) -> Self;
    #[allow(missing_docs)]
    fn ceil(self) -> Self;
    #[allow(missing_docs)]
    fn trunc(self) -> Self;
    #[allow(missing_docs)]
    fn gauss_erf(self) -> Self;
    #[allow(missing_docs)]
    fn gauss_erfc(self) -> Self;
    #[allow(missing_docs)]
    fn lgamma(self) -> Self;
    #[allow(missing_docs)]
    fn atan2(self, other: Self) -> Self;
    #[allow(missing_docs)]
    fn hypot(self, other: Self) -> Self;
}

/// With `std` the platform's functions, which are faster; without it libm's.
macro_rules! function {
    ($self:expr, $std:ident, $libm:path $(, $other:expr)?) => {{
        #[cfg(feature = "std")]
        let result = $self.$std($($other)?);
        #[cfg(not(feature = "std"))]
        let result = $libm($self $(, $other)?);
        result
    }};
}

macro_rules! real {
    ($ty:ident, $erf:ident, $erfc:ident, $lgamma:ident, $asinh:ident, $acosh:ident; $($name:ident $std:ident $libm:ident;)*) => {
        impl Num for $ty {
            fn minus(self, other: $ty) -> $ty {
                self - other
            }
            fn quotient_trunc(self, other: $ty) -> $ty {
                Real::trunc(self / other)
            }
            /// As `c10::div_floor_floating`, which Python's `//` agrees with.
            fn quotient_floor(self, other: $ty) -> $ty {
                if other == 0.0 {
                    return self / other;
                }
                let rest = self % other;
                let mut quotient = (self - rest) / other;
                if rest != 0.0 && (other < 0.0) != (rest < 0.0) {
                    quotient -= 1.0;
                }
                if quotient == 0.0 {
                    return Real::copysign(0.0, self / other);
                }
                let floor = Real::floor(quotient);
                if quotient - floor > 0.5 { floor + 1.0 } else { floor }
            }
            fn fmod(self, other: $ty) -> $ty {
                self % other
            }
            fn remainder(self, other: $ty) -> $ty {
                let rest = self % other;
                if rest != 0.0 && (other < 0.0) != (rest < 0.0) { rest + other } else { rest }
            }
            fn power(self, exponent: $ty) -> $ty {
                power::$ty(self, exponent)
            }
            fn magnitude(self) -> $ty {
                <$ty>::from_bits(self.to_bits() & !(1 << (size_of::<$ty>() * 8 - 1)))
            }
            fn negate(self) -> $ty {
                -self
            }
        }

        impl Real for $ty {
            fn from_f64(value: f64) -> $ty {
                value as $ty
            }
            fn over(self, other: $ty) -> $ty {
                self / other
            }
            fn is_infinite(self) -> bool {
                self == <$ty>::INFINITY || self == <$ty>::NEG_INFINITY
            }
            fn copysign(self, other: $ty) -> $ty {
                let sign = 1 << (size_of::<$ty>() * 8 - 1);
                <$ty>::from_bits(self.to_bits() & !sign | other.to_bits() & sign)
            }
            fn signbit(self) -> bool {
                self.to_bits() >> (size_of::<$ty>() * 8 - 1) == 1
            }
            fn gauss_erf(self) -> $ty {
                libm::$erf(self)
            }
            fn gauss_erfc(self) -> $ty {
                libm::$erfc(self)
            }
            fn lgamma(self) -> $ty {
                libm::$lgamma(self)
            }
            // The standard library doubles its argument on the way, which overflows in the last octave.
            fn asinh(self) -> $ty {
                libm::$asinh(self)
            }
            fn acosh(self) -> $ty {
                // `libm` promises nothing below 1.
                if self < 1.0 { $ty::NAN } else { libm::$acosh(self) }
            }
            $(fn $name(self) -> $ty {
                function!(self, $std, libm::$libm)
            })*
            fn atan2(self, other: $ty) -> $ty {
                power::atan2::$ty(self, other)
            }
            fn hypot(self, other: $ty) -> $ty {
                power::hypot::$ty(self, other)
            }
        }
    };
}

real! { f32, erff, erfcf, lgammaf, asinhf, acoshf;
    exp exp expf; exp2 exp2 exp2f; expm1 exp_m1 expm1f; ln ln logf; log2 log2 log2f; log10 log10 log10f;
    log1p ln_1p log1pf; sqrt sqrt sqrtf; sin sin sinf; cos cos cosf; tan tan tanf; asin asin asinf; acos acos acosf;
    atan atan atanf; sinh sinh sinhf; cosh cosh coshf; tanh tanh tanhf;
    atanh atanh atanhf; floor floor floorf; ceil ceil ceilf; trunc trunc truncf; round_even round_ties_even rintf;
}
real! { f64, erf, erfc, lgamma, asinh, acosh;
    exp exp exp; exp2 exp2 exp2; expm1 exp_m1 expm1; ln ln log; log2 log2 log2; log10 log10 log10;
    log1p ln_1p log1p; sqrt sqrt sqrt; sin sin sin; cos cos cos; tan tan tan; asin asin asin; acos acos acos;
    atan atan atan; sinh sinh sinh; cosh cosh cosh; tanh tanh tanh;
    atanh atanh atanh; floor floor floor; ceil ceil ceil; trunc trunc trunc; round_even round_ties_even rint;
}

/// Functions of two arguments, by type.
mod power {
    macro_rules! two {
        ($($ty:ident $libm:ident $std:ident;)*) => {
            $(pub fn $ty(a: $ty, b: $ty) -> $ty {
                function!(a, $std, libm::$libm, b)
            })*
        };
    }
    two! { f32 powf powf; f64 pow powf; }
    pub mod atan2 {
        two! { f32 atan2f atan2; f64 atan2 atan2; }
    }
    pub mod hypot {
        two! { f32 hypotf hypot; f64 hypot hypot; }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_division_rounds_as_pytorch() {
        for (a, b, floor, trunc, remainder, fmod) in [
            (7i64, 2, 3, 3, 1, 1),
            (-7, 2, -4, -3, 1, -1),
            (7, -2, -4, -3, -1, 1),
            (-7, -2, 3, 3, -1, -1),
            (i64::MIN, -1, i64::MIN, i64::MIN, 0, 0),
        ] {
            assert_eq!(
                (a.quotient_floor(b), a.quotient_trunc(b), a.remainder(b), a.fmod(b)),
                (floor, trunc, remainder, fmod),
                "{a} {b}"
            );
        }
    }

    #[test]
    fn nan_goes_through_larger_from_either_side() {
        assert!(f32::NAN.larger(1.0).is_nan() && 1f32.larger(f32::NAN).is_nan());
        assert!(f64::NAN.smaller(1.0).is_nan() && 1f64.smaller(f64::NAN).is_nan());
        assert_eq!((2f32.larger(3.0), 2f32.smaller(3.0)), (3.0, 2.0));
    }

    #[test]
    fn integer_powers_wrap_and_negative_exponents_are_pytorchs() {
        assert_eq!(
            (2i64.power(10), 3i64.power(0), (-1i64).power(-3), 2i64.power(-1)),
            (1024, 1, -1, 0)
        );
        assert_eq!(2i64.power(64), 0);
    }
}
