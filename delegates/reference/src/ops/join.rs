//! Tensors one after another.

use crate::call::Call;
use crate::caps::{Operator, anything, op};
use crate::number::is_known;
use crate::tensor::{Data, Tensor, count, room};
use crate::walk::{dim, split_at};
use delegraph_sdk::Error;

/// Tensors of one dtype along a dimension.
///
/// # Errors
/// Their other sizes differ.
pub fn joined(all: &[&Tensor], at: usize) -> Result<Tensor, Error> {
    let first = all.first().ok_or_else(|| Error::invalid("there is nothing to join"))?;
    let mut sizes = first.sizes().to_vec();
    let along: usize = all.iter().filter_map(|x| x.sizes().get(at)).sum();
    for x in all {
        let fits = x.rank() == sizes.len() && (0..sizes.len()).all(|d| d == at || x.sizes()[d] == sizes[d]);
        if !fits || !is_known(x.dtype()) || at >= sizes.len() {
            return Err(Error::invalid(format!("sizes {:?} do not join {sizes:?}", x.sizes())));
        }
    }
    sizes[at] = along;
    let (before, _, after) = split_at(&sizes, at);
    // How many elements each contributes to a row.
    let rows: Vec<usize> = all.iter().map(|x| x.sizes()[at] * after).collect();
    fn weave<T: Copy>(all: &[&[T]], rows: &[usize], before: usize, items: usize) -> Result<Vec<T>, Error> {
        let mut made = room(items)?;
        for i in 0..before {
            for (values, row) in all.iter().zip(rows) {
                made.extend_from_slice(values.get(i * row..(i + 1) * row).unwrap_or_default());
            }
        }
        Ok(made)
    }
    let items = count(&sizes)?;
    let before = if items == 0 { 0 } else { before };
    let data = if first.dtype().is_float() {
        let values: Vec<&[f64]> = all.iter().map(|x| x.floats()).collect::<Result<_, _>>()?;
        Data::Float(weave(&values, &rows, before, items)?)
    } else {
        let values: Vec<&[i64]> = all.iter().map(|x| x.ints()).collect::<Result<_, _>>()?;
        Data::Int(weave(&values, &rows, before, items)?)
    };
    Tensor::new(first.dtype(), sizes, data)
}

/// The tensors of an argument in the dtype of the output.
fn converted(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let dtype = call.out_dtype(0)?;
    call.tensors(0)?.into_iter().map(|x| x.to(dtype)).collect()
}

fn cat(call: &Call<'_>, at: impl Fn(usize) -> i64) -> Result<Vec<Tensor>, Error> {
    let mut all = converted(call)?;
    // PyTorch passes over an empty list among tensors of more dimensions.
    if all.iter().any(|x| x.rank() > 1) {
        all.retain(|x| x.sizes() != [0]);
    }
    let rank = all.first().map_or(0, Tensor::rank);
    let at = dim(at(rank), rank)?;
    Ok(vec![joined(&all.iter().collect::<Vec<_>>(), at)?])
}

fn stack(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let all = converted(call)?;
    let at = dim(call.int(1)?, all.first().map_or(0, Tensor::rank) + 1)?;
    let widened = |x: &Tensor| {
        let mut sizes = x.sizes().to_vec();
        if at > sizes.len() {
            return Err(Error::invalid("tensors of different ranks do not stack"));
        }
        sizes.insert(at, 1);
        x.reshaped(sizes)
    };
    let all: Vec<Tensor> = all.iter().map(widened).collect::<Result<_, _>>()?;
    Ok(vec![joined(&all.iter().collect::<Vec<_>>(), at)?])
}

/// `hstack` and `vstack`: dimensions are added at the front first.
fn stack_along(call: &Call<'_>, rank: usize, at: fn(usize) -> usize) -> Result<Vec<Tensor>, Error> {
    let widened = |x: Tensor| {
        let mut sizes = x.sizes().to_vec();
        while sizes.len() < rank {
            sizes.insert(0, 1);
        }
        x.reshaped(sizes)
    };
    let all: Vec<Tensor> = converted(call)?.into_iter().map(widened).collect::<Result<_, _>>()?;
    let at = at(all.first().map_or(0, Tensor::rank));
    Ok(vec![joined(&all.iter().collect::<Vec<_>>(), at)?])
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::cat", "Tensor[] int", anything, |c| {
        let at = c.int(1)?;
        cat(c, |_| at)
    }),
    op("aten::concat", "Tensor[] int", anything, |c| {
        let at = c.int(1)?;
        cat(c, |_| at)
    }),
    op("aten::stack", "Tensor[] int", anything, stack),
    op("aten::hstack", "Tensor[]", anything, |c| {
        stack_along(c, 1, |rank| usize::from(rank > 1))
    }),
    op("aten::vstack", "Tensor[]", anything, |c| stack_along(c, 2, |_| 0)),
];

#[cfg(test)]
mod tests {
    use crate::testing::{Item, f32s, gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn joins() {
        let (a, b) = (i64s(&[2, 1], &[1, 2]), f32s(&[2, 2], &[3.5, 4.0, 5.0, 6.0]));
        let all = Item::Tensors(vec![a.clone(), b]);
        let want = f32s(&[2, 3], &[1.0, 3.5, 4.0, 2.0, 5.0, 6.0]);
        gives("aten::cat", &[all, Arg::Int(-1).into()], &[want]);
        let all = Item::Tensors(vec![a.clone(), a]);
        gives(
            "aten::stack",
            &[all, Arg::Int(1).into()],
            &[i64s(&[2, 2, 1], &[1, 1, 2, 2])],
        );
    }
}
