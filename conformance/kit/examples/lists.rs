//! Writes the lists of cases that are not frozen, from `rules.toml` and the cases that the kit has, and their numbers into `lists.toml`.
//! `cargo xtask gen lists` runs it with the folder `conformance/lists`. It runs twice if need be: the kit holds what it writes.

use delegraph_config::glob_match;
use delegraph_kit::lists::{Entry, Index, ids, sha256};
use delegraph_kit::registry;
use serde::Deserialize;
use std::path::{Path, PathBuf};

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

fn main() -> Result<(), String> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or("the folder of the lists is missing")?;
    let rules: Rules = read(&folder.join("rules.toml"))?;
    let mut index: Index = read(&folder.join("lists.toml"))?;
    for rule in &rules.list {
        let file = folder.join(format!("{}.txt", rule.name));
        if !index.list.iter().any(|entry| entry.name == rule.name) {
            index.list.push(Entry {
                name: rule.name.clone(),
                about: String::new(),
                frozen: false,
                cases: 0,
                sha256: String::new(),
                minutes: 0.0,
                machine: String::new(),
            });
        }
        let Some(entry) = index.list.iter_mut().find(|entry| entry.name == rule.name) else {
            continue;
        };
        if entry.frozen {
            println!("{}: frozen, left as it is", rule.name);
            continue;
        }
        let text = text(rule);
        entry.about = rule.about.clone();
        entry.cases = ids(&text).len() as u64;
        entry.sha256 = sha256(text.as_bytes());
        println!("{}: {} cases", entry.name, entry.cases);
        write(&file, &text)?;
    }
    let body = toml::to_string(&index).map_err(|error| error.to_string())?;
    let head = "# Written by `cargo xtask gen lists`, except `frozen`, `minutes` and `machine`, which people set.\n\n";
    write(&folder.join("lists.toml"), &format!("{head}{body}"))
}

fn text(rule: &Rule) -> String {
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
            println!("{}: no case matches `{glob}`", rule.name);
        }
    }
    text
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("`{shown}`: {error}"))?;
    toml::from_str(&text).map_err(|error| format!("`{shown}`: {error}"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    println!("wrote {}", path.display());
    std::fs::write(path, text).map_err(|error| format!("`{}`: {error}", path.display()))
}
