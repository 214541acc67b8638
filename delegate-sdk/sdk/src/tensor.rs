//! Tensors of a run.

use crate::Error;
use delegraph_abi::DType;

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
    /// States the actual sizes.
    ///
    /// # Errors
    /// Another rank, or more than the room holds.
    pub fn set_sizes(&mut self, sizes: &[i64]) -> Result<(), Error> {
        if sizes.len() != self.sizes.len() || sizes.iter().zip(self.sizes.iter()).any(|(s, max)| *s < 0 || s > max) {
            return Err(Error::new(
                delegraph_abi::Status::SHAPE_OUT_OF_RANGE,
                format!("an output of sizes {sizes:?} does not fit its bounds {:?}", self.sizes),
            ));
        }
        self.sizes.copy_from_slice(sizes);
        Ok(())
    }
}
