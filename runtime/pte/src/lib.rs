//! ExecuTorch's `.pte` programs, `.ptd` data files and bundled programs: model, reader, verifier and writer.
//!
//! [`model`] is the program as plain Rust values. The reader is the only maker of a [`Verified`] program, and the executor
//! takes nothing else. This crate runs nothing and knows no operator's meaning. `no_std` + `alloc`.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod model;
pub mod overlay;
