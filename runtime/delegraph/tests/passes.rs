//! Delegates that ask for passes, end to end: what a real delegate computes of its view is what the operators as exported compute,
//! and those run where it does not.

mod common;

use common::{check, leaf, nobody, open, order};
use delegraph::{Source, Value};
use delegraph_host::{Host, HostOptions, Pass};
use delegraph_ir::{Arg, Constant, Graph, Module, TensorType, ValueId, verify};
use delegraph_lower::Lowered;
use delegraph_reference::Reference;
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Fixture;
use delegraph_sdk::static_entry;
use delegraph_types::{DType, Dims};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn host(passes: &[Pass]) -> Arc<Host> {
    let host = Host::discover(HostOptions::default());
    host.register_static_with("reference", static_entry::<Reference>(), passes.to_vec())
        .unwrap();
    Arc::new(host)
}

fn compiled(module: Module, passes: &[Pass]) -> (Source, Lowered) {
    let compiled = delegraph::compile(module, &order(&["reference"]), &host(passes), &mut |_| {}).unwrap();
    (Source::from_bytes(compiled.bytes, "compiled.pte"), compiled.report)
}

/// How many nodes of an operator the delegate sees.
fn seen(report: &Lowered, operator: &str) -> u32 {
    let regions = report.graphs.iter().flat_map(|g| &g.regions);
    let operators = regions.flat_map(|r| &r.operators);
    operators.filter(|(op, _)| op == operator).map(|(_, n)| n).sum()
}

/// Runs a recorded model with a delegate that asks for these passes, and the same file without it.
fn recorded(folder: &Path, file: &str, passes: &[Pass]) -> Lowered {
    let fixture = Fixture::read(folder).unwrap();
    let module = delegraph::import(&Source::open(folder.join(file)).unwrap()).unwrap();
    let (program, report) = compiled(module, passes);
    check(
        &mut open(&program, &order(&["reference"]), &host(passes)).unwrap(),
        &fixture,
    );
    check(&mut open(&program, &order(&[]), &nobody()).unwrap(), &fixture);
    report
}

fn shared() -> Option<PathBuf> {
    let shared = std::env::var_os("DELEGRAPH_SHARED");
    if shared.is_none() {
        println!("skipped: DELEGRAPH_SHARED is not set");
    }
    Some(PathBuf::from(shared?).join("models"))
}

#[test]
fn committed_models_with_channels_last() {
    let fold = [Pass::FoldQdq, Pass::Nhwc];
    for (name, passes, spatial) in [
        ("mtcnn-pnet", &fold[1..], "aten::conv2d"),
        ("arch-int8-convnet", &fold[..], "aten::conv2d"),
        ("arch-int8-convnet", &fold[1..], "aten::conv2d"),
        ("quant-pt2e-residual", &fold[..], "aten::conv2d"),
    ] {
        let report = recorded(&common::folder(name), "model.pt2", passes);
        assert!(
            seen(&report, spatial) > 0 && seen(&report, "aten::permute") > 0,
            "{name}"
        );
    }
}

#[test]
fn shared_models_with_batch_norms_folded() {
    let Some(models) = shared() else { return };
    for (name, file, norm, count) in [
        ("arch-mobilenet-v2-quarter", "model.pt2", "aten::batch_norm", 52),
        (
            "arch-mobilenet-v2-quarter",
            "model.core.pt2",
            "aten::_native_batch_norm_legit_no_training",
            52,
        ),
    ] {
        let plain = recorded(&models.join(name), file, &[]);
        assert_eq!(seen(&plain, norm), count, "{name}");
        let folded = recorded(&models.join(name), file, &[Pass::FoldBatchNorm]);
        assert_eq!(seen(&folded, norm), 0, "{name}");
        let both = recorded(&models.join(name), file, &[Pass::FoldBatchNorm, Pass::Nhwc]);
        assert_eq!(seen(&both, norm), 0, "{name}");
        // One at each end: nothing in a network of images is permuted twice.
        assert!(
            seen(&both, "aten::permute") <= 2 * both.graphs[0].regions.len() as u32,
            "{name}"
        );
    }
}

#[test]
fn shared_models_with_attention_raised() {
    let Some(models) = shared() else { return };
    raised(&models.join("arch-tiny-llama"), 2);
}

#[test]
fn a_committed_model_with_attention_raised() {
    raised(&common::folder("arch-kv-cache"), 1);
}

/// A model in core ATen, in which attention is taken apart.
fn raised(folder: &Path, count: u32) {
    let attention = "aten::scaled_dot_product_attention";
    let plain = recorded(folder, "model.core.pt2", &[]);
    assert_eq!(seen(&plain, attention), 0);
    let raised = recorded(folder, "model.core.pt2", &[Pass::Keep(attention.to_string())]);
    assert_eq!(seen(&raised, attention), count);
}

/// Numbers that differ, from -1 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn floats(&mut self, count: i64, middle: f32) -> Vec<u8> {
        let float = |n: u64| middle + (n % 2001) as f32 / 1100.0 - 0.9;
        (0..count).flat_map(|_| float(self.next()).to_le_bytes()).collect()
    }
}

const SIZES: [i64; 4] = [1, 3, 6, 4];

struct Network {
    module: Module,
    graph: Graph,
    noise: Noise,
}

impl Network {
    fn constant(&mut self, sizes: &[i64], middle: f32) -> ValueId {
        let bytes = self.noise.floats(sizes.iter().product(), middle);
        let name = format!("c{}", self.module.constants.len());
        let constant = Constant::contiguous(&name, DType::F32, Dims::new(sizes).unwrap(), bytes.into());
        let id = self.module.constants.push(constant);
        self.graph.add_constant(name, TensorType::fixed(DType::F32, sizes), id)
    }

    fn op(&mut self, op: &str, args: Vec<Arg>, sizes: &[i64]) -> ValueId {
        let ty = TensorType::fixed(DType::F32, sizes);
        self.graph.push(op, args, vec![ty.into()]).unwrap()[0]
    }

    fn layer(&mut self, x: ValueId, norm: bool) -> ValueId {
        let w = self.constant(&[3, 3, 3, 3], 0.0);
        let args = vec![x.into(), w.into(), Arg::None, Arg::ints(&[1, 1]), Arg::ints(&[1, 1])];
        let y = self.op("aten::conv2d", args, &SIZES);
        if !norm {
            return y;
        }
        let mut args = vec![y.into()];
        for middle in [1.0, 0.0, 0.0, 2.0] {
            args.push(self.constant(&[3], middle).into());
        }
        args.extend([Arg::Bool(false), Arg::Float(0.1), Arg::Float(1e-3), Arg::Bool(true)]);
        self.op("aten::batch_norm", args, &SIZES)
    }

    /// `softmax(x xᵀ · 0.5) x` over the last two dimensions.
    fn attention(&mut self, x: ValueId) -> ValueId {
        let turned = self.op(
            "aten::transpose.int",
            vec![x.into(), Arg::int(2), Arg::int(3)],
            &[1, 3, 4, 6],
        );
        let square = [1, 3, 6, 6];
        let s = self.op("aten::matmul", vec![x.into(), turned.into()], &square);
        let s = self.op("aten::mul.Tensor", vec![s.into(), Arg::Float(0.5)], &square);
        let p = self.op("aten::softmax.int", vec![s.into(), Arg::int(-1)], &square);
        self.op("aten::matmul", vec![p.into(), x.into()], &SIZES)
    }
}

/// Layers, activations, sums, attention, in an order of noise.
fn network(seed: u64) -> Module {
    let mut network = Network {
        module: Module::default(),
        graph: Graph::new("forward"),
        noise: Noise(seed),
    };
    let x = network
        .graph
        .add_input("x", TensorType::fixed(DType::F32, &SIZES).into());
    let mut made = vec![network.layer(x, true)];
    for _ in 0..7 {
        let pick = |noise: &mut Noise| made[(noise.next() % made.len() as u64) as usize];
        let (x, z) = (pick(&mut network.noise), pick(&mut network.noise));
        let y = match network.noise.next() % 6 {
            0 | 1 => network.layer(x, true),
            2 => network.layer(x, false),
            3 => network.op("aten::relu", vec![x.into()], &SIZES),
            4 => network.op("aten::add.Tensor", vec![x.into(), z.into()], &SIZES),
            _ => network.attention(x),
        };
        made.push(y);
    }
    network.graph.add_output(made[made.len() - 1]);
    network.graph.add_output(made[made.len() / 2]);
    let Network { mut module, graph, .. } = network;
    module.graphs.push(graph);
    verify(&module).unwrap();
    module
}

fn results(program: &Source, backends: &[&str], host: &Arc<Host>) -> Vec<f32> {
    let mut session = open(program, &order(backends), host).unwrap();
    let input = Noise(5).floats(72, 0.0);
    session
        .run(&[Value::tensor(DType::F32, Dims::new(&SIZES).unwrap(), &input)])
        .unwrap();
    let floats = |i| match leaf(session.output(i).unwrap()) {
        Leaf::Tensor { bytes, .. } => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        _ => Vec::new(),
    };
    (0..session.output_count()).flat_map(floats).collect()
}

#[test]
fn made_up_networks_agree_under_every_set_of_passes() {
    let keep = Pass::Keep("aten::scaled_dot_product_attention".to_string());
    let all = [Pass::FoldBatchNorm, Pass::Nhwc, keep];
    let (mut folded, mut permuted, mut raised) = (0, 0, 0);
    for seed in 0..24 {
        let (raw, _) = compiled(network(seed), &[]);
        let raw = results(&raw, &[], &nobody());
        assert_eq!(raw.len(), 144);
        for set in 0..8usize {
            let passes: Vec<Pass> = (0..3).filter(|i| set >> i & 1 == 1).map(|i| all[i].clone()).collect();
            let (program, report) = compiled(network(seed), &passes);
            let made = results(&program, &["reference"], &host(&passes));
            for (a, b) in made.iter().zip(&raw) {
                assert!(
                    (a - b).abs() <= 1e-4 * b.abs().max(1.0),
                    "{seed} {passes:?}: {a} and {b}"
                );
            }
            // The same file without the delegate runs the operators as they were.
            assert_eq!(results(&program, &[], &nobody()), raw);
            folded += report.graphs[0]
                .nodes
                .iter()
                .filter(|n| n.folded_into.is_some())
                .count();
            permuted += seen(&report, "aten::permute");
            raised += seen(&report, "aten::scaled_dot_product_attention");
        }
    }
    assert!(
        folded > 300 && permuted > 100 && raised > 30,
        "{folded} {permuted} {raised}"
    );
}
