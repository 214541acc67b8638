//! Tensors of a run.

use crate::sys::{Element, as_elements, as_elements_mut};
use crate::{DType, Error, Status};
use std::any::Any;
use std::fmt;

/// A tensor that a session reads: contiguous, row-major.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub sizes: &'a [i64],
    /// The elements, aligned to the element's size, and the room behind them that a [`crate::Requirement`] asks for, if any: unspecified bytes.
    /// Empty where the session keeps the state that the tensor is.
    pub bytes: &'a [u8],
    /// The imported buffer that `bytes` lie in. Always `None` where the delegate does not [`crate::Import`].
    pub buffer: Option<Imported<'a>>,
}

impl<'a> TensorView<'a> {
    /// A tensor in memory of the caller's.
    pub fn new(dtype: DType, sizes: &'a [i64], bytes: &'a [u8]) -> TensorView<'a> {
        TensorView {
            dtype,
            sizes,
            bytes,
            buffer: None,
        }
    }

    /// The elements as numbers of this width (`u16` for f16 and bf16, `u8` for bool); `None` for another width.
    pub fn elements<T: Element>(&self) -> Option<&'a [T]> {
        (self.dtype.size() == Some(size_of::<T>()))
            .then(|| as_elements(self.bytes))
            .flatten()
    }
}

/// A tensor that a session writes: contiguous, row-major.
#[derive(Debug)]
#[non_exhaustive]
pub struct TensorOut<'a> {
    /// Element type.
    pub dtype: DType,
    /// In: the largest sizes that fit `bytes`. Out: the actual ones ([`TensorOut::set_sizes`]).
    pub sizes: &'a mut [i64],
    /// Room for the largest sizes, aligned to the element's size, and for what a [`crate::Requirement`] asks; write the elements to its
    /// start, and anything behind them. Empty where the session keeps the state that the tensor is.
    pub bytes: &'a mut [u8],
    /// As in [`TensorView`].
    pub buffer: Option<Imported<'a>>,
}

impl<'a> TensorOut<'a> {
    /// Room for a tensor in memory of the caller's.
    pub fn new(dtype: DType, sizes: &'a mut [i64], bytes: &'a mut [u8]) -> TensorOut<'a> {
        TensorOut {
            dtype,
            sizes,
            bytes,
            buffer: None,
        }
    }

    /// The room as numbers of this width (`u16` for f16 and bf16, `u8` for bool); `None` for another width.
    pub fn elements<T: Element>(&mut self) -> Option<&mut [T]> {
        (self.dtype.size() == Some(size_of::<T>()))
            .then(|| as_elements_mut(self.bytes))
            .flatten()
    }

    /// States the actual sizes.
    ///
    /// # Errors
    /// Another rank, or more than the room holds.
    pub fn set_sizes(&mut self, sizes: &[i64]) -> Result<(), Error> {
        if sizes.len() != self.sizes.len() || sizes.iter().zip(self.sizes.iter()).any(|(s, max)| *s < 0 || s > max) {
            return Err(Error::new(
                Status::SHAPE_OUT_OF_RANGE,
                format!("an output of sizes {sizes:?} does not fit its bounds {:?}", self.sizes),
            ));
        }
        self.sizes.copy_from_slice(sizes);
        Ok(())
    }
}

/// A place in a buffer that the delegate imported.
#[derive(Clone, Copy)]
pub struct Imported<'a> {
    buffer: &'a (dyn Any + Send + Sync),
    offset: u64,
}

impl<'a> Imported<'a> {
    pub(crate) fn new(buffer: &'a (dyn Any + Send + Sync), offset: u64) -> Imported<'a> {
        Imported { buffer, offset }
    }

    /// What [`crate::Import::import`] made; `None` if it is of another type than that.
    pub fn buffer<T: 'static>(&self) -> Option<&'a T> {
        self.buffer.downcast_ref()
    }

    /// Bytes from the beginning of the buffer to the tensor.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Debug for Imported<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imported")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
