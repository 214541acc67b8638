//! Tiles: the innermost loops, which multiply a panel of A by a panel of B into a few rows and columns of C.

use super::number::Sum;
use super::view::MatrixMut;

/// Multiplies `groups` steps of depth: per step, a group for each row from `a`, and a few vectors of groups from `b`. In `a`,
/// rows and steps start as far apart as the two numbers say, in `b` the steps `b_stride`. Writes `alpha` times the sums to the
/// rows at `c`, `c_stride` apart, or adds them.
pub(super) type Tile<S> = unsafe fn(
    groups: usize,
    a: (*const <S as Sum>::Packed, usize, usize),
    b: *const <S as Sum>::Packed,
    b_stride: usize,
    c: *mut S,
    c_stride: usize,
    alpha: S,
    accumulate: bool,
);

/// Rows of the highest tile.
pub(super) const MOST_ROWS: usize = 14;
/// Elements of the largest tile.
const MOST: usize = MOST_ROWS * 32;

/// The tiles for one type on one kind of machine: up to `height` rows and up to `vectors` vectors of `lanes` columns.
pub(crate) struct Micro<S: Sum> {
    height: usize,
    lanes: usize,
    /// Steps of depth after which sums go to memory, so that a panel of B stays in the first cache.
    depth: usize,
    /// Most rows of C for which B is read where it lies: a copy of it would cost more than it gives.
    direct: usize,
    /// By vectors - 1 and by rows - 1.
    tiles: &'static [&'static [Tile<S>]],
}

/// All heights of a tile of `$vectors` vectors, as a row of [`Micro::new`].
macro_rules! heights {
    ($tile:ident, $vectors:literal: $($rows:literal)*) => {
        &[$($tile::<$rows, $vectors> as _),*]
    };
}
pub(super) use heights;

/// Does something for each number below a constant of up to [`MOST_ROWS`]. A loop would do, but compilers do not unroll those
/// of the larger tiles, and then their sums are in memory.
macro_rules! unrolled {
    ($index:ident < $count:expr => $body:block) => {
        unrolled!(@ $index $count, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $index:ident $count:expr, $body:block, $($number:literal)*) => {
        $(if $number < $count {
            let $index: usize = $number;
            $body
        })*
    };
}
pub(super) use unrolled;

impl<S: Sum> Micro<S> {
    /// # Safety
    /// `tiles[v - 1][r - 1]` is a [`Tile`] of `v` vectors of `lanes` columns and `r` rows that touches nothing beyond what
    /// these say, and it is only had where the machine runs its instructions.
    pub(super) const unsafe fn new(
        lanes: usize,
        depth: usize,
        direct: usize,
        tiles: &'static [&'static [Tile<S>]],
    ) -> Micro<S> {
        let height = tiles[0].len();
        assert!(height * lanes * tiles.len() <= MOST);
        Micro {
            height,
            lanes,
            depth,
            direct,
            tiles,
        }
    }

    /// Tiles of four rows and of `LANES` or twice as many columns in plain Rust, which compilers vectorize.
    pub(super) const fn portable<const LANES: usize, const TWICE: usize>() -> Micro<S> {
        let tiles: &'static [&'static [Tile<S>]] = const {
            &[
                &[
                    tile::<S, 1, LANES>,
                    tile::<S, 2, LANES>,
                    tile::<S, 3, LANES>,
                    tile::<S, 4, LANES>,
                ],
                &[
                    tile::<S, 1, TWICE>,
                    tile::<S, 2, TWICE>,
                    tile::<S, 3, TWICE>,
                    tile::<S, 4, TWICE>,
                ],
            ]
        };
        assert!(TWICE == 2 * LANES);
        // SAFETY: they are tiles of one and two times LANES columns and of one to four rows, for any machine.
        unsafe { Micro::new(LANES, 256, 8, tiles) }
    }

    /// Most rows of a tile.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns of a vector: panels of B are multiples of this wide.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Most columns of a tile.
    pub fn width(&self) -> usize {
        self.lanes * self.tiles.len()
    }

    /// Most elements of depth of a panel.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Most rows of C for which B is read where it lies.
    pub fn direct(&self) -> usize {
        self.direct
    }

    /// `c (+)= alpha * a * b` for a panel of A, as high as `c`, and a panel of B, as wide as `c` in whole vectors, both of
    /// `groups` steps; the rows and the steps of `a`, and the steps of `b`, start as far apart as their numbers say.
    pub fn run(
        &self,
        (a, a_row, a_step): (&[S::Packed], usize, usize),
        (b, b_stride): (&[S::Packed], usize),
        groups: usize,
        mut c: MatrixMut<S>,
        alpha: S,
        accumulate: bool,
    ) {
        let (rows, columns) = (c.rows(), c.columns());
        if rows == 0 || columns == 0 || groups == 0 {
            return;
        }
        let vectors = columns.div_ceil(self.lanes);
        let (width, step) = (vectors * self.lanes, vectors * self.lanes * S::GROUP);
        let tile = self.tiles[vectors - 1][rows - 1];
        // The callers packed the panels for these sizes; what they say is not believed, since the tile reads without checks.
        let end = |last: usize, stride: usize, len: usize| last.saturating_mul(stride).saturating_add(len);
        assert!(
            a.len() >= end(groups - 1, a_step, end(rows - 1, a_row, S::GROUP))
                && b.len() >= end(groups - 1, b_stride, step)
        );
        let a = (a.as_ptr(), a_row, a_step);
        if columns == width && (c.column_stride() == 1) {
            let stride = c.row_stride();
            // SAFETY: the tile reads `groups` times `rows` groups of `a`, at its strides, and `step` elements every `b_stride` of
            // `b`, which the lines above checked; it writes `rows` times `width` elements, which are those of `c`.
            unsafe { tile(groups, a, b.as_ptr(), b_stride, c.pointer(), stride, alpha, accumulate) };
            return;
        }
        let mut local = [S::default(); MOST];
        // SAFETY: as above; `new` made sure that `rows` times `width` elements are at most MOST.
        unsafe { tile(groups, a, b.as_ptr(), b_stride, local.as_mut_ptr(), width, alpha, false) };
        for (row, sums) in local.chunks_exact(width).take(rows).enumerate() {
            let sums = &sums[..columns];
            match (c.row(row), accumulate) {
                (Some(line), false) => line.copy_from_slice(sums),
                (Some(line), true) => line.iter_mut().zip(sums).for_each(|(x, &sum)| *x = x.added(sum)),
                (None, _) => {
                    for (column, &sum) in sums.iter().enumerate() {
                        c.change(row, column, |x| if accumulate { x.added(sum) } else { sum });
                    }
                }
            }
        }
    }
}

/// A tile in plain Rust.
///
/// # Safety
/// As [`Tile`] says, for `R` rows and `N` columns.
unsafe fn tile<S: Sum, const R: usize, const N: usize>(
    groups: usize,
    (a, a_row, a_step): (*const S::Packed, usize, usize),
    b: *const S::Packed,
    b_stride: usize,
    c: *mut S,
    c_stride: usize,
    alpha: S,
    accumulate: bool,
) {
    let mut sums = [[S::default(); N]; R];
    for group in 0..groups {
        // SAFETY: the caller promised `groups` steps of both panels.
        let right = unsafe { core::slice::from_raw_parts(b.add(group * b_stride), N * S::GROUP) };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above, for R rows.
            let left = unsafe { core::slice::from_raw_parts(a.add(group * a_step + row * a_row), S::GROUP) };
            for (sum, right) in sums.iter_mut().zip(right.chunks_exact(S::GROUP)) {
                for (&x, &y) in left.iter().zip(right) {
                    *sum = sum.with(x, y);
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: the caller promised R rows of N elements.
        let line = unsafe { core::slice::from_raw_parts_mut(c.add(row * c_stride), N) };
        for (x, sum) in line.iter_mut().zip(sums) {
            let sum = sum.scaled(alpha);
            *x = if accumulate { x.added(sum) } else { sum };
        }
    }
}
