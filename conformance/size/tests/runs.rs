//! What is weighed runs: a fixture that the CPU delegate took whole, over its library, as PyTorch did. `conformance/size/run` says where both are.

use delegraph_executor::Input;
use delegraph_minimal::Model;
use delegraph_types::DType;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A tensor of a safetensors file: sizes and bytes.
fn tensor(file: &Path, name: &str) -> (Vec<i64>, Vec<u8>) {
    let bytes = std::fs::read(file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let entries: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let numbers = |key: &str| -> Vec<i64> {
        let list = entries[name][key].as_array().unwrap();
        list.iter().map(|number| number.as_i64().unwrap()).collect()
    };
    let range = numbers("data_offsets");
    (
        numbers("shape"),
        bytes[header + range[0] as usize..header + range[1] as usize].to_vec(),
    )
}

#[test]
fn a_delegated_model_gives_what_pytorch_gave() {
    let Some(program) = std::env::var_os("DELEGRAPH_SIZE_PROGRAM").map(PathBuf::from) else {
        println!("skipped: DELEGRAPH_SIZE_PROGRAM is not set");
        return;
    };
    let manifest = PathBuf::from(std::env::var_os("DELEGRAPH_SIZE_MANIFEST").unwrap());
    let fixture = PathBuf::from(std::env::var_os("DELEGRAPH_SIZE_FIXTURE").unwrap());
    let description: Value = serde_json::from_slice(&std::fs::read(fixture.join("fixture.json")).unwrap()).unwrap();
    let step = &description["cases"][0]["steps"][0];
    let (sizes, data) = tensor(
        &fixture.join("inputs.safetensors"),
        step["inputs"][0]["tensor"].as_str().unwrap(),
    );
    let (_, want) = tensor(
        &fixture.join("expected.safetensors"),
        step["outputs"][0]["tensor"].as_str().unwrap(),
    );
    let mut model = Model::load(std::fs::read(program).unwrap(), &manifest).unwrap();
    let input = Input::Bytes {
        dtype: DType::F32,
        sizes: &sizes,
        data: &data,
    };
    let got = model.run(&[input]).unwrap();
    assert_eq!(got.len(), want.len());
    for (got, want) in got.as_chunks().0.iter().zip(want.as_chunks().0) {
        let (got, want) = (f32::from_le_bytes(*got), f32::from_le_bytes(*want));
        assert!((got - want).abs() <= 1e-4 + 1e-4 * want.abs(), "{got} for {want}");
    }
}
