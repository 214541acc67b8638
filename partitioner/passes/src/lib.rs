//! Passes: clean-up, decompositions to core ATen, constant folding, the portable dialect.
//!
//! The usual order is [`simplify`] after import, tagging (which decomposes what nobody claims, step by step, with
//! [`decompose`]), and [`to_portable`] before a program is written. This crate knows no delegate and no file.

mod dce;
pub mod decompose;
mod error;
mod fold;
mod portable;
pub mod quantize;
pub mod rewrite;
mod run;
mod simplify;

pub use dce::remove_dead_nodes;
pub use error::PassError;
pub use fold::fold_constants;
pub use portable::{Foreign, not_in_executorch, to_portable};
pub use run::{RunError, run};
pub use simplify::simplify;
