//! The cases, a file or folder a category.

pub mod asynchronous;
pub mod fault;
mod import;
pub mod leak;
pub mod memory;
pub mod state;
pub mod threading;
mod worker;

use crate::case::Case;

/// The cases that talk to a library through the driver, in the order of reports.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    let categories: [&'static [Case]; 6] = [
        state::CASES,
        memory::CASES,
        asynchronous::CASES,
        threading::CASES,
        leak::CASES,
        fault::CASES,
    ];
    categories.into_iter().flatten()
}
