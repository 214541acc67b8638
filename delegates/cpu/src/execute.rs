//! Sessions: a program with its weights, run by plans.

use crate::compile::{PROGRAM, WEIGHTS, table};
use crate::program::{Packed, Program, Store};
use crate::states::Kept;
use crate::sys::{ALIGN, Memory, Slot};
use crate::threads::Threads;
use delegraph_cpu_kernels::Pool;
use delegraph_sdk::{Blob, Context, Error, KeptBlob, Session, TensorOut, TensorView, Weights};
use smallvec::SmallVec;
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
    Ok(Box::new(Loaded {
        border: program.border()?,
        kept: program.states()?,
        program,
    }))
}

struct Loaded {
    program: Program,
    border: (usize, usize),
    kept: Vec<Kept>,
}

impl Loaded {
    fn state(&mut self, state: u32) -> Result<&mut Kept, Error> {
        let count = self.kept.len();
        let found = self.kept.get_mut(state as usize);
        found.ok_or_else(|| Error::invalid(format!("there is no state {state}; the session keeps {count}")))
    }
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
        let pool = Threads::new(context);
        let plan = self
            .program
            .plan(inputs.iter().map(|input| input.sizes), pool.threads())?;
        let mut from: SmallVec<[Slot; 16]> = SmallVec::new();
        for input in inputs {
            from.push(Slot::read(input.bytes));
        }
        let mut to: SmallVec<[Slot; 16]> = SmallVec::new();
        for (at, output) in outputs.iter_mut().enumerate() {
            if !self.kept.iter().any(|state| state.output == at) {
                output.set_sizes(plan.output_sizes(at))?;
            }
            to.push(Slot::write(output.bytes));
        }
        for state in &mut self.kept {
            from[state.input] = state.before();
            to[state.output] = state.after();
        }
        let done = plan.run(&from, &to, &pool, context);
        if done.is_err() {
            plan.undo();
        }
        done
    }

    fn state_commit(&mut self, accept: bool, _: &Context<'_>) -> Result<(), Error> {
        match (self.program.last(), accept) {
            (Some(plan), true) => plan.accept(),
            (Some(plan), false) => plan.undo(),
            (None, _) => {}
        }
        if accept {
            self.kept.iter_mut().for_each(Kept::accept);
        }
        Ok(())
    }

    fn state_reset(&mut self, state: u32, _: &Context<'_>) -> Result<(), Error> {
        self.state(state)?.reset();
        Ok(())
    }

    fn state_truncate(&mut self, state: u32, length: u64, _: &Context<'_>) -> Result<(), Error> {
        self.state(state)?.truncate(length)
    }

    fn state_snapshot(&mut self, state: u32, out: &mut [u8], _: &Context<'_>) -> Result<(), Error> {
        let bytes = self.state(state)?.bytes();
        if out.len() != bytes.len() {
            return Err(Error::invalid(format!(
                "room of {} bytes, and the state has {}",
                out.len(),
                bytes.len()
            )));
        }
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn state_restore(&mut self, state: u32, bytes: &[u8], _: &Context<'_>) -> Result<(), Error> {
        self.state(state)?.restore(bytes)
    }
}
