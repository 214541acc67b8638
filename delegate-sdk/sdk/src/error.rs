//! The error that a delegate reports.

use delegraph_abi::Status;
use delegraph_abi::image::NodeIndex;
use std::any::Any;
use std::fmt;

/// Why a call failed: a status of the contract, the node it is about, what happened and what to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Status of the contract; never `OK`.
    pub code: Status,
    /// The vendor's own number; 0: none.
    pub vendor_code: i64,
    /// Node of the graph image.
    pub node: Option<NodeIndex>,
    /// Lower case, no full stop, the value in backticks.
    pub message: String,
    /// What to try; may be empty.
    pub hint: String,
}

impl Error {
    /// An error of this status.
    pub fn new(code: Status, message: impl Into<String>) -> Error {
        Error {
            code,
            vendor_code: 0,
            node: None,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// Valid, but this delegate does not do it.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(Status::UNSUPPORTED, message)
    }

    /// What the caller gave is wrong.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Status::INVALID_ARGUMENT, message)
    }

    /// The blob is damaged.
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(Status::BLOB_CORRUPT, message)
    }

    /// A mistake of the delegate's own.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(Status::INTERNAL, message)
    }

    /// What was caught of a panic.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Error::internal(format!("the delegate panicked: {text}"))
    }

    /// Names the node.
    #[must_use]
    pub fn at(mut self, node: NodeIndex) -> Error {
        self.node = Some(node);
        self
    }

    /// Says what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = hint.into();
        self
    }

    /// The error as one of [`crate::Compile::compile_set`], about one of the graphs, by its position.
    #[must_use]
    pub fn of_graph(self, graph: usize) -> SetError {
        SetError {
            graph: Some(graph),
            error: self,
        }
    }

    /// Adds the vendor's own number.
    #[must_use]
    pub fn vendor_code(mut self, code: i64) -> Error {
        self.vendor_code = code;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(node) = self.node {
            write!(f, " (node {})", node.0)?;
        }
        if self.hint.is_empty() {
            return Ok(());
        }
        write!(f, "\n  hint: {}", self.hint)
    }
}

impl std::error::Error for Error {}

/// Why graphs could not be compiled together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetError {
    /// The graph that it is about, by its position; `None`: none in particular.
    pub graph: Option<usize>,
    /// What is wrong. Its node is one of that graph.
    pub error: Error,
}

/// About no graph in particular.
impl From<Error> for SetError {
    fn from(error: Error) -> SetError {
        SetError { graph: None, error }
    }
}
