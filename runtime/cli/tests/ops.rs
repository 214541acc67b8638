//! Every operator of the committed corpus, by the real binary: on portable kernels, and over what `reference` takes.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CORPUS: &str = "conformance/corpus";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn delegraph(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .output()
        .unwrap()
}

/// The report of `conform ops`, and the exit code.
fn ops(arguments: &[&str]) -> (Value, Option<i32>) {
    let all = [&["conform", "ops", "--json", "-", "--corpus", CORPUS], arguments].concat();
    let output = delegraph(&all);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    (report, output.status.code())
}

fn cases(report: &Value) -> &[Value] {
    report["cases"].as_array().unwrap()
}

/// Nothing failed and nothing was skipped.
fn clean(report: &Value, code: Option<i32>) {
    for case in cases(report) {
        assert!(
            matches!(case["verdict"].as_str(), Some("pass" | "waived")),
            "{}: {}: {}",
            case["id"],
            case["verdict"],
            case["reason"]
        );
    }
    assert_eq!(code, Some(0));
}

#[test]
fn every_operator_on_portable_kernels() {
    let (report, code) = ops(&["--backend", "portable"]);
    clean(&report, code);
    let (total, waived) = (&report["summary"]["total"], &report["summary"]["waived"]);
    let (total, waived) = (total.as_u64().unwrap(), waived.as_u64().unwrap());
    assert!(total >= 1000, "{total}");
    assert_eq!(waived, 0, "of {total} cases");
    assert!(cases(&report).iter().all(|case| case["delegated_nodes"] == 0));
    let unclaimed: Vec<String> = cases(&report)
        .iter()
        .filter(|case| case["verdict"] == "pass")
        .filter_map(|case| {
            let (name, dtype) = (case["op"].as_str()?, case["dtype"].as_str()?);
            let (op, dtype) = (
                delegraph_opset::Op::find(name)?,
                delegraph_types::DType::from_name(dtype)?,
            );
            let claimed = op.dtypes();
            let wrong = !claimed.contains(dtype);
            wrong.then(|| format!("`{name}` runs on {dtype}, the table says `{claimed}`"))
        })
        .collect();
    assert!(unclaimed.is_empty(), "{}", unclaimed.join("\n"));
    let core: Vec<&str> = delegraph_opset::Op::all()
        .filter(|op| op.is_core())
        .map(delegraph_opset::Op::name)
        .filter(|name| !cases(&report).iter().any(|case| case["op"] == *name))
        .collect();
    assert!(core.is_empty(), "no case for {core:?}");
}

/// Every call through the passes and steps of the delegate that is linked in.
#[test]
fn every_operator_over_the_cpu_delegate() {
    let (report, code) = ops(&["--backend", "cpu"]);
    clean(&report, code);
    let delegated = cases(&report)
        .iter()
        .filter(|case| case["delegated_nodes"] != 0)
        .count();
    assert!(
        2 * delegated > cases(&report).len(),
        "{delegated} of {}",
        cases(&report).len()
    );
}

/// Runs the whole corpus on portable kernels and over `reference`, whose plugin is built beside the binary.
#[test]
fn the_coverage_table_is_current_and_reference_gives_the_same_results() {
    let output = delegraph(&["conform", "coverage", "--corpus", CORPUS]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}\nrun `cargo xtask test`, or `cargo build` first",
        String::from_utf8_lossy(&output.stderr)
    );
    let committed = std::fs::read_to_string(root().join("vendor-docs/coverage.md")).unwrap_or_default();
    assert!(
        committed == text,
        "`vendor-docs/coverage.md` is stale: run `cargo xtask gen coverage`"
    );
}

#[test]
fn filters_shards_and_lists() {
    let list = |arguments: &[&str]| -> Vec<String> {
        let all = [&["conform", "ops", "--list", "--corpus", CORPUS], arguments].concat();
        let output = delegraph(&all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(str::to_string).collect()
    };
    let all = list(&["--op", "aten::add.*,aten::mul.Tensor"]);
    assert!(all.iter().any(|id| id.starts_with("aten::add.Tensor/")));
    assert!(all.iter().any(|id| id.starts_with("aten::mul.Tensor/")));
    let halves: Vec<String> = ["1/2", "2/2"]
        .iter()
        .flat_map(|shard| list(&["--op", "aten::add.*,aten::mul.Tensor", "--shard", shard]))
        .collect();
    assert_eq!(halves.len(), all.len());
    assert!(all.iter().all(|id| halves.contains(id)));
    // A case by its whole id and by its key.
    let key = all[0].rsplit_once('/').unwrap().1;
    assert_eq!(list(&["--case", &all[0]]), list(&["--case", key]));
    assert_eq!(list(&["--case", key]), &all[..1]);
    for dtype in ["float16", "f16"] {
        let (report, _) = ops(&["--dtype", dtype, "--op", "aten::add.*"]);
        assert!(!cases(&report).is_empty());
        assert!(cases(&report).iter().all(|case| case["dtype"] == "f16"), "{report}");
    }
}

#[test]
fn exit_codes() {
    let code = |arguments: &[&str]| ops(arguments).1;
    assert_eq!(code(&["--op", "aten::add.Tensor"]), Some(0));
    assert_eq!(code(&["--op", "aten::there_is_none"]), Some(1), "nothing was run");
    let (report, code_of_absent) = ops(&["--op", "aten::add.Tensor", "--backend", "nobody"]);
    assert!(cases(&report).iter().all(|case| case["verdict"] == "skip"), "{report}");
    assert_eq!(code_of_absent, Some(1), "nothing was run");
    assert_eq!(code(&["--shard", "3/2"]), Some(2));
    let missing = delegraph(&["conform", "ops", "--corpus", "conformance/no-such-corpus"]);
    assert_eq!(missing.status.code(), Some(3));
}

#[test]
fn a_known_failure_that_passes_fails_and_says_how_to_run_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known.toml");
    std::fs::write(
        &file,
        "[[known]]\ncases = ['aten::add.Tensor/*']\nreason = 'r'\nsource = 's'\n",
    )
    .unwrap();
    let (report, code) = ops(&["--op", "aten::add.Tensor", "--waivers", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    for case in cases(&report) {
        assert_eq!(case["verdict"], "fail");
        let repro = case["repro"].as_str().unwrap();
        assert!(
            repro.starts_with("delegraph conform ops --corpus conformance/corpus --case "),
            "{repro}"
        );
        assert!(repro.contains(case["id"].as_str().unwrap()), "{repro}");
    }
    std::fs::write(&file, "[[known]]\ncases = ['*']\n").unwrap();
    let (_, code) = ops(&["--op", "aten::add.Tensor", "--waivers", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "an entry without a reason");
}

#[test]
fn a_shard_that_is_absent_skips_and_one_that_is_damaged_fails() {
    let folder = tempfile::tempdir().unwrap();
    let index = std::fs::read_to_string(root().join(CORPUS).join("index.jsonl")).unwrap();
    std::fs::write(folder.path().join("index.jsonl"), index.lines().next().unwrap()).unwrap();
    let run = || {
        let corpus = folder.path().to_str().unwrap();
        let output = delegraph(&["conform", "ops", "--json", "-", "--corpus", corpus]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (report["cases"][0]["verdict"].clone(), output.status.code())
    };
    assert_eq!(run(), ("skip".into(), Some(1)));
    std::fs::write(folder.path().join("shard-0.safetensors"), b"damaged").unwrap();
    assert_eq!(run(), ("fail".into(), Some(1)));
}

#[test]
fn programs_are_written_for_another_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let corpus = ["conform", "ops", "--corpus", CORPUS, "--op", "aten::add.Tensor"];
    let output = delegraph(&[&corpus[..], &["--programs", out]].concat());
    assert_eq!(output.status.code(), Some(0));
    let lines = std::fs::read_to_string(folder.path().join("cases.jsonl")).unwrap();
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        assert!(folder.path().join(case["file"].as_str().unwrap()).is_file(), "{line}");
        assert_eq!(case["outputs"].as_array().unwrap().len(), 1);
    }
}
