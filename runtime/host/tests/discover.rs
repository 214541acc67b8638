//! Finding candidates: a bad one never stops the others, and nothing runs before it is asked for.

use delegraph_host::{Host, HostError, HostOptions};
use std::path::Path;

const MANIFEST: &str = "manifest_version = 1\nname = 'NAME'\nvendor = 'v'\nversion = '1.0.0'\nlicence = 'MIT'\n\
                        library = 'libNAME_delegate.so'\nroles = ['run']\n[abi]\nmajor = 0\nmin_minor = 0\n";

fn manifest(folder: &Path, name: &str, edit: impl Fn(String) -> String) {
    let text = edit(MANIFEST.replace("NAME", name));
    std::fs::write(folder.join(format!("{name}.delegate.toml")), text).unwrap();
}

fn library(folder: &Path, name: &str) {
    std::fs::write(folder.join(format!("lib{name}_delegate.so")), "no library at all").unwrap();
}

fn host(folder: &Path) -> Host {
    Host::discover(options(folder))
}

fn options(folder: &Path) -> HostOptions {
    HostOptions {
        search: vec![folder.to_path_buf(), folder.to_path_buf(), folder.join("nowhere")],
        ..HostOptions::default()
    }
}

#[test]
fn every_candidate_is_listed_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    manifest(path, "absent", |text| text);
    manifest(path, "broken", |_| "name = ".to_string());
    manifest(path, "elsewhere", |text| {
        text.replace("library = 'libelsewhere_delegate.so'\n", "") + "[library]\nz80-cpm = 'x.so'\n"
    });
    manifest(path, "fine", |text| text);
    library(path, "fine");
    manifest(path, "future", |text| text.replace("major = 0", "major = 3"));
    library(path, "future");
    manifest(path, "newer", |text| text.replace("min_minor = 0", "min_minor = 99"));
    library(path, "newer");
    let host = host(path);
    let want = [
        ("absent", "neither beside its manifest nor beside the executable"),
        ("broken", "is not TOML"),
        ("elsewhere", "no library for this machine"),
        ("fine", ""),
        ("future", "major version 3 of the ABI; this host has 1.2 and 0.2"),
        ("newer", "it needs version 0.99 of the ABI; this host has 1.2 and 0.2"),
    ];
    let candidates = host.candidates();
    assert_eq!(candidates.len(), want.len(), "a folder that is named twice counts once");
    for (candidate, (name, words)) in candidates.iter().zip(want) {
        assert_eq!(candidate.backend, name);
        let reason = candidate.refusal.as_deref().unwrap_or_default();
        assert!(
            reason.contains(words) && reason.is_empty() == words.is_empty(),
            "{name}: {reason}"
        );
    }
    assert!(host.problems()[0].contains("nowhere"), "{:?}", host.problems());
}

#[test]
fn a_library_that_cannot_be_loaded_is_refused_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    manifest(folder.path(), "fine", |text| text);
    library(folder.path(), "fine");
    let host = host(folder.path());
    for _ in 0..2 {
        let error = host.delegate("fine").err().unwrap();
        assert!(
            matches!(&error, HostError::Refused { reason, .. } if reason.contains("cannot be loaded")),
            "{error}"
        );
    }
    assert!(
        host.candidates()[0].refusal.is_some(),
        "the listing says so from then on"
    );
}

#[test]
fn an_unknown_backend_gets_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    manifest(folder.path(), "vulkan", |text| text);
    let error = host(folder.path()).delegate("vulcan").err().unwrap().to_string();
    assert!(error.contains("did you mean `vulkan`?"), "{error}");
}

#[test]
fn selections_pins_and_no_load_keep_candidates_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["one", "two"] {
        manifest(path, name, |text| text);
        library(path, name);
    }
    let reason = |options: HostOptions, name: &str| Host::discover(options).delegate(name).err().unwrap().to_string();
    let select = HostOptions {
        select: vec!["t*".to_string()],
        ..options(path)
    };
    assert!(reason(select, "one").contains("not selected"));
    let disable = HostOptions {
        disable: vec!["one".to_string()],
        ..options(path)
    };
    assert!(reason(disable, "one").contains("disabled by `one`"));
    let no_load = HostOptions {
        no_load: true,
        ..options(path)
    };
    assert!(reason(no_load, "one").contains("no library is loaded"));
    let pinned = HostOptions {
        pinned: vec![("one".to_string(), path.join("liboops.so"))],
        ..options(path)
    };
    let text = reason(pinned, "one");
    assert!(
        text.contains("there is no library") && text.contains("pins another library"),
        "{text}"
    );
    let wrong = HostOptions {
        pinned: vec![("one".to_string(), path.join("two.delegate.toml"))],
        ..options(path)
    };
    assert!(reason(wrong, "one").contains("the manifest is of `two`"));
}
