//! Qualcomm's Saver library writes down, as text, every call that it gets and what it reads in each struct. What it understood is compared with what was
//! meant, field by field: that proves every offset and every number without a device.
//!
//! The record has Qualcomm's notice in it. It is written into a temporary folder, read there and removed.

mod common;

use common::*;
use delegraph_hexagon::graph::*;
use delegraph_hexagon::sys::{CompileOptions, GraphInfo, Level, Library, Qnn, TensorInfo};
use std::collections::HashMap;
use std::path::Path;
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

/// The record: values of variables, elements that lie in the file beside it, and calls.
struct Record {
    values: HashMap<String, Vec<String>>,
    data: HashMap<String, Vec<u8>>,
    calls: Vec<(String, Vec<String>)>,
}

impl Record {
    fn read(folder: &Path) -> Record {
        let text = std::fs::read_to_string(folder.join("saver_output.c")).unwrap();
        let elements = std::fs::read(folder.join("params.bin")).unwrap();
        let mut record = Record {
            values: HashMap::new(),
            data: HashMap::new(),
            calls: Vec::new(),
        };
        let mut at = 0;
        for line in text.lines().map(str::trim) {
            if let Some(call) = line
                .strip_prefix("VALIDATE(error, interface.")
                .and_then(|c| c.strip_suffix("));"))
            {
                let (function, arguments) = call.split_once('(').unwrap();
                record.calls.push((function.to_string(), split(arguments)));
            } else if let Some(read) = line.strip_prefix("fread(").and_then(|r| r.strip_suffix(");")) {
                let read = split(read);
                let size = read[1].parse::<usize>().unwrap() * read[2].parse::<usize>().unwrap();
                record.data.insert(read[0].clone(), elements[at..at + size].to_vec());
                at += size;
            } else if let Some((declared, value)) = line.split_once(" = {") {
                let name = declared.rsplit(' ').next().unwrap().trim_end_matches("[]");
                record
                    .values
                    .insert(name.to_string(), split(value.strip_suffix("};").unwrap()));
            }
        }
        assert_eq!(at, elements.len(), "all elements are read");
        // The log is made only if the program that the record is asks for it.
        record.calls.retain(|(function, _)| function != "logCreate");
        record
    }

    fn value(&self, name: &str) -> Vec<String> {
        self.values
            .get(name)
            .unwrap_or_else(|| panic!("the record has no `{name}`"))
            .clone()
    }

    fn arguments(&self, function: &str, at: usize) -> Vec<String> {
        let of_function = self.calls.iter().filter(|(name, _)| name == function);
        of_function
            .map(|(_, arguments)| arguments.clone())
            .nth(at)
            .unwrap_or_else(|| panic!("{function} {at}"))
    }

    fn numbers<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, name: &str) -> Vec<T> {
        self.value(name).iter().map(|number| number.parse().unwrap()).collect()
    }

    /// A tensor: its id, and what was understood.
    fn tensor(&self, name: &str) -> (String, Tensor) {
        let tensor = self.value(name);
        assert_eq!(tensor[0], "1", "version of the struct");
        let fields = self.value(&tensor[1]);
        assert_eq!(
            (fields[3].as_str(), fields[8].as_str()),
            ("0", "0"),
            "dense, in a buffer of ours"
        );
        let dims: Vec<u32> = self.numbers(&fields[7]);
        assert_eq!(fields[6], dims.len().to_string());
        let kind = match fields[2].as_str() {
            "0" => TensorKind::Input,
            "1" => TensorKind::Output,
            "3" => TensorKind::Native,
            "4" => TensorKind::Static(self.bytes(name)),
            other => panic!("tensor type {other}"),
        };
        let understood = Tensor {
            name: fields[1].trim_matches('"').to_string(),
            kind,
            data_type: DataType::of(fields[4].parse().unwrap()).unwrap(),
            dims,
            quantization: self.quantization(&fields[5]),
        };
        (fields[0].clone(), understood)
    }

    /// The elements of a tensor's buffer.
    fn bytes(&self, tensor: &str) -> Vec<u8> {
        let fields = self.value(&self.value(tensor)[1]);
        let buffer = self.value(&fields[9]);
        let bytes = self.data.get(&buffer[0]).cloned().unwrap_or_default();
        assert_eq!(buffer[1], bytes.len().to_string());
        bytes
    }

    fn quantization(&self, name: &str) -> Quantization {
        let fields = self.value(name);
        if fields[..2] == ["2147483647", "2147483647"] {
            return Quantization::None;
        }
        assert_eq!(fields[0], "1", "defined");
        let pair = |scale: &str, offset: &str| ScaleOffset {
            scale: scale.parse().unwrap(),
            offset: offset.parse().unwrap(),
        };
        let inner = |text: &str| split(text.trim_matches(['{', '}']));
        match fields[1].as_str() {
            "0" => {
                let value = inner(&fields[2]);
                Quantization::PerTensor(pair(&value[0], &value[1]))
            }
            "1" => {
                let value = self.value(&fields[2]);
                let pairs = self
                    .value(&value[2])
                    .iter()
                    .map(|p| pair(&inner(p)[0], &inner(p)[1]))
                    .collect::<Vec<_>>();
                assert_eq!(value[1], pairs.len().to_string());
                Quantization::PerAxis {
                    axis: value[0].parse().unwrap(),
                    pairs,
                }
            }
            "2" => {
                let value = inner(&fields[2]);
                Quantization::Narrow {
                    bits: value[0].parse().unwrap(),
                    pair: pair(&value[1], &value[2]),
                }
            }
            "3" => {
                let value = self.value(&fields[2]);
                let (scales, offsets): (Vec<f32>, Vec<i32>) = (self.numbers(&value[3]), self.numbers(&value[4]));
                assert_eq!(value[2], scales.len().to_string());
                let pairs = scales.into_iter().zip(offsets);
                Quantization::NarrowPerAxis {
                    bits: value[0].parse().unwrap(),
                    axis: value[1].parse().unwrap(),
                    pairs: pairs.map(|(scale, offset)| ScaleOffset { scale, offset }).collect(),
                }
            }
            other => panic!("encoding {other}"),
        }
    }
}

/// The items of a list, without casts and names of members.
fn split(list: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for letter in list.chars() {
        match letter {
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().unwrap().push(letter);
    }
    let plain = |item: String| {
        let item = item.trim();
        let item = item
            .strip_prefix('(')
            .and_then(|cast| cast.split_once(')'))
            .map_or(item, |(_, value)| value);
        let item = if item.starts_with('.') {
            item.split_once(" = ").map_or(item, |(_, value)| value)
        } else {
            item
        };
        item.to_string()
    };
    items.into_iter().map(plain).filter(|item| !item.is_empty()).collect()
}
