//! Orders along a dimension. NaN is larger than everything.

use crate::call::Call;
use crate::caps::{Operator, Refusal, anything, op};
use crate::tensor::{Data, Tensor, count, room};
use crate::walk::{dim, split_at};
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;
use std::cmp::Ordering;

type Made = Result<Vec<Tensor>, Error>;

fn order<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    a.partial_cmp(b).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

/// The first `keep` places of each line in order; equals stay in the order that they had.
fn places<T: PartialOrd>(
    values: &[T],
    (before, along, after): (usize, usize, usize),
    keep: usize,
    descending: bool,
) -> Result<Vec<i64>, Error> {
    let mut made = vec![0; count(&[before, keep, after])?];
    if made.is_empty() {
        return Ok(made);
    }
    for (i, k) in (0..before).flat_map(|i| (0..after).map(move |k| (i, k))) {
        let at = |j: &usize| &values[(i * along + j) * after + k];
        let mut line: Vec<usize> = (0..along).collect();
        line.sort_by(|a, b| {
            if descending {
                order(at(b), at(a))
            } else {
                order(at(a), at(b))
            }
        });
        for (j, place) in line.into_iter().take(keep).enumerate() {
            made[(i * keep + j) * after + k] = place as i64;
        }
    }
    Ok(made)
}

/// The values in order, and where they were.
fn sorted(x: &Tensor, at: usize, keep: Option<usize>, descending: bool) -> Result<(Tensor, Vec<i64>), Error> {
    let (before, along, after) = split_at(x.sizes(), at);
    let keep = keep.unwrap_or(along);
    if keep > along {
        return Err(Error::invalid(format!("{keep} of {along} elements")));
    }
    let split = (before, along, after);
    let places = match x.data() {
        Data::Float(values) => places(values, split, keep, descending)?,
        Data::Int(values) => places(values, split, keep, descending)?,
    };
    let mut sizes = x.sizes().to_vec();
    if let Some(size) = sizes.get_mut(at) {
        *size = keep;
    }
    let mut sources = room(places.len())?;
    for (i, place) in places.iter().enumerate() {
        let (block, k) = (i / (keep * after), i % after);
        sources.push(((block * along + *place as usize) * after + k) as isize);
    }
    Ok((x.pick(sizes, sources.into_iter())?, places))
}

fn sort(call: &Call<'_>, at: usize, descending: usize) -> Made {
    let x = call.tensor(0)?;
    let (values, places) = sorted(x, dim(call.int(at)?, x.rank())?, None, call.bool(descending)?)?;
    let sizes = values.sizes().to_vec();
    Ok(vec![values, call.make(1, sizes, Data::Int(places))?])
}

fn argsort(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let (values, places) = sorted(x, dim(call.int(1)?, x.rank())?, None, call.bool(2)?)?;
    call.one(values.sizes().to_vec(), Data::Int(places))
}

fn topk(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let at = dim(call.int(2)?, x.rank())?;
    let (values, places) = sorted(x, at, Some(call.natural(1)?), call.bool(3)?)?;
    // A number without dimensions stays one.
    let sizes = values.sizes().to_vec();
    Ok(vec![values, call.make(1, sizes, Data::Int(places))?])
}

fn check_topk(node: &NodeView<'_>) -> Result<(), Refusal> {
    match node.arg(4).bool() {
        Some(true) => Ok(()),
        _ => Err(Refusal::attribute("`sorted` is not true: the order is not specified")),
    }
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::sort", "Tensor int bool", anything, |c| sort(c, 1, 2)),
    op("aten::sort.stable", "Tensor bool? int bool", anything, |c| {
        sort(c, 2, 3)
    }),
    op("aten::argsort", "Tensor int bool", anything, argsort),
    op("aten::topk", "Tensor int int bool bool", check_topk, topk),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn orders() {
        let x = f32s(&[2, 2], &[3.0, f32::NAN, 1.0, 0.5]);
        let items = |descending| [(&x).into(), Arg::Int(0).into(), Arg::Bool(descending).into()];
        let wants = [f32s(&[2, 2], &[1.0, 0.5, 3.0, f32::NAN]), i64s(&[2, 2], &[1, 1, 0, 0])];
        gives("aten::sort", &items(false), &wants);
        let top = [Arg::Int(1), Arg::Int(1), Arg::Bool(true), Arg::Bool(true)];
        let items: Vec<_> = [(&x).into()].into_iter().chain(top.map(Into::into)).collect();
        gives(
            "aten::topk",
            &items,
            &[f32s(&[2, 1], &[f32::NAN, 1.0]), i64s(&[2, 1], &[1, 0])],
        );
    }
}
