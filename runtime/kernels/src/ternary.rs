//! Elementwise operators of three operands: choosing, clamping and fused multiplications.

use crate::complex;
use crate::elementwise::{check_category, common_dtype, map1, map2, map3, operand, shape_out, with_real};
use crate::lanes::Operand;
use crate::math::Num;
use crate::registry::Kernel;
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError};
use alloc::format;
use delegraph_types::{DType, Scalar};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::addcdiv.out", addcdiv),
    ("aten::addcmul.out", addcmul),
    ("aten::clamp.out", clamp),
    ("aten::clamp.Tensor_out", clamp),
    ("aten::clip.out", clamp),
    ("aten::clip.Tensor_out", clamp),
    ("aten::clamp_max.out", |call| bound(call, false)),
    ("aten::clamp_max.Tensor_out", |call| bound(call, false)),
    ("aten::clamp_min.out", |call| bound(call, true)),
    ("aten::clamp_min.Tensor_out", |call| bound(call, true)),
    ("aten::lerp.Scalar_out", lerp),
    ("aten::lerp.Tensor_out", lerp),
    ("aten::masked_fill.Scalar_out", masked_fill),
    ("aten::masked_fill.Tensor_out", masked_fill),
    ("aten::where.self_out", choose),
];

fn choose(call: &mut Call) -> Result<(), KernelError> {
    let operands = [operand(call, 0)?, operand(call, 1)?, operand(call, 2)?];
    check_mask(&operands[0], "condition")?;
    let dtype = common_dtype(&operands[1..])?;
    let out = call.out(0)?;
    if dtype.is_complex() {
        return complex::choose(operands[0], [operands[1], operands[2]], &operands[1..], out);
    }
    shape_out(out, &operands, dtype)?;
    with_wide!(dtype, "self", W => {
        map3::<W, W>(&operands, None, out, |mask, a, b| if mask.truth() { a } else { b })
    })
}

fn masked_fill(call: &mut Call) -> Result<(), KernelError> {
    let operands = [operand(call, 1)?, operand(call, 2)?, operand(call, 0)?];
    check_mask(&operands[0], "mask")?;
    if let Operand::Tensor(value) = &operands[1]
        && value.rank() > 0
    {
        return Err(KernelError::invalid(
            "value",
            format!("a tensor of shape {} instead of a number", value.sizes()),
        ));
    }
    let dtype = common_dtype(&operands[2..])?;
    if dtype.is_complex() {
        return complex::choose(operands[0], [operands[1], operands[2]], &operands[2..], call.out(0)?);
    }
    if let (Operand::Number(Scalar::Float(value)), false) = (&operands[1], dtype.is_float()) {
        return Err(KernelError::invalid(
            "value",
            format!("`{value:?}` cannot be stored in dtype {dtype}"),
        ));
    }
    let out = call.out(0)?;
    shape_out(out, &operands, dtype)?;
    with_wide!(dtype, "self", W => {
        map3::<W, W>(&operands, None, out, |mask, value, x| if mask.truth() { value } else { x })
    })
}

fn check_mask(mask: &Operand, argument: &'static str) -> Result<(), KernelError> {
    match mask {
        Operand::Tensor(tensor) if !matches!(tensor.dtype(), DType::Bool | DType::U8) => Err(KernelError::invalid(
            argument,
            format!("dtype {} instead of bool", tensor.dtype()),
        )),
        _ => Ok(()),
    }
}

/// Bounds are `None`, numbers or tensors. NaN goes through; where the bounds cross, the upper one wins.
fn clamp(call: &mut Call) -> Result<(), KernelError> {
    let low = (!call.is_none(1)).then(|| operand(call, 1)).transpose()?;
    let high = (!call.is_none(2)).then(|| operand(call, 2)).transpose()?;
    clamp_between(call, low, high)
}

fn bound(call: &mut Call, lower: bool) -> Result<(), KernelError> {
    let bound = operand(call, 1)?;
    match lower {
        true => clamp_between(call, Some(bound), None),
        false => clamp_between(call, None, Some(bound)),
    }
}

fn clamp_between(call: &mut Call, low: Option<Operand>, high: Option<Operand>) -> Result<(), KernelError> {
    let input = operand(call, 0)?;
    let out = call.out(0)?;
    match (low, high) {
        (None, None) => Err(KernelError::invalid("min", "neither bound is given")),
        (Some(low), Some(high)) => {
            let operands = [input, low, high];
            let dtype = common_dtype(&operands)?;
            shape_out(out, &operands, dtype)?;
            with_wide!(dtype, "self", W => {
                map3::<W, W>(&operands, Some(dtype), out, |x, low, high| x.larger(low).smaller(high))
            })
        }
        (Some(low), None) => {
            let operands = [input, low];
            let dtype = common_dtype(&operands)?;
            shape_out(out, &operands, dtype)?;
            with_wide!(dtype, "self", W => map2::<W, W>(&operands, Some(dtype), out, W::larger))
        }
        (None, Some(high)) => {
            let operands = [input, high];
            let dtype = common_dtype(&operands)?;
            shape_out(out, &operands, dtype)?;
            with_wide!(dtype, "self", W => map2::<W, W>(&operands, Some(dtype), out, W::smaller))
        }
    }
}

/// The factor `value` in a type; a fraction has no place in integers.
fn factor<W: Wide>(value: Scalar) -> Result<W, KernelError> {
    W::of(value).ok_or_else(|| KernelError::invalid("value", format!("`{value}` for integer tensors")))
}

fn addcmul(call: &mut Call) -> Result<(), KernelError> {
    let value = call.optional_scalar(3)?.unwrap_or(Scalar::Int(1));
    let operands = [operand(call, 0)?, operand(call, 1)?, operand(call, 2)?];
    let dtype = common_dtype(&operands)?;
    let out = call.out(0)?;
    shape_out(out, &operands, dtype)?;
    with_wide!(dtype, "self", W => {
        let value = factor::<W>(value)?;
        map3::<W, W>(&operands, None, out, |x, a, b| x.plus(value.times(a).times(b)))
    })
}

fn addcdiv(call: &mut Call) -> Result<(), KernelError> {
    let value = call.optional_scalar(3)?.unwrap_or(Scalar::Int(1)).as_f64();
    let operands = [operand(call, 0)?, operand(call, 1)?, operand(call, 2)?];
    let dtype = common_dtype(&operands)?;
    if !dtype.is_float() {
        return Err(KernelError::invalid("self", "integer division"));
    }
    let out = call.out(0)?;
    shape_out(out, &operands, dtype)?;
    with_real!(dtype, "self", W => {
        let value = value as W;
        map3::<W, W>(&operands, None, out, |x, a, b| x + value * a / b)
    })
}

fn lerp(call: &mut Call) -> Result<(), KernelError> {
    let operands = [operand(call, 0)?, operand(call, 1)?, operand(call, 2)?];
    let dtype = common_dtype(&operands[..2])?;
    let out = call.out(0)?;
    shape_out(out, &operands, dtype)?;
    check_category(out, 0, dtype)?;
    // Two formulas, so that both ends are exact.
    with_real!(dtype, "self", W => map3::<W, W>(&operands, None, out, |start, end, weight| {
        if Num::magnitude(weight) < 0.5 {
            start + weight * (end - start)
        } else {
            end - (end - start) * (1.0 - weight)
        }
    }))
}

/// Copies a value of any dtype to every element.
pub(crate) fn fill(call: &mut Call, value: Operand) -> Result<(), KernelError> {
    let out = call.out(0)?;
    if out.dtype().is_complex() {
        return complex::fill(value, out);
    }
    with_wide!(out.dtype(), "out", W => map1::<W, W>(value, None, out, |x| x))
}
