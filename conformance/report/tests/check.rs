//! A submission that is whole passes; each way to tamper with it is found.

mod made_up;

use delegraph_report::check::{About, Checked, Question, check};
use delegraph_report::{Truth, write_views_with};
use delegraph_runner::run_info::ListId;
use delegraph_runner::{CaseRecord, RunInfo, Verdict};
use std::path::Path;

/// Enough of a glob for the made-up waiver.
fn matches(glob: &str, text: &str) -> bool {
    glob.strip_suffix('*')
        .map_or(glob == text, |start| text.starts_with(start))
}

/// The kit's list has the made-up hash and the first of the made-up cases.
fn members(folder: &Path) -> Vec<String> {
    let plan = std::fs::read_to_string(folder.join("cases.txt")).unwrap_or_default();
    let first = plan.lines().take(50).map(str::to_string);
    first.chain(["op/aten::add.Tensor/f32/plain-0".to_string()]).collect()
}

fn write_views(folder: &Path) {
    let ids = members(folder).into_iter().collect();
    write_views_with(folder, &|list| {
        (list.sha256 == "77aa".repeat(16)).then_some(&ids).cloned()
    })
    .unwrap();
}

fn checked(folder: &Path) -> Checked {
    let ids = members(folder);
    let list = |wanted: &ListId| (wanted.name == "core-0.9").then(|| ("77aa".repeat(16), ids.clone()));
    check(Question {
        folder,
        library: None,
        list: &list,
        matches,
    })
}

/// A whole submission.
fn submission(run: &RunInfo, cases: &[CaseRecord]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    made_up::write_submission(folder.path(), run, cases);
    write_views(folder.path());
    folder
}

fn whole() -> tempfile::TempDir {
    submission(&made_up::run(600), &made_up::cases(600, true))
}

fn edit(folder: &Path, name: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    std::fs::write(folder.join(name), text.replacen(from, to, 1)).unwrap();
}

#[track_caller]
fn finds(folder: &Path, about: About, text: &str) {
    let checked = checked(folder);
    let found = checked.findings.iter().find(|finding| finding.text.contains(text));
    let found = found.unwrap_or_else(|| panic!("no `{text}` in {:?}", checked.findings));
    assert_eq!(found.about, about, "{}", found.text);
    assert!(!found.text.contains('\n'), "{}", found.text);
    assert!(!checked.is_submission());
    assert_eq!(
        checked.is_sound(),
        checked
            .findings
            .iter()
            .all(|finding| finding.about == About::Submission)
    );
}

/// Writes the truth anew and the views with it, as one would who wants to hide something.
fn rewritten(folder: &Path, change: impl FnOnce(&mut RunInfo, &mut Vec<CaseRecord>)) {
    let Truth { mut run, mut cases } = Truth::read(folder).unwrap();
    change(&mut run, &mut cases);
    std::fs::write(folder.join("run.json"), serde_json::to_string_pretty(&run).unwrap()).unwrap();
    let lines: String = cases
        .iter()
        .map(|case| serde_json::to_string(case).unwrap() + "\n")
        .collect();
    std::fs::write(folder.join("cases.jsonl"), lines).unwrap();
    write_views(folder);
}

#[test]
fn a_whole_submission_passes() {
    let folder = whole();
    let checked = checked(folder.path());
    assert!(checked.is_submission() && checked.is_sound(), "{:?}", checked.findings);
    for good in [
        "it covers all",
        "evidence of",
        "the list `core-0.9` was run whole",
        "libacme_npu_delegate.so: it is the one",
        "libacme_rt.so: it is the one",
        "acme.delegate.toml",
    ] {
        assert!(
            checked.good.iter().any(|line| line.contains(good)),
            "{good}: {:?}",
            checked.good
        );
    }
}

#[test]
fn an_edited_verdict_is_found() {
    let folder = whole();
    edit(
        folder.path(),
        "report.json",
        "\"verdict\": \"crash\"",
        "\"verdict\": \"pass\"",
    );
    finds(folder.path(), About::Integrity, "report.json: it is not what");
    // In the log alone: every view tells.
    let folder = whole();
    edit(
        folder.path(),
        "cases.jsonl",
        "\"verdict\":\"crash\"",
        "\"verdict\":\"pass\"",
    );
    for view in ["report.json", "junit.xml", "report.md", "report.html"] {
        finds(folder.path(), About::Integrity, &format!("{view}: it is not what"));
    }
    let folder = whole();
    std::fs::remove_file(folder.path().join("junit.xml")).unwrap();
    finds(folder.path(), About::Integrity, "junit.xml: cannot read");
}

#[test]
fn a_case_that_is_left_out_is_found() {
    let folder = whole();
    rewritten(folder.path(), |_, cases| {
        cases.retain(|case| case.verdict != Verdict::Crash)
    });
    finds(folder.path(), About::Integrity, "has no record");
    // With the plan: its hash tells. With the hash: the list tells.
    let plan: String = Truth::read(folder.path())
        .unwrap()
        .cases
        .iter()
        .map(|case| format!("{}\n", case.id))
        .collect();
    std::fs::write(folder.path().join("cases.txt"), &plan).unwrap();
    finds(
        folder.path(),
        About::Integrity,
        "cases.txt: its hash is not that in run.json",
    );
    let folder = whole();
    rewritten(folder.path(), |run, cases| {
        cases.retain(|case| case.id != "op/aten::add.Tensor/f32/plain-0");
        let ids: Vec<String> = cases.iter().map(|case| case.id.clone()).collect();
        std::fs::write(
            folder.path().join("cases.txt"),
            delegraph_runner::folder::plan_text(&ids),
        )
        .unwrap();
        (run.cases, run.cases_sha256) = (ids.len() as u64, delegraph_runner::folder::plan_sha256(&ids));
    });
    finds(
        folder.path(),
        About::Integrity,
        "the case `op/aten::add.Tensor/f32/plain-0` of the list `core-0.9` is missing",
    );
    let folder = whole();
    rewritten(folder.path(), |_, cases| {
        cases.push(CaseRecord::new("op/invented", Verdict::Pass, ""))
    });
    finds(folder.path(), About::Integrity, "`op/invented` is no case of this run");
}

#[test]
fn another_file_is_found() {
    for (name, text) in [
        (
            "libacme_npu_delegate.so",
            "libacme_npu_delegate.so: it is not the one that was run",
        ),
        ("libacme_rt.so", "libacme_rt.so: it is not the one that was run"),
        (
            "acme.delegate.toml",
            "acme.delegate.toml: it is not the manifest that was used",
        ),
        ("waivers.toml", "waivers.toml: it is not the file that the run used"),
    ] {
        let folder = whole();
        std::fs::write(folder.path().join(name), "another").unwrap();
        finds(folder.path(), About::Integrity, text);
    }
    let folder = whole();
    std::fs::remove_file(folder.path().join("acme.delegate.toml")).unwrap();
    finds(folder.path(), About::Submission, "the manifest is missing");
    // A library that is not handed in is not compared, and that is said.
    let folder = whole();
    let library = folder.path().join("libacme_npu_delegate.so");
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    std::fs::rename(&library, elsewhere.path()).unwrap();
    let result = checked(folder.path());
    assert!(
        result.is_submission()
            && result
                .good
                .iter()
                .any(|line| line.contains("its hash was not compared"))
    );
    let ids = members(folder.path());
    let list = |_: &ListId| Some(("77aa".repeat(16), ids.clone()));
    let question = Question {
        folder: folder.path(),
        library: Some(elsewhere.path()),
        list: &list,
        matches,
    };
    assert!(check(question).is_submission());
    std::fs::write(elsewhere.path(), "another").unwrap();
    assert!(!check(question).is_sound());
}

#[test]
fn an_unfinished_run_and_a_shard_are_found() {
    let mut run = made_up::run(600);
    run.finished = None;
    finds(
        submission(&run, &made_up::cases(600, true)).path(),
        About::Integrity,
        "the run has not ended",
    );
    let mut run = made_up::run(600);
    run.shard = Some((1, 4));
    finds(
        submission(&run, &made_up::cases(600, true)).path(),
        About::Integrity,
        "shard 1 of 4",
    );
}

#[test]
fn another_list_is_found() {
    let mut run = made_up::run(600);
    run.lists[0].sha256 = "00".repeat(32);
    finds(
        submission(&run, &made_up::cases(600, true)).path(),
        About::Integrity,
        "the list `core-0.9` was another one",
    );
    let mut run = made_up::run(600);
    run.lists[0].name = "mine-1.0".to_string();
    finds(
        submission(&run, &made_up::cases(600, true)).path(),
        About::Integrity,
        "is none that this kit has",
    );
    let mut run = made_up::run(600);
    run.lists.clear();
    finds(
        submission(&run, &made_up::cases(600, true)).path(),
        About::Submission,
        "no list was run whole",
    );
}

#[test]
fn a_waiver_that_is_hidden_or_invented_is_found() {
    let folder = whole();
    rewritten(folder.path(), |run, _| run.waivers_sha256 = None);
    finds(
        folder.path(),
        About::Integrity,
        "cases are waived, and it names no waivers",
    );
    let folder = whole();
    std::fs::remove_file(folder.path().join("waivers.toml")).unwrap();
    finds(folder.path(), About::Submission, "waivers.toml: it is missing");
    // A failure that is called waived, and a waiver that says something else.
    let folder = whole();
    rewritten(folder.path(), |_, cases| {
        let case = cases.iter_mut().find(|case| case.verdict == Verdict::Crash).unwrap();
        case.verdict = Verdict::Waived;
    });
    finds(
        folder.path(),
        About::Integrity,
        "is waived, and no waiver of waivers.toml says so",
    );
    let folder = whole();
    rewritten(folder.path(), |_, cases| {
        let case = cases.iter_mut().find(|case| case.verdict == Verdict::Crash).unwrap();
        (case.verdict, case.reason) = (Verdict::Waived, "crash: signal 11; waived until 2027-01-31: the exponential of this driver has 8 bits (https://issues.example/1234; approved by Jo Doe)".to_string());
    });
    finds(
        folder.path(),
        About::Integrity,
        "is waived, and no waiver of waivers.toml says so",
    );
    // A certificate that does not tell of one.
    let folder = whole();
    certificate(folder.path(), |certificate| {
        certificate["waivers"] = serde_json::json!([])
    });
    finds(folder.path(), About::Integrity, "its `waivers` is []");
}

/// Changes the certificate that is there.
fn certificate(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join("acme-npu.conformance.json");
    let mut object = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut object);
    std::fs::write(path, object.to_string()).unwrap();
}

#[test]
fn a_certificate_of_another_run_is_found() {
    let folder = whole();
    let good = std::fs::read(folder.path().join("acme-npu.conformance.json")).unwrap();
    for (pointer, key) in [
        ("", "log_sha256"),
        ("", "claimed_passed"),
        ("/library", "sha256"),
        ("/library", "version"),
        ("/kit", "references_sha256"),
        ("/counts", "crash"),
        ("/lists/0", "verdict"),
        ("", "schema"),
    ] {
        std::fs::write(folder.path().join("acme-npu.conformance.json"), &good).unwrap();
        assert!(checked(folder.path()).is_submission());
        certificate(folder.path(), |object| {
            object.pointer_mut(pointer).unwrap()[key] = serde_json::json!("other");
        });
        finds(folder.path(), About::Integrity, &format!("{key}` is \"other\""));
    }
    std::fs::write(folder.path().join("acme-npu.conformance.json"), "{").unwrap();
    finds(folder.path(), About::Integrity, "no JSON");
    std::fs::remove_file(folder.path().join("acme-npu.conformance.json")).unwrap();
    finds(folder.path(), About::Submission, "the certificate is missing");
}

#[test]
fn what_a_submission_needs_is_asked_for() {
    let folder = whole();
    std::fs::remove_file(folder.path().join("statement.md")).unwrap();
    finds(folder.path(), About::Submission, "statement.md: it is missing");
    assert!(
        checked(folder.path()).is_sound(),
        "the report may be counted all the same"
    );
    let folder = whole();
    edit(folder.path(), "statement.md", "Product: somebody", "Product: ");
    finds(
        folder.path(),
        About::Submission,
        "statement.md: the field `Product` is empty",
    );
    let folder = whole();
    std::fs::remove_dir_all(folder.path().join("bundles")).unwrap();
    finds(folder.path(), About::Submission, "the evidence of a failure is missing");
    finds(folder.path(), About::Submission, "more of the kind");
    let folder = whole();
    rewritten(folder.path(), |_, cases| {
        cases.iter_mut().find(|case| !case.bundle.is_empty()).unwrap().bundle = "../elsewhere".to_string();
    });
    finds(folder.path(), About::Submission, "`../elsewhere`");
}

#[test]
fn records_of_another_version_are_found() {
    let folder = whole();
    rewritten(folder.path(), |_, cases| {
        cases[7].delegate_version = "2.3.0".to_string()
    });
    finds(
        folder.path(),
        About::Integrity,
        "is of version 2.3.0, and the run of 2.3.1",
    );
}

#[test]
fn a_folder_without_a_run_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    finds(folder.path(), About::Integrity, "run.json");
    let folder = whole();
    std::fs::write(
        folder.path().join("cases.jsonl"),
        "{\"id\":\"a\",\"verdict\":\"passed\"}\n",
    )
    .unwrap();
    finds(folder.path(), About::Integrity, "cases.jsonl:1:");
}
