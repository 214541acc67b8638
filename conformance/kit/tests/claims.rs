//! The cases about claims over delegates that are built with them, and over manifests that lie about them.

use delegraph_host::Manifest;
use delegraph_kit::case::run;
use delegraph_kit::categories::claims::CASES;
use delegraph_kit::numerics::claim::claim_of;
use delegraph_kit::subject::{Subject, SubjectRequest};
use delegraph_lower::LowerOptions;
use delegraph_runner::{CaseRecord, Verdict};
use delegraph_tag::Policy;
use std::path::{Path, PathBuf};

/// A plugin of this build under a manifest of this text.
fn subject(name: &str, manifest: &str) -> Subject {
    let here = std::env::current_exe().unwrap();
    let library = here.ancestors().nth(2).unwrap().join(format!("lib{name}_delegate.so"));
    assert!(
        library.is_file(),
        "`{}` is built first: cargo build -p delegraph-{name}-plugin",
        library.display()
    );
    let request = SubjectRequest {
        file: library,
        device: None,
        options: Default::default(),
        isolated: false,
    };
    let mut subject = Subject::open(&request).unwrap();
    subject.manifest = Some((path(name), Manifest::parse(manifest).unwrap()));
    subject
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../delegates/{name}/{name}.delegate.toml"))
}

fn manifest(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

fn record(id: &str, subject: &Subject) -> CaseRecord {
    let case = CASES.iter().find(|case| case.id == id).unwrap();
    run(id, subject, 1, case.run).0
}

#[track_caller]
fn expect(id: &str, subject: &Subject, verdict: Verdict, reason: &str) -> CaseRecord {
    let record = record(id, subject);
    assert_eq!(record.verdict, verdict, "{id}: {}", record.reason);
    assert!(record.reason.contains(reason), "{id}: {}", record.reason);
    record
}

#[test]
fn reference_takes_all_that_it_claims() {
    let reference = subject("reference", &manifest("reference"));
    expect("partition/claims-exist", &reference, Verdict::Pass, "");
    let record = expect("partition/claims-taken", &reference, Verdict::Pass, "");
    assert!(record.measured["operators claimed"] > 150.0, "{:?}", record.measured);
    assert!(record.measured["nodes claimed"] > 5000.0, "{:?}", record.measured);
    expect(
        "partition/claims-targets",
        &reference,
        Verdict::Skip,
        "names no targets",
    );
    expect("partition/claims-options", &reference, Verdict::Skip, "names no schema");
}

#[test]
fn null_claims_nothing() {
    let null = subject("null", &manifest("null"));
    for id in ["partition/claims-exist", "partition/claims-taken"] {
        expect(id, &null, Verdict::Skip, "claims nothing");
    }
}

#[test]
fn manifests_that_lie_are_caught() {
    let honest = manifest("null");
    let lies = |keys: &str| subject("null", &format!("{honest}\n[[op]]\n{keys}\n"));
    let lie = lies("op = 'aten::relu'\ndtypes = ['f32']\nranks = [4]");
    let record = expect(
        "partition/claims-taken",
        &lie,
        Verdict::FailClaimed,
        "`aten::relu` in f32, rank 4",
    );
    assert!(!record.reason.contains("f16"), "{}", record.reason);
    let unknown = lies("op = 'aten::relus'\ndtypes = ['f32']");
    expect(
        "partition/claims-exist",
        &unknown,
        Verdict::Fail,
        "`aten::relus`, and there is no such operator; did you mean `aten::relu`?",
    );
    let odd = lies("op = 'aten::gelu'\ndtypes = ['f32']\nwhere = { aproximate = 'none' }");
    expect(
        "partition/claims-exist",
        &odd,
        Verdict::Fail,
        "did you mean `approximate`?",
    );
    // The reference delegate computes in no complex dtype.
    let complex = manifest("reference").replace("\"bool\", \"bf16\"]", "\"bool\", \"bf16\", \"c64\"]");
    let complex = subject("reference", &complex);
    expect("partition/claims-taken", &complex, Verdict::FailClaimed, "in c64");
}

#[test]
fn schemas_and_targets_of_manifests_are_checked() {
    let text = |key: &str| manifest("reference").replacen("name =", &format!("{key}\nname ="), 1);
    let targets = subject("reference", &text("targets = ['moon']"));
    // The reference delegate compiles for whatever it is told.
    expect("partition/claims-targets", &targets, Verdict::Pass, "");
    let absent = subject("reference", &text("options_schema = 'absent.json'"));
    expect("partition/claims-options", &absent, Verdict::Fail, "`absent.json`");
}

#[test]
fn a_module_is_claimed_where_all_of_it_is() {
    use delegraph_ir::{Arg, Graph, Module, TensorType};
    use delegraph_types::DType;
    let module = |ops: &[&str]| {
        let mut graph = Graph::new("forward");
        let ty = TensorType::fixed(DType::F32, &[2, 3]);
        let mut value = graph.add_input("x", ty.clone().into());
        for op in ops {
            value = graph
                .push(op, vec![Arg::Value(value)], vec![ty.clone().into()])
                .unwrap()[0];
        }
        graph.add_output(value);
        Module {
            graphs: vec![graph],
            ..Module::default()
        }
    };
    let options = LowerOptions {
        policy: Policy {
            min_nodes: 1,
            boundary_penalty: 0.0,
            ..Policy::default()
        },
        ..LowerOptions::default()
    };
    let claimed = |subject: &Subject, ops: &[&str]| {
        let backends = vec![subject.name().to_string()];
        claim_of(
            subject,
            &module(ops),
            &LowerOptions {
                backends,
                ..options.clone()
            },
        )
    };
    let reference = subject("reference", &manifest("reference"));
    let both = ["aten::relu", "aten::tanh"];
    assert!(claimed(&reference, &both));
    let one = subject(
        "null",
        &format!("{}\n[[op]]\nop = 'aten::relu'\ndtypes = ['f32']\n", manifest("null")),
    );
    assert!(claimed(&one, &both[..1]));
    assert!(!claimed(&one, &both));
    assert!(!claimed(&subject("null", &manifest("null")), &both));
}
