//! What is given to the library, in which order, and that everything is freed, whatever fails.

use super::device::silent;
use super::layout as c;
use super::mock::{self, Mock};
use super::*;
use crate::graph::*;
use delegraph_sdk::{DType, Status};
use std::sync::Arc;

/// `y = op(x, w)` with parameters of each kind.
fn graph() -> Graph {
    let pair = |scale, offset| ScaleOffset { scale, offset };
    let tensor = |name: &str, kind, data_type, dims: &[u32], quantization| Tensor {
        name: name.to_string(),
        kind,
        data_type,
        dims: dims.to_vec(),
        quantization,
    };
    let axis = Quantization::PerAxis {
        axis: 1,
        pairs: vec![pair(0.5, 0), pair(0.25, 0)],
    };
    let port = |id| Port {
        tensor: Some(TensorId(id)),
        dtype: DType::U8,
        convert: Convert::Same,
    };
    Graph {
        name: "g".to_string(),
        tensors: vec![
            tensor(
                "x",
                TensorKind::Input,
                DataType::UFixed8,
                &[1, 3],
                Quantization::PerTensor(pair(0.5, -3)),
            ),
            tensor("w", TensorKind::Static(vec![1, 2]), DataType::SFixed8, &[1, 2], axis),
            tensor(
                "y",
                TensorKind::Output,
                DataType::UFixed16,
                &[1, 2],
                Quantization::PerTensor(pair(1.5, 0)),
            ),
        ],
        nodes: vec![Node {
            name: "n".to_string(),
            op: "Op",
            params: vec![
                ("u", Param::U32(7)),
                ("i", Param::I32(-1)),
                ("f", Param::F32(1.0)),
                ("b", Param::Bool(true)),
                ("us", Param::list(&[1, 256])),
                ("is", Param::I32s(vec![1, 1], vec![-2])),
            ],
            inputs: vec![TensorId(0), TensorId(1)],
            outputs: vec![TensorId(2)],
            source: None,
        }],
        inputs: vec![port(0)],
        outputs: vec![port(2)],
    }
}

fn open(mock: &Mock) -> Qnn {
    Qnn::open(Arc::clone(&mock.library), 57, silent()).unwrap()
}

#[test]
fn the_library_says_who_it_is() {
    let mock = Mock::new();
    let library = &mock.library;
    assert_eq!(
        (library.provider(), library.backend(), library.build_id()),
        ("MOCK", 6, "v1")
    );
    assert_eq!(library.api_version().to_string(), "2.25.0");
    assert_eq!(library.backend_version().to_string(), "5.1.2");
    assert_eq!(open(&mock).supported_operations().unwrap(), ["Relu", "Tanh"]);
}

#[test]
fn other_versions_of_the_table_are_not_read() {
    for (major, minor) in [(2, 24), (1, 30), (3, 0)] {
        let error = mock::library(c::Version { major, minor, patch: 0 }, &[]).err().unwrap();
        assert_eq!(error.code, Status::DEPENDENCY_MISSING);
        assert!(
            error.message.contains(&format!("core API {major}.{minor}.0")),
            "{error}"
        );
    }
    assert!(
        mock::library(
            c::Version {
                major: 2,
                minor: 99,
                patch: 1
            },
            &[]
        )
        .is_ok()
    );
}

#[test]
fn handles_are_made_in_order_and_freed_in_reverse() {
    let mock = Mock::new();
    drop(open(&mock));
    let calls = [
        "log create level 2",
        "backend create",
        "device create 0:0=57",
        "device free",
        "backend free",
        "log free",
    ];
    assert_eq!(mock.calls(), calls);
}

#[test]
fn a_graph_is_given_as_it_is() {
    let mock = Mock::new();
    let qnn = open(&mock);
    mock.calls();
    let compiled = qnn.compile(&[&graph()], &CompileOptions { vtcm_mb: Some(8) }).unwrap();
    let params = "u=0x0132 0x7; i=0x0032 0xffffffff; f=0x0232 0x3f800000; b=0x0508 0x1; \
        us=tensor 4 n.us 4 0x0132 [2] plain [1, 0, 0, 0, 0, 1, 0, 0]; is=tensor 5 n.is 4 0x0032 [1, 1] plain [254, 255, 255, 255]";
    let calls = [
        "context create".to_string(),
        "graph create g 0:3=8".to_string(),
        "tensor 1 x 0 0x0408 [1, 3] encoding 0 []".to_string(),
        "tensor 2 w 4 0x0308 [1, 2] encoding 1 [1, 2]".to_string(),
        "tensor 3 y 1 0x0416 [1, 2] encoding 0 []".to_string(),
        "tensor 4 n.us 4 0x0132 [2] plain [1, 0, 0, 0, 0, 1, 0, 0]".to_string(),
        "tensor 5 n.is 4 0x0032 [1, 1] plain [254, 255, 255, 255]".to_string(),
        format!("add node n qti.aisw:Op ({params}) 1 2 -> 3"),
        "finalize".to_string(),
        "binary size".to_string(),
        "binary".to_string(),
        "context free".to_string(),
    ];
    assert_eq!(mock.calls(), calls);
    assert_eq!(compiled.binary, [0x42; 6], "as many bytes as were written");
    let info = &compiled.graphs[0];
    assert_eq!(
        (info.inputs.len(), info.inputs[0].id, info.inputs[0].name.as_str()),
        (1, 1, "x")
    );
    assert_eq!(
        (info.outputs.len(), info.outputs[0].id, info.outputs[0].bytes()),
        (1, 3, Some(4))
    );
}

#[test]
fn whatever_fails_everything_is_freed() {
    let functions = [
        "log create",
        "backend create",
        "device create",
        "context create",
        "graph create",
        "tensor",
        "add node",
        "finalize",
        "binary size",
        "binary",
        "from binary",
        "retrieve",
        "profile create",
        "execute",
        "events",
    ];
    let all = |mock: &Mock| -> Result<(), delegraph_sdk::Error> {
        let qnn = Qnn::open(Arc::clone(&mock.library), 57, silent())?;
        let compiled = qnn
            .compile(&[&graph()], &CompileOptions::default())
            .map_err(|error| error.error)?;
        let context = qnn.load_described(&compiled.binary, compiled.graphs)?;
        let mut graph = context.graph("g")?;
        let profile = qnn.profile(Level::Basic)?;
        // What was made by it keeps it alive.
        drop((qnn, context));
        graph.execute(&[&[1, 2, 3]], &mut [&mut [0; 4]], Some(&profile))?;
        profile.events().map(drop)
    };
    let mock = Mock::new();
    all(&mock).unwrap();
    assert_eq!(mock.alive(), 0);
    drop(mock);
    for function in functions {
        let mock = Mock::new();
        mock.fail(function, 1100);
        let error = all(&mock).expect_err(function);
        assert_eq!(
            (error.code, error.vendor_code),
            (
                if function == "finalize" {
                    Status::UNSUPPORTED
                } else {
                    Status::VENDOR
                },
                1100
            ),
            "{error}"
        );
        assert_eq!(mock.alive(), 0, "after a failing {function}");
        let calls = mock.calls();
        assert!(!calls.iter().any(|call| call.contains("OF NOTHING")), "{calls:?}");
        assert!(
            calls.contains(&function.to_string()) || calls.iter().any(|call| call.starts_with(function)),
            "{calls:?}"
        );
    }
}

#[test]
fn one_chip_a_process() {
    let mock = Mock::new();
    let first = open(&mock);
    let error = Qnn::open(Arc::clone(&mock.library), 69, silent()).err().unwrap();
    assert_eq!(error.code, Status::UNSUPPORTED);
    assert!(
        error.message.contains("sm8650 (57)") && error.message.contains("sm8750 (69)"),
        "{error}"
    );
    drop(first);
    // The library keeps it even then.
    assert!(Qnn::open(Arc::clone(&mock.library), 69, silent()).is_err());
    assert!(Qnn::open(Arc::clone(&mock.library), 57, silent()).is_ok());
}

#[test]
fn one_size_of_tightly_coupled_memory_a_process() {
    let mock = Mock::new();
    let qnn = open(&mock);
    let compile = |vtcm_mb| qnn.compile(&[&graph()], &CompileOptions { vtcm_mb });
    compile(None).unwrap();
    // The chip's own.
    compile(Some(8)).unwrap();
    let error = compile(Some(4)).unwrap_err().error;
    assert_eq!(error.code, Status::UNSUPPORTED);
    assert!(
        error.message.contains("8 MiB") && error.message.contains("4 MiB"),
        "{error}"
    );
}

#[test]
fn an_unknown_chip_is_named_and_leaves_the_choice() {
    let mock = Mock::new();
    mock.fail("device create", 14001);
    let error = Qnn::open(Arc::clone(&mock.library), 9999, silent()).err().unwrap();
    assert!(
        error.message.contains("chip 9999") && error.message.contains("(14001)"),
        "{error}"
    );
    assert!(error.hint.contains("sm8650 (57)"), "{error}");
    mock.fail("device create", 0);
    assert!(Qnn::open(Arc::clone(&mock.library), 57, silent()).is_ok());
}

#[test]
fn a_refusal_is_in_the_librarys_words() {
    let mock = Mock::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let heard = Arc::clone(&heard);
        Arc::new(move |level: delegraph_sdk::LogLevel, line: &str| lock(&heard).push((level, line.to_string())))
    };
    let qnn = Qnn::open(Arc::clone(&mock.library), 57, sink).unwrap();
    let graph = graph();
    assert_eq!(qnn.validate(&graph, &graph.nodes[0]), Ok(()));
    let call = mock.calls().pop().unwrap();
    assert!(call.starts_with("validate n qti.aisw:Op (u=0x0132 0x7; "), "{call}");
    mock.fail("validate", 3110);
    mock.say("validate", "  <E> x has incorrect Rank 6.\n");
    assert_eq!(
        qnn.validate(&graph, &graph.nodes[0]),
        Err("x has incorrect Rank 6.".to_string())
    );
    assert_eq!(
        lock(&heard).last().unwrap().0,
        delegraph_sdk::LogLevel::Debug,
        "an answer is no warning"
    );
    mock.say("other", "");
    let wordless = qnn.validate(&graph, &graph.nodes[0]).unwrap_err();
    assert!(
        wordless.contains("`Op`: the operation is not valid (3110)"),
        "{wordless}"
    );
    mock.fail("validate", 777);
    let theirs = qnn.validate(&graph, &graph.nodes[0]).unwrap_err();
    assert!(theirs.ends_with("The seventh kind of trouble (777)"), "{theirs}");
    // Outside a question it is a warning.
    mock.say("binary size", "trouble ahead");
    qnn.compile(&[&graph], &CompileOptions::default()).unwrap();
    let line = (delegraph_sdk::LogLevel::Warn, "trouble ahead".to_string());
    assert_eq!(lock(&heard).last(), Some(&line));
}

#[test]
fn a_node_that_cannot_be_compiled_is_found() {
    let mock = Mock::new();
    let qnn = open(&mock);
    let mut graph = graph();
    graph.nodes.insert(
        0,
        Node {
            name: "before".to_string(),
            ..graph.nodes[0].clone()
        },
    );
    mock.fail("finalize", 1002);
    mock.say("finalize", "<E> \"n\" generated: could not create op");
    let error = qnn.compile(&[&graph], &CompileOptions::default()).unwrap_err();
    assert_eq!(
        (error.graph.as_deref(), error.node, error.error.code),
        (Some("g"), Some(1), Status::UNSUPPORTED)
    );
    assert!(error.error.message.contains("could not create op"), "{}", error.error);
    mock.say("finalize", "something else");
    assert_eq!(
        qnn.compile(&[&graph], &CompileOptions::default()).unwrap_err().node,
        None
    );
    mock.fail("add node", 6005);
    let error = qnn.compile(&[&graph], &CompileOptions::default()).unwrap_err();
    assert_eq!(error.node, Some(0));
    assert!(error.error.message.contains("`before` (Op)"), "{}", error.error);
}

#[test]
fn bad_data_of_ours_never_reaches_the_library() {
    let mock = Mock::new();
    let qnn = open(&mock);
    let mut short = graph();
    short.tensors[1].kind = TensorKind::Static(vec![1]);
    let error = qnn.compile(&[&short], &CompileOptions::default()).unwrap_err().error;
    assert!(error.message.contains("`w` has 1 bytes, not 2"), "{error}");
    assert!(qnn.validate(&short, &short.nodes[0]).is_err());
    let mut named = graph();
    named.tensors[0].name = "a\0b".to_string();
    assert!(qnn.compile(&[&named], &CompileOptions::default()).is_err());
    let mut list = graph();
    list.nodes[0].params[4].1 = Param::U32s(vec![3], vec![1]);
    let error = qnn.compile(&[&list], &CompileOptions::default()).unwrap_err();
    assert!(
        error.error.message.contains("`us` of `n` has 1 numbers"),
        "{}",
        error.error
    );
    assert!(
        !mock
            .calls()
            .iter()
            .any(|call| call.starts_with("add node") || call.starts_with("validate"))
    );
}

#[test]
fn a_binary_longer_than_it_was_said_to_be_is_refused() {
    let mock = Mock::new();
    mock.binary(4, 5);
    let error = open(&mock)
        .compile(&[&graph()], &CompileOptions::default())
        .unwrap_err()
        .error;
    assert!(
        error.message.contains("wrote 5 bytes") && error.message.contains("into 4"),
        "{error}"
    );
    mock.binary(u64::MAX, 0);
    let error = open(&mock)
        .compile(&[&graph()], &CompileOptions::default())
        .unwrap_err()
        .error;
    assert_eq!(error.code, Status::OUT_OF_MEMORY);
}

#[test]
fn an_execution_gets_the_tensors_by_id() {
    let mock = Mock::new();
    let qnn = open(&mock);
    let compiled = qnn.compile(&[&graph()], &CompileOptions::default()).unwrap();
    assert!(qnn.load_described(&[], Vec::new()).is_err());
    let context = qnn.load_described(&compiled.binary, compiled.graphs).unwrap();
    let unknown = context.graph("h").err().unwrap();
    assert!(unknown.message.contains("no graph `h`; it has g"), "{unknown}");
    let mut graph = context.graph("g").unwrap();
    mock.calls();
    let mut y = [0; 4];
    graph.execute(&[&[5, 6, 7]], &mut [&mut y], None).unwrap();
    assert_eq!(mock.calls(), ["execute 1/3 3/4"]);
    assert_eq!(y, [5; 4]);
    for (inputs, text) in [
        (&[&[5u8, 6][..]][..], "input `x` has 2 bytes, not 3"),
        (&[], "0 inputs for a graph of 1"),
    ] {
        let error = graph.execute(inputs, &mut [&mut y], None).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Status::INVALID_ARGUMENT, text));
    }
    let error = graph.execute(&[&[5, 6, 7]], &mut [&mut [0; 5]], None).unwrap_err();
    assert_eq!(error.message, "output `y` has 5 bytes, not 4");
    assert!(mock.calls().is_empty());
}

#[test]
fn events_are_followed_by_their_parts() {
    let mock = Mock::new();
    let profile = open(&mock).profile(Level::Detailed).unwrap();
    let events = profile.events().unwrap();
    let short: Vec<_> = events
        .iter()
        .map(|e| (e.kind, e.unit, e.value, e.name.as_str(), e.depth))
        .collect();
    let want = [
        (410, Unit::Microseconds, 1000, "", 0),
        (420, Unit::Cycles, 2000, "part", 0),
        (421, Unit::Cycles, 2100, "part", 1),
    ];
    assert_eq!(short, want);
    assert!(mock.calls().contains(&"profile create level 2".to_string()));
}

#[test]
fn a_function_that_the_library_lacks_is_an_error() {
    let mock = Mock::without(&[19]);
    let error = open(&mock)
        .compile(&[&graph()], &CompileOptions::default())
        .unwrap_err()
        .error;
    assert!(error.message.contains("`graph finalize` (slot 19"), "{error}");
    assert_eq!(mock.alive(), 0);
}

#[test]
fn calls_of_threads_are_made_one_after_another() {
    let mock = Mock::new();
    let qnn = open(&mock);
    mock.calls();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| qnn.compile(&[&graph()], &CompileOptions::default()).unwrap());
        }
    });
    // Each compilation is in one piece.
    for part in mock.calls().chunks(12) {
        assert_eq!(
            (part[0].as_str(), part[11].as_str()),
            ("context create", "context free"),
            "{part:?}"
        );
    }
}
