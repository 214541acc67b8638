//! The one operator table of Delegraph: what an operator is called, what it takes and what it returns.
//!
//! The table has two parts, both sorted, so that a look-up is a binary search over text and start-up costs nothing:
//!
//! - `schemas.txt`, signatures and flags, written by `make_schemas.py` from PyTorch's own registry and committed;
//! - `operators.txt`, kept by hand: what is known here beyond that of each operator that Delegraph runs or types. A row is
//!   `name, family, dtypes, what it computes`, separated by tabs, and serves every overload that has no row of its own.
//!
//! `versions.txt` tells which version of the table brought an operator: [`Versions`].
//!
//! This crate knows no graph and no kernel. `no_std` + `alloc`.
//!
//! ```
//! use delegraph_opset::Op;
//!
//! let op = Op::find("aten::add.Tensor").unwrap();
//! let schema = op.schema();
//! assert_eq!(schema.params[2].name, "alpha");
//! assert!(schema.params[2].keyword_only);
//! assert!(op.is_core());
//! assert!(Op::find("aten::add.out").unwrap().schema().params[3].is_out);
//! assert_eq!(op.doc(), Some("`self + alpha * other`, with broadcasting."));
//! ```
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod dtypes;
mod operators;
mod rows;
mod schema;
mod table;
mod variant;
mod versions;

pub use dtypes::DTypes;
pub use schema::{BaseType, Default, Param, ParamType, Return, Schema};
pub use table::Op;
pub use versions::{Version, Versions, VersionsError};
