//! The configuration's delegates: what the host is told to find.

use crate::Error;
use delegraph_config::{Backend, Config, SandboxMode, Threads, Trust};
use delegraph_host::{Host, HostOptions, WorkerOptions};
use delegraph_types::Parallel;
use std::collections::BTreeMap;
use std::time::Duration;

/// The id that stands for the portable kernels in `select.order`.
pub const PORTABLE: &str = "portable";

/// Finds the delegates that a configuration and the environment allow. Nothing is loaded yet.
///
/// `DELEGRAPH_DELEGATE_PATH` replaces the search folders, `DELEGRAPH_ADD_DELEGATE_PATH` adds to them,
/// `DELEGRAPH_DELEGATES_SELECT` and `_DISABLE` hold globs, `DELEGRAPH_WORKER` is the worker binary. All are ignored in an elevated process.
pub fn discover(config: &Config, no_load: bool) -> Host {
    let mut search = config.delegates.search.clone();
    let mut select = Vec::new();
    let mut disable = Vec::new();
    if !delegraph_config::is_elevated() {
        if let Some(paths) = std::env::var_os("DELEGRAPH_DELEGATE_PATH") {
            search = std::env::split_paths(&paths).collect();
        }
        if let Some(paths) = std::env::var_os("DELEGRAPH_ADD_DELEGATE_PATH") {
            search.extend(std::env::split_paths(&paths));
        }
        select = globs("DELEGRAPH_DELEGATES_SELECT");
        disable = globs("DELEGRAPH_DELEGATES_DISABLE");
    }
    let mut worker_binary = config.delegates.worker.clone();
    if !delegraph_config::is_elevated()
        && let Some(path) = std::env::var_os("DELEGRAPH_WORKER")
    {
        worker_binary = Some(path.into());
    }
    let isolation = config.backend.iter().filter_map(|(name, backend)| {
        let isolation = match backend.isolation? {
            delegraph_config::Isolation::InProcess => delegraph_host::Isolation::InProcess,
            delegraph_config::Isolation::Worker => delegraph_host::Isolation::Worker,
        };
        Some((name.clone(), isolation))
    });
    let workers = config
        .backend
        .iter()
        .map(|(name, backend)| (name.clone(), worker_options(backend)));
    let no_sandbox = config
        .backend
        .iter()
        .filter(|(_, backend)| backend.sandbox == Some(SandboxMode::Off))
        .map(|(name, _)| name.clone());
    let pinned = config
        .backend
        .iter()
        .filter_map(|(name, backend)| Some((name.clone(), backend.library.clone()?)));
    let options: BTreeMap<String, serde_json::Value> = config
        .backend
        .iter()
        .filter(|(_, backend)| !backend.options.is_empty())
        .filter_map(|(name, backend)| Some((name.clone(), serde_json::to_value(&backend.options).ok()?)))
        .collect();
    Host::discover(HostOptions {
        pinned: pinned.collect(),
        manifests: Vec::new(),
        search,
        select,
        disable,
        options,
        parallel: configured_threads(config),
        isolation: isolation.collect(),
        no_sandbox: no_sandbox.collect(),
        workers: workers.collect(),
        worker_binary,
        no_load,
    })
}

/// The limits of a backend's worker.
fn worker_options(backend: &Backend) -> WorkerOptions {
    let default = WorkerOptions::default();
    WorkerOptions {
        threads: match &backend.threads {
            Some(Threads::Count(count)) => *count as usize,
            Some(Threads::Named(_)) => usize::MAX,
            None => default.threads,
        },
        memory: backend.memory_mb.map(|megabytes| megabytes.saturating_mul(1 << 20)),
        run_limit: backend.run_limit_ms.map_or(default.run_limit, Duration::from_millis),
        compile_limit: backend
            .compile_limit_ms
            .map_or(default.compile_limit, Duration::from_millis),
        call_limit: default.call_limit,
    }
}

/// The threads of the process that the configuration gives to kernels and delegates: `backend.portable.threads`, or all.
pub(crate) fn configured_threads(config: &Config) -> Parallel {
    let portable = config.backend.get(PORTABLE);
    let threads = match portable.and_then(|backend| backend.threads.as_ref()) {
        Some(Threads::Count(count)) => *count as usize,
        Some(Threads::Named(_)) | None => usize::MAX,
    };
    Parallel::new(delegraph_threads::pool(), threads)
}

fn globs(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|glob| !glob.is_empty())
        .map(str::to_string)
        .collect()
}

/// The backends of a configuration that delegates can serve, in order: what comes after `portable` never gets a node.
pub fn wanted(config: &Config) -> Vec<String> {
    config
        .select
        .order
        .iter()
        .take_while(|name| *name != PORTABLE)
        .cloned()
        .collect()
}

/// Refuses what the schema has and this version does not do yet: a promise that is not kept must not be passed over.
///
/// # Errors
/// Names the first such key.
pub fn check_config(config: &Config) -> Result<(), Error> {
    let delegates = &config.delegates;
    let mut unavailable: Vec<String> = Vec::new();
    if delegates.trust != Trust::Off || !delegates.keys.is_empty() {
        unavailable.push("delegates.trust".to_string());
    }
    if delegates.require_conformance.is_some() {
        unavailable.push("delegates.require_conformance".to_string());
    }
    match unavailable.first() {
        None => Ok(()),
        Some(key) => Err(Error::Usage(format!(
            "`{key}` is in the schema, but this version does not act on it\n  hint: remove the key; it would not be kept"
        ))),
    }
}
