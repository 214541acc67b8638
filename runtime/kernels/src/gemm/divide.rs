//! A product divided among threads: rows or columns of C, each part with room of its own.

use super::number::Sum;
use super::view::MatrixMut;
use super::{few, room};
use crate::parallel::portion;
use delegraph_types::Parallel;

/// Parts have a multiple of this many rows or columns: whole tiles, and whole groups of dot products, as the undivided product has.
const MULTIPLE: usize = 2 * few::CHUNK;

/// How a product is divided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Division {
    pub of_rows: bool,
    /// Rows or columns of a part.
    len: usize,
    pub parts: usize,
    /// Elements of panels for each part.
    pub room: usize,
}

impl Division {
    pub fn of<S: Sum>(parallel: Parallel, m: usize, k: usize, n: usize) -> Division {
        let of_rows = m > n;
        let (along, other) = if of_rows { (m, n) } else { (n, m) };
        // Some sixteen multiplications a nanosecond, and not more than some elements from memory.
        let units = (other.saturating_mul(k) / 16).max(k / 4);
        let len = portion(parallel, along, units, MULTIPLE);
        let parts = along.div_ceil(len).max(1);
        let needed = |len| {
            if of_rows {
                room::<S>(len, k, n)
            } else {
                room::<S>(m, k, len)
            }
        };
        if parts == 1 {
            return Division {
                of_rows,
                len,
                parts,
                room: needed(along),
            };
        }
        // A smaller part can need more: sizes of blocks are rounded up.
        let last = along - (parts - 1) * len;
        Division {
            of_rows,
            len,
            parts,
            room: needed(len).max(needed(last)),
        }
    }

    /// The parts of C: the first row or column, the part, its room.
    pub fn parts<'p, S: Sum>(
        self,
        c: MatrixMut<'p, S>,
        panels: &'p mut [S::Packed],
    ) -> impl ExactSizeIterator<Item = (usize, MatrixMut<'p, S>, &'p mut [S::Packed])> {
        let mut rest = Some(c);
        let mut panels = panels.chunks_mut(self.room.max(1));
        (0..self.parts).map(move |i| {
            let whole = rest.take().unwrap_or_else(MatrixMut::empty);
            let (part, others) = match (self.of_rows, i + 1 == self.parts) {
                (_, true) => (whole, MatrixMut::empty()),
                (true, false) => whole.split_rows(self.len),
                (false, false) => whole.split_columns(self.len),
            };
            rest = Some(others);
            (i * self.len, part, panels.next().unwrap_or(&mut []))
        })
    }
}

/// Elements of panels that a product of m x k by k x n needs to be computed on these threads.
pub(crate) fn room_on<S: Sum>(parallel: Parallel, m: usize, k: usize, n: usize) -> usize {
    let division = Division::of::<S>(parallel, m, k, n);
    division.parts.saturating_mul(division.room)
}
