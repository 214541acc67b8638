//! What changed from one run to another: regressions first, ranked by what they cost.

use crate::truth::{ReportError, category_of, read_cases, read_run};
use delegraph_runner::{CaseRecord, Claim, RunInfo, Verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A performance case whose median grows by more than this has become slower; what shrinks by more has become faster.
pub const SLOWER: f64 = 0.05;

/// One side of a comparison. A log without `run.json` beside it has no subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// What was run.
    pub run: Option<RunInfo>,
    /// What came of it.
    pub cases: Vec<CaseRecord>,
}

impl Side {
    /// Reads a folder, or a `cases.jsonl` with the `run.json` beside it, if there is one.
    ///
    /// # Errors
    /// As [`crate::Truth::read`].
    pub fn read(path: &Path) -> Result<Side, ReportError> {
        let (log, run) = match path.is_dir() {
            true => (path.join("cases.jsonl"), path.join("run.json")),
            false => (path.to_path_buf(), path.with_file_name("run.json")),
        };
        let run = match run.is_file() || path.is_dir() {
            true => Some(read_run(&run)?),
            false => None,
        };
        Ok(Side {
            run,
            cases: read_cases(&log)?,
        })
    }
}

/// How bad a change is: the smaller, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// It crashes now.
    Crashes,
    /// It hangs now.
    Hangs,
    /// It is wrong now.
    Fails,
    /// What is claimed is refused now.
    Refused,
    /// It passes only now and then.
    Flaky,
    /// The failure is waived.
    Waived,
    /// Right, but worse than it should be.
    Worse,
    /// It is not run any more, or not taken any more: nobody knows.
    Lost,
    /// It takes longer.
    Slower,
}

/// A case that both have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The case.
    pub id: String,
    /// How bad it is; absent for an improvement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<Rank>,
    /// Verdict before.
    pub before: Verdict,
    /// Verdict now.
    pub after: Verdict,
    /// Why now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Median in microseconds before and now, where time is what changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<(f64, f64)>,
    /// The command that runs it again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repro: String,
}

/// A case that one of them has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Only {
    /// The case.
    pub id: String,
    /// Its verdict.
    pub verdict: Verdict,
}

/// What differs in what was run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubjectDifference {
    /// `library`, `driver`, `kit`, ...
    pub what: String,
    /// Before.
    pub before: String,
    /// Now.
    pub after: String,
}

/// All of it. As JSON it is what `delegraph conform diff --json` writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// `delegraph.conform-diff/1`
    pub schema: String,
    /// 1 if there are regressions.
    pub exit_code: u8,
    /// What differs in what was run.
    pub subject: Vec<SubjectDifference>,
    /// The worst first.
    pub regressions: Vec<Change>,
    /// Better than before.
    pub improvements: Vec<Change>,
    /// Cases that only the second has, failures first.
    pub new: Vec<Only>,
    /// Cases that only the first has.
    pub gone: Vec<Only>,
    /// Cases of both with the same outcome.
    pub same: u64,
}

/// Compares two runs. Regressions are ranked: a crash before a hang, a failure, a claim that is refused, a case that passes now and then, a waived one,
/// a warning, one that is not run any more, a slower one; within a rank by what they were before, then by how much slower, then by id.
pub fn difference(before: &Side, after: &Side) -> Difference {
    let old: BTreeMap<&str, &CaseRecord> = before.cases.iter().map(|case| (case.id.as_str(), case)).collect();
    let new: BTreeMap<&str, &CaseRecord> = after.cases.iter().map(|case| (case.id.as_str(), case)).collect();
    let only = |a: &BTreeMap<&str, &CaseRecord>, b: &BTreeMap<&str, &CaseRecord>| -> Vec<Only> {
        let mut cases: Vec<Only> = a
            .values()
            .filter(|case| !b.contains_key(case.id.as_str()))
            .map(|case| Only {
                id: case.id.clone(),
                verdict: case.verdict,
            })
            .collect();
        cases.sort_by_key(|case| (!case.verdict.is_failure(), case.id.clone()));
        cases
    };
    let (mut regressions, mut improvements, mut same) = (Vec::new(), Vec::new(), 0);
    for (id, was) in &old {
        let Some(is) = new.get(id) else { continue };
        match changed(was, is) {
            Some(change) if change.rank.is_some() => regressions.push(change),
            Some(change) => improvements.push(change),
            None => same += 1,
        }
    }
    regressions.sort_by(|a, b| {
        let key = |change: &Change| (change.rank, badness(change.before));
        let ratio = |change: &Change| change.p50_us.map_or(0.0, |(was, is)| is / was);
        key(a)
            .cmp(&key(b))
            .then(ratio(b).total_cmp(&ratio(a)))
            .then(a.id.cmp(&b.id))
    });
    Difference {
        schema: "delegraph.conform-diff/1".to_string(),
        exit_code: u8::from(!regressions.is_empty()),
        subject: subject(before.run.as_ref(), after.run.as_ref()),
        regressions,
        improvements,
        new: only(&new, &old),
        gone: only(&old, &new),
        same,
    }
}

/// From right to as bad as can be. A skipped case is between what is right with a reservation and what is wrong.
fn badness(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::QualityWarning => 1,
        Verdict::Skip => 2,
        Verdict::Flaky => 3,
        Verdict::Waived => 4,
        Verdict::FailClaimed => 5,
        Verdict::Fail => 6,
        Verdict::Hang => 7,
        Verdict::Crash => 8,
    }
}

fn changed(was: &CaseRecord, is: &CaseRecord) -> Option<Change> {
    let change = |rank, p50_us| Change {
        id: is.id.clone(),
        rank,
        before: was.verdict,
        after: is.verdict,
        reason: is.reason.clone(),
        p50_us,
        repro: is.repro.clone(),
    };
    if was.verdict == is.verdict {
        if category_of(is) != "performance" || is.verdict == Verdict::Skip {
            return None;
        }
        let (a, b) = (was.p50_us?, is.p50_us?);
        return match a > 0.0 && a.is_finite() && b.is_finite() {
            true if b > a * (1.0 + SLOWER) => Some(change(Some(Rank::Slower), Some((a, b)))),
            true if b < a * (1.0 - SLOWER) => Some(change(None, Some((a, b)))),
            _ => None,
        };
    }
    // What was not run before says nothing of how it was: now it is known, for better or worse. Only a failure of what the delegate did not
    // take before, and takes now, is of its own making.
    let worse = match (was.verdict, is.verdict) {
        (Verdict::Skip, verdict) => verdict.is_failure() && was.claim == Claim::None,
        (before, Verdict::Skip) => !before.is_failure(),
        (before, after) => badness(after) > badness(before),
    };
    let rank = match is.verdict {
        Verdict::Crash => Rank::Crashes,
        Verdict::Hang => Rank::Hangs,
        Verdict::Fail => Rank::Fails,
        Verdict::FailClaimed => Rank::Refused,
        Verdict::Flaky => Rank::Flaky,
        Verdict::Waived => Rank::Waived,
        Verdict::QualityWarning | Verdict::Pass => Rank::Worse,
        Verdict::Skip => Rank::Lost,
    };
    Some(change(worse.then_some(rank), None))
}

/// What differs in what was run: those values that a reader has to know before the cases mean anything.
fn subject(before: Option<&RunInfo>, after: Option<&RunInfo>) -> Vec<SubjectDifference> {
    let facts = |run: Option<&RunInfo>| -> Vec<(&str, String)> {
        let Some(run) = run else { return Vec::new() };
        let library = run.library.clone().unwrap_or_default();
        let device = run
            .devices
            .iter()
            .find(|device| run.device.is_none_or(|id| id == device.id))
            .cloned()
            .unwrap_or_default();
        let dependents: Vec<String> = library
            .dependents
            .iter()
            .map(|(file, hash)| format!("{file} {hash}"))
            .collect();
        let lists: Vec<String> = run
            .lists
            .iter()
            .map(|list| format!("{} {}", list.name, list.sha256))
            .collect();
        vec![
            ("suite", run.suite.clone()),
            (
                "delegate",
                format!("{} {} {}", library.name, library.version, library.build)
                    .trim()
                    .to_string(),
            ),
            ("library", library.sha256),
            ("manifest", library.manifest_sha256),
            ("dependents", dependents.join(", ")),
            ("backends", run.backends.join(", ")),
            ("device", format!("{} {}", device.name, device.arch).trim().to_string()),
            ("driver", device.driver),
            ("host", run.host.clone()),
            (
                "kit",
                format!("{} {}", run.kit.version, run.kit.commit).trim().to_string(),
            ),
            ("references", run.kit.references_sha256.clone()),
            ("lists", lists.join(", ")),
            ("cases", run.cases_sha256.clone()),
            ("mode", run.mode.clone()),
            ("seed", run.seed.to_string()),
            ("waivers", run.waivers_sha256.clone().unwrap_or_default()),
            (
                "finished",
                if run.finished.is_some() { "yes" } else { "no" }.to_string(),
            ),
        ]
    };
    let (a, b) = (facts(before), facts(after));
    if a.is_empty() != b.is_empty() {
        let known = |facts: &[(&str, String)]| if facts.is_empty() { "unknown" } else { "known" }.to_string();
        return vec![SubjectDifference {
            what: "run.json".to_string(),
            before: known(&a),
            after: known(&b),
        }];
    }
    a.into_iter()
        .zip(b)
        .filter(|((_, before), (_, after))| before != after)
        .map(|((what, before), (_, after))| SubjectDifference {
            what: what.to_string(),
            before,
            after,
        })
        .collect()
}

impl Difference {
    /// The lines that a person reads, without colour.
    pub fn lines(&self) -> Vec<String> {
        let or_none = |text: &str| {
            if text.is_empty() {
                "none".to_string()
            } else {
                text.to_string()
            }
        };
        let mut lines: Vec<String> = self
            .subject
            .iter()
            .map(|d| format!("{:<11} {} -> {}", d.what, or_none(&d.before), or_none(&d.after)))
            .collect();
        if self.subject.is_empty() {
            lines.push("the same subject".to_string());
        }
        let change = |change: &Change| match change.p50_us {
            Some((was, is)) => format!(
                "  {:<28} {}  p50 {was:.1} us -> {is:.1} us ({:+.1} %)",
                "time",
                change.id,
                100.0 * (is / was - 1.0)
            ),
            None => {
                let way = format!("{} -> {}", change.before.name(), change.after.name());
                let reason = crate::text::cut(&crate::text::markdown_code(&change.reason), 160);
                format!("  {way:<28} {}  {reason}", change.id).trim_end().to_string()
            }
        };
        let only = |only: &Only| format!("  {:<28} {}", only.verdict.name(), only.id);
        let failing = self.new.iter().filter(|case| case.verdict.is_failure()).count();
        let sections: [(String, Vec<String>); 4] = [
            (
                format!("{} regressions", self.regressions.len()),
                self.regressions.iter().map(change).collect(),
            ),
            (
                format!("{} improvements", self.improvements.len()),
                self.improvements.iter().map(change).collect(),
            ),
            (
                format!("{} new cases, {failing} of them failing", self.new.len()),
                self.new.iter().map(only).collect(),
            ),
            (
                format!("{} cases gone", self.gone.len()),
                self.gone.iter().map(only).collect(),
            ),
        ];
        for (title, content) in sections {
            lines.push(title);
            lines.extend(content);
        }
        lines.push(format!("{} cases with the same outcome", self.same));
        lines
    }

    /// Counts of regressions by rank, for a line.
    pub fn ranks(&self) -> BTreeSet<Rank> {
        self.regressions.iter().filter_map(|change| change.rank).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(cases: &[(&str, Verdict, f64)]) -> Side {
        let cases = cases.iter().map(|(id, verdict, p50)| {
            let mut case = CaseRecord::new(*id, *verdict, "why");
            case.p50_us = (*p50 > 0.0).then_some(*p50);
            case
        });
        Side {
            run: None,
            cases: cases.collect(),
        }
    }

    #[test]
    fn regressions_are_ranked() {
        use Verdict::*;
        let before = side(&[
            ("performance/a", Pass, 100.0),
            ("performance/b", Pass, 100.0),
            ("performance/c", Pass, 100.0),
            ("performance/d", Pass, 100.0),
            ("op/lost", Pass, 0.0),
            ("op/warn", Pass, 0.0),
            ("op/flaky", Pass, 0.0),
            ("op/fail", Pass, 0.0),
            ("op/crash", Pass, 0.0),
            ("op/crash-from-fail", Fail, 0.0),
            ("op/refused", Pass, 0.0),
            ("op/mended", Crash, 0.0),
            ("op/better", Crash, 0.0),
            ("op/same", Fail, 0.0),
            ("op/known-now", Skip, 0.0),
            ("op/not-known", Fail, 0.0),
            ("op/gone", Pass, 0.0),
        ]);
        let after = side(&[
            ("performance/a", Pass, 104.9),
            ("performance/b", Pass, 105.1),
            ("performance/c", Pass, 150.0),
            ("performance/d", Pass, 90.0),
            ("op/lost", Skip, 0.0),
            ("op/warn", QualityWarning, 0.0),
            ("op/flaky", Flaky, 0.0),
            ("op/fail", Fail, 0.0),
            ("op/crash", Crash, 0.0),
            ("op/crash-from-fail", Crash, 0.0),
            ("op/refused", FailClaimed, 0.0),
            ("op/mended", Pass, 0.0),
            ("op/better", Fail, 0.0),
            ("op/same", Fail, 0.0),
            ("op/known-now", Fail, 0.0),
            ("op/not-known", Skip, 0.0),
            ("op/new", Pass, 0.0),
            ("op/new-bad", Hang, 0.0),
        ]);
        let got = difference(&before, &after);
        let ids: Vec<&str> = got.regressions.iter().map(|change| change.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "op/crash",
                "op/crash-from-fail",
                "op/fail",
                "op/refused",
                "op/flaky",
                "op/warn",
                "op/lost",
                "performance/c",
                "performance/b"
            ]
        );
        let ids: Vec<&str> = got.improvements.iter().map(|change| change.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "op/better",
                "op/known-now",
                "op/mended",
                "op/not-known",
                "performance/d"
            ]
        );
        assert_eq!(
            got.new.iter().map(|case| case.id.as_str()).collect::<Vec<_>>(),
            ["op/new-bad", "op/new"]
        );
        assert_eq!(
            got.gone.iter().map(|case| case.id.as_str()).collect::<Vec<_>>(),
            ["op/gone"]
        );
        assert_eq!((got.same, got.exit_code), (2, 1));
        assert_eq!(difference(&before, &before).exit_code, 0);
    }

    #[test]
    fn what_was_not_taken_before_and_fails_now_is_a_regression() {
        let mut before = side(&[("op/a", Verdict::Skip, 0.0)]);
        let after = side(&[("op/a", Verdict::Fail, 0.0)]);
        assert_eq!(difference(&before, &after).exit_code, 0, "it was never run before");
        before.cases[0].claim = Claim::None;
        assert_eq!(difference(&before, &after).exit_code, 1);
    }

    #[test]
    fn other_subjects_are_said_first() {
        let mut before = side(&[("abi/a", Verdict::Pass, 0.0)]);
        let mut after = before.clone();
        before.run = Some(RunInfo::default());
        let mut run = RunInfo::default();
        run.kit.version = "0.2.0".to_string();
        run.seed = 7;
        after.run = Some(run);
        let lines = difference(&before, &after).lines();
        assert!(
            lines[0].starts_with("kit") && lines[0].ends_with("none -> 0.2.0"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("seed") && lines[1].ends_with("0 -> 7"),
            "{lines:?}"
        );
        assert!(lines.contains(&"0 regressions".to_string()), "{lines:?}");
    }
}
