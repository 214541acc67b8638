//! The C API for apps: a model, its sessions, values in and out, errors.
//!
//! The header is `include/delegraph_app.h`; it, [`generated`] and `symbols.txt` are written by `cargo xtask gen capi` from
//! `capi.toml`. An app in Rust uses the crate `delegraph` instead. This crate knows nothing of graphs, delegates or files: it
//! turns pointers into what `delegraph` takes, and what `delegraph` gives into pointers.
//!
//! Reading order: `capi.toml` (what is promised), [`sys`] (the functions, and every pointer), [`Model`], [`Session`].

mod error;
#[rustfmt::skip]
pub mod generated;
mod model;
mod session;
pub mod sys;

pub use model::Model;
pub use session::{Memory, Session};
