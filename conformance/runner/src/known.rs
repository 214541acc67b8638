//! Known failures are data, each with its reason; a known failure that passes is a failure.

use crate::record::{CaseRecord, Verdict};
use serde::Deserialize;

/// Known failures, as a `known.toml` lists them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    #[serde(default)]
    known: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Cases by globs of their ids (`aten::roll/0123456789abcdef`).
    cases: Vec<String>,
    /// Only those whose first tensor has this dtype.
    #[serde(default)]
    dtype: Option<String>,
    /// Why it is no defect to be mended now.
    reason: String,
    /// The page of PyTorch's documentation that says so.
    source: String,
}

impl Known {
    /// Reads the text of a `known.toml`.
    ///
    /// # Errors
    /// It is no such text, or an entry has no reason.
    pub fn parse(text: &str) -> Result<Known, String> {
        let known: Known = toml::from_str(text).map_err(|error| error.to_string())?;
        match known
            .known
            .iter()
            .find(|e| e.reason.trim().is_empty() || e.source.trim().is_empty())
        {
            Some(entry) => Err(format!("the entry of {:?} lacks a reason or a source", entry.cases)),
            None => Ok(known),
        }
    }

    /// A failure that is known is waived, with the reason; a known failure that passes fails. `matches` tells whether a glob
    /// matches a text.
    pub fn judge(&self, record: &mut CaseRecord, matches: impl Fn(&str, &str) -> bool) {
        let listed = |entry: &&Entry| {
            let dtype = entry.dtype.as_ref().is_none_or(|dtype| *dtype == record.dtype);
            dtype && entry.cases.iter().any(|glob| matches(glob, &record.id))
        };
        let entry = self.known.iter().find(listed);
        let Some(entry) = entry else { return };
        match record.verdict {
            Verdict::Fail => {
                record.verdict = Verdict::Waived;
                record.reason = format!("{}; known: {} ({})", record.reason, entry.reason, entry.source);
            }
            Verdict::Pass => {
                record.verdict = Verdict::Fail;
                record.reason = format!("it passes, but is listed as a known failure: {}", entry.reason);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_waived_and_passes_are_not() {
        let known = Known::parse("[[known]]\ncases = ['aten::a/*']\nreason = 'r'\nsource = 's'\n").unwrap();
        for (id, before, after) in [
            ("aten::a/1", Verdict::Fail, Verdict::Waived),
            ("aten::a/1", Verdict::Pass, Verdict::Fail),
            ("aten::a/1", Verdict::Crash, Verdict::Crash),
            ("aten::a/1", Verdict::Hang, Verdict::Hang),
            ("aten::ab/1", Verdict::Fail, Verdict::Fail),
            ("aten::ab/1", Verdict::Pass, Verdict::Pass),
        ] {
            let mut record = CaseRecord::new(id, before, "");
            known.judge(&mut record, |glob, text| text.starts_with(glob.trim_end_matches('*')));
            assert_eq!(record.verdict, after, "{id} {before:?}");
        }
    }

    #[test]
    fn an_entry_may_name_a_dtype() {
        let known = Known::parse("[[known]]\ncases = ['a']\ndtype = 'f16'\nreason = 'r'\nsource = 's'\n").unwrap();
        for (dtype, after) in [("f16", Verdict::Waived), ("f32", Verdict::Fail), ("", Verdict::Fail)] {
            let mut record = CaseRecord::new("a", Verdict::Fail, "");
            record.dtype = dtype.to_string();
            known.judge(&mut record, |glob, text| glob == text);
            assert_eq!(record.verdict, after, "{dtype}");
        }
    }

    #[test]
    fn an_entry_needs_a_reason_and_a_source() {
        assert!(Known::parse("[[known]]\ncases = ['a']\nreason = ''\nsource = 's'\n").is_err());
        assert!(Known::parse("[[known]]\ncases = ['a']\nreason = 'r'\n").is_err());
        assert!(Known::parse("[[known]]\nids = ['a']\nreason = 'r'\nsource = 's'\n").is_err());
        assert!(Known::parse("").is_ok());
    }
}
