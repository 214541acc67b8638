//! What `conform run` and `conform merge` say at the end.

use crate::output::{Output, Tint, duration};
use delegraph_runner::{CaseRecord, Category, Claim, Report, Verdict};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Counts by category, what is claimed, and every failure with the command that runs it again.
pub fn table(report: &Report, output: &Output) {
    for line in counts(&report.cases) {
        output.data(line);
    }
    if let Some(line) = claims(&report.cases) {
        output.data(line);
    }
    for case in &report.cases {
        let tint = match case.verdict {
            verdict if verdict.is_failure() => Tint::Red,
            Verdict::Flaky | Verdict::Waived | Verdict::QualityWarning => Tint::Yellow,
            _ => continue,
        };
        let word = output.tint(tint, format!("{:<12}", case.verdict.name()));
        output.data(format!("{word} {}", case.id));
        output.data(format!("             {}", case.reason));
        output.data(format!("             again: {}", case.repro));
    }
}

/// A line a category that has cases, with the verdicts that there are as columns, and a total.
fn counts(cases: &[CaseRecord]) -> Vec<String> {
    let mut by: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for case in cases {
        for row in [case.category.as_str(), "total"] {
            *by.entry(row).or_default().entry(case.verdict.name()).or_default() += 1;
        }
    }
    let Some(total) = by.get("total") else {
        return vec!["nothing was run".to_string()];
    };
    let columns: Vec<&str> = Verdict::ALL
        .iter()
        .map(|verdict| verdict.name())
        .filter(|name| total.contains_key(name))
        .collect();
    let line = |name: &str, cells: Vec<String>| {
        let mut text = format!("{name:<12}");
        for (cell, column) in cells.iter().zip(std::iter::once(&"cases").chain(&columns)) {
            text += &format!("  {cell:>width$}", width = column.len().max(5));
        }
        text
    };
    let head = std::iter::once("cases".to_string()).chain(columns.iter().map(ToString::to_string));
    let mut lines = vec![line("category", head.collect())];
    let rows = Category::ALL.iter().map(|category| category.name()).chain(["total"]);
    for row in rows {
        let Some(counts) = by.get(row) else { continue };
        let all: u64 = counts.values().sum();
        let cell = |column: &&str| counts.get(column).map_or("-".to_string(), ToString::to_string);
        let cells = std::iter::once(all.to_string()).chain(columns.iter().map(cell));
        lines.push(line(row, cells.collect()));
    }
    lines
}

/// `claimed 412 of 412 pass, 88 of 90 taken beyond the claims pass, 37 not claimed`; `None` where no case is about a claim.
fn claims(cases: &[CaseRecord]) -> Option<String> {
    let of = |claim: Claim| cases.iter().filter(move |case| case.claim == claim);
    let pass = |claim: Claim| of(claim).filter(|case| case.verdict == Verdict::Pass).count();
    let (claimed, taken, none) = (
        of(Claim::Claimed).count(),
        of(Claim::Taken).count(),
        of(Claim::None).count(),
    );
    if claimed + taken + none == 0 {
        return None;
    }
    let beyond = match (pass(Claim::Taken), taken) {
        (pass, all) if pass == all => format!("{all} taken beyond the claims pass"),
        (pass, all) => format!("{pass} of {all} taken beyond the claims pass"),
    };
    Some(format!(
        "claimed {} of {claimed} pass, {beyond}, {none} not claimed",
        pass(Claim::Claimed)
    ))
}

/// The four lines that end a run.
pub fn closing(report: &Report, time: Duration, what: &str, folder: Option<&Path>, output: &Output) {
    let none = report.cases.iter().filter(|case| case.claim == Claim::None);
    let reason = none.clone().next().map(|case| format!(", for one: {}", case.reason));
    let fallback = match none.count() {
        0 => "nothing that a case needs was refused".to_string(),
        n => format!("{n} cases neither claimed nor taken{}", reason.unwrap_or_default()),
    };
    let failure = report.cases.iter().find(|case| case.verdict.is_failure());
    let next = match (failure, folder) {
        (Some(case), _) => case.repro.clone(),
        (None, Some(folder)) => format!("open {}", folder.join("report.html").display()),
        (None, None) => "the same with `-o DIR`, which leaves a report".to_string(),
    };
    let ran = format!("{what}: {}", super::counts(report));
    output.closing(&ran, &fallback, &duration(time.as_secs_f64()), &next);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(id: &str, verdict: Verdict, claim: Claim) -> CaseRecord {
        let mut record = CaseRecord::new(id, verdict, "");
        record.category = id.split('/').next().unwrap_or_default().to_string();
        record.claim = claim;
        record
    }

    #[test]
    fn counts_are_by_category_in_the_order_of_reports() {
        let cases = [
            case("op/a", Verdict::Pass, Claim::Claimed),
            case("abi/a", Verdict::Pass, Claim::Unknown),
            case("op/b", Verdict::FailClaimed, Claim::Claimed),
            case("op/c", Verdict::Skip, Claim::None),
            case("op/d", Verdict::Pass, Claim::Taken),
        ];
        let lines: Vec<Vec<String>> = counts(&cases)
            .iter()
            .map(|line| line.split_whitespace().map(str::to_string).collect())
            .collect();
        assert_eq!(lines[0], ["category", "cases", "pass", "skip", "fail-claimed"]);
        assert_eq!(lines[1], ["abi", "1", "1", "-", "-"]);
        assert_eq!(lines[2], ["op", "4", "2", "1", "1"]);
        assert_eq!(lines[3], ["total", "5", "3", "1", "1"]);
        assert_eq!(
            claims(&cases).unwrap(),
            "claimed 1 of 2 pass, 1 taken beyond the claims pass, 1 not claimed"
        );
        assert_eq!(claims(&cases[1..2]), None);
        assert_eq!(counts(&[]), ["nothing was run"]);
    }
}
