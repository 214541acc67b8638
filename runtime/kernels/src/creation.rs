//! Operators that make a tensor from numbers.

use crate::elementwise::operand;
use crate::lanes::{Lane, Operand, Writer};
use crate::registry::Kernel;
use crate::rows::pieces;
use crate::stage::dims_of;
use crate::ternary::fill;
use crate::{Call, KernelError, Out};
use alloc::format;
use delegraph_types::{DType, Dims, Scalar, bf16, f16};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::arange.out", |call| arange(call, 0, None)),
    ("aten::arange.start_out", |call| arange(call, 1, Some(2))),
    ("aten::empty.out", |call| constant(call, 0, Scalar::Int(0))),
    ("aten::empty_like.out", |call| like(call, Scalar::Int(0))),
    // The strides are those of the output.
    ("aten::empty_strided.out", |call| constant(call, 0, Scalar::Int(0))),
    ("aten::eye.m_out", eye),
    ("aten::eye.out", eye),
    ("aten::fill.Scalar_out", |call| like_value(call, 1)),
    ("aten::fill.Tensor_out", |call| like_value(call, 1)),
    ("aten::full.out", |call| {
        let value = call.scalar(1)?;
        constant(call, 0, value)
    }),
    ("aten::full_like.out", |call| like_value(call, 1)),
    ("aten::linspace.out", linspace),
    ("aten::new_empty.out", |call| constant(call, 1, Scalar::Int(0))),
    ("aten::new_full.out", |call| {
        let value = call.scalar(2)?;
        constant(call, 1, value)
    }),
    ("aten::new_ones.out", |call| constant(call, 1, Scalar::Int(1))),
    ("aten::new_zeros.out", |call| constant(call, 1, Scalar::Int(0))),
    ("aten::ones.out", |call| constant(call, 0, Scalar::Int(1))),
    ("aten::ones_like.out", |call| like(call, Scalar::Int(1))),
    ("aten::scalar_tensor.out", |call| {
        let value = call.scalar(0)?;
        call.out(0)?.resize(&Dims::SCALAR)?;
        fill(call, Operand::Number(value))
    }),
    ("aten::zero.out", |call| like(call, Scalar::Int(0))),
    ("aten::zeros.out", |call| constant(call, 0, Scalar::Int(0))),
    ("aten::zeros_like.out", |call| like(call, Scalar::Int(0))),
];

/// The sizes are at `index`. What is called empty is zeros: contents must not depend on what was there before.
fn constant(call: &mut Call, index: usize, value: Scalar) -> Result<(), KernelError> {
    let sizes = dims_of(call.ints(index)?, "size")?;
    call.out(0)?.resize(&sizes)?;
    fill(call, Operand::Number(value))
}

fn like(call: &mut Call, value: Scalar) -> Result<(), KernelError> {
    let sizes = *call.tensor(0)?.sizes();
    call.out(0)?.resize(&sizes)?;
    fill(call, Operand::Number(value))
}

fn like_value(call: &mut Call, index: usize) -> Result<(), KernelError> {
    let value = operand(call, index)?;
    if value.sizes().rank() > 0 {
        return Err(KernelError::invalid(
            "value",
            format!("a tensor of shape {} instead of a number", value.sizes()),
        ));
    }
    let sizes = *call.tensor(0)?.sizes();
    call.out(0)?.resize(&sizes)?;
    fill(call, value)
}

/// Writes `f(0), f(1), …` in row-major order.
fn sequence<R: Lane>(out: &mut Out, f: impl Fn(i64) -> R) -> Result<(), KernelError> {
    let count = out.sizes().numel().unwrap_or(0);
    let mut writer = Writer::<R>::whole(out);
    pieces(count, |from, count| {
        writer.write(out, count, |slots| {
            for (i, slot) in slots.iter_mut().enumerate() {
                *slot = f((from + i) as i64);
            }
        })
    })
}

/// `start` and `step` are at the places before and after `end`, where the overload has them.
fn arange(call: &mut Call, end_index: usize, step_index: Option<usize>) -> Result<(), KernelError> {
    let start = match end_index {
        0 => Scalar::Int(0),
        _ => call.scalar(0)?,
    };
    let end = call.scalar(end_index)?;
    let step = step_index
        .map_or(Ok(None), |index| call.optional_scalar(index))?
        .unwrap_or(Scalar::Int(1));
    let out = call.out(0)?;
    let whole = ![start, end, step]
        .iter()
        .any(|number| matches!(number, Scalar::Float(_)));
    // Doubles cannot count every integer.
    let count = if whole {
        let (start, end, step) = (start.as_i64(), end.as_i64(), step.as_i64());
        if step == 0 {
            return Err(KernelError::invalid("step", "a step of zero"));
        }
        let span = i128::from(end) - i128::from(start);
        let step = i128::from(step);
        (span + step - step.signum()) / step
    } else {
        let step = step.as_f64();
        if step == 0.0 {
            return Err(KernelError::invalid("step", "a step of zero"));
        }
        let count = crate::math::Real::ceil((end.as_f64() - start.as_f64()) / step);
        if !count.is_finite() {
            return Err(KernelError::invalid("end", format!("no range from {start} to {end}")));
        }
        count as i128
    };
    let count = i64::try_from(count).ok().filter(|&count| count >= 0);
    let Some(count) = count else {
        return Err(KernelError::invalid(
            "end",
            format!("no range from {start} to {end} by {step}"),
        ));
    };
    out.resize(&dims_of(&[count], "end")?)?;
    if out.dtype().is_complex() {
        return Err(KernelError::invalid(
            "dtype",
            format!("a range in dtype {}", out.dtype()),
        ));
    }
    if out.dtype().is_float() {
        let (start, step) = (start.as_f64(), step.as_f64());
        return sequence::<f64>(out, |i| start + i as f64 * step);
    }
    let (start, step) = (start.as_i64(), step.as_i64());
    sequence::<i64>(out, |i| start.wrapping_add(i.wrapping_mul(step)))
}

/// Counted from the nearer end, so that both ends are exact. As PyTorch: the ends are first stored in the dtype.
fn linspace(call: &mut Call) -> Result<(), KernelError> {
    let (start, end, steps) = (call.scalar(0)?.as_f64(), call.scalar(1)?.as_f64(), call.int(2)?);
    let out = call.out(0)?;
    if steps < 0 {
        return Err(KernelError::invalid("steps", format!("{steps} steps")));
    }
    out.resize(&dims_of(&[steps], "steps")?)?;
    let stored: fn(f64) -> f64 = match out.dtype() {
        DType::F64 | DType::C128 => |x| x,
        DType::F32 | DType::C64 => |x| f64::from(x as f32),
        DType::F16 => |x| f16::from_f64(x).to_f64(),
        DType::BF16 => |x| bf16::from_f64(x).to_f64(),
        _ => crate::math::Real::trunc,
    };
    let (start, end) = (stored(start), stored(end));
    let step = (end - start) / (steps - 1).max(1) as f64;
    sequence::<f64>(out, |i| {
        if i < steps / 2 || steps == 1 {
            start + step * i as f64
        } else {
            end - step * (steps - 1 - i) as f64
        }
    })
}

/// `(n)` or `(n, m)`
fn eye(call: &mut Call) -> Result<(), KernelError> {
    let rows = call.int(0)?;
    let columns = call.optional_int(1)?.unwrap_or(rows);
    let out = call.out(0)?;
    out.resize(&dims_of(&[rows, columns], "n")?)?;
    sequence::<i64>(out, |i| i64::from(i / columns.max(1) == i % columns.max(1)))
}
