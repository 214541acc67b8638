//! `bias + x @ weightᵀ`, over a matrix or over rows of more dimensions that were made one.

use super::Pattern;
use crate::view::Fusion;
use delegraph_ir::{Arg, Op, ValueId, fill_defaults};

impl Pattern<'_> {
    /// The linear layer that a product of matrices is.
    pub(super) fn linear(&self, at: usize) -> Option<Fusion> {
        let product = self.node(at);
        let (bias, x, weight) = match product.op.name() {
            "aten::addmm" => (Some(product.args.first()?.as_value()?), 1, 2),
            _ => (None, 0, 1),
        };
        let mut x = product.args.get(x)?.as_value()?;
        let turned = product.args.get(weight)?.as_value()?;
        let mut result = *product.outputs.first()?;
        if let Some(bias) = bias {
            let one = |name: &str| {
                let factor = product.arg(name).and_then(Arg::as_scalar);
                factor.is_some_and(|f| f.as_f64() == 1.0)
            };
            let columns = self.shape(result)?.last()?;
            if !one("beta") || !one("alpha") || *self.shape(bias)? != [columns.clone()] {
                return None;
            }
        }
        let mut nodes = vec![at];
        let (transposing, node) = self.uses.made_by(self.graph, turned)?;
        let weight = self.transposed(node)?;
        // One that others read too stays for them.
        nodes.extend(self.private(turned).map(|_| transposing));
        if let Some((before, rows, after, restored)) = self.rows(x, result) {
            nodes.extend([before, after]);
            (x, result) = (rows, restored);
        }
        nodes.sort_unstable();
        let op = Op::find("aten::linear")?;
        let mut node = product.clone();
        let bias = bias.map_or(Arg::None, Arg::Value);
        node.args = fill_defaults(op, vec![x.into(), weight.into(), bias]);
        node.outputs = vec![result];
        node.op = op;
        Some(Fusion { nodes, main: at, node })
    }

    /// The tensor of more dimensions whose rows a product takes, if its result gets these dimensions back: the nodes that do
    /// it, each with its value.
    fn rows(&self, x: ValueId, result: ValueId) -> Option<(usize, ValueId, usize, ValueId)> {
        let (before, node) = self.private(x)?;
        let rows = self.reshaped(node)?;
        let (after, node) = self.uses.only_reader(self.graph, result)?;
        self.reshaped(node)?;
        let restored = *node.outputs.first()?;
        let (from, to) = (self.shape(rows)?, self.shape(restored)?);
        let (width, lead) = from.split_last()?;
        let (columns, same) = to.split_last()?;
        let fits = Some(width) == self.shape(x)?.last() && Some(columns) == self.shape(result)?.last();
        (fits && lead == same).then_some((before, rows, after, restored))
    }
}
