//! The verbs on good input: what they print, where, and their JSON.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODEL: &str = "conformance/fixtures/mtcnn-pnet/model.pt2";

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn delegraph(arguments: &[&str]) -> Ended {
    delegraph_with(arguments, &[])
}

fn delegraph_with(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn json(arguments: &[&str]) -> Value {
    let ended = delegraph(arguments);
    let value: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", ended.stdout, ended.stderr));
    assert_eq!(value["exit_code"], ended.code, "{value}");
    value
}

/// The four lines that end a default run.
fn closes(ended: &Ended) {
    for word in ["ran ", "fallback ", "time ", "next "] {
        assert!(
            ended.stderr.lines().any(|line| line.starts_with(word)),
            "no `{word}` line in:\n{}",
            ended.stderr
        );
    }
}

#[test]
fn partition_without_libraries_goes_by_what_manifests_claim() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = std::fs::read_to_string(root().join("delegates/reference/reference.delegate.toml")).unwrap();
    // Another name, so that no library of this build is found.
    let manifest = manifest
        .replace("\"reference\"", "\"absent\"")
        .replace("libreference_delegate", "libabsent_delegate");
    std::fs::write(folder.path().join("absent.delegate.toml"), manifest).unwrap();
    let variable = [("DELEGRAPH_ADD_DELEGATE_PATH", folder.path().to_str().unwrap())];
    let arguments = ["partition", MODEL, "--no-load", "--json", "--backend"];
    let of = |backend: &str| {
        let ended = delegraph_with(&[&arguments[..], &[backend]].concat(), &variable);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        (report, ended.stderr)
    };
    let (claimed, said) = of("absent");
    assert!(said.contains("by the claims of the manifests"), "{said}");
    assert_eq!(claimed["backends"][0]["problem"], Value::Null, "{claimed}");
    let owners = |report: &Value| -> Vec<Value> {
        let nodes = report["graphs"][0]["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["owner"].clone()).collect()
    };
    let owned = owners(&claimed).iter().filter(|owner| *owner == "absent").count();
    // All that the library would take of this model is claimed.
    let taken = json(&["partition", MODEL, "--backend", "reference", "--json"]);
    let would = owners(&taken).iter().filter(|owner| *owner == "reference").count();
    assert!(owned > 0 && owned == would, "{owned} of {would}: {claimed}");
    // A manifest that claims nothing says so, and so does one that is not there.
    let (null, _) = of("null");
    assert!(
        null["backends"][0]["problem"]
            .as_str()
            .unwrap()
            .contains("claims nothing"),
        "{null}"
    );
    let (nobody, _) = of("nobody");
    assert!(
        nobody["backends"][0]["problem"]
            .as_str()
            .unwrap()
            .contains("no manifest"),
        "{nobody}"
    );
}

#[test]
fn partition_says_who_owns_each_node_and_why() {
    let ended = delegraph(&["partition", MODEL, "--backend", "null,reference"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("R reference"), "{}", ended.stdout);
    closes(&ended);
    let portable = delegraph(&["partition", MODEL, "--backend", "null"]);
    assert!(
        portable.stdout.contains("null: the null delegate takes nothing"),
        "{}",
        portable.stdout
    );

    let report = json(&["partition", MODEL, "--backend", "reference", "--json"]);
    assert_eq!(report["schema"], "delegraph.partition/1");
    assert!(report["coverage"]["delegated_nodes"].as_u64() > Some(0));
    let node = report["graphs"][0]["nodes"][0]["name"].as_str().unwrap().to_string();
    let why = delegraph(&["partition", MODEL, "--backend", "null,reference", "--why", &node]);
    assert!(
        why.stdout.contains("owner: reference") && why.stdout.contains("null: "),
        "{}",
        why.stdout
    );
    let unknown = delegraph(&["partition", MODEL, "--why", "no_such_node"]);
    assert_eq!(unknown.code, 2);

    let dot = delegraph(&["partition", MODEL, "--backend", "reference", "--format", "dot"]);
    assert!(
        dot.stdout.starts_with("digraph") && dot.stdout.contains("cluster_0_0"),
        "{}",
        dot.stdout
    );
    let explorer = delegraph(&[
        "partition",
        MODEL,
        "--backend",
        "reference",
        "--format",
        "model-explorer",
    ]);
    assert!(
        serde_json::from_str::<Value>(&explorer.stdout).is_ok(),
        "{}",
        explorer.stdout
    );
}

#[test]
fn partition_dumps_images_that_verify() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    assert_eq!(
        delegraph(&["partition", MODEL, "--backend", "reference", "--dump", &path]).code,
        0
    );
    let files: Vec<PathBuf> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!files.is_empty());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(bytes.starts_with(b"DGG1"), "{}", file.display());
    }
}

#[test]
fn a_rule_keeps_an_operator_from_a_delegate() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("backends.toml");
    let rule = "[[rule]]\nmatch = { op = \"aten.softmax*\" }\ndeny = [\"reference\"]\nreason = \"accuracy\"\n";
    std::fs::write(&config, format!("[select]\norder = [\"reference\"]\n{rule}")).unwrap();
    let config = config.display().to_string();
    let ended = delegraph(&["partition", MODEL, "--config", &config]);
    let softmax = ended
        .stdout
        .lines()
        .find(|line| line.contains("aten::softmax"))
        .unwrap_or_default();
    assert!(
        softmax.contains("portable") && softmax.contains("accuracy"),
        "{}",
        ended.stdout
    );
    // A minimum size that no island reaches leaves everything to the portable kernels.
    std::fs::write(
        folder.path().join("large.toml"),
        "[select]\norder = [\"reference\"]\nmin_nodes = 1000\n",
    )
    .unwrap();
    let large = folder.path().join("large.toml").display().to_string();
    let report = json(&["partition", MODEL, "--config", &large, "--json"]);
    assert_eq!(report["coverage"]["delegated_nodes"], 0);
    // Asking for coverage that cannot be had fails, and names what was not taken.
    std::fs::write(
        folder.path().join("cover.toml"),
        "[select]\norder = [\"null\"]\nrequire_coverage = 0.85\n",
    )
    .unwrap();
    let cover = folder.path().join("cover.toml").display().to_string();
    let out = folder.path().join("x.pte").display().to_string();
    let ended = delegraph(&["compile", MODEL, "-o", &out, "--config", &cover]);
    assert_eq!(ended.code, 5);
    assert!(
        ended.stderr.contains("aten::convolution") && !Path::new(&out).exists(),
        "{}",
        ended.stderr
    );
}

#[test]
fn compile_inspect_run_and_compare() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.pte").display().to_string();
    let compiled = json(&["compile", MODEL, "-o", &file, "--backend", "reference", "--json"]);
    assert_eq!(compiled["bytes"]["total"], std::fs::metadata(&file).unwrap().len());
    let parts = ["constants", "states", "blobs", "ir", "overlay", "program"];
    let sum: u64 = parts.iter().map(|part| compiled["bytes"][part].as_u64().unwrap()).sum();
    assert_eq!(compiled["bytes"]["total"], sum, "every byte has a purpose");

    let inspected = delegraph(&["inspect", &file, "--segments", "--blob", "0", "--tree"]);
    for words in [
        "candidates reference",
        "delegraph.overlay.v0",
        "format     delegraph.reference",
    ] {
        assert!(inspected.stdout.contains(words), "{}", inspected.stdout);
    }
    let ended = delegraph(&[
        "run",
        &file,
        "--fixture",
        "conformance/fixtures/mtcnn-pnet",
        "--backend",
        "reference",
    ]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    closes(&ended);
    // The library away: the same file, portably; and refused where fallback is denied.
    let nowhere = folder.path().display().to_string();
    let without = [("DELEGRAPH_DELEGATE_PATH", nowhere.as_str())];
    let fixture = [
        "run",
        file.as_str(),
        "--fixture",
        "conformance/fixtures/mtcnn-pnet",
        "--backend",
        "reference",
    ];
    let ended = delegraph_with(&fixture, &without);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let ended = delegraph_with(&[&fixture[..], &["--strict"]].concat(), &without);
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(ended.stdout.contains("aten::conv2d"), "{}", ended.stdout);

    let outputs = folder.path().join("out").display().to_string();
    let trace = folder.path().join("trace.json").display().to_string();
    let input = folder.path().join("x.npy");
    std::fs::write(&input, npy_of_zeros(&[1, 3, 24, 24])).unwrap();
    let given = format!("x={}", input.display());
    let expected = folder.path().join("out/output_0.npy");
    let ended = delegraph(&[
        "run",
        &file,
        "--input",
        &given,
        "--output-dir",
        &outputs,
        "--trace",
        &trace,
    ]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("output 0: f32[1,4,7,7]"), "{}", ended.stdout);
    assert!(std::fs::read(expected).unwrap().starts_with(b"\x93NUMPY"));
    let events: Value = serde_json::from_str(&std::fs::read_to_string(&trace).unwrap()).unwrap();
    assert!(!events["traceEvents"].as_array().unwrap().is_empty());
    let unnamed = delegraph(&["run", &file]);
    assert_eq!(unnamed.code, 2);
    assert!(unnamed.stderr.contains("`x`"), "{}", unnamed.stderr);
}

/// A NumPy file of float32 zeros.
fn npy_of_zeros(shape: &[usize]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}",
        sizes.join(", ")
    );
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 4 * shape.iter().product::<usize>(), 0);
    bytes
}

#[test]
fn devices_lists_manifests_and_probes_on_request_only() {
    let listed = json(&["devices", "--json"]);
    let states: Vec<&str> = listed["delegates"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|d| d["state"].as_str())
        .collect();
    assert_eq!(states, ["found, not loaded"; 6], "{listed}");
    let probed = json(&["devices", "--probe", "--json"]);
    let reference = probed["delegates"]
        .as_array()
        .unwrap()
        .iter()
        .find(|d| d["backend"] == "reference")
        .unwrap();
    assert!(reference["state"].as_str().unwrap().starts_with("loaded"), "{probed}");
    assert_eq!(reference["devices"][0]["kind"], "cpu");
    let disabled = delegraph_with(&["devices", "--probe"], &[("DELEGRAPH_DELEGATES_DISABLE", "ref*")]);
    assert!(disabled.stdout.contains("disabled by `ref*`"), "{}", disabled.stdout);
}

#[test]
fn config_shows_where_each_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backends.toml").display().to_string();
    assert_eq!(delegraph(&["config", "init", &file]).code, 0);
    assert_eq!(delegraph(&["config", "init", &file]).code, 2, "nothing is overwritten");
    assert_eq!(delegraph(&["config", "validate", &file]).code, 0);
    let shown = delegraph(&["config", "show", "--origin", "--config", &file]);
    assert!(
        shown.stdout.contains("select.fallback = \"allow\"  # project"),
        "{}",
        shown.stdout
    );
    let schema: Value = serde_json::from_str(&delegraph(&["config", "schema"]).stdout).unwrap();
    assert!(schema["properties"]["select"].is_object());
}

#[test]
fn blobs_are_found_again_where_the_environment_names_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("x.npy");
    std::fs::write(&input, npy_of_zeros(&[1, 3, 24, 24])).unwrap();
    let input = format!("0={}", input.display());
    let words = [
        "run",
        MODEL,
        "--backend",
        "reference",
        "--input",
        &input,
        "--json",
        "-v",
    ];
    let cache = folder.path().join("cache").display().to_string();
    let load = || {
        let ended = delegraph_with(&words, &[("DELEGRAPH_CACHE_DIR", &cache)]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let object: Value = serde_json::from_str(&ended.stdout).unwrap();
        (object["cache"].clone(), ended.stderr)
    };
    let (first, _) = load();
    let (second, talk) = load();
    assert!(first["misses"].as_u64() > Some(0), "{first}");
    assert_eq!(first["misses"], second["hits"]);
    assert_eq!(
        (&second["misses"], &second["warnings"]),
        (&Value::from(0), &Value::from(Vec::<Value>::new()))
    );
    assert!(talk.contains("blobs from the cache, 0 compiled"), "{talk}");
    assert!(delegraph(&words).stdout.contains("\"cache\":null"));
}

#[test]
fn bench_reports_load_first_and_steady_runs() {
    let report = json(&["bench", MODEL, "--runs", "3", "--warmup", "1", "--json"]);
    assert_eq!(report["times_ms"].as_array().unwrap().len(), 3);
    for key in ["load_ms", "first_ms", "rss_base_mb", "rss_peak_mb"] {
        assert!(report[key].as_f64() > Some(0.0), "{key}: {report}");
    }
    assert_eq!(
        delegraph(&["bench", MODEL, "--format", "md", "--runs", "1"])
            .stdout
            .lines()
            .count(),
        3
    );
}

#[test]
fn nothing_to_run_is_no_success() {
    let ended = delegraph(&["conform", "models", "conformance/fixtures", "--case", "no-such-model/*"]);
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    let report = json(&[
        "conform",
        "models",
        "conformance/fixtures",
        "--case",
        "no-such-model/*",
        "--json",
    ]);
    assert_eq!(report["summary"]["total"], 0);
}

#[test]
fn shards_together_are_the_whole_and_apart_from_each_other() {
    let list = |shard: &[&str]| -> Vec<String> {
        let ended = delegraph(&[&["conform", "models", "conformance/fixtures", "--list"], shard].concat());
        ended.stdout.lines().map(str::to_string).collect()
    };
    let whole = list(&[]);
    let mut shards: Vec<String> = ["1/3", "2/3", "3/3"]
        .iter()
        .flat_map(|shard| list(&["--shard", shard]))
        .collect();
    shards.sort();
    let mut sorted = whole.clone();
    sorted.sort();
    assert_eq!(shards, sorted);
    assert_eq!(
        delegraph(&["conform", "models", "conformance/fixtures", "--shard", "4/3"]).code,
        2
    );
}

#[test]
fn the_demo_says_nothing_untrue() {
    let ended = delegraph(&["demo"]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(!ended.stdout.contains("NO "), "{}", ended.stdout);
    closes(&ended);
    let own = delegraph(&[
        "demo",
        "The weather is lovely.",
        "It is sunny outside.",
        "He drove to the stadium.",
    ]);
    assert_eq!(own.code, 0, "{}{}", own.stdout, own.stderr);
    assert_eq!(delegraph(&["demo", "alone"]).code, 2);
    // Without delegates the demo's claims about them do not hold, and it says so.
    assert_eq!(delegraph(&["demo", "--no-load"]).code, 1);
}
