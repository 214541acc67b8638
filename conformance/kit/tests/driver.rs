//! The driver over the delegates that are built with it.

use delegraph_kit::case::{self, Trial};
use delegraph_kit::driver::{HostShape, Library, Place, Script, take_violations};
use delegraph_kit::subject::{Subject, SubjectRequest};
use delegraph_kit::workload::Bench;
use delegraph_runner::Verdict;
use std::path::PathBuf;

/// A plugin of this build.
fn subject(name: &str) -> Subject {
    let folder = std::env::current_exe().unwrap();
    let library = folder
        .ancestors()
        .nth(2)
        .unwrap()
        .join(format!("lib{name}_delegate.so"));
    assert!(
        library.is_file(),
        "`{}` is built first: cargo build -p delegraph-{name}-plugin",
        library.display()
    );
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .join(format!("delegates/{name}/{name}.delegate.toml"));
    let manifest = delegraph_host::Manifest::read(&manifest)
        .map(|read| (manifest, read))
        .unwrap();
    let request = SubjectRequest {
        file: library,
        device: None,
        options: Default::default(),
        isolated: false,
    };
    let mut subject = Subject::open(&request).unwrap();
    subject.manifest = Some(manifest);
    subject
}

fn bench(trial: &mut Trial<'_>) -> case::Outcome {
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    let first = bench.run_once(&mut session, 1, &Script::default())?;
    bench.run_once(&mut session, 2, &Script::default())?;
    let (bytes, inputs, mut outputs) = bench.tensors(1, Place::Start)?;
    session.run(&inputs, &mut outputs, &Script::default())?;
    bench.check(&bytes, &outputs)?;
    assert_eq!(outputs[0].actual(), first);
    session.unload();
    assert_eq!(bench.weights.retained(), 0);
    Ok(())
}

#[test]
fn reference_runs_and_null_is_skipped() {
    let (record, _) = case::run("memory/x", &subject("reference"), 1, bench);
    assert_eq!((record.verdict, record.reason.as_str()), (Verdict::Pass, ""));
    let (record, _) = case::run("memory/x", &subject("null"), 1, bench);
    assert_eq!(record.verdict, Verdict::Skip, "{}", record.reason);
    assert!(
        record.reason.contains("the null delegate takes nothing"),
        "{}",
        record.reason
    );
}

#[test]
fn hosts_of_other_minors_are_met() {
    for shape in [HostShape::Oldest, HostShape::Newer] {
        let library = Library::open_as(&subject("reference").library, shape).unwrap();
        assert_eq!(library.info().unwrap().name, "reference");
        assert_eq!(take_violations(), Vec::<String>::new());
    }
}
