//! Products with few rows. B is read once, from where it lies: to pack it would cost more than the product, which is bound by
//! memory. Weights of which the depth is contiguous (`x * W^T`) make dot products, others are added up row by row.

use super::number::{Factor, Packed, Sum};
use super::view::{Matrix, MatrixMut};

/// Most rows that the functions of [`Few`] take at a time.
pub(super) const ROWS: usize = 4;
/// Most rows of a product for which dot products are faster than panels.
const MOST: usize = 16;
/// Bytes of a B that is still in a cache close by when it is needed again.
const IN_CACHE: usize = 1 << 20;
/// Columns that [`Few::dots`] takes at a time: a multiple of three and of four, which are taken together.
pub(super) const CHUNK: usize = 24;
/// Elements of the rows of A that are taken at a time, so that they stay in the first cache while B passes through it.
const DEPTH: usize = 2048;
/// Columns that are added up at a time, so that they stay in the first cache.
const LINE: usize = 2048;
/// Rows of B that are added up at a time, so that they are still in the cache for further rows of A.
const LINES: usize = 16;
/// Rows of A are padded to multiples of this.
pub(super) const PAD: usize = 16;

/// Dot products of `rows` rows of A, which start `a_stride` apart and are padded with zeros to [`PAD`], with `columns` runs of
/// `depth` elements of B, which start `b_stride` apart, to `out[row][column]`.
pub(super) type Dots<T> = unsafe fn(
    a: (*const Packed<T>, usize),
    rows: usize,
    b: (*const T, usize),
    depth: usize,
    columns: usize,
    out: &mut [[<T as Factor>::Sum; CHUNK]; ROWS],
);

/// Adds `depth` rows of `columns` elements of B, each times the element of A, to the `rows` rows of C.
pub(super) type Lines<T> = unsafe fn(
    a: (*const Packed<T>, usize),
    rows: usize,
    b: (*const T, usize),
    depth: usize,
    columns: usize,
    c: (*mut <T as Factor>::Sum, usize),
);

/// Transposes `have` runs of `depth` elements, `stride` apart, into a panel that is `width` lanes wide, as many steps of depth
/// as it can: it gives how many, a multiple of the group. Writes no more than the panel's `len` elements; what it writes behind
/// those steps is unspecified.
pub(super) type Interleave<T> = unsafe fn(
    runs: (*const T, usize),
    have: usize,
    depth: usize,
    width: usize,
    panel: (*mut Packed<T>, usize),
) -> usize;

/// Functions for one type of B on one kind of machine.
pub(crate) struct Few<T: Factor> {
    dots: Dots<T>,
    lines: Lines<T>,
    interleave: Option<Interleave<T>>,
}

impl<T: Factor> Few<T> {
    /// # Safety
    /// The functions touch no more than their types say, and this is only had where the machine runs their instructions.
    pub(super) const unsafe fn new(dots: Dots<T>, lines: Lines<T>, interleave: Option<Interleave<T>>) -> Few<T> {
        Few {
            dots,
            lines,
            interleave,
        }
    }

    /// Plain Rust.
    pub(super) const fn portable() -> Few<T> {
        // SAFETY: these are the functions below, for any machine.
        unsafe { Few::new(dots::<T>, lines::<T>, None) }
    }

    /// Steps of depth that were transposed from the rows of `lanes` into the panel.
    pub fn interleave(&self, lanes: Matrix<T>, width: usize, panel: &mut [Packed<T>]) -> usize {
        match self.interleave {
            Some(interleave) if lanes.column_stride() == 1 && lanes.rows() <= width => {
                let runs = (lanes.data().as_ptr(), lanes.row_stride());
                let panel = (panel.as_mut_ptr(), panel.len());
                // SAFETY: `lanes` has that many runs of that many elements, one after the other, and all lie in its memory.
                unsafe { interleave(runs, lanes.rows(), lanes.columns(), width, panel) }
            }
            _ => 0,
        }
    }
}

/// Elements of depth that are taken at a time.
fn depth_of(m: usize) -> usize {
    DEPTH / m.clamp(1, 2)
}

/// How far apart rows of A of that depth start: never a power of two, which would put them all in the same lines of the cache.
fn stride_of(depth: usize) -> usize {
    depth.next_multiple_of(2 * PAD) + PAD
}

/// Elements of panels that [`product`] needs if it is used for m rows.
pub(super) fn room(m: usize, k: usize) -> usize {
    if m > MOST {
        return 0;
    }
    m * stride_of(k.min(depth_of(m)))
}

/// True if [`product`] can do it and is faster than blocks.
pub(super) fn suits<T: Factor>(m: usize, b: &Matrix<T>, c: &MatrixMut<T::Sum>, alpha: T::Sum) -> bool {
    if is_runs(b) {
        return m <= MOST;
    }
    // Tiles read B where it lies too, but from top to bottom, which is slow when it comes from memory; high tiles do it once.
    let from_memory = b.rows().saturating_mul(b.columns()).saturating_mul(size_of::<T>()) > IN_CACHE;
    let most = match from_memory {
        true if T::Sum::micro().height() > 2 * ROWS => ROWS,
        true => 2 * ROWS,
        false => 1,
    };
    m <= most && is_lines(b, c, alpha)
}

fn is_runs<T>(b: &Matrix<T>) -> bool {
    b.row_stride() == 1 && (b.rows() >= 8 || b.column_stride() != 1)
}

fn is_lines<T: Factor>(b: &Matrix<T>, c: &MatrixMut<T::Sum>, alpha: T::Sum) -> bool {
    b.column_stride() == 1 && c.column_stride() == 1 && alpha == T::Sum::UNIT
}

/// `c (+)= alpha * a * b`, if it [`suits`]; `room` as [`room`] says.
pub(super) fn product<A: Factor, B: Factor<Sum = A::Sum>>(
    a: Matrix<A>,
    b: Matrix<B>,
    mut c: MatrixMut<A::Sum>,
    alpha: A::Sum,
    mut accumulate: bool,
    room: &mut [Packed<A>],
) {
    let (m, k) = (a.rows(), a.columns());
    let few = B::few();
    for start in (0..k).step_by(depth_of(m)) {
        let depth = depth_of(m).min(k - start);
        let stride = stride_of(depth);
        for row in 0..m {
            let line = &mut room[row * stride..(row + 1) * stride];
            let source = a.block((row, start), (1, depth));
            for (slot, value) in line
                .iter_mut()
                .zip(source.data().iter().step_by(source.column_stride().max(1)))
            {
                *slot = value.widen();
            }
            if source.column_stride() == 0 {
                line.fill(source.data()[0].widen());
            }
            line[depth..].fill(Default::default());
        }
        let b = b.block((start, 0), (depth, usize::MAX));
        if is_runs(&b) {
            by_dots(few, room, stride, m, b, &mut c, alpha, accumulate);
        } else {
            if !accumulate {
                for row in 0..m {
                    if let Some(line) = c.row(row) {
                        line.fill(Default::default());
                    }
                }
            }
            by_lines(few, room, stride, b, &mut c);
        }
        accumulate = true;
    }
}

fn by_dots<T: Factor>(
    few: &Few<T>,
    a: &[Packed<T>],
    stride: usize,
    m: usize,
    b: Matrix<T>,
    c: &mut MatrixMut<T::Sum>,
    alpha: T::Sum,
    accumulate: bool,
) {
    let mut out = [[T::Sum::default(); CHUNK]; ROWS];
    for first in (0..b.columns()).step_by(CHUNK) {
        let runs = b.block((0, first), (b.rows(), CHUNK));
        let columns = runs.columns();
        for top in (0..m).step_by(ROWS) {
            let rows = ROWS.min(m - top);
            let a = &a[top * stride..(top + rows) * stride];
            // SAFETY: `a` has `rows` rows of `stride` elements, at least the depth rounded up to PAD; B's runs of depth are
            // contiguous (`is_runs`) and lie in its memory; `columns` is at most CHUNK and `rows` at most ROWS.
            unsafe {
                (few.dots)(
                    (a.as_ptr(), stride),
                    rows,
                    (runs.data().as_ptr(), runs.column_stride()),
                    runs.rows(),
                    columns,
                    &mut out,
                );
            }
            for (row, sums) in out.iter().take(rows).enumerate() {
                for (column, &sum) in sums[..columns].iter().enumerate() {
                    let sum = sum.scaled(alpha);
                    c.change(
                        top + row,
                        first + column,
                        |x| if accumulate { x.added(sum) } else { sum },
                    );
                }
            }
        }
    }
}

fn by_lines<T: Factor>(few: &Few<T>, a: &[Packed<T>], stride: usize, b: Matrix<T>, c: &mut MatrixMut<T::Sum>) {
    for (first, front) in (0..b.columns())
        .step_by(LINE)
        .flat_map(|first| (0..b.rows()).step_by(LINES).map(move |front| (first, front)))
    {
        let b = b.block((front, first), (LINES, LINE));
        for top in (0..c.rows()).step_by(ROWS) {
            let mut c = c.block((top, first), (ROWS, LINE));
            let (rows, columns, c_stride) = (c.rows(), c.columns(), c.row_stride());
            let a = &a[top * stride + front..(top + rows) * stride];
            // SAFETY: `a` has `rows` rows, `stride` apart, of at least B's depth; the rows of B and C are contiguous (`is_lines`),
            // lie in their memory and have `columns` elements each.
            unsafe {
                (few.lines)(
                    (a.as_ptr(), stride),
                    rows,
                    (b.data().as_ptr(), b.row_stride()),
                    b.rows(),
                    columns.min(b.columns()),
                    (c.pointer(), c_stride),
                );
            }
        }
    }
}

/// [`Dots`] in plain Rust: several sums at a time, so that compilers may use vectors.
///
/// # Safety
/// As [`Dots`] says.
pub(super) unsafe fn dots<T: Factor>(
    (a, a_stride): (*const Packed<T>, usize),
    rows: usize,
    (b, b_stride): (*const T, usize),
    depth: usize,
    columns: usize,
    out: &mut [[T::Sum; CHUNK]; ROWS],
) {
    for column in 0..columns {
        // SAFETY: the caller promised `columns` runs of `depth` elements.
        let run = unsafe { core::slice::from_raw_parts(b.add(column * b_stride), depth) };
        for (row, out) in out.iter_mut().take(rows).enumerate() {
            // SAFETY: the caller promised `rows` rows of more than `depth` elements.
            let line = unsafe { core::slice::from_raw_parts(a.add(row * a_stride), depth) };
            let mut sums = [T::Sum::default(); 8];
            let (left, right) = (line.chunks_exact(8), run.chunks_exact(8));
            let rest = left.remainder().iter().zip(right.remainder());
            for (left, right) in left.zip(right) {
                for ((sum, &x), &y) in sums.iter_mut().zip(left).zip(right) {
                    *sum = sum.with(x, y.widen());
                }
            }
            let sum = sums.into_iter().fold(T::Sum::default(), Sum::added);
            out[column] = rest.fold(sum, |sum, (&x, &y)| sum.with(x, y.widen()));
        }
    }
}

/// [`Lines`] in plain Rust.
///
/// # Safety
/// As [`Lines`] says.
pub(super) unsafe fn lines<T: Factor>(
    (a, a_stride): (*const Packed<T>, usize),
    rows: usize,
    (b, b_stride): (*const T, usize),
    depth: usize,
    columns: usize,
    (c, c_stride): (*mut T::Sum, usize),
) {
    for d in 0..depth {
        // SAFETY: the caller promised `depth` rows of `columns` elements.
        let line = unsafe { core::slice::from_raw_parts(b.add(d * b_stride), columns) };
        for row in 0..rows {
            // SAFETY: the caller promised that A has `rows` rows of `depth` elements and C as many of `columns`.
            let (factor, sums) = unsafe {
                (
                    *a.add(row * a_stride + d),
                    core::slice::from_raw_parts_mut(c.add(row * c_stride), columns),
                )
            };
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum = sum.with(factor, value.widen());
            }
        }
    }
}
