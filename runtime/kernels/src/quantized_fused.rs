//! Operators that dequantize, compute and quantize in one: sums and products of `quantized_decomposed`.

use crate::affine::{Format, InF32};
use crate::elementwise::{map, map3, with_real};
use crate::lanes::Operand;
use crate::quantized::{axis_of, row_stride};
use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::ternary::fill;
use crate::wide::Wide;
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("quantized_decomposed::add.out", add),
    ("quantized_decomposed::convert_element_type.no_fuse_out", convert),
    (
        "quantized_decomposed::fake_quant_per_channel.out",
        fake_quant_per_channel,
    ),
    ("quantized_decomposed::mixed_linear.out", mixed_linear),
    ("quantized_decomposed::mixed_mm.out", mixed_mm),
];

/// Scale and zero point at `index` and the next place, limits after them.
fn affine(call: &Call, index: usize) -> Result<(f64, f32, f32, f32), KernelError> {
    let number = |at: usize| call.int(index + at).map(|number| number as f32);
    Ok((call.float(index)?, number(1)?, number(2)?, number(3)?))
}

/// Each side as `dequantize_per_tensor` gives it, added, and then as `quantize_per_tensor`.
fn add(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(0)?, call.tensor(5)?);
    let ((a_scale, a_zero, ..), (b_scale, b_zero, ..)) = (affine(call, 1)?, affine(call, 6)?);
    let (scale, zero, low, high) = affine(call, 10)?;
    let (a_scale, b_scale, inverse) = (a_scale as f32, b_scale as f32, (1.0 / scale) as f32);
    if !a.dtype().is_int() || a.dtype() != b.dtype() || a.dtype().size() > 4 {
        return Err(KernelError::unsupported(
            "b",
            format!("a sum of dtypes {} and {}", a.dtype(), b.dtype()),
        ));
    }
    let sizes = a.sizes().broadcast(b.sizes()).ok_or_else(|| {
        KernelError::invalid(
            "b",
            format!("a shape of {} does not broadcast with {}", b.sizes(), a.sizes()),
        )
    })?;
    let out = call.out(0)?;
    expect_dtype(out, 0, a.dtype())?;
    out.resize(&sizes)?;
    let operands = [Operand::Tensor(a), Operand::Tensor(b)];
    map(&operands, None, out, &|[a, b]: [&[f32]; 2], slots: &mut [f32]| {
        for ((slot, &a), &b) in slots.iter_mut().zip(a).zip(b) {
            let sum = (a - a_zero) * a_scale + (b - b_zero) * b_scale;
            *slot = clamp(InF32::whole(sum * inverse) + zero, low, high);
        }
    })
}

/// The upper limit wins where they cross, as in PyTorch.
fn clamp(value: f32, low: f32, high: f32) -> f32 {
    let value = if value < low { low } else { value };
    if value > high { high } else { value }
}

fn convert(call: &mut Call) -> Result<(), KernelError> {
    let (input, dtype) = (call.tensor(0)?, call.optional_dtype(1)?);
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype.unwrap_or(DType::F32))?;
    out.resize(input.sizes())?;
    fill(call, Operand::Tensor(input))
}

/// A parameter as a tensor that broadcasts along all dimensions but one. Its sizes and strides are put in `dims`.
fn along<'a>(
    tensor: Tensor<'a>,
    sizes: &Dims,
    axis: usize,
    argument: &'static str,
    dims: &'a mut [Dims; 2],
) -> Result<Operand<'a>, KernelError> {
    let stride = row_stride(&tensor, sizes[axis], argument)?;
    *dims = [Dims::filled(sizes.rank(), 1); 2];
    dims[0][axis] = if tensor.numel() == 1 { 1 } else { sizes[axis] };
    dims[1][axis] = stride;
    let [own, strides] = dims;
    Tensor::new(tensor.dtype(), own, strides, tensor.bytes()).map(Operand::Tensor)
}

fn fake_quant_per_channel(call: &mut Call) -> Result<(), KernelError> {
    let (input, scales, zeros) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    if input.dtype() != DType::F32 {
        return Err(KernelError::invalid(
            "input",
            format!("a tensor of dtype {}", input.dtype()),
        ));
    }
    let axis = axis_of(call, 3, &input)?;
    let (low, high) = (call.int(4)? as f32, call.int(5)? as f32);
    let mut dims = [[Dims::SCALAR; 2]; 2];
    let [of_scales, of_zeros] = &mut dims;
    let (scales, zeros) = (
        along(scales, input.sizes(), axis, "scales", of_scales)?,
        along(zeros, input.sizes(), axis, "zero_points", of_zeros)?,
    );
    let out = call.out(0)?;
    expect_dtype(out, 0, DType::F32)?;
    out.resize(input.sizes())?;
    let operands = [Operand::Tensor(input), scales, zeros];
    map3(&operands, None, out, |x: f32, scale: f32, zero: f32| {
        // Zero points are stored in 32-bit integers first.
        let zero = zero as i32 as f32;
        (clamp(InF32::whole(x * (1.0 / scale)) + zero, low, high) - zero) * scale
    })
}

/// A matrix's sizes.
fn matrix(tensor: &Tensor, argument: &'static str) -> Result<(usize, usize), KernelError> {
    match tensor.sizes().as_slice() {
        &[rows, columns] => Ok((rows as usize, columns as usize)),
        _ => Err(KernelError::invalid(
            argument,
            format!("a tensor of {} is no matrix", tensor.sizes()),
        )),
    }
}

/// Checks what both products demand: 8-bit weights, no zero points.
fn check_weight(call: &Call, weight: &Tensor) -> Result<(), KernelError> {
    if weight.dtype() != DType::I8 {
        return Err(KernelError::unsupported(
            "weight",
            format!("a tensor of dtype {}", weight.dtype()),
        ));
    }
    if !call.is_none(3) {
        return Err(KernelError::unsupported(
            "weight_zero_points",
            "a weight with zero points",
        ));
    }
    Ok(())
}

fn do_not_multiply(input: &Tensor, weight: &Tensor, scales: &Tensor) -> KernelError {
    let (input, weight, scales) = (input.sizes(), weight.sizes(), scales.sizes());
    KernelError::invalid("weight", format!("{input} by {weight} with scales of {scales}"))
}

/// Computes a product of matrices in `W` and stores it: `fill` gets the output, the input, the weight and the scales.
fn product<W: Wide>(
    call: &mut Call,
    (input, weight, scales): (&Tensor, &Tensor, &Tensor),
    fill: impl Fn(&mut [W], &[W], &[W], &[W]),
) -> Result<(), KernelError> {
    let (out, scratch) = parts(call, 0)?;
    let bytes = load_bytes::<W>(input) + bytes_of::<W>(weight.numel()) + load_bytes::<W>(scales);
    let mut arena = Arena::new(scratch, bytes.saturating_add(out_bytes::<W>(out)))?;
    let (x, s) = (arena.load::<W>(input)?, arena.load::<W>(scales)?);
    let w = arena.load::<W>(weight)?;
    produce::<W>(out, &mut arena, |slots, _| {
        fill(slots, x, w, s);
        Ok(())
    })
}

/// `input [m, k]` times `weight [k, n]`, whose rows have a scale each.
fn mixed_mm(call: &mut Call) -> Result<(), KernelError> {
    let (input, weight, scales) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    check_weight(call, &weight)?;
    let ((rows, inner), (weight_rows, columns)) = (matrix(&input, "input")?, matrix(&weight, "weight")?);
    if inner != weight_rows || scales.sizes().as_slice() != [inner as i64] {
        return Err(do_not_multiply(&input, &weight, &scales));
    }
    let out = call.out(0)?;
    expect_dtype(out, 0, input.dtype())?;
    out.resize(&dims_of(&[rows as i64, columns as i64], "input")?)?;
    with_real!(input.dtype(), "input", W => {
        product::<W>(call, (&input, &weight, &scales), |slots, x, w, s| {
            slots.fill(W::ZERO);
            for i in 0..rows {
                let slots = &mut slots[i * columns..(i + 1) * columns];
                for k in 0..inner {
                    for (slot, &w) in slots.iter_mut().zip(&w[k * columns..(k + 1) * columns]) {
                        *slot += x[i * inner + k] * w * s[k];
                    }
                }
            }
        })
    })
}

/// `input [m, k]` times the transpose of `weight [n, k]`, whose rows have a scale each, or one for each group of columns.
fn mixed_linear(call: &mut Call) -> Result<(), KernelError> {
    let (input, weight, scales) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    check_weight(call, &weight)?;
    let dtype = call.optional_dtype(4)?.unwrap_or(input.dtype());
    let ((rows, inner), (columns, weight_inner)) = (matrix(&input, "input")?, matrix(&weight, "weight")?);
    let groups = match *scales.sizes().as_slice() {
        [scaled] if scaled == columns as i64 => 1,
        [scaled, groups] if scaled == columns as i64 && groups > 0 => groups as usize,
        _ => 0,
    };
    if inner != weight_inner || groups == 0 || inner % groups != 0 {
        return Err(do_not_multiply(&input, &weight, &scales));
    }
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(&dims_of(&[rows as i64, columns as i64], "input")?)?;
    let group = (inner / groups).max(1);
    with_real!(input.dtype(), "input", W => {
        product::<W>(call, (&input, &weight, &scales), |slots, x, w, s| {
            for i in 0..rows {
                let x = &x[i * inner..(i + 1) * inner];
                for j in 0..columns {
                    let w = &w[j * inner..(j + 1) * inner];
                    let pieces = x.chunks(group).zip(w.chunks(group)).zip(&s[j * groups..]);
                    slots[i * columns + j] = pieces.fold(W::ZERO, |sum, ((x, w), &s)| {
                        let part = x.iter().zip(w).fold(W::ZERO, |part, (&x, &w)| part + x * w);
                        sum + part * s
                    });
                }
            }
        })
    })
}
