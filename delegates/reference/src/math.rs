//! Functions that the standard library lacks.

use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

/// Where the series of the error function gives way to the continued fraction of its complement.
const SWITCH: f64 = 2.5;

/// The error function.
pub fn erf(x: f64) -> f64 {
    if x.abs() < SWITCH {
        return erf_series(x);
    }
    if x.is_nan() {
        return x;
    }
    (1.0 - erfc_fraction(x.abs())).copysign(x)
}

/// The complementary error function: precise where it is small, too.
pub fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        x
    } else if x.abs() < SWITCH {
        // Below 1 nothing cancels; between 1 and the switch a few of 53 bits do.
        1.0 - erf_series(x)
    } else if x < 0.0 {
        2.0 - erfc_fraction(-x)
    } else {
        erfc_fraction(x)
    }
}

/// erf(x) = 2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (2n+1)!! (Abramowitz and Stegun 7.1.6): no term is negative, so none cancel.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > sum.abs() * f64::EPSILON / 4.0 {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// erfc(x) = e^(-x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …)))) (Abramowitz and Stegun 7.1.14), for x ≥ 2.5.
fn erfc_fraction(x: f64) -> f64 {
    if x > 28.0 {
        return 0.0;
    }
    let tail = (1..=120).rev().fold(x, |tail, n| x + f64::from(n) / 2.0 / tail);
    (-x * x).exp() / PI.sqrt() / tail
}

/// The distribution function of the normal distribution.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x / SQRT_2)
}

/// `1 / (1 + e^-x)`, without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `ln(1 + e^x)`, without overflow.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The larger; NaN if one is.
pub fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller; NaN if one is.
pub fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// The floor of a quotient, as Python's `//`.
pub fn floor_div(a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return a / b;
    }
    // The remainder is exact, so that the quotient is too; see CPython's float_floor_div.
    let remainder = a % b;
    let mut quotient = (a - remainder) / b;
    if remainder != 0.0 && (b < 0.0) != (remainder < 0.0) {
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return 0f64.copysign(a / b);
    }
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

/// The remainder that has the sign of the divisor, as Python's `%`.
pub fn remainder(a: f64, b: f64) -> f64 {
    let remainder = a % b;
    if remainder != 0.0 && (b < 0.0) != (remainder < 0.0) {
        remainder + b
    } else {
        remainder
    }
}

/// The floor of a quotient of integers.
pub fn floor_div_int(a: i64, b: i64) -> Option<i64> {
    let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    Some(if rest != 0 && (rest < 0) != (b < 0) {
        quotient - 1
    } else {
        quotient
    })
}

/// A power of integers, which wraps; negative exponents cut off to 0 or ±1.
pub fn pow_int(base: i64, exponent: i64) -> i64 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut left) = (1i64, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        left >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_function() {
        // Values of Abramowitz and Stegun, table 7.1, and of Mathematica for the tail.
        for (x, want) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((erf(x) - want).abs() < 4e-16, "{x}");
            assert_eq!(erf(-x), -erf(x));
        }
        assert!((erfc(3.0) / 2.209_049_699_858_544e-5 - 1.0).abs() < 1e-14);
        assert!((erfc(10.0) / 2.088_487_583_762_545e-45 - 1.0).abs() < 1e-13);
        assert!((erfc(SWITCH - 1e-12) / erfc(SWITCH + 1e-12) - 1.0).abs() < 1e-10);
        assert!(erf(f64::NAN).is_nan() && erf(f64::INFINITY) == 1.0 && erfc(f64::NEG_INFINITY) == 2.0);
    }

    #[test]
    fn division_rounds_down() {
        assert_eq!((floor_div(-7.0, 2.0), remainder(-7.0, 2.0)), (-4.0, 1.0));
        assert_eq!((floor_div(7.0, -2.0), remainder(7.0, -2.0)), (-4.0, -1.0));
        assert_eq!((floor_div_int(-7, 2), floor_div_int(7, 7)), (Some(-4), Some(1)));
        assert_eq!((floor_div_int(1, 0), floor_div_int(i64::MIN, -1)), (None, None));
    }

    #[test]
    fn powers_of_integers() {
        assert_eq!(
            (pow_int(3, 4), pow_int(-2, 3), pow_int(2, -1), pow_int(-1, -3)),
            (81, -8, 0, -1)
        );
        assert_eq!(pow_int(2, 64), 0);
    }
}
