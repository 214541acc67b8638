//! What `delegate sign` and `delegate verify` do with certificates of conformance.

use crate::output::{Output, Tint};
use anyhow::Context;
use delegraph_host::Candidate;
use delegraph_host::trust::{Certificate, CertificateFile, CertifiedList, CheckedLibrary, Demand, Keys, ListName};
use std::path::{Path, PathBuf};

/// Whether a file is named as certificates are.
pub fn is_certificate(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The text of a certificate that is to be signed.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read_to_sign(path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading the certificate `{}`", path.display()))?;
    let certificate = Certificate::parse(&text);
    certificate.map_err(|problem| crate::bad_input(format!("`{}`: {problem}", path.display())))?;
    Ok(text)
}

/// What is checked of a certificate.
pub struct Question<'a> {
    /// The delegate.
    pub candidate: &'a Candidate,
    /// Its library.
    pub library: &'a CheckedLibrary,
    /// The keys that a certificate may be signed with.
    pub keys: &'a Keys,
    /// What the configuration asks for; absent: that every list of the certificate was passed.
    pub demand: Option<&'a Demand>,
    /// The certificate; absent: where the manifest says, or beside it.
    pub named: Option<&'a Path>,
}

/// The answer.
pub struct Answer {
    /// Whether everything that was checked is right.
    pub valid: bool,
    /// All of it, for `--json`.
    pub object: serde_json::Value,
}

/// Checks the certificate of a delegate and prints each thing that was checked. `None`: there is none, and nobody asks for one.
///
/// # Errors
/// The named file is not there or is no certificate.
pub fn verify(question: &Question<'_>, output: &Output) -> anyhow::Result<Option<Answer>> {
    let path = match question.named {
        Some(path) => path.to_path_buf(),
        None => CertificateFile::path_for(question.candidate).unwrap_or_default(),
    };
    let file = match (CertificateFile::read(&path).map_err(crate::bad_input)?, question.demand) {
        (Some(file), _) => file,
        (None, _) if question.named.is_some() => {
            return Err(crate::bad_input(format!(
                "there is no certificate `{}`",
                path.display()
            )));
        }
        (None, None) => return Ok(None),
        (None, Some(_)) => return Ok(Some(absent(&path, output))),
    };
    let certificate = file.certificate();
    let checks = checks(question, &file);
    let valid = checks.iter().all(|(_, result)| result.is_ok());
    let mut rows = Vec::new();
    output.data(format!("certificate {}", path.display()));
    let kit = &certificate.kit;
    output.data(format!(
        "  {:<14} of {} by kit {} (commit {}) on {}; {} of {} claimed cases passed",
        "made",
        certificate.date,
        kit.version,
        kit.commit,
        certificate.host,
        certificate.claimed_passed,
        certificate.claimed
    ));
    for (what, result) in &checks {
        let (word, text) = match result {
            Ok(text) => (output.tint(Tint::Green, "yes"), text),
            Err(text) => (output.tint(Tint::Red, "no"), text),
        };
        output.data(format!("  {what:<14} {word}: {text}"));
        rows.push(serde_json::json!({ "what": what, "ok": result.is_ok(), "text": text }));
    }
    for waiver in &certificate.waivers {
        output.data(format!(
            "  {:<14} {} until {}: {} {}",
            "waived", waiver.case, waiver.expires, waiver.reason, waiver.issue
        ));
    }
    Ok(Some(Answer {
        valid,
        object: serde_json::json!({ "file": path, "valid": valid, "checks": rows }),
    }))
}

/// The answer where there has to be one and is none.
fn absent(path: &PathBuf, output: &Output) -> Answer {
    let text = format!(
        "there is no `{}`, and `delegates.require_conformance` asks for it",
        path.display()
    );
    output.data(format!("certificate {}: {text}", output.tint(Tint::Red, "no")));
    let check = serde_json::json!({ "what": "file", "ok": false, "text": text });
    Answer {
        valid: false,
        object: serde_json::json!({ "file": path, "valid": false, "checks": [check] }),
    }
}

/// Each thing that is checked, with what was found.
fn checks(question: &Question<'_>, file: &CertificateFile) -> Vec<(String, Result<String, String>)> {
    let certificate = file.certificate();
    let mut checks = Vec::new();
    let (backend, manifest) = (&question.candidate.backend, question.candidate.manifest_sha256);
    checks.push((
        "files".to_string(),
        certificate
            .is_of(backend, manifest, question.library)
            .map(|()| {
                format!(
                    "it is of this library, its manifest and its {} dependents",
                    question.library.dependents().len()
                )
            })
            .map_err(|problem| format!("it {problem}")),
    ));
    let unsigned = question.demand.is_some_and(|demand| demand.unsigned);
    let signature = match file.signer(question.keys) {
        Ok(key) => Ok(format!("by the key {}", key.display())),
        Err(problem) if unsigned => Ok(format!("not needed (`unsigned`): {problem}")),
        Err(problem) => Err(problem),
    };
    checks.push(("signature".to_string(), signature));
    for wanted in wanted(question.demand, certificate) {
        let result = wanted.and_then(|wanted| certificate.covers(&wanted));
        let (name, result) = match result {
            Ok(list) => (
                list.name.clone(),
                Ok(format!("{}, {} cases; {}", list.verdict, list.cases, known(list))),
            ),
            Err(problem) => (String::new(), Err(format!("it {problem}"))),
        };
        checks.push((format!("list {name}").trim_end().to_string(), result));
    }
    if certificate.lists.is_empty() {
        checks.push(("list".to_string(), Err("it is of no list".to_string())));
    }
    checks.push((
        "waivers".to_string(),
        certificate
            .waivers_hold()
            .map(|()| format!("{}, none expired", certificate.waivers.len()))
            .map_err(|problem| format!("it {problem}")),
    ));
    checks
}

/// Whether the list is one that this version has. That it is not is no fault of a certificate: an older or newer kit has others.
fn known(list: &CertifiedList) -> &'static str {
    let lists = delegraph_kit::lists::all().unwrap_or_default();
    match lists.iter().find(|known| known.entry.name == list.name) {
        Some(known) if known.entry.sha256 == list.sha256.to_string() => "the list that this version has",
        Some(_) => "another list of that name than this version has",
        None => "this version has no list of that name",
    }
}

/// The lists that have to be passed: those that are asked for, or all of the certificate.
fn wanted(demand: Option<&Demand>, certificate: &Certificate) -> Vec<Result<ListName, String>> {
    match demand {
        Some(demand) => demand.lists.iter().cloned().map(Ok).collect(),
        None => certificate
            .lists
            .iter()
            .map(|list| ListName::parse(&list.name))
            .collect(),
    }
}
