//! Cases of numbers over the delegates that are known to be right and to be honest.

use delegraph_kit::numerics::{Numerics, infos};
use delegraph_kit::subject::Subject;
use delegraph_runner::{CaseRecord, Claim, Verdict};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A plugin that `cargo build --workspace` puts beside the tests' folder.
fn library(name: &str) -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let file = executable.parent()?.parent()?.join(name);
    file.is_file().then_some(file)
}

fn subject(delegate: &str) -> Option<Subject> {
    let file = format!(
        "{}{delegate}_delegate{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let library = library(&file)?;
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = tree.join(format!("delegates/{delegate}/{delegate}.delegate.toml"));
    let manifest = delegraph_host::Manifest::read(&path).unwrap();
    Some(Subject {
        library,
        manifest: Some((path, manifest)),
        device: None,
        options: Default::default(),
        elsewhere: None,
        isolated: false,
    })
}

/// Every case, or those whose id has the text that `DELEGRAPH_CASES` says.
fn records(subject: &Subject) -> Vec<CaseRecord> {
    let wanted = std::env::var("DELEGRAPH_CASES").unwrap_or_default();
    let numerics = Numerics::new(subject).unwrap();
    let chosen = infos().iter().filter(|info| info.id.contains(&wanted));
    chosen.map(|info| numerics.run(&info.id, None).0).collect()
}

fn show(records: &[CaseRecord]) {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for record in records {
        *counts.entry((&record.category, record.verdict.name())).or_default() += 1;
        if record.verdict != Verdict::Pass {
            println!("{} {} {}", record.verdict.name(), record.id, record.reason);
        }
    }
    println!("{counts:?}");
}

#[test]
fn ids_are_unique_and_of_a_category() {
    let mut seen = std::collections::BTreeSet::new();
    for info in infos() {
        assert!(seen.insert(&info.id), "{} is there twice", info.id);
        assert!(info.id.starts_with(info.category.name()), "{}", info.id);
        assert!(!info.op.is_empty(), "{}", info.id);
    }
    let operators: std::collections::BTreeSet<&str> = infos()
        .iter()
        .filter(|info| info.id.starts_with("op/"))
        .map(|info| info.op.as_str())
        .collect();
    assert!(
        seen.len() > 2000 && operators.len() >= 120,
        "{} cases of {} operators",
        seen.len(),
        operators.len()
    );
}

#[test]
fn reference_is_right() {
    let Some(subject) = subject("reference") else {
        println!(
            "skipped: no library of the reference delegate is beside the tests; build `delegraph-reference-plugin` first"
        );
        return;
    };
    let records = records(&subject);
    show(&records);
    let wrong: Vec<&CaseRecord> = records
        .iter()
        .filter(|r| !matches!(r.verdict, Verdict::Pass | Verdict::Skip))
        .collect();
    assert!(wrong.is_empty(), "{} cases, the first {:?}", wrong.len(), wrong.first());
    for record in &records {
        assert_eq!(
            record.verdict == Verdict::Skip,
            record.claim == Claim::None,
            "{record:?}"
        );
        assert!(
            record.verdict == Verdict::Skip || record.delegated_nodes > 0,
            "{record:?}"
        );
    }
}

#[test]
fn null_takes_nothing_and_is_asked_about_everything() {
    let Some(subject) = subject("null") else {
        println!("skipped: no library of the null delegate is beside the tests; build `delegraph-null-plugin` first");
        return;
    };
    for record in records(&subject) {
        assert_eq!(
            (record.verdict, record.claim),
            (Verdict::Skip, Claim::None),
            "{record:?}"
        );
        assert!(!record.reason.is_empty(), "{record:?}");
    }
}

/// The delegate's own manifest with claims behind it, in a folder of its own.
fn claiming(delegate: &str, claims: &str) -> Option<(Subject, tempfile::TempDir)> {
    let mut subject = subject(delegate)?;
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = subject.manifest.take().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    // Whatever it claims by itself is left out.
    let own = text.split("[[op]]").next().unwrap();
    let path = folder.path().join(format!("{delegate}.delegate.toml"));
    std::fs::write(&path, format!("{own}\n{claims}")).unwrap();
    let manifest = delegraph_host::Manifest::read(&path).unwrap();
    subject.manifest = Some((path, manifest));
    Some((subject, folder))
}

const ADD: &str = "[[op]]\nop = \"aten::add.Tensor\"\ndtypes = [\"f32\"]\nranks = [3]\n";

#[test]
fn what_is_claimed_has_to_be_taken() {
    let Some((honest, _kept)) = claiming("reference", ADD) else {
        println!("skipped: no library of the reference delegate is beside the tests");
        return;
    };
    let numerics = Numerics::new(&honest).unwrap();
    for (id, claim) in [
        ("op/aten::add.Tensor/f32/rank3", Claim::Claimed),
        ("op/aten::add.Tensor/f32/rank4", Claim::Taken),
        ("op/aten::add.Tensor/f16/rank3", Claim::Taken),
        ("op/aten::sub.Tensor/f32/rank3", Claim::Taken),
    ] {
        let (record, evidence) = numerics.run(id, None);
        assert_eq!((record.verdict, record.claim), (Verdict::Pass, claim), "{record:?}");
        assert!(evidence.is_empty());
    }
    let Some((boasting, _kept)) = claiming("null", ADD) else {
        println!("skipped: no library of the null delegate is beside the tests");
        return;
    };
    let numerics = Numerics::new(&boasting).unwrap();
    for (id, verdict) in [
        ("op/aten::add.Tensor/f32/rank3", Verdict::FailClaimed),
        ("op/aten::add.Tensor/f32/rank4", Verdict::Skip),
    ] {
        let record = numerics.run(id, None).0;
        assert_eq!(record.verdict, verdict, "{record:?}");
        assert!(
            record.reason.contains("aten::add.Tensor"),
            "the delegate's own reason: {record:?}"
        );
    }
}

#[test]
fn a_library_without_a_manifest_is_judged_too() {
    let Some(mut subject) = subject("reference") else {
        println!("skipped: no library of the reference delegate is beside the tests");
        return;
    };
    subject.manifest = None;
    let numerics = Numerics::new(&subject).unwrap();
    let record = numerics.run("op/aten::linear/f32/rank3", None).0;
    assert_eq!(
        (record.verdict, record.claim),
        (Verdict::Pass, Claim::Taken),
        "{record:?}"
    );
    assert!(
        record.shapes.contains("[2,3,16]") && record.tolerance.contains("ULP"),
        "{record:?}"
    );
    let record = numerics.run("op/aten::linear/f32/nothing", None).0;
    assert_eq!(record.verdict, Verdict::Fail);
}
