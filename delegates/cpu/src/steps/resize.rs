//! Images of another size, channels last.

use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::resize::{Resize, Sampling};
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};

/// `cpu::resize(x, sampling, factor, factor)` of `[n, h, w, c]`; `sampling` is `nearest`, `nearest_exact`, `bilinear` or `bilinear_corners`. Factors are
/// those of height and width that the model names; 0: it names none, and sizes say it. Elements of one byte can be `nearest` alone.
pub const NAME: &str = "cpu::resize";

struct Resized {
    resize: Resize,
    dtype: DType,
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, output) = (node.value(0)?, node.output(0)?);
    let (&[batch, height, width, channels], &[images, rows, columns, same]) = (shapes.of(x), shapes.of(output)) else {
        return Err(node.misfit(0, "a tensor of four dimensions"));
    };
    let sampling = match node.str(1)? {
        "nearest" => Sampling::Nearest,
        "nearest_exact" => Sampling::NearestExact,
        "bilinear" => Sampling::Bilinear,
        "bilinear_corners" => Sampling::BilinearCorners,
        _ => return Err(node.misfit(1, "a way to sample")),
    };
    let ratio = |at: usize, input: usize, output: usize| -> Result<f32, Error> {
        let factor = node.float(at)?;
        Ok(match sampling {
            // Corners are where they are, whatever the factor is.
            Sampling::BilinearCorners => Resize::ratio(sampling, input, output),
            _ if factor > 0.0 => (1.0 / factor) as f32,
            _ => Resize::ratio(sampling, input, output),
        })
    };
    let ratio = [ratio(2, height, rows)?, ratio(3, width, columns)?];
    let dtype = shapes.dtype(x);
    let copies = matches!(sampling, Sampling::Nearest | Sampling::NearestExact);
    let fits = (images, same) == (batch, channels)
        && shapes.dtype(output) == dtype
        && (dtype == DType::F32 || copies && matches!(dtype, DType::I8 | DType::U8))
        && (height > 0 && width > 0 || shapes.count(output) == 0);
    match fits {
        true => Ok(Box::new(Resized {
            resize: Resize {
                batch,
                channels,
                input: [height, width],
                output: [rows, columns],
                ratio,
                sampling,
            },
            dtype,
        })),
        false => Err(Error::corrupt("the sizes of an image of another size do not fit")),
    }
}

impl Step for Resized {
    /// Three products and sums a number, where one is between others.
    fn work(&self) -> Work {
        let [rows, columns] = self.resize.output;
        match self.resize.sampling {
            Sampling::Nearest | Sampling::NearestExact => Work::default(),
            _ => Work::floats(&[6, self.resize.batch, rows, columns, self.resize.channels]),
        }
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        match self.dtype {
            DType::F32 => self.resize.run(Isa::best(), pool, io.input(0), io.output(0)),
            _ => self.resize.copy(pool, io.bytes(0), io.output_bytes(0)),
        }
        Ok(())
    }
}
