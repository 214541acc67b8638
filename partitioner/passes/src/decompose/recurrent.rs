//! Recurrent layers, unrolled over time: the input product of all steps at once, then one step after the other.

use super::{Replacement, Rules};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};

pub(super) const RULES: Rules = &[
    ("aten::lstm.input", |rw| layer(rw, Cell::Lstm)),
    ("aten::gru.input", |rw| layer(rw, Cell::Gru)),
    ("aten::rnn_tanh.input", |rw| layer(rw, Cell::Tanh)),
    ("aten::rnn_relu.input", |rw| layer(rw, Cell::Relu)),
    ("aten::lstm_cell", |rw| {
        let hx = rw.tensors(1)?;
        let [h, c] = hx.as_slice() else {
            return Err(rw.invalid("two states are expected"));
        };
        let state = State { h: *h, c: Some(*c) };
        let state = single(rw, Cell::Lstm, state)?;
        Ok(Some([Some(state.h), state.c].into_iter().flatten().collect()))
    }),
    ("aten::gru_cell", |rw| cell(rw, Cell::Gru)),
    ("aten::rnn_tanh_cell", |rw| cell(rw, Cell::Tanh)),
    ("aten::rnn_relu_cell", |rw| cell(rw, Cell::Relu)),
];

/// More steps than this in one layer would make a program nobody could load: refused.
const MAX_STEPS: i64 = 20_000;

#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Lstm,
    Gru,
    Tanh,
    Relu,
}

impl Cell {
    fn gates(self) -> i64 {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Tanh | Cell::Relu => 1,
        }
    }
}

#[derive(Clone, Copy)]
struct State {
    h: ValueId,
    /// Of an LSTM alone.
    c: Option<ValueId>,
}

/// Weights of one direction of one layer, those of the recurrence transposed once for all steps.
struct Weights {
    input: ValueId,
    input_bias: Option<ValueId>,
    hidden: ValueId,
    hidden_bias: Option<ValueId>,
    /// LSTM with projections.
    projection: Option<ValueId>,
}

/// input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first
fn layer(rw: &mut Rewrite, cell: Cell) -> Replacement {
    let (x, params) = (rw.tensor(0)?, rw.tensors(2)?);
    let hx = match cell {
        Cell::Lstm => rw.tensors(1)?,
        _ => vec![rw.tensor(1)?],
    };
    let (has_biases, layers) = (rw.bool(3)?, rw.int(4)?);
    if rw.bool(6)? && rw.float(5)? != 0.0 {
        return Err(rw.unsupported("dropout in training mode"));
    }
    let (both_ways, batch_first) = (rw.bool(7)?, rw.bool(8)?);
    if rw.rank(x)? != 3 || hx.len() != 1 + usize::from(cell == Cell::Lstm) {
        return Err(rw.invalid("an input of three dimensions and its states are expected"));
    }
    let directions = if both_ways { 2 } else { 1 };
    let runs = usize::try_from(layers).ok().filter(|&l| l > 0).map(|l| l * directions);
    let Some(runs) = runs.filter(|&r| r <= params.len()) else {
        return Err(rw.invalid("the number of layers does not fit the weights"));
    };
    let per_run = params.len() / runs;
    let plain = if has_biases { 4 } else { 2 };
    if per_run * runs != params.len() || !(per_run == plain || (per_run == plain + 1 && cell == Cell::Lstm)) {
        return Err(rw.invalid(format!("{} weights for {runs} layers and directions", params.len())));
    }
    let mut x = if batch_first { rw.transpose(x, 0, 1)? } else { x };
    let steps = match rw.size(x, 0)?.as_int() {
        Some(steps @ 1..=MAX_STEPS) => steps,
        Some(steps) => return Err(rw.unsupported(format!("a sequence of {steps} steps"))),
        None => return Err(rw.unsupported("a sequence of a dynamic number of steps")),
    };
    let (mut last_h, mut last_c) = (Vec::with_capacity(runs), Vec::new());
    for first in (0..runs).step_by(directions) {
        let mut ways = Vec::with_capacity(directions);
        for direction in 0..directions {
            let run = first + direction;
            let own = &params[run * per_run..(run + 1) * per_run];
            let weights = Weights {
                input: own[0],
                hidden: own[1],
                input_bias: has_biases.then(|| own[2]),
                hidden_bias: has_biases.then(|| own[3]),
                projection: own.get(plain).copied(),
            };
            let h = rw.select(hx[0], 0, run as i64)?;
            let c = match hx.get(1) {
                Some(&c) => Some(rw.select(c, 0, run as i64)?),
                None => None,
            };
            let mut state = State { h, c };
            let products = rw.emit("aten::linear", args![x, weights.input, weights.input_bias])?;
            let mut outputs = vec![state.h; steps as usize];
            for i in 0..steps {
                let t = if direction == 0 { i } else { steps - 1 - i };
                let product = rw.select(products, 0, t)?;
                state = step(rw, cell, product, state, &weights)?;
                outputs[t as usize] = state.h;
            }
            ways.push(rw.emit("aten::stack", args![outputs, 0])?);
            last_h.push(state.h);
            last_c.extend(state.c);
        }
        x = rw.cat(ways, 2)?;
    }
    let y = if batch_first { rw.transpose(x, 0, 1)? } else { x };
    let mut out = vec![y, rw.emit("aten::stack", args![last_h, 0])?];
    if cell == Cell::Lstm {
        out.push(rw.emit("aten::stack", args![last_c, 0])?);
    }
    Ok(Some(out))
}

fn cell(rw: &mut Rewrite, cell: Cell) -> Replacement {
    let state = State {
        h: rw.tensor(1)?,
        c: None,
    };
    Ok(Some(vec![single(rw, cell, state)?.h]))
}

/// input, hx, w_ih, w_hh, b_ih, b_hh
fn single(rw: &mut Rewrite, cell: Cell, state: State) -> Result<State, PassError> {
    let x = rw.tensor(0)?;
    let unbatched = rw.rank(x)? == 1;
    let hidden = rw.tensor(3)?;
    let weights = Weights {
        input: rw.tensor(2)?,
        input_bias: rw.optional_tensor(4)?,
        hidden,
        hidden_bias: rw.optional_tensor(5)?,
        projection: None,
    };
    let mut product = rw.emit("aten::linear", args![x, weights.input, weights.input_bias])?;
    let mut state = state;
    if unbatched {
        product = rw.unsqueeze(product, 0)?;
        state.h = rw.unsqueeze(state.h, 0)?;
        state.c = match state.c {
            Some(c) => Some(rw.unsqueeze(c, 0)?),
            None => None,
        };
    }
    let mut state = step(rw, cell, product, state, &weights)?;
    if unbatched {
        state.h = rw.squeeze(state.h, 0)?;
        state.c = match state.c {
            Some(c) => Some(rw.squeeze(c, 0)?),
            None => None,
        };
    }
    Ok(state)
}

/// One step. `product` is `[batch, gates * hidden]`, biases of the input included.
fn step(rw: &mut Rewrite, cell: Cell, product: ValueId, state: State, weights: &Weights) -> Result<State, PassError> {
    // Weights are read as they stand, so that a program holds them once.
    let recurrent = rw.emit("aten::linear", args![state.h, weights.hidden, weights.hidden_bias])?;
    match cell {
        Cell::Tanh | Cell::Relu => {
            let sum = rw.add(product, recurrent)?;
            let op = if cell == Cell::Tanh { "aten::tanh" } else { "aten::relu" };
            let h = rw.unary(op, sum)?;
            Ok(State { h, c: None })
        }
        Cell::Lstm => {
            let sum = rw.add(product, recurrent)?;
            let parts = gates(rw, cell, sum)?;
            let c = state.c.ok_or_else(|| rw.invalid("an LSTM without a cell state"))?;
            let input = rw.unary("aten::sigmoid", parts[0])?;
            let forget = rw.unary("aten::sigmoid", parts[1])?;
            let new = rw.unary("aten::tanh", parts[2])?;
            let output = rw.unary("aten::sigmoid", parts[3])?;
            let (kept, added) = (rw.mul(forget, c)?, rw.mul(input, new)?);
            let c = rw.add(kept, added)?;
            let shown = rw.unary("aten::tanh", c)?;
            let mut h = rw.mul(output, shown)?;
            if let Some(projection) = weights.projection {
                h = rw.emit("aten::linear", args![h, projection, Arg::None])?;
            }
            Ok(State { h, c: Some(c) })
        }
        Cell::Gru => {
            let (from_x, from_h) = (gates(rw, cell, product)?, gates(rw, cell, recurrent)?);
            let reset = rw.add(from_x[0], from_h[0])?;
            let reset = rw.unary("aten::sigmoid", reset)?;
            let update = rw.add(from_x[1], from_h[1])?;
            let update = rw.unary("aten::sigmoid", update)?;
            let past = rw.mul(reset, from_h[2])?;
            let new = rw.add(from_x[2], past)?;
            let new = rw.unary("aten::tanh", new)?;
            // (h - new) * update + new
            let gap = rw.sub(state.h, new)?;
            let kept = rw.mul(gap, update)?;
            let h = rw.add(kept, new)?;
            Ok(State { h, c: None })
        }
    }
}

/// Equal pieces of the last dimension, one a gate.
fn gates(rw: &mut Rewrite, cell: Cell, x: ValueId) -> Result<Vec<ValueId>, PassError> {
    let count = cell.gates();
    let size = rw.size(x, 1)?.floor_div(Expr::Int(count));
    let sizes = vec![size; count as usize];
    rw.emit_many("aten::split_with_sizes", args![x, sizes, 1])
}
