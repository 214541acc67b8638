//! Softmax in integers: exponentials from a table of 16 bits, a sum of 32, and a division by a normalized sum, which is a table too.
//!
//! With `e` the exponentials (22 bits) and `s` their sum, `s << (c - 1)` with `c` leading zeros is at least 2^30, and its reciprocal is a smooth
//! function of its upper bits. `e / s` is exact to about 14 bits.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_sdk::arguments::Arguments;

/// Entries of a table of 16 bits: one every 128 integers, and one behind the last.
const KNOTS: i64 = 513;
/// Bits that a result of such a table has behind those of its entries.
const BETWEEN: u32 = 7;
/// Bits behind the point of the quotient.
const QUOTIENT: u32 = 16;
/// Longest row whose exponentials have a sum of 31 bits.
const LONGEST: i32 = 511;

/// A table of 16 bits over all integers of 16 bits; results have 23.
fn table(b: &mut Builder<'_>, x: usize, f: impl Fn(f64) -> f64) -> usize {
    let entry = |k: i64| f(((k << BETWEEN) - 32768) as f64).round().clamp(-32768.0, 32767.0) as i64;
    let entries: Vec<i64> = (0..KNOTS).map(entry).collect();
    let entries = b.integers(DType::Int16, &entries);
    let shape = b.shape_of(x);
    b.op(Op::Table, Attribute::Plain, &[x, entries], DType::Int32, &shape)
}

/// A constant of as many dimensions as a tensor has.
fn number(b: &mut Builder<'_>, rank: usize, value: i64) -> usize {
    b.constant(DType::Int32, &vec![1; rank], (value as i32).to_le_bytes().to_vec())
}

fn softmax(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let shape = b.dims(x)?;
    let rank = shape.len();
    let axis = node.dim(1, rank)?;
    if axis != rank - 1 {
        return Err(Refusal::attribute("softmax over another dimension than the last"));
    }
    if (b.dtype(x)?, b.dtype(out)?) != (DType::Int8, DType::Int8) {
        return Err(Refusal::dtype("softmax of 16 bits"));
    }
    if shape[axis] > LONGEST {
        return Err(Refusal::shape(format!("softmax over more than {LONGEST} elements")));
    }
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    let mut row = shape.clone();
    row[axis] = 1;
    let tensor = b.read(x)?;
    let top = b.op(
        Op::ReduceMax,
        Attribute::AxisNan(axis as i32),
        &[tensor],
        DType::Int8,
        &row,
    );
    // How far below the top, from 0 to 255, each on an entry of the table: its integers of 16 bits are 128 apart.
    let wide = b.rescale(tensor, &[1.0], 0, DType::Int32, 0)?;
    let top = b.rescale(top, &[1.0], 0, DType::Int32, 0)?;
    let below = b.op(Op::Sub, Attribute::Plain, &[wide, top], DType::Int32, &shape);
    let below = b.rescale(below, &[128.0], 0, DType::Int16, 0)?;
    let scale = from.scale;
    let powers = table(b, below, |v| 32767.0 * (v / 128.0 * scale).min(0.0).exp());
    let sum = b.op(
        Op::ReduceSum,
        Attribute::Axis(axis as i32),
        &[powers],
        DType::Int32,
        &row,
    );
    let zeros = b.op(Op::Clz, Attribute::Plain, &[sum], DType::Int32, &row);
    let one = number(b, rank, 1);
    let up = b.op(Op::Sub, Attribute::Plain, &[zeros, one], DType::Int32, &row);
    let normal = b.op(Op::LogicalLeftShift, Attribute::Plain, &[sum, up], DType::Int32, &row);
    // Its upper 16 bits are from 32768 to 65535: less the middle, they are a table's.
    let upper = b.rescale(normal, &[1.0 / 32768.0], 0, DType::Int32, 0)?;
    let middle = number(b, rank, 49152);
    let upper = b.op(Op::Sub, Attribute::Plain, &[upper, middle], DType::Int32, &row);
    let upper = b.rescale(upper, &[1.0], 0, DType::Int16, 0)?;
    // 2^52 over the normalized sum, of 22 bits.
    let reciprocal = table(b, upper, |v| 32768.0 * 32768.0 / (v + 49152.0).max(32768.0));
    let shift = b.integers(DType::Int8, &[20]);
    let product = b.op(
        Op::Mul,
        Attribute::Plain,
        &[powers, reciprocal, shift],
        DType::Int32,
        &shape,
    );
    let most = number(b, rank, 33 - i64::from(QUOTIENT));
    let down = b.op(Op::Sub, Attribute::Plain, &[most, zeros], DType::Int32, &row);
    let quotient = b.op(
        Op::ArithmeticRightShift,
        Attribute::Rounded,
        &[product, down],
        DType::Int32,
        &shape,
    );
    b.finish_sums(out, quotient, &[1.0 / (to.scale * f64::from(1 << QUOTIENT))])
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::softmax.int",
        lower: softmax,
    },
    Operator {
        name: "aten::_softmax",
        lower: softmax,
    },
];
