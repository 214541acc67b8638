//! Sessions: a program with its weights, run by plans.

use crate::compile::table;
use crate::families::Families;
use crate::family::Family;
use crate::program::{Packed, Program, Store};
use crate::states::Kept;
use crate::sys::{ALIGN, Memory, Slot};
use crate::threads::Threads;
use delegraph_cpu_kernels::Pool;
use delegraph_sdk::{Blob, Context, Error, KeptBlob, LogLevel, Session, TensorOut, TensorView, Weights};
use smallvec::SmallVec;
use std::ops::Range;

/// A section of packed weights.
struct Part {
    name: String,
    ranges: Vec<Range<usize>>,
    /// A copy, where the host does not keep the blob, or keeps it at an odd place.
    copied: Option<Memory>,
}

/// The packed weights of a blob, where the host has them: in its map of the file.
struct Sections {
    blob: Option<KeptBlob>,
    parts: Vec<Part>,
}

impl Packed for Sections {
    fn bytes(&self, index: u32) -> Result<&[u8], Error> {
        let missing = || Error::corrupt(format!("the blob has no packed weight {index}"));
        let mut at = index as usize;
        for part in &self.parts {
            let Some(range) = part.ranges.get(at) else {
                at -= part.ranges.len();
                continue;
            };
            let section = match (&part.copied, &self.blob) {
                (Some(memory), _) => memory.bytes(),
                (None, Some(blob)) => blob.section(&part.name)?,
                (None, None) => return Err(missing()),
            };
            return section.get(range.clone()).ok_or_else(missing);
        }
        Err(missing())
    }
}

/// The packed weights in these sections; no other one is read.
fn packed(blob: &Blob<'_>, sections: &[String]) -> Result<Box<dyn Packed>, Error> {
    let kept = blob.keep().ok();
    let mut parts = Vec::with_capacity(sections.len());
    for name in sections {
        let section = blob.section(name)?;
        let in_place = kept.is_some() && section.as_ptr().addr().is_multiple_of(ALIGN);
        parts.push(Part {
            name: name.clone(),
            ranges: table(section)?,
            copied: if in_place { None } else { Some(Memory::of(section)?) },
        });
    }
    Ok(Box::new(Sections { blob: kept, parts }))
}

/// Makes a session of a blob, of the program that [`Families::choose`] chooses.
///
/// # Errors
/// The blob is damaged, or a weight is missing.
pub fn load(
    blob: &Blob<'_>,
    weights: &Weights<'_>,
    wanted: Option<&[Family]>,
    context: &Context<'_>,
) -> Result<Box<dyn Session>, Error> {
    let families = Families::of(&blob.sections)?;
    let chosen = families.choose(wanted);
    let (entry, family) = chosen.ok_or_else(|| Error::corrupt("the blob has no program"))?;
    if context.log_enabled(LogLevel::Debug) {
        let of = family.map_or("a family that is not recorded", Family::name);
        context.log(LogLevel::Debug, &format!("the program and weights are those for {of}"));
    }
    let store = Store {
        host: weights.keep().ok(),
        packed: packed(blob, &entry.weights)?,
    };
    let program = Program::new(blob.section(&entry.program)?, store, context.threads())?;
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
