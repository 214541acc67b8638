//! The cases of memory, state, async, threading, leak and fault over delegates that are built with the kit. None of them may fail over a
//! delegate that is in order: the double, which has every feature of the contract, passes nearly all; the others are skipped where they lack
//! a feature, and say which.

use delegraph_kit::case::{self, Case};
use delegraph_kit::categories::{asynchronous, fault, leak, memory, state, threading};
use delegraph_kit::subject::{Subject, SubjectRequest};
use delegraph_runner::{CaseRecord, Verdict};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A library of this build, with options; `None`, and it is said, where it is not built.
fn subject(name: &str, options: serde_json::Value) -> Option<Subject> {
    let program = std::env::current_exe().unwrap();
    let library = program
        .ancestors()
        .nth(2)
        .unwrap()
        .join(format!("lib{name}_delegate.so"));
    if !library.is_file() {
        println!("skipped: `{}` is not built", library.display());
        return None;
    }
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(match name {
            "double" | "fault" => format!("conformance/{name}/{name}.delegate.toml"),
            _ => format!("delegates/{name}/{name}.delegate.toml"),
        });
    let manifest = delegraph_host::Manifest::read(&manifest)
        .map(|read| (manifest, read))
        .unwrap();
    let request = SubjectRequest {
        file: library,
        device: None,
        options: options.as_object().cloned().unwrap_or_default(),
        isolated: false,
    };
    let mut subject = Subject::open(&request).unwrap();
    subject.manifest = Some(manifest);
    Some(subject)
}

/// Cases share the driver's list of violations and the process's memory: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs cases, each in no more than its limit.
fn run(subject: &Subject, cases: &[Case]) -> Vec<CaseRecord> {
    let _alone = alone();
    let run = |case: Case| {
        let (sender, receiver) = channel();
        let subject = subject.clone();
        std::thread::spawn(move || {
            let (record, _) = case::run(case.id, &subject, 7, case.run);
            let _ = sender.send(record);
        });
        let record = receiver.recv_timeout(Duration::from_secs(case.limit + 60));
        let record = record.unwrap_or_else(|_| panic!("`{}` did not end over {}", case.id, subject_name(&case)));
        println!(
            "{:8.0} ms {:?} {} {}",
            record.total_ms, record.verdict, record.id, record.reason
        );
        record
    };
    cases.iter().copied().map(run).collect()
}

fn subject_name(case: &Case) -> String {
    format!("its subject within {} s", case.limit)
}

fn all() -> Vec<Case> {
    [
        memory::CASES,
        state::CASES,
        asynchronous::CASES,
        threading::CASES,
        leak::CASES,
        fault::CASES,
    ]
    .concat()
}

/// The records that are neither a pass nor a skip.
fn wrong(records: &[CaseRecord]) -> Vec<String> {
    records
        .iter()
        .filter(|record| !matches!(record.verdict, Verdict::Pass | Verdict::Skip))
        .map(|record| format!("{}: {:?}: {}", record.id, record.verdict, record.reason))
        .collect()
}

fn skipped(records: &[CaseRecord]) -> Vec<&str> {
    records
        .iter()
        .filter(|record| record.verdict == Verdict::Skip)
        .map(|record| record.id.as_str())
        .collect()
}

#[test]
fn the_double_passes() {
    let Some(subject) = subject("double", serde_json::json!({})) else {
        return;
    };
    let records = run(&subject, &all());
    assert_eq!(wrong(&records), Vec::<String>::new());
    let allowed = [
        // It requires nothing unless it is told to; see below.
        "memory/stated-requirements",
        // It keeps the states of this graph.
        "state/host-owned",
        "leak/soak",
        // Where the worker binary is not built.
        "fault/worker-killed",
        "fault/worker-memory",
    ];
    let more: Vec<&str> = skipped(&records)
        .into_iter()
        .filter(|id| !allowed.contains(id))
        .collect();
    assert_eq!(more, Vec::<&str>::new());
}

#[test]
fn the_double_with_requirements_passes() {
    let Some(subject) = subject("double", serde_json::json!({ "alignment": 256 })) else {
        return;
    };
    let records = run(&subject, &[memory::CASES, asynchronous::CASES].concat());
    assert_eq!(wrong(&records), Vec::<String>::new());
    assert_eq!(skipped(&records), Vec::<&str>::new());
}

#[test]
fn the_reference_delegate_passes_what_it_has() {
    let Some(subject) = subject("reference", serde_json::json!({})) else {
        return;
    };
    let records = run(&subject, &all());
    assert_eq!(wrong(&records), Vec::<String>::new());
    let passed = |id: &str| {
        records
            .iter()
            .any(|record| record.id == id && record.verdict == Verdict::Pass)
    };
    for id in [
        "memory/guard-behind",
        "memory/sizes",
        "memory/weights-lifetime",
        "state/host-owned",
        "state/declared",
        "async/execute-cancelled-before",
        "threading/sessions",
        "threading/load-one-blob",
        "leak/runs",
        "leak/starts",
        "fault/weight-map-in-load",
        "fault/blob-write",
        "fault/damaged-blob",
    ] {
        assert!(passed(id), "{id}");
    }
}

#[test]
fn the_null_delegate_is_skipped_where_a_graph_is_needed() {
    let Some(subject) = subject("null", serde_json::json!({})) else {
        return;
    };
    let records = run(&subject, &all());
    assert_eq!(wrong(&records), Vec::<String>::new());
    let passed: Vec<&CaseRecord> = records
        .iter()
        .filter(|record| record.verdict == Verdict::Pass)
        .collect();
    assert_eq!(passed.len(), 1, "{passed:?}");
    assert_eq!(passed[0].id, "leak/starts");
}

#[test]
fn defects_are_found() {
    let cases = all();
    let only = |ids: &[&str]| -> Vec<Case> {
        let found: Vec<Case> = cases.iter().filter(|case| ids.contains(&case.id)).copied().collect();
        assert_eq!(found.len(), ids.len());
        found
    };
    // The fault delegate fails as it is told.
    for (options, ids) in [
        (
            serde_json::json!({ "at": "execute", "how": "wrong" }),
            &["memory/guard-behind", "state/goes-on", "fault/damaged-blob"][..],
        ),
        (
            serde_json::json!({ "at": "execute", "how": "nothing" }),
            &["memory/outputs-written", "async/execute-cancelled-before"],
        ),
        (
            serde_json::json!({ "at": "commit", "how": "error" }),
            &["state/begins-at-zero", "state/long"],
        ),
        (
            serde_json::json!({ "at": "snapshot", "how": "error" }),
            &["state/snapshot"],
        ),
        (
            serde_json::json!({ "at": "compile", "how": "error" }),
            &["memory/sizes", "fault/blob-write"],
        ),
    ] {
        let Some(subject) = subject("fault", options.clone()) else {
            return;
        };
        for record in run(&subject, &only(ids)) {
            assert_eq!(
                record.verdict,
                Verdict::Fail,
                "{options}: {}: {}",
                record.id,
                record.reason
            );
        }
    }
}
