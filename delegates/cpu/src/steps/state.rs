//! Rows of a state are written where the state lies; what was there is remembered until the run counts.

use super::Step;
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::Pool;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};
use std::sync::{Mutex, PoisonError};

/// `cpu::update_rows(state, dim, index, source)`: as `aten::index_copy`, in place. The result is the state itself.
pub const NAME: &str = "cpu::update_rows";

/// What a run wrote over: places in order, and the rows that were there, each for every outer index.
#[derive(Default)]
struct Before {
    places: Vec<usize>,
    rows: Vec<u8>,
}

struct Update {
    /// How often rows of the dimension lie behind each other.
    outer: usize,
    /// Rows of the dimension.
    size: usize,
    /// Bytes of a row.
    row: usize,
    /// Indices.
    count: usize,
    before: Mutex<Before>,
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (state, dim, index, source) = (node.value(0)?, node.int(1)?, node.value(2)?, node.value(3)?);
    let sizes = shapes.of(state);
    let width = shapes.dtype(state).size().unwrap_or(0);
    let dim = usize::try_from(dim).ok().filter(|dim| *dim < sizes.len());
    let dim = dim.ok_or_else(|| node.misfit(1, "a dimension"))?;
    let count = shapes.count(index);
    let mut written = sizes.to_vec();
    written[dim] = count;
    let fits = shapes.dtype(index) == DType::I64
        && shapes.dtype(source) == shapes.dtype(state)
        && shapes.of(source) == written
        && shapes.of(node.output(0)?) == sizes
        && width > 0;
    match fits {
        true => Ok(Box::new(Update {
            outer: sizes[..dim].iter().product(),
            size: sizes[dim],
            row: sizes[dim + 1..].iter().product::<usize>() * width,
            count,
            before: Mutex::default(),
        })),
        false => Err(Error::invalid(format!(
            "rows of {:?} are no rows of {sizes:?}",
            shapes.of(source)
        ))),
    }
}

impl Step for Update {
    fn run(&self, io: Io<'_>, _: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let index: &[i64] = io.input(1);
        let source = io.bytes(2);
        // The state is the output alone: as an input it would be borrowed twice.
        let state = io.output_bytes(0);
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.places.clear();
        before.rows.clear();
        for place in index {
            let place = usize::try_from(*place).ok().filter(|place| *place < self.size);
            let place =
                place.ok_or_else(|| Error::invalid(format!("an index of a state is not below {}", self.size)))?;
            before.places.push(place);
        }
        let Before { places, rows } = &mut *before;
        for (at, place) in places.iter().enumerate() {
            for outer in 0..self.outer {
                let to = (outer * self.size + place) * self.row;
                let to = &mut state[to..to + self.row];
                rows.extend_from_slice(to);
                to.copy_from_slice(&source[(outer * self.count + at) * self.row..][..self.row]);
            }
        }
        Ok(())
    }

    fn accept(&self) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.places.clear();
    }

    fn undo(&self, state: &mut [u8]) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let each = self.outer * self.row;
        // From the last to the first: a row that was written twice gets what it had first.
        for (at, place) in before.places.iter().enumerate().rev() {
            // Rows that an error came before were not written.
            let Some(rows) = before.rows.get(at * each..(at + 1) * each) else {
                continue;
            };
            for (outer, row) in rows.chunks_exact(self.row.max(1)).enumerate() {
                let to = (outer * self.size + place) * self.row;
                state[to..to + self.row].copy_from_slice(row);
            }
        }
        before.places.clear();
    }
}
