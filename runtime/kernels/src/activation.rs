//! Activation functions: elementwise, with parameters.

use crate::elementwise::{common_dtype, map, map1, map2, operand, shape_out, with_real};
use crate::lanes::Operand;
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::stage::dim_of;
use crate::vector::Bulk;
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims, MAX_RANK, Scalar};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::celu.out", celu),
    ("aten::elu.out", elu),
    ("aten::gelu.out", gelu),
    ("aten::glu.out", glu),
    ("aten::hardshrink.out", hardshrink),
    ("aten::hardsigmoid.out", hardsigmoid),
    ("aten::hardswish.out", hardswish),
    ("aten::hardtanh.out", hardtanh),
    ("aten::leaky_relu.out", leaky_relu),
    ("aten::log_sigmoid.out", log_sigmoid),
    ("aten::log_sigmoid_forward.output", log_sigmoid),
    ("aten::logit.out", logit),
    ("aten::mish.out", mish),
    ("aten::silu.out", silu),
    ("aten::softplus.out", softplus),
    ("aten::softshrink.out", softshrink),
    ("aten::threshold.out", threshold),
];

/// The input and its dtype, which has to be a floating one; sizes the output.
fn begin<'a>(call: &mut Call<'a, '_>) -> Result<(Operand<'a>, DType), KernelError> {
    let (input, dtype) = begin_any(call)?;
    match dtype.is_float() {
        true => Ok((input, dtype)),
        false => Err(KernelError::invalid(
            "self",
            format!("dtype {dtype} instead of a floating one"),
        )),
    }
}

fn begin_any<'a>(call: &mut Call<'a, '_>) -> Result<(Operand<'a>, DType), KernelError> {
    let input = operand(call, 0)?;
    let dtype = common_dtype(&[input])?;
    shape_out(call.out(0)?, &[input], dtype)?;
    Ok((input, dtype))
}

/// A number argument, or its default where a program leaves it out.
fn number(call: &Call, index: usize, default: f64) -> Result<f64, KernelError> {
    Ok(call.optional_scalar(index)?.map_or(default, Scalar::as_f64))
}

fn silu(call: &mut Call) -> Result<(), KernelError> {
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => map::<W, W, 1>(&[input], None, out, &|[x], to| W::silus(x, to)))
}

fn mish(call: &mut Call) -> Result<(), KernelError> {
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => map1::<W, W>(input, None, out, |x| x * Real::tanh(Real::log1p(Real::exp(x)))))
}

fn gelu(call: &mut Call) -> Result<(), KernelError> {
    let approximate = if call.is_none(1) { "none" } else { call.str(1)? };
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    match approximate {
        "none" => with_real!(dtype, "self", W => map::<W, W, 1>(&[input], None, out, &|[x], to| W::gelus(x, to))),
        "tanh" => {
            with_real!(dtype, "self", W => map::<W, W, 1>(&[input], None, out, &|[x], to| W::gelus_by_tanh(x, to)))
        }
        other => Err(KernelError::invalid(
            "approximate",
            format!("`{other}` is neither `none` nor `tanh`"),
        )),
    }
}

fn elu(call: &mut Call) -> Result<(), KernelError> {
    let (alpha, scale, input_scale) = (number(call, 1, 1.0)?, number(call, 2, 1.0)?, number(call, 3, 1.0)?);
    exponential(call, alpha * scale, scale, input_scale)
}

fn celu(call: &mut Call) -> Result<(), KernelError> {
    let alpha = number(call, 1, 1.0)?;
    exponential(call, alpha, 1.0, 1.0 / alpha)
}

/// `x * above` above zero, `below * expm1(x * inner)` elsewhere.
fn exponential(call: &mut Call, below: f64, above: f64, inner: f64) -> Result<(), KernelError> {
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => {
        let (below, above, inner) = (below as W, above as W, inner as W);
        map1::<W, W>(input, None, out, |x| if x < 0.0 { Real::expm1(x * inner) * below } else { x * above })
    })
}

fn leaky_relu(call: &mut Call) -> Result<(), KernelError> {
    let slope = number(call, 1, 0.01)?;
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => {
        let slope = slope as W;
        map1::<W, W>(input, None, out, |x| if x > 0.0 { x } else { x * slope })
    })
}

/// Sizes and strides of a vector of `count` elements, `step` apart, as a tensor of `rank` dimensions that lies along `dim`.
pub(crate) fn spread(count: usize, step: i64, rank: usize, dim: usize) -> [Dims; 2] {
    let [mut sizes, mut strides] = [Dims::filled(rank.min(MAX_RANK), 1); 2];
    if let (Some(size), Some(stride)) = (sizes.get_mut(dim), strides.get_mut(dim)) {
        (*size, *stride) = (count as i64, step);
    }
    [sizes, strides]
}

fn hardtanh(call: &mut Call) -> Result<(), KernelError> {
    let low = call.optional_scalar(1)?.unwrap_or(Scalar::Int(-1));
    let high = call.optional_scalar(2)?.unwrap_or(Scalar::Int(1));
    let (input, dtype) = begin_any(call)?;
    let out = call.out(0)?;
    with_wide!(dtype, "self", W => {
        let low = W::of(low).unwrap_or(low.as_i64() as W);
        let high = W::of(high).unwrap_or(high.as_i64() as W);
        map1::<W, W>(input, None, out, |x| x.larger(low).smaller(high))
    })
}

fn hardsigmoid(call: &mut Call) -> Result<(), KernelError> {
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => map1::<W, W>(input, None, out, |x| (x + 3.0).larger(0.0).smaller(6.0) / 6.0))
}

fn hardswish(call: &mut Call) -> Result<(), KernelError> {
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => map1::<W, W>(input, None, out, |x| x * (x + 3.0).larger(0.0).smaller(6.0) / 6.0))
}

fn hardshrink(call: &mut Call) -> Result<(), KernelError> {
    let lambda = number(call, 1, 0.5)?;
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => {
        let lambda = lambda as W;
        map1::<W, W>(input, None, out, |x| if x >= -lambda && x <= lambda { 0.0 } else { x })
    })
}

fn softshrink(call: &mut Call) -> Result<(), KernelError> {
    let lambda = number(call, 1, 0.5)?;
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => {
        let lambda = lambda as W;
        map1::<W, W>(input, None, out, |x| {
            if x > lambda {
                x - lambda
            } else if x < -lambda {
                x + lambda
            } else {
                // Keeps NaN.
                x * 0.0
            }
        })
    })
}

fn softplus(call: &mut Call) -> Result<(), KernelError> {
    let (beta, limit) = (number(call, 1, 1.0)?, number(call, 2, 20.0)?);
    let (input, dtype) = begin(call)?;
    let out = call.out(0)?;
    with_real!(dtype, "self", W => {
        let (beta, limit) = (beta as W, limit as W);
        map1::<W, W>(input, None, out, |x| {
            if x * beta > limit { x } else { Real::log1p(Real::exp(x * beta)) / beta }
        })
    })
}

/// `log(sigmoid(x))`; the second output of `log_sigmoid_forward` is a buffer for training and stays empty, as on PyTorch's GPUs.
fn log_sigmoid(call: &mut Call) -> Result<(), KernelError> {
    let (input, dtype) = begin(call)?;
    if let Some(buffer) = call.outs.get_mut(1) {
        buffer.resize(&Dims::filled(1, 0))?;
    }
    let out = call.out(0)?;
    with_real!(dtype, "self", W => map1::<W, W>(input, None, out, |x| {
        x.smaller(0.0) - Real::log1p(Real::exp(-Num::magnitude(x)))
    }))
}

fn logit(call: &mut Call) -> Result<(), KernelError> {
    let eps = call.optional_float(1)?;
    let input = operand(call, 0)?;
    let dtype = crate::elementwise::float_dtype(&[input])?;
    let out = call.out(0)?;
    shape_out(out, &[input], dtype)?;
    with_real!(dtype, "self", W => {
        let (low, high) = match eps {
            Some(eps) if eps >= 0.0 => (eps as W, 1.0 - eps as W),
            _ => (W::NEG_INFINITY, W::INFINITY),
        };
        map1::<W, W>(input, None, out, |x| {
            let x = if x < low { low } else if x > high { high } else { x };
            Real::ln(x / (1.0 - x))
        })
    })
}

fn threshold(call: &mut Call) -> Result<(), KernelError> {
    let (limit, value) = (call.scalar(1)?, call.scalar(2)?);
    let (input, dtype) = begin_any(call)?;
    let out = call.out(0)?;
    with_wide!(dtype, "self", W => {
        let limit = W::of(limit).unwrap_or(limit.as_i64() as W);
        let value = W::of(value).unwrap_or(value.as_i64() as W);
        map1::<W, W>(input, None, out, |x| if x <= limit { value } else { x })
    })
}

/// `a * sigmoid(b)` of the two halves along a dimension.
fn glu(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let dim = dim_of(input.sizes(), call.optional_int(1)?.unwrap_or(-1), "dim")?;
    let size = input.sizes().get(dim).copied().unwrap_or(1);
    if input.rank() == 0 || size % 2 != 0 {
        return Err(KernelError::invalid("dim", format!("a size of {size} has no halves")));
    }
    let mut sizes = *input.sizes();
    sizes[dim] = size / 2;
    let offset = (input.strides()[dim] * sizes[dim]) as usize * input.dtype().size();
    let second = input.bytes().get(offset..).unwrap_or(input.bytes());
    let operands = [
        Operand::Tensor(Tensor::new(input.dtype(), &sizes, input.strides(), input.bytes())?),
        Operand::Tensor(Tensor::new(input.dtype(), &sizes, input.strides(), second)?),
    ];
    let dtype = input.dtype();
    let out = call.out(0)?;
    shape_out(out, &operands, dtype)?;
    with_real!(dtype, "self", W => map2::<W, W>(&operands, None, out, |a, b| a * Real::sigmoid(b)))
}
