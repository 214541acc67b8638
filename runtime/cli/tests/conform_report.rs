//! `conform report`, `diff` and `index` by the real binary, over made-up runs.

#[path = "../../../conformance/report/tests/made_up/mod.rs"]
mod made_up;

use delegraph_runner::{RunInfo, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

fn delegraph(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .arg("conform")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .output()
        .unwrap()
}

/// Exit code and standard output.
fn says(arguments: &[&str], folder: &Path) -> (Option<i32>, String) {
    let output = delegraph(arguments, folder);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// A run that names no list: the made-up lists are none of the kit's.
fn run(cases: u64) -> RunInfo {
    let mut run = made_up::run(cases);
    run.lists.clear();
    run
}

/// The files of a folder, without those of bundles.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_file())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect()
}

#[test]
fn views_that_were_deleted_come_back_byte_for_byte() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    // With a list of the kit, so that there is a certificate.
    let mut run = made_up::run(400);
    let list = delegraph_kit::lists::all().unwrap().remove(0).id();
    run.lists = vec![list];
    made_up::write_submission(&folder, &run, &made_up::cases(400, true));
    let truth = files(&folder);
    let (code, stdout) = says(&["report", "run"], place.path());
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.starts_with("acme-npu 2.3.1: No: "), "{stdout}");
    let whole = files(&folder);
    let views: Vec<&String> = whole.keys().filter(|name| !truth.contains_key(*name)).collect();
    assert_eq!(
        views,
        [
            "acme-npu.conformance.json",
            "badge.svg",
            "junit.xml",
            "report.html",
            "report.json",
            "report.md"
        ]
    );
    for view in views {
        std::fs::remove_file(folder.join(view)).unwrap();
    }
    assert_eq!(says(&["report", "run"], place.path()).0, Some(0));
    assert!(files(&folder) == whole);
}

#[test]
fn a_submission_is_checked_and_lacks_a_statement_until_it_is_filled_in() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    let mut run = made_up::run(400);
    run.lists = vec![delegraph_kit::lists::all().unwrap().remove(0).id()];
    // The kit's list has cases that the made-up run lacks, unless it is empty: they are named.
    let ids = delegraph_kit::lists::all().unwrap().remove(0).cases;
    made_up::write_submission(&folder, &run, &made_up::cases(400, true));
    std::fs::remove_file(folder.join("statement.md")).unwrap();
    assert_eq!(says(&["report", "run"], place.path()).0, Some(0));
    let (code, stdout) = says(&["report", "run", "--check"], place.path());
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("missing statement.md: it is missing"), "{stdout}");
    assert_eq!(
        stdout.contains("of the list `core-1.0` is missing"),
        !ids.is_empty(),
        "{stdout}"
    );

    assert_eq!(says(&["report", "run", "--init-statement"], place.path()).0, Some(0));
    assert_eq!(
        says(&["report", "run", "--init-statement"], place.path()).0,
        Some(2),
        "it is not written over"
    );
    let (_, stdout) = says(&["report", "run", "--check", "--json", "-"], place.path());
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (object["schema"].as_str(), object["exit_code"].as_u64()),
        (Some("delegraph.conform-check/1"), Some(1))
    );
    let empty = object["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["text"].as_str().unwrap().contains("is empty"));
    assert_eq!(empty.count(), 5);

    let path = folder.join("report.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"crash\"", "\"pass\"", 1)).unwrap();
    let (code, stdout) = says(&["report", "run", "--check"], place.path());
    assert!(
        code == Some(1) && stdout.contains("wrong   report.json: it is not what"),
        "{stdout}"
    );
    assert!(stdout.contains("the report cannot be counted"), "{stdout}");
    assert_eq!(says(&["report", "absent", "--check"], place.path()).0, Some(3));
}

#[test]
fn a_bad_line_is_named() {
    let place = tempfile::tempdir().unwrap();
    made_up::write(&place.path().join("run"), &run(10), &made_up::cases(10, false));
    let path = place.path().join("run/cases.jsonl");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replacen("\"pass\"", "\"passed\"", 1);
    std::fs::write(&path, text).unwrap();
    let output = delegraph(&["report", "run"], place.path());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("cases.jsonl:") && stderr.contains("unknown variant `passed`"),
        "{stderr}"
    );
}

#[test]
fn regressions_answer_no() {
    let place = tempfile::tempdir().unwrap();
    let cases = made_up::cases(300, false);
    made_up::write(&place.path().join("a"), &run(300), &cases);
    let mut worse = cases.clone();
    let passing: Vec<usize> = (0..300)
        .filter(|i| worse[*i].verdict == Verdict::Pass)
        .take(3)
        .collect();
    for (i, verdict) in passing.into_iter().zip([Verdict::Flaky, Verdict::Fail, Verdict::Crash]) {
        worse[i].verdict = verdict;
    }
    let mut other = run(300);
    other.library.as_mut().unwrap().version = "2.4.0".to_string();
    made_up::write(&place.path().join("b"), &other, &worse);
    let (code, stdout) = says(&["diff", "a", "b"], place.path());
    assert_eq!(code, Some(1), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(
        lines[0].starts_with("delegate") && lines[0].contains("2.3.1 r4411 -> acme-npu 2.4.0"),
        "{stdout}"
    );
    let at = lines.iter().position(|line| *line == "3 regressions").unwrap();
    for (line, word) in lines[at + 1..]
        .iter()
        .zip(["pass -> crash", "pass -> fail", "pass -> flaky"])
    {
        assert!(line.contains(word), "{stdout}");
    }
    assert_eq!(says(&["diff", "b/cases.jsonl", "a"], place.path()).0, Some(0));
    let (_, stdout) = says(&["diff", "a", "b", "--json", "-"], place.path());
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(object["regressions"][0]["rank"], "crashes");
    assert_eq!(object["exit_code"], 1);
}

#[test]
fn an_index_is_one_page_beside_its_data() {
    let place = tempfile::tempdir().unwrap();
    for name in ["one", "deep/two"] {
        made_up::write(
            &place.path().join("reports").join(name),
            &run(50),
            &made_up::cases(50, false),
        );
        assert_eq!(says(&["report", &format!("reports/{name}")], place.path()).0, Some(0));
    }
    let (code, stdout) = says(&["index", "reports", "-o", "page.html"], place.path());
    assert_eq!(code, Some(0), "{stdout}");
    let page = std::fs::read_to_string(place.path().join("page.html")).unwrap();
    assert!(page.contains("href=\"reports/deep/two/report.html\""));
    let object: Value = serde_json::from_slice(&std::fs::read(place.path().join("index.json")).unwrap()).unwrap();
    assert_eq!(object["reports"].as_array().unwrap().len(), 2);
    std::fs::remove_file(place.path().join("reports/one/report.md")).unwrap();
    let (code, stdout) = says(&["index", "reports"], place.path());
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("not counted: one: report.md"), "{stdout}");
    assert!(place.path().join("reports/index.html").is_file());
    assert_eq!(says(&["index", "absent"], place.path()).0, Some(3));
}
