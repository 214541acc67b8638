//! Special functions that no C library has, computed in `f64` whatever the type asked for.

use crate::math::Real;

/// Digamma, by recurrence up to 10 and the asymptotic series there; by reflection below 0. As PyTorch: minus or plus infinity
/// at zero, NaN at negative integers.
pub(crate) fn digamma<W: Real>(x: W) -> W {
    W::from_f64(digamma64(x.to_f64()))
}

fn digamma64(x: f64) -> f64 {
    if x == 0.0 {
        return Real::copysign(f64::INFINITY, -x);
    }
    if x < 0.0 {
        if Real::trunc(x) == x {
            return f64::NAN;
        }
        let rest = x - Real::trunc(x);
        return digamma64(1.0 - x) - core::f64::consts::PI / Real::tan(core::f64::consts::PI * rest);
    }
    let (mut x, mut result) = (x, 0.0);
    while x < 10.0 {
        result -= 1.0 / x;
        x += 1.0;
    }
    if x >= 1e17 {
        return result + Real::ln(x);
    }
    const SERIES: [f64; 7] = [
        1.0 / 12.0,
        -691.0 / 32760.0,
        1.0 / 132.0,
        -1.0 / 240.0,
        1.0 / 252.0,
        -1.0 / 120.0,
        1.0 / 12.0,
    ];
    let z = 1.0 / (x * x);
    let tail = z * SERIES.iter().fold(0.0, |sum, c| sum * z + c);
    result + Real::ln(x) - 0.5 / x - tail
}

/// Inverse of the error function: a start by Giles' single precision formula, then three steps of Newton.
pub(crate) fn erfinv<W: Real>(x: W) -> W {
    W::from_f64(erfinv64(x.to_f64()))
}

fn erfinv64(x: f64) -> f64 {
    if !(-1.0..=1.0).contains(&x) {
        return f64::NAN;
    }
    if x == 1.0 || x == -1.0 || x == 0.0 {
        return if x == 0.0 { x } else { Real::copysign(f64::INFINITY, x) };
    }
    let w = -Real::ln((1.0 - x) * (1.0 + x));
    const NEAR: [f64; 9] = [
        2.81022636e-08,
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        0.00021858087,
        -0.00125372503,
        -0.00417768164,
        0.246640727,
        1.50140941,
    ];
    const FAR: [f64; 9] = [
        -0.000200214257,
        0.000100950558,
        0.00134934322,
        -0.00367342844,
        0.00573950773,
        -0.0076224613,
        0.00943887047,
        1.00167406,
        2.83297682,
    ];
    let (w, terms) = if w < 5.0 {
        (w - 2.5, &NEAR)
    } else {
        (Real::sqrt(w) - 3.0, &FAR)
    };
    let mut y = x * terms.iter().fold(0.0, |sum, c| sum * w + c);
    for _ in 0..3 {
        // erfc keeps its digits where erf is near 1.
        let error = if y > 0.5 {
            (1.0 - x) - Real::gauss_erfc(y)
        } else if y < -0.5 {
            Real::gauss_erfc(-y) - (1.0 + x)
        } else {
            Real::gauss_erf(y) - x
        };
        y -= error / (core::f64::consts::FRAC_2_SQRT_PI * Real::exp(-y * y));
    }
    y
}

/// Modified Bessel function of order 0: its power series, or the asymptotic one from 20 on.
pub(crate) fn bessel_i0<W: Real>(x: W) -> W {
    W::from_f64(bessel64(x.to_f64()))
}

fn bessel64(x: f64) -> f64 {
    let x = if x < 0.0 { -x } else { x };
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    let (mut term, mut sum) = (1.0, 1.0);
    if x < 20.0 {
        let q = x * x / 4.0;
        for k in 1..100 {
            term *= q / f64::from(k * k);
            sum += term;
            if term < sum * 1e-17 {
                break;
            }
        }
        return sum;
    }
    for k in 1..20 {
        let odd = f64::from(2 * k - 1);
        let next = term * odd * odd / (8.0 * f64::from(k) * x);
        if next >= term || next < sum * 1e-17 {
            break;
        }
        term = next;
        sum += term;
    }
    // In two halves, because exp(x) overflows before the quotient does.
    let half = Real::exp(x / 2.0);
    half * (sum / Real::sqrt(2.0 * core::f64::consts::PI * x)) * half
}

/// sin(pi x) / (pi x)
pub(crate) fn sinc<W: Real>(x: W) -> W {
    let x = x.to_f64();
    let angle = core::f64::consts::PI * x;
    W::from_f64(if x == 0.0 { 1.0 } else { Real::sin(angle) / angle })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from torch.digamma, torch.erfinv and torch.i0 in float64.
    #[test]
    fn special_functions_agree_with_pytorch() {
        for (got, want) in [
            (digamma64(1.0), -0.5772156649015325),
            (digamma64(0.1), -10.423754940411076),
            (digamma64(-1.5), 0.7031566406452434),
            (digamma64(25.0), 3.198742512851974),
            (erfinv64(0.5), 0.4769362762044699),
            (erfinv64(-0.999), -2.3267537655135246),
            (erfinv64(1e-5), 8.862269254759594e-06),
            (bessel64(0.5), 1.0634833707413236),
            (bessel64(10.0), 2815.716628466254),
            (bessel64(30.0), 781672297823.9777),
        ] {
            assert!((got - want).abs() <= 1e-13 * want.abs().max(1.0), "{got} {want}");
        }
        assert!(erfinv64(1.5).is_nan() && digamma64(-2.0).is_nan());
        assert_eq!(digamma64(0.0), f64::NEG_INFINITY);
    }
}
