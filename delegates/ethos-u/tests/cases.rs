//! Operators and small nets: the graph that is lowered is the one that Arm's tools were given, the stream that Vela made of it gives the integers of
//! Arm's reference model, and these are PyTorch's or one step beside them. `make_cases.py` makes the cases.

mod common;

use delegraph_abi::DType;
use delegraph_ethos_u::target::Target;
use delegraph_ethos_u::{lower, tosa};
use delegraph_ethos_u_sim::container::{Block, blocks, io};
use delegraph_ethos_u_sim::{Interpreter, Limits, Memory, Stream};
use delegraph_sdk::image::verify;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What PyTorch's integers differ by.
#[derive(Default)]
struct Difference {
    elements: usize,
    /// By one step.
    beside: usize,
}

fn all<'a>(blocks: &'a [Block<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    blocks.iter().filter(move |b| b.name == name).map(|b| b.data)
}

fn one<'a>(blocks: &'a [Block<'a>], name: &'a str) -> &'a [u8] {
    all(blocks, name).next().unwrap_or_else(|| panic!("no block `{name}`"))
}

/// Integers as the network has them, which knows no unsigned ones.
fn integers(bytes: &[u8], dtype: DType) -> Vec<i32> {
    match dtype {
        DType::I16 => {
            let words = bytes.as_chunks::<2>().0.iter();
            words.map(|word| i32::from(i16::from_le_bytes(*word))).collect()
        }
        DType::U8 => bytes.iter().map(|byte| i32::from((byte ^ 0x80) as i8)).collect(),
        _ => bytes.iter().map(|byte| i32::from(*byte as i8)).collect(),
    }
}

/// Runs a stream on the inputs of a set; gives the bytes of the outputs, one after the other.
fn run(file: &[Block<'_>], given: &[u8]) -> Result<Vec<u8>, String> {
    let size = |name: &str| u32::from_le_bytes(one(file, name).try_into().unwrap()) as usize;
    let stream = Stream::parse(one(file, "cmd_data")).unwrap();
    // What nobody wrote is not zero by luck.
    let (mut scratch, mut fast) = (vec![0x5a; size("scratch_size")], vec![0xa5; size("fast_size")]);
    let length = |shape: [i32; 6], element: u32| (shape.iter().product::<i32>() as u32 * element) as usize;
    let mut rest = given;
    for tensor in io(one(file, "inputs")).unwrap() {
        let (now, behind) = rest.split_at(length(tensor.shape, tensor.element));
        scratch[tensor.offset as usize..][..now.len()].copy_from_slice(now);
        rest = behind;
    }
    let mut memory = Memory::new();
    memory.map(0, one(file, "weight_data"));
    memory.map_mut(1, &mut scratch);
    memory.map_mut(2, &mut fast);
    Interpreter::new(stream.config, Limits::default())
        .run(&stream, &mut memory)
        .map_err(|e| e.to_string())?;
    let outputs = io(one(file, "outputs")).unwrap();
    let all = outputs.iter().map(|tensor| {
        let start = tensor.offset as usize;
        &scratch[start..start + length(tensor.shape, tensor.element)]
    });
    Ok(all.collect::<Vec<_>>().concat())
}

/// One case on one target.
fn judge(case: &Value, target: &'static Target, file: &[u8]) -> Result<Difference, String> {
    let (image, constants) = common::image(case);
    let graph = lower(&verify(&image).unwrap(), target, &constants).map_err(|e| e.to_string())?;
    let hash: String = Sha256::digest(tosa::write(&graph))
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let file = blocks(file).map_err(|e| e.to_string())?;
    if one(&file, "graph") != hash.as_bytes() {
        return Err("another graph than Vela was given: run `make_cases.py`".to_string());
    }
    let output = &case["values"][case["outputs"][0].as_u64().unwrap() as usize];
    let dtype = common::dtype(output);
    let mut difference = Difference::default();
    for (set, (given, expected)) in all(&file, "given").zip(all(&file, "expected")).enumerate() {
        let got = run(&file, given)?;
        if got != expected {
            let wrong = got.iter().zip(expected).filter(|(a, b)| a != b).count();
            return Err(format!(
                "set {set}: {wrong} of {} bytes are not the reference model's",
                got.len()
            ));
        }
        let network = if dtype == DType::U8 { DType::I8 } else { dtype };
        let pytorch = integers(&common::bytes(&case["torch"][set][0]), dtype);
        let got = integers(&got, network);
        assert_eq!(got.len(), pytorch.len());
        for (at, (a, b)) in got.iter().zip(&pytorch).enumerate() {
            difference.elements += 1;
            difference.beside += usize::from(a != b);
            if (a - b).abs() > 1 {
                return Err(format!("set {set}, element {at}: {a}, and PyTorch has {b}"));
            }
        }
    }
    Ok(difference)
}

#[test]
fn every_case_is_the_reference_models_and_within_a_step_of_pytorch() {
    let (mut passed, mut failed) = (0, Vec::new());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for name in common::names(&folder) {
        let case = common::read(&folder, &name);
        let mut streams = 0;
        for target in ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"] {
            let Ok(file) = std::fs::read(folder.join(target).join(format!("{name}.vela"))) else {
                continue;
            };
            streams += 1;
            match judge(&case, Target::find(target).unwrap(), &file) {
                Ok(Difference { elements, beside }) => {
                    println!("{name} {target}: {beside} of {elements} one step beside PyTorch's");
                    passed += 1;
                }
                Err(error) => failed.push(format!("{name} {target}: {error}")),
            }
        }
        if streams == 0 {
            failed.push(format!("{name}: no stream"));
        }
    }
    assert!(
        failed.is_empty(),
        "{passed} passed, {} failed\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(passed > 150, "only {passed} streams");
}
