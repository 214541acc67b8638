//! Lists of cases, as they lie in `conformance/lists`: a text file each, and `lists.toml`, which says how many cases a list has, what its
//! hash is and how long it takes. The kit holds them, so that a device needs no files for them.

use crate::registry;
use delegraph_runner::run_info::ListId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The index.
const INDEX: &str = include_str!("../../lists/lists.toml");

/// The files that it names.
const FILES: [(&str, &str); 4] = [
    ("core-1.0", include_str!("../../lists/core-1.0.txt")),
    ("quant-1.0", include_str!("../../lists/quant-1.0.txt")),
    ("llm-1.0", include_str!("../../lists/llm-1.0.txt")),
    ("async-1.0", include_str!("../../lists/async-1.0.txt")),
];

/// The newest version of lists: 1.0 was frozen with v1 of the ABI.
pub const VERSION: &str = "1.0";

/// `lists.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// In the order of reports.
    pub list: Vec<Entry>,
}

/// A list as the index has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `core-1.0`
    pub name: String,
    /// What a delegate that passes it is fit for.
    pub about: String,
    /// Changed by errata alone: never written by a tool.
    pub frozen: bool,
    /// How many cases.
    pub cases: u64,
    /// SHA-256 of the file, in lower case.
    pub sha256: String,
    /// Median minutes of a run over the `reference` delegate; 0: not measured yet.
    pub minutes: f64,
    /// The class of machine that took so long.
    pub machine: String,
}

/// A list with its cases.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// What the index says of it.
    pub entry: Entry,
    /// Ids of cases, in the order of the file.
    pub cases: Vec<String>,
}

impl List {
    /// The list as a report names it.
    pub fn id(&self) -> ListId {
        ListId {
            name: self.entry.name.clone(),
            sha256: self.entry.sha256.clone(),
            cases: self.entry.cases,
        }
    }
}

/// SHA-256 as reports have it.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The ids of a list's file: one a line; `#` begins a comment.
pub fn ids(text: &str) -> Vec<String> {
    let line = |line: &str| line.split('#').next().unwrap_or_default().trim().to_string();
    text.lines().map(line).filter(|id| !id.is_empty()).collect()
}

/// Every list of the kit.
///
/// # Errors
/// The kit was built of an index that does not fit its files, which is a defect of the kit.
pub fn all() -> Result<Vec<List>, String> {
    let index: Index = toml::from_str(INDEX).map_err(|error| format!("conformance/lists/lists.toml: {error}"))?;
    let with_cases = |entry: Entry| {
        let name = entry.name.clone();
        let (_, text) = FILES
            .iter()
            .find(|(file, _)| *file == name)
            .ok_or_else(|| format!("the kit has no file of the list `{name}`"))?;
        if sha256(text.as_bytes()) != entry.sha256 {
            return Err(format!(
                "the list `{name}` is not what its hash says: run `cargo xtask gen lists`"
            ));
        }
        let cases = ids(text);
        Ok(List { entry, cases })
    };
    index.list.into_iter().map(with_cases).collect()
}

/// A list by its name, `core-1.0`, or by its name without a version: the newest.
///
/// # Errors
/// There is none; the message says which there are.
pub fn find(name: &str) -> Result<List, String> {
    let lists = all()?;
    let names: Vec<String> = lists.iter().map(|list| list.entry.name.clone()).collect();
    let full = format!("{name}-{VERSION}");
    if let Some(list) = lists
        .into_iter()
        .find(|list| list.entry.name == name || list.entry.name == full)
    {
        return Ok(list);
    }
    let base = name.split_once('-').map_or(name, |(base, _)| base);
    if names.contains(&format!("{base}-{VERSION}")) {
        return Err(format!(
            "there is no list `{name}`: the newest lists are of version {VERSION}\n  hint: `--list {base}-{VERSION}`"
        ));
    }
    Err(format!(
        "there is no list `{name}`\n  hint: there are {}",
        names.join(", ")
    ))
}

/// The cases of a list that a run names. `None`: this kit has no such list, or another under its name.
pub fn members(list: &ListId) -> Option<BTreeSet<String>> {
    let found = all().ok()?.into_iter().find(|known| known.id() == *list)?;
    Some(found.cases.into_iter().collect())
}

/// SHA-256 over what the kit compares with: the lists, and the recorded references of every source of cases.
pub fn references_sha256() -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        // Lengths keep two parts from passing for one.
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (name, text) in FILES {
        part(name.as_bytes());
        part(text.as_bytes());
    }
    for source in registry::SOURCES {
        for bytes in (source.references)() {
            part(bytes);
        }
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_what_the_index_says_and_every_case_of_it_exists() {
        let lists = all().unwrap();
        assert_eq!(lists.len(), FILES.len());
        let known: BTreeSet<&str> = registry::cases().iter().map(|case| case.id.as_str()).collect();
        for list in &lists {
            let name = &list.entry.name;
            assert_eq!(
                list.entry.cases,
                list.cases.len() as u64,
                "{name}: run `cargo xtask gen lists`"
            );
            let set: BTreeSet<&String> = list.cases.iter().collect();
            assert_eq!(set.len(), list.cases.len(), "{name} has a case twice");
            for id in &list.cases {
                assert!(
                    known.contains(id.as_str()),
                    "{name} has `{id}`, which the kit has not: run `cargo xtask gen lists`"
                );
            }
        }
    }

    #[test]
    fn a_list_is_found_with_and_without_its_version() {
        assert_eq!(find("core").unwrap(), find("core-1.0").unwrap());
        let newer = find("core-2.0").unwrap_err();
        assert!(newer.contains("newest") && newer.contains("--list core-1.0"), "{newer}");
        let none = find("cure").unwrap_err();
        assert!(none.contains("core-1.0") && none.contains("async-1.0"), "{none}");
    }

    #[test]
    fn comments_and_empty_lines_are_no_cases() {
        assert_eq!(ids("# a\n\nabi/x # y\r\n  op/z  \n"), ["abi/x", "op/z"]);
    }

    #[test]
    fn the_hash_is_sha_256() {
        // The vector of FIPS 180-2.
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), want);
    }
}
