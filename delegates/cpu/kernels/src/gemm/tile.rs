//! The tile: some rows by some vectors of columns, summed in registers.

use super::finish::{Finish, Second};
use super::rows::{Place, Rows};
use crate::pool::Shared;
use crate::simd::{Op, Simd};

/// How weights are stored.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// One of them.
    type T: Copy + Send + Sync;

    /// A vector of them, widened.
    ///
    /// # Safety
    /// There are `S::LANES` of them.
    unsafe fn load<S: Simd>(s: S, from: *const Self::T) -> S::F;
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Float;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Half;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Brain;

impl Element for Float {
    type T = f32;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f32) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load(from) }
    }
}

impl Element for Half {
    type T = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u16) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load_f16(from) }
    }
}

impl Element for Brain {
    type T = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u16) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load_bf16(from) }
    }
}

/// A part of each sum: some positions, and of each, some numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub position: usize,
    pub positions: usize,
    pub from: usize,
    pub len: usize,
    /// Numbers of a whole position.
    pub depth: usize,
    /// Sums begin here, rather than with what is stored.
    pub first: bool,
    /// Sums end here.
    pub last: bool,
}

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// Weights that are read next, when all rows have passed by those that are read now: each tile asks for its share of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead<T> {
    pub weights: *const T,
    /// The first of the rows that pass by, and how many they are; 0: nothing is asked for.
    pub row: usize,
    pub rows: usize,
}

/// What tiles that lie one below another are made over: `P` strips.
pub(crate) struct Strips<'a, T, const P: usize> {
    pub source: &'a Rows,
    pub finish: &'a Finish,
    pub span: Span,
    /// The strips' weights, from the first row on.
    pub strips: [*const T; P],
    /// From one row of weights to the next.
    pub step: usize,
    pub ahead: Ahead<T>,
    pub out: Shared<f32>,
    pub out_stride: usize,
    /// The first column, and how many there are from it on: no more than are in the strips.
    pub column: usize,
    pub columns: usize,
}

/// `count` tiles, one below another: `R` rows by `P` strips of `V` vectors.
pub(crate) struct Tiles<'a, E: Element, const R: usize, const P: usize, const V: usize> {
    pub over: &'a Strips<'a, E::T, P>,
    pub row: usize,
    pub count: usize,
}

/// Changes each vector of a tile.
#[inline(always)]
fn each<F: Copy, const R: usize, const P: usize, const V: usize>(
    sums: &mut [[[F; V]; P]; R],
    f: impl Fn(usize, usize, usize, F) -> F,
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        for (p, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = f(r, p, v, *sum);
            }
        }
    }
}

impl<E: Element, const R: usize, const P: usize, const V: usize> Op for Tiles<'_, E, R, P, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut pixel = self.over.source.pixel(self.row);
        let start = self.over.source.position(self.over.span.position);
        // Of each row of weights ahead, the share of a tile.
        let asks = const { S::ASKS && P == 1 } && self.over.ahead.rows > 0;
        let share = match asks {
            true => self.over.step * size_of::<E::T>() * R / self.over.ahead.rows.max(R),
            false => 0,
        };
        let each = share * self.over.span.positions * self.over.span.len;
        let before = match asks {
            true => (self.row - self.over.ahead.row) / R * each,
            false => 0,
        };
        let mut ahead = self.over.ahead.weights.cast::<u8>().wrapping_add(before);
        for tile in 0..self.count {
            let place = self.over.source.place::<R>(&mut pixel);
            // SAFETY: who makes one has those rows, columns, positions and weights.
            unsafe { self.one(s, self.row + tile * R, &place, start, ahead, share) };
            ahead = ahead.wrapping_add(each);
        }
    }
}

impl<E: Element, const R: usize, const P: usize, const V: usize> Tiles<'_, E, R, P, V> {
    /// The tile at `row`, whose rows and first position are given, and where it asks for what is ahead, in steps of `share` bytes.
    ///
    /// # Safety
    /// All that is named is there.
    #[inline(always)]
    unsafe fn one<S: Simd>(
        &self,
        s: S,
        row: usize,
        place: &Place<R>,
        start: [usize; 2],
        ahead: *const u8,
        share: usize,
    ) {
        let span = &self.over.span;
        let whole = self.over.columns == P * V * S::LANES;
        let mut sums = [[[s.splat(0.0); V]; P]; R];
        // SAFETY: as the caller says.
        unsafe {
            let out = self.over.out.at(row * self.over.out_stride + self.over.column);
            if const { S::ASKS && P == 1 } && !span.first {
                // What the next tile adds to.
                for r in R..2 * R {
                    s.prefetch(out.wrapping_add(r * self.over.out_stride).cast());
                }
            }
            if !span.first {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (p, sums) in sums.iter_mut().enumerate() {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let at = (p * V + v) * S::LANES;
                            let from = out.add(r * self.over.out_stride).wrapping_add(at);
                            *sum = match whole {
                                true => s.load(from),
                                false => s.load_part(from, self.over.columns.saturating_sub(at).min(S::LANES)),
                            };
                        }
                    }
                }
            }
            let (mut at, mut ahead) = (start, ahead);
            for position in span.position..span.position + span.positions {
                let rows = self.over.source.at(place, at);
                at = self.over.source.next(at);
                let rows: [*const f32; R] = std::array::from_fn(|r| rows[r].add(span.from));
                let mut strips: [*const E::T; P] = std::array::from_fn(|p| {
                    self.over.strips[p].add((position * span.depth + span.from) * self.over.step)
                });
                let mut k = 0;
                while k < span.len {
                    let end = match const { S::ASKS && P == 1 } {
                        true => span.len.min(k + LINE),
                        false => span.len,
                    };
                    if const { S::ASKS && P == 1 } {
                        // As much as the tile's share of so many rows.
                        let bytes = share * (end - k);
                        for line in (0..bytes).step_by(LINE) {
                            s.prefetch_far(ahead.wrapping_add(line));
                        }
                        ahead = ahead.wrapping_add(bytes);
                    }
                    for k in k..end {
                        let weights: [[S::F; V]; P] =
                            std::array::from_fn(|p| std::array::from_fn(|v| E::load(s, strips[p].add(v * S::LANES))));
                        for r in 0..R {
                            let x = s.splat(*rows[r].add(k));
                            for p in 0..P {
                                for v in 0..V {
                                    sums[r][p][v] = s.fma(x, weights[p][v], sums[r][p][v]);
                                }
                            }
                        }
                        strips = std::array::from_fn(|p| strips[p].add(self.over.step));
                    }
                    k = end;
                }
            }
            if whole {
                let at = |p: usize, v: usize| (p * V + v) * S::LANES;
                if span.last {
                    let finish = self.over.finish;
                    if !finish.bias.is_null() {
                        let bias = finish.bias.add(self.over.column);
                        each(&mut sums, |_, p, v, x| s.add(x, s.load(bias.add(at(p, v)))));
                    }
                    let residual = finish
                        .residual
                        .wrapping_add(row * finish.residual_stride + self.over.column);
                    let residual = |r: usize, p: usize, v: usize| {
                        s.load(residual.wrapping_add(r * finish.residual_stride + at(p, v)))
                    };
                    if !finish.residual.is_null() && !finish.residual_last {
                        each(&mut sums, |r, p, v, x| s.add(x, residual(r, p, v)));
                    }
                    let (low, high) = (s.splat(finish.low), s.splat(finish.high));
                    each(&mut sums, |_, _, _, x| s.min(s.max(x, low), high));
                    if !finish.residual.is_null() && finish.residual_last && !finish.twice() {
                        each(&mut sums, |r, p, v, x| s.add(x, residual(r, p, v)));
                    }
                }
                each(&mut sums, |r, p, v, x| {
                    s.store(out.add(r * self.over.out_stride + at(p, v)), x);
                    x
                });
            } else if const { matches!(S::ISA, crate::Isa::Avx512) && P == 1 } {
                let lanes: [usize; V] =
                    std::array::from_fn(|v| self.over.columns.saturating_sub(v * S::LANES).min(S::LANES));
                if span.last {
                    let finish = self.over.finish;
                    if !finish.bias.is_null() {
                        let bias: [S::F; V] = std::array::from_fn(|v| {
                            s.load_part(finish.bias.wrapping_add(self.over.column + v * S::LANES), lanes[v])
                        });
                        each(&mut sums, |_, _, v, x| s.add(x, bias[v]));
                    }
                    let residual = finish
                        .residual
                        .wrapping_add(row * finish.residual_stride + self.over.column);
                    let residual = |r: usize, v: usize| {
                        s.load_part(
                            residual.wrapping_add(r * finish.residual_stride + v * S::LANES),
                            lanes[v],
                        )
                    };
                    if !finish.residual.is_null() && !finish.residual_last {
                        each(&mut sums, |r, _, v, x| s.add(x, residual(r, v)));
                    }
                    let (low, high) = (s.splat(finish.low), s.splat(finish.high));
                    each(&mut sums, |_, _, _, x| s.min(s.max(x, low), high));
                    if !finish.residual.is_null() && finish.residual_last && !finish.twice() {
                        each(&mut sums, |r, _, v, x| s.add(x, residual(r, v)));
                    }
                }
                each(&mut sums, |r, _, v, x| {
                    s.store_part(out.wrapping_add(r * self.over.out_stride + v * S::LANES), x, lanes[v]);
                    x
                });
            } else {
                // A copy: the sums themselves stay in registers if nobody asks where they are.
                let mut copy = [[[s.splat(0.0); V]; P]; R];
                let to: *mut S::F = copy.as_mut_ptr().cast();
                each(&mut sums, |r, p, v, x| {
                    *to.add((r * P + p) * V + v) = x;
                    x
                });
                self.store_part(s, to, row, out);
            }
            if span.last && self.over.finish.twice() {
                s.outline(Second {
                    finish: *self.over.finish,
                    out: self.over.out.at(0),
                    stride: self.over.out_stride,
                    row,
                    rows: R,
                    column: self.over.column,
                    columns: self.over.columns,
                });
            }
        }
    }

    /// Stores a tile that has fewer columns than its strips, in one loop over its vectors.
    ///
    /// # Safety
    /// As `one`.
    #[inline(always)]
    unsafe fn store_part<S: Simd>(&self, s: S, sums: *const S::F, row: usize, out: *mut f32) {
        for vector in 0..R * P * V {
            let (r, at) = (vector / (P * V), vector % (P * V) * S::LANES);
            if at < self.over.columns {
                let n = (self.over.columns - at).min(S::LANES);
                // SAFETY: `n` columns are there from that on, and the vector is one of the tile's.
                unsafe {
                    let sum = *sums.add(vector);
                    let x = match self.over.span.last {
                        true => self.over.finish.one(s, sum, row + r, self.over.column + at, Some(n)),
                        false => sum,
                    };
                    s.store_part(out.add(r * self.over.out_stride + at), x, n);
                }
            }
        }
    }
}
