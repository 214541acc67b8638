//! The cases, a file or folder a category.

pub mod claims;

use crate::case::Case;

/// The cases that talk to a library through the driver, in the order of reports.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    let categories: [&'static [Case]; 1] = [claims::CASES];
    categories.into_iter().flatten()
}
