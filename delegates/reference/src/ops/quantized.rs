//! Quantizing and back, by explicit operators (`quantized_decomposed`).
//!
//! PyTorch defines them by arithmetic in f32, whose roundings decide which integer comes out. Where it does, so does this.

use crate::call::Call;
use crate::caps::{Operator, Refusal, dtype, op, output_dtype};
use crate::tensor::{Data, Tensor, count, room};
use crate::walk::{dim, split_at};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Made = Result<Vec<Tensor>, Error>;

/// How many parameters of a quantization there are, and which one an element has.
struct Groups {
    scales: Vec<f64>,
    zero_points: Vec<f64>,
    /// Elements `i` has parameter `i / after % count`.
    after: usize,
}

impl Groups {
    fn new(scales: Vec<f64>, zero_points: Option<Vec<f64>>, after: usize, wanted: usize) -> Result<Groups, Error> {
        let zero_points = zero_points.unwrap_or_else(|| vec![0.0; scales.len()]);
        if scales.len() != wanted || zero_points.len() != wanted {
            let (scales, zeros) = (scales.len(), zero_points.len());
            return Err(Error::invalid(format!(
                "{scales} scales and {zeros} zero points for {wanted} groups"
            )));
        }
        Ok(Groups {
            scales,
            zero_points,
            after: after.max(1),
        })
    }

    fn of(&self, i: usize) -> (f64, f64) {
        let group = i / self.after % self.scales.len().max(1);
        (self.scales[group], self.zero_points[group])
    }
}

/// One pair for the whole tensor: numbers, or tensors of one element.
fn per_tensor(call: &Call<'_>) -> Result<Groups, Error> {
    let (scale, zero) = (call.operand(1)?.tensor.to_floats(), call.operand(2)?.tensor.to_floats());
    Groups::new(scale, Some(zero), 1, 1)
}

fn optional(call: &Call<'_>, i: usize) -> Result<Option<Vec<f64>>, Error> {
    Ok(call.optional(i)?.map(Tensor::to_floats))
}

/// One pair a slice of an axis.
fn per_channel(call: &Call<'_>) -> Result<Groups, Error> {
    let x = call.tensor(0)?;
    let (_, channels, after) = split_at(x.sizes(), dim(call.int(3)?, x.rank())?);
    Groups::new(call.tensor(1)?.to_floats(), optional(call, 2)?, after, channels)
}

/// One pair a line of the last dimension.
fn per_token(call: &Call<'_>) -> Result<Groups, Error> {
    let x = call.tensor(0)?;
    let [tokens @ .., width] = x.sizes() else {
        return Err(Error::invalid("tokens need a dimension"));
    };
    Groups::new(call.tensor(1)?.to_floats(), optional(call, 2)?, *width, count(tokens)?)
}

/// One pair a run of `group_size` elements of the last dimension.
fn per_group(call: &Call<'_>, size: usize) -> Result<Groups, Error> {
    let (x, size) = (call.tensor(0)?, call.natural(size)?);
    let width = x.sizes().last().copied().unwrap_or(1);
    if size == 0 || width % size != 0 {
        return Err(Error::invalid(format!("{width} elements are not groups of {size}")));
    }
    Groups::new(call.tensor(1)?.to_floats(), optional(call, 2)?, size, x.len() / size)
}

/// `clamp(round(x * (1 / scale)) + zero_point, min, max)`, in f32; the bounds are arguments `bounds` and the next.
fn quantize(call: &Call<'_>, groups: &Groups, bounds: usize) -> Made {
    let x = call.tensor(0)?;
    let (low, high) = (call.float(bounds)?, call.float(bounds + 1)?);
    let mut made = room(x.len())?;
    for (i, x) in x.to_floats().into_iter().enumerate() {
        let (scale, zero) = groups.of(i);
        let scaled = (x as f32) * ((1.0 / scale) as f32);
        let value = (scaled.round_ties_even() + zero as f32).clamp(low as f32, high as f32);
        made.push(value as i64);
    }
    call.one(x.sizes().to_vec(), Data::Int(made))
}

/// `(x - zero_point) * scale`
fn dequantize(call: &Call<'_>, groups: &Groups) -> Made {
    let x = call.tensor(0)?;
    let mut made = room(x.len())?;
    for (i, x) in x.to_floats().into_iter().enumerate() {
        let (scale, zero) = groups.of(i);
        made.push((x - zero) * f64::from(scale as f32));
    }
    call.one(x.sizes().to_vec(), Data::Float(made))
}

/// Scale and zero point that let integers from `low` to `high` hold everything between a minimum and a maximum.
fn parameters(min: f32, max: f32, low: i64, high: i64, eps: f32) -> (f32, i64) {
    let (min, max) = (min.min(0.0), max.max(0.0));
    let scale = ((max - min) / (high - low) as f32).max(eps);
    let zero = low.saturating_sub((min / scale).round_ties_even() as i64);
    (scale, zero.clamp(low, high))
}

fn choose(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let (low, high) = (call.int(1)?, call.int(2)?);
    let values = x.floats()?;
    let min = values.iter().copied().fold(f64::INFINITY, crate::math::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, crate::math::max);
    if values.is_empty() || low >= high || !(min.is_finite() && max.is_finite()) {
        return Err(Error::invalid("no finite elements, or no integers, to choose by"));
    }
    let (scale, zero) = parameters(min as f32, max as f32, low, high, call.float(3)? as f32);
    Ok(vec![
        call.make(0, call.out_sizes(0)?, Data::Float(vec![f64::from(scale)]))?,
        call.make(1, call.out_sizes(1)?, Data::Int(vec![zero]))?,
    ])
}

/// What is quantized is of f32, and what comes out of up to 32 bits.
fn check_quantize(node: &NodeView<'_>) -> Result<(), Refusal> {
    match (dtype(node, 0), output_dtype(node)) {
        (Some(DType::F32), Some(DType::U8 | DType::I8 | DType::I16 | DType::U16 | DType::I32)) => Ok(()),
        (Some(from), Some(to)) => Err(Refusal::dtype(format!("quantizing {from} to {to}"))),
        _ => Err(Refusal::dtype("quantizing what is no tensor")),
    }
}

fn check_dequantize(node: &NodeView<'_>) -> Result<(), Refusal> {
    match (dtype(node, 0), output_dtype(node)) {
        (Some(DType::U8 | DType::I8 | DType::I16 | DType::U16 | DType::I32), Some(DType::F32)) => Ok(()),
        (Some(from), Some(to)) => Err(Refusal::dtype(format!("dequantizing {from} to {to}"))),
        _ => Err(Refusal::dtype("dequantizing what is no tensor")),
    }
}

fn check_choose(node: &NodeView<'_>) -> Result<(), Refusal> {
    match dtype(node, 0) {
        Some(DType::F32) => Ok(()),
        _ => Err(Refusal::dtype("quantization parameters of f32 tensors only")),
    }
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op(
        "quantized_decomposed::quantize_per_tensor",
        "Tensor float int int int dtype",
        check_quantize,
        |c| quantize(c, &per_tensor(c)?, 3),
    ),
    op(
        "quantized_decomposed::quantize_per_tensor.tensor",
        "Tensor Tensor Tensor int int dtype",
        check_quantize,
        |c| quantize(c, &per_tensor(c)?, 3),
    ),
    op(
        "quantized_decomposed::quantize_per_channel",
        "Tensor Tensor Tensor int int int dtype",
        check_quantize,
        |c| quantize(c, &per_channel(c)?, 4),
    ),
    op(
        "quantized_decomposed::quantize_per_token",
        "Tensor Tensor Tensor int int dtype",
        check_quantize,
        |c| quantize(c, &per_token(c)?, 3),
    ),
    op(
        "quantized_decomposed::quantize_per_channel_group",
        "Tensor Tensor Tensor int int dtype int",
        check_quantize,
        |c| quantize(c, &per_group(c, 6)?, 3),
    ),
    op(
        "quantized_decomposed::dequantize_per_tensor",
        "Tensor float int int int dtype dtype?",
        check_dequantize,
        |c| dequantize(c, &per_tensor(c)?),
    ),
    op(
        "quantized_decomposed::dequantize_per_tensor.tensor",
        "Tensor Tensor Tensor int int dtype dtype?",
        check_dequantize,
        |c| dequantize(c, &per_tensor(c)?),
    ),
    op(
        "quantized_decomposed::dequantize_per_channel",
        "Tensor Tensor Tensor? int int int dtype dtype?",
        check_dequantize,
        |c| dequantize(c, &per_channel(c)?),
    ),
    op(
        "quantized_decomposed::dequantize_per_token",
        "Tensor Tensor Tensor int int dtype dtype",
        check_dequantize,
        |c| dequantize(c, &per_token(c)?),
    ),
    op(
        "quantized_decomposed::dequantize_per_channel_group",
        "Tensor Tensor Tensor? int int dtype int dtype",
        check_dequantize,
        |c| dequantize(c, &per_group(c, 6)?),
    ),
    op(
        "quantized_decomposed::choose_qparams.tensor",
        "Tensor int int float dtype",
        check_choose,
        choose,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Item, f32s, gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn there_and_back() {
        let x = f32s(&[4], &[-1.0, 0.25, 0.75, 99.0]);
        let tail = [
            Arg::Float(0.5),
            Arg::Int(1),
            Arg::Int(-128),
            Arg::Int(127),
            Arg::DType(DType::I8),
        ];
        let items: Vec<Item> = [(&x).into()].into_iter().chain(tail.map(Item::from)).collect();
        let q = i64s(&[4], &[-1, 1, 3, 127]).to(DType::I8).unwrap();
        gives("quantized_decomposed::quantize_per_tensor", &items, &[q]);
        let q = i64s(&[2, 2], &[1, 2, 3, 4]).to(DType::I8).unwrap();
        let (scales, zeros) = (f32s(&[2], &[1.0, 0.5]), i64s(&[2], &[0, 1]));
        let tail = [
            Arg::Int(1),
            Arg::Int(-128),
            Arg::Int(127),
            Arg::DType(DType::I8),
            Arg::None,
        ];
        let head = [(&q).into(), (&scales).into(), (&zeros).into()];
        let items: Vec<Item> = head.into_iter().chain(tail.map(Item::from)).collect();
        gives(
            "quantized_decomposed::dequantize_per_channel",
            &items,
            &[f32s(&[2, 2], &[1.0, 0.5, 3.0, 1.5])],
        );
    }

    #[test]
    fn parameters_hold_zero() {
        let (scale, zero) = parameters(1.0, 2.55, -128, 127, 1e-9);
        assert_eq!((scale, zero), (2.55 / 255.0, -128));
        assert_eq!(parameters(0.0, 0.0, 0, 255, 1e-9), (1e-9, 0));
    }
}
