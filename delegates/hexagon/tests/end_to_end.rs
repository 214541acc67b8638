//! An app over Qualcomm's emulation, in a worker: right outputs with the library, without it, and when the worker dies in a run. What the app
//! prints is its own, and nothing is left where it ran.

mod common;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command line and a folder with the plugin and its manifest, as `cargo xtask test` builds them.
fn built() -> Option<(PathBuf, PathBuf)> {
    let test = std::env::current_exe().ok()?;
    let folder = test.parent()?.parent()?;
    let files = ["delegraph", "delegraph-worker", "libhexagon_delegate.so"].map(|name| folder.join(name));
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        println!("skipped: {} is not built", missing.display());
        return None;
    }
    let delegates = std::env::temp_dir().join(format!("delegraph-hexagon-{}", std::process::id()));
    std::fs::create_dir_all(delegates.join("here")).ok()?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("hexagon.delegate.toml");
    std::fs::copy(manifest, delegates.join("hexagon.delegate.toml")).ok()?;
    std::fs::copy(&files[2], delegates.join("libhexagon_delegate.so")).ok()?;
    Some((files[0].clone(), delegates))
}

/// Four steps of the model's output: what a device of 8 bits may be away from PyTorch's result.
const FOUR_STEPS: f64 = 4.0 * 0.0024;

/// Runs a model over its recorded cases; the fallbacks. `apart`: how far an output may be from PyTorch's; `None`: as the cases say.
#[track_caller]
fn run(
    command: &Path,
    delegates: &Path,
    model: &Path,
    fixture: &Path,
    variables: &[(&str, &str)],
    apart: Option<f64>,
) -> u64 {
    let out = Command::new(command)
        .arg("run")
        .arg(model)
        .arg("--fixture")
        .arg(fixture)
        .args(["--backend", "hexagon,cpu", "--json"])
        .env_remove("DELEGRAPH_QNN_DIR")
        .env("DELEGRAPH_DELEGATE_PATH", delegates)
        .envs(variables.iter().copied())
        .current_dir(delegates.join("here"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    let code = out.status.code();
    assert!(
        code == Some(0) || code == Some(1) && apart.is_some(),
        "{variables:?}: {errors}"
    );
    // One object and nothing else: what the library prints goes nowhere.
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    let cases = report["cases"].as_array().unwrap();
    let within = |case: &Value| {
        let text = case["reason"].as_str().unwrap_or_default();
        let number = text
            .split_once("max_abs ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        number.is_some_and(|found: f64| apart.is_some_and(|apart| found <= apart))
    };
    let right = |case: &Value| case["verdict"] == "pass" || within(case);
    assert!(
        !cases.is_empty() && cases.iter().all(right),
        "{variables:?}: {report}\n{errors}"
    );
    cases.iter().filter_map(|case| case["fallbacks"].as_u64()).sum()
}

#[test]
fn outputs_are_right_with_the_library_without_it_and_when_the_worker_dies() {
    let Some(library) = common::folder() else { return };
    let Some((command, delegates)) = built() else { return };
    let library = library.canonicalize().unwrap();
    let library = ("DELEGRAPH_QNN_DIR", library.to_str().unwrap());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../conformance/fixtures/arch-int8-convnet")
        .canonicalize()
        .unwrap();
    let compiled = delegates.join("model.pte");
    let out = Command::new(&command)
        .arg("compile")
        .arg(fixture.join("model.pt2"))
        .args(["--backend", "hexagon,cpu", "-o"])
        .arg(&compiled)
        .env("DELEGRAPH_DELEGATE_PATH", &delegates)
        .env(library.0, library.1)
        .current_dir(delegates.join("here"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let run = |variables: &[(&str, &str)], apart| run(&command, &delegates, &compiled, &fixture, variables, apart);
    assert_eq!(run(&[library], Some(FOUR_STEPS)), 0);
    // The library is not there: the same file gives the portable kernels' results.
    run(&[], None);
    // The first execution kills its process.
    assert!(run(&[library, ("DELEGRAPH_HEXAGON_ABORT", "1")], None) > 0);
    let left: Vec<_> = std::fs::read_dir(delegates.join("here")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir_all(delegates).unwrap();
}
