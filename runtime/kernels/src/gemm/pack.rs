//! Panels: blocks of A and B, laid out in the order in which tiles read them.
//!
//! A panel is a few lanes wide (rows of A, columns of B). It holds, for each step of depth, its lanes one after the other, of
//! each as many elements of depth as a group has.

use super::number::{Factor, Packed, Sum};
use super::view::Matrix;
use core::ops::Range;

/// How wide panels are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widths {
    /// Lanes of all panels but the last.
    pub full: usize,
    /// The last one's lanes are a multiple of this, those too many being zeros.
    pub multiple: usize,
}

impl Widths {
    /// Lanes of the panel of which `have` are left.
    pub fn of(&self, have: usize) -> usize {
        have.min(self.full).next_multiple_of(self.multiple.max(1))
    }
}

/// A matrix of which blocks can be had as panels: one in memory, or one that is made when it is asked for.
pub(crate) trait Panels<S: Sum> {
    /// Lanes and depth.
    fn dims(&self) -> (usize, usize);
    /// Writes lanes and depth of a block in panels of `widths`; all of `panels` is written.
    fn pack(&self, lanes: Range<usize>, depth: Range<usize>, widths: Widths, panels: &mut [S::Packed]);
    /// The elements where they lie, from the given one on, and how far apart lanes and steps of depth are, if they need not be
    /// packed.
    fn direct(&self, _lane: usize, _depth: usize) -> Option<(&[S::Packed], usize, usize)> {
        None
    }

    /// Some of the lanes.
    fn lanes(&self, first: usize, count: usize) -> Lanes<'_, Self>
    where
        Self: Sized,
    {
        Lanes {
            all: self,
            first,
            count,
        }
    }
}

/// See [`Panels::lanes`].
pub(crate) struct Lanes<'p, P> {
    all: &'p P,
    first: usize,
    count: usize,
}

impl<S: Sum, P: Panels<S>> Panels<S> for Lanes<'_, P> {
    fn dims(&self) -> (usize, usize) {
        (self.count, self.all.dims().1)
    }

    fn pack(&self, lanes: Range<usize>, depth: Range<usize>, widths: Widths, panels: &mut [S::Packed]) {
        let lanes = self.first + lanes.start..self.first + lanes.end;
        self.all.pack(lanes, depth, widths, panels);
    }

    fn direct(&self, lane: usize, depth: usize) -> Option<(&[S::Packed], usize, usize)> {
        self.all.direct(self.first + lane, depth)
    }
}

/// The rows are lanes, the columns depth.
impl<T: Factor> Panels<T::Sum> for Matrix<'_, T> {
    fn dims(&self) -> (usize, usize) {
        (self.rows(), self.columns())
    }

    fn pack(&self, lanes: Range<usize>, depth: Range<usize>, widths: Widths, panels: &mut [Packed<T>]) {
        let block = self.block((lanes.start, depth.start), (lanes.len(), depth.len()));
        let group = T::Sum::GROUP;
        let groups = block.columns().div_ceil(group);
        if block.row_stride() == 1 && group == 1 {
            return pack_lines(block, widths, panels);
        }
        let mut rest = panels;
        for first in (0..block.rows()).step_by(widths.full.max(1)) {
            let lanes = block.block((first, 0), (widths.full, usize::MAX));
            let width = widths.of(block.rows() - first);
            let (panel, others) = core::mem::take(&mut rest).split_at_mut(width * groups * group);
            rest = others;
            let done = T::few().interleave(lanes, width, panel);
            if done < lanes.columns() {
                let lanes = lanes.block((0, done), (usize::MAX, usize::MAX));
                pack_panel(lanes, width, &mut panel[done * width..]);
            }
        }
    }

    fn direct(&self, lane: usize, depth: usize) -> Option<(&[Packed<T>], usize, usize)> {
        if T::Sum::GROUP > 1 {
            return None;
        }
        let block = self.block((lane, depth), (usize::MAX, usize::MAX));
        Some((T::packed(block.data())?, self.row_stride(), self.column_stride()))
    }
}

/// One panel from any strides.
fn pack_panel<T: Factor>(lanes: Matrix<T>, width: usize, panel: &mut [Packed<T>]) {
    let group = T::Sum::GROUP;
    let (data, row_stride, column_stride) = (lanes.data(), lanes.row_stride(), lanes.column_stride());
    for (step, cells) in panel.chunks_exact_mut(width * group).enumerate() {
        for (lane, cell) in cells.chunks_exact_mut(group).enumerate() {
            for (i, slot) in cell.iter_mut().enumerate() {
                let depth = step * group + i;
                *slot = if lane < lanes.rows() && depth < lanes.columns() {
                    data[lane * row_stride + depth * column_stride].widen()
                } else {
                    Default::default()
                };
            }
        }
    }
}

/// Panels from lanes that lie side by side: each step of depth is a line in memory, which is read from one end to the other,
/// four at a time so that runs of memory are written too.
fn pack_lines<T: Factor>(lanes: Matrix<T>, widths: Widths, panels: &mut [Packed<T>]) {
    let (count, depth, stride) = (lanes.rows(), lanes.columns(), lanes.column_stride());
    for top in (0..depth).step_by(4) {
        let bottom = (top + 4).min(depth);
        for first in (0..count).step_by(widths.full.max(1)) {
            let (have, width) = (widths.full.min(count - first), widths.of(count - first));
            // All panels before are full.
            let panel = &mut panels[first * depth..][top * width..bottom * width];
            for (step, cells) in (top..bottom).zip(panel.chunks_exact_mut(width)) {
                let line = &lanes.data()[step * stride + first..][..have];
                match have {
                    _ if have < width => widen_some(line, cells),
                    32 => widen_all::<T, 32>(line, cells),
                    16 => widen_all::<T, 16>(line, cells),
                    8 => widen_all::<T, 8>(line, cells),
                    _ => widen_some(line, cells),
                }
            }
        }
    }
}

/// A line of a length that the compiler knows.
fn widen_all<T: Factor, const N: usize>(line: &[T], cells: &mut [Packed<T>]) {
    if let (Some(line), Some(cells)) = (line.first_chunk::<N>(), cells.first_chunk_mut::<N>()) {
        for (cell, &x) in cells.iter_mut().zip(line) {
            *cell = x.widen();
        }
    }
}

/// A line, and zeros where it is shorter.
fn widen_some<T: Factor>(line: &[T], cells: &mut [Packed<T>]) {
    let (cells, zeros) = cells.split_at_mut(line.len());
    cells.iter_mut().zip(line).for_each(|(cell, &x)| *cell = x.widen());
    zeros.fill(Default::default());
}
