//! Recorded float models, quantized by each scheme: what is written verifies, and the folding pass folds all of it.

mod common;

use common::{folder, model, samples};
use delegraph_ir::{Module, Node};
use delegraph_passes::quantize::{Copies, Folder, separate};
use delegraph_quant::{QuantError, Report, Scheme, WhyFloat, quantize};

fn quantized(name: &str, scheme: &str) -> (Module, Report) {
    let folder = folder("fixtures").join(name);
    let mut module = model(&folder.join("model.pt2"));
    let samples = samples(&module, &folder.join("inputs.safetensors"));
    let scheme: Scheme = scheme.parse().unwrap();
    let report = quantize(&mut module, &scheme, &samples, &mut |_| {}).unwrap();
    (module, report)
}

fn is_step(node: &Node) -> bool {
    let name = node.op.name();
    name.starts_with("quantized_decomposed::") || name.starts_with("torchao::")
}

/// Nodes of the float model that the folded view has as one with quantize and dequantize operators.
fn folded(module: &Module) -> usize {
    let mut module = module.clone();
    let mut graph = module.graphs[0].clone();
    separate(&mut graph, &module.constants, &mut Copies::default());
    let view = Folder::default().fold(&mut module.constants, &graph, &|_| false);
    let groups = view.origins.iter().filter(|origin| origin.covers.len() > 1);
    let nodes = groups.flat_map(|origin| &origin.covers);
    nodes.filter(|id| !is_step(graph.node(**id))).count()
}

const SCHEMES: [&str; 5] = [
    "w8a8-static",
    "w8a16-static",
    "w4a16-static",
    "w4a16-static:group=8:observer=mse",
    "w8a8-static:percentile=99.9;embedding=4",
];

#[test]
fn whatever_is_quantized_is_folded() {
    for name in [
        "mtcnn-pnet",
        "arch-mlp-dynamic-batch",
        "arch-multi-output",
        "arch-tiny-llama",
        "arch-kv-cache",
    ] {
        for scheme in SCHEMES {
            let (module, report) = quantized(name, scheme);
            assert!(report.quantized_nodes > 0, "{name}, {scheme}");
            // Nothing of the float weights is left; first values of states are no weights.
            let states: Vec<_> = module.states.iter().filter_map(|state| state.initial).collect();
            let bytes: usize = module
                .constants
                .iter()
                .filter(|(id, _)| !states.contains(id))
                .map(|(_, c)| c.sizes.numel().unwrap() * c.dtype.size())
                .sum();
            assert_eq!(bytes as u64, report.quantized_bytes, "{name}, {scheme}");
            assert_eq!(folded(&module), report.quantized_nodes, "{name}, {scheme}");
            assert_eq!(
                module.graphs[0].inputs.len(),
                model(&folder("fixtures").join(name).join("model.pt2")).graphs[0]
                    .inputs
                    .len()
            );
        }
    }
}

#[test]
fn sixteen_bits_are_better_than_eight_and_groups_better_than_none() {
    let worst = |name: &str, scheme: &str| {
        let (_, report) = quantized(name, scheme);
        report
            .outputs
            .iter()
            .map(|output| output.snr_db.0)
            .fold(f64::INFINITY, f64::min)
    };
    for name in ["mtcnn-pnet", "arch-mlp-dynamic-batch", "arch-tiny-llama"] {
        let (eight, sixteen) = (worst(name, "w8a8-static"), worst(name, "w8a16-static"));
        let (four, grouped) = (worst(name, "w4a16-static"), worst(name, "w4a16-static:group=8"));
        println!(
            "{name}: w8a8 {eight:.1} dB, w8a16 {sixteen:.1} dB, w4a16 {four:.1} dB, in groups of 8 {grouped:.1} dB"
        );
        assert!(sixteen > eight && sixteen > four && grouped > four, "{name}");
    }
}

#[test]
fn branches_and_loops_run_and_stay_as_they_are() {
    for name in ["arch-cond", "arch-while", "arch-map", "arch-scan"] {
        let (module, report) = quantized(name, "w8a8-static");
        let control = module.graphs[0]
            .nodes
            .iter()
            .any(|n| n.op.name().starts_with("higher_order::"));
        assert!(control, "{name}");
        assert!(
            report
                .float
                .iter()
                .any(|f| f.op.starts_with("higher_order::") && f.why == WhyFloat::Operator),
            "{name}"
        );
    }
}

#[test]
fn what_is_kept_stays_float() {
    let (_, all) = quantized("mtcnn-pnet", "w8a8-static");
    let (module, some) = quantized("mtcnn-pnet", "w8a8-static;keep=aten.conv2d*");
    let kept = some.float.iter().find(|f| f.why == WhyFloat::Kept).unwrap();
    assert_eq!(kept.op, "aten::conv2d");
    assert!(some.quantized_nodes < all.quantized_nodes);
    let graph = &module.graphs[0];
    let producers = graph.producers();
    for node in graph.nodes.iter().filter(|n| n.op.name() == "aten::conv2d") {
        let weight = producers[node.args[1].as_value().unwrap().index()];
        assert!(weight.is_none_or(|id| !is_step(graph.node(id))));
    }
}

#[test]
fn a_sample_that_does_not_fit_is_told_with_its_input() {
    let folder = folder("fixtures").join("mtcnn-pnet");
    let module = model(&folder.join("model.pt2"));
    let good = samples(&module, &folder.join("inputs.safetensors"));
    let scheme: Scheme = "w8a8-static".parse().unwrap();
    let run =
        |samples: &[delegraph_quant::Sample]| quantize(&mut module.clone(), &scheme, samples, &mut |_| {}).unwrap_err();
    assert!(matches!(run(&[]), QuantError::NoSamples(_)));
    let mut bad = good.clone();
    if let delegraph_quant::Item::Tensor(tensor) = &mut bad[0].inputs[0] {
        let bytes = vec![0xff; tensor.storage.as_slice().len()];
        tensor.storage = bytes.into();
    }
    assert!(run(&bad).to_string().contains("holds NaN"));
    let mut bad = good;
    if let delegraph_quant::Item::Tensor(tensor) = &mut bad[0].inputs[0] {
        tensor.dtype = delegraph_types::DType::I32;
    }
    let message = run(&bad).to_string();
    assert!(
        message.contains("the method wants f32") && message.contains("file["),
        "{message}"
    );
}
