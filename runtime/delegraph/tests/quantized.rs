//! Quantized models over a delegate that asks for quantized types: it computes what the operators as exported compute, and they
//! run where it does not.

mod common;

use common::{Faulty, check, fixture, folder, leaf, nobody, open, order, source};
use delegraph::{Source, Value};
use delegraph_host::{Host, HostOptions, Pass};
use delegraph_ir::{Arg, Constant, Graph, Module, TensorType, ValueId, verify};
use delegraph_lower::{Lowered, NodeReport};
use delegraph_reference::Reference;
use delegraph_runner::Leaf;
use delegraph_sdk::static_entry;
use delegraph_types::{DType, Dims};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};
use std::cell::Cell;
use std::sync::Arc;

/// A host with the reference delegate, and one that fails on demand; both ask for quantized types, or neither.
fn host(folding: bool, fault: &str) -> Arc<Host> {
    let options = serde_json::json!({ "fault": fault });
    let host = Host::discover(HostOptions {
        options: [("faulty".to_string(), options)].into(),
        ..HostOptions::default()
    });
    let passes = || if folding { vec![Pass::FoldQdq] } else { vec![] };
    host.register_static_with("reference", static_entry::<Reference>(), passes())
        .unwrap();
    host.register_static_with("faulty", static_entry::<Faulty>(), passes())
        .unwrap();
    Arc::new(host)
}

fn compiled(module: Module, backend: &str, host: &Host) -> (Source, Lowered) {
    let compiled = delegraph::compile(module, &order(&[backend]), host, &mut |_| {}).unwrap();
    (Source::from_bytes(compiled.bytes, "compiled.pte"), compiled.report)
}

/// How many nodes of these operators the delegates see.
fn seen(report: &Lowered, part: &str) -> u32 {
    let regions = report.graphs.iter().flat_map(|g| &g.regions);
    let operators = regions.flat_map(|r| &r.operators);
    operators.filter(|(op, _)| op.contains(part)).map(|(_, n)| n).sum()
}

fn why<'a>(report: &'a Lowered, name: &str) -> &'a NodeReport {
    report.graphs[0].why(name).next().unwrap()
}

#[test]
fn recorded_models_give_what_pytorch_gave() {
    // Operators of quantization that the delegate sees of the model.
    let models = [
        ("arch-int8-convnet", "model.pt2", 2),
        ("arch-int8-convnet", "model.core.pt2", 2),
        ("quant-pt2e-residual", "model.pt2", 2),
        ("quant-pt2e-attention", "model.pt2", 6),
        ("quant-pt2e-dynamic", "model.pt2", 9),
        ("quant-torchao-8da4w", "model.pt2", 0),
        ("quant-torchao-emb4-8da4w", "model.pt2", 0),
        ("minilm-l6-int8", "model.pt2", 0),
    ];
    for (name, file, explicit) in models {
        let recorded = fixture(name);
        let module = || delegraph::import(&Source::open(folder(name).join(file)).unwrap()).unwrap();
        let (program, report) = compiled(module(), "reference", &host(true, ""));
        let quantizing = seen(&report, "quantize");
        assert_eq!(quantizing, explicit, "{name}");
        assert!(seen(&report, "::") > 0, "{name}");
        check(
            &mut open(&program, &order(&["reference"]), &host(true, "")).unwrap(),
            &recorded,
        );
        // The same file without the delegate, and with one that fails.
        check(&mut open(&program, &order(&[]), &nobody()).unwrap(), &recorded);
        let (program, _) = compiled(module(), "faulty", &host(true, ""));
        check(
            &mut open(&program, &order(&["faulty"]), &host(true, "always")).unwrap(),
            &recorded,
        );
    }
}

#[test]
fn reports_name_the_nodes_of_the_model() {
    let module = delegraph::import(&source("arch-int8-convnet")).unwrap();
    let names: Vec<String> = module.graphs[0].nodes.iter().map(|n| n.name.clone()).collect();
    let (_, report) = compiled(module, "reference", &host(true, ""));
    let mut reported: Vec<&str> = report.graphs[0].nodes.iter().map(|n| n.name.as_str()).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    reported.sort_unstable();
    names.sort_unstable();
    assert_eq!(reported, names);
    for (node, into) in [
        ("relu", Some("conv2d")),
        ("quantize_per_tensor_1", Some("conv2d")),
        ("dequantize_per_tensor", Some("conv2d")),
        ("dequantize_per_tensor_5", Some("add")),
        ("conv2d", None),
        ("quantize_per_tensor", None),
    ] {
        let node = why(&report, node);
        assert_eq!(node.owner.as_deref(), Some("reference"));
        assert_eq!(node.folded_into.as_deref(), into, "{}", node.name);
    }
    // Who does not ask sees the operators.
    let module = delegraph::import(&source("arch-int8-convnet")).unwrap();
    let (_, report) = compiled(module, "reference", &host(false, ""));
    assert_eq!(seen(&report, "quantize"), 18);
    assert!(report.graphs[0].nodes.iter().all(|n| n.folded_into.is_none()));
}

/// An operator of a made-up network; numbers pick operands and parameters.
#[derive(Debug, Clone)]
enum Step {
    Conv { channels: bool, relu: bool, bias: u8 },
    Linear { blocks: bool, clamp: bool },
    Add,
    Multiply,
    Relu { same: bool },
    Pool,
    Turn,
    Island,
}

#[derive(Debug, Clone)]
struct Drawn {
    step: Step,
    /// How far back the operands are.
    back: (usize, usize),
    /// Scale, in 1/256, and zero point of the result.
    scale: u8,
    zero: i8,
    /// Whether the operands are dequantized by nodes that are there already.
    share: bool,
}

fn steps() -> impl Strategy<Value = Step> {
    let flag = any::<bool>;
    prop_oneof![
        3 => (flag(), flag(), 0u8..3).prop_map(|(channels, relu, bias)| Step::Conv { channels, relu, bias }),
        2 => (flag(), flag()).prop_map(|(blocks, clamp)| Step::Linear { blocks, clamp }),
        2 => Just(Step::Add),
        1 => Just(Step::Multiply),
        1 => flag().prop_map(|same| Step::Relu { same }),
        1 => Just(Step::Pool),
        1 => Just(Step::Turn),
        1 => Just(Step::Island),
    ]
}

fn networks() -> impl Strategy<Value = (Vec<Drawn>, u64)> {
    let drawn = (steps(), (0usize..4, 0usize..4), 1u8..12, -20i8..20, any::<bool>()).prop_map(
        |(step, back, scale, zero, share)| Drawn {
            step,
            back,
            scale,
            zero,
            share,
        },
    );
    (prop::collection::vec(drawn, 1..9), any::<u64>())
}

/// A sequence of numbers that a seed gives.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        // Weights as quantization makes them: small, and none at -128.
        (0..count).map(|_| ((self.next() % 41) as i8 - 20) as u8).collect()
    }

    fn floats(&mut self, count: usize, unit: f32) -> Vec<u8> {
        let number = |n: u64| ((n % 2001) as f32 - 1000.0) / 1000.0 * unit;
        (0..count).flat_map(|_| number(self.next()).to_le_bytes()).collect()
    }
}

/// An integer tensor of the network, with its scale and zero point, and a dequantization that is there already.
#[derive(Debug, Clone, Copy)]
struct Integers {
    value: ValueId,
    params: (f64, i64),
    real: Option<ValueId>,
}

const SIZES: [i64; 4] = [1, 4, 4, 4];

struct Network {
    module: Module,
    graph: Graph,
    noise: Noise,
    made: Vec<Integers>,
    read: Vec<bool>,
}

impl Network {
    fn op(&mut self, op: &str, args: Vec<Arg>, ty: TensorType) -> ValueId {
        self.graph.push(op, args, vec![ty.into()]).unwrap()[0]
    }

    fn float(&mut self, op: &str, args: Vec<Arg>) -> ValueId {
        self.op(op, args, TensorType::fixed(DType::F32, &SIZES))
    }

    fn constant(&mut self, dtype: DType, sizes: &[i64], bytes: Vec<u8>) -> ValueId {
        let name = format!("c{}", self.module.constants.len());
        let constant = Constant::contiguous(&name, dtype, Dims::new(sizes).unwrap(), bytes.into());
        let id = self.module.constants.push(constant);
        self.graph.add_constant(name, TensorType::fixed(dtype, sizes), id)
    }

    fn params((scale, zero): (f64, i64)) -> Vec<Arg> {
        vec![
            scale.into(),
            zero.into(),
            Arg::int(-128),
            Arg::int(127),
            DType::I8.into(),
        ]
    }

    fn quantize(&mut self, x: ValueId, params: (f64, i64)) {
        let args = [vec![x.into()], Network::params(params)].concat();
        let ty = TensorType::fixed(DType::I8, &SIZES);
        let value = self.op("quantized_decomposed::quantize_per_tensor", args, ty);
        self.made.push(Integers {
            value,
            params,
            real: None,
        });
        self.read.push(false);
    }

    /// An earlier tensor, dequantized.
    fn operand(&mut self, back: usize, share: bool) -> (ValueId, (f64, i64)) {
        let at = self.made.len() - 1 - back.min(self.made.len() - 1);
        self.read[at] = true;
        let Integers { value, params, real } = self.made[at];
        if let (Some(real), true) = (real, share) {
            return (real, params);
        }
        let args = [vec![value.into()], Network::params(params)].concat();
        let real = self.float("quantized_decomposed::dequantize_per_tensor", args);
        self.made[at].real = Some(real);
        (real, params)
    }

    /// A weight of this many slices and elements a slice, dequantized; and its scales.
    fn weight(&mut self, sizes: &[i64], way: u8) -> (ValueId, Vec<f32>) {
        let count = sizes.iter().product::<i64>() as usize;
        let bytes = self.noise.bytes(count);
        let w = self.constant(DType::I8, sizes, bytes);
        let scale_count = match way {
            0 => 1,
            1 => 4,
            _ => 8,
        };
        let scales: Vec<f32> = (0..scale_count)
            .map(|_| (self.noise.next() % 30 + 1) as f32 / 2048.0)
            .collect();
        let bytes: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        let limits = [Arg::int(-127), Arg::int(127), DType::I8.into()];
        let (op, args) = match way {
            0 => {
                let args = vec![w.into(), Arg::Float(f64::from(scales[0])), Arg::int(0)];
                (
                    "quantized_decomposed::dequantize_per_tensor",
                    [args, limits.to_vec()].concat(),
                )
            }
            1 => {
                let s = self.constant(DType::F32, &[4], bytes);
                let args = vec![w.into(), s.into(), Arg::None, Arg::int(0)];
                (
                    "quantized_decomposed::dequantize_per_channel",
                    [args, limits.to_vec()].concat(),
                )
            }
            _ => {
                let s = self.constant(DType::F32, &[4, 2], bytes);
                let z = self.noise.bytes(8);
                let z = self.constant(DType::I8, &[4, 2], z);
                let args = vec![w.into(), Arg::ints(&[1, 2]), s.into(), z.into(), DType::I8.into()];
                ("torchao::dequantize_affine", args)
            }
        };
        (self.op(op, args, TensorType::fixed(DType::F32, sizes)), scales)
    }

    fn step(&mut self, drawn: &Drawn) {
        let params = (f64::from(drawn.scale) / 256.0, i64::from(drawn.zero));
        let (x, same) = self.operand(drawn.back.0, drawn.share);
        let (y, params) = match drawn.step {
            Step::Conv { channels, relu, bias } => {
                let (w, scales) = self.weight(&[4, 4, 3, 3], u8::from(channels));
                let bias = match bias {
                    0 => Arg::None,
                    1 => {
                        let bytes = self.noise.floats(4, 0.5);
                        self.constant(DType::F32, &[4], bytes).into()
                    }
                    // What an i32 bias holds exactly.
                    _ => {
                        let scale = |c: usize| same.0 as f32 * scales[c % scales.len()];
                        let bytes = (0..4)
                            .flat_map(|c| ((c as f32 * 7.0 - 9.0) * scale(c)).to_le_bytes())
                            .collect();
                        self.constant(DType::F32, &[4], bytes).into()
                    }
                };
                let args = vec![x.into(), w.into(), bias, Arg::ints(&[1, 1]), Arg::ints(&[1, 1])];
                let y = self.float("aten::conv2d", args);
                let y = if relu {
                    self.float("aten::relu", vec![y.into()])
                } else {
                    y
                };
                (y, params)
            }
            Step::Linear { blocks, clamp } => {
                let (w, _) = self.weight(&[4, 4], if blocks { 2 } else { 1 });
                let y = self.float("aten::linear", vec![x.into(), w.into()]);
                let limits = vec![y.into(), Arg::Float(-0.25), Arg::Float(0.6)];
                (if clamp { self.float("aten::hardtanh", limits) } else { y }, params)
            }
            Step::Add => {
                let (z, _) = self.operand(drawn.back.1, drawn.share);
                (self.float("aten::add.Tensor", vec![x.into(), z.into()]), params)
            }
            Step::Multiply => {
                let (z, _) = self.operand(drawn.back.1, drawn.share);
                (self.float("aten::mul.Tensor", vec![x.into(), z.into()]), params)
            }
            Step::Relu { same: equal } => (
                self.float("aten::relu", vec![x.into()]),
                if equal { same } else { params },
            ),
            Step::Pool => {
                let args = vec![x.into(), Arg::ints(&[3, 3]), Arg::ints(&[1, 1]), Arg::ints(&[1, 1])];
                (self.float("aten::max_pool2d", args), same)
            }
            Step::Turn => (
                self.float("aten::transpose.int", vec![x.into(), Arg::int(1), Arg::int(3)]),
                same,
            ),
            Step::Island => {
                let y = self.float("aten::cos", vec![x.into()]);
                (self.float("aten::sub.Tensor", vec![y.into(), x.into()]), params)
            }
        };
        self.quantize(y, params);
    }
}

/// The network, as a module; everything that nobody reads is a result.
fn network(drawn: &[Drawn], seed: u64) -> Module {
    let mut network = Network {
        module: Module::default(),
        graph: Graph::new("forward"),
        noise: Noise(seed),
        made: Vec::new(),
        read: Vec::new(),
    };
    let x = network
        .graph
        .add_input("x", TensorType::fixed(DType::F32, &SIZES).into());
    network.quantize(x, (1.0 / 64.0, 3));
    drawn.iter().for_each(|d| network.step(d));
    for (made, _) in network
        .made
        .clone()
        .iter()
        .zip(&network.read)
        .filter(|(_, read)| !**read)
    {
        network.graph.add_output(made.value);
    }
    let (real, _) = network.operand(0, true);
    network.graph.add_output(real);
    let Network { mut module, graph, .. } = network;
    module.graphs.push(graph);
    verify(&module).unwrap();
    module
}

fn results(program: &Source, backend: &[&str], host: &Arc<Host>, input: &[u8]) -> Vec<Leaf> {
    let mut session = open(program, &order(backend), host).unwrap();
    session
        .run(&[Value::tensor(DType::F32, Dims::new(&SIZES).unwrap(), input)])
        .unwrap();
    (0..session.output_count())
        .map(|i| leaf(session.output(i).unwrap()))
        .collect()
}

fn integers(leaf: &Leaf) -> Option<Vec<i64>> {
    match leaf {
        Leaf::Tensor {
            dtype: DType::I8,
            bytes,
            ..
        } => Some(bytes.iter().map(|b| i64::from(*b as i8)).collect()),
        _ => None,
    }
}

#[test]
fn made_up_networks_agree() {
    let (all, unequal, folded) = (Cell::new(0usize), Cell::new(0usize), Cell::new(0usize));
    let cases = Cases {
        cases: 96,
        failure_persistence: None,
        ..Cases::default()
    };
    let mut runner = TestRunner::new_with_rng(cases, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&networks(), |(drawn, seed)| {
        let module = network(&drawn, seed);
        let input = Noise(seed ^ 0x5eed).floats(64, 1.5);
        let (raw, _) = compiled(module.clone(), "portable", &nobody());
        let (plain, _) = compiled(module.clone(), "reference", &host(false, ""));
        let (program, report) = compiled(module.clone(), "reference", &host(true, ""));
        let nodes = report.graphs.iter().flat_map(|g| &g.nodes);
        let count = nodes.filter(|n| n.folded_into.is_some()).count();
        let raw = results(&raw, &[], &nobody(), &input);
        let plain = results(&plain, &["reference"], &host(false, ""), &input);
        let made = results(&program, &["reference"], &host(true, ""), &input);
        // One arithmetic gives one result, whether the operators are folded or not.
        prop_assert_eq!(&made, &plain);
        for (made, raw) in made.iter().zip(&raw) {
            let (Some(made), Some(raw)) = (integers(made), integers(raw)) else {
                continue;
            };
            for (a, b) in made.iter().zip(&raw) {
                prop_assert!((a - b).abs() <= 1, "{} and {}", a, b);
                all.set(all.get() + 1);
                unequal.set(unequal.get() + usize::from(a != b));
            }
        }
        folded.set(folded.get() + count);
        // The same file without the delegate runs the operators as they were.
        prop_assert_eq!(&results(&program, &[], &nobody(), &input), &raw);
        let (program, _) = compiled(module, "faulty", &host(true, ""));
        prop_assert_eq!(&results(&program, &["faulty"], &host(true, "always"), &input), &raw);
        Ok(())
    });
    outcome.unwrap();
    let (all, unequal, folded) = (all.get(), unequal.get(), folded.get());
    assert!(unequal * 200 <= all, "{unequal} of {all} integers differ");
    assert!(folded > 500, "{folded} nodes folded");
}
