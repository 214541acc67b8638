//! The one operator table of Delegraph: what an operator is called, what it takes and what it returns.
//!
//! The table is `schemas.txt`, written by `make_schemas.py` from PyTorch's own registry and committed. It is sorted, so a
//! look-up is a binary search over text and start-up costs nothing. This crate knows no graph and no kernel. `no_std` + `alloc`.
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
//! ```
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod schema;
mod table;
mod variant;

pub use schema::{BaseType, Default, Param, ParamType, Return, Schema};
pub use table::Op;
