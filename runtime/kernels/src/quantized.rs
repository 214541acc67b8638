//! Quantizing and dequantizing with one scale for a tensor, a channel, a token or a group: `quantized_decomposed`.
//!
//! The rules are those of the Python functions in PyTorch's `torch/ao/quantization/fx/_decomposed.py`.

use crate::affine::{Difference, Parameter, Rounding, Source, dequantize, quantize, with_format};
use crate::registry::Kernel;
use crate::stage::{dim_of, expect_dtype};
use crate::wide::first;
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("quantized_decomposed::quantize_per_tensor.out", quantize_per_tensor),
    (
        "quantized_decomposed::quantize_per_tensor.Tensor_out",
        quantize_per_tensor,
    ),
    (
        "quantized_decomposed::quantize_per_tensor.tensor2_out",
        quantize_per_tensor,
    ),
    ("quantized_decomposed::quantize_per_channel.out", quantize_per_channel),
    ("quantized_decomposed::quantize_per_token.out", quantize_per_token),
    (
        "quantized_decomposed::quantize_per_channel_group.out",
        quantize_per_channel_group,
    ),
    ("quantized_decomposed::dequantize_per_tensor.out", dequantize_per_tensor),
    (
        "quantized_decomposed::dequantize_per_tensor.Tensor_out",
        dequantize_per_tensor,
    ),
    (
        "quantized_decomposed::dequantize_per_tensor.tensor2_out",
        dequantize_per_tensor,
    ),
    (
        "quantized_decomposed::dequantize_per_channel.out",
        dequantize_per_channel,
    ),
    ("quantized_decomposed::dequantize_per_token.out", dequantize_per_token),
    (
        "quantized_decomposed::dequantize_per_channel_group.out",
        dequantize_per_channel_group,
    ),
];

/// The range of a dtype for quantized numbers.
fn range_of(dtype: DType) -> Result<(i64, i64), KernelError> {
    match dtype {
        DType::U8 => Ok((0, 255)),
        DType::I8 => Ok((-128, 127)),
        DType::U16 => Ok((0, 65535)),
        DType::I16 => Ok((-32768, 32767)),
        DType::I32 => Ok((i64::from(i32::MIN), i64::from(i32::MAX))),
        other => Err(KernelError::unsupported(
            "dtype",
            format!("quantized numbers in dtype {other}"),
        )),
    }
}

/// Checks the limits against the dtype of the quantized numbers.
fn check_limits((low, high): (i64, i64), dtype: DType) -> Result<(), KernelError> {
    let (lowest, highest) = range_of(dtype)?;
    if low < lowest {
        return Err(KernelError::invalid("quant_min", format!("{low} in dtype {dtype}")));
    }
    if high > highest {
        return Err(KernelError::invalid("quant_max", format!("{high} in dtype {dtype}")));
    }
    Ok(())
}

/// The limits at `index` and the next place, and the dtype of the quantized numbers after them.
fn limits_and_dtype(call: &Call, index: usize) -> Result<((i64, i64), DType), KernelError> {
    let limits = (whole(call, index, "quant_min")?, whole(call, index + 1, "quant_max")?);
    let dtype = call
        .optional_dtype(index + 2)?
        .ok_or_else(|| KernelError::invalid("dtype", "no dtype"))?;
    Ok((limits, dtype))
}

/// An integer, or a tensor of one.
fn whole(call: &Call, index: usize, argument: &'static str) -> Result<i64, KernelError> {
    match call.tensor(index) {
        Ok(tensor) => first::<i64>(&single(tensor, argument)?, argument),
        Err(_) => call.int(index),
    }
}

/// A float, or a tensor of one.
fn real(call: &Call, index: usize, argument: &'static str) -> Result<f64, KernelError> {
    match call.tensor(index) {
        Ok(tensor) => first::<f64>(&single(tensor, argument)?, argument),
        Err(_) => call.float(index),
    }
}

fn single<'a>(tensor: Tensor<'a>, argument: &'static str) -> Result<Tensor<'a>, KernelError> {
    if tensor.numel() == 1 {
        return Ok(tensor);
    }
    Err(KernelError::invalid(
        argument,
        format!("a tensor of {} instead of one number", tensor.sizes()),
    ))
}

/// Checks the input of an operator that takes floats of up to 32 bits.
fn check_real(input: &Tensor) -> Result<(), KernelError> {
    match input.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => Ok(()),
        other => Err(KernelError::invalid("input", format!("a tensor of dtype {other}"))),
    }
}

/// Checks the input of an operator that is told its dtype.
fn check_quantized(input: &Tensor, dtype: DType) -> Result<(), KernelError> {
    range_of(dtype)?;
    if input.dtype() == dtype {
        return Ok(());
    }
    Err(KernelError::invalid(
        "input",
        format!("a tensor of dtype {} instead of {dtype}", input.dtype()),
    ))
}

/// Strides of a parameter along `sizes`, to which it must broadcast.
fn broadcast(tensor: Tensor, sizes: &Dims, argument: &'static str) -> Result<Dims, KernelError> {
    if tensor.sizes().broadcast(sizes) != Some(*sizes) {
        return Err(KernelError::invalid(
            argument,
            format!("a tensor of {} does not broadcast to {sizes}", tensor.sizes()),
        ));
    }
    let lead = sizes.rank().saturating_sub(tensor.rank());
    let mut strides = Dims::filled(sizes.rank(), 0);
    for d in lead..sizes.rank() {
        if tensor.sizes()[d - lead] != 1 {
            strides[d] = tensor.strides()[d - lead];
        }
    }
    Ok(strides)
}

/// A parameter as one row: the distance of its elements, which must be `count` or one.
pub(crate) fn row_stride(tensor: &Tensor, count: i64, argument: &'static str) -> Result<i64, KernelError> {
    let numel = tensor.numel();
    if numel == 1 {
        return Ok(0);
    }
    if i64::try_from(numel) != Ok(count) {
        return Err(KernelError::invalid(
            argument,
            format!("a tensor of {} for {count} scales", tensor.sizes()),
        ));
    }
    if tensor.is_contiguous() {
        return Ok(1);
    }
    let mut long = (0..tensor.rank()).filter(|&d| tensor.sizes()[d] != 1);
    match (long.next(), long.next()) {
        (Some(d), None) => Ok(tensor.strides()[d]),
        _ => Err(KernelError::unsupported(
            argument,
            "a strided tensor of several dimensions",
        )),
    }
}

/// A parameter for each index of a dimension.
fn channels<'a>(
    tensor: Tensor<'a>,
    sizes: &Dims,
    axis: usize,
    argument: &'static str,
) -> Result<Parameter<'a>, KernelError> {
    let mut strides = Dims::filled(sizes.rank(), 0);
    strides[axis] = row_stride(&tensor, sizes[axis], argument)?;
    Ok(Parameter::Each(tensor, strides))
}

/// A parameter for each group of a row: of `rows` times `groups` elements, in this order, or one.
pub(crate) fn groups(tensor: &Tensor, rows: i64, groups: i64, argument: &'static str) -> Result<Dims, KernelError> {
    let pair = match tensor.sizes().as_slice() {
        &[r, g] if (r, g) == (rows, groups) => [tensor.strides()[0], tensor.strides()[1]],
        _ => {
            let count = rows.checked_mul(groups).unwrap_or(i64::MAX);
            let stride = row_stride(tensor, count, argument)?;
            [stride * groups, stride]
        }
    };
    let mut strides = Dims::filled(3, 0);
    strides[..2].copy_from_slice(&pair);
    Ok(strides)
}

fn quantize_per_tensor(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    check_real(&input)?;
    let (scale, zero) = (real(call, 1, "scale")?, whole(call, 2, "zero_point")?);
    let source = Source::per_tensor(input, scale, zero as f64);
    let (range, dtype) = limits_and_dtype(call, 3)?;
    let sizes = *input.sizes();
    quantize_to(call, &source, (DType::F32, DType::F32), (range, dtype), false, &sizes)
}

/// Checks and sizes the output, which has the shape of the input, and fills it. `sizes` are those of the loops: the shape,
/// or that with its last dimension cut in groups.
fn quantize_to(
    call: &mut Call,
    source: &Source,
    (product, format): (DType, DType),
    (range, dtype): ((i64, i64), DType),
    shift_first: bool,
    sizes: &Dims,
) -> Result<(), KernelError> {
    check_limits(range, dtype)?;
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(source.input.sizes())?;
    let strides = cut(&out.strides(), sizes);
    let rounding = Rounding {
        range,
        shift_first,
        product,
    };
    with_format!(format, "scales", F => quantize::<F>(source, rounding, out, sizes, &strides))
}

/// As [`quantize_to`].
fn dequantize_to(
    call: &mut Call,
    source: &Source,
    format: DType,
    dtype: DType,
    difference: Difference,
    sizes: &Dims,
) -> Result<(), KernelError> {
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(source.input.sizes())?;
    let strides = cut(&out.strides(), sizes);
    with_format!(format, "scales", F => dequantize::<F>(source, difference, out, sizes, &strides))
}

/// Strides of a layout with its last dimension cut as `sizes` say, if they have one more.
fn cut(strides: &Dims, sizes: &Dims) -> Dims {
    let mut cut = *strides;
    if let (Some(&inner), Some(&size)) = (strides.last(), sizes.last())
        && strides.rank() + 1 == sizes.rank()
    {
        let last = strides.rank() - 1;
        cut[last] = inner.saturating_mul(size);
        // A matrix has room for a third dimension.
        let _ = cut.push(inner);
    }
    cut
}

fn dequantize_per_tensor(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (scale, zero) = (real(call, 1, "scale")?, whole(call, 2, "zero_point")?);
    let source = Source::per_tensor(input, scale, zero as f64);
    check_quantized(&input, limits_and_dtype(call, 3)?.1)?;
    let format = call.optional_dtype(6)?.unwrap_or(DType::F32);
    let sizes = *input.sizes();
    dequantize_to(call, &source, format, format, Difference::Real(format), &sizes)
}

/// The dimension at `index`, of a tensor that has one.
pub(crate) fn axis_of(call: &Call, index: usize, input: &Tensor) -> Result<usize, KernelError> {
    let axis = call.int(index)?;
    if input.rank() == 0 {
        return Err(KernelError::invalid(
            "axis",
            "a tensor without dimensions has no channels",
        ));
    }
    dim_of(input.sizes(), axis, "axis")
}

fn quantize_per_channel(call: &mut Call) -> Result<(), KernelError> {
    let (input, scales, zeros) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    check_real(&input)?;
    let axis = axis_of(call, 3, &input)?;
    let sizes = *input.sizes();
    let source = Source {
        input,
        strides: *input.strides(),
        scale: channels(scales, &sizes, axis, "scales")?,
        zero: channels(zeros, &sizes, axis, "zero_points")?,
    };
    let formats = quantizing_formats(DType::F32, &scales, &zeros)?;
    let what = limits_and_dtype(call, 4)?;
    quantize_to(call, &source, formats, what, false, &sizes)
}

/// The dtypes of `input * (1 / scales)` for an input of a dtype, and of its sum with the zero points.
fn quantizing_formats(input: DType, scales: &Tensor, zeros: &Tensor) -> Result<(DType, DType), KernelError> {
    let product = DType::promote(input, check_scales(scales)?);
    Ok((product, DType::promote(product, zeros.dtype())))
}

fn check_scales(scales: &Tensor) -> Result<DType, KernelError> {
    if scales.dtype().is_float() {
        return Ok(scales.dtype());
    }
    Err(KernelError::unsupported(
        "scales",
        format!("a tensor of dtype {}", scales.dtype()),
    ))
}

/// What `(input - zero points) * scales` is computed in. Zero points without dimensions do not widen integers.
fn dequantizing_format(
    input: &Tensor,
    scales: &Tensor,
    zeros: Option<&Tensor>,
) -> Result<(DType, Difference), KernelError> {
    let scale = check_scales(scales)?;
    if !input.dtype().is_int() {
        return Err(KernelError::unsupported(
            "input",
            format!("a tensor of dtype {}", input.dtype()),
        ));
    }
    let difference = match zeros {
        None => input.dtype(),
        Some(zeros) if zeros.rank() == 0 && input.rank() > 0 && !zeros.dtype().is_float() => input.dtype(),
        Some(zeros) => DType::promote(input.dtype(), zeros.dtype()),
    };
    match difference {
        DType::U64 | DType::Bool => Err(KernelError::unsupported(
            "zero_points",
            format!("a difference in dtype {difference}"),
        )),
        whole if whole.is_int() => Ok((scale, Difference::Integer(whole))),
        real => Ok((DType::promote(real, scale), Difference::Real(real))),
    }
}

fn dequantize_per_channel(call: &mut Call) -> Result<(), KernelError> {
    let (input, scales, zeros) = (call.tensor(0)?, call.tensor(1)?, call.optional_tensor(2)?);
    let axis = axis_of(call, 3, &input)?;
    let (limits, dtype) = limits_and_dtype(call, 4)?;
    check_limits(limits, dtype)?;
    check_quantized(&input, dtype)?;
    let sizes = *input.sizes();
    let zero = match zeros {
        Some(zeros) => channels(zeros, &sizes, axis, "zero_points")?,
        None => Parameter::One(0.0),
    };
    let source = Source {
        input,
        strides: *input.strides(),
        scale: channels(scales, &sizes, axis, "scales")?,
        zero,
    };
    let out_dtype = call.optional_dtype(7)?.unwrap_or(DType::F32);
    let (format, difference) = dequantizing_format(&input, &scales, zeros.as_ref())?;
    dequantize_to(call, &source, format, out_dtype, difference, &sizes)
}

/// Tokens are rows along the last dimension.
fn quantize_per_token(call: &mut Call) -> Result<(), KernelError> {
    let (input, scales, zeros) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let sizes = *input.sizes();
    let tokens = sizes.split_last().map_or(&[][..], |(_, outer)| outer);
    let tokens = crate::stage::count(tokens);
    for (tensor, argument) in [(&scales, "scales"), (&zeros, "zero_points")] {
        if tensor.numel() != tokens {
            return Err(KernelError::invalid(
                argument,
                format!("a tensor of {} for {tokens} tokens", tensor.sizes()),
            ));
        }
    }
    let source = Source {
        input,
        strides: *input.strides(),
        scale: Parameter::Each(scales, broadcast(scales, &sizes, "scales")?),
        zero: Parameter::Each(zeros, broadcast(zeros, &sizes, "zero_points")?),
    };
    let formats = quantizing_formats(input.dtype(), &scales, &zeros)?;
    let what = limits_and_dtype(call, 3)?;
    quantize_to(call, &source, formats, what, true, &sizes)
}

fn dequantize_per_token(call: &mut Call) -> Result<(), KernelError> {
    let (input, scales, zeros) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let sizes = *input.sizes();
    let source = Source {
        input,
        strides: *input.strides(),
        scale: Parameter::Each(scales, broadcast(scales, &sizes, "scales")?),
        zero: Parameter::Each(zeros, broadcast(zeros, &sizes, "zero_points")?),
    };
    let (_, dtype) = limits_and_dtype(call, 3)?;
    check_quantized(&input, dtype)?;
    let out_dtype = call.optional_dtype(6)?.unwrap_or(DType::F32);
    let (format, difference) = dequantizing_format(&input, &scales, Some(&zeros))?;
    dequantize_to(call, &source, format, out_dtype, difference, &sizes)
}

/// A matrix with its rows cut in groups: sizes and strides of three dimensions.
fn grouped(input: &Tensor, scales: &Tensor, group: i64) -> Result<(Dims, Dims), KernelError> {
    let &[rows, columns] = input.sizes().as_slice() else {
        return Err(KernelError::invalid(
            "input",
            format!("a tensor of {} is no matrix", input.sizes()),
        ));
    };
    if group <= 1 {
        return Err(KernelError::invalid("group_size", format!("a group of {group}")));
    }
    // One scale a row, whatever the group is called: single columns are quantized so.
    let group = match scales.sizes().last() {
        Some(1) if group > columns => columns,
        _ => group,
    };
    if group == 0 || columns % group != 0 {
        return Err(KernelError::invalid(
            "group_size",
            format!("{columns} columns in groups of {group}"),
        ));
    }
    let mut sizes = Dims::filled(3, 0);
    sizes.copy_from_slice(&[rows, columns / group, group]);
    Ok((sizes, cut(input.strides(), &sizes)))
}

fn quantize_per_channel_group(call: &mut Call) -> Result<(), KernelError> {
    let (input, scales, zeros) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let (sizes, strides) = grouped(&input, &scales, call.int(6)?)?;
    let source = Source {
        input,
        strides,
        scale: Parameter::Each(scales, groups(&scales, sizes[0], sizes[1], "scales")?),
        zero: Parameter::Each(zeros, groups(&zeros, sizes[0], sizes[1], "zero_points")?),
    };
    let formats = quantizing_formats(input.dtype(), &scales, &zeros)?;
    let what = limits_and_dtype(call, 3)?;
    quantize_to(call, &source, formats, what, true, &sizes)
}

fn dequantize_per_channel_group(call: &mut Call) -> Result<(), KernelError> {
    let (input, scales, zeros) = (call.tensor(0)?, call.tensor(1)?, call.optional_tensor(2)?);
    let (sizes, strides) = grouped(&input, &scales, call.int(6)?)?;
    let zero = match zeros {
        Some(zeros) => Parameter::Each(zeros, groups(&zeros, sizes[0], sizes[1], "zero_points")?),
        None => Parameter::One(0.0),
    };
    let source = Source {
        input,
        strides,
        scale: Parameter::Each(scales, groups(&scales, sizes[0], sizes[1], "scales")?),
        zero,
    };
    let out_dtype = call.optional_dtype(7)?.unwrap_or(DType::F32);
    let (format, difference) = dequantizing_format(&input, &scales, zeros.as_ref())?;
    dequantize_to(call, &source, format, out_dtype, difference, &sizes)
}
