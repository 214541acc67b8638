//! Convolutions, fully connected layers and products of tensors.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_sdk::DType as Element;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::{Quant, ValueIndex};

/// What a layer is made of.
struct Layer {
    x: ValueIndex,
    weight: ValueIndex,
    bias: Option<ValueIndex>,
    out: ValueIndex,
}

impl Layer {
    /// Its sums' type, and the factor from sums to the result for each output channel.
    fn factors(&self, b: &Builder<'_>, channels: usize) -> Result<(DType, Vec<f64>), Refusal> {
        if !matches!(b.image().value(self.weight).dtype(), Some(Element::I8)) {
            return Err(Refusal::dtype("weights of another type than 8 signed bits"));
        }
        let (input, output) = (b.scale(self.x)?.scale, b.scale(self.out)?.scale);
        let sums = match (b.dtype(self.x)?, b.dtype(self.out)?) {
            (DType::Int8, DType::Int8) => DType::Int32,
            (DType::Int16, DType::Int16) => DType::Int48,
            _ => return Err(Refusal::dtype("a layer from 8 bits to 16, or back")),
        };
        let scales = b.weight_scales(self.weight, channels)?;
        let mut factors: Vec<f64> = scales.iter().map(|w| input * w / output).collect();
        if factors.iter().all(|f| *f == factors[0]) {
            factors.truncate(1);
        }
        Ok((sums, factors))
    }

    /// The bias in units of the sums.
    fn bias(&self, b: &mut Builder<'_>, sums: DType, channels: usize) -> Result<usize, Refusal> {
        let Some(bias) = self.bias else {
            return Ok(b.integers(sums, &vec![0; channels]));
        };
        let units: Vec<f64> = {
            let input = b.scale(self.x)?.scale;
            b.weight_scales(self.weight, channels)?
                .iter()
                .map(|w| input * w)
                .collect()
        };
        let (dtype, bytes) = b.bytes(bias)?;
        let whole = b.image().value(bias).quant();
        let values: Vec<i64> = match (dtype, whole) {
            (Element::I32, Some(Quant::PerTensor { zero_point: 0, .. } | Quant::PerAxis { .. })) => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|c| i64::from(i32::from_le_bytes(*c)))
                .collect(),
            (Element::F32, None) => {
                let floats = bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|c| f64::from(f32::from_le_bytes(*c)));
                floats
                    .zip(&units)
                    .map(|(v, unit)| (v / unit).round_ties_even() as i64)
                    .collect()
            }
            (other, _) => return Err(Refusal::dtype(format!("a bias of {other}"))),
        };
        let limit = if sums == DType::Int32 { 31 } else { 39 };
        match values.len() == channels && values.iter().all(|v| v.abs() < 1 << limit) {
            true => Ok(b.integers(sums, &values)),
            false => Err(Refusal::quantization("a bias beyond the sums")),
        }
    }
}

fn pair(list: &[i64], default: i32) -> Result<[i32; 2], Refusal> {
    let small = |v: i64| i32::try_from(v).map_err(|_| Refusal::attribute("a stride or padding beyond 32 bits"));
    match list {
        [] => Ok([default; 2]),
        [both] => Ok([small(*both)?; 2]),
        [y, x] => Ok([small(*y)?, small(*x)?]),
        _ => Err(Refusal::shape("more than two dimensions of a window")),
    }
}

fn conv2d(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (stride, pad, dilation) = (node.ints(3)?, node.ints(4)?, node.ints(5)?);
    conv(node, b, &stride, &pad, &dilation, node.int(6)?)
}

fn convolution(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    if node.bool(6)? {
        return Err(Refusal::attribute("a transposed convolution"));
    }
    let (stride, pad, dilation) = (node.ints(3)?, node.ints(4)?, node.ints(5)?);
    conv(node, b, &stride, &pad, &dilation, node.int(8)?)
}

fn conv(
    node: &Arguments<'_>,
    b: &mut Builder<'_>,
    stride: &[i64],
    pad: &[i64],
    dilation: &[i64],
    groups: i64,
) -> Result<(), Refusal> {
    let layer = Layer {
        x: node.value(0)?,
        weight: node.value(1)?,
        bias: node.optional_value(2)?,
        out: node.output(0)?,
    };
    let (x_dims, w_dims, out_dims) = (b.dims(layer.x)?, b.dims(layer.weight)?, b.dims(layer.out)?);
    let (&[_, _, _, depth], &[channels, of_group, rows, columns]) = (&x_dims[..], &w_dims[..]) else {
        return Err(Refusal::shape("a convolution of another number of dimensions than two"));
    };
    if b.image().normal_form() != 1 {
        return Err(Refusal::attribute("images of another normal form than channels last"));
    }
    let (stride, pad, dilation) = (pair(stride, 1)?, pair(pad, 0)?, pair(dilation, 1)?);
    let depthwise = groups == i64::from(depth) && of_group == 1 && groups > 1;
    if groups != 1 && !depthwise {
        return Err(Refusal::attribute(format!("{groups} groups")));
    }
    let (sums, factors) = layer.factors(b, channels as usize)?;
    let (_, bytes) = b.bytes(layer.weight)?;
    let [o, i, h, w] = [channels, of_group, rows, columns].map(|d| d as usize);
    let at = |oc: usize, ic: usize, y: usize, x: usize| bytes[((oc * i + ic) * h + y) * w + x];
    let (op, shape, data): (Op, [i32; 4], Vec<u8>) = match depthwise {
        false => {
            let mut data = Vec::with_capacity(bytes.len());
            for oc in 0..o {
                for y in 0..h {
                    for x in 0..w {
                        data.extend((0..i).map(|ic| at(oc, ic, y, x)));
                    }
                }
            }
            (Op::Conv2d, [channels, rows, columns, of_group], data)
        }
        true => {
            // `[row][column][channel][of a channel]`: PyTorch has those of a channel beside each other.
            let mut data = Vec::with_capacity(bytes.len());
            for y in 0..h {
                for x in 0..w {
                    data.extend((0..o).map(|oc| at(oc, 0, y, x)));
                }
            }
            (Op::DepthwiseConv2d, [rows, columns, depth, channels / depth], data)
        }
    };
    // TOSA wants windows that end where the input does: padding that no window reads is left out, and so is input.
    let covered = |size: i32, kernel: i32, dilation: i32, stride: i32, pad: i32, out: i32| {
        (out - 1) * stride + (kernel - 1) * dilation + 1 - pad - size
    };
    let bottom = covered(x_dims[1], rows, dilation[0], stride[0], pad[0], out_dims[1]);
    let right = covered(x_dims[2], columns, dilation[1], stride[1], pad[1], out_dims[2]);
    let mut x = b.read(layer.x)?;
    if bottom < 0 || right < 0 {
        let kept = [x_dims[0], x_dims[1] + bottom.min(0), x_dims[2] + right.min(0), depth];
        let (start, size) = (b.shape(&[0; 4]), b.shape(&kept));
        let dtype = b.type_of(x);
        x = b.op(Op::Slice, Attribute::Plain, &[x, start, size], dtype, &kept);
    }
    let weight = b.constant(DType::Int8, &shape, data);
    let bias = layer.bias(b, sums, o)?;
    let zero = b.scale(layer.x)?.zero_point;
    let dtype = b.type_of(x);
    let inputs = [
        x,
        weight,
        bias,
        b.integers(dtype, &[zero]),
        b.integers(DType::Int8, &[0]),
    ];
    let attribute = Attribute::Conv {
        pad: [pad[0], bottom.max(0), pad[1], right.max(0)],
        stride,
        dilation,
        accumulator: sums,
    };
    let sums = b.op(op, attribute, &inputs, sums, &out_dims);
    b.finish_sums(layer.out, sums, &factors)
}

/// A fully connected layer is a convolution of one pixel a row.
fn linear(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let layer = Layer {
        x: node.value(0)?,
        weight: node.value(1)?,
        bias: node.optional_value(2)?,
        out: node.output(0)?,
    };
    let (x_dims, w_dims) = (b.dims(layer.x)?, b.dims(layer.weight)?);
    let [channels, depth] = w_dims[..] else {
        return Err(Refusal::shape("a weight of another number of dimensions than two"));
    };
    let rows: i32 = x_dims[..x_dims.len() - 1].iter().product();
    let (sums, factors) = layer.factors(b, channels as usize)?;
    let (_, data) = b.bytes(layer.weight)?;
    let x = b.read(layer.x)?;
    let x = b.reshaped(x, &[1, rows, 1, depth])?;
    let weight = b.constant(DType::Int8, &[channels, 1, 1, depth], data);
    let bias = layer.bias(b, sums, channels as usize)?;
    let zero = b.scale(layer.x)?.zero_point;
    let dtype = b.type_of(x);
    let inputs = [
        x,
        weight,
        bias,
        b.integers(dtype, &[zero]),
        b.integers(DType::Int8, &[0]),
    ];
    let attribute = Attribute::Conv {
        pad: [0; 4],
        stride: [1; 2],
        dilation: [1; 2],
        accumulator: sums,
    };
    let sums = b.op(Op::Conv2d, attribute, &inputs, sums, &[1, rows, 1, channels]);
    b.finish_sums(layer.out, sums, &factors)
}

/// A product of two tensors of one batch size.
fn matmul(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, y, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let (x_dims, y_dims, out_dims) = (b.dims(x)?, b.dims(y)?, b.dims(out)?);
    if x_dims.len() < 2 || x_dims.len() != y_dims.len() {
        return Err(Refusal::shape("a product of a vector, or of tensors of different rank"));
    }
    let split = x_dims.len() - 2;
    if x_dims[..split] != y_dims[..split] {
        return Err(Refusal::shape("a product with a batch that is repeated"));
    }
    if (b.dtype(x)?, b.dtype(y)?, b.dtype(out)?) != (DType::Int8, DType::Int8, DType::Int8) {
        return Err(Refusal::dtype("a product in 16 bits"));
    }
    let batch: i32 = x_dims[..split].iter().product();
    let (rows, depth, columns) = (x_dims[split], x_dims[split + 1], y_dims[split + 1]);
    let (sx, sy, so) = (b.scale(x)?, b.scale(y)?, b.scale(out)?);
    let (p, q) = (b.read(x)?, b.read(y)?);
    let p = b.reshaped(p, &[batch, rows, depth])?;
    let q = b.reshaped(q, &[batch, depth, columns])?;
    let inputs = [
        p,
        q,
        b.integers(DType::Int8, &[sx.zero_point]),
        b.integers(DType::Int8, &[sy.zero_point]),
    ];
    let sums = b.op(
        Op::MatMul,
        Attribute::Plain,
        &inputs,
        DType::Int32,
        &[batch, rows, columns],
    );
    let _ = out_dims;
    b.finish_sums(out, sums, &[sx.scale * sy.scale / so.scale])
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::conv2d",
        lower: conv2d,
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
        name: "aten::bmm",
        lower: matmul,
    },
];
