//! Buckets: sizes that regions are compiled for in place of a program's full range.
//!
//! A bucket pins symbols to one size or narrows them. The program stays what it was; delegates are asked about the graph as it is with
//! the bucket's sizes, and compile that. Nothing but sizes differs, so that nodes and values mean the same in all buckets.

use delegraph_ir::{Arg, Expr, Graph, InputKind, Module, Symbol, SymbolRange, Symbols, Type};
use std::collections::BTreeMap;
use std::fmt;

/// Sizes to compile for: `s77=1, s78=16..128`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Smallest and largest size of each symbol, both included.
    pub sizes: BTreeMap<Symbol, (i64, i64)>,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (symbol, (min, max))) in self.sizes.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match min == max {
                true => write!(f, "{comma}{symbol}={min}")?,
                false => write!(f, "{comma}{symbol}={min}..{max}")?,
            }
        }
        Ok(())
    }
}

/// The symbols of a graph that a tensor it is given tells: for each the input's position, the dimension, and `a` and `b` of the size
/// `a * symbol + b` there.
pub fn told_by_inputs(graph: &Graph) -> BTreeMap<Symbol, (usize, usize, i64, i64)> {
    let mut told = BTreeMap::new();
    for (position, input) in graph.inputs.iter().enumerate() {
        let InputKind::Value(value) = input.kind else { continue };
        let shape = graph.tensor(value).map_or(&[][..], |tensor| &tensor.shape);
        for (dimension, size) in shape.iter().enumerate() {
            if let Some((symbol, a, b)) = size.as_linear() {
                told.entry(symbol).or_insert((position, dimension, a, b));
            }
        }
    }
    told
}

/// The buckets of a graph: what each says of the graph's own symbols, once. None of them says anything: the graph has no buckets.
pub(crate) fn of_graph(graph: &Graph, buckets: &[Bucket]) -> Vec<Bucket> {
    let told = told_by_inputs(graph);
    let mut own: Vec<Bucket> = Vec::new();
    for bucket in buckets {
        let sizes = bucket.sizes.iter().filter(|(symbol, _)| told.contains_key(*symbol));
        let bucket = Bucket {
            sizes: sizes.map(|(symbol, range)| (symbol.clone(), *range)).collect(),
        };
        if !bucket.sizes.is_empty() && !own.contains(&bucket) {
            own.push(bucket);
        }
    }
    own
}

/// A graph with the sizes of a bucket, and the symbols with its ranges.
pub(crate) fn narrowed(module: &Module, index: usize, bucket: &Bucket) -> (Graph, Symbols) {
    let mut graph = module.graphs[index].clone();
    let mut symbols = module.symbols.clone();
    for (symbol, (min, max)) in &bucket.sizes {
        let range = SymbolRange {
            min: *min,
            max: Some(*max),
        };
        symbols.ranges.insert(symbol.clone(), range);
    }
    let pinned = |symbol: &Symbol| match bucket.sizes.get(symbol) {
        Some((min, max)) if min == max => Some(Expr::Int(*min)),
        _ => None,
    };
    substitute(&mut graph, &pinned);
    (graph, symbols)
}

fn substitute(graph: &mut Graph, pinned: &dyn Fn(&Symbol) -> Option<Expr>) {
    let pin = |expr: &mut Expr| *expr = expr.substitute(pinned);
    for value in &mut graph.values {
        // A number that is read at run time stays what it is.
        if let Type::Tensor(tensor) = &mut value.ty {
            tensor.shape.iter_mut().for_each(pin);
        }
    }
    for arg in graph.nodes.iter_mut().flat_map(|node| &mut node.args) {
        match arg {
            Arg::Int(expr) | Arg::Sym(expr) => pin(expr),
            Arg::Ints(items) => items.iter_mut().for_each(pin),
            Arg::Graph(body) => substitute(body, pinned),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::TensorType;
    use delegraph_types::DType;

    fn graph() -> Graph {
        let mut graph = Graph::new("forward");
        let (s, t) = (Expr::symbol("s0"), Expr::symbol("s1"));
        let rows = s.clone() * Expr::Int(2) + Expr::Int(1);
        let x = graph.add_input("x", TensorType::new(DType::F32, vec![rows.clone(), t.clone()]).into());
        let flat = rows * t;
        let args = vec![x.into(), Arg::Ints(vec![flat.clone()])];
        let ty = TensorType::new(DType::F32, vec![flat]);
        let y = graph.push("aten::view", args, vec![ty.into()]).unwrap()[0];
        graph.add_output(y);
        graph
    }

    fn bucket(sizes: &[(&str, i64, i64)]) -> Bucket {
        let sizes = sizes.iter().map(|(name, min, max)| (Symbol::new(name), (*min, *max)));
        Bucket { sizes: sizes.collect() }
    }

    #[test]
    fn pinned_sizes_are_constants_and_ranges_are_bounds() {
        let module = Module {
            graphs: vec![graph()],
            ..Module::default()
        };
        let (narrow, symbols) = narrowed(&module, 0, &bucket(&[("s0", 3, 3), ("s1", 2, 8)]));
        let ty = narrow.tensor(narrow.node(delegraph_ir::NodeId(0)).outputs[0]).unwrap();
        assert_eq!(ty.shape, [Expr::symbol("s1") * Expr::Int(7)]);
        assert_eq!(ty.upper_dims(&symbols).unwrap().to_vec(), [56]);
        let pinned = narrowed(&module, 0, &bucket(&[("s0", 3, 3), ("s1", 8, 8)])).0;
        assert_eq!(pinned.nodes[0].args[1].as_ints(), Some(vec![56]));
    }

    #[test]
    fn a_graph_has_the_buckets_that_speak_of_it() {
        let graph = graph();
        let told = told_by_inputs(&graph);
        assert_eq!(told[&Symbol::new("s0")], (0, 0, 2, 1));
        assert_eq!(told[&Symbol::new("s1")], (0, 1, 1, 0));
        let (one, other) = (bucket(&[("s0", 1, 1)]), bucket(&[("s9", 4, 4)]));
        let both = bucket(&[("s0", 1, 1), ("s9", 4, 4)]);
        assert_eq!(of_graph(&graph, &[one.clone(), other.clone(), both]), [one]);
        assert_eq!(of_graph(&graph, &[other]), []);
        assert_eq!(bucket(&[("s0", 1, 1), ("s1", 2, 8)]).to_string(), "s0=1, s1=2..8");
    }
}
