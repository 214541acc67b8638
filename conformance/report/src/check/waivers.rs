//! Whether each waived case is covered by a waiver that was handed in, and each of them is told.

use super::{About, Checked, Question};
use crate::standing::days;
use crate::truth::{FILE_LIMIT, Truth, read_bytes, sha256};
use delegraph_runner::time::Day;
use delegraph_runner::waiver::{Of, Waivers};
use delegraph_runner::{CaseRecord, Verdict};

/// The file that a run's waivers are handed in as.
pub const WAIVERS: &str = "waivers.toml";

/// `waivers.toml` is the file that the run used, and judges the waived cases as the log says.
pub(super) fn check(checked: &mut Checked, question: Question<'_>, truth: &Truth) {
    let waived: Vec<&CaseRecord> = truth
        .cases
        .iter()
        .filter(|case| case.verdict == Verdict::Waived)
        .collect();
    // Recorded models and calls have known failures with a reason each, in the corpus itself.
    if truth.run.suite != "run" {
        return;
    }
    let Some(hash) = &truth.run.waivers_sha256 else {
        if !waived.is_empty() {
            checked.broken(format!(
                "run.json: {} cases are waived, and it names no waivers",
                waived.len()
            ));
        }
        return;
    };
    let bytes = match read_bytes(&question.folder.join(WAIVERS), FILE_LIMIT) {
        Ok(bytes) => bytes,
        Err(_) if waived.is_empty() => return checked.good(format!("{WAIVERS}: not in the folder; no case is waived")),
        Err(_) => {
            let text = format!("{WAIVERS}: it is missing, and {} cases are waived by it", waived.len());
            return checked.wrong(About::Submission, text);
        }
    };
    if sha256(&bytes) != *hash {
        return checked.broken(format!(
            "{WAIVERS}: it is not the file that the run used: run.json says {hash}"
        ));
    }
    let waivers = match Waivers::parse(&String::from_utf8_lossy(&bytes)) {
        Ok(waivers) => waivers,
        Err(problem) => return checked.broken(format!("{WAIVERS}: {problem}")),
    };
    let run = &truth.run;
    let dates: Vec<Day> = [Some(&run.started), run.finished.as_ref()]
        .into_iter()
        .flatten()
        .filter_map(|text| days(text))
        .collect();
    let vendor = run.library.as_ref().map_or("", |library| library.vendor.as_str());
    let wrong = waived.iter().filter(|case| {
        !dates.iter().any(|today| {
            let of = Of {
                vendor,
                today: *today,
                matches: question.matches,
            };
            judged_again(case, &waivers, of)
        })
    });
    let wrong = wrong
        .map(|case| {
            format!(
                "cases.jsonl: `{}` is waived, and no waiver of {WAIVERS} says so",
                case.id
            )
        })
        .collect();
    checked.all(
        About::Integrity,
        wrong,
        format!("{WAIVERS}: it covers all {} waived cases", waived.len()),
    );
}

/// Whether the waivers make the record what it is of what it was.
fn judged_again(case: &CaseRecord, waivers: &Waivers, of: Of<'_>) -> bool {
    let Some((was, _)) = case.reason.rsplit_once("; waived until ") else {
        return false;
    };
    let Some((verdict, reason)) = was.split_once(": ") else {
        return false;
    };
    let Some(verdict) = Verdict::ALL.into_iter().find(|known| known.name() == verdict) else {
        return false;
    };
    let mut again = (*case).clone();
    again.verdict = verdict;
    again.reason = reason.to_string();
    again.waiver = None;
    waivers.judge(&mut again, of);
    again.verdict == Verdict::Waived && again.reason == case.reason && again.waiver == case.waiver
}
