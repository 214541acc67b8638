//! Sizes at the border of a region: what its inputs tell, and which node gives a size to which.

use crate::boundary::Boundary;
use delegraph_ir::{Arg, Def, Expr, ExprOp, Graph, Node, NodeId, Symbol, SymbolRange, Symbols, Type, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// The sizes that a region knows from its inputs, which are all that a delegate sees.
///
/// A symbol is known where an input has a dimension linear in it. A region in the middle of a network often has none such:
/// behind a convolution with a stride its input has `1 + (s0 - 1) // 2` rows. Of that, `(s0 - 1) // 2` becomes a symbol of
/// the region's own, and stands for that expression in the whole region.
#[derive(Debug, Clone, Default)]
pub struct BorderSizes {
    known: FxHashSet<Symbol>,
    own: FxHashMap<Expr, Symbol>,
    /// Of `own`, the products, whose factors may stand among others.
    products: Vec<(Vec<Expr>, Symbol)>,
    ranges: FxHashMap<Symbol, SymbolRange>,
}

impl BorderSizes {
    /// The sizes that these values tell.
    pub fn of(graph: &Graph, inputs: &[ValueId], symbols: &Symbols) -> BorderSizes {
        let mut sizes = BorderSizes::default();
        inputs.iter().for_each(|v| sizes.learn_linear(graph, *v));
        inputs.iter().for_each(|v| sizes.learn_others(graph, *v, symbols));
        sizes
    }

    /// The expression in terms of the region's own symbols.
    pub fn rewrite(&self, expr: &Expr) -> Expr {
        if self.own.is_empty() {
            return expr.clone();
        }
        if let Some(symbol) = self.own.get(expr) {
            return Expr::Symbol(symbol.clone());
        }
        let Expr::Op(op, operands) = expr else {
            return expr.clone();
        };
        if *op == ExprOp::Mul {
            for (factors, symbol) in &self.products {
                if let Some(mut rest) = without(operands, factors) {
                    rest.push(Expr::Symbol(symbol.clone()));
                    return Expr::op(ExprOp::Mul, rest.iter().map(|e| self.rewrite(e)).collect());
                }
            }
        }
        Expr::op(*op, operands.iter().map(|e| self.rewrite(e)).collect())
    }

    /// A symbol of the expression that the inputs do not tell.
    pub fn unknown(&self, expr: &Expr) -> Option<Symbol> {
        let mut unknown = None;
        let mut look = |symbol: &Symbol| {
            if !self.known.contains(symbol) && !self.ranges.contains_key(symbol) && unknown.is_none() {
                unknown = Some(symbol.clone());
            }
        };
        match expr {
            Expr::Int(_) | Expr::Float(_) => {}
            Expr::Symbol(symbol) => look(symbol),
            Expr::Op(..) => self.rewrite(expr).for_each_symbol(&mut look),
        }
        unknown
    }

    /// The range of a symbol, one of the region's own or the module's.
    pub fn range(&self, symbol: &Symbol, symbols: &Symbols) -> SymbolRange {
        self.ranges
            .get(symbol)
            .copied()
            .unwrap_or_else(|| symbols.range(symbol))
    }

    fn learn_linear(&mut self, graph: &Graph, value: ValueId) {
        for size in shape(graph, value) {
            if let Some((symbol, _, _)) = size.as_linear() {
                self.known.insert(symbol);
            }
        }
    }

    fn learn_others(&mut self, graph: &Graph, value: ValueId, symbols: &Symbols) {
        for size in shape(graph, value) {
            if self.unknown(size).is_none() {
                continue;
            }
            let part = opaque_part(size).unwrap_or(size);
            let mut number = self.ranges.len();
            let mut own = Symbol::new(&format!("border{number}"));
            while symbols.ranges.contains_key(&own) || self.ranges.contains_key(&own) {
                number += 1;
                own = Symbol::new(&format!("border{number}"));
            }
            let least = if part == size { Some(0) } else { None };
            let range = SymbolRange {
                min: part.lower_bound(symbols).max(least).unwrap_or(i64::MIN),
                max: part.upper_bound(symbols),
            };
            if let Expr::Op(ExprOp::Mul, factors) = part {
                self.products.push((factors.clone(), own.clone()));
            }
            self.ranges.insert(own.clone(), range);
            self.own.insert(part.clone(), own);
        }
    }
}

fn shape(graph: &Graph, value: ValueId) -> impl Iterator<Item = &Expr> {
    let sizes = graph.tensor(value).into_iter().flat_map(|t| &t.shape);
    sizes.filter(|e| e.as_int().is_none())
}

/// `a` of `n * a + m`, where `a` is an operator other than a sum or product.
fn opaque_part(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Op(ExprOp::Add | ExprOp::Mul, operands) => {
            let mut parts = operands.iter().filter(|e| e.as_int().is_none());
            match (parts.next(), parts.next()) {
                (Some(part), None) => opaque_part(part),
                _ => None,
            }
        }
        Expr::Op(..) => Some(expr),
        _ => None,
    }
}

/// `items` without one each of `factors`; `None` if not all of them are there.
fn without(items: &[Expr], factors: &[Expr]) -> Option<Vec<Expr>> {
    let mut rest = items.to_vec();
    for factor in factors {
        let at = rest.iter().position(|e| e == factor)?;
        rest.remove(at);
    }
    Some(rest)
}

/// Nodes of a region that need a symbol which nothing gives them: neither a dimension of a region input nor a node of the
/// region that comes before. A delegate sees tensors only, so such a size would be unknown to it.
pub(crate) fn unbound(
    graph: &Graph,
    symbols: &Symbols,
    nodes: &[NodeId],
    boundary: &Boundary,
) -> Vec<(NodeId, Symbol)> {
    let mut sizes = BorderSizes::of(graph, &boundary.inputs, symbols);
    let mut left_out = Vec::new();
    for id in nodes {
        let node = graph.node(*id);
        let missing = node.args.iter().flat_map(|a| a.exprs()).find_map(|e| sizes.unknown(e));
        for output in &node.outputs {
            sizes.learn_linear(graph, *output);
            // What a node that is left out makes becomes an input of the others.
            if missing.is_some() {
                sizes.learn_others(graph, *output, symbols);
            }
        }
        left_out.extend(missing.map(|symbol| (*id, symbol)));
    }
    left_out
}

/// Which node first gives a size that no input of the graph does (`u0` of `nonzero`).
pub(crate) struct SizeGivers {
    /// `None`: an input.
    giver_of: FxHashMap<Symbol, Option<NodeId>>,
}

impl SizeGivers {
    pub fn new(graph: &Graph) -> SizeGivers {
        let mut givers = SizeGivers {
            giver_of: FxHashMap::default(),
        };
        for (i, value) in graph.values.iter().enumerate() {
            if value.def != Def::Node {
                givers.give(graph, ValueId::from(i), None);
            }
        }
        givers
    }

    /// Adds the givers of the sizes that the node's arguments hold, its subgraphs included; then what it gives itself. To be
    /// called in execution order.
    pub fn visit(&mut self, graph: &Graph, id: NodeId, givers: &mut Vec<u32>) {
        let node = graph.node(id);
        // A subgraph binds nothing that this graph does not: its symbols are looked up here, unknown ones are its own.
        self.needs(node, givers);
        for output in &node.outputs {
            // A size that is no linear expression gives nothing and can only be had from others.
            for size in graph
                .tensor(*output)
                .into_iter()
                .flat_map(|t| &t.shape)
                .filter(|e| e.as_linear().is_none())
            {
                self.find(size, givers);
            }
            self.give(graph, *output, Some(id));
        }
    }

    fn needs(&self, node: &Node, givers: &mut Vec<u32>) {
        for arg in &node.args {
            arg.exprs().iter().for_each(|expr| self.find(expr, givers));
            if let Arg::Graph(body) = arg {
                body.nodes.iter().for_each(|inner| self.needs(inner, givers));
            }
        }
    }

    fn find(&self, expr: &Expr, givers: &mut Vec<u32>) {
        expr.for_each_symbol(&mut |symbol| {
            givers.extend(self.giver_of.get(symbol).copied().flatten().map(|id| id.0));
        });
    }

    fn give(&mut self, graph: &Graph, value: ValueId, giver: Option<NodeId>) {
        let mut give = |expr: &Expr| {
            if expr.as_int().is_none()
                && let Some((symbol, _, _)) = expr.as_linear()
            {
                self.giver_of.entry(symbol).or_insert(giver);
            }
        };
        match &graph.value(value).ty {
            Type::Tensor(tensor) => tensor.shape.iter().for_each(give),
            Type::Int(expr) => give(expr),
            Type::Float | Type::Bool => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::Reads;
    use delegraph_ir::TensorType;
    use delegraph_types::DType;

    fn ty(shape: Vec<Expr>) -> Type {
        TensorType::new(DType::F32, shape).into()
    }

    #[test]
    fn a_size_that_no_input_gives_leaves_its_node_out() {
        let mut graph = Graph::new("forward");
        let s = Expr::symbol("s7");
        let x = graph.add_input("x", ty(vec![s.clone() * Expr::Int(2)]));
        let y = graph.add_input("y", ty(vec![Expr::Int(4)]));
        let size = |e: &Expr| vec![Arg::Ints(vec![e.clone(), Expr::Int(4)])];
        for input in [x, y] {
            let mut args: Vec<Arg> = vec![input.into()];
            args.extend(size(&s));
            let made = graph
                .push("aten::expand", args, vec![ty(vec![s.clone(), Expr::Int(4)])])
                .unwrap()[0];
            graph.add_output(made);
        }
        let reads = Reads::of(&graph);
        let check =
            |nodes: &[NodeId]| unbound(&graph, &Symbols::default(), nodes, &Boundary::of(&graph, nodes, &reads));
        assert_eq!(check(&[NodeId(0), NodeId(1)]), []);
        assert_eq!(check(&[NodeId(1)]), [(NodeId(1), Symbol::new("s7"))]);
    }

    #[test]
    fn a_size_that_cannot_be_solved_becomes_a_symbol_of_the_region() {
        let mut graph = Graph::new("forward");
        let mut symbols = Symbols::default();
        symbols
            .ranges
            .insert(Symbol::new("s0"), SymbolRange { min: 9, max: Some(33) });
        symbols
            .ranges
            .insert(Symbol::new("border0"), SymbolRange { min: 0, max: None });
        let s = Expr::symbol("s0");
        let halved = (s.clone() - Expr::Int(1)).floor_div(Expr::Int(2));
        let rows = halved.clone() + Expr::Int(1);
        let next = halved.clone().floor_div(Expr::Int(2)) + Expr::Int(1);
        let product = s.clone() * Expr::symbol("s1");
        let x = graph.add_input("x", ty(vec![rows.clone(), Expr::Int(3)]));
        let y = graph.add_input("y", ty(vec![product.clone()]));
        let sizes = BorderSizes::of(&graph, &[x], &symbols);
        let own = Expr::symbol("border1");
        assert_eq!(sizes.rewrite(&rows), own.clone() + Expr::Int(1));
        assert_eq!(sizes.rewrite(&next), own.floor_div(Expr::Int(2)) + Expr::Int(1));
        assert_eq!((sizes.unknown(&rows), sizes.unknown(&next)), (None, None));
        assert_eq!(sizes.unknown(&s), Some(Symbol::new("s0")));
        let range = sizes.range(&Symbol::new("border1"), &symbols);
        assert_eq!(range, SymbolRange { min: 4, max: Some(16) });
        // A product stands for itself among other factors, but tells neither of its own.
        let sizes = BorderSizes::of(&graph, &[y], &symbols);
        assert_eq!(
            sizes.rewrite(&(product.clone() * Expr::Int(4))),
            Expr::symbol("border1") * Expr::Int(4)
        );
        assert_eq!(sizes.unknown(&(product * Expr::Int(4))), None);
        assert_eq!(sizes.unknown(&s), Some(Symbol::new("s0")));
        // Where the symbol itself is known, nothing new is needed.
        let z = graph.add_input("z", ty(vec![s.clone() * Expr::Int(2)]));
        let sizes = BorderSizes::of(&graph, &[x, z], &symbols);
        assert_eq!((sizes.rewrite(&rows), sizes.unknown(&s)), (rows, None));
    }
}
