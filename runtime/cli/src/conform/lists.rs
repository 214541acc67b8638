//! `delegraph conform lists`: writes the lists of cases that are not frozen, from `rules.toml` and the cases that the kit has, and their
//! numbers into `lists.toml`. The kit holds what it writes, so it is built again afterwards.

use crate::output::{Output, write_atomically};
use delegraph_config::glob_match;
use delegraph_kit::lists::{Entry, Index, ids, sha256};
use delegraph_kit::registry;
use serde::Deserialize;
use std::path::Path;

/// `rules.toml`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    list: Vec<Rule>,
}

/// What a list is made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    about: String,
    /// Globs of ids.
    include: Vec<String>,
    /// Those of them that are left out.
    #[serde(default)]
    exclude: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read or written.
pub fn run(folder: &Path, output: &Output) -> anyhow::Result<u8> {
    let rules: Rules = read(&folder.join("rules.toml"))?;
    let mut index: Index = read(&folder.join("lists.toml"))?;
    for rule in &rules.list {
        let at = index.list.iter().position(|entry| entry.name == rule.name);
        let mut entry = match at {
            Some(at) => index.list[at].clone(),
            None => Entry {
                name: rule.name.clone(),
                about: String::new(),
                frozen: false,
                cases: 0,
                sha256: String::new(),
                minutes: 0.0,
                machine: String::new(),
            },
        };
        if entry.frozen {
            output.data(format!("{}: frozen, left as it is", rule.name));
            continue;
        }
        let text = text(rule, output);
        entry.about.clone_from(&rule.about);
        entry.cases = ids(&text).len() as u64;
        entry.sha256 = sha256(text.as_bytes());
        output.data(format!("{}: {} cases", entry.name, entry.cases));
        write(&folder.join(format!("{}.txt", rule.name)), &text, output)?;
        match at {
            Some(at) => index.list[at] = entry,
            None => index.list.push(entry),
        }
    }
    let head = "# Written by `cargo xtask gen lists`, except `frozen`, `minutes` and `machine`, which people set.\n\n";
    let body = toml::to_string(&index)?;
    write(&folder.join("lists.toml"), &format!("{head}{body}"), output)?;
    Ok(0)
}

fn text(rule: &Rule, output: &Output) -> String {
    let any = |globs: &[String], id: &str| globs.iter().any(|glob| glob_match(glob, id));
    let mut text = format!("# {}: {}\n", rule.name, rule.about);
    for case in registry::cases() {
        if any(&rule.include, &case.id) && !any(&rule.exclude, &case.id) {
            text += &case.id;
            text += "\n";
        }
    }
    for glob in &rule.include {
        if !registry::cases().iter().any(|case| glob_match(glob, &case.id)) {
            output.talk(format!("{}: no case matches `{glob}`", rule.name));
        }
    }
    text
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<T> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| crate::bad_input(format!("`{shown}`: {error}")))?;
    toml::from_str(&text).map_err(|error| crate::bad_input(format!("`{shown}`: {error}")))
}

fn write(path: &Path, text: &str, output: &Output) -> anyhow::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    output.data(format!("wrote {}", path.display()));
    write_atomically(path, text.as_bytes())
}
