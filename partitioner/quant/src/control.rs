//! Branches and loops, for observing what is around them.

use crate::QuantError;
use crate::evaluate::{Datum, Scope};
use delegraph_ir::{Arg, Bytes, Constant, Graph, Node};
use delegraph_types::Dims;

/// Runs a higher-order operator.
pub(crate) fn run<'a>(scope: &Scope<'a>, node: &'a Node) -> Result<Vec<Datum>, QuantError> {
    match (node.op.name(), node.args.as_slice()) {
        ("higher_order::cond", [predicate, Arg::Graph(yes), Arg::Graph(no), operands]) => {
            let taken = match predicate {
                Arg::Value(value) => scope.datum(*value).and_then(|datum| truth(&datum)),
                Arg::Bool(b) => Some(*b),
                Arg::Sym(expr) | Arg::Int(expr) => scope.truth(expr),
                _ => None,
            };
            let taken = taken.ok_or_else(|| scope.error(node, "its condition is no boolean"))?;
            scope.call(node, if taken { yes } else { no }, scope.list(node, operands)?)
        }
        ("higher_order::map", [Arg::Graph(body), mapped, extra]) => scan(
            scope,
            node,
            body,
            Vec::new(),
            scope.list(node, mapped)?,
            scope.list(node, extra)?,
        ),
        ("higher_order::scan", [Arg::Graph(body), init, xs, extra]) => {
            let init = scope.list(node, init)?;
            scan(scope, node, body, init, scope.list(node, xs)?, scope.list(node, extra)?)
        }
        ("higher_order::while_loop", [Arg::Graph(condition), Arg::Graph(body), carried, extra]) => {
            let mut carried = scope.list(node, carried)?;
            let extra = scope.list(node, extra)?;
            loop {
                let operands = || carried.iter().chain(&extra).cloned().collect::<Vec<_>>();
                let more = scope.call(node, condition, operands())?;
                match more.first().and_then(truth) {
                    Some(true) => carried = scope.call(node, body, operands())?,
                    Some(false) => return Ok(carried),
                    None => return Err(scope.error(node, "its condition is no boolean")),
                }
            }
        }
        _ => Err(scope.error(node, "this control flow cannot be run node by node")),
    }
}

fn truth(datum: &Datum) -> Option<bool> {
    match datum {
        Datum::Bool(b) => Some(*b),
        Datum::Int(i) => Some(*i != 0),
        Datum::Float(f) => Some(*f != 0.0),
        Datum::Tensor(tensor) => {
            let one = tensor.sizes.numel() == Some(1);
            one.then(|| tensor.to_contiguous())?
                .map(|bytes| bytes.as_slice().iter().any(|b| *b != 0))
        }
    }
}

/// `map` is a scan that carries nothing.
fn scan<'a>(
    scope: &Scope<'a>,
    node: &'a Node,
    body: &'a Graph,
    mut carried: Vec<Datum>,
    xs: Vec<Datum>,
    extra: Vec<Datum>,
) -> Result<Vec<Datum>, QuantError> {
    let wrong = || scope.error(node, "it walks what has no leading dimension");
    let xs: Option<Vec<Constant>> = xs.iter().map(|datum| datum.tensor().cloned()).collect();
    let xs = xs.ok_or_else(wrong)?;
    let count = xs.first().and_then(|x| x.sizes.first().copied()).ok_or_else(wrong)?;
    let mut rows: Vec<Vec<Constant>> = Vec::new();
    for i in 0..count {
        let items: Option<Vec<Datum>> = xs.iter().map(|x| row(x, i).map(Datum::Tensor)).collect();
        let mut operands = carried.clone();
        operands.extend(items.ok_or_else(wrong)?);
        operands.extend(extra.iter().cloned());
        let mut results = scope.call(node, body, operands)?;
        if results.len() < carried.len() {
            return Err(scope.error(node, "its body returns fewer values than it carries"));
        }
        let made = results.split_off(carried.len());
        carried = results;
        let made: Option<Vec<Constant>> = made.iter().map(|datum| datum.tensor().cloned()).collect();
        rows.push(made.ok_or_else(wrong)?);
    }
    let width = rows.first().map_or(0, Vec::len);
    if rows.is_empty() {
        return Err(scope.error(node, "it runs over nothing in this sample"));
    }
    for column in 0..width {
        let stacked = stack(rows.iter().map(|row| &row[column])).ok_or_else(wrong)?;
        carried.push(Datum::Tensor(stacked));
    }
    Ok(carried)
}

/// One slice of the leading dimension.
fn row(tensor: &Constant, at: i64) -> Option<Constant> {
    let (first, rest) = tensor.sizes.as_slice().split_first()?;
    let stride = *tensor.strides.as_slice().first()?;
    (at < *first).then(|| Constant {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        sizes: Dims::new(rest).unwrap_or_default(),
        strides: Dims::new(&tensor.strides.as_slice()[1..]).unwrap_or_default(),
        offset: tensor.offset + (at * stride) as usize,
        storage: tensor.storage.clone(),
    })
}

/// Tensors of one shape, one after the other.
fn stack<'t>(rows: impl Iterator<Item = &'t Constant>) -> Option<Constant> {
    let mut bytes = Vec::new();
    let mut first: Option<&Constant> = None;
    let mut count = 0;
    for row in rows {
        let like = first.get_or_insert(row);
        (like.sizes == row.sizes && like.dtype == row.dtype).then_some(())?;
        bytes.extend_from_slice(row.to_contiguous()?.as_slice());
        count += 1;
    }
    let first = first?;
    let mut sizes = vec![count];
    sizes.extend_from_slice(first.sizes.as_slice());
    let sizes = Dims::new(&sizes).ok()?;
    Some(Constant::contiguous(
        &*first.name,
        first.dtype,
        sizes,
        Bytes::from(bytes),
    ))
}
