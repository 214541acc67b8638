//! `softmax(query keyᵀ · scale + mask) value`, as people write it and as exporters take it apart.
//!
//! Exporters scale query and key by a square root each, make the leading dimensions one for `bmm`, and give zeros for rows of the
//! mask that hide everything. Without that last step such a row gives NaN in the graph and zeros in the raised operator.

use super::Pattern;
use crate::view::Fusion;
use delegraph_ir::{Arg, Node, Op, ValueId, fill_defaults};
use delegraph_types::{DType, Scalar};

/// The longest row of copies and factors that is followed.
const STEPS: usize = 16;

/// A value behind factors that were put to it.
struct Scaled {
    value: ValueId,
    factor: f64,
}

impl Pattern<'_> {
    /// The attention whose softmax a node is.
    pub(super) fn attention(&self, at: usize) -> Option<Fusion> {
        let softmax = self.node(at);
        let scores = softmax.args.first()?.as_value()?;
        let rank = self.shape(scores)?.len();
        let dim = softmax.args.get(1)?.as_int()?;
        let converts = match softmax.args.get(2) {
            None | Some(Arg::None | Arg::Bool(false)) => false,
            Some(_) => true,
        };
        if rank < 2 || dim.rem_euclid(rank as i64) != rank as i64 - 1 || converts {
            return None;
        }
        let mut nodes = vec![at];
        let weights = self.guarded(&mut nodes, at, scores, *softmax.outputs.first()?)?;

        // Forward to the product with the values.
        let mut weights = self.follow(&mut nodes, weights)?;
        let (mut product_at, mut product) = self.uses.only_reader(self.graph, weights)?;
        let merged = self.reshaped(product).is_some();
        if merged {
            nodes.push(product_at);
            weights = *product.outputs.first()?;
            (product_at, product) = self.uses.only_reader(self.graph, weights)?;
        }
        if !is_product(product) || product.args.first()?.as_value()? != weights {
            return None;
        }
        nodes.push(product_at);
        let mut result = *product.outputs.first()?;
        if merged {
            let (after, node) = self.uses.only_reader(self.graph, result)?;
            self.reshaped(node)?;
            nodes.push(after);
            result = *node.outputs.first()?;
        }
        let value = self.operand(&mut nodes, product.args.get(1)?.as_value()?, rank)?;
        let value = self.uncopied(&mut nodes, value);

        // Back to the product of query and key.
        let (mask, product) = self.scores(&mut nodes, scores)?;
        let Scaled { value: product, factor } = product;
        let (at_product, node) = self.scored(&mut nodes, product, rank)?;
        nodes.push(at_product);
        let query = self.operand(&mut nodes, node.args.first()?.as_value()?, rank)?;
        let (query, _) = self.scaled(&mut nodes, query, false);
        let key = self.operand(&mut nodes, node.args.get(1)?.as_value()?, rank)?;
        let (key, turned) = self.scaled(&mut nodes, key, true);
        let scale = factor * query.factor * key.factor;
        let (query, key) = (query.value, key.value);
        if !turned || !scale.is_finite() || !self.fit(query, key, value, mask, scores, result)? {
            return None;
        }
        let width = self.shape(query)?.last()?.as_int();
        let usual = width.map(|w| 1.0 / (w as f64).sqrt());
        let is_usual = usual.is_some_and(|usual| (scale / usual - 1.0).abs() < 1e-12);
        let op = Op::find("aten::scaled_dot_product_attention")?;
        let mask = mask.map_or(Arg::None, Arg::Value);
        let scale = if is_usual { Arg::None } else { Arg::Float(scale) };
        let args = vec![
            query.into(),
            key.into(),
            value.into(),
            mask,
            0.0.into(),
            false.into(),
            scale,
        ];
        let mut raised = softmax.clone();
        raised.args = fill_defaults(op, args);
        raised.outputs = vec![result];
        raised.op = op;
        nodes.sort_unstable();
        nodes.dedup();
        self.closed(&nodes, result).then_some(Fusion {
            nodes,
            main: at,
            node: raised,
        })
    }

    /// Whether nobody outside reads what is made inside, but the result.
    fn closed(&self, nodes: &[usize], result: ValueId) -> bool {
        let outputs = nodes.iter().flat_map(|n| &self.graph.nodes[*n].outputs);
        let mut inner = outputs.filter(|v| **v != result);
        inner.all(|v| {
            self.uses.readers[v.index()]
                .iter()
                .all(|r| nodes.binary_search(r).is_ok())
        })
    }

    /// One dtype, one number of dimensions, the same leading ones, and sizes that meet.
    fn fit(
        &self,
        query: ValueId,
        key: ValueId,
        value: ValueId,
        mask: Option<ValueId>,
        scores: ValueId,
        result: ValueId,
    ) -> Option<bool> {
        let dtype = self.graph.tensor(result)?.dtype;
        let mut tensors = [query, key, value, scores].into_iter().chain(mask);
        let same = tensors.all(|v| self.graph.tensor(v).is_some_and(|t| t.dtype == dtype));
        let floats = matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64);
        let split = |v| self.shape(v)?.split_last_chunk::<2>();
        let (lead, [rows, width]) = split(query)?;
        let (key_lead, [columns, key_width]) = split(key)?;
        let (value_lead, [value_rows, value_width]) = split(value)?;
        let (scores_lead, scores_sizes) = split(scores)?;
        let (result_lead, result_sizes) = split(result)?;
        let sizes = width == key_width
            && columns == value_rows
            && *scores_sizes == [rows.clone(), columns.clone()]
            && *result_sizes == [rows.clone(), value_width.clone()];
        let leads = [key_lead, value_lead, scores_lead, result_lead];
        let mask_fits = mask.is_none_or(|m| self.shape(m).is_some_and(|s| s.len() <= lead.len() + 2));
        Some(same && floats && sizes && mask_fits && leads.iter().all(|other| *other == lead))
    }

    /// The mask that is added to scores, and what is below it.
    fn scores(&self, nodes: &mut Vec<usize>, scores: ValueId) -> Option<(Option<ValueId>, Scaled)> {
        let (at, node) = self.uses.made_by(self.graph, scores)?;
        let plain = node.op.name() == "aten::add.Tensor"
            && node
                .arg("alpha")
                .and_then(Arg::as_scalar)
                .is_some_and(|f| f.as_f64() == 1.0);
        if !plain {
            // Every reader of the scores is in the pattern, or it is not closed.
            return Some((None, self.scaled_from(nodes, scores)?));
        }
        nodes.push(at);
        let operand = |i: usize| node.args.get(i).and_then(Arg::as_value);
        let (a, b) = (operand(0)?, operand(1)?);
        for (below, mask) in [(a, b), (b, a)] {
            let kept = nodes.len();
            // The mask must not widen the scores.
            if self.shape(below)? == self.shape(scores)?
                && self.private(below).is_some()
                && let Some(found) = self.scaled_from(nodes, below)
                && self.leads_to_product(found.value)
            {
                return Some((Some(mask), found));
            }
            nodes.truncate(kept);
        }
        None
    }

    fn leads_to_product(&self, value: ValueId) -> bool {
        self.scored(&mut Vec::new(), value, self.shape(value).map_or(0, <[_]>::len))
            .is_some()
    }

    /// The product that scores are, perhaps with its leading dimensions taken apart again.
    fn scored(&self, nodes: &mut Vec<usize>, value: ValueId, rank: usize) -> Option<(usize, &Node)> {
        let (at, node) = self.uses.made_by(self.graph, value)?;
        if is_product(node) {
            return Some((at, node));
        }
        let input = self.reshaped(node)?;
        let (product, inner) = self.private(input)?;
        let same = self.shape(value)?.last_chunk::<2>() == self.shape(input)?.last_chunk::<2>();
        if !is_product(inner) || !same || self.shape(value)?.len() != rank {
            return None;
        }
        nodes.push(at);
        Some((product, inner))
    }

    /// An operand of a product with as many dimensions as the scores, before its leading dimensions are made one.
    fn operand(&self, nodes: &mut Vec<usize>, value: ValueId, rank: usize) -> Option<ValueId> {
        if self.shape(value)?.len() == rank {
            return Some(value);
        }
        let (at, node) = self.private(value)?;
        let input = self.reshaped(node)?;
        let same = self.shape(value)?.last_chunk::<2>() == self.shape(input)?.last_chunk::<2>();
        if !same || self.shape(input)?.len() != rank {
            return None;
        }
        nodes.push(at);
        Some(input)
    }

    /// A value before copies of it.
    fn uncopied(&self, nodes: &mut Vec<usize>, mut value: ValueId) -> ValueId {
        for _ in 0..STEPS {
            let Some((at, input)) = self
                .private(value)
                .and_then(|(at, node)| Some((at, self.copied(node)?)))
            else {
                break;
            };
            nodes.push(at);
            value = input;
        }
        value
    }

    /// A value before copies and factors, and, if `turns`, before one swap of its last dimensions; whether there was one.
    fn scaled(&self, nodes: &mut Vec<usize>, value: ValueId, turns: bool) -> (Scaled, bool) {
        let (mut found, mut turned) = (Scaled { value, factor: 1.0 }, false);
        for _ in 0..STEPS {
            let Some((at, node)) = self.uses.made_by(self.graph, found.value) else {
                break;
            };
            let private = self.private(found.value).is_some();
            let input = if turns && !turned { self.transposed(node) } else { None };
            if let Some(input) = input {
                (found.value, turned) = (input, true);
                // One that others read too stays for them.
                if !private {
                    break;
                }
                nodes.push(at);
                continue;
            }
            let step = self
                .copied(node)
                .map(|input| (input, 1.0))
                .or_else(|| self.factor(node));
            let Some((input, factor)) = step.filter(|_| private) else {
                break;
            };
            nodes.push(at);
            found = Scaled {
                value: input,
                factor: found.factor * factor,
            };
        }
        (found, turned)
    }

    /// Factors of scores. The value itself may have other readers than one; those before it may not.
    fn scaled_from(&self, nodes: &mut Vec<usize>, value: ValueId) -> Option<Scaled> {
        let mut found = Scaled { value, factor: 1.0 };
        for step in 0..STEPS {
            if step > 0 && self.private(found.value).is_none() {
                return None;
            }
            let (at, node) = self.uses.made_by(self.graph, found.value)?;
            let next = self
                .copied(node)
                .map(|input| (input, 1.0))
                .or_else(|| self.factor(node));
            let Some((input, factor)) = next else { break };
            nodes.push(at);
            found = Scaled {
                value: input,
                factor: found.factor * factor,
            };
        }
        Some(found)
    }

    /// What a node multiplies or divides by a number, and the factor.
    fn factor(&self, node: &Node) -> Option<(ValueId, f64)> {
        let value = node.args.first()?.as_value()?;
        let number = node.args.get(1)?.as_scalar().map(Scalar::as_f64)?;
        match node.op.name() {
            "aten::mul.Tensor" | "aten::mul.Scalar" => Some((value, number)),
            "aten::div.Tensor" | "aten::div.Scalar" => Some((value, 1.0 / number)),
            _ => None,
        }
    }

    /// Copies of a value, each read by the next alone.
    fn follow(&self, nodes: &mut Vec<usize>, mut value: ValueId) -> Option<ValueId> {
        for _ in 0..STEPS {
            let (at, node) = self.uses.only_reader(self.graph, value)?;
            if self.copied(node).is_none() {
                break;
            }
            nodes.push(at);
            value = *node.outputs.first()?;
        }
        Some(value)
    }

    /// The weights after softmax, with zeros for rows that are hidden as a whole where the graph gives them:
    /// `where(any(scores != -inf), weights, 0)`, or the same with the condition turned round.
    fn guarded(&self, nodes: &mut Vec<usize>, softmax: usize, scores: ValueId, weights: ValueId) -> Option<ValueId> {
        let others = |value: ValueId| self.uses.readers[value.index()].iter().filter(|r| **r != softmax);
        if self.uses.only_reader(self.graph, weights).is_some() && others(scores).count() == 0 {
            let (_, node) = self.uses.only_reader(self.graph, weights)?;
            if node.op.name() != "aten::where.self" {
                return Some(weights);
            }
        }
        let choosing = |at: &&usize| {
            self.graph
                .nodes
                .get(**at)
                .is_some_and(|n| n.op.name() == "aten::where.self")
        };
        let at = *self.uses.readers[weights.index()].iter().find(choosing)?;
        let node = self.node(at);
        let (condition, yes, no) = (node.args.first()?.as_value()?, node.args.get(1)?, node.args.get(2)?);
        let (mut want, zeros) = match (yes.as_value(), no.as_value()) {
            (Some(yes), _) if yes == weights => (true, no),
            (_, Some(no)) if no == weights => (false, yes),
            _ => return None,
        };
        nodes.push(at);
        nodes.extend(self.zeros(zeros, weights)?);
        // Back over `not`, `any` and the comparison; `want` says for what the weights are chosen.
        let (mut value, mut any) = (condition, false);
        for _ in 0..STEPS {
            let (at, step) = self.private(value)?;
            let input = step.args.first()?.as_value()?;
            nodes.push(at);
            let infinite = || step.args.get(1).and_then(Arg::as_scalar).map(Scalar::as_f64) == Some(f64::NEG_INFINITY);
            match step.op.name() {
                "aten::logical_not" => want = !want,
                "aten::any.dim" if !any && want => {
                    let rank = self.shape(input)?.len() as i64;
                    let last = step.args.get(1)?.as_int()?.rem_euclid(rank.max(1)) == rank - 1;
                    let kept = step.args.get(2) == Some(&Arg::Bool(true));
                    any = last && kept;
                    any.then_some(())?;
                }
                "aten::ne.Scalar" | "aten::eq.Scalar" => {
                    let seen = (step.op.name() == "aten::ne.Scalar") == want;
                    let whole = any && seen && infinite() && input == scores;
                    return whole.then(|| node.outputs.first().copied())?;
                }
                _ => return None,
            }
            value = input;
        }
        None
    }

    /// The node that makes zeros, if an argument is zeros and it is a node.
    fn zeros(&self, arg: &Arg, weights: ValueId) -> Option<Option<usize>> {
        let zero = |arg: Option<&Arg>| arg.and_then(Arg::as_scalar).is_some_and(|s| s.as_f64() == 0.0);
        if zero(Some(arg)) {
            return Some(None);
        }
        let value = arg.as_value()?;
        let (at, node) = self.uses.made_by(self.graph, value)?;
        let known = match node.op.name() {
            "aten::full_like" => {
                let like = node.args.first()?.as_value()?;
                // What is read from the weights must not stay behind.
                zero(node.args.get(1)) && (like != weights || self.private(value).is_some())
            }
            "aten::full" => zero(node.args.get(1)),
            "aten::scalar_tensor" => zero(node.args.first()),
            _ => false,
        };
        known.then(|| self.private(value).map(|_| at))
    }
}

fn is_product(node: &Node) -> bool {
    matches!(node.op.name(), "aten::matmul" | "aten::bmm" | "aten::mm")
}
