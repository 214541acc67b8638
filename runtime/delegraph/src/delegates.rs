//! The configuration's delegates: what the host is told to find.

use delegraph_config::Config;
use delegraph_host::{Host, HostOptions};
use std::collections::BTreeMap;

/// The id that stands for the portable kernels in `select.order`.
pub const PORTABLE: &str = "portable";

/// Finds the delegates that a configuration and the environment allow. Nothing is loaded yet.
///
/// `DELEGRAPH_DELEGATE_PATH` replaces the search folders, `DELEGRAPH_ADD_DELEGATE_PATH` adds to them,
/// `DELEGRAPH_DELEGATES_SELECT` and `_DISABLE` hold globs. All are ignored in an elevated process.
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
        no_load,
    })
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
