//! Channels that change places or are divided, with channels last: shuffles of groups and splits.

use super::layout::{FIRST, PERMUTE, Pass};
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::{conv, shuffle as step};
use delegraph_sdk::DType;
use delegraph_sdk::image::{Arg, ExprIndex, NodeIndex, ValueIndex};

/// The dimension of channels.
const CHANNELS: i64 = 3;
/// Outputs that a step may have.
const MOST_OUTPUTS: usize = 62;

impl Pass<'_, '_> {
    /// Does the last node of a shuffle with channels last: a view in groups, groups and channels turned around, and the view back. Says whether it
    /// did; what leads to the node is read by nobody then, or by others.
    pub(super) fn shuffled_channels(&mut self, node: &Node) -> bool {
        let Some((x, groups)) = self.shuffle_of(node) else {
            return false;
        };
        let output = node.outputs[0];
        let last = self.last[&x];
        let args = vec![Arg::Values(vec![ValueIndex(last as u32)]), Arg::Int(groups)];
        let made = self.turned_back(output, node.source);
        let at = self.graph.nodes.len() - 1;
        let shuffle = Node {
            op: step::NAME.to_string(),
            args,
            outputs: vec![made],
            source: node.source,
        };
        self.graph.nodes.insert(at, shuffle);
        true
    }

    /// What a node is the shuffle of, and in how many groups.
    fn shuffle_of(&self, node: &Node) -> Option<(ValueId, i64)> {
        let maker = |mut value: ValueId| loop {
            let made = self.moves.get(&value)?;
            match made.op.as_str() {
                "aten::clone" | "aten::contiguous" => value = made.value(0)?,
                _ => return Some(made),
            }
        };
        let is_view = |node: &Node| matches!(node.op.as_str(), "aten::view" | "aten::reshape" | "aten::_unsafe_view");
        let (output, turned) = (node.outputs[0], is_view(node).then(|| maker(node.value(0)?))??);
        let places = [1, 2].map(|at| float(turned.args.get(at)).map(|d| d as i64));
        let order = match turned.op.as_str() {
            "aten::transpose.int" => matches!(places, [Some(1), Some(2)] | [Some(2), Some(1)]),
            "aten::permute" => self.graph.int_list(turned.args.get(1))? == [0, 2, 1, 3, 4],
            _ => false,
        };
        let grouped = turned.value(0).filter(|_| order)?;
        let x = maker(grouped).filter(|node| is_view(node))?.value(0)?;
        let x = self.same.get(&x).copied().unwrap_or(x);
        let same = |a: &ExprIndex, b: &ExprIndex| {
            a == b || self.graph.known(*a).is_some() && self.graph.known(*a) == self.graph.known(*b)
        };
        let [from, groups, to] = [x, grouped, output].map(|value| self.graph.values[value].dims.as_slice());
        let (&[n, c, h, w], &[image, group, each, row, column]) = (from, groups) else {
            return None;
        };
        let group = self.graph.known(group)?;
        let whole = self.graph.known(c)? == group * self.graph.known(each)?;
        let still = [(n, image), (h, row), (w, column)].iter().all(|(a, b)| same(a, b));
        let alike = from.len() == to.len() && from.iter().zip(to).all(|(a, b)| same(a, b));
        let is_float = self.graph.values[x].dtype == DType::F32;
        (group > 0 && whole && still && alike && is_float && self.last.contains_key(&x)).then_some((x, group))
    }

    /// Does a split with channels last; says whether it did.
    pub(super) fn split(&mut self, node: &Node, dim: i64) -> bool {
        let Some(last) = node.value(0).and_then(|x| self.last.get(&x).copied()) else {
            return false;
        };
        if node
            .outputs
            .iter()
            .any(|output| self.graph.values[*output].dims.len() != 4)
        {
            return false;
        }
        let at = self.graph.nodes.len();
        let outputs = node
            .outputs
            .iter()
            .map(|output| self.turned_back(*output, node.source))
            .collect();
        let mut made = Node {
            outputs,
            ..node.clone()
        };
        made.args[0] = arg(last);
        made.args.truncate(2);
        made.args.push(Arg::Int(dim));
        self.graph.nodes.insert(at, made);
        true
    }

    /// A new value with channels last that stands for one with channels first, which a node at the end turns it back to.
    pub(super) fn turned_back(&mut self, output: ValueId, source: NodeIndex) -> ValueId {
        let old = &self.graph.values[output];
        let dims = super::layout::LAST.iter().map(|d| old.dims[*d as usize]).collect();
        let (name, dtype) = (format!("{} nhwc", old.name), old.dtype);
        let last = self.graph.value(&name, dtype, dims);
        // Whoever wants channels first reads this; nobody may.
        let order = self.graph.ints(&FIRST);
        self.graph.nodes.push(Node {
            op: PERMUTE.to_string(),
            args: vec![arg(last), order],
            outputs: vec![output],
            source,
        });
        self.pair(output, last);
        last
    }
}

/// Joins what is behind the layouts: shuffles with what is put together before and divided after them, and convolutions of few channels with the
/// permutation before them, as they copy their input anyway.
pub fn join(graph: &mut Graph) {
    let (uses, makers) = (graph.uses(), graph.makers());
    let along = |graph: &Graph, arg: Option<&Arg>, value: ValueId| {
        let dim = float(arg).map_or(0, |d| d as i64);
        graph.values[value].dims.len() == 4 && (dim == CHANNELS || dim == -1)
    };
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        match node.op.as_str() {
            step::NAME => {
                let mut reads = node.reads();
                let (Some(x), None) = (reads.next(), reads.next()) else {
                    continue;
                };
                drop(reads);
                let Some(cat) = makers[x].map(|at| &graph.nodes[at]) else {
                    continue;
                };
                // A concatenation takes other types, and lists of nothing, too.
                let images =
                    |value: ValueId| graph.values[value].dtype == DType::F32 && graph.values[value].dims.len() == 4;
                if uses[x] == 1 && cat.op == "aten::cat" && along(graph, cat.args.get(1), x) && cat.reads().all(images)
                {
                    graph.nodes[at].args[0] = cat.args[0].clone();
                }
            }
            "aten::split_with_sizes" | "aten::split_with_sizes_copy" => {
                let Some(x) = node.value(0) else { continue };
                let Some(shuffle) = makers[x].filter(|at| graph.nodes[*at].op == step::NAME) else {
                    continue;
                };
                let few = graph.nodes[shuffle].outputs.len() == 1 && node.outputs.len() <= MOST_OUTPUTS;
                if uses[x] == 1 && few && along(graph, node.args.get(2), x) {
                    let (outputs, source) = (node.outputs.clone(), node.source);
                    graph.nodes[shuffle].outputs = outputs;
                    graph.nodes[shuffle].source = source;
                    graph.nodes[at].outputs.clear();
                    graph.nodes[at].args.clear();
                }
            }
            conv::NAME => {
                let word = |at: usize, word: &str| matches!(&node.args[at], Arg::Str(have) if have == word);
                let Some(x) = node.value(0) else { continue };
                let few = graph.size(x, CHANNELS as usize).is_some_and(|c| c < 16) && node.args[10] == Arg::Int(1);
                let Some(turn) = makers[x].map(|at| &graph.nodes[at]) else {
                    continue;
                };
                let is_turn = turn.op == PERMUTE
                    && graph
                        .int_list(turn.args.get(1))
                        .is_some_and(|o| o == super::layout::LAST);
                if few && is_turn && uses[x] == 1 && word(conv::METHOD, "gemm") && word(conv::LAYOUT, "nhwc") {
                    let from = turn.args[0].clone();
                    graph.nodes[at].args[0] = from;
                    graph.nodes[at].args[conv::LAYOUT] = Arg::Str("nchw".to_string());
                }
            }
            _ => {}
        }
    }
    graph.nodes.retain(|node| !node.outputs.is_empty());
    graph.sweep();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two images of 2 and 4 channels, put together, shuffled in groups, and divided along `dim` in 5 channels and 1.
    fn shuffled(dim: i64) -> (Graph, [ValueId; 2], [ValueId; 2]) {
        let mut graph = Graph::empty();
        let image = |graph: &mut Graph, channels: i64| {
            let dims = [1, 4, 4, channels].map(|d| graph.int(d)).to_vec();
            graph.value("image", DType::F32, dims)
        };
        let inputs = [2, 4].map(|channels| image(&mut graph, channels));
        let [whole, turned, a, b] = [6, 6, 5, 1].map(|channels| image(&mut graph, channels));
        let list = |values: &[ValueId]| Arg::Values(values.iter().map(|v| ValueIndex(*v as u32)).collect());
        let sizes = graph.ints(&[5, 1]);
        for (op, args, outputs) in [
            ("aten::cat", vec![list(&inputs), Arg::Int(dim)], vec![whole]),
            (step::NAME, vec![list(&[whole]), Arg::Int(2)], vec![turned]),
            (
                "aten::split_with_sizes",
                vec![arg(turned), sizes, Arg::Int(dim)],
                vec![a, b],
            ),
        ] {
            graph.nodes.push(Node {
                op: op.to_string(),
                args,
                outputs,
                source: NodeIndex(0),
            });
        }
        graph.outputs = vec![a, b];
        (graph, inputs, [a, b])
    }

    #[test]
    fn a_shuffle_does_what_is_before_and_behind_it() {
        let (mut graph, inputs, outputs) = shuffled(3);
        join(&mut graph);
        let [node] = graph.nodes.as_slice() else {
            panic!("one node, not {:?}", graph.nodes);
        };
        assert_eq!((node.op.as_str(), node.outputs.as_slice()), (step::NAME, &outputs[..]));
        assert!(node.reads().eq(inputs));
    }

    #[test]
    fn what_is_along_another_dimension_or_read_by_others_stays() {
        let (mut graph, ..) = shuffled(2);
        join(&mut graph);
        assert_eq!(graph.nodes.len(), 3);
        let (mut graph, ..) = shuffled(3);
        let (whole, turned) = (graph.nodes[0].outputs[0], graph.nodes[1].outputs[0]);
        graph.outputs.extend([whole, turned]);
        join(&mut graph);
        assert_eq!(graph.nodes.len(), 3);
    }
}
