//! Where instructions and blobs come from: the nodes of the graph, for profiles and traces.
//!
//! It lies in `named_data` under [`DEBUG_KEY`] as JSON, beside the overlay. Nothing needs it to run a program, and only a session that
//! is traced reads it. Files without it, and readers that do not know it, lose names and nothing else.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Key of the origins in `named_data`.
pub const DEBUG_KEY: &str = "delegraph.debug.v0";

/// Where the instructions and blobs of a program come from. Texts are kept once; everything else is an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    /// Names, operators and source lines.
    pub texts: Vec<String>,
    /// Nodes: indices in `texts` of the name, the operator and the source line. An empty text stands for "not known".
    pub nodes: Vec<(u32, u32, u32)>,
    /// By plan name, for each instruction the index in `nodes` plus one; 0: it does the work of no node in particular.
    pub instructions: BTreeMap<String, Vec<u32>>,
    /// By the key of a blob, the index in `nodes` of each node of the graph image that it was compiled from, in the image's order.
    pub blobs: BTreeMap<String, Vec<u32>>,
}

/// A node of the graph, as a program's author knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin<'a> {
    /// Its name in the graph.
    pub name: &'a str,
    /// Its operator, for example `aten::linear`.
    pub operator: &'a str,
    /// The line of the exporting program; empty: not known.
    pub source: &'a str,
}

impl Origins {
    /// The node that an instruction of a plan does the work of. `None`: of none in particular, or the indices lead nowhere.
    pub fn of_instruction(&self, plan: &str, instruction: u32) -> Option<Origin<'_>> {
        let node = self.instructions.get(plan)?.get(instruction as usize)?;
        self.node(node.checked_sub(1)?)
    }

    /// A node of the graph image that a blob was compiled from. `None`: there is none, or the indices lead nowhere.
    pub fn of_blob(&self, key: &str, node: u32) -> Option<Origin<'_>> {
        self.node(*self.blobs.get(key)?.get(node as usize)?)
    }

    fn node(&self, index: u32) -> Option<Origin<'_>> {
        let (name, operator, source) = *self.nodes.get(index as usize)?;
        Some(Origin {
            name: self.texts.get(name as usize)?,
            operator: self.texts.get(operator as usize)?,
            source: self.texts.get(source as usize)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        Origins {
            texts: ["", "fc1", "aten::linear", "model.py:3"].map(String::from).to_vec(),
            nodes: alloc::vec![(1, 2, 3), (1, 2, 9)],
            instructions: [("forward".into(), alloc::vec![0, 1, 2, u32::MAX])].into(),
            blobs: [("delegraph.blob.0".into(), alloc::vec![0, 7])].into(),
        }
    }

    #[test]
    fn instructions_and_nodes_of_blobs_lead_to_a_node() {
        let origins = origins();
        let node = Origin {
            name: "fc1",
            operator: "aten::linear",
            source: "model.py:3",
        };
        assert_eq!(origins.of_instruction("forward", 1), Some(node));
        assert_eq!(origins.of_blob("delegraph.blob.0", 0), Some(node));
    }

    /// The segment is a file's: nothing in it is checked before it is used.
    #[test]
    fn what_leads_nowhere_is_no_node() {
        let origins = origins();
        let of = |plan, i| origins.of_instruction(plan, i);
        assert_eq!(of("forward", 0), None, "no node in particular");
        assert_eq!(of("forward", 2), None, "a text that is not there");
        assert_eq!(of("forward", 3), None, "a node that is not there");
        assert_eq!(of("forward", 4), None, "an instruction that is not there");
        assert_eq!(of("backward", 1), None, "a plan that is not there");
        assert_eq!(origins.of_blob("delegraph.blob.0", 1), None);
        assert_eq!(origins.of_blob("delegraph.blob.0", 2), None);
        assert_eq!(origins.of_blob("delegraph.blob.1", 0), None);
    }
}
