//! `junit.xml`: one suite a category. The elements and attributes are those that Jenkins and GitLab read.

use crate::text::{cut, number, xml};
use crate::truth::{Truth, category_of};
use delegraph_runner::{CaseRecord, Verdict};
use std::fmt::Write;

/// The text of `junit.xml`.
///
/// `fail` and `fail-claimed` are failures, `crash` and `hang` errors, `skip` and `waived` are skipped. `flaky` and `quality-warning` pass as
/// the run as a whole does; the reason stands in `system-out`.
pub fn junit(truth: &Truth) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let name = truth
        .run
        .library
        .as_ref()
        .map_or(truth.run.suite.as_str(), |library| library.name.as_str());
    let _ = writeln!(
        out,
        "<testsuites name=\"delegraph conform {}\" {}>",
        xml(name),
        counts(&truth.cases)
    );
    for (i, suite) in truth
        .cases
        .chunk_by(|a, b| category_of(a) == category_of(b))
        .enumerate()
    {
        suite_element(&mut out, i, suite, truth);
    }
    out.push_str("</testsuites>\n");
    out
}

fn suite_element(out: &mut String, index: usize, cases: &[CaseRecord], truth: &Truth) {
    let category = cases.first().map_or("other", category_of);
    let timestamp = truth.run.started.trim_end_matches('Z');
    let _ = writeln!(
        out,
        "  <testsuite name=\"{}\" id=\"{index}\" timestamp=\"{}\" hostname=\"{}\" {} skipped=\"{}\">",
        xml(category),
        xml(timestamp),
        xml(&truth.run.host),
        counts(cases),
        cases
            .iter()
            .filter(|case| matches!(case.verdict, Verdict::Skip | Verdict::Waived))
            .count()
    );
    for case in cases {
        case_element(out, category, case);
    }
    out.push_str("  </testsuite>\n");
}

/// The attributes that a suite and all suites together have.
fn counts(cases: &[CaseRecord]) -> String {
    let of = |verdicts: [Verdict; 2]| cases.iter().filter(|case| verdicts.contains(&case.verdict)).count();
    let seconds: f64 = cases.iter().map(seconds).sum();
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{seconds:.6}\"",
        cases.len(),
        of([Verdict::Fail, Verdict::FailClaimed]),
        of([Verdict::Crash, Verdict::Hang]),
    )
}

fn seconds(case: &CaseRecord) -> f64 {
    match case.total_ms.is_finite() && case.total_ms > 0.0 {
        true => case.total_ms / 1e3,
        false => 0.0,
    }
}

fn case_element(out: &mut String, category: &str, case: &CaseRecord) {
    let name = case.id.strip_prefix(&format!("{category}/")).unwrap_or(&case.id);
    let _ = write!(
        out,
        "    <testcase name=\"{}\" classname=\"delegraph.{}\" time=\"{:.6}\"",
        xml(name),
        xml(category),
        seconds(case)
    );
    let verdict = case.verdict.name();
    let message = match case.reason.is_empty() {
        true => verdict.to_string(),
        false => cut(&case.reason, 1_000),
    };
    let child = match case.verdict {
        Verdict::Pass => {
            out.push_str("/>\n");
            return;
        }
        Verdict::Fail | Verdict::FailClaimed => "failure",
        Verdict::Crash | Verdict::Hang => "error",
        Verdict::Skip | Verdict::Waived => {
            let message = match case.verdict {
                Verdict::Waived => format!("waived: {message}"),
                _ => message,
            };
            let _ = writeln!(
                out,
                ">\n      <skipped message=\"{}\"/>\n    </testcase>",
                xml(&message)
            );
            return;
        }
        Verdict::Flaky | Verdict::QualityWarning => {
            let text = xml(&format!("{verdict}: {message}"));
            let _ = writeln!(out, ">\n      <system-out>{text}</system-out>\n    </testcase>");
            return;
        }
    };
    let mut body = vec![format!("id: {}", case.id), case.reason.clone()];
    if !case.tolerance.is_empty() {
        body.push(format!(
            "max_abs {} (tolerance: {})",
            number(case.max_abs),
            case.tolerance
        ));
    }
    for (what, text) in [
        ("shapes", &case.shapes),
        ("again", &case.repro),
        ("bundle", &case.bundle),
    ] {
        if !text.is_empty() {
            body.push(format!("{what}: {text}"));
        }
    }
    let body: Vec<String> = body.iter().map(|line| xml(line)).collect();
    let _ = writeln!(
        out,
        ">\n      <{child} type=\"{verdict}\" message=\"{}\">{}</{child}>\n    </testcase>",
        xml(&message),
        body.join("\n")
    );
}
