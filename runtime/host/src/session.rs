//! A loaded blob.

use crate::DelegateError;
use delegraph_types::{DType, Dims};
use std::sync::Arc;

/// A tensor that a session reads: contiguous, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub sizes: &'a [i64],
    /// Exactly the elements.
    pub bytes: &'a [u8],
}

/// A tensor that a session writes: contiguous, row-major.
#[derive(Debug)]
pub struct Output<'a> {
    /// Element type.
    pub dtype: DType,
    /// In: the largest sizes that fit `bytes`. Out: the actual sizes, never larger.
    pub sizes: Dims,
    /// Room for the largest sizes; the actual elements lie at its start, contiguous.
    pub bytes: &'a mut [u8],
}

/// A loaded blob, ready to run. One run at a time; may move between threads.
pub struct Session {
    pub(crate) backend: Arc<str>,
}

impl Session {
    /// Runs the region once.
    ///
    /// # Errors
    /// The delegate failed, or answered out of contract. The outputs' bytes are then unspecified; inputs are untouched.
    pub fn execute(&mut self, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<(), DelegateError> {
        let _ = (inputs, outputs);
        Err(DelegateError::new(
            &self.backend,
            delegraph_abi::Status::INTERNAL,
            "not connected yet",
        ))
    }
}
