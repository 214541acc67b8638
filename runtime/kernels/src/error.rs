//! What can go wrong in a kernel.

use alloc::boxed::Box;
use alloc::string::String;
use delegraph_types::{DType, Dims};

/// An error of a kernel. The executor adds the node, the operator and every argument's dtype and shape.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The call breaks the operator's own rules: PyTorch would refuse it too.
    #[error("argument `{argument}`: {problem}")]
    Invalid {
        /// Parameter name of the schema.
        argument: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A valid call that this kernel does not do.
    #[error("argument `{argument}`: {problem} is not supported")]
    Unsupported {
        /// Parameter name of the schema.
        argument: &'static str,
        /// What is not supported.
        problem: String,
    },
    /// An argument of another kind than the schema says.
    #[error("argument {index}: expected {expected}")]
    WrongKind {
        /// Position in the call.
        index: usize,
        /// The kind of the schema.
        expected: &'static str,
    },
    /// An output does not fit the memory planned for it.
    #[error("output of {got} does not fit the {capacity} bytes planned for {dtype}")]
    OutputTooLarge {
        /// The shape that the operator gives.
        got: Box<Dims>,
        /// The output's dtype.
        dtype: DType,
        /// Bytes of its memory.
        capacity: usize,
    },
    /// An output's dtype is not what the operator gives.
    #[error("output {index} is {got}, the operator gives {want}")]
    OutputDtype {
        /// Position among the outputs.
        index: usize,
        /// The output's dtype.
        got: DType,
        /// The operator's.
        want: DType,
    },
    /// Memory for a run-time sized output or for scratch could not be had.
    #[error("out of memory for {0} bytes")]
    OutOfMemory(usize),
}

impl KernelError {
    /// An [`KernelError::Invalid`].
    pub fn invalid(argument: &'static str, problem: impl Into<String>) -> KernelError {
        KernelError::Invalid {
            argument,
            problem: problem.into(),
        }
    }

    /// An [`KernelError::Unsupported`].
    pub fn unsupported(argument: &'static str, problem: impl Into<String>) -> KernelError {
        KernelError::Unsupported {
            argument,
            problem: problem.into(),
        }
    }
}
