//! Writing to elements by indices. The tensor itself stays: each makes a new one.

use super::elementwise::{spread_floats, spread_ints};
use super::index::{advanced, check_indices, gathered, positions};
use super::view::{position, slice_bounds};
use crate::call::Call;
use crate::caps::{Operator, Refusal, anything, op};
use crate::math::{max, min};
use crate::number::round;
use crate::tensor::{Data, Tensor};
use crate::walk::{Offsets, dim, split_at, strides};
use delegraph_sdk::Error;
use delegraph_sdk::image::{ArgView, NodeView};

type Made = Result<Vec<Tensor>, Error>;

/// How a value meets the one that is there.
#[derive(Clone, Copy)]
struct Meeting {
    float: fn(f64, f64) -> f64,
    int: fn(i64, i64) -> i64,
}

const REPLACE: Meeting = Meeting {
    float: |_, new| new,
    int: |_, new| new,
};
const ADD: Meeting = Meeting {
    float: |old, new| old + new,
    int: i64::wrapping_add,
};

/// Values, in order, at positions.
fn update(call: &Call<'_>, x: &Tensor, at: &[usize], values: &Data, meeting: Meeting) -> Made {
    fn write<T: Copy>(all: &mut [T], at: &[usize], values: &[T], meet: impl Fn(T, T) -> T) -> Result<(), Error> {
        if at.len() != values.len() {
            return Err(Error::invalid(format!(
                "{} values for {} places",
                values.len(),
                at.len()
            )));
        }
        for (at, value) in at.iter().zip(values) {
            let slot = all
                .get_mut(*at)
                .ok_or_else(|| Error::invalid("an index lies outside of its tensor"))?;
            *slot = meet(*slot, *value);
        }
        Ok(())
    }
    let data = match (x.data(), values) {
        (Data::Float(old), Data::Float(new)) => {
            let mut all = old.clone();
            // Several values may meet at one place: PyTorch rounds each time.
            write(&mut all, at, new, |old, new| {
                round(x.dtype(), (meeting.float)(old, new))
            })?;
            Data::Float(all)
        }
        (Data::Int(old), Data::Int(new)) => {
            let mut all = old.clone();
            write(&mut all, at, new, meeting.int)?;
            Data::Int(all)
        }
        _ => {
            return Err(Error::internal(
                "values of another class than the tensor that takes them",
            ));
        }
    };
    call.one(x.sizes().to_vec(), data)
}

/// The elements of a tensor in the class of another, repeated to sizes.
fn spread(values: &Tensor, like: &Tensor, sizes: &[usize]) -> Result<Data, Error> {
    Ok(match like.data() {
        Data::Float(_) => Data::Float(spread_floats(values, sizes)?),
        Data::Int(_) => Data::Int(spread_ints(values, sizes)?),
    })
}

/// The elements of `src` that indices reach: as many as there are indices, from the start of each dimension.
fn corner(src: &Tensor, sizes: &[usize], like: &Tensor) -> Result<Data, Error> {
    if src.rank() != sizes.len() {
        let flat = src.reshaped(sizes.to_vec())?;
        return spread(&flat, like, sizes);
    }
    if sizes.iter().zip(src.sizes()).any(|(want, have)| want > have) && !sizes.contains(&0) {
        return Err(Error::invalid("there are more indices than values"));
    }
    let part = src.pick(sizes.to_vec(), Offsets::new(sizes, &strides(src.sizes()), 0)?)?;
    spread(&part, like, sizes)
}

fn scatter(call: &Call<'_>, meeting: Meeting) -> Made {
    let (x, indices, src) = (call.tensor(0)?, call.tensor(2)?, call.operand(3)?);
    let at = gathered(x.sizes(), dim(call.int(1)?, x.rank())?, indices)?;
    let values = if src.is_number {
        spread(&src.tensor, x, indices.sizes())?
    } else {
        corner(&src.tensor, indices.sizes(), x)?
    };
    update(call, x, &at, &values, meeting)
}

fn meeting(name: &str) -> Option<Meeting> {
    Some(match name {
        "sum" => ADD,
        "prod" => Meeting {
            float: |old, new| old * new,
            int: i64::wrapping_mul,
        },
        "amax" => Meeting {
            float: max,
            int: |old, new| old.max(new),
        },
        "amin" => Meeting {
            float: min,
            int: |old, new| old.min(new),
        },
        _ => return None,
    })
}

fn check_reduce(node: &NodeView<'_>) -> Result<(), Refusal> {
    match (node.arg(4), node.arg(5).bool()) {
        (ArgView::Str(name), Some(true)) if meeting(name).is_some() => Ok(()),
        (ArgView::Str(name), Some(true)) => Err(Refusal::attribute(format!("`reduce` is `{name}`"))),
        _ => Err(Refusal::attribute("`include_self` is not true")),
    }
}

fn index_put(call: &Call<'_>) -> Made {
    let (x, values) = (call.tensor(0)?, call.tensor(2)?);
    let (sizes, at) = advanced(x.sizes(), &call.optionals(1)?)?;
    let at: Vec<usize> = at.into_iter().map(|p| p as usize).collect();
    let meeting = if call.bool(3)? { ADD } else { REPLACE };
    update(call, x, &at, &spread(values, x, &sizes)?, meeting)
}

/// Positions of slices of a dimension, and their sizes together.
fn slices(x: &Tensor, at: usize, indices: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (before, along, after) = split_at(x.sizes(), at);
    let starts = (0..before).flat_map(|i| indices.iter().map(move |j| (i * along + j) * after));
    let mut sizes = x.sizes().to_vec();
    if let Some(size) = sizes.get_mut(at) {
        *size = indices.len();
    }
    (starts.flat_map(|start| start..start + after).collect(), sizes)
}

/// `index_copy`, `index_add`, `index_fill`: slices of a dimension meet those of a source, or a number.
fn by_index(call: &Call<'_>, meeting: Meeting, alpha: Option<usize>) -> Made {
    let (x, src) = (call.tensor(0)?, call.operand(3)?);
    let at = dim(call.int(1)?, x.rank())?;
    let size = x.sizes().get(at).copied().unwrap_or(1);
    let (places, sizes) = slices(x, at, &positions(call.tensor(2)?, size)?);
    let values = if src.is_number || src.tensor.rank() == sizes.len() {
        spread(&src.tensor, x, &sizes)?
    } else {
        corner(&src.tensor, &sizes, x)?
    };
    let alpha = alpha.map(|i| call.scalar(i)).transpose()?;
    let values = match (values, alpha) {
        (Data::Float(v), Some(alpha)) => Data::Float(v.iter().map(|v| v * alpha.float()).collect()),
        (Data::Int(v), Some(alpha)) => Data::Int(v.iter().map(|v| v.wrapping_mul(alpha.int())).collect()),
        (values, None) => values,
    };
    update(call, x, &places, &values, meeting)
}

fn select_scatter(call: &Call<'_>) -> Made {
    let (x, src) = (call.tensor(0)?, call.tensor(1)?);
    let at = dim(call.int(2)?, x.rank())?;
    let index = position(call.int(3)?, x.sizes().get(at).copied().unwrap_or(0))?;
    let (places, sizes) = slices(x, at, &[index]);
    let src = src.reshaped(sizes.clone())?;
    update(call, x, &places, &spread(&src, x, &sizes)?, REPLACE)
}

fn slice_scatter(call: &Call<'_>) -> Made {
    let (x, src) = (call.tensor(0)?, call.tensor(1)?);
    let at = dim(call.int(2)?, x.rank())?;
    let size = x.sizes().get(at).copied().unwrap_or(0);
    let bound = |i| Ok::<_, Error>(call.optional_scalar(i)?.map(|s| s.int()));
    let step = call.int(5)?;
    let (start, len) = slice_bounds(size, bound(3)?, bound(4)?, step)?;
    let indices: Vec<usize> = (0..len).map(|i| start + i * step as usize).collect();
    let (places, sizes) = slices(x, at, &indices);
    update(call, x, &places, &spread(src, x, &sizes)?, REPLACE)
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::scatter.src", "Tensor int Tensor Tensor", anything, |c| {
        scatter(c, REPLACE)
    }),
    op("aten::scatter.value", "Tensor int Tensor Scalar", anything, |c| {
        scatter(c, REPLACE)
    }),
    op("aten::scatter_add", "Tensor int Tensor Tensor", anything, |c| {
        scatter(c, ADD)
    }),
    op(
        "aten::scatter_reduce.two",
        "Tensor int Tensor Tensor str bool",
        check_reduce,
        |c| {
            let meeting = meeting(c.str(4)?);
            scatter(
                c,
                meeting.ok_or_else(|| Error::internal("a reduction that was not checked"))?,
            )
        },
    ),
    op(
        "aten::index_put",
        "Tensor Tensor?[] Tensor bool",
        check_indices,
        index_put,
    ),
    op("aten::index_copy", "Tensor int Tensor Tensor", anything, |c| {
        by_index(c, REPLACE, None)
    }),
    op("aten::index_add", "Tensor int Tensor Tensor Scalar", anything, |c| {
        by_index(c, ADD, Some(4))
    }),
    op(
        "aten::index_fill.int_Scalar",
        "Tensor int Tensor Scalar",
        anything,
        |c| by_index(c, REPLACE, None),
    ),
    op(
        "aten::select_scatter",
        "Tensor Tensor int int",
        anything,
        select_scatter,
    ),
    op(
        "aten::slice_scatter",
        "Tensor Tensor int int? int? int",
        anything,
        slice_scatter,
    ),
];

#[cfg(test)]
mod tests {
    use crate::testing::{Item, gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn values_at_places() {
        let (x, index) = (i64s(&[4], &[1, 2, 3, 4]), i64s(&[3], &[0, 0, -1]));
        let src = i64s(&[3], &[10, 20, 30]);
        let add = [
            (&x).into(),
            Arg::Int(0).into(),
            (&index).into(),
            (&src).into(),
            Arg::Int(1).into(),
        ];
        gives("aten::index_add", &add, &[i64s(&[4], &[31, 2, 3, 34])]);
        let put = [
            (&x).into(),
            Item::Tensors(vec![i64s(&[1], &[2])]),
            (&i64s(&[], &[9])).into(),
            Arg::Bool(false).into(),
        ];
        gives("aten::index_put", &put, &[i64s(&[4], &[1, 2, 9, 4])]);
    }
}
