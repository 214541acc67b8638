//! Norms of 8 bits in integers: sums are exact, the reciprocal root comes from a table of 16 bits, and what is left is rounded at some 20 bits.
//!
//! With `d` a deviation in steps of the input times 2^F, and `V` the sum of its squares, `d * sqrt(n) / sqrt(V)` is the normalized number. `V` is
//! shifted by an even number of bits to have its highest bit at 29 or 30; the root of its upper 16 bits is a smooth function, and `d` is shifted by
//! half as many. Weight and bias of each element are constants of 32 bits.

use super::softmax::table;
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::ValueIndex;

/// Longest row: sums of 31 bits hold its squares.
const LONGEST: i32 = 16384;
/// Entries of the table are at most this.
const ENTRY: f64 = 32767.0;
/// Bits that a result of the table has behind those of its entries.
const BETWEEN: f64 = 128.0;
/// What the product of deviation and reciprocal root is divided by, as a power of two.
const DOWN: u32 = 14;

/// A norm, as rows of which each is normalized, and what follows.
struct Norm {
    x: ValueIndex,
    out: ValueIndex,
    /// Rows, and elements of one.
    sizes: [i32; 2],
    /// Without its mean, a row is only scaled.
    centred: bool,
    epsilon: f64,
    /// Sizes of the tensor when weight and bias are applied, and theirs.
    shape: Vec<i32>,
    parameters: Vec<i32>,
    weight: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
}

/// Normalized numbers of 32 bits, and what one of their steps is.
fn normalized(norm: &Norm, b: &mut Builder<'_>) -> Result<(usize, f64), Refusal> {
    let from = b.scale(norm.x)?;
    let [rows, n] = norm.sizes;
    let length = f64::from(n);
    // Squares of deviations from a mean are at most 127.5^2 steps in the mean of a row, those of integers 255^2; one more for rounding.
    let most = if norm.centred { 16257.0 } else { 65026.0 };
    let beside = norm.epsilon / from.scale.powi(2);
    let room = f64::from(i32::MAX) / (length * (most + beside) + 1.0);
    let fraction = (room.log2() / 2.0).floor().min(7.0);
    if !(fraction >= 0.0 && norm.epsilon >= 0.0) {
        return Err(Refusal::quantization(
            "an epsilon beyond the squares of what is normalized",
        ));
    }
    let (coarse, fine) = (2f64.powi(fraction as i32), 256.0);
    let tensor = b.read(norm.x)?;
    let tensor = b.reshaped(tensor, &[rows, n])?;
    let wide = |b: &mut Builder<'_>, factor: f64| b.rescale(tensor, &[factor], from.zero_point, DType::Int32, 0);
    let (mut low, mut high) = (wide(b, coarse)?, wide(b, fine)?);
    if norm.centred {
        let plain = wide(b, 1.0)?;
        let sum = b.summed(plain, 1);
        let mean = b.rescale(sum, &[coarse / length], 0, DType::Int32, 0)?;
        low = b.pair(Op::Sub, low, mean);
        let mean = b.rescale(sum, &[fine / length], 0, DType::Int32, 0)?;
        high = b.pair(Op::Sub, high, mean);
    }
    let squares = b.product(low, low, 0);
    let mut squares = b.summed(squares, 1);
    if norm.centred {
        // The mean was rounded: what that adds to every deviation is taken from their squares.
        let rest = b.summed(low, 1);
        let rest = b.product(rest, rest, 0);
        let rest = b.rescale(rest, &[1.0 / length], 0, DType::Int32, 0)?;
        squares = b.pair(Op::Sub, squares, rest);
    }
    let epsilon = b.number(2, (beside * length * coarse * coarse).round().max(1.0) as i64);
    let squares = b.pair(Op::Add, squares, epsilon);
    let zeros = {
        let shape = b.shape_of(squares);
        b.op(Op::Clz, Attribute::Plain, &[squares], DType::Int32, &shape)
    };
    // Half of the shift: (zeros - 1) / 2, rounded down.
    let two = b.number(2, 2);
    let half = b.pair(Op::Sub, zeros, two);
    let half = b.rescale(half, &[0.5], 0, DType::Int32, 0)?;
    let both = b.pair(Op::Add, half, half);
    let normal = b.pair(Op::LogicalLeftShift, squares, both);
    // Its upper 16 bits are from 16384 to 65535: less 32768, they are a table's.
    let upper = b.rescale(normal, &[1.0 / 32768.0], 0, DType::Int32, 0)?;
    let middle = b.number(2, 32768);
    let upper = b.pair(Op::Sub, upper, middle);
    let upper = b.rescale(upper, &[1.0], 0, DType::Int16, 0)?;
    let root = table(b, upper, |v| ENTRY * 128.0 / (v + 32768.0).max(16384.0).sqrt());
    let shifted = b.pair(Op::LogicalLeftShift, high, half);
    let result = b.product(shifted, root, DOWN);
    // y = d / fine * sqrt(n) * coarse / sqrt(V), where sqrt(V) is 2^-half * sqrt(upper * 2^15) and the table has ENTRY * 128 * BETWEEN / sqrt(upper).
    let step = 2f64.powi(DOWN as i32) * length.sqrt() * coarse / fine / (ENTRY * 128.0 * BETWEEN * 32768f64.sqrt());
    Ok((result, step))
}

/// Constants of 32 bits, with sizes that are repeated over a tensor's.
fn constants(b: &mut Builder<'_>, shape: &[i32], values: &[f64]) -> usize {
    let data = values.iter().flat_map(|v| (v.round() as i32).to_le_bytes()).collect();
    b.constant(DType::Int32, shape, data)
}

fn lower(norm: &Norm, b: &mut Builder<'_>) -> Result<(), Refusal> {
    if (b.dtype(norm.x)?, b.dtype(norm.out)?) != (DType::Int8, DType::Int8) {
        return Err(Refusal::dtype("a norm of 16 bits"));
    }
    let [_, n] = norm.sizes;
    if n > LONGEST {
        return Err(Refusal::shape(format!("a norm over more than {LONGEST} elements")));
    }
    let scale = b.scale(norm.out)?.scale;
    let (tensor, step) = normalized(norm, b)?;
    let count = norm.parameters.iter().product::<i32>() as usize;
    let given = [&norm.weight, &norm.bias];
    if given
        .iter()
        .any(|list| list.as_ref().is_some_and(|list| list.len() != count))
    {
        return Err(Refusal::shape("weights of a norm that are not one an element"));
    }
    if given.iter().all(|list| list.is_none()) {
        return b.finish_sums(norm.out, tensor, &[step / scale]);
    }
    let most = |list: &Option<Vec<f64>>, none: f64| match list {
        Some(list) => list.iter().fold(0.0, |most: f64, v| most.max(v.abs())),
        None => none,
    };
    // In steps of the result, a row's largest number is below the root of its length.
    let largest = (f64::from(n).sqrt() * most(&norm.weight, 1.0) + most(&norm.bias, 0.0)) / scale;
    let bits = (29.0 - largest.max(1.0).log2()).floor();
    if !(largest.is_finite() && bits >= 4.0) {
        return Err(Refusal::quantization(
            "a norm whose weights are too large for its scale",
        ));
    }
    let unit = 2f64.powi(bits as i32);
    let mut tensor = b.reshaped(tensor, &norm.shape)?;
    let weight = norm.weight.clone().unwrap_or_else(|| vec![1.0; count]);
    let factors: Vec<f64> = weight.iter().map(|w| w * step / scale * unit).collect();
    // Factors of 24 bits.
    let top = factors.iter().fold(0.0, |most: f64, f| most.max(f.abs()));
    let shift = (23.0 - top.max(1e-30).log2().ceil()).clamp(0.0, 62.0);
    if top * 2f64.powi(shift as i32) >= 2f64.powi(30) {
        return Err(Refusal::quantization(
            "a norm whose weights are too large for its scale",
        ));
    }
    let factors: Vec<f64> = factors.iter().map(|f| f * 2f64.powi(shift as i32)).collect();
    let factors = constants(b, &norm.parameters, &factors);
    tensor = b.product(tensor, factors, shift as u32);
    if let Some(bias) = &norm.bias {
        let bias: Vec<f64> = bias.iter().map(|v| v / scale * unit).collect();
        let bias = constants(b, &norm.parameters, &bias);
        tensor = b.pair(Op::Add, tensor, bias);
    }
    b.finish_sums(norm.out, tensor, &[1.0 / unit])
}

fn optional(node: &Arguments<'_>, b: &Builder<'_>, at: usize) -> Result<Option<Vec<f64>>, Refusal> {
    node.optional_value(at)?.map(|value| b.floats(value)).transpose()
}

/// Over the last dimensions, with a weight and a bias for each element of them.
fn last(
    node: &Arguments<'_>,
    b: &mut Builder<'_>,
    centred: bool,
    [weight, bias, epsilon]: [Option<usize>; 3],
) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let dims = b.dims(x)?;
    let over = node.ints(1)?.len().min(dims.len());
    let (outer, inner) = dims.split_at(dims.len() - over);
    let n = inner.iter().product();
    let rows = outer.iter().product();
    let read = |at: Option<usize>| at.map_or(Ok(None), |at| optional(node, b, at));
    let epsilon = match epsilon {
        Some(at) if !node.is_none(at) => node.float(at)?,
        _ => f64::from(f32::EPSILON),
    };
    let norm = Norm {
        x,
        out,
        sizes: [rows, n],
        centred,
        epsilon,
        shape: vec![rows, n],
        parameters: vec![1, n],
        weight: read(weight)?,
        bias: read(bias)?,
    };
    lower(&norm, b)
}

/// Over groups of channels, with a weight and a bias for each channel.
fn groups(
    node: &Arguments<'_>,
    b: &mut Builder<'_>,
    groups: i32,
    [weight, bias]: [usize; 2],
    epsilon: f64,
) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let dims = b.dims(x)?;
    let [batch, channels, ref rest @ ..] = dims[..] else {
        return Err(Refusal::shape("groups of a tensor without channels"));
    };
    if groups < 1 || channels % groups != 0 {
        return Err(Refusal::attribute(format!("{groups} groups of {channels} channels")));
    }
    let pixels: i32 = rest.iter().product();
    let norm = Norm {
        x,
        out,
        sizes: [batch * groups, channels / groups * pixels],
        centred: true,
        epsilon,
        shape: vec![batch, channels, pixels],
        parameters: vec![1, channels, 1],
        weight: optional(node, b, weight)?,
        bias: optional(node, b, bias)?,
    };
    lower(&norm, b)
}

fn group_norm(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let count = i32::try_from(node.int(1)?).map_err(|_| Refusal::attribute("groups beyond 32 bits"))?;
    groups(node, b, count, [2, 3], node.float(4)?)
}

fn native_group_norm(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let count = i32::try_from(node.int(6)?).map_err(|_| Refusal::attribute("groups beyond 32 bits"))?;
    groups(node, b, count, [1, 2], node.float(7)?)
}

fn instance_norm(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    if !node.bool(5)? {
        return Err(Refusal::attribute("a norm by statistics that were kept"));
    }
    let channels = b.dims(node.value(0)?)?.get(1).copied().unwrap_or(0);
    groups(node, b, channels, [1, 2], node.float(7)?)
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::layer_norm",
        lower: |n, b| last(n, b, true, [Some(2), Some(3), Some(4)]),
    },
    Operator {
        name: "aten::native_layer_norm",
        lower: |n, b| last(n, b, true, [Some(2), Some(3), Some(4)]),
    },
    Operator {
        name: "aten::rms_norm",
        lower: |n, b| last(n, b, false, [Some(2), None, Some(3)]),
    },
    Operator {
        name: "aten::group_norm",
        lower: group_norm,
    },
    Operator {
        name: "aten::native_group_norm",
        lower: native_group_norm,
    },
    Operator {
        name: "aten::instance_norm",
        lower: instance_norm,
    },
];
