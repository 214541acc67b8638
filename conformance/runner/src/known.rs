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
    /// Cases by their ids (`aten::roll/0123456789abcdef`); `*` stands for any text.
    cases: Vec<String>,
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

    /// A failure that is known is waived, with the reason; a known failure that passes fails.
    pub fn judge(&self, record: &mut CaseRecord) {
        let entry = self.known.iter().find(|e| {
            e.cases
                .iter()
                .any(|glob| matches(glob.as_bytes(), record.id.as_bytes()))
        });
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

/// `*` stands for any text.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|i| matches(rest, &text[i..])),
        Some((c, rest)) => text
            .split_first()
            .is_some_and(|(t, tail)| t == c && matches(rest, tail)),
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
            known.judge(&mut record);
            assert_eq!(record.verdict, after, "{id} {before:?}");
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
