//! Certificates of conformance: a delegate without the one that is asked for is not loaded, and the refusal says why.
//!
//! That an entry ran is seen by the status that it refuses with: see `place`.

mod place;

use delegraph_host::trust::{CheckedLibrary, Demand, Digest, HashList, ListName, Trust, TrustOptions};
use delegraph_host::{Host, HostOptions};
use place::{MANIFEST, Place};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn demand(lists: &[&str], unsigned: bool) -> Demand {
    Demand {
        lists: lists.iter().map(|name| ListName::parse(name).unwrap()).collect(),
        unsigned,
    }
}

/// What a run over the files that are there now would say: of `core-0.9`, all is well.
fn certificate(place: &Place) -> Value {
    let library = CheckedLibrary::open(&place.library()).unwrap();
    let dependents: Vec<Value> = library
        .dependents()
        .iter()
        .map(|file| json!({ "file": file.path().file_name().unwrap().to_string_lossy(), "sha256": file.sha256() }))
        .collect();
    json!({
        "schema": "delegraph.certificate/1",
        "library": {
            "name": place.name, "vendor": "v", "version": "1.0.0", "sha256": library.file().sha256(),
            "manifest_sha256": Digest::of(&std::fs::read(place.manifest()).unwrap()), "dependents": dependents,
        },
        "abi": { "major": 0, "minor": 1 },
        "kit": { "version": "0.1.0", "commit": "unknown", "references_sha256": "" },
        "lists": [{ "name": "core-0.9", "sha256": Digest::of(b""), "cases": 3, "verdict": "conformant" }],
        "counts": { "pass": 3 }, "claimed": 3, "claimed_passed": 3, "host": "x86_64 linux",
        "log_sha256": Digest::of(b""), "date": "2026-11-22T10:00:00Z",
    })
}

fn path(place: &Place) -> PathBuf {
    place.path(format!("{}.conformance.json", place.name))
}

fn write(place: &Place, certificate: &Value) {
    std::fs::write(path(place), certificate.to_string()).unwrap();
}

fn write_signed(place: &Place, certificate: &Value, key: &minisign::KeyPair) {
    write(place, certificate);
    let signature = minisign::sign(Some(&key.pk), &key.sk, certificate.to_string().as_bytes(), None, None).unwrap();
    std::fs::write(HashList::signature_path(&path(place)), signature.into_string()).unwrap();
}

/// Why a host does not use it, which is what its entry says where it ran.
fn outcome(place: &Place, mode: Trust, keys: &[&Path], demand: Demand) -> String {
    let host = Host::discover(HostOptions {
        search: vec![place.folder.path().to_path_buf()],
        trust: TrustOptions {
            mode,
            lock: Some(place.lock()),
            keys: keys.iter().map(|key| key.to_path_buf()).collect(),
            conformance: Some(demand),
        },
        ..HostOptions::default()
    });
    let outcome = host.delegate(&place.name).err().unwrap().to_string();
    // What `devices` prints of the candidate is the same.
    let refusal = host.candidates()[0].refusal.clone().unwrap();
    assert!(outcome.contains(&refusal), "{outcome}: {refusal}");
    outcome
}

#[track_caller]
fn runs(place: &Place, keys: &[&Path], demand: Demand) {
    let outcome = outcome(place, Trust::Off, keys, demand);
    assert!(outcome.contains("its entry refused this host"), "{outcome}");
}

#[track_caller]
fn refused(place: &Place, keys: &[&Path], demand: Demand, words: &str) {
    for mode in [Trust::Off, Trust::Warn] {
        let outcome = outcome(place, mode, keys, demand.clone());
        assert!(!outcome.contains("its entry"), "{outcome}");
        let asked = outcome.contains("`delegates.require_conformance` asks for a certificate of");
        assert!(asked && outcome.contains(words), "{words}: {outcome}");
    }
}

#[test]
fn a_signed_certificate_of_the_files_lets_them_load_and_nothing_else_does() {
    let Some(place) = Place::new("certified", 20) else {
        return;
    };
    let (pair, known) = place.key("known.pub");
    let (stranger, other) = place.key("other.pub");
    let core = || demand(&["core-0.9"], false);
    refused(
        &place,
        &[&known],
        core(),
        "certified.conformance.json`, which `delegraph conform run` makes",
    );
    let good = certificate(&place);
    write(&place, &good);
    refused(&place, &[&known], core(), "is not signed");
    refused(&place, &[], core(), "no key is configured");
    write_signed(&place, &good, &pair);
    runs(&place, &[&known], core());
    runs(&place, &[&other, &known], demand(&["core"], false));
    refused(&place, &[&other], core(), "none of the trusted keys");
    refused(&place, &[], core(), "no key is configured");
    // With `require` the lock or a signature of the files is needed beside it.
    let outcome = outcome(&place, Trust::Require, &[&known], core());
    assert!(outcome.contains("it is not trusted"), "{outcome}");

    // Another list, another version, one of two.
    refused(
        &place,
        &[&known],
        demand(&["quant-0.9"], false),
        "is of `core-0.9`, not of `quant-0.9`",
    );
    refused(&place, &[&known], demand(&["core-1.0"], false), "not of `core-1.0`");
    refused(&place, &[&known], demand(&["core", "llm"], false), "not of `llm`");

    // Its text, after it was signed.
    let mut better = good.clone();
    better["lists"][0]["cases"] = json!(4);
    write(&place, &better);
    refused(&place, &[&known], core(), "what was signed has been changed");
    // Signed anew by somebody who is not trusted.
    write_signed(&place, &better, &stranger);
    refused(&place, &[&known], core(), "none of the trusted keys");
}

#[test]
fn a_certificate_of_other_files_does_not_count() {
    let Some(place) = Place::new("swapped", 21) else { return };
    let (pair, known) = place.key("known.pub");
    let core = || demand(&["core-0.9"], false);
    write_signed(&place, &certificate(&place), &pair);
    runs(&place, &[&known], core());

    let manifest = std::fs::read(place.manifest()).unwrap();
    std::fs::write(place.manifest(), [&manifest[..], b"\n"].concat()).unwrap();
    refused(&place, &[&known], core(), "is of another manifest");
    std::fs::write(place.manifest(), &manifest).unwrap();

    let library = std::fs::read(place.library()).unwrap();
    let change = |bytes: &[u8]| {
        let fresh = place.path("fresh");
        std::fs::write(&fresh, bytes).unwrap();
        std::fs::rename(fresh, place.library()).unwrap();
    };
    change(&[&library[..], b"x"].concat());
    refused(&place, &[&known], core(), "is of another library");
    change(&library);

    place.dependent_answers(22).unwrap();
    refused(
        &place,
        &[&known],
        core(),
        "is of another dependent `libswapped_part.so`",
    );
    std::fs::remove_file(place.dependent()).unwrap();
    refused(&place, &[&known], core(), "which is not found beside it");
    place.dependent_answers(21).unwrap();
    runs(&place, &[&known], core());

    // One that was made of something else altogether, or of less.
    let good = certificate(&place);
    let changed = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        write_signed(&place, &changed, &pair);
    };
    let cases = [
        ("/library/name", json!("else"), "is of `else`, not of `swapped`"),
        ("/library/dependents", json!([]), "does not name the dependent"),
        (
            "/library/manifest_sha256",
            Value::Null,
            "is of the library without a manifest",
        ),
        (
            "/abi/major",
            json!(7),
            "major version 7 of the ABI; this host has 1.2 and 0.2",
        ),
        (
            "/lists/0/verdict",
            json!("not conformant"),
            "says of `core-0.9`: not conformant",
        ),
        (
            "/lists/0/verdict",
            json!("incomplete"),
            "says of `core-0.9`: incomplete",
        ),
        ("/lists/0/cases", json!(0), "says of `core-0.9`"),
        ("/lists", json!([]), "is of no list"),
        (
            "/schema",
            json!("delegraph.certificate/9"),
            "not the form of a certificate",
        ),
    ];
    for (pointer, value, words) in cases {
        changed(pointer, value);
        refused(&place, &[&known], core(), words);
    }
}

#[test]
fn waivers_are_heeded_until_they_expire() {
    let Some(place) = Place::new("waived", 23) else { return };
    let (pair, known) = place.key("known.pub");
    let waived = |expires: &str| {
        let mut certificate = certificate(&place);
        certificate["waivers"] = json!([{ "case": "op/x", "reason": "slow", "issue": "i", "expires": expires }]);
        write_signed(&place, &certificate, &pair);
    };
    waived("9999-12-31");
    runs(&place, &[&known], demand(&["core"], false));
    waived("2001-09-09");
    refused(
        &place,
        &[&known],
        demand(&["core"], false),
        "waives `op/x` until 2001-09-09, which is over",
    );
}

#[test]
fn what_is_unsigned_counts_only_where_the_configuration_says_so() {
    let Some(place) = Place::new("unsigned", 24) else {
        return;
    };
    let core = |unsigned| demand(&["core"], unsigned);
    write(&place, &certificate(&place));
    refused(&place, &[], core(false), "no key is configured");
    runs(&place, &[], core(true));
    // The hashes are checked all the same.
    std::fs::write(place.manifest(), MANIFEST.replace("NAME", "unsigned") + "\n").unwrap();
    refused(&place, &[], core(true), "is of another manifest");
}

#[test]
fn the_manifest_may_name_the_certificate() {
    let Some(place) = Place::new("named", 25) else { return };
    let manifest = MANIFEST.replace("NAME", "named") + "[conformance]\ncertificate = 'papers/c.json'\n";
    std::fs::write(place.manifest(), manifest).unwrap();
    write(&place, &certificate(&place));
    refused(&place, &[], demand(&["core"], true), "papers/c.json");
    std::fs::create_dir(place.path("papers")).unwrap();
    std::fs::rename(path(&place), place.path("papers/c.json")).unwrap();
    runs(&place, &[], demand(&["core"], true));
}

#[test]
fn a_certificate_that_cannot_be_read_refuses() {
    let Some(place) = Place::new("broken", 26) else { return };
    let core = || demand(&["core"], true);
    for (bytes, words) in [
        (b"{".as_slice(), "it is no certificate"),
        (b"[]", "it is no certificate"),
        (b"\xff", "is not UTF-8 text"),
        (&[b' '; (1 << 20) + 1], "is not a file of at most 1 MiB"),
    ] {
        std::fs::write(path(&place), bytes).unwrap();
        refused(&place, &[], core(), words);
    }
    std::fs::remove_file(path(&place)).unwrap();
    std::fs::create_dir(path(&place)).unwrap();
    refused(&place, &[], core(), "is not a file of at most 1 MiB");
}
