//! The protocol as cargo-nextest speaks it, over the `null` delegate: a list, a case by its name, and none where nothing is to be tested.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `target/debug/deps/protocol-0123`: the harness lies beside it, the program and the library a folder above.
fn built() -> Option<(PathBuf, PathBuf)> {
    let folder = std::env::current_exe().ok()?.parent()?.to_path_buf();
    let above = folder.parent()?;
    let there = above.join("delegraph").is_file() && above.join("libnull_delegate.so").is_file();
    let mut harnesses: Vec<_> = std::fs::read_dir(&folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("conform-"))
        })
        .collect();
    harnesses.sort_by_key(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok());
    let harness = harnesses.pop();
    if !there || harness.is_none() {
        println!("skipped: the protocol of nextest: `delegraph`, the null delegate or the harness was not built");
    }
    Some((harness?, above.to_path_buf())).filter(|_| there)
}

fn run(harness: &Path, library: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(harness);
    command.args(arguments).env_remove("DELEGRAPH_CONFORM_LIBRARY");
    if let Some(library) = library {
        command
            .env("DELEGRAPH_CONFORM_LIBRARY", library)
            .env("DELEGRAPH_CONFORM_ARGS", "--case abi/*");
    }
    command.output().unwrap()
}

#[test]
fn cases_are_listed_and_run_by_their_names() {
    let Some((harness, _)) = built() else { return };
    let library = Some("delegates/null/null.delegate.toml");
    let list = run(&harness, library, &["--list", "--format", "terse"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert_eq!(list.status.code(), Some(0), "{}", String::from_utf8_lossy(&list.stderr));
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    assert!(
        names.len() > 10 && names.iter().all(|name| name.starts_with("abi/")),
        "{text}"
    );
    let ignored = run(&harness, library, &["--list", "--format", "terse", "--ignored"]);
    assert_eq!(String::from_utf8_lossy(&ignored.stdout).trim(), "");
    let one = run(&harness, library, &["--exact", names[0], "--nocapture"]);
    let said = String::from_utf8_lossy(&one.stdout);
    assert_eq!(one.status.code(), Some(0), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn a_case_that_fails_fails_its_test_and_says_how_to_run_it_again() {
    let Some((harness, built)) = built() else { return };
    // No library at all: whatever is asked of it fails.
    let place = built.join("libnext_to_nothing.so");
    std::fs::write(&place, "this is no library").unwrap();
    let library = place.to_str().unwrap().to_string();
    let one = run(&harness, Some(&library), &["--exact", "abi/entry", "--nocapture"]);
    let said = String::from_utf8_lossy(&one.stdout).into_owned();
    std::fs::remove_file(&place).unwrap();
    assert_eq!(one.status.code(), Some(101), "{said}");
    assert!(
        said.contains("1 failed") && said.contains("again: delegraph conform run"),
        "{said}"
    );
}

#[test]
fn without_a_library_there_are_no_tests_and_it_is_said() {
    let Some((harness, _)) = built() else { return };
    let output = run(&harness, None, &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("0 passed"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("skipped"));
}
