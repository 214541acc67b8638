//! Golden files: what each release wrote, kept in a folder a release, and replayed for ever.
//!
//! `cargo xtask gen golden vX.Y` writes a release's folder once; `tests/replay.rs` gives every folder to the code of today.
//! `README.md` beside this crate says what is in a folder, `STABILITY.md` at the root what is promised.
//!
//! [`make`] writes a folder, [`replay`] judges one, [`listing`] tells in text what an image or a blob holds. The delegates come
//! from the caller: this crate knows none.

pub mod listing;
pub mod make;
pub mod replay;

use delegraph_host::Host;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The delegate for which a release's programs are compiled.
pub const COMPILED_FOR: &str = "reference";

/// Delegates whose verdicts are recorded.
pub const ASKED: [&str; 2] = ["reference", "null"];

/// What a release said about a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Methods of the program.
    pub methods: Vec<String>,
    /// Nodes that the delegate took when the model was partitioned.
    pub delegated_nodes: u64,
    /// All nodes.
    pub nodes: u64,
    /// For each image and delegate, one sign a node: `+` taken, `-` not.
    pub verdicts: BTreeMap<String, BTreeMap<String, String>>,
}

/// Folders of all releases, in order.
///
/// # Errors
/// The folder of golden files cannot be read.
pub fn releases() -> std::io::Result<Vec<PathBuf>> {
    folders(&folder(), |name| name.starts_with('v'))
}

/// Where the releases are.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Folders in a folder, in order of their names.
fn folders(folder: &std::path::Path, wanted: impl Fn(&str) -> bool) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && wanted(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// What a delegate says about an image, one sign a node.
///
/// # Errors
/// It is absent, or fails.
pub fn verdicts(host: &Arc<Host>, backend: &str, image: &[u8]) -> anyhow::Result<String> {
    let delegate = host.delegate(backend)?;
    let partition = delegate.partition(image, "")?;
    let sign = |supported| if supported { '+' } else { '-' };
    Ok(partition.verdicts.iter().map(|v| sign(v.supported)).collect())
}
