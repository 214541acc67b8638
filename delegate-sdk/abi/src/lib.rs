//! The delegate ABI: repr(C) mirror of delegraph.h, the graph image and the blob envelope.
//!
//! `no_std` + `alloc`, no dependencies. What is in [`c`] is generated from `abi.toml`, as the header is.
#![no_std]

extern crate alloc;

#[rustfmt::skip]
#[path = "generated.rs"]
pub mod c;
mod entry;
pub mod envelope;
pub mod image;
mod text;

pub use c::{DType, MemoryFormat, Reason, Status};
pub use entry::StaticEntry;
