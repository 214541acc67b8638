//! The command line of every release: its flags are still taken, its calls answer with the same keys and exit codes.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn releases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("conformance/golden")).unwrap();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("cli/calls.json").is_file())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no release has a command line");
    found
}

fn delegraph(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(arguments)
        .current_dir(root())
        .env_remove("DELEGRAPH_CONFIG")
        .output()
        .expect("the command starts")
}

#[test]
fn flags_of_every_release_are_taken() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut lost = Vec::new();
    for release in releases() {
        let text = std::fs::read_to_string(release.join("cli/commands.txt")).unwrap();
        assert!(text.contains("compile --backend\n"), "{text}");
        for line in text.lines() {
            let (command, flag) = line.rsplit_once(' ').unwrap_or(("", line));
            let help = helps.entry(command.to_string()).or_insert_with(|| {
                let mut words: Vec<&str> = command.split_whitespace().collect();
                words.push("--help");
                String::from_utf8(delegraph(&words).stdout).unwrap()
            });
            let is_flag = |c: char| c.is_ascii_lowercase() || c == '-';
            if !help.split(|c| !is_flag(c)).any(|word| word == flag) {
                lost.push(format!("{}: `delegraph {line}`", release.display()));
            }
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

#[test]
fn calls_of_every_release_answer_as_they_did() {
    let mut problems = Vec::new();
    for release in releases() {
        let calls: BTreeMap<String, Value> =
            serde_json::from_slice(&std::fs::read(release.join("cli/calls.json")).unwrap()).unwrap();
        for (name, call) in &calls {
            let arguments: Vec<&str> = call["arguments"]
                .as_array()
                .unwrap()
                .iter()
                .map(|word| word.as_str().unwrap())
                .collect();
            let output = delegraph(&[arguments.as_slice(), &["-q"]].concat());
            let mut tell = |problem: String| problems.push(format!("{}: {name}: {problem}", release.display()));
            if output.status.code().map(i64::from) != call["exit_code"].as_i64() {
                tell(format!(
                    "ends with {:?}, was {}",
                    output.status.code(),
                    call["exit_code"]
                ));
            }
            let text = String::from_utf8_lossy(&output.stdout);
            let json = text.lines().rfind(|line| line.starts_with('{'));
            match json.and_then(|json| serde_json::from_str::<Value>(json).ok()) {
                None => tell(format!("no JSON: {}", String::from_utf8_lossy(&output.stderr))),
                Some(now) => {
                    if now["schema"] != call["output"]["schema"] {
                        tell(format!("schema {}, was {}", now["schema"], call["output"]["schema"]));
                    }
                    shape(&call["output"], &now, name, &mut tell);
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Every key that was there is there, with a value of the same kind; values may differ.
fn shape(then: &Value, now: &Value, place: &str, tell: &mut dyn FnMut(String)) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (key, then) in then {
                match now.get(key) {
                    None => tell(format!("{place}.{key} is gone")),
                    Some(now) => shape(then, now, &format!("{place}.{key}"), tell),
                }
            }
        }
        (Value::Array(then), Value::Array(now)) => {
            if let (Some(then), Some(now)) = (then.first(), now.first()) {
                shape(then, now, &format!("{place}[]"), tell);
            } else if now.is_empty() && then.first().is_some_and(Value::is_object) {
                // Lists of texts, as warnings are, may come to nothing.
                tell(format!("{place} is empty"));
            }
        }
        // What may be absent is null in either.
        (Value::Null, _)
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        (then, now) => tell(format!("{place} is {now}, was {then}")),
    }
}

#[test]
fn a_lost_key_is_told() {
    let then = serde_json::json!({ "a": [{ "b": 1, "c": null }], "d": "x", "w": ["text"] });
    let cases = [
        (
            serde_json::json!({ "a": [{ "b": 2, "c": 3 }], "d": "y", "e": 0, "w": ["other"] }),
            0,
        ),
        (serde_json::json!({ "a": [{ "c": 3 }], "d": "y", "w": [] }), 1),
        (serde_json::json!({ "a": [], "d": 1, "w": [] }), 2),
        (serde_json::json!({ "a": [{ "b": 2, "c": 3 }], "d": "y", "w": [] }), 0),
    ];
    for (now, count) in cases {
        let mut told = Vec::new();
        shape(&then, &now, "", &mut |problem| told.push(problem));
        assert_eq!(told.len(), count, "{told:?}");
    }
}
