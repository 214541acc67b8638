//! Pools over height and width.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::ValueIndex;

/// The window of a pool, as TOSA wants it: it ends where the input does.
struct Window {
    kernel: [i32; 2],
    stride: [i32; 2],
    pad: [i32; 4],
}

fn two(list: &[i64]) -> Result<[i32; 2], Refusal> {
    match list {
        [both] => Ok([*both as i32; 2]),
        [y, x] => Ok([*y as i32, *x as i32]),
        _ => Err(Refusal::shape("a window of another number of dimensions than two")),
    }
}

fn window(node: &Arguments<'_>, b: &Builder<'_>) -> Result<Window, Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let (x_dims, out_dims) = (b.dims(x)?, b.dims(out)?);
    if x_dims.len() != 4 || b.image().normal_form() != 1 {
        return Err(Refusal::shape("a pool of another number of dimensions than two"));
    }
    let kernel = two(&node.ints(1)?)?;
    let stride = match node.ints(2)? {
        list if list.is_empty() => kernel,
        list => two(&list)?,
    };
    let pad = two(&node.ints(3)?)?;
    let end = |i: usize| (out_dims[1 + i] - 1) * stride[i] + kernel[i] - pad[i] - x_dims[1 + i];
    let (bottom, right) = (end(0), end(1));
    if bottom < 0 || right < 0 {
        return Err(Refusal::shape("a pool that leaves input out"));
    }
    if bottom >= kernel[0] || right >= kernel[1] {
        return Err(Refusal::shape("a window in the padding only"));
    }
    Ok(Window {
        kernel,
        stride,
        pad: [pad[0], bottom, pad[1], right],
    })
}

fn max_pool(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    if node.ints(4)?.iter().any(|d| *d != 1) {
        return Err(Refusal::attribute("a dilated pool"));
    }
    let (x, out) = (node.value(0)?, node.output(0)?);
    let window = window(node, b)?;
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    if (from.scale, from.zero_point) != (to.scale, to.zero_point) {
        return Err(Refusal::quantization("a maximum in another scale than its input"));
    }
    let tensor = b.read(x)?;
    let attribute = Attribute::MaxPool {
        kernel: window.kernel,
        stride: window.stride,
        pad: window.pad,
    };
    let (dtype, shape) = (b.type_of(tensor), b.dims(out)?);
    let made = b.op(Op::MaxPool2d, attribute, &[tensor], dtype, &shape);
    b.finish_plain(out, made)
}

fn avg_pool(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let window = window(node, b)?;
    let padded = window.pad.iter().any(|p| *p > 0);
    if padded && node.bool(5)? {
        return Err(Refusal::attribute("padding that counts in a mean"));
    }
    if !node.is_none(6) {
        return Err(Refusal::attribute("a divisor of its own"));
    }
    average(node.value(0)?, node.output(0)?, window, b)
}

fn average(x: ValueIndex, out: ValueIndex, window: Window, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    let tensor = b.read(x)?;
    let dtype = b.type_of(tensor);
    let dims = b.shape_of(tensor);
    let out_shape = {
        let size = |i: usize| {
            (dims[1 + i] + window.pad[2 * i] + window.pad[2 * i + 1] - window.kernel[i]) / window.stride[i] + 1
        };
        [dims[0], size(0), size(1), dims[3]]
    };
    let zero = from.zero_point;
    let inputs = [tensor, b.integers(dtype, &[zero]), b.integers(dtype, &[zero])];
    let attribute = Attribute::AvgPool {
        kernel: window.kernel,
        stride: window.stride,
        pad: window.pad,
        accumulator: DType::Int32,
    };
    let made = b.op(Op::AvgPool2d, attribute, &inputs, dtype, &out_shape);
    if (from.scale, from.zero_point) == (to.scale, to.zero_point) {
        return b.finish_plain(out, made);
    }
    let target = b.dtype(out)?;
    let made = b.rescale(made, &[from.scale / to.scale], zero, target, to.zero_point)?;
    b.finish_plain(out, made)
}

/// A mean over height and width, exact in its sums: of one window a plane.
fn whole(x: ValueIndex, out: ValueIndex, dims: [usize; 2], b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    let mut tensor = b.widened(x, 1.0)?;
    let mut shape = b.shape_of(tensor);
    let mut count = 1;
    for dim in dims {
        count *= shape[dim];
        shape[dim] = 1;
        tensor = b.op(
            Op::ReduceSum,
            Attribute::Axis(dim as i32),
            &[tensor],
            DType::Int32,
            &shape,
        );
    }
    b.finish_sums(out, tensor, &[from.scale / f64::from(count) / to.scale])
}

fn adaptive(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let (x_dims, out_dims) = (b.dims(x)?, b.dims(out)?);
    if x_dims.len() != 4 || b.image().normal_form() != 1 {
        return Err(Refusal::shape("a pool of another number of dimensions than two"));
    }
    if out_dims[1] == 1 && out_dims[2] == 1 {
        return whole(x, out, [1, 2], b);
    }
    let kernel = [x_dims[1] / out_dims[1], x_dims[2] / out_dims[2]];
    if kernel[0] * out_dims[1] != x_dims[1] || kernel[1] * out_dims[2] != x_dims[2] {
        return Err(Refusal::shape("windows of different sizes"));
    }
    let window = Window {
        kernel,
        stride: kernel,
        pad: [0; 4],
    };
    average(x, out, window, b)
}

fn mean(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.dims(x)?.len();
    let mut dims: Vec<usize> = Vec::new();
    for dim in node.optional_ints(1)?.unwrap_or_default() {
        dims.push(delegraph_sdk::arguments::wrap(dim, rank)?);
    }
    dims.sort_unstable();
    match dims[..] {
        [a, c] => whole(x, out, [a, c], b),
        _ => Err(Refusal::attribute("a mean over another number of dimensions than two")),
    }
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::max_pool2d",
        lower: max_pool,
    },
    Operator {
        name: "aten::avg_pool2d",
        lower: avg_pool,
    },
    Operator {
        name: "aten::adaptive_avg_pool2d",
        lower: adaptive,
    },
    Operator {
        name: "aten::_adaptive_avg_pool2d",
        lower: adaptive,
    },
    Operator {
        name: "aten::mean.dim",
        lower: mean,
    },
];
