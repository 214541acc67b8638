//! `delegraph delegate lock`

use crate::args::{DelegateLockArgs, Global};
use crate::output::{Output, Tint, write_atomically};
use delegraph_host::trust::{CheckedLibrary, Lock, Pin};
use std::path::{Path, PathBuf};

/// Pins what the configuration and the environment find. Loads nothing.
///
/// # Errors
/// The configuration is wrong, there is nothing to pin, or the file cannot be written.
pub fn run(args: &DelegateLockArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let config = crate::config::resolve(global, &[], &[])?;
    let file = args
        .output
        .clone()
        .or_else(|| config.delegates.lock.clone())
        .unwrap_or_else(|| match &global.config {
            Some(config) => config.with_file_name("delegraph.lock"),
            None => PathBuf::from("delegraph.lock"),
        });
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut lock = Lock {
        version: 1,
        expires: None,
        delegate: Vec::new(),
    };
    let (mut pinned, mut skipped) = (Vec::new(), Vec::new());
    for candidate in crate::devices::discover(&config, true).candidates() {
        let checked = match (&candidate.refusal, &candidate.library) {
            (Some(reason), _) => Err(reason.clone()),
            (None, None) => Err("it has no library".to_string()),
            (None, Some(library)) => CheckedLibrary::open(library),
        };
        let name = &candidate.backend;
        match checked {
            Err(reason) => {
                output.talk(format!("skipped {name}: {reason}"));
                skipped.push(serde_json::json!({ "backend": name, "reason": reason }));
            }
            Ok(library) => {
                let manifest = candidate.manifest_path.as_deref().zip(candidate.manifest_sha256);
                let files = [library.file()].into_iter().chain(library.dependents());
                let paths: Vec<String> = files.map(|file| file.path().display().to_string()).collect();
                output.data(format!(
                    "{} {}",
                    output.tint(Tint::Bold, format!("{name:<12}")),
                    paths.join(" ")
                ));
                for problem in library.problems() {
                    output.talk(format!("warning: {name} will not be trusted: {problem}"));
                }
                pinned.push(serde_json::json!({
                    "backend": name, "files": paths, "problems": library.problems(),
                }));
                lock.delegate.push(Pin::of(name, manifest, &library, folder));
            }
        }
    }
    if lock.delegate.is_empty() {
        return Err(crate::usage(
            "there is no delegate to pin\n  hint: name a folder of manifests under `delegates.search`",
        ));
    }
    // The file's own reader judges the day, and everything else in it.
    let text = match &args.expires {
        None => lock.to_text(),
        Some(day) => lock
            .to_text()
            .replacen("version = 1\n", &format!("version = 1\nexpires = {day}\n"), 1),
    };
    let read_back = Lock::parse(&text).map_err(|problem| match &args.expires {
        Some(day) => crate::usage(format!("`--expires {day}` is no day like 2027-06-30: {problem}")),
        None => anyhow::anyhow!("the lock file that was made is none: {problem}"),
    })?;
    if read_back.is_expired() {
        return Err(crate::usage("the day of `--expires` is over"));
    }
    write_atomically(&file, text.as_bytes())?;
    output.talk(format!("wrote {}", file.display()));
    output.json(&serde_json::json!({
        "schema": "delegraph.lock/1", "tool": crate::tool(), "lock": file, "delegates": pinned, "skipped": skipped,
        "exit_code": 0,
    }))?;
    Ok(0)
}
