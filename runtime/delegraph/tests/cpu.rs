//! The CPU delegate gives the same bits on any number of threads, and from a file as from the model.
#![cfg(feature = "cpu")]

use delegraph::{InputKind, LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Tensors;
use delegraph_types::DType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../conformance/fixtures")
        .join(name)
        .join("model.pt2")
}

fn config() -> Config {
    let mut config = Config::default();
    config.select.order = vec!["cpu".to_string()];
    config
}

/// Small numbers for every input; indices are 0 and 1.
fn numbers(dtype: DType, count: usize) -> Vec<u8> {
    let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5;
    match dtype {
        DType::F32 => (0..count).flat_map(|i| number(i).to_le_bytes()).collect(),
        other => (0..count)
            .flat_map(|i| (((i % 2) as u64).to_le_bytes()[..other.size()]).to_vec())
            .collect(),
    }
}

/// The bytes of all outputs of a run on so many threads.
fn outputs(source: &Source, threads: usize) -> Vec<Vec<u8>> {
    let config = config();
    let host = Arc::new(delegraph::discover(&config, false));
    let options = LoadOptions {
        threads: Some(threads),
        ..LoadOptions::default()
    };
    let mut session = Session::open(source, &config, &host, options).unwrap();
    let infos = session.inputs();
    let mut given = Vec::new();
    for info in &infos {
        let InputKind::Tensor { dtype, sizes, .. } = &info.kind else {
            panic!("{info:?}")
        };
        given.push((*dtype, *sizes, numbers(*dtype, sizes.numel().unwrap())));
    }
    let values: Vec<Value<'_>> = given
        .iter()
        .map(|(dtype, sizes, bytes)| Value::tensor(*dtype, *sizes, bytes))
        .collect();
    session.run(&values).unwrap();
    let report = session.report();
    assert!(
        report.delegated_nodes() > report.portable_nodes,
        "{:?}",
        report.why_portable()
    );
    let count = session.outputs().len();
    let bytes = |at: usize| match session.output(at).unwrap() {
        Value::Tensor(tensor) => tensor.bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    (0..count).map(bytes).collect()
}

#[test]
fn threads_change_no_bit() {
    for name in [
        "mtcnn-pnet",
        "arch-int8-convnet",
        "arch-lstm",
        "quant-torchao-8da4w",
        "minilm-l6-int8",
    ] {
        let source = Source::open(fixture(name)).unwrap();
        let alone = outputs(&source, 1);
        assert!(
            alone.iter().any(|bytes| bytes.iter().any(|byte| *byte != 0)),
            "{name} gives nothing but 0"
        );
        for threads in [2, 3] {
            assert!(outputs(&source, threads) == alone, "{name} on {threads} threads");
        }
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn floats(tensors: &Tensors, name: &str) -> Vec<f32> {
    match tensors.iter().find(|(key, _)| *key == name) {
        Some((_, Leaf::Tensor { bytes, .. })) => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The first output of a session on one input of floats.
fn output_of(session: &mut Session, sizes: &[i64], x: &[f32]) -> Vec<f32> {
    let x: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let sizes = delegraph::Dims::new(sizes).unwrap();
    session.run(&[Value::tensor(DType::F32, sizes, &x)]).unwrap();
    let Value::Tensor(y) = session.output(0).unwrap() else {
        panic!("no tensor")
    };
    let bytes = y.to_contiguous();
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn large_tensors_between_convolutions_are_made_in_bands() {
    let tensors = Tensors::read(&data("inverted_residual.safetensors")).unwrap();
    let (config, source) = (config(), Source::open(data("inverted_residual.pt2")).unwrap());
    let host = Arc::new(delegraph::discover(&config, false));
    let run = |threads: usize| {
        let options = LoadOptions {
            threads: Some(threads),
            ..LoadOptions::default()
        };
        let mut session = Session::open(&source, &config, &host, options).unwrap();
        session.start_trace();
        let got = output_of(&mut session, &[1, 6, 41, 43], &floats(&tensors, "x"));
        assert_eq!(session.report().portable_nodes, 0);
        (got, session.chrome_trace().matches("\"cpu::convs\"").count())
    };
    let (alone, steps) = run(1);
    assert_eq!(steps, 2, "expand, filter and project; widen and shrink");
    let want = floats(&tensors, "y");
    assert_eq!(alone.len(), want.len());
    for (got, want) in alone.iter().zip(&want) {
        assert!((got - want).abs() <= 1e-5 + 1e-5 * want.abs(), "{got} for {want}");
    }
    for threads in [2, 3] {
        let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&run(threads).0), bits(&alone), "{threads} threads");
    }
}

#[test]
fn weights_of_two_bits_stay_so() {
    let tensors = Tensors::read(&data("two_bits.safetensors")).unwrap();
    let (config, source) = (config(), Source::open(data("two_bits.pt2")).unwrap());
    let host = Arc::new(delegraph::discover(&config, false));
    let module = delegraph::import(&source).unwrap();
    let compiled = delegraph::compile(module, &config, &host, &mut |_| {}).unwrap();
    // The program names the form of each product.
    let names = |word: &[u8; 2]| compiled.bytes.windows(2).any(|window| window == word);
    assert_eq!([b"w2", b"w4", b"w8"].map(names), [true, false, false]);
    let source = Source::from_bytes(compiled.bytes, "two_bits.pte");
    let mut session = Session::open(&source, &config, &host, LoadOptions::default()).unwrap();
    let got = output_of(&mut session, &[3, 64], &floats(&tensors, "x"));
    for (got, want) in got.iter().zip(floats(&tensors, "y")) {
        assert!((got - want).abs() <= 1e-5 + 1e-5 * want.abs(), "{got} for {want}");
    }
    assert_eq!(session.report().portable_nodes, 0);
}
