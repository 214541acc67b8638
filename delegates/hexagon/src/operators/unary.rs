//! Functions of one element.
//!
//! The library's own where it has them; others by a few of its nodes in f16. It has no logarithm of other bases, no tangent, no hyperbolic
//! functions; its sine and arctangent are limited to where they are right.

use super::common::{Elements, Steps, elements, same};
use super::elementwise::island;
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::graph::TensorId;
use crate::node::Node;
use std::f64::consts::{LN_2, LN_10};

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
    composed!("aten::sin", sine),
    composed!("aten::cos", |b: &mut Builder<'_>, x| Ok(b.unary("ElementWiseCos", x))),
    composed!("aten::tan", |b: &mut Builder<'_>, x| {
        let sine = sine(b, x)?;
        let cosine = b.unary("ElementWiseCos", x);
        Ok(b.binary("ElementWiseDivide", sine, cosine))
    }),
    composed!("aten::atan", |b: &mut Builder<'_>, x| {
        // Beyond it the library gives NaN; what is cut off is under 2^-11.
        let near = b.limited(x, -8192.0, 8192.0);
        Ok(b.unary("ElementWiseAtan", near))
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
        b.with("ElementWiseSubtract", power, 1.0)
    }),
    composed!("aten::log1p", |b: &mut Builder<'_>, x| {
        let next = b.with("ElementWiseAdd", x, 1.0)?;
        Ok(b.unary("ElementWiseLog", next))
    }),
    composed!("aten::log2", |b: &mut Builder<'_>, x| {
        let natural = b.unary("ElementWiseLog", x);
        b.with("ElementWiseMultiply", natural, 1.0 / LN_2)
    }),
    composed!("aten::log10", |b: &mut Builder<'_>, x| {
        let natural = b.unary("ElementWiseLog", x);
        b.with("ElementWiseMultiply", natural, 1.0 / LN_10)
    }),
    composed!("aten::sinh", |b, x| hyperbolic(b, x, "ElementWiseSubtract")),
    composed!("aten::cosh", |b, x| hyperbolic(b, x, "ElementWiseAdd")),
    composed!("aten::asinh", |b: &mut Builder<'_>, x| {
        // sign(x) * log(|x| + sqrt(x² + 1))
        let size = b.unary("ElementWiseAbs", x);
        let square = b.binary("ElementWiseMultiply", x, x);
        let next = b.with("ElementWiseAdd", square, 1.0)?;
        let root = b.unary("ElementWiseSquareRoot", next);
        let sum = b.binary("ElementWiseAdd", size, root);
        let result = b.unary("ElementWiseLog", sum);
        let sign = b.unary("ElementWiseSign", x);
        Ok(b.binary("ElementWiseMultiply", result, sign))
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
        b.with("ElementWiseMultiply", result, 0.5)
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
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    let written = b.write(out, layout)?;
    b.op(op, Vec::new(), &[read], &[written]);
    Ok(())
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

/// The library's gives NaN for what is beyond f16, which infinity is in f16.
fn exponential(b: &mut Builder<'_>, x: TensorId) -> Result<TensorId, Refusal> {
    let power = b.unary("ElementWiseExp", x);
    // The logarithm of 65520, from where on f16 rounds to infinity.
    let beyond = b.truth_with("ElementWiseGreaterEqual", x, 11.0899)?;
    let infinity = b.number(f64::INFINITY, x)?;
    Ok(b.choose(beyond, infinity, power))
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

/// Half of `exp(x) op exp(-x)`
fn hyperbolic(b: &mut Builder<'_>, x: TensorId, op: &'static str) -> Result<TensorId, Refusal> {
    let negative = b.unary("ElementWiseNeg", x);
    let (up, down) = (exponential(b, x)?, exponential(b, negative)?);
    let both = b.binary(op, up, down);
    b.with("ElementWiseMultiply", both, 0.5)
}
