//! Recurrent networks and their cells.

use super::elementwise::spread_floats;
use super::join::joined;
use super::matmul::affine;
use super::view::{selected, transposed};
use crate::call::Call;
use crate::caps::{Operator, Refusal, floats, op, rank};
use crate::math::sigmoid;
use crate::tensor::{Data, Tensor};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Made = Result<Vec<Tensor>, Error>;

/// Weights of one layer in one direction.
struct Cell<'a> {
    input: &'a Tensor,
    hidden: &'a Tensor,
    input_bias: Option<&'a Tensor>,
    hidden_bias: Option<&'a Tensor>,
}

/// Kinds of cells; each makes a new state of an input and the last state.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Gates in the order input, forget, cell, output; the state is hidden and cell.
    Lstm,
    /// Gates in the order reset, update, new.
    Gru,
    /// One gate, with a hyperbolic tangent.
    Tanh,
}

impl Kind {
    fn gates(self) -> usize {
        match self {
            Kind::Lstm => 4,
            Kind::Gru => 3,
            Kind::Tanh => 1,
        }
    }

    fn states(self) -> usize {
        if self == Kind::Lstm { 2 } else { 1 }
    }
}

/// Between steps nothing is rounded.
fn wide(sizes: Vec<usize>, values: Vec<f64>) -> Result<Tensor, Error> {
    Tensor::new(DType::F64, sizes, Data::Float(values))
}

impl Cell<'_> {
    /// One step: `x` is `[batch, inputs]`, each state `[batch, size]`.
    fn step(&self, kind: Kind, x: &Tensor, state: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let hidden = state.first().ok_or_else(|| Error::invalid("there is no state"))?;
        let [batch, size] = hidden.sizes()[..] else {
            return Err(Error::invalid("a state has two dimensions"));
        };
        let (from_input_sizes, from_input) = affine(x, self.input, self.input_bias)?;
        let (from_hidden_sizes, from_hidden) = affine(hidden, self.hidden, self.hidden_bias)?;
        let wanted = [batch, kind.gates() * size];
        if from_input_sizes != wanted || from_hidden_sizes != wanted || state.len() != kind.states() {
            return Err(Error::invalid(format!(
                "gates of sizes {from_input_sizes:?}, not {wanted:?}"
            )));
        }
        if state.iter().any(|s| s.sizes() != hidden.sizes()) {
            return Err(Error::invalid("states of different sizes"));
        }
        let mut made = vec![Vec::with_capacity(batch * size); kind.states()];
        for (i, h) in hidden.floats()?.iter().enumerate() {
            let (row, column) = (i / size, i % size);
            let at = |gate: usize| (row * kind.gates() + gate) * size + column;
            let gate = |g: usize| from_input[at(g)] + from_hidden[at(g)];
            match kind {
                Kind::Lstm => {
                    let cell = state[1].floats()?[i];
                    let cell = sigmoid(gate(1)) * cell + sigmoid(gate(0)) * gate(2).tanh();
                    made[0].push(sigmoid(gate(3)) * cell.tanh());
                    made[1].push(cell);
                }
                Kind::Gru => {
                    let (reset, update) = (sigmoid(gate(0)), sigmoid(gate(1)));
                    // The reset gate works after the product: PyTorch's form, not that of the first paper.
                    let new = (from_input[at(2)] + reset * from_hidden[at(2)]).tanh();
                    made[0].push(new + update * (h - new));
                }
                Kind::Tanh => made[0].push(gate(0).tanh()),
            }
        }
        made.into_iter().map(|values| wide(vec![batch, size], values)).collect()
    }
}

/// A cell of the arguments from `first`: two weights, two optional biases.
fn cell<'a>(call: &Call<'a>, first: usize) -> Result<Cell<'a>, Error> {
    Ok(Cell {
        input: call.tensor(first)?,
        hidden: call.tensor(first + 1)?,
        input_bias: call.optional(first + 2)?,
        hidden_bias: call.optional(first + 3)?,
    })
}

fn one_step(call: &Call<'_>, kind: Kind, state: &[&Tensor]) -> Made {
    let x = call.tensor(0)?;
    // A vector is a batch of one.
    let batched = |t: &Tensor| {
        if t.rank() == 1 {
            t.reshaped(vec![1, t.len()])
        } else {
            Ok(t.clone())
        }
    };
    let state: Vec<Tensor> = state.iter().map(|s| batched(s)).collect::<Result<_, _>>()?;
    let made = cell(call, 2)?.step(kind, &batched(x)?, &state)?;
    let finish = |(i, state): (usize, Tensor)| call.make(i, call.out_sizes(i)?, Data::Float(state.to_floats()));
    made.into_iter().enumerate().map(finish).collect()
}

/// All layers, steps and directions. Arguments: input, states, parameters, has_biases, num_layers, dropout, train,
/// bidirectional, batch_first.
fn network(call: &Call<'_>, kind: Kind, states: &[&Tensor]) -> Made {
    let (has_biases, layers) = (call.bool(3)?, call.natural(4)?);
    let directions = if call.bool(7)? { 2 } else { 1 };
    let batch_first = call.bool(8)?;
    let parameters = call.tensors(2)?;
    let per_cell = if has_biases { 4 } else { 2 };
    if Some(parameters.len()) != layers.checked_mul(directions * per_cell) || states.len() != kind.states() {
        return Err(Error::invalid(format!(
            "{} parameters for {layers} layers",
            parameters.len()
        )));
    }
    let x = call.tensor(0)?;
    let mut line = if batch_first { transposed(x, 0, 1)? } else { x.clone() };
    let mut last: Vec<Vec<Tensor>> = vec![Vec::new(); kind.states()];
    for layer in 0..layers {
        let mut made = Vec::new();
        for direction in 0..directions {
            let at = layer * directions + direction;
            let weights = &parameters[at * per_cell..(at + 1) * per_cell];
            let cell = Cell {
                input: weights[0],
                hidden: weights[1],
                input_bias: weights.get(2).copied(),
                hidden_bias: weights.get(3).copied(),
            };
            let steps = line.sizes().first().copied().unwrap_or(0);
            let begin = |s: &&Tensor| match s.sizes().first() {
                Some(count) if *count == layers * directions && s.rank() == 3 => selected(s, 0, at),
                _ => Err(Error::invalid("one state a layer and direction is needed")),
            };
            let mut state: Vec<Tensor> = states.iter().map(begin).collect::<Result<_, _>>()?;
            let mut hidden = vec![None; steps];
            for i in 0..steps {
                let i = if direction == 0 { i } else { steps - 1 - i };
                state = cell.step(kind, &selected(&line, 0, i)?, &state)?;
                hidden[i] = Some(state[0].clone());
            }
            made.push(stacked(hidden.into_iter().flatten())?);
            for (all, state) in last.iter_mut().zip(state) {
                all.push(state);
            }
        }
        line = joined(&made.iter().collect::<Vec<_>>(), 2)?;
    }
    let line = if batch_first { transposed(&line, 0, 1)? } else { line };
    let mut outputs = vec![line.to(call.out_dtype(0)?)?];
    for (i, all) in last.into_iter().enumerate() {
        outputs.push(stacked(all.into_iter())?.to(call.out_dtype(i + 1)?)?);
    }
    Ok(outputs)
}

/// Matrices one upon another, in a new first dimension.
fn stacked(all: impl Iterator<Item = Tensor>) -> Result<Tensor, Error> {
    let widened = |t: Tensor| wide([&[1], t.sizes()].concat(), spread_floats(&t, t.sizes())?);
    let all: Vec<Tensor> = all.map(widened).collect::<Result<_, _>>()?;
    joined(&all.iter().collect::<Vec<_>>(), 0)
}

fn check_network(node: &NodeView<'_>) -> Result<(), Refusal> {
    floats(node)?;
    if rank(node, 0) != Some(3) {
        return Err(Refusal::rank("a sequence has three dimensions: steps, batch, features"));
    }
    match (node.arg(5).float(), node.arg(6).bool()) {
        (Some(0.0), _) | (_, Some(false)) => Ok(()),
        _ => Err(Refusal::attribute("dropout that drops is random")),
    }
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op(
        "aten::lstm.input",
        "Tensor Tensor[] Tensor[] bool int float bool bool bool",
        check_network,
        |c| network(c, Kind::Lstm, &c.tensors(1)?),
    ),
    op(
        "aten::gru.input",
        "Tensor Tensor Tensor[] bool int float bool bool bool",
        check_network,
        |c| network(c, Kind::Gru, &[c.tensor(1)?]),
    ),
    op(
        "aten::rnn_tanh.input",
        "Tensor Tensor Tensor[] bool int float bool bool bool",
        check_network,
        |c| network(c, Kind::Tanh, &[c.tensor(1)?]),
    ),
    op(
        "aten::lstm_cell",
        "Tensor Tensor[] Tensor Tensor Tensor? Tensor?",
        floats,
        |c| one_step(c, Kind::Lstm, &c.tensors(1)?),
    ),
    op(
        "aten::gru_cell",
        "Tensor Tensor Tensor Tensor Tensor? Tensor?",
        floats,
        |c| one_step(c, Kind::Gru, &[c.tensor(1)?]),
    ),
    op(
        "aten::rnn_tanh_cell",
        "Tensor Tensor Tensor Tensor Tensor? Tensor?",
        floats,
        |c| one_step(c, Kind::Tanh, &[c.tensor(1)?]),
    ),
];

#[cfg(test)]
mod tests {
    use crate::testing::{Item, f32s, gives};
    use delegraph_sdk::image::Arg;

    #[test]
    fn cells() {
        let (x, h) = (f32s(&[1, 1], &[1.0]), f32s(&[1, 1], &[2.0]));
        let (w, zero) = (f32s(&[1, 1], &[0.5]), f32s(&[1, 1], &[0.0]));
        let tanh = [
            (&x).into(),
            (&h).into(),
            (&w).into(),
            (&zero).into(),
            Arg::None.into(),
            Arg::None.into(),
        ];
        gives("aten::rnn_tanh_cell", &tanh, &[f32s(&[1, 1], &[0.5f32.tanh()])]);
        // All gates see 0: half of the old state, and nothing new.
        let (wx, wh) = (f32s(&[3, 1], &[0.0; 3]), f32s(&[3, 1], &[0.0; 3]));
        let gru = [
            (&x).into(),
            (&h).into(),
            (&wx).into(),
            (&wh).into(),
            Arg::None.into(),
            Arg::None.into(),
        ];
        gives("aten::gru_cell", &gru, &[f32s(&[1, 1], &[1.0])]);
        let w4 = f32s(&[4, 1], &[0.0; 4]);
        let states = Item::Tensors(vec![zero.clone(), h.clone()]);
        let lstm = [
            (&x).into(),
            states,
            (&w4).into(),
            (&w4).into(),
            Arg::None.into(),
            Arg::None.into(),
        ];
        gives(
            "aten::lstm_cell",
            &lstm,
            &[f32s(&[1, 1], &[0.5 * 1f32.tanh()]), f32s(&[1, 1], &[1.0])],
        );
    }
}
