//! Certificates of conformance: what `delegraph conform run` writes of a finished run over a library, read and held against files.
//!
//! A certificate says that one library, by its hashes, went through lists of cases, and how. It is a text of JSON; a minisign
//! signature of its bytes lies beside it. Nothing here runs a case, and nothing says that the run was honest: that is the
//! word of whoever signed it.

use super::file::{Unread, read_text};
use super::lock::{day_number, today};
use super::{CheckedLibrary, Digest, HashList, Keys};
use crate::Candidate;
use crate::loader::known_versions;
use delegraph_abi::newest_minor;
use delegraph_config::ListName;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::value::Datetime;

/// Most lists, waivers and dependents that a certificate may have, each.
const MOST: usize = 10_000;

/// What is asked of a delegate's certificate: `delegates.require_conformance`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    /// Each of these has to be certified.
    pub lists: Vec<ListName>,
    /// A certificate counts that nobody signed.
    pub unsigned: bool,
}

/// A certificate, as far as it is held against files. Fields that this version does not know are passed over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Certificate {
    /// [`Certificate::SCHEMA`]
    pub schema: String,
    /// What was tested.
    pub library: CertifiedLibrary,
    /// The ABI that the library was built with.
    pub abi: CertifiedAbi,
    /// What tested it.
    pub kit: CertifiedKit,
    /// The lists that were run, each with its verdict.
    pub lists: Vec<CertifiedList>,
    /// Cases that failed and were let off.
    #[serde(default)]
    pub waivers: Vec<CertifiedWaiver>,
    /// How many cases there are of each verdict.
    pub counts: BTreeMap<String, u64>,
    /// Cases that the manifest claims.
    pub claimed: u64,
    /// Those of them that passed.
    pub claimed_passed: u64,
    /// The machine: `x86_64 linux`.
    pub host: String,
    /// SHA-256 of the log of cases, `cases.jsonl`.
    pub log_sha256: Digest,
    /// When the run ended, in UTC.
    pub date: String,
}

/// The library of a certificate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CertifiedLibrary {
    /// Backend id.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Hash of the library.
    pub sha256: Digest,
    /// Hash of the manifest; absent: it has none.
    #[serde(default)]
    pub manifest_sha256: Option<Digest>,
    /// What it brings along.
    #[serde(default)]
    pub dependents: Vec<CertifiedFile>,
}

/// A dependent of a certificate's library.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CertifiedFile {
    /// File name, without folders.
    pub file: String,
    /// Its hash.
    pub sha256: Digest,
}

/// The ABI of a certificate's library.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CertifiedAbi {
    /// Major version whose entry was tested.
    pub major: u16,
    /// Minor of that major that the library was built with.
    pub minor: u16,
}

/// The kit of a certificate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CertifiedKit {
    /// Version of Delegraph.
    pub version: String,
    /// Commit that it was built from, or `unknown`.
    pub commit: String,
    /// Hash over the recorded references and lists that it holds.
    pub references_sha256: String,
}

/// A list of a certificate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CertifiedList {
    /// `core-0.9`
    pub name: String,
    /// Hash of the list's file.
    pub sha256: Digest,
    /// How many cases it has.
    pub cases: u64,
    /// `conformant`, `not conformant` or `incomplete`.
    pub verdict: String,
    /// Why, where it is not conformant.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// A case that failed and was let off.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CertifiedWaiver {
    /// Id of the case.
    pub case: String,
    /// Why.
    pub reason: String,
    /// Where it is followed up.
    #[serde(default)]
    pub issue: String,
    /// The last day, in UTC, on which it holds: `2027-06-30`.
    pub expires: String,
}

impl Certificate {
    /// Name of the form.
    pub const SCHEMA: &'static str = "delegraph.certificate/1";

    /// Parses the text of a file.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Certificate, String> {
        // The schema first: another form has other fields.
        #[derive(Deserialize)]
        struct Schema {
            schema: String,
        }
        let no_json = |e: serde_json::Error| format!("it is no certificate: {e}");
        let Schema { schema } = serde_json::from_str(text).map_err(no_json)?;
        if schema != Certificate::SCHEMA {
            return Err(format!(
                "`{}` is not the form of a certificate that this version reads, which is `{}`",
                schema.chars().take(100).collect::<String>(),
                Certificate::SCHEMA
            ));
        }
        let certificate: Certificate = serde_json::from_str(text).map_err(no_json)?;
        let lengths = [
            ("lists", certificate.lists.len()),
            ("waivers", certificate.waivers.len()),
            ("dependents", certificate.library.dependents.len()),
        ];
        match lengths.iter().find(|(_, length)| *length > MOST) {
            Some((what, _)) => Err(format!("it has more than {MOST} {what}")),
            None => Ok(certificate),
        }
    }

    /// Whether it is of these files.
    ///
    /// # Errors
    /// The first that differs, as the end of a sentence that begins with the certificate.
    pub fn is_of(&self, backend: &str, manifest: Option<Digest>, library: &CheckedLibrary) -> Result<(), String> {
        let differs = |what: &str, have: Digest, want: Digest| {
            let (have, want) = (have.short(), want.short());
            Err(format!("is of another {what}: sha256 {want}…, not {have}…"))
        };
        let of = &self.library;
        if of.name != backend {
            return Err(format!("is of `{}`, not of `{backend}`", of.name));
        }
        if newest_minor(self.abi.major).is_none() {
            return Err(format!(
                "is for major version {} of the ABI; this host has {}",
                self.abi.major,
                known_versions()
            ));
        }
        let have = library.file().sha256();
        if have != of.sha256 {
            return differs("library", have, of.sha256);
        }
        match (manifest, of.manifest_sha256) {
            (have, want) if have == want => {}
            (None, _) => return Err("is of the library with a manifest, and it is used without one".to_string()),
            (Some(_), None) => return Err("is of the library without a manifest, and it is used with one".to_string()),
            (Some(have), Some(want)) => return differs("manifest", have, want),
        }
        for file in library.dependents() {
            let name = file.path().file_name().unwrap_or_default().to_string_lossy();
            match of.dependents.iter().find(|known| known.file == name) {
                None => return Err(format!("does not name the dependent `{name}`")),
                Some(known) if known.sha256 != file.sha256() => {
                    return differs(&format!("dependent `{name}`"), file.sha256(), known.sha256);
                }
                Some(_) => {}
            }
        }
        let found = |name: &str| {
            let mut names = library.dependents().iter().filter_map(|file| file.path().file_name());
            names.any(|file| file == name)
        };
        match of.dependents.iter().find(|known| !found(&known.file)) {
            Some(absent) => Err(format!(
                "names the dependent `{}`, which is not found beside it",
                absent.file
            )),
            None => Ok(()),
        }
    }

    /// Whether it says that a list was passed.
    ///
    /// # Errors
    /// Why not, as the end of a sentence that begins with the certificate.
    pub fn covers(&self, wanted: &ListName) -> Result<&CertifiedList, String> {
        let meets = |list: &&CertifiedList| ListName::parse(&list.name).is_ok_and(|name| wanted.is_met_by(&name));
        let of_that_name: Vec<&CertifiedList> = self.lists.iter().filter(meets).collect();
        if let Some(list) = of_that_name.iter().find(|list| list.is_conformant()) {
            return Ok(list);
        }
        match of_that_name.first() {
            Some(list) => {
                let reasons: Vec<&str> = list.reasons.iter().take(3).map(String::as_str).collect();
                let reasons = if reasons.is_empty() {
                    "it gives no reason".to_string()
                } else {
                    reasons.join("; ")
                };
                Err(format!("says of `{}`: {} ({reasons})", list.name, list.verdict))
            }
            None if self.lists.is_empty() => Err(format!("is of no list, not of `{wanted}`")),
            None => {
                let names: Vec<&str> = self.lists.iter().map(|list| list.name.as_str()).take(10).collect();
                Err(format!("is of `{}`, not of `{wanted}`", names.join("`, `")))
            }
        }
    }

    /// Whether every waiver holds today, as far as this machine's clock tells.
    ///
    /// # Errors
    /// The first that does not, as the end of a sentence that begins with the certificate.
    pub fn waivers_hold(&self) -> Result<(), String> {
        self.waivers_hold_on(today())
    }

    /// With the day as a number from 1970-01-01.
    fn waivers_hold_on(&self, day: i64) -> Result<(), String> {
        for waiver in &self.waivers {
            let last = match waiver.expires.parse::<Datetime>() {
                Ok(Datetime {
                    date: Some(date),
                    time: None,
                    offset: None,
                }) => day_number(date),
                _ => {
                    return Err(format!(
                        "waives `{}` until `{}`, which is no day like 2027-06-30",
                        waiver.case, waiver.expires
                    ));
                }
            };
            if day > last {
                return Err(format!(
                    "waives `{}` until {}, which is over",
                    waiver.case, waiver.expires
                ));
            }
        }
        Ok(())
    }
}

impl CertifiedList {
    /// Whether the run passed it.
    pub fn is_conformant(&self) -> bool {
        self.verdict == "conformant" && self.cases > 0
    }
}

/// A certificate with its signature, each read once.
#[derive(Debug)]
pub struct CertificateFile {
    path: PathBuf,
    text: String,
    signature: Option<String>,
    certificate: Certificate,
}

impl CertificateFile {
    /// Where the certificate of a candidate lies: where its manifest says (`[conformance]`, `certificate`), or else `NAME.conformance.json`
    /// beside the manifest, or beside the library that has none. `None`: the candidate has neither.
    pub fn path_for(candidate: &Candidate) -> Option<PathBuf> {
        let file = candidate.manifest_path.as_deref().or(candidate.library.as_deref())?;
        let named = candidate
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.certificate.as_ref());
        Some(match named {
            // Joined to the folder, not put in place of the name: the name may be a path.
            Some(named) => file.parent().unwrap_or(Path::new("")).join(named),
            None => file.with_file_name(format!("{}.conformance.json", candidate.backend)),
        })
    }

    /// Reads a certificate and the signature beside it. `None`: there is no certificate.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub fn read(path: &Path) -> Result<Option<CertificateFile>, String> {
        let signature_path = HashList::signature_path(path);
        let read = |path: &Path, what| match read_text(path, what) {
            Ok(text) => Ok(Some(text)),
            Err(Unread::Absent) => Ok(None),
            Err(Unread::Wrong(problem)) => Err(format!("`{}`: {problem}", path.display())),
        };
        let Some(text) = read(path, "the certificate")? else {
            return Ok(None);
        };
        let certificate = Certificate::parse(&text).map_err(|problem| format!("`{}`: {problem}", path.display()))?;
        Ok(Some(CertificateFile {
            path: path.to_path_buf(),
            signature: read(&signature_path, "the signature")?,
            text,
            certificate,
        }))
    }

    /// What it says.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a signature lies beside it.
    pub fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// The key that it was signed with.
    ///
    /// # Errors
    /// One sentence that names the file: there is no signature, or it is of none of the keys, or of another text.
    pub fn signer<'k>(&self, keys: &'k Keys) -> Result<&'k Path, String> {
        let path = HashList::signature_path(&self.path);
        match &self.signature {
            None => Err(format!(
                "`{}` is not signed: there is no `{}`",
                self.path.display(),
                path.display()
            )),
            Some(signature) => keys
                .verify(self.text.as_bytes(), signature)
                .map_err(|problem| format!("`{}`: {problem}", path.display())),
        }
    }

    /// Whether it is what is asked for, of these files.
    ///
    /// # Errors
    /// One sentence that names the file and what is wrong.
    pub fn meets(
        &self,
        demand: &Demand,
        keys: &Keys,
        backend: &str,
        manifest: Option<Digest>,
        library: &CheckedLibrary,
    ) -> Result<(), String> {
        if !demand.unsigned {
            if keys.is_empty() {
                return Err(
                    "no key is configured (`delegates.keys`) that its certificate could be signed with".to_string(),
                );
            }
            self.signer(keys)?;
        }
        let named = |problem: String| format!("`{}` {problem}", self.path.display());
        self.certificate.is_of(backend, manifest, library).map_err(named)?;
        for list in &demand.lists {
            self.certificate.covers(list).map_err(named)?;
        }
        self.certificate.waivers_hold().map_err(named)?;
        match library.problems().first() {
            // The loader could take other files than the certificate names.
            Some(problem) => Err(problem.clone()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn text() -> String {
        format!(
            r#"{{ "schema": "delegraph.certificate/1", "later": [1],
            "library": {{ "name": "acme", "vendor": "v", "version": "1.0.0", "file": "libacme.so", "sha256": "{HEX}" }},
            "abi": {{ "major": 0, "minor": 1 }},
            "kit": {{ "version": "0.1.0", "commit": "unknown", "references_sha256": "" }},
            "lists": [ {{ "name": "core-0.9", "sha256": "{HEX}", "cases": 3, "verdict": "conformant" }},
                       {{ "name": "quant-0.9", "sha256": "{HEX}", "cases": 2, "verdict": "not conformant", "reasons": ["1 fail"] }},
                       {{ "name": "llm-0.9", "sha256": "{HEX}", "cases": 0, "verdict": "conformant" }} ],
            "waivers": [ {{ "case": "op/x", "reason": "r", "issue": "i", "expires": "2027-06-30" }} ],
            "counts": {{ "pass": 4, "fail": 1 }}, "claimed": 1, "claimed_passed": 1, "host": "x86_64 linux",
            "log_sha256": "{HEX}", "date": "2026-11-22T10:00:00Z" }}"#
        )
    }

    fn list(name: &str) -> ListName {
        ListName::parse(name).unwrap()
    }

    #[test]
    fn lists_are_covered_by_name_version_and_verdict() {
        let certificate = Certificate::parse(&text()).unwrap();
        for covered in ["core", "core-0.9", "core-0.8"] {
            assert!(certificate.covers(&list(covered)).is_ok(), "{covered}");
        }
        for (wanted, words) in [
            (
                "core-1.0",
                "is of `core-0.9`, `quant-0.9`, `llm-0.9`, not of `core-1.0`",
            ),
            ("core-0.10", "not of `core-0.10`"),
            ("quant", "says of `quant-0.9`: not conformant (1 fail)"),
            ("llm", "says of `llm-0.9`"),
            ("async", "not of `async`"),
        ] {
            let error = certificate.covers(&list(wanted)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn waivers_hold_to_the_end_of_their_last_day() {
        let certificate = Certificate::parse(&text()).unwrap();
        // `date -u -d 2027-06-30 +%s` is 1814313600.
        let last = 1_814_313_600 / 86_400;
        assert!(certificate.waivers_hold_on(last).is_ok());
        assert!(
            certificate
                .waivers_hold_on(last + 1)
                .unwrap_err()
                .contains("which is over")
        );
        for wrong in ["", "soon", "2027-06-30T00:00:00Z", "2027-13-01"] {
            let text = text().replace("2027-06-30", wrong);
            let error = Certificate::parse(&text).unwrap().waivers_hold_on(0).unwrap_err();
            assert!(error.contains("no day"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        let many = format!(
            "\"lists\": [{}",
            format!("{{ \"name\": \"a\", \"sha256\": \"{HEX}\", \"cases\": 1, \"verdict\": \"\" }},").repeat(MOST)
        );
        let cases = [
            (
                "certificate/1",
                "certificate/2",
                "`delegraph.certificate/2` is not the form",
            ),
            ("\"schema\"", "\"shema\"", "missing field `schema`"),
            ("{ \"schema\"", "\"schema\"", "it is no certificate"),
            (HEX, "12", "64 hexadecimal digits"),
            ("\"cases\": 3", "\"cases\": -3", "it is no certificate"),
            ("\"lists\": [", &many, "more than 10000 lists"),
        ];
        for (from, to, words) in cases {
            let error = Certificate::parse(&text().replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(words), "{to:.60}: {error}");
        }
        // Cut anywhere it is refused, and nothing panics.
        let text = text();
        assert!((0..text.len()).all(|end| Certificate::parse(&text[..end]).is_err()));
    }
}
