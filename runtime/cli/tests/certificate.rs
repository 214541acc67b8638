//! Certificates of conformance from the folder of a run to a host that asks for one: what the reports write, `delegate sign`
//! signs, `delegate verify` checks and the host reads.
//!
//! The run is made up, over the real files of the reference delegate: what is tested is what becomes of its certificate.

use delegraph_host::trust::{Certificate, CheckedLibrary, Digest};
use delegraph_runner::record::WaivedBy;
use delegraph_runner::run_info::{KitId, LibraryId, ListId};
use delegraph_runner::{CaseRecord, Claim, RunInfo, Verdict};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with a configuration, the reference delegate, a key and the command.
struct Place {
    folder: tempfile::TempDir,
}

const CERTIFICATE: &str = "d/reference.conformance.json";
const MANIFEST: &str = "d/reference.delegate.toml";
const LIBRARY: &str = "d/libreference_delegate.so";

impl Place {
    fn new() -> Option<Place> {
        if !cfg!(target_os = "linux") {
            println!("skipped: made for Linux");
            return None;
        }
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
        };
        let built = Path::new(env!("CARGO_BIN_EXE_delegraph"));
        std::fs::copy(built, place.path("delegraph")).unwrap();
        std::fs::create_dir(place.path("d")).unwrap();
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delegates/reference/reference.delegate.toml");
        std::fs::copy(manifest, place.path(MANIFEST)).unwrap();
        let library = built.with_file_name("libreference_delegate.so");
        std::fs::copy(&library, place.path(LIBRARY))
            .unwrap_or_else(|e| panic!("build `delegraph-reference-plugin` first: {}: {e}", library.display()));
        for key in ["own.key", "other.key"] {
            place.json(0, &["delegate", "sign", "--generate", "--key", key]);
        }
        place.configure("keys = [\"own.key.pub\"]\nrequire_conformance = \"core-0.9\"");
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, delegates: &str) {
        let text = format!("[select]\norder = [\"reference\"]\n[delegates]\nsearch = [\"d\"]\n{delegates}\n");
        std::fs::write(self.path("backends.toml"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(self.path("delegraph"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .output()
            .unwrap()
    }

    #[track_caller]
    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let value: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(code), "{value}");
        value
    }

    /// What a host makes of the delegate.
    fn state(&self) -> String {
        let value = self.json(0, &["devices", "--probe"]);
        value["delegates"][0]["state"].as_str().unwrap().to_string()
    }

    /// A finished run of `core-0.9` with these cases; its certificate is put beside the manifest.
    fn certify(&self, cases: &[CaseRecord]) {
        let folder = self.path("report");
        std::fs::create_dir_all(&folder).unwrap();
        let library = CheckedLibrary::open(&self.path(LIBRARY)).unwrap();
        let run = RunInfo {
            schema: RunInfo::SCHEMA.to_string(),
            suite: "run".to_string(),
            kit: KitId {
                version: "0.1.0".to_string(),
                commit: "unknown".to_string(),
                references_sha256: Digest::of(b"").to_string(),
            },
            host: "x86_64 linux".to_string(),
            library: Some(LibraryId {
                name: "reference".to_string(),
                vendor: "Delegraph".to_string(),
                version: "0.1.0".to_string(),
                file: "libreference_delegate.so".to_string(),
                sha256: library.file().sha256().to_string(),
                manifest_sha256: Digest::of(&std::fs::read(self.path(MANIFEST)).unwrap()).to_string(),
                abi_major: delegraph_abi::c::ABI_MAJOR,
                ..LibraryId::default()
            }),
            lists: vec![ListId {
                name: "core-0.9".to_string(),
                sha256: Digest::of(b"core").to_string(),
                cases: cases.len() as u64,
            }],
            cases: cases.len() as u64,
            mode: "test".to_string(),
            started: "2026-11-22T10:00:00Z".to_string(),
            finished: Some("2026-11-22T10:05:00Z".to_string()),
            ..RunInfo::default()
        };
        std::fs::write(folder.join("run.json"), serde_json::to_string(&run).unwrap()).unwrap();
        let lines: Vec<String> = cases
            .iter()
            .map(|case| serde_json::to_string(case).unwrap() + "\n")
            .collect();
        std::fs::write(folder.join("cases.jsonl"), lines.concat()).unwrap();
        delegraph_report::write_views(&folder).unwrap();
        std::fs::copy(folder.join("reference.conformance.json"), self.path(CERTIFICATE)).unwrap();
        let _ = std::fs::remove_file(self.path("d/reference.conformance.json.minisig"));
    }

    fn sign(&self, key: &str) {
        let signed = self.json(0, &["delegate", "sign", CERTIFICATE, "--key", key]);
        assert_eq!(signed["signature"], format!("{CERTIFICATE}.minisig"), "{signed}");
    }

    /// `delegate verify` by the configuration, and the texts of what it checked.
    #[track_caller]
    fn verify(&self, code: i32, more: &[&str]) -> String {
        self.json(code, &[&["delegate", "verify", MANIFEST], more].concat())
            .to_string()
    }

    fn append(&self, name: &str) -> Vec<u8> {
        let bytes = std::fs::read(self.path(name)).unwrap();
        std::fs::write(self.path(name), [&bytes[..], b"\n"].concat()).unwrap();
        bytes
    }
}

fn case(id: &str, verdict: Verdict) -> CaseRecord {
    let mut case = CaseRecord::new(id, verdict, "");
    case.claim = Claim::Claimed;
    case
}

fn waived(expires: &str) -> CaseRecord {
    let mut case = case("op/b", Verdict::Waived);
    case.waiver = Some(WaivedBy {
        reason: "slow".to_string(),
        issue: "https://example.org/1".to_string(),
        expires: expires.to_string(),
        approver: "a".to_string(),
    });
    case
}

#[test]
fn the_host_reads_what_the_report_writes() {
    let Some(place) = Place::new() else { return };
    place.certify(&[
        case("op/a", Verdict::Pass),
        waived("9999-12-31"),
        case("op/c", Verdict::QualityWarning),
    ]);
    let text = std::fs::read_to_string(place.path(CERTIFICATE)).unwrap();
    let read = Certificate::parse(&text).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    let hash = |name: &str| Digest::of(&std::fs::read(place.path(name)).unwrap());
    assert_eq!(read.library.sha256, hash(LIBRARY));
    assert_eq!(read.library.manifest_sha256, Some(hash(MANIFEST)));
    assert_eq!(read.log_sha256, hash("report/cases.jsonl"));
    assert_eq!(written["run_sha256"], hash("report/run.json").to_string());
    assert_eq!((read.claimed, read.claimed_passed, read.counts["waived"]), (3, 1, 1));
    assert_eq!((read.lists[0].verdict.as_str(), read.lists[0].cases), ("conformant", 3));
    assert_eq!(
        (read.waivers[0].case.as_str(), read.waivers[0].expires.as_str()),
        ("op/b", "9999-12-31")
    );
    assert_eq!(read.date, "2026-11-22T10:05:00Z");
    assert_eq!(read.abi.major, delegraph_abi::c::ABI_MAJOR);
}

#[test]
fn a_certified_delegate_loads_and_every_other_is_refused_with_the_reason() {
    let Some(place) = Place::new() else { return };
    let refused = |words: &str| {
        let state = place.state();
        assert!(
            state.starts_with("unavailable") && state.contains(words),
            "{words}: {state}"
        );
    };
    refused("there is no `");
    assert!(
        place
            .verify(1, &[])
            .contains("`delegates.require_conformance` asks for it")
    );
    place.certify(&[case("op/a", Verdict::Pass)]);
    refused("is not signed");
    assert!(place.verify(1, &[]).contains("is not signed"));
    place.sign("own.key");
    assert!(place.state().starts_with("loaded"), "{}", place.state());
    let said = place.verify(0, &[]);
    assert!(
        said.contains("own.key.pub") && said.contains("conformant, 1 cases"),
        "{said}"
    );

    // The text was changed, or somebody else signed it.
    let text = place.append(CERTIFICATE);
    refused("what was signed has been changed");
    assert!(place.verify(1, &[]).contains("what was signed has been changed"));
    std::fs::write(place.path(CERTIFICATE), text).unwrap();
    place.sign("other.key");
    refused("none of the trusted keys");
    assert!(place.verify(1, &[]).contains("none of the trusted keys"));
    place.sign("own.key");

    // Another library or manifest.
    for (file, words) in [(LIBRARY, "is of another library"), (MANIFEST, "is of another manifest")] {
        let bytes = place.append(file);
        refused(words);
        assert!(place.verify(1, &[]).contains(words));
        std::fs::write(place.path(file), bytes).unwrap();
    }
    assert!(place.state().starts_with("loaded"), "{}", place.state());

    // Another list than it was tested with.
    place.configure("keys = [\"own.key.pub\"]\nrequire_conformance = [\"core\", \"quant-0.9\"]");
    refused("is of `core-0.9`, not of `quant-0.9`");
    assert!(place.verify(1, &[]).contains("not of `quant-0.9`"));
    // Unsigned, where that is allowed.
    place.configure("require_conformance = { list = \"core\", unsigned = true }");
    std::fs::remove_file(place.path("d/reference.conformance.json.minisig")).unwrap();
    assert!(place.state().starts_with("loaded"), "{}", place.state());
    assert!(place.verify(0, &[]).contains("not needed"));
    place.configure("require_conformance = \"core\"");
    refused("no key is configured");
}

#[test]
fn what_failed_or_is_over_is_no_pass() {
    let Some(place) = Place::new() else { return };
    let refused = |words: &str| {
        place.sign("own.key");
        let state = place.state();
        assert!(state.contains(words), "{words}: {state}");
        assert!(place.verify(1, &[]).contains(words));
    };
    place.certify(&[case("op/a", Verdict::Pass), case("op/b", Verdict::FailClaimed)]);
    refused("says of `core-0.9`: not conformant (`op/b`: fail-claimed)");
    place.certify(&[case("op/a", Verdict::Pass), case("op/b", Verdict::Skip)]);
    refused("says of `core-0.9`: incomplete");
    // It held when the run ended, and a host that reads it years later is told.
    place.certify(&[case("op/a", Verdict::Pass), waived("2026-11-22")]);
    let text = std::fs::read_to_string(place.path(CERTIFICATE)).unwrap();
    assert!(text.contains("\"conformant\""), "{text}");
    std::fs::write(place.path(CERTIFICATE), text.replace("2026-11-22\"", "2001-09-09\"")).unwrap();
    refused("waives `op/b` until 2001-09-09, which is over");
}

#[test]
fn a_certificate_is_asked_about_by_itself() {
    let Some(place) = Place::new() else { return };
    place.configure("");
    place.certify(&[case("op/a", Verdict::Pass)]);
    place.sign("own.key");
    std::fs::create_dir(place.path("papers")).unwrap();
    for name in ["reference.conformance.json", "reference.conformance.json.minisig"] {
        std::fs::rename(place.path(&format!("d/{name}")), place.path(&format!("papers/{name}"))).unwrap();
    }
    let named = [
        "--certificate",
        "papers/reference.conformance.json",
        "--key",
        "own.key.pub",
    ];
    let said = place.verify(0, &named);
    assert!(
        said.contains("\"trusted\":false") && said.contains("\"valid\":true"),
        "{said}"
    );
    place.verify(1, &[&named[..2], &["--key", "other.key.pub"]].concat());
    // Without being named it is not found, and the delegate has neither a pin nor a signature.
    assert!(
        place
            .verify(1, &["--key", "own.key.pub"])
            .contains("\"certificate\":null")
    );
    // What speaks of the files beside it has to fit.
    place.json(0, &["delegate", "sign", MANIFEST, "--key", "own.key"]);
    assert!(place.verify(0, &named).contains("\"trusted\":true"));
    let list = std::fs::read_to_string(place.path("d/reference.delegate.sha256")).unwrap();
    std::fs::write(place.path("d/reference.delegate.sha256"), list + "\n").unwrap();
    place.verify(1, &named);
    // Wrong use.
    assert!(
        place
            .verify(3, &["--certificate", "absent.json", "--key", "own.key.pub"])
            .contains("there is no certificate")
    );
    std::fs::write(place.path("none.json"), "{}").unwrap();
    assert!(
        place
            .verify(3, &["--certificate", "none.json", "--key", "own.key.pub"])
            .contains("missing field `schema`")
    );
    let wrong = place.json(3, &["delegate", "sign", "none.json", "--key", "own.key"]);
    assert!(
        wrong["message"].as_str().unwrap().contains("missing field `schema`"),
        "{wrong}"
    );
    assert!(!place.path("none.json.minisig").exists());
}
