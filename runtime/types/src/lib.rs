//! dtypes, shapes, scalars, PyTorch's promotion rules, and leave to use threads: the vocabulary that every crate of Delegraph
//! shares.
//!
//! This crate knows nothing of graphs, files or kernels. It is `no_std` + `alloc`.
//!
//! ```
//! use delegraph_types::{DType, Dims};
//!
//! let shape = Dims::new(&[2, 3, 4]).unwrap();
//! assert_eq!(shape.numel(), Some(24));
//! assert_eq!(shape.contiguous_strides().as_slice(), &[12, 4, 1]);
//! assert_eq!(DType::F16.name(), "f16");
//! assert_eq!(DType::promote(DType::I64, DType::F16), DType::F16);
//! ```
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod dims;
mod dtype;
mod element;
mod nearest;
mod parallel;
mod promote;
mod scalar;

pub use dims::{Dims, MAX_RANK, RankError};
pub use dtype::DType;
pub use element::Element;
pub use nearest::nearest;
pub use parallel::{Parallel, ParallelFor, Serial};
pub use promote::{Category, Operand, result_dtype};
pub use scalar::Scalar;

pub use half::{bf16, f16};
pub use num_complex::Complex;
