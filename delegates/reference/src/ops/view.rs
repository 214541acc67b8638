//! Views. Tensors are always contiguous here, so that each is a copy in another order.

use crate::call::Call;
use crate::caps::{Operator, anything, op};
use crate::tensor::Tensor;
use crate::walk::{Offsets, broadcast_strides, dim, dims, strides};
use delegraph_sdk::Error;

type Made = Result<Vec<Tensor>, Error>;

/// The same elements in the same order: the image says in which sizes.
pub fn reshape(call: &Call<'_>) -> Made {
    Ok(vec![call.tensor(0)?.reshaped(call.out_sizes(0)?)?])
}

/// The same tensor.
pub fn same(call: &Call<'_>) -> Made {
    Ok(vec![call.tensor(0)?.clone()])
}

/// The elements of a strided view of a tensor.
pub fn strided(x: &Tensor, sizes: Vec<usize>, strides: &[isize], start: isize) -> Result<Tensor, Error> {
    let offsets = Offsets::new(&sizes, strides, start)?;
    x.pick(sizes, offsets)
}

/// Dimensions in another order; `order[d]` is where dimension `d` comes from.
pub fn permuted(x: &Tensor, order: &[usize]) -> Result<Tensor, Error> {
    let mut seen = vec![false; x.rank()];
    for d in order {
        match seen.get_mut(*d) {
            Some(seen) if !*seen => *seen = true,
            _ => {
                return Err(Error::invalid(format!(
                    "{order:?} is no order of {} dimensions",
                    x.rank()
                )));
            }
        }
    }
    if order.len() != x.rank() {
        return Err(Error::invalid(format!(
            "{order:?} is no order of {} dimensions",
            x.rank()
        )));
    }
    let from = strides(x.sizes());
    let sizes = order.iter().map(|d| x.sizes()[*d]).collect();
    strided(x, sizes, &order.iter().map(|d| from[*d]).collect::<Vec<_>>(), 0)
}

/// Two dimensions change places.
pub fn transposed(x: &Tensor, a: i64, b: i64) -> Result<Tensor, Error> {
    let mut order: Vec<usize> = (0..x.rank()).collect();
    if order.is_empty() {
        return Ok(x.clone());
    }
    order.swap(dim(a, x.rank())?, dim(b, x.rank())?);
    permuted(x, &order)
}

fn permute(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let order = call.ints(1)?;
    let order: Vec<usize> = order.iter().map(|d| dim(*d, x.rank())).collect::<Result<_, _>>()?;
    Ok(vec![permuted(x, &order)?])
}

/// Moves dimensions; the others keep their order.
fn move_dims(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let all = |i| {
        let list = call.ints(i)?;
        list.iter().map(|d| dim(*d, x.rank())).collect::<Result<Vec<_>, _>>()
    };
    let (from, to) = (all(1)?, all(2)?);
    if x.rank() == 0 {
        return same(call);
    }
    let mut rest = (0..x.rank()).filter(|d| !from.contains(d));
    let mut order = Vec::new();
    for d in 0..x.rank() {
        let moved = to.iter().position(|t| *t == d).and_then(|i| from.get(i).copied());
        order.extend(moved.or_else(|| rest.next()));
    }
    Ok(vec![permuted(x, &order)?])
}

/// Repeats dimensions of size 1: `expand`, `expand_as`, `broadcast_to`.
fn expand(call: &Call<'_>) -> Made {
    let (x, sizes) = (call.tensor(0)?, call.out_sizes(0)?);
    let strides = broadcast_strides(x.sizes(), &sizes)?;
    Ok(vec![strided(x, sizes, &strides, 0)?])
}

/// Elements `start`, `start + step`, … of a dimension.
pub fn sliced(x: &Tensor, at: usize, start: usize, len: usize, step: usize) -> Result<Tensor, Error> {
    let mut steps = strides(x.sizes());
    let mut sizes = x.sizes().to_vec();
    let (Some(stride), Some(size)) = (steps.get_mut(at), sizes.get_mut(at)) else {
        return Err(Error::invalid("a number without dimensions has no slices"));
    };
    let begin = stride.wrapping_mul(start as isize);
    *stride = stride.wrapping_mul(step as isize);
    *size = len;
    strided(x, sizes, &steps, begin)
}

/// A slice as Python takes it: `(start, length)`, whatever the bounds.
pub fn slice_bounds(size: usize, start: Option<i64>, end: Option<i64>, step: i64) -> Result<(usize, usize), Error> {
    let size = size as i64;
    let bound = |at: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(0, size);
    let (start, end) = (bound(start.unwrap_or(0)), bound(end.unwrap_or(i64::MAX)));
    if step < 1 {
        return Err(Error::invalid(format!("`step` is {step}, less than 1")));
    }
    Ok((
        start as usize,
        ((end - start).max(0) as u64).div_ceil(step as u64) as usize,
    ))
}

fn slice(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let at = dim(call.int(1)?, x.rank())?;
    let size = x.sizes().get(at).copied().unwrap_or(0);
    let bound = |i| Ok::<_, Error>(call.optional_scalar(i)?.map(|s| s.int()));
    let step = call.int(4)?;
    let (start, len) = slice_bounds(size, bound(2)?, bound(3)?, step)?;
    Ok(vec![sliced(x, at, start, len, step as usize)?])
}

fn narrow(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let at = dim(call.int(1)?, x.rank())?;
    let size = x.sizes().get(at).copied().unwrap_or(0);
    let start = call.int(2)?;
    let start = if start < 0 {
        start.saturating_add(size as i64)
    } else {
        start
    };
    let start = usize::try_from(start).map_err(|_| Error::invalid(format!("`start` is {start}")))?;
    Ok(vec![sliced(x, at, start, call.natural(3)?, 1)?])
}

/// An index counted from the end where it is negative.
pub fn position(index: i64, size: usize) -> Result<usize, Error> {
    let counted = if index < 0 {
        index.saturating_add(size as i64)
    } else {
        index
    };
    usize::try_from(counted)
        .ok()
        .filter(|i| *i < size)
        .ok_or_else(|| Error::invalid(format!("index {index} is out of range for {size} elements")))
}

/// One slice of a dimension, which goes away.
pub fn selected(x: &Tensor, at: usize, index: usize) -> Result<Tensor, Error> {
    let mut sizes = x.sizes().to_vec();
    let slice = sliced(x, at, index, 1, 1)?;
    sizes.remove(at);
    slice.reshaped(sizes)
}

fn select(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let at = dim(call.int(1)?, x.rank())?;
    let size = x.sizes().get(at).copied().unwrap_or(0);
    Ok(vec![selected(x, at, position(call.int(2)?, size)?)?])
}

/// One output a slice of a dimension.
fn unbind(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let at = dim(call.int(1)?, x.rank())?;
    (0..call.outputs()).map(|i| selected(x, at, i)).collect()
}

/// Consecutive parts of a dimension; the image says how long each is.
fn split(call: &Call<'_>, at: i64) -> Made {
    let x = call.tensor(0)?;
    let at = dim(at, x.rank())?;
    let mut start = 0;
    let mut parts = Vec::new();
    for i in 0..call.outputs() {
        let len = call.out_sizes(i)?.get(at).copied().unwrap_or(0);
        parts.push(sliced(x, at, start, len, 1)?);
        start += len;
    }
    if x.sizes().get(at) != Some(&start) {
        return Err(Error::invalid(format!(
            "parts of {start} together do not make up {:?}",
            x.sizes()
        )));
    }
    Ok(parts)
}

/// Reversed along dimensions.
pub fn flipped(x: &Tensor, along: &[usize]) -> Result<Tensor, Error> {
    let mut steps = strides(x.sizes());
    let mut start = 0isize;
    if x.is_empty() {
        return Ok(x.clone());
    }
    for d in along {
        start += steps[*d] * (x.sizes()[*d] as isize - 1);
        steps[*d] = -steps[*d];
    }
    strided(x, x.sizes().to_vec(), &steps, start)
}

fn flip(call: &Call<'_>) -> Made {
    let (x, list) = (call.tensor(0)?, call.ints(1)?);
    // An empty list means none here.
    let along = if list.is_empty() {
        Vec::new()
    } else {
        dims(&list, x.rank())?
    };
    Ok(vec![flipped(x, &along)?])
}

/// Copies one after another along every dimension: `repeat` and `tile`.
fn repeat(call: &Call<'_>) -> Made {
    let (x, out) = (call.tensor(0)?, call.out_sizes(0)?);
    let missing = out.len().checked_sub(x.rank());
    let missing = missing.ok_or_else(|| Error::invalid("there are fewer repeats than dimensions"))?;
    // Each dimension becomes two: which copy, and where in it.
    let (mut sizes, mut steps) = (Vec::new(), Vec::new());
    let padded = std::iter::repeat_n((1, 0), missing).chain(x.sizes().iter().copied().zip(strides(x.sizes())));
    for (out, (size, stride)) in out.iter().zip(padded) {
        sizes.extend([out.checked_div(size).unwrap_or(0), size]);
        steps.extend([0, stride]);
    }
    Ok(vec![strided(x, sizes, &steps, 0)?.reshaped(out)?])
}

/// Moves elements along dimensions; what falls off the end comes in at the start.
fn roll(call: &Call<'_>) -> Made {
    let (x, shifts, along) = (call.tensor(0)?, call.ints(1)?, call.ints(2)?);
    if x.is_empty() {
        return same(call);
    }
    if along.is_empty() {
        let flat = x.reshaped(vec![x.len()])?;
        let shift = shifts.first().copied().unwrap_or(0);
        return Ok(vec![rolled(&flat, 0, shift)?.reshaped(x.sizes().to_vec())?]);
    }
    let mut made = x.clone();
    for (shift, d) in shifts.iter().zip(&along) {
        made = rolled(&made, dim(*d, x.rank())?, *shift)?;
    }
    Ok(vec![made])
}

fn rolled(x: &Tensor, at: usize, shift: i64) -> Result<Tensor, Error> {
    let Some(size) = x.sizes().get(at).copied() else {
        return Ok(x.clone());
    };
    let shift = shift.rem_euclid(size as i64) as usize;
    let (head, tail) = (
        sliced(x, at, 0, size - shift, 1)?,
        sliced(x, at, size - shift, shift, 1)?,
    );
    super::join::joined(&[&tail, &head], at)
}

/// The elements whose indices in two dimensions differ by `offset`, as the last dimension.
fn diagonal(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let (offset, a, b) = (call.int(1)?, dim(call.int(2)?, x.rank())?, dim(call.int(3)?, x.rank())?);
    if x.rank() < 2 || a == b {
        return Err(Error::invalid("a diagonal needs two dimensions"));
    }
    let (steps, sizes) = (strides(x.sizes()), call.out_sizes(0)?);
    let start = offset.max(0) as isize * steps[b] + offset.min(0).unsigned_abs() as isize * steps[a];
    let mut kept: Vec<isize> = (0..x.rank()).filter(|d| *d != a && *d != b).map(|d| steps[d]).collect();
    kept.push(steps[a] + steps[b]);
    Ok(vec![strided(x, sizes, &kept, start)?])
}

/// Windows of a dimension, as a new last one.
fn unfold(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    if x.rank() == 0 {
        return Ok(vec![x.reshaped(call.out_sizes(0)?)?]);
    }
    let (at, step) = (dim(call.int(1)?, x.rank())?, call.int(3)?);
    let mut steps = strides(x.sizes());
    steps.push(steps[at]);
    steps[at] = steps[at].wrapping_mul(step as isize);
    Ok(vec![strided(x, call.out_sizes(0)?, &steps, 0)?])
}

/// Channels become space: `[.., c*r*r, h, w]` to `[.., c, h*r, w*r]`.
fn pixel_shuffle(call: &Call<'_>) -> Made {
    let (x, r, out) = (call.tensor(0)?, call.natural(1)?, call.out_sizes(0)?);
    let [.., c, h, w] = x.sizes()[..] else {
        return Err(Error::invalid("three dimensions at least"));
    };
    let batch = x.sizes()[..x.rank() - 3].iter().product();
    let channels = c / r.saturating_mul(r).max(1);
    let split = x.reshaped(vec![batch, channels, r, r, h, w])?;
    Ok(vec![permuted(&split, &[0, 1, 4, 2, 5, 3])?.reshaped(out)?])
}

/// The way back of [`pixel_shuffle`].
fn pixel_unshuffle(call: &Call<'_>) -> Made {
    let (x, r, out) = (call.tensor(0)?, call.natural(1)?.max(1), call.out_sizes(0)?);
    let [.., c, h, w] = x.sizes()[..] else {
        return Err(Error::invalid("three dimensions at least"));
    };
    let batch = x.sizes()[..x.rank() - 3].iter().product();
    let split = x.reshaped(vec![batch, c, h / r, r, w / r, r])?;
    Ok(vec![permuted(&split, &[0, 1, 3, 5, 2, 4])?.reshaped(out)?])
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::view", "Tensor int[]", anything, reshape),
    op("aten::_unsafe_view", "Tensor int[]", anything, reshape),
    op("aten::reshape", "Tensor int[]", anything, reshape),
    op("aten::view_as", "Tensor Tensor", anything, reshape),
    op("aten::flatten.using_ints", "Tensor int int", anything, reshape),
    op("aten::unflatten.int", "Tensor int int[]", anything, reshape),
    op("aten::squeeze", "Tensor", anything, reshape),
    op("aten::squeeze.dim", "Tensor int", anything, reshape),
    op("aten::squeeze.dims", "Tensor int[]", anything, reshape),
    op("aten::unsqueeze", "Tensor int", anything, reshape),
    op("aten::atleast_1d", "Tensor", anything, reshape),
    op("aten::alias", "Tensor", anything, same),
    op("aten::detach", "Tensor", anything, same),
    op("aten::lift_fresh", "Tensor", anything, same),
    op("aten::lift_fresh_copy", "Tensor", anything, same),
    op("aten::clone", "Tensor any", anything, same),
    op("aten::contiguous", "Tensor any", anything, same),
    op("aten::permute", "Tensor int[]", anything, permute),
    op("aten::movedim.intlist", "Tensor int[] int[]", anything, move_dims),
    op("aten::transpose.int", "Tensor int int", anything, |c| {
        Ok(vec![transposed(c.tensor(0)?, c.int(1)?, c.int(2)?)?])
    }),
    op("aten::swapaxes", "Tensor int int", anything, |c| {
        Ok(vec![transposed(c.tensor(0)?, c.int(1)?, c.int(2)?)?])
    }),
    op("aten::t", "Tensor", anything, |c| {
        let x = c.tensor(0)?;
        if x.rank() < 2 {
            same(c)
        } else {
            Ok(vec![transposed(x, 0, 1)?])
        }
    }),
    op("aten::numpy_T", "Tensor", anything, |c| {
        let x = c.tensor(0)?;
        Ok(vec![permuted(x, &(0..x.rank()).rev().collect::<Vec<_>>())?])
    }),
    op("aten::expand", "Tensor int[] any", anything, expand),
    op("aten::expand_as", "Tensor Tensor", anything, expand),
    op("aten::broadcast_to", "Tensor int[]", anything, expand),
    op("aten::slice.Tensor", "Tensor int int? int? int", anything, slice),
    op("aten::narrow", "Tensor int int int", anything, narrow),
    op("aten::select.int", "Tensor int int", anything, select),
    op("aten::unbind.int", "Tensor int", anything, unbind),
    op("aten::split.Tensor", "Tensor int int", anything, |c| {
        split(c, c.int(2)?)
    }),
    op("aten::split_with_sizes", "Tensor int[] int", anything, |c| {
        split(c, c.int(2)?)
    }),
    op("aten::chunk", "Tensor int int", anything, |c| split(c, c.int(2)?)),
    op("aten::flip", "Tensor int[]", anything, flip),
    op("aten::repeat", "Tensor int[]", anything, repeat),
    op("aten::tile", "Tensor int[]", anything, repeat),
    op("aten::roll", "Tensor int[] int[]", anything, roll),
    op("aten::diagonal", "Tensor int int int", anything, diagonal),
    op("aten::unfold", "Tensor int int int", anything, unfold),
    op("aten::pixel_shuffle", "Tensor int", anything, pixel_shuffle),
    op("aten::pixel_unshuffle", "Tensor int", anything, pixel_unshuffle),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gives, i64s, try_run};
    use delegraph_sdk::image::Arg;

    #[test]
    fn orders_and_parts() {
        let x = i64s(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let two = [(&x).into(), Arg::Int(0).into(), Arg::Int(-1).into()];
        gives("aten::transpose.int", &two, &[i64s(&[3, 2], &[1, 4, 2, 5, 3, 6])]);
        gives(
            "aten::flip",
            &[(&x).into(), [1][..].into()],
            &[i64s(&[2, 3], &[3, 2, 1, 6, 5, 4])],
        );
        let step = [
            (&x).into(),
            Arg::Int(1).into(),
            Arg::Int(-3).into(),
            Arg::None.into(),
            Arg::Int(2).into(),
        ];
        gives("aten::slice.Tensor", &step, &[i64s(&[2, 2], &[1, 3, 4, 6])]);
        let parts = [i64s(&[2, 1], &[1, 4]), i64s(&[2, 2], &[2, 3, 5, 6])];
        gives(
            "aten::split_with_sizes",
            &[(&x).into(), [1, 2][..].into(), Arg::Int(1).into()],
            &parts,
        );
        let row = i64s(&[3], &[4, 5, 6]);
        let select = |i| [(&x).into(), Arg::Int(0).into(), Arg::Int(i).into()];
        gives("aten::select.int", &select(-1), std::slice::from_ref(&row));
        assert!(try_run("aten::select.int", &select(2), &[row]).is_err());
        let rolled = i64s(&[2, 3], &[3, 1, 2, 6, 4, 5]);
        gives("aten::roll", &[(&x).into(), [1][..].into(), [1][..].into()], &[rolled]);
        let x = i64s(&[2], &[1, 2]);
        gives(
            "aten::repeat",
            &[(&x).into(), [2, 2][..].into()],
            &[i64s(&[2, 4], &[1, 2, 1, 2, 1, 2, 1, 2])],
        );
    }

    #[test]
    fn slices_as_python_takes_them() {
        assert_eq!(slice_bounds(5, Some(-2), None, 1).unwrap(), (3, 2));
        assert_eq!(slice_bounds(5, Some(4), Some(2), 1).unwrap(), (4, 0));
        assert_eq!(slice_bounds(5, None, Some(i64::MAX), 2).unwrap(), (0, 3));
        assert!(slice_bounds(5, None, None, 0).is_err());
    }
}
