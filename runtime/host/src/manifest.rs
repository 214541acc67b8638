//! `<name>.delegate.toml`: what the host reads before it runs anything of a vendor's.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A delegate's manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Version of the manifest's form: 1.
    pub manifest_version: u32,
    /// Backend id, for example `vulkan`.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Semantic version of the library.
    pub version: String,
    /// SPDX expression.
    pub licence: String,
    /// Library file of this machine, as the manifest names it; `None`: nothing for this machine's triple.
    pub library: Option<PathBuf>,
    /// Library files by target triple.
    pub libraries: BTreeMap<String, PathBuf>,
    /// ABI major that the library exports an entry for.
    pub abi_major: u16,
    /// Smallest minor of the host's ABI that it works with.
    pub abi_min_minor: u16,
    /// `compile`, `run`.
    pub roles: Vec<String>,
    /// What `compile` can be asked for; empty: it has one target, its own.
    pub targets: Vec<String>,
    /// JSON Schema of its options; relative to the manifest.
    pub options_schema: Option<PathBuf>,
    /// Where to report problems.
    pub contact: String,
}
