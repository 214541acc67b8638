//! Tensors of a run.

use crate::sys::{Element, as_elements, as_elements_mut};
use crate::{DType, Error, Status};

/// A tensor that a session reads: contiguous, row-major.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub sizes: &'a [i64],
    /// Exactly the elements, aligned to the element's size.
    pub bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// The elements as numbers of this width (`u16` for f16 and bf16, `u8` for bool); `None` for another width.
    pub fn elements<T: Element>(&self) -> Option<&'a [T]> {
        (self.dtype.size() == Some(size_of::<T>()))
            .then(|| as_elements(self.bytes))
            .flatten()
    }
}

/// A tensor that a session writes: contiguous, row-major.
#[derive(Debug)]
pub struct TensorOut<'a> {
    /// Element type.
    pub dtype: DType,
    /// In: the largest sizes that fit `bytes`. Out: the actual ones ([`TensorOut::set_sizes`]).
    pub sizes: &'a mut [i64],
    /// Room for the largest sizes, aligned to the element's size; write the elements to its start.
    pub bytes: &'a mut [u8],
}

impl TensorOut<'_> {
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
