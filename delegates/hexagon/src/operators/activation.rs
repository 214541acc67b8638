//! Activations.

use super::common::{Elements, Steps, elements, floats, give, limits, nearest_in, same};
use super::elementwise::{between, island};
use super::unary::{LEAST_EXPONENT, decay, native, near_zero};
use crate::builder::{Builder, Layout, axis};
use crate::caps::{Operator, Refusal};
use crate::graph::{Param, Quantization, TensorId};
use crate::node::Node;
use delegraph_sdk::image::ValueIndex;

macro_rules! operator {
    ($name:literal, $lower:expr) => {
        Operator {
            name: $name,
            lower: $lower,
        }
    };
}

macro_rules! composed {
    ($name:literal, $compute:expr) => {
        Operator {
            name: $name,
            lower: |n, b| island(n, b, &[0], |b, x| $compute(n, b, x[0])),
        }
    };
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    operator!("aten::relu", |n, b| limit(n, b, Some(0.0), None)),
    operator!("aten::relu6", |n, b| limit(n, b, Some(0.0), Some(6.0))),
    operator!("aten::hardtanh", |n, b| limit(
        n,
        b,
        Some(n.scalar(1)?.float()),
        Some(n.scalar(2)?.float())
    )),
    operator!("aten::clamp", |n, b| {
        let [low, high] = [n.optional_scalar(1)?, n.optional_scalar(2)?];
        limit(n, b, low.map(|s| s.float()), high.map(|s| s.float()))
    }),
    operator!("aten::clamp_min", |n, b| limit(n, b, Some(n.scalar(1)?.float()), None)),
    operator!("aten::clamp_max", |n, b| limit(n, b, None, Some(n.scalar(1)?.float()))),
    operator!("aten::clamp.Tensor", between),
    operator!("aten::sigmoid", sigmoid),
    operator!("aten::tanh", |n, b| native(n, b, "Tanh")),
    operator!("aten::hardswish", |n, b| native(n, b, "HardSwish")),
    operator!("aten::gelu", gelu),
    operator!("aten::prelu", prelu),
    composed!("aten::leaky_relu", |n: &Node<'_>, b: &mut Builder<'_>, x| {
        let slope = n.scalar(1)?.float();
        sloped(b, x, slope)
    }),
    composed!("aten::silu", |n: &Node<'_>, b: &mut Builder<'_>, x| {
        let share = gate(n, b, x)?;
        Ok(b.binary("ElementWiseMultiply", x, share))
    }),
    composed!("aten::hardsigmoid", |_: &Node<'_>, b: &mut Builder<'_>, x| {
        let part = b.with("ElementWiseMultiply", x, 1.0 / 6.0)?;
        let moved = b.with("ElementWiseAdd", part, 0.5)?;
        Ok(b.limited(moved, 0.0, 1.0))
    }),
    composed!("aten::elu", |n: &Node<'_>, b: &mut Builder<'_>, x| {
        let [alpha, scale, inner] = [n.scalar(1)?.float(), n.scalar(2)?.float(), n.scalar(3)?.float()];
        exponential(b, x, alpha * scale, scale, inner)
    }),
    composed!("aten::celu", |n: &Node<'_>, b: &mut Builder<'_>, x| {
        let alpha = n.scalar(1)?.float();
        exponential(b, x, alpha, 1.0, 1.0 / alpha)
    }),
    composed!("aten::selu", |_: &Node<'_>, b: &mut Builder<'_>, x| {
        // The constants of the paper, as PyTorch has them.
        let (alpha, scale) = (1.673_263_242_354_377_2, 1.050_700_987_355_480_5);
        exponential(b, x, alpha * scale, scale, 1.0)
    }),
    composed!("aten::softplus", |n: &Node<'_>, b: &mut Builder<'_>, x| {
        let (beta, threshold) = (n.scalar(1)?.float(), n.scalar(2)?.float());
        if threshold < 12.0 {
            return Err(Refusal::attribute(format!(
                "a threshold of {threshold}, where the curve is not straight yet"
            )));
        }
        softplus(b, x, beta)
    }),
    composed!("aten::log_sigmoid", |_: &Node<'_>, b: &mut Builder<'_>, x| {
        let negative = b.unary("ElementWiseNeg", x);
        let soft = softplus(b, negative, 1.0)?;
        Ok(b.unary("ElementWiseNeg", soft))
    }),
    composed!("aten::mish", |_: &Node<'_>, b: &mut Builder<'_>, x| {
        // tanh(log(1 + y)) is z / (z + 2) for z = y (y + 2), and 1 to 2^-12 where x is above 4.5.
        let near = b.limited(x, LEAST_EXPONENT, 4.5);
        let power = b.unary("ElementWiseExp", near);
        let next = b.with("ElementWiseAdd", power, 2.0)?;
        let product = b.binary("ElementWiseMultiply", power, next);
        let below = b.with("ElementWiseAdd", product, 2.0)?;
        let share = b.binary("ElementWiseDivide", product, below);
        Ok(b.binary("ElementWiseMultiply", x, share))
    }),
    composed!("aten::threshold", |n: &Node<'_>, b: &mut Builder<'_>, x| {
        let (limit, value) = (n.scalar(1)?.float(), n.scalar(2)?.float());
        let over = b.truth_with("ElementWiseGreater", x, limit)?;
        let other = b.number(value, x)?;
        Ok(b.choose(over, x, other))
    }),
    composed!("aten::hardshrink", |n: &Node<'_>, b: &mut Builder<'_>, x| {
        let limit = n.scalar(1)?.float();
        let size = b.unary("ElementWiseAbs", x);
        let over = b.truth_with("ElementWiseGreater", size, limit)?;
        let zero = b.number(0.0, x)?;
        Ok(b.choose(over, x, zero))
    }),
    composed!("aten::softshrink", |n: &Node<'_>, b: &mut Builder<'_>, x| {
        // What is left of x without what lies within the limit.
        let limit = n.scalar(1)?.float() as f32;
        let within = b.limited(x, -limit, limit);
        Ok(b.binary("ElementWiseSubtract", x, within))
    }),
    operator!("aten::glu", glu),
];

/// Limits of a range; integers by numbers on both sides.
fn limit(node: &Node<'_>, b: &mut Builder<'_>, low: Option<f64>, high: Option<f64>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let kind = elements(b, x)?;
    if kind != elements(b, out)? {
        return Err(Refusal::dtype("bounds that change the type"));
    }
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    if matches!(kind, Elements::Int | Elements::Index | Elements::Small) {
        let mut result = read;
        for (bound, op) in [(low, "ElementWiseMaximum"), (high, "ElementWiseMinimum")] {
            if let Some(bound) = bound {
                let bound = super::common::number_in(b, bound, result)?;
                result = b.binary(op, result, bound);
            }
        }
        return same(b, result, out, layout);
    }
    if kind == Elements::Bool {
        return Err(Refusal::dtype("booleans"));
    }
    if low.is_some_and(f64::is_nan) || high.is_some_and(f64::is_nan) {
        return Err(Refusal::attribute("a bound that is no number"));
    }
    if kind.is_fixed() && !(kind == Elements::Fixed8 && (low, high) == (Some(0.0), None)) {
        return limit_integers(b, read, out, layout, [low, high]);
    }
    let written = b.write(out, layout)?;
    match (low, high) {
        (Some(0.0), None) => b.op("Relu", Vec::new(), &[read], &[written]),
        (Some(0.0), Some(6.0)) => b.op("Relu6", Vec::new(), &[read], &[written]),
        _ => {
            // Where they cross, the upper one wins.
            let high = high.unwrap_or(f64::INFINITY).clamp(-65504.0, 65504.0);
            let low = low.unwrap_or(f64::NEG_INFINITY).clamp(-65504.0, 65504.0).min(high);
            b.op("ReluMinMax", limits(low as f32, high as f32), &[read], &[written]);
        }
    }
    Ok(())
}

/// Limits of quantized numbers, by the larger and the smaller of two integers of the result's scale: the library's `ReluMinMax` and, in
/// 16 bits, its `Relu` leave some of them as they are.
fn limit_integers(
    b: &mut Builder<'_>,
    read: TensorId,
    out: ValueIndex,
    layout: Layout,
    limits: [Option<f64>; 2],
) -> Result<(), Refusal> {
    let (data_type, quantization) = b.representation(out)?;
    let Quantization::PerTensor(pair) = quantization else {
        return Err(Refusal::quantization("not quantized by one scale"));
    };
    let mut result = match b.tensor(read).quantization == quantization {
        true => read,
        false => b.cast("Convert", read, data_type, quantization.clone()),
    };
    for (limit, op) in limits.into_iter().zip(["ElementWiseMaximum", "ElementWiseMinimum"]) {
        let Some(limit) = limit else { continue };
        let q = nearest_in(limit, data_type, pair).to_le_bytes();
        let limit = b.fixed(data_type, &[1], quantization.clone(), q[..data_type.size()].to_vec());
        result = b.binary(op, result, limit);
    }
    same(b, result, out, layout)
}

/// The library's own is that of the error function; the other is its approximation, by the formula.
fn gelu(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    match node.str(1)? {
        // The library's is off by half a thousandth, which is much where nothing larger is beside it.
        "none" if b.image().value(node.output(0)?).rank() == 0 => Err(Refusal::shape("a single number")),
        "none" if elements(b, node.output(0)?)? == Elements::Fixed16 => {
            Err(Refusal::quantization("the library is off by several steps in 16 bits"))
        }
        "none" => native(node, b, "Gelu"),
        "tanh" => island(node, b, &[0], |b, x| {
            // 0.5 x (1 + tanh(y)) is x sigmoid(2 y).
            let x = x[0];
            let square = b.binary("ElementWiseMultiply", x, x);
            let inner = b.with("ElementWiseMultiply", square, 0.044715)?;
            let inner = b.with("ElementWiseAdd", inner, 1.0)?;
            let slope = b.with("ElementWiseMultiply", x, 2.0 * (2.0 / std::f64::consts::PI).sqrt())?;
            let argument = b.binary("ElementWiseMultiply", slope, inner);
            let share = gate(node, b, argument)?;
            Ok(b.binary("ElementWiseMultiply", x, share))
        }),
        other => Err(Refusal::attribute(format!("gelu `{other}`"))),
    }
}

/// The library's own, where it is as exact as the result has to be.
fn sigmoid(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let out = node.output(0)?;
    if elements(b, out)? == Elements::Float {
        return island(node, b, &[0], |b, x| gate(node, b, x[0]));
    }
    if let (Elements::Fixed16, (_, Quantization::PerTensor(pair))) = (elements(b, out)?, b.representation(out)?)
        && pair.scale < 1.0 / 40000.0
    {
        // It is off by a 60000th in the mean.
        return Err(Refusal::quantization(format!(
            "steps of {}, which are too fine for the library",
            pair.scale
        )));
    }
    native(node, b, "Sigmoid")
}

/// The sigmoid. The library's own is off by half a thousandth in f16: a multiple of small results, and too much where a network ends in it or
/// feeds it back. For a result of floats it is `1 / (1 + y)`, or `y / (1 + y)` below 0, for `y = exp(-|x|)`.
fn gate(node: &Node<'_>, b: &mut Builder<'_>, x: TensorId) -> Result<TensorId, Refusal> {
    if elements(b, node.output(0)?)? != Elements::Float {
        return Ok(b.unary("Sigmoid", x));
    }
    let size = b.unary("ElementWiseAbs", x);
    let negative = b.unary("ElementWiseNeg", size);
    let power = decay(b, negative);
    let next = b.with("ElementWiseAdd", power, 1.0)?;
    let above = b.before("ElementWiseDivide", 1.0, next)?;
    let below = b.binary("ElementWiseMultiply", above, power);
    let negative = b.truth_with("ElementWiseLess", x, 0.0)?;
    Ok(b.choose(negative, below, above))
}

/// A slope below 0.
fn sloped(b: &mut Builder<'_>, x: TensorId, slope: f64) -> Result<TensorId, Refusal> {
    let slope = b.number(slope, x)?;
    let out = b.like(x);
    b.op("Prelu", Vec::new(), &[x, slope], &[out]);
    Ok(out)
}

/// One slope, or one a channel.
fn prelu(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, slopes, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let rank = b.image().value(out).rank();
    let layout = b.elementwise_layout(&[x], out)?;
    let read = floats(b, x, rank, layout)?;
    if elements(b, slopes)? != Elements::Float {
        return Err(Refusal::dtype("slopes that are no floats"));
    }
    let slopes = b.read(slopes, Layout::RowMajor)?;
    let count = b.tensor(slopes).elements() as u32;
    let mut dims = vec![1; rank.max(1)];
    if rank > 1 {
        dims[axis(1, rank, layout) as usize] = count;
    } else {
        dims[0] = count;
    }
    let slopes = b.reshaped(slopes, &dims)?;
    let result = b.like(read);
    b.op("Prelu", Vec::new(), &[read, slopes], &[result]);
    give(b, result, out, layout)
}

/// `positive * x` above 0, `negative * (exp(inner * x) - 1)` below.
fn exponential(
    b: &mut Builder<'_>,
    x: TensorId,
    negative: f64,
    positive: f64,
    inner: f64,
) -> Result<TensorId, Refusal> {
    let below = match inner {
        1.0 => x,
        _ => b.with("ElementWiseMultiply", x, inner)?,
    };
    let power = decay(b, below);
    let less = b.with("ElementWiseSubtract", power, 1.0)?;
    let less = b.with("ElementWiseMultiply", less, negative)?;
    let above = b.unary("Relu", x);
    let above = match positive {
        1.0 => above,
        _ => b.with("ElementWiseMultiply", above, positive)?,
    };
    Ok(b.binary("ElementWiseAdd", above, less))
}

/// `max(x, 0) + log(1 + exp(-|x|))`: nothing overflows. The library's own is off by a hundredth at 0.
fn softplus(b: &mut Builder<'_>, x: TensorId, beta: f64) -> Result<TensorId, Refusal> {
    let x = match beta {
        1.0 => x,
        _ => b.with("ElementWiseMultiply", x, beta)?,
    };
    let size = b.unary("ElementWiseAbs", x);
    let negative = b.unary("ElementWiseNeg", size);
    let power = decay(b, negative);
    let next = b.with("ElementWiseAdd", power, 1.0)?;
    let far = b.unary("ElementWiseLog", next);
    let rest = near_zero(b, power, far, 0.125, -0.5, 1.0 / 3.0)?;
    let above = b.unary("Relu", x);
    let sum = b.binary("ElementWiseAdd", above, rest);
    match beta {
        1.0 => Ok(sum),
        _ => b.with("ElementWiseMultiply", sum, 1.0 / beta),
    }
}

/// One half, gated by the other.
fn glu(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.image().value(x).rank();
    let dim = node.dim(1, rank)?;
    let layout = b.elementwise_layout(&[x], out)?;
    let read = floats(b, x, rank, layout)?;
    let at = axis(dim, rank, layout);
    let mut tensor = b.tensor(read).clone();
    let half = tensor.dims[at as usize] / 2;
    tensor.dims[at as usize] = half;
    let halves = [(); 2].map(|()| b.temporary(tensor.data_type, &tensor.dims, tensor.quantization.clone()));
    let params = vec![("axis", Param::U32(at)), ("split_index", Param::list(&[half]))];
    b.op("Split", params, &[read], &halves);
    let share = gate(node, b, halves[1])?;
    let result = b.binary("ElementWiseMultiply", halves[0], share);
    give(b, result, out, layout)
}
