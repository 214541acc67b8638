//! Matrix products of any types, sizes and strides: `c = alpha * a * b`, or added to `c`.
//!
//! Blocks of both factors are packed into panels that stay in the caches ([`pack`]), and multiplied by tiles that stay in
//! registers ([`tile`]), for each kind of machine its own; products with few rows are bound by memory and read B where it lies
//! ([`few`]). Nothing is allocated: the caller brings the room for panels ([`room`]). A product is divided among threads by rows or
//! columns of C ([`divide`]), which share nothing that is written.

mod divide;
mod few;
mod number;
mod pack;
#[cfg(test)]
mod tests;
mod tile;
mod view;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_few;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::have as have_avx2;
pub(crate) use divide::room_on;
pub(crate) use number::{Factor, Packed, Plain, Sum};
pub(crate) use pack::{Panels, Widths};
pub(crate) use view::{Matrix, MatrixMut};

use crate::KernelError;
use crate::parallel::each;
use delegraph_types::Parallel;
use divide::Division;

/// Rows of A in a block, which stays in the second cache.
const ROWS: usize = 192;
/// Columns of B in a block, which stays in the last cache.
const COLUMNS: usize = 1024;
/// Steps of depth of a block of a B that is read where it lies: each is in another page of memory, and machines know the places
/// of few pages at a time.
const B_DIRECT_DEPTH: usize = 64;
/// Up to this many tiles beside each other, A is read where it lies.
const A_DIRECT: usize = 4;

/// Sizes of blocks.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    /// Rows of a panel of A.
    height: usize,
    rows: usize,
    columns: usize,
    /// A multiple of the group.
    depth: usize,
}

/// `count` in parts of about the same size, the size a multiple, and at most `most` if that is one.
fn even(count: usize, most: usize, multiple: usize) -> usize {
    let parts = count.div_ceil(most.max(1)).max(1);
    count.div_ceil(parts).next_multiple_of(multiple.max(1)).max(1)
}

impl Blocks {
    fn of<S: Sum>(m: usize, k: usize, n: usize) -> Blocks {
        let micro = S::micro();
        let height = even(m, micro.height(), 1);
        Blocks {
            height,
            rows: even(m, ROWS, height),
            columns: even(n, COLUMNS, micro.width()),
            depth: even(k, micro.depth(), S::GROUP),
        }
    }

    /// Elements of the panels of B; a multiple of what is aligned, as the lanes are.
    fn b_len(&self, n: usize, lanes: usize) -> usize {
        n.min(self.columns).next_multiple_of(lanes).saturating_mul(self.depth)
    }
}

/// Elements of panels that a product of m x k by k x n needs at most.
pub(crate) fn room<S: Sum>(m: usize, k: usize, n: usize) -> usize {
    let blocks = Blocks::of::<S>(m, k, n);
    let (a, b) = (
        m.min(blocks.rows).saturating_mul(blocks.depth),
        blocks.b_len(n, S::micro().lanes()),
    );
    let blocks = a.saturating_add(b).saturating_add(ALIGN / size_of::<S::Packed>());
    // Either factor may be the one with few rows.
    blocks.max(few::room(m, k)).max(few::room(n, k))
}

fn differ() -> KernelError {
    KernelError::invalid("self", "the sizes of matrices differ")
}

/// How a product is computed. It is chosen for the whole of one that is divided, so that dividing does not change a result.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// As the transposed product: few columns are its few rows, and tiles write rows.
    across: bool,
    few: bool,
    /// Rows of the whole product that is computed.
    rows: usize,
}

impl Way {
    fn of<A: Factor, B: Factor<Sum = A::Sum>>(
        a: &Matrix<A>,
        b: &Matrix<B>,
        c: &mut MatrixMut<A::Sum>,
        alpha: A::Sum,
        panels: usize,
    ) -> Way {
        let (m, k, n) = (a.rows(), a.columns(), b.columns());
        // Where C has columns, it is transposed if the room is enough for that too.
        let columns_lie = c.column_stride() != 1 && c.row_stride() == 1 && panels >= room::<A::Sum>(n, k, m);
        let few_columns = few::suits(n, &a.transposed(), &c.block((0, 0), (m, n)).transposed(), alpha);
        let across = columns_lie || (n < m && few_columns);
        let few = k > 0
            && if across {
                few_columns
            } else {
                few::suits(m, b, c, alpha)
            };
        let rows = if across { n } else { m };
        Way { across, few, rows }
    }

    fn go<A: Factor, B: Factor<Sum = A::Sum>>(
        self,
        a: Matrix<A>,
        b: Matrix<B>,
        c: MatrixMut<A::Sum>,
        alpha: A::Sum,
        accumulate: bool,
        panels: &mut [Packed<A>],
    ) {
        if self.across {
            self.straight(
                b.transposed(),
                a.transposed(),
                c.transposed(),
                alpha,
                accumulate,
                panels,
            );
        } else {
            self.straight(a, b, c, alpha, accumulate, panels);
        }
    }

    fn straight<A: Factor, B: Factor<Sum = A::Sum>>(
        self,
        a: Matrix<A>,
        b: Matrix<B>,
        c: MatrixMut<A::Sum>,
        alpha: A::Sum,
        accumulate: bool,
        panels: &mut [Packed<A>],
    ) {
        if self.few {
            few::product(a, b, c, alpha, accumulate, panels);
        } else {
            by_blocks(&a, &b.transposed(), c, alpha, accumulate, self.rows, panels);
        }
    }
}

/// `c = alpha * a * b`, added to what is in `c` if `accumulate`; else `c` is not read. `room` has at least as many elements as
/// [`room`] says; with those that [`room_on`] says, it is computed on several threads.
///
/// # Errors
/// The sizes do not fit each other, or the room is too small.
pub(crate) fn product<A: Factor, B: Factor<Sum = A::Sum>>(
    parallel: Parallel,
    a: Matrix<A>,
    b: Matrix<B>,
    mut c: MatrixMut<A::Sum>,
    alpha: A::Sum,
    accumulate: bool,
    panels: &mut [Packed<A>],
) -> Result<(), KernelError> {
    let (m, k, n) = (a.rows(), a.columns(), b.columns());
    if b.rows() != k || c.rows() != m || c.columns() != n {
        return Err(differ());
    }
    let division = Division::of::<A::Sum>(parallel, m, k, n);
    if panels.len() < division.parts * division.room {
        return Err(KernelError::OutOfMemory(panels.len()));
    }
    let way = Way::of(&a, &b, &mut c, alpha, division.room);
    each(parallel, division.parts(c, panels), |(first, c, panels)| {
        let (a, b) = match division.of_rows {
            true => (a.block((first, 0), (c.rows(), k)), b),
            false => (a, b.block((0, first), (k, c.columns()))),
        };
        way.go(a, b, c, alpha, accumulate, panels);
        Ok(())
    })
}

/// As [`product`], for a B of which blocks are made when they are asked for; its lanes are the columns.
///
/// # Errors
/// As [`product`].
pub(crate) fn product_of_panels<A: Factor>(
    parallel: Parallel,
    a: Matrix<A>,
    b: &(impl Panels<A::Sum> + Sync),
    c: MatrixMut<A::Sum>,
    accumulate: bool,
    panels: &mut [Packed<A>],
) -> Result<(), KernelError> {
    let (n, k) = b.dims();
    let m = a.rows();
    if a.columns() != k || c.rows() != m || c.columns() != n {
        return Err(differ());
    }
    let division = Division::of::<A::Sum>(parallel, m, k, n);
    if panels.len() < division.parts * division.room {
        return Err(KernelError::OutOfMemory(panels.len()));
    }
    each(parallel, division.parts(c, panels), |(first, c, panels)| {
        let (unit, rows) = (A::Sum::UNIT, c.rows());
        if division.of_rows {
            by_blocks(&a.block((first, 0), (rows, k)), b, c, unit, accumulate, m, panels);
        } else {
            let lanes = c.columns();
            by_blocks(&a, &b.lanes(first, lanes), c, unit, accumulate, m, panels);
        }
        Ok(())
    })
}

/// Blocks of panels. `rows_of_all` are the rows of the product of which this is a part: how deep blocks are depends on them.
fn by_blocks<S: Sum>(
    a: &impl Panels<S>,
    b: &impl Panels<S>,
    mut c: MatrixMut<S>,
    alpha: S,
    accumulate: bool,
    rows_of_all: usize,
    panels: &mut [S::Packed],
) {
    let ((m, k), n) = (a.dims(), c.columns());
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                c.change(row, column, |_| S::default());
            }
        }
        return;
    }
    let (micro, group) = (S::micro(), S::GROUP);
    let mut blocks = Blocks::of::<S>(m, k, n);
    // Whole panels of B may be read where they are.
    let b_direct = rows_of_all <= micro.direct() && matches!(b.direct(0, 0), Some((_, 1, _)));
    if b_direct {
        blocks.depth = even(k, B_DIRECT_DEPTH, group);
    }
    let (height, width, lanes) = (blocks.height, micro.width(), micro.lanes());
    let (a_widths, b_widths) = (
        Widths {
            full: height,
            multiple: 1,
        },
        Widths {
            full: width,
            multiple: lanes,
        },
    );
    let (b_room, a_room) = aligned::<S>(panels).split_at_mut(blocks.b_len(n, lanes));
    for left in (0..n).step_by(blocks.columns) {
        let columns = blocks.columns.min(n - left);
        for front in (0..k).step_by(blocks.depth) {
            let depth = blocks.depth.min(k - front);
            let groups = depth.div_ceil(group);
            let accumulate = accumulate || front > 0;
            let steps = groups * group;
            // Not the last panel if it is narrower.
            let lines = b.direct(left, front).filter(|_| b_direct && columns >= width);
            let packed_from = if lines.is_some() { columns / width * width } else { 0 };
            let b_len = (columns - packed_from).next_multiple_of(lanes) * steps;
            if packed_from < columns {
                let packed = left + packed_from..left + columns;
                b.pack(packed, front..front + depth, b_widths, &mut b_room[..b_len]);
            }
            for top in (0..m).step_by(blocks.rows) {
                let rows = blocks.rows.min(m - top);
                let rows_where_they_are = a.direct(top, front).filter(|_| n <= A_DIRECT * width);
                if rows_where_they_are.is_none() {
                    a.pack(
                        top..top + rows,
                        front..front + depth,
                        a_widths,
                        &mut a_room[..rows * steps],
                    );
                }
                for column in (0..columns).step_by(width) {
                    let have = width.min(columns - column);
                    let b = match lines {
                        Some((lines, _, step)) if column < packed_from => (&lines[column..], step),
                        _ => (
                            &b_room[(column - packed_from) * steps..b_len],
                            b_widths.of(have) * group,
                        ),
                    };
                    for row in (0..rows).step_by(height) {
                        let high = height.min(rows - row);
                        let a = match rows_where_they_are {
                            Some((data, lane, step)) => (&data[row * lane..], lane, step),
                            None => (&a_room[row * steps..(row + high) * steps], group, high * group),
                        };
                        let c = c.block((top + row, left + column), (high, have));
                        micro.run(a, b, groups, c, alpha, accumulate);
                    }
                }
            }
        }
    }
}

/// Bytes of the vectors that tiles load, which should not straddle two lines of the cache.
const ALIGN: usize = 64;

/// The panels from the first place on that is aligned.
fn aligned<S: Sum>(panels: &mut [S::Packed]) -> &mut [S::Packed] {
    let skip = panels.as_ptr().align_offset(ALIGN).min(ALIGN / size_of::<S::Packed>());
    panels.get_mut(skip..).unwrap_or(&mut [])
}
