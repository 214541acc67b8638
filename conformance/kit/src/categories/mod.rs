//! The cases, a file or folder a category.

pub mod abi;
pub mod bad_input;
pub mod basis;
pub mod blob;
pub mod endure;
pub mod images;
pub mod lifecycle;
pub mod partition;
pub mod small;

use crate::case::Case;

/// The cases that talk to a library through the driver, in the order of reports.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    let categories: [&'static [Case]; 5] = [
        abi::CASES,
        lifecycle::CASES,
        partition::CASES,
        blob::CASES,
        bad_input::CASES,
    ];
    categories.into_iter().flatten()
}
