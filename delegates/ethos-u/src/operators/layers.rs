//! Convolutions, fully connected layers and products of tensors.

use super::transposed::transposed;
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_ethos_u_sim::Product;
use delegraph_sdk::DType as Element;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::{Quant, ValueIndex};

/// What a layer is made of.
pub(super) struct Layer {
    pub(super) x: ValueIndex,
    pub(super) weight: ValueIndex,
    bias: Option<ValueIndex>,
    pub(super) out: ValueIndex,
    /// The scale of each output channel's weights.
    scales: Vec<f64>,
    /// Type of its sums.
    pub(super) sums: DType,
}

impl Layer {
    /// Of the values of a node; `axis` is the dimension of the weight that may have a scale an element, and `groups` how often these are repeated.
    pub(super) fn new(
        b: &Builder<'_>,
        [x, weight, out]: [ValueIndex; 3],
        bias: Option<ValueIndex>,
        axis: usize,
        groups: i32,
    ) -> Result<Layer, Refusal> {
        if !matches!(b.image().value(weight).dtype(), Some(Element::I8)) {
            return Err(Refusal::dtype("weights of another type than 8 signed bits"));
        }
        let sums = match (b.dtype(x)?, b.dtype(out)?) {
            (DType::Int8, DType::Int8) => DType::Int32,
            (DType::Int16, DType::Int16) => DType::Int48,
            _ => return Err(Refusal::dtype("a layer from 8 bits to 16, or back")),
        };
        let channels = b.dims(weight)?[axis] as usize;
        let scales = b.weight_scales(weight, axis, channels)?.repeat(groups as usize);
        Ok(Layer {
            x,
            weight,
            bias,
            out,
            scales,
            sums,
        })
    }

    /// The bias of each output channel in units of the sums.
    fn bias(&self, b: &Builder<'_>) -> Result<Vec<i64>, Refusal> {
        let Some(bias) = self.bias else {
            return Ok(vec![0; self.scales.len()]);
        };
        let input = b.scale(self.x)?.scale;
        let (dtype, bytes) = b.bytes(bias)?;
        let whole = b.image().value(bias).quant();
        let words = bytes.as_chunks::<4>().0.iter();
        let values: Vec<i64> = match (dtype, whole) {
            (Element::I32, Some(Quant::PerTensor { zero_point: 0, .. } | Quant::PerAxis { .. })) => {
                words.map(|c| i64::from(i32::from_le_bytes(*c))).collect()
            }
            (Element::F32, None) => {
                let floats = words.map(|c| f64::from(f32::from_le_bytes(*c)));
                let units = self.scales.iter().map(|w| input * w);
                floats
                    .zip(units)
                    .map(|(v, unit)| (v / unit).round_ties_even() as i64)
                    .collect()
            }
            (other, _) => return Err(Refusal::dtype(format!("a bias of {other}"))),
        };
        let limit = if self.sums == DType::Int32 { 31 } else { 39 };
        match values.len() == self.scales.len() && values.iter().all(|v| v.abs() < 1 << limit) {
            true => Ok(values),
            false => Err(Refusal::quantization("a bias beyond the sums")),
        }
    }

    /// The operator on an input, and its sums in the result's scale. `channels` are those of the layer that its output channels are.
    pub(super) fn run(
        &self,
        b: &mut Builder<'_>,
        channels: &[usize],
        (op, attribute): (Op, Attribute),
        (tensor, weight): (usize, usize),
        [n, h, w]: [i32; 3],
    ) -> Result<usize, Refusal> {
        let (from, to) = (b.scale(self.x)?, b.scale(self.out)?);
        let factors = channels.iter().map(|c| from.scale * self.scales[*c] / to.scale);
        let mut factors: Vec<f64> = factors.collect();
        if factors.iter().all(|f| *f == factors[0]) {
            factors.truncate(1);
        }
        let bias = self.bias(b)?;
        let bias: Vec<i64> = channels.iter().map(|c| bias[*c]).collect();
        let dtype = b.type_of(tensor);
        let inputs = [
            tensor,
            weight,
            b.integers(self.sums, &bias),
            b.integers(dtype, &[from.zero_point]),
            b.integers(DType::Int8, &[0]),
        ];
        let shape = [n, h, w, channels.len() as i32];
        let sums = b.op(op, attribute, &inputs, self.sums, &shape);
        let target = b.dtype(self.out)?;
        b.rescale(sums, &factors, 0, target, to.zero_point)
    }
}

/// Strides, paddings and dilations of a window, of height and width.
#[derive(Clone, Copy)]
struct Window {
    stride: [i32; 2],
    /// Before the first element.
    pad: [i32; 2],
    dilation: [i32; 2],
}

pub(super) fn pair(list: &[i64], default: i32) -> Result<[i32; 2], Refusal> {
    let small = |v: i64| i32::try_from(v).map_err(|_| Refusal::attribute("a stride or padding beyond 32 bits"));
    match list {
        [] => Ok([default; 2]),
        [both] => Ok([small(*both)?; 2]),
        [y, x] => Ok([small(*y)?, small(*x)?]),
        _ => Err(Refusal::shape("more than two dimensions of a window")),
    }
}

/// A window of one dimension, as the width of an image of one row.
pub(super) fn lying([_, along]: [i32; 2], across: i32) -> [i32; 2] {
    [across, along]
}

/// Where the arguments of a convolution are: stride, padding, dilation, groups.
const PLACES: [usize; 4] = [3, 4, 5, 6];

fn convolution(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    match node.bool(6)? {
        true => transposed(node, b, [3, 4, 8, 5]),
        false => conv(node, b, [3, 4, 5, 8]),
    }
}

fn conv(node: &Arguments<'_>, b: &mut Builder<'_>, [stride, pad, dilation, groups]: [usize; 4]) -> Result<(), Refusal> {
    let values = [node.value(0)?, node.value(1)?, node.output(0)?];
    let mut w_dims = b.dims(values[1])?;
    let mut window = Window {
        stride: pair(&node.ints(stride)?, 1)?,
        pad: [0; 2],
        dilation: pair(&node.ints(dilation)?, 1)?,
    };
    let is_line = w_dims.len() == 3;
    if is_line {
        w_dims.insert(2, 1);
        (window.stride, window.dilation) = (lying(window.stride, 1), lying(window.dilation, 1));
    }
    let &[channels, of_group, rows, columns] = &w_dims[..] else {
        return Err(Refusal::shape(
            "a convolution of another number of dimensions than one or two",
        ));
    };
    window.pad = match node.str(pad) {
        Ok("valid") => [0; 2],
        // What is odd comes behind.
        Ok(_) => [0, 1].map(|i| window.dilation[i] * ([rows, columns][i] - 1) / 2),
        Err(_) if is_line => lying(pair(&node.ints(pad)?, 0)?, 0),
        Err(_) => pair(&node.ints(pad)?, 0)?,
    };
    let groups = i32::try_from(node.int(groups)?).map_err(|_| Refusal::attribute("groups beyond 32 bits"))?;
    let layer = Layer::new(b, values, node.optional_value(2)?, 0, 1)?;
    let tensor = image(b, layer.x)?;
    let x_dims = b.shape_of(tensor);
    let depth = x_dims[3];
    let depthwise = groups == depth && of_group == 1 && groups > 1;
    let mut out_dims = b.dims(layer.out)?;
    if is_line {
        out_dims = vec![out_dims[0], 1, out_dims[2], out_dims[1]];
    }
    if groups < 1 || of_group * groups != depth || channels % groups != 0 || !depthwise && groups > GROUPS {
        return Err(Refusal::attribute(format!("{groups} groups")));
    }
    // TOSA wants windows that end where the input does: padding that no window reads is left out, and so is input.
    let behind = |i: usize| {
        let kernel = ([rows, columns][i] - 1) * window.dilation[i] + 1;
        (out_dims[1 + i] - 1) * window.stride[i] + kernel - window.pad[i] - x_dims[1 + i]
    };
    let (bottom, right) = (behind(0), behind(1));
    let kept = [x_dims[0], x_dims[1] + bottom.min(0), x_dims[2] + right.min(0), depth];
    let tensor = b.sliced(tensor, &[0; 4], &kept);
    let attribute = Attribute::Conv {
        pad: [window.pad[0], bottom.max(0), window.pad[1], right.max(0)],
        stride: window.stride,
        dilation: window.dilation,
        accumulator: layer.sums,
    };
    let (_, bytes) = b.bytes(layer.weight)?;
    let [i, h, w] = [of_group, rows, columns].map(|d| d as usize);
    let at = |oc: usize, ic: usize, y: usize, x: usize| bytes[((oc * i + ic) * h + y) * w + x];
    let pixels = || (0..h).flat_map(move |y| (0..w).map(move |x| (y, x)));
    let images = [out_dims[0], out_dims[1], out_dims[2]];
    let made = if depthwise {
        // `[row][column][channel][of a channel]`: PyTorch has those of a channel beside each other.
        let data = pixels().flat_map(|(y, x)| (0..channels as usize).map(move |oc| at(oc, 0, y, x)));
        let weight = b.constant(DType::Int8, &[rows, columns, depth, channels / depth], data.collect());
        let all: Vec<usize> = (0..channels as usize).collect();
        layer.run(b, &all, (Op::DepthwiseConv2d, attribute), (tensor, weight), images)?
    } else {
        let share = channels / groups;
        let mut parts = Vec::new();
        for group in 0..groups {
            let own = [kept[0], kept[1], kept[2], of_group];
            let part = b.sliced(tensor, &[0, 0, 0, group * of_group], &own);
            let first = (group * share) as usize;
            let own: Vec<usize> = (first..first + share as usize).collect();
            let data = own
                .iter()
                .flat_map(|oc| pixels().flat_map(move |(y, x)| (0..i).map(move |ic| at(*oc, ic, y, x))));
            let weight = b.constant(DType::Int8, &[share, rows, columns, of_group], data.collect());
            parts.push(layer.run(b, &own, (Op::Conv2d, attribute.clone()), (part, weight), images)?);
        }
        b.joined(&parts, 3)
    };
    let made = if is_line { line(b, made)? } else { made };
    b.finish_plain(layer.out, made)
}

/// Groups of a layer that are lowered, each as a layer of its own.
pub(super) const GROUPS: i32 = 64;

/// An image with channels last. Of one dimension, `[N, C, L]`, it has one row.
pub(super) fn image(b: &mut Builder<'_>, x: ValueIndex) -> Result<usize, Refusal> {
    let tensor = b.read(x)?;
    match b.shape_of(tensor)[..] {
        [n, c, l] => {
            let tensor = b.transposed(tensor, &[0, 2, 1]);
            b.reshaped(tensor, &[n, 1, l, c])
        }
        [_, _, _, _] if b.image().normal_form() == 1 => Ok(tensor),
        [_, _, _, _] => Err(Refusal::attribute("images of another normal form than channels last")),
        _ => Err(Refusal::shape(
            "a convolution of another number of dimensions than one or two",
        )),
    }
}

/// An image of one row as `[N, C, L]`.
pub(super) fn line(b: &mut Builder<'_>, tensor: usize) -> Result<usize, Refusal> {
    let shape = b.shape_of(tensor);
    let tensor = b.reshaped(tensor, &[shape[0], shape[2], shape[3]])?;
    Ok(b.transposed(tensor, &[0, 2, 1]))
}

/// A fully connected layer is a convolution of one pixel a row.
fn linear(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let values = [node.value(0)?, node.value(1)?, node.output(0)?];
    let (x_dims, w_dims) = (b.dims(values[0])?, b.dims(values[1])?);
    let [channels, depth] = w_dims[..] else {
        return Err(Refusal::shape("a weight of another number of dimensions than two"));
    };
    let layer = Layer::new(b, values, node.optional_value(2)?, 0, 1)?;
    let (_, data) = b.bytes(layer.weight)?;
    let rows: i32 = x_dims[..x_dims.len() - 1].iter().product();
    let tensor = b.read(layer.x)?;
    let tensor = b.reshaped(tensor, &[1, rows, 1, depth])?;
    let weight = b.constant(DType::Int8, &[channels, 1, 1, depth], data);
    let attribute = Attribute::Conv {
        pad: [0; 4],
        stride: [1; 2],
        dilation: [1; 2],
        accumulator: layer.sums,
    };
    let all: Vec<usize> = (0..channels as usize).collect();
    let made = layer.run(b, &all, (Op::Conv2d, attribute), (tensor, weight), [1, rows, 1])?;
    b.finish_plain(layer.out, made)
}

/// A product of two tensors, whose batches are repeated to be one.
fn matmul(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, y, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let (x_dims, y_dims) = (b.dims(x)?, b.dims(y)?);
    if x_dims.len() < 2 || y_dims.len() < 2 {
        return Err(Refusal::shape("a product of a vector"));
    }
    let sums = match (b.dtype(x)?, b.dtype(y)?, b.dtype(out)?) {
        (DType::Int8, DType::Int8, DType::Int8) => DType::Int32,
        (DType::Int16, DType::Int16, DType::Int16) if b.target().product == Product::U85 => DType::Int48,
        (DType::Int16, DType::Int16, DType::Int16) => return Err(Refusal::dtype("a product in 16 bits")),
        _ => return Err(Refusal::dtype("a product of 8 bits and 16")),
    };
    let ([.., rows, depth], [.., columns]) = (&x_dims[..], &y_dims[..]) else {
        return Err(Refusal::shape("a product of a vector"));
    };
    let (sx, sy, so) = (b.scale(x)?, b.scale(y)?, b.scale(out)?);
    let out_dims = b.dims(out)?;
    let outer = &out_dims[..out_dims.len() - 2];
    let batch: i32 = outer.iter().product();
    let mut operand = |value: ValueIndex, dims: &[i32], last: [i32; 2]| -> Result<usize, Refusal> {
        let mut wide = vec![1; outer.len() + 2 - dims.len()];
        wide.extend(dims);
        let mut times = vec![1; wide.len()];
        outer.iter().enumerate().for_each(|(i, d)| times[i] = d / wide[i]);
        let tensor = b.read(value)?;
        let tensor = b.reshaped(tensor, &wide)?;
        let tensor = b.tiled(tensor, &times);
        b.reshaped(tensor, &[batch, last[0], last[1]])
    };
    let p = operand(x, &x_dims, [*rows, *depth])?;
    let q = operand(y, &y_dims, [*depth, *columns])?;
    let dtype = b.type_of(p);
    let inputs = [
        p,
        q,
        b.integers(dtype, &[sx.zero_point]),
        b.integers(dtype, &[sy.zero_point]),
    ];
    let made = b.op(Op::MatMul, Attribute::Plain, &inputs, sums, &[batch, *rows, *columns]);
    b.finish_sums(out, made, &[sx.scale * sy.scale / so.scale])
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::conv1d",
        lower: |n, b| conv(n, b, PLACES),
    },
    Operator {
        name: "aten::conv1d.padding",
        lower: |n, b| conv(n, b, PLACES),
    },
    Operator {
        name: "aten::conv2d",
        lower: |n, b| conv(n, b, PLACES),
    },
    Operator {
        name: "aten::conv2d.padding",
        lower: |n, b| conv(n, b, PLACES),
    },
    Operator {
        name: "aten::convolution",
        lower: convolution,
    },
    Operator {
        name: "aten::linear",
        lower: linear,
    },
    Operator {
        name: "aten::matmul",
        lower: matmul,
    },
    Operator {
        name: "aten::mm",
        lower: matmul,
    },
    Operator {
        name: "aten::bmm",
        lower: matmul,
    },
];
