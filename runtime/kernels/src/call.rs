//! How a kernel is called.

use crate::random::Random;
use crate::{Growable, KernelError, Out, Tensor};
use delegraph_types::{DType, Scalar};

/// An input argument of a call, in the order of the out-variant's schema.
// Made a few times a call and copied freely: a box would cost more than the room.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// `None`.
    None,
    /// An integer (also dtypes, by their `.pte` code, and memory formats).
    Int(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(&'a str),
    /// A tensor.
    Tensor(Tensor<'a>),
    /// `int[]`
    Ints(&'a [i64]),
    /// `float[]`
    Floats(&'a [f64]),
    /// `bool[]`
    Bools(&'a [bool]),
    /// `Tensor[]`
    Tensors(&'a [Tensor<'a>]),
    /// `Tensor?[]`
    OptionalTensors(&'a [Option<Tensor<'a>>]),
}

/// What kernels keep between calls: memory that they may use while they run, so that a steady run allocates nothing, and how far
/// the random operators have drawn.
#[derive(Debug, Default)]
pub struct Scratch {
    memory: Growable,
    pub(crate) random: Random,
}

impl Scratch {
    /// Lets the random operators draw from the start of the numbers of `seed`. They begin with seed 0.
    pub fn seed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// Gives the memory back until a kernel needs some again; what was drawn stays drawn.
    pub fn free(&mut self) {
        self.memory.free();
    }

    /// `len` bytes, aligned for every dtype, contents unspecified.
    ///
    /// # Errors
    /// Memory cannot be had.
    pub fn bytes(&mut self, len: usize) -> Result<&mut [u8], KernelError> {
        self.memory.reserve(len)
    }

    /// `len` elements, contents unspecified.
    ///
    /// # Errors
    /// Memory cannot be had.
    pub fn elements<T: delegraph_types::Element>(&mut self, len: usize) -> Result<&mut [T], KernelError> {
        let bytes = len
            .checked_mul(size_of::<T>())
            .ok_or(KernelError::OutOfMemory(usize::MAX))?;
        Ok(bytemuck::cast_slice_mut(self.memory.reserve(bytes)?))
    }
}

/// Numbers that a kernel returns instead of tensors (`executorch_prim` operators, `sym_size`, `_local_scalar_dense`).
pub type Results = Option<Scalar>;

/// A call: inputs, outputs and scratch memory.
///
/// For an in-place operator (`aten::copy_`) the mutated argument is the output, with its present contents, and its place in
/// `args` holds [`Arg::None`].
#[derive(Debug)]
pub struct Call<'a, 'b> {
    /// Inputs in the order of the schema, out arguments left out.
    pub args: &'b [Arg<'a>],
    /// Outputs in order; an operator that returns `Tensor[]` has one for each element.
    pub outs: &'b mut [Out<'a>],
    /// Working memory.
    pub scratch: &'b mut Scratch,
    /// Set by operators that return a number.
    pub result: Results,
}

impl<'a> Call<'a, '_> {
    /// The argument at `index`.
    fn at(&self, index: usize) -> Arg<'a> {
        self.args.get(index).copied().unwrap_or(Arg::None)
    }

    /// True if the argument is absent or `None`.
    pub fn is_none(&self, index: usize) -> bool {
        matches!(self.at(index), Arg::None)
    }

    /// A tensor argument.
    ///
    /// # Errors
    /// It is of another kind. So for all accessors here.
    pub fn tensor(&self, index: usize) -> Result<Tensor<'a>, KernelError> {
        match self.at(index) {
            Arg::Tensor(t) => Ok(t),
            _ => Err(wrong(index, "a tensor")),
        }
    }

    /// A tensor argument that may be `None`.
    #[allow(clippy::missing_errors_doc)]
    pub fn optional_tensor(&self, index: usize) -> Result<Option<Tensor<'a>>, KernelError> {
        if self.is_none(index) {
            Ok(None)
        } else {
            self.tensor(index).map(Some)
        }
    }

    /// An integer argument.
    #[allow(clippy::missing_errors_doc)]
    pub fn int(&self, index: usize) -> Result<i64, KernelError> {
        match self.at(index) {
            Arg::Int(i) => Ok(i),
            Arg::Bool(b) => Ok(i64::from(b)),
            _ => Err(wrong(index, "an integer")),
        }
    }

    /// An integer argument that may be `None`.
    #[allow(clippy::missing_errors_doc)]
    pub fn optional_int(&self, index: usize) -> Result<Option<i64>, KernelError> {
        if self.is_none(index) {
            Ok(None)
        } else {
            self.int(index).map(Some)
        }
    }

    /// A float argument; integers are accepted.
    #[allow(clippy::missing_errors_doc)]
    pub fn float(&self, index: usize) -> Result<f64, KernelError> {
        match self.at(index) {
            Arg::Float(f) => Ok(f),
            Arg::Int(i) => Ok(i as f64),
            _ => Err(wrong(index, "a float")),
        }
    }

    /// A float argument that may be `None`.
    #[allow(clippy::missing_errors_doc)]
    pub fn optional_float(&self, index: usize) -> Result<Option<f64>, KernelError> {
        if self.is_none(index) {
            Ok(None)
        } else {
            self.float(index).map(Some)
        }
    }

    /// A boolean argument; `None` counts as false.
    #[allow(clippy::missing_errors_doc)]
    pub fn bool(&self, index: usize) -> Result<bool, KernelError> {
        match self.at(index) {
            Arg::Bool(b) => Ok(b),
            Arg::Int(i) => Ok(i != 0),
            Arg::None => Ok(false),
            _ => Err(wrong(index, "a boolean")),
        }
    }

    /// A number of any category.
    #[allow(clippy::missing_errors_doc)]
    pub fn scalar(&self, index: usize) -> Result<Scalar, KernelError> {
        match self.at(index) {
            Arg::Int(i) => Ok(Scalar::Int(i)),
            Arg::Float(f) => Ok(Scalar::Float(f)),
            Arg::Bool(b) => Ok(Scalar::Bool(b)),
            _ => Err(wrong(index, "a number")),
        }
    }

    /// A number that may be `None`.
    #[allow(clippy::missing_errors_doc)]
    pub fn optional_scalar(&self, index: usize) -> Result<Option<Scalar>, KernelError> {
        if self.is_none(index) {
            Ok(None)
        } else {
            self.scalar(index).map(Some)
        }
    }

    /// A string argument.
    #[allow(clippy::missing_errors_doc)]
    pub fn str(&self, index: usize) -> Result<&'a str, KernelError> {
        match self.at(index) {
            Arg::Str(s) => Ok(s),
            _ => Err(wrong(index, "a string")),
        }
    }

    /// A dtype argument (a `.pte` ScalarType code) that may be `None`.
    #[allow(clippy::missing_errors_doc)]
    pub fn optional_dtype(&self, index: usize) -> Result<Option<DType>, KernelError> {
        match self.optional_int(index)? {
            None => Ok(None),
            Some(code) => i8::try_from(code)
                .ok()
                .and_then(DType::from_pte)
                .map(Some)
                .ok_or(wrong(index, "a supported dtype")),
        }
    }

    /// `int[]`; `None` is an empty list, a single integer a list of one.
    #[allow(clippy::missing_errors_doc)]
    pub fn ints(&self, index: usize) -> Result<&'a [i64], KernelError> {
        match self.at(index) {
            Arg::Ints(items) => Ok(items),
            Arg::None => Ok(&[]),
            _ => Err(wrong(index, "a list of integers")),
        }
    }

    /// `float[]`; `None` is an empty list.
    #[allow(clippy::missing_errors_doc)]
    pub fn floats(&self, index: usize) -> Result<&'a [f64], KernelError> {
        match self.at(index) {
            Arg::Floats(items) => Ok(items),
            Arg::None => Ok(&[]),
            _ => Err(wrong(index, "a list of floats")),
        }
    }

    /// `Tensor[]`
    #[allow(clippy::missing_errors_doc)]
    pub fn tensors(&self, index: usize) -> Result<&'a [Tensor<'a>], KernelError> {
        match self.at(index) {
            Arg::Tensors(items) => Ok(items),
            _ => Err(wrong(index, "a list of tensors")),
        }
    }

    /// `Tensor?[]`
    #[allow(clippy::missing_errors_doc)]
    pub fn optional_tensors(&self, index: usize) -> Result<&'a [Option<Tensor<'a>>], KernelError> {
        match self.at(index) {
            Arg::OptionalTensors(items) => Ok(items),
            _ => Err(wrong(index, "a list of optional tensors")),
        }
    }

    /// The output at `index`.
    #[allow(clippy::missing_errors_doc)]
    pub fn out(&mut self, index: usize) -> Result<&mut Out<'a>, KernelError> {
        let count = self.args.len();
        self.outs.get_mut(index).ok_or(wrong(count + index, "an output tensor"))
    }
}

fn wrong(index: usize, expected: &'static str) -> KernelError {
    KernelError::WrongKind { index, expected }
}
