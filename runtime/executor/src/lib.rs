//! Runs a verified program: arenas, kernels, delegated ranges with fallback, state.
//!
//! An [`Executor`] is one method of a [`delegraph_pte::Verified`] program with its memory. Loading resolves every operator
//! to its kernel and every operand to its bytes, so that a steady run looks nothing up and allocates nothing. Delegates are
//! given as [`BoundRegion`]s: the executor jumps over their instructions with a call, or runs the instructions when the
//! call fails. This crate knows no file system, no library loading and no graph. `no_std` + `alloc`.
//!
//! A tensor from input to output: `input.rs` copies it into its arena, `run.rs` walks the steps that `load.rs` made,
//! `engine.rs` lends a kernel the bytes that `memory.rs` carves, `output.rs` shows the result.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod copy;
mod engine;
mod error;
mod input;
mod kept;
mod load;
mod memory;
mod options;
mod output;
mod region;
mod run;
mod self_check;
mod state;
mod step;
mod tensors;

pub use error::{BindError, LoadError, RegionError, RunError};
pub use input::Input;
pub use kept::KeptState;
pub use load::{DelegateResolver, ProgramData, ResolvedDelegate};
pub use options::{Arenas, Event, Fallback, Options, Trace};
pub use output::Output;
pub use region::{BoundRegion, RegionCall, RegionReport};
pub use run::Executor;
pub use self_check::{Checked, SelfCheck};
