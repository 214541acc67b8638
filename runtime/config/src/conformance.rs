//! `delegates.require_conformance`: which lists of conformance cases a delegate must have a certificate of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `delegates.require_conformance`: a list, several lists of which each must be certified, or a table that says more.
// The table comes first: unknown keys are looked up in the first alternative of the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RequireConformance {
    /// `{ list = "core-0.9", unsigned = true }`
    Table(RequireConformanceTable),
    /// `["core-0.9", "quant-0.9"]`
    All(Vec<String>),
    /// `"core-0.9"`
    One(String),
}

/// `delegates.require_conformance` as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequireConformanceTable {
    /// A list, or several of which each must be certified.
    pub list: Lists,
    /// Whether a certificate counts that none of `delegates.keys` signed: its hashes are checked, who made it is not.
    #[serde(default)]
    pub unsigned: bool,
}

/// One list or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Lists {
    /// `["core-0.9", "quant-0.9"]`
    All(Vec<String>),
    /// `"core-0.9"`
    One(String),
}

impl RequireConformance {
    /// The lists by name.
    ///
    /// # Errors
    /// One sentence: there is none, or one is no name of a list.
    pub fn lists(&self) -> Result<Vec<ListName>, String> {
        let names = match self {
            RequireConformance::One(name) => std::slice::from_ref(name),
            RequireConformance::All(names) => names,
            RequireConformance::Table(table) => match &table.list {
                Lists::One(name) => std::slice::from_ref(name),
                Lists::All(names) => names,
            },
        };
        if names.is_empty() {
            return Err("it names no list; leave it out where no certificate is asked for".to_string());
        }
        names.iter().map(|name| ListName::parse(name)).collect()
    }

    /// Whether a certificate counts that nobody signed.
    pub fn unsigned(&self) -> bool {
        matches!(self, RequireConformance::Table(table) if table.unsigned)
    }
}

/// The name of a list of conformance cases, with or without a version: `core`, `core-0.9`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListName {
    /// `core`
    pub name: String,
    /// Major and minor.
    pub version: Option<(u32, u32)>,
}

impl ListName {
    /// Parses a name.
    ///
    /// # Errors
    /// One sentence: a name is lower case letters, digits and `-`, and a version is `-MAJOR.MINOR` after it.
    pub fn parse(text: &str) -> Result<ListName, String> {
        let version = |text: &str| {
            let (major, minor) = text.split_once('.')?;
            let number = |digits: &str| {
                digits
                    .bytes()
                    .all(|c| c.is_ascii_digit())
                    .then(|| digits.parse().ok())?
            };
            Some((number(major)?, number(minor)?))
        };
        let (name, version) = match text.rsplit_once('-').map(|(name, end)| (name, version(end))) {
            Some((name, Some(version))) => (name, Some(version)),
            _ => (text, None),
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 100 && name.chars().all(plain) {
            true => Ok(ListName {
                name: name.to_string(),
                version,
            }),
            false => Err(format!(
                "`{text}` is no list of conformance cases: one is named as `core-0.9`, or `core` for any version"
            )),
        }
    }

    /// Whether a certificate of `other` is one of this: the same name and, where this has a version, the same major and at
    /// least its minor. A name without a version takes every version.
    pub fn is_met_by(&self, other: &ListName) -> bool {
        let version = match (self.version, other.version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((major, minor)), Some((other_major, other_minor))) => major == other_major && other_minor >= minor,
        };
        self.name == other.name && version
    }
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            None => f.write_str(&self.name),
            Some((major, minor)) => write!(f, "{}-{major}.{minor}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_compared() {
        for text in ["core", "core-0.9", "llm-long-12.34", "core-9"] {
            assert_eq!(ListName::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "Core",
            "core 0.9",
            "-",
            "core-0.9.1",
            "core-.9",
            "core-+1.0",
            "core/x",
        ] {
            assert!(ListName::parse(text).is_err(), "{text}");
        }
        let cases = [
            ("core", "core-0.9", true),
            ("core", "core", true),
            ("core", "quant-0.9", false),
            ("core-0.9", "core-0.9", true),
            ("core-0.9", "core-0.10", true),
            ("core-0.9", "core-0.8", false),
            ("core-0.9", "core-1.0", false),
            ("core-1.0", "core-1.3", true),
            ("core-1.0", "core-0.9", false),
            ("core-1.0", "core", false),
        ];
        for (wanted, have, met) in cases {
            let name = |text| ListName::parse(text).unwrap();
            assert_eq!(name(wanted).is_met_by(&name(have)), met, "{wanted} by {have}");
        }
    }

    #[test]
    fn every_form_is_read() {
        #[derive(Deserialize)]
        struct Text {
            key: RequireConformance,
        }
        let read = |text: &str| toml::from_str::<Text>(&format!("key = {text}")).map(|text| text.key);
        let cases: [(&str, &[&str], bool); 4] = [
            ("'core-0.9'", &["core-0.9"], false),
            ("['core', 'quant-0.9']", &["core", "quant-0.9"], false),
            ("{ list = 'core-0.9', unsigned = true }", &["core-0.9"], true),
            ("{ list = ['core', 'llm'] }", &["core", "llm"], false),
        ];
        for (text, names, unsigned) in cases {
            let read = read(text).unwrap();
            let lists: Vec<String> = read.lists().unwrap().iter().map(ListName::to_string).collect();
            assert_eq!(lists, names, "{text}");
            assert_eq!(read.unsigned(), unsigned, "{text}");
        }
        assert!(read("[]").unwrap().lists().is_err());
        assert!(
            read("['core', 'Core']")
                .unwrap()
                .lists()
                .unwrap_err()
                .contains("`Core`")
        );
        assert!(read("1").is_err() && read("{ unsigned = true }").is_err());
    }
}
