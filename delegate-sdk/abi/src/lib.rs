//! The delegate ABI: repr(C) mirror of delegraph.h, the graph image and the blob envelope.
#![no_std]

extern crate alloc;

mod status;

pub use status::Status;
