//! Models that are compiled for sizes of their own: the right blob runs, and all other sizes run portably and say so.

mod common;

use common::{check, config, fixture, host, keeper, leaf, nobody, open, source, value};
use delegraph::{DType, Session, Source, Value};
use delegraph_abi::image::{SymbolIndex, verify};
use delegraph_config::Config;
use delegraph_ir::{
    Arg, Def, Expr, Graph, Module, Mutation, MutationTarget, State, StateId, Symbol, SymbolRange, TensorType,
};
use delegraph_runner::Leaf;

fn sized(backend: &str, shapes: &[&str]) -> Config {
    config(&format!("[select]\norder = ['{backend}']\nshapes = {shapes:?}\n"))
}

/// Made-up numbers, of which no two rows are the same.
fn tensor(sizes: &[i64]) -> Leaf {
    let count: i64 = sizes.iter().product();
    let number = |i: i64| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5;
    Leaf::Tensor {
        dtype: DType::F32,
        shape: sizes.to_vec(),
        bytes: (0..count).flat_map(|i| number(i).to_le_bytes()).collect(),
    }
}

fn run(session: &mut Session, inputs: &[Leaf]) -> Vec<Leaf> {
    let values: Vec<Value<'_>> = inputs.iter().map(value).collect();
    session.run(&values).unwrap();
    (0..session.output_count())
        .map(|i| leaf(session.output(i).unwrap()))
        .collect()
}

fn same(got: &[Leaf], want: &[Leaf]) {
    let tolerance = fixture("arch-mlp-dynamic-batch").tolerance;
    for (got, want) in got.iter().zip(want) {
        delegraph_runner::compare::compare(got, want, tolerance).unwrap();
    }
}

#[test]
fn each_batch_runs_the_blob_that_was_compiled_for_it() {
    let (host, config) = (host(""), sized("reference", &["s77=1", "s77=16..32", "x:0=64"]));
    let module = delegraph::import(&source("arch-mlp-dynamic-batch")).unwrap();
    let compiled = delegraph::compile(module, &config, &host, &mut |_| {}).unwrap();
    let regions = &compiled.report.graphs[0].regions;
    assert_eq!(regions.len(), 1);
    let buckets: Vec<String> = regions[0]
        .candidates
        .iter()
        .map(|candidate| candidate.bucket.as_ref().unwrap().bucket.to_string())
        .collect();
    assert_eq!(buckets, ["s77=1", "s77=16..32", "s77=64"]);
    // The images have the sizes of their buckets.
    let largest = |image: &[u8]| {
        let image = verify(image).unwrap();
        let input = image.value(image.inputs().get(0).unwrap());
        (
            input.const_dims(),
            (image.symbol_count() > 0).then(|| {
                let symbol = image.symbol(SymbolIndex(0));
                (symbol.min, symbol.max)
            }),
        )
    };
    assert_eq!(largest(&regions[0].image), (Some(vec![1, 16]), None));
    assert_eq!(largest(&regions[0].more_images[0]), (None, Some((16, Some(32)))));
    assert_eq!(largest(&regions[0].more_images[1]), (Some(vec![64, 16]), None));

    let file = Source::from_bytes(compiled.bytes, "model.pte");
    let mut session = open(&file, &config, &host).unwrap();
    let mut portable = open(&file, &Config::default(), &nobody()).unwrap();
    check(&mut portable, &fixture("arch-mlp-dynamic-batch"));
    for batch in [1, 16, 20, 32, 64, 1, 5, 33, 16] {
        let inputs = [tensor(&[batch, 16])];
        same(&run(&mut session, &inputs), &run(&mut portable, &inputs));
    }
    let report = session.report();
    let region = &report.regions[0];
    let runs: Vec<(&str, u64)> = region.buckets.iter().map(|b| (b.sizes.as_str(), b.runs)).collect();
    assert_eq!(runs, [("s77=1", 2), ("s77=16..32", 4), ("s77=64", 1)]);
    assert_eq!(
        (region.delegated_runs, region.portable_runs, region.other_sizes),
        (7, 2, 2)
    );
    let why = report.why_portable();
    assert!(
        why.contains("no bucket for s77=33; compiled for 1, 16..32, 64"),
        "{why}"
    );
    assert!(!session.report().regions[0].refusals.is_empty());
    assert!(
        report.sizes()[0].ends_with("other sizes 2x, portably"),
        "{:?}",
        report.sizes()
    );
}

#[test]
fn a_model_without_bounds_is_delegated_where_its_sizes_are_given() {
    let fixture = fixture("arch-dynamic-shapes");
    let (host, plain) = (host(""), config("[select]\norder = ['reference']\n"));
    let coverage = |config: &Config| {
        let mut module = delegraph::import(&source("arch-dynamic-shapes")).unwrap();
        let report = delegraph::partition(&mut module, config, &host, &mut |_| {}).unwrap();
        report.coverage().delegated_nodes
    };
    let sizes: Vec<i64> = match &fixture.cases[0].steps[0].inputs[..] {
        [Leaf::Tensor { shape: x, .. }, Leaf::Tensor { shape: y, .. }] => [x.clone(), y.clone()].concat(),
        other => panic!("{other:?}"),
    };
    let exact = format!("x:0={},x:1={},y:0={}", sizes[0], sizes[1], sizes[2]);
    let bounded = sized("reference", &[&exact, "s77=2..64,s27=2..64,s17=2..64"]);
    assert!(
        coverage(&bounded) > coverage(&plain),
        "what has no bound is offered to nobody"
    );
    let module = delegraph::import(&source("arch-dynamic-shapes")).unwrap();
    let compiled = delegraph::compile(module, &bounded, &host, &mut |_| {}).unwrap();
    let file = Source::from_bytes(compiled.bytes, "model.pte");
    let mut session = open(&file, &bounded, &host).unwrap();
    check(&mut session, &fixture);
    let mut portable = open(&file, &Config::default(), &nobody()).unwrap();
    let first = &fixture.cases[0].steps[0].inputs;
    same(&run(&mut session, first), &run(&mut portable, first));
    let report = session.report();
    assert!(
        report.regions.iter().all(|region| region.portable_runs == 0),
        "{}",
        report.why_portable()
    );
    assert!(
        report.regions.iter().all(|region| region.buckets[0].runs > 0),
        "{:?}",
        report.sizes()
    );
    for (rows, columns, length) in [(3, 8, 5), (64, 64, 64), (65, 8, 5), (3, 70, 2)] {
        let inputs = [tensor(&[rows, columns]), tensor(&[length])];
        same(&run(&mut session, &inputs), &run(&mut portable, &inputs));
    }
    assert!(session.report().regions.iter().all(|region| region.other_sizes == 2));
}

#[test]
fn fallback_that_is_denied_is_an_error_for_sizes_of_no_bucket() {
    let host = host("");
    let config = config("[select]\norder = ['reference']\nfallback = 'deny'\nshapes = ['s77=4']\n");
    // A `.pt2` is compiled for the sizes when it is loaded.
    let mut session = open(&source("arch-mlp-dynamic-batch"), &config, &host).unwrap();
    run(&mut session, &[tensor(&[4, 16])]);
    let inputs = tensor(&[5, 16]);
    let error = session.run(&[value(&inputs)]).unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(
        error.to_string().contains("no bucket for s77=5; compiled for 4"),
        "{error}"
    );
    run(&mut session, &[tensor(&[4, 16])]);
}

#[test]
fn sizes_that_the_model_does_not_have_are_refused() {
    let compile = |shapes: &str| {
        let module = delegraph::import(&source("arch-mlp-dynamic-batch")).unwrap();
        delegraph::compile(module, &sized("reference", &[shapes]), &host(""), &mut |_| {}).unwrap_err()
    };
    for (shapes, words) in [
        ("s78=1", "there are `s77` (1 to 64, `x:0`); did you mean `s77`?"),
        ("s77=65", "goes from 1 to 64"),
        ("z:0=1", "there is no input `z`"),
    ] {
        let error = compile(shapes);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn an_older_reader_passes_over_blobs_for_buckets() {
    let (host, config) = (host(""), sized("reference", &["s77=1"]));
    let module = delegraph::import(&source("arch-mlp-dynamic-batch")).unwrap();
    let compiled = delegraph::compile(module, &config, &host, &mut |_| {}).unwrap();
    let program = delegraph_pte::Verified::parse(&compiled.bytes).unwrap();
    let overlay = program
        .named(&compiled.bytes, delegraph_pte::overlay::OVERLAY_KEY)
        .unwrap();
    let overlay: serde_json::Value = serde_json::from_slice(overlay).unwrap();
    let region = &overlay["methods"][0]["regions"][0];
    assert_eq!(region["candidates"], serde_json::json!([]), "the list that it knows");
    assert_eq!(region["bucketed"][0]["outputs"], serde_json::json!([[1, 8]]));
    let symbol = serde_json::json!([{ "name": "s77", "input": 0, "dimension": 0, "factor": 1, "offset": 0 }]);
    assert_eq!(overlay["methods"][0]["symbols"], symbol);
}

/// `total += x.sum(0)`, `y = relu(total)`, with `x` of 1 to 8 rows.
fn summing() -> Module {
    let mut module = Module::default();
    let fixed = TensorType::fixed(DType::F32, &[4]);
    module.states.push(State {
        name: "total".into(),
        ty: fixed.clone(),
        initial: None,
    });
    let range = SymbolRange { min: 1, max: Some(8) };
    module.symbols.ranges.insert(Symbol::new("s0"), range);
    let mut graph = Graph::new("forward");
    let rows = TensorType::new(DType::F32, vec![Expr::symbol("s0"), Expr::Int(4)]);
    let x = graph.add_input("x", rows.into());
    let total = graph.add_value("total", fixed.clone().into(), Def::State(StateId(0)));
    let args = vec![x.into(), Arg::ints(&[0]), Arg::Bool(false), Arg::None];
    let sum = graph
        .push("aten::sum.dim_IntList", args, vec![fixed.clone().into()])
        .unwrap()[0];
    let args = vec![total.into(), sum.into(), Arg::int(1)];
    let total = graph
        .push("aten::add.Tensor", args, vec![fixed.clone().into()])
        .unwrap()[0];
    let y = graph
        .push("aten::relu", vec![total.into()], vec![fixed.into()])
        .unwrap()[0];
    graph.add_output(y);
    graph.mutations.push(Mutation {
        target: MutationTarget::State(StateId(0)),
        value: total,
    });
    module.graphs.push(graph);
    module
}

#[test]
fn states_that_sessions_keep_go_from_bucket_to_bucket() {
    let host = keeper::host("", "");
    let config = sized("keeper", &["s0=1", "s0=3"]);
    let compiled = delegraph::compile(summing(), &config, &host, &mut |_| {}).unwrap();
    let file = Source::from_bytes(compiled.bytes, "summing.pte");
    let mut session = open(&file, &config, &host).unwrap();
    let ones = |rows: i64| Leaf::Tensor {
        dtype: DType::F32,
        shape: vec![rows, 4],
        bytes: [1.0f32; 4]
            .repeat(rows as usize)
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect(),
    };
    let mut total = 0;
    for rows in [1, 3, 3, 2, 1, 3] {
        total += rows;
        let Leaf::Tensor { bytes, .. } = &run(&mut session, &[ones(rows)])[0] else {
            panic!("a tensor")
        };
        assert_eq!(bytes[..4], (total as f32).to_le_bytes(), "after {rows} rows");
    }
    let report = session.report();
    let region = &report.regions[0];
    assert_eq!(region.kept_states, ["total"]);
    assert_eq!((region.delegated_runs, region.portable_runs), (5, 1));
    // From bucket to bucket, to the host for the size that has none, and back again.
    assert!(region.kept_state_bytes >= 16 * 4, "{}", region.kept_state_bytes);
}
