//! The configuration's delegates: what the host is told to find.

use crate::Error;
use delegraph_config::{Backend, Config, Environment, SandboxMode, Threads, Trust, Verify};
use delegraph_host::trust::{Demand, ListName, TrustOptions};
use delegraph_host::{Host, HostOptions, Payloads, WorkerOptions};
use delegraph_types::Parallel;
use std::collections::BTreeMap;
use std::time::Duration;

/// The id that stands for the portable kernels in `select.order`.
pub const PORTABLE: &str = "portable";
/// The id of the CPU delegate.
#[cfg(feature = "cpu")]
const CPU: &str = "cpu";

/// Finds the delegates that a configuration and the environment allow. Nothing is loaded yet.
///
/// `DELEGRAPH_DELEGATE_PATH` replaces the search folders, `DELEGRAPH_ADD_DELEGATE_PATH` adds to them,
/// `DELEGRAPH_DELEGATES_SELECT` and `_DISABLE` hold globs, `DELEGRAPH_WORKER` is the worker binary. All are ignored in an elevated
/// process. What they add is under the same `delegates.trust` as all else; where that is `require`, no variable names a worker.
pub fn discover(config: &Config, no_load: bool) -> Host {
    let host = Host::discover(host_options(config, no_load, &Environment::of_process()));
    register_cpu(&host, config);
    host
}

/// Offers the CPU delegate that is linked in, unless the configuration names a library of it.
#[cfg(feature = "cpu")]
fn register_cpu(host: &Host, config: &Config) {
    use delegraph_sdk::{roles, static_entry_as};
    let pinned = config.backend.get(CPU).is_some_and(|backend| backend.library.is_some());
    if !pinned {
        // A host that was made a line ago has none yet.
        let passes = vec![delegraph_host::Pass::FoldBatchNorm];
        let _ = host.register_static_with(
            CPU,
            static_entry_as::<delegraph_cpu::Cpu, (roles::Compile, roles::Run, roles::State)>(),
            passes,
        );
    }
}

#[cfg(not(feature = "cpu"))]
fn register_cpu(_: &Host, _: &Config) {}

/// What [`discover`] looks for in an environment.
fn host_options(config: &Config, no_load: bool, environment: &Environment<'_>) -> HostOptions {
    let mut search = config.delegates.search.clone();
    if let Some(paths) = environment.get_os("DELEGRAPH_DELEGATE_PATH") {
        search = std::env::split_paths(&paths).collect();
    }
    if let Some(paths) = environment.get_os("DELEGRAPH_ADD_DELEGATE_PATH") {
        search.extend(std::env::split_paths(&paths));
    }
    let select = globs(environment.get("DELEGRAPH_DELEGATES_SELECT"));
    let disable = globs(environment.get("DELEGRAPH_DELEGATES_DISABLE"));
    let mut worker_binary = config.delegates.worker.clone();
    if config.delegates.trust != Trust::Require
        && let Some(path) = environment.get_os("DELEGRAPH_WORKER")
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
    HostOptions {
        pinned: pinned.collect(),
        manifests: Vec::new(),
        search,
        select,
        disable,
        options,
        parallel: configured_threads(config),
        trust: TrustOptions {
            mode: config.delegates.trust,
            lock: config.delegates.lock.clone(),
            keys: config.delegates.keys.clone(),
            conformance: demand(config),
        },
        isolation: isolation.collect(),
        no_sandbox: no_sandbox.collect(),
        workers: workers.collect(),
        worker_binary,
        no_load,
        payloads: match config.delegates.verify {
            Verify::Headers => Payloads::Trusted,
            Verify::Payloads => Payloads::Compared,
        },
    }
}

/// What the configuration asks of certificates. Names that are none cannot be here: the layers were checked, and what an
/// app made by hand [`check_config`] refuses; were it not asked, a list that nobody has is asked for, never none.
pub fn demand(config: &Config) -> Option<Demand> {
    let required = config.delegates.require_conformance.as_ref()?;
    let nobodys = |problem: String| {
        vec![ListName {
            name: problem,
            version: None,
        }]
    };
    Some(Demand {
        lists: required.lists().unwrap_or_else(nobodys),
        unsigned: required.unsigned(),
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

fn globs(text: Option<String>) -> Vec<String> {
    text.unwrap_or_default()
        .split(',')
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

/// Refuses what a configuration says and nobody could act on, where an app made it without the layers that check it: a promise
/// that is not kept must not be passed over.
///
/// # Errors
/// Names the first such key.
pub fn check_config(config: &Config) -> Result<(), Error> {
    match config
        .delegates
        .require_conformance
        .as_ref()
        .map(|required| required.lists())
    {
        Some(Err(problem)) => Err(Error::Usage(format!("`delegates.require_conformance`: {problem}"))),
        None | Some(Ok(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_elevated_process_takes_no_delegate_from_its_environment() {
        let mut config = Config::default();
        config.delegates.search = vec!["configured".into()];
        let lookup = |name: &str| {
            let value = match name {
                "DELEGRAPH_DELEGATE_PATH" => "replaced",
                "DELEGRAPH_ADD_DELEGATE_PATH" => "added",
                "DELEGRAPH_DELEGATES_SELECT" => "a*, b",
                "DELEGRAPH_DELEGATES_DISABLE" => "c",
                "DELEGRAPH_WORKER" => "worker",
                _ => return None,
            };
            Some(value.into())
        };
        let heeded = host_options(&config, true, &Environment::made_up(false, &lookup));
        assert_eq!(heeded.search, ["replaced", "added"].map(std::path::PathBuf::from));
        assert_eq!(
            (heeded.select, heeded.disable),
            (vec!["a*".to_string(), "b".to_string()], vec!["c".to_string()])
        );
        assert_eq!(heeded.worker_binary, Some("worker".into()));
        let ignored = host_options(&config, true, &Environment::made_up(true, &lookup));
        assert_eq!(ignored.search, ["configured"].map(std::path::PathBuf::from));
        assert_eq!((ignored.select.len(), ignored.disable.len()), (0, 0));
        assert_eq!(ignored.worker_binary, None);
        // Nor does it name the program that runs what is trusted.
        config.delegates.trust = Trust::Require;
        let required = host_options(&config, true, &Environment::made_up(false, &lookup));
        assert_eq!(required.worker_binary, None);
    }
}
