//! Methods of one archive: each is a session of its own, and what one does to a shared buffer can be taken over by another.

mod common;

use common::{nobody, order};
use delegraph::{DType, Dims, LoadOptions, Session, Source, TensorView, Value};
use std::path::Path;

fn open(source: &Source, method: &str) -> Result<Session, delegraph::Error> {
    let options = LoadOptions {
        method: method.to_string(),
        ..LoadOptions::default()
    };
    Session::open(source, &order(&[]), &nobody(), options)
}

fn floats(tensor: TensorView<'_>) -> Vec<f32> {
    tensor
        .to_contiguous()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

fn run(session: &mut Session, rows: i64) -> Vec<f32> {
    let bytes: Vec<u8> = (0..rows * 3)
        .flat_map(|i| (i as f32 * 0.25 - 1.0).to_le_bytes())
        .collect();
    let shape = Dims::new(&[rows, 3]).unwrap();
    session.run(&[Value::tensor(DType::F32, shape, &bytes)]).unwrap();
    match session.output(0).unwrap() {
        Value::Tensor(tensor) => floats(tensor),
        other => panic!("{other:?} is no tensor"),
    }
}

#[test]
fn two_methods_share_a_weight_and_hand_over_a_buffer() {
    // `forward` adds 1 to the buffer `count` and to its result what the buffer holds then; `peek` multiplies by it.
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../partitioner/import/tests/data/methods.pt2");
    let module = delegraph::import(&Source::open(&archive).unwrap()).unwrap();
    let compiled = delegraph::compile(module, &order(&[]), &nobody(), &mut |_| {}).unwrap();
    for source in [
        Source::open(&archive).unwrap(),
        Source::from_bytes(compiled.bytes, "methods.pte"),
    ] {
        let mut forward = open(&source, "forward").unwrap();
        let mut peek = open(&source, "peek").unwrap();
        let once = run(&mut forward, 4);
        let twice = run(&mut forward, 4);
        let plain: Vec<f32> = once.iter().map(|x| x - 1.0).collect();
        for (a, b) in twice.iter().zip(&plain) {
            assert!((a - b - 2.0).abs() < 1e-5, "{a} {b}");
        }
        assert!(
            run(&mut peek, 4).iter().all(|x| *x == 0.0),
            "its own buffer is as it was"
        );
        assert_eq!(peek.adopt_state(&mut forward).unwrap(), 1);
        for (a, b) in run(&mut peek, 4).iter().zip(&plain) {
            assert!((a - 2.0 * b).abs() < 1e-5, "{a} {b}");
        }
        peek.reset();
        assert!(run(&mut peek, 4).iter().all(|x| *x == 0.0));
    }
    assert_eq!(
        open(&Source::open(&archive).unwrap(), "pek")
            .err()
            .map(|error| error.exit_code()),
        Some(2)
    );
}
