//! Passes: shape functions, decompositions to core ATen, clean-up, the portable dialect.

mod error;

pub use error::PassError;
