//! Rows that lie across memory, as those along any dimension but the last: neighbours are worked on side by side, so that memory is
//! read in its order.

use crate::lanes::Reader;
use crate::rows::{DimSet, Starts};
use crate::wide::Wide;
use crate::{KernelError, Tensor};
use delegraph_types::Dims;

/// Neighbours from which on it is worth while.
const LEAST: usize = 8;

/// The rows of a tensor along some dimensions, none of which is the last.
pub(crate) struct Columns<'a, W> {
    reader: Reader<'a, W>,
    layout: Layout,
}

/// Where rows lie in a strided tensor: `columns` neighbours begin at each of `starts`, and have an element at each of `steps` from there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    starts: Starts,
    steps: Starts,
    columns: usize,
}

impl Layout {
    /// Of rows along `set`; `None` where too few neighbours lie side by side.
    pub fn of(sizes: &Dims, strides: &Dims, set: DimSet) -> Option<Layout> {
        let mut columns = 1i64;
        let mut first = sizes.rank();
        while first > 0 && !set.has(first - 1) && (strides[first - 1] == columns || sizes[first - 1] == 1) {
            first -= 1;
            columns = columns.checked_mul(sizes[first])?;
        }
        // Dimensions of neither kind: rows begin in these.
        let outside = (0..first).fold(
            DimSet::none(),
            |outside, d| {
                if set.has(d) { outside } else { outside.with(d) }
            },
        );
        let columns = usize::try_from(columns).ok().filter(|&columns| columns >= LEAST)?;
        Some(Layout {
            starts: Starts::new(sizes, strides, outside.others()),
            steps: Starts::new(sizes, strides, set.others()),
            columns,
        })
    }

    /// How many neighbours there are.
    pub fn width(&self) -> usize {
        self.columns
    }

    /// Calls `f(start, count)` for each group of at most `most` neighbours, of which the first begins at `start`.
    fn groups(
        &self,
        most: usize,
        mut f: impl FnMut(usize, usize) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        for start in self.starts {
            let mut done = 0usize;
            while done < self.columns {
                let count = most.min(self.columns - done);
                f(start + done, count)?;
                done += count;
            }
        }
        Ok(())
    }
}

impl<'a, W: Wide> Columns<'a, W> {
    /// Rows along `set`, as [`Layout::of`].
    pub fn of(tensor: Tensor<'a>, set: DimSet) -> Option<Columns<'a, W>> {
        let layout = Layout::of(tensor.sizes(), tensor.strides(), set)?;
        let columns = [layout.columns as i64];
        Some(Columns {
            reader: Reader::new(tensor, &columns, &[1]),
            layout,
        })
    }

    /// How many neighbours there are.
    pub fn width(&self) -> usize {
        self.layout.width()
    }

    /// Calls `f` with the reader, where a group of at most `most` neighbours begins and its steps, the same of `other`, whose rows are as
    /// many and as wide, and how many they are.
    ///
    /// # Errors
    /// What `f` gives.
    pub fn groups_with(
        mut self,
        other: Layout,
        most: usize,
        mut f: impl FnMut(&mut Reader<'a, W>, Place, Place, usize) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let layout = self.layout;
        let mut others = other.starts;
        let (mut begun, mut there) = (None, 0);
        layout.groups(most, |start, count| {
            // The next rows of `other`, or the next neighbours of the same.
            if begun.is_none_or(|done| done == layout.columns) {
                there = others.next().unwrap_or(0);
                begun = Some(0);
            }
            let done = begun.unwrap_or(0);
            begun = Some(done + count);
            f(
                &mut self.reader,
                (start, layout.steps),
                (there + done, other.steps),
                count,
            )
        })
    }
}

/// Where the first of some neighbours begins, and its steps.
pub(crate) type Place = (usize, Starts);
