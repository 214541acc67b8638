//! What is done to a sum before it is stored: bias, a residual, a function of one number.

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
            other => each(s, x, |x| other.of(x)),
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
            Activation::Gelu | Activation::GeluTanh => gelu_tanh as f32,
        }
    }
}

#[inline(always)]
fn hard_sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let scaled = s.mul(s.add(x, s.splat(3.0)), s.splat(1.0 / 6.0));
    s.min(s.max(scaled, s.splat(0.0)), s.splat(1.0))
}

#[inline(always)]
fn each<S: Simd>(s: S, x: S::F, f: impl Fn(f32) -> f32) -> S::F {
    let mut lanes = [0.0; 16];
    // SAFETY: no instruction set has more lanes.
    unsafe {
        s.store(lanes.as_mut_ptr(), x);
        lanes.iter_mut().take(S::LANES).for_each(|x| *x = f(*x));
        s.load(lanes.as_ptr())
    }
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
