//! Whether the certificate in a folder is of its run.

use super::{About, Checked, Question};
use crate::certificate::{Hashes, file_name, make, why_none};
use crate::truth::{FILE_LIMIT, Truth, read_text, sha256_of_file};
use delegraph_runner::folder::{CASES, RUN};
use delegraph_runner::run_info::ListId;
use serde_json::Value;

/// `NAME.conformance.json` is what the run gives, field by field. A signature is not looked at: `delegraph delegate verify` does that.
pub(super) fn check(checked: &mut Checked, question: Question<'_>, truth: &Truth) {
    let Some(library) = &truth.run.library else { return };
    let Some(name) = file_name(&library.name) else {
        return checked.broken(format!("run.json: `{}` is no name of a delegate", library.name));
    };
    let path = question.folder.join(&name);
    let hash = |file: &str| sha256_of_file(&question.folder.join(file)).unwrap_or_default();
    let (log, run) = (hash(CASES), hash(RUN));
    let members = |list: &ListId| {
        let (sha256, ids) = (question.list)(list)?;
        (sha256 == list.sha256).then(|| ids.into_iter().collect())
    };
    let made = make(truth, Hashes { log: &log, run: &run }, &members);
    let made = match (made, path.exists()) {
        (None, false) => return checked.good(format!("{name}: none is due")),
        (None, true) => {
            let why = why_none(truth).unwrap_or_default();
            return checked.broken(format!("{name}: this run has no certificate: {why}"));
        }
        (Some(_), false) => return checked.wrong(About::Submission, format!("{name}: the certificate is missing")),
        (Some(made), true) => made,
    };
    let text = match read_text(&path, FILE_LIMIT) {
        Ok(text) => text,
        Err(error) => return checked.broken(error.to_string()),
    };
    let is: Value = match serde_json::from_str(&text) {
        Ok(is) => is,
        Err(error) => return checked.broken(format!("{name}: no JSON: {error}")),
    };
    let should = serde_json::from_str(&made.to_text()).unwrap_or_default();
    let mut wrong = Vec::new();
    differences("", &is, &should, &mut wrong);
    let wrong = wrong.into_iter().map(|(place, is, should)| {
        let short = |value: &Value| crate::text::cut(&value.to_string(), 100);
        format!(
            "{name}: its `{place}` is {}, and the run gives {}",
            short(&is),
            short(&should)
        )
    });
    let wrong = wrong.collect();
    checked.all(About::Integrity, wrong, format!("{name}: it is of this run"));
}

/// Where two values differ: place, and both. Only what one of them has is `null` in the other. The depth is that of what `serde_json` reads.
fn differences(place: &str, is: &Value, should: &Value, found: &mut Vec<(String, Value, Value)>) {
    let below = |key: &str| match place {
        "" => key.to_string(),
        place => format!("{place}.{key}"),
    };
    match (is, should) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                differences(&below(key), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&below(&i.to_string()), a, b, found);
            }
        }
        (a, b) if a != b => found.push((place.to_string(), a.clone(), b.clone())),
        _ => {}
    }
}
