//! A product with a packed matrix, and what is done to it before it is stored.

use super::{Step, Work, activation};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::gemm::{self, Packed, Stored};
use delegraph_cpu_kernels::{Activation, Epilogue, Isa, Pool};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};

/// `cpu::linear(x, packed, bias?, residual?, n, width, function, number, number, residual_last)`
pub const NAME: &str = "cpu::linear";
/// The argument of the function's word; its numbers and `residual_last` follow.
pub const FUNCTION: usize = 6;
/// The argument of the bias; the residual follows.
pub const BIAS: usize = 2;

struct Linear {
    rows: usize,
    k: usize,
    n: usize,
    width: usize,
    /// The type that the matrix is stored in.
    stored: DType,
    ends: Ends,
}

/// Bias, residual and function of a step.
pub struct Ends {
    bias: bool,
    residual: bool,
    residual_last: bool,
    activation: Activation,
}

impl Ends {
    /// Reads them, from the bias on and from the function on.
    ///
    /// # Errors
    /// Arguments that do not fit.
    pub fn read(node: &Arguments<'_>, bias: usize, function: usize) -> Result<Ends, Error> {
        Ok(Ends {
            bias: !node.is_none(bias),
            residual: !node.is_none(bias + 1),
            residual_last: node.bool(function + 3)?,
            activation: activation(node, function)?,
        })
    }

    /// How many inputs they are.
    pub fn count(&self) -> usize {
        usize::from(self.bias) + usize::from(self.residual)
    }

    /// With the tensors of a run, from the input `first` on.
    pub fn epilogue<'a>(&self, io: &Io<'a>, first: usize) -> Epilogue<'a> {
        Epilogue {
            bias: self.bias.then(|| io.input(first)),
            residual: self.residual.then(|| io.input(first + usize::from(self.bias))),
            residual_last: self.residual_last,
            activation: self.activation,
        }
    }
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, weight, output) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let (n, width) = (node.natural(4)?, node.natural(5)?);
    let k = shapes.of(x).last().copied().unwrap_or(1);
    let rows = shapes.of(x).iter().rev().skip(1).product();
    let fits = matches!(width, 8 | 16 | 32)
        && matches!(shapes.dtype(weight), DType::F32 | DType::F16 | DType::BF16)
        && shapes.count(weight) == gemm::packed_len(k, n, width)
        && shapes.count(output) == rows * n;
    if !fits {
        return Err(Error::corrupt(format!(
            "a packed matrix does not fit [{rows}, {k}] x [{k}, {n}]"
        )));
    }
    Ok(Box::new(Linear {
        rows,
        k,
        n,
        width,
        stored: shapes.dtype(weight),
        ends: Ends::read(node, BIAS, FUNCTION)?,
    }))
}

impl Step for Linear {
    fn work(&self) -> Work {
        Work::floats(&[2, self.rows, self.k, self.n])
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let weights = Packed {
            stored: match self.stored {
                DType::F16 => Stored::F16(io.input(1)),
                DType::BF16 => Stored::BF16(io.input(1)),
                _ => Stored::F32(io.input(1)),
            },
            k: self.k,
            n: self.n,
            width: self.width,
        };
        let epilogue = self.ends.epilogue(&io, 2);
        let (x, out) = (io.input(0), io.output(0));
        gemm::gemm(
            Isa::best(),
            pool,
            self.rows,
            x,
            self.k,
            &weights,
            out,
            self.n,
            &epilogue,
            self.n,
        );
        Ok(())
    }
}
