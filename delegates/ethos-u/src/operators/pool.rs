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
        return Err(Refusal::attribute(
            "a window that reaches beyond padding which counts in a mean",
        ));
    }
    if !node.is_none(6) {
        return Err(Refusal::attribute(
            "a divisor of its own, of windows beyond the padding",
        ));
    }
    // Of how many elements a mean is depends on its place.
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    if (from.scale, from.zero_point) != (to.scale, to.zero_point) {
        return Err(Refusal::quantization(
            "a mean in another scale, of windows that are cut off",
        ));
    }
    if is_half(count, from, to) && count < 20 {
        // One result in forty would be a step off.
        return Err(Refusal::attribute(
            "a mean of windows that are cut off, which is often a half and would be rounded upwards",
        ));
    }
    let tensor = window.read(x, out, b)?;
    let (dtype, shape) = (b.type_of(tensor), b.dims(out)?);
    let zero = [
        b.integers(dtype, &[from.zero_point]),
        b.integers(dtype, &[from.zero_point]),
    ];
    let attribute = Attribute::AvgPool {
        kernel: window.kernel,
        stride: window.stride,
        pad: window.pad,
        accumulator: DType::Int32,
    };
    let made = b.op(Op::AvgPool2d, attribute, &[tensor, zero[0], zero[1]], dtype, &shape);
    b.finish_plain(out, made)
}

/// Sums of so many integers are a half above a mean in one of as many cases, where scales are the same.
fn is_half(count: i32, from: Scale, to: Scale) -> bool {
    from.scale == to.scale && count % 2 == 0
}

/// Sums become means of so many elements. Halves go to the even integer, as the definition has it, where they occur: `RESCALE` rounds them upwards,
/// so that what is above an even integer has to be a little less before.
fn divided(
    out: ValueIndex,
    sums: usize,
    count: i32,
    [from, to]: [Scale; 2],
    b: &mut Builder<'_>,
) -> Result<(), Refusal> {
    if !is_half(count, from, to) || b.type_of(sums) != DType::Int32 {
        return b.finish_sums(out, sums, &[from.scale / f64::from(count) / to.scale]);
    }
    // PyTorch's own f32 decides halves by chance, unless steps are powers of two: where that is more than one result in forty, the mean is left to
    // others.
    if count < 20 && from.scale.log2().fract() != 0.0 {
        return Err(Refusal::attribute("a mean that is often a half"));
    }
    let rank = b.shape_of(sums).len();
    let half = 1.0 / f64::from(2 * count);
    // The integers below, and whether they are odd.
    let twice = b.pair(Op::Add, sums, sums);
    let less = b.number(rank, i64::from(1 - count));
    let below = b.pair(Op::Add, twice, less);
    let below = b.rescale(below, &[half], 0, DType::Int32, 0)?;
    let below = b.pair(Op::Add, below, below);
    let one = b.number(rank, -1);
    let even = b.pair(Op::Add, below, one);
    let even = b.rescale(even, &[0.25], 0, DType::Int32, 0)?;
    let even = b.pair(Op::Add, even, even);
    let even = b.pair(Op::Add, even, even);
    let odd = b.pair(Op::Sub, below, even);
    let twice = b.pair(Op::Add, twice, one);
    let twice = b.pair(Op::Add, twice, odd);
    b.finish_sums(out, twice, &[half])
}

/// Means of windows: a depthwise layer of ones gives their sums, exactly, and they are rounded once.
fn means(x: ValueIndex, out: ValueIndex, window: Window, divisor: i32, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    if divisor < 1 {
        return Err(Refusal::attribute(format!("a divisor of {divisor}")));
    }
    let tensor = window.read(x, out, b)?;
    let (dtype, dims, shape) = (b.type_of(tensor), b.shape_of(tensor), b.dims(out)?);
    let (depth, [h, w]) = (dims[3], window.kernel);
    let sums = if dtype == DType::Int8 {
        DType::Int32
    } else {
        DType::Int48
    };
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
    divided(out, made, divisor, [from, to], b)
}

/// Sums over whole dimensions, exact, and divided by a number.
fn whole(x: ValueIndex, out: ValueIndex, dims: &[usize], mean: bool, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    let sizes = b.dims(x)?;
    let count: i32 = dims.iter().map(|dim| sizes[*dim]).product();
    if b.dtype(x)? == DType::Int16 && count > 1 << 15 {
        return Err(Refusal::shape("a sum of 16 bits over more than 32768 elements"));
    }
    let mut tensor = b.widened(x, 1.0)?;
    for dim in dims {
        tensor = b.summed(tensor, *dim);
    }
    divided(out, tensor, if mean { count } else { 1 }, [from, to], b)
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
