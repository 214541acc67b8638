//! The description as it was at a version, and what a version may not do: move, change or drop anything that an earlier one has. That holds
//! for a major too, as long as libraries of the one before are loaded by the same code.

use super::layout::{DataModel, I386, MODELS, layout};
use super::model::Description;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// A version of the ABI: `0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Version {
    pub major: u16,
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Version, String> {
        let parts = text
            .split_once('.')
            .map(|(major, minor)| (major.parse(), minor.parse()));
        match parts {
            Some((Ok(major), Ok(minor))) => Ok(Version { major, minor }),
            _ => Err(format!("`{text}` is no version like `0.1`")),
        }
    }
}

impl Description {
    /// Its own version.
    pub fn version(&self) -> Version {
        Version {
            major: self.major,
            minor: self.minor,
        }
    }

    /// Every version, oldest first: what `since` counts.
    pub fn versions(&self) -> Vec<Version> {
        self.earlier.iter().copied().chain([self.version()]).collect()
    }

    /// The number of the newest version.
    pub fn newest(&self) -> u16 {
        self.earlier.len() as u16
    }

    /// The version of a number: what a text says for `since`.
    pub fn name(&self, since: u16) -> Version {
        self.earlier.get(usize::from(since)).copied().unwrap_or(self.version())
    }

    /// The number of the first version of the newest major.
    pub fn first_of_major(&self) -> u16 {
        let older = |version: &&Version| version.major < self.major;
        self.earlier.iter().filter(older).count() as u16
    }

    /// The entry's name in each major, the newest first.
    pub fn entries(&self) -> Vec<(u16, String)> {
        let mut majors: Vec<u16> = self.versions().iter().map(|version| version.major).collect();
        majors.dedup();
        let named = majors.into_iter().rev().map(|major| (major, self.entry_of(major)));
        named.collect()
    }

    fn entry_of(&self, major: u16) -> String {
        let prefix = self.entry.trim_end_matches(|c: char| c.is_ascii_digit());
        format!("{prefix}{major}")
    }

    /// The description at the version of a number: without what came later.
    pub fn at(&self, number: u16) -> Description {
        let mut at = self.clone();
        let version = self.name(number);
        (at.major, at.minor) = (version.major, version.minor);
        at.entry = self.entry_of(version.major);
        at.earlier.truncate(usize::from(number));
        at.constants.retain(|x| x.since <= number);
        at.enums.retain(|x| x.since <= number);
        at.opaques.retain(|x| x.since <= number);
        at.callbacks.retain(|x| x.since <= number);
        at.structs.retain(|x| x.since <= number);
        at.tables.retain(|x| x.since <= number);
        for e in &mut at.enums {
            e.items.retain(|x| x.since <= number);
        }
        for s in &mut at.structs {
            s.fields.retain(|x| x.since <= number);
        }
        for t in &mut at.tables {
            t.functions.retain(|x| x.since <= number);
        }
        at
    }

    /// Versions follow one another, nothing is newer than the newest, each stands on its own, and every struct has a layout in every data model.
    pub fn check_versions(&self) -> Result<()> {
        self.check_numbers()?;
        self.check_newest()?;
        for number in 0..=self.newest() {
            let at = self.at(number);
            // A type that came later is unknown at this version.
            at.all_members()
                .and_then(|_| at.layout_hash())
                .with_context(|| format!("at version {}", at.version()))?;
        }
        for (name, members) in self.all_members()? {
            for model in MODELS.into_iter().chain([I386]) {
                layout(self, name, &members, model)?;
            }
        }
        Ok(())
    }

    /// Each version is the next minor, or begins the next major; the entry is of the newest.
    fn check_numbers(&self) -> Result<()> {
        let versions = self.versions();
        let first = versions.first().context("no version")?;
        ensure!(first.minor == 0, "the first version is {first}, and no major begins so");
        for pair in versions.windows(2) {
            let next = [(pair[0].major, pair[0].minor + 1), (pair[0].major + 1, 0)];
            ensure!(
                next.contains(&(pair[1].major, pair[1].minor)),
                "version {} does not follow {}",
                pair[1],
                pair[0]
            );
        }
        ensure!(
            self.entry == self.entry_of(self.major),
            "the entry `{}` is not of major {}",
            self.entry,
            self.major
        );
        Ok(())
    }

    fn check_newest(&self) -> Result<()> {
        let mut all: Vec<(&str, u16)> = Vec::new();
        all.extend(self.constants.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(self.enums.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(
            self.enums
                .iter()
                .flat_map(|x| &x.items)
                .map(|x| (x.name.as_str(), x.since)),
        );
        all.extend(self.opaques.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(self.callbacks.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(self.structs.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(
            self.structs
                .iter()
                .flat_map(|x| &x.fields)
                .map(|x| (x.name.as_str(), x.since)),
        );
        all.extend(self.tables.iter().map(|x| (x.name.as_str(), x.since)));
        all.extend(
            self.tables
                .iter()
                .flat_map(|x| &x.functions)
                .map(|x| (x.name.as_str(), x.since)),
        );
        for (name, since) in all {
            ensure!(
                since <= self.newest(),
                "`{name}` is of version number {since}; the newest is {} ({}): add to `earlier`, and raise `minor`",
                self.newest(),
                self.version()
            );
        }
        Ok(())
    }

    /// Bytes of a struct or table under a data model, at each version that has it, by number: the first of a major is the least that a maker of
    /// that major may state.
    pub fn sizes(&self, name: &str, model: DataModel) -> Result<BTreeMap<u16, u64>> {
        let mut sizes = BTreeMap::new();
        for number in 0..=self.newest() {
            let at = self.at(number);
            let all = at.all_members()?;
            if let Some((_, members)) = all.iter().find(|(n, _)| *n == name) {
                sizes.insert(number, layout(&at, name, members, model)?.size);
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
        VERSION
        entry = "dg_delegate_entry_v0"
        opset = "torch-2.15"
        doc = ""
        constant = []
        opaque = []
        callback = []
        table = []
        [[enum]]
        name = "dg_kind"
        rust = "Kind"
        type = "u32"
        prefix = "DG_KIND_"
        doc = ""
        items = [{ name = "A", value = 1, doc = "" }, { name = "B", value = 2, since = 1, doc = "" }]
        [[struct]]
        name = "dg_ext"
        rust = "Ext"
        kind = "extension"
        doc = ""
        fields = []
        [[struct]]
        name = "dg_thing"
        rust = "Thing"
        kind = "record"
        doc = ""
        fields = [FIELDS]
    "#;

    /// A description of major 0, at this minor.
    fn parse(minor: u16, fields: &str) -> Result<Description> {
        let earlier: Vec<String> = (0..minor).map(|minor| format!("0.{minor}")).collect();
        let version = format!("major = 0\nminor = {minor}\nearlier = {earlier:?}");
        Description::parse(&BASE.replace("VERSION", &version).replace("FIELDS", fields))
    }

    const FIRST: &str = r#"{ name = "a", type = "u64", since = 0, doc = "" }, { name = "b", type = "*const void", since = 0, doc = "" }"#;

    #[test]
    fn a_minor_has_what_came_with_it_and_before() {
        let fields = format!(r#"{FIRST}, {{ name = "c", type = "u64", since = 1, doc = "" }}"#);
        let d = parse(1, &fields).unwrap();
        let (first, second) = (d.at(0), d.at(1));
        assert_eq!((first.minor, second.minor), (0, 1));
        assert_eq!((first.enums[0].items.len(), second.enums[0].items.len()), (1, 2));
        assert_eq!((first.structs[1].fields.len(), second.structs[1].fields.len()), (2, 3));
        // LP64: 8 + 8, then 8 more. ILP32: 8 + 4 and 4 of padding, then 8 more. i386 has no padding.
        let sizes = |model| d.sizes("dg_thing", model).unwrap().into_values().collect::<Vec<_>>();
        assert_eq!(sizes(MODELS[0]), [16, 24]);
        assert_eq!(sizes(MODELS[2]), [16, 24]);
        assert_eq!(sizes(I386), [12, 20]);
        assert_ne!(first.layout_hash().unwrap(), second.layout_hash().unwrap());
    }

    #[test]
    fn what_a_minor_may_not_do_is_refused_by_name() {
        let cases = [
            (
                "a field in the padding that an earlier minor counts as its own",
                1,
                format!(
                    r#"{FIRST}, {{ name = "c", type = "u32", since = 1, doc = "" }}, {{ name = "d", type = "u32", since = 1, doc = "" }}"#
                ),
                "`dg_thing`: `c` lies in what was padding before version number 1 under ILP32",
            ),
            (
                "a field that is newer than the newest minor",
                1,
                format!(r#"{FIRST}, {{ name = "c", type = "u64", since = 2, doc = "" }}"#),
                "`c` is of version number 2; the newest is 1 (0.1)",
            ),
            (
                "a field before an older one",
                1,
                format!(r#"{{ name = "c", type = "u64", since = 1, doc = "" }}, {FIRST}"#),
                "`a` is older than the field before it",
            ),
            (
                "an item that is newer than the newest minor",
                0,
                FIRST.to_string(),
                "`B` is of version number 1; the newest is 0 (0.0)",
            ),
        ];
        for (name, minor, fields, want) in cases {
            let error = format!("{:#}", parse(minor, &fields).expect_err(name));
            assert!(error.contains(want), "{name}: {error}");
        }
    }
    #[test]
    fn a_major_goes_on_where_the_one_before_ended() {
        let fields = format!(r#"{FIRST}, {{ name = "c", type = "u64", since = 1, doc = "" }}"#);
        let version = |text: &str| {
            let base = BASE.replace("entry_v0", "entry_v1").replace("FIELDS", &fields);
            Description::parse(&base.replace("VERSION", text))
        };
        let d = version("major = 1\nminor = 0\nearlier = [\"0.0\", \"0.1\"]").unwrap();
        assert_eq!((d.newest(), d.first_of_major()), (2, 2));
        let names: Vec<String> = d.versions().iter().map(Version::to_string).collect();
        assert_eq!(names, ["0.0", "0.1", "1.0"]);
        let entries = [(1, "dg_delegate_entry_v1"), (0, "dg_delegate_entry_v0")];
        assert_eq!(d.entries(), entries.map(|(major, name)| (major, name.to_string())));
        // Nothing came with it: its layouts are those of the version before.
        assert_eq!(d.at(2).layout_hash().unwrap(), d.at(1).layout_hash().unwrap());
        assert_eq!((d.at(1).version(), d.at(1).earlier.len()), (d.name(1), 1));
        for (text, want) in [
            (
                "major = 1\nminor = 0\nearlier = [\"0.0\", \"0.2\"]",
                "version 0.2 does not follow 0.0",
            ),
            (
                "major = 2\nminor = 0\nearlier = [\"0.0\", \"0.1\"]",
                "version 2.0 does not follow 0.1",
            ),
            (
                "major = 1\nminor = 1\nearlier = [\"0.0\", \"0.1\"]",
                "version 1.1 does not follow 0.1",
            ),
            (
                "major = 0\nminor = 1\nearlier = [\"0.0\"]",
                "the entry `dg_delegate_entry_v1` is not of major 0",
            ),
            (
                "major = 1\nminor = 0\nearlier = [\"0\"]",
                "`0` is no version like `0.1`",
            ),
        ] {
            let error = format!("{:#}", version(text).expect_err(text));
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
