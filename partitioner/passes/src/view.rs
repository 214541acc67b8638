//! A delegate's view of a graph: a second graph, in which one node may stand for several of the first.
//!
//! The graph itself is what runs where no delegate does, and stays as it is. A view reads and gives the same values as the
//! graph: values keep their ids, those inside a node that stands for several are read by nobody in the view, and values that
//! only the view has come after all others.

use delegraph_ir::{Graph, Node, NodeId, ValueId};
use rustc_hash::FxHashMap;

/// A view of a graph, and how it relates to the graph it was made of.
#[derive(Debug, Clone)]
pub struct Folded {
    /// The view. It reads and gives the same values as the other graph.
    pub graph: Graph,
    /// For each node of the view, what it stands for.
    pub origins: Vec<Origin>,
    /// For each node of the other graph, the node of the view that stands for it.
    pub view_of: Vec<NodeId>,
    /// For each node of the other graph, whether it quantizes or dequantizes a value whose type a folded node relies on.
    /// While the view is in use, such a node must stay what it is.
    pub holds: Vec<bool>,
}

/// What a node of a view stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The operator itself.
    pub main: NodeId,
    /// All nodes, in order.
    pub covers: Vec<NodeId>,
}

impl Folded {
    /// The graph as it is.
    pub fn same(graph: &Graph) -> Folded {
        let origin = |id| Origin {
            main: id,
            covers: vec![id],
        };
        Folded {
            graph: graph.clone(),
            origins: graph.node_ids().map(origin).collect(),
            view_of: graph.node_ids().collect(),
            holds: vec![false; graph.nodes.len()],
        }
    }

    /// A view of this view, as one of the graph that this one was made of.
    pub fn then(self, next: Folded) -> Folded {
        let origin = |origin: Origin| {
            let covers = origin.covers.iter().flat_map(|id| &self.origins[id.index()].covers);
            let mut covers: Vec<NodeId> = covers.copied().collect();
            covers.sort_unstable();
            Origin {
                main: self.origins[origin.main.index()].main,
                covers,
            }
        };
        let held = |(holds, view): (&bool, &NodeId)| *holds || next.holds[view.index()];
        Folded {
            origins: next.origins.into_iter().map(origin).collect(),
            view_of: self.view_of.iter().map(|id| next.view_of[id.index()]).collect(),
            holds: self.holds.iter().zip(&self.view_of).map(held).collect(),
            graph: next.graph,
        }
    }
}

/// Several nodes that become one.
#[derive(Debug, Clone)]
pub(crate) struct Fusion {
    /// All of them, in order.
    pub nodes: Vec<usize>,
    /// The one that gives its name and stands for all in reports.
    pub main: usize,
    /// What they become. It stands where the last of them does: by then everything is there that any of them reads.
    pub node: Node,
}

/// Makes a view of a graph. No node is in two fusions.
pub(crate) fn fuse(mut graph: Graph, fusions: Vec<Fusion>) -> Folded {
    let mut at: FxHashMap<usize, usize> = FxHashMap::default();
    for (i, fusion) in fusions.iter().enumerate() {
        at.extend(fusion.nodes.iter().map(|node| (*node, i)));
    }
    let mut fusions: Vec<Option<Fusion>> = fusions.into_iter().map(Some).collect();
    let old = std::mem::take(&mut graph.nodes);
    let mut folded = Folded {
        view_of: vec![NodeId(0); old.len()],
        holds: vec![false; old.len()],
        origins: Vec::with_capacity(old.len()),
        graph,
    };
    for (i, node) in old.into_iter().enumerate() {
        let (node, main, covers) = match at.get(&i).map(|fusion| &mut fusions[*fusion]) {
            None => (node, i, vec![NodeId::from(i)]),
            Some(fusion) => match fusion.take_if(|fusion| fusion.nodes.last() == Some(&i)) {
                Some(fusion) => {
                    let covers = fusion.nodes.iter().map(|n| NodeId::from(*n)).collect();
                    (fusion.node, fusion.main, covers)
                }
                None => continue,
            },
        };
        let id = NodeId::from(folded.graph.nodes.len());
        covers.iter().for_each(|n: &NodeId| folded.view_of[n.index()] = id);
        folded.graph.nodes.push(node);
        let main = NodeId::from(main);
        folded.origins.push(Origin { main, covers });
    }
    folded
}

/// Who makes and who reads each value of a graph.
pub(crate) struct Uses {
    /// The node that makes it.
    pub maker: Vec<Option<usize>>,
    /// The nodes that read it, each once; a result of the graph is read by one past the last node.
    pub readers: Vec<Vec<usize>>,
}

impl Uses {
    pub fn of(graph: &Graph) -> Uses {
        let mut uses = Uses {
            maker: vec![None; graph.values.len()],
            readers: vec![Vec::new(); graph.values.len()],
        };
        let mut read = |value: ValueId, by: usize| {
            let readers = &mut uses.readers[value.index()];
            if readers.last() != Some(&by) {
                readers.push(by);
            }
        };
        for (i, node) in graph.nodes.iter().enumerate() {
            node.inputs().for_each(|value| read(value, i));
        }
        graph.results().for_each(|value| read(value, graph.nodes.len()));
        for (i, node) in graph.nodes.iter().enumerate() {
            for value in &node.outputs {
                uses.maker[value.index()] = Some(i);
            }
        }
        uses
    }

    /// The only reader of a value, if it is a node.
    pub fn only_reader<'g>(&self, graph: &'g Graph, value: ValueId) -> Option<(usize, &'g Node)> {
        match self.readers[value.index()].as_slice() {
            [one] => Some((*one, graph.nodes.get(*one)?)),
            _ => None,
        }
    }

    /// The node that makes a value.
    pub fn made_by<'g>(&self, graph: &'g Graph, value: ValueId) -> Option<(usize, &'g Node)> {
        let node = self.maker[value.index()]?;
        Some((node, &graph.nodes[node]))
    }
}
