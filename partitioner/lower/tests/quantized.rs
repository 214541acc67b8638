//! Delegates that ask for quantized types beside those that do not, made up: what they see, and what becomes of a refusal.

use delegraph_abi::Status;
use delegraph_abi::image::{ImageView, NodeView, verify};
use delegraph_host::{DelegateError, NodeVerdict, Partition, Pass, Weights};
use delegraph_ir::{Arg, Graph, Module, TensorType, ValueId};
use delegraph_lower::{Backend, LowerOptions, Lowered, Slot, lower_with};
use delegraph_tag::Policy;
use delegraph_types::DType;

/// A delegate that takes what a rule says, and whose blobs are the names of operators, inputs and outputs.
struct Made {
    name: &'static str,
    folds: bool,
    takes: fn(&NodeView<'_>) -> bool,
    /// Refuses to compile a graph with this operator on quantized types.
    fails: &'static str,
}

fn is_quantized(node: &NodeView<'_>) -> bool {
    let explicit = node.op().starts_with("quantized_decomposed");
    !explicit && node.inputs().any(|v| node.image().value(v).quant().is_some())
}

impl Backend for Made {
    fn name(&self) -> &str {
        self.name
    }

    fn passes(&self) -> &[Pass] {
        if self.folds { &[Pass::FoldQdq] } else { &[] }
    }

    fn partition(&self, image: &[u8], _: &str) -> Result<Partition, DelegateError> {
        let view = verify(image).unwrap();
        let verdict = |node: NodeView<'_>| {
            let supported = (self.takes)(&node);
            let how = if is_quantized(&node) { "integers" } else { "floats" };
            NodeVerdict {
                supported,
                code: 0,
                reason: format!("no {} of {how}", node.op()),
            }
        };
        Ok(Partition {
            verdicts: view.nodes().map(verdict).collect(),
            atomic_sets: Vec::new(),
        })
    }

    fn compile(&self, image: &[u8], _: &dyn Weights, _: &str) -> Result<Vec<u8>, DelegateError> {
        let view = verify(image).unwrap();
        if let Some(node) = view.nodes().find(|n| n.op() == self.fails && is_quantized(n)) {
            return Err(DelegateError {
                backend: self.name.into(),
                code: Status::UNSUPPORTED,
                vendor_code: 0,
                node: Some(node.index().0),
                message: "too wide".to_string(),
                hint: String::new(),
            });
        }
        let ops: Vec<&str> = view.nodes().map(|n| n.op()).collect();
        let names = |view: &ImageView<'_>, outputs: bool| -> Vec<String> {
            let list = if outputs { view.outputs() } else { view.inputs() };
            list.iter().map(|v| view.value(v).name().to_string()).collect()
        };
        let text = format!(
            "{} {}->{}",
            ops.join(","),
            names(&view, false).join(","),
            names(&view, true).join(",")
        );
        Ok(text.into_bytes())
    }
}

fn q(graph: &mut Graph, op: &str, x: ValueId, dtype: DType) -> ValueId {
    let ty = TensorType::new(dtype, graph.tensor(x).unwrap().shape.clone());
    let (low, high) = (Arg::int(-128), Arg::int(127));
    let args = vec![x.into(), 0.5.into(), 0.into(), low, high, DType::I8.into()];
    let op = format!("quantized_decomposed::{op}_per_tensor");
    graph.push(&op, args, vec![ty.into()]).unwrap()[0]
}

const Q: &str = "quantize";
const DQ: &str = "dequantize";

/// `q -> dq -> mul -> relu -> q -> dq -> add <- dq (of the first) -> q`, where `mul` squares and `add` reads two.
fn module() -> Module {
    let mut module = Module::default();
    let mut graph = Graph::new("forward");
    let ty = || TensorType::fixed(DType::F32, &[64, 64]).into();
    let x = graph.add_input("x", ty());
    let a = q(&mut graph, Q, x, DType::I8);
    let real = q(&mut graph, DQ, a, DType::F32);
    let b = graph
        .push("aten::mul.Tensor", vec![real.into(), real.into()], vec![ty()])
        .unwrap()[0];
    let b = graph.push("aten::relu", vec![b.into()], vec![ty()]).unwrap()[0];
    let b = q(&mut graph, Q, b, DType::I8);
    let b = q(&mut graph, DQ, b, DType::F32);
    let c = graph
        .push("aten::add.Tensor", vec![b.into(), real.into()], vec![ty()])
        .unwrap()[0];
    let c = q(&mut graph, Q, c, DType::I8);
    graph.add_output(c);
    module.graphs.push(graph);
    module
}

fn lowered(backends: Vec<Made>) -> (Module, Lowered) {
    let options = LowerOptions {
        backends: backends.iter().map(|b| b.name.to_string()).collect(),
        policy: Policy {
            min_nodes: 1,
            boundary_penalty: 0.0,
            ..Policy::default()
        },
        ..LowerOptions::default()
    };
    let slot = |made: Made| -> Slot { (made.name.to_string(), Ok(Box::new(made))) };
    let mut module = module();
    let slots = backends.into_iter().map(slot).collect();
    let report = lower_with(&mut module, &options, slots, &mut |_| {}).unwrap();
    delegraph_ir::verify(&module).unwrap();
    (module, report)
}

fn blobs(report: &Lowered) -> Vec<String> {
    let candidates = report.graphs[0].regions.iter().flat_map(|r| &r.candidates);
    candidates
        .map(|c| format!("{}: {}", c.backend, String::from_utf8_lossy(&c.blob)))
        .collect()
}

fn made(name: &'static str, folds: bool, takes: fn(&NodeView<'_>) -> bool) -> Made {
    Made {
        name,
        folds,
        takes,
        fails: "",
    }
}

#[test]
fn who_takes_integers_gets_regions_of_integers() {
    // The explicit quantization before stays outside: this one takes folded nodes only.
    let (module, report) = lowered(vec![made("npu", true, is_quantized)]);
    assert_eq!(
        blobs(&report),
        ["npu: aten::mul.Tensor,aten::add.Tensor quantize_per_tensor_0->quantize_per_tensor_7"]
    );
    let graph = &report.graphs[0];
    assert_eq!(graph.regions[0].operators.len(), 2);
    // Copies that were made for it are gone: both readers are in one region.
    assert_eq!(module.graphs[0].nodes.len(), 8);
    let into: Vec<(&str, Option<&str>)> = graph
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.folded_into.as_deref()))
        .collect();
    assert_eq!(into[0], ("quantize_per_tensor_0", None));
    assert!(into.contains(&("relu_3", Some("mul_2"))) && into.contains(&("quantize_per_tensor_7", Some("add_6"))));
    assert!(into.contains(&("mul_2", None)));
}

#[test]
fn what_is_refused_folded_is_asked_about_in_parts() {
    // It multiplies integers, and adds floats only.
    let takes = |node: &NodeView<'_>| match node.op() {
        "aten::mul.Tensor" => is_quantized(node),
        op => !is_quantized(node) && op != "aten::relu",
    };
    let (_, report) = lowered(vec![made("npu", true, takes)]);
    let graph = &report.graphs[0];
    assert!(graph.nodes.iter().all(|n| n.owner.is_some()), "{:?}", graph.nodes);
    let operators: u32 = graph.regions.iter().flat_map(|r| &r.operators).map(|(_, n)| n).sum();
    // q, mul, dq, dq, add, q
    assert_eq!((operators, graph.regions.len()), (6, 1));
    // Neither way: the report says both.
    let (_, report) = lowered(vec![made("npu", true, |n| n.op() != "aten::add.Tensor")]);
    let add = report.graphs[0].why("add_6").next().unwrap();
    assert_eq!(
        add.refusals[0].reason,
        "no aten::add.Tensor of floats; folded into `add_6`: no aten::add.Tensor of integers"
    );
}

#[test]
fn two_that_see_it_differently_make_blobs_with_one_border() {
    let (_, report) = lowered(vec![made("npu", true, |_| true), made("cpu", false, |_| true)]);
    let blobs = blobs(&report);
    assert_eq!(
        blobs[0],
        "npu: quantized_decomposed::quantize_per_tensor,aten::mul.Tensor,aten::add.Tensor x->quantize_per_tensor_7"
    );
    assert!(blobs[1].starts_with("cpu: ") && blobs[1].ends_with(" x->quantize_per_tensor_7"));
    assert!(blobs[1].contains("aten::relu"));
}

#[test]
fn a_folded_node_that_does_not_compile_is_left_out_whole() {
    let npu = Made {
        fails: "aten::add.Tensor",
        ..made("npu", true, |_| true)
    };
    let (_, report) = lowered(vec![npu]);
    let graph = &report.graphs[0];
    assert_eq!(graph.problems[0].node.as_deref(), Some("add_6"));
    for node in ["add_6", "quantize_per_tensor_7", "dequantize_per_tensor_5"] {
        assert_eq!(graph.why(node).next().unwrap().owner, None, "{node}");
    }
    assert_eq!(graph.why("mul_2").next().unwrap().owner.as_deref(), Some("npu"));
}
