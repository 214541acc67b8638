//! Functions of one element.
//!
//! The library's own where it has them; others by a few of its nodes in f16. It has no logarithm of other bases and no hyperbolic functions;
//! its sine is right within one turn, its exponential where f16 has the result.

use super::common::{Elements, Steps, elements, same};
use super::elementwise::island;
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::graph::TensorId;
use crate::node::Node;
use delegraph_sdk::DType;
use std::f64::consts::{LN_2, LN_10, PI};

macro_rules! native {
    ($name:literal, $op:literal) => {
        Operator {
            name: $name,
            lower: |n, b| native(n, b, $op),
        }
    };
}

macro_rules! composed {
    ($name:literal, $compute:expr) => {
        Operator {
            name: $name,
            lower: |n, b| island(n, b, &[0], |b, x| $compute(b, x[0])),
        }
    };
}

/// As `composed`, of f16 alone: f32 that is rounded to it is off by more than such a function may be.
macro_rules! halves {
    ($name:literal, $compute:expr) => {
        Operator {
            name: $name,
            lower: |n, b| {
                only_half(n, b)?;
                island(n, b, &[0], |b, x| $compute(b, x[0]))
            },
        }
    };
}

macro_rules! exact {
    ($name:literal, $compute:expr) => {
        Operator {
            name: $name,
            lower: |n, b| exact(n, b, $compute),
        }
    };
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    exact!("aten::abs", |b, x| Ok(b.unary("ElementWiseAbs", x))),
    exact!("aten::neg", |b, x| Ok(b.unary("ElementWiseNeg", x))),
    exact!("aten::floor", |b, x| Ok(b.unary("ElementWiseFloor", x))),
    exact!("aten::ceil", |b, x| Ok(b.unary("ElementWiseCeil", x))),
    exact!("aten::round", |b, x| Ok(b.unary("ElementWiseRound", x))),
    exact!("aten::sign", |b, x| Ok(b.unary("ElementWiseSign", x))),
    exact!("aten::trunc", truncated),
    exact!("aten::frac", |b, x| {
        let whole = truncated(b, x)?;
        Ok(b.binary("ElementWiseSubtract", x, whole))
    }),
    Operator {
        name: "aten::exp",
        lower: |n, b| match elements(b, n.output(0)?)? {
            Elements::Float => island(n, b, &[0], |b, x| exponential(b, x[0])),
            _ => native(n, b, "ElementWiseExp"),
        },
    },
    native!("aten::log", "ElementWiseLog"),
    native!("aten::sqrt", "ElementWiseSquareRoot"),
    native!("aten::rsqrt", "ElementWiseRsqrt"),
    halves!("aten::sin", |b: &mut Builder<'_>, x| {
        let angle = turned(b, x)?;
        sine(b, angle)
    }),
    halves!("aten::cos", |b: &mut Builder<'_>, x| {
        let angle = turned(b, x)?;
        Ok(b.unary("ElementWiseCos", angle))
    }),
    composed!("aten::reciprocal", |b: &mut Builder<'_>, x| b.before(
        "ElementWiseDivide",
        1.0,
        x
    )),
    composed!("aten::exp2", |b: &mut Builder<'_>, x| b.before(
        "ElementWisePower",
        2.0,
        x
    )),
    composed!("aten::expm1", |b: &mut Builder<'_>, x| {
        let power = exponential(b, x)?;
        let far = b.with("ElementWiseSubtract", power, 1.0)?;
        near_zero(b, x, far, 0.25, 0.5, 1.0 / 6.0)
    }),
    composed!("aten::log1p", |b: &mut Builder<'_>, x| {
        let next = b.with("ElementWiseAdd", x, 1.0)?;
        let far = b.unary("ElementWiseLog", next);
        near_zero(b, x, far, 0.125, -0.5, 1.0 / 3.0)
    }),
    composed!("aten::log2", |b: &mut Builder<'_>, x| {
        let natural = b.unary("ElementWiseLog", x);
        b.with("ElementWiseMultiply", natural, 1.0 / LN_2)
    }),
    composed!("aten::log10", |b: &mut Builder<'_>, x| {
        let natural = b.unary("ElementWiseLog", x);
        b.with("ElementWiseMultiply", natural, 1.0 / LN_10)
    }),
    halves!("aten::cosh", |b: &mut Builder<'_>, x| {
        let negative = b.unary("ElementWiseNeg", x);
        let (up, down) = (exponential(b, x)?, exponential(b, negative)?);
        let both = b.binary("ElementWiseAdd", up, down);
        b.with("ElementWiseMultiply", both, 0.5)
    }),
    halves!("aten::sinh", |b: &mut Builder<'_>, x| {
        let negative = b.unary("ElementWiseNeg", x);
        let (up, down) = (exponential(b, x)?, exponential(b, negative)?);
        let both = b.binary("ElementWiseSubtract", up, down);
        let far = b.with("ElementWiseMultiply", both, 0.5)?;
        near_zero(b, x, far, 0.5, 0.0, 1.0 / 6.0)
    }),
    composed!("aten::asinh", |b: &mut Builder<'_>, x| {
        // sign(x) * log(|x| + sqrt(x² + 1))
        let size = b.unary("ElementWiseAbs", x);
        let square = b.binary("ElementWiseMultiply", x, x);
        let next = b.with("ElementWiseAdd", square, 1.0)?;
        let root = b.unary("ElementWiseSquareRoot", next);
        let sum = b.binary("ElementWiseAdd", size, root);
        let result = b.unary("ElementWiseLog", sum);
        let sign = b.unary("ElementWiseSign", x);
        let far = b.binary("ElementWiseMultiply", result, sign);
        near_zero(b, x, far, 0.25, 0.0, -1.0 / 6.0)
    }),
    composed!("aten::acosh", |b: &mut Builder<'_>, x| {
        let square = b.binary("ElementWiseMultiply", x, x);
        let less = b.with("ElementWiseSubtract", square, 1.0)?;
        let root = b.unary("ElementWiseSquareRoot", less);
        let sum = b.binary("ElementWiseAdd", x, root);
        Ok(b.unary("ElementWiseLog", sum))
    }),
    composed!("aten::atanh", |b: &mut Builder<'_>, x| {
        let above = b.with("ElementWiseAdd", x, 1.0)?;
        let below = b.before("ElementWiseSubtract", 1.0, x)?;
        let ratio = b.binary("ElementWiseDivide", above, below);
        let result = b.unary("ElementWiseLog", ratio);
        let far = b.with("ElementWiseMultiply", result, 0.5)?;
        near_zero(b, x, far, 0.25, 0.0, 1.0 / 3.0)
    }),
    composed!("aten::logit", |b: &mut Builder<'_>, x| {
        let below = b.before("ElementWiseSubtract", 1.0, x)?;
        let ratio = b.binary("ElementWiseDivide", x, below);
        Ok(b.unary("ElementWiseLog", ratio))
    }),
];

/// One node of the library, of floats and quantized numbers.
pub fn native(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let kind = elements(b, x)?;
    if kind != elements(b, out)? || !(kind == Elements::Float || kind.is_fixed()) {
        return Err(Refusal::dtype("not of floats or quantized numbers of one type"));
    }
    let exact = ["Tanh", "Sigmoid", "HardSwish", "ElementWiseExp"];
    if kind == Elements::Fixed16 && !exact.contains(&op) {
        return Err(Refusal::quantization("the library is off by several steps in 16 bits"));
    }
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    let written = b.write(out, layout)?;
    b.op(op, Vec::new(), &[read], &[written]);
    Ok(())
}

/// Refuses what is not of f16.
///
/// # Errors
/// An input is of another type.
pub fn only_half(node: &Node<'_>, b: &Builder<'_>) -> Result<(), Refusal> {
    let image = b.image();
    match node.view().inputs().all(|v| image.value(v).dtype() == Some(DType::F16)) {
        true => Ok(()),
        false => Err(Refusal::dtype(
            "f32 that is rounded to f16 is off by more than this function may be",
        )),
    }
}

/// What rounds nothing that f16 holds: floats, and i32 where the library takes it.
fn exact(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    compute: fn(&mut Builder<'_>, TensorId) -> Result<TensorId, Refusal>,
) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let kind = elements(b, x)?;
    if !matches!(kind, Elements::Float | Elements::Int) {
        return Err(Refusal::dtype("neither floats nor i32"));
    }
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    let result = match (kind, node.op()) {
        // Whole already.
        (Elements::Int, "aten::floor" | "aten::ceil" | "aten::round" | "aten::trunc") => read,
        _ => compute(b, read)?,
    };
    same(b, result, out, layout)
}

/// The library's gives NaN for what is beyond f16, which infinity is in f16, and below -100 too, where 0 is right.
fn exponential(b: &mut Builder<'_>, x: TensorId) -> Result<TensorId, Refusal> {
    let near = b.limited(x, LEAST_EXPONENT, 11.0859);
    let power = b.unary("ElementWiseExp", near);
    // The logarithm of 65520, from where on f16 rounds to infinity.
    let beyond = b.truth_with("ElementWiseGreaterEqual", x, 11.0899)?;
    let infinity = b.number(f64::INFINITY, x)?;
    Ok(b.choose(beyond, infinity, power))
}

/// From here on down the exponential is 0 in f16.
pub const LEAST_EXPONENT: f32 = -17.5;

/// `exp(x)` where no element is above 0.
pub fn decay(b: &mut Builder<'_>, x: TensorId) -> TensorId {
    let near = b.limited(x, LEAST_EXPONENT, 0.0);
    b.unary("ElementWiseExp", near)
}

/// A function by its series `x + second x² + third x³` where `|x|` is below a limit: what is computed by a difference from 1 has lost its
/// digits there.
///
/// # Errors
/// None for numbers of f16.
pub fn near_zero(
    b: &mut Builder<'_>,
    x: TensorId,
    far: TensorId,
    limit: f64,
    second: f64,
    third: f64,
) -> Result<TensorId, Refusal> {
    let size = b.unary("ElementWiseAbs", x);
    let near = b.truth_with("ElementWiseLess", size, limit)?;
    let factor = b.with("ElementWiseMultiply", x, third)?;
    let factor = b.with("ElementWiseAdd", factor, second)?;
    let factor = b.binary("ElementWiseMultiply", factor, x);
    let rest = b.binary("ElementWiseMultiply", factor, x);
    let series = b.binary("ElementWiseAdd", x, rest);
    Ok(b.choose(near, series, far))
}

/// An angle less whole turns, of which 25/4 is taken exactly and the rest apart.
fn turned(b: &mut Builder<'_>, x: TensorId) -> Result<TensorId, Refusal> {
    let turns = b.with("ElementWiseMultiply", x, 0.5 / PI)?;
    let turns = b.unary("ElementWiseRound", turns);
    let most = b.with("ElementWiseMultiply", turns, 6.25)?;
    let rest = b.with("ElementWiseMultiply", turns, 2.0 * PI - 6.25)?;
    let angle = b.binary("ElementWiseSubtract", x, most);
    Ok(b.binary("ElementWiseSubtract", angle, rest))
}

/// Towards 0.
fn truncated(b: &mut Builder<'_>, x: TensorId) -> Result<TensorId, Refusal> {
    let below = b.truth_with("ElementWiseLess", x, 0.0)?;
    let (up, down) = (b.unary("ElementWiseCeil", x), b.unary("ElementWiseFloor", x));
    Ok(b.choose(below, up, down))
}

/// The library's sine flushes small angles to 0.
fn sine(b: &mut Builder<'_>, x: TensorId) -> Result<TensorId, Refusal> {
    let size = b.unary("ElementWiseAbs", x);
    let small = b.truth_with("ElementWiseLess", size, 1.0 / 128.0)?;
    let sine = b.unary("ElementWiseSin", x);
    Ok(b.choose(small, x, sine))
}
