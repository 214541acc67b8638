//! Pooling of images, channels last.

use super::integers::{self, Operand};
use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::pooling::{Pooling, Windows, global_average};
use delegraph_cpu_kernels::quant::static8::{self, Bytes, Grid, Scaled};
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::arguments::{Arguments, wrap};
use delegraph_sdk::{DType, Error};

/// `cpu::pool(x, reduce, divisor, kernel, stride, padding, dilation)` of `[n, h, w, c]`; `reduce` is `max`, `mean`, `mean_padded` or `sum`. The largest
/// may be of bytes of one scale, too.
pub const NAME: &str = "cpu::pool";
/// `cpu::pool_bytes(x, reduce, divisor, kernel, stride, padding, dilation, scale, x_zero, inverse, zero, low, high)`: the same of bytes, but for `max`.
pub const BYTES: &str = "cpu::pool_bytes";

struct Window {
    windows: Windows,
    pooling: Pooling,
}

/// Makes the step of [`NAME`].
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (windows, pooling) = windows(node, shapes)?;
    let (x, output) = (node.value(0)?, node.output(0)?);
    match (shapes.dtype(x), shapes.dtype(output)) {
        (DType::F32, DType::F32) => Ok(Box::new(Window { windows, pooling })),
        (from @ (DType::I8 | DType::U8), to) if from == to && pooling == Pooling::Max => Ok(Box::new(Largest {
            windows,
            signed: from == DType::I8,
        })),
        _ => Err(node.misfit(0, "images that can be pooled so")),
    }
}

/// Makes the step of [`BYTES`].
///
/// # Errors
/// Arguments that do not fit.
pub fn average(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (windows, pooling) = windows(node, shapes)?;
    let Pooling::Average { count_padding, divisor } = pooling else {
        return Err(node.misfit(1, "an average"));
    };
    let out = node.output(0)?;
    Ok(Box::new(Average {
        windows,
        count_padding,
        divisor,
        x: integers::operand(node, shapes, node.value(0)?, 7)?,
        signed: integers::signed(shapes, out)?,
        grid: integers::grid(node, 9, shapes.dtype(out))?,
    }))
}

/// Most places of a mean that are added one by one.
const MOST_PLACES: usize = 1 << 12;

/// Makes the step of `aten::mean.dim` where the dimensions that it goes over lie beside each other and channels behind them, as those of images
/// with channels last; `None`: it is another mean.
pub fn mean(node: &Arguments<'_>, shapes: &Shapes) -> Option<Box<dyn Step>> {
    let (x, output) = (node.value(0).ok()?, node.output(0).ok()?);
    let sizes = shapes.of(x);
    let dims = node.ints(1).ok()?;
    let mut dims: Vec<usize> = dims
        .iter()
        .map(|dim| wrap(*dim, sizes.len()).ok())
        .collect::<Option<_>>()?;
    dims.sort_unstable();
    let (first, last) = (*dims.first()?, *dims.last()?);
    let count = |sizes: &[usize]| sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    // A number without dimensions may be asked for the mean over its dimension 0.
    let (batch, places, channels) = (
        count(sizes.get(..first)?)?,
        count(sizes.get(first..=last)?)?,
        count(sizes.get(last + 1..)?)?,
    );
    let fits = dims.iter().copied().eq(first..=last)
        && [x, output].iter().all(|value| shapes.dtype(*value) == DType::F32)
        && (1..=MOST_PLACES).contains(&places)
        && channels > 1
        && batch.checked_mul(channels) == Some(shapes.count(output));
    fits.then(|| {
        Box::new(Mean {
            batch,
            places,
            channels,
        }) as Box<dyn Step>
    })
}

/// What both have.
fn windows(node: &Arguments<'_>, shapes: &Shapes) -> Result<(Windows, Pooling), Error> {
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
        true => Ok((windows, pooling)),
        false => Err(Error::corrupt("the sizes of a pooling do not fit")),
    }
}

/// One a number that a window looks at, padding included.
fn work(windows: &Windows) -> Work {
    let ([rows, columns], [height, width]) = (windows.output, windows.kernel);
    Work::floats(&[windows.batch, rows, columns, windows.channels, height, width])
}

impl Step for Window {
    fn work(&self) -> Work {
        work(&self.windows)
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        self.windows
            .run(Isa::best(), pool, self.pooling, io.input(0), io.output(0));
        Ok(())
    }
}

struct Mean {
    batch: usize,
    places: usize,
    channels: usize,
}

impl Step for Mean {
    fn work(&self) -> Work {
        Work::floats(&[self.batch, self.places, self.channels])
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let (x, out) = (io.input(0), io.output(0));
        global_average(Isa::best(), pool, self.batch, self.places, self.channels, x, out);
        Ok(())
    }
}

struct Largest {
    windows: Windows,
    signed: bool,
}

impl Step for Largest {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let x = match self.signed {
            true => Bytes::I8(io.input(0), 0),
            false => Bytes::U8(io.input(0), 0),
        };
        static8::largest(Isa::best(), pool, &self.windows, x, io.output_bytes(0));
        Ok(())
    }
}

struct Average {
    windows: Windows,
    count_padding: bool,
    divisor: Option<usize>,
    x: Operand,
    signed: bool,
    grid: Grid,
}

impl Step for Average {
    fn work(&self) -> Work {
        work(&self.windows)
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let Operand(signed, zero, scale) = self.x;
        let x = Scaled {
            bytes: integers::bytes(&io, 0, signed, zero),
            scale,
        };
        let mut target = integers::target(&mut io, self.signed, self.grid);
        static8::average(
            Isa::best(),
            pool,
            &self.windows,
            self.count_padding,
            self.divisor,
            x,
            &mut target,
        );
        Ok(())
    }
}
