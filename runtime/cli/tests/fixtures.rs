//! Every recorded model, from every form of it, by the real binary and its real plugins: portable kernels alone, then over
//! what `reference` takes.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The report of `conform models` over the committed fixtures.
fn conform(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(["conform", "models", "conformance/fixtures", "--json", "-"])
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    for case in report["cases"].as_array().unwrap() {
        let verdict = case["verdict"].as_str().unwrap();
        assert!(
            matches!(verdict, "pass" | "skip"),
            "{arguments:?} {}: {verdict}: {}",
            case["id"],
            case["reason"]
        );
    }
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    assert!(
        report["summary"]["pass"].as_u64() >= Some(20),
        "{arguments:?}: {}",
        report["summary"]
    );
    report
}

fn sum(report: &Value, key: &str) -> u64 {
    report["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case[key].as_u64().unwrap_or(0))
        .sum()
}

/// Plugins are built beside the binary; `cargo xtask test` sees to it.
fn plugins_are_built() {
    let folder = Path::new(env!("CARGO_BIN_EXE_delegraph")).parent().unwrap();
    for name in ["reference", "null"] {
        let file = format!(
            "{}{name}_delegate{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        );
        assert!(
            folder.join(&file).is_file(),
            "`{file}` is not built: run `cargo xtask test`, or `cargo build` first"
        );
    }
}

#[test]
fn portable_kernels_alone() {
    for from in ["pt2", "core", "pte", "compiled"] {
        let report = conform(&["--from", from]);
        assert_eq!(sum(&report, "delegated_nodes"), 0);
    }
}

/// The delegate that is linked in.
#[test]
fn over_the_cpu_delegate() {
    for from in ["pt2", "core", "pte", "compiled"] {
        let report = conform(&["--from", from, "--backend", "cpu"]);
        let (delegated, portable) = (sum(&report, "delegated_nodes"), sum(&report, "undelegated_nodes"));
        assert!(
            delegated > portable,
            "{from}: {delegated} nodes on `cpu`, {portable} portable"
        );
    }
}

#[test]
fn over_what_reference_takes() {
    plugins_are_built();
    for from in ["pt2", "core", "pte", "compiled"] {
        let report = conform(&["--from", from, "--backend", "null,reference"]);
        let (delegated, portable) = (sum(&report, "delegated_nodes"), sum(&report, "undelegated_nodes"));
        // It is no reference if it leaves most of the work to others.
        assert!(
            delegated > portable,
            "{from}: {delegated} nodes delegated, {portable} not"
        );
        assert_eq!(sum(&report, "fallbacks"), 0, "{from}");
    }
}
