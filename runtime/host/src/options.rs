//! Where to look for delegates and which to use.

use crate::trust::TrustOptions;
use delegraph_types::Parallel;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where to look for delegates and which to use.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// Backend ids with the library or manifest that the configuration pins for each; they come first.
    pub pinned: Vec<(String, PathBuf)>,
    /// Manifests (`*.delegate.toml`) or libraries named outright; they come next.
    pub manifests: Vec<PathBuf>,
    /// Folders that are searched for `*.delegate.toml`, in order.
    pub search: Vec<PathBuf>,
    /// Globs (`*`, `?`) on backend ids: only these are candidates. Empty: all.
    pub select: Vec<String>,
    /// Globs on backend ids that are not candidates.
    pub disable: Vec<String>,
    /// Options handed to a delegate when it is initialized, by backend id: a table of plain values.
    pub options: BTreeMap<String, serde_json::Value>,
    /// The threads that delegates borrow by `parallel_for`; a session may have others ([`crate::Session::on`]).
    pub parallel: Parallel,
    /// When a library may be loaded.
    pub trust: TrustOptions,
    /// Finds and reads manifests only; nothing of a vendor's runs.
    pub no_load: bool,
}
