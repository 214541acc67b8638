//! A dequantization that several nodes read, taken apart before folding and put together afterwards.
//!
//! A folded operator covers the dequantizations that feed it. What covers a node must own it: were a float read both by a
//! folded operator and by somebody else, then the region of the one would have to give it to the other, and a delegate that
//! sees integers only has no such value. So each reader gets a dequantization of its own, which costs nothing where it is
//! folded, and copies that end in the same place are one again.

use super::pattern::Finder;
use crate::rewrite::Names;
use delegraph_ir::{Constants, Def, Graph, Node, RegionId, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Copies of dequantizations: the name of each, and the name of the node that it is a copy of.
pub type Copies = FxHashMap<String, String>;

/// Gives every operator that can be folded its own dequantizations; adds the copies to the list.
pub fn separate(graph: &mut Graph, constants: &Constants, copies: &mut Copies) {
    // For each node to be copied, the readers that get a copy.
    let mut wanted: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
    {
        let finder = Finder::new(graph, constants);
        for group in finder.groups(&|_| false, true) {
            for (dequantize, reader) in group.dequantize {
                let readers = wanted.entry(dequantize).or_default();
                if readers.last() != Some(&reader) {
                    readers.push(reader);
                }
            }
        }
        wanted.retain(|node, readers| {
            let value = graph.nodes[*node].outputs.first();
            let count = value.map_or(0, |v| finder.readers(*v).0);
            // Somebody keeps the original: those who cannot be folded, or else the first.
            if count as usize == readers.len() {
                readers.remove(0);
            }
            !readers.is_empty()
        });
    }
    if wanted.is_empty() {
        return;
    }
    let mut names = Names::of(&graph.nodes);
    let old = std::mem::take(&mut graph.nodes);
    let mut nodes: Vec<Node> = Vec::with_capacity(old.len() + wanted.len());
    // For each reader, the values that it reads from now on.
    let mut instead: FxHashMap<usize, Vec<(ValueId, ValueId)>> = FxHashMap::default();
    for (i, mut node) in old.into_iter().enumerate() {
        if let Some(pairs) = instead.remove(&i) {
            let swap = |v: ValueId| pairs.iter().find(|(from, _)| *from == v).map_or(v, |(_, to)| *to);
            node.args.iter_mut().for_each(|arg| arg.map_values(swap));
        }
        let made = wanted.remove(&i).unwrap_or_default().into_iter().map(|reader| {
            let mut copy = node.clone();
            let original = copies.get(&node.name).unwrap_or(&node.name).clone();
            copy.name = names.fresh(&node.name);
            for output in &mut copy.outputs {
                let ty = graph.value(*output).ty.clone();
                let value = graph.add_value(copy.name.clone(), ty, Def::Node);
                instead.entry(reader).or_default().push((*output, value));
                *output = value;
            }
            copies.insert(copy.name.clone(), original);
            copy
        });
        let made: Vec<Node> = made.collect();
        nodes.push(node);
        nodes.extend(made);
    }
    graph.nodes = nodes;
}

/// Makes copies one again where they are in one region, or in none. Values in `border` stay, as blobs know them. Gives the
/// former positions of the nodes that remain; the first of several has the name of the original, if that was among them.
pub fn rejoin(graph: &mut Graph, copies: &Copies, border: &FxHashSet<ValueId>) -> Vec<usize> {
    let originals: FxHashSet<&str> = copies.values().map(String::as_str).collect();
    let mut first: FxHashMap<(&str, Option<RegionId>), usize> = FxHashMap::default();
    let mut gone = vec![false; graph.nodes.len()];
    let mut renamed: Vec<(usize, &str)> = Vec::new();
    let mut instead: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    for (i, node) in graph.nodes.iter().enumerate() {
        let original = match copies.get(&node.name) {
            Some(original) => original.as_str(),
            None => match originals.get(node.name.as_str()) {
                Some(name) => name,
                None => continue,
            },
        };
        let kept = *first.entry((original, node.region)).or_insert(i);
        let stays = kept == i || node.outputs.iter().any(|v| border.contains(v));
        let other = &graph.nodes[kept];
        if stays || other.op != node.op || other.args != node.args || other.outputs.len() != node.outputs.len() {
            continue;
        }
        gone[i] = true;
        instead.extend(node.outputs.iter().copied().zip(other.outputs.iter().copied()));
        if node.name == original {
            renamed.push((kept, original));
        }
    }
    for (node, name) in renamed {
        graph.nodes[node].name = name.to_string();
    }
    if !instead.is_empty() {
        graph.replace_uses(&instead);
    }
    let remaining = (0..gone.len()).filter(|i| !gone[*i]).collect();
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or_default());
    remaining
}
