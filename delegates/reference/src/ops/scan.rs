//! Running sums and their like along a dimension.

use crate::call::Call;
use crate::caps::{Operator, Refusal, anything, floats, op};
use crate::tensor::{Data, Tensor};
use crate::walk::{dim, split_at};
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

type Made = Result<Vec<Tensor>, Error>;

/// Replaces each element by what `f` makes of it and of its predecessor's result.
fn run<T: Copy>(values: &mut [T], (before, along, after): (usize, usize, usize), f: impl Fn(T, T) -> T) {
    if values.is_empty() {
        return;
    }
    for start in (0..before).map(|i| i * along * after) {
        for at in start + after..start + along * after {
            values[at] = f(values[at - after], values[at]);
        }
    }
}

fn scan(call: &Call<'_>, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> Made {
    let x = call.tensor(0)?.to(call.out_dtype(0)?)?;
    let split = split_at(x.sizes(), dim(call.int(1)?, x.rank())?);
    let data = match x.data() {
        Data::Float(values) => {
            let mut values = values.clone();
            run(&mut values, split, float);
            Data::Float(values)
        }
        Data::Int(values) => {
            let mut values = values.clone();
            run(&mut values, split, int);
            Data::Int(values)
        }
    };
    call.one(x.sizes().to_vec(), data)
}

/// The extreme so far, and where it is; of equals the last, and NaN stays.
fn extreme(call: &Call<'_>, largest: bool) -> Made {
    let x = call.tensor(0)?;
    let (before, along, after) = split_at(x.sizes(), dim(call.int(1)?, x.rank())?);
    fn better<T: PartialOrd>(new: &T, old: &T, largest: bool) -> bool {
        let is_nan = |x: &T| x.partial_cmp(x).is_none();
        is_nan(new) || (!is_nan(old) && if largest { new >= old } else { new <= old })
    }
    fn places<T: PartialOrd>(values: &[T], split: (usize, usize, usize), largest: bool) -> Vec<i64> {
        let (before, along, after) = split;
        let mut places = vec![0; values.len()];
        if values.is_empty() {
            return places;
        }
        for (i, k) in (0..before).flat_map(|i| (0..after).map(move |k| (i, k))) {
            let at = |j: usize| (i * along + j) * after + k;
            let mut best = 0;
            for j in 0..along {
                if better(&values[at(j)], &values[at(best)], largest) {
                    best = j;
                }
                places[at(j)] = best as i64;
            }
        }
        places
    }
    let split = (before, along, after);
    let places = match x.data() {
        Data::Float(values) => places(values, split, largest),
        Data::Int(values) => places(values, split, largest),
    };
    let row = (along * after).max(1);
    let sources = places
        .iter()
        .enumerate()
        .map(|(i, j)| (i / row * row + *j as usize * after + i % after.max(1)) as isize);
    let values = x.pick(x.sizes().to_vec(), sources)?;
    Ok(vec![values, call.make(1, x.sizes().to_vec(), Data::Int(places))?])
}

/// Differences of neighbours, `n` times.
fn diff(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let at = dim(call.int(2)?, x.rank())?;
    let mut made = x.clone();
    for _ in 0..call.natural(1)? {
        let size = made.sizes().get(at).copied().unwrap_or(0);
        let rest = size.saturating_sub(1);
        let first = super::view::sliced(&made, at, 0, rest, 1)?;
        let second = super::view::sliced(&made, at, size.min(1), rest, 1)?;
        let data = match (first.data(), second.data()) {
            (Data::Float(a), Data::Float(b)) => Data::Float(a.iter().zip(b).map(|(a, b)| b - a).collect()),
            _ => Data::Int(
                first
                    .ints()?
                    .iter()
                    .zip(second.ints()?)
                    .map(|(a, b)| b.wrapping_sub(*a))
                    .collect(),
            ),
        };
        made = Tensor::new(x.dtype(), first.sizes().to_vec(), data)?;
        if rest == 0 {
            break;
        }
    }
    Ok(vec![made])
}

fn check_diff(node: &NodeView<'_>) -> Result<(), Refusal> {
    crate::caps::no_bool(node)?;
    match (node.arg(3).is_none(), node.arg(4).is_none()) {
        (true, true) => Ok(()),
        _ => Err(Refusal::attribute("`prepend` and `append` are not done")),
    }
}

fn log_add_exp(a: f64, b: f64) -> f64 {
    let top = crate::math::max(a, b);
    if top.is_infinite() {
        return top;
    }
    top + ((a - top).exp() + (b - top).exp()).ln()
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::cumsum", "Tensor int dtype?", anything, |c| {
        scan(c, |a, b| a + b, i64::wrapping_add)
    }),
    op("aten::cumprod", "Tensor int dtype?", anything, |c| {
        scan(c, |a, b| a * b, i64::wrapping_mul)
    }),
    op("aten::logcumsumexp", "Tensor int", floats, |c| {
        scan(c, log_add_exp, |_, b| b)
    }),
    op("aten::cummax", "Tensor int", anything, |c| extreme(c, true)),
    op("aten::cummin", "Tensor int", anything, |c| extreme(c, false)),
    op("aten::diff", "Tensor int int Tensor? Tensor?", check_diff, diff),
];

#[cfg(test)]
mod tests {
    use crate::testing::{gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn running_results() {
        let x = i64s(&[2, 2], &[1, 5, 3, 4]);
        let along = |d| [(&x).into(), Arg::Int(d).into(), Arg::None.into()];
        gives("aten::cumsum", &along(0), &[i64s(&[2, 2], &[1, 5, 4, 9])]);
        gives("aten::cumsum", &along(1), &[i64s(&[2, 2], &[1, 6, 3, 7])]);
        let wants = [i64s(&[2, 2], &[1, 5, 3, 5]), i64s(&[2, 2], &[0, 0, 1, 0])];
        gives("aten::cummax", &[(&x).into(), Arg::Int(0).into()], &wants);
        let items = [
            (&x).into(),
            Arg::Int(1).into(),
            Arg::Int(-1).into(),
            Arg::None.into(),
            Arg::None.into(),
        ];
        gives("aten::diff", &items, &[i64s(&[2, 1], &[4, 1])]);
    }
}
