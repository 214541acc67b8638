//! Qualcomm's Saver library writes down, as text, every call that it gets and what it reads in each struct. What it understood is compared with what was
//! meant, field by field: that proves every offset and every number without a device.
//!
//! The record has Qualcomm's notice in it. It is written into a temporary folder, read there and removed.

mod common;

use common::record::Record;
use common::*;
use delegraph_hexagon::graph::*;
use delegraph_hexagon::sys::{CompileOptions, GraphInfo, Level, Library, Qnn, TensorInfo};
use std::sync::Arc;

#[test]
fn what_the_library_reads_is_what_was_meant() {
    let Some(folder) = folder() else { return };
    if delegraph_hexagon::sys::find(&folder, "libQnnSaver.so").is_err() {
        println!("skipped: there is no libQnnSaver.so in {}", folder.display());
        return;
    }
    let folder = std::path::absolute(folder).unwrap();
    // It writes below the current folder; this is the only test of the process.
    let work = std::env::temp_dir().join(format!("delegraph-hexagon-saver-{}", std::process::id()));
    std::fs::create_dir_all(&work).unwrap();
    std::env::set_current_dir(&work).unwrap();
    let graph = everything();
    let border = GraphInfo {
        name: "loaded".to_string(),
        inputs: vec![info(70, "in", DataType::UFixed8, &[4], per_tensor(0.5, 3))],
        outputs: vec![info(90, "out", DataType::SFixed16, &[1, 2], Quantization::None)],
    };
    {
        let library = Library::open(&folder, "libQnnSaver.so").unwrap();
        assert_eq!((library.provider(), library.backend()), ("SAVER_QTI_AISW", 2));
        let log = Arc::new(|level: delegraph_sdk::LogLevel, line: &str| eprintln!("{level:?}: {line}"));
        let qnn = Qnn::open(library, SOC, log).unwrap();
        qnn.validate(&graph, &graph.nodes[1]).unwrap();
        // It writes no binary.
        let error = qnn.compile(&[&graph], &CompileOptions::default()).unwrap_err().error;
        assert!(error.message.contains("the size of the context binary"), "{error}");
        // It does not take this encoding. `library.rs` shows by its numbers that HTP reads it as it is meant.
        let error = qnn.compile(&[&blocks()], &CompileOptions::default()).unwrap_err().error;
        assert!(
            error.message.contains("take the tensor `w`") && error.message.contains("(1000)"),
            "{error}"
        );
        let context = qnn.load_described(&[1, 2, 3], vec![border.clone()]).unwrap();
        let mut loaded = context.graph("loaded").unwrap();
        let profile = qnn.profile(Level::Detailed).unwrap();
        loaded
            .execute(&[&[5, 6, 7, 8]], &mut [&mut [1, 2, 3, 4]], Some(&profile))
            .unwrap();
    }
    let record = Record::read(&work.join("saver_output"));
    std::env::set_current_dir("/").unwrap();
    std::fs::remove_dir_all(&work).unwrap();
    let calls: Vec<&str> = record.calls.iter().map(|(function, _)| function.as_str()).collect();
    let tensor = "tensorCreateGraphTensor";
    let start = [
        "backendCreate",
        "deviceCreate",
        "backendValidateOpConfig",
        "contextCreate",
        "graphCreate",
    ];
    assert_eq!(calls[..5], start);
    let graph_tensors = graph.tensors.len();
    assert!(calls[5..5 + graph_tensors].iter().all(|call| *call == tensor));
    let rest = [
        tensor,
        tensor,
        "graphAddNode",
        "graphAddNode",
        "graphFinalize",
        "contextGetBinarySize",
        "contextFree",
    ];
    assert_eq!(calls[5 + graph_tensors..][..7], rest);
    let end = [
        "contextCreateFromBinary",
        "graphRetrieve",
        "profileCreate",
        "graphExecute",
        "profileFree",
        "contextFree",
        "deviceFree",
        "backendFree",
    ];
    assert_eq!(calls[calls.len() - end.len()..], end);

    assert_eq!(record.arguments("graphCreate", 0)[1], "\"everything\"");
    // Tensors as they were made known.
    for (at, meant) in graph.tensors.iter().enumerate() {
        let (id, understood) = record.tensor(record.arguments(tensor, at)[1].trim_start_matches('&'));
        assert_eq!((id.as_str(), &understood), ("0", meant));
    }
    // Nodes, whose tensors have the ids that were given out.
    for (at, node) in graph.nodes.iter().enumerate() {
        check_node(&record, &record.arguments("graphAddNode", at)[1], &graph, node, true);
    }
    check_node(
        &record,
        &record.arguments("backendValidateOpConfig", 0)[1],
        &graph,
        &graph.nodes[1],
        false,
    );
    // The border of an execution.
    let execute = record.arguments("graphExecute", 0);
    assert_eq!(
        (execute[2].as_str(), execute[4].as_str(), execute[5].as_str()),
        ("1", "1", "profile_0")
    );
    for (list, meant, kind, bytes) in [
        (&execute[1], &border.inputs[0], TensorKind::Input, [5, 6, 7, 8]),
        (&execute[3], &border.outputs[0], TensorKind::Output, [1, 2, 3, 4]),
    ] {
        let names = record.value(list);
        let (id, tensor) = record.tensor(&names[0]);
        assert_eq!((names.len(), id), (1, meant.id.to_string()));
        let understood = TensorInfo {
            id: meant.id,
            name: tensor.name,
            data_type: tensor.data_type,
            dims: tensor.dims,
            quantization: tensor.quantization,
        };
        assert_eq!((&understood, tensor.kind), (meant, kind));
        assert_eq!(record.bytes(&names[0]), bytes);
    }
}

/// A graph with each kind of tensor, quantization and parameter; it computes nothing.
fn everything() -> Graph {
    use DataType::*;
    let mut maker = Maker::new("everything");
    let pair = ScaleOffset {
        scale: 0.125,
        offset: -7,
    };
    let constant = |count: u8| TensorKind::Static((0..count).collect());
    let fixed = SFixed8;
    let a = maker.tensor("a", TensorKind::Input, UFixed8, &[1, 2, 2, 4], per_tensor(0.5, 3));
    let axis = Quantization::PerAxis {
        axis: 3,
        pairs: pairs(3),
    };
    let w = maker.tensor("w", constant(24), fixed, &[1, 2, 4, 3], axis);
    let narrow_axis = Quantization::NarrowPerAxis {
        bits: 4,
        axis: 2,
        pairs: pairs(4),
    };
    let n = maker.tensor("n", constant(24), fixed, &[1, 2, 4, 3], narrow_axis);
    let s = maker.tensor("s", constant(3), fixed, &[3], Quantization::Narrow { bits: 4, pair });
    let b = maker.tensor("b", constant(12), SFixed32, &[3], Quantization::PerTensor(pair));
    let m = maker.tensor("m", TensorKind::Native, Float16, &[1, 5], Quantization::None);
    let y = maker.tensor("y", TensorKind::Output, UFixed16, &[2, 3], per_tensor(0.25, 32768));
    let others = [
        Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Float32, SFixed16, UFixed32, Bool,
    ];
    for (at, data_type) in others.into_iter().enumerate() {
        let name = format!("t{at}");
        maker.tensor(
            &name,
            TensorKind::Native,
            data_type,
            &[at as u32 + 1],
            Quantization::None,
        );
    }
    let params = vec![
        ("u", Param::U32(7)),
        ("i", Param::I32(-9)),
        ("f", Param::F32(0.1)),
        ("b", Param::Bool(true)),
        ("us", Param::U32s(vec![2, 2], vec![1, 2, 3, 70000])),
        ("is", Param::I32s(vec![1, 3], vec![-1, 0, 1])),
    ];
    maker
        .node("Conv2d", params, &[a, w, n, s, b], &[m])
        .node("Relu", vec![], &[m], &[y])
        .0
}

fn blocks() -> Graph {
    let mut maker = Maker::new("blocks");
    let quantization = Quantization::Blocks {
        axis: 3,
        channels: pairs(3),
        blocks: 2,
        scale_bits: 4,
        block_scales: vec![1; 6],
    };
    maker.tensor(
        "w",
        TensorKind::Static(vec![0; 24]),
        DataType::SFixed8,
        &[1, 1, 8, 3],
        quantization,
    );
    maker.0
}

fn pairs(count: i32) -> Vec<ScaleOffset> {
    let pair = |at: i32| ScaleOffset {
        scale: 0.5 / (at + 1) as f32,
        offset: -at,
    };
    (0..count).map(pair).collect()
}

fn info(id: u32, name: &str, data_type: DataType, dims: &[u32], quantization: Quantization) -> TensorInfo {
    TensorInfo {
        id,
        name: name.to_string(),
        data_type,
        dims: dims.to_vec(),
        quantization,
    }
}

fn check_node(record: &Record, name: &str, graph: &Graph, node: &Node, ids: bool) {
    let config = record.value(name);
    assert_eq!(config[0], "1", "version of the struct");
    let config = record.value(&config[1]);
    assert_eq!(
        config[..3],
        [&node.name, "qti.aisw", node.op].map(|text| format!("\"{text}\""))
    );
    for (at, tensors, count) in [(6, &node.inputs, &config[5]), (8, &node.outputs, &config[7])] {
        assert_eq!(*count, tensors.len().to_string());
        let names = record.value(&config[at]);
        assert_eq!(names.len(), tensors.len());
        for (name, tensor) in names.iter().zip(tensors) {
            let (id, understood) = record.tensor(name);
            assert_eq!(&understood, graph.tensor(*tensor));
            // By the name of the struct that the id was written into.
            let made = format!("_{}_tensor_{}.v1.id", graph.name, tensor.0);
            assert!(if ids { id.ends_with(&made) } else { id == "0" }, "{id}");
        }
    }
    assert_eq!(config[3], node.params.len().to_string());
    let params = record.value(&config[4]);
    for (name, (param, meant)) in params.iter().zip(&node.params) {
        let fields = record.value(name);
        assert_eq!(fields[1], format!("\"{param}\""));
        let scalar = |data_type: DataType, value: String| {
            assert_eq!(fields[0], "0", "a scalar");
            assert_eq!(record.value(&fields[2]), [(data_type as u32).to_string(), value]);
        };
        let tensor = |data_type: DataType, dims: &[u32], bytes: Vec<u8>| {
            assert_eq!(fields[0], "1", "a tensor");
            let meant = Tensor {
                name: format!("{}.{param}", node.name),
                kind: TensorKind::Static(bytes),
                data_type,
                dims: dims.to_vec(),
                quantization: Quantization::None,
            };
            let (id, understood) = record.tensor(&fields[2]);
            assert_eq!(understood, meant);
            assert!(id.contains(".v1.id"), "it was made known before: {id}");
        };
        match meant {
            Param::U32(number) => scalar(DataType::Uint32, number.to_string()),
            Param::I32(number) => scalar(DataType::Int32, number.to_string()),
            Param::Bool(flag) => scalar(DataType::Bool, u8::from(*flag).to_string()),
            Param::F32(number) => {
                let value = record.value(&fields[2]);
                assert_eq!((value[0].as_str(), value[1].parse()), ("562", Ok(*number)));
            }
            Param::U32s(dims, list) => {
                tensor(
                    DataType::Uint32,
                    dims,
                    list.iter().flat_map(|n| n.to_le_bytes()).collect(),
                );
            }
            Param::I32s(dims, list) => {
                tensor(
                    DataType::Int32,
                    dims,
                    list.iter().flat_map(|n| n.to_le_bytes()).collect(),
                );
            }
        }
    }
    assert_eq!(params.len(), node.params.len());
}
