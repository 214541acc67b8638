//! ExecuTorch's `.pte` programs, `.ptd` data files and bundled programs: model, reader, verifier and writer.
//! And ETDump, its form of profiles: a writer.
//!
//! [`model`] is the program as plain Rust values. The reader is the only maker of a [`Verified`] program, and the executor
//! takes nothing else. This crate runs nothing and knows no operator's meaning. `no_std` + `alloc`.
//!
//! ```
//! use delegraph_pte::model::{EValue, Plan};
//! use delegraph_pte::{ProgramParts, Verified, write};
//!
//! let method = Plan { name: "max_len".into(), values: vec![EValue::Int(128)], outputs: vec![0], ..Plan::default() };
//! let parts = ProgramParts { plans: &[method], constants: &[], mutable_states: &[], named: &[] };
//! let mut file = Vec::new();
//! write(&parts, &mut file).unwrap();
//! assert_eq!(Verified::parse(&file).unwrap().plans[0].name, "max_len");
//! ```
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod bundled;
mod check;
mod error;
pub mod etdump;
mod generated;
mod header;
pub mod model;
pub mod origins;
pub mod overlay;
mod ptd;
mod read;
mod verified;
mod write;

pub use bundled::{BundledProgram, BundledTensor, BundledValue, TestCase, TestSuite};
pub use error::{PteError, WriteError};
pub use ptd::{DataFile, DataTensor, NamedTensor, write_ptd};
pub use verified::{Contents, Verified};
#[cfg(feature = "std")]
pub use write::write_to;
pub use write::{ProgramParts, write};
