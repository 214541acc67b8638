//! Constants in the form that kernels want them, made once by the compiler and kept in the blob.
//!
//! An operator asks for one with [`crate::encoder::Encoder::packed`]. While a region is compiled the answer is noted, and the bytes are made
//! and written; at load they are found by their [`Key`]. What a blob lacks, because another device lowers otherwise, is made at load.

pub mod conv;
pub mod conv_bytes;
pub mod linear;

use delegraph_sdk::{DType, Error};

/// A form of constants.
#[derive(Debug)]
pub struct Packing {
    /// Unique, and part of the blob: a form that changes gets another name.
    pub name: &'static str,
    /// Makes it: dtype, sizes and row-major bytes of the constant, and what the operator adds (groups, for example).
    pub pack: fn(DType, &[u32], &[u8], &[u32]) -> Result<Vec<u8>, Error>,
}

/// All forms: the reader of blobs knows no others.
pub static ALL: &[&Packing] = &[
    &conv::BLOCKS,
    &conv::DEPTHWISE,
    &conv::WINOGRAD,
    &conv_bytes::BLOCKS,
    &conv_bytes::DEPTHWISE,
    &linear::NIBBLES,
];

/// The form of this name.
pub fn find(name: &str) -> Option<&'static Packing> {
    ALL.iter().find(|packing| packing.name == name).copied()
}

/// What tells one packed constant from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The weight, by the id that the image gives it.
    pub weight: u32,
    /// Name of the form.
    pub packing: String,
    /// What the operator added.
    pub arguments: Vec<u32>,
}
