//! Matrix products of any types, sizes and strides: `c = alpha * a * b`, or added to `c`.
//!
//! Blocks of both factors are packed into panels that stay in the caches ([`pack`]), and multiplied by tiles that stay in
//! registers ([`tile`]), for each kind of machine its own; products with few rows are bound by memory and read B where it lies
//! ([`few`]). Nothing is allocated: the caller brings the room for panels ([`room`]). Nothing is shared either, so a product is
//! divided by giving parts of A's rows or B's columns, and of C ([`MatrixMut::split_rows`]), to different threads.

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

pub(crate) use number::{Factor, Packed, Plain, Sum};
pub(crate) use pack::{Panels, Widths};
pub(crate) use view::{Matrix, MatrixMut};

use crate::KernelError;

/// Rows of A in a block, which stays in the second cache.
const ROWS: usize = 192;
/// Columns of B in a block, which stays in the last cache.
const COLUMNS: usize = 1024;
/// Up to this many tiles above each other, B is read where it lies if it can be: a copy would cost more than it gives.
const DIRECT: usize = 2;

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
}

/// Elements of panels that a product of m x k by k x n needs at most.
pub(crate) fn room<S: Sum>(m: usize, k: usize, n: usize) -> usize {
    let blocks = Blocks::of::<S>(m, k, n);
    let lanes = n
        .min(blocks.columns)
        .next_multiple_of(S::micro().lanes())
        .saturating_add(m.min(blocks.rows));
    // Either factor may be the one with few rows.
    lanes
        .saturating_mul(blocks.depth)
        .max(few::room(m, k))
        .max(few::room(n, k))
}

fn differ() -> KernelError {
    KernelError::invalid("self", "the sizes of matrices differ")
}

/// `c = alpha * a * b`, added to what is in `c` if `accumulate`; else `c` is not read. `room` has at least as many elements as
/// [`room`] says.
///
/// # Errors
/// The sizes do not fit each other, or the room is too small.
pub(crate) fn product<A: Factor, B: Factor<Sum = A::Sum>>(
    a: Matrix<A>,
    b: Matrix<B>,
    c: MatrixMut<A::Sum>,
    alpha: A::Sum,
    accumulate: bool,
    panels: &mut [Packed<A>],
) -> Result<(), KernelError> {
    let (m, k, n) = (a.rows(), a.columns(), b.columns());
    if b.rows() != k || c.rows() != m || c.columns() != n {
        return Err(differ());
    }
    if panels.len() < room::<A::Sum>(m, k, n) {
        return Err(KernelError::OutOfMemory(panels.len()));
    }
    // Few columns are the few rows of the transposed product, and tiles write rows: where C has columns, it is transposed if
    // the room is enough for that too.
    let (a_across, b_across) = (a.transposed(), b.transposed());
    let columns_lie = c.column_stride() != 1 && c.row_stride() == 1 && panels.len() >= room::<A::Sum>(n, k, m);
    let c = c.transposed();
    if columns_lie || (n < m && few::suits(n, &a_across, &c, alpha)) {
        straight(b_across, a_across, c, alpha, accumulate, panels);
    } else {
        straight(a, b, c.transposed(), alpha, accumulate, panels);
    }
    Ok(())
}

/// As [`product`], for a B of which blocks are made when they are asked for; its lanes are the columns.
///
/// # Errors
/// As [`product`].
pub(crate) fn product_of_panels<A: Factor>(
    a: Matrix<A>,
    b: &impl Panels<A::Sum>,
    c: MatrixMut<A::Sum>,
    accumulate: bool,
    panels: &mut [Packed<A>],
) -> Result<(), KernelError> {
    let (n, k) = b.dims();
    if a.columns() != k || c.rows() != a.rows() || c.columns() != n {
        return Err(differ());
    }
    if panels.len() < room::<A::Sum>(a.rows(), k, n) {
        return Err(KernelError::OutOfMemory(panels.len()));
    }
    by_blocks(a, b, c, A::Sum::UNIT, accumulate, panels);
    Ok(())
}

fn straight<A: Factor, B: Factor<Sum = A::Sum>>(
    a: Matrix<A>,
    b: Matrix<B>,
    c: MatrixMut<A::Sum>,
    alpha: A::Sum,
    accumulate: bool,
    panels: &mut [Packed<A>],
) {
    if a.columns() > 0 && few::suits(a.rows(), &b, &c, alpha) {
        few::product(a, b, c, alpha, accumulate, panels);
    } else {
        by_blocks(a, &b.transposed(), c, alpha, accumulate, panels);
    }
}

fn by_blocks<A: Factor>(
    a: Matrix<A>,
    b: &impl Panels<A::Sum>,
    mut c: MatrixMut<A::Sum>,
    alpha: A::Sum,
    accumulate: bool,
    panels: &mut [Packed<A>],
) {
    let (m, k, n) = (a.rows(), a.columns(), c.columns());
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                c.change(row, column, |_| A::Sum::default());
            }
        }
        return;
    }
    let (micro, group) = (A::Sum::micro(), A::Sum::GROUP);
    let blocks = Blocks::of::<A::Sum>(m, k, n);
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
    let (a_room, b_room) = panels.split_at_mut(m.min(blocks.rows) * blocks.depth);
    let direct = group == 1 && m <= DIRECT * micro.height();
    for left in (0..n).step_by(blocks.columns) {
        let columns = blocks.columns.min(n - left);
        for front in (0..k).step_by(blocks.depth) {
            let depth = blocks.depth.min(k - front);
            let groups = depth.div_ceil(group);
            let accumulate = accumulate || front > 0;
            let steps = groups * group;
            // Whole panels may be read where they are, not the last one if it is narrower.
            let lines = b.direct(left, front).filter(|_| direct && columns >= width);
            let packed_from = if lines.is_some() { columns / width * width } else { 0 };
            let b_len = (columns - packed_from).next_multiple_of(lanes) * steps;
            if packed_from < columns {
                b.pack(
                    left + packed_from..left + columns,
                    front..front + depth,
                    b_widths,
                    &mut b_room[..b_len],
                );
            }
            for top in (0..m).step_by(blocks.rows) {
                let rows = blocks.rows.min(m - top);
                Panels::pack(
                    &a,
                    top..top + rows,
                    front..front + depth,
                    a_widths,
                    &mut a_room[..rows * steps],
                );
                for column in (0..columns).step_by(width) {
                    let have = width.min(columns - column);
                    let (panel, stride) = match lines {
                        Some((lines, stride)) if column < packed_from => (&lines[column..], stride),
                        _ => {
                            let at = (column - packed_from) * steps;
                            (&b_room[at..b_len], b_widths.of(have) * group)
                        }
                    };
                    for row in (0..rows).step_by(height) {
                        let high = height.min(rows - row);
                        micro.run(
                            &a_room[row * steps..(row + high) * steps],
                            (panel, stride),
                            groups,
                            c.block((top + row, left + column), (high, have)),
                            alpha,
                            accumulate,
                        );
                    }
                }
            }
        }
    }
}
