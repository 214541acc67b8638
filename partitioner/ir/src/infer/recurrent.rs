//! Recurrent layers.

use super::Rule;
use super::call::{Call, Result};
use crate::{Expr, TensorType, Type};

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "lstm" => |c| {
            let hx = c.tensors("hx")?;
            match hx.as_slice() {
                [h, cell] => layer(c, h, &[h, cell]),
                _ => c.invalid("`hx` has to be two tensors"),
            }
        },
        "gru" | "rnn_tanh" | "rnn_relu" => |c| {
            let h = c.tensor("hx")?;
            layer(c, h, &[h])
        },
        "lstm_cell" => |c| match c.tensors("hx")?.as_slice() {
            [h, cell] => Ok(vec![
                c.made(h.dtype, h.shape.clone())?,
                c.made(cell.dtype, cell.shape.clone())?,
            ]),
            _ => c.invalid("`hx` has to be two tensors"),
        },
        "gru_cell" | "rnn_tanh_cell" | "rnn_relu_cell" => |c| c.like(c.tensor("hx")?),
        _ => return None,
    })
}

/// The sequence of outputs, then the last states, which look like the first ones.
fn layer(c: &Call, h: &TensorType, states: &[&TensorType]) -> Result<Vec<Type>> {
    if c.has("batch_sizes") {
        return c.unsupported("a packed sequence");
    }
    let t = c.first()?;
    c.rank_at_least(t, 2)?;
    c.rank_at_least(h, 2)?;
    let directions = if c.bool("bidirectional")? { 2 } else { 1 };
    let mut shape = t.shape.clone();
    shape[t.rank() - 1] = h.shape[h.rank() - 1].clone() * Expr::Int(directions);
    let mut types = vec![c.made(t.dtype, shape)?];
    for state in states {
        types.push(c.made(state.dtype, state.shape.clone())?);
    }
    Ok(types)
}
