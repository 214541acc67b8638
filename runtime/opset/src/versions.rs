//! Versions of the operator table, and which one brought an operator.
//!
//! A graph image names the version that it is written in, and a delegate names the one that it was built for. So a delegate is
//! never shown an operator that did not exist when it was built: whoever lowers takes it apart first.
//!
//! The table only grows: an operator that would come to mean something else gets another name, and a parameter that is added
//! another overload. So a version is told by its newest operators alone.

use crate::table::Op;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A version of the operator table.
///
/// The default is the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u32);

/// All versions of the operator table, in order, with the operators that each but the first brought.
///
/// The text has one version a line, oldest first, and below it, indented by a tab, the full name of each operator that it
/// brought. What no version lists was there from the first on. `src/versions.txt` is the one of this library.
///
/// ```
/// use delegraph_opset::{Op, Versions};
///
/// let versions = Versions::parse("torch-2.15\ntorch-2.17\n\taten::silu\n").unwrap();
/// let (old, new) = (versions.of_delegate("torch-2.16"), versions.of_delegate("torch-3.0"));
/// assert_eq!((versions.name(old), versions.name(new)), ("torch-2.15", "torch-2.17"));
/// let silu = Op::find("aten::silu").unwrap();
/// assert!(versions.since(silu) > old && versions.since(silu) <= new);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    names: Vec<String>,
    /// Sorted; only operators of later versions than the first.
    since: Vec<(Op, Version)>,
}

/// A text of versions that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionsError {
    /// Line, from 1; 0: the text as a whole.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl fmt::Display for VersionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the versions: {}", self.line, self.problem)
    }
}

impl core::error::Error for VersionsError {}

impl Versions {
    /// Those of this library.
    pub fn builtin() -> Versions {
        let text = include_str!("versions.txt");
        Versions::parse(text).unwrap_or_else(|error| unreachable!("the text was parsed by a test: {error}"))
    }

    /// Parses a text of versions.
    ///
    /// # Errors
    /// No version, one that is not later than the one before, an operator before the second version, one that is not in the
    /// table, one that is listed twice.
    pub fn parse(text: &str) -> Result<Versions, VersionsError> {
        let mut versions = Versions {
            names: Vec::new(),
            since: Vec::new(),
        };
        for (line, row) in (1..).zip(text.lines()) {
            let wrong = |problem| Err(VersionsError { line, problem });
            let Some(operator) = row.strip_prefix('\t') else {
                let Some(number) = number(row) else {
                    return wrong("a version is `torch-MAJOR.MINOR`");
                };
                if versions.names.last().and_then(|last| self::number(last)) >= Some(number) {
                    return wrong("versions are in order, oldest first");
                }
                versions.names.push(row.into());
                continue;
            };
            if versions.names.len() < 2 {
                return wrong("what the first version has needs no row");
            }
            match Op::find(operator) {
                Some(op) if op.name() == operator => versions.since.push((op, versions.newest())),
                _ => return wrong("no such operator, or not its full name"),
            }
            let listed = versions.since.iter().filter(|(op, _)| op.name() == operator);
            if listed.count() > 1 {
                return wrong("the operator is listed twice");
            }
        }
        if versions.names.is_empty() {
            let problem = "there is no version";
            return Err(VersionsError { line: 0, problem });
        }
        versions.since.sort_unstable();
        Ok(versions)
    }

    /// The version of this table.
    pub fn newest(&self) -> Version {
        Version((self.names.len() - 1) as u32)
    }

    /// Its name, for example `torch-2.15`.
    pub fn name(&self, version: Version) -> &str {
        &self.names[version.0 as usize]
    }

    /// The version that brought an operator.
    pub fn since(&self, op: Op) -> Version {
        let found = self.since.binary_search_by(|(other, _)| other.cmp(&op));
        found.map_or(Version(0), |at| self.since[at].1)
    }

    /// What a delegate that was built for this version of the table may be shown: the last version that is not newer. A
    /// version between two of ours is the older one, one after the newest is the newest. A text that is no version tells
    /// nothing, so the delegate is taken to be as old as can be.
    pub fn of_delegate(&self, name: &str) -> Version {
        let Some(wanted) = number(name) else {
            return Version(0);
        };
        let known = self.names.iter().filter_map(|known| number(known));
        let not_newer = known.take_while(|known| *known <= wanted).count();
        Version(not_newer.saturating_sub(1) as u32)
    }

    /// Whether the delegate was built for a later table than this one, so that names which this one lacks may be right.
    pub fn is_newer(&self, name: &str) -> bool {
        number(name) > number(self.name(self.newest()))
    }
}

impl Default for Versions {
    fn default() -> Versions {
        Versions::builtin()
    }
}

/// `torch-2.15`: 2, 15.
fn number(name: &str) -> Option<(u32, u32)> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let (major, minor) = name.strip_prefix("torch-")?.split_once('.')?;
    Some((plain(major)?, plain(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "torch-2.15\ntorch-2.17\n\taten::silu\n\taten::mish\ntorch-3.0\n\taten::relu\n";

    fn op(name: &str) -> Op {
        Op::find(name).unwrap()
    }

    #[test]
    fn this_library_has_one_version_and_everything_is_of_it() {
        let versions = Versions::builtin();
        assert_eq!(versions.name(versions.newest()), "torch-2.15");
        assert!(Op::all().all(|op| versions.since(op) == Version(0)));
    }

    #[test]
    fn an_operator_is_of_the_version_that_lists_it() {
        let versions = Versions::parse(TWO).unwrap();
        let since = |name| versions.since(op(name)).0;
        assert_eq!(
            [
                since("aten::sin"),
                since("aten::mish"),
                since("aten::silu"),
                since("aten::relu")
            ],
            [0, 1, 1, 2]
        );
    }

    #[test]
    fn a_delegate_is_shown_the_last_version_that_is_not_newer_than_it() {
        let versions = Versions::parse(TWO).unwrap();
        for (name, version, newer) in [
            ("torch-2.15", 0, false),
            ("torch-2.16", 0, false),
            ("torch-2.17", 1, false),
            ("torch-2.9", 0, false),
            ("torch-3.0", 2, false),
            ("torch-3.1", 2, true),
            ("torch-10.0", 2, true),
            ("", 0, false),
            ("torch", 0, false),
            ("torch-2.x", 0, false),
            ("torch-+3.9", 0, false),
            ("onnx-99.0", 0, false),
        ] {
            assert_eq!(versions.of_delegate(name), Version(version), "{name}");
            assert_eq!(versions.is_newer(name), newer, "{name}");
        }
    }

    #[test]
    fn a_text_that_makes_no_sense_is_refused_with_its_line() {
        for (text, line) in [
            ("", 0),
            ("2.15\n", 1),
            ("torch-2.15\ntorch-2.15\n", 2),
            ("torch-2.15\ntorch-2.14\n", 2),
            ("torch-2.15\n\taten::silu\n", 2),
            ("torch-2.15\ntorch-2.16\n\taten::nothing\n", 3),
            ("torch-2.15\ntorch-2.16\n\taten::silu.default\n", 3),
            ("torch-2.15\ntorch-2.16\n\taten::silu\n\taten::silu\n", 4),
        ] {
            assert_eq!(Versions::parse(text).unwrap_err().line, line, "{text:?}");
        }
    }
}
