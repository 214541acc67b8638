//! Products and convolutions of bytes, channels last, with weights of 8 bits that have a scale a channel.

use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use crate::threads::Count;
use delegraph_cpu_kernels::quant::Dot;
use delegraph_cpu_kernels::quant::static8::{
    self, Bias, Bytes, Conv, Grid, Stage, Target, Weights, conv2d, conv2d_by_winograd, conv2d_scratch_len,
    depthwise_packed_len, depthwise2d,
};
use delegraph_cpu_kernels::{Activation, Pool};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};
use std::cell::OnceCell;

/// `cpu::conv_bytes(x, packed, multiplier, bias?, method, kernel, stride, padding, dilation, groups, zero, inverse, out_zero, low, high)` of
/// `[n, h, w, c]`; `method` is `gemm` or `depthwise`. The output is bytes on the grid that the last four say, or floats.
pub const CONV: &str = "cpu::conv_bytes";
/// `cpu::linear_bytes(x, packed, multiplier, bias?, zero, inverse, out_zero, low, high)`
pub const LINEAR: &str = "cpu::linear_bytes";

/// What is multiplied with what.
pub enum Filters {
    /// Rows by a matrix.
    Linear {
        /// How many.
        rows: usize,
        /// Of the matrix.
        shape: static8::Shape,
    },
    /// Images by filters.
    Conv(Conv),
    /// Images by a filter for each channel.
    Depthwise(Conv),
}

impl Filters {
    /// Its arithmetic.
    pub fn work(&self) -> Work {
        let conv = |conv: &Conv, inputs: usize| {
            let [rows, columns] = conv.output();
            let [height, width] = conv.kernel;
            Work::bytes(&[2, conv.batch, rows, columns, conv.channels[1], height, width, inputs])
        };
        match self {
            Filters::Linear { rows, shape } => Work::bytes(&[2, *rows, shape.inputs, shape.outputs]),
            Filters::Conv(shape) => conv(shape, shape.channels[0] / shape.groups),
            Filters::Depthwise(shape) => conv(shape, 1),
        }
    }

    /// Floats of scratch.
    pub fn scratch_len(&self, pool: &dyn Pool) -> usize {
        match self {
            Filters::Linear { shape, .. } => static8::linear_scratch_len(shape.inputs, pool),
            Filters::Conv(conv) => conv2d_scratch_len(conv, pool),
            Filters::Depthwise(_) => 0,
        }
    }

    /// Whether inputs of this grid may be multiplied by Winograd's algorithm. It reads all weights.
    fn by_winograd(&self, dot: Dot, x: &Bytes, weights: &[u8]) -> bool {
        match self {
            Filters::Conv(conv) => conv2d_by_winograd(dot, conv, x, weights),
            _ => false,
        }
    }

    /// Multiplies. `winograd`: inputs of this grid may be multiplied so.
    ///
    /// # Errors
    /// Packed weights that are too few.
    pub fn run(
        &self,
        dot: Dot,
        pool: &dyn Pool,
        winograd: bool,
        x: Bytes,
        weights: &[u8],
        stage: &Stage,
        scratch: &mut [f32],
        target: &mut Target,
    ) -> Result<(), Error> {
        match self {
            Filters::Linear { rows, shape } => {
                let weights =
                    Weights::new(*shape, weights).ok_or_else(|| Error::corrupt("packed bytes are too few"))?;
                static8::linear(dot, pool, x, *rows, weights, stage, scratch, target);
            }
            Filters::Conv(conv) => conv2d(dot, pool, conv, winograd, x, weights, stage, scratch, target),
            Filters::Depthwise(conv) => depthwise2d(dot, pool, conv, x, weights, stage, target),
        }
        Ok(())
    }
}

struct OnBytes {
    filters: Filters,
    signed: bool,
    zero: i32,
    bias: bool,
    out: DType,
    grid: Grid,
    /// [`Filters::by_winograd`], once a run has asked it.
    winograd: OnceCell<bool>,
}

/// What both kinds have: from the zero point's argument on, and the number of channels.
fn finish(
    node: &Arguments<'_>,
    shapes: &Shapes,
    filters: Filters,
    at: usize,
    channels: usize,
) -> Result<Box<dyn Step>, Error> {
    let wrong = || Error::corrupt("a step on bytes does not fit its tensors");
    let signed = match shapes.dtype(node.value(0)?) {
        DType::I8 => true,
        DType::U8 => false,
        _ => return Err(wrong()),
    };
    let int = |at: usize| -> Result<i32, Error> { i32::try_from(node.int(at)?).map_err(|_| wrong()) };
    let grid = Grid {
        inverse: node.float(at + 1)? as f32,
        zero: int(at + 2)?,
        low: int(at + 3)?,
        high: int(at + 4)?,
    };
    let (zero, bias) = (int(at)?, node.optional_value(3)?);
    let out = shapes.dtype(node.output(0)?);
    let (least, most) = match out {
        DType::U8 => (0, 255),
        _ => (-128, 127),
    };
    let is_in = |x: i32, signed: bool| {
        if signed {
            (-128..128).contains(&x)
        } else {
            (0..256).contains(&x)
        }
    };
    let fits = is_in(zero, signed)
        && matches!(out, DType::I8 | DType::U8 | DType::F32)
        && least <= grid.low
        && grid.low <= grid.high
        && grid.high <= most
        && grid.zero.unsigned_abs() < 1 << 20
        && shapes.count(node.value(2)?) == channels
        && bias.is_none_or(|bias| shapes.count(bias) == channels);
    match fits {
        true => Ok(Box::new(OnBytes {
            filters,
            signed,
            zero,
            bias: bias.is_some(),
            out,
            grid,
            winograd: OnceCell::new(),
        })),
        false => Err(wrong()),
    }
}

/// Makes the step of [`LINEAR`].
///
/// # Errors
/// Arguments that do not fit.
pub fn linear(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, out) = (shapes.of(node.value(0)?), shapes.of(node.output(0)?));
    let (Some(&inputs), Some(&outputs)) = (x.last(), out.last()) else {
        return Err(node.misfit(0, "rows"));
    };
    let shape = static8::Shape { inputs, outputs };
    let rows: usize = x.iter().rev().skip(1).product();
    if rows * outputs != out.iter().product::<usize>() || shapes.bytes(node.value(1)?) != shape.packed_len() {
        return Err(Error::corrupt("packed bytes do not fit"));
    }
    finish(node, shapes, Filters::Linear { rows, shape }, 4, outputs)
}

/// Makes the step of [`CONV`].
///
/// # Errors
/// Arguments that do not fit.
pub fn conv(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let outputs = shapes.of(node.output(0)?).last().copied().unwrap_or(0);
    finish(node, shapes, filters(node, shapes)?, 10, outputs)
}

/// The filters of a convolution: what the arguments from the method on to the groups say, and the second, which is the packed bytes.
///
/// # Errors
/// Arguments that do not fit.
pub fn filters(node: &Arguments<'_>, shapes: &Shapes) -> Result<Filters, Error> {
    let (&[batch, height, width, channels], &[images, rows, columns, outputs]) =
        (shapes.of(node.value(0)?), shapes.of(node.output(0)?))
    else {
        return Err(node.misfit(0, "a tensor of four dimensions"));
    };
    let sizes = |at: usize, least: usize| -> Result<Vec<usize>, Error> {
        let sizes: Vec<usize> = node.ints(at)?.iter().filter_map(|x| usize::try_from(*x).ok()).collect();
        let fits = sizes.iter().all(|x| (least..1 << 14).contains(x));
        if fits { Ok(sizes) } else { Err(node.misfit(at, "sizes")) }
    };
    let pair =
        |at: usize| -> Result<[usize; 2], Error> { sizes(at, 1)?.try_into().map_err(|_| node.misfit(at, "two sizes")) };
    let padding: [usize; 4] = sizes(7, 0)?.try_into().map_err(|_| node.misfit(7, "four borders"))?;
    let [top, bottom, left, right] = padding;
    let conv = Conv {
        batch,
        size: [height, width],
        channels: [channels, outputs],
        kernel: pair(5)?,
        stride: pair(6)?,
        before: [top, left],
        after: [bottom, right],
        dilation: pair(8)?,
        groups: node.natural(9)?,
    };
    let bytes = shapes.bytes(node.value(1)?);
    let divided = conv.groups > 0 && channels.is_multiple_of(conv.groups) && outputs.is_multiple_of(conv.groups);
    if !divided || conv.output() != [rows, columns] || images != batch {
        return Err(Error::corrupt("a convolution of bytes does not fit its tensors"));
    }
    let (filters, need) = match node.str(4)? {
        "gemm" => (Filters::Conv(conv), conv.packed_len()),
        "depthwise" if conv.groups == channels && channels == outputs => {
            (Filters::Depthwise(conv), depthwise_packed_len(&conv))
        }
        _ => return Err(node.misfit(4, "a method")),
    };
    match bytes == need {
        true => Ok(filters),
        false => Err(Error::corrupt("packed bytes do not fit")),
    }
}

impl Step for OnBytes {
    fn work(&self) -> Work {
        self.filters.work()
    }

    fn scratch(&self, threads: usize) -> usize {
        self.filters.scratch_len(&Count(threads)) * size_of::<f32>()
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let stage = Stage {
            multiplier: io.input(2),
            bias: if self.bias {
                Bias::Floats(io.input(3))
            } else {
                Bias::None
            },
            activation: Activation::None,
        };
        let x = match self.signed {
            true => Bytes::I8(io.input(0), self.zero),
            false => Bytes::U8(io.input(0), self.zero),
        };
        let weights = io.bytes(1);
        let scratch = io.scratch();
        let mut target = match self.out {
            DType::I8 => Target::I8(io.output(0), self.grid),
            DType::U8 => Target::U8(io.output(0), self.grid),
            _ => Target::F32(io.output(0)),
        };
        let dot = Dot::best();
        let winograd = *self.winograd.get_or_init(|| self.filters.by_winograd(dot, &x, weights));
        self.filters
            .run(dot, pool, winograd, x, weights, &stage, scratch, &mut target)
    }
}
