//! Float models quantized here: the portable kernels and a delegate that sees integers compute the same, and nearly what the float
//! model does.

mod common;

use common::{fixture, nobody, open, order, source, value};
use delegraph::quantize::{Item, Report, Sample, Scheme};
use delegraph::{Error, Source};
use delegraph_host::{Host, HostOptions, Pass};
use delegraph_ir::{Constant, Module};
use delegraph_reference::Reference;
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Tensors;
use delegraph_sdk::static_entry;
use delegraph_types::Dims;
use std::sync::Arc;

fn host() -> Arc<Host> {
    let host = Host::discover(HostOptions::default());
    host.register_static_with("reference", static_entry::<Reference>(), vec![Pass::FoldQdq])
        .unwrap();
    Arc::new(host)
}

/// Every step of a recorded model as a sample.
fn samples(name: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    for case in &fixture(name).cases {
        for (i, step) in case.steps.iter().enumerate() {
            let inputs = step.inputs.iter().map(|leaf| match leaf {
                Leaf::Tensor { dtype, shape, bytes } => {
                    let sizes = Dims::new(shape).unwrap();
                    Item::Tensor(Constant::contiguous("x", *dtype, sizes, bytes.clone().into()))
                }
                _ => Item::Nothing,
            });
            samples.push(Sample {
                name: format!("{}.{i}", case.name),
                inputs: inputs.collect(),
                fresh: i == 0,
            });
        }
    }
    samples
}

fn quantized(name: &str, scheme: &str) -> (Module, Report) {
    let mut module = delegraph::import(&source(name)).unwrap();
    let scheme: Scheme = scheme.parse().unwrap();
    let report = delegraph::quantize(&mut module, &scheme, &samples(name), &mut |_| {}).unwrap();
    (module, report)
}

/// The f32 outputs of every step of a recorded model.
fn outputs(name: &str, module: Module, backends: &[&str], host: &Arc<Host>) -> Vec<Vec<Vec<f32>>> {
    let compiled = delegraph::compile(module, &order(backends), host, &mut |_| {}).unwrap();
    let delegated = compiled.report.graphs.iter().any(|graph| !graph.regions.is_empty());
    assert_eq!(delegated, !backends.is_empty(), "{name}");
    let program = Source::from_bytes(compiled.bytes, "quantized.pte");
    let mut all = Vec::new();
    for case in &fixture(name).cases {
        let mut session = open(&program, &order(backends), host).unwrap();
        for step in &case.steps {
            let inputs: Vec<_> = step.inputs.iter().map(value).collect();
            session.run(&inputs).unwrap();
            let tensors = (0..step.outputs.len()).map(|i| match session.output(i).unwrap() {
                delegraph::Value::Tensor(tensor) if tensor.dtype == delegraph::DType::F32 => {
                    let bytes = tensor.to_contiguous().into_owned();
                    let (items, _) = bytes.as_chunks::<4>();
                    items.iter().map(|b| f32::from_le_bytes(*b)).collect()
                }
                _ => Vec::new(),
            });
            all.push(tensors.collect());
        }
    }
    all
}

#[test]
fn kernels_and_delegates_give_the_same() {
    for name in [
        "mtcnn-pnet",
        "arch-mlp-dynamic-batch",
        "arch-multi-output",
        "arch-tiny-llama",
    ] {
        for scheme in ["w8a8-static", "w8a16-static", "w4a16-static:group=8"] {
            let (module, report) = quantized(name, scheme);
            let portable = outputs(name, module.clone(), &[], &nobody());
            let delegated = outputs(name, module, &["reference"], &host());
            for (want, got) in portable.iter().zip(&delegated) {
                for quality in &report.outputs {
                    let Some(node) = report.nodes.iter().find(|node| node.value == quality.name) else {
                        continue;
                    };
                    let (want, got) = (&want[quality.position], &got[quality.position]);
                    let steps = want.iter().zip(got).map(|(a, b)| f64::from((a - b).abs() / node.scale));
                    let mut steps: Vec<f64> = steps.collect();
                    steps.sort_by(f64::total_cmp);
                    let mean = steps.iter().sum::<f64>() / steps.len().max(1) as f64;
                    let most = steps.get(steps.len() * 99 / 100).copied().unwrap_or_default();
                    println!(
                        "{name} {scheme} {}: mean {mean:.4} steps, 99 of 100 within {most:.2}",
                        quality.name
                    );
                    // What the conformance kit allows a quantized output.
                    assert!(mean < 1.0 && most <= 4.0, "{name} {scheme}: {mean} {most}");
                }
            }
        }
    }
}

/// What PyTorch computes with torchao's tensors of the same integers and scales (`conformance/quantize/make_layers.py`). An
/// activation at a boundary may go to the other integer, which moves a sum by a step of it.
#[test]
fn schemes_without_samples_compute_what_torchao_does() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/quantize/layers");
    let inputs = Tensors::read(&folder.join("inputs.safetensors")).unwrap();
    let (_, ids) = inputs.iter().next().unwrap();
    for scheme in [
        "8da4w:clip=minmax",
        "8da4w;embedding=4",
        "w8a8-dynamic",
        "w8:clip=minmax",
        "w4:group=64",
    ] {
        let mut module = delegraph::import(&Source::open(folder.join("model.pt2")).unwrap()).unwrap();
        delegraph::quantize(&mut module, &scheme.parse().unwrap(), &[], &mut |_| {}).unwrap();
        let compiled = delegraph::compile(module, &order(&[]), &nobody(), &mut |_| {}).unwrap();
        let program = Source::from_bytes(compiled.bytes, "quantized.pte");
        let mut session = open(&program, &order(&[]), &nobody()).unwrap();
        session.run(&[value(ids)]).unwrap();
        let delegraph::Value::Tensor(output) = session.output(0).unwrap() else {
            panic!("no tensor")
        };
        let bytes = output.to_contiguous().into_owned();
        let name = scheme.replace([':', ';', '='], "-");
        let recorded = Tensors::read(&folder.join(format!("{name}.safetensors"))).unwrap();
        let (_, want) = recorded.iter().find(|(name, _)| *name == "output").unwrap();
        let Leaf::Tensor { bytes: want, .. } = want else {
            panic!("no tensor")
        };
        let numbers = |bytes: &[u8]| -> Vec<f64> {
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f64::from(f32::from_le_bytes(*b)))
                .collect()
        };
        let (have, want) = (numbers(&bytes), numbers(want));
        assert_eq!(have.len(), want.len());
        let differs = |(a, b): (&f64, &f64)| (a - b).abs();
        let largest = have.iter().zip(&want).map(differs).fold(0.0, f64::max);
        let range = want.iter().fold(0.0, |most: f64, n| most.max(n.abs()));
        println!("{scheme}: largest difference {largest:.2e} of {range:.2e}");
        let allowed = if scheme.contains("da") || scheme.contains("dynamic") {
            1e-3
        } else {
            1e-5
        };
        assert!(largest <= allowed * range, "{scheme}: {largest} of {range}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let mut module = delegraph::import(&source("mtcnn-pnet")).unwrap();
    let scheme: Scheme = "w8a8-static".parse().unwrap();
    let error = delegraph::quantize(&mut module, &scheme, &[], &mut |_| {}).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--calibrate"), "{error}");
    let error = delegraph::calibration_samples(&module, "samples", Vec::new()).unwrap_err();
    assert!(
        matches!(&error, Error::Quantize(_)) && error.exit_code() == 3,
        "{error}"
    );
}
