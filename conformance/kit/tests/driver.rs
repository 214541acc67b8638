//! The driver over the delegates that are built with it.

use delegraph_kit::case::{self, Trial};
use delegraph_kit::categories;
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
        let library = Library::open_as(&subject("reference"), shape).unwrap();
        assert_eq!(library.info().unwrap().name, "reference");
        assert_eq!(take_violations(), Vec::<String>::new());
    }
}

/// Delegates as they were built when each version of the ABI was the newest: each is judged by the rules of its own major.
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn delegates_of_every_version_keep_the_contract_of_theirs() {
    let frozen = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../frozen");
    let mut seen = Vec::new();
    for folder in std::fs::read_dir(frozen).unwrap().map(|entry| entry.unwrap().path()) {
        let request = SubjectRequest {
            file: folder.join("frozen-add.delegate.toml"),
            device: None,
            options: Default::default(),
            isolated: false,
        };
        if !folder.is_dir() {
            continue;
        }
        let subject = Subject::open(&request).unwrap();
        let library = Library::open(&subject).unwrap();
        let info = library.info().unwrap();
        assert_eq!(library.api.major, library.major);
        seen.push((library.major, info.abi_minor));
        let wanted = [
            "abi/entry",
            "abi/table",
            "abi/mandatory-functions",
            "abi/info",
            "abi/info-is-manifest",
            "abi/oldest-host",
            "abi/newer-host",
            "abi/extensions",
            "blob/check-own",
        ];
        let cases: Vec<_> = categories::cases().filter(|case| wanted.contains(&case.id)).collect();
        assert!(cases.len() >= wanted.len() - 1, "{}", cases.len());
        for case in cases {
            let (record, _) = case::run(case.id, &subject, 1, case.run);
            let at = folder.display();
            assert_eq!(record.verdict, Verdict::Pass, "{at}: {}: {}", case.id, record.reason);
        }
    }
    seen.sort_unstable();
    assert_eq!(
        seen,
        delegraph_abi::c::LAYOUT_HASHES.map(|(major, minor, _)| (major, u32::from(minor)))
    );
}

/// What is wrong with a manifest's major is what the case says, and the library is not opened by another entry.
#[test]
fn a_manifest_of_another_major_is_found() {
    let mut subject = subject("reference");
    if let Some((_, manifest)) = &mut subject.manifest {
        manifest.abi_major = 0;
    }
    let entry = categories::cases().find(|case| case.id == "abi/entry").unwrap();
    let (record, _) = case::run(entry.id, &subject, 1, entry.run);
    assert_eq!(record.verdict, Verdict::Fail);
    let words = "it exports entries of the majors [1], and `major` of `[abi]` is 0 in `";
    assert!(record.reason.contains(words), "{}", record.reason);
    let problem = Library::open(&subject).err().unwrap();
    assert!(problem.contains("does not export `dg_delegate_entry_v0`"), "{problem}");
}
