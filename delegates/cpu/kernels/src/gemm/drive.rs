//! A product in blocks: which tiles, in which order, by whom.

use super::finish::Finish;
use super::pack::Stored;
use super::rows::Rows;
use super::tile::{Ahead, Brain, Element, Float, Half, Span, Strips, Tiles};
use crate::Isa;
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use std::ops::Range;

/// Bytes of a strip of weights that stay in a cache while the rows of a block pass by. Tiles of 12 by 32 read so few of them for each product that
/// the second cache will do, and that sums are stored and loaded less often counts for more.
const fn strip_bytes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 96 << 10,
        _ => 24 << 10,
    }
}
/// Bytes of a block of rows that stay in the second cache while the strips pass by.
const fn rows_bytes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 256 << 10,
        _ => 320 << 10,
    }
}

/// Bytes of weights that are not asked for ahead.
const ASKED_BYTES: usize = 32 << 10;

/// A product of the rows of `source` with packed weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub source: Rows,
    pub rows: usize,
    /// Positions of a row (the places of a convolution's kernel), each with `depth` numbers.
    pub positions: usize,
    pub depth: usize,
    pub weights: Stored<'a>,
    pub n: usize,
    pub width: usize,
    /// From one row of a panel to the next: `width`, but for weights that lie in memory as they are.
    pub step: usize,
    /// From one panel to the next.
    pub panel: usize,
    pub out: Shared<f32>,
    pub out_stride: usize,
    pub finish: Finish,
}

/// Rows of a tile.
const fn tile_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 12,
        Isa::Avx2 | Isa::Neon => 6,
        Isa::Scalar => 4,
    }
}

/// Whether there is a tile of every number of rows.
const fn every_tile<E: Element>(isa: Isa) -> bool {
    matches!(isa, Isa::Avx512) && size_of::<E::T>() == 4
}

/// Whether tails are put together with the last tiles, for sixteen registers.
const fn balances<T>(isa: Isa) -> bool {
    matches!(isa, Isa::Avx2) && size_of::<T>() == 4
}

/// Rows that are always one tile.
const fn most_rows<E: Element>(isa: Isa) -> usize {
    match every_tile::<E>(isa) || balances::<E::T>(isa) {
        true => tile_rows(isa),
        false => 4,
    }
}

const fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Neon | Isa::Scalar => 4,
    }
}

/// Vectors of a strip at most: as many as go into a tile.
const fn vectors(isa: Isa) -> usize {
    match isa {
        Isa::Neon => 4,
        _ => 2,
    }
}

/// Columns of a strip.
fn strip_columns(isa: Isa, width: usize) -> usize {
    width.min(vectors(isa) * lanes(isa))
}

/// The instruction set whose vectors go into panels of that width.
pub(crate) fn isa_for(isa: Isa, width: usize) -> Isa {
    match isa {
        Isa::Avx512 if width < 32 => Isa::Avx2,
        other => other,
    }
}

/// A product, over the pool. Its bits depend on neither rows at once nor threads: each sum goes from the first number to the last.
///
/// # Safety
/// All that the job names is there, and nobody else touches the output.
pub(crate) unsafe fn run(isa: Isa, pool: &dyn Pool, job: &Job<'_>) {
    if job.rows == 0 || job.n == 0 {
        return;
    }
    let isa = isa_for(isa, job.width);
    let strips = job.n.div_ceil(strip_columns(isa, job.width));
    let (down, across) = grid(isa, pool, job, strips);
    pool.run(down * across, &|part| {
        let rows = pool::range(job.rows, down, part / across, tile_rows(isa));
        let strips = pool::range(strips, across, part % across, 1);
        dispatch(isa, Part { job, rows, strips });
    });
}

/// In how many parts rows and strips are divided: those that end first, and of those the ones that read least.
fn grid(isa: Isa, pool: &dyn Pool, job: &Job<'_>, strips: usize) -> (usize, usize) {
    let k = job.positions * job.depth;
    let tiles = job.rows.div_ceil(tile_rows(isa));
    let strip_work = (job.rows * k.max(1)).saturating_mul(strip_columns(isa, job.width)) / 32;
    let total = strip_work.saturating_mul(strips);
    let threads = pool.threads().max(1);
    let most = pool::parts(
        pool,
        tiles.saturating_mul(strips),
        (total / tiles.max(1) / strips.max(1)).max(1),
    );
    let mut best = (1, 1);
    let mut cost = (usize::MAX, usize::MAX);
    for down in 1..=most.min(tiles) {
        let across = (most / down).clamp(1, strips);
        let rounds = (down * across).div_ceil(threads);
        let time = rounds * tiles.div_ceil(down) * strips.div_ceil(across);
        let read = down * job.n + across * job.rows;
        if (time, read) < cost {
            (best, cost) = ((down, across), (time, read));
        }
    }
    best
}

/// Rows and strips of one part.
struct Part<'a, 'b> {
    job: &'a Job<'b>,
    rows: Range<usize>,
    strips: Range<usize>,
}

impl Op for Part<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.job.weights {
            Stored::F32(all) => self.wide::<S, Float>(s, all.as_ptr()),
            Stored::F16(all) => self.wide::<S, Half>(s, all.as_ptr()),
            Stored::BF16(all) => self.wide::<S, Brain>(s, all.as_ptr()),
        }
    }
}

impl Part<'_, '_> {
    #[inline(always)]
    fn wide<S: Simd, E: Element>(&self, s: S, weights: *const E::T) {
        let wide = strip_columns(S::ISA, self.job.width) / S::LANES;
        // Decided while compiling, so that no tile is made for an instruction set that has not the registers.
        if const { matches!(S::ISA, Isa::Neon) } {
            match wide {
                4 => self.blocks::<S, E, 4>(s, weights),
                _ => self.blocks::<S, E, 2>(s, weights),
            }
        } else if const { matches!(S::ISA, Isa::Avx2) } {
            match wide {
                1 => self.blocks::<S, E, 1>(s, weights),
                _ => self.blocks::<S, E, 2>(s, weights),
            }
        } else {
            self.blocks::<S, E, 2>(s, weights)
        }
    }

    /// Blocks of rows, of each sum, of strips of `V` vectors, in this order.
    #[inline(always)]
    fn blocks<S: Simd, E: Element, const V: usize>(&self, s: S, weights: *const E::T) {
        let job = self.job;
        let k = (job.positions * job.depth).max(1);
        let row_bytes = (V * S::LANES * size_of::<E::T>()).max(1);
        let deep = (strip_bytes(S::ISA) / row_bytes).max(32);
        // Rows of one tile read weights once: those lie one behind another only as far as a strip goes undivided.
        let deep = if self.rows.len() <= most_rows::<E>(S::ISA) {
            k
        } else {
            deep
        };
        // Equal blocks: one of a few numbers would cost as much in loads and stores of sums.
        let deep = k.div_ceil(k.div_ceil(deep));
        let tile = tile_rows(S::ISA);
        let high = (rows_bytes(S::ISA) / 4 / deep / tile).max(4) * tile;
        let high = match S::ISA {
            Isa::Avx512 => high,
            // Equal blocks: each reads all weights.
            _ => self
                .rows
                .len()
                .div_ceil(self.rows.len().div_ceil(high))
                .next_multiple_of(tile),
        };
        let mut row = self.rows.start;
        while row < self.rows.end {
            let rows = high.min(self.rows.end - row);
            self.spans(deep, |span| {
                let mut strip = self.strips.start;
                while strip < self.strips.end {
                    let left = self.strips.end - strip;
                    // Few rows are bound by the weights' way here: more strips at once keep more of them under way.
                    strip += match rows {
                        1 if left >= 4 => self.rows_of::<S, E, 4, V>(s, weights, row, rows, strip, span),
                        1 | 2 if left >= 2 => self.rows_of::<S, E, 2, V>(s, weights, row, rows, strip, span),
                        _ => self.rows_of::<S, E, 1, V>(s, weights, row, rows, strip, span),
                    };
                }
            });
            row += rows;
        }
    }

    /// The parts of each sum, in order: whole positions where several fit, else parts of one.
    #[inline(always)]
    fn spans(&self, deep: usize, mut body: impl FnMut(Span)) {
        let (positions, depth) = (self.job.positions, self.job.depth);
        let empty = positions * depth == 0;
        let (some, each) = if empty {
            (0, 0)
        } else if depth <= deep {
            (positions.div_ceil(positions.div_ceil(deep / depth)), depth)
        } else {
            (1, depth.div_ceil(depth.div_ceil(deep)))
        };
        let (mut position, mut from) = (0, 0);
        loop {
            let (count, len) = (some.min(positions - position), each.min(depth - from));
            let last = empty || (position + count == positions && from + len == depth);
            body(Span {
                position,
                positions: count,
                from,
                len,
                depth,
                first: position == 0 && from == 0,
                last,
            });
            if last {
                return;
            }
            from += len;
            if from == depth {
                (position, from) = (position + count, 0);
            }
        }
    }

    /// All rows of a block by `P` strips; how many strips those were.
    #[inline(always)]
    fn rows_of<S: Simd, E: Element, const P: usize, const V: usize>(
        &self,
        s: S,
        weights: *const E::T,
        row: usize,
        rows: usize,
        strip: usize,
        span: Span,
    ) -> usize {
        let job = self.job;
        let columns = V * S::LANES;
        let a_panel = (job.width / columns).max(1);
        let at = |strip: usize| {
            let (panel, within) = (strip / a_panel, strip % a_panel);
            weights.wrapping_add(panel * job.panel + within * columns)
        };
        let strips: [*const E::T; P] = std::array::from_fn(|p| at(strip + p));
        // The next strip; or the first one's next part; or what lies behind all, the weights of another product, it may be.
        let now = span.position * span.depth + span.from;
        let next = match strip + 1 < self.strips.end {
            true => at(strip + 1).wrapping_add(now * job.step),
            false if span.last => at(strip + 1),
            false => at(self.strips.start).wrapping_add((now + span.positions * span.len) * job.step),
        };
        let column = strip * columns;
        // Few weights are in a cache already, or are there by the time that they are read.
        let asks = job.n * span.depth * job.positions * size_of::<E::T>() > ASKED_BYTES;
        let call = Strips {
            source: &job.source,
            finish: &job.finish,
            span,
            strips,
            step: job.step,
            out: job.out,
            out_stride: job.out_stride,
            column,
            columns: (job.n - column).min(P * columns),
            ahead: Ahead {
                weights: next,
                row,
                rows: if asks { rows } else { 0 },
            },
        };
        if const { P > 2 } {
            call.tiles::<S, E, 1, V>(s, row, 1);
            return P;
        }
        if const { P == 2 } {
            match rows {
                1 => call.tiles::<S, E, 1, V>(s, row, 1),
                _ => call.tiles::<S, E, 2, V>(s, row, 1),
            }
            return P;
        }
        // Of the last strip, half may be all that there is.
        if const { V == 2 && !matches!(S::ISA, Isa::Neon) } && call.columns <= S::LANES {
            call.rows::<S, E, 1>(s, row, rows);
        } else {
            call.rows::<S, E, V>(s, row, rows);
        }
        P
    }
}

impl<T: Copy, const P: usize> Strips<'_, T, P> {
    /// All rows of a block.
    #[inline(always)]
    fn rows<S: Simd, E: Element<T = T>, const V: usize>(&self, s: S, row: usize, rows: usize) {
        let full = tile_rows(S::ISA);
        let (mut row, mut rest) = (row, rows);
        if const { balances::<T>(S::ISA) } {
            return self.balanced::<S, E, V>(s, row, rows);
        }
        if const { every_tile::<E>(S::ISA) } {
            // One to three rows would not hide how long a product takes: they and the last twelve are two equal tiles.
            let whole = match (rest / full, rest % full) {
                (tiles @ 1.., 1..4) => tiles - 1,
                (tiles, _) => tiles,
            };
            if whole > 0 {
                self.tiles::<S, E, 12, V>(s, row, whole);
            }
            (row, rest) = (row + whole * full, rest - whole * full);
            if rest > full {
                let half = rest.div_ceil(2);
                self.exactly::<S, E, V>(s, row, half);
                (row, rest) = (row + half, rest - half);
            }
            return self.exactly::<S, E, V>(s, row, rest);
        }
        if rest >= full {
            if const { matches!(S::ISA, Isa::Avx512) } {
                self.tiles::<S, E, 12, V>(s, row, rest / full)
            } else if const { matches!(S::ISA, Isa::Scalar) } {
                self.tiles::<S, E, 4, V>(s, row, rest / full)
            } else {
                self.tiles::<S, E, 6, V>(s, row, rest / full)
            }
            (row, rest) = (row + rest / full * full, rest % full);
        }
        // Tails of five and more are of two kinds of tiles.
        if rest >= 4 && rest != 5 {
            self.tiles::<S, E, 4, V>(s, row, rest / 4);
            (row, rest) = (row + rest / 4 * 4, rest % 4);
        }
        if rest >= 3 {
            self.tiles::<S, E, 3, V>(s, row, 1);
            (row, rest) = (row + 3, rest - 3);
        }
        match rest {
            1 => self.tiles::<S, E, 1, V>(s, row, 1),
            2 => self.tiles::<S, E, 2, V>(s, row, 1),
            _ => {}
        }
    }

    /// All rows of a block in tiles that hide how long a product takes, on sixteen registers: it takes two vectors of columns and four rows, or one
    /// vector and eight rows, to keep both units busy. What is left behind the tallest tiles is put together with the last of them.
    #[inline(always)]
    fn balanced<S: Simd, E: Element<T = T>, const V: usize>(&self, s: S, row: usize, rows: usize) {
        let (mut row, full) = (row, if const { V == 1 } { 12 } else { 6 });
        let (tiles, rest) = (rows / full, rows % full);
        // How many of the tallest tiles are given up, and of how many rows the others are.
        let (less, others) = match (V, rest) {
            (1, 1..=3) if tiles > 0 => (1, [8, 4 + rest, 0]),
            (1, 4) if tiles > 0 => (1, [8, 8, 0]),
            (1, 9..) => (0, [rest - 4, 4, 0]),
            (1, _) => (0, [rest, 0, 0]),
            (_, 1) if tiles > 1 => (2, [5, 4, 4]),
            (_, 1) if tiles > 0 => (1, [4, 3, 0]),
            (_, 2) if tiles > 0 => (1, [4, 4, 0]),
            (_, 3) if tiles > 0 => (1, [5, 4, 0]),
            _ => (0, [rest, 0, 0]),
        };
        let tall = tiles - less;
        if tall > 0 {
            if const { V == 1 } {
                self.tiles::<S, E, 12, V>(s, row, tall);
            } else {
                self.tiles::<S, E, 6, V>(s, row, tall);
            }
            row += tall * full;
        }
        for count in others {
            match count {
                1 => self.tiles::<S, E, 1, V>(s, row, 1),
                2 => self.tiles::<S, E, 2, V>(s, row, 1),
                3 => self.tiles::<S, E, 3, V>(s, row, 1),
                4 => self.tiles::<S, E, 4, V>(s, row, 1),
                5 => self.tiles::<S, E, 5, V>(s, row, 1),
                6 if const { V == 1 } => self.tiles::<S, E, 6, V>(s, row, 1),
                7 if const { V == 1 } => self.tiles::<S, E, 7, V>(s, row, 1),
                8 if const { V == 1 } => self.tiles::<S, E, 8, V>(s, row, 1),
                _ => {}
            }
            row += count;
        }
    }

    /// A tile of so many rows, fewer than twelve.
    #[inline(always)]
    fn exactly<S: Simd, E: Element<T = T>, const V: usize>(&self, s: S, row: usize, rows: usize) {
        match rows {
            1 => self.tiles::<S, E, 1, V>(s, row, 1),
            2 => self.tiles::<S, E, 2, V>(s, row, 1),
            3 => self.tiles::<S, E, 3, V>(s, row, 1),
            4 => self.tiles::<S, E, 4, V>(s, row, 1),
            5 => self.tiles::<S, E, 5, V>(s, row, 1),
            6 => self.tiles::<S, E, 6, V>(s, row, 1),
            7 => self.tiles::<S, E, 7, V>(s, row, 1),
            8 => self.tiles::<S, E, 8, V>(s, row, 1),
            9 => self.tiles::<S, E, 9, V>(s, row, 1),
            10 => self.tiles::<S, E, 10, V>(s, row, 1),
            11 => self.tiles::<S, E, 11, V>(s, row, 1),
            _ => {}
        }
    }

    #[inline(always)]
    fn tiles<S: Simd, E: Element<T = T>, const R: usize, const V: usize>(&self, s: S, row: usize, count: usize) {
        s.outline(Tiles::<E, R, P, V> { over: self, row, count });
    }
}
