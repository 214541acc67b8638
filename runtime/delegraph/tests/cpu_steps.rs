//! What regions of the CPU delegate become: steps of their own, with PyTorch's numbers, however weights are packed.
//!
//! A case is a program in `data` with inputs `x0`, `x1`, ... (or `x0.0`, `x0.1`, ... where it has several) and PyTorch's results of each, `y0`, `y1`, ...
//! (or `y0.0`, `y0.1`, ...).
#![cfg(feature = "cpu")]

mod common;

use common::{config, leaf, value};
use delegraph::{LoadOptions, Session, Source, Value};
use delegraph_runner::Leaf;
use delegraph_runner::compare::{Tolerance, compare};
use delegraph_runner::fixture::Tensors;
use delegraph_runner::leaf::to_f64;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The tensors of a case whose names begin so, in order: `x0`, or `x0.0` and on.
fn tensors(all: &Tensors, name: &str) -> Vec<Leaf> {
    let find = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, leaf)| leaf.clone());
    match find(name) {
        Some(one) => vec![one],
        None => (0..).map_while(|at| find(&format!("{name}.{at}"))).collect(),
    }
}

/// A part of 100,000, and what PyTorch's own sums are rounded by: a result near zero comes of numbers as large as the largest. (Of `dynamic_channels`,
/// whose largest is 1,576, one recorded number is off by 8.9e-5 from the same in double precision.)
fn tolerance(want: &Leaf) -> Tolerance {
    let largest = match want {
        Leaf::Tensor { dtype, bytes, .. } => to_f64(*dtype, bytes).iter().fold(0.0, |most: f64, x| most.max(x.abs())),
        _ => 0.0,
    };
    Tolerance {
        rtol: 1e-5,
        atol: 1e-5 + 2.0 * f64::from(f32::EPSILON) * largest,
    }
}

/// Runs a case and compares it with PyTorch's results within [`tolerance`], or by whole numbers. Gives the names of the region's steps.
fn steps(case: &str) -> Vec<String> {
    let data = |end: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        folder.join(format!("{case}.{end}"))
    };
    let all = Tensors::read(&data("safetensors")).unwrap();
    let source = Source::open(data("pt2")).unwrap();
    let mut made = Vec::new();
    for isa in ["host", "scalar"] {
        let config = config(&format!(
            "[select]\norder = [\"cpu\"]\n[backend.cpu.options]\nisa = \"{isa}\"\n"
        ));
        let host = Arc::new(delegraph::discover(&config, false));
        let module = delegraph::import(&source).unwrap();
        let compiled = delegraph::compile(module, &config, &host, &mut |_| {}).unwrap();
        let file = Source::from_bytes(compiled.bytes, format!("{case}.pte"));
        let mut session = Session::open(&file, &config, &host, LoadOptions::default()).unwrap();
        session.start_trace();
        let mut runs = 0;
        for given in (0..).map(|at| tensors(&all, &format!("x{at}"))) {
            if given.is_empty() {
                break;
            }
            let values: Vec<Value<'_>> = given.iter().map(value).collect();
            session.run(&values).unwrap();
            for (k, want) in tensors(&all, &format!("y{runs}")).iter().enumerate() {
                let got = leaf(session.output(k).unwrap());
                let tolerance = tolerance(want);
                if let Err(reason) = compare(&got, want, tolerance) {
                    panic!("{case} packed for {isa}, input {runs}, output {k}: {reason}");
                }
            }
            runs += 1;
        }
        assert!(runs > 0, "{case} has no inputs");
        assert_eq!(
            session.report().portable_nodes,
            0,
            "{case}: {:?}",
            session.report().why_portable()
        );
        let trace: serde_json::Value = serde_json::from_str(&session.chrome_trace()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let own = events.iter().filter(|event| event["cat"] == "delegate");
        let names: Vec<String> = own.map(|event| event["name"].as_str().unwrap().to_string()).collect();
        made = names[..names.len() / runs].to_vec();
    }
    made
}

/// Asserts that a case's region has so many steps of each name, and none that a portable kernel runs.
#[track_caller]
fn check(case: &str, wanted: &[(&str, usize)]) {
    let made = steps(case);
    for (name, count) in wanted {
        let have = made.iter().filter(|step| step == name).count();
        assert_eq!(have, *count, "{name} in {made:?}");
    }
    assert!(
        made.iter().all(|step| step.starts_with("cpu::") || step == "aten::cat"),
        "{made:?}"
    );
}

#[test]
fn scales_that_are_chosen_at_run_time_are_parts_of_products() {
    check("dynamic_channels", &[("cpu::linear_rows int8", 3)]);
    check("dynamic_tensor", &[("cpu::linear_rows int8", 3)]);
    check("dynamic_four", &[("cpu::linear_quantized int8", 3)]);
    check("dynamic_tokens", &[("cpu::linear_quantized int8", 1)]);
    check("dynamic_8da4w", &[("cpu::linear_quantized int8", 3)]);
}

/// Asserts that a case's region has these steps and no other.
#[track_caller]
fn check_all(case: &str, wanted: &[(&str, usize)]) {
    let mut made = BTreeMap::new();
    for step in steps(case) {
        *made.entry(step).or_insert(0) += 1;
    }
    let wanted: BTreeMap<String, usize> = wanted.iter().map(|(step, count)| (step.to_string(), *count)).collect();
    assert_eq!(made, wanted, "{case}");
}

#[test]
fn scales_of_images_are_parts_of_convolutions() {
    // Those with groups read what the rounded image stands for.
    check_all(
        "dynamic_images",
        &[
            ("cpu::conv", 3),
            ("cpu::conv_dynamic int8", 1),
            ("cpu::elementwise", 1),
            ("cpu::permute", 5),
        ],
    );
}

#[test]
fn transposed_convolutions_have_a_step() {
    check_all(
        "transposed_1d",
        &[("cpu::conv", 1), ("cpu::conv_transposed", 2), ("cpu::permute", 2)],
    );
    check_all(
        "transposed_2d",
        &[
            ("cpu::conv", 2),
            ("cpu::conv_transposed", 6),
            ("cpu::elementwise", 1),
            ("cpu::permute", 9),
        ],
    );
}

#[test]
fn images_change_their_size_between_convolutions() {
    check_all(
        "images_unet",
        &[
            ("aten::cat", 2),
            ("cpu::conv", 11),
            ("cpu::conv_transposed", 1),
            ("cpu::permute", 1),
            ("cpu::pool", 2),
            ("cpu::resize", 1),
        ],
    );
    check_all(
        "images_sizes",
        &[
            ("aten::index.Tensor", 1),
            ("aten::mean.dim", 1),
            ("cpu::conv", 10),
            ("cpu::permute", 12),
            ("cpu::pool", 1),
            ("cpu::resize", 4),
        ],
    );
}

#[test]
fn pools_and_concatenations_stay_on_bytes() {
    check_all(
        "pools_int8",
        &[
            ("aten::cat", 1),
            ("cpu::conv_bytes int8", 5),
            ("cpu::linear_bytes int8", 1),
            ("cpu::permute", 1),
            ("cpu::pool", 2),
            ("cpu::pool_bytes", 2),
            ("cpu::quantize_bytes", 1),
            ("quantized_decomposed::dequantize_per_tensor", 1),
        ],
    );
}
