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
pub fn table(b: &mut Builder<'_>, x: usize, f: impl Fn(f64) -> f64) -> usize {
    let entry = |k: i64| f(((k << BETWEEN) - 32768) as f64).round().clamp(-32768.0, 32767.0) as i64;
    let entries: Vec<i64> = (0..KNOTS).map(entry).collect();
    let entries = b.integers(DType::Int16, &entries);
    let shape = b.shape_of(x);
    b.op(Op::Table, Attribute::Plain, &[x, entries], DType::Int32, &shape)
}

fn softmax(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.dims(x)?.len();
    let axis = node.dim(1, rank)?;
    if (b.dtype(x)?, b.dtype(out)?) != (DType::Int8, DType::Int8) {
        return Err(Refusal::dtype("softmax of 16 bits"));
    }
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    // Over the last dimension, and back.
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(axis, rank - 1);
    let tensor = b.read(x)?;
    let tensor = b.transposed(tensor, &order);
    let axis = rank - 1;
    let mut row = b.shape_of(tensor);
    if row[axis] > LONGEST {
        return Err(Refusal::shape(format!("softmax over more than {LONGEST} elements")));
    }
    row[axis] = 1;
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
    let below = b.pair(Op::Sub, wide, top);
    let below = b.rescale(below, &[128.0], 0, DType::Int16, 0)?;
    let scale = from.scale;
    let powers = table(b, below, |v| 32767.0 * (v / 128.0 * scale).min(0.0).exp());
    let sum = b.summed(powers, axis);
    let zeros = b.op(Op::Clz, Attribute::Plain, &[sum], DType::Int32, &row);
    let one = b.number(rank, 1);
    let up = b.pair(Op::Sub, zeros, one);
    let normal = b.pair(Op::LogicalLeftShift, sum, up);
    // Its upper 16 bits are from 32768 to 65535: less the middle, they are a table's.
    let upper = b.rescale(normal, &[1.0 / 32768.0], 0, DType::Int32, 0)?;
    let middle = b.number(rank, 49152);
    let upper = b.pair(Op::Sub, upper, middle);
    let upper = b.rescale(upper, &[1.0], 0, DType::Int16, 0)?;
    // 2^52 over the normalized sum, of 22 bits.
    let reciprocal = table(b, upper, |v| 32768.0 * 32768.0 / (v + 49152.0).max(32768.0));
    let product = b.product(powers, reciprocal, 20);
    let most = b.number(rank, 33 - i64::from(QUOTIENT));
    let down = b.op(Op::Sub, Attribute::Plain, &[most, zeros], DType::Int32, &row);
    let shape = b.shape_of(product);
    let quotient = b.op(
        Op::ArithmeticRightShift,
        Attribute::Rounded,
        &[product, down],
        DType::Int32,
        &shape,
    );
    let (dtype, zero) = (b.dtype(out)?, to.zero_point);
    let factor = 1.0 / (to.scale * f64::from(1 << QUOTIENT));
    let made = b.rescale(quotient, &[factor], 0, dtype, zero)?;
    let made = b.transposed(made, &order);
    b.finish_plain(out, made)
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
