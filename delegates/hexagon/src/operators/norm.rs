//! Normalizations, in floats.
//!
//! Statistics of a batch norm are folded into one factor and one addend a channel; what an operator wants and the image lacks (factors of 1,
//! addends of 0) is made here.

use super::images;
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::graph::{DataType, Param, Quantization, TensorId};
use crate::node::Node;
use crate::packing;
use delegraph_sdk::image::ValueIndex;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::layer_norm", layer),
    row("aten::native_layer_norm", layer),
    row("aten::rms_norm", rms),
    row("aten::group_norm", |n, b| groups(n, b, 2, Some(1), 4)),
    row("aten::native_group_norm", |n, b| groups(n, b, 1, Some(6), 7)),
    row("aten::instance_norm", instance),
    row("aten::batch_norm", |n, b| batch(n, b, 7)),
    row("aten::_native_batch_norm_legit_no_training", |n, b| batch(n, b, 6)),
];

const fn row(name: &'static str, lower: fn(&Node<'_>, &mut Builder<'_>) -> Result<(), Refusal>) -> Operator {
    Operator { name, lower }
}

/// `count` times a number.
fn filled(b: &mut Builder<'_>, number: f32, count: u32) -> TensorId {
    let bytes = half::f16::from_f32(number).to_le_bytes().repeat(count as usize);
    b.fixed(DataType::Float16, &[count], Quantization::None, bytes)
}

/// Weights of `count` elements as a line; absent: `default` for each.
fn line(b: &mut Builder<'_>, value: Option<ValueIndex>, default: f32, count: u32) -> Result<TensorId, Refusal> {
    let Some(value) = value else {
        return Ok(filled(b, default, count));
    };
    images::floats(b, &[value])?;
    let id = b.read(value, Layout::RowMajor)?;
    b.reshaped(id, &[count])
}

/// The number of elements that a row has: those of the last dimensions.
fn row_length(node: &Node<'_>, dims: &[u32]) -> Result<u32, Refusal> {
    let shape = node.ints(1)?;
    let tail = dims.len().checked_sub(shape.len()).map(|start| &dims[start..]);
    match tail {
        Some(tail) if !tail.is_empty() && tail.iter().zip(&shape).all(|(a, c)| i64::from(*a) == *c) => {
            Ok(tail.iter().product())
        }
        _ => Err(Refusal::shape(format!("{dims:?} does not end in {shape:?}"))),
    }
}

fn layer(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let eps = node.scalar(4)?.float() as f32;
    let gamma = |b: &mut Builder<'_>, count| line(b, node.optional_value(2)?, 1.0, count);
    let beta = |b: &mut Builder<'_>, count| line(b, node.optional_value(3)?, 0.0, count).map(Some);
    rows(node, b, "LayerNorm", eps, gamma, beta)
}

fn rms(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    // PyTorch computes 16-bit floats in f32, and takes the epsilon of that.
    let eps = node.optional_scalar(3)?.map_or(f32::EPSILON, |eps| eps.float() as f32);
    let gamma = |b: &mut Builder<'_>, count| line(b, node.optional_value(2)?, 1.0, count);
    rows(node, b, "RmsNorm", eps, gamma, |_, _| Ok(None))
}

/// A norm of the last dimensions, which are one for the library.
fn rows(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    op: &'static str,
    eps: f32,
    gamma: impl FnOnce(&mut Builder<'_>, u32) -> Result<TensorId, Refusal>,
    beta: impl FnOnce(&mut Builder<'_>, u32) -> Result<Option<TensorId>, Refusal>,
) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    images::floats(b, &[x, out])?;
    let dims = b.dims(x)?;
    let length = row_length(node, &dims)?;
    let count: u32 = dims.iter().product::<u32>() / length;
    let flat = match dims.last() == Some(&length) {
        true => dims,
        false => vec![count, length],
    };
    let plain = b.read(x, Layout::RowMajor)?;
    let plain = b.reshaped(plain, &flat)?;
    let mut operands = vec![plain, gamma(b, length)?];
    operands.extend(beta(b, length)?);
    let params = vec![
        ("epsilon", Param::F32(eps)),
        ("axes", Param::list(&[flat.len() as u32 - 1])),
    ];
    images::output_as(b, out, &flat, |b, y| {
        b.op(op, params, &operands, &[y]);
        Ok(())
    })
}

/// Dimensions of space of a value with channels.
fn space(b: &Builder<'_>, x: ValueIndex) -> Result<usize, Refusal> {
    match b.image().value(x).rank() {
        rank @ 2..=5 => Ok(rank - 2),
        rank => Err(Refusal::shape(format!(
            "channels are the second of two dimensions at least, not of {rank}"
        ))),
    }
}

/// The input as `[N, H, W, C]`: a volume is a plane of many rows.
fn plane(b: &mut Builder<'_>, x: ValueIndex) -> Result<TensorId, Refusal> {
    let space = space(b, x)?;
    let id = images::input(b, x, space, space.max(2))?;
    match b.tensor(id).dims[..] {
        [n, d, h, w, c] => b.reshaped(id, &[n, d * h, w, c]),
        _ => Ok(id),
    }
}

/// The result that `make` writes as such a plane.
fn plane_out(
    b: &mut Builder<'_>,
    out: ValueIndex,
    make: impl FnOnce(&mut Builder<'_>, TensorId) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let space = space(b, out)?;
    images::output(b, out, space, space.max(2), |b, y| {
        let tensor = b.tensor(y).clone();
        let [n, d, h, w, c] = tensor.dims[..] else {
            return make(b, y);
        };
        let flat = b.temporary(tensor.data_type, &[n, d * h, w, c], tensor.quantization);
        make(b, flat)?;
        b.op("Reshape", Vec::new(), &[flat], &[y]);
        Ok(())
    })
}

fn groups(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    weight: usize,
    count: Option<usize>,
    eps: usize,
) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    images::floats(b, &[x, out])?;
    let input = plane(b, x)?;
    let channels = *b.tensor(input).dims.last().unwrap_or(&1);
    let groups = match count {
        Some(i) => u32::try_from(node.int(i)?).unwrap_or(0),
        None => channels,
    };
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Refusal::attribute(format!(
            "{channels} channels do not make {groups} groups"
        )));
    }
    let gamma = line(b, node.optional_value(weight)?, 1.0, channels)?;
    let beta = line(b, node.optional_value(weight + 1)?, 0.0, channels)?;
    let params = vec![
        ("epsilon", Param::F32(node.scalar(eps)?.float() as f32)),
        ("group", Param::U32(groups)),
    ];
    plane_out(b, out, |b, y| {
        b.op("GroupNorm", params, &[input, gamma, beta], &[y]);
        Ok(())
    })
}

fn instance(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    if !node.bool(5)? || !node.is_none(3) || !node.is_none(4) {
        return Err(Refusal::attribute("running statistics are not used or updated"));
    }
    let (x, out) = (node.value(0)?, node.output(0)?);
    images::floats(b, &[x, out])?;
    let input = plane(b, x)?;
    let channels = *b.tensor(input).dims.last().unwrap_or(&1);
    let gamma = line(b, node.optional_value(1)?, 1.0, channels)?;
    let beta = line(b, node.optional_value(2)?, 0.0, channels)?;
    let params = vec![("epsilon", Param::F32(node.scalar(7)?.float() as f32))];
    plane_out(b, out, |b, y| {
        b.op("InstanceNorm", params, &[input, gamma, beta], &[y]);
        Ok(())
    })
}

fn batch(node: &Node<'_>, b: &mut Builder<'_>, eps: usize) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    images::floats(b, &[x, out])?;
    if node.op() == "aten::batch_norm" && node.bool(5)? {
        return Err(Refusal::attribute("a batch norm while training"));
    }
    let channels = *b
        .dims(x)?
        .get(1)
        .ok_or_else(|| Refusal::shape("there are no channels"))?;
    let eps = node.scalar(eps)?.float();
    let numbers = |i: usize, default: f64| -> Result<Vec<f64>, Refusal> {
        let Some(value) = node.optional_value(i)? else {
            return match i {
                1 | 2 => Ok(vec![default; channels as usize]),
                _ => Err(Refusal::attribute("there are no running statistics")),
            };
        };
        let name = b.image().value(value).name();
        let constant = b.constant(value)?.ok_or_else(|| {
            Refusal::attribute(format!(
                "`{name}` is no constant, and statistics are folded when the graph is made"
            ))
        })?;
        let numbers = b.numbers(&constant)?;
        match numbers.len() == channels as usize {
            true => Ok(numbers),
            false => Err(Refusal::shape(format!(
                "`{name}` has {} numbers for {channels} channels",
                numbers.len()
            ))),
        }
    };
    let [gamma, beta, mean, variance] = [numbers(1, 1.0)?, numbers(2, 0.0)?, numbers(3, 0.0)?, numbers(4, 1.0)?];
    let (mut factors, mut addends) = (Vec::new(), Vec::new());
    for c in 0..channels as usize {
        let factor = match b.is_asking() {
            true => 1.0,
            false => gamma[c] / (variance[c] + eps).sqrt(),
        };
        factors.extend(packing::half(factor)?.to_le_bytes());
        addends.extend(packing::half(beta[c] - mean[c] * factor)?.to_le_bytes());
    }
    let factors = b.fixed(DataType::Float16, &[channels], Quantization::None, factors);
    let addends = b.fixed(DataType::Float16, &[channels], Quantization::None, addends);
    let input = plane(b, x)?;
    plane_out(b, out, |b, y| {
        b.op("Batchnorm", Vec::new(), &[input, factors, addends], &[y]);
        Ok(())
    })
}
