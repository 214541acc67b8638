//! Transposed convolutions, channels last.

use super::{Step, Work, activation};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::conv::Transposed;
use delegraph_cpu_kernels::conv::transposed::{Plan, packed_len};
use delegraph_cpu_kernels::{Activation, Epilogue, Isa, Pool};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};

/// `cpu::conv_transposed(x, packed, bias?, kernel, stride, padding, dilation, groups, width, function, number, number)` of `[n, h, w, c]`; `padding` is
/// what is cut off above and at the left, and the output's sizes say what is at the other sides.
pub const NAME: &str = "cpu::conv_transposed";
/// The argument of the bias.
pub const BIAS: usize = 2;
/// The argument of the function's word; its numbers follow.
pub const FUNCTION: usize = 9;

struct Spread {
    shape: Transposed,
    plan: Plan,
    bias: bool,
    activation: Activation,
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, weight, output) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let (&[batch, height, width, channels], &[images, rows, columns, out_channels]) = (shapes.of(x), shapes.of(output))
    else {
        return Err(node.misfit(0, "a tensor of four dimensions"));
    };
    let pair = |at: usize, least: usize| -> Result<[usize; 2], Error> {
        let sizes: Vec<usize> = node.ints(at)?.iter().filter_map(|x| usize::try_from(*x).ok()).collect();
        let pair = <[usize; 2]>::try_from(sizes).ok();
        let pair = pair.filter(|p| p.iter().all(|x| (least..1 << 14).contains(x)));
        pair.ok_or_else(|| node.misfit(at, "two sizes"))
    };
    let shape = Transposed {
        batch,
        height,
        width,
        channels,
        out_channels,
        kernel: pair(3, 1)?,
        stride: pair(4, 1)?,
        padding: pair(5, 0)?,
        output: [rows, columns],
        dilation: pair(6, 1)?,
        groups: node.natural(7)?,
    };
    let panel = node.natural(8)?;
    let bias = node.optional_value(BIAS)?;
    let fits = shape.groups > 0
        && channels.is_multiple_of(shape.groups)
        && out_channels.is_multiple_of(shape.groups)
        && matches!(panel, 8 | 16 | 32)
        && images == batch
        && [height, width, rows, columns].iter().all(|x| *x < 1 << 28)
        && [x, weight, output]
            .iter()
            .all(|value| shapes.dtype(*value) == DType::F32)
        && bias.is_none_or(|bias| shapes.count(bias) == out_channels && shapes.dtype(bias) == DType::F32)
        && shapes.count(weight) == packed_len(&shape, panel);
    if !fits {
        return Err(Error::corrupt(format!(
            "packed weights do not fit the transposed convolution {shape:?}"
        )));
    }
    Ok(Box::new(Spread {
        shape,
        plan: Plan::new(&shape, panel),
        bias: bias.is_some(),
        activation: activation(node, FUNCTION)?,
    }))
}

impl Step for Spread {
    /// Products of all numbers of the input with all places of the kernel, those that are cut off included.
    fn work(&self) -> Work {
        let Transposed {
            batch,
            height,
            width,
            channels,
            out_channels,
            kernel: [kh, kw],
            groups,
            ..
        } = self.shape;
        Work::floats(&[2, batch, height, width, channels, out_channels / groups, kh, kw])
    }

    fn scratch(&self, threads: usize) -> usize {
        self.plan.scratch_len(threads) * size_of::<f32>()
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let epilogue = Epilogue {
            bias: self.bias.then(|| io.input(2)),
            activation: self.activation,
            ..Epilogue::default()
        };
        let (x, weights) = (io.input::<f32>(0), io.input::<f32>(1));
        let (out, scratch) = (io.output::<f32>(0), io.scratch::<f32>());
        self.plan.run(Isa::best(), pool, x, weights, out, &epilogue, scratch);
        Ok(())
    }
}
