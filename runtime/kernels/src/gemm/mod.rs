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

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::have as have_avx2;
pub(crate) use number::{Factor, Packed, Plain, Sum};
pub(crate) use pack::{Panels, Widths};
pub(crate) use view::{Matrix, MatrixMut};

use crate::KernelError;

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
    by_blocks(&a, b, c, A::Sum::UNIT, accumulate, panels);
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
        by_blocks(&a, &b.transposed(), c, alpha, accumulate, panels);
    }
}

fn by_blocks<S: Sum>(
    a: &impl Panels<S>,
    b: &impl Panels<S>,
    mut c: MatrixMut<S>,
    alpha: S,
    accumulate: bool,
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
    let b_direct = m <= micro.direct() && matches!(b.direct(0, 0), Some((_, 1, _)));
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
