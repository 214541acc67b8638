//! Sums, differences, products, and the larger and smaller of two.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::ValueIndex;

/// Both operands in 32 bits with equal rank, each times its factor.
fn operands(
    b: &mut Builder<'_>,
    out: ValueIndex,
    (x, x_factor): (ValueIndex, f64),
    (y, y_factor): (ValueIndex, f64),
) -> Result<[usize; 2], Refusal> {
    let rank = b.dims(out)?.len();
    let mut both = [b.widened(x, x_factor)?, b.widened(y, y_factor)?];
    for tensor in &mut both {
        let shape = b.shape_of(*tensor);
        let mut wide = vec![1; rank - shape.len()];
        wide.extend(shape);
        *tensor = b.reshaped(*tensor, &wide)?;
    }
    Ok(both)
}

/// Bits that operands of a sum gain before it.
fn headroom(dtype: DType) -> f64 {
    match dtype {
        DType::Int8 => 2f64.powi(20),
        _ => 2f64.powi(13),
    }
}

fn sum(node: &Arguments<'_>, b: &mut Builder<'_>, op: Op) -> Result<(), Refusal> {
    if node.scalar(2)?.float() != 1.0 {
        return Err(Refusal::attribute("`alpha` is not 1"));
    }
    aligned(node, b, op, Attribute::Plain)
}

fn extreme(node: &Arguments<'_>, b: &mut Builder<'_>, op: Op) -> Result<(), Refusal> {
    aligned(node, b, op, Attribute::Nan)
}

/// Operands are brought to twice the larger of their steps, so that nothing overflows.
fn aligned(node: &Arguments<'_>, b: &mut Builder<'_>, op: Op, attribute: Attribute) -> Result<(), Refusal> {
    let (x, y, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let (sx, sy, so) = (b.scale(x)?.scale, b.scale(y)?.scale, b.scale(out)?.scale);
    let bits = headroom(b.dtype(x)?);
    let unit = 2.0 * sx.max(sy);
    let both = operands(b, out, (x, sx / unit * bits), (y, sy / unit * bits))?;
    let shape = b.dims(out)?;
    let made = b.op(op, attribute, &both, DType::Int32, &shape);
    b.finish_sums(out, made, &[unit / bits / so])
}

fn mul(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, y, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let (sx, sy, so) = (b.scale(x)?.scale, b.scale(y)?.scale, b.scale(out)?.scale);
    let [p, q] = operands(b, out, (x, 1.0), (y, 1.0))?;
    let shape = b.dims(out)?;
    let shift = b.integers(DType::Int8, &[0]);
    let made = b.op(Op::Mul, Attribute::Plain, &[p, q, shift], DType::Int32, &shape);
    b.finish_sums(out, made, &[sx * sy / so])
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::add.Tensor",
        lower: |n, b| sum(n, b, Op::Add),
    },
    Operator {
        name: "aten::sub.Tensor",
        lower: |n, b| sum(n, b, Op::Sub),
    },
    Operator {
        name: "aten::mul.Tensor",
        lower: mul,
    },
    Operator {
        name: "aten::maximum",
        lower: |n, b| extreme(n, b, Op::Maximum),
    },
    Operator {
        name: "aten::minimum",
        lower: |n, b| extreme(n, b, Op::Minimum),
    },
];
