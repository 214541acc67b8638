//! Padding: along each dimension, which element of the input stands at each place of the output.

use crate::call::Call;
use crate::caps::{Operator, Refusal, anything, op};
use crate::tensor::{Data, Tensor, count, room};
use crate::walk::split_at;
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Scalar;
use delegraph_sdk::image::{ArgView, NodeView};

type Made = Result<Vec<Tensor>, Error>;

/// What stands beyond the edges.
#[derive(Clone, Copy)]
enum Beyond {
    Constant(Scalar),
    /// The elements before the edge, backwards.
    Reflect,
    /// The element at the edge.
    Replicate,
    /// The elements of the other end.
    Circular,
}

/// The input's element at a place that counts from the input's first.
fn source(place: i64, size: i64, beyond: Beyond) -> Result<Option<usize>, Error> {
    let at = match beyond {
        _ if (0..size).contains(&place) => place,
        Beyond::Constant(_) => return Ok(None),
        Beyond::Reflect if place < 0 => place.saturating_neg(),
        Beyond::Reflect => 2 * (size - 1) - place,
        Beyond::Replicate => place.clamp(0, size - 1),
        Beyond::Circular if size > 0 => place.rem_euclid(size),
        Beyond::Circular => -1,
    };
    match (0..size).contains(&at) {
        true => Ok(Some(at as usize)),
        false => Err(Error::invalid("there are not so many elements to pad with")),
    }
}

fn along(x: &Tensor, at: usize, left: i64, right: i64, beyond: Beyond) -> Result<Tensor, Error> {
    let (before, size, after) = split_at(x.sizes(), at);
    let total = (size as i64).checked_add(left).and_then(|s| s.checked_add(right));
    let total = total
        .filter(|t| *t >= 0)
        .ok_or_else(|| Error::invalid("the padding takes more than there is"))?;
    let mut sizes = x.sizes().to_vec();
    sizes[at] = total as usize;
    let items = count(&sizes)?;
    let mut sources = room(if items == 0 { 0 } else { total as usize })?;
    for i in 0..sources.capacity().min(total as usize) {
        sources.push(source(i as i64 - left, size as i64, beyond)?);
    }
    fn fill<T: Copy>(
        values: &[T],
        sources: &[Option<usize>],
        (before, size, after): (usize, usize, usize),
        constant: T,
        items: usize,
    ) -> Result<Vec<T>, Error> {
        let mut made = room(items)?;
        let starts = (0..if items == 0 { 0 } else { before }).flat_map(|i| sources.iter().map(move |j| (i, j)));
        for (i, j) in starts {
            match j {
                Some(j) => made.extend_from_slice(&values[(i * size + j) * after..][..after]),
                None => made.resize(made.len() + after, constant),
            }
        }
        Ok(made)
    }
    let constant = if let Beyond::Constant(value) = beyond {
        value
    } else {
        Scalar::Int(0)
    };
    let split = (before, size, after);
    let data = match x.data() {
        Data::Float(values) => Data::Float(fill(values, &sources, split, constant.float(), items)?),
        Data::Int(values) => Data::Int(fill(values, &sources, split, constant.int(), items)?),
    };
    Tensor::new(x.dtype(), sizes, data)
}

/// Pairs of numbers, the last dimension's first.
fn pad(call: &Call<'_>, beyond: Beyond) -> Made {
    let (x, amounts) = (call.tensor(0)?, call.ints(1)?);
    let mut made = x.clone();
    for (i, pair) in amounts.chunks_exact(2).enumerate() {
        let at = (x.rank().checked_sub(i + 1)).ok_or_else(|| Error::invalid("more paddings than dimensions"))?;
        made = along(&made, at, pair[0], pair[1], beyond)?;
    }
    Ok(vec![made])
}

fn by_mode(call: &Call<'_>) -> Made {
    let beyond = match call.str(2)? {
        "reflect" => Beyond::Reflect,
        "replicate" => Beyond::Replicate,
        "circular" => Beyond::Circular,
        _ => Beyond::Constant(call.optional_scalar(3)?.unwrap_or(Scalar::Int(0))),
    };
    pad(call, beyond)
}

fn check_mode(node: &NodeView<'_>) -> Result<(), Refusal> {
    match node.arg(2) {
        ArgView::Str("constant" | "reflect" | "replicate" | "circular") => Ok(()),
        mode => Err(Refusal::attribute(format!("`mode` is `{mode:?}`"))),
    }
}

const SIGNATURE: &str = "Tensor int[]";

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::pad", "Tensor int[] str float?", check_mode, by_mode),
    op("aten::constant_pad_nd", "Tensor int[] Scalar", anything, |c| {
        pad(c, Beyond::Constant(c.scalar(2)?))
    }),
    op("aten::reflection_pad1d", SIGNATURE, anything, |c| {
        pad(c, Beyond::Reflect)
    }),
    op("aten::reflection_pad2d", SIGNATURE, anything, |c| {
        pad(c, Beyond::Reflect)
    }),
    op("aten::reflection_pad3d", SIGNATURE, anything, |c| {
        pad(c, Beyond::Reflect)
    }),
    op("aten::replication_pad1d", SIGNATURE, anything, |c| {
        pad(c, Beyond::Replicate)
    }),
    op("aten::replication_pad2d", SIGNATURE, anything, |c| {
        pad(c, Beyond::Replicate)
    }),
    op("aten::replication_pad3d", SIGNATURE, anything, |c| {
        pad(c, Beyond::Replicate)
    }),
];

#[cfg(test)]
mod tests {
    use crate::testing::{gives, i64s, try_run};
    use delegraph_sdk::image::Arg;

    #[test]
    fn beyond_the_edges() {
        let x = i64s(&[1, 3], &[1, 2, 3]);
        let mode = |mode: &str, amounts: &[i64]| {
            [
                (&x).into(),
                amounts.into(),
                Arg::Str(mode.into()).into(),
                Arg::None.into(),
            ]
        };
        gives("aten::pad", &mode("constant", &[1, -1]), &[i64s(&[1, 3], &[0, 1, 2])]);
        gives(
            "aten::pad",
            &mode("reflect", &[2, 1]),
            &[i64s(&[1, 6], &[3, 2, 1, 2, 3, 2])],
        );
        gives(
            "aten::pad",
            &mode("replicate", &[1, 1]),
            &[i64s(&[1, 5], &[1, 1, 2, 3, 3])],
        );
        gives(
            "aten::pad",
            &mode("circular", &[1, 1]),
            &[i64s(&[1, 5], &[3, 1, 2, 3, 1])],
        );
        assert!(try_run("aten::pad", &mode("reflect", &[3, 0]), std::slice::from_ref(&x)).is_err());
        assert!(try_run("aten::pad", &mode("constant", &[-9, 0]), std::slice::from_ref(&x)).is_err());
    }
}
