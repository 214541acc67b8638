//! `delegraph bench --roofline`: operations of steps as they are counted by hand, and sums that fit. Times are never judged.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn bench(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(["bench", "--roofline", "--runs", "3", "--warmup", "1", "--threads", "1"])
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env_clear()
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn roofline(arguments: &[&str]) -> Value {
    let text = bench(&[arguments, &["--json"]].concat());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    report["roofline"].clone()
}

/// Operations of the steps whose names are these.
fn operations(roofline: &Value, name: &str) -> Vec<u64> {
    let steps = roofline["steps"].as_array().unwrap().iter();
    let mut all: Vec<u64> = steps
        .filter(|step| step["name"] == name)
        .map(|step| step["operations"].as_u64().unwrap())
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn operations_are_those_of_the_layers() {
    // Twice: output rows and columns, channels, and the numbers that each is a sum of.
    let convs = [
        2 * 7 * 7 * 2 * 32,
        2 * 7 * 7 * 4 * 32,
        2 * 9 * 9 * 16 * (10 * 3 * 3),
        2 * 22 * 22 * 10 * (3 * 3 * 3),
        2 * 7 * 7 * 32 * (16 * 3 * 3),
    ];
    let model = "conformance/fixtures/mtcnn-pnet/model.pt2";
    let net = roofline(&[model, "--backend", "cpu", "--shapes", "x:2=24,x:3=24"]);
    assert_eq!(operations(&net, "cpu::conv"), convs, "{net:#}");
    assert_eq!(operations(&net, "cpu::pool"), [11 * 11 * 10 * 2 * 2]);

    // Rows, inputs, outputs.
    let model = "conformance/fixtures/arch-mlp-dynamic-batch/model.pt2";
    let net = roofline(&[model, "--backend", "cpu", "--shapes", "x:0=6"]);
    assert_eq!(
        operations(&net, "cpu::linear"),
        [2 * 6 * 32 * 8, 2 * 6 * 16 * 32],
        "{net:#}"
    );

    let model = "conformance/fixtures/quant-torchao-8da4w/model.pt2";
    let net = roofline(&[model, "--backend", "cpu"]);
    let products = [2 * 12 * 64 * 10, 2 * 12 * 64 * 128, 2 * 12 * 128 * 64];
    assert_eq!(operations(&net, "cpu::linear_quantized int8"), products, "{net:#}");

    let model = "conformance/fixtures/quant-pt2e-residual/model.pt2";
    let net = roofline(&[model, "--backend", "cpu"]);
    // Depthwise, 1 by 1, and the first.
    let convs = [
        2 * 16 * 16 * 16 * (3 * 3),
        2 * 16 * 16 * 16 * 16,
        2 * 16 * 16 * 16 * (3 * 3 * 3),
    ];
    assert_eq!(operations(&net, "cpu::conv_bytes int8"), convs, "{net:#}");
    assert_eq!(operations(&net, "cpu::linear_bytes int8"), [2 * 16 * 10]);
}

#[test]
fn the_object_has_peaks_steps_and_their_sums() {
    let model = "conformance/fixtures/arch-tiny-llama/model.pt2";
    let roofline = roofline(&[model, "--backend", "cpu"]);
    let number = |key: &str| roofline[key].as_f64().unwrap_or_else(|| panic!("{key}: {roofline:#}"));
    for key in ["f32_gflop_s", "int8_gop_s", "memory_gb_s", "run_ms"] {
        assert!(number(key) > 0.0, "{key}");
    }
    assert_eq!((&roofline["threads"], &roofline["runs"]), (&1.into(), &3.into()));
    let steps = roofline["steps"].as_array().unwrap();
    let sum = |key: &str| -> f64 { steps.iter().filter_map(|step| step[key].as_f64()).sum() };
    let same = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    assert!(same(sum("ms"), number("steps_ms")) && same(sum("bound_ms"), number("bound_ms")));
    assert!(same(sum("operations"), number("operations")) && same(sum("bytes"), number("bytes")));
    assert!(same(number("known_ms") + number("unknown_ms"), number("steps_ms")));
    let mut last = f64::INFINITY;
    for step in steps {
        let of = |key: &str| step[key].as_f64();
        let (ms, operations, bytes) = (of("ms").unwrap(), of("operations").unwrap(), of("bytes").unwrap());
        assert!(ms <= last, "the longest first");
        last = ms;
        assert!(same(of("share").unwrap(), ms / number("run_ms")));
        let peak = match step["arithmetic"].as_str() {
            Some("int8") => number("int8_gop_s"),
            _ => number("f32_gflop_s"),
        };
        let (arithmetic, memory) = (operations / peak / 1e6, bytes / number("memory_gb_s") / 1e6);
        match step["limit"].as_str() {
            Some("arithmetic") => assert!(arithmetic >= memory && same(of("bound_ms").unwrap(), arithmetic)),
            Some("memory") => assert!(memory > arithmetic && same(of("bound_ms").unwrap(), memory)),
            _ => assert_eq!((operations, bytes, of("bound_ms")), (0.0, 0.0, None)),
        }
    }
    for name in ["cpu::attention", "cpu::norm", "cpu::linear", "call"] {
        assert!(steps.iter().any(|step| step["name"] == name), "{name}");
    }
}

#[test]
fn formats_have_a_row_a_step() {
    let model = "conformance/fixtures/arch-mlp-dynamic-batch/model.pt2";
    let csv = bench(&[model, "--format", "csv"]);
    // Without a backend the portable kernels run, which say neither operations nor bytes.
    assert!(
        csv.starts_with("step,node,ms,share,GFLOP/s,GB/s,bound ms,of bound,limit\n"),
        "{csv}"
    );
    assert!(
        csv.lines().skip(1).all(|line| line.ends_with(",-,-,-,-,not known")),
        "{csv}"
    );
    assert!(csv.lines().count() > 5, "{csv}");
    for format in ["text", "md"] {
        let text = bench(&[model, "--backend", "cpu", "--format", format]);
        for word in ["cpu::linear", "median ms", "GFLOP/s of f32", "not known"] {
            assert!(text.contains(word), "{format}: {word}: {text}");
        }
    }
    let refused = Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(["bench", "x.pte", "--llm", "--roofline"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
