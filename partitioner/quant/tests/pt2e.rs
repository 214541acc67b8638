//! PyTorch's PT2E flow on the same float models and samples, recorded by `conformance/quantize/make.py`.

mod common;

use common::{folder, model, samples};
use delegraph_quant::{Report, Scheme, quantize};
use std::collections::BTreeMap;

#[derive(serde::Deserialize)]
struct Recorded {
    values: BTreeMap<String, Observed>,
    snr_db: f64,
}

#[derive(serde::Deserialize)]
struct Observed {
    scale: f64,
    zero_point: i64,
}

fn both(name: &str) -> (delegraph_ir::Module, Report, Recorded) {
    let folder = folder("quantize").join(name);
    let mut module = model(&folder.join("model.pt2"));
    let samples = samples(&module, &folder.join("calibration.safetensors"));
    let scheme: Scheme = "w8a8-static".parse().unwrap();
    let report = quantize(&mut module, &scheme, &samples, &mut |_| {}).unwrap();
    let recorded = std::fs::read(folder.join("pt2e.json")).unwrap();
    (module, report, serde_json::from_slice(&recorded).unwrap())
}

/// Of an input, which nobody computes, scale and zero point are the same f32 number and integer. Of what is computed, the ends of
/// the range may differ as sums in another order do: here by up to 2^-18 of themselves, and the zero point by rounding one way or
/// the other.
#[test]
fn ranges_are_those_of_min_max_observer() {
    for (name, least) in [("convnet", 6), ("attention", 12)] {
        let (module, report, recorded) = both(name);
        let graph = &module.graphs[0];
        let input = graph
            .nodes
            .iter()
            .find(|n| n.op.name() == "quantized_decomposed::quantize_per_tensor")
            .unwrap();
        let x = &recorded.values["x"];
        assert_eq!(input.args[1].as_scalar().unwrap().as_f64(), x.scale, "{name}");
        assert_eq!(input.args[2].as_int(), Some(x.zero_point), "{name}");
        let mut compared = 0;
        for node in &report.nodes {
            // A range that is known beforehand is not observed; XNNPACK's quantizer gives some operators that of what they read.
            let shared = ["hardtanh", "adaptive_avg_pool2d", "flatten"].contains(&node.value.as_str());
            let same = !node.op.contains("softmax") && !shared;
            let Some(want) = recorded.values.get(&node.value).filter(|_| same) else {
                continue;
            };
            let difference = (f64::from(node.scale) - want.scale).abs();
            assert!(
                difference <= want.scale * 2f64.powi(-18),
                "{name}, {}: {} for {}",
                node.value,
                node.scale,
                want.scale
            );
            assert!((node.zero_point - want.zero_point).abs() <= 1, "{name}, {}", node.value);
            compared += 1;
        }
        assert!(compared >= least, "{name}: {compared} of {}", recorded.values.len());
    }
}

/// More is quantized here than by the flow that was recorded (softmax, layer norm, GELU), and all of it in 8 bits; that costs up
/// to 3 dB, half a bit.
#[test]
fn outputs_are_as_near_to_the_float_model_as_those_of_pt2e() {
    for name in ["convnet", "attention"] {
        let (_, report, recorded) = both(name);
        let ours = report.outputs[0].snr_db.0;
        println!("{name}: {ours:.2} dB, PT2E {:.2} dB", recorded.snr_db);
        assert!(
            ours >= recorded.snr_db - 3.0,
            "{name}: {ours} dB, PT2E has {} dB",
            recorded.snr_db
        );
    }
}
