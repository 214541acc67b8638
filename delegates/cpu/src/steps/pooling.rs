//! Pooling of images, channels last.

use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::pooling::{Pooling, Windows};
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;

/// `cpu::pool(x, reduce, divisor, kernel, stride, padding, dilation)` of `[n, h, w, c]`; `reduce` is `max`, `mean`, `mean_padded` or `sum`.
pub const NAME: &str = "cpu::pool";

struct Window {
    windows: Windows,
    pooling: Pooling,
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, output) = (node.value(0)?, node.output(0)?);
    let (&[batch, height, width, channels], &[_, rows, columns, _]) = (shapes.of(x), shapes.of(output)) else {
        return Err(node.misfit(0, "a tensor of four dimensions"));
    };
    let pair = |at: usize, least: usize| -> Result<[usize; 2], Error> {
        let sizes: Vec<usize> = node.ints(at)?.iter().filter_map(|x| usize::try_from(*x).ok()).collect();
        let pair = <[usize; 2]>::try_from(sizes)
            .ok()
            .filter(|p| p.iter().all(|x| (least..1 << 20).contains(x)));
        pair.ok_or_else(|| node.misfit(at, "two sizes"))
    };
    let windows = Windows {
        batch,
        input: [height, width],
        output: [rows, columns],
        channels,
        kernel: pair(3, 1)?,
        stride: pair(4, 1)?,
        padding: pair(5, 0)?,
        dilation: pair(6, 1)?,
    };
    let mean = |count_padding: bool, divisor: Option<usize>| Pooling::Average { count_padding, divisor };
    let pooling = match node.str(1)? {
        "max" => Pooling::Max,
        "mean" => mean(false, None),
        "mean_padded" => mean(true, None),
        "sum" => mean(true, Some(node.natural(2)?)),
        _ => return Err(node.misfit(1, "a way to reduce")),
    };
    match shapes.count(output) == batch * rows * columns * channels {
        true => Ok(Box::new(Window { windows, pooling })),
        false => Err(Error::corrupt("the sizes of a pooling do not fit")),
    }
}

impl Step for Window {
    /// One a number that a window looks at, padding included.
    fn work(&self) -> Work {
        let ([rows, columns], [height, width]) = (self.windows.output, self.windows.kernel);
        Work::floats(&[self.windows.batch, rows, columns, self.windows.channels, height, width])
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        self.windows
            .run(Isa::best(), pool, self.pooling, io.input(0), io.output(0));
        Ok(())
    }
}
