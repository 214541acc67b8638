//! Elementwise arithmetic, comparisons and selections that are not core.

use super::{Replacement, Rules, one};
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, ValueId};
use delegraph_types::{DType, Scalar};

pub(super) const RULES: Rules = &[
    ("aten::square", |rw| {
        let x = rw.tensor(0)?;
        one(rw.emit("aten::pow.Tensor_Scalar", args![x, 2]))
    }),
    ("aten::rsub.Tensor", rsub),
    ("aten::frac", |rw| {
        let x = rw.tensor(0)?;
        let whole = rw.unary("aten::trunc", x)?;
        one(rw.sub(x, whole))
    }),
    ("aten::clamp_min", |rw| {
        one(rw.emit("aten::clamp", args![rw.arg(0), rw.arg(1)]))
    }),
    ("aten::clamp_max", |rw| {
        one(rw.emit("aten::clamp", args![rw.arg(0), Arg::None, rw.arg(1)]))
    }),
    ("aten::clamp_min.Tensor", |rw| {
        one(rw.binary("aten::maximum", rw.arg(0), rw.arg(1)))
    }),
    ("aten::clamp_max.Tensor", |rw| {
        one(rw.binary("aten::minimum", rw.arg(0), rw.arg(1)))
    }),
    ("aten::lerp.Scalar", lerp_scalar),
    ("aten::lerp.Tensor", lerp_tensor),
    ("aten::addcmul", |rw| fused(rw, "aten::mul.Tensor")),
    ("aten::addcdiv", |rw| fused(rw, "aten::div.Tensor")),
    ("aten::xlogy.Tensor", xlogy),
    ("aten::xlogy.Scalar_Self", xlogy),
    ("aten::xlogy.Scalar_Other", xlogy),
    ("aten::logaddexp", |rw| log_add_exp(rw, false)),
    ("aten::logaddexp2", |rw| log_add_exp(rw, true)),
    ("aten::hypot", hypot),
    ("aten::copysign.Tensor", copysign),
    ("aten::copysign.Scalar", copysign),
    ("aten::signbit", |rw| {
        let x = rw.tensor(0)?;
        one(sign_bit(rw, x))
    }),
    ("aten::exp2", |rw| {
        one(rw.emit("aten::pow.Scalar", args![Scalar::Float(2.0), rw.arg(0)]))
    }),
    ("aten::nan_to_num", nan_to_num),
    ("aten::isfinite", |rw| {
        let x = rw.tensor(0)?;
        if rw.dtype(x)?.is_complex() {
            // Not their length, which may be infinite where neither part is.
            let (re, im) = (rw.unary("aten::real", x)?, rw.unary("aten::imag", x)?);
            let (re, im) = (is_finite(rw, re)?, is_finite(rw, im)?);
            return one(rw.binary("aten::logical_and", re, im));
        }
        match rw.dtype(x)?.is_float() {
            true => one(is_finite(rw, x)),
            false => {
                let shape = rw.shape(x)?;
                one(rw.full(shape, true, DType::Bool))
            }
        }
    }),
    ("aten::isposinf", |rw| {
        one(rw.emit("aten::eq.Scalar", args![rw.arg(0), f64::INFINITY]))
    }),
    ("aten::isneginf", |rw| {
        one(rw.emit("aten::eq.Scalar", args![rw.arg(0), f64::NEG_INFINITY]))
    }),
    ("aten::isreal", |rw| {
        let x = rw.tensor(0)?;
        if rw.dtype(x)?.is_complex() {
            let im = rw.unary("aten::imag", x)?;
            return one(rw.emit("aten::eq.Scalar", args![im, 0]));
        }
        let shape = rw.shape(x)?;
        one(rw.full(shape, true, DType::Bool))
    }),
    ("aten::isclose", is_close),
    ("aten::heaviside", |rw| {
        let (x, values) = (rw.tensor(0)?, rw.tensor(1)?);
        let dtype = rw.dtype(x)?;
        let (zero, positive) = (
            rw.emit("aten::eq.Scalar", args![x, 0])?,
            rw.emit("aten::gt.Scalar", args![x, 0])?,
        );
        let step = rw.cast(positive, dtype)?;
        one(rw.select_where(zero, values, step))
    }),
    ("aten::float_power.Tensor_Tensor", float_power),
    ("aten::float_power.Tensor_Scalar", float_power),
    ("aten::float_power.Scalar", float_power),
    ("aten::ldexp.Tensor", |rw| {
        let (x, exponent) = (rw.tensor(0)?, rw.arg(1));
        let power = rw.emit("aten::pow.Scalar", args![Scalar::Float(2.0), exponent])?;
        one(rw.mul(x, power))
    }),
    ("aten::deg2rad", |rw| {
        one(rw.mul(rw.arg(0), std::f64::consts::PI / 180.0))
    }),
    ("aten::rad2deg", |rw| {
        one(rw.mul(rw.arg(0), 180.0 / std::f64::consts::PI))
    }),
    ("aten::sinc", |rw| {
        let x = rw.tensor(0)?;
        let angle = rw.mul(x, std::f64::consts::PI)?;
        let sine = rw.unary("aten::sin", angle)?;
        let ratio = rw.div(sine, angle)?;
        let zero = rw.emit("aten::eq.Scalar", args![x, 0])?;
        one(rw.select_where(zero, 1.0, ratio))
    }),
    ("aten::where.Scalar", chosen),
    ("aten::where.ScalarSelf", chosen),
    ("aten::where.ScalarOther", chosen),
    ("aten::masked_fill.Tensor", |rw| {
        let (x, mask, value) = (rw.tensor(0)?, rw.tensor(1)?, rw.arg(2));
        let dtype = rw.dtype(x)?;
        let value = match value {
            Arg::Value(v) => rw.cast(v, dtype)?,
            number => rw.full(Vec::new(), number, dtype)?,
        };
        one(rw.select_where(mask, value, x))
    }),
    ("aten::bitwise_and.Scalar_Tensor", |rw| {
        one(rw.emit("aten::bitwise_and.Scalar", args![rw.arg(1), rw.arg(0)]))
    }),
    ("aten::bitwise_or.Scalar_Tensor", |rw| {
        one(rw.emit("aten::bitwise_or.Scalar", args![rw.arg(1), rw.arg(0)]))
    }),
    ("aten::bitwise_xor.Scalar_Tensor", |rw| {
        one(rw.emit("aten::bitwise_xor.Scalar", args![rw.arg(1), rw.arg(0)]))
    }),
    ("aten::remainder.Scalar_Tensor", |rw| {
        let dtype = rw.output_type(0)?.dtype;
        let number = rw.full(Vec::new(), rw.arg(0), dtype)?;
        one(rw.emit("aten::remainder.Tensor", args![number, rw.arg(1)]))
    }),
    ("aten::fake_quantize_per_tensor_affine", |rw| {
        let x = rw.tensor(0)?;
        let (scale, zero_point) = (rw.float(1)?, rw.float(2)?);
        let wide = rw.upcast(x)?;
        // ATen multiplies by the inverse in f32.
        let scaled = rw.mul(wide, f64::from(1.0 / scale as f32))?;
        let shifted = rw.add(scaled, zero_point)?;
        let rounded = rw.unary("aten::round", shifted)?;
        let clamped = rw.emit("aten::clamp", args![rounded, rw.arg(3), rw.arg(4)])?;
        let centred = rw.sub(clamped, zero_point)?;
        one(rw.mul(centred, scale))
    }),
];

fn rsub(rw: &mut Rewrite) -> Replacement {
    let (x, other, alpha) = (rw.tensor(0)?, rw.arg(1), rw.arg(2));
    match other {
        Arg::Value(_) => one(rw.emit("aten::sub.Tensor", args![other, x, alpha])),
        number => one(rw.emit("aten::rsub.Scalar", args![x, number, alpha])),
    }
}

/// ATen interpolates from the nearer end: `start + w (end - start)` for |w| < 0.5, else `end - (1 - w) (end - start)`.
fn lerp_scalar(rw: &mut Rewrite) -> Replacement {
    let (start, end, weight) = (rw.tensor(0)?, rw.tensor(1)?, rw.float(2)?);
    let (a, b) = (rw.upcast(start)?, rw.upcast(end)?);
    let span = rw.sub(b, a)?;
    if weight.abs() < 0.5 {
        let part = rw.mul(span, weight)?;
        return one(rw.add(a, part));
    }
    let part = rw.mul(span, 1.0 - weight)?;
    one(rw.sub(b, part))
}

fn lerp_tensor(rw: &mut Rewrite) -> Replacement {
    let (start, end, weight) = (rw.tensor(0)?, rw.tensor(1)?, rw.tensor(2)?);
    let (a, b, w) = (rw.upcast(start)?, rw.upcast(end)?, rw.upcast(weight)?);
    let span = rw.sub(b, a)?;
    let part = rw.mul(span, w)?;
    let from_start = rw.add(a, part)?;
    let rest = rw.emit("aten::rsub.Scalar", args![w, 1])?;
    let part = rw.mul(span, rest)?;
    let from_end = rw.sub(b, part)?;
    let size = rw.unary("aten::abs", w)?;
    let near = rw.emit("aten::lt.Scalar", args![size, 0.5])?;
    one(rw.select_where(near, from_start, from_end))
}

/// `self + value * (a op b)`
fn fused(rw: &mut Rewrite, op: &str) -> Replacement {
    let (x, a, b, value) = (rw.tensor(0)?, rw.tensor(1)?, rw.tensor(2)?, rw.arg(3));
    let narrow = rw.output_type(0)?.dtype;
    let (x, a, b) = match narrow.is_float() {
        true => (rw.upcast(x)?, rw.upcast(a)?, rw.upcast(b)?),
        false => (x, a, b),
    };
    let is_one = value.as_scalar().is_some_and(|s| s.as_f64() == 1.0);
    // ATen computes (value * a) op b.
    let a = if is_one { a } else { rw.mul(a, value)? };
    let part = rw.binary(op, a, b)?;
    one(rw.add(x, part))
}

fn xlogy(rw: &mut Rewrite) -> Replacement {
    let (x, y) = (rw.arg(0), rw.arg(1));
    let dtype = rw.output_type(0)?.dtype;
    let y = match y {
        Arg::Value(v) => v,
        number => rw.full(Vec::new(), number, dtype)?,
    };
    let x = match x {
        Arg::Value(v) => v,
        number => rw.full(Vec::new(), number, dtype)?,
    };
    let log = rw.unary("aten::log", y)?;
    let product = rw.mul(x, log)?;
    let zero = rw.emit("aten::eq.Scalar", args![x, 0])?;
    let chosen = rw.select_where(zero, 0.0, product)?;
    let nan = rw.unary("aten::isnan", y)?;
    one(rw.select_where(nan, f64::NAN, chosen))
}

/// `max + log(1 + exp(min - max))`, so that nothing overflows; equal infinities are themselves.
fn log_add_exp(rw: &mut Rewrite, base_two: bool) -> Replacement {
    let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
    let (a, b) = (rw.upcast(a)?, rw.upcast(b)?);
    let high = rw.binary("aten::maximum", a, b)?;
    let low = rw.binary("aten::minimum", a, b)?;
    let gap = rw.sub(low, high)?;
    let tail = match base_two {
        false => {
            let power = rw.unary("aten::exp", gap)?;
            rw.unary("aten::log1p", power)?
        }
        true => {
            let power = rw.emit("aten::pow.Scalar", args![Scalar::Float(2.0), gap])?;
            let log = rw.unary("aten::log1p", power)?;
            rw.mul(log, std::f64::consts::LOG2_E)?
        }
    };
    let sum = rw.add(high, tail)?;
    let infinite = rw.unary("aten::isinf", a)?;
    let equal = rw.binary("aten::eq.Tensor", a, b)?;
    let same = rw.binary("aten::logical_and", infinite, equal)?;
    one(rw.select_where(same, a, sum))
}

/// `big * sqrt(1 + (small / big)²)`, so that squares do not overflow.
fn hypot(rw: &mut Rewrite) -> Replacement {
    let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
    let (a, b) = (rw.upcast(a)?, rw.upcast(b)?);
    let (a, b) = (rw.unary("aten::abs", a)?, rw.unary("aten::abs", b)?);
    let (big, small) = (rw.binary("aten::maximum", a, b)?, rw.binary("aten::minimum", a, b)?);
    let ratio = rw.div(small, big)?;
    let square = rw.mul(ratio, ratio)?;
    let sum = rw.add(square, 1.0)?;
    let root = rw.unary("aten::sqrt", sum)?;
    let length = rw.mul(big, root)?;
    let zero = rw.emit("aten::eq.Scalar", args![big, 0.0])?;
    let length = rw.select_where(zero, big, length)?;
    let (x, y) = (rw.unary("aten::isinf", a)?, rw.unary("aten::isinf", b)?);
    let infinite = rw.binary("aten::logical_or", x, y)?;
    one(rw.select_where(infinite, f64::INFINITY, length))
}

/// True below zero and for -0.0, whose reciprocal is below zero. The sign of a NaN is taken as positive.
fn sign_bit(rw: &mut Rewrite, x: ValueId) -> Result<ValueId, crate::PassError> {
    let below = rw.emit("aten::lt.Scalar", args![x, 0])?;
    if !rw.dtype(x)?.is_float() {
        return Ok(below);
    }
    let inverse = rw.unary("aten::reciprocal", x)?;
    let negative = rw.emit("aten::lt.Scalar", args![inverse, 0])?;
    rw.binary("aten::logical_or", below, negative)
}

fn copysign(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    let dtype = rw.output_type(0)?.dtype;
    let x = rw.cast(x, dtype)?;
    let size = rw.unary("aten::abs", x)?;
    let negative = match rw.arg(1) {
        Arg::Value(sign) => sign_bit(rw, sign)?,
        _ => match rw.float(1)?.is_sign_negative() {
            true => return one(rw.unary("aten::neg", size)),
            false => return Ok(Some(vec![size])),
        },
    };
    let negated = rw.unary("aten::neg", size)?;
    one(rw.select_where(negative, negated, size))
}

fn nan_to_num(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    let dtype = rw.dtype(x)?;
    let largest = match dtype {
        DType::F16 => 65504.0,
        DType::BF16 => f64::from_bits(0x47ef_e000_0000_0000),
        DType::F32 => f64::from(f32::MAX),
        DType::F64 => f64::MAX,
        dtype if dtype.is_float() || dtype.is_complex() => return Err(rw.unsupported(format!("dtype {dtype}"))),
        _ => return Ok(Some(vec![x])),
    };
    let nan = rw.optional_float(1)?.unwrap_or(0.0);
    let high = rw.optional_float(2)?.unwrap_or(largest);
    let low = rw.optional_float(3)?.unwrap_or(-largest);
    let is_nan = rw.unary("aten::isnan", x)?;
    let y = rw.select_where(is_nan, nan, x)?;
    let is_high = rw.emit("aten::eq.Scalar", args![x, f64::INFINITY])?;
    let y = rw.select_where(is_high, high, y)?;
    let is_low = rw.emit("aten::eq.Scalar", args![x, f64::NEG_INFINITY])?;
    one(rw.select_where(is_low, low, y))
}

/// |x| < inf: false for NaN too.
fn is_finite(rw: &mut Rewrite, x: ValueId) -> Result<ValueId, crate::PassError> {
    let size = rw.unary("aten::abs", x)?;
    rw.emit("aten::lt.Scalar", args![size, f64::INFINITY])
}

/// As `torch.isclose`: equal, or finite and no farther apart than `atol + |rtol * other|`.
fn is_close(rw: &mut Rewrite) -> Replacement {
    let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
    let (rtol, atol) = (rw.float(2)?, rw.float(3)?);
    let mut close = rw.binary("aten::eq.Tensor", a, b)?;
    let dtype = rw.dtype(a)?;
    let float = dtype.is_float() || dtype.is_complex();
    if rw.bool(4)? && float {
        let (x, y) = (rw.unary("aten::isnan", a)?, rw.unary("aten::isnan", b)?);
        let both = rw.binary("aten::logical_and", x, y)?;
        close = rw.binary("aten::logical_or", close, both)?;
    }
    if rtol == 0.0 && atol == 0.0 {
        return Ok(Some(vec![close]));
    }
    let b = if float { b } else { rw.cast(b, DType::F32)? };
    let allowed = rw.mul(b, rtol)?;
    let allowed = rw.unary("aten::abs", allowed)?;
    let allowed = rw.add(allowed, atol)?;
    let gap = rw.sub(a, b)?;
    let gap = rw.unary("aten::abs", gap)?;
    let within = rw.binary("aten::le.Tensor", gap, allowed)?;
    let finite = is_finite(rw, gap)?;
    let within = rw.binary("aten::logical_and", within, finite)?;
    one(rw.binary("aten::logical_or", close, within))
}

/// Powers in `f64`, whatever the operands are.
fn float_power(rw: &mut Rewrite) -> Replacement {
    match (rw.arg(0), rw.arg(1)) {
        (Arg::Value(base), Arg::Value(exponent)) => {
            let (base, exponent) = (rw.cast(base, DType::F64)?, rw.cast(exponent, DType::F64)?);
            one(rw.emit("aten::pow.Tensor_Tensor", args![base, exponent]))
        }
        (Arg::Value(base), number) => {
            let base = rw.cast(base, DType::F64)?;
            one(rw.emit("aten::pow.Tensor_Scalar", args![base, number]))
        }
        (number, Arg::Value(exponent)) => {
            let exponent = rw.cast(exponent, DType::F64)?;
            one(rw.emit("aten::pow.Scalar", args![number, exponent]))
        }
        _ => Err(rw.invalid("neither operand is a tensor")),
    }
}

/// `where` over numbers.
fn chosen(rw: &mut Rewrite) -> Replacement {
    let (condition, a, b) = (rw.tensor(0)?, rw.arg(1), rw.arg(2));
    one(rw.select_where(condition, a, b))
}
