//! Halves to floats and back, at the borders of what is computed in `f32`.

use super::Step;
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::Pool;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// `cpu::convert(x)`: the elements in the dtype of the output, to the nearest, halves to even.
pub const NAME: &str = "cpu::convert";

struct Convert {
    from: DType,
    to: DType,
}

/// Makes the step.
///
/// # Errors
/// Other types than `f32` and one of 16 bits, or other sizes.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let convert = Convert {
        from: shapes.dtype(x),
        to: shapes.dtype(out),
    };
    let is_half = |dtype| matches!(dtype, DType::F16 | DType::BF16);
    let fits = match (convert.from, convert.to) {
        (DType::F32, half) | (half, DType::F32) => is_half(half),
        _ => false,
    };
    match fits && shapes.count(x) == shapes.count(out) {
        true => Ok(Box::new(convert)),
        false => Err(node.misfit(0, "a tensor of floats to convert")),
    }
}

impl Step for Convert {
    fn run(&self, io: Io<'_>, _: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        match (self.from, self.to) {
            (DType::F16, _) => io.input::<f16>(0).convert_to_f32_slice(io.output(0)),
            (DType::BF16, _) => io.input::<bf16>(0).convert_to_f32_slice(io.output(0)),
            (_, DType::F16) => io.output::<f16>(0).convert_from_f32_slice(io.input(0)),
            _ => io.output::<bf16>(0).convert_from_f32_slice(io.input(0)),
        }
        Ok(())
    }
}
