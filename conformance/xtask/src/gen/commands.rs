//! What a release's command line takes and answers: flags of every command, and calls with their JSON.

use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Most commands in one another.
const DEPTH: usize = 3;

/// Calls that are kept, from the root of the repository; `MODEL` is a model's folder in the release.
const CALLS: [(&str, &[&str]); 6] = [
    (
        "run",
        &[
            "run",
            "MODEL/model.pte",
            "--fixture",
            "MODEL",
            "--backend",
            "reference",
            "--json",
        ],
    ),
    ("inspect", &["inspect", "MODEL/model.pte", "--json"]),
    (
        "partition",
        &["partition", "MODEL/model.pte", "--backend", "reference", "--json"],
    ),
    (
        "why",
        &[
            "partition",
            "MODEL/model.pte",
            "--backend",
            "null",
            "--why",
            "gelu",
            "--json",
        ],
    ),
    (
        "config",
        &["config", "validate", "MODEL/../../config/backends.toml", "--json"],
    ),
    ("error", &["run", "MODEL/absent.pte", "--json"]),
];

/// Writes `commands.txt` and `calls.json` into a release's folder, by the command line that is built.
///
/// # Errors
/// The command line does not start or prints no JSON.
pub fn record(root: &Path, release: &Path) -> Result<()> {
    let program = root
        .join("target/debug")
        .join(format!("delegraph{}", std::env::consts::EXE_SUFFIX));
    let mut flags = String::new();
    describe(&program, &[], &mut flags)?;
    let folder = release.join("cli");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("commands.txt"), flags)?;
    let inside = release.strip_prefix(root).unwrap_or(release);
    let model = inside
        .join("models/arch-mlp-dynamic-batch")
        .display()
        .to_string()
        .replace('\\', "/");
    let mut calls = serde_json::Map::new();
    for (name, words) in CALLS {
        let arguments: Vec<String> = words.iter().map(|word| word.replace("MODEL", &model)).collect();
        let output = Command::new(&program)
            .args(&arguments)
            .arg("-q")
            .current_dir(root)
            .output();
        let output = output.with_context(|| format!("starting {}", program.display()))?;
        let text = String::from_utf8(output.stdout)?;
        let json = text.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
        let json: serde_json::Value = serde_json::from_str(json).with_context(|| format!("`{name}` prints no JSON"))?;
        let call = serde_json::json!({ "arguments": arguments, "exit_code": output.status.code(), "output": json });
        calls.insert(name.to_string(), call);
    }
    let mut text = serde_json::to_string_pretty(&calls)?;
    text.push('\n');
    std::fs::write(folder.join("calls.json"), text)?;
    Ok(())
}

/// One line a flag: the words of the command, then the flag.
fn describe(program: &Path, words: &[String], out: &mut String) -> Result<()> {
    let output = Command::new(program).args(words).arg("--help").output();
    let output = output.with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        bail!("`delegraph {} --help` failed", words.join(" "));
    }
    let text = String::from_utf8(output.stdout)?;
    let mut section = "";
    for line in text.lines() {
        match line {
            "Commands:" | "Options:" | "Arguments:" => section = line,
            "" => {}
            _ if !line.starts_with(' ') => section = "",
            _ if section == "Options:" => {
                // `      --config <FILE>  Text`, `  -v, --verbose...  Text`.
                let flag = line.split_whitespace().take(2).find_map(|word| word.strip_prefix("--"));
                let end = |c: char| !c.is_ascii_lowercase() && c != '-';
                if let Some(flag) = flag.and_then(|flag| flag.split(end).next()) {
                    writeln!(out, "{}", [words, &[format!("--{flag}")]].concat().join(" "))?;
                }
            }
            _ if section == "Commands:" && line.starts_with("  ") && !line.starts_with("   ") => {
                let name = line.split_whitespace().next().unwrap_or_default();
                if name != "help" && words.len() < DEPTH {
                    describe(program, &[words, &[name.to_string()]].concat(), out)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
