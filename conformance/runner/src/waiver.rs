//! Waivers: failures that are known, for one delegate, with a reason, an issue, an approver and a last day.
//!
//! ```toml
//! [[waiver]]
//! vendor = "Acme"                 # globs; absent: any
//! delegate = "acme-npu"
//! device = "Acme NPU 3*"
//! driver = "44.*"
//! cases = ["op/aten::softmax*/f16/*"]
//! verdicts = ["fail"]             # absent: `fail` and `fail-claimed`; a crash or a hang only where it is written here
//! reason = "the exponential of this driver has 8 bits"
//! issue = "https://issues.example/1234"
//! expires = "2027-06-30"          # the last day, in UTC, on which it counts
//! approver = "Jo Doe"
//! ```

use crate::record::{CaseRecord, Verdict, WaivedBy};
use crate::time::{Day, date, day};
use serde::Deserialize;
use toml::value::Datetime;

/// Most waivers of a file.
const MOST: usize = 10_000;

/// A file of waivers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Waivers {
    waivers: Vec<Waiver>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    waiver: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default = "any")]
    vendor: String,
    #[serde(default = "any")]
    delegate: String,
    #[serde(default = "any")]
    device: String,
    #[serde(default = "any")]
    driver: String,
    cases: Vec<String>,
    verdicts: Option<Vec<Verdict>>,
    reason: String,
    issue: String,
    expires: Expires,
    approver: String,
}

fn any() -> String {
    "*".to_string()
}

/// A date, in quotes or not.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expires {
    Date(Datetime),
    Text(String),
}

#[derive(Debug, Clone, PartialEq)]
struct Waiver {
    vendor: String,
    delegate: String,
    device: String,
    driver: String,
    cases: Vec<String>,
    verdicts: Vec<Verdict>,
    reason: String,
    issue: String,
    /// The last day.
    expires: Day,
    approver: String,
}

/// Whether a glob matches a text.
pub type Matches = fn(&str, &str) -> bool;

/// Of whom a record is, beside what stands in it.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    /// Who makes the library.
    pub vendor: &'a str,
    /// The day of the run.
    pub today: Day,
    /// How globs are matched.
    pub matches: Matches,
}

impl Waivers {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// It is no such text, or an entry lacks what it has to have; the entry is named by its number.
    pub fn parse(text: &str) -> Result<Waivers, String> {
        let text: Text = toml::from_str(text).map_err(|error| error.to_string())?;
        if text.waiver.len() > MOST {
            return Err(format!("it has {} waivers, more than {MOST}", text.waiver.len()));
        }
        let one =
            |(at, entry): (usize, Entry)| Waiver::of(entry).map_err(|problem| format!("waiver {}: {problem}", at + 1));
        let waivers = text.waiver.into_iter().enumerate().map(one).collect::<Result<_, _>>()?;
        Ok(Waivers { waivers })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.waivers.is_empty()
    }

    /// A failure that a waiver covers is waived, with the waiver's reason, issue and last day; an expired one leaves it, and says so.
    pub fn judge(&self, record: &mut CaseRecord, of: Of<'_>) {
        if !record.verdict.is_failure() {
            return;
        }
        let covers = |waiver: &&Waiver| waiver.verdicts.contains(&record.verdict) && waiver.is_about(record, of);
        let found: Vec<&Waiver> = self.waivers.iter().filter(covers).collect();
        let counts = |waiver: &&&Waiver| of.today <= waiver.expires;
        if let Some(waiver) = found.iter().find(counts) {
            record.reason = format!(
                "{}: {}; waived until {}: {} ({}; approved by {})",
                record.verdict.name(),
                record.reason,
                date(waiver.expires),
                waiver.reason,
                waiver.issue,
                waiver.approver
            );
            record.verdict = Verdict::Waived;
            record.waiver = Some(WaivedBy {
                reason: waiver.reason.clone(),
                issue: waiver.issue.clone(),
                expires: date(waiver.expires),
                approver: waiver.approver.clone(),
            });
        } else if let Some(waiver) = found.first() {
            let ended = date(waiver.expires);
            record.reason = format!("{}; its waiver expired on {ended} ({})", record.reason, waiver.issue);
        }
    }

    /// What is to be said of the waivers after a run: each that is of no use, in a sentence.
    pub fn needless(&self, records: &[CaseRecord], of: Of<'_>) -> Vec<String> {
        let mut said = Vec::new();
        for (at, waiver) in self.waivers.iter().enumerate() {
            let name = format!("waiver {} ({})", at + 1, waiver.issue);
            let about: Vec<&CaseRecord> = records.iter().filter(|record| waiver.is_about(record, of)).collect();
            let passing: Vec<&&CaseRecord> = about.iter().filter(|case| case.verdict == Verdict::Pass).collect();
            match (about.first(), passing.first()) {
                (None, _) => said.push(format!("{name} is about no case of this run")),
                (Some(_), Some(_)) if passing.len() == about.len() => {
                    said.push(format!("{name} is needless: all {} of its cases pass", about.len()));
                }
                (Some(_), Some(first)) => said.push(format!(
                    "{name} is wider than need be: {} of its {} cases pass, `{}` for one",
                    passing.len(),
                    about.len(),
                    first.id
                )),
                (Some(_), None) if of.today > waiver.expires => {
                    said.push(format!("{name} expired on {}", date(waiver.expires)));
                }
                (Some(_), None) => {}
            }
        }
        said
    }
}

impl Waiver {
    fn of(entry: Entry) -> Result<Waiver, String> {
        for (key, value) in [
            ("reason", &entry.reason),
            ("issue", &entry.issue),
            ("approver", &entry.approver),
        ] {
            if value.trim().is_empty() {
                return Err(format!("`{key}` is empty"));
            }
        }
        if entry.cases.is_empty() {
            return Err("`cases` is empty".to_string());
        }
        let expires = match entry.expires {
            Expires::Date(date) => date,
            Expires::Text(text) => text
                .parse()
                .map_err(|_| format!("`expires` is no date such as 2027-06-30: `{text}`"))?,
        };
        let (Some(last), None) = (expires.date, expires.time) else {
            return Err(format!("`expires` is no date such as 2027-06-30: `{expires}`"));
        };
        let verdicts = entry.verdicts.unwrap_or(vec![Verdict::Fail, Verdict::FailClaimed]);
        if let Some(other) = verdicts.iter().find(|verdict| !verdict.is_failure()) {
            return Err(format!("`verdicts` has `{}`, which needs no waiver", other.name()));
        }
        Ok(Waiver {
            vendor: entry.vendor,
            delegate: entry.delegate,
            device: entry.device,
            driver: entry.driver,
            cases: entry.cases,
            verdicts,
            reason: entry.reason,
            issue: entry.issue,
            expires: day(last),
            approver: entry.approver,
        })
    }

    /// Whether the record is of this waiver's delegate, device and cases.
    fn is_about(&self, record: &CaseRecord, of: Of<'_>) -> bool {
        let whose = [
            (&self.vendor, of.vendor),
            (&self.delegate, record.delegate.as_str()),
            (&self.device, record.device.as_str()),
            (&self.driver, record.driver.as_str()),
        ];
        whose.iter().all(|(glob, text)| (of.matches)(glob, text))
            && self.cases.iter().any(|glob| (of.matches)(glob, &record.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `*` at the end alone: enough for these tests, which are not about globs.
    fn matches(glob: &str, text: &str) -> bool {
        match glob.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => glob == text,
        }
    }

    fn of(today: &str) -> Of<'static> {
        let date: Datetime = today.parse().unwrap();
        Of {
            vendor: "Acme",
            today: day(date.date.unwrap()),
            matches,
        }
    }

    fn record(id: &str, verdict: Verdict) -> CaseRecord {
        let mut record = CaseRecord::new(id, verdict, "off by 3");
        record.delegate = "npu".to_string();
        record.device = "NPU 3".to_string();
        record.driver = "44.1".to_string();
        record
    }

    const WHY: &str = "reason = 'r'\nissue = 'u'\nexpires = '2026-06-30'\napprover = 'a'\n";

    fn waivers(lines: &str) -> Waivers {
        Waivers::parse(&format!("[[waiver]]\n{lines}{WHY}")).unwrap()
    }

    fn judged(waivers: &Waivers, record: &CaseRecord, today: &str) -> CaseRecord {
        let mut record = record.clone();
        waivers.judge(&mut record, of(today));
        record
    }

    #[test]
    fn a_waiver_counts_to_the_end_of_its_last_day() {
        let waivers = waivers("cases = ['op/*']\n");
        let failed = record("op/a", Verdict::Fail);
        for (today, verdict) in [
            ("2020-02-29", Verdict::Waived),
            ("2026-06-29", Verdict::Waived),
            ("2026-06-30", Verdict::Waived),
            ("2026-07-01", Verdict::Fail),
            ("2027-01-01", Verdict::Fail),
        ] {
            let got = judged(&waivers, &failed, today);
            assert_eq!(got.verdict, verdict, "{today}");
            match verdict {
                Verdict::Waived => {
                    assert_eq!(got.waiver.as_ref().unwrap().expires, "2026-06-30");
                    for part in ["off by 3", "2026-06-30", "r", "u", "a"] {
                        assert!(got.reason.contains(part), "{}", got.reason);
                    }
                }
                _ => assert_eq!(got.reason, "off by 3; its waiver expired on 2026-06-30 (u)"),
            }
        }
    }

    #[test]
    fn an_expired_waiver_does_not_hide_one_that_counts() {
        let text = format!(
            "[[waiver]]\ncases = ['op/*']\nreason = 'old'\nissue = 'u'\nexpires = '2025-01-01'\napprover = 'a'\n\
             [[waiver]]\ncases = ['op/a']\n{WHY}"
        );
        let waivers = Waivers::parse(&text).unwrap();
        let got = judged(&waivers, &record("op/a", Verdict::Fail), "2026-01-01");
        assert_eq!(got.verdict, Verdict::Waived);
        let got = judged(&waivers, &record("op/b", Verdict::Fail), "2026-01-01");
        assert_eq!(got.verdict, Verdict::Fail);
    }

    #[test]
    fn a_waiver_is_for_its_delegate_device_driver_and_cases() {
        let failed = record("op/a", Verdict::Fail);
        for (lines, verdict) in [
            ("cases = ['op/a']\n", Verdict::Waived),
            ("cases = ['op/b', 'op/a']\n", Verdict::Waived),
            ("cases = ['op/b']\n", Verdict::Fail),
            ("vendor = 'Acme'\ncases = ['*']\n", Verdict::Waived),
            ("vendor = 'Other'\ncases = ['*']\n", Verdict::Fail),
            ("delegate = 'np*'\ncases = ['*']\n", Verdict::Waived),
            ("delegate = 'gpu'\ncases = ['*']\n", Verdict::Fail),
            ("device = 'NPU 3'\ndriver = '44*'\ncases = ['*']\n", Verdict::Waived),
            ("device = 'NPU 3'\ndriver = '45*'\ncases = ['*']\n", Verdict::Fail),
            ("device = 'NPU 4'\ncases = ['*']\n", Verdict::Fail),
        ] {
            assert_eq!(
                judged(&waivers(lines), &failed, "2026-01-01").verdict,
                verdict,
                "{lines}"
            );
        }
    }

    #[test]
    fn crashes_and_hangs_are_waived_only_where_it_is_written() {
        let usual = waivers("cases = ['*']\n");
        let crash = waivers("cases = ['*']\nverdicts = ['crash']\n");
        let both = waivers("cases = ['*']\nverdicts = ['crash', 'hang', 'fail']\n");
        for (verdict, by_usual, by_crash, by_both) in [
            (Verdict::Fail, true, false, true),
            (Verdict::FailClaimed, true, false, false),
            (Verdict::Crash, false, true, true),
            (Verdict::Hang, false, false, true),
            (Verdict::Pass, false, false, false),
            (Verdict::Skip, false, false, false),
            (Verdict::Flaky, false, false, false),
        ] {
            for (waivers, waived) in [(&usual, by_usual), (&crash, by_crash), (&both, by_both)] {
                let want = if waived { Verdict::Waived } else { verdict };
                assert_eq!(judged(waivers, &record("op/a", verdict), "2026-01-01").verdict, want);
            }
        }
    }

    #[test]
    fn what_a_waiver_has_to_have() {
        for missing in ["reason", "issue", "expires", "approver", "cases"] {
            let all = format!("cases = ['*']\n{WHY}");
            let less: String = all
                .lines()
                .filter(|line| !line.starts_with(missing))
                .map(|l| format!("{l}\n"))
                .collect();
            let problem = Waivers::parse(&format!("[[waiver]]\n{less}")).unwrap_err();
            assert!(problem.contains(missing), "{problem}");
        }
        for (from, to) in [
            ("reason = 'r'", "reason = ' '"),
            ("'2026-06-30'", "'soon'"),
            ("'2026-06-30'", "'2026-02-30T00:00:00Z'"),
            ("approver = 'a'", "approver = ''"),
            ("cases = ['*']", "cases = []"),
            ("cases = ['*']", "cases = ['*']\nverdicts = ['pass']"),
            ("cases = ['*']", "case = ['*']"),
        ] {
            let text = format!("[[waiver]]\ncases = ['*']\n{WHY}").replace(from, to);
            assert!(Waivers::parse(&text).is_err(), "{text}");
        }
        assert!(Waivers::parse("").unwrap().is_empty());
        let bare = format!("[[waiver]]\ncases = ['*']\n{WHY}").replace("'2026-06-30'", "2026-06-30");
        assert!(Waivers::parse(&bare).is_ok());
    }

    #[test]
    fn needless_waivers_are_named() {
        let waivers = waivers("cases = ['op/*']\n");
        let pass = record("op/a", Verdict::Pass);
        let fail = record("op/b", Verdict::Fail);
        let said = |records: &[CaseRecord], today| waivers.needless(records, of(today)).join("; ");
        assert!(said(&[], "2026-01-01").contains("no case"));
        assert!(said(std::slice::from_ref(&pass), "2026-01-01").contains("needless"));
        assert!(said(&[pass, fail.clone()], "2026-01-01").contains("1 of its 2"));
        assert_eq!(said(std::slice::from_ref(&fail), "2026-01-01"), "");
        assert!(said(&[fail], "2026-07-01").contains("expired on 2026-06-30"));
    }
}
