//! `delegraph reduce` on the fault delegate: what is wrong, dies or hangs comes down to one node, and the folder shows it again.
//!
//! The worker binary and the fault delegate's library are built by `cargo xtask test` before the tests; without them these print that
//! they were skipped.
#![cfg(target_os = "linux")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where cargo puts programs and libraries.
fn built() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_delegraph"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// True, and says so, if what these tests need is not there.
fn skipped() -> bool {
    let missing = ["delegraph-worker", "libfault_delegate.so"]
        .iter()
        .find(|name| !built().join(name).is_file());
    if let Some(missing) = missing {
        println!("skipped: `{missing}` is not built; `cargo xtask test` builds it");
    }
    missing.is_some()
}

fn delegraph(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(words)
        .current_dir(folder)
        .env_remove("DELEGRAPH_CONFIG")
        .output()
        .unwrap()
}

/// Reduces a fixture with these settings of the fault delegate; the exit code and the JSON object.
fn reduce(folder: &Path, isolation: &str, options: &str, more: &[&str]) -> (Option<i32>, Value) {
    let manifest = root().join("conformance/fault/fault.delegate.toml");
    let config = format!(
        "[delegates]\nworker = '{}'\n[backend.fault]\nlibrary = '{}'\nisolation = '{isolation}'\noptions = {{ {options} }}\n",
        built().join("delegraph-worker").display(),
        manifest.display(),
    );
    std::fs::write(folder.join("backends.toml"), config).unwrap();
    let model = root().join("conformance/fixtures/arch-mlp-dynamic-batch/model.pt2");
    let model = model.display().to_string();
    let words = [
        "reduce",
        &model,
        "--backend",
        "fault",
        "--config",
        "backends.toml",
        "--json",
        "-o",
        "out",
    ];
    let output = delegraph(folder, &[&words, more].concat());
    let object = serde_json::from_slice(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        output.status.code(),
        object.unwrap_or_else(|error| panic!("{error}: {stderr}")),
    )
}

#[test]
fn every_kind_of_failure_comes_down_to_one_node() {
    if skipped() {
        return;
    }
    for (isolation, at, how, finding, words) in [
        ("worker", "execute", "wrong", "wrong", "output 0"),
        ("in_process", "execute", "wrong", "wrong", "output 0"),
        ("worker", "execute", "segfault", "failed", "signal 11"),
        ("in_process", "execute", "segfault", "crashed", "signal: 11"),
        ("in_process", "execute", "exit", "crashed", "exit status: 0"),
        ("in_process", "compile", "abort", "crashed", "signal: 6"),
        ("worker", "execute", "error", "failed", "told to fail"),
        ("in_process", "load", "error", "failed", "told to fail"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("at = '{at}', how = '{how}'");
        let (code, object) = reduce(folder.path(), isolation, &options, &[]);
        let case = format!("{isolation}, {at}, {how}: {object}");
        assert_eq!(code, Some(1), "{case}");
        assert_eq!(object["finding"], finding, "{case}");
        assert!(object["reason"].as_str().unwrap().contains(words), "{case}");
        assert_eq!(object["nodes"].as_array().unwrap().len(), 1, "{case}");
        assert_eq!(object["is_smallest"], true, "{case}");
        // The folder shows it again, from anywhere.
        let out = folder.path().join("out");
        let readme = std::fs::read_to_string(out.join("README.md")).unwrap();
        let line = readme.lines().find_map(|line| line.strip_prefix("delegraph ")).unwrap();
        let again = delegraph(&out, &line.split(' ').collect::<Vec<_>>());
        match (finding, again.status.code()) {
            ("wrong", code) => assert_eq!(code, Some(1), "{case}"),
            // An app that falls back is right all the same.
            ("failed", code) => assert_eq!(code, Some(0), "{case}"),
            (_, code) => assert!(how == "exit" || code.is_none(), "{case}"),
        }
        let image = std::fs::read(out.join("region.dgg")).unwrap();
        assert_eq!(&image[..4], b"DGG1");
    }
}

#[test]
fn a_delegate_that_hangs_is_a_finding() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = "at = 'execute', how = 'loop'";
    let (code, object) = reduce(folder.path(), "in_process", options, &["--limit", "1", "--probes", "2"]);
    assert_eq!((code, &object["finding"]), (Some(1), &Value::from("hung")), "{object}");
    assert_eq!(
        (&object["is_smallest"], &object["probes"]),
        (&Value::from(false), &Value::from(2))
    );
}

#[test]
fn a_delegate_that_cannot_be_loaded_is_no_finding() {
    if skipped() {
        return;
    }
    for (isolation, how, code) in [
        ("worker", "error", 4),
        ("in_process", "error", 4),
        ("in_process", "abort", 5),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("at = 'new', how = '{how}'");
        let (got, object) = reduce(folder.path(), isolation, &options, &[]);
        assert_eq!(got, Some(code), "{object}");
        assert!(
            object["message"].as_str().unwrap().contains("`fault` cannot be used"),
            "{object}"
        );
    }
}

#[test]
fn what_is_right_is_said_to_be() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, object) = reduce(folder.path(), "in_process", "", &[]);
    assert_eq!(code, Some(0), "{object}");
    assert!(
        object["reason"]
            .as_str()
            .unwrap()
            .contains("what the portable kernels give"),
        "{object}"
    );
    assert!(!folder.path().join("out").exists());
}

#[test]
fn an_absent_backend_and_wrong_inputs_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let model = root()
        .join("conformance/fixtures/arch-mlp-dynamic-batch/model.pt2")
        .display()
        .to_string();
    let code = |words: &[&str]| delegraph(folder.path(), words).status.code();
    assert_eq!(code(&["reduce", &model, "--backend", "nobody"]), Some(4));
    assert_eq!(
        code(&["reduce", "absent.pt2", "--backend", "reference", "--no-load"]),
        Some(4)
    );
    assert_eq!(code(&["reduce", &model]), Some(2));
}
