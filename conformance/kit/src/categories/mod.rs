//! The cases, a file or folder a category.

pub mod abi;
pub mod asynchronous;
pub mod bad_input;
pub mod basis;
pub mod blob;
pub mod claims;
pub mod endure;
mod external;
pub mod fault;
pub mod images;
mod import;
pub mod leak;
pub mod lifecycle;
pub mod memory;
pub mod partition;
pub mod small;
pub mod state;
pub mod threading;
mod worker;

use crate::case::Case;

/// The cases that talk to a library through the driver, in the order of reports.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    let categories: [&'static [Case]; 12] = [
        abi::CASES,
        lifecycle::CASES,
        partition::CASES,
        claims::CASES,
        blob::CASES,
        bad_input::CASES,
        state::CASES,
        memory::CASES,
        asynchronous::CASES,
        threading::CASES,
        leak::CASES,
        fault::CASES,
    ];
    categories.into_iter().flatten()
}
