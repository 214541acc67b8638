//! `delegraph devices`

use crate::args::{DevicesArgs, Global};
use crate::output::{Output, Tint, bytes};
use delegraph_config::Config;
use delegraph_host::Host;
use std::path::{Path, PathBuf};

/// Finds the delegates of a configuration, then those of this installation: `delegates.d` beside the executable, and, for a
/// binary that runs in the source tree that it was built in, the tree's own, so that a clone has its delegates at hand. `DELEGRAPH_DELEGATE_PATH` replaces both.
pub fn discover(config: &Config, no_load: bool) -> Host {
    let mut config = config.clone();
    if !delegraph_config::is_elevated() {
        config.delegates.search.extend(standard_folders());
    }
    delegraph::discover(&config, no_load)
}

fn standard_folders() -> Vec<PathBuf> {
    let executable = std::env::current_exe().ok();
    let mut folders: Vec<PathBuf> = executable
        .iter()
        .filter_map(|path| Some(path.parent()?.join("delegates.d")))
        .collect();
    // Only for a binary that runs where it was built: elsewhere the path could be anybody's.
    let source_tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok();
    let by_cargo = std::env::var_os("CARGO").is_some();
    let at_home = |tree: &PathBuf| by_cargo || executable.as_ref().is_some_and(|path| path.starts_with(tree));
    if let Some(tree) = source_tree.filter(at_home) {
        let entries = std::fs::read_dir(tree.join("delegates"))
            .into_iter()
            .flatten()
            .flatten();
        let mut own: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        own.sort();
        folders.extend(own);
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// Lists delegates by their manifests; with `--probe` loads each and asks for its devices.
///
/// # Errors
/// The configuration is wrong.
pub fn run(args: &DevicesArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let config = crate::config::resolve(global, &[], &[])?;
    if args.probe {
        // Probing runs vendor code, which a setting that is not kept may have meant to prevent.
        delegraph::check_config(&config)?;
    }
    let host = discover(&config, global.no_load || !args.probe);
    let mut rows = Vec::new();
    for candidate in host.candidates() {
        let version = candidate.manifest.as_ref().map_or("-", |m| m.version.as_str());
        let vendor = candidate.manifest.as_ref().map_or("-", |m| m.vendor.as_str());
        let mut state = candidate
            .refusal
            .clone()
            .map_or("found, not loaded".to_string(), |reason| format!("refused: {reason}"));
        let (mut devices, mut abi) = (Vec::new(), None);
        if args.probe && candidate.refusal.is_none() {
            match host.delegate(&candidate.backend) {
                Err(error) => state = format!("unavailable: {error}"),
                Ok(delegate) => match delegate.devices() {
                    Err(error) => state = format!("unavailable: {error}"),
                    Ok(list) => {
                        let info = delegate.info();
                        let version = format!("{}.{}", info.abi_major, info.abi_minor);
                        state = format!("loaded, ABI {version}");
                        abi = Some(version);
                        if list.is_empty() {
                            // One that only compiles has none; of another the log says why.
                            state.push_str(", no devices (`-v` shows what it says)");
                        }
                        devices = list;
                    }
                },
            }
        }
        output.data(format!(
            "{} {version:<10} {vendor:<22} {state}",
            output.tint(Tint::Bold, format!("{:<12}", candidate.backend))
        ));
        for device in &devices {
            let memory = if device.memory > 0 {
                bytes(device.memory)
            } else {
                "memory not known".to_string()
            };
            output.data(format!(
                "  device {} {:?} {} {} {} {memory}",
                device.id, device.kind, device.name, device.arch, device.driver
            ));
        }
        rows.push(serde_json::json!({
            "backend": candidate.backend, "version": version, "vendor": vendor, "state": state, "abi": abi,
            "manifest": candidate.manifest_path, "library": candidate.library,
            "devices": devices.iter().map(|d| serde_json::json!({
                "id": d.id, "kind": format!("{:?}", d.kind).to_lowercase(), "name": d.name, "vendor": d.vendor,
                "arch": d.arch, "driver": d.driver, "memory": d.memory,
            })).collect::<Vec<_>>(),
        }));
    }
    if rows.is_empty() {
        output.talk("no delegates found; the portable kernels run everything");
        output.talk("  hint: put `*.delegate.toml` manifests into a folder named by `delegates.search`, or set DELEGRAPH_ADD_DELEGATE_PATH");
    }
    output.json(&serde_json::json!({ "schema": "delegraph.devices/1", "tool": crate::tool(), "delegates": rows, "exit_code": 0 }))?;
    Ok(0)
}
