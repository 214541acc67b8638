//! States that a session keeps: where they lie now, and where a run makes them.

use crate::sys::{Memory, Slot};
use delegraph_sdk::Error;
use delegraph_sdk::image::ImageView;

/// Bytes of a state that are looked at together.
const PAGE: usize = 4096;

/// A state.
pub struct Kept {
    /// Its position among the inputs.
    pub input: usize,
    /// Its position among the outputs.
    pub output: usize,
    now: Memory,
    /// What a run makes; `None`: it writes over what there is.
    next: Option<Memory>,
    /// Bytes before the growth axis is walked once, rows of that axis, and bytes of a row.
    growth: Option<[usize; 3]>,
}

/// The states of a program, each 0 at first.
///
/// # Errors
/// One whose sizes are not known, or no memory.
pub fn all(image: &ImageView<'_>) -> Result<Vec<Kept>, Error> {
    let mut kept = Vec::new();
    for state in image.states() {
        let (input, output) = (state.input as usize, state.output as usize);
        let lost = || Error::corrupt(format!("state `{}` is not among the inputs and outputs", state.name));
        let (before, after) = (
            image.inputs().get(input).ok_or_else(lost)?,
            image.outputs().get(output).ok_or_else(lost)?,
        );
        let value = image.value(before);
        let sizes = value
            .const_dims()
            .ok_or_else(|| Error::corrupt(format!("state `{}` has no fixed sizes", state.name)))?;
        let sizes: Vec<usize> = sizes.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        let width = value.dtype().and_then(|dtype| dtype.size()).ok_or_else(lost)?;
        let bytes = sizes
            .iter()
            .try_fold(width, |bytes, size| bytes.checked_mul(*size))
            .ok_or_else(lost)?;
        let in_place = image.nodes().any(|node| {
            node.op() == crate::steps::state::NAME
                && node.outputs().get(0) == Some(after)
                && node.arg(0).value() == Some(before)
        });
        kept.push(Kept {
            input,
            output,
            now: Memory::new(bytes)?,
            next: if in_place { None } else { Some(Memory::new(bytes)?) },
            growth: state
                .growth_axis
                .map(|axis| axis as usize)
                .filter(|axis| *axis < sizes.len())
                .map(|axis| {
                    let row = sizes[axis + 1..].iter().product::<usize>() * width;
                    [sizes[..axis].iter().product(), sizes[axis], row]
                }),
        });
    }
    Ok(kept)
}

impl Kept {
    /// Where a run reads it.
    pub fn before(&mut self) -> Slot {
        let bytes = self.now.size();
        self.now.slot(0, bytes)
    }

    /// Where a run makes it.
    pub fn after(&mut self) -> Slot {
        let bytes = self.now.size();
        self.next.as_mut().unwrap_or(&mut self.now).slot(0, bytes)
    }

    /// What the last run made counts.
    pub fn accept(&mut self) {
        if let Some(next) = &mut self.next {
            std::mem::swap(next, &mut self.now);
        }
    }

    /// Makes all of it 0.
    pub fn reset(&mut self) {
        zero(self.now.bytes_mut());
    }

    /// Keeps the first rows of the growth axis.
    ///
    /// # Errors
    /// There is none.
    pub fn truncate(&mut self, length: u64) -> Result<(), Error> {
        let [outer, size, row] = self
            .growth
            .ok_or_else(|| Error::unsupported("the state does not grow"))?;
        let kept = usize::try_from(length).unwrap_or(size).min(size);
        for part in 0..outer {
            let start = part * size * row;
            zero(&mut self.now.bytes_mut()[start + kept * row..start + size * row]);
        }
        Ok(())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.now.bytes()
    }

    /// Makes it these bytes.
    ///
    /// # Errors
    /// They are more or fewer.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() != self.now.size() {
            return Err(Error::invalid(format!(
                "{} bytes, and the state has {}",
                bytes.len(),
                self.now.size()
            )));
        }
        // What is there already is not written: memory that no run has reached, of a cache that is not full, is never touched.
        for (to, from) in self.now.bytes_mut().chunks_mut(PAGE).zip(bytes.chunks(PAGE)) {
            if to != from {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }
}

/// Makes bytes 0, and does not write to those that are.
fn zero(bytes: &mut [u8]) {
    for page in bytes.chunks_mut(PAGE) {
        if page.iter().any(|byte| *byte != 0) {
            page.fill(0);
        }
    }
}
