//! Delegates that hear of their target, and that compile several graphs together.

mod common;

use common::{check, config, fixture, leaf, open, source};
use delegraph::{DType, Dims, LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_host::{Host, HostOptions};
use delegraph_ir::{Arg, Bytes, Constant, Graph, Module, TensorType};
use delegraph_pte::Verified;
use delegraph_pte::overlay::SECTION_KEY;
use delegraph_reference::Reference;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, Error, Info, OptionValue, Options, Partition, Reason, Run,
    Section, SetError, Verdict, Weights, roles, static_entry_as,
};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What was asked of the delegates of this process, by the option `log`.
static LOG: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

fn logged(name: &str) -> Vec<String> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter()
        .filter(|(of, _)| of == name)
        .map(|(_, line)| line.clone())
        .collect()
}

/// The reference delegate for two chips: `small` has no softmax. It compiles all graphs of a file together, with their weights in one
/// section.
struct Chips {
    inner: Reference,
    log: String,
    /// `node`: refuses `aten::gelu` in a set, and says where. `set`: refuses every set.
    fail: String,
}

impl Chips {
    fn log(&self, line: String) {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        log.push((self.log.clone(), line));
    }
}

impl Delegate for Chips {
    const INFO: Info = Info {
        name: "chips",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "chips.reference",
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Chips, Error> {
        options.check(&["log", "fail"])?;
        let text = |key| match options.find(key) {
            Some(OptionValue::Str(text)) => text.to_string(),
            _ => String::new(),
        };
        Ok(Chips {
            inner: Reference::new(&Options::default(), context)?,
            log: text("log"),
            fail: text("fail"),
        })
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Compile for Chips {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        self.log(format!("partition {}", context.target()));
        if !["", "small", "large"].contains(&context.target()) {
            let problem = format!("there is no chip `{}`", context.target());
            return Err(Error::invalid(problem).hint("there are `small` and `large`"));
        }
        let mut partition = self.inner.partition(graph, context)?;
        for (node, verdict) in graph.nodes().zip(&mut partition.verdicts) {
            if context.target() == "small" && node.op() == "aten::softmax.int" {
                *verdict = Verdict::Refuse(Reason::TARGET, "`small` has no softmax".into());
            }
        }
        Ok(partition)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        assert_eq!(target, context.target());
        self.log(format!("compile {target}"));
        self.inner.compile(graph, weights, target, context)
    }

    fn compile_set(
        &self,
        graphs: &[(ImageView<'_>, Weights<'_>)],
        target: &str,
        context: &Context<'_>,
    ) -> Result<Vec<Compiled>, SetError> {
        assert_eq!(target, context.target());
        self.log(format!("set of {} {target}", graphs.len()));
        if self.fail == "set" {
            return Err(Error::unsupported("too many for one context").into());
        }
        // Each weight once, whichever graphs have it.
        let (mut keys, mut pool) = (Vec::new(), Vec::new());
        for (number, (graph, weights)) in graphs.iter().enumerate() {
            let node = graph.nodes().find(|node| node.op() == "aten::gelu");
            if let Some(node) = node.filter(|_| self.fail == "node") {
                return Err(Error::unsupported("no gelu beside others")
                    .at(node.index())
                    .of_graph(number));
            }
            for weight in graph.weights() {
                let key = weights.share_key(weight.id());
                if key.is_none() || !keys.contains(&key) {
                    keys.push(key);
                    pool.extend_from_slice(weights.bytes(weight.id())?);
                }
            }
        }
        self.log(format!("{} weights", keys.len()));
        let mut compiled = Vec::new();
        for (number, (graph, weights)) in graphs.iter().enumerate() {
            let mut one = self
                .inner
                .compile(graph, weights, target, context)
                .map_err(|error| error.of_graph(number))?;
            one.sections.push(Section {
                name: "pool".to_string(),
                align: 64,
                bytes: pool.clone(),
            });
            compiled.push(one);
        }
        Ok(compiled)
    }
}

impl Run for Chips {
    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, Error> {
        if let Ok(pool) = blob.section("pool") {
            let hash = blob.share_hash("pool").map(|hash| hash[0]);
            self.log(format!("pool of {} at {:?}, {hash:?}", pool.len(), pool.as_ptr()));
        }
        self.inner.load(blob, weights, context)
    }
}

fn host(log: &str, fail: &str) -> Arc<Host> {
    let options = serde_json::json!({ "log": log, "fail": fail });
    let host = Host::discover(HostOptions {
        options: [("chips".to_string(), options)].into(),
        ..HostOptions::default()
    });
    let entry = static_entry_as::<Chips, (roles::CompileSet, roles::Run)>();
    host.register_static("chips", entry).unwrap();
    Arc::new(host)
}

fn chips(settings: &str) -> Config {
    config(&format!("[select]\norder = ['chips']\n{settings}"))
}

#[test]
fn a_delegate_judges_nodes_for_its_target() {
    let taken = |log: &str, settings: &str| {
        let mut module = delegraph::import(&source("arch-mlp-dynamic-batch")).unwrap();
        let report = delegraph::partition(&mut module, &chips(settings), &host(log, ""), &mut |_| {});
        report.map(|report| (report.coverage().delegated_nodes, report))
    };
    assert_eq!(taken("plain", "").unwrap().0, 5);
    assert_eq!(logged("plain")[..1], ["partition "]);
    let (_, report) = taken("small", "[backend.chips]\ntarget = 'small'\n").unwrap();
    let refused = report.graphs[0].why("softmax").next().unwrap();
    assert_eq!(refused.refusals[0].reason, "`small` has no softmax");
    assert_eq!(report.graphs[0].regions[0].candidates[0].target, "small");
    assert_eq!(logged("small").last().unwrap(), "compile small");
    let error = taken("none", "[backend.chips]\ntarget = 'tiny'\n").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(
        text.contains("`tiny`") && text.contains("there are `small` and `large`"),
        "{text}"
    );
    // Who runs a model falls back, and hears of it.
    let session = open(
        &source("arch-mlp-dynamic-batch"),
        &chips("[backend.chips]\ntarget = 'tiny'\n"),
        &host("", ""),
    );
    let problems = session.unwrap().report().problems;
    assert!(problems[0].1.contains("there is no chip `tiny`"), "{problems:?}");
}

/// Two methods that multiply by the same matrix, `second` twice.
fn two_methods() -> Module {
    let mut module = Module::default();
    let numbers: Vec<u8> = (0..64 * 64)
        .flat_map(|i| ((i % 7) as f32 / 8.0).to_le_bytes())
        .collect();
    let sizes = Dims::new(&[64, 64]).unwrap();
    let weight = Constant::contiguous("weight", DType::F32, sizes, Bytes::from(numbers));
    let weight = module.constants.push(weight);
    let fixed = |rows: i64| TensorType::fixed(DType::F32, &[rows, 64]);
    for (name, rows, times) in [("forward", 2, 1), ("second", 3, 2)] {
        let mut graph = Graph::new(name);
        let mut last = graph.add_input("x", fixed(rows).into());
        let matrix = graph.add_constant("weight", TensorType::fixed(DType::F32, &[64, 64]), weight);
        for _ in 0..times {
            let args = vec![last.into(), matrix.into()];
            last = graph.push("aten::mm", args, vec![fixed(rows).into()]).unwrap()[0];
        }
        let args = vec![last.into(), Arg::Str("none".into())];
        last = graph.push("aten::gelu", args, vec![fixed(rows).into()]).unwrap()[0];
        graph.add_output(last);
        module.graphs.push(graph);
    }
    module
}

fn method(file: &Source, name: &str, config: &Config, host: &Arc<Host>) -> Session {
    let options = LoadOptions {
        method: name.to_string(),
        ..LoadOptions::default()
    };
    Session::open(file, config, host, options).unwrap()
}

fn result(session: &mut Session, rows: i64) -> delegraph_runner::Leaf {
    let bytes: Vec<u8> = (0..rows * 64).flat_map(|i| (i as f32 / 64.0).to_le_bytes()).collect();
    let input = Value::tensor(DType::F32, Dims::new(&[rows, 64]).unwrap(), &bytes);
    session.run(&[input]).unwrap();
    leaf(session.output(0).unwrap())
}

/// Both methods, over the delegate and without it.
fn both_are_right(file: &Source, host: &Arc<Host>) {
    for (name, rows) in [("forward", 2), ("second", 3)] {
        let mut delegated = method(file, name, &chips(""), host);
        let got = result(&mut delegated, rows);
        let report = delegated.report();
        assert_eq!(
            (report.fallbacks(), report.regions.len()),
            (0, 1),
            "{}",
            report.why_portable()
        );
        let want = result(&mut method(file, name, &Config::default(), &common::nobody()), rows);
        let tolerance = fixture("arch-mlp-dynamic-batch").tolerance;
        delegraph_runner::compare::compare(&got, &want, tolerance).unwrap();
    }
}

fn sections(bytes: &[u8]) -> Vec<(String, u64)> {
    let program = Verified::parse(bytes).unwrap();
    let named = program
        .named_data
        .iter()
        .filter(|item| item.key.starts_with(SECTION_KEY));
    named
        .map(|item| {
            let segment = &program.segments[item.segment as usize];
            (item.key.clone(), segment.end - segment.start)
        })
        .collect()
}

#[test]
fn two_methods_are_compiled_together_and_store_what_they_share_once() {
    let host = host("together", "");
    let compiled = delegraph::compile(two_methods(), &chips(""), &host, &mut |_| {}).unwrap();
    let asked: Vec<String> = logged("together");
    let compiles: Vec<&str> = asked
        .iter()
        .map(String::as_str)
        .filter(|line| !line.starts_with("partition"))
        .collect();
    assert_eq!(
        compiles,
        ["set of 2 ", "1 weights"],
        "one call, one weight of two graphs"
    );
    let shared = sections(&compiled.bytes);
    assert_eq!(shared.len(), 1);
    assert_eq!(shared[0].1, 64 * 64 * 4);
    // Mapped, so that nothing has to be moved to lie aligned.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("two.pte"), &compiled.bytes).unwrap();
    let file = Source::open(folder.path().join("two.pte")).unwrap();
    both_are_right(&file, &host);
    // Both sessions were given the same memory, and the same hash of it.
    let pools: Vec<String> = logged("together")
        .into_iter()
        .filter(|line| line.starts_with("pool"))
        .collect();
    assert_eq!((pools.len(), pools[0] == pools[1]), (2, true), "{pools:?}");
    assert!(pools[0].contains("Some("), "{pools:?}");
}

#[test]
fn a_shared_section_that_is_damaged_or_gone_costs_the_delegate_and_no_more() {
    let host = host("damaged", "");
    let compiled = delegraph::compile(two_methods(), &chips(""), &host, &mut |_| {}).unwrap();
    let program = Verified::parse(&compiled.bytes).unwrap();
    let item = program
        .named_data
        .iter()
        .find(|item| item.key.starts_with(SECTION_KEY))
        .unwrap();
    let start = program.segments[item.segment as usize].start as usize;
    let key = item.key.clone();
    for what in ["byte", "key"] {
        let mut bytes = compiled.bytes.clone();
        match what {
            "byte" => bytes[start] ^= 1,
            // In the table of keys, and in no blob: there it is no text.
            _ => {
                let at = bytes
                    .windows(key.len())
                    .position(|window| window == key.as_bytes())
                    .unwrap();
                bytes[at + key.len() - 1] = b'x';
            }
        }
        let file = Source::from_bytes(bytes, "damaged.pte");
        let mut session = method(&file, "second", &chips(""), &host);
        result(&mut session, 3);
        let why = session.report().why_portable();
        assert!(why.contains("lies elsewhere"), "{what}: {why}");
    }
}

#[test]
fn a_node_that_is_refused_in_a_set_is_tagged_again() {
    let host = host("refused", "node");
    let compiled = delegraph::compile(two_methods(), &chips(""), &host, &mut |_| {}).unwrap();
    let sets: Vec<String> = logged("refused")
        .into_iter()
        .filter(|line| line.contains("set"))
        .collect();
    assert_eq!(
        sets,
        ["set of 2 ", "set of 2 ", "set of 2 "],
        "one graph after the other is without its gelu"
    );
    for graph in &compiled.report.graphs {
        assert!(
            graph.problems[0]
                .node
                .as_ref()
                .is_some_and(|name| name.starts_with("gelu"))
        );
        let gelu = graph.nodes.iter().find(|node| node.op == "aten::gelu").unwrap();
        assert!(gelu.refusals[0].reason.contains("no gelu beside others"));
        assert_eq!(graph.regions.len(), 1);
    }
}

#[test]
fn graphs_that_do_not_compile_together_are_compiled_one_by_one() {
    let host = host("apart", "set");
    let compiled = delegraph::compile(two_methods(), &chips(""), &host, &mut |_| {}).unwrap();
    let compiles: Vec<String> = logged("apart")
        .into_iter()
        .filter(|line| !line.starts_with("part"))
        .collect();
    assert_eq!(compiles, ["set of 2 ", "compile ", "compile "]);
    let problem = &compiled.report.graphs[0].problems[0].message;
    assert!(
        problem.contains("2 graphs did not compile together") && problem.contains("too many"),
        "{problem}"
    );
    assert_eq!(sections(&compiled.bytes), []);
    both_are_right(&Source::from_bytes(compiled.bytes, "two.pte"), &host);
}

#[test]
fn the_buckets_of_a_method_are_compiled_together() {
    let host = host("buckets", "");
    let config = config("[select]\norder = ['chips']\nshapes = ['s77=1', 's77=4', 's77=16']\n");
    let mut session = open(&source("arch-mlp-dynamic-batch"), &config, &host).unwrap();
    let compiles: Vec<String> = logged("buckets")
        .into_iter()
        .filter(|line| line.contains("set of"))
        .collect();
    assert_eq!(compiles, ["set of 3 "]);
    check(&mut session, &fixture("arch-mlp-dynamic-batch"));
}

/// The double in a process of its own.
#[test]
fn a_worker_hears_of_the_target_and_compiles_and_loads_sets() {
    if common::worker::lacks(&["delegraph-worker", "libdouble_delegate.so"]) {
        return;
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/double/double.delegate.toml");
    let config = |target: &str| {
        config(&format!(
            "schema = 1\n[select]\norder = ['double']\n[delegates]\nworker = '{}'\n[backend.double]\nlibrary = '{}'\n\
             isolation = 'worker'\ntarget = '{target}'\n",
            common::worker::built().join("delegraph-worker").display(),
            manifest.display(),
        ))
    };
    let wrong = config("double-9");
    let error = delegraph::compile(two_methods(), &wrong, &common::worker::host(&wrong), &mut |_| {}).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().contains("there are `double-1` and `double-2`"),
        "{error}"
    );
    let right = config("double-2");
    let host = common::worker::host(&right);
    let compiled = delegraph::compile(two_methods(), &right, &host, &mut |_| {}).unwrap();
    let shared = sections(&compiled.bytes);
    assert_eq!(shared.len(), 1, "the double puts the weights of a set into one section");
    let file = Source::from_bytes(compiled.bytes, "two.pte");
    for (name, rows) in [("forward", 2), ("second", 3)] {
        let mut session = method(&file, name, &right, &host);
        let got = result(&mut session, rows);
        let report = session.report();
        assert_eq!(
            (report.fallbacks(), report.regions.len()),
            (0, 1),
            "{}",
            report.why_portable()
        );
        assert_eq!(report.regions[0].isolation.as_deref(), Some("worker"));
        let want = result(&mut method(&file, name, &Config::default(), &common::nobody()), rows);
        let tolerance = fixture("arch-mlp-dynamic-batch").tolerance;
        delegraph_runner::compare::compare(&got, &want, tolerance).unwrap();
    }
}
