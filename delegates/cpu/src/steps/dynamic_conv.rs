//! Convolutions of images of floats that become bytes, all by one scale, channels last.

use super::bytes::{Filters, filters};
use super::quantized::scheme;
use super::{Step, Work, activation};
use crate::plan::Shapes;
use crate::sys::{ALIGN, Io};
use crate::threads::Count;
use delegraph_cpu_kernels::quant::Dot;
use delegraph_cpu_kernels::quant::dynamic::{Extent, Formula, quantize_tensor};
use delegraph_cpu_kernels::quant::static8::{Bias, Bytes, Stage, Target};
use delegraph_cpu_kernels::{Activation, Pool};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};

/// `cpu::conv_dynamic(x, packed, scales, bias?, method, kernel, stride, padding, dilation, groups, formula, extent, eps, low, function, number, number)` of
/// `[n, h, w, c]`: arguments are those of `cpu::conv_bytes` and of `cpu::linear_rows`.
pub const NAME: &str = "cpu::conv_dynamic";
/// The argument of the bias.
pub const BIAS: usize = 3;
/// The argument of the function's word; its numbers follow.
pub const FUNCTION: usize = 14;

struct Conv {
    filters: Filters,
    formula: Formula,
    /// Numbers of the image, and channels of the result.
    inputs: usize,
    outputs: usize,
    bias: bool,
    activation: Activation,
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, output) = (node.value(0)?, node.output(0)?);
    let filters = filters(node, shapes)?;
    let outputs = shapes.of(output).last().copied().unwrap_or(0);
    let scheme = scheme(node, 10)?;
    let bias = node.optional_value(BIAS)?;
    let row = |value| shapes.count(value) == outputs && shapes.dtype(value) == DType::F32;
    let fits = scheme.extent == Extent::Tensor
        && [x, output].iter().all(|value| shapes.dtype(*value) == DType::F32)
        && row(node.value(2)?)
        && bias.is_none_or(row);
    match fits {
        true => Ok(Box::new(Conv {
            filters,
            formula: scheme.formula,
            inputs: shapes.count(x),
            outputs,
            bias: bias.is_some(),
            activation: activation(node, FUNCTION)?,
        })),
        false => Err(Error::corrupt("a convolution of bytes does not fit its tensors")),
    }
}

impl Step for Conv {
    fn work(&self) -> Work {
        self.filters.work()
    }

    fn scratch(&self, threads: usize) -> usize {
        let floats = self.outputs + self.filters.scratch_len(&Count(threads));
        self.inputs.next_multiple_of(ALIGN) + floats * size_of::<f32>()
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let dot = Dot::best();
        let (bytes, rest) = io.scratch_parts::<i8, f32>(self.inputs);
        let made = quantize_tensor(dot.isa(), pool, self.formula, io.input(0), bytes);
        let (multiplier, scratch) = rest.split_at_mut(self.outputs);
        for (to, scale) in multiplier.iter_mut().zip(io.input::<f32>(2)) {
            *to = made.scale * scale;
        }
        let stage = Stage {
            multiplier,
            bias: if self.bias {
                Bias::Floats(io.input(3))
            } else {
                Bias::None
            },
            activation: self.activation,
        };
        let (x, weights) = (Bytes::I8(bytes, made.zero), io.bytes(1));
        let mut target = Target::F32(io.output(0));
        // The zero point is another one each time.
        self.filters
            .run(dot, pool, false, x, weights, &stage, scratch, &mut target)
    }
}
