//! `report.md`: for a pull request, a release page or a terminal.

use crate::grid::{LETTERS, grid};
use crate::identity::identity;
use crate::standing::{Standing, standings};
use crate::text::{cut, markdown, markdown_code, number, plural};
use crate::truth::{Truth, category_of};
use delegraph_runner::{CaseRecord, Verdict};
use std::fmt::Write;

/// More failures than these are only counted: the log has them all.
const FAILURES: usize = 200;

/// The text of `report.md`.
pub fn report(truth: &Truth) -> String {
    let mut out = String::new();
    let standings = standings(truth);
    out.push_str("# Conformance report\n\n![Delegraph conformance](badge.svg)\n\n");
    for standing in &standings {
        verdict(&mut out, standing);
    }
    out.push_str("## What was run\n\n|  |  |\n| --- | --- |\n");
    for (label, value) in identity(truth) {
        let _ = writeln!(out, "| {label} | {} |", markdown(&value));
    }
    categories(&mut out, truth);
    matrix(&mut out, truth);
    failures(&mut out, truth);
    waivers(&mut out, &standings, truth);
    out.push_str("\nThe truth is `cases.jsonl`, one case a line, with `run.json`; this page is made from them by `delegraph conform report`.\n");
    out
}

fn verdict(out: &mut String, standing: &Standing) {
    let name = format!("{} {}", standing.delegate, standing.version);
    let device = match standing.device.as_str() {
        "" => String::new(),
        device => format!(" on {}", markdown(device)),
    };
    let _ = writeln!(
        out,
        "**{}**{device}: may I ship on this? **{}**\n",
        markdown(name.trim()),
        standing.sentence
    );
    let _ = writeln!(
        out,
        "Claimed and passed {}, taken beyond that and passed {}, contract {}, not claimed {}, waived {}, flaky {}, quality warnings {}, not run {}.\n",
        standing.claimed,
        standing.taken,
        standing.contract,
        standing.not_claimed,
        standing.count(Verdict::Waived),
        standing.count(Verdict::Flaky),
        standing.count(Verdict::QualityWarning),
        standing.not_run
    );
}

fn categories(out: &mut String, truth: &Truth) {
    out.push_str("\n## By category\n\n| category | cases |");
    for verdict in Verdict::ALL {
        let _ = write!(out, " {} |", verdict.name());
    }
    let _ = writeln!(out, "\n| --- |{}", " ---: |".repeat(Verdict::ALL.len() + 1));
    let line = |out: &mut String, name: &str, cases: &[CaseRecord]| {
        let _ = write!(out, "| {} | {} |", markdown(name), cases.len());
        for verdict in Verdict::ALL {
            let n = cases.iter().filter(|case| case.verdict == verdict).count();
            let _ = write!(out, " {n} |");
        }
        out.push('\n');
    };
    for cases in truth.cases.chunk_by(|a, b| category_of(a) == category_of(b)) {
        line(out, cases.first().map_or("other", category_of), cases);
    }
    line(out, "all", &truth.cases);
}

fn matrix(out: &mut String, truth: &Truth) {
    let grid = grid(truth);
    if grid.rows.is_empty() {
        return;
    }
    out.push_str("\n## Operators by dtypes\n\n| operator |");
    for dtype in &grid.dtypes {
        let _ = write!(out, " {} |", markdown(dtype));
    }
    let _ = writeln!(out, "\n| --- |{}", " :---: |".repeat(grid.dtypes.len()));
    for (op, cells) in &grid.rows {
        let _ = write!(out, "| {} |", markdown(op));
        for cell in cells {
            match cell {
                // Numbers only where they say more than the letter.
                Some(cell) if cell.passed > 0 && cell.passed < cell.total => {
                    let _ = write!(
                        out,
                        " {} {}/{} |",
                        markdown(&cell.letter.to_string()),
                        cell.passed,
                        cell.total
                    );
                }
                Some(cell) => {
                    let _ = write!(out, " {} |", markdown(&cell.letter.to_string()));
                }
                None => out.push_str(" . |"),
            }
        }
        out.push('\n');
    }
    let legend: Vec<String> = LETTERS
        .iter()
        .map(|(letter, what, _)| format!("`{letter}` {what}"))
        .collect();
    let _ = writeln!(
        out,
        "\n{}; with numbers where not all cases of a cell passed.",
        legend.join(", ")
    );
}

fn failures(out: &mut String, truth: &Truth) {
    let failures: Vec<&CaseRecord> = truth.cases.iter().filter(|case| case.verdict.is_failure()).collect();
    out.push_str("\n## Failures\n\n");
    if failures.is_empty() {
        out.push_str("None.\n");
        return;
    }
    for case in failures.iter().take(FAILURES) {
        let _ = writeln!(out, "### `{}`: {}\n", markdown_code(&case.id), case.verdict.name());
        let _ = writeln!(out, "{}", markdown(&cut(&case.reason, 1_000)));
        if !case.tolerance.is_empty() {
            let _ = writeln!(
                out,
                "\nmax_abs {}, max_rel {}; tolerance {}.",
                number(case.max_abs),
                number(case.max_rel),
                markdown(&case.tolerance)
            );
        }
        if !case.shapes.is_empty() {
            let _ = writeln!(out, "\nShapes `{}`.", markdown_code(&case.shapes));
        }
        if !case.bundle.is_empty() {
            let _ = writeln!(out, "\nBundle `{}`.", markdown_code(&case.bundle));
        }
        if !case.repro.is_empty() {
            let _ = writeln!(out, "\n```sh\n{}\n```", markdown_code(&case.repro));
        }
        out.push('\n');
    }
    if failures.len() > FAILURES {
        let _ = writeln!(out, "And {} more in `cases.jsonl`.", failures.len() - FAILURES);
    }
}

fn waivers(out: &mut String, standings: &[Standing], truth: &Truth) {
    let waivers: Vec<_> = standings.iter().flat_map(|standing| &standing.waivers).collect();
    if waivers.is_empty() {
        return;
    }
    out.push_str("\n## Waived\n\n| case | until | reason |\n| --- | --- | --- |\n");
    for waiver in waivers {
        let until = match (&waiver.expires, waiver.days_left) {
            (Some(day), Some(left)) if left >= 0 => {
                format!("{day}, {} after the run", plural(left.unsigned_abs(), "day"))
            }
            (Some(day), Some(_)) => format!("{day}, before the run"),
            (Some(day), None) => day.clone(),
            (None, _) => "no date".to_string(),
        };
        let reason = truth
            .cases
            .iter()
            .find(|case| case.id == waiver.id)
            .map_or("", |case| case.reason.as_str());
        let _ = writeln!(
            out,
            "| {} | {until} | {} |",
            markdown(&waiver.id),
            markdown(&cut(reason, 300))
        );
    }
}
