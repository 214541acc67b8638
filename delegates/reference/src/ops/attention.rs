//! Scaled dot-product attention.

use super::elementwise::{spread_bools, spread_floats};
use super::matmul::{matrix_product, product};
use super::softmax::softmax;
use super::view::strided;
use crate::call::Call;
use crate::caps::{Operator, Refusal, dtype, op, rank};
use crate::tensor::{Data, Tensor};
use crate::walk::strides;
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

/// Heads, each `times` times in a row.
fn repeated(x: &Tensor, times: usize) -> Result<Tensor, Error> {
    let [batch @ .., heads, length, width] = x.sizes() else {
        return Err(Error::invalid("there is no dimension of heads"));
    };
    let steps = strides(x.sizes());
    let cut = batch.len() + 1;
    let sizes = [&x.sizes()[..cut], &[times, *length, *width]].concat();
    let wide = strided(x, sizes, &[&steps[..cut], &[0], &steps[cut..]].concat(), 0)?;
    wide.reshaped([batch, &[heads.saturating_mul(times), *length, *width]].concat())
}

fn attention(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let (query, key, value) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let heads = |x: &Tensor| {
        x.rank()
            .checked_sub(3)
            .and_then(|d| x.sizes().get(d).copied())
            .unwrap_or(1)
            .max(1)
    };
    let grouped = call.bool(7)?;
    let widened = |x: &Tensor| match heads(query) / heads(x) {
        times if grouped && times > 1 => repeated(x, times),
        _ => Ok(x.clone()),
    };
    let (key, value) = (widened(key)?, widened(value)?);
    let width = query.sizes().last().copied().unwrap_or(1);
    let scale = call
        .optional_scalar(6)?
        .map_or(1.0 / (width as f64).sqrt(), |s| s.float());
    let (sizes, Data::Float(mut scores)) = product(query, &key)? else {
        return Err(Error::internal("attention of integers"));
    };
    scores.iter_mut().for_each(|s| *s *= scale);
    let columns = sizes.last().copied().unwrap_or(0);
    let rows = sizes[sizes.len() - 2];
    if call.bool(5)? {
        for (i, score) in scores.iter_mut().enumerate() {
            if i % columns > i / columns % rows {
                *score = f64::NEG_INFINITY;
            }
        }
    }
    match call.optional(3)? {
        Some(mask) if mask.dtype() == DType::BOOL => {
            let mask = spread_bools(mask, &sizes)?;
            let hidden = scores.iter_mut().zip(mask).filter(|(_, seen)| !seen);
            hidden.for_each(|(score, _)| *score = f64::NEG_INFINITY);
        }
        Some(mask) => {
            let mask = spread_floats(mask, &sizes)?;
            scores.iter_mut().zip(mask).for_each(|(score, mask)| *score += mask);
        }
        None => {}
    }
    for row in scores.chunks_mut(columns.max(1)) {
        // A row that sees nothing gives zeros, not NaN.
        if row.iter().all(|s| *s == f64::NEG_INFINITY) {
            row.fill(0.0);
        } else {
            softmax(row);
        }
    }
    let shares = Tensor::new(DType::F64, sizes, Data::Float(scores))?;
    let (sizes, data) = matrix_product(&shares, &value)?;
    call.one(sizes, data)
}

fn check(node: &NodeView<'_>) -> Result<(), Refusal> {
    for i in 0..3 {
        match (dtype(node, i), rank(node, i)) {
            (Some(dtype), Some(2..)) if dtype.is_float() => {}
            (Some(dtype), Some(rank)) => {
                return Err(Refusal::dtype(format!("attention of {dtype} tensors of rank {rank}")));
            }
            _ => return Err(Refusal::attribute("attention needs three tensors")),
        }
    }
    if dtype(node, 3).is_some_and(|mask| !mask.is_float() && mask != DType::BOOL) {
        return Err(Refusal::dtype("a mask is bool or of floats"));
    }
    match node.arg(4).float() {
        Some(0.0) => Ok(()),
        _ => Err(Refusal::attribute("attention with dropout is random")),
    }
}

/// The rows.
pub const TABLE: &[Operator] = &[op(
    "aten::scaled_dot_product_attention",
    "Tensor Tensor Tensor Tensor? float bool float? bool",
    check,
    attention,
)];

#[cfg(test)]
mod tests {
    use crate::testing::{Item, f32s, gives};
    use delegraph_sdk::image::Arg;

    #[test]
    fn a_causal_row_sees_what_came_before() {
        let x = f32s(&[1, 2, 1], &[0.0, 0.0]);
        let value = f32s(&[1, 2, 1], &[1.0, 3.0]);
        let items = |causal| {
            let tail = [
                Arg::None,
                Arg::Float(0.0),
                Arg::Bool(causal),
                Arg::None,
                Arg::Bool(false),
            ];
            let head = [(&x).into(), (&x).into(), (&value).into()];
            head.into_iter().chain(tail.map(Item::from)).collect::<Vec<_>>()
        };
        let name = "aten::scaled_dot_product_attention";
        gives(name, &items(false), &[f32s(&[1, 2, 1], &[2.0, 2.0])]);
        gives(name, &items(true), &[f32s(&[1, 2, 1], &[1.0, 2.0])]);
    }
}
