//! Sessions: a program with its weights, run by plans.

use crate::compile::{PROGRAM, WEIGHTS, table};
use crate::program::{Packed, Program, Store};
use crate::sys::Memory;
use delegraph_sdk::{Blob, Context, Error, Session, TensorOut, TensorView, Weights};
use std::ops::Range;

/// Packed weights in memory of the session's own.
struct Copied {
    section: Memory,
    ranges: Vec<Range<usize>>,
}

impl Packed for Copied {
    fn bytes(&self, index: u32) -> Result<&[u8], Error> {
        let range = self.ranges.get(index as usize).cloned();
        let range = range.ok_or_else(|| Error::corrupt(format!("the blob has no packed weight {index}")))?;
        Ok(&self.section.bytes()[range])
    }
}

/// Makes a session of a blob.
///
/// # Errors
/// The blob is damaged, or a weight is missing.
pub fn load(blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
    let section = match blob.sections.iter().any(|(name, _)| *name == WEIGHTS) {
        true => blob.section(WEIGHTS)?,
        false => &[0; 8],
    };
    let packed = Copied {
        ranges: table(section)?,
        section: Memory::of(section)?,
    };
    let store = Store {
        host: weights.keep().ok(),
        packed: Box::new(packed),
    };
    let program = Program::new(blob.section(PROGRAM)?, store, context.threads())?;
    let border = program.border()?;
    Ok(Box::new(Loaded { program, border }))
}

struct Loaded {
    program: Program,
    border: (usize, usize),
}

impl Session for Loaded {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        if (inputs.len(), outputs.len()) != self.border {
            let (have, want) = ((inputs.len(), outputs.len()), self.border);
            return Err(Error::invalid(format!("{have:?} inputs and outputs, not {want:?}")));
        }
        let plan = self
            .program
            .plan(inputs.iter().map(|input| input.sizes), context.threads())?;
        plan.run(inputs, outputs, context)
    }
}
