//! What can be wrong with an archive, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why an archive was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be opened or mapped.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not what it should be: damaged, inconsistent or hostile.
    #[error("{0}")]
    Malformed(Box<Report>),
    /// The file is valid, but holds something that is not supported.
    #[error("{0}")]
    Unsupported(Box<Report>),
    /// The importer made a graph that is not well formed.
    #[error("bug in the importer: {0}")]
    Bug(String),
}

/// A message with its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The file, if it was opened by path.
    pub file: Option<PathBuf>,
    /// Member, or node with operator, shapes and source line.
    pub place: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "`{}`: ", file.display())?;
        }
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, ImportError>;

impl ImportError {
    pub(crate) fn malformed(message: impl Into<String>) -> ImportError {
        ImportError::Malformed(Box::new(Report {
            message: message.into(),
            ..Report::default()
        }))
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> ImportError {
        ImportError::Unsupported(Box::new(Report {
            message: message.into(),
            ..Report::default()
        }))
    }

    /// The report, where there is one.
    pub fn report(&self) -> Option<&Report> {
        match self {
            ImportError::Malformed(report) | ImportError::Unsupported(report) => Some(report),
            _ => None,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> ImportError {
        self.change(|report| {
            report.hint.get_or_insert(hint.into());
        })
    }

    /// Names the place, unless a place further in did.
    pub(crate) fn at(self, place: impl FnOnce() -> String) -> ImportError {
        self.change(|report| {
            report.place.get_or_insert_with(place);
        })
    }

    pub(crate) fn in_file(self, file: &Path) -> ImportError {
        self.change(|report| report.file = Some(file.to_path_buf()))
    }

    fn change(mut self, f: impl FnOnce(&mut Report)) -> ImportError {
        if let ImportError::Malformed(report) | ImportError::Unsupported(report) = &mut self {
            f(report);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_place_stands_and_the_hint_has_its_own_line() {
        let error = ImportError::unsupported("no `x`")
            .at(|| "node `a`".into())
            .at(|| "graph".into())
            .hint("try `y`")
            .in_file(Path::new("m.pt2"));
        assert_eq!(error.to_string(), "`m.pt2`: node `a`: no `x`\n  hint: try `y`");
    }
}
