//! Elements in another order, under other sizes, beside each other.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, Op};
use delegraph_sdk::arguments::{Arguments, wrap};
use delegraph_sdk::image::ValueIndex;

/// Moves have one scale for all that they read and give.
fn same_scale(b: &Builder<'_>, x: ValueIndex, out: ValueIndex) -> Result<(), Refusal> {
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    match (from.scale, from.zero_point) == (to.scale, to.zero_point) {
        true => Ok(()),
        false => Err(Refusal::quantization("a move to another scale")),
    }
}

fn reshape(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let tensor = b.read(x)?;
    let shape = b.dims(out)?;
    let made = b.reshaped(tensor, &shape)?;
    b.finish_plain(out, made)
}

fn transposed(b: &mut Builder<'_>, x: ValueIndex, out: ValueIndex, order: Vec<i32>) -> Result<(), Refusal> {
    same_scale(b, x, out)?;
    let tensor = b.read(x)?;
    let (dtype, shape) = (b.type_of(tensor), b.dims(out)?);
    let made = b.op(Op::Transpose, Attribute::Transpose(order), &[tensor], dtype, &shape);
    b.finish_plain(out, made)
}

fn permute(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.dims(x)?.len();
    let mut order = Vec::new();
    for dim in node.ints(1)? {
        order.push(wrap(dim, rank)? as i32);
    }
    transposed(b, x, out, order)
}

fn transpose(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.dims(x)?.len();
    let mut order: Vec<i32> = (0..rank as i32).collect();
    order.swap(node.dim(1, rank)?, node.dim(2, rank)?);
    transposed(b, x, out, order)
}

fn cat(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (values, out) = (node.values(0)?, node.output(0)?);
    let shape = b.dims(out)?;
    let axis = node.dim(1, shape.len())?;
    let mut tensors = Vec::new();
    for value in values {
        same_scale(b, value, out)?;
        tensors.push(b.read(value)?);
    }
    let dtype = b.dtype(out)?;
    let made = b.op(Op::Concat, Attribute::Axis(axis as i32), &tensors, dtype, &shape);
    b.finish_plain(out, made)
}

fn slice(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let (dims, shape) = (b.dims(x)?, b.dims(out)?);
    if node.int(4)? != 1 {
        return Err(Refusal::attribute("a slice with steps"));
    }
    let axis = node.dim(1, dims.len())?;
    let size = i64::from(dims[axis]);
    let start = match node.optional_scalar(2)? {
        None => 0,
        Some(start) => {
            let start = start.int();
            (if start < 0 { start + size } else { start }).clamp(0, size)
        }
    };
    let mut begin = vec![0; dims.len()];
    begin[axis] = start as i32;
    let (begin, sizes) = (b.shape(&begin), b.shape(&shape));
    let tensor = b.read(x)?;
    let dtype = b.type_of(tensor);
    let made = b.op(Op::Slice, Attribute::Plain, &[tensor, begin, sizes], dtype, &shape);
    b.finish_plain(out, made)
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::view", reshape),
    row("aten::reshape", reshape),
    row("aten::flatten.using_ints", reshape),
    row("aten::squeeze.dim", reshape),
    row("aten::squeeze.dims", reshape),
    row("aten::unsqueeze", reshape),
    row("aten::clone", reshape),
    row("aten::permute", permute),
    row("aten::transpose.int", transpose),
    row("aten::cat", cat),
    row("aten::slice.Tensor", slice),
];

const fn row(name: &'static str, lower: fn(&Arguments<'_>, &mut Builder<'_>) -> Result<(), Refusal>) -> Operator {
    Operator { name, lower }
}
