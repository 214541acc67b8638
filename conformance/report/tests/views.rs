//! The views of a made-up run with every verdict and odd characters, read back by what others would read them with.

mod made_up;

use delegraph_report::{Truth, VIEWS, write_views};
use delegraph_runner::{CaseRecord, Report, Verdict};
use made_up::ODD;
use std::collections::BTreeMap;
use std::path::Path;

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Every verdict, and a case whose every text is odd.
fn written(count: usize) -> (tempfile::TempDir, Vec<CaseRecord>) {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = made_up::cases(count, true);
    let mut odd = CaseRecord::new(format!("op/{ODD}"), Verdict::Fail, ODD);
    for text in [
        &mut odd.op,
        &mut odd.dtype,
        &mut odd.shapes,
        &mut odd.tolerance,
        &mut odd.repro,
        &mut odd.bundle,
        &mut odd.delegate_version,
    ] {
        *text = ODD.to_string();
    }
    odd.max_abs = f64::INFINITY;
    odd.category = "op".to_string();
    cases.push(odd);
    made_up::write(folder.path(), &made_up::run(count as u64), &cases);
    (folder, cases)
}

#[test]
fn every_file_is_a_view_of_the_log() {
    let (folder, cases) = written(600);
    let seen: std::collections::BTreeSet<Verdict> = cases.iter().map(|case| case.verdict).collect();
    assert_eq!(seen.len(), Verdict::ALL.len(), "the made-up run has every verdict");
    write_views(folder.path()).unwrap();
    let first: Vec<String> = VIEWS.iter().map(|name| read(folder.path(), name)).collect();
    for name in VIEWS {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    // The log in another order gives the same.
    let mut lines: Vec<String> = read(folder.path(), "cases.jsonl")
        .lines()
        .map(|line| format!("{line}\n"))
        .collect();
    lines.reverse();
    std::fs::write(folder.path().join("cases.jsonl"), lines.concat()).unwrap();
    write_views(folder.path()).unwrap();
    for (name, text) in VIEWS.iter().zip(first) {
        assert!(read(folder.path(), name) == text, "{name} is another one");
    }
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), VIEWS.len() + 4, "nothing else is left: {names:?}");
}

#[test]
fn the_json_has_a_count_a_verdict_and_every_case() {
    let (folder, cases) = written(600);
    write_views(folder.path()).unwrap();
    let report: Report = serde_json::from_str(&read(folder.path(), "report.json")).unwrap();
    assert_eq!(report.schema, "delegraph.conform/1");
    assert_eq!((report.summary.total, report.exit_code), (601, 1));
    assert_eq!(
        (report.tool.as_str(), report.host.as_str()),
        ("delegraph 0.1.0", "aarch64 android")
    );
    for verdict in Verdict::ALL {
        let count = cases.iter().filter(|case| case.verdict == verdict).count();
        assert_eq!(report.summary.counts[verdict.name()], count as u64, "{verdict:?}");
    }
    let by_id = |cases: &[CaseRecord]| -> BTreeMap<String, CaseRecord> {
        cases.iter().map(|case| (case.id.clone(), case.clone())).collect()
    };
    assert!(by_id(&report.cases) == by_id(&cases), "to the last bit of each number");
    assert_eq!(report.run.unwrap().seed, 42);
}

#[test]
fn junit_is_what_its_readers_take() {
    let (folder, cases) = written(600);
    write_views(folder.path()).unwrap();
    let text = read(folder.path(), "junit.xml");
    let document = roxmltree::Document::parse(&text).unwrap();
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "testsuites");
    let attribute = |node: roxmltree::Node<'_, '_>, name: &str| {
        node.attribute(name).unwrap_or_else(|| panic!("no {name}")).to_string()
    };
    let number = |node: roxmltree::Node<'_, '_>, name: &str| -> usize { attribute(node, name).parse().unwrap() };
    let of = |verdicts: &[Verdict]| cases.iter().filter(|case| verdicts.contains(&case.verdict)).count();
    assert_eq!(number(root, "tests"), cases.len());
    assert_eq!(number(root, "failures"), of(&[Verdict::Fail, Verdict::FailClaimed]));
    assert_eq!(number(root, "errors"), of(&[Verdict::Crash, Verdict::Hang]));
    let mut seen = 0;
    let mut suites = std::collections::BTreeSet::new();
    for suite in root.children().filter(roxmltree::Node::is_element) {
        assert_eq!(suite.tag_name().name(), "testsuite");
        let name = attribute(suite, "name");
        assert!(suites.insert(name.clone()), "{name} is there twice");
        // ISO 8601 without a zone, as the schema has it.
        assert_eq!(attribute(suite, "timestamp"), "2026-11-22T10:00:00");
        let inside: Vec<_> = suite.children().filter(roxmltree::Node::is_element).collect();
        assert_eq!(number(suite, "tests"), inside.len());
        let counted = |tag: &str| {
            inside
                .iter()
                .filter(|case| case.children().any(|child| child.has_tag_name(tag)))
                .count()
        };
        for (name, tag) in [("failures", "failure"), ("errors", "error"), ("skipped", "skipped")] {
            assert_eq!(number(suite, name), counted(tag), "{name}");
        }
        let mut seconds = 0.0;
        for case in &inside {
            assert_eq!(case.tag_name().name(), "testcase");
            assert_eq!(attribute(*case, "classname"), format!("delegraph.{name}"));
            seconds += attribute(*case, "time").parse::<f64>().unwrap();
            let children: Vec<_> = case
                .children()
                .filter(roxmltree::Node::is_element)
                .map(|child| child.tag_name().name())
                .collect();
            assert!(
                children.len() <= 1
                    && children
                        .iter()
                        .all(|tag| ["failure", "error", "skipped", "system-out"].contains(tag)),
                "{children:?}"
            );
            seen += 1;
        }
        assert!((attribute(suite, "time").parse::<f64>().unwrap() - seconds).abs() < 1e-3);
    }
    assert_eq!(seen, cases.len());
    let odd = document
        .descendants()
        .find(|node| node.attribute("name").is_some_and(|name| name.contains("ünïcödé")))
        .unwrap();
    let failure = odd.first_element_child().unwrap();
    let message = failure.attribute("message").unwrap();
    assert!(
        message.starts_with("</script><script>alert(1)</script> <!-- ]]> & \"quoted\""),
        "{message}"
    );
    assert!(
        message.contains("\r\nsecond line\ttab") && message.contains("\u{241b}[31m \u{2400} \u{fffd}"),
        "{message:?}"
    );
    assert_eq!(failure.attribute("type"), Some("fail"));
}

#[test]
fn markdown_has_the_verdict_the_grid_and_the_failures() {
    let (folder, cases) = written(600);
    write_views(folder.path()).unwrap();
    let text = read(folder.path(), "report.md");
    assert!(text.starts_with("# Conformance report\n\n![Delegraph conformance](badge.svg)\n"));
    assert!(text.contains("may I ship on this? **No: "), "{}", &text[..400]);
    let failed = cases.iter().filter(|case| case.verdict.is_failure()).count();
    assert_eq!(text.matches("\n### `").count(), failed);
    assert!(text.contains("\n| operator | f32 | f16 | bf16 | i32 | i8 | u8 |"));
    // Outside of code, which is shown as it is, nothing is markup.
    let outside: String = text.split('`').step_by(2).collect();
    assert!(!outside.contains("<script"), "markup of a case got through");
    // Each row of a table has as many cells as its head.
    for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.iter().all(|line| cells(line) == cells(lines[0])), "{table}");
    }
    let clean = tempfile::tempdir().unwrap();
    made_up::write(clean.path(), &made_up::run(100), &made_up::cases(100, false));
    write_views(clean.path()).unwrap();
    let text = read(clean.path(), "report.md");
    assert!(text.contains("**Yes, for what it claims: ") && text.contains("## Failures\n\nNone.\n"));
    assert!(read(clean.path(), "badge.svg").contains(" claimed</text>"));
}

#[test]
fn the_badge_is_a_picture() {
    let (folder, _) = written(600);
    write_views(folder.path()).unwrap();
    let text = read(folder.path(), "badge.svg");
    let document = roxmltree::Document::parse(&text).unwrap();
    let title = document
        .descendants()
        .find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "title")))
        .unwrap();
    assert!(
        title.text().unwrap().starts_with("delegraph conformance: ") && title.text().unwrap().ends_with("failures"),
        "{text}"
    );
}

/// What stands between the tags of the page's data.
fn embedded(page: &str) -> serde_json::Value {
    let (_, rest) = page
        .split_once("<script type=\"application/json\" id=\"data\">")
        .unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn the_page_is_one_small_file_and_nothing_breaks_out_of_it() {
    for (count, most) in [(0, 100_000), (600, 300_000), (5_000, 1_000_000)] {
        let (folder, cases) = written(count);
        write_views(folder.path()).unwrap();
        let page = read(folder.path(), "report.html");
        assert!(page.len() < most, "{count} cases take {} bytes", page.len());
        assert_eq!(page.matches("<script").count(), 2, "the data and the script, no more");
        assert_eq!(page.matches("</script>").count(), 2);
        // Nothing is fetched: no address but relative ones in links, and the policy forbids the rest.
        assert!(page.contains("default-src 'none'"));
        for outside in [
            "src=",
            "url(",
            "@import",
            "<link",
            "<img",
            "<iframe",
            "href=\"http",
            "href=\"//",
            "href=\"javascript",
        ] {
            let own = page.replace(ODD, "");
            assert!(!own.contains(outside), "{outside}");
        }
        let data = embedded(&page);
        assert_eq!(data["count"], cases.len());
        assert_eq!(data["verdict"].as_str().unwrap().len(), cases.len());
    }
}

#[test]
fn a_page_of_long_texts_is_kept_small() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = made_up::cases(5_000, true);
    for (i, case) in cases.iter_mut().enumerate() {
        case.reason = format!("{i} ") + &ODD.repeat(20);
        case.repro = format!("{i} {}", case.repro);
    }
    made_up::write(folder.path(), &made_up::run(5_000), &cases);
    write_views(folder.path()).unwrap();
    let page = read(folder.path(), "report.html");
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(page.contains("may I ship on this?"));
}

#[test]
fn a_link_leads_nowhere_but_to_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let bundles = [
        "javascript:alert(1)",
        "../../etc",
        "bundles/../../x",
        "/etc",
        "bundles/op__a b",
        "https://example.org",
    ];
    let cases: Vec<CaseRecord> = bundles
        .iter()
        .enumerate()
        .map(|(i, bundle)| {
            let mut case = CaseRecord::new(format!("op/{i}"), Verdict::Fail, "wrong");
            case.bundle = bundle.to_string();
            case
        })
        .collect();
    made_up::write(folder.path(), &made_up::run(6), &cases);
    write_views(folder.path()).unwrap();
    let page = read(folder.path(), "report.html");
    assert_eq!(page.matches(">bundle</a>").count(), 1);
    assert!(page.contains("<a href=\"bundles/op__a%20b/\">bundle</a>"));
}

#[test]
fn a_run_that_goes_on_has_views_that_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = made_up::run(100);
    run.finished = None;
    made_up::write(folder.path(), &run, &made_up::cases(100, false));
    assert_eq!(write_views(folder.path()).unwrap().exit_code, 1);
    assert!(
        read(folder.path(), "report.html").contains("Not known: the run has not ended; 100 of 100 cases are here.")
    );
    assert!(read(folder.path(), "badge.svg").contains("not known"));
    assert!(
        Truth::read(&folder.path().join("absent"))
            .unwrap_err()
            .to_string()
            .contains("run.json")
    );
}
