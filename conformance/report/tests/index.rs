//! Many made-up reports on one page.

mod made_up;

use delegraph_report::check::Question;
use delegraph_report::index::{Gather, Index, gather, page};
use delegraph_report::write_views_with;
use delegraph_runner::Verdict;
use delegraph_runner::run_info::ListId;
use std::path::Path;

fn index(folder: &Path) -> Index {
    let list = |_: &ListId| Some(("77aa".repeat(16), Vec::new()));
    let question = Question {
        folder,
        library: None,
        list: &list,
        matches: |_, _| true,
    };
    gather(Gather { folder, question }).unwrap()
}

/// A report of a version on a device; `worse` cases of it crash.
fn report(folder: &Path, version: &str, device: &str, started: &str, worse: usize) {
    let mut run = made_up::run(60);
    let library = run.library.as_mut().unwrap();
    library.version = version.to_string();
    run.devices[0].name = device.to_string();
    run.started = started.to_string();
    run.waivers_sha256 = None;
    let mut cases = made_up::cases(60, false);
    for case in &mut cases {
        case.delegate_version = version.to_string();
    }
    for case in cases
        .iter_mut()
        .filter(|case| case.verdict == Verdict::Pass)
        .take(worse)
    {
        case.verdict = Verdict::Crash;
        case.reason = made_up::ODD.to_string();
    }
    made_up::write(folder, &run, &cases);
    write_views_with(folder, &|_| Some(Default::default())).unwrap();
}

#[test]
fn successive_versions_are_compared_and_the_unsound_are_not_counted() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    report(&at("a/2.9"), "2.9", "N3", "2026-01-01T00:00:00Z", 0);
    report(&at("a/2.10-again"), "2.10", "N3", "2026-03-01T00:00:00Z", 2);
    report(&at("a/2.10"), "2.10", "N3", "2026-02-01T00:00:00Z", 5);
    report(&at("a/2.11"), "2.11", "N3", "2026-04-01T00:00:00Z", 2);
    report(&at("b b/<i>"), "2.10", "N4", "2026-02-01T00:00:00Z", 1);
    report(&at("bad"), "2.12", "N3", "2026-05-01T00:00:00Z", 3);
    let text = std::fs::read_to_string(at("bad/cases.jsonl")).unwrap();
    std::fs::write(at("bad/cases.jsonl"), text.replacen("\"crash\"", "\"pass\"", 1)).unwrap();
    std::fs::create_dir_all(at("empty/folder")).unwrap();
    let index = index(root.path());
    let folders: Vec<&str> = index.reports.iter().map(|entry| entry.folder.as_str()).collect();
    assert_eq!(folders, ["a/2.9", "a/2.10", "a/2.10-again", "a/2.11", "b b/<i>"]);
    assert_eq!(index.unsound.len(), 1);
    assert!(
        index.unsound[0].folder == "bad" && index.unsound[0].findings[0].contains("report.json"),
        "{:?}",
        index.unsound
    );
    // Of two reports of a version the later one counts; from 2.10 to 2.11 nothing became worse.
    assert_eq!(index.steps.len(), 1);
    let step = &index.steps[0];
    assert_eq!(
        (step.before.0.as_str(), step.after.1.as_str(), step.count),
        ("2.9", "a/2.10-again", 2)
    );
    assert!(step.regressions.iter().all(|change| change.after == Verdict::Crash));

    let page = page(&index, "../x/");
    assert!(page.contains("href=\"../x/b%20b/%3Ci%3E/report.html\""));
    assert_eq!(page.matches("</script>").count(), 1, "nothing breaks out");
    assert!(page.contains("5 reports</h1>") || page.contains("6 reports</h1>"));
    assert!(page.contains("Not counted <span class=\"count\">1</span>"));
    let matrix = page
        .split("id=\"matrix-section\"")
        .nth(1)
        .unwrap()
        .split("</section>")
        .next()
        .unwrap();
    assert!(!matrix.contains("2.12"), "a report that is not sound is in the matrix");
    assert!(
        !matrix.contains("a/2.10/report.html") && matrix.contains("a/2.10-again/report.html"),
        "the later report of a version is shown"
    );
    let object = serde_json::to_value(&index).unwrap();
    assert_eq!(object["schema"], "delegraph.conform-index/1");
    assert_eq!(object["reports"][4]["failures"], 1);
}

#[test]
fn two_hundred_reports_are_gathered_in_a_minute() {
    let root = tempfile::tempdir().unwrap();
    for i in 0..200 {
        let folder = root.path().join(format!("device-{}/v{}", i % 20, i / 20));
        report(
            &folder,
            &format!("1.{}", i / 20),
            &format!("N{}", i % 20),
            "2026-01-01T00:00:00Z",
            i / 20,
        );
    }
    let started = std::time::Instant::now();
    let index = index(root.path());
    assert_eq!((index.reports.len(), index.unsound.len()), (200, 0));
    assert_eq!(index.steps.len(), 180);
    assert!(page(&index, "").len() < 2_000_000);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn nothing_is_nothing() {
    let root = tempfile::tempdir().unwrap();
    let index = index(root.path());
    assert!(index.reports.is_empty() && index.unsound.is_empty() && index.steps.is_empty());
    assert!(page(&index, "").contains("0 reports"));
}
