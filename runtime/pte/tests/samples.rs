//! Files that ExecuTorch 1.5.1 wrote are read as what they are, and written again without loss.

use delegraph_pte::model::{Dynamism, EValue, Instruction, Plan, Program, Storage, Tensor};
use delegraph_pte::{BundledProgram, BundledValue, Contents, DataFile, ProgramParts, PteError, Verified, WriteError};
use delegraph_pte::{write, write_ptd};
use delegraph_types::{DType, Dims};
use std::path::PathBuf;

fn sample(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn programs() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".pte"))
        .map(|name| (name.clone(), sample(&name)))
        .collect();
    found.sort();
    assert!(found.len() >= 12);
    found
}

fn plan<'a>(program: &'a Program, name: &str) -> &'a Plan {
    program.plans.iter().find(|plan| plan.name == name).unwrap()
}

#[test]
fn methods_and_constant_methods() {
    let program = Verified::parse(&sample("two-methods.pte")).unwrap();
    for (method, shape) in [("forward", [2, 3]), ("other", [5, 3])] {
        let plan = plan(&program, method);
        let EValue::Tensor(input) = &plan.values[plan.inputs[0] as usize] else {
            panic!("{method}: the input is no tensor");
        };
        assert_eq!((input.dtype, input.sizes), (DType::F32, Dims::new(&shape).unwrap()));
    }
    let constant = |name| {
        let plan = plan(&program, name);
        assert!(plan.instructions.is_empty());
        plan.values[plan.outputs[0] as usize].clone()
    };
    assert_eq!(constant("max_len"), EValue::Int(128));
    assert_eq!(constant("eps"), EValue::Double(0.5));
}

#[test]
fn the_initial_state_of_a_buffer() {
    let file = sample("mutable-buffer-initialised.pte");
    let program = Verified::parse(&file).unwrap();
    let contents = Contents::of(&program, &file).unwrap();
    let states: Vec<f32> = contents.mutable_states[1]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(states, [1.0, 2.0, 3.0, 4.0]);
    let without = Verified::parse(&sample("mutable-buffer.pte")).unwrap();
    assert!(without.mutable_segments.is_empty());
}

#[test]
fn control_flow_is_jumps() {
    let program = Verified::parse(&sample("arch-cond.pte")).unwrap();
    let jumps = |i: &&Instruction| matches!(i, Instruction::JumpFalse { .. });
    assert_eq!(program.plans[0].instructions.iter().filter(jumps).count(), 2);
}

#[test]
fn external_tensors_are_found_by_name() {
    let program = Verified::parse(&sample("external-constants.pte")).unwrap();
    let file = sample("external-constants.ptd");
    let data = DataFile::parse(&file).unwrap();
    let mut names: Vec<_> = data.entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a.bias", "a.weight", "b.bias", "b.weight"]);
    let mut external = 0;
    for value in &program.plans[0].values {
        if let EValue::Tensor(tensor) = value
            && tensor.storage == Storage::External
        {
            external += 1;
            let bytes = data.bytes(&file, tensor.name.as_ref().unwrap()).unwrap();
            assert_eq!(bytes.len(), tensor.sizes.numel().unwrap() * tensor.dtype.size());
        }
    }
    assert_eq!(external, 4);
}

#[test]
fn a_bundle_holds_a_program_and_its_case() {
    let file = sample("bundled.bpte");
    let bundle = BundledProgram::parse(&file).unwrap();
    assert_eq!(Verified::parse(bundle.program).unwrap().plans[0].name, "forward");
    let case = &bundle.suites[0].cases[0];
    assert_eq!(
        (bundle.suites[0].method.as_str(), case.inputs.len(), case.expected.len()),
        ("forward", 1, 1)
    );
    let BundledValue::Tensor(input) = &case.inputs[0] else {
        panic!("the input is no tensor");
    };
    assert_eq!(input.sizes.last(), Some(&16));
}

#[test]
fn a_delegate_and_its_blob() {
    let file = sample("xnnpack.pte");
    let program = Verified::parse(&file).unwrap();
    let plan = &program.plans[0];
    assert_eq!(plan.delegates[0].id, "XnnpackBackend");
    let calls = |i: &&Instruction| matches!(i, Instruction::Delegate { .. });
    assert_eq!(plan.instructions.iter().filter(calls).count(), 2);
    assert_eq!(plan.delegates.len(), 2);
    let contents = Contents::of(&program, &file).unwrap();
    let refused = write(&contents.with_plans(&program.plans), &mut Vec::new());
    assert!(matches!(
        refused,
        Err(WriteError::Program(PteError::Unsupported { .. }))
    ));
}

#[test]
fn what_is_written_reads_the_same() {
    for (name, file) in programs() {
        let program = Verified::parse(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        if !program.plans[0].delegates.is_empty() {
            continue;
        }
        let contents = Contents::of(&program, &file).unwrap();
        let mut written = Vec::new();
        write(&contents.with_plans(&program.plans), &mut written).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = Verified::parse(&written).unwrap_or_else(|error| panic!("{name}: {error}"));
        // A plan without any arena is written with the reserved entry alone.
        assert_eq!(again.plans, program.plans, "{name}");
        let data = Contents::of(&again, &written).unwrap();
        assert_eq!(data.constants.len(), contents.constants.len().max(1), "{name}");
        assert!(
            data.constants.iter().skip(1).eq(contents.constants.iter().skip(1)),
            "{name}"
        );
        assert!(
            data.mutable_states
                .iter()
                .skip(1)
                .eq(contents.mutable_states.iter().skip(1)),
            "{name}"
        );
        let mut streamed = Vec::new();
        delegraph_pte::write_to(&contents.with_plans(&program.plans), &mut streamed).unwrap();
        assert_eq!(streamed, written, "{name}");
    }
}

/// ExecuTorch refuses a program whose constants lie in a segment of no bytes ("constant_buffer path is disabled").
#[test]
fn constants_without_elements_have_a_segment_with_bytes() {
    let tensor = EValue::Tensor(Tensor {
        dtype: DType::F32,
        sizes: Dims::new(&[1, 0]).unwrap(),
        dim_order: vec![0, 1],
        dynamism: Dynamism::Static,
        storage: Storage::Constant(1),
        name: None,
    });
    let plan = Plan {
        name: "forward".into(),
        values: vec![tensor],
        outputs: vec![0],
        buffer_sizes: vec![0],
        ..Plan::default()
    };
    for named in [&[][..], &[("a".to_string(), 1, &b"blob"[..])][..]] {
        let parts = ProgramParts {
            plans: std::slice::from_ref(&plan),
            constants: &[&[], &[]],
            mutable_states: &[],
            named,
        };
        let mut file = Vec::new();
        write(&parts, &mut file).unwrap();
        let program = Verified::parse(&file).unwrap();
        assert!(program.segments[0].end > program.segments[0].start);
        assert!(program.segments.iter().all(|segment| segment.end <= file.len() as u64));
        assert_eq!(Contents::of(&program, &file).unwrap().constants[1], b"");
        assert_eq!(program.named(&file, "a"), named.first().map(|(.., bytes)| *bytes));
    }
}

#[test]
fn named_blobs_are_aligned_and_found() {
    let plan = Plan {
        name: "forward".into(),
        buffer_sizes: vec![0],
        ..Plan::default()
    };
    let named = [
        ("a".to_string(), 1, &b"first"[..]),
        ("b".to_string(), 4096, &b"second"[..]),
        ("c".to_string(), 16, &b""[..]),
    ];
    let parts = ProgramParts {
        plans: &[plan],
        constants: &[],
        mutable_states: &[],
        named: &named,
    };
    let mut file = Vec::new();
    write(&parts, &mut file).unwrap();
    let program = Verified::parse(&file).unwrap();
    for (key, align, bytes) in &named {
        assert_eq!(program.named(&file, key), Some(*bytes));
        let entry = program.named_data.iter().find(|n| n.key == *key).unwrap();
        let start = program.segments[entry.segment as usize].start;
        assert_eq!(start % u64::from((*align).max(128)), 0, "{key}");
    }
    assert_eq!(program.named(&file, "d"), None);
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let tensor = |storage| {
        EValue::Tensor(Tensor {
            dtype: DType::F32,
            sizes: Dims::new(&[4]).unwrap(),
            dim_order: vec![0],
            dynamism: Dynamism::Static,
            storage,
            name: None,
        })
    };
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut plan = Plan {
            name: "forward".into(),
            values: vec![EValue::Int(1), tensor(Storage::Unplanned)],
            buffer_sizes: vec![0, 64],
            ..Plan::default()
        };
        change(&mut plan);
        let parts = ProgramParts {
            plans: &[plan],
            constants: &[&[], &[0; 8]],
            mutable_states: &[],
            named: &[],
        };
        let mut out = Vec::new();
        let error = write(&parts, &mut out).unwrap_err().to_string();
        assert!(out.is_empty());
        error
    };
    let arena = |memory_id, offset| Storage::Arena(delegraph_pte::model::Allocation { memory_id, offset });
    let with = |storage| move |plan: &mut Plan| plan.values.push(tensor(storage));
    let step = |instruction: Instruction| move |plan: &mut Plan| plan.instructions.push(instruction.clone());
    let cases: Vec<(Box<dyn Fn(&mut Plan)>, &str)> = vec![
        (
            Box::new(with(Storage::Constant(1))),
            "constant 1 of 16 bytes, the file has 8",
        ),
        (Box::new(with(Storage::Constant(2))), "constant 2 of 2"),
        (Box::new(with(Storage::Constant(0))), "constant 0 is reserved"),
        (Box::new(with(arena(2, 0))), "memory id 2 of 2"),
        (Box::new(with(arena(0, 0))), "memory id 0 of 2"),
        (
            Box::new(with(arena(1, 52))),
            "16 bytes at 52 do not lie in the 64 bytes",
        ),
        (Box::new(with(arena(1, 2))), "offset 2 is not aligned"),
        (Box::new(with(Storage::External)), "external data without a name"),
        (
            Box::new(|p| p.values.push(EValue::IntList(vec![1]))),
            "list item 1 is a tensor",
        ),
        (
            Box::new(|p| p.values.push(EValue::TensorList(vec![0]))),
            "list item 0 is an integer",
        ),
        (Box::new(|p| p.outputs.push(9)), "output 0: value 9 of 2"),
        (
            Box::new(step(Instruction::Kernel { op: 0, args: vec![] })),
            "operator 0 of 0",
        ),
        (Box::new(step(Instruction::Move { from: 0, to: 2 })), "value 2 of 2"),
        (
            Box::new(step(Instruction::JumpFalse {
                condition: 0,
                destination: 0,
            })),
            "condition 0 is an integer",
        ),
        (Box::new(step(Instruction::Free { value: 0 })), "which is an integer"),
    ];
    for (change, want) in cases {
        let error = refused(&*change);
        assert!(error.contains(want), "{error} / {want}");
    }
    let key = |key: &str, align| (key.to_string(), align, &b""[..]);
    for (named, want) in [
        (vec![key("a", 3)], "alignment 3"),
        (vec![key("a", 1), key("a", 1)], "there twice"),
    ] {
        let parts = ProgramParts {
            plans: &[],
            constants: &[],
            mutable_states: &[],
            named: &named,
        };
        let error = write(&parts, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn other_files_are_told_apart() {
    for bytes in [
        &b""[..],
        b"short",
        &sample("external-constants.ptd"),
        b"PK\x03\x04ET11.....",
    ] {
        assert!(matches!(Verified::parse(bytes), Err(PteError::NotThisKind { .. })));
    }
    assert!(matches!(
        DataFile::parse(&sample("arch-map.pte")),
        Err(PteError::NotThisKind { .. })
    ));
    assert!(matches!(
        BundledProgram::parse(&sample("arch-map.pte")),
        Err(PteError::NotThisKind { .. })
    ));
}

#[test]
fn data_files_are_written() {
    let values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let dims = Dims::new(&[2, 3]).unwrap();
    let entries = [
        ("w".to_string(), Some((DType::F32, dims)), &bytes[..]),
        ("blob".to_string(), None, &b"xyz"[..]),
    ];
    let mut file = Vec::new();
    write_ptd(&entries, &mut file).unwrap();
    let data = DataFile::parse(&file).unwrap();
    assert_eq!(data.entries[0].layout, Some((DType::F32, dims, vec![0, 1])));
    assert_eq!(data.bytes(&file, "w"), Some(&bytes[..]));
    assert_eq!(data.bytes(&file, "blob"), Some(&b"xyz"[..]));
    let short = [("w".to_string(), Some((DType::F32, dims)), &bytes[..20])];
    assert!(write_ptd(&short, &mut Vec::new()).is_err());
}
