//! Linear layers on quantized types: weights of few bits under floats, and bytes times bytes.
//!
//! Weights of 4 and 8 bits are read as they are and become floats in registers. Where the input is quantized too, the sums are of integers and
//! exact; what comes out is scaled once and rounded once. Types that have no kernel of their own (16 bits, odd sizes, scales along k) are
//! computed element by element.

use super::linear::shape;
use super::product::{LINKS, checked, is_wide};
use crate::caps::{self, Refusal};
use crate::codes::code;
use crate::encoder::{Encoder, Finish, grid, read, write};
use crate::kernels::{self, Kernel};
use crate::node::Node;
use crate::packing::linear::NIBBLES;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::{NodeView, Quant, ValueIndex, WeightIndex};
use delegraph_sdk::{DType, Error, Reason};

/// Columns of k that bytes are summed over in 32 bits without overflow.
const MOST_BYTES: u32 = 1 << 16;

/// True if a tensor of the node has a quantized type.
pub fn is_quantized(node: &NodeView<'_>) -> bool {
    let mut values = node.inputs().chain(node.outputs().iter());
    values.any(|value| node.image().value(value).quant().is_some())
}

fn refuse<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        reason: Reason::QUANTIZATION,
        text: text.into(),
    })
}

/// What is asked of a layer on quantized types.
///
/// # Errors
/// Why it is not taken.
pub fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    let image = node.image();
    let integers = [DType::I8, DType::U8, DType::I16];
    let floats = [DType::F32, DType::F16];
    let out = node.outputs().get(0);
    for value in [node.arg(0).value(), out] {
        let view = value.map(|value| image.value(value));
        let Some((dtype, quant)) = view.and_then(|view| Some((view.dtype()?, view.quant()))) else {
            return Err(Refusal::attribute("a layer needs an input and an output"));
        };
        let right = match quant {
            None => floats.contains(&dtype),
            Some(Quant::PerTensor { .. }) => integers.contains(&dtype),
            Some(_) => return refuse("an input or output of several scales"),
        };
        if !right {
            return refuse(format!("an input or output of {dtype}"));
        }
    }
    let Some(weight) = node.arg(1).value().map(|value| image.value(value)) else {
        return Err(Refusal::attribute("a layer without a weight"));
    };
    if weight.rank() != 2 {
        return Err(Refusal::shape("a quantized weight has two dimensions"));
    }
    match (weight.dtype(), weight.quant()) {
        (Some(dtype), None) if floats.contains(&dtype) => {}
        (Some(dtype), Some(quant)) if integers.contains(&dtype) => {
            let Some(dims) = weight.const_dims() else {
                return Err(Refusal::shape("a quantized weight of unknown size"));
            };
            let scales = Scales::of(&quant, &dims);
            let weights = match scales {
                Err(text) => return refuse(text),
                Ok(Scales::One { .. }) => None,
                Ok(Scales::Many { scales, zeros, .. }) => Some((scales, zeros)),
            };
            if let Some((scales, zeros)) = weights {
                let dtype = |index: WeightIndex| image.weight(index).dtype();
                if !matches!(dtype(scales), DType::F32 | DType::F64) {
                    return refuse(format!("scales of {}", dtype(scales)));
                }
                if let Some(zeros) = zeros.map(dtype).filter(|zeros| !is_integer(*zeros)) {
                    return refuse(format!("zero points of {zeros}"));
                }
            }
        }
        _ => return refuse("a weight of another type"),
    }
    let Some(bias) = node.arg(2).value() else {
        return Ok(());
    };
    let bias = image.value(bias);
    match (bias.dtype(), bias.quant()) {
        (Some(dtype), None) if floats.contains(&dtype) => Ok(()),
        (Some(DType::I32), Some(_)) if caps::dtype(node, 0).is_some_and(is_integer) && one_group(&weight.quant()) => {
            Ok(())
        }
        _ => refuse("a bias of another type"),
    }
}

fn is_integer(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8 | DType::I16 | DType::I32 | DType::I64)
}

/// One scale for all, or one an output channel.
fn one_group(quant: &Option<Quant>) -> bool {
    matches!(quant, Some(Quant::PerTensor { .. } | Quant::PerAxis { axis: 0, .. }))
}

/// The scales of a weight `[n, k]`.
enum Scales {
    One {
        scale: f64,
        zero: i64,
    },
    /// The scale of column `n` and group `k / group` is `n * column + group * step`.
    Many {
        scales: WeightIndex,
        zeros: Option<WeightIndex>,
        group: u32,
        column: u32,
        step: u32,
    },
}

impl Scales {
    fn of(quant: &Quant, dims: &[i64]) -> Result<Scales, String> {
        let [n, k] = dims else {
            return Err("a weight that is no matrix".to_string());
        };
        let (Ok(n), Ok(k)) = (u32::try_from(*n), u32::try_from(*k)) else {
            return Err("a weight of more than 32 bits can count".to_string());
        };
        if k == 0 {
            return Err("a weight without terms".to_string());
        }
        Ok(match quant {
            Quant::PerTensor { scale, zero_point, .. } => Scales::One {
                scale: *scale,
                zero: *zero_point,
            },
            Quant::PerAxis {
                axis,
                scales,
                zero_points,
                ..
            } => Scales::Many {
                scales: *scales,
                zeros: *zero_points,
                group: if *axis == 0 { k.max(1) } else { 1 },
                column: u32::from(*axis == 0),
                step: u32::from(*axis != 0),
            },
            Quant::PerBlock {
                block,
                scales,
                zero_points,
                ..
            } => {
                let [rows, group] = block[..] else {
                    return Err("blocks of another number of dimensions".to_string());
                };
                if group == 0 || k % group != 0 || (rows != 1 && rows != n) {
                    return Err(format!("blocks of {rows} by {group} of a weight of {n} by {k}"));
                }
                Scales::Many {
                    scales: *scales,
                    zeros: *zero_points,
                    group,
                    column: if rows == 1 { k / group } else { 0 },
                    step: 1,
                }
            }
        })
    }
}

/// The operands and parameters that kernels of quantized layers share.
struct Layer {
    m: u32,
    n: u32,
    k: u32,
    x: Tensor,
    weight: ValueIndex,
    weights: DType,
    scales: Tensor,
    zeros: Tensor,
    bias: Option<Tensor>,
    group: u32,
    params: Vec<u32>,
    input: Option<(f64, i64)>,
    quantized: bool,
    limits: Option<(i64, i64)>,
}

/// A layer some of whose tensors have quantized types.
///
/// # Errors
/// Sizes that do not fit, or a tensor that the device does not bind.
pub fn linear(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let layer = layer(node, e)?;
    let finish = match layer.quantized {
        // Links are of floats: none stands behind integers.
        true => {
            let out = e.output(node, 0, Layout::RowMajor)?;
            e.unfinished(out)?
        }
        false => e.finish(node, Layout::RowMajor)?,
    };
    if finish.out.count() == 0 {
        return Ok(());
    }
    let bytes = |dtype: DType| matches!(dtype, DType::I8 | DType::U8);
    let vectors = layer.k.is_multiple_of(4) && layer.k > 0;
    let even = finish.out.element() == 4 || layer.n.is_multiple_of(2);
    if layer.input.is_none()
        && !layer.quantized
        && bytes(layer.weights)
        && vectors
        && layer.group.is_multiple_of(4)
        && even
    {
        return few_bits(e, layer, &finish);
    }
    let full = !layer.quantized || (layer.n.is_multiple_of(4) && finish.out.element() == 1);
    if bytes(layer.x.dtype)
        && bytes(layer.weights)
        && vectors
        && layer.group == layer.k
        && layer.k <= MOST_BYTES
        && full
        && even
    {
        return of_bytes(e, layer, &finish);
    }
    flat(e, layer, &finish)
}

fn layer(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<Layer, Error> {
    let (view, x) = (node.view(), e.input(node, 0)?);
    let image = view.image();
    let weight = node.value(1)?;
    let weight_dims = e.dims(weight)?;
    let (m, n, k) = shape(&x.dims, &weight_dims)?;
    let bias = node.optional_value(2)?;
    let integers = bias.is_some_and(|bias| image.value(bias).quant().is_some());
    let bias = bias.map(|bias| e.tensor(bias, Layout::RowMajor)).transpose()?;
    let pair = |value: ValueIndex| match image.value(value).quant() {
        Some(Quant::PerTensor {
            scale,
            zero_point,
            quant_min,
            quant_max,
        }) => Some((scale, zero_point, quant_min, quant_max)),
        _ => None,
    };
    let input = pair(node.value(0)?).map(|(scale, zero, ..)| (scale, zero));
    let output = pair(node.output(0)?);
    let out_dtype = e.dtype(node.output(0)?)?;
    let weights = e.dtype(weight)?;
    let nothing = e.nothing()?;
    let mut flags = u32::from(output.is_some()) << 2 | u32::from(integers) << 4;
    let (mut scales, mut zeros) = (nothing.clone(), nothing);
    let (mut group, mut column, mut step) = (k.max(1), 0, 0);
    let mut limits = None;
    if let Some(quant) = image.value(weight).quant() {
        let dims: Vec<i64> = weight_dims.iter().map(|d| i64::from(*d)).collect();
        match Scales::of(&quant, &dims).map_err(Error::unsupported)? {
            Scales::One { scale, zero } => {
                scales = e.bytes(DType::F32, &[1], (scale as f32).to_le_bytes().to_vec())?;
                zeros = e.bytes(DType::I32, &[1], (zero as i32).to_le_bytes().to_vec())?;
                flags |= 3;
            }
            Scales::Many {
                scales: of,
                zeros: zero_points,
                group: size,
                column: columns,
                step: steps,
            } => {
                (group, column, step) = (size, columns, steps);
                scales = e.weight(of)?;
                flags |= 1;
                if scales.dtype == DType::F64 {
                    flags |= 8;
                }
                if let Some(zero_points) = zero_points {
                    zeros = e.weight(zero_points)?;
                    flags |= 2;
                }
            }
        }
        let (Quant::PerTensor {
            quant_min, quant_max, ..
        }
        | Quant::PerAxis {
            quant_min, quant_max, ..
        }
        | Quant::PerBlock {
            quant_min, quant_max, ..
        }) = quant;
        limits = Some((quant_min, quant_max));
    }
    let number = |dtype: DType| code(dtype).ok_or_else(|| Error::internal(format!("a layer of {dtype}")));
    let zeros_code = if flags & 2 != 0 { number(zeros.dtype)? } else { 0 };
    let added = bias.as_ref().filter(|_| !integers);
    let codes = number(x.dtype)?
        | number(weights)? << 8
        | added.map_or(Ok(0), |bias| number(bias.dtype))? << 16
        | number(out_dtype)? << 24;
    let bias_step = bias.as_ref().map_or(0, |bias| u32::from(bias.count() != 1));
    let mut params = vec![m, n, k, 1, 1, 1];
    params.extend([1f32.to_bits(), 1f32.to_bits(), u32::from(added.is_some()), codes]);
    params.extend([0, k, 1, 0, 0, 0]);
    params.extend([0, 1, k, 0, 0, 0]);
    params.extend([0, 0, bias_step, 0, 0, 0]);
    params.extend([0, n, m * n]);
    let (scale, zero) = input.unwrap_or((1.0, 0));
    params.extend([(scale as f32).to_bits(), zero as i32 as u32]);
    params.extend([group, column, step, flags | zeros_code << 8]);
    if let Some((scale, zero, least, most)) = output {
        params.extend([
            ((1.0 / scale) as f32).to_bits(),
            zero as i32 as u32,
            least as i32 as u32,
            most as i32 as u32,
        ]);
    }
    params.resize(LINKS, 0);
    Ok(Layer {
        m,
        n,
        k,
        x,
        weight,
        weights,
        scales,
        zeros,
        bias,
        group,
        params,
        input,
        quantized: output.is_some(),
        limits,
    })
}

impl Layer {
    fn dispatch(
        &mut self,
        e: &mut Encoder<'_>,
        kernel: &'static Kernel,
        weight: &Tensor,
        finish: &Finish,
        count: &[u32],
    ) -> Result<(), Error> {
        self.params.extend_from_slice(&finish.links);
        let operands = [
            read(&self.x),
            read(weight),
            read(&self.scales),
            read(&self.zeros),
            read(self.bias.as_ref().unwrap_or(&finish.extra[0])),
            read(&finish.extra[0]),
            read(&finish.extra[1]),
            write(&finish.out),
        ];
        e.dispatch(kernel, &operands, &self.params, grid(checked(count)?, 64))
    }
}

/// Floats times integers of 4 or 8 bits.
fn few_bits(e: &mut Encoder<'_>, mut layer: Layer, finish: &Finish) -> Result<(), Error> {
    let (m, n, k) = (layer.m, layer.n, layer.k);
    let least = layer.limits.map_or(-128, |(least, _)| least);
    let narrow = layer.limits.is_some_and(|(least, most)| most - least < 16);
    let nibbles = narrow && k.is_multiple_of(8) && layer.group.is_multiple_of(8) && e.is_constant(layer.weight);
    let weight = match nibbles {
        true => e.packed(layer.weight, &NIBBLES, &[least as i32 as u32], DType::I32, &[n, k / 8])?,
        false => e.tensor(layer.weight, Layout::RowMajor)?,
    };
    let unsigned = layer.weights == DType::U8;
    (layer.params[37], layer.params[38]) = match (nibbles, unsigned) {
        (true, _) => (least as i32 as u32, 0),
        (false, true) => (128, 0x8080_8080),
        (false, false) => (0, 0),
    };
    let half = layer.x.dtype == DType::F16;
    let of = |kernels: [&'static Kernel; 4]| kernels[usize::from(half) * 2 + usize::from(nibbles)];
    if is_wide(e.facts()) && m <= 4 && k >= 64 {
        let best = of([
            &kernels::GEMV_WEIGHT_W8_F32_SUBGROUP,
            &kernels::GEMV_WEIGHT_W4_F32_SUBGROUP,
            &kernels::GEMV_WEIGHT_W8_F16_SUBGROUP,
            &kernels::GEMV_WEIGHT_W4_F16_SUBGROUP,
        ]);
        let plain = of([
            &kernels::GEMV_WEIGHT_W8_F32,
            &kernels::GEMV_WEIGHT_W4_F32,
            &kernels::GEMV_WEIGHT_W8_F16,
            &kernels::GEMV_WEIGHT_W4_F16,
        ]);
        let kernel = e.facts().pick(&[best, plain])?;
        return layer.dispatch(e, kernel, &weight, finish, &[m, n.div_ceil(4), 64]);
    }
    if is_wide(e.facts()) && m > 4 && n >= 16 {
        let kernel = of([
            &kernels::GEMM_WEIGHT_TILE_W8_F32,
            &kernels::GEMM_WEIGHT_TILE_W4_F32,
            &kernels::GEMM_WEIGHT_TILE_W8_F16,
            &kernels::GEMM_WEIGHT_TILE_W4_F16,
        ]);
        return layer.dispatch(e, kernel, &weight, finish, &[m.div_ceil(64), n.div_ceil(64), 64]);
    }
    let (kernel, rows) = match m {
        1 => (
            of([
                &kernels::GEMM_WEIGHT_W8_ROW_F32,
                &kernels::GEMM_WEIGHT_W4_ROW_F32,
                &kernels::GEMM_WEIGHT_W8_ROW_F16,
                &kernels::GEMM_WEIGHT_W4_ROW_F16,
            ]),
            1,
        ),
        _ => (
            of([
                &kernels::GEMM_WEIGHT_W8_F32,
                &kernels::GEMM_WEIGHT_W4_F32,
                &kernels::GEMM_WEIGHT_W8_F16,
                &kernels::GEMM_WEIGHT_W4_F16,
            ]),
            4,
        ),
    };
    layer.dispatch(e, kernel, &weight, finish, &[m.div_ceil(rows), n.div_ceil(4)])
}

/// Bytes times bytes.
fn of_bytes(e: &mut Encoder<'_>, mut layer: Layer, finish: &Finish) -> Result<(), Error> {
    let weight = e.tensor(layer.weight, Layout::RowMajor)?;
    if layer.x.dtype == DType::U8 {
        layer.params[32] = layer.params[32].wrapping_sub(128);
        layer.params[41] = 0x8080_8080;
    }
    if layer.weights == DType::U8 {
        layer.params[42] = 0x8080_8080;
        layer.params[43] = -128i32 as u32;
    }
    let kernel = e
        .facts()
        .pick(&[&kernels::GEMM_BYTES_DOT, &kernels::GEMM_BYTES_PLAIN])?;
    let count = [layer.m.div_ceil(4), layer.n.div_ceil(4)];
    layer.dispatch(e, kernel, &weight, finish, &count)
}

/// Element by element.
fn flat(e: &mut Encoder<'_>, mut layer: Layer, finish: &Finish) -> Result<(), Error> {
    let weight = e.tensor(layer.weight, Layout::RowMajor)?;
    let count = checked(&[layer.m, layer.n])?;
    let words = (u64::from(count) * u64::from(finish.out.element())).div_ceil(4) as u32;
    layer.dispatch(e, &kernels::GEMM_FLAT, &weight, finish, &[words])
}
