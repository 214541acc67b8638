//! Which node of the graph each instruction and each blob comes from.

use delegraph_ir::Node;
use delegraph_lower::ImageNode;
use delegraph_pte::origins::Origins;
use rustc_hash::FxHashMap;

/// The origins of a program under construction.
#[derive(Default)]
pub(crate) struct OriginTable {
    origins: Origins,
    texts: FxHashMap<String, u32>,
    nodes: FxHashMap<(u32, u32, u32), u32>,
}

impl OriginTable {
    /// The index of a node of the module.
    pub(crate) fn node(&mut self, node: &Node) -> u32 {
        self.index(&node.name, node.op.name(), node.source.as_deref().unwrap_or_default())
    }

    /// What the nodes of a blob's image are.
    pub(crate) fn blob(&mut self, key: &str, nodes: &[ImageNode]) {
        let indices = nodes
            .iter()
            .map(|node| self.index(&node.name, &node.operator, &node.source))
            .collect();
        self.origins.blobs.insert(key.to_string(), indices);
    }

    /// What the instructions of a plan are: indices of nodes plus one, 0 for none.
    pub(crate) fn plan(&mut self, name: &str, instructions: Vec<u32>) {
        self.origins.instructions.insert(name.to_string(), instructions);
    }

    /// The table; `None` where no instruction is any node's.
    pub(crate) fn finish(self) -> Option<Origins> {
        (!self.origins.nodes.is_empty()).then_some(self.origins)
    }

    fn index(&mut self, name: &str, operator: &str, source: &str) -> u32 {
        let key = (self.text(name), self.text(operator), self.text(source));
        let next = self.origins.nodes.len() as u32;
        let index = *self.nodes.entry(key).or_insert(next);
        if index == next {
            self.origins.nodes.push(key);
        }
        index
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(&index) = self.texts.get(text) {
            return index;
        }
        let index = self.origins.texts.len() as u32;
        self.origins.texts.push(text.to_string());
        self.texts.insert(text.to_string(), index);
        index
    }
}
