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
