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
mod version;

pub use c::{DType, MemoryFormat, Reason, Status};
pub use entry::StaticEntry;
pub use version::{entry_name, layout_hash, newest_minor};
