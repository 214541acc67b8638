//! Blobs are loaded and run. They are judged by the names of their form, in `Run::check_blob`.

use crate::ops::{OPERATORS, Operator};
use delegraph_sdk::{Context, Error, Session, TensorOut, TensorView};

struct Step {
    operator: &'static Operator,
    a: usize,
    b: usize,
}

/// A loaded blob.
pub struct Steps {
    inputs: usize,
    steps: Vec<Step>,
    outputs: Vec<usize>,
    /// What each step makes, kept between runs, and the input whose sizes it has.
    made: Vec<(Vec<f32>, usize)>,
}

impl Steps {
    /// The host has checked the blob's hash, not its meaning: whatever is there must be bounded.
    pub fn read(code: &[u8]) -> Result<Steps, Error> {
        let cut = || Error::corrupt("the list of steps is cut short");
        let words: Vec<usize> = code
            .chunks_exact(4)
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]) as usize)
            .collect();
        let (&[inputs, count, outputs], words) = words.split_first_chunk::<3>().ok_or_else(cut)?;
        let whole = code.len() % 4 == 0 && words.len() as u64 == count as u64 * 3 + outputs as u64;
        if !whole || inputs == 0 || inputs > 1_000_000 {
            return Err(cut());
        }
        let (list, results) = words.split_at(count * 3);
        let mut steps = Vec::new();
        for (i, step) in list.chunks_exact(3).enumerate() {
            let (code, a, b) = (step[0], step[1], step[2]);
            match OPERATORS.iter().find(|operator| usize::from(operator.code) == code) {
                Some(operator) if a < inputs + i && b < inputs + i => steps.push(Step { operator, a, b }),
                _ => return Err(Error::corrupt(format!("step {i} makes no sense"))),
            }
        }
        if results.iter().any(|slot| *slot >= inputs + count) {
            return Err(Error::corrupt("an output that nothing makes"));
        }
        let made = steps.iter().map(|_| (Vec::new(), 0)).collect();
        Ok(Steps {
            inputs,
            steps,
            outputs: results.to_vec(),
            made,
        })
    }
}

impl Session for Steps {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        _: &Context<'_>,
    ) -> Result<(), Error> {
        if inputs.len() != self.inputs || outputs.len() != self.outputs.len() {
            return Err(Error::invalid("another number of tensors than was compiled for"));
        }
        let given: Option<Vec<&[f32]>> = inputs.iter().map(|tensor| tensor.elements::<f32>()).collect();
        let given = given.ok_or_else(|| Error::invalid("f32 only"))?;
        for (i, step) in self.steps.iter().enumerate() {
            // A step reads what earlier ones made.
            let (before, rest) = self.made.split_at_mut(i);
            let read = |slot: usize| match slot.checked_sub(given.len()) {
                None => (given[slot], slot),
                Some(step) => (before[step].0.as_slice(), before[step].1),
            };
            let ((a, origin), (b, _)) = (read(step.a), read(step.b));
            if a.len() != b.len() {
                return Err(Error::invalid("operands of different sizes"));
            }
            let (room, like) = &mut rest[0];
            room.resize(a.len(), 0.0);
            *like = origin;
            // The chip would run here. Work for several cores goes to `Context::parallel_for`: make no threads of your own.
            (step.operator.run)(a, if step.operator.operands > 1 { b } else { &[] }, room);
        }
        for (out, slot) in outputs.iter_mut().zip(&self.outputs) {
            let (from, origin) = match slot.checked_sub(given.len()) {
                None => (given[*slot], *slot),
                Some(step) => (self.made[step].0.as_slice(), self.made[step].1),
            };
            // An output comes with its largest sizes; the actual ones are stated here.
            out.set_sizes(inputs[origin].sizes)?;
            let room = out.elements::<f32>().and_then(|room| room.get_mut(..from.len()));
            room.ok_or_else(|| Error::invalid("an output that is not f32"))?
                .copy_from_slice(from);
        }
        Ok(())
    }
}
