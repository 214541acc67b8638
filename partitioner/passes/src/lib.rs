//! Passes: shape functions, decompositions to core ATen, clean-up, the portable dialect.

pub mod decompose;
mod error;
pub mod rewrite;

pub use error::PassError;
