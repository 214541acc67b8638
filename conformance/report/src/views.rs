//! All views of a folder.

use crate::certificate::{Hashes, Members};
use crate::standing::standings;
use crate::truth::{ReportError, Truth, sha256_of_file, write_atomically};
use crate::{badge, certificate, html, junit, markdown};
use delegraph_runner::Report;
use std::path::Path;

/// The names of the files that [`write_views`] writes.
pub const VIEWS: [&str; 5] = ["report.json", "junit.xml", "report.md", "report.html", "badge.svg"];

/// [`write_views_with`], where it is not known which cases a list has: each list is judged by every case of the run.
///
/// # Errors
/// As there.
pub fn write_views(folder: &Path) -> Result<Report, ReportError> {
    write_views_with(folder, &|_| None)
}

/// Reads `run.json` and `cases.jsonl` of a folder and writes every view of them there, each whole or not at all. The same truth gives the
/// same bytes, whoever makes them and when. A finished run of whole lists over a library gets its certificate too, `NAME.conformance.json`;
/// `members` says which cases a list has.
///
/// # Errors
/// The truth cannot be read, or a view cannot be written.
pub fn write_views_with(folder: &Path, members: Members<'_>) -> Result<Report, ReportError> {
    let truth = Truth::read(folder)?;
    for (name, text) in views(&truth)? {
        write_atomically(&folder.join(name), text.as_bytes())?;
    }
    write_certificate(folder, &truth, members)?;
    Ok(truth.report())
}

/// Writes the certificate, where the run has one, and takes away what an earlier state of it left, where it has none.
fn write_certificate(folder: &Path, truth: &Truth, members: Members<'_>) -> Result<(), ReportError> {
    let library = truth.run.library.as_ref();
    let Some(name) = library.and_then(|library| certificate::file_name(&library.name)) else {
        return Ok(());
    };
    let path = folder.join(name);
    let log = sha256_of_file(&folder.join("cases.jsonl"))?;
    let run = sha256_of_file(&folder.join("run.json"))?;
    match certificate::make(truth, Hashes { log: &log, run: &run }, members) {
        Some(certificate) => write_atomically(&path, certificate.to_text().as_bytes()),
        None => match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(ReportError::Write { path, source }),
            _ => Ok(()),
        },
    }
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
