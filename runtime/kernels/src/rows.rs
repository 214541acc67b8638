//! The row engine: a tensor as rows along some of its dimensions, read (again and again where needed) piece by piece.
//!
//! Reductions, norms, softmax, scans and sorting are all: for each row, go over its elements.

use crate::lanes::{LANES, Reader, Walk};
use crate::stage::dim_of;
use crate::wide::Wide;
use crate::{KernelError, Out, Tensor};
use alloc::format;
use delegraph_types::Dims;

/// A set of dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DimSet(u32);

impl DimSet {
    /// Every dimension.
    pub const ALL: DimSet = DimSet(u32::MAX);

    /// No dimension.
    pub fn none() -> DimSet {
        DimSet(0)
    }

    /// These and `dim`.
    pub fn with(self, dim: usize) -> DimSet {
        DimSet(self.0 | DimSet::one(dim).0)
    }

    /// One dimension, which has to exist.
    pub fn one(dim: usize) -> DimSet {
        DimSet(1u32.checked_shl(dim as u32).unwrap_or(0))
    }

    /// The dimension `dim`, or all of them for `None`.
    ///
    /// # Errors
    /// It is out of range.
    pub fn optional(sizes: &Dims, dim: Option<i64>) -> Result<DimSet, KernelError> {
        dim.map_or(Ok(DimSet::ALL), |dim| Ok(DimSet::one(dim_of(sizes, dim, "dim")?)))
    }

    /// These dimensions; all of them for an empty list.
    ///
    /// # Errors
    /// One is out of range or named twice.
    pub fn list(sizes: &Dims, dims: &[i64]) -> Result<DimSet, KernelError> {
        if dims.is_empty() {
            return Ok(DimSet::ALL);
        }
        let mut set = DimSet(0);
        for &dim in dims {
            let one = DimSet::one(dim_of(sizes, dim, "dim")?);
            if set.0 & one.0 != 0 {
                return Err(KernelError::invalid("dim", format!("dimension {dim} is named twice")));
            }
            set.0 |= one.0;
        }
        Ok(set)
    }

    /// Those from `first` on.
    pub fn from(first: usize) -> DimSet {
        DimSet(u32::MAX.checked_shl(first as u32).unwrap_or(0))
    }

    /// All but these.
    pub fn others(self) -> DimSet {
        DimSet(!self.0)
    }

    /// True if `dim` is one of them.
    pub fn has(self, dim: usize) -> bool {
        self.0 >> dim & 1 == 1
    }

    /// Sizes after reducing these dimensions.
    pub fn reduce(self, sizes: &Dims, keepdim: bool) -> Dims {
        self.pick(sizes, |size, inside| match (inside, keepdim) {
            (false, _) => Some(size),
            (true, true) => Some(1),
            (true, false) => None,
        })
    }

    /// The entries of the dimensions inside.
    pub fn inside(self, values: &Dims) -> Dims {
        self.pick(values, |value, inside| inside.then_some(value))
    }

    fn pick(self, values: &Dims, f: impl Fn(i64, bool) -> Option<i64>) -> Dims {
        let mut picked = Dims::SCALAR;
        for (d, &value) in values.iter().enumerate() {
            if let Some(value) = f(value, self.has(d)) {
                // As many as `values` has, at most.
                let _ = picked.push(value);
            }
        }
        picked
    }
}

/// Where the rows of a strided tensor begin, in row-major order of the other dimensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Starts {
    walk: Walk,
    left: usize,
}

impl Starts {
    /// Of rows along `dims`.
    pub fn new(sizes: &Dims, strides: &Dims, dims: DimSet) -> Starts {
        let outer = dims.others();
        let sizes = outer.inside(sizes);
        Starts {
            walk: Walk::new(&sizes, &outer.inside(strides)),
            left: sizes.numel().unwrap_or(0),
        }
    }
}

impl Iterator for Starts {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        Some(self.walk.step())
    }
}

/// The rows of a tensor along some dimensions.
pub(crate) struct Rows<'a, W> {
    reader: Reader<'a, W>,
    starts: Starts,
    start: usize,
    len: usize,
}

impl<'a, W: Wide> Rows<'a, W> {
    /// Rows along `dims`.
    pub fn new(tensor: Tensor<'a>, dims: DimSet) -> Rows<'a, W> {
        let sizes = dims.inside(tensor.sizes());
        Rows {
            reader: Reader::new(tensor, &sizes, &dims.inside(tensor.strides())),
            starts: Starts::new(tensor.sizes(), tensor.strides(), dims),
            start: 0,
            len: sizes.numel().unwrap_or(0),
        }
    }

    /// Elements of a row.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Goes to the next row; false after the last.
    pub fn advance(&mut self) -> bool {
        match self.starts.next() {
            Some(start) => {
                self.start = start;
                true
            }
            None => false,
        }
    }

    /// Goes over the present row from its start in pieces.
    ///
    /// # Errors
    /// The dtype has no conversion.
    pub fn each(&mut self, mut f: impl FnMut(&[W])) -> Result<(), KernelError> {
        self.reader.seek(self.start);
        let mut done = 0usize;
        while done < self.len {
            let take = LANES.min(self.len - done);
            f(self.reader.read(take)?);
            done += take;
        }
        Ok(())
    }

    /// Copies the present row.
    ///
    /// # Errors
    /// As [`Rows::each`].
    pub fn copy_to(&mut self, row: &mut [W]) -> Result<(), KernelError> {
        let mut done = 0usize;
        self.each(|piece| {
            row[done..done + piece.len()].copy_from_slice(piece);
            done += piece.len();
        })
    }
}

/// Goes over `len` elements in pieces of at most [`LANES`]: `f(start, count)`.
///
/// # Errors
/// What `f` gives.
pub(crate) fn pieces(
    len: usize,
    mut f: impl FnMut(usize, usize) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let mut done = 0usize;
    while done < len {
        let take = LANES.min(len - done);
        f(done, take)?;
        done += take;
    }
    Ok(())
}

/// Sizes an output for a tensor reduced along `dims`.
///
/// # Errors
/// It does not fit.
pub(crate) fn shape_reduced(out: &mut Out, input: &Tensor, dims: DimSet, keepdim: bool) -> Result<(), KernelError> {
    out.resize(&dims.reduce(input.sizes(), keepdim))
}

/// Runs `$body` with `$W` as `f64` for floating dtypes and `i64` for others: row-wise kernels accumulate in these.
macro_rules! with_accumulator {
    ($dtype:expr, $argument:expr, $W:ident => $body:expr) => {{
        match $dtype {
            delegraph_types::DType::F16
            | delegraph_types::DType::BF16
            | delegraph_types::DType::F32
            | delegraph_types::DType::F64 => {
                type $W = f64;
                $body
            }
            other if !other.is_float() && !other.is_complex() && other != delegraph_types::DType::U64 => {
                type $W = i64;
                $body
            }
            other => Err($crate::KernelError::unsupported(
                $argument,
                alloc::format!("dtype {other}"),
            )),
        }
    }};
}
pub(crate) use with_accumulator;
