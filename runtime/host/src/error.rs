//! What can go wrong with a delegate.

use delegraph_abi::Status;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a delegate could not be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No manifest, library or static table offers the backend.
    #[error("no delegate offers the backend `{backend}`{}", hint_line(.hint))]
    Unknown {
        /// Backend id asked for.
        backend: String,
        /// What is known, or where one would have to lie.
        hint: String,
    },
    /// Every candidate of the backend was refused before or while it was loaded.
    #[error("the delegate `{backend}` cannot be used: {reason}")]
    Refused {
        /// Backend id.
        backend: String,
        /// Manifest of the last candidate; `None` for a static table.
        manifest: Option<PathBuf>,
        /// Why; one sentence a candidate.
        reason: String,
    },
    /// A static table was registered twice.
    #[error("the backend `{backend}` is already registered")]
    Duplicate {
        /// Backend id.
        backend: String,
    },
}

/// An error that a delegate reported, or that the host found in its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{backend}`: {message} ({code}{}){}", vendor_part(.vendor_code), hint_line(.hint))]
pub struct DelegateError {
    /// Backend id.
    pub backend: Arc<str>,
    /// Status of the contract.
    pub code: Status,
    /// The vendor's own number; 0: none.
    pub vendor_code: i64,
    /// Node of the graph image that it is about.
    pub node: Option<u32>,
    /// In the delegate's words.
    pub message: String,
    /// What to try; may be empty.
    pub hint: String,
}

impl DelegateError {
    pub(crate) fn new(backend: &Arc<str>, code: Status, message: impl Into<String>) -> DelegateError {
        DelegateError {
            backend: backend.clone(),
            code,
            vendor_code: 0,
            node: None,
            message: message.into(),
            hint: String::new(),
        }
    }
}

/// Why graphs could not be compiled together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{error}", graph_part(.graph))]
pub struct SetError {
    /// The graph that it is about, by its position; `None`: none in particular.
    pub graph: Option<usize>,
    /// What is wrong. Its node is one of that graph.
    pub error: DelegateError,
}

/// About no graph in particular.
impl From<DelegateError> for SetError {
    fn from(error: DelegateError) -> SetError {
        SetError { graph: None, error }
    }
}

fn graph_part(graph: &Option<usize>) -> String {
    graph.map_or(String::new(), |graph| format!("graph {graph}: "))
}

fn hint_line(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("\n  hint: {hint}")
    }
}

fn vendor_part(code: &i64) -> String {
    if *code == 0 {
        String::new()
    } else {
        format!(", vendor code {code}")
    }
}
