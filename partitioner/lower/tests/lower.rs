//! The loop with made-up delegates: they read real images, take operators by a list, and compile to the operators' names.

use delegraph_abi::Status;
use delegraph_abi::image::verify;
use delegraph_host::{DelegateError, NodeVerdict, Partition, Weights};
use delegraph_ir::{Arg, Bytes, Constant, Graph, Module, NodeId, RegionId, State, TensorType, Type, ValueId};
use delegraph_lower::{Backend, LowerError, LowerOptions, Lowered, Slot, lower_with};
use delegraph_tag::{Policy, Rule};
use delegraph_types::{DType, Dims};
use std::cell::RefCell;
use std::rc::Rc;

/// What a made-up delegate was asked to do.
#[derive(Default)]
struct Log {
    asked: Vec<Vec<String>>,
    compiled: Vec<String>,
    /// Calls of `compile`, failed ones included.
    tries: usize,
}

struct Fake {
    name: &'static str,
    takes: &'static [&'static str],
    /// Refuses to compile a region with this operator, and says so (`true`) or does not say where.
    refuses: Option<(&'static str, bool)>,
    /// What its compiler fails with.
    code: Status,
    fails_to_answer: bool,
    log: Rc<RefCell<Log>>,
}

fn fake(name: &'static str, takes: &'static [&'static str]) -> Fake {
    Fake {
        name,
        takes,
        refuses: None,
        code: Status::UNSUPPORTED,
        fails_to_answer: false,
        log: Rc::default(),
    }
}

impl Fake {
    fn error(&self, node: Option<u32>, message: &str) -> DelegateError {
        DelegateError {
            backend: self.name.into(),
            code: self.code,
            vendor_code: 0,
            node,
            message: message.to_string(),
            hint: "use less".to_string(),
        }
    }
}

impl Backend for Fake {
    fn name(&self) -> &str {
        self.name
    }

    fn partition(&self, image: &[u8], _: &str) -> Result<Partition, DelegateError> {
        if self.fails_to_answer {
            return Err(self.error(None, "out of order"));
        }
        let view = verify(image).unwrap();
        let ops: Vec<String> = view.nodes().map(|n| n.op().to_string()).collect();
        let verdict = |op: &String| {
            let supported = self.takes.contains(&op.as_str());
            NodeVerdict {
                supported,
                code: 0,
                reason: if supported { String::new() } else { format!("no {op}") },
            }
        };
        let verdicts = ops.iter().map(verdict).collect();
        self.log.borrow_mut().asked.push(ops);
        Ok(Partition {
            verdicts,
            atomic_sets: Vec::new(),
        })
    }

    fn compile(&self, image: &[u8], weights: &dyn Weights, target: &str) -> Result<Vec<u8>, DelegateError> {
        let view = verify(image).unwrap();
        self.log.borrow_mut().tries += 1;
        if let Some((op, says)) = self.refuses
            && let Some(node) = view.nodes().find(|n| n.op() == op)
        {
            return Err(self.error(says.then_some(node.index().0), "too wide"));
        }
        let ops: Vec<&str> = view.nodes().map(|n| n.op()).collect();
        let bytes: usize = view.weights().map(|w| weights.bytes(w.id()).unwrap().len()).sum();
        let text = format!("{}/{target}:{}:{bytes}", self.name, ops.join(","));
        self.log.borrow_mut().compiled.push(text.clone());
        Ok(text.into_bytes())
    }
}

fn ty() -> Type {
    TensorType::fixed(DType::F32, &[4, 4]).into()
}

/// A chain of operators over 4x4; binary ones multiply with a weight.
fn chain(ops: &[&str]) -> Module {
    let mut module = Module::default();
    let mut graph = Graph::new("forward");
    let mut last = graph.add_input("x", ty());
    for op in ops {
        let mut args: Vec<Arg> = vec![last.into()];
        if *op == "aten::mul.Tensor" {
            let name = format!("w{}", module.constants.len());
            let bytes = Bytes::from(vec![0u8; 64]);
            let id = module.constants.push(Constant::contiguous(
                &name,
                DType::F32,
                Dims::new(&[4, 4]).unwrap(),
                bytes,
            ));
            args.push(
                graph
                    .add_constant(name, TensorType::fixed(DType::F32, &[4, 4]), id)
                    .into(),
            );
        }
        last = graph.push(op, args, vec![ty()]).unwrap()[0];
    }
    graph.add_output(last);
    module.graphs.push(graph);
    module
}

fn options(min_nodes: u32) -> LowerOptions {
    LowerOptions {
        policy: Policy {
            min_nodes,
            boundary_penalty: 0.0,
            ..Policy::default()
        },
        ..LowerOptions::default()
    }
}

fn run(module: &mut Module, options: &LowerOptions, fakes: Vec<Fake>) -> Lowered {
    let slots: Vec<Slot> = fakes
        .into_iter()
        .map(|f| (f.name.to_string(), Ok(Box::new(f) as Box<dyn Backend>)))
        .collect();
    lower_with(module, options, slots, &mut |_| {}).unwrap()
}

fn blobs(lowered: &Lowered) -> Vec<Vec<String>> {
    let text = |c: &delegraph_lower::CompiledCandidate| String::from_utf8(c.blob.clone()).unwrap();
    lowered.graphs[0]
        .regions
        .iter()
        .map(|r| r.candidates.iter().map(text).collect())
        .collect()
}

fn refusals(lowered: &Lowered, node: usize) -> Vec<&str> {
    lowered.graphs[0].nodes[node]
        .refusals
        .iter()
        .map(|r| r.reason.as_str())
        .collect()
}

#[test]
fn a_region_is_compiled_with_its_weights_and_marked() {
    let mut module = chain(&["aten::sin", "aten::mul.Tensor", "aten::relu", "aten::cos"]);
    let mut options = options(1);
    options.targets.insert("a".into(), "t1".into());
    let lowered = run(
        &mut module,
        &options,
        vec![fake("a", &["aten::mul.Tensor", "aten::relu"])],
    );
    assert_eq!(blobs(&lowered), [["a/t1:aten::mul.Tensor,aten::relu:64"]]);
    let region = &lowered.graphs[0].regions[0];
    let graph = &module.graphs[0];
    assert_eq!(
        (&region.inputs, &region.outputs),
        (&graph.nodes[0].outputs, &graph.nodes[2].outputs)
    );
    assert_eq!(
        region.operators,
        [("aten::mul.Tensor".to_string(), 1), ("aten::relu".to_string(), 1)]
    );
    assert_eq!(region.candidates[0].weights, [(0, delegraph_ir::ConstantId(0))]);
    assert_eq!(region.candidates[0].target, "t1");
    let tags: Vec<Option<RegionId>> = graph.nodes.iter().map(|n| n.region).collect();
    assert_eq!(tags, [None, Some(RegionId(0)), Some(RegionId(0)), None]);
    assert_eq!(refusals(&lowered, 0), ["no aten::sin"]);
    assert_eq!(lowered.graphs[0].nodes[1].owner.as_deref(), Some("a"));
    let coverage = lowered.coverage();
    assert_eq!(
        (coverage.nodes, coverage.delegated_nodes, coverage.node_share()),
        (4, 2, 0.5)
    );
}

#[test]
fn what_nobody_takes_whole_is_decomposed_and_asked_about_again() {
    let mut module = chain(&["aten::relu", "aten::silu", "aten::relu"]);
    let parts = fake("a", &["aten::relu", "aten::sigmoid", "aten::mul.Tensor"]);
    let log = parts.log.clone();
    let lowered = run(&mut module, &options(1), vec![parts]);
    assert_eq!(
        blobs(&lowered),
        [["a/:aten::relu,aten::sigmoid,aten::mul.Tensor,aten::relu:0"]]
    );
    let decomposed = &lowered.graphs[0].decomposed;
    assert_eq!((decomposed.len(), decomposed[0].op), (1, "aten::silu"));
    assert_eq!(
        lowered.graphs[0].why("silu_1").next().unwrap().refusals[0].reason,
        "no aten::silu"
    );
    // The whole graph twice, and nothing after that: the second answer settles it.
    assert_eq!(log.borrow().asked.len(), 2);
}

#[test]
fn what_somebody_takes_whole_stays_whole() {
    let mut module = chain(&["aten::relu", "aten::silu"]);
    let first = fake("a", &["aten::relu", "aten::sigmoid", "aten::mul.Tensor"]);
    let lowered = run(&mut module, &options(1), vec![first, fake("b", &["aten::silu"])]);
    assert_eq!(blobs(&lowered), [["a/:aten::relu:0"], ["b/:aten::silu:0"]]);
    assert!(lowered.graphs[0].decomposed.is_empty());
}

#[test]
fn a_refused_node_is_left_out_and_the_rest_is_not_compiled_twice() {
    let ops = ["aten::relu", "aten::sin", "aten::cos", "aten::exp", "aten::relu"];
    let mut module = chain(&ops);
    let picky = Fake {
        refuses: Some(("aten::cos", true)),
        ..fake("a", &["aten::relu", "aten::cos", "aten::exp"])
    };
    let log = picky.log.clone();
    let lowered = run(&mut module, &options(1), vec![picky]);
    assert_eq!(blobs(&lowered), [["a/:aten::relu:0"], ["a/:aten::exp,aten::relu:0"]]);
    assert_eq!(refusals(&lowered, 2), ["it did not compile: too wide (hint: use less)"]);
    let problem = &lowered.graphs[0].problems[0];
    assert_eq!((problem.node.as_deref(), problem.nodes.len()), (Some("cos_2"), 3));
    assert_eq!(log.borrow().compiled, ["a/:aten::relu:0", "a/:aten::exp,aten::relu:0"]);
}

#[test]
fn a_node_that_the_compiler_does_not_name_is_found_and_goes_to_the_next_backend() {
    let mut module = chain(&["aten::relu", "aten::cos"]);
    let picky = Fake {
        refuses: Some(("aten::cos", false)),
        ..fake("a", &["aten::relu", "aten::cos"])
    };
    let lowered = run(
        &mut module,
        &options(1),
        vec![picky, fake("b", &["aten::relu", "aten::cos"])],
    );
    assert_eq!(
        blobs(&lowered),
        [vec!["a/:aten::relu:0", "b/:aten::relu:0"], vec!["b/:aten::cos:0"]]
    );
    assert_eq!(
        refusals(&lowered, 1),
        ["it did not compile: too wide (hint: use less) (found by compiling parts of its region)"]
    );
    assert_eq!(lowered.graphs[0].problems[0].node.as_deref(), Some("cos_1"));
}

#[test]
fn of_forty_nodes_one_that_breaks_the_compiler_costs_itself_alone() {
    for at in [0, 1, 17, 38, 39] {
        for code in [
            Status::INTERNAL,
            Status::DEVICE_LOST,
            Status::TIMEOUT,
            Status::UNSUPPORTED,
        ] {
            let mut ops = ["aten::relu"; 40];
            ops[at] = "aten::cos";
            let mut module = chain(&ops);
            let picky = Fake {
                refuses: Some(("aten::cos", false)),
                code,
                ..fake("a", &["aten::relu", "aten::cos"])
            };
            let log = picky.log.clone();
            let lowered = run(&mut module, &options(1), vec![picky]);
            let nodes = &lowered.graphs[0].nodes;
            let left: Vec<usize> = (0..40).filter(|i| nodes[*i].owner.is_none()).collect();
            assert_eq!(left, [at]);
            // The whole, six parts (40 has six binary digits), and what lies before and behind.
            assert!(log.borrow().tries <= 1 + 6 + 2, "{} for {at}", log.borrow().tries);
        }
    }
}

#[test]
fn nothing_is_searched_after_a_cancellation() {
    let mut module = chain(&["aten::relu", "aten::cos", "aten::relu"]);
    let cancelled = Fake {
        refuses: Some(("aten::cos", false)),
        code: Status::CANCELLED,
        ..fake("a", &["aten::relu", "aten::cos"])
    };
    let log = cancelled.log.clone();
    let lowered = run(&mut module, &options(1), vec![cancelled]);
    assert!(lowered.graphs[0].regions.is_empty());
    assert_eq!(log.borrow().tries, 1);
}

#[test]
fn a_compiler_that_refuses_everything_comes_to_an_end() {
    for (says, most) in [(true, 20), (false, 80)] {
        let mut module = chain(&["aten::relu"; 50]);
        let picky = Fake {
            refuses: Some(("aten::relu", says)),
            ..fake("a", &["aten::relu"])
        };
        let log = picky.log.clone();
        let lowered = run(&mut module, &options(1), vec![picky]);
        assert!(lowered.graphs[0].regions.is_empty());
        assert!(
            lowered.graphs[0]
                .nodes
                .iter()
                .all(|n| n.owner.is_none() && n.refusals.len() == 1)
        );
        assert!(module.graphs[0].nodes.iter().all(|n| n.region.is_none()));
        assert!(log.borrow().tries <= most, "{}", log.borrow().tries);
    }
}

#[test]
fn others_that_take_the_whole_region_are_further_candidates() {
    let all: &[&str] = &["aten::relu", "aten::cos"];
    let mut module = chain(&["aten::relu", "aten::cos"]);
    let fakes = || {
        vec![
            fake("a", &["aten::relu"]),
            fake("b", all),
            fake("c", all),
            fake("d", all),
        ]
    };
    let mut options = options(2);
    options.policy.rules.push(Rule {
        op: Some("aten.cos".into()),
        deny: vec!["d".into()],
        ..Rule::default()
    });
    let lowered = run(&mut module, &options, fakes());
    assert_eq!(
        blobs(&lowered),
        [["b/:aten::relu,aten::cos:0", "c/:aten::relu,aten::cos:0"]]
    );
    // One that takes the nodes but does not compile them is a problem and no candidate.
    let mut module = chain(&["aten::relu", "aten::cos"]);
    let picky = Fake {
        refuses: Some(("aten::cos", true)),
        ..fake("e", all)
    };
    let lowered = run(&mut module, &options, vec![fake("b", all), picky]);
    assert_eq!(blobs(&lowered), [["b/:aten::relu,aten::cos:0"]]);
    assert_eq!(lowered.graphs[0].problems[0].backend, "e");
}

#[test]
fn an_absent_or_failing_delegate_is_reported_or_with_strict_an_error() {
    let slots = || -> Vec<Slot> {
        let failing = Fake {
            fails_to_answer: true,
            ..fake("b", &[])
        };
        vec![
            ("a".to_string(), Err("library not found".to_string())),
            ("b".to_string(), Ok(Box::new(failing))),
            ("c".to_string(), Ok(Box::new(fake("c", &["aten::relu"])))),
        ]
    };
    let mut module = chain(&["aten::relu", "aten::sin"]);
    let lowered = lower_with(&mut module, &options(1), slots(), &mut |_| {}).unwrap();
    assert_eq!(lowered.backends[0].problem.as_deref(), Some("library not found"));
    assert!(lowered.backends[1].problem.as_deref().unwrap().contains("out of order"));
    assert_eq!(lowered.backends[2].problem, None);
    assert_eq!(blobs(&lowered), [["c/:aten::relu:0"]]);
    assert_eq!(refusals(&lowered, 1)[0], "library not found");
    let strict = LowerOptions {
        strict: true,
        ..options(1)
    };
    for (skip, name) in [(0, "a"), (1, "b")] {
        let slots = slots().into_iter().skip(skip).collect();
        match lower_with(&mut chain(&["aten::relu"]), &strict, slots, &mut |_| {}) {
            Err(LowerError::Delegate { backend, .. }) => assert_eq!(backend, name),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn without_a_delegate_nothing_is_decomposed() {
    let mut module = chain(&["aten::silu"]);
    let slots = vec![("a".to_string(), Err("library not found".to_string()))];
    let lowered = lower_with(&mut module, &options(1), slots, &mut |_| {}).unwrap();
    assert_eq!(module.graphs[0].nodes[0].op.name(), "aten::silu");
    assert_eq!(refusals(&lowered, 0), ["library not found"]);
}

#[test]
fn control_flow_dead_nodes_and_subgraphs_are_not_offered() {
    let mut module = chain(&["aten::relu"]);
    let graph = &mut module.graphs[0];
    let x = ValueId(0);
    graph.push("aten::exp", vec![x.into()], vec![ty()]).unwrap();
    let mut body = Graph::new("body");
    let inner = body.add_input("x", ty());
    let out = body.push("aten::silu", vec![inner.into()], vec![ty()]).unwrap()[0];
    body.add_output(out);
    let subgraph = || Arg::Graph(Box::new(body.clone()));
    let args = vec![Arg::Bool(true), subgraph(), subgraph(), Arg::Values(vec![x])];
    let y = graph.push("higher_order::cond", args, vec![ty()]).unwrap()[0];
    graph.add_output(y);
    let all = fake("a", &["aten::relu", "aten::exp", "aten::sigmoid", "higher_order::cond"]);
    let log = all.log.clone();
    let lowered = run(&mut module, &options(1), vec![all]);
    assert_eq!(log.borrow().asked[0], ["aten::relu"]);
    assert_eq!(refusals(&lowered, 1), ["nothing reads what it makes"]);
    assert_eq!(refusals(&lowered, 2), ["control flow stays on the CPU"]);
    // The nodes of both branches count, and are as they were.
    assert_eq!(lowered.coverage().nodes, 5);
    let Arg::Graph(body) = &module.graphs[0].nodes[2].args[1] else {
        panic!()
    };
    assert_eq!(body.nodes[0].op.name(), "aten::silu");
}

#[test]
fn states_are_inputs_and_each_method_has_its_regions() {
    let mut module = chain(&["aten::relu"]);
    module.states.push(State {
        name: "cache".into(),
        ty: TensorType::fixed(DType::F32, &[4, 4]),
        initial: None,
    });
    let mut graph = Graph::new("decode");
    let state = graph.add_value("cache", ty(), delegraph_ir::Def::State(delegraph_ir::StateId(0)));
    let out = graph.push("aten::relu", vec![state.into()], vec![ty()]).unwrap()[0];
    graph.mutations.push(delegraph_ir::Mutation {
        target: delegraph_ir::MutationTarget::State(delegraph_ir::StateId(0)),
        value: out,
    });
    module.graphs.push(graph);
    let lowered = run(&mut module, &options(1), vec![fake("a", &["aten::relu"])]);
    let regions = lowered.into_regions();
    assert_eq!(regions.len(), 2);
    assert_eq!(
        (&regions[1][0].inputs, &regions[1][0].outputs),
        (&vec![state], &vec![out])
    );
    assert_eq!(module.graphs[1].node(NodeId(0)).region, Some(RegionId(0)));
}

#[test]
fn decomposing_the_rest_leaves_the_borders_of_regions() {
    // `b` claims the dropout, which is an identity, but cannot keep an island of one node.
    let mut module = chain(&["aten::sin", "aten::relu", "aten::cos", "aten::cos"]);
    let dropout = &mut module.graphs[0].nodes[1];
    dropout.op = delegraph_ir::Op::find("aten::dropout").unwrap();
    dropout.args.extend([Arg::Float(0.5), Arg::Bool(false)]);
    let lowered = run(
        &mut module,
        &options(2),
        vec![fake("a", &["aten::cos"]), fake("b", &["aten::dropout"])],
    );
    assert_eq!(module.graphs[0].nodes[1].op.name(), "aten::dropout");
    delegraph_passes::decompose::decompose(&mut module, &|_, _| false).unwrap();
    let graph = &module.graphs[0];
    let region = &lowered.graphs[0].regions[0];
    let maker = graph.producers()[region.inputs[0].index()].unwrap();
    assert_eq!(graph.node(maker).op.name(), "aten::clone");
    assert_eq!(graph.nodes[2].inputs().next(), Some(region.inputs[0]));
}
