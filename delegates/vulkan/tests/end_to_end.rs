//! An app whose device is lost goes on with right outputs: the command line over recorded models, with losses injected.

mod common;

use common::available;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command line and a folder with the plugin and its manifest, as `cargo xtask test` builds them.
fn built() -> Option<(PathBuf, PathBuf)> {
    let test = std::env::current_exe().ok()?;
    let folder = test.parent()?.parent()?;
    let name = |stem: &str| format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let (command, library) = (folder.join("delegraph"), folder.join(name("vulkan_delegate")));
    if !command.is_file() || !library.is_file() {
        println!("skipped: {} or {} is not built", command.display(), library.display());
        return None;
    }
    let delegates = std::env::temp_dir().join(format!("delegraph-vulkan-{}", std::process::id()));
    std::fs::create_dir_all(&delegates).ok()?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("vulkan.delegate.toml");
    std::fs::copy(manifest, delegates.join("vulkan.delegate.toml")).ok()?;
    std::fs::copy(&library, delegates.join(library.file_name()?)).ok()?;
    Some((command, delegates))
}

#[test]
fn recorded_models_give_right_outputs_though_the_device_is_lost() {
    if available(json!({})).is_none() {
        return;
    }
    let Some((command, delegates)) = built() else { return };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/fixtures");
    for name in ["arch-variety", "arch-kv-cache"] {
        let fixture = fixtures.join(name);
        let mut fallbacks = Vec::new();
        // The first submission is lost, the second, or none.
        for lose in ["1", "2", "0"] {
            let out = Command::new(&command)
                .arg("run")
                .arg(fixture.join("model.pt2"))
                .arg("--fixture")
                .arg(&fixture)
                .args(["--backend", "vulkan,cpu", "--json"])
                .env("DELEGRAPH_DELEGATE_PATH", &delegates)
                .env("DELEGRAPH_VULKAN_LOSE", lose)
                .env("XDG_CACHE_HOME", &delegates)
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{name}, submission {lose} lost: {errors}");
            let report: Value = serde_json::from_slice(&out.stdout).unwrap();
            let cases = report["cases"].as_array().unwrap();
            assert!(
                !cases.is_empty() && cases.iter().all(|case| case["verdict"] == "pass"),
                "{report}"
            );
            fallbacks.push(cases.iter().filter_map(|case| case["fallbacks"].as_u64()).sum::<u64>());
        }
        assert!(fallbacks[0] > 0 && fallbacks[2] == 0, "{name}: {fallbacks:?}");
    }
    std::fs::remove_dir_all(delegates).unwrap();
}
