//! `delegraph run --trace --etdump` with a delegate in a process of its own: its events are on the executor's clock.
#![cfg(target_os = "linux")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo xtask test` builds these before the tests.
fn missing() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_BIN_EXE_delegraph")).parent().unwrap();
    let needed = ["delegraph-worker", "libreference_delegate.so"].map(|name| folder.join(name));
    needed.into_iter().find(|path| !path.is_file())
}

#[test]
fn a_worker_s_events_lie_within_their_region() {
    if let Some(missing) = missing() {
        println!(
            "skipped: `{}` is not built; `cargo xtask test` builds it",
            missing.display()
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for isolation in ["in_process", "worker"] {
        let config = format!("[select]\norder = [\"reference\"]\n[backend.reference]\nisolation = \"{isolation}\"\n");
        std::fs::write(path("backends.toml"), config).unwrap();
        std::fs::write(path("x.npy"), npy(&[4, 16])).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
            .args([
                "run",
                "conformance/fixtures/arch-mlp-dynamic-batch/model.pt2",
                "--strict",
                "--json",
            ])
            .args([
                "--config",
                &path("backends.toml"),
                "--input",
                &format!("x={}", path("x.npy")),
            ])
            .args(["--trace", &path("trace.json"), "--etdump", &path("run.etdp")])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .env_clear()
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{isolation}: {errors}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = isolation.replace('_', " ");
        assert_eq!(report["regions"][0]["isolation"], expected.as_str(), "{report}");

        let trace: Value = serde_json::from_slice(&std::fs::read(path("trace.json")).unwrap()).unwrap();
        let of = |kind: &str| -> Vec<Value> {
            let events = trace["traceEvents"].as_array().unwrap().iter();
            events.filter(|event| event["cat"] == kind).cloned().collect()
        };
        let span = |event: &Value| {
            let start = event["ts"].as_f64().unwrap();
            (start, start + event["dur"].as_f64().unwrap())
        };
        let [region] = &of("region")[..] else {
            panic!("{isolation}: {trace}")
        };
        let events = of("delegate");
        let nodes: Vec<&str> = events.iter().map(|e| e["args"]["node"].as_str().unwrap()).collect();
        assert_eq!(
            nodes,
            ["linear", "layer_norm", "gelu", "linear_1", "softmax"],
            "{isolation}"
        );
        for event in &events {
            let ((start, end), (from, to)) = (span(event), span(region));
            assert!(
                from <= start && start < end && end <= to,
                "{isolation}: {event} in {region}"
            );
        }
        let dump = std::fs::read(path("run.etdp")).unwrap();
        assert_eq!(&dump[8..12], b"ED00");
        assert_eq!(
            u32::from_le_bytes(dump[..4].try_into().unwrap()) as usize,
            dump.len() - 4
        );
    }
}

/// A NumPy file of float32 ones.
fn npy(shape: &[usize]) -> Vec<u8> {
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
    bytes.extend((0..shape.iter().product::<usize>()).flat_map(|_| 1f32.to_le_bytes()));
    bytes
}
