//! What is done to a sum before it is stored: bias, a residual, a function of one number.

use crate::math;
use crate::simd::Simd;

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Activation {
    /// The number itself.
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, low), high)`
    Clamp(f32, f32),
    /// `x` above 0, else `slope * x`.
    LeakyRelu(f32),
    /// `min(max(x + 3, 0), 6) / 6`
    HardSigmoid,
    /// `x * hardsigmoid(x)`
    HardSwish,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x * sigmoid(x)`
    Silu,
    /// The hyperbolic tangent.
    Tanh,
    /// `x * (1 + erf(x / sqrt(2))) / 2`
    Gelu,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2`
    GeluTanh,
}

impl Activation {
    /// The function of each lane. A NaN stays one.
    #[inline(always)]
    pub fn apply<S: Simd>(self, s: S, x: S::F) -> S::F {
        let zero = s.splat(0.0);
        match self {
            Activation::None => x,
            Activation::Relu => s.max(x, zero),
            Activation::Clamp(low, high) => s.min(s.max(x, s.splat(low)), s.splat(high)),
            Activation::LeakyRelu(slope) => s.select(s.lt(x, zero), s.mul(x, s.splat(slope)), x),
            Activation::HardSigmoid => hard_sigmoid(s, x),
            Activation::HardSwish => s.mul(x, hard_sigmoid(s, x)),
            Activation::Sigmoid => math::sigmoid(s, x),
            Activation::Silu => s.mul(x, math::sigmoid(s, x)),
            Activation::Tanh => math::tanh(s, x),
            Activation::Gelu => math::gelu(s, x),
            Activation::GeluTanh => {
                // sqrt(2 / pi), and 0.044715 times it.
                let inner = s.fma(s.mul(x, x), s.splat(0.035_677_408), s.splat(0.797_884_6));
                let half = s.mul(x, s.splat(0.5));
                s.mul(half, s.add(s.splat(1.0), math::tanh(s, s.mul(x, inner))))
            }
        }
    }

    /// The function of one number, exact to the last bits.
    pub fn of(self, x: f32) -> f32 {
        let wide = f64::from(x);
        let sigmoid = 1.0 / (1.0 + (-wide).exp());
        let gelu_tanh =
            0.5 * wide * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3))).tanh());
        match self {
            Activation::None => x,
            Activation::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Activation::Clamp(low, high) => {
                if x < low {
                    low
                } else if x > high {
                    high
                } else {
                    x
                }
            }
            Activation::LeakyRelu(slope) => {
                if x < 0.0 {
                    slope * x
                } else {
                    x
                }
            }
            Activation::HardSigmoid => ((wide + 3.0) / 6.0).clamp(0.0, 1.0) as f32,
            Activation::HardSwish => (wide * ((wide + 3.0) / 6.0).clamp(0.0, 1.0)) as f32,
            Activation::Sigmoid => sigmoid as f32,
            Activation::Silu => (wide * sigmoid) as f32,
            Activation::Tanh => wide.tanh() as f32,
            Activation::Gelu => (0.5 * wide * (1.0 + math::erf_wide(wide * std::f64::consts::FRAC_1_SQRT_2))) as f32,
            Activation::GeluTanh => gelu_tanh as f32,
        }
    }
}

#[inline(always)]
fn hard_sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let scaled = s.mul(s.add(x, s.splat(3.0)), s.splat(1.0 / 6.0));
    s.min(s.max(scaled, s.splat(0.0)), s.splat(1.0))
}

/// What is done to sums before they are stored: `activation(sum + bias + residual)`, or `activation(sum + bias) + residual`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// One a column (an output channel).
    pub bias: Option<&'a [f32]>,
    /// As many numbers as the output, in the same layout.
    pub residual: Option<&'a [f32]>,
    /// The residual is added behind the function.
    pub residual_last: bool,
    /// The function.
    pub activation: Activation,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::{Op, dispatch};

    struct Apply<'a>(Activation, &'a mut [f32]);

    impl Op for Apply<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for chunk in self.1.chunks_mut(S::LANES) {
                // SAFETY: as many elements are there as are read and written.
                unsafe {
                    let x = s.load_part(chunk.as_ptr(), chunk.len());
                    s.store_part(chunk.as_mut_ptr(), self.0.apply(s, x), chunk.len());
                }
            }
        }
    }

    #[test]
    fn lanes_compute_what_one_number_does() {
        let mut all: Vec<f32> = (-6000..6000).map(|i| i as f32 / 311.0).collect();
        all.extend((-60..60).map(|i| i as f32 * 7.3e17));
        all.extend([
            0.0,
            1e-40,
            -1e-40,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1e38,
            -1e38,
        ]);
        for isa in Isa::all() {
            for activation in [
                Activation::None,
                Activation::Relu,
                Activation::Clamp(-1.5, 6.0),
                Activation::LeakyRelu(0.1),
                Activation::HardSigmoid,
                Activation::HardSwish,
                Activation::Sigmoid,
                Activation::Silu,
                Activation::Tanh,
                Activation::Gelu,
                Activation::GeluTanh,
            ] {
                let mut have = all.clone();
                dispatch(isa, Apply(activation, &mut have));
                for (x, have) in all.iter().zip(&have) {
                    let want = activation.of(*x);
                    // Three roundings of the result; and of a part that is 1 plus what nearly cancels it, times `x`, as in PyTorch, until nothing is
                    // left of it. A product below the least normal number has lost that much.
                    let cancelled = match activation {
                        Activation::Gelu | Activation::GeluTanh => x.abs().min(20.0) * 3e-7,
                        _ => 0.0,
                    };
                    let bound = want.abs() * 5e-7 + cancelled + 1e-36;
                    let same = (have.is_nan() && want.is_nan()) || *have == want;
                    assert!(
                        same || (have - want).abs() <= bound,
                        "{isa}, {activation:?} of {x}: {have}, not {want}"
                    );
                }
            }
        }
    }
}
