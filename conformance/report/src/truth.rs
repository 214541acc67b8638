//! `run.json` and `cases.jsonl` of a folder: what every view is made from.

use delegraph_runner::folder::{CASES, RUN};
use delegraph_runner::{CaseRecord, Category, Report, RunInfo};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A log that is longer is no log of ours.
const LOG_LIMIT: u64 = 1 << 30;
/// The same for a file beside it that is read whole into memory.
pub(crate) const FILE_LIMIT: u64 = 256 << 20;

/// Why a view could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line of the log is no case.
    #[error("{}:{line}: {what}", .path.display())]
    Line {
        /// The log.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong, and what helps.
        what: String,
    },
    /// A file is not what its name says.
    #[error("{}: {what}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what helps.
        what: String,
    },
}

/// A run as it was recorded. The cases are in the order of reports: by category, then by id. The log has them as they ended, and two runs
/// of the same cases end them in different orders.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// What was run.
    pub run: RunInfo,
    /// What came of it.
    pub cases: Vec<CaseRecord>,
}

impl Truth {
    /// Reads the truth of a folder.
    ///
    /// # Errors
    /// A file is absent or too long, `run.json` is not of the schema that this version knows, or a line of `cases.jsonl` is no case: no JSON,
    /// an unknown verdict, an id that an earlier line has. The last line of a run that has not ended may be cut: it is passed over.
    pub fn read(folder: &Path) -> Result<Truth, ReportError> {
        let run = read_run(&folder.join(RUN))?;
        let cases = read_log(&folder.join(CASES), run.finished.is_none())?;
        Ok(Truth::new(run, cases))
    }

    /// The same of records at hand.
    pub fn new(run: RunInfo, mut cases: Vec<CaseRecord>) -> Truth {
        cases.sort_by_cached_key(|case| (rank(category_of(case)), category_of(case).to_string(), case.id.clone()));
        Truth { run, cases }
    }

    /// The object of `report.json`. It says which kit ran where, not who makes the view. A run that has not ended answers no.
    pub fn report(&self) -> Report {
        let mut report = Report::new(self.cases.clone());
        report.tool = format!("delegraph {}", self.run.kit.version);
        report.host.clone_from(&self.run.host);
        report.run = Some(self.run.clone());
        if self.run.finished.is_none() {
            report.exit_code = 1;
        }
        report
    }
}

/// Reads a `run.json`.
///
/// # Errors
/// As [`Truth::read`].
pub fn read_run(path: &Path) -> Result<RunInfo, ReportError> {
    let text = read_text(path, FILE_LIMIT)?;
    let file = |what: String| ReportError::File {
        path: path.to_path_buf(),
        what,
    };
    let run: RunInfo = serde_json::from_str(&text).map_err(|error| file(format!("not what a run writes: {error}")))?;
    if run.schema != RunInfo::SCHEMA {
        return Err(file(format!(
            "its schema is `{}`, and this version reads `{}`",
            run.schema,
            RunInfo::SCHEMA
        )));
    }
    Ok(run)
}

/// Reads a `cases.jsonl`, in the order of its lines, each of which has to be whole.
///
/// # Errors
/// As [`Truth::read`].
pub fn read_cases(path: &Path) -> Result<Vec<CaseRecord>, ReportError> {
    read_log(path, false)
}

fn read_log(path: &Path, may_be_cut: bool) -> Result<Vec<CaseRecord>, ReportError> {
    let mut text = read_text(path, LOG_LIMIT)?;
    if may_be_cut {
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
    }
    let mut cases: Vec<CaseRecord> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let last = text.lines().count();
    for (i, line) in text.lines().enumerate() {
        let bad = |what: String| ReportError::Line {
            path: path.to_path_buf(),
            line: i + 1,
            what,
        };
        let case: CaseRecord = serde_json::from_str(line).map_err(|error| {
            let cut = i + 1 == last && !text.ends_with('\n');
            bad(format!(
                "not a record of a case: {error}{}",
                if cut { "; the line is cut" } else { "" }
            ))
        })?;
        if case.id.is_empty() {
            return Err(bad("the case has no id".to_string()));
        }
        if let Some(first) = seen.insert(case.id.clone(), i + 1) {
            return Err(bad(format!("the case `{}` stands in line {first} already", case.id)));
        }
        cases.push(case);
    }
    Ok(cases)
}

/// The category that a case belongs to: what the record says, else what its id begins with, else `other`.
pub fn category_of(case: &CaseRecord) -> &str {
    match case.category.as_str() {
        "" => Category::of(&case.id).map_or("other", Category::name),
        name => name,
    }
}

/// Where a category stands in reports; those that the kit does not know come last.
pub(crate) fn rank(category: &str) -> usize {
    let known = Category::ALL.iter().position(|known| known.name() == category);
    known.unwrap_or(Category::ALL.len())
}

/// A text file, up to a length.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, ReportError> {
    let bytes = read_bytes(path, limit)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        ReportError::Line {
            path: path.to_path_buf(),
            line,
            what: format!("not UTF-8 at byte {at} of the file"),
        }
    })
}

/// A file, up to a length.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, ReportError> {
    let read = |source| ReportError::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit {
        return Err(ReportError::File {
            path: path.to_path_buf(),
            what: format!("longer than {limit} bytes"),
        });
    }
    Ok(bytes)
}

/// SHA-256 of a file of any length, as `run.json` has it: 64 digits in lower case.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String, ReportError> {
    let hashed = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex(&hasher.finalize())),
                n => hasher.update(&buffer[..n]),
            }
        }
    };
    hashed().map_err(|source| ReportError::Read {
        path: path.to_path_buf(),
        source,
    })
}

/// SHA-256 of bytes at hand, in the same form.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file beside its place and renames it there, so that a reader never sees half of it.
///
/// # Errors
/// The folder does not exist, or the disk refuses.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    use std::io::Write;
    let written = || -> std::io::Result<()> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(bytes)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let _ = file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644));
        }
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    written().map_err(|source| ReportError::Write {
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_runner::Verdict;

    #[test]
    fn the_log_is_refused_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cases.jsonl");
        let good = "{\"id\":\"abi/a\",\"verdict\":\"pass\"}\n";
        for (text, line, what) in [
            (format!("{good}\n"), 2, "EOF"),
            (
                format!("{good}{{\"id\":\"b\",\"verdict\":\"passed\"}}\n"),
                2,
                "unknown variant `passed`",
            ),
            (format!("{good}{good}"), 2, "stands in line 1 already"),
            (format!("{{\"id\":\"\",\"verdict\":\"pass\"}}\n{good}"), 1, "no id"),
            (format!("{good}{{\"id\":\"b\",\"ver"), 2, "the line is cut"),
            (format!("{good}{{\"id\":\"b\"}}\n"), 2, "missing field `verdict`"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = read_cases(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("cases.jsonl:{line}:")), "{text}: {error}");
            assert!(error.contains(what), "{text}: {error}");
        }
        std::fs::write(&path, b"{\"id\":\"a\",\"verdict\":\"pass\"}\n\xff\n").unwrap();
        assert!(
            read_cases(&path)
                .unwrap_err()
                .to_string()
                .contains("cases.jsonl:2: not UTF-8")
        );
        std::fs::write(&path, good).unwrap();
        assert_eq!(read_cases(&path).unwrap().len(), 1);
        std::fs::write(&path, "").unwrap();
        assert!(read_cases(&path).unwrap().is_empty());
    }

    #[test]
    fn the_order_is_that_of_categories_and_not_of_the_log() {
        let ids = ["performance/x", "op/b", "zeta/q", "op/a", "abi/z"];
        let cases = ids.iter().map(|id| CaseRecord::new(*id, Verdict::Pass, "")).collect();
        let truth = Truth::new(RunInfo::default(), cases);
        let order: Vec<&str> = truth.cases.iter().map(|case| case.id.as_str()).collect();
        assert_eq!(order, ["abi/z", "op/a", "op/b", "performance/x", "zeta/q"]);
    }

    #[test]
    fn the_last_line_of_a_run_that_goes_on_may_be_cut() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunInfo {
            schema: RunInfo::SCHEMA.to_string(),
            ..RunInfo::default()
        };
        let good = "{\"id\":\"abi/a\",\"verdict\":\"pass\"}\n";
        std::fs::write(folder.path().join(CASES), format!("{good}{{\"id\":\"b")).unwrap();
        std::fs::write(folder.path().join(RUN), serde_json::to_string(&run).unwrap()).unwrap();
        assert_eq!(Truth::read(folder.path()).unwrap().cases.len(), 1);
        run.finished = Some("2026-11-22T10:00:00Z".to_string());
        std::fs::write(folder.path().join(RUN), serde_json::to_string(&run).unwrap()).unwrap();
        assert!(
            Truth::read(folder.path())
                .unwrap_err()
                .to_string()
                .contains("cases.jsonl:2:")
        );
    }

    #[test]
    fn a_run_that_has_not_ended_answers_no() {
        let mut run = RunInfo::default();
        let cases = vec![CaseRecord::new("abi/a", Verdict::Pass, "")];
        assert_eq!(Truth::new(run.clone(), cases.clone()).report().exit_code, 1);
        run.finished = Some("2026-11-22T10:00:00Z".to_string());
        assert_eq!(Truth::new(run, cases).report().exit_code, 0);
    }
}
