//! What can go wrong in a pass.

use delegraph_ir::Node;

/// An error of a pass, with the node that it happened at.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The node breaks its operator's own rules.
    #[error("node `{node}` (`{op}`): {problem}")]
    Invalid {
        /// The node's name.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A valid node that Delegraph does not do.
    #[error("node `{node}` (`{op}`): {problem} is not supported")]
    Unsupported {
        /// The node's name.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What is not supported.
        problem: String,
    },
    /// A pass broke a rule of the graph: a defect of Delegraph, not of the model.
    #[error("internal error at node `{node}` (`{op}`): {problem}")]
    Bug {
        /// The node's name.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What went wrong.
        problem: String,
    },
}

impl PassError {
    /// A [`PassError::Invalid`] at `node`.
    pub fn invalid(node: &Node, problem: impl Into<String>) -> PassError {
        PassError::Invalid {
            node: node.name.clone(),
            op: node.op.name(),
            problem: problem.into(),
        }
    }

    /// A [`PassError::Unsupported`] at `node`.
    pub fn unsupported(node: &Node, problem: impl Into<String>) -> PassError {
        PassError::Unsupported {
            node: node.name.clone(),
            op: node.op.name(),
            problem: problem.into(),
        }
    }

    /// A [`PassError::Bug`] at `node`.
    pub fn bug(node: &Node, problem: impl Into<String>) -> PassError {
        PassError::Bug {
            node: node.name.clone(),
            op: node.op.name(),
            problem: problem.into(),
        }
    }
}
