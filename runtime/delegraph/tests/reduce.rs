//! A model that is wrong on a backend comes down to the nodes that make it so.

mod common;

use common::{config, fixture, source};
use delegraph::reduce::{Case, Finding, Reduced, probe_in_process, reduce};
use delegraph::{Config, DType, Dims, Error, Session, Source, Value};
use delegraph_host::{Host, HostOptions};
use delegraph_ir::{Arg, Graph, Module, TensorType, Type, ValueId};
use delegraph_reference::Reference;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, Info, OptionValue, Options, Partition,
    Run, TensorOut, TensorView, Weights, static_entry,
};
use std::sync::Arc;

/// The reference delegate, wrong in every region in which the operators of its option `wrong` follow each other.
struct Wrong {
    inner: Reference,
    pattern: Vec<String>,
    how: String,
}

impl Delegate for Wrong {
    const INFO: Info = Info {
        name: "wrong",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "wrong.reference",
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Wrong, delegraph_sdk::Error> {
        let text = |key: &str| match options.find(key) {
            Some(OptionValue::Str(text)) => text.to_string(),
            _ => String::new(),
        };
        Ok(Wrong {
            inner: Reference::new(&Options::default(), context)?,
            pattern: text("pattern").split(' ').map(str::to_string).collect(),
            how: text("how"),
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }
}

impl Wrong {
    /// Whether nodes of these operators are there, each reading the one before it.
    fn is_struck(&self, graph: &ImageView<'_>) -> bool {
        let nodes: Vec<_> = graph.nodes().collect();
        let follows = |at: usize| {
            let mut last = at;
            nodes[at].op() == self.pattern[0]
                && self.pattern[1..].iter().all(|op| {
                    let made: Vec<_> = nodes[last].outputs().iter().collect();
                    let next = nodes.iter().position(|node| {
                        node.op() == op
                            && node
                                .args()
                                .any(|arg| arg.value().is_some_and(|value| made.contains(&value)))
                    });
                    next.inspect(|next| last = *next).is_some()
                })
        };
        (0..nodes.len()).any(follows)
    }
}

impl Compile for Wrong {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, delegraph_sdk::Error> {
        self.inner.partition(graph, context)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, delegraph_sdk::Error> {
        let mut compiled = self.inner.compile(graph, weights, target, context)?;
        if self.is_struck(graph) {
            compiled.sections[0].name = format!("{}.struck", compiled.sections[0].name);
        }
        Ok(compiled)
    }
}

impl Run for Wrong {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        BlobVerdict::by_format(&Self::INFO, meta)
    }

    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, delegraph_sdk::Error> {
        let mut sections = blob.sections.clone();
        let name = sections[0].0;
        let plain = name.trim_end_matches(".struck");
        let struck = plain != name;
        sections[0].0 = plain;
        let mut inner = blob.clone();
        inner.sections = sections;
        Ok(Box::new(WrongSession {
            inner: self.inner.load(&inner, weights, context)?,
            how: if struck { self.how.clone() } else { String::new() },
        }))
    }
}

struct WrongSession {
    inner: Box<dyn delegraph_sdk::Session>,
    how: String,
}

impl delegraph_sdk::Session for WrongSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), delegraph_sdk::Error> {
        self.inner.execute(inputs, outputs, context)?;
        match self.how.as_str() {
            "error" => Err(delegraph_sdk::Error::internal("it was struck")),
            "wrong" => {
                for first in outputs
                    .iter_mut()
                    .filter_map(|output| output.bytes.first_chunk_mut::<4>())
                {
                    *first = (f32::from_le_bytes(*first) + 1.0).to_le_bytes();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn host(pattern: &str, how: &str) -> Arc<Host> {
    let host = Host::discover(HostOptions {
        options: [(
            "wrong".to_string(),
            serde_json::json!({ "pattern": pattern, "how": how }),
        )]
        .into(),
        ..HostOptions::default()
    });
    host.register_static("wrong", static_entry::<Wrong>()).unwrap();
    Arc::new(host)
}

fn everything() -> Config {
    config("[select]\norder = [\"wrong\"]\nmax_border_bytes = 0\n")
}

fn reduced(module: &Module, inputs: &[Value<'_>], host: &Arc<Host>, max_probes: u32) -> Option<Reduced> {
    let config = everything();
    let mut probe =
        |case: &Case| -> Result<Option<Finding>, Error> { probe_in_process(case, &config, host, 1e-4, 1e-5) };
    reduce(module, "forward", inputs, max_probes, &mut probe, &mut |_| {}).unwrap()
}

fn ops(reduced: &Reduced) -> Vec<&str> {
    reduced.nodes.iter().map(|node| node.op.as_str()).collect()
}

/// Thirty nodes: chains of cheap operators over `[4, 8]` that come together again, with one `tanh` and one `sigmoid` in it.
fn thirty() -> Module {
    let ty = || Type::from(TensorType::fixed(DType::F32, &[4, 8]));
    let mut graph = Graph::new("forward");
    let x = graph.add_input("x", ty());
    let push =
        |graph: &mut Graph, op: &str, args: Vec<Arg>| -> ValueId { graph.push(op, args, vec![ty()]).unwrap()[0] };
    let (mut a, mut b) = (x, x);
    for i in 0..7 {
        a = push(&mut graph, "aten::relu", vec![a.into()]);
        a = push(&mut graph, "aten::mul.Tensor", vec![a.into(), x.into()]);
        b = push(&mut graph, "aten::neg", vec![b.into()]);
        if i == 3 {
            b = push(&mut graph, "aten::tanh", vec![b.into()]);
            a = push(&mut graph, "aten::sigmoid", vec![a.into()]);
        }
        b = push(&mut graph, "aten::add.Tensor", vec![b.into(), a.into()]);
    }
    graph.add_output(b);
    assert_eq!(graph.nodes.len(), 30);
    Module {
        graphs: vec![graph],
        ..Module::default()
    }
}

fn input() -> Vec<u8> {
    (0..32).flat_map(|i| (i as f32 * 0.07 - 1.0).to_le_bytes()).collect()
}

fn x(bytes: &[u8]) -> [Value<'_>; 1] {
    [Value::tensor(DType::F32, Dims::new(&[4, 8]).unwrap(), bytes)]
}

#[test]
fn one_wrong_operator_of_thirty_nodes_is_found() {
    let (module, bytes) = (thirty(), input());
    for how in ["wrong", "error"] {
        let host = host("aten::tanh", how);
        let reduced = reduced(&module, &x(&bytes), &host, 500).expect("it fails");
        assert_eq!(ops(&reduced), ["aten::tanh"]);
        assert!(reduced.is_smallest && reduced.probes < 60, "{} probes", reduced.probes);
        let words = reduced.finding.to_string();
        match how {
            "wrong" => assert!(words.starts_with("wrong: output 0: element 0 is"), "{words}"),
            _ => assert!(
                words.starts_with("failed: ") && words.contains("it was struck"),
                "{words}"
            ),
        }
        // What was found stands by itself: the file, its inputs and what is expected.
        let portable = Source::from_bytes(reduced.case.program.clone(), "reduced.pte");
        let mut session = Session::open(&portable, &config(""), &host, Default::default()).unwrap();
        let values: Vec<Value<'_>> = reduced.case.inputs.iter().map(|tensor| tensor.value()).collect();
        session.run(&values).unwrap();
        let Value::Tensor(output) = session.output(0).unwrap() else {
            panic!()
        };
        assert_eq!(output.bytes, reduced.case.expected[0].bytes);
        assert!(
            probe_in_process(&reduced.case, &everything(), &host, 1e-4, 1e-5)
                .unwrap()
                .is_some()
        );
        let view = delegraph_sdk::image::verify(&reduced.image).unwrap();
        assert_eq!(
            view.nodes().map(|node| node.op().to_string()).collect::<Vec<_>>(),
            ["aten::tanh"]
        );
    }
}

#[test]
fn a_pair_that_is_wrong_only_together_is_found() {
    let (module, bytes) = (thirty(), input());
    let host = host("aten::sigmoid aten::add.Tensor", "wrong");
    let reduced = reduced(&module, &x(&bytes), &host, 500).expect("it fails");
    assert_eq!(ops(&reduced), ["aten::sigmoid", "aten::add.Tensor"]);
    assert!(reduced.is_smallest);
}

#[test]
fn what_is_right_is_left_alone_and_probes_are_counted() {
    let (module, bytes) = (thirty(), input());
    assert!(reduced(&module, &x(&bytes), &host("aten::nothing", "wrong"), 500).is_none());
    assert!(reduced(&module, &x(&bytes), &host("aten::tanh", "right"), 500).is_none());
    let some = reduced(&module, &x(&bytes), &host("aten::tanh", "wrong"), 3).expect("it fails");
    assert!(
        !some.is_smallest && some.probes == 3 && ops(&some).contains(&"aten::tanh"),
        "{:?}",
        ops(&some)
    );
}

#[test]
fn an_exported_model_with_weights_state_and_dynamic_sizes_comes_down_too() {
    for (name, op) in [
        ("arch-mlp-dynamic-batch", "aten::gelu"),
        ("mtcnn-pnet", "aten::max_pool2d"),
        ("arch-kv-cache", "aten::linear"),
    ] {
        let fixture = fixture(name);
        let module = delegraph::import(&source(name)).unwrap();
        let has = module.graphs[0].nodes.iter().any(|node| node.op.name().starts_with(op));
        assert!(
            has,
            "{name} has {:?}",
            module.graphs[0].nodes.iter().map(|n| n.op.name()).collect::<Vec<_>>()
        );
        let full = module.graphs[0]
            .nodes
            .iter()
            .find(|node| node.op.name().starts_with(op))
            .unwrap();
        let inputs: Vec<Value<'_>> = fixture.cases[0].steps[0].inputs.iter().map(common::value).collect();
        let host = host(full.op.name(), "wrong");
        let reduced = reduced(&module, &inputs, &host, 500).expect("it fails");
        assert_eq!(ops(&reduced), [full.op.name()], "{name}");
    }
}
