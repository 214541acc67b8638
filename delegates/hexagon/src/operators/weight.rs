//! Weights and biases of layers, in the forms that the library wants.
//!
//! | activations | weight of the image | becomes |
//! | --- | --- | --- |
//! | floats | floats | `FLOAT_16` |
//! | floats | integers | the numbers that they stand for, `FLOAT_16` |
//! | integers | 8 bits, one scale or one a channel | `SFIXED_8`; `UFIXED_8` where one zero point leaves no other way |
//! | integers | 4 bits, one scale a channel | 4 bits in a signed byte (`BW_AXIS`) |
//! | integers | 4 bits, one scale a block of input channels | channels' scales times integers (`BLOCKWISE_EXPANSION`) |
//!
//! A bias beside integers is `SFIXED_32` in units of the scale of the input times that of the weight.

use crate::builder::{Builder, Constant, scale_offset};
use crate::caps::Refusal;
use crate::graph::{DataType, Quantization, ScaleOffset, TensorId};
use crate::packing;
use delegraph_sdk::image::{Quant, ValueIndex};
use delegraph_sdk::{DType, Reason};
use half::f16;

/// Most that a block's scale is of its channel's: what four bits count, from one.
const MOST_OF_A_BLOCK: f64 = 16.0;

/// How a weight of the image becomes QNN's.
pub struct Form<'f> {
    /// The image's sizes, possibly with dimensions of 1 put in.
    pub dims: Vec<u32>,
    /// QNN's dimension `i` is `dims[order[i]]`.
    pub order: &'f [u32],
    /// The dimension of output channels in the image; its place by `order` is the one that the library wants scales along.
    pub channel: usize,
    /// Zeros are put between the elements along dimension `.0`, so that they are `.1` apart.
    pub spread: Vec<(usize, u32)>,
    /// Four bits a weight, and blocks, are taken by the operator.
    pub narrow: bool,
}

/// A weight.
pub struct Weight {
    /// The tensor.
    pub id: TensorId,
    /// Of integers: one scale, or one an output channel.
    pub scales: Vec<f64>,
}

/// True if a weight's scales are of blocks that are more than slices of one dimension.
pub fn is_in_blocks(b: &Builder<'_>, value: ValueIndex) -> bool {
    matches!(b.image().value(value).quant(), Some(Quant::PerBlock { .. }))
}

/// Scales of a weight by block: sizes of a block, scales and zero points row-major by block.
struct Scales {
    block: Vec<u32>,
    scales: Vec<f64>,
    zeros: Vec<f64>,
    quant_min: i64,
    quant_max: i64,
}

fn scales(b: &Builder<'_>, value: ValueIndex, dims: &[u32]) -> Result<Scales, Refusal> {
    let name = b.image().value(value).name();
    let (block, scales, zeros, quant_min, quant_max) = match b.image().value(value).quant() {
        None => return Err(Refusal::quantization(format!("`{name}` is not quantized"))),
        Some(Quant::PerTensor {
            scale,
            zero_point,
            quant_min,
            quant_max,
        }) => (
            dims.to_vec(),
            vec![scale],
            vec![zero_point as f64],
            quant_min,
            quant_max,
        ),
        Some(Quant::PerAxis {
            quant_min, quant_max, ..
        }) => {
            let (axis, pairs) = b.per_axis(value)?;
            let mut block = dims.to_vec();
            match block.get_mut(axis as usize) {
                Some(size) => *size = 1,
                None => return Err(Refusal::quantization(format!("`{name}` has no dimension {axis}"))),
            }
            let (scales, zeros) = pairs.into_iter().map(|(s, z)| (s, z as f64)).unzip();
            (block, scales, zeros, quant_min, quant_max)
        }
        Some(Quant::PerBlock {
            quant_min, quant_max, ..
        }) => {
            let (block, scales, zeros) = b.per_block(value)?;
            let zeros = zeros.unwrap_or_else(|| vec![0.0; scales.len()]);
            (block, scales, zeros, quant_min, quant_max)
        }
    };
    let fits = block.len() == dims.len() && dims.iter().zip(&block).all(|(d, b)| *b > 0 && d.is_multiple_of(*b));
    let blocks: usize = dims
        .iter()
        .zip(&block)
        .map(|(d, b)| (d / (*b).max(1)) as usize)
        .product();
    if !fits || scales.len() != blocks || zeros.len() != blocks {
        return Err(Refusal::quantization(format!(
            "`{name}` has {} scales for blocks of {block:?} of {dims:?}",
            scales.len()
        )));
    }
    Ok(Scales {
        block,
        scales,
        zeros,
        quant_min,
        quant_max,
    })
}

/// The weight of a layer whose input is the tensor `x`.
///
/// # Errors
/// A form that the library does not take beside such an input; a number that does not fit.
pub fn weight(b: &mut Builder<'_>, value: ValueIndex, x: TensorId, form: &Form<'_>) -> Result<Weight, Refusal> {
    let fixed = b.tensor(x).data_type.is_fixed();
    let dims = b.logical_dims(value)?;
    let Some(constant) = b.constant(value)? else {
        return computed(b, value, form, fixed);
    };
    if !fixed {
        let bytes = match b.image().value(value).quant() {
            None if !constant.known => Vec::new(),
            None => packing::halves(constant.dtype, &constant.bytes)?,
            Some(_) => halves_of(b, value, &constant, &dims)?,
        };
        let id = packed(b, DataType::Float16, Quantization::None, bytes, form, 0);
        return Ok(Weight { id, scales: Vec::new() });
    }
    integers(b, value, &constant, &dims, form)
}

/// A weight that is no constant.
fn computed(b: &mut Builder<'_>, value: ValueIndex, form: &Form<'_>, fixed: bool) -> Result<Weight, Refusal> {
    let name = b.image().value(value).name();
    if fixed || b.image().value(value).quant().is_some() {
        return Err(Refusal::quantization(format!(
            "the quantized weight `{name}` is no constant"
        )));
    }
    if !form.spread.is_empty() {
        return Err(Refusal::attribute(format!(
            "the weight `{name}` is dilated, and no constant"
        )));
    }
    let id = b.read(value, crate::builder::Layout::RowMajor)?;
    let id = b.reshaped(id, &form.dims)?;
    Ok(Weight {
        id: b.transposed(id, form.order),
        scales: Vec::new(),
    })
}

/// The numbers that integers stand for, as f16.
fn halves_of(b: &Builder<'_>, value: ValueIndex, constant: &Constant<'_>, dims: &[u32]) -> Result<Vec<u8>, Refusal> {
    let scales = scales(b, value, dims)?;
    let mut numbers = known_numbers(b, constant)?;
    if constant.known {
        packing::for_blocks(dims, &scales.block, |at, block| {
            numbers[at] = (numbers[at] - scales.zeros[block]) * scales.scales[block];
        });
    }
    let halves: Vec<f16> = numbers.into_iter().map(packing::half).collect::<Result<_, _>>()?;
    Ok(halves.into_iter().flat_map(f16::to_le_bytes).collect())
}

/// The numbers of a constant; none while a node is only asked about, where all of them are 0 and large ones are not to be walked over.
fn known_numbers(b: &Builder<'_>, constant: &Constant<'_>) -> Result<Vec<f64>, Refusal> {
    match constant.known {
        true => b.numbers(constant),
        false => Ok(Vec::new()),
    }
}

/// Integers beside integers.
fn integers(
    b: &mut Builder<'_>,
    value: ValueIndex,
    constant: &Constant<'_>,
    dims: &[u32],
    form: &Form<'_>,
) -> Result<Weight, Refusal> {
    let view = b.image().value(value);
    let name = view.name();
    if !matches!(constant.dtype, DType::I8 | DType::U8) {
        return Err(Refusal::quantization(format!(
            "the weight `{name}` is of {}",
            constant.dtype
        )));
    }
    let found = scales(b, value, dims)?;
    let mut numbers = known_numbers(b, constant)?;
    if constant.known {
        packing::for_blocks(dims, &found.block, |at, block| numbers[at] -= found.zeros[block]);
    }
    let bounds = |low: f64, high: f64| numbers.iter().all(|n| (low..=high).contains(n));
    // The dimension that scales are along, where they are along one.
    let along = (0..dims.len()).find(|d| found.block[*d] == 1 && dims[*d] != 1);
    let is_sliced = |d: usize| (0..dims.len()).all(|i| i == d || found.block[i] == dims[i]);
    let channel_at = form
        .order
        .iter()
        .position(|from| *from as usize == form.channel)
        .unwrap_or(0) as u32;
    // Four bits whatever stands for zero: the range is as wide.
    let four_bits = found.quant_max - found.quant_min < 16 && form.narrow;
    let pair = |scale: f64| scale_offset(scale, 0);
    if found.scales.len() == 1 {
        let zero = found.zeros[0];
        if bounds(-128.0, 127.0) {
            let quantization = Quantization::PerTensor(pair(found.scales[0])?);
            let id = packed(b, DataType::SFixed8, quantization, signed(&numbers), form, 0);
            return Ok(Weight {
                id,
                scales: found.scales,
            });
        }
        // As the image has them; signed ones shifted by half their range.
        let shift = if constant.dtype == DType::I8 { 128.0 } else { 0.0 };
        let bytes: Vec<u8> = numbers.iter().map(|n| (n + zero + shift) as u8).collect();
        let zero = zero + shift;
        let quantization = Quantization::PerTensor(scale_offset(found.scales[0], zero as i64)?);
        let id = packed(b, DataType::UFixed8, quantization, bytes, form, zero as u8);
        return Ok(Weight {
            id,
            scales: found.scales,
        });
    }
    if along.is_some_and(|d| d == form.channel && is_sliced(d)) {
        let pairs: Vec<ScaleOffset> = found.scales.iter().map(|s| pair(*s)).collect::<Result<_, _>>()?;
        let (data_type, quantization) = match four_bits && bounds(-8.0, 7.0) {
            true => (
                DataType::SFixed8,
                Quantization::NarrowPerAxis {
                    bits: 4,
                    axis: channel_at,
                    pairs,
                },
            ),
            false if bounds(-128.0, 127.0) => (
                DataType::SFixed8,
                Quantization::PerAxis {
                    axis: channel_at,
                    pairs,
                },
            ),
            false => {
                return Err(Refusal::quantization(format!(
                    "`{name}` has zero points that leave 8 bits with a sign too few"
                )));
            }
        };
        let id = packed(b, data_type, quantization, signed(&numbers), form, 0);
        return Ok(Weight {
            id,
            scales: found.scales,
        });
    }
    let Some((channels, blocks)) = rows_of_blocks(&found, dims, form) else {
        return Err(Refusal::quantization(format!(
            "`{name}` has scales for blocks of {:?}, not for output channels or blocks of input channels",
            found.block
        )));
    };
    if !four_bits || !bounds(-8.0, 7.0) {
        return Err(Refusal::quantization(format!(
            "`{name}` has blocks of more than four bits"
        )));
    }
    let x = expansion(&found.scales, channels, blocks).map_err(|channel| {
        Refusal::quantization(format!(
            "the scales of the blocks of channel {channel} of `{name}` are not multiples of one scale, 1 to 16 times"
        ))
    })?;
    let quantization = Quantization::Blocks {
        axis: channel_at,
        channels: x.0.iter().map(|s| pair(*s)).collect::<Result<_, _>>()?,
        blocks: blocks as u32,
        scale_bits: 4,
        block_scales: x.1,
    };
    let id = packed(b, DataType::SFixed8, quantization, signed(&numbers), form, 0);
    Ok(Weight { id, scales: x.0 })
}

/// Output channels and blocks of each, where blocks are of input channels (dimension 1) of one output channel (dimension 0) of a point.
fn rows_of_blocks(found: &Scales, dims: &[u32], form: &Form<'_>) -> Option<(usize, usize)> {
    let (outputs, inputs) = (*dims.first()?, *dims.get(1)?);
    let is_point = dims[2..].iter().all(|d| *d == 1);
    let fits = form.narrow && form.channel == 0 && is_point && found.block[0] == 1;
    fits.then_some((outputs as usize, (inputs / found.block[1]) as usize))
}

/// A scale for each channel, and the integer that each of its blocks multiplies it by; else the channel that has none.
///
/// Scales are f32 that came of such a product, or did not: one rounding of it is granted.
fn expansion(scales: &[f64], channels: usize, blocks: usize) -> Result<(Vec<f64>, Vec<u8>), usize> {
    let mut of_channels = Vec::with_capacity(channels);
    let mut of_blocks = Vec::with_capacity(scales.len());
    for (channel, row) in scales.chunks(blocks.max(1)).enumerate() {
        let most = row.iter().fold(0.0, |most: f64, s| most.max(*s));
        let fits = |scale: f64| -> Option<Vec<u8>> {
            let each = row.iter().map(|s| {
                let times = (s / scale).round();
                let near = (times * scale - s).abs() <= s * f64::from(f32::EPSILON);
                (near && (1.0..=MOST_OF_A_BLOCK).contains(&times)).then_some(times as u8)
            });
            each.collect()
        };
        let found = (1..=MOST_OF_A_BLOCK as u32).find_map(|times| {
            let scale = f64::from((most / f64::from(times)) as f32);
            fits(scale).map(|each| (scale, each))
        });
        let (scale, each) = found.ok_or(channel)?;
        of_channels.push(scale);
        of_blocks.extend(each);
    }
    Ok((of_channels, of_blocks))
}

fn signed(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().map(|n| *n as i8 as u8).collect()
}

/// Elements in the image's order as a constant in QNN's; zeros while a node is only asked about.
fn packed(
    b: &mut Builder<'_>,
    data_type: DataType,
    quantization: Quantization,
    bytes: Vec<u8>,
    form: &Form<'_>,
    zero: u8,
) -> TensorId {
    let (mut bytes, mut dims) = (bytes, form.dims.clone());
    for (dim, apart) in &form.spread {
        if !b.is_asking() {
            bytes = packing::spread(&bytes, data_type.size(), &dims, *dim, *apart, zero);
        }
        dims[*dim] = (dims[*dim] - 1) * apart + 1;
    }
    let bytes = match b.is_asking() {
        true => vec![0; dims.iter().map(|d| *d as usize).product::<usize>() * data_type.size()],
        false => packing::permuted(&bytes, data_type.size(), &dims, form.order),
    };
    let dims: Vec<u32> = form.order.iter().map(|from| dims[*from as usize]).collect();
    b.fixed(data_type, &dims, quantization, bytes)
}

/// The bias of a layer with the input `x`, of `count` elements; `None`: it has none.
///
/// # Errors
/// It is of another type, not constant beside integers, or too large for 32 bits.
pub fn bias(
    b: &mut Builder<'_>,
    value: Option<ValueIndex>,
    count: u32,
    x: TensorId,
    weight: &Weight,
) -> Result<Option<TensorId>, Refusal> {
    let Some(value) = value else {
        return Ok(None);
    };
    let name = b.image().value(value).name();
    let dims = b.dims(value)?;
    let elements: u32 = dims.iter().product();
    if elements != count && elements != 1 {
        return Err(Refusal::shape(format!(
            "`{name}` has {elements} biases for {count} outputs"
        )));
    }
    let fixed = match &b.tensor(x).quantization {
        Quantization::PerTensor(pair) => Some(f64::from(pair.scale)),
        _ => None,
    };
    let Some(constant) = b.constant(value)? else {
        if fixed.is_some() || b.image().value(value).quant().is_some() || elements != count {
            return Err(Refusal::quantization(format!("the bias `{name}` is no constant")));
        }
        let id = b.read(value, crate::builder::Layout::RowMajor)?;
        return b.reshaped(id, &[count]).map(Some);
    };
    let mut numbers = b.numbers(&constant)?;
    let mut units = None;
    if b.image().value(value).quant().is_some() {
        let dims = b.logical_dims(value)?;
        let of = scales(b, value, &dims)?;
        packing::for_blocks(&dims, &of.block, |at, block| numbers[at] -= of.zeros[block]);
        units = Some(of.scales);
    }
    if elements == 1 {
        numbers = vec![numbers[0]; count as usize];
    }
    let unit = |i: usize| {
        units
            .as_ref()
            .map_or(1.0, |units| if units.len() == 1 { units[0] } else { units[i] })
    };
    let Some(input) = fixed else {
        let halves = numbers.iter().enumerate().map(|(i, n)| packing::half(n * unit(i)));
        let halves: Vec<f16> = halves.collect::<Result<_, _>>()?;
        let bytes = halves.into_iter().flat_map(f16::to_le_bytes).collect();
        return Ok(Some(b.fixed(DataType::Float16, &[count], Quantization::None, bytes)));
    };
    let scales: Vec<f64> = weight.scales.iter().map(|s| f64::from((input * s) as f32)).collect();
    let mut bytes = Vec::with_capacity(numbers.len() * 4);
    for (i, number) in numbers.iter().enumerate() {
        // Groups of a transposed convolution share the scales of one.
        let scale = scales[i % scales.len().max(1)];
        // Who folded the bias counted in f32: the same unit but for its rounding.
        let same = units.is_some() && (unit(i) - scale).abs() <= 1e-6 * scale;
        let integer = match same || !constant.known {
            true => *number,
            false => (number * unit(i) / scale).round_ties_even(),
        };
        if integer.is_nan() || integer.abs() > f64::from(i32::MAX) {
            return Err(Refusal::new(
                Reason::QUANTIZATION,
                format!(
                    "the bias {} of `{name}` does not fit 32 bits in steps of {scale}",
                    number * unit(i)
                ),
            ));
        }
        bytes.extend((integer as i32).to_le_bytes());
    }
    let pairs: Vec<ScaleOffset> = scales.iter().map(|s| scale_offset(*s, 0)).collect::<Result<_, _>>()?;
    let quantization = match pairs[..] {
        [one] => Quantization::PerTensor(one),
        _ => Quantization::PerAxis {
            axis: 0,
            pairs: pairs.iter().copied().cycle().take(count as usize).collect(),
        },
    };
    Ok(Some(b.fixed(DataType::SFixed32, &[count], quantization, bytes)))
}

/// Whether a layer on integers of 16 bits is as exact as such results have to be: the library cuts its sums to units of 256 times the scales of
/// input and weight, and of 65536 times where both factors have 16 bits. So a result is low by half a unit in the mean, which must be less than
/// a step of it.
///
/// # Errors
/// It is more.
pub fn is_fine(b: &Builder<'_>, x: TensorId, weight: &Weight, out: ValueIndex) -> Result<(), Refusal> {
    let scale = |quantization: &Quantization| match quantization {
        Quantization::PerTensor(pair) => f64::from(pair.scale),
        _ => 1.0,
    };
    let (input, factor) = (b.tensor(x), b.tensor(weight.id));
    let half_a_unit = match (input.data_type, factor.data_type) {
        (DataType::UFixed16, DataType::UFixed16) => 32768.0,
        (DataType::UFixed16, _) | (_, DataType::UFixed16) => 128.0,
        _ => return Ok(()),
    };
    // Scales of channels are not known while it is only asked about.
    if b.is_asking() && weight.scales.len() > 1 {
        return Ok(());
    }
    let step = scale(&b.representation(out)?.1);
    let mean = match weight.scales.len() {
        0 => scale(&factor.quantization),
        count => weight.scales.iter().sum::<f64>() / count as f64,
    };
    match half_a_unit * scale(&input.quantization) * mean < step {
        true => Ok(()),
        false => Err(Refusal::quantization(format!(
            "steps of {step} are finer than what the library cuts sums of 16 bits to"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_multiples_of_their_channel() {
        let c = f64::from(0.013f32);
        let of = |times: f64| f64::from((c * times) as f32);
        let (channels, blocks) = expansion(&[of(3.0), of(16.0), of(1.0), of(2.0)], 2, 2).unwrap();
        assert_eq!(blocks[..2], [3, 16]);
        assert!((channels[0] / c - 1.0).abs() < 1e-6);
        // The largest is taken once where that will do.
        assert_eq!((channels[1], &blocks[2..]), (of(2.0) / 2.0, &[1, 2][..]));
        assert_eq!(expansion(&[1.0, 1.0, 1.0, 17.0], 2, 2).unwrap_err(), 1);
        assert_eq!(expansion(&[1.0, 1.37], 1, 2).unwrap_err(), 0);
    }
}
