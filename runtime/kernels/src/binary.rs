//! Elementwise arithmetic of two tensors, or of a tensor and a number.

use crate::complex;
use crate::elementwise::{common_dtype, float_dtype, map2, operand, shape_out, with_real};
use crate::lanes::Operand;
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError, Out};
use alloc::format;
use core::sync::atomic::{AtomicBool, Ordering};
use delegraph_types::{DType, Scalar, bf16, f16};

/// The Scalar forms are the Tensor forms with a number at the second place.
pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::add.out", add),
    ("aten::add.Scalar_out", add),
    ("aten::sub.out", sub),
    ("aten::sub.Scalar_out", sub),
    ("aten::rsub.Tensor_out", rsub),
    ("aten::rsub.Scalar_out", rsub),
    ("aten::mul.out", mul),
    ("aten::mul.Scalar_out", mul),
    ("aten::div.out", div),
    ("aten::div.Scalar_out", div),
    ("aten::div.out_mode", div_mode),
    ("aten::div.Scalar_mode_out", div_mode),
    ("aten::true_divide.out", div),
    ("aten::floor_divide.out", |call| divide(call, Division::Floor)),
    ("aten::floor_divide.Scalar_out", |call| divide(call, Division::Floor)),
    ("aten::remainder.Tensor_out", |call| divide(call, Division::Remainder)),
    ("aten::remainder.Scalar_out", |call| divide(call, Division::Remainder)),
    ("aten::remainder.Scalar_Tensor_out", |call| {
        divide(call, Division::Remainder)
    }),
    ("aten::fmod.Tensor_out", |call| divide(call, Division::Fmod)),
    ("aten::fmod.Scalar_out", |call| divide(call, Division::Fmod)),
    ("aten::pow.Tensor_Tensor_out", pow),
    ("aten::pow.Tensor_Scalar_out", pow),
    ("aten::pow.Scalar_out", pow),
    ("aten::maximum.out", maximum),
    ("aten::max.out", maximum),
    ("aten::minimum.out", minimum),
    ("aten::min.out", minimum),
    ("aten::fmax.out", |call| extreme(call, true)),
    ("aten::fmin.out", |call| extreme(call, false)),
    ("aten::bitwise_and.Tensor_out", |call| bits(call, |a, b| a & b)),
    ("aten::bitwise_and.Scalar_out", |call| bits(call, |a, b| a & b)),
    ("aten::bitwise_and.Scalar_Tensor_out", |call| bits(call, |a, b| a & b)),
    ("aten::bitwise_or.Tensor_out", |call| bits(call, |a, b| a | b)),
    ("aten::bitwise_or.Scalar_out", |call| bits(call, |a, b| a | b)),
    ("aten::bitwise_or.Scalar_Tensor_out", |call| bits(call, |a, b| a | b)),
    ("aten::bitwise_xor.Tensor_out", |call| bits(call, |a, b| a ^ b)),
    ("aten::bitwise_xor.Scalar_out", |call| bits(call, |a, b| a ^ b)),
    ("aten::bitwise_xor.Scalar_Tensor_out", |call| bits(call, |a, b| a ^ b)),
    ("aten::bitwise_left_shift.Tensor_out", |call| shift(call, true)),
    ("aten::bitwise_left_shift.Tensor_Scalar_out", |call| shift(call, true)),
    ("aten::bitwise_right_shift.Tensor_out", |call| shift(call, false)),
    ("aten::bitwise_right_shift.Tensor_Scalar_out", |call| shift(call, false)),
    ("aten::gcd.out", gcd),
];

/// Operators that give floats.
pub(crate) const FLOATING: &[(&str, Kernel)] = {
    macro_rules! floating {
        ($($name:literal => |$a:ident, $b:ident| $body:expr;)*) => {
            &[$(($name, |call| {
                fn two<W: Real>($a: W, $b: W) -> W {
                    $body
                }
                let (operands, dtype) = begin(call, true)?;
                with_real!(dtype, "self", W => map2::<W, W>(&operands, None, call.out(0)?, two::<W>))
            })),*]
        };
    }
    floating! {
        "aten::atan2.out" => |a, b| a.atan2(b);
        "aten::copysign.out" => |a, b| a.copysign(b);
        "aten::copysign.Scalar_out" => |a, b| a.copysign(b);
        "aten::hypot.out" => |a, b| a.hypot(b);
        "aten::logaddexp.out" => |a, b| logaddexp(a, b);
        "aten::xlogy.OutTensor" => |a, b| xlogy(a, b);
        "aten::xlogy.OutScalar_Other" => |a, b| xlogy(a, b);
        "aten::xlogy.OutScalar_Self" => |a, b| xlogy(a, b);
    }
};

/// Both operands and the dtype to compute in; sizes the output.
fn begin<'a>(call: &mut Call<'a, '_>, float: bool) -> Result<([Operand<'a>; 2], DType), KernelError> {
    let operands = [operand(call, 0)?, operand(call, 1)?];
    let dtype = if float {
        float_dtype(&operands)?
    } else {
        common_dtype(&operands)?
    };
    shape_out(call.out(0)?, &operands, dtype)?;
    Ok((operands, dtype))
}

fn alpha<W: Wide>(alpha: Scalar) -> Result<W, KernelError> {
    W::of(alpha).ok_or_else(|| KernelError::invalid("alpha", format!("`{alpha}` for integer tensors")))
}

fn add(call: &mut Call) -> Result<(), KernelError> {
    let factor = call.optional_scalar(2)?.unwrap_or(Scalar::Int(1));
    if complex::is_any(call, [0, 1]) {
        return complex::add(call, factor);
    }
    let (operands, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    if let (DType::F16 | DType::BF16, Scalar::Float(_)) = (dtype, factor) {
        return add_half(&operands, dtype, factor.as_f64() as f32, out);
    }
    with_wide!(dtype, "self", W => {
        let alpha = alpha::<W>(factor)?;
        match alpha == W::ONE {
            true => map2::<W, W>(&operands, None, out, |a, b| a.plus(b)),
            false => map2::<W, W>(&operands, None, out, |a, b| a.plus(alpha.times(b))),
        }
    })
}

/// The product is rounded before it is added, as PyTorch's loop over few elements does.
fn add_half(operands: &[Operand; 2], dtype: DType, alpha: f32, out: &mut Out) -> Result<(), KernelError> {
    match dtype {
        DType::F16 => map2::<f32, f32>(operands, None, out, |a, b| a + f16::from_f32(alpha * b).to_f32()),
        _ => map2::<f32, f32>(operands, None, out, |a, b| a + bf16::from_f32(alpha * b).to_f32()),
    }
}

fn sub(call: &mut Call) -> Result<(), KernelError> {
    subtract(call, false)
}

fn rsub(call: &mut Call) -> Result<(), KernelError> {
    subtract(call, true)
}

fn subtract(call: &mut Call, reversed: bool) -> Result<(), KernelError> {
    let factor = call.optional_scalar(2)?.unwrap_or(Scalar::Int(1));
    if complex::is_any(call, [0, 1]) {
        return match reversed {
            true => complex::rsub(call, factor),
            false => complex::add(call, Scalar::Float(-factor.as_f64())),
        };
    }
    let (mut operands, dtype) = begin(call, false)?;
    if dtype == DType::Bool {
        return Err(KernelError::invalid("self", "subtraction of two bool tensors"));
    }
    if reversed {
        operands.swap(0, 1);
    }
    let out = call.out(0)?;
    with_wide!(dtype, "self", W => {
        let alpha = alpha::<W>(factor)?;
        map2::<W, W>(&operands, None, out, |a, b| a.minus(alpha.times(b)))
    })
}

fn mul(call: &mut Call) -> Result<(), KernelError> {
    if complex::is_any(call, [0, 1]) {
        return complex::mul(call);
    }
    let (operands, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    with_wide!(dtype, "self", W => map2::<W, W>(&operands, None, out, W::times))
}

fn div(call: &mut Call) -> Result<(), KernelError> {
    if complex::is_any(call, [0, 1]) {
        return complex::div(call);
    }
    let (operands, dtype) = begin(call, true)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => map2::<W, W>(&operands, None, out, W::over))
}

fn div_mode(call: &mut Call) -> Result<(), KernelError> {
    if call.is_none(2) {
        return div(call);
    }
    match call.str(2)? {
        "trunc" => divide(call, Division::Trunc),
        "floor" => divide(call, Division::Floor),
        mode => Err(KernelError::invalid(
            "rounding_mode",
            format!("`{mode}` is neither `trunc` nor `floor`"),
        )),
    }
}

#[derive(Clone, Copy)]
enum Division {
    Trunc,
    Floor,
    Remainder,
    Fmod,
}

fn divide(call: &mut Call, division: Division) -> Result<(), KernelError> {
    let (operands, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    let by_zero = AtomicBool::new(false);
    with_wide!(dtype, "self", W => {
        let whole = !dtype.is_float();
        let run = |f: fn(W, W) -> W, out| {
            map2::<W, W>(&operands, Some(dtype), out, |a, b| {
                if whole && b == W::ZERO {
                    by_zero.store(true, Ordering::Relaxed);
                }
                f(a, b)
            })
        };
        match division {
            Division::Trunc => run(W::quotient_trunc, out),
            Division::Floor => run(W::quotient_floor, out),
            Division::Remainder => run(Num::remainder, out),
            Division::Fmod => run(Num::fmod, out),
        }
    })?;
    match by_zero.into_inner() {
        true => Err(KernelError::invalid("other", "an integer is divided by zero")),
        false => Ok(()),
    }
}

fn pow(call: &mut Call) -> Result<(), KernelError> {
    if complex::is_any(call, [0, 1]) {
        return complex::pow(call);
    }
    let (operands, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    if let (Operand::Number(exponent), true) = (&operands[1], dtype.is_float()) {
        let exponent = exponent.as_f64();
        return with_real!(dtype, "self", W => {
            let base = operands[0];
            // The exponents that PyTorch treats apart; they differ from C's `pow` in speed, and at -0 and infinity.
            if exponent == 2.0 {
                map2::<W, W>(&[base, base], None, out, |a, _| a * a)
            } else if exponent == 0.5 {
                map2::<W, W>(&[base, base], None, out, |a, _| Real::sqrt(a))
            } else if exponent == 3.0 {
                map2::<W, W>(&[base, base], None, out, |a, _| a * a * a)
            } else if exponent == -0.5 {
                map2::<W, W>(&[base, base], None, out, |a, _| 1.0 / Real::sqrt(a))
            } else if exponent == -1.0 {
                map2::<W, W>(&[base, base], None, out, |a, _| 1.0 / a)
            } else if exponent == -2.0 {
                map2::<W, W>(&[base, base], None, out, |a, _| 1.0 / (a * a))
            } else {
                map2::<W, W>(&operands, None, out, W::power)
            }
        });
    }
    if let (Operand::Number(exponent), false) = (&operands[1], dtype.is_float())
        && exponent.as_i64() < 0
    {
        return Err(KernelError::invalid(
            "exponent",
            "an integer to a negative integer power",
        ));
    }
    with_wide!(dtype, "self", W => map2::<W, W>(&operands, None, out, W::power))
}

fn maximum(call: &mut Call) -> Result<(), KernelError> {
    let (operands, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    with_wide!(dtype, "self", W => map2::<W, W>(&operands, Some(dtype), out, W::larger))
}

fn minimum(call: &mut Call) -> Result<(), KernelError> {
    let (operands, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    with_wide!(dtype, "self", W => map2::<W, W>(&operands, Some(dtype), out, W::smaller))
}

/// The larger or smaller one; the other one where one is NaN.
fn extreme(call: &mut Call, largest: bool) -> Result<(), KernelError> {
    let (operands, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    with_wide!(dtype, "self", W => map2::<W, W>(&operands, Some(dtype), out, |a, b| {
        if Wide::is_nan(a) || (if largest { b > a } else { b < a }) { b } else { a }
    }))
}

fn bits(call: &mut Call, f: fn(i64, i64) -> i64) -> Result<(), KernelError> {
    let (operands, dtype) = begin(call, false)?;
    if dtype.is_float() {
        return Err(KernelError::invalid("self", format!("bits of dtype {dtype}")));
    }
    map2::<i64, i64>(&operands, Some(dtype), call.out(0)?, f)
}

/// Shifting by a negative number, or by all bits or more, gives what shifting by all bits would, as in PyTorch.
fn shift(call: &mut Call, left: bool) -> Result<(), KernelError> {
    let (operands, dtype) = begin(call, false)?;
    if !dtype.is_int() {
        return Err(KernelError::invalid("self", format!("a shift of dtype {dtype}")));
    }
    let all = dtype.size() as i64 * 8;
    let out = call.out(0)?;
    match left {
        true => map2::<i64, i64>(&operands, Some(dtype), out, |a, b| {
            if (0..all).contains(&b) { a << b } else { 0 }
        }),
        false => map2::<i64, i64>(&operands, Some(dtype), out, |a, b| {
            a >> if (0..all).contains(&b) { b } else { 63 }
        }),
    }
}

fn gcd(call: &mut Call) -> Result<(), KernelError> {
    bits(call, |a, b| {
        let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a as i64
    })
}

fn logaddexp<W: Real>(a: W, b: W) -> W {
    if a.is_infinite() && a == b {
        return a;
    }
    let largest = a.larger(b);
    largest.plus(a.minus(b).magnitude().negate().exp().log1p())
}

fn xlogy<W: Real>(a: W, b: W) -> W {
    if b.is_nan() {
        b
    } else if a == W::ZERO {
        W::ZERO
    } else {
        a.times(b.ln())
    }
}
