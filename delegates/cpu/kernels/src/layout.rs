//! Elements in another order.

use crate::Isa;
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};

/// Directions of a tensor.
const DIMS: usize = 8;
/// Places of a tile along each direction.
const TILE: usize = 64;

/// `[batch, rows, columns]` to `[batch, columns, rows]`.
///
/// # Panics
/// A slice is shorter than that.
pub fn transpose(isa: Isa, pool: &dyn Pool, batch: usize, rows: usize, columns: usize, from: &[f32], to: &mut [f32]) {
    let shape = [batch, columns, rows];
    permute(
        isa,
        pool,
        &shape,
        from,
        &[rows * columns, 1, columns],
        to,
        &[rows * columns, rows, 1],
    );
}

/// `[batch, channels, spatial]` to `[batch, spatial, channels]`.
///
/// # Panics
/// A slice is shorter than that.
pub fn nchw_to_nhwc(
    isa: Isa,
    pool: &dyn Pool,
    batch: usize,
    channels: usize,
    spatial: usize,
    from: &[f32],
    to: &mut [f32],
) {
    transpose(isa, pool, batch, channels, spatial, from, to);
}

/// `[batch, spatial, channels]` to `[batch, channels, spatial]`.
///
/// # Panics
/// A slice is shorter than that.
pub fn nhwc_to_nchw(
    isa: Isa,
    pool: &dyn Pool,
    batch: usize,
    channels: usize,
    spatial: usize,
    from: &[f32],
    to: &mut [f32],
) {
    transpose(isa, pool, batch, spatial, channels, from, to);
}

/// Copies every element of a shape from where one list of strides says to where another does; strides of the source may be 0, which repeats it,
/// and no two elements may go to one place. Elements are of one, two, four or eight bytes, or others: they are only copied.
///
/// # Panics
/// There are more than eight directions, lists differ in length, or a slice is shorter than its strides say.
pub fn permute<T: Copy + Send + Sync>(
    isa: Isa,
    pool: &dyn Pool,
    shape: &[usize],
    from: &[T],
    from_strides: &[usize],
    to: &mut [T],
    to_strides: &[usize],
) {
    assert!(shape.len() <= DIMS && shape.len() == from_strides.len() && shape.len() == to_strides.len());
    if shape.contains(&0) {
        return;
    }
    let last = |strides: &[usize]| {
        shape
            .iter()
            .zip(strides)
            .map(|(n, stride)| (n - 1) * stride)
            .sum::<usize>()
    };
    assert!(
        from.len() > last(from_strides) && to.len() > last(to_strides),
        "all elements are there"
    );
    // Directions from the widest of the output to the densest, neighbours as one where both sides allow it.
    let mut dims = [Dim {
        size: 1,
        from: 0,
        to: 0,
    }; DIMS];
    let mut count = 0;
    for ((size, from), to) in shape.iter().zip(from_strides).zip(to_strides) {
        if *size > 1 {
            dims[count] = Dim {
                size: *size,
                from: *from,
                to: *to,
            };
            count += 1;
        }
    }
    dims[..count].sort_unstable_by_key(|dim| std::cmp::Reverse((dim.to, dim.from)));
    let mut merged = 0;
    for at in 1..count {
        let (outer, inner) = (dims[merged], dims[at]);
        if outer.from == inner.from * inner.size && outer.to == inner.to * inner.size {
            dims[merged] = Dim {
                size: outer.size * inner.size,
                ..inner
            };
        } else {
            merged += 1;
            dims[merged] = inner;
        }
    }
    let count = if count == 0 { 0 } else { merged + 1 };
    // Two directions make planes: the output's densest, and the source's densest of the others, or the next one.
    let inner = if count == 0 {
        Dim {
            size: 1,
            from: 1,
            to: 1,
        }
    } else {
        dims[count - 1]
    };
    let mut outer = Dim {
        size: 1,
        from: 0,
        to: 0,
    };
    let mut rest = count.saturating_sub(1);
    if rest > 0 {
        let other = (0..rest).find(|at| dims[*at].from == 1).unwrap_or(rest - 1);
        outer = dims[other];
        dims.copy_within(other + 1..rest, other);
        rest -= 1;
    }
    let planes: usize = dims[..rest].iter().map(|dim| dim.size).product();
    let (tiles, pieces) = (outer.size.div_ceil(TILE), inner.size.div_ceil(TILE * TILE));
    let units = planes * tiles * pieces;
    let parts = pool::parts(pool, units, TILE.min(outer.size) * inner.size.min(TILE * TILE) / 2 + 10);
    let to = Shared::new(to);
    pool.run(parts, &|part| {
        dispatch(
            isa,
            Tiles {
                dims: &dims[..rest],
                outer,
                inner,
                tiles,
                pieces,
                units: pool::range(units, parts, part, 1),
                from,
                to,
            },
        );
    });
}

#[derive(Debug, Clone, Copy)]
struct Dim {
    size: usize,
    from: usize,
    to: usize,
}

struct Tiles<'a, T> {
    dims: &'a [Dim],
    outer: Dim,
    inner: Dim,
    tiles: usize,
    pieces: usize,
    units: std::ops::Range<usize>,
    from: &'a [T],
    to: Shared<T>,
}

impl<T: Copy> Op for Tiles<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (outer, inner) = (self.outer, self.inner);
        for unit in self.units {
            let (piece, rest) = (unit % self.pieces, unit / self.pieces);
            let (tile, mut plane) = (rest % self.tiles, rest / self.tiles);
            let (mut from_at, mut to_at) = (0, 0);
            for dim in self.dims.iter().rev() {
                from_at += plane % dim.size * dim.from;
                to_at += plane % dim.size * dim.to;
                plane /= dim.size;
            }
            let rows = tile * TILE..((tile + 1) * TILE).min(outer.size);
            let mut start = piece * TILE * TILE;
            let end = (start + TILE * TILE).min(inner.size);
            // SAFETY: places are within the shape, all of which lies in both slices; units are of one part.
            unsafe {
                let from = self.from.as_ptr().add(from_at);
                let to = self.to.at(to_at);
                if inner.from == 1 && inner.to == 1 {
                    for row in rows {
                        let (from, to) = (from.add(row * outer.from + start), to.add(row * outer.to + start));
                        std::ptr::copy_nonoverlapping(from, to, end - start);
                    }
                    continue;
                }
                while start < end {
                    let len = (end - start).min(TILE);
                    let from = from.add(rows.start * outer.from + start * inner.from);
                    let to = to.add(rows.start * outer.to + start * inner.to);
                    if size_of::<T>() == 4 && align_of::<T>() == 4 && outer.from == 1 && inner.to == 1 {
                        turn(s, from.cast(), inner.from, to.cast(), outer.to, len, rows.len());
                    } else {
                        for row in 0..rows.len() {
                            for i in 0..len {
                                *to.add(row * outer.to + i * inner.to) = *from.add(row * outer.from + i * inner.from);
                            }
                        }
                    }
                    start += len;
                }
            }
        }
    }
}

/// Turns `rows` by `columns` around. Elements of four bytes are moved as floats, which changes no bit of them.
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn turn<S: Simd>(
    s: S,
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
    rows: usize,
    columns: usize,
) {
    let (whole_rows, whole_columns) = (rows / S::LANES * S::LANES, columns / S::LANES * S::LANES);
    // SAFETY: as the caller says.
    unsafe {
        for column in (0..whole_columns).step_by(S::LANES) {
            for row in (0..whole_rows).step_by(S::LANES) {
                s.transpose(
                    from.add(row * from_stride + column),
                    from_stride,
                    to.add(column * to_stride + row),
                    to_stride,
                );
            }
        }
        // What is left: whole columns of the last rows, and the last columns, few at a time.
        let (from, to) = (from.cast::<u32>(), to.cast::<u32>());
        let mut row = whole_rows;
        while row < rows {
            let (from, to) = (from.add(row * from_stride), to.add(row));
            row += match rows - row {
                4.. => strip::<4>(from, from_stride, 1, to, 1, to_stride, whole_columns),
                3 => strip::<3>(from, from_stride, 1, to, 1, to_stride, whole_columns),
                2 => strip::<2>(from, from_stride, 1, to, 1, to_stride, whole_columns),
                _ => strip::<1>(from, from_stride, 1, to, 1, to_stride, whole_columns),
            };
        }
        let mut column = whole_columns;
        while column < columns {
            let (from, to) = (from.add(column), to.add(column * to_stride));
            column += match columns - column {
                4.. => strip::<4>(from, 1, from_stride, to, to_stride, 1, rows),
                3 => strip::<3>(from, 1, from_stride, to, to_stride, 1, rows),
                2 => strip::<2>(from, 1, from_stride, to, to_stride, 1, rows),
                _ => strip::<1>(from, 1, from_stride, to, to_stride, 1, rows),
            };
        }
    }
}

/// Copies `N` by `count` words; the first stride of either side is of the `N`. It gives `N`.
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn strip<const N: usize>(
    from: *const u32,
    from_n: usize,
    from_stride: usize,
    to: *mut u32,
    to_n: usize,
    to_stride: usize,
    count: usize,
) -> usize {
    for i in 0..count {
        for n in 0..N {
            // SAFETY: as the caller says.
            unsafe { *to.add(n * to_n + i * to_stride) = *from.add(n * from_n + i * from_stride) };
        }
    }
    N
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;

    /// Four threads' worth of parts, on one.
    struct Four;

    impl Pool for Four {
        fn threads(&self) -> usize {
            4
        }

        fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
            (0..parts).rev().for_each(body);
        }
    }

    #[test]
    fn matrices_are_turned_around() {
        for (batch, rows, columns) in [
            (1, 1, 1),
            (2, 3, 5),
            (1, 16, 16),
            (3, 17, 33),
            (1, 64, 130),
            (2, 200, 7),
            (1, 1, 9),
            (1, 130, 70),
            (0, 3, 3),
        ] {
            let from: Vec<f32> = (0..batch * rows * columns)
                .map(|i| f32::from_bits(i as u32 * 40_503))
                .collect();
            for isa in Isa::all() {
                let mut to = vec![0.0; from.len()];
                transpose(isa, &Four, batch, rows, columns, &from, &mut to);
                for b in 0..batch {
                    for r in 0..rows {
                        for c in 0..columns {
                            let (have, want) = (to[(b * columns + c) * rows + r], from[(b * rows + r) * columns + c]);
                            assert_eq!(have.to_bits(), want.to_bits(), "{isa}, {rows} x {columns}");
                        }
                    }
                }
            }
        }
    }

    fn check<T: Copy + Send + Sync + PartialEq + std::fmt::Debug>(
        shape: &[usize],
        order: &[usize],
        of: impl Fn(usize) -> T,
    ) {
        let dense =
            |shape: &[usize]| -> Vec<usize> { (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect() };
        let source = dense(shape);
        let made: Vec<usize> = order.iter().map(|d| shape[*d]).collect();
        let from_strides: Vec<usize> = order.iter().map(|d| source[*d]).collect();
        let to_strides = dense(&made);
        let n: usize = shape.iter().product();
        let from: Vec<T> = (0..n).map(&of).collect();
        for isa in Isa::all() {
            let mut to = vec![of(0); n];
            permute(isa, &Four, &made, &from, &from_strides, &mut to, &to_strides);
            for (at, have) in to.iter().enumerate() {
                let place: usize = (0..made.len())
                    .map(|d| at / to_strides[d] % made[d] * from_strides[d])
                    .sum();
                assert_eq!(*have, from[place], "{isa}, {shape:?}, {order:?}");
            }
        }
    }

    #[test]
    fn every_order_of_every_size_of_element_is_copied() {
        for (shape, order) in [
            (&[5usize][..], &[0usize][..]),
            (&[], &[]),
            (&[2, 3, 4, 5], &[0, 2, 1, 3]),
            (&[2, 3, 4, 5], &[3, 2, 1, 0]),
            (&[2, 17, 19, 70], &[0, 3, 1, 2]),
            (&[3, 1, 66, 20], &[2, 0, 1, 3]),
            (&[70, 66], &[1, 0]),
            (&[2, 3, 2, 3, 2, 3], &[0, 4, 1, 5, 2, 3]),
            (&[4, 0, 3], &[2, 1, 0]),
            (&[3, 5000], &[0, 1]),
        ] {
            check(shape, order, |i| i as u8);
            check(shape, order, |i| i as u16);
            check(shape, order, |i| i as i32 - 7);
            check(shape, order, |i| i as u64 * 3);
        }
    }

    #[test]
    fn a_stride_of_zero_repeats_and_gaps_are_left_alone() {
        let from = [1.0f32, 2.0, 3.0];
        let mut to = [9.0f32; 11];
        permute(Isa::best(), &Serial, &[2, 3], &from, &[0, 1], &mut to, &[6, 2]);
        assert_eq!(to, [1.0, 9.0, 2.0, 9.0, 3.0, 9.0, 1.0, 9.0, 2.0, 9.0, 3.0]);
    }
}
