//! Comparisons, truth, and choosing by it.
//!
//! Booleans are `BOOL_8` of 0 and 1. What a float is compared with may be a number that f16 does not have; then its neighbour on the side
//! where the answer stays the same is taken.

use super::common::{Elements, Operand, Steps, as_float, bytes_of, elements, layout, number_in, same};
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::graph::{DataType, Quantization, TensorId};
use crate::node::Node;
use delegraph_sdk::DType;
use delegraph_sdk::image::ValueIndex;
use half::f16;

macro_rules! comparing {
    ($name:literal, $op:literal) => {
        Operator {
            name: $name,
            lower: |n, b| compare(n, b, $op),
        }
    };
}

macro_rules! logic {
    ($name:literal, $op:literal, $whole:literal) => {
        Operator {
            name: $name,
            lower: |n, b| logic(n, b, $op, $whole),
        }
    };
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    comparing!("aten::eq.Tensor", "ElementWiseEqual"),
    comparing!("aten::eq.Scalar", "ElementWiseEqual"),
    comparing!("aten::ne.Tensor", "ElementWiseNotEqual"),
    comparing!("aten::ne.Scalar", "ElementWiseNotEqual"),
    comparing!("aten::lt.Tensor", "ElementWiseLess"),
    comparing!("aten::lt.Scalar", "ElementWiseLess"),
    comparing!("aten::le.Tensor", "ElementWiseLessEqual"),
    comparing!("aten::le.Scalar", "ElementWiseLessEqual"),
    comparing!("aten::gt.Tensor", "ElementWiseGreater"),
    comparing!("aten::gt.Scalar", "ElementWiseGreater"),
    comparing!("aten::ge.Tensor", "ElementWiseGreaterEqual"),
    comparing!("aten::ge.Scalar", "ElementWiseGreaterEqual"),
    logic!("aten::logical_and", "ElementWiseAnd", true),
    logic!("aten::logical_or", "ElementWiseOr", true),
    logic!("aten::logical_xor", "ElementWiseXor", true),
    logic!("aten::logical_not", "ElementWiseNot", true),
    logic!("aten::bitwise_and.Tensor", "ElementWiseAnd", false),
    logic!("aten::bitwise_or.Tensor", "ElementWiseOr", false),
    logic!("aten::bitwise_xor.Tensor", "ElementWiseXor", false),
    logic!("aten::bitwise_not", "ElementWiseNot", false),
    Operator {
        name: "aten::where.self",
        lower: |n, b| choose(n, b, n.value(0)?, [Operand::of(n, 1)?, Operand::of(n, 2)?]),
    },
    Operator {
        name: "aten::where.ScalarOther",
        lower: |n, b| choose(n, b, n.value(0)?, [Operand::of(n, 1)?, Operand::of(n, 2)?]),
    },
    Operator {
        name: "aten::where.ScalarSelf",
        lower: |n, b| choose(n, b, n.value(0)?, [Operand::of(n, 1)?, Operand::of(n, 2)?]),
    },
    Operator {
        name: "aten::masked_fill.Scalar",
        lower: |n, b| choose(n, b, n.value(1)?, [Operand::of(n, 2)?, Operand::of(n, 0)?]),
    },
    Operator {
        name: "aten::masked_fill.Tensor",
        lower: |n, b| choose(n, b, n.value(1)?, [Operand::of(n, 2)?, Operand::of(n, 0)?]),
    },
    Operator {
        name: "aten::isnan",
        lower: |n, b| state(n, b, "IsNan"),
    },
    Operator {
        name: "aten::isinf",
        lower: |n, b| state(n, b, "IsInf"),
    },
    Operator {
        name: "aten::tril",
        lower: |n, b| triangle(n, b, |row, column, diagonal| column - row <= diagonal),
    },
    Operator {
        name: "aten::triu",
        lower: |n, b| triangle(n, b, |row, column, diagonal| column - row >= diagonal),
    },
];

/// The side of `op` that a number which f16 does not have is moved to, so that the answer for each number that it has stays the same:
/// -1 down, 1 up; `None`: no number of f16 is equal to it.
fn side(op: &str) -> Option<i32> {
    match op {
        "ElementWiseLess" | "ElementWiseGreaterEqual" => Some(1),
        "ElementWiseLessEqual" | "ElementWiseGreater" => Some(-1),
        _ => None,
    }
}

/// The number of f16 nearest to this on a side.
fn beside(number: f64, side: i32) -> f64 {
    let near = f16::from_f64(number);
    let off = match (side, near.to_f64()) {
        (1, near) => near < number,
        (_, near) => near > number,
    };
    if !off {
        return near.to_f64();
    }
    // The next one on that side: bits of a sign and a size.
    let bits = near.to_bits();
    let away = (side > 0) != (bits & 0x8000 != 0);
    match (bits & 0x7fff, away) {
        (0, _) => f16::from_bits(if side > 0 { 0x0001 } else { 0x8001 }).to_f64(),
        (_, true) => f16::from_bits(bits + 1).to_f64(),
        (_, false) => f16::from_bits(bits - 1).to_f64(),
    }
}

fn compare(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let other = Operand::of(node, 1)?;
    let rank = b.image().value(out).rank();
    let layout = layout(b, &[Operand::Value(x), other], out)?;
    let kind = elements(b, x)?;
    if kind.is_fixed() {
        return Err(Refusal::quantization("quantized numbers are not compared"));
    }
    let left = b.read_broadcast(x, rank, layout)?;
    let right = match other {
        Operand::Value(y) if elements(b, y)? == kind && b.image().value(x).dtype() == b.image().value(y).dtype() => {
            b.read_broadcast(y, rank, layout)?
        }
        Operand::Value(_) => return Err(Refusal::dtype("operands of different types")),
        Operand::Number(number) => {
            let exact = b.image().value(x).dtype() == Some(DType::F32) && !number.is_nan();
            let number = match kind {
                // PyTorch rounds a number beside f16 to f16.
                Elements::Float if exact && f16::from_f64(number).to_f64() != number => match side(op) {
                    Some(side) => beside(number, side),
                    None => return Err(Refusal::attribute(format!("{number} is no number of f16"))),
                },
                _ => number,
            };
            number_in(b, number, left)?
        }
    };
    let written = b.write(out, layout)?;
    match (kind, op) {
        (Elements::Bool, "ElementWiseNotEqual") => b.op("ElementWiseXor", Vec::new(), &[left, right], &[written]),
        (Elements::Bool, "ElementWiseEqual") => {
            let differ = b.truth("ElementWiseXor", left, right);
            b.op("ElementWiseNot", Vec::new(), &[differ], &[written]);
        }
        (Elements::Bool, _) => return Err(Refusal::dtype("booleans have no order")),
        _ => b.op(op, Vec::new(), &[left, right], &[written]),
    }
    Ok(())
}

/// Truth of a tensor: whether an element is not 0.
fn truth(b: &mut Builder<'_>, x: TensorId, kind: Elements) -> Result<TensorId, Refusal> {
    match kind {
        Elements::Bool => Ok(x),
        _ if kind.is_fixed() => Err(Refusal::quantization("truth of quantized numbers")),
        _ => b.truth_with("ElementWiseNotEqual", x, 0.0),
    }
}

/// Of booleans; `whole`: other numbers are true where they are not 0.
fn logic(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str, whole: bool) -> Result<(), Refusal> {
    let out = node.output(0)?;
    let count = if op == "ElementWiseNot" { 1 } else { 2 };
    let mut values = Vec::new();
    for i in 0..count {
        values.push(node.value(i)?);
    }
    let rank = b.image().value(out).rank();
    let layout = b.elementwise_layout(&values, out)?;
    let mut inputs = Vec::new();
    for value in values {
        let kind = elements(b, value)?;
        if kind != Elements::Bool && !whole {
            return Err(Refusal::dtype("bits of integers"));
        }
        let x = b.read_broadcast(value, rank, layout)?;
        inputs.push(truth(b, x, kind)?);
    }
    let written = b.write(out, layout)?;
    b.op(op, Vec::new(), &inputs, &[written]);
    Ok(())
}

fn state(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if elements(b, x)? != Elements::Float {
        return Err(Refusal::dtype("not of floats"));
    }
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    let written = b.write(out, layout)?;
    b.op(op, Vec::new(), &[read], &[written]);
    Ok(())
}

/// A branch of a choice as the result's type.
fn branch(
    b: &mut Builder<'_>,
    operand: Operand,
    kind: Elements,
    rank: usize,
    layout: Layout,
) -> Result<Option<TensorId>, Refusal> {
    let Some(value) = operand.value() else {
        return Ok(None);
    };
    let own = elements(b, value)?;
    let x = b.read_broadcast(value, rank, layout)?;
    match (kind, own) {
        (Elements::Float, _) => as_float(b, x, own).map(Some),
        _ if own == kind => Ok(Some(bytes_of(b, x))),
        _ => Err(Refusal::dtype("branches of different types")),
    }
}

fn choose(node: &Node<'_>, b: &mut Builder<'_>, which: ValueIndex, pair: [Operand; 2]) -> Result<(), Refusal> {
    let out = node.output(0)?;
    let rank = b.image().value(out).rank();
    let layout = layout(b, &[Operand::Value(which), pair[0], pair[1]], out)?;
    let kind = elements(b, out)?;
    let condition = elements(b, which)?;
    let read = b.read_broadcast(which, rank, layout)?;
    let condition = truth(b, read, condition)?;
    let tensors = [
        branch(b, pair[0], kind, rank, layout)?,
        branch(b, pair[1], kind, rank, layout)?,
    ];
    let [x, y] = match (tensors, pair) {
        ([Some(x), Some(y)], _) => {
            let pair = (b.tensor(x).quantization.clone(), b.tensor(y).quantization.clone());
            if kind.is_fixed() && pair.0 != pair.1 {
                return Err(Refusal::quantization("branches of different scales"));
            }
            [x, y]
        }
        ([Some(x), None], [_, Operand::Number(number)]) => [x, number_in(b, number, x)?],
        ([None, Some(y)], [Operand::Number(number), _]) => [number_in(b, number, y)?, y],
        _ => return Err(Refusal::attribute("two numbers and no tensor")),
    };
    let result = b.choose(condition, x, y);
    match kind {
        Elements::Bool => {
            let written = b.write(out, layout)?;
            b.op("Cast", Vec::new(), &[result], &[written]);
            Ok(())
        }
        _ => same(b, result, out, layout),
    }
}

/// One triangle of matrices; the other is 0.
fn triangle(node: &Node<'_>, b: &mut Builder<'_>, keeps: fn(i64, i64, i64) -> bool) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let diagonal = node.int(1)?;
    let kind = elements(b, x)?;
    if kind == Elements::Bool {
        return Err(Refusal::dtype("booleans"));
    }
    let dims = b.dims(x)?;
    let [.., rows, columns] = dims[..] else {
        return Err(Refusal::shape("fewer than two dimensions"));
    };
    let read = b.read(x, Layout::RowMajor)?;
    let places = (0..i64::from(rows)).flat_map(|row| (0..i64::from(columns)).map(move |column| (row, column)));
    let mask: Vec<u8> = places
        .map(|(row, column)| u8::from(keeps(row, column, diagonal)))
        .collect();
    let mask = b.fixed(DataType::Bool, &[rows, columns], Quantization::None, mask);
    let zero = number_in(b, 0.0, read)?;
    let result = b.choose(mask, read, zero);
    same(b, result, out, Layout::RowMajor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beside_f16_keep_the_answer() {
        // 0.1 lies between 0x2e66 and 0x2e67.
        let (low, high) = (f16::from_bits(0x2e66).to_f64(), f16::from_bits(0x2e67).to_f64());
        assert!(low < 0.1 && 0.1 < high);
        assert_eq!((beside(0.1, -1), beside(0.1, 1)), (low, high));
        assert_eq!((beside(-0.1, -1), beside(-0.1, 1)), (-high, -low));
        assert_eq!((beside(0.5, -1), beside(0.5, 1)), (0.5, 0.5));
        assert_eq!(beside(1e-9, 1), f16::from_bits(1).to_f64());
        assert_eq!(beside(-1e-9, -1), f16::from_bits(0x8001).to_f64());
        assert_eq!((beside(1e6, -1), beside(1e6, 1)), (65504.0, f64::INFINITY));
    }
}
