//! Passes: clean-up, decompositions to core ATen, constant folding, the portable dialect.
//!
//! What a delegate may ask for besides is a view of the graph, which stays as it is: [`quantize`], [`batch_norm`], [`raise`] and
//! [`channels_last`].
//!
//! The usual order is [`simplify`] after import, tagging (which decomposes what nobody claims, step by step, with
//! [`decompose`]), and [`to_portable`] before a program is written. This crate knows no delegate and no file.

pub mod batch_norm;
pub mod channels_last;
mod dce;
pub mod decompose;
mod error;
mod fold;
pub mod language_model;
mod portable;
pub mod quantize;
pub mod raise;
pub mod rewrite;
mod run;
mod simplify;
mod view;

pub use dce::remove_dead_nodes;
pub use error::PassError;
pub use fold::fold_constants;
pub use portable::{Foreign, not_in_executorch, to_portable};
pub use run::{RunError, run, run_sized_by_kernel};
pub use simplify::simplify;
pub use view::{Folded, Origin};
