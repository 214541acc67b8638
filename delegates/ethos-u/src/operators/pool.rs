//! Pools over height and width.

use crate::builder::{Builder, Scale};
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
    if bottom >= kernel[0] || right >= kernel[1] {
        return Err(Refusal::shape("a window in the padding only"));
    }
    Ok(Window {
        kernel,
        stride,
        pad: [pad[0], bottom.max(0), pad[1], right.max(0)],
    })
}

impl Window {
    /// The input, without what no window reaches: TOSA wants windows that end where the input does.
    fn read(&self, x: ValueIndex, out: ValueIndex, b: &mut Builder<'_>) -> Result<usize, Refusal> {
        let (tensor, shape) = (b.read(x)?, b.dims(out)?);
        let mut dims = b.shape_of(tensor);
        for (i, dim) in [1, 2].into_iter().enumerate() {
            let pads = self.pad[2 * i] + self.pad[2 * i + 1];
            dims[dim] = dims[dim].min((shape[dim] - 1) * self.stride[i] + self.kernel[i] - pads);
        }
        Ok(b.sliced(tensor, &[0; 4], &dims))
    }
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
    let tensor = window.read(x, out, b)?;
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
    let (x, out) = (node.value(0)?, node.output(0)?);
    let pad = two(&node.ints(3)?)?;
    let count = window.kernel[0] * window.kernel[1];
    let divisor = match node.is_none(6) {
        true => count,
        false => i32::try_from(node.int(6)?).map_err(|_| Refusal::attribute("a divisor beyond 32 bits"))?,
    };
    let is_padded = window.pad.iter().any(|p| *p > 0);
    if !is_padded || (node.bool(5)? || !node.is_none(6)) && window.pad[1] <= pad[0] && window.pad[3] <= pad[1] {
        return means(x, out, window, divisor, b);
    }
    if node.bool(5)? && pad != [0; 2] {
        return Err(Refusal::attribute("a window that reaches beyond padding which counts in a mean"));
    }
    if !node.is_none(6) {
        return Err(Refusal::attribute("a divisor of its own, of windows beyond the padding"));
    }
    // Of how many elements a mean is depends on its place.
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    if (from.scale, from.zero_point) != (to.scale, to.zero_point) {
        return Err(Refusal::quantization("a mean in another scale, of windows that are cut off"));
    }
    is_often_half(count, from, to)?;
    let tensor = window.read(x, out, b)?;
    let (dtype, shape) = (b.type_of(tensor), b.dims(out)?);
    let zero = [b.integers(dtype, &[from.zero_point]), b.integers(dtype, &[from.zero_point])];
    let attribute = Attribute::AvgPool {
        kernel: window.kernel,
        stride: window.stride,
        pad: window.pad,
        accumulator: DType::Int32,
    };
    let made = b.op(Op::AvgPool2d, attribute, &[tensor, zero[0], zero[1]], dtype, &shape);
    b.finish_plain(out, made)
}

/// Sums of so many integers are a half above a mean in one of as many cases, where scales are the same. Every other one of these is a step off,
/// since the definition goes to even: where that would be more than one result in forty, the mean is left to others.
fn is_often_half(count: i32, from: Scale, to: Scale) -> Result<(), Refusal> {
    match from.scale == to.scale && count % 2 == 0 && count < 20 {
        true => Err(Refusal::attribute(
            "a mean that is often a half, which would be rounded upwards",
        )),
        false => Ok(()),
    }
}

/// Means of windows: a depthwise layer of ones gives their sums, exactly, and they are rounded once.
fn means(x: ValueIndex, out: ValueIndex, window: Window, divisor: i32, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    if divisor == 0 {
        return Err(Refusal::attribute("a divisor of 0"));
    }
    is_often_half(divisor, from, to)?;
    let tensor = window.read(x, out, b)?;
    let (dtype, dims, shape) = (b.type_of(tensor), b.shape_of(tensor), b.dims(out)?);
    let (depth, [h, w]) = (dims[3], window.kernel);
    let sums = if dtype == DType::Int8 { DType::Int32 } else { DType::Int48 };
    let inputs = [
        tensor,
        b.constant(DType::Int8, &[h, w, depth, 1], vec![1; (h * w * depth) as usize]),
        b.integers(sums, &vec![0; depth as usize]),
        b.integers(dtype, &[from.zero_point]),
        b.integers(DType::Int8, &[0]),
    ];
    let attribute = Attribute::Conv {
        pad: window.pad,
        stride: window.stride,
        dilation: [1; 2],
        accumulator: sums,
    };
    let made = b.op(Op::DepthwiseConv2d, attribute, &inputs, sums, &shape);
    b.finish_sums(out, made, &[from.scale / f64::from(divisor) / to.scale])
}

/// Sums over whole dimensions, exact, and divided by a number.
fn whole(x: ValueIndex, out: ValueIndex, dims: &[usize], mean: bool, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    let sizes = b.dims(x)?;
    let count: i32 = dims.iter().map(|dim| sizes[*dim]).product();
    if b.dtype(x)? == DType::Int16 && count > 1 << 15 {
        return Err(Refusal::shape("a sum of 16 bits over more than 32768 elements"));
    }
    let divisor = match mean {
        true => {
            is_often_half(count, from, to)?;
            f64::from(count)
        }
        false => 1.0,
    };
    let mut tensor = b.widened(x, 1.0)?;
    for dim in dims {
        tensor = b.summed(tensor, *dim);
    }
    b.finish_sums(out, tensor, &[from.scale / divisor / to.scale])
}

fn adaptive(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let (x_dims, out_dims) = (b.dims(x)?, b.dims(out)?);
    if x_dims.len() != 4 || b.image().normal_form() != 1 {
        return Err(Refusal::shape("a pool of another number of dimensions than two"));
    }
    if out_dims[1] == 1 && out_dims[2] == 1 {
        return whole(x, out, &[1, 2], true, b);
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
    means(x, out, window, kernel[0] * kernel[1], b)
}

/// `mean` and `sum` over dimensions; over all of them where none is named.
fn reduce(node: &Arguments<'_>, b: &mut Builder<'_>, mean: bool) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.dims(x)?.len();
    let mut dims: Vec<usize> = Vec::new();
    for dim in node.optional_ints(1)?.unwrap_or_default() {
        dims.push(delegraph_sdk::arguments::wrap(dim, rank)?);
    }
    if dims.is_empty() {
        dims = (0..rank).collect();
    }
    dims.sort_unstable();
    dims.dedup();
    whole(x, out, &dims, mean, b)
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::max_pool2d",
        lower: max_pool,
    },
    Operator {
        name: "aten::max_pool2d_with_indices",
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
        lower: |n, b| reduce(n, b, true),
    },
    Operator {
        name: "aten::sum.dim_IntList",
        lower: |n, b| reduce(n, b, false),
    },
];
