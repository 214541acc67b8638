//! A graph becomes a list of steps, in little-endian words of 32 bits:
//! `inputs, steps, outputs | for each step: code, slot a, slot b | for each output: slot`.
//!
//! Tensors lie in numbered slots: the inputs first, then what each step makes.

use crate::caps;
use delegraph_sdk::image::{ImageView, ValueIndex};
use delegraph_sdk::{Compiled, Error};

/// The blob of a graph of which every node was taken.
pub fn compile(graph: &ImageView<'_>) -> Result<Compiled, Error> {
    let mut slots: Vec<ValueIndex> = graph.inputs().iter().collect();
    let slot = |slots: &[ValueIndex], value: ValueIndex| {
        let place = slots.iter().position(|v| *v == value);
        place
            .map(|i| i as u32)
            .ok_or_else(|| Error::unsupported("a value that no step makes"))
    };
    let mut words = vec![slots.len() as u32, graph.node_count(), graph.outputs().len() as u32];
    for node in graph.nodes() {
        // It took every node; should one be here all the same, naming it makes the host try again without it.
        let operator = caps::accept(&node).map_err(|(_, text)| Error::unsupported(text).at(node.index()))?;
        words.push(u32::from(operator.code));
        for i in 0..2 {
            let operand = node.arg(if i < operator.operands { i } else { 0 }).value();
            let operand = operand.ok_or_else(|| Error::internal("an operand that is no tensor"))?;
            words.push(slot(&slots, operand)?);
        }
        slots.extend(node.outputs().iter());
    }
    for output in graph.outputs().iter() {
        words.push(slot(&slots, output)?);
    }
    Ok(words
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect::<Vec<u8>>()
        .into())
}
