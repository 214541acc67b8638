//! The certificate of a finished run over a library: what it is of, what was run, and whether each list was passed.
//!
//! It is a text of JSON that `delegraph delegate sign` signs and the host reads (`delegraph_host::trust::Certificate`). It is made of
//! `run.json` and `cases.jsonl` alone, and the same truth gives the same bytes.

use crate::standing::device_of;
use crate::truth::Truth;
use delegraph_runner::run_info::{DeviceId, ListId};
use delegraph_runner::{CaseRecord, Claim, Verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Most reasons of a list.
const REASONS: usize = 20;

/// Which cases a list has. `None`: it is not known here, and then every case of the run counts for it.
pub type Members<'a> = &'a dyn Fn(&ListId) -> Option<BTreeSet<String>>;

/// A certificate; `delegraph.certificate/1`. Fields may be added; the meaning of one does not change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Certificate {
    /// `delegraph.certificate/1`
    pub schema: String,
    /// What was tested.
    pub library: Library,
    /// The ABI that it was built with.
    pub abi: Abi,
    /// What tested it.
    pub kit: delegraph_runner::run_info::KitId,
    /// Each list that was run whole, with its verdict.
    pub lists: Vec<List>,
    /// Cases that failed and were let off.
    pub waivers: Vec<Waiver>,
    /// How many cases there are of each verdict, zeros included.
    pub counts: BTreeMap<String, u64>,
    /// Cases that the manifest claims.
    pub claimed: u64,
    /// Those of them that passed, without a reservation.
    pub claimed_passed: u64,
    /// The machine: `x86_64 linux`.
    pub host: String,
    /// The device that it was run on, with its driver; absent where the library lists none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Every device that the library listed.
    pub devices: Vec<DeviceId>,
    /// What random inputs were made from.
    pub seed: u64,
    /// SHA-256 of `cases.jsonl`.
    pub log_sha256: String,
    /// SHA-256 of `run.json`.
    pub run_sha256: String,
    /// When the run ended, in UTC.
    pub date: String,
}

/// The library of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Library {
    /// Backend id.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Names one build; may be empty.
    pub build: String,
    /// File name, without folders.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of its manifest; absent: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// Libraries beside it that it needs.
    pub dependents: Vec<File>,
}

/// A file and its hash.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct File {
    /// File name, without folders.
    pub file: String,
    /// SHA-256.
    pub sha256: String,
}

/// A version of the ABI.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Abi {
    /// Major: 0.
    pub major: u16,
    /// Minor.
    pub minor: u16,
}

/// A list and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct List {
    /// `core-0.9`
    pub name: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// How many cases it has.
    pub cases: u64,
    /// `conformant`, `not conformant`, or `incomplete`: it was not run to its end.
    pub verdict: &'static str,
    /// Why, where it is not conformant; at most 20.
    pub reasons: Vec<String>,
}

/// A waived case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waiver {
    /// Id of the case.
    pub case: String,
    /// Why.
    pub reason: String,
    /// Where it is followed up.
    pub issue: String,
    /// The last day, in UTC.
    pub expires: String,
    /// Who let it off.
    pub approver: String,
}

/// Hashes of the two files that a certificate is made of.
#[derive(Debug, Clone, Copy)]
pub struct Hashes<'a> {
    /// Of `cases.jsonl`.
    pub log: &'a str,
    /// Of `run.json`.
    pub run: &'a str,
}

/// Why a run has no certificate.
///
/// `None`: it can have one, which may still say that a list was not passed.
pub fn why_none(truth: &Truth) -> Option<String> {
    let run = &truth.run;
    let reason = match (&run.library, run.shard) {
        (None, _) => "the run is over no single library",
        (Some(library), _) if file_name(&library.name).is_none() => "the library has no name that a file could have",
        _ if run.finished.is_none() => "the run has not ended: run it again to resume",
        (_, Some((index, count))) => return Some(format!("it is shard {index} of {count}: merge them first")),
        _ if run.mode != "test" => "nothing was judged in this mode",
        _ if run.lists.is_empty() => "no list was run whole: name one by `--list`",
        _ => return None,
    };
    Some(reason.to_string())
}

/// The name of a library's certificate: `NAME.conformance.json`. `None`: the name is no backend id.
pub fn file_name(library: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !library.is_empty() && library.len() <= 200 && library.chars().all(plain);
    good.then(|| format!("{library}.conformance.json"))
}

/// The certificate of a run; `None`: it has none ([`why_none`]).
pub fn make(truth: &Truth, hashes: Hashes<'_>, members: Members<'_>) -> Option<Certificate> {
    if why_none(truth).is_some() {
        return None;
    }
    let run = &truth.run;
    let library = run.library.as_ref()?;
    let claimed = || truth.cases.iter().filter(|case| case.claim == Claim::Claimed);
    let lists = run.lists.iter().map(|list| judge(list, truth, members(list)));
    Some(Certificate {
        schema: "delegraph.certificate/1".to_string(),
        library: Library {
            name: library.name.clone(),
            vendor: library.vendor.clone(),
            version: library.version.clone(),
            build: library.build.clone(),
            file: library.file.clone(),
            sha256: library.sha256.clone(),
            manifest_sha256: Some(library.manifest_sha256.clone()).filter(|hash| !hash.is_empty()),
            dependents: library
                .dependents
                .iter()
                .map(|(file, sha256)| File {
                    file: file.clone(),
                    sha256: sha256.clone(),
                })
                .collect(),
        },
        abi: Abi {
            major: library.abi_major,
            minor: library.abi_minor,
        },
        kit: run.kit.clone(),
        lists: lists.collect(),
        waivers: truth.cases.iter().filter_map(waiver).collect(),
        counts: truth.report().summary.counts,
        claimed: claimed().count() as u64,
        claimed_passed: claimed().filter(|case| case.verdict == Verdict::Pass).count() as u64,
        host: run.host.clone(),
        device: device_of(truth),
        devices: run.devices.clone(),
        seed: run.seed,
        log_sha256: hashes.log.to_string(),
        run_sha256: hashes.run.to_string(),
        date: run.finished.clone().unwrap_or_default(),
    })
}

impl Certificate {
    /// The text of the file.
    pub fn to_text(&self) -> String {
        // Maps are sorted and no value fails, so that the same certificate is the same bytes.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

fn waiver(case: &CaseRecord) -> Option<Waiver> {
    if case.verdict != Verdict::Waived {
        return None;
    }
    let by = case.waiver.clone().unwrap_or_default();
    Some(Waiver {
        case: case.id.clone(),
        reason: by.reason,
        issue: by.issue,
        expires: by.expires,
        approver: by.approver,
    })
}

/// What a case says against its list.
enum Against {
    /// It was not run, and has to be.
    NotRun(String),
    /// It was run and is wrong.
    Wrong(String),
}

fn against(case: &CaseRecord, ended: &str) -> Option<Against> {
    let wrong = |what: &str| Some(Against::Wrong(format!("`{}`: {what}", case.id)));
    match case.verdict {
        Verdict::Pass | Verdict::QualityWarning => None,
        Verdict::Skip if case.claim == Claim::None => None,
        Verdict::Skip => Some(Against::NotRun(format!("`{}` was not run: {}", case.id, case.reason))),
        Verdict::Waived => match case.waiver.as_ref().map(|by| by.expires.as_str()) {
            None | Some("") => wrong("waived, and the record does not say until when"),
            // Days in this form compare as texts do. Whether it holds today is for whoever reads the certificate.
            Some(day) if ended.get(..10).is_none_or(|ended| ended > day) => wrong("its waiver had expired"),
            Some(_) => None,
        },
        other => wrong(other.name()),
    }
}

/// The verdict on a list.
fn judge(list: &ListId, truth: &Truth, members: Option<BTreeSet<String>>) -> List {
    let of_list = |case: &&CaseRecord| members.as_ref().is_none_or(|members| members.contains(&case.id));
    let cases: Vec<&CaseRecord> = truth.cases.iter().filter(of_list).collect();
    let ended = truth.run.finished.as_deref().unwrap_or_default();
    let (mut wrong, mut not_run) = (Vec::new(), Vec::new());
    for case in &cases {
        match against(case, ended) {
            None => {}
            Some(Against::Wrong(text)) => wrong.push(text),
            Some(Against::NotRun(text)) => not_run.push(text),
        }
    }
    // Where the list's cases are not known, the run's are what has to be there.
    let whole = if members.is_some() {
        list.cases
    } else {
        truth.run.cases.max(list.cases)
    };
    let have = cases.len() as u64;
    if have < whole {
        not_run.push(format!("{} of {whole} cases have no verdict", whole - have));
    }
    if have == 0 {
        not_run.push("it has no case".to_string());
    }
    let verdict = match (wrong.is_empty(), not_run.is_empty()) {
        (false, _) => "not conformant",
        (true, false) => "incomplete",
        (true, true) => "conformant",
    };
    let mut reasons = wrong;
    reasons.append(&mut not_run);
    if reasons.len() > REASONS {
        let more = reasons.len() - (REASONS - 1);
        reasons.truncate(REASONS - 1);
        reasons.push(format!("and {more} more"));
    }
    for reason in &mut reasons {
        if reason.chars().count() > 300 {
            *reason = reason.chars().take(299).collect::<String>() + "…";
        }
    }
    List {
        name: list.name.clone(),
        sha256: list.sha256.clone(),
        cases: list.cases,
        verdict,
        reasons,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_runner::RunInfo;
    use delegraph_runner::record::WaivedBy;
    use delegraph_runner::run_info::LibraryId;

    const HASHES: Hashes<'static> = Hashes { log: "l", run: "r" };

    fn truth(cases: &[(Verdict, Claim)]) -> Truth {
        let run = RunInfo {
            library: Some(LibraryId {
                name: "npu".to_string(),
                ..LibraryId::default()
            }),
            lists: vec![ListId {
                name: "core-0.9".to_string(),
                sha256: "h".to_string(),
                cases: cases.len() as u64,
            }],
            cases: cases.len() as u64,
            mode: "test".to_string(),
            finished: Some("2026-11-22T11:00:00Z".to_string()),
            ..RunInfo::default()
        };
        let cases = cases.iter().enumerate().map(|(i, (verdict, claim))| {
            let mut case = CaseRecord::new(format!("op/{i}"), *verdict, "why");
            case.claim = *claim;
            if *verdict == Verdict::Waived {
                case.waiver = Some(WaivedBy {
                    reason: "known".to_string(),
                    issue: "i".to_string(),
                    expires: "2026-11-22".to_string(),
                    approver: "a".to_string(),
                });
            }
            case
        });
        Truth::new(run, cases.collect())
    }

    fn verdict(truth: &Truth) -> (&'static str, String) {
        let list = make(truth, HASHES, &|_| None).unwrap().lists.remove(0);
        (list.verdict, list.reasons.join("; "))
    }

    #[test]
    fn a_list_is_conformant_if_each_of_its_cases_lets_it_be() {
        use Claim::{Claimed, None, Taken, Unknown};
        use Verdict::*;
        let good = (Pass, Claimed);
        for (cases, want, words) in [
            (
                vec![
                    good,
                    (Pass, Unknown),
                    (Pass, Taken),
                    (Skip, None),
                    (QualityWarning, Taken),
                ],
                "conformant",
                "",
            ),
            (vec![good, (Waived, Claimed)], "conformant", ""),
            (
                vec![good, (FailClaimed, Claimed)],
                "not conformant",
                "`op/1`: fail-claimed",
            ),
            (vec![good, (Fail, Taken)], "not conformant", "`op/1`: fail"),
            (
                vec![good, (Crash, Unknown), (Skip, Unknown)],
                "not conformant",
                "`op/1`: crash; `op/2` was not run: why",
            ),
            (vec![good, (Hang, Unknown)], "not conformant", "hang"),
            (vec![good, (Flaky, Taken)], "not conformant", "flaky"),
            (vec![good, (Skip, Unknown)], "incomplete", "`op/1` was not run: why"),
            (vec![good, (Skip, Claimed)], "incomplete", "not run"),
            (vec![], "incomplete", "no case"),
        ] {
            let (got, reasons) = verdict(&truth(&cases));
            assert_eq!(got, want, "{cases:?}: {reasons}");
            assert!(reasons.contains(words), "{reasons}");
        }
        let mut short = truth(&[good, good]);
        short.cases.pop();
        assert_eq!(
            verdict(&short),
            ("incomplete", "1 of 2 cases have no verdict".to_string())
        );
    }

    #[test]
    fn a_waiver_counts_while_it_holds() {
        let mut truth = truth(&[(Verdict::Waived, Claim::Claimed)]);
        let certificate = make(&truth, HASHES, &|_| None).unwrap();
        let waiver = &certificate.waivers[0];
        assert_eq!(
            (waiver.case.as_str(), waiver.issue.as_str(), waiver.expires.as_str()),
            ("op/0", "i", "2026-11-22")
        );
        assert_eq!((certificate.claimed, certificate.claimed_passed), (1, 0));
        truth.run.finished = Some("2026-11-23T00:00:00Z".to_string());
        assert_eq!(verdict(&truth).0, "not conformant");
        truth.cases[0].waiver = None;
        assert!(verdict(&truth).1.contains("until when"));
    }

    #[test]
    fn each_list_is_judged_by_its_own_cases() {
        let mut truth = truth(&[(Verdict::Pass, Claim::Claimed), (Verdict::Fail, Claim::Claimed)]);
        let list = |name: &str, cases| ListId {
            name: name.to_string(),
            sha256: String::new(),
            cases,
        };
        truth.run.lists = vec![list("core-0.9", 1), list("llm-0.9", 2), list("quant-0.9", 2)];
        let members = |list: &ListId| {
            let ids: &[&str] = match list.name.as_str() {
                "core-0.9" => &["op/0"],
                "llm-0.9" => &["op/0", "op/9"],
                _ => return None,
            };
            Some(ids.iter().map(|id| id.to_string()).collect())
        };
        let lists = make(&truth, HASHES, &members).unwrap().lists;
        let verdicts: Vec<&str> = lists.iter().map(|list| list.verdict).collect();
        assert_eq!(verdicts, ["conformant", "incomplete", "not conformant"]);
    }

    #[test]
    fn a_run_that_tells_nothing_has_none() {
        let good = truth(&[(Verdict::Pass, Claim::Claimed)]);
        assert_eq!(why_none(&good), None);
        let without = |change: &dyn Fn(&mut RunInfo)| {
            let mut truth = good.clone();
            change(&mut truth.run);
            assert!(make(&truth, HASHES, &|_| None).is_none());
            why_none(&truth).unwrap()
        };
        assert!(without(&|run| run.finished = None).contains("not ended"));
        assert!(without(&|run| run.library = None).contains("no single library"));
        assert!(without(&|run| run.lists.clear()).contains("--list"));
        assert!(without(&|run| run.shard = Some((1, 4))).contains("shard 1 of 4"));
        assert!(without(&|run| run.mode = "perf".to_string()).contains("mode"));
        let outside = |run: &mut RunInfo| run.library.as_mut().unwrap().name = "../npu".to_string();
        assert!(without(&outside).contains("no name"));
    }

    #[test]
    fn the_same_run_gives_the_same_bytes_and_reasons_are_bounded() {
        let many = truth(&vec![(Verdict::Fail, Claim::Taken); 1000]);
        let certificate = make(&many, HASHES, &|_| None).unwrap();
        assert_eq!(certificate.lists[0].reasons.len(), REASONS);
        assert_eq!(certificate.lists[0].reasons[REASONS - 1], "and 981 more");
        assert_eq!(
            certificate.to_text(),
            make(&many.clone(), HASHES, &|_| None).unwrap().to_text()
        );
        assert!(certificate.to_text().ends_with("}\n"));
    }
}
