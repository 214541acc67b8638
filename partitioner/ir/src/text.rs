//! The readable form of graphs: one node a line, stable, for snapshots and `--tree`. It is not read back.

use crate::graph::fill_defaults;
use crate::{Arg, Def, Graph, InputKind, Module, MutationTarget, Node, Output, Value, ValueId};
use std::collections::BTreeSet;
use std::fmt;

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (symbol, range) in &self.symbols.ranges {
            write!(f, "symbol {symbol} in {}..", range.min)?;
            match range.max {
                Some(max) => writeln!(f, "{max}")?,
                None => writeln!(f)?,
            }
        }
        for (i, state) in self.states.iter().enumerate() {
            write!(f, "state s{i} `{}`: {}", state.name, state.ty)?;
            match state.initial {
                Some(id) => writeln!(f, " = {id}")?,
                None => writeln!(f)?,
            }
        }
        for graph in &self.graphs {
            writeln!(f, "{graph}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Graph {
    /// ```text
    /// forward(%x: f32[2,s77]):
    ///   %w: f32[3] = constant c0
    ///   %y: f32[2,s77] = aten::add.Tensor(%x, 1, alpha=2)  # region r0
    ///   return %y
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        graph(f, self, 0)
    }
}

fn graph(f: &mut fmt::Formatter<'_>, g: &Graph, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth);
    write!(f, "{indent}{}(", g.name)?;
    for (i, input) in g.inputs.iter().enumerate() {
        f.write_str(if i == 0 { "" } else { ", " })?;
        match &input.kind {
            InputKind::Value(v) => match g.values.get(v.index()) {
                Some(value) => write!(f, "%{}: {}", value.name, value.ty)?,
                None => write!(f, "{v}")?,
            },
            InputKind::Literal(literal) => {
                write!(f, "{}=", input.name)?;
                arg(f, g, literal)?;
            }
        }
    }
    writeln!(f, "):")?;
    for v in leaves(g) {
        let Some(Value { name, ty, def }) = g.values.get(v.index()) else {
            continue;
        };
        match def {
            Def::Constant(id) => writeln!(f, "{indent}  %{name}: {ty} = constant {id}")?,
            Def::State(id) => writeln!(f, "{indent}  %{name}: {ty} = state {id}")?,
            Def::Input | Def::Node => {}
        }
    }
    for n in &g.nodes {
        node(f, g, n, depth + 1)?;
    }
    for mutation in &g.mutations {
        write!(f, "{indent}  write ")?;
        match mutation.target {
            MutationTarget::State(id) => write!(f, "{id}")?,
            MutationTarget::Input(i) => match g.inputs.get(i as usize) {
                Some(input) => write!(f, "input {}", input.name)?,
                None => write!(f, "input {i}")?,
            },
        }
        f.write_str(" = ")?;
        name(f, g, mutation.value)?;
        writeln!(f)?;
    }
    write!(f, "{indent}  return")?;
    for (i, output) in g.outputs.iter().enumerate() {
        f.write_str(if i == 0 { " " } else { ", " })?;
        match output {
            Output::Value(v) => name(f, g, *v)?,
            Output::Literal(literal) => arg(f, g, literal)?,
        }
    }
    Ok(())
}

/// Constants and states that the graph reads, in order of id.
fn leaves(g: &Graph) -> BTreeSet<ValueId> {
    let leaf = |v: &ValueId| {
        g.values
            .get(v.index())
            .is_some_and(|value| matches!(value.def, Def::Constant(_) | Def::State(_)))
    };
    g.nodes
        .iter()
        .flat_map(Node::inputs)
        .chain(g.results())
        .filter(leaf)
        .collect()
}

fn node(f: &mut fmt::Formatter<'_>, g: &Graph, n: &Node, depth: usize) -> fmt::Result {
    f.write_str(&"  ".repeat(depth))?;
    for (i, v) in n.outputs.iter().enumerate() {
        f.write_str(if i == 0 { "" } else { ", " })?;
        name(f, g, *v)?;
        if let Some(value) = g.values.get(v.index()) {
            write!(f, ": {}", value.ty)?;
        }
    }
    write!(f, "{}{}(", if n.outputs.is_empty() { "" } else { " = " }, n.op)?;
    let schema = n.op.schema();
    let defaults = fill_defaults(n.op, Vec::new());
    let is_default = |i: usize| {
        let has = schema.params.get(i).is_some_and(|p| p.default.is_some());
        has && defaults.get(i) == n.args.get(i)
    };
    // Positional arguments are written up to the last that is not its default.
    let positional = schema.params.iter().take_while(|p| !p.keyword_only).count();
    let written = (0..positional.min(n.args.len()))
        .rev()
        .find(|&i| !is_default(i))
        .map_or(0, |i| i + 1);
    let mut separator = "";
    for (i, a) in n.args.iter().enumerate() {
        if (i < positional && i >= written) || (i >= positional && is_default(i)) {
            continue;
        }
        f.write_str(separator)?;
        separator = ", ";
        if i >= positional
            && let Some(param) = schema.params.get(i)
        {
            write!(f, "{}=", param.name)?;
        }
        arg(f, g, a)?;
    }
    f.write_str(")")?;
    if let Some(region) = n.region {
        write!(f, "  # region {region}")?;
    }
    writeln!(f)?;
    for a in &n.args {
        if let Arg::Graph(sub) = a {
            graph(f, sub, depth + 1)?;
            writeln!(f)?;
        }
    }
    Ok(())
}

fn name(f: &mut fmt::Formatter<'_>, g: &Graph, v: ValueId) -> fmt::Result {
    match g.values.get(v.index()) {
        Some(value) => write!(f, "%{}", value.name),
        None => write!(f, "{v}?"),
    }
}

fn arg(f: &mut fmt::Formatter<'_>, g: &Graph, a: &Arg) -> fmt::Result {
    match a {
        Arg::None => f.write_str("None"),
        Arg::Value(v) => name(f, g, *v),
        Arg::Int(e) | Arg::Sym(e) => write!(f, "{e}"),
        Arg::Float(x) => write!(f, "{x:?}"),
        Arg::Bool(b) => write!(f, "{b}"),
        Arg::Str(s) => write!(f, "{s:?}"),
        Arg::DType(d) => write!(f, "{d}"),
        Arg::MemoryFormat(m) => write!(f, "{m:?}"),
        Arg::Ints(items) => list(f, items, |f, e| write!(f, "{e}")),
        Arg::Floats(items) => list(f, items, |f, x| write!(f, "{x:?}")),
        Arg::Bools(items) => list(f, items, |f, b| write!(f, "{b}")),
        Arg::Scalars(items) => list(f, items, |f, s| write!(f, "{s}")),
        Arg::Values(items) => list(f, items, |f, v| name(f, g, *v)),
        Arg::OptionalValues(items) => list(f, items, |f, v| match v {
            Some(v) => name(f, g, *v),
            None => f.write_str("None"),
        }),
        Arg::Graph(sub) => write!(f, "graph {}", sub.name),
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    item: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_str("[")?;
    for (i, x) in items.iter().enumerate() {
        f.write_str(if i == 0 { "" } else { ", " })?;
        item(f, x)?;
    }
    f.write_str("]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Constant, Expr, RegionId, State, StateId, Symbol, SymbolRange, TensorType};
    use crate::{Mutation, Type};
    use delegraph_types::{DType, Dims};

    #[test]
    fn a_module_reads_as_a_program() {
        let mut module = Module::default();
        module
            .symbols
            .ranges
            .insert(Symbol::new("s0"), SymbolRange { min: 2, max: None });
        let dims = Dims::new(&[2]).unwrap();
        let id = module
            .constants
            .push(Constant::contiguous("w", DType::F32, dims, vec![0; 8].into()));
        let pair = || TensorType::fixed(DType::F32, &[2]);
        module.states.push(State {
            name: "cache".into(),
            ty: pair(),
            initial: None,
        });
        let rows = || -> Type { TensorType::new(DType::F32, vec![Expr::symbol("s0"), Expr::Int(2)]).into() };
        let mut branch = Graph::new("true_graph_0");
        let inner = branch.add_input("a", rows());
        let inner = branch.push("aten::neg", vec![inner.into()], vec![rows()]).unwrap()[0];
        branch.add_output(inner);
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", rows());
        let w = graph.add_constant("w", pair(), id);
        let cache = graph.add_value("cache", pair().into(), Def::State(StateId(0)));
        graph
            .push("aten::add.Tensor", vec![x.into(), w.into(), Arg::int(2)], vec![rows()])
            .unwrap();
        graph.nodes[0].region = Some(RegionId(0));
        let sum = graph.nodes[0].outputs[0];
        let args = vec![
            Arg::Bool(true),
            Arg::Graph(Box::new(branch.clone())),
            Arg::Graph(Box::new(branch)),
            Arg::Values(vec![sum]),
        ];
        let y = graph.push("higher_order::cond", args, vec![rows()]).unwrap()[0];
        let sums = graph
            .push(
                "aten::sum.dim_IntList",
                vec![y.into(), Arg::ints(&[0])],
                vec![pair().into()],
            )
            .unwrap()[0];
        let next = graph
            .push("aten::add.Tensor", vec![cache.into(), sums.into()], vec![pair().into()])
            .unwrap()[0];
        graph.mutations.push(Mutation {
            target: MutationTarget::State(StateId(0)),
            value: next,
        });
        graph.add_output(y);
        graph.outputs.push(Output::Literal(Arg::None));
        module.graphs.push(graph);
        assert_eq!(
            module.to_string(),
            "\
symbol s0 in 2..
state s0 `cache`: f32[2]
forward(%x: f32[s0,2]):
  %w: f32[2] = constant c0
  %cache: f32[2] = state s0
  %add_0: f32[s0,2] = aten::add.Tensor(%x, %w, alpha=2)  # region r0
  %cond_1: f32[s0,2] = higher_order::cond(true, graph true_graph_0, graph true_graph_0, [%add_0])
    true_graph_0(%a: f32[s0,2]):
      %neg_0: f32[s0,2] = aten::neg(%a)
      return %neg_0
    true_graph_0(%a: f32[s0,2]):
      %neg_0: f32[s0,2] = aten::neg(%a)
      return %neg_0
  %sum_2: f32[2] = aten::sum.dim_IntList(%cond_1, [0])
  %add_3: f32[2] = aten::add.Tensor(%cache, %sum_2)
  write s0 = %add_3
  return %cond_1, None
"
        );
    }
}
