//! Control flow: the types come from the subgraphs and the carried values.

use super::Rule;
use super::call::{Call, Result};
use crate::{Arg, Expr, Graph, Output, TensorType, Type};

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "cond" => cond,
        "map" => map,
        "scan" => scan,
        "while_loop" => |c| tensors(c, &c.tensors("carried")?),
        _ => return None,
    })
}

fn subgraph<'c>(c: &'c Call, name: &str) -> Result<&'c Graph> {
    match c.arg(name) {
        Arg::Graph(graph) => Ok(graph),
        _ => c.invalid(format!("argument `{name}`: expected a graph")),
    }
}

fn output_types(c: &Call, graph: &Graph) -> Result<Vec<Type>> {
    graph
        .outputs
        .iter()
        .map(|output| match output {
            Output::Value(id) => match graph.values.get(id.index()) {
                Some(value) => Ok(value.ty.clone()),
                None => c.invalid(format!("value {id} of `{}` does not exist", graph.name)),
            },
            Output::Literal(Arg::Int(e)) => Ok(Type::Int(e.clone())),
            Output::Literal(Arg::Float(_)) => Ok(Type::Float),
            Output::Literal(Arg::Bool(_)) => Ok(Type::Bool),
            Output::Literal(_) => c.unsupported("a literal output of a subgraph"),
        })
        .collect()
}

fn tensors(c: &Call, list: &[&TensorType]) -> Result<Vec<Type>> {
    list.iter().map(|t| c.made(t.dtype, t.shape.clone())).collect()
}

fn cond(c: &Call) -> Result<Vec<Type>> {
    let yes = output_types(c, subgraph(c, "true_graph")?)?;
    let no = output_types(c, subgraph(c, "false_graph")?)?;
    if yes.len() != no.len() {
        return c.invalid(format!("the branches return {} and {} values", yes.len(), no.len()));
    }
    let merged = yes.iter().zip(&no).map(|(a, b)| match (a, b) {
        _ if a == b => Ok(a.clone()),
        (Type::Tensor(x), Type::Tensor(y)) if x.dtype == y.dtype && x.rank() == y.rank() => c.data_dependent(),
        _ => c.invalid(format!("the branches return {a} and {b}")),
    });
    merged.collect()
}

/// The size of the leading dimension that `map` and `scan` walk.
fn length(c: &Call, list: &[&TensorType]) -> Result<Expr> {
    match list.first().map(|t| t.shape.as_slice()) {
        Some([first, ..]) => Ok(first.clone()),
        _ => c.invalid("expected a tensor with a leading dimension"),
    }
}

fn stacked(c: &Call, length: &Expr, types: Vec<Type>) -> Result<Vec<Type>> {
    types
        .into_iter()
        .map(|ty| match ty {
            Type::Tensor(t) => c.made(t.dtype, [std::slice::from_ref(length), &t.shape].concat()),
            other => c.unsupported(format!("stacking {other}")),
        })
        .collect()
}

fn map(c: &Call) -> Result<Vec<Type>> {
    let length = length(c, &c.tensors("mapped")?)?;
    let body = output_types(c, subgraph(c, "body")?)?;
    stacked(c, &length, body)
}

/// Carried values first, then one stacked tensor for each further output of the body.
fn scan(c: &Call) -> Result<Vec<Type>> {
    let init = c.tensors("init")?;
    let length = length(c, &c.tensors("xs")?)?;
    let mut body = output_types(c, subgraph(c, "body")?)?;
    if body.len() < init.len() {
        return c.invalid("the body returns fewer values than it carries");
    }
    let steps = body.split_off(init.len());
    let mut types = tensors(c, &init)?;
    types.extend(stacked(c, &length, steps)?);
    Ok(types)
}
