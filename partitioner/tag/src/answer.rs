//! What a delegate says about the nodes of a graph, and what the host says before it asks.

use delegraph_ir::{Arg, Graph, Node, NodeId, Type};

/// What a delegate says about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// It can take the node.
    pub supported: bool,
    /// Why not, in the delegate's words; for a node that it takes, anything or nothing.
    pub reason: String,
}

impl Verdict {
    /// The node can be taken.
    pub fn yes() -> Verdict {
        Verdict {
            supported: true,
            reason: String::new(),
        }
    }

    /// The node cannot be taken.
    pub fn no(reason: impl Into<String>) -> Verdict {
        Verdict {
            supported: false,
            reason: reason.into(),
        }
    }
}

/// A delegate's answer about a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// One a node, in the order of the graph.
    pub verdicts: Vec<Verdict>,
    /// Nodes that are taken together, in one region, or not at all.
    pub atomic_sets: Vec<Vec<NodeId>>,
}

/// Why a node is never offered to any delegate, if it is not.
pub fn builtin_refusal(graph: &Graph, node: &Node) -> Option<&'static str> {
    if node.args.iter().any(|arg| matches!(arg, Arg::Graph(_))) {
        return Some("control flow stays on the CPU");
    }
    let is_tensor = |v| matches!(graph.value(v).ty, Type::Tensor(_));
    if !node.inputs().all(is_tensor) {
        return Some("it reads a number that is known only while running");
    }
    if !node.outputs.iter().all(|v| is_tensor(*v)) {
        return Some("it makes a number, not a tensor");
    }
    None
}
