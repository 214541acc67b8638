//! Delegates that ask for passes or were built for an older operator table, made up: what they see, and what regions they get.

use delegraph_abi::Status;
use delegraph_abi::image::{NodeView, verify};
use delegraph_host::{DelegateError, NodeVerdict, Partition, Pass, Weights};
use delegraph_ir::{Arg, Constant, Graph, Module, TensorType, ValueId};
use delegraph_lower::{Backend, LowerOptions, Lowered, Slot, lower_with};
use delegraph_opset::Versions;
use delegraph_tag::Policy;
use delegraph_types::{DType, Dims};
use std::cell::RefCell;
use std::rc::Rc;

/// Takes what a rule says; its blobs are `opset/normal form: operators; inputs->outputs`.
struct Made {
    name: &'static str,
    passes: Vec<Pass>,
    opset: &'static str,
    takes: fn(&NodeView<'_>) -> bool,
    /// Refuses to compile a node of this operator, and names it.
    fails: &'static str,
    /// Operators of every image that it was asked about.
    asked: Rc<RefCell<Vec<Vec<String>>>>,
}

fn made(name: &'static str, passes: &[Pass], takes: fn(&NodeView<'_>) -> bool) -> Made {
    Made {
        name,
        passes: passes.to_vec(),
        opset: "torch-2.15",
        takes,
        fails: "",
        asked: Rc::default(),
    }
}

impl Backend for Made {
    fn name(&self) -> &str {
        self.name
    }

    fn passes(&self) -> &[Pass] {
        &self.passes
    }

    fn opset(&self) -> &str {
        self.opset
    }

    fn partition(&self, image: &[u8], _: &str) -> Result<Partition, DelegateError> {
        let view = verify(image).unwrap();
        let ops = view.nodes().map(|n| n.op().to_string()).collect();
        self.asked.borrow_mut().push(ops);
        let verdict = |node: NodeView<'_>| NodeVerdict {
            supported: (self.takes)(&node),
            code: 0,
            reason: format!("no {}", node.op()),
        };
        Ok(Partition {
            verdicts: view.nodes().map(verdict).collect(),
            atomic_sets: Vec::new(),
        })
    }

    fn compile(&self, image: &[u8], weights: &dyn Weights, _: &str) -> Result<Vec<u8>, DelegateError> {
        let view = verify(image).unwrap();
        for weight in view.weights() {
            assert_eq!(weights.bytes(weight.id()).unwrap().len() as u64, weight.byte_size());
        }
        if let Some(node) = view.nodes().find(|n| n.op() == self.fails) {
            return Err(DelegateError {
                backend: self.name.into(),
                code: Status::UNSUPPORTED,
                vendor_code: 0,
                node: Some(node.index().0),
                message: "too wide".to_string(),
                hint: String::new(),
            });
        }
        let ops: Vec<&str> = view.nodes().map(|n| n.op().trim_start_matches("aten::")).collect();
        let name = |v| view.value(v).name().to_string();
        let inputs: Vec<String> = view.inputs().iter().map(name).collect();
        let outputs: Vec<String> = view.outputs().iter().map(name).collect();
        let (opset, form) = (view.opset(), view.normal_form());
        let (ops, inputs, outputs) = (ops.join(","), inputs.join(","), outputs.join(","));
        Ok(format!("{opset}/{form}: {ops}; {inputs}->{outputs}").into_bytes())
    }
}

fn lowered_with(module: &mut Module, versions: &str, backends: Vec<Made>) -> Lowered {
    let options = LowerOptions {
        policy: Policy {
            min_nodes: 1,
            boundary_penalty: 0.0,
            ..Policy::default()
        },
        versions: Versions::parse(versions).unwrap(),
        ..LowerOptions::default()
    };
    let slot = |made: Made| -> Slot { (made.name.to_string(), Ok(Box::new(made))) };
    let slots = backends.into_iter().map(slot).collect();
    let report = lower_with(module, &options, slots, &mut |_| {}).unwrap();
    delegraph_ir::verify(module).unwrap();
    report
}

fn lowered(module: &mut Module, backends: Vec<Made>) -> Lowered {
    lowered_with(module, "torch-2.15\n", backends)
}

fn blobs(report: &Lowered) -> Vec<String> {
    let candidates = report.graphs[0].regions.iter().flat_map(|r| &r.candidates);
    candidates
        .map(|c| format!("{} {}", c.backend, String::from_utf8_lossy(&c.blob)))
        .collect()
}

fn reason(report: &Lowered, node: &str) -> String {
    report.graphs[0].why(node).next().unwrap().refusals[0].reason.clone()
}

struct Build {
    module: Module,
    graph: Graph,
}

impl Build {
    fn new() -> Build {
        Build {
            module: Module::default(),
            graph: Graph::new("forward"),
        }
    }

    fn input(&mut self, name: &str, sizes: &[i64]) -> ValueId {
        self.graph.add_input(name, TensorType::fixed(DType::F32, sizes).into())
    }

    fn constant(&mut self, sizes: &[i64]) -> ValueId {
        let count = sizes.iter().product::<i64>();
        let bytes: Vec<u8> = (0..count).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
        let name = format!("c{}", self.module.constants.len());
        let constant = Constant::contiguous(&name, DType::F32, Dims::new(sizes).unwrap(), bytes.into());
        let id = self.module.constants.push(constant);
        self.graph.add_constant(name, TensorType::fixed(DType::F32, sizes), id)
    }

    fn op(&mut self, op: &str, args: Vec<Arg>, sizes: &[i64]) -> ValueId {
        let ty = TensorType::fixed(DType::F32, sizes);
        self.graph.push(op, args, vec![ty.into()]).unwrap()[0]
    }

    fn finish(mut self, output: ValueId) -> Module {
        self.graph.add_output(output);
        self.module.graphs.push(self.graph);
        self.module
    }
}

fn chain(ops: &[&str]) -> Module {
    let mut b = Build::new();
    let mut x = b.input("x", &[4, 4]);
    for op in ops {
        x = b.op(op, vec![x.into()], &[4, 4]);
    }
    b.finish(x)
}

/// `conv2d -> batch_norm -> relu`
fn layer() -> Module {
    let mut b = Build::new();
    let sizes = [1, 4, 8, 8];
    let x = b.input("x", &sizes);
    let w = b.constant(&[4, 4, 1, 1]);
    let y = b.op("aten::conv2d", vec![x.into(), w.into()], &sizes);
    let mut args = vec![y.into()];
    args.extend((0..4).map(|_| b.constant(&[4]).into()));
    args.extend([Arg::Bool(false), Arg::Float(0.1), Arg::Float(1e-5), Arg::Bool(true)]);
    let y = b.op("aten::batch_norm", args, &sizes);
    let y = b.op("aten::relu", vec![y.into()], &sizes);
    b.finish(y)
}

/// Two versions; `silu` and `cos` came with the second.
const TWO: &str = "torch-2.15\ntorch-2.16\n\taten::silu\n\taten::cos\n";

#[test]
fn an_older_delegate_sees_newer_operators_taken_apart() {
    for opset in ["torch-2.15", "", "unknown"] {
        let mut old = made("old", &[], |_| true);
        old.opset = opset;
        let asked = old.asked.clone();
        let mut module = chain(&["aten::relu", "aten::silu", "aten::relu"]);
        let report = lowered_with(&mut module, TWO, vec![old]);
        let nodes = "relu,sigmoid,mul.Tensor,relu";
        assert_eq!(blobs(&report), [format!("old torch-2.15/0: {nodes}; x->relu_2")]);
        assert!(asked.borrow().iter().flatten().all(|op| op != "aten::silu"));
        assert_eq!(
            report.graphs[0].decomposed[0].refusals[0].reason,
            "not offered: `aten::silu` is of the operator table torch-2.16, and the delegate was built for torch-2.15"
        );
    }
}

#[test]
fn a_delegate_of_the_same_or_a_later_table_sees_them_whole() {
    for opset in ["torch-2.16", "torch-2.40", "torch-3.0"] {
        let mut new = made("new", &[], |_| true);
        new.opset = opset;
        let report = lowered_with(&mut chain(&["aten::relu", "aten::silu"]), TWO, vec![new]);
        assert_eq!(blobs(&report), ["new torch-2.16/0: relu,silu; x->silu_1"]);
    }
}

#[test]
fn what_is_newer_and_cannot_be_taken_apart_stays_and_says_why() {
    let report = lowered_with(
        &mut chain(&["aten::relu", "aten::cos"]),
        TWO,
        vec![made("old", &[], |_| true)],
    );
    assert_eq!(blobs(&report), ["old torch-2.15/0: relu; x->relu_0"]);
    assert!(reason(&report, "cos_1").contains("`aten::cos` is of the operator table torch-2.16"));
    // Beside one that has it, the older one gets what both know.
    let mut new = made("new", &[], |n| n.op() != "aten::relu");
    new.opset = "torch-2.16";
    let mut module = chain(&["aten::relu", "aten::silu"]);
    let report = lowered_with(&mut module, TWO, vec![made("old", &[], |_| true), new]);
    assert_eq!(
        blobs(&report),
        [
            "old torch-2.15/0: relu; x->relu_0",
            "new torch-2.16/0: silu; relu_0->silu_1"
        ]
    );
}

#[test]
fn a_folded_batch_norm_covers_both_nodes_and_the_border_is_that_of_others() {
    let folding = made("npu", &[Pass::FoldBatchNorm], |n| n.op() != "aten::batch_norm");
    let report = lowered(&mut layer(), vec![folding, made("cpu", &[], |_| true)]);
    assert_eq!(
        blobs(&report),
        [
            "npu torch-2.15/0: conv2d,relu; x->relu_2",
            "cpu torch-2.15/0: conv2d,batch_norm,relu; x->relu_2"
        ]
    );
    let graph = &report.graphs[0];
    assert_eq!(
        graph.why("batch_norm_1").next().unwrap().folded_into.as_deref(),
        Some("conv2d_0")
    );
    // The weights are the new ones, after the five of the model.
    let weights: Vec<usize> = graph.regions[0].candidates[0]
        .weights
        .iter()
        .map(|(_, c)| c.index())
        .collect();
    assert_eq!(weights, [5, 6]);
}

#[test]
fn a_layer_that_is_refused_folded_is_asked_about_in_parts() {
    // It has no bias.
    let picky = made("npu", &[Pass::FoldBatchNorm], |n| {
        n.op() != "aten::conv2d" || n.arg(2).is_none()
    });
    let report = lowered(&mut layer(), vec![picky]);
    assert_eq!(blobs(&report), ["npu torch-2.15/0: conv2d,batch_norm,relu; x->relu_2"]);
}

fn attention() -> Module {
    let mut b = Build::new();
    let [q, k, v] = ["q", "k", "v"].map(|name| b.input(name, &[1, 2, 6, 8]));
    let k = b.op(
        "aten::transpose.int",
        vec![k.into(), Arg::int(2), Arg::int(3)],
        &[1, 2, 8, 6],
    );
    let s = b.op("aten::matmul", vec![q.into(), k.into()], &[1, 2, 6, 6]);
    let s = b.op("aten::mul.Tensor", vec![s.into(), Arg::Float(0.5)], &[1, 2, 6, 6]);
    let p = b.op("aten::softmax.int", vec![s.into(), Arg::int(-1)], &[1, 2, 6, 6]);
    let y = b.op("aten::matmul", vec![p.into(), v.into()], &[1, 2, 6, 8]);
    let y = b.op("aten::relu", vec![y.into()], &[1, 2, 6, 8]);
    b.finish(y)
}

fn keep(operator: &str) -> Vec<Pass> {
    vec![Pass::Keep(operator.to_string())]
}

#[test]
fn attention_that_was_taken_apart_is_seen_whole_by_who_keeps_it() {
    let whole = |n: &NodeView<'_>| n.op() == "aten::scaled_dot_product_attention";
    let npu = made("npu", &keep("aten::scaled_dot_product_attention"), whole);
    let report = lowered(&mut attention(), vec![npu]);
    assert_eq!(
        blobs(&report),
        ["npu torch-2.15/0: scaled_dot_product_attention; k,q,v->matmul_4"]
    );
    let report = lowered(&mut attention(), vec![made("npu", &keep("aten::gelu"), whole)]);
    assert!(report.graphs[0].regions.is_empty());
}

#[test]
fn what_is_kept_is_not_taken_apart_for_somebody_before() {
    let mut b = Build::new();
    let [q, k, v] = ["q", "k", "v"].map(|name| b.input(name, &[1, 2, 6, 8]));
    let y = b.op(
        "aten::scaled_dot_product_attention",
        vec![q.into(), k.into(), v.into()],
        &[1, 2, 6, 8],
    );
    let parts = made("cpu", &[], |n| n.op() != "aten::scaled_dot_product_attention");
    let npu = made("npu", &keep("aten::scaled_dot_product_attention"), |n| {
        n.op().contains("attention")
    });
    let report = lowered(&mut b.finish(y), vec![parts, npu]);
    assert!(report.graphs[0].decomposed.is_empty());
    assert_eq!(report.graphs[0].nodes[0].owner.as_deref(), Some("npu"));
}

#[test]
fn an_operator_that_does_not_exist_cannot_be_kept() {
    let report = lowered(
        &mut chain(&["aten::relu"]),
        vec![made("npu", &keep("aten::gelo"), |_| true)],
    );
    let problem = report.backends[0].problem.as_deref().unwrap();
    assert!(
        problem.contains("asks for `keep:aten::gelo`") && problem.contains("did you mean `aten::gelu`?"),
        "{problem}"
    );
    // A later table may have it.
    let mut newer = made("npu", &keep("aten::gelo"), |_| true);
    newer.opset = "torch-9.0";
    let report = lowered(&mut chain(&["aten::relu"]), vec![newer]);
    assert_eq!(report.backends[0].problem, None);
    assert_eq!(report.graphs[0].regions.len(), 1);
}

#[test]
fn with_channels_last_the_border_stays_and_the_inside_is_turned() {
    let takes = |n: &NodeView<'_>| {
        let image = n.image();
        let last = |v| image.value(v).const_dims().unwrap()[3] == 4;
        n.op() == "aten::permute" || n.image().normal_form() == 0 || n.outputs().iter().all(last)
    };
    let npu = made("npu", &[Pass::Nhwc], takes);
    let both = made("dsp", &[Pass::FoldBatchNorm, Pass::Nhwc], takes);
    let report = lowered(&mut layer(), vec![npu, both, made("cpu", &[], takes)]);
    assert_eq!(
        blobs(&report),
        [
            "npu torch-2.15/1: permute,conv2d,batch_norm,relu,permute; x->relu_2",
            "dsp torch-2.15/1: permute,conv2d,relu,permute; x->relu_2",
            "cpu torch-2.15/0: conv2d,batch_norm,relu; x->relu_2"
        ]
    );
}

#[test]
fn who_refuses_a_permutation_or_fails_on_it_loses_the_node_that_needs_it() {
    // The convolution needs one before it, the activation one behind it.
    let npu = made("npu", &[Pass::Nhwc], |n| n.op() != "aten::permute");
    let report = lowered(&mut layer(), vec![npu]);
    assert_eq!(reason(&report, "conv2d_0"), "no aten::permute");
    let mut npu = made("npu", &[Pass::Nhwc], |_| true);
    npu.fails = "aten::permute";
    let report = lowered(&mut layer(), vec![npu]);
    assert_eq!(report.graphs[0].problems[0].node.as_deref(), Some("conv2d_0"));
    assert_eq!(reason(&report, "conv2d_0"), "it did not compile: too wide");
}
