//! Schemes that need no samples: what torchao writes of the same model (`conformance/quantize/make_layers.py`), and small graphs.

mod common;

use common::{folder, model, samples};
use delegraph_ir::{Arg, Constant, Def, Graph, Module, Node, TensorType, Type, ValueId, verify};
use delegraph_passes::quantize::{Copies, Folder, separate};
use delegraph_quant::{Report, Scheme, WhyFloat, quantize};
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Tensors;
use delegraph_types::{DType, Dims};
use serde_json::Value;

fn by(module: &mut Module, scheme: &str) -> Report {
    let scheme: Scheme = scheme.parse().unwrap();
    let report = quantize(module, &scheme, &[], &mut |_| {}).unwrap();
    verify(module).unwrap();
    report
}

fn recorded(scheme: &str) -> (Value, Tensors) {
    let name = scheme.replace([':', ';', '='], "-");
    let file = |ending: &str| folder("quantize/layers").join(format!("{name}.{ending}"));
    let graph = serde_json::from_slice(&std::fs::read(file("json")).unwrap()).unwrap();
    (graph, Tensors::read(&file("safetensors")).unwrap())
}

const RECORDED: [&str; 5] = [
    "8da4w:clip=minmax",
    "8da4w;embedding=4",
    "w8a8-dynamic",
    "w8:clip=minmax",
    "w4:group=64",
];

/// The constant that an argument is.
fn constant<'m>(module: &'m Module, graph: &Graph, arg: &Arg) -> &'m Constant {
    match graph.value(arg.as_value().unwrap()).def {
        Def::Constant(id) => module.constants.find(id).unwrap(),
        _ => panic!("no constant"),
    }
}

/// An argument that is no tensor, as the script writes it; `None`: it is one.
fn plain(arg: &Arg) -> Option<Value> {
    Some(match arg {
        Arg::Value(_) => return None,
        Arg::None => Value::Null,
        Arg::Int(_) => arg.as_int().unwrap().into(),
        Arg::Float(f) => (*f).into(),
        Arg::Bool(b) => (*b).into(),
        Arg::Str(text) => text.as_str().into(),
        Arg::DType(DType::I8) => "int8".into(),
        Arg::DType(DType::F32) => "float32".into(),
        Arg::Ints(_) => arg.as_ints().unwrap().into(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn operators_and_arguments_are_those_of_torchao() {
    for scheme in RECORDED {
        let mut module = model(&folder("quantize/layers").join("model.pt2"));
        by(&mut module, scheme);
        let (recorded, _) = recorded(scheme);
        let want = recorded["nodes"].as_array().unwrap();
        // Weights are dequantized right before their layer there and here.
        let nodes = &module.graphs[0].nodes;
        let names: Vec<&str> = nodes.iter().map(|node| node.op.name()).collect();
        let wanted: Vec<&str> = want.iter().map(|node| node[0].as_str().unwrap()).collect();
        assert_eq!(names, wanted, "{scheme}");
        for (node, want) in nodes
            .iter()
            .zip(want)
            .filter(|(node, _)| node.op.name().starts_with("torchao::"))
        {
            // Defaults are filled in here: they come after what was given.
            let given: Vec<Value> = node.args.iter().filter_map(plain).collect();
            let want = want[1].as_array().unwrap();
            assert_eq!(&given[..want.len()], want.as_slice(), "{scheme}, {}", node.name);
            let filled = &given[want.len()..];
            let default = if node.op.name().contains("choose") {
                vec![Value::Bool(false)]
            } else {
                vec!["float32".into()]
            };
            assert!(
                filled.is_empty() || filled == default.as_slice(),
                "{scheme}, {}: {filled:?}",
                node.name
            );
        }
    }
}

#[test]
fn integers_and_scales_are_those_that_torchao_makes() {
    for scheme in RECORDED {
        let mut module = model(&folder("quantize/layers").join("model.pt2"));
        let report = by(&mut module, scheme);
        let (_, tensors) = recorded(scheme);
        let graph = &module.graphs[0];
        // In the order of the graph; a table shares its weight with the last layer.
        let layers = ["table", "up", "down", "out", "head"];
        let made = |layer: &&str| tensors.iter().any(|(name, _)| name == format!("{layer}.integers"));
        let layers: Vec<&str> = layers.into_iter().filter(made).collect();
        let weights: Vec<&Node> = graph
            .nodes
            .iter()
            .filter(|node| matches!(graph.value(node.args[0].as_value().unwrap()).def, Def::Constant(_)))
            .filter(|node| node.op.name() == "torchao::dequantize_affine")
            .collect();
        assert_eq!(weights.len(), layers.len(), "{scheme}");
        assert_eq!(report.quantized_nodes, layers.len());
        for (node, layer) in weights.into_iter().zip(layers) {
            for (at, what) in [(0, "integers"), (2, "scales")] {
                let name = format!("{layer}.{what}");
                let have = constant(&module, graph, &node.args[at]);
                let (_, want) = tensors.iter().find(|(have, _)| *have == name).unwrap();
                let Leaf::Tensor { dtype, shape, bytes } = want else {
                    panic!("{name}")
                };
                assert_eq!(
                    (have.dtype, have.sizes.as_slice()),
                    (*dtype, shape.as_slice()),
                    "{scheme}, {name}"
                );
                assert!(
                    have.to_contiguous().unwrap().as_slice() == bytes.as_slice(),
                    "{scheme}, {name}"
                );
            }
            let zero_points = constant(&module, graph, &node.args[3]);
            let scales = constant(&module, graph, &node.args[2]);
            assert_eq!((zero_points.dtype, zero_points.sizes), (DType::I8, scales.sizes));
            assert!(zero_points.storage.as_slice().iter().all(|b| *b == 0));
        }
    }
}

#[test]
fn every_weight_is_folded_by_the_pass_that_folds_those_of_torchao() {
    for (scheme, count) in [("w8", 5), ("w4", 4), ("w8;embedding=4", 5)] {
        let mut module = model(&folder("quantize/layers").join("model.pt2"));
        by(&mut module, scheme);
        let mut graph = module.graphs[0].clone();
        separate(&mut graph, &module.constants, &mut Copies::default());
        let view = Folder::default().fold(&mut module.constants, &graph, &|_| false);
        let folded = view.origins.iter().filter(|origin| origin.covers.len() > 1).count();
        assert_eq!(folded, count, "{scheme}");
    }
}

#[test]
fn a_weight_of_two_rules_is_two_and_of_one_rule_is_one() {
    let bytes = |scheme: &str| {
        let mut module = model(&folder("quantize/layers").join("model.pt2"));
        let report = by(&mut module, scheme);
        let graph = &module.graphs[0];
        let weights = graph
            .nodes
            .iter()
            .filter(|node| node.op.name() == "torchao::dequantize_affine");
        let integers: Vec<(usize, usize)> = weights
            .filter(|node| matches!(graph.value(node.args[0].as_value().unwrap()).def, Def::Constant(_)))
            .map(|node| constant(&module, graph, &node.args[0]).storage.address())
            .collect();
        (report, integers)
    };
    // The table's rows and the head's channels are the same rows.
    let (_, integers) = bytes("w8");
    assert_eq!(integers.first(), integers.last());
    let (_, integers) = bytes("w4;embedding=4");
    assert_eq!(integers.first(), integers.last());
    let (report, integers) = bytes("8da4w");
    assert_ne!(integers.first(), integers.last());
    let layer = |op: &str| report.layers.iter().find(|layer| layer.op == op).unwrap();
    assert_eq!((layer("aten::embedding").bits, layer("aten::embedding").group), (8, 64));
    let table = layer("aten::embedding").weight.clone();
    let both = report.layers.iter().filter(|layer| layer.weight == table);
    assert_eq!(both.count(), 2);
}

#[test]
fn what_no_group_divides_stays_float_and_is_told() {
    let mut module = model(&folder("quantize/layers").join("model.pt2"));
    let report = by(&mut module, "8da4w:group=64");
    let groups = report.float.iter().find(|nodes| nodes.why == WhyFloat::Groups).unwrap();
    assert_eq!((groups.op, groups.count), ("aten::linear", 2));
    assert_eq!((report.quantized_nodes, report.float_nodes), (3, 2));
    assert!(report.quantized_bytes < report.float_bytes);
    // Nothing needs to be divided where a row has one scale.
    let report = by(&mut model(&folder("quantize/layers").join("model.pt2")), "w8a8-dynamic");
    assert_eq!((report.quantized_nodes, report.float_nodes), (5, 0));
}

#[test]
fn what_is_kept_by_node_operator_or_weight_stays_float() {
    for (keep, count, kept) in [
        ("down.weight", 4, "aten::linear"),
        ("p_down_weight", 4, "aten::linear"),
        ("linear_1", 4, "aten::linear"),
        ("aten.embedding", 4, "aten::embedding"),
        ("aten::linear", 1, "aten::linear"),
    ] {
        let mut module = model(&folder("quantize/layers").join("model.pt2"));
        let report = by(&mut module, &format!("w8;keep={keep}"));
        assert_eq!(report.quantized_nodes, count, "{keep}");
        let float = report.float.iter().find(|nodes| nodes.why == WhyFloat::Kept).unwrap();
        assert_eq!((float.op, float.count), (kept, 5 - count), "{keep}");
    }
    // Both rules of a weight that is shared.
    let mut module = model(&folder("quantize/layers").join("model.pt2"));
    let report = by(&mut module, "w8;keep=up.*;keep=table.weight;keep=head.weight");
    assert_eq!(report.quantized_nodes, 2);
}

#[test]
fn samples_tell_what_each_layer_costs() {
    let path = folder("quantize/layers");
    let run = |scheme: &str| {
        let mut module = model(&path.join("model.pt2"));
        let samples = samples(&module, &path.join("inputs.safetensors"));
        quantize(&mut module, &scheme.parse().unwrap(), &samples, &mut |_| {}).unwrap()
    };
    let (eight, four) = (run("w8"), run("w4"));
    for report in [&eight, &four] {
        assert_eq!((report.samples, report.compared, report.outputs.len()), (1, 1, 1));
        let ratios: Vec<f64> = report.layers.iter().map(|layer| layer.snr_db.unwrap().0).collect();
        assert!(ratios.is_sorted(), "{ratios:?}");
        assert!(
            report
                .layers
                .iter()
                .all(|layer| layer.lost_db.is_some() && layer.weight_snr_db.0.is_finite())
        );
    }
    let (eight, four) = (eight.outputs[0].snr_db.0, four.outputs[0].snr_db.0);
    println!("w8 {eight:.1} dB, w4 {four:.1} dB");
    assert!(eight > 30.0 && four > 10.0 && eight > four);
    let searched = run("8da4w");
    let plain = run("8da4w:clip=minmax");
    let weights = |report: &Report| report.layers.iter().map(|layer| layer.weight_snr_db.0).sum::<f64>();
    assert!(weights(&searched) > weights(&plain));
    // Without samples the worst weight comes first.
    let report = by(&mut model(&path.join("model.pt2")), "8da4w");
    let ratios: Vec<f64> = report.layers.iter().map(|layer| layer.weight_snr_db.0).collect();
    assert!(ratios.is_sorted() && report.outputs.is_empty() && report.hint.is_none());
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["layers"][0].get("snr_db").is_none() && json["layers"][0]["weight_snr_db"].is_number());
}

/// A graph of one product with a matrix.
fn product(op: &str, dtype: DType, rows: i64, columns: i64) -> Module {
    let mut module = Module::default();
    let mut graph = Graph::new("forward");
    let tensor = |sizes: &[i64]| TensorType::fixed(dtype, sizes);
    let x = graph.add_input("x", Type::Tensor(tensor(&[3, rows])));
    let mut add = |name: &str, sizes: &[i64]| -> ValueId {
        let count: i64 = sizes.iter().product();
        let bytes: Vec<u8> = (0..count)
            .map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0)
            .flat_map(|n| match dtype {
                DType::BF16 => delegraph_types::bf16::from_f32(n).to_le_bytes().to_vec(),
                DType::F16 => delegraph_types::f16::from_f32(n).to_le_bytes().to_vec(),
                DType::F64 => f64::from(n).to_le_bytes().to_vec(),
                _ => n.to_le_bytes().to_vec(),
            })
            .collect();
        let constant = Constant::contiguous(name, dtype, Dims::new(sizes).unwrap(), bytes.into());
        let id = module.constants.push(constant);
        graph.add_constant(name, tensor(sizes), id)
    };
    let args = match op {
        "aten::addmm" => vec![
            add("bias", &[columns]).into(),
            x.into(),
            add("w", &[rows, columns]).into(),
        ],
        "aten::linear" => vec![
            x.into(),
            add("w", &[columns, rows]).into(),
            add("bias", &[columns]).into(),
        ],
        _ => vec![x.into(), add("w", &[rows, columns]).into()],
    };
    let out = graph.push(op, args, vec![tensor(&[3, columns]).into()]).unwrap();
    graph.add_output(out[0]);
    module.graphs.push(graph);
    verify(&module).unwrap();
    module
}

#[test]
fn products_with_a_matrix_become_layers_where_they_are_quantized() {
    for op in ["aten::mm", "aten::matmul", "aten::addmm", "aten::linear"] {
        let mut module = product(op, DType::F32, 64, 5);
        let report = by(&mut module, "8da4w");
        assert_eq!(report.quantized_nodes, 1, "{op}");
        let graph = &module.graphs[0];
        let last = graph.nodes.last().unwrap();
        assert_eq!(last.op.name(), "aten::linear");
        let bias = matches!(op, "aten::addmm" | "aten::linear");
        assert_eq!(last.args[2].as_value().is_some(), bias, "{op}");
        let weight = graph.producers()[last.args[1].as_value().unwrap().index()].unwrap();
        let integers = constant(&module, graph, &graph.node(weight).args[0]);
        assert_eq!(integers.sizes.as_slice(), [5, 64], "{op}");
        let mut module = product(op, DType::F32, 40, 5);
        by(&mut module, "8da4w");
        assert_eq!(module.graphs[0].nodes.last().unwrap().op.name(), op);
    }
}

#[test]
fn half_floats_keep_their_dtype() {
    for dtype in [DType::F16, DType::BF16] {
        let mut module = product("aten::linear", dtype, 64, 8);
        let report = by(&mut module, "8da4w");
        assert_eq!(report.quantized_nodes, 1, "{dtype}");
        let graph = &module.graphs[0];
        let weight = graph
            .nodes
            .iter()
            .rfind(|node| node.op.name() == "torchao::dequantize_affine")
            .unwrap();
        assert_eq!(constant(&module, graph, &weight.args[2]).dtype, dtype);
        assert_eq!(graph.tensor(weight.outputs[0]).unwrap().dtype, dtype);
    }
    let mut module = product("aten::linear", DType::F64, 64, 8);
    assert_eq!(by(&mut module, "8da4w").quantized_nodes, 0);
}

#[test]
fn a_layer_on_a_line_has_one_token() {
    let mut module = product("aten::linear", DType::F32, 64, 8);
    let graph = &mut module.graphs[0];
    let (x, y) = (graph.nodes[0].args[0].as_value().unwrap(), graph.nodes[0].outputs[0]);
    graph.values[x.index()].ty = TensorType::fixed(DType::F32, &[64]).into();
    graph.values[y.index()].ty = TensorType::fixed(DType::F32, &[8]).into();
    let bytes: Vec<u8> = (0..64).flat_map(|i| (i as f32 * 0.37).sin().to_le_bytes()).collect();
    let line = Constant::contiguous("x", DType::F32, Dims::new(&[64]).unwrap(), bytes.into());
    let sample = delegraph_quant::Sample {
        name: "line".to_string(),
        inputs: vec![delegraph_quant::Item::Tensor(line)],
        fresh: true,
    };
    let report = quantize(&mut module, &"w8a8-dynamic".parse().unwrap(), &[sample], &mut |_| {}).unwrap();
    verify(&module).unwrap();
    assert!(report.outputs[0].snr_db.0 > 30.0, "{:?}", report.outputs);
}

#[test]
fn what_is_not_finite_stays_float() {
    let mut module = product("aten::linear", DType::F32, 32, 2);
    let mut numbers = vec![0u8; 64 * 4];
    numbers[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let id = module.constants.iter().find(|(_, c)| c.name == "w").unwrap().0;
    module.constants[id].storage = numbers.into();
    let report = by(&mut module, "w8");
    assert_eq!((report.quantized_nodes, report.float[0].why), (0, WhyFloat::Values));
}

#[test]
fn recorded_models_are_quantized_whole() {
    for (name, layers) in [
        ("arch-tiny-llama", 16),
        ("arch-mlp-dynamic-batch", 2),
        ("arch-kv-cache", 2),
    ] {
        for scheme in ["w8a8-dynamic", "8da4w", "w8", "w4;embedding=4"] {
            let mut module = model(&folder("fixtures").join(name).join("model.pt2"));
            let report = by(&mut module, scheme);
            println!(
                "{name}, {scheme}: {} layers, {} stay float",
                report.quantized_nodes, report.float_nodes
            );
            assert_eq!(report.quantized_nodes + report.float_nodes, layers, "{name}, {scheme}");
            // Of 4 bits, what 32 does not divide stays float.
            assert!(report.float_nodes == 0 || scheme.contains('4'), "{name}, {scheme}");
        }
    }
}
