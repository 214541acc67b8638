//! All views of a folder.

use crate::standing::standings;
use crate::truth::{ReportError, Truth, write_atomically};
use crate::{badge, html, junit, markdown};
use delegraph_runner::Report;
use std::path::Path;

/// The names of the files that [`write_views`] writes.
pub const VIEWS: [&str; 5] = ["report.json", "junit.xml", "report.md", "report.html", "badge.svg"];

/// Reads `run.json` and `cases.jsonl` of a folder and writes every view of them there, each whole or not at all. The same truth gives the
/// same bytes, whoever makes them and when.
///
/// # Errors
/// The truth cannot be read, or a view cannot be written.
pub fn write_views(folder: &Path) -> Result<Report, ReportError> {
    let truth = Truth::read(folder)?;
    for (name, text) in views(&truth)? {
        write_atomically(&folder.join(name), text.as_bytes())?;
    }
    Ok(truth.report())
}

/// Name and content of every view, in the order of [`VIEWS`].
///
/// # Errors
/// A view cannot be made.
pub fn views(truth: &Truth) -> Result<Vec<(&'static str, String)>, ReportError> {
    let object = serde_json::to_value(truth.report()).map_err(|error| ReportError::File {
        path: VIEWS[0].into(),
        what: error.to_string(),
    })?;
    let texts = [
        format!("{object:#}\n"),
        junit::junit(truth),
        markdown::report(truth),
        html::page(truth),
        badge::badge(&standings(truth)),
    ];
    Ok(VIEWS.into_iter().zip(texts).collect())
}
