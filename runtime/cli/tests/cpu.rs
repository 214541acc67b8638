//! The CPU delegate that is linked in makes steps of its own of what it has steps for: seen by the names in a trace of a run.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// A model, steps that it is made of, and beginnings of names that are not among them.
const MODELS: &[(&str, &[&str], &[&str])] = &[
    (
        "mtcnn-pnet",
        &["cpu::conv", "cpu::pool"],
        &["aten::conv", "aten::max_pool", "aten::prelu"],
    ),
    (
        "arch-lstm",
        &["cpu::recurrent", "cpu::linear"],
        &["aten::sigmoid", "aten::split"],
    ),
    (
        "arch-tiny-llama",
        &["cpu::attention", "cpu::norm", "cpu::linear"],
        &["aten::_softmax", "aten::rsqrt"],
    ),
    (
        "quant-torchao-8da4w",
        &["cpu::linear_quantized int8"],
        &["torchao::", "aten::amax"],
    ),
    (
        "quant-torchao-emb4-8da4w",
        &["cpu::embedding", "cpu::linear_quantized int8"],
        &["torchao::", "aten::embedding"],
    ),
    (
        "quant-pt2e-residual",
        &["cpu::conv_bytes int8", "cpu::linear_bytes int8"],
        &["aten::conv", "quantized_decomposed::dequantize_per_channel"],
    ),
];

#[test]
fn models_are_made_of_steps() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    let mut wrong = Vec::new();
    for (model, steps, others) in MODELS {
        let model_file = format!("conformance/fixtures/{model}/model.pt2");
        let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
            .args([
                "bench",
                &model_file,
                "--backend",
                "cpu",
                "--runs",
                "1",
                "--warmup",
                "1",
                "--strict",
                "--trace",
            ])
            .arg(&trace)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .env_clear()
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{model}: {errors}");
        let trace: Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let names: BTreeSet<&str> = events.iter().filter_map(|event| event["name"].as_str()).collect();
        let absent = steps
            .iter()
            .filter(|step| !names.contains(*step))
            .map(|step| format!("{model} has no `{step}`: {names:?}"));
        wrong.extend(absent);
        let still = names
            .iter()
            .filter(|name| others.iter().any(|other| name.starts_with(other)));
        wrong.extend(still.map(|name| format!("{model} still has `{name}`")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The command in the repository's root: exit code, standard output, standard error.
fn delegraph(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env_clear()
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn one_file_is_packed_for_several_families() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pte");
    let file = path.to_str().unwrap();
    let model = "conformance/fixtures/mtcnn-pnet/model.pt2";
    let compile = |isa: &str| delegraph(&["compile", model, "-o", file, "--backend", "cpu", "--isa", isa, "--json"]);
    let (code, text, errors) = compile("neon,avx512,avx2");
    assert_eq!(code, 0, "{errors}");
    let compiled: Value = serde_json::from_str(&text).unwrap();
    let packed = compiled["bytes"]["packed"].as_array().unwrap();
    let families = |row: &Value| serde_json::from_value::<Vec<String>>(row["families"].clone()).unwrap();
    let of: Vec<Vec<String>> = packed.iter().map(families).collect();
    for wanted in [vec!["neon", "avx2"], vec!["avx512"], vec!["neon", "avx2", "avx512"]] {
        assert!(of.iter().any(|row| *row == wanted), "{of:?}");
    }
    let sum: u64 = packed.iter().filter_map(|row| row["bytes"].as_u64()).sum();
    assert!(sum > 0 && sum < compiled["bytes"]["blobs"].as_u64().unwrap());

    let (code, text, errors) = delegraph(&["inspect", file]);
    assert_eq!(code, 0, "{errors}");
    assert!(text.contains("cpu compiled for neon, avx2; avx512"), "{text}");
    assert!(text.contains(" of weights for neon, avx2\n"), "{text}");
    let (_, text, _) = delegraph(&["inspect", file, "--json"]);
    let inspected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(inspected["packed"], compiled["bytes"]["packed"]);

    for wrong in ["sse", "avx2,", "avx2,neno"] {
        let (code, _, errors) = compile(wrong);
        assert_eq!(code, 2, "{errors}");
        for name in ["`host`", "`scalar`", "`neon-i8mm`", "`avx512vnni`"] {
            assert!(errors.contains(name), "{errors}");
        }
    }
}
