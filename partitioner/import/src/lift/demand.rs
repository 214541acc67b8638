//! What operators demand of the sizes of their arguments: the source of all knowledge about dynamic dimensions.
//!
//! Only what every correct run fulfils is used, and what is missing here costs precision, never correctness: the kernels
//! check their arguments themselves.

use super::sizes::Sizes;
use crate::error::Result;
use delegraph_ir::{Arg, Expr, Graph, Op, Symbols, ValueId};
use delegraph_opset::{BaseType, Schema};

/// A call whose demands are wanted.
struct Call<'a> {
    schema: Schema,
    args: &'a [Arg],
    graph: &'a Graph,
}

impl<'a> Call<'a> {
    fn arg(&self, name: &str) -> Option<&'a Arg> {
        self.args.get(self.schema.position(name)?)
    }

    fn shape(&self, name: &str) -> Option<&'a [Expr]> {
        self.arg(name)?.as_value().and_then(|id| shape(self.graph, id))
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.arg(name)?.as_int()
    }

    /// The shapes of all tensor arguments that are no lists.
    fn operands(&self) -> impl Iterator<Item = &'a [Expr]> + '_ {
        let params = self.schema.params.iter().zip(self.args);
        params
            .filter(|(param, _)| param.ty.base == BaseType::Tensor && !param.ty.list)
            .filter_map(|(_, arg)| arg.as_value().and_then(|id| shape(self.graph, id)))
    }
}

fn shape(graph: &Graph, id: ValueId) -> Option<&[Expr]> {
    graph.tensor(id).map(|ty| ty.shape.as_slice())
}

/// Equates the sizes that this call needs to be equal.
pub(super) fn learn(op: Op, args: &[Arg], graph: &Graph, sizes: &mut Sizes, symbols: &mut Symbols) -> Result<()> {
    let Some((namespace, name)) = op.name().split_once("::") else {
        return Ok(());
    };
    if namespace != "aten" {
        return Ok(());
    }
    let base = name.split('.').next().unwrap_or(name);
    let call = Call {
        schema: op.schema(),
        args,
        graph,
    };
    if broadcasts(base) {
        let mut shapes = call.operands();
        let Some(first) = shapes.next() else { return Ok(()) };
        let mut total = first.to_vec();
        for other in shapes {
            broadcast(&mut total, other, sizes, symbols)?;
        }
        return Ok(());
    }
    let mut equal = |pairs: Option<Vec<(Expr, Expr)>>| {
        for (a, b) in pairs.into_iter().flatten() {
            sizes.equate(&a, &b, symbols);
        }
    };
    match base {
        "mm" => equal(product(call.shape("self"), call.shape("mat2"))),
        "bmm" => equal(product(call.shape("self"), call.shape("mat2"))),
        "matmul" => equal(product(call.shape("self"), call.shape("other"))),
        "addmm" => equal(product(call.shape("mat1"), call.shape("mat2"))),
        "baddbmm" => equal(product(call.shape("batch1"), call.shape("batch2"))),
        "linear" => equal(last_of_both(call.shape("input"), call.shape("weight"))),
        "convolution" => equal(channels(&call)),
        "_native_batch_norm_legit_no_training" | "native_batch_norm" | "batch_norm" => {
            equal(call.shape("running_mean").and_then(|mean| {
                let input = call.shape("input")?;
                Some(vec![(input.get(1)?.clone(), mean.first()?.clone())])
            }));
        }
        "native_layer_norm" | "layer_norm" => equal(normalized(&call)),
        "cat" => equal(joined(&call)),
        "view" | "reshape" | "_unsafe_view" => equal(viewed(&call)),
        "expand" => {
            if let (Some(have), Some(Arg::Ints(want))) = (call.shape("self"), call.arg("size"))
                && let Some(lead) = want.len().checked_sub(have.len())
            {
                for (a, b) in have.iter().zip(&want[lead..]) {
                    if b.as_int() != Some(-1) && a.as_int() != Some(1) {
                        sizes.broadcast(a, b, symbols)?;
                    }
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Operators whose tensors are broadcast to one shape, which is the result's.
fn broadcasts(base: &str) -> bool {
    matches!(
        base,
        "add"
            | "sub"
            | "mul"
            | "div"
            | "rsub"
            | "pow"
            | "maximum"
            | "minimum"
            | "fmod"
            | "remainder"
            | "floor_divide"
            | "atan2"
            | "where"
            | "clamp"
            | "eq"
            | "ne"
            | "lt"
            | "le"
            | "gt"
            | "ge"
            | "logical_and"
            | "logical_or"
            | "logical_xor"
            | "bitwise_and"
            | "bitwise_or"
            | "bitwise_xor"
            | "masked_fill"
            | "addcmul"
            | "addcdiv"
    )
}

fn broadcast(total: &mut Vec<Expr>, other: &[Expr], sizes: &mut Sizes, symbols: &mut Symbols) -> Result<()> {
    while total.len() < other.len() {
        total.insert(0, Expr::Int(1));
    }
    let lead = total.len() - other.len();
    for (a, b) in total[lead..].iter_mut().zip(other) {
        sizes.broadcast(a, b, symbols)?;
        if a.as_int() == Some(1) {
            a.clone_from(b);
        }
    }
    Ok(())
}

/// Columns of the first are rows of the second; batches of equal rank are equal where both are more than a matrix.
fn product(a: Option<&[Expr]>, b: Option<&[Expr]>) -> Option<Vec<(Expr, Expr)>> {
    let (a, b) = (a?, b?);
    let rows = match b.len() {
        0 => return None,
        1 => &b[0],
        rank => &b[rank - 2],
    };
    let mut pairs = vec![(a.last()?.clone(), rows.clone())];
    if a.len() == 3 && b.len() == 3 && a[0].as_int() != Some(1) && b[0].as_int() != Some(1) {
        pairs.push((a[0].clone(), b[0].clone()));
    }
    Some(pairs)
}

fn last_of_both(a: Option<&[Expr]>, b: Option<&[Expr]>) -> Option<Vec<(Expr, Expr)>> {
    Some(vec![(a?.last()?.clone(), b?.last()?.clone())])
}

/// Channels of a batch of images. Without a batch they come first, so the ranks have to be equal.
fn channels(call: &Call) -> Option<Vec<(Expr, Expr)>> {
    let (input, weight) = (call.shape("input")?, call.shape("weight")?);
    if input.len() != weight.len() || input.len() < 3 {
        return None;
    }
    let wanted = match call.arg("transposed")?.as_bool()? {
        true => weight[0].clone(),
        false => weight[1].clone() * Expr::Int(call.int("groups")?),
    };
    Some(vec![(input[1].clone(), wanted)])
}

fn normalized(call: &Call) -> Option<Vec<(Expr, Expr)>> {
    let input = call.shape("input")?;
    let Arg::Ints(shape) = call.arg("normalized_shape")? else {
        return None;
    };
    let lead = input.len().checked_sub(shape.len())?;
    Some(input[lead..].iter().cloned().zip(shape.iter().cloned()).collect())
}

fn joined(call: &Call) -> Option<Vec<(Expr, Expr)>> {
    let Arg::Values(items) = call.arg("tensors")? else {
        return None;
    };
    let dim = call.int("dim")?;
    let mut shapes = items.iter().filter_map(|id| shape(call.graph, *id));
    let first = shapes.next()?;
    let rank = first.len() as i64;
    let dim = usize::try_from(if dim < 0 { dim.checked_add(rank)? } else { dim }).ok()?;
    let mut pairs = Vec::new();
    for other in shapes.filter(|other| other.len() == first.len()) {
        let both = first.iter().zip(other).enumerate().filter(|(d, _)| *d != dim);
        pairs.extend(both.map(|(_, (a, b))| (a.clone(), b.clone())));
    }
    Some(pairs)
}

/// A view has as many elements as its source.
fn viewed(call: &Call) -> Option<Vec<(Expr, Expr)>> {
    let source = call.shape("self")?;
    let sizes = call.arg("size").or_else(|| call.arg("shape"))?;
    let Arg::Ints(sizes) = sizes else { return None };
    if sizes.iter().any(|size| size.as_int() == Some(-1)) {
        return None;
    }
    // Equal factors are struck out, so that what is left can be solved.
    let mut left = source.to_vec();
    let mut right = Vec::new();
    for size in sizes {
        match left.iter().position(|have| have == size) {
            Some(at) => drop(left.swap_remove(at)),
            None => right.push(size.clone()),
        }
    }
    Some(vec![(Expr::product(&left), Expr::product(&right))])
}
