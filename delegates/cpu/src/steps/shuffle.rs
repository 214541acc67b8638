//! Channels of several tensors that change places, channels last.

use super::Step;
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::{Isa, Pool, shuffle};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};

/// `cpu::shuffle(inputs, groups)`: the channels of all inputs, one behind another, in `groups` that take turns; outputs have as many of them in turn as
/// they have channels. All are `[n, h, w, c]` of `f32`.
pub const NAME: &str = "cpu::shuffle";

struct Shuffle {
    pixels: usize,
    groups: usize,
    /// Channels.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (inputs, groups) = (node.values(0)?, node.natural(1)?);
    let outputs: Vec<_> = node.view().outputs().iter().collect();
    let first = inputs.first().ok_or_else(|| node.misfit(0, "one tensor and more"))?;
    let Some((_, image)) = shapes.of(*first).split_last() else {
        return Err(node.misfit(0, "a tensor of some dimensions"));
    };
    let mut fits = groups > 0;
    let mut channels = |values: &[_]| -> Vec<usize> {
        let each = values.iter().map(|value| match shapes.of(*value).split_last() {
            Some((channels, same)) if same == image && shapes.dtype(*value) == DType::F32 => *channels,
            _ => {
                fits = false;
                0
            }
        });
        each.collect()
    };
    let (inputs, outputs) = (channels(&inputs), channels(&outputs));
    let all: usize = inputs.iter().sum();
    if !fits || all != outputs.iter().sum::<usize>() || !all.is_multiple_of(groups) {
        return Err(Error::corrupt("the channels of a shuffle do not fit"));
    }
    Ok(Box::new(Shuffle {
        pixels: image.iter().product(),
        groups,
        inputs,
        outputs,
    }))
}

impl Step for Shuffle {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let inputs: Vec<(&[f32], usize)> = (0..self.inputs.len())
            .map(|at| (io.input(at), self.inputs[at]))
            .collect();
        let mut outputs: Vec<(&mut [f32], usize)> = (0..self.outputs.len())
            .map(|at| (io.output(at), self.outputs[at]))
            .collect();
        shuffle::shuffle(Isa::best(), pool, self.pixels, self.groups, &inputs, &mut outputs);
        Ok(())
    }
}
