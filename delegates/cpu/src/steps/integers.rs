//! What lies between layers on bytes: sums and products of two tensors, functions by tables, means over pixels, and bytes made of floats.

use super::Step;
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::quant::static8::{self, Bytes, Grid, Pair, Rows, Scaled, Target};
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::ValueIndex;
use delegraph_sdk::{DType, Error};

/// `cpu::pair_bytes(a, b, function, scale_a, zero_a, scale_b, zero_b, inverse, zero, low, high)`: `function` is `add`, `sub` or `mul`; `b` has the
/// sizes of `a`, or those of one pixel an image, channels last.
pub const PAIR: &str = "cpu::pair_bytes";
/// `cpu::map_bytes(x, table)`: 256 bytes, of which a byte's bits are the index.
pub const MAP: &str = "cpu::map_bytes";
/// `cpu::mean_bytes(x, factor, x_zero, inverse, zero, low, high)` over the pixels of `[n, h, w, c]`
pub const MEAN: &str = "cpu::mean_bytes";
/// `cpu::quantize_bytes(x, last, inverse, zero, low, high)`: `last` says that the channels of `[n, c, h, w]` come last in the output.
pub const QUANTIZE: &str = "cpu::quantize_bytes";

fn wrong() -> Error {
    Error::corrupt("a step between bytes does not fit its tensors")
}

/// Whether a tensor has signed bytes.
///
/// # Errors
/// It has no bytes.
pub fn signed(shapes: &Shapes, value: ValueIndex) -> Result<bool, Error> {
    match shapes.dtype(value) {
        DType::I8 => Ok(true),
        DType::U8 => Ok(false),
        _ => Err(wrong()),
    }
}

/// A zero point at an argument, for bytes of that sign.
fn zero(node: &Arguments<'_>, at: usize, signed: bool) -> Result<i32, Error> {
    let zero = i32::try_from(node.int(at)?).map_err(|_| wrong())?;
    let range = if signed { -128..128 } else { 0..256 };
    if range.contains(&zero) { Ok(zero) } else { Err(wrong()) }
}

/// The grid of the output, from an argument on: inverse, zero point, limits.
///
/// # Errors
/// They do not fit the output's bytes.
pub fn grid(node: &Arguments<'_>, at: usize, out: DType) -> Result<Grid, Error> {
    let int = |at: usize| -> Result<i32, Error> { i32::try_from(node.int(at)?).map_err(|_| wrong()) };
    let grid = Grid {
        inverse: node.float(at)? as f32,
        zero: int(at + 1)?,
        low: int(at + 2)?,
        high: int(at + 3)?,
    };
    let (least, most) = match out {
        DType::U8 => (0, 255),
        _ => (-128, 127),
    };
    let fits = least <= grid.low && grid.low <= grid.high && grid.high <= most && grid.zero.unsigned_abs() < 1 << 20;
    if fits { Ok(grid) } else { Err(wrong()) }
}

/// An input as bytes of that sign.
pub fn bytes<'a>(io: &Io<'a>, at: usize, signed: bool, zero: i32) -> Bytes<'a> {
    match signed {
        true => Bytes::I8(io.input(at), zero),
        false => Bytes::U8(io.input(at), zero),
    }
}

/// The output as bytes of that sign.
pub fn target<'a>(io: &mut Io<'a>, signed: bool, grid: Grid) -> Target<'a> {
    match signed {
        true => Target::I8(io.output(0), grid),
        false => Target::U8(io.output(0), grid),
    }
}

/// An operand: signed, zero point, scale.
#[derive(Debug, Clone, Copy)]
pub struct Operand(pub bool, pub i32, pub f32);

/// A value as an operand, with its scale at an argument and the zero point behind it.
///
/// # Errors
/// It has no bytes, or they do not fit the zero point.
pub fn operand(node: &Arguments<'_>, shapes: &Shapes, value: ValueIndex, at: usize) -> Result<Operand, Error> {
    let signed = signed(shapes, value)?;
    Ok(Operand(signed, zero(node, at + 1, signed)?, node.float(at)? as f32))
}

struct Two {
    function: Pair,
    operands: [Operand; 2],
    rows: Rows,
    signed: bool,
    grid: Grid,
}

/// Makes the step of [`PAIR`].
///
/// # Errors
/// Arguments that do not fit.
pub fn pair(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (a, b, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let function = match node.str(2)? {
        "add" => Pair::Add,
        "sub" => Pair::Sub,
        "mul" => Pair::Mul,
        _ => return Err(node.misfit(2, "a function of two tensors")),
    };
    let total = shapes.count(a);
    let rows = match (shapes.of(a), shapes.of(b)) {
        (a, b) if a == b => Rows {
            rows: 1,
            columns: total,
            rows_each: 1,
        },
        (&[n, h, w, c], &[m, 1, 1, d]) if (n, c) == (m, d) && h * w > 0 => Rows {
            rows: n * h * w,
            columns: c,
            rows_each: h * w,
        },
        _ => return Err(wrong()),
    };
    match shapes.of(out) == shapes.of(a) {
        true => Ok(Box::new(Two {
            function,
            operands: [operand(node, shapes, a, 3)?, operand(node, shapes, b, 5)?],
            rows,
            signed: signed(shapes, out)?,
            grid: grid(node, 7, shapes.dtype(out))?,
        })),
        false => Err(wrong()),
    }
}

impl Step for Two {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let [a, b] = &self.operands;
        let scaled = |at: usize, Operand(signed, zero, scale): &Operand| Scaled {
            bytes: bytes(&io, at, *signed, *zero),
            scale: *scale,
        };
        let (a, b) = (scaled(0, a), scaled(1, b));
        let mut target = target(&mut io, self.signed, self.grid);
        static8::pair(Isa::best(), pool, self.function, a, b, self.rows, &mut target);
        Ok(())
    }
}

struct Map;

/// Makes the step of [`MAP`].
///
/// # Errors
/// Arguments that do not fit.
pub fn map(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    signed(shapes, x)?;
    signed(shapes, out)?;
    match shapes.bytes(node.value(1)?) == 256 && shapes.count(x) == shapes.count(out) {
        true => Ok(Box::new(Map)),
        false => Err(wrong()),
    }
}

impl Step for Map {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let table: &[u8; 256] = io.bytes(1).first_chunk().ok_or_else(wrong)?;
        static8::map(pool, table, io.bytes(0), io.output_bytes(0));
        Ok(())
    }
}

struct Mean {
    x: Operand,
    sizes: [usize; 3],
    signed: bool,
    grid: Grid,
}

/// Makes the step of [`MEAN`].
///
/// # Errors
/// Arguments that do not fit.
pub fn mean(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let &[batch, height, width, channels] = shapes.of(x) else {
        return Err(node.misfit(0, "a tensor of four dimensions"));
    };
    match shapes.count(out) == batch * channels && height * width <= 1 << 22 {
        true => Ok(Box::new(Mean {
            x: operand(node, shapes, x, 1)?,
            sizes: [batch, height * width, channels],
            signed: signed(shapes, out)?,
            grid: grid(node, 3, shapes.dtype(out))?,
        })),
        false => Err(wrong()),
    }
}

impl Step for Mean {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let Operand(is_signed, zero, factor) = self.x;
        let x = bytes(&io, 0, is_signed, zero);
        let mut target = target(&mut io, self.signed, self.grid);
        static8::mean(Isa::best(), pool, x, factor, self.sizes, &mut target);
        Ok(())
    }
}

struct Quantize {
    /// Images, channels and pixels, where channels come last.
    last: Option<[usize; 3]>,
    signed: bool,
    grid: Grid,
}

/// Makes the step of [`QUANTIZE`].
///
/// # Errors
/// Arguments that do not fit.
pub fn quantize(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let last = match (node.bool(1)?, shapes.of(x)) {
        (false, _) => None,
        (true, &[n, c, h, w]) if c <= static8::FEW => Some([n, c, h * w]),
        (true, _) => return Err(node.misfit(0, "images of a few channels")),
    };
    match shapes.dtype(x) == DType::F32 && shapes.count(x) == shapes.count(out) {
        true => Ok(Box::new(Quantize {
            last,
            signed: signed(shapes, out)?,
            grid: grid(node, 2, shapes.dtype(out))?,
        })),
        false => Err(wrong()),
    }
}

impl Step for Quantize {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let x: &[f32] = io.input(0);
        let mut target = target(&mut io, self.signed, self.grid);
        match self.last {
            Some(sizes) => static8::quantize_last(Isa::best(), pool, x, sizes, &mut target),
            None => static8::quantize(Isa::best(), pool, x, &mut target),
        }
        Ok(())
    }
}
