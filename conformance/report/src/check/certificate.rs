//! Whether the certificate in a folder is of its run.

use super::Checked;
use crate::standing::standings;
use crate::truth::{FILE_LIMIT, Truth, read_text, sha256_of_file};
use delegraph_runner::Verdict;
use delegraph_runner::folder::CASES;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Every `*.conformance.json` of the folder says of the run what its files say.
pub(super) fn check(checked: &mut Checked, folder: &Path, truth: &Truth) {
    let Some(library) = &truth.run.library else { return };
    let name = format!("{}.conformance.json", library.name);
    // The name comes from a file that somebody handed in.
    if Path::new(&name).file_name().is_none_or(|file| file != name.as_str()) {
        return checked.broken(format!("run.json: `{}` is no name of a delegate", library.name));
    }
    let path = folder.join(&name);
    if !path.exists() {
        return checked.good(format!("{name}: there is none"));
    }
    let text = match read_text(&path, FILE_LIMIT) {
        Ok(text) => text,
        Err(error) => return checked.broken(error.to_string()),
    };
    let certificate: Value = match serde_json::from_str(&text) {
        Ok(certificate) => certificate,
        Err(error) => return checked.broken(format!("{name}: no JSON: {error}")),
    };
    let log = sha256_of_file(&folder.join(CASES)).unwrap_or_default();
    let report = truth.report();
    let standing = standings(truth).into_iter().next();
    let claimed = standing.map(|standing| standing.claimed).unwrap_or_default();
    let counts = report.summary.counts.iter().filter(|(_, n)| **n > 0);
    let mut wrong = Vec::new();
    let mut compare = |what: &str, is: Option<&Value>, should: Value| {
        if is.unwrap_or(&Value::Null) != &should {
            wrong.push(format!(
                "{name}: its `{what}` is {}, and the run's {should}",
                is.unwrap_or(&Value::Null)
            ));
        }
    };
    compare("schema", certificate.get("schema"), "delegraph.certificate/1".into());
    for (key, value) in [
        ("name", &library.name),
        ("vendor", &library.vendor),
        ("version", &library.version),
        ("sha256", &library.sha256),
    ] {
        compare(
            &format!("library.{key}"),
            certificate.pointer(&format!("/library/{key}")),
            value.as_str().into(),
        );
    }
    if !library.manifest_sha256.is_empty() {
        compare(
            "library.manifest_sha256",
            certificate.pointer("/library/manifest_sha256"),
            library.manifest_sha256.as_str().into(),
        );
    }
    let kit = &truth.run.kit;
    for (key, value) in [
        ("version", &kit.version),
        ("commit", &kit.commit),
        ("references_sha256", &kit.references_sha256),
    ] {
        compare(
            &format!("kit.{key}"),
            certificate.pointer(&format!("/kit/{key}")),
            value.as_str().into(),
        );
    }
    compare("log_sha256", certificate.get("log_sha256"), log.into());
    compare("claimed", certificate.get("claimed"), claimed.total.into());
    compare(
        "claimed_passed",
        certificate.get("claimed_passed"),
        claimed.passed.into(),
    );
    for (verdict, n) in counts {
        compare(
            &format!("counts.{verdict}"),
            certificate.pointer(&format!("/counts/{verdict}")),
            (*n).into(),
        );
    }
    let lists = certificate
        .get("lists")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for list in &truth.run.lists {
        let same = |value: &&Value| value["name"] == list.name.as_str() && value["sha256"] == list.sha256.as_str();
        if !lists.iter().any(|value| same(&value)) {
            wrong.push(format!("{name}: it does not tell of the list `{}`", list.name));
        }
    }
    let told: BTreeSet<&str> = certificate
        .get("waivers")
        .and_then(Value::as_array)
        .map(|waivers| waivers.iter().filter_map(|waiver| waiver["case"].as_str()).collect())
        .unwrap_or_default();
    let waived = truth.cases.iter().filter(|case| case.verdict == Verdict::Waived);
    for case in waived.filter(|case| !told.contains(case.id.as_str())) {
        wrong.push(format!("{name}: it does not tell that `{}` is waived", case.id));
    }
    checked.all(super::About::Integrity, wrong, format!("{name}: it is of this run"));
}
