//! What can be wrong with a file, and what the writer refuses.

use alloc::string::String;

/// Why a file is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PteError {
    /// Not a file of this kind at all.
    #[error("not a {expected} file: {problem}")]
    NotThisKind {
        /// `.pte`, `.ptd` or `.bpte`.
        expected: &'static str,
        /// What was found instead.
        problem: String,
    },
    /// The FlatBuffer is damaged.
    #[error("damaged file: {0}")]
    Damaged(String),
    /// The FlatBuffer is whole, its contents contradict each other or the file's size.
    #[error("{place}: {problem}")]
    Invalid {
        /// Plan, value or instruction.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    /// A correct file that uses what Delegraph does not do.
    #[error("{place}: {problem} is not supported")]
    Unsupported {
        /// Plan, value or instruction.
        place: String,
        /// What is not supported.
        problem: String,
    },
}

impl PteError {
    pub(crate) fn invalid(place: impl Into<String>, problem: impl Into<String>) -> PteError {
        PteError::Invalid {
            place: place.into(),
            problem: problem.into(),
        }
    }

    pub(crate) fn unsupported(place: impl Into<String>, problem: impl Into<String>) -> PteError {
        PteError::Unsupported {
            place: place.into(),
            problem: problem.into(),
        }
    }
}

/// Why a file cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The reader would refuse the file.
    #[error("the program would not be readable: {0}")]
    Program(#[from] PteError),
    /// A named blob asks for an alignment that is not a power of two up to 65,536.
    #[error("named data `{key}`: alignment {alignment} is not a power of two up to 65536")]
    Alignment {
        /// Its key.
        key: String,
        /// What it asks for.
        alignment: u32,
    },
    /// The sink failed.
    #[error("cannot write: {0}")]
    Io(String),
}
