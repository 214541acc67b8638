//! Elements in another order, under other sizes, beside each other.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, Op};
use delegraph_sdk::arguments::{Arguments, wrap};
use delegraph_sdk::image::ValueIndex;

/// Moves have one scale for all that they read and give.
pub fn same_scale(b: &Builder<'_>, x: ValueIndex, out: ValueIndex) -> Result<(), Refusal> {
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    match (from.scale, from.zero_point) == (to.scale, to.zero_point) {
        true => Ok(()),
        false => Err(Refusal::quantization("a move to another scale")),
    }
}

/// Pieces of which a tensor is put together.
const PIECES: usize = 128;

/// Picks of a dimension, as repetitions where they are, or as pieces.
///
/// # Errors
/// More pieces than are put together.
pub fn picked(b: &mut Builder<'_>, tensor: usize, axis: usize, indices: &[i32]) -> Result<usize, Refusal> {
    let shape = b.shape_of(tensor);
    let (own, count) = (shape[axis], indices.len() as i32);
    let repeats = count / own.max(1);
    if repeats * own == count && indices.iter().enumerate().all(|(i, at)| i as i32 / repeats == *at) {
        let before = shape[..=axis].iter().product();
        let behind: i32 = shape[axis + 1..].iter().product();
        let rows = b.reshaped(tensor, &[before, 1, behind])?;
        let rows = b.tiled(rows, &[1, repeats, 1]);
        let mut wide = shape;
        wide[axis] = count;
        return b.reshaped(rows, &wide);
    }
    // Runs of neighbours are one piece.
    let mut runs: Vec<[i32; 2]> = Vec::new();
    for at in indices {
        match runs.last_mut() {
            Some([start, length]) if *start + *length == *at => *length += 1,
            _ => runs.push([*at, 1]),
        }
    }
    if runs.len() > PIECES {
        return Err(Refusal::shape(format!("more than {PIECES} pieces of a tensor")));
    }
    let mut pieces = Vec::new();
    for [start, length] in runs {
        let (mut begin, mut size) = (vec![0; shape.len()], shape.clone());
        (begin[axis], size[axis]) = (start, length);
        pieces.push(b.sliced(tensor, &begin, &size));
    }
    Ok(b.joined(&pieces, axis))
}

fn reshape(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let tensor = b.read(x)?;
    let shape = b.dims(out)?;
    let made = b.reshaped(tensor, &shape)?;
    b.finish_plain(out, made)
}

fn transposed(b: &mut Builder<'_>, x: ValueIndex, out: ValueIndex, order: &[usize]) -> Result<(), Refusal> {
    same_scale(b, x, out)?;
    let tensor = b.read(x)?;
    let made = b.transposed(tensor, order);
    b.finish_plain(out, made)
}

fn permute(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.dims(x)?.len();
    let mut order = Vec::new();
    for dim in node.ints(1)? {
        order.push(wrap(dim, rank)?);
    }
    transposed(b, x, out, &order)
}

/// Two dimensions change places.
fn swapped(b: &mut Builder<'_>, x: ValueIndex, out: ValueIndex, [a, c]: [usize; 2]) -> Result<(), Refusal> {
    let mut order: Vec<usize> = (0..b.dims(x)?.len()).collect();
    order.swap(a, c);
    transposed(b, x, out, &order)
}

fn transpose(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let x = node.value(0)?;
    let rank = b.dims(x)?.len();
    swapped(b, x, node.output(0)?, [node.dim(1, rank)?, node.dim(2, rank)?])
}

fn t(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let x = node.value(0)?;
    match b.dims(x)?.len() {
        2 => swapped(b, x, node.output(0)?, [0, 1]),
        _ => reshape(node, b),
    }
}

fn cat(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (values, out) = (node.values(0)?, node.output(0)?);
    let axis = node.dim(1, b.dims(out)?.len())?;
    let mut tensors = Vec::new();
    for value in values {
        same_scale(b, value, out)?;
        tensors.push(b.read(value)?);
    }
    let made = b.joined(&tensors, axis);
    b.finish_plain(out, made)
}

fn stack(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (values, out) = (node.values(0)?, node.output(0)?);
    let mut shape = b.dims(out)?;
    let axis = node.dim(1, shape.len())?;
    shape[axis] = 1;
    let mut tensors = Vec::new();
    for value in values {
        same_scale(b, value, out)?;
        let tensor = b.read(value)?;
        tensors.push(b.reshaped(tensor, &shape)?);
    }
    let made = b.joined(&tensors, axis);
    b.finish_plain(out, made)
}

/// Elements of one dimension from an index on.
fn window(b: &mut Builder<'_>, x: ValueIndex, out: ValueIndex, axis: usize, start: i64) -> Result<(), Refusal> {
    same_scale(b, x, out)?;
    let dims = b.dims(x)?;
    let kept = b.dims(out)?;
    let mut sizes = dims.clone();
    // What `select` gives has a dimension less.
    sizes[axis] = if kept.len() == dims.len() { kept[axis] } else { 1 };
    let start = if start < 0 {
        start + i64::from(dims[axis])
    } else {
        start
    };
    let start = start.clamp(0, i64::from(dims[axis] - sizes[axis]));
    let mut begin = vec![0; dims.len()];
    begin[axis] = start as i32;
    let tensor = b.read(x)?;
    let made = b.sliced(tensor, &begin, &sizes);
    b.finish_plain(out, made)
}

fn slice(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let x = node.value(0)?;
    let out = node.output(0)?;
    let axis = node.dim(1, b.dims(x)?.len())?;
    let start = node.optional_scalar(2)?.map_or(0, |start| start.int());
    let step = node.int(4)?;
    if step == 1 {
        return window(b, x, out, axis, start);
    }
    same_scale(b, x, out)?;
    let size = i64::from(b.dims(x)?[axis]);
    let start = (if start < 0 { start + size } else { start }).clamp(0, size);
    let count = i64::from(b.dims(out)?[axis]);
    let indices: Vec<i32> = (0..count).map(|i| (start + i * step) as i32).collect();
    let tensor = b.read(x)?;
    let made = picked(b, tensor, axis, &indices)?;
    b.finish_plain(out, made)
}

/// `select` and `narrow`: a dimension, and where to begin.
fn narrow(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let x = node.value(0)?;
    let axis = node.dim(1, b.dims(x)?.len())?;
    window(b, x, node.output(0)?, axis, node.int(2)?)
}

/// Whole repetitions: of dimensions of one element, or of all of them.
fn repeat(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let (dims, shape) = (b.dims(x)?, b.dims(out)?);
    let mut wide = vec![1; shape.len() - dims.len().min(shape.len())];
    wide.extend(dims);
    let tensor = b.read(x)?;
    let tensor = b.reshaped(tensor, &wide)?;
    let times: Vec<i32> = shape.iter().zip(&wide).map(|(to, from)| to / from).collect();
    let made = b.tiled(tensor, &times);
    b.finish_plain(out, made)
}

fn flip(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let shape = b.dims(x)?;
    let mut tensor = b.read(x)?;
    for dim in node.ints(1)? {
        let axis = wrap(dim, shape.len())?;
        let backwards: Vec<i32> = (0..shape[axis]).rev().collect();
        tensor = picked(b, tensor, axis, &backwards)?;
    }
    b.finish_plain(out, tensor)
}

/// Pads by pairs from the last dimension on; a negative one leaves elements out.
fn pad(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let (scale, dtype) = (b.scale(x)?, b.dtype(x)?);
    let value = (node.scalar(2)?.float() / scale.scale).round_ties_even() + scale.zero_point as f64;
    if !(scale.low as f64..=scale.high as f64).contains(&value) {
        return Err(Refusal::quantization("padding with a number beyond the scale"));
    }
    let mut tensor = b.read(x)?;
    let (mut start, mut kept) = (vec![0; b.shape_of(tensor).len()], b.shape_of(tensor));
    let mut pads = vec![0; 2 * kept.len()];
    for (i, pair) in node.ints(1)?.as_chunks::<2>().0.iter().enumerate() {
        let Some(dim) = kept.len().checked_sub(i + 1) else {
            return Err(Refusal::attribute("padding of more dimensions than there are"));
        };
        for (side, amount) in pair.iter().enumerate() {
            let amount = i32::try_from(*amount).map_err(|_| Refusal::attribute("padding beyond 32 bits"))?;
            pads[2 * dim + side] = amount.max(0);
            kept[dim] += amount.min(0);
            start[dim] -= if side == 0 { amount.min(0) } else { 0 };
        }
    }
    if kept.iter().any(|d| *d <= 0) {
        return Err(Refusal::shape("padding that leaves nothing of a tensor"));
    }
    tensor = b.sliced(tensor, &start, &kept);
    if pads.iter().any(|p| *p > 0) {
        let shape = b.dims(out)?;
        let inputs = [tensor, b.shape(&pads), b.integers(dtype, &[value as i64])];
        tensor = b.op(Op::Pad, Attribute::Plain, &inputs, dtype, &shape);
    }
    b.finish_plain(out, tensor)
}

/// `[N, C * r * r, H, W]` to `[N, C, H * r, W * r]`. Elements of a pixel are brought together first: orders of three and four dimensions are what
/// Vela is quick with.
fn pixel_shuffle(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let (dims, shape) = (b.dims(x)?, b.dims(out)?);
    let (&[n, _, h, w], &[_, channels, rows, columns]) = (&dims[..], &shape[..]) else {
        return Err(Refusal::shape(
            "pixels of a tensor of another number of dimensions than four",
        ));
    };
    let r = node.int(1)? as i32;
    let tensor = b.read(x)?;
    let tensor = b.transposed(tensor, &[0, 2, 3, 1]);
    let tensor = b.reshaped(tensor, &[n * h * w, channels, r * r])?;
    let tensor = b.transposed(tensor, &[0, 2, 1]);
    let tensor = b.reshaped(tensor, &[n * h, w, r, r * channels])?;
    let tensor = b.transposed(tensor, &[0, 2, 1, 3]);
    let tensor = b.reshaped(tensor, &[n, rows, columns, channels])?;
    let made = b.transposed(tensor, &[0, 3, 1, 2]);
    b.finish_plain(out, made)
}

/// The largest or smallest of some dimensions.
fn extreme(node: &Arguments<'_>, b: &mut Builder<'_>, op: Op) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let mut shape = b.dims(x)?;
    let dims = match node.ints(1)? {
        all if all.is_empty() => (0..shape.len() as i64).collect(),
        some => some,
    };
    let mut tensor = b.read(x)?;
    let dtype = b.type_of(tensor);
    for dim in dims {
        let axis = wrap(dim, shape.len())?;
        shape[axis] = 1;
        tensor = b.op(op, Attribute::AxisNan(axis as i32), &[tensor], dtype, &shape);
    }
    b.finish_plain(out, tensor)
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::view", reshape),
    row("aten::reshape", reshape),
    row("aten::_unsafe_view", reshape),
    row("aten::flatten.using_ints", reshape),
    row("aten::unflatten.int", reshape),
    row("aten::squeeze", reshape),
    row("aten::squeeze.dim", reshape),
    row("aten::squeeze.dims", reshape),
    row("aten::unsqueeze", reshape),
    row("aten::clone", reshape),
    row("aten::contiguous", reshape),
    row("aten::alias", reshape),
    row("aten::permute", permute),
    row("aten::transpose.int", transpose),
    row("aten::t", t),
    row("aten::cat", cat),
    row("aten::stack", stack),
    row("aten::slice.Tensor", slice),
    row("aten::select.int", narrow),
    row("aten::narrow", narrow),
    row("aten::expand", repeat),
    row("aten::repeat", repeat),
    row("aten::flip", flip),
    row("aten::constant_pad_nd", pad),
    row("aten::pixel_shuffle", pixel_shuffle),
    row("aten::amax", |n, b| extreme(n, b, Op::ReduceMax)),
    row("aten::amin", |n, b| extreme(n, b, Op::ReduceMin)),
];

const fn row(name: &'static str, lower: fn(&Arguments<'_>, &mut Builder<'_>) -> Result<(), Refusal>) -> Operator {
    Operator { name, lower }
}
