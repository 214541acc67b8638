//! Raises what an exporter took apart: the graph as a delegate sees it whose manifest keeps an operator (`keep:OP`).
//!
//! A file may come with its composite operators decomposed. Where a pattern of nodes computes exactly what such an operator
//! does, the view has the operator in their place; the graph keeps the nodes. Patterns are kept for the operators that hardware
//! has and that exporters decompose ([`RAISED`]): attention and the linear layer. What core ATen has itself (`gelu`,
//! `native_layer_norm`, `convolution`) is never taken apart and needs no pattern.

mod attention;
mod linear;

use crate::view::{Folded, Fusion, Uses, fuse};
use delegraph_ir::{Arg, Expr, Graph, Node, ValueId};

/// The operators that there are patterns for.
pub const RAISED: [&str; 2] = ["aten::linear", "aten::scaled_dot_product_attention"];

/// Makes the view of a graph in which the operators that `wanted` names are raised. A pattern whose main node `keep` names is
/// left as it is. `None`: there is nothing to raise.
pub fn raise(graph: &Graph, wanted: &dyn Fn(&str) -> bool, keep: &dyn Fn(&Node) -> bool) -> Option<Folded> {
    let find = |name: &str| RAISED.contains(&name) && wanted(name);
    let (linear, attention) = (find(RAISED[0]), find(RAISED[1]));
    if !linear && !attention {
        return None;
    }
    let pattern = Pattern {
        graph,
        uses: Uses::of(graph),
    };
    let mut taken = vec![false; graph.nodes.len()];
    let mut fusions: Vec<Fusion> = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let found = match node.op.name() {
            "aten::softmax.int" | "aten::_softmax" | "aten::_safe_softmax" if attention => pattern.attention(i),
            "aten::addmm" | "aten::mm" if linear => pattern.linear(i),
            _ => continue,
        };
        let Some(fusion) = found.filter(|f| !keep(node) && f.nodes.iter().all(|n| !taken[*n])) else {
            continue;
        };
        fusion.nodes.iter().for_each(|n| taken[*n] = true);
        fusions.push(fusion);
    }
    (!fusions.is_empty()).then(|| fuse(graph.clone(), fusions))
}

/// A graph, and what patterns ask about it.
struct Pattern<'a> {
    graph: &'a Graph,
    uses: Uses,
}

impl<'a> Pattern<'a> {
    fn shape(&self, value: ValueId) -> Option<&'a [Expr]> {
        Some(self.graph.tensor(value)?.shape.as_slice())
    }

    fn node(&self, at: usize) -> &'a Node {
        &self.graph.nodes[at]
    }

    /// The node that makes a value, if nobody but one node reads it.
    fn private(&self, value: ValueId) -> Option<(usize, &'a Node)> {
        self.uses.only_reader(self.graph, value)?;
        self.uses.made_by(self.graph, value)
    }

    /// What a node reads first, if its result has the same elements in the same place: a copy, an expansion by nothing.
    fn copied(&self, node: &Node) -> Option<ValueId> {
        let input = node.args.first()?.as_value()?;
        let copies = match node.op.name() {
            "aten::clone" | "aten::alias" | "aten::contiguous" => true,
            "aten::expand" | "aten::view" | "aten::reshape" | "aten::_unsafe_view" => true,
            "aten::dropout" => node.args.get(2) == Some(&Arg::Bool(false)),
            _ => false,
        };
        let result = *node.outputs.first()?;
        (copies && self.shape(input)? == self.shape(result)?).then_some(input)
    }

    /// What a node reads, if it only gives the same elements other sizes.
    fn reshaped(&self, node: &Node) -> Option<ValueId> {
        let views = matches!(node.op.name(), "aten::view" | "aten::reshape" | "aten::_unsafe_view");
        views.then(|| node.args.first()?.as_value())?
    }

    /// What a node reads, if it swaps the last two dimensions of it.
    fn transposed(&self, node: &Node) -> Option<ValueId> {
        let input = node.args.first()?.as_value()?;
        let rank = self.graph.tensor(input)?.rank() as i64;
        let dim = |at: usize| Some(node.args.get(at)?.as_int()?.rem_euclid(rank.max(1)));
        let swaps = match node.op.name() {
            "aten::t" => rank == 2,
            "aten::transpose.int" => {
                let (a, b) = (dim(1)?, dim(2)?);
                a.min(b) == rank - 2 && a.max(b) == rank - 1
            }
            "aten::permute" => {
                let dims = node.args.get(1)?.as_ints()?;
                let want = (0..rank - 2).chain([rank - 1, rank - 2]);
                rank >= 2 && dims.iter().map(|d| d.rem_euclid(rank)).eq(want)
            }
            _ => false,
        };
        (rank >= 2 && swaps).then_some(input)
    }
}
