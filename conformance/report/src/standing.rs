//! What a run says of each delegate, and the answer to "may I ship on this?".
//!
//! Counts are apart from each other: what was claimed, what was taken beyond that, what the contract asks of every delegate, what was not
//! claimed, and what was not run. Nothing that was not run is counted as passed or failed.

use crate::text::plural;
use crate::truth::Truth;
use delegraph_runner::{CaseRecord, Claim, Verdict};
use std::collections::BTreeMap;

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed, without a reservation.
    pub passed: u64,
    /// Those and all others of the kind, whether they were run or not.
    pub total: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.passed, self.total)
    }
}

/// The answer to "may I ship on this?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Whatever it claims or takes is right.
    Yes,
    /// The same, with failures that are waived or that come and go, or with results that should be better.
    Conditional,
    /// Something is wrong.
    No,
    /// The run does not tell.
    Open,
}

impl Answer {
    /// One word, as it is shown: `yes`, `conditions`, `no`, `open`.
    pub fn name(self) -> &'static str {
        match self {
            Answer::Yes => "yes",
            Answer::Conditional => "conditions",
            Answer::No => "no",
            Answer::Open => "open",
        }
    }
}

/// A waived case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    /// The case.
    pub id: String,
    /// The last day of the waiver, as `2027-01-31`; absent where the record names none.
    pub expires: Option<String>,
    /// Days from the start of the run to then.
    pub days_left: Option<i64>,
}

/// What a run says of one delegate.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Name of the delegate, or `portable`.
    pub delegate: String,
    /// Its version; may be empty.
    pub version: String,
    /// The device, and its driver; may be empty.
    pub device: String,
    /// Major and minor of the ABI that the library was built with.
    pub abi: Option<(u16, u16)>,
    /// Cases that the manifest claims.
    pub claimed: Tally,
    /// Cases that the delegate takes beyond that.
    pub taken: Tally,
    /// Cases about no operator, which every delegate has to pass.
    pub contract: Tally,
    /// Cases that are neither claimed nor taken, which costs nothing.
    pub not_claimed: u64,
    /// How many cases have each verdict.
    pub counts: BTreeMap<Verdict, u64>,
    /// Cases that were skipped for want of a device, a file or a library.
    pub not_run: u64,
    /// Those of them that are claimed.
    pub claimed_not_run: u64,
    /// Waived cases.
    pub waivers: Vec<Waiver>,
    /// May I ship on this?
    pub answer: Answer,
    /// The same as a sentence, with numbers.
    pub sentence: String,
}

impl Standing {
    /// How many cases have this verdict.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.counts.get(&verdict).copied().unwrap_or(0)
    }

    /// Cases that failed, crashed, hung or were refused against the claim.
    pub fn failures(&self) -> u64 {
        self.counts
            .iter()
            .filter(|(verdict, _)| verdict.is_failure())
            .map(|(_, n)| n)
            .sum()
    }
}

/// One standing a delegate, by name. A run over a library has one; one of `ops` or `models` has one for each backend order that it ran.
pub fn standings(truth: &Truth) -> Vec<Standing> {
    let library = truth.run.library.as_ref();
    let mut groups: BTreeMap<&str, Vec<&CaseRecord>> = BTreeMap::new();
    for case in &truth.cases {
        let name = match (library, case.delegate.as_str()) {
            (Some(library), _) => library.name.as_str(),
            (None, "") => "portable",
            (None, name) => name,
        };
        groups.entry(name).or_default().push(case);
    }
    if groups.is_empty() {
        groups.insert(library.map_or("portable", |library| library.name.as_str()), Vec::new());
    }
    groups
        .iter()
        .map(|(name, cases)| standing(name, cases, truth))
        .collect()
}

fn standing(name: &str, cases: &[&CaseRecord], truth: &Truth) -> Standing {
    let library = truth.run.library.as_ref();
    let first = |of: fn(&CaseRecord) -> &str| cases.iter().map(|case| of(case)).find(|text| !text.is_empty());
    let mut standing = Standing {
        delegate: name.to_string(),
        version: match library {
            Some(library) => library.version.clone(),
            None => first(|case| &case.delegate_version).unwrap_or_default().to_string(),
        },
        device: device_of(truth).unwrap_or_else(|| {
            let device = first(|case| &case.device).unwrap_or_default();
            format!("{device} {}", first(|case| &case.driver).unwrap_or_default())
                .trim()
                .to_string()
        }),
        abi: library.map(|library| (library.abi_major, library.abi_minor)),
        claimed: Tally::default(),
        taken: Tally::default(),
        contract: Tally::default(),
        not_claimed: 0,
        counts: BTreeMap::new(),
        not_run: 0,
        claimed_not_run: 0,
        waivers: Vec::new(),
        answer: Answer::Open,
        sentence: String::new(),
    };
    for case in cases {
        *standing.counts.entry(case.verdict).or_default() += 1;
        let tally = match case.claim {
            Claim::Claimed => Some(&mut standing.claimed),
            Claim::Taken => Some(&mut standing.taken),
            Claim::Unknown => Some(&mut standing.contract),
            Claim::None if case.verdict == Verdict::Skip => None,
            // Whoever does not take a case cannot fail it: what failed was taken.
            Claim::None => Some(&mut standing.taken),
        };
        match tally {
            Some(tally) => {
                tally.total += 1;
                tally.passed += u64::from(case.verdict == Verdict::Pass);
            }
            None => standing.not_claimed += 1,
        }
        if case.verdict == Verdict::Skip && case.claim != Claim::None {
            standing.not_run += 1;
            standing.claimed_not_run += u64::from(case.claim == Claim::Claimed);
        }
        if case.verdict == Verdict::Waived {
            standing.waivers.push(waiver(case, &truth.run.started));
        }
    }
    (standing.answer, standing.sentence) = answer(&standing, truth);
    standing
}

/// The chosen device, or the only one, with its driver.
pub(crate) fn device_of(truth: &Truth) -> Option<String> {
    let run = &truth.run;
    let device = match run.device {
        Some(id) => run.devices.iter().find(|device| device.id == id),
        None => run.devices.first(),
    }?;
    Some(format!("{} {}", device.name, device.driver).trim().to_string())
}

fn answer(standing: &Standing, truth: &Truth) -> (Answer, String) {
    let run = &truth.run;
    let told = |verdict, noun: &str| match standing.count(verdict) {
        0 => None,
        n => Some(format!(
            "{} {}",
            plural(n, "case"),
            noun.replace("%s", if n == 1 { "s" } else { "" })
        )),
    };
    let is = |n: u64| if n == 1 { "is" } else { "are" };
    if standing.failures() > 0 {
        let refused = standing.count(Verdict::FailClaimed);
        let parts = [
            told(Verdict::Crash, "crash%s").map(|text| text.replace("crashs", "crashes")),
            told(Verdict::Hang, "hang%s"),
            told(Verdict::Fail, "fail%s"),
            (refused > 0).then(|| format!("{} {} claimed and refused", plural(refused, "case"), is(refused))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        return (Answer::No, format!("No: {}.", parts.join(", ")));
    }
    let ran: u64 = standing
        .counts
        .iter()
        .filter(|(verdict, _)| **verdict != Verdict::Skip)
        .map(|(_, n)| n)
        .sum();
    if ran == 0 {
        return (Answer::Open, "Not known: nothing was run.".to_string());
    }
    if run.finished.is_none() {
        let text = format!(
            "Not known: the run has not ended; {} of {} cases are here.",
            truth.cases.len(),
            run.cases
        );
        return (Answer::Open, text);
    }
    if let Some((index, count)) = run.shard {
        return (
            Answer::Open,
            format!("Not known: this is shard {index} of {count}; merge them first."),
        );
    }
    if standing.claimed_not_run > 0 {
        let n = standing.claimed_not_run;
        return (
            Answer::Open,
            format!("Not known: {} {} claimed and not run.", plural(n, "case"), is(n)),
        );
    }
    let passed = match (standing.claimed.total, standing.taken.total) {
        (0, 0) if run.library.is_some() => format!(
            "it claims no operator and takes none, and keeps the contract in {} cases",
            standing.contract
        ),
        (0, 0) => format!("{} cases pass", standing.contract),
        (0, _) => format!(
            "it claims nothing beforehand; {} cases that it takes pass",
            standing.taken
        ),
        (_, 0) => format!(
            "{} claimed cases and {} of the contract pass",
            standing.claimed, standing.contract
        ),
        (_, _) => format!(
            "{} claimed cases, {} taken beyond that and {} of the contract pass",
            standing.claimed, standing.taken, standing.contract
        ),
    };
    let waived = standing.count(Verdict::Waived);
    let until = standing
        .waivers
        .iter()
        .filter_map(|waiver| waiver.expires.as_deref())
        .min();
    let parts = [
        (waived > 0).then(|| match until {
            Some(day) => format!("{waived} waived, the first until {day}"),
            None => format!("{waived} waived"),
        }),
        told(Verdict::Flaky, "passed only when run again"),
        told(Verdict::QualityWarning, "worse than they should be"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => (Answer::Yes, format!("Yes, for what it claims: {passed}.")),
        false => (
            Answer::Conditional,
            format!("Yes, with conditions: {}; {passed}.", parts.join(", ")),
        ),
    }
}

fn waiver(case: &CaseRecord, started: &str) -> Waiver {
    let expires = case.waiver.as_ref().map(|waiver| waiver.expires.clone());
    let days_left = expires.as_deref().and_then(|day| Some(days(day)? - days(started)?));
    Waiver {
        id: case.id.clone(),
        expires,
        days_left,
    }
}

/// Days from 1970-01-01 to a date in the form `2026-11-22`, with or without a time behind it.
pub(crate) fn days(date: &str) -> Option<i64> {
    let date: toml::value::Datetime = date.get(..10)?.parse().ok()?;
    date.date.map(delegraph_runner::time::day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_runner::RunInfo;
    use delegraph_runner::record::WaivedBy;
    use delegraph_runner::run_info::LibraryId;

    fn of(cases: &[(Verdict, Claim)]) -> Standing {
        let run = RunInfo {
            library: Some(LibraryId {
                name: "npu".to_string(),
                ..LibraryId::default()
            }),
            started: "2026-11-22T10:00:00Z".to_string(),
            finished: Some("2026-11-22T11:00:00Z".to_string()),
            ..RunInfo::default()
        };
        let cases = cases.iter().enumerate().map(|(i, (verdict, claim))| {
            let mut case = CaseRecord::new(format!("op/{i}"), *verdict, "why");
            case.waiver = (*verdict == Verdict::Waived).then(|| WaivedBy {
                expires: "2027-01-31".to_string(),
                ..WaivedBy::default()
            });
            case.claim = *claim;
            case
        });
        standings(&Truth::new(run, cases.collect())).remove(0)
    }

    #[test]
    fn the_answer_is_the_worst_of_its_cases() {
        use Claim::{Claimed, None, Taken, Unknown};
        use Verdict::*;
        for (cases, answer, text) in [
            (vec![], Answer::Open, "nothing was run"),
            (vec![(Skip, None)], Answer::Open, "nothing was run"),
            (
                vec![(Pass, Unknown), (Skip, None)],
                Answer::Yes,
                "claims no operator and takes none",
            ),
            (
                vec![(Pass, Claimed), (Pass, Taken)],
                Answer::Yes,
                "1/1 claimed cases, 1/1 taken",
            ),
            (
                vec![(Pass, Claimed), (Skip, Claimed)],
                Answer::Open,
                "1 case is claimed and not run",
            ),
            (
                vec![(Pass, Claimed), (Waived, Claimed)],
                Answer::Conditional,
                "1 waived, the first until 2027-01-31; 1/2",
            ),
            (
                vec![(Flaky, Claimed)],
                Answer::Conditional,
                "1 case passed only when run again",
            ),
            (vec![(QualityWarning, Claimed)], Answer::Conditional, "1 case worse"),
            (
                vec![(Pass, Claimed), (FailClaimed, Claimed)],
                Answer::No,
                "1 case is claimed and refused",
            ),
            (
                vec![(Crash, Unknown), (Hang, Unknown), (Fail, Taken), (Fail, None)],
                Answer::No,
                "1 case crashes, 1 case hangs, 2 cases fail",
            ),
        ] {
            let standing = of(&cases);
            assert_eq!(standing.answer, answer, "{cases:?}: {}", standing.sentence);
            assert!(standing.sentence.contains(text), "{cases:?}: {}", standing.sentence);
        }
    }

    #[test]
    fn nothing_that_was_not_run_is_counted_as_passed_or_failed() {
        let standing = of(&[
            (Verdict::Pass, Claim::Claimed),
            (Verdict::Skip, Claim::Unknown),
            (Verdict::Skip, Claim::None),
        ]);
        assert_eq!((standing.claimed.passed, standing.claimed.total), (1, 1));
        assert_eq!((standing.contract.passed, standing.contract.total), (0, 1));
        assert_eq!((standing.not_run, standing.not_claimed, standing.failures()), (1, 1, 0));
    }

    #[test]
    fn a_waiver_says_how_long_it_lasts() {
        let standing = of(&[(Verdict::Waived, Claim::Claimed)]);
        assert_eq!(standing.waivers[0].expires.as_deref(), Some("2027-01-31"));
        assert_eq!(standing.waivers[0].days_left, Some(70));
        // From `date -u -d DAY +%s` / 86400.
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("2000-02-29"), Some(11016));
        assert_eq!(days("2026-11-22T10:00:00Z"), Some(20779));
        assert_eq!(days("2026-13-01"), None);
        assert_eq!(days("soon"), None);
    }
}
