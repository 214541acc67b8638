//! Code that flatc wrote from the schemas in `schema/`; `schema/make_schema.sh` writes it again.
#![allow(
    missing_docs,
    unused_qualifications,
    unused_imports,
    dead_code,
    unsafe_op_in_unsafe_fn,
    mismatched_lifetime_syntaxes,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]

#[rustfmt::skip]
mod bundled_program;
#[rustfmt::skip]
mod etdump;
#[rustfmt::skip]
mod flat_tensor;
#[rustfmt::skip]
mod program;

pub(crate) use bundled_program::bundled_program as bundled;
pub(crate) use etdump::etdump as dump;
pub(crate) use flat_tensor::flat_tensor as ptd;
pub(crate) use program::program as pte;
