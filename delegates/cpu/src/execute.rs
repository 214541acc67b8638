//! Sessions: a program with its weights, run by plans.

use crate::compile::{PROGRAM, WEIGHTS, table};
use crate::program::{Packed, Program, Store};
use crate::sys::{ALIGN, Memory};
use delegraph_sdk::{Blob, Context, Error, KeptBlob, Session, TensorOut, TensorView, Weights};
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

/// Packed weights where the host has them: in its map of the file.
struct InPlace {
    blob: KeptBlob,
    ranges: Vec<Range<usize>>,
}

impl Packed for InPlace {
    fn bytes(&self, index: u32) -> Result<&[u8], Error> {
        let range = self.ranges.get(index as usize).cloned();
        let range = range.ok_or_else(|| Error::corrupt(format!("the blob has no packed weight {index}")))?;
        Ok(&self.blob.section(WEIGHTS)?[range])
    }
}

/// The packed weights of a blob, which are copied only where the host does not keep them, or keeps them at an odd place.
fn packed(blob: &Blob<'_>) -> Result<Box<dyn Packed>, Error> {
    if !blob.sections.iter().any(|(name, _)| *name == WEIGHTS) {
        return Ok(Box::new(Copied {
            section: Memory::of(&[])?,
            ranges: Vec::new(),
        }));
    }
    let section = blob.section(WEIGHTS)?;
    let ranges = table(section)?;
    let is_aligned = section.as_ptr().addr().is_multiple_of(ALIGN);
    if is_aligned && let Ok(kept) = blob.keep() {
        return Ok(Box::new(InPlace { blob: kept, ranges }));
    }
    Ok(Box::new(Copied {
        ranges,
        section: Memory::of(section)?,
    }))
}

/// Makes a session of a blob.
///
/// # Errors
/// The blob is damaged, or a weight is missing.
pub fn load(blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
    let store = Store {
        host: weights.keep().ok(),
        packed: packed(blob)?,
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
