//! Arithmetic on single elements of two and three tensors.
//!
//! Floats and quantized numbers are the library's own. Integers are refused: the library saturates where PyTorch wraps around, and i64 has
//! 32 bits here. `maximum` and `minimum` are exact in all types.

use super::common::{Elements, Operand, Steps, elements, floats, give, layout, number_in, same};
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::graph::TensorId;
use crate::node::Node;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::add.Tensor",
        lower: |n, b| sum(n, b, "ElementWiseAdd"),
    },
    Operator {
        name: "aten::add.Scalar",
        lower: |n, b| sum(n, b, "ElementWiseAdd"),
    },
    Operator {
        name: "aten::sub.Tensor",
        lower: |n, b| sum(n, b, "ElementWiseSubtract"),
    },
    Operator {
        name: "aten::sub.Scalar",
        lower: |n, b| sum(n, b, "ElementWiseSubtract"),
    },
    Operator {
        name: "aten::rsub.Scalar",
        lower: reversed,
    },
    Operator {
        name: "aten::rsub.Tensor",
        lower: reversed,
    },
    Operator {
        name: "aten::mul.Tensor",
        lower: |n, b| plain(n, b, "ElementWiseMultiply"),
    },
    Operator {
        name: "aten::mul.Scalar",
        lower: |n, b| plain(n, b, "ElementWiseMultiply"),
    },
    Operator {
        name: "aten::div.Tensor",
        lower: divide,
    },
    Operator {
        name: "aten::div.Scalar",
        lower: divide,
    },
    Operator {
        name: "aten::maximum",
        lower: |n, b| extreme(n, b, 0, 1, "ElementWiseMaximum"),
    },
    Operator {
        name: "aten::minimum",
        lower: |n, b| extreme(n, b, 0, 1, "ElementWiseMinimum"),
    },
    Operator {
        name: "aten::clamp_min.Tensor",
        lower: |n, b| extreme(n, b, 0, 1, "ElementWiseMaximum"),
    },
    Operator {
        name: "aten::clamp_max.Tensor",
        lower: |n, b| extreme(n, b, 0, 1, "ElementWiseMinimum"),
    },
    Operator {
        name: "aten::pow.Tensor_Tensor",
        lower: power,
    },
    Operator {
        name: "aten::pow.Tensor_Scalar",
        lower: power,
    },
    Operator {
        name: "aten::pow.Scalar",
        lower: power,
    },
    Operator {
        name: "aten::square",
        lower: |n, b| island(n, b, &[0], |b, x| Ok(b.binary("ElementWiseMultiply", x[0], x[0]))),
    },
    Operator {
        name: "aten::addcmul",
        lower: |n, b| addc(n, b, "ElementWiseMultiply"),
    },
    Operator {
        name: "aten::addcdiv",
        lower: |n, b| addc(n, b, "ElementWiseDivide"),
    },
    Operator {
        name: "aten::lerp.Scalar",
        lower: |n, b| {
            let weight = n.scalar(2)?.float();
            island(n, b, &[0, 1], |b, x| {
                let apart = b.binary("ElementWiseSubtract", x[1], x[0]);
                let part = b.with("ElementWiseMultiply", apart, weight)?;
                Ok(b.binary("ElementWiseAdd", x[0], part))
            })
        },
    },
    Operator {
        name: "aten::hypot",
        lower: |n, b| {
            island(n, b, &[0, 1], |b, x| {
                let squares = [x[0], x[1]].map(|x| b.binary("ElementWiseMultiply", x, x));
                let sum = b.binary("ElementWiseAdd", squares[0], squares[1]);
                Ok(b.unary("ElementWiseSquareRoot", sum))
            })
        },
    },
];

/// Reads tensors as f16, computes, and gives the result: quantized numbers of 8 bits become floats and integers again.
pub fn island(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    args: &[usize],
    compute: impl FnOnce(&mut Builder<'_>, &[TensorId]) -> Result<TensorId, Refusal>,
) -> Result<(), Refusal> {
    let out = node.output(0)?;
    let rank = b.image().value(out).rank();
    let mut values = Vec::with_capacity(args.len());
    for arg in args {
        values.push(node.value(*arg)?);
    }
    let layout = b.elementwise_layout(&values, out)?;
    let mut tensors = Vec::with_capacity(values.len());
    for value in values {
        tensors.push(floats(b, value, rank, layout)?);
    }
    let result = compute(b, &tensors)?;
    give(b, result, out, layout)
}

/// The operands of a binary node as tensors of one type.
fn operands(
    b: &mut Builder<'_>,
    kind: Elements,
    pair: [Operand; 2],
    rank: usize,
    layout: Layout,
) -> Result<[TensorId; 2], Refusal> {
    let mut read = |operand: Operand| -> Result<Option<TensorId>, Refusal> {
        let Some(value) = operand.value() else {
            return Ok(None);
        };
        let own = elements(b, value)?;
        if kind == Elements::Float {
            return floats(b, value, rank, layout).map(Some);
        }
        match own == kind {
            true => b.read_broadcast(value, rank, layout).map(Some),
            false => Err(Refusal::dtype("operands of different types")),
        }
    };
    let tensors = [read(pair[0])?, read(pair[1])?];
    match (tensors, pair) {
        ([Some(x), Some(y)], _) => Ok([x, y]),
        ([Some(x), None], [_, Operand::Number(number)]) => Ok([x, b.number(number, x)?]),
        ([None, Some(y)], [Operand::Number(number), _]) => Ok([b.number(number, y)?, y]),
        _ => Err(Refusal::attribute("two numbers and no tensor")),
    }
}

fn computes(b: &Builder<'_>, node: &Node<'_>) -> Result<Elements, Refusal> {
    match elements(b, node.output(0)?)? {
        kind @ (Elements::Float | Elements::Fixed8 | Elements::Fixed16) => Ok(kind),
        _ => Err(Refusal::dtype(
            "integer arithmetic, which saturates there and wraps around in PyTorch",
        )),
    }
}

fn binary(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str, pair: [Operand; 2]) -> Result<(), Refusal> {
    let out = node.output(0)?;
    let rank = b.image().value(out).rank();
    let layout = layout(b, &pair, out)?;
    let kind = computes(b, node)?;
    let inputs = operands(b, kind, pair, rank, layout)?;
    let out = b.write(out, layout)?;
    b.op(op, Vec::new(), &inputs, &[out]);
    Ok(())
}

fn plain(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    binary(node, b, op, [Operand::of(node, 0)?, Operand::of(node, 1)?])
}

/// The library multiplies by an inverse, which is 0 where f16 has it not in full: from here on the result is wrong.
pub const LARGEST_DIVISOR: u32 = 8192;

/// A quotient. Where the divisor is large, both are made smaller by a power of two before.
fn divide(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let pair = [Operand::of(node, 0)?, Operand::of(node, 1)?];
    let limit = f64::from(LARGEST_DIVISOR);
    let small = matches!(pair[1], Operand::Number(n) if n.abs() <= limit);
    if small || computes(b, node)? != Elements::Float {
        return binary(node, b, "ElementWiseDivide", pair);
    }
    let out = node.output(0)?;
    let rank = b.image().value(out).rank();
    let layout = layout(b, &pair, out)?;
    let [x, y] = operands(b, Elements::Float, pair, rank, layout)?;
    let size = b.unary("ElementWiseAbs", y);
    let large = b.truth_with("ElementWiseGreater", size, limit)?;
    let (part, whole) = (b.number(1.0 / 16.0, y)?, b.number(1.0, y)?);
    let factor = b.choose(large, part, whole);
    let (x, y) = (
        b.binary("ElementWiseMultiply", x, factor),
        b.binary("ElementWiseMultiply", y, factor),
    );
    let result = b.binary("ElementWiseDivide", x, y);
    give(b, result, out, layout)
}

/// `x + alpha * y`
fn sum(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    weighted(node, b, op, [Operand::of(node, 0)?, Operand::of(node, 1)?], 1)
}

/// `y - alpha * x`
fn reversed(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let pair = [Operand::of(node, 1)?, Operand::of(node, 0)?];
    weighted(node, b, "ElementWiseSubtract", pair, 1)
}

fn weighted(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    op: &'static str,
    mut pair: [Operand; 2],
    at: usize,
) -> Result<(), Refusal> {
    let alpha = node.scalar(2)?.float();
    if alpha == 1.0 {
        return binary(node, b, op, pair);
    }
    if let Operand::Number(number) = pair[at] {
        pair[at] = Operand::Number(number * alpha);
        return binary(node, b, op, pair);
    }
    let out = node.output(0)?;
    let rank = b.image().value(out).rank();
    let layout = layout(b, &pair, out)?;
    let mut inputs = operands(b, Elements::Float, pair, rank, layout)?;
    inputs[at] = b.with("ElementWiseMultiply", inputs[at], alpha)?;
    let result = b.binary(op, inputs[0], inputs[1]);
    give(b, result, out, layout)
}

/// `maximum`, `minimum`: nothing is rounded, so all types will do.
fn extreme(node: &Node<'_>, b: &mut Builder<'_>, first: usize, second: usize, op: &'static str) -> Result<(), Refusal> {
    let pair = [Operand::of(node, first)?, Operand::of(node, second)?];
    let out = node.output(0)?;
    let rank = b.image().value(out).rank();
    let layout = layout(b, &pair, out)?;
    let kind = elements(b, out)?;
    if kind == Elements::Bool {
        return Err(Refusal::dtype("booleans"));
    }
    let inputs = operands(b, kind, pair, rank, layout)?;
    let out = b.write(out, layout)?;
    b.op(op, Vec::new(), &inputs, &[out]);
    Ok(())
}

/// `aten::clamp.Tensor`, whose bounds may be missing; with numbers, for integers.
pub fn between(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.image().value(out).rank();
    let mut bounds = Vec::new();
    for (i, op) in [(1, "ElementWiseMaximum"), (2, "ElementWiseMinimum")] {
        if i < node.view().arg_count() && !node.is_none(i) {
            bounds.push((Operand::of(node, i)?, op));
        }
    }
    let all: Vec<Operand> = bounds
        .iter()
        .map(|(bound, _)| *bound)
        .chain([Operand::Value(x)])
        .collect();
    let layout = layout(b, &all, out)?;
    let kind = elements(b, out)?;
    if kind == Elements::Bool || kind != elements(b, x)? {
        return Err(Refusal::dtype("bounds that change the type"));
    }
    let mut result = b.read_broadcast(x, rank, layout)?;
    for (bound, op) in bounds {
        let bound = match bound {
            Operand::Number(number) => number_in(b, number, result)?,
            Operand::Value(value) if elements(b, value)? == kind => b.read_broadcast(value, rank, layout)?,
            Operand::Value(_) => return Err(Refusal::dtype("bounds of another type")),
        };
        result = b.binary(op, result, bound);
    }
    same(b, result, out, layout)
}

/// A power: of a few exponents by roots and products, else the library's.
fn power(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let pair = [Operand::of(node, 0)?, Operand::of(node, 1)?];
    let out = node.output(0)?;
    let rank = b.image().value(out).rank();
    let layout = layout(b, &pair, out)?;
    let result = match pair {
        [Operand::Value(base), Operand::Number(exponent)] => {
            let x = floats(b, base, rank, layout)?;
            match exponent {
                1.0 => x,
                2.0 => b.binary("ElementWiseMultiply", x, x),
                3.0 => {
                    let square = b.binary("ElementWiseMultiply", x, x);
                    b.binary("ElementWiseMultiply", square, x)
                }
                4.0 => {
                    let square = b.binary("ElementWiseMultiply", x, x);
                    b.binary("ElementWiseMultiply", square, square)
                }
                0.5 => b.unary("ElementWiseSquareRoot", x),
                -0.5 => b.unary("ElementWiseRsqrt", x),
                -1.0 => b.before("ElementWiseDivide", 1.0, x)?,
                -2.0 => {
                    let square = b.binary("ElementWiseMultiply", x, x);
                    b.before("ElementWiseDivide", 1.0, square)?
                }
                _ => b.with("ElementWisePower", x, exponent)?,
            }
        }
        _ => {
            super::unary::only_half(node, b)?;
            let [x, y] = operands(b, Elements::Float, pair, rank, layout)?;
            b.binary("ElementWisePower", x, y)
        }
    };
    give(b, result, out, layout)
}

/// `self + value * (first op second)`
fn addc(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let value = node.scalar(3)?.float();
    island(node, b, &[0, 1, 2], |b, x| {
        let mut term = b.binary(op, x[1], x[2]);
        if value != 1.0 {
            term = b.with("ElementWiseMultiply", term, value)?;
        }
        Ok(b.binary("ElementWiseAdd", x[0], term))
    })
}
