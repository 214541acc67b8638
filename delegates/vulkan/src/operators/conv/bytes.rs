//! Convolutions on quantized types: bytes times bytes, with sums of integers that are exact; what comes out is scaled and rounded once.
//!
//! What is not of bytes, of two dimensions and in whole blocks of four channels is refused: the host then asks about the parts, which are a
//! convolution of floats between operators that quantize and dequantize.

use super::geometry::{Axis, Geometry};
use crate::caps::{Refusal, rank};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::packing::conv_bytes;
use crate::tensor::{Layout, Tensor, checked_count};
use delegraph_sdk::image::{ArgView, NodeView, Quant, Source, ValueIndex};
use delegraph_sdk::{DType, Error, Reason};

/// Most terms of a sum: their products fit 32 bits.
const MOST_TERMS: u64 = 1 << 16;

/// True if a tensor of the node has a quantized type.
pub fn is_quantized(node: &NodeView<'_>) -> bool {
    let mut values = node.inputs().chain(node.outputs().iter());
    values.any(|value| node.image().value(value).quant().is_some())
}

fn refuse(text: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal {
        reason: Reason::QUANTIZATION,
        text: text.into(),
    })
}

fn is_byte(dtype: Option<DType>) -> bool {
    matches!(dtype, Some(DType::I8 | DType::U8))
}

/// What is asked of a convolution on quantized types.
///
/// # Errors
/// Why it is not taken.
pub fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    let image = node.image();
    let out = node.outputs().get(0);
    for value in [node.arg(0).value(), out] {
        let view = value.map(|value| image.value(value));
        let fits =
            view.is_some_and(|view| is_byte(view.dtype()) && matches!(view.quant(), Some(Quant::PerTensor { .. })));
        if !fits {
            return refuse("a convolution of bytes has an input and an output of bytes with one scale each");
        }
    }
    if (rank(node, 0), rank(node, 1)) != (Some(4), Some(4)) {
        return refuse("a convolution of bytes has two dimensions");
    }
    let is_plain = match node.op() {
        "aten::conv2d" | "aten::conv2d.padding" => true,
        "aten::convolution" => matches!(node.arg(6), ArgView::Bool(false)),
        _ => false,
    };
    let groups = match node.arg(if node.op() == "aten::convolution" { 8 } else { 6 }) {
        ArgView::Int(groups) => groups,
        _ => 0,
    };
    let weight = node.arg(1).value().map(|value| image.value(value));
    let Some((weight, dims)) = weight.and_then(|w| Some((w, w.const_dims()?))) else {
        return refuse("a quantized weight of unknown size");
    };
    let (outputs, inner) = match dims[..] {
        [outputs, inner, ..] => (outputs, inner),
        _ => (0, 0),
    };
    let in_blocks = groups == 1 || (groups > 0 && inner % 4 == 0 && outputs / groups % 4 == 0);
    if !is_plain || !(in_blocks || (inner == 1 && outputs == groups)) {
        return refuse("a convolution of bytes is not transposed and has groups of whole blocks of four channels");
    }
    if dims[1..].iter().product::<i64>() as u64 > MOST_TERMS {
        return refuse("a sum of more products than 32 bits hold");
    }
    if !is_byte(weight.dtype()) || !matches!(weight.source(), Source::Weight(_)) {
        return refuse("a weight that is no constant of bytes");
    }
    let (scales, zeros) = match weight.quant() {
        Some(Quant::PerTensor { .. }) => (None, None),
        Some(Quant::PerAxis {
            axis: 0,
            scales,
            zero_points,
            ..
        }) => (
            Some(image.weight(scales).dtype()),
            zero_points.map(|z| image.weight(z).dtype()),
        ),
        _ => return refuse("a weight of other scales than one, or one an output"),
    };
    if scales.is_some_and(|dtype| !matches!(dtype, DType::F32 | DType::F64)) {
        return refuse("scales of another type");
    }
    let integers = [DType::I8, DType::U8, DType::I16, DType::I32, DType::I64];
    if zeros.is_some_and(|dtype| !integers.contains(&dtype)) {
        return refuse("zero points of another type");
    }
    let Some(bias) = node.arg(2).value().map(|value| image.value(value)) else {
        return Ok(());
    };
    match (bias.dtype(), bias.quant()) {
        (Some(DType::F32 | DType::F16), None) | (Some(DType::I32), Some(_)) => Ok(()),
        _ => refuse("a bias of another type"),
    }
}

/// Scale, zero point, least and greatest integer of a value.
fn quant(node: &Node<'_>, value: ValueIndex) -> Result<(f64, i64, i64, i64), Error> {
    match node.view().image().value(value).quant() {
        Some(Quant::PerTensor {
            scale,
            zero_point,
            quant_min,
            quant_max,
        }) => Ok((scale, zero_point, quant_min, quant_max)),
        _ => Err(Error::internal("a tensor of bytes has one scale")),
    }
}

/// The scales and zero points of the weights, and the words 33 to 36 that tell kernels how they lie.
fn scales(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(Tensor, Tensor, [u32; 4]), Error> {
    let view = node.view().image().value(node.value(1)?);
    match view.quant() {
        Some(Quant::PerTensor { scale, zero_point, .. }) => {
            let scales = e.bytes(DType::F32, &[1], (scale as f32).to_le_bytes().to_vec())?;
            let zeros = e.bytes(DType::I32, &[1], (zero_point as i32).to_le_bytes().to_vec())?;
            let zeros_code = code(DType::I32).unwrap_or(0);
            Ok((scales, zeros, [1, 0, 0, 3 | zeros_code << 8]))
        }
        Some(Quant::PerAxis {
            scales, zero_points, ..
        }) => {
            let scales = e.weight(scales)?;
            let mut flags = 1;
            if scales.dtype == DType::F64 {
                flags |= 8;
            }
            let zeros = match zero_points {
                Some(zero_points) => {
                    let zeros = e.weight(zero_points)?;
                    flags |= 2 | code(zeros.dtype).unwrap_or(0) << 8;
                    zeros
                }
                None => scales.clone(),
            };
            Ok((scales, zeros, [1, 1, 0, flags]))
        }
        _ => Err(Error::internal("a weight has a scale for all or for each output")),
    }
}

/// A convolution of bytes.
///
/// # Errors
/// Sizes that do not fit, or a tensor that the device does not bind.
pub fn encode(node: &Node<'_>, e: &mut Encoder<'_>, g: &Geometry) -> Result<(), Error> {
    let (input, weight) = (node.value(0)?, node.value(1)?);
    let x = e.tensor(input, Layout::Nhwc4)?;
    let out = e.output(node, 0, Layout::Nhwc4)?;
    let (scales, zeros, scale_words) = scales(node, e)?;
    let bias = node
        .optional_value(2)?
        .map(|bias| e.tensor(bias, Layout::RowMajor))
        .transpose()?;
    let (bias_kind, bias_code) = match &bias {
        None => (0, 0),
        Some(bias) if bias.dtype == DType::I32 => (1, 0),
        Some(bias) => (2, code(bias.dtype).unwrap_or(0)),
    };
    let (scale, zero, ..) = quant(node, input)?;
    let (out_scale, out_zero, least, most) = quant(node, node.output(0)?)?;
    let [_, down, across] = &g.axes;
    let by_channel = g.groups > 1 && g.inner() == 1;
    let (blocks, inner) = (g.outputs.div_ceil(4), g.inner().div_ceil(4));
    let volume = down.kernel * across.kernel;
    let row = if by_channel {
        across.output
    } else {
        across.output.div_ceil(4)
    };
    let count = checked_count(&[blocks, row, down.output, g.batch])?;
    let unsigned = x.dtype == DType::U8;
    let flip = if unsigned { 0x8080_8080 } else { 0 };
    // Where the input ends there is its zero point, in the channels that there are.
    let byte = zero as u8;
    let filled = |channels: u32| [0, 1, 2, 3].map(|c| if c < channels { byte } else { 0 });
    let last = g.inner() - 4 * inner.saturating_sub(1);
    // Unsigned bytes of the channels that fill up the last block are -128 as signed ones.
    let surplus = if unsigned {
        128 * (4 * inner - g.inner()) * volume
    } else {
        0
    };

    let mut params = vec![count, blocks, g.share().div_ceil(4), inner, g.channels.div_ceil(4), row];
    params.extend([
        down.output,
        across.output,
        down.input,
        across.input,
        down.kernel,
        across.kernel,
        g.outputs,
    ]);
    let steps = |axis: &Axis| [axis.multiple, axis.offset.wrapping_neg() as u32, axis.step as u32];
    params.extend([down, across].into_iter().flat_map(steps));
    params.extend([flip, u32::from_le_bytes(filled(4)), u32::from_le_bytes(filled(last))]);
    params.extend([volume * g.inner(), surplus, volume * inner * blocks, 0]);
    let each = bias.as_ref().map_or(0, |bias| u32::from(bias.count() != 1));
    let out_code = code(out.dtype).ok_or_else(|| Error::internal(format!("bytes in {}", out.dtype)))?;
    params.extend([bias_kind, bias_code, out_code, each, 0]);
    let zero = if unsigned { zero - 128 } else { zero };
    params.extend([(scale as f32).to_bits(), zero as i32 as u32]);
    params.extend(scale_words);
    params.extend([
        ((1.0 / out_scale) as f32).to_bits(),
        out_zero as i32 as u32,
        least as i32 as u32,
        most as i32 as u32,
    ]);
    let weight_shift = if e.dtype(weight)? == DType::U8 { -128 } else { 0 };
    params.extend([0, 0, weight_shift as u32]);

    let (kernel, w) = match by_channel {
        true => {
            let dims = [volume * blocks];
            (
                &kernels::CONV_BYTES_DEPTHWISE,
                e.packed(weight, &conv_bytes::DEPTHWISE, &[], DType::I32, &dims)?,
            )
        }
        false => {
            let dims = [(volume * inner + 1) * blocks * 4];
            let kernel = e
                .facts()
                .pick(&[&kernels::CONV_BYTES_DOT, &kernels::CONV_BYTES_PLAIN])?;
            (kernel, e.packed(weight, &conv_bytes::BLOCKS, &[], DType::I32, &dims)?)
        }
    };
    let bias = bias.as_ref().unwrap_or(&scales);
    let operands = [read(&x), read(&w), read(&scales), read(&zeros), read(bias), write(&out)];
    e.dispatch(kernel, &operands, &params, grid(count, 64))
}
