//! Qualcomm's library itself, in its emulation on this machine, for SM8650: what is computed is compared with integer arithmetic, and what is damaged is
//! refused.
//!
//! A library that is given what it does not expect may end the process, and it keeps one chip a process, so such tests are made in children: this
//! program, with one test.

mod common;

use common::child::{Work, child, given};
use common::*;
use delegraph_hexagon::graph::*;
use delegraph_hexagon::soc::SOCS;
use delegraph_hexagon::sys::{CompileOptions, Level, Library, Qnn, System, Unit};
use delegraph_sdk::{LogLevel, Status};
use half::f16;
use std::sync::Arc;

#[test]
fn bytes_are_added_as_integers_say() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let library = qnn.library();
    println!(
        "{} core API {} build {}",
        library.provider(),
        library.api_version(),
        library.build_id()
    );
    let graph = add();
    qnn.validate(&graph, &graph.nodes[0]).unwrap();
    let (a, b) = add_inputs();
    check_add(&run(&qnn, &graph, &[&a, &b])[0]);
}

#[test]
fn quantized_operators_are_within_a_step_of_integer_arithmetic() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    for case in [
        quantized::fully_connected(),
        quantized::convolution(),
        quantized::four_bits(),
        quantized::blocks(),
    ] {
        let graph = &case.graph;
        qnn.validate(graph, &graph.nodes[0]).unwrap();
        case.check(&run(&qnn, graph, &[&case.input])[0]);
    }
}

#[test]
fn halves_are_multiplied() {
    let Some(folder) = folder() else { return };
    check_multiply(&qnn(&folder));
}

fn check_multiply(qnn: &Qnn) {
    let numbers = |seed: usize| -> Vec<f16> {
        (0..64)
            .map(|n| f16::from_f32(((n * seed % 29) as f32 - 14.0) / 8.0))
            .collect()
    };
    let (a, b) = (numbers(5), numbers(11));
    let bytes = |list: &[f16]| -> Vec<u8> { list.iter().flat_map(|n| n.to_le_bytes()).collect() };
    let y = &run(qnn, &multiply(), &[&bytes(&a), &bytes(&b)])[0];
    for at in 0..64 {
        let got = f16::from_le_bytes([y[2 * at], y[2 * at + 1]]).to_f32();
        // The products of these have at most 8 bits: exact in f16.
        assert_eq!(got, a[at].to_f32() * b[at].to_f32(), "element {at}");
    }
}

#[test]
fn the_library_says_what_it_has() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    assert_eq!(
        (qnn.library().provider(), qnn.library().backend(), qnn.soc()),
        ("HTP_QTI_AISW", 6, SOC)
    );
    let operations = qnn.supported_operations().unwrap();
    for name in ["Conv2d", "ElementWiseAdd", "FullyConnected", "Transpose"] {
        assert!(
            operations.iter().any(|operation| operation == name),
            "{name} is not in {operations:?}"
        );
    }
}

#[test]
fn a_refusal_is_told_in_the_librarys_words() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let mut types = add();
    types.tensors[2].data_type = DataType::Float16;
    types.tensors[2].quantization = Quantization::None;
    let reason = qnn.validate(&types, &types.nodes[0]).unwrap_err();
    assert!(reason.contains("mismatching datatypes"), "{reason}");
    let mut rank = add();
    rank.tensors
        .iter_mut()
        .for_each(|tensor| tensor.dims = vec![1, 1, 1, 1, 1, 256]);
    let reason = qnn.validate(&rank, &rank.nodes[0]).unwrap_err();
    assert!(reason.contains("incorrect Rank 6"), "{reason}");
    let mut wide = add();
    for tensor in &mut wide.tensors {
        (tensor.data_type, tensor.quantization) = (DataType::Int64, Quantization::None);
    }
    let reason = qnn.validate(&wide, &wide.nodes[0]).unwrap_err();
    let start = "it does not take the types (INT_64, INT_64) -> INT_64, but ";
    assert!(
        reason.starts_with(start) && reason.contains("(FLOAT_16, FLOAT_16) -> FLOAT_16"),
        "{reason}"
    );
    println!("{reason}");
    let mut unknown = add();
    unknown.nodes[0].op = "NoSuchOperation";
    let reason = qnn.validate(&unknown, &unknown.nodes[0]).unwrap_err();
    assert!(
        reason.contains("NoSuchOperation") || reason.contains("(4005)"),
        "{reason}"
    );
    // What gets as far as a compilation is an ordinary refusal too, with the node.
    let error = qnn.compile(&[&unknown], &CompileOptions::default()).unwrap_err();
    assert_eq!(
        (error.error.code, error.graph.as_deref(), error.node),
        (Status::UNSUPPORTED, Some("add"), Some(0))
    );
}

#[test]
fn several_graphs_share_a_context() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let (first, case) = (add(), quantized::convolution());
    let compiled = qnn
        .compile(&[&first, &case.graph], &CompileOptions { vtcm_mb: Some(8) })
        .unwrap();
    let metadata = System::open(&folder).and_then(|system| system.describe(&compiled.binary));
    match metadata {
        Err(error) if error.code == Status::DEPENDENCY_MISSING => println!("skipped: metadata: {error}"),
        metadata => {
            let metadata = metadata.unwrap();
            assert_eq!(
                metadata.graphs, compiled.graphs,
                "what was kept when it was compiled is what the binary says"
            );
            assert_eq!((metadata.backend, metadata.soc), (6, Some(SOC)));
            assert_eq!(metadata.build_id, qnn.library().build_id());
            assert_eq!(metadata.core_version, qnn.library().api_version());
            assert_eq!(metadata.backend_version, qnn.library().backend_version());
            assert!(metadata.blob_size > 0 && metadata.blob_size <= compiled.binary.len() as u64);
        }
    }
    // The bytes are not needed any more when a context was made of them.
    let mut binary = compiled.binary.clone();
    let context = qnn.load_described(&binary, compiled.graphs).unwrap();
    binary.fill(0x55);
    drop(binary);
    let (a, b) = add_inputs();
    let (mut y, mut z) = (vec![0; 256], vec![0; 8 * 8 * 16]);
    let (mut one, mut two) = (context.graph("add").unwrap(), context.graph("convolution").unwrap());
    assert!(context.graph("third").is_err());
    drop((context, qnn));
    for _ in 0..2 {
        one.execute(&[&a, &b], &mut [&mut y], None).unwrap();
        two.execute(&[&case.input], &mut [&mut z], None).unwrap();
        check_add(&y);
        case.check(&z);
    }
    assert!(one.execute(&[&a], &mut [&mut y], None).is_err());
    let twice = self::qnn(&folder)
        .compile(&[&first, &first], &CompileOptions::default())
        .unwrap_err();
    assert!(twice.error.message.contains("(6003)"), "{}", twice.error);
}

#[test]
fn executions_are_measured_by_node() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let compiled = qnn.compile(&[&add()], &CompileOptions::default()).unwrap();
    let context = qnn.load_described(&compiled.binary, compiled.graphs).unwrap();
    let mut graph = context.graph("add").unwrap();
    let profile = qnn.profile(Level::Detailed).unwrap();
    let (a, b) = add_inputs();
    let mut counts = Vec::new();
    for _ in 0..2 {
        graph.execute(&[&a, &b], &mut [&mut [0; 256]], Some(&profile)).unwrap();
        let events = profile.events().unwrap();
        let of_node: Vec<_> = events
            .iter()
            .filter(|event| event.name.contains("ElementWiseAdd0"))
            .collect();
        assert_eq!(
            (of_node.len(), of_node[0].unit, of_node[0].depth),
            (1, Unit::Cycles, 1),
            "{events:?}"
        );
        assert!(
            events
                .iter()
                .any(|event| event.unit == Unit::Microseconds && event.depth == 0)
        );
        counts.push(events.len());
    }
    assert_eq!(
        counts[0], counts[1],
        "events of one execution replace those of the one before"
    );
}

#[test]
fn threads_may_execute_what_another_compiled() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let compiled = qnn.compile(&[&add()], &CompileOptions::default()).unwrap();
    let context = qnn.load_described(&compiled.binary, compiled.graphs).unwrap();
    let (a, b) = add_inputs();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut graph = context.graph("add").unwrap();
                for _ in 0..5 {
                    let mut y = vec![0; 256];
                    graph.execute(&[&a, &b], &mut [&mut y], None).unwrap();
                    check_add(&y);
                }
            });
        }
    });
}

#[test]
fn another_process_computes_the_same_bits() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let case = quantized::convolution();
    let compiled = qnn.compile(&[&case.graph], &CompileOptions::default()).unwrap();
    let here = execute(&qnn, &compiled.binary, compiled.graphs, "convolution", &[&case.input]);
    let work = Work::new("reload");
    std::fs::write(work.0.join("binary"), &compiled.binary).unwrap();
    child("child_reloads", &work.0);
    assert_eq!(std::fs::read(work.0.join("output")).unwrap(), here[0]);
}

#[test]
fn child_reloads() {
    let Some((folder, work)) = given() else { return };
    let binary = std::fs::read(work.join("binary")).unwrap();
    let qnn = qnn(&folder);
    let case = quantized::convolution();
    // Without what was kept at the compilation, where the system library is; it is what says what the graphs are.
    let context = qnn.load(&binary).unwrap();
    let mut graph = context.graph("convolution").unwrap();
    let mut output = vec![0; graph.info().outputs[0].bytes().unwrap()];
    graph.execute(&[&case.input], &mut [&mut output], None).unwrap();
    std::fs::write(work.join("output"), output).unwrap();
}

#[test]
fn damaged_binaries_are_refused() {
    let Some(folder) = folder() else { return };
    let qnn = qnn(&folder);
    let compiled = qnn.compile(&[&add()], &CompileOptions::default()).unwrap();
    let work = Work::new("damaged");
    let binary = &compiled.binary;
    let mut damaged: Vec<(&str, Vec<u8>)> = vec![
        ("one byte", vec![0]),
        ("zeros", vec![0; binary.len()]),
        ("text", b"this is no context binary, but a sentence. ".repeat(100)),
        ("reversed", binary.iter().rev().copied().collect()),
    ];
    for part in [8, 64, 1000, binary.len() / 4, binary.len() / 2] {
        damaged.push(("cut", binary[..part].to_vec()));
    }
    for (at, (_, bytes)) in damaged.iter().enumerate() {
        std::fs::write(work.0.join(format!("binary{at}")), bytes).unwrap();
    }
    child("child_refuses", &work.0);
    let told = std::fs::read_to_string(work.0.join("told")).unwrap();
    assert_eq!(told.lines().count(), damaged.len(), "{told}");
    println!("{told}");
}

#[test]
fn child_refuses() {
    let Some((folder, work)) = given() else { return };
    let qnn = qnn(&folder);
    let system = System::open(&folder);
    let mut told = String::new();
    for at in 0.. {
        let Ok(binary) = std::fs::read(work.join(format!("binary{at}"))) else {
            break;
        };
        let error = qnn.load_described(&binary, Vec::new()).err().expect("it is refused");
        assert_ne!(error.vendor_code, 0, "{error}");
        let described = match &system {
            Ok(system) => system.describe(&binary).err().map(|error| error.to_string()),
            Err(_) => None,
        };
        told += &format!(
            "{at} ({} bytes): {:?} {error} / {described:?}\n",
            binary.len(),
            error.code
        );
    }
    std::fs::write(work.join("told"), told).unwrap();
}

#[test]
fn a_binary_of_another_chip_says_so() {
    let Some(folder) = folder() else { return };
    let work = Work::new("chip");
    child("child_compiles_for_another_chip", &work.0);
    let binary = std::fs::read(work.0.join("binary")).unwrap();
    let Ok(system) = System::open(&folder) else {
        println!("skipped: the system library cannot be loaded");
        return;
    };
    assert_eq!(system.describe(&binary).unwrap().soc, Some(69));
    child("child_loads_for_another_chip", &work.0);
    println!("{}", std::fs::read_to_string(work.0.join("told")).unwrap());
}

#[test]
fn child_compiles_for_another_chip() {
    let Some((folder, work)) = given() else { return };
    let library = Library::open(&folder, "libQnnHtp.so").unwrap();
    let qnn = Qnn::open(library, 69, Arc::new(|_: LogLevel, _: &str| {})).unwrap();
    let compiled = qnn.compile(&[&add()], &CompileOptions::default()).unwrap();
    std::fs::write(work.join("binary"), compiled.binary).unwrap();
}

#[test]
fn child_loads_for_another_chip() {
    let Some((folder, work)) = given() else { return };
    let binary = std::fs::read(work.join("binary")).unwrap();
    let qnn = qnn(&folder);
    let loaded = qnn.load_described(&binary, Vec::new());
    let told = loaded
        .err()
        .map_or("the library takes it".to_string(), |error| error.to_string());
    std::fs::write(work.join("told"), told).unwrap();
}

#[test]
fn a_library_without_its_neighbours_says_what_is_missing() {
    let Some(folder) = folder() else { return };
    let Ok(saver) = delegraph_hexagon::sys::find(&folder, "libQnnSaver.so") else {
        println!("skipped: there is no libQnnSaver.so in {}", folder.display());
        return;
    };
    if !folder.join("../onnxruntime_qnn.libs").is_dir() {
        println!("skipped: the libraries of an SDK have other neighbours");
        return;
    }
    let work = Work::new("alone");
    std::fs::copy(saver, work.0.join("libQnnSaver.so")).unwrap();
    // In a child: here, what it needs may be loaded already.
    child("child_opens_a_library_alone", &work.0);
}

#[test]
fn child_opens_a_library_alone() {
    let Some((_, work)) = given() else { return };
    let error = Library::open(&work, "libQnnSaver.so").err().unwrap();
    assert_eq!(error.code, Status::DEPENDENCY_MISSING);
    assert!(error.hint.contains("onnxruntime_qnn.libs"), "{error}");
}

#[test]
fn unknown_chips_are_refused() {
    let Some(folder) = folder() else { return };
    let work = Work::new("unknown");
    let _ = folder;
    child("child_opens_an_unknown_chip", &work.0);
}

#[test]
fn child_opens_an_unknown_chip() {
    let Some((folder, _)) = given() else { return };
    let library = Library::open(&folder, "libQnnHtp.so").unwrap();
    let silent = || Arc::new(|_: LogLevel, _: &str| {});
    let error = Qnn::open(Arc::clone(&library), 9999, silent()).err().unwrap();
    assert!(
        error.message.contains("chip 9999") && error.vendor_code == 14001,
        "{error}"
    );
    assert!(error.hint.contains("sm8650 (57)"), "{error}");
    // The process may still choose, once.
    let qnn = Qnn::open(Arc::clone(&library), 69, silent()).unwrap();
    assert!(Qnn::open(library, 57, silent()).is_err());
    let graph = add();
    qnn.validate(&graph, &graph.nodes[0]).unwrap();
}

#[test]
fn every_chip_that_is_offered_computes() {
    let Some(_) = folder() else { return };
    for soc in SOCS {
        let work = Work::new(soc.name);
        std::fs::write(work.0.join("chip"), soc.id.to_string()).unwrap();
        child("child_computes_for_a_chip", &work.0);
    }
}

#[test]
fn child_computes_for_a_chip() {
    let Some((folder, work)) = given() else { return };
    let soc = std::fs::read_to_string(work.join("chip")).unwrap().parse().unwrap();
    let library = Library::open(&folder, "libQnnHtp.so").unwrap();
    let qnn = Qnn::open(library, soc, Arc::new(|_: LogLevel, _: &str| {})).unwrap();
    let (a, b) = add_inputs();
    check_add(&run(&qnn, &add(), &[&a, &b])[0]);
    for case in [quantized::fully_connected(), quantized::convolution()] {
        case.check(&run(&qnn, &case.graph, &[&case.input])[0]);
    }
    check_multiply(&qnn);
}

#[test]
fn one_size_of_tightly_coupled_memory_a_process() {
    let Some(_) = folder() else { return };
    child("child_takes_less_memory", &Work::new("memory").0);
}

#[test]
fn child_takes_less_memory() {
    let Some((folder, _)) = given() else { return };
    let qnn = qnn(&folder);
    let little = CompileOptions { vtcm_mb: Some(4) };
    let compiled = qnn.compile(&[&add()], &little).unwrap();
    let (a, b) = add_inputs();
    check_add(&execute(&qnn, &compiled.binary, compiled.graphs, "add", &[&a, &b])[0]);
    let error = qnn.compile(&[&add()], &CompileOptions::default()).unwrap_err().error;
    assert!(
        error.message.contains("4 MiB") && error.message.contains("8 MiB"),
        "{error}"
    );
}

fn add_inputs() -> (Vec<u8>, Vec<u8>) {
    let a: Vec<u8> = (0..=255).collect();
    let b = a.iter().map(|n| n.wrapping_mul(7)).collect();
    (a, b)
}

fn check_add(y: &[u8]) {
    let (a, b) = add_inputs();
    for at in 0..256 {
        let real = f64::from(a[at]) * 0.5 + (f64::from(b[at]) - 8.0) * 0.25;
        assert_eq!(y[at], (real / 0.75).round().clamp(0.0, 255.0) as u8, "element {at}");
    }
}
