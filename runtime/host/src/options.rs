//! Where to look for delegates and which to use.

use crate::trust::TrustOptions;
use delegraph_types::Parallel;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Where a backend's libraries run, over what their manifests say.
    pub isolation: BTreeMap<String, Isolation>,
    /// Backends whose workers are not closed in by a sandbox.
    pub no_sandbox: Vec<String>,
    /// Processes of those that run in workers, by backend id; the default for others.
    pub workers: BTreeMap<String, WorkerOptions>,
    /// The worker binary; `None`: `delegraph-worker` beside the program.
    pub worker_binary: Option<PathBuf>,
    /// Finds and reads manifests only; nothing of a vendor's runs.
    pub no_load: bool,
    /// What of a blob is compared with its hash when it is loaded. Its header always is.
    pub payloads: Payloads,
}

/// Whether a blob's payload is compared with its hash when it is loaded, which reads all of it. For a delegate in a worker it always is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Payloads {
    /// What was damaged is refused.
    #[default]
    Compared,
    /// They are taken as they are: the app vouches for its files. A delegate is told of no hash of bytes that were not compared.
    Trusted,
}

/// Where a delegate's library runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// In this process: a crash of it is a crash of the app.
    InProcess,
    /// In a process of its own.
    Worker,
    /// It partitions and compiles in a process of its own, and loads and runs in this one. A library that has one of the two roles is where
    /// that role is.
    CompileInWorker,
}

/// Processes of delegates that run in workers.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Threads that a delegate may borrow from its worker's pool.
    pub threads: usize,
    /// Bytes of address space of a worker; `None`: as much as the system gives.
    pub memory: Option<u64>,
    /// How long a run may take, where the caller gives no deadline.
    pub run_limit: Duration,
    /// How long it may take to start, partition, compile or load.
    pub compile_limit: Duration,
    /// How long everything else may take.
    pub call_limit: Duration,
}

impl Default for WorkerOptions {
    fn default() -> WorkerOptions {
        WorkerOptions {
            threads: 1,
            memory: None,
            run_limit: Duration::from_secs(30),
            compile_limit: Duration::from_secs(600),
            call_limit: Duration::from_secs(30),
        }
    }
}
