//! Elements by indices that are tensors.

use super::view::position;
use crate::call::Call;
use crate::caps::{Operator, Refusal, anything, op};
use crate::tensor::{Data, Tensor, count, room};
use crate::walk::{Offsets, broadcast, broadcast_strides, dim, expanded, split_at, strides};
use delegraph_sdk::image::{ArgView, NodeView};
use delegraph_sdk::{DType, Error};

type Made = Result<Vec<Tensor>, Error>;

/// Indices counted from the start, and checked.
pub fn positions(indices: &Tensor, size: usize) -> Result<Vec<usize>, Error> {
    indices.ints()?.iter().map(|i| position(*i, size)).collect()
}

/// Slices of a dimension, one an index.
fn slices(x: &Tensor, at: usize, indices: &[usize]) -> Result<Tensor, Error> {
    let (before, along, after) = split_at(x.sizes(), at);
    let mut sizes = x.sizes().to_vec();
    if let Some(size) = sizes.get_mut(at) {
        *size = indices.len();
    }
    let starts = (0..before).flat_map(|i| indices.iter().map(move |j| (i * along + j) * after));
    let all = starts.flat_map(|start| (start..start + after).map(|p| p as isize));
    x.pick(sizes, all)
}

/// Rows of a table, in the sizes of the indices.
fn embedding(call: &Call<'_>) -> Made {
    let (table, indices) = (call.tensor(0)?, call.tensor(1)?);
    let [rows, width] = table.sizes() else {
        return Err(Error::invalid("a table has two dimensions"));
    };
    let picked = slices(table, 0, &positions(indices, *rows)?)?;
    Ok(vec![picked.reshaped([indices.sizes(), &[*width]].concat())?])
}

fn index_select(call: &Call<'_>) -> Made {
    let (x, indices) = (call.tensor(0)?, call.tensor(2)?);
    let at = dim(call.int(1)?, x.rank())?;
    let size = x.sizes().get(at).copied().unwrap_or(1);
    Ok(vec![slices(x, at, &positions(indices, size)?)?])
}

/// Positions in `sizes` of the elements whose index in one dimension is given, and the others are the index's own.
pub fn gathered(sizes: &[usize], at: usize, indices: &Tensor) -> Result<Vec<usize>, Error> {
    if indices.is_empty() {
        return Ok(Vec::new());
    }
    if indices.rank() != sizes.len() {
        // A number and a list of one are the same here.
        if indices.len() == 1 && sizes.iter().product::<usize>() == 1 {
            return positions(indices, 1);
        }
        return Err(Error::invalid("indices have another rank than what they index"));
    }
    let steps: Vec<isize> = strides(sizes)
        .iter()
        .enumerate()
        .map(|(d, s)| if d == at { 0 } else { *s })
        .collect();
    let too_large = (0..sizes.len()).any(|d| d != at && indices.sizes()[d] > sizes[d]);
    if too_large {
        return Err(Error::invalid("there are more indices than elements"));
    }
    let (size, stride) = match sizes.get(at) {
        Some(size) => (*size, strides(sizes)[at] as usize),
        None => (1, 1),
    };
    let starts = Offsets::new(indices.sizes(), &steps, 0)?;
    let chosen = positions(indices, size)?;
    Ok(starts
        .zip(chosen)
        .map(|(start, i)| start as usize + i * stride)
        .collect())
}

fn gather(call: &Call<'_>) -> Made {
    let (x, indices) = (call.tensor(0)?, call.tensor(2)?);
    let at = dim(call.int(1)?, x.rank())?;
    let all = gathered(x.sizes(), at, indices)?;
    Ok(vec![
        x.pick(indices.sizes().to_vec(), all.into_iter().map(|p| p as isize))?,
    ])
}

fn take(call: &Call<'_>) -> Made {
    let (x, indices) = (call.tensor(0)?, call.tensor(1)?);
    let all = positions(indices, x.len())?;
    Ok(vec![
        x.pick(indices.sizes().to_vec(), all.into_iter().map(|p| p as isize))?,
    ])
}

/// The elements that a list of index tensors names, as `x[a, :, b]` does: their sizes, and their positions.
pub fn advanced(sizes: &[usize], indices: &[Option<&Tensor>]) -> Result<(Vec<usize>, Vec<isize>), Error> {
    if indices.len() > sizes.len() {
        return Err(Error::invalid("there are more indices than dimensions"));
    }
    let given: Vec<(usize, &Tensor)> = indices
        .iter()
        .enumerate()
        .filter_map(|(d, i)| i.map(|i| (d, i)))
        .collect();
    let index_sizes = broadcast(&given.iter().map(|(_, i)| i.sizes()).collect::<Vec<_>>())?;
    let steps = strides(sizes);
    let mut chosen: Vec<isize> = crate::tensor::filled(count(&index_sizes)?, 0)?;
    for (d, index) in &given {
        let counted = positions(index, sizes[*d])?;
        let all = expanded(&counted, index.sizes(), &index_sizes)?;
        chosen
            .iter_mut()
            .zip(all.iter())
            .for_each(|(at, i)| *at += *i as isize * steps[*d]);
    }
    // The dimensions of the indices come where they stand if they stand together, else first.
    let (first, last) = match (given.first(), given.last()) {
        (Some((first, _)), Some((last, _))) => (*first, *last),
        _ => (0, 0),
    };
    let together = given.len() == last - first + 1;
    let front = if together { first } else { 0 };
    let rest = |dims: std::ops::Range<usize>| {
        let kept: Vec<usize> = dims.filter(|d| !given.iter().any(|(g, _)| g == d)).collect();
        let kept_sizes: Vec<usize> = kept.iter().map(|d| sizes[*d]).collect();
        let kept_steps: Vec<isize> = kept.iter().map(|d| steps[*d]).collect();
        Ok::<_, Error>((Offsets::new(&kept_sizes, &kept_steps, 0)?, kept_sizes))
    };
    let ((before, before_sizes), (after, after_sizes)) = (rest(0..front)?, rest(front..sizes.len())?);
    let made = [before_sizes, index_sizes, after_sizes].concat();
    let mut all = room(count(&made)?)?;
    for start in before {
        for middle in &chosen {
            all.extend(after.clone().map(|end| start + middle + end));
        }
    }
    Ok((made, all))
}

fn index(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let (sizes, all) = advanced(x.sizes(), &call.optionals(1)?)?;
    Ok(vec![x.pick(sizes, all.into_iter())?])
}

/// Masks would make the sizes depend on data.
pub fn check_indices(node: &NodeView<'_>) -> Result<(), Refusal> {
    let image = node.image();
    let list: Vec<_> = match node.arg(1) {
        ArgView::Values(list) => list.iter().collect(),
        ArgView::OptionalValues(list) => list.iter().flatten().collect(),
        _ => Vec::new(),
    };
    if list.is_empty() {
        return Err(Refusal::attribute("no index is a tensor"));
    }
    match list
        .iter()
        .all(|v| matches!(image.value(*v).dtype(), Some(DType::I64 | DType::I32)))
    {
        true => Ok(()),
        false => Err(Refusal::dtype(
            "indices are i64 or i32; masks make sizes that depend on data",
        )),
    }
}

/// `x.take_along_dim`: as `gather`, with sizes that broadcast.
fn take_along_dim(call: &Call<'_>) -> Made {
    let (x, indices) = (call.tensor(0)?, call.tensor(1)?);
    if call.is_none(2) {
        let all = positions(indices, x.len())?;
        return Ok(vec![x.pick(vec![indices.len()], all.into_iter().map(|p| p as isize))?]);
    }
    let at = dim(call.int(2)?, x.rank())?;
    let out = call.out_sizes(0)?;
    let mut wide = out.clone();
    if let (Some(size), Some(own)) = (wide.get_mut(at), x.sizes().get(at)) {
        *size = *own;
    }
    let strided =
        |t: &Tensor, sizes: &[usize]| super::view::strided(t, sizes.to_vec(), &broadcast_strides(t.sizes(), sizes)?, 0);
    let (x, indices) = (strided(x, &wide)?, strided(indices, &out)?);
    let all = gathered(x.sizes(), at, &indices)?;
    Ok(vec![x.pick(out, all.into_iter().map(|p| p as isize))?])
}

/// The lower triangle, or the upper: elements beyond a diagonal become 0.
fn triangle(call: &Call<'_>, lower: bool) -> Made {
    let (x, diagonal) = (call.tensor(0)?, call.int(1)?);
    let [.., rows, columns] = x.sizes()[..] else {
        return Err(Error::invalid("a triangle needs a matrix"));
    };
    let keep = |i: usize| {
        let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        let beyond = column.saturating_sub(row.saturating_add(diagonal));
        if lower { beyond <= 0 } else { beyond >= 0 }
    };
    let data = match x.data() {
        Data::Float(v) => Data::Float(
            v.iter()
                .enumerate()
                .map(|(i, v)| if keep(i) { *v } else { 0.0 })
                .collect(),
        ),
        Data::Int(v) => Data::Int(
            v.iter()
                .enumerate()
                .map(|(i, v)| if keep(i) { *v } else { 0 })
                .collect(),
        ),
    };
    call.one(x.sizes().to_vec(), data)
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::embedding", "Tensor Tensor any any any", anything, embedding),
    op("aten::index_select", "Tensor int Tensor", anything, index_select),
    op("aten::gather", "Tensor int Tensor any", anything, gather),
    op("aten::take", "Tensor Tensor", anything, take),
    op("aten::take_along_dim", "Tensor Tensor int?", anything, take_along_dim),
    op("aten::index.Tensor", "Tensor Tensor?[]", check_indices, index),
    op("aten::tril", "Tensor int", anything, |c| triangle(c, true)),
    op("aten::triu", "Tensor int", anything, |c| triangle(c, false)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{f32s, gives, i64s, try_run};
    use delegraph_sdk::image::Arg;

    #[test]
    fn rows_by_number() {
        let (table, indices) = (f32s(&[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), i64s(&[2], &[2, 0]));
        let tail = || [Arg::Int(-1).into(), Arg::Bool(false).into(), Arg::Bool(false).into()];
        let items = |indices: &Tensor| {
            [(&table).into(), indices.into()]
                .into_iter()
                .chain(tail())
                .collect::<Vec<_>>()
        };
        let want = f32s(&[2, 2], &[4.0, 5.0, 0.0, 1.0]);
        gives("aten::embedding", &items(&indices), std::slice::from_ref(&want));
        assert!(try_run("aten::embedding", &items(&i64s(&[2], &[3, 0])), &[want]).is_err());
        let gather = [
            (&table).into(),
            Arg::Int(1).into(),
            (&i64s(&[1, 2], &[1, 1])).into(),
            Arg::None.into(),
        ];
        gives("aten::gather", &gather, &[f32s(&[1, 2], &[1.0, 1.0])]);
    }

    #[test]
    fn indices_apart_come_first() {
        let index = i64s(&[2], &[0, 1]);
        let (sizes, _) = advanced(&[2, 3, 4], &[Some(&index), None, Some(&index)]).unwrap();
        assert_eq!(sizes, [2, 3]);
        let (sizes, all) = advanced(&[2, 3, 4], &[None, Some(&index), Some(&index)]).unwrap();
        assert_eq!((sizes, all), (vec![2, 2], vec![0, 5, 12, 17]));
    }
}
