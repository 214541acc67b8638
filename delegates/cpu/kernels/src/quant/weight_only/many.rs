//! Many rows: a piece of a panel becomes floats, and tiles of rows are multiplied with it.

use super::{Code, Panel, block_at, vectors};
use crate::quant::finish::COLUMNS;
use crate::simd::{Op, Simd};

/// Inputs of a piece: its floats stay in the first cache.
pub(super) const PIECE: usize = 256;
/// Rows that a piece serves at most.
pub(super) const CHUNK: usize = 120;

/// Rows of a tile, a divisor of twelve.
pub(super) struct TileRows;

impl Op for TileRows {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        match vectors::<S>() {
            1 => 12,
            2 => 6,
            _ => 4,
        }
    }
}

/// Writes `tile` rows from `first` on, input by input; rows behind the last one are 0.
pub(super) fn pack_rows(x: &[f32], inputs: usize, rows: usize, first: usize, tile: usize, to: &mut [f32]) {
    for r in 0..tile {
        let row = first + r;
        let slots = to.iter_mut().skip(r).step_by(tile);
        if row < rows {
            slots.zip(&x[row * inputs..][..inputs]).for_each(|(to, x)| *to = *x);
        } else {
            slots.for_each(|to| *to = 0.0);
        }
    }
}

/// Rows by a panel, into sums.
pub(super) struct Block<'a> {
    pub panel: Panel,
    /// Packed rows, from the first one on.
    pub tiles: &'a [f32],
    pub rows: usize,
    /// `PIECE` inputs of sixteen outputs.
    pub piece: &'a mut [f32],
    /// `CHUNK` rows of sixteen.
    pub sums: &'a mut [f32],
}

impl Op for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.panel.inputs;
        if inputs == 0 {
            self.sums.fill(0.0);
        }
        for start in (0..inputs).step_by(PIECE) {
            let len = PIECE.min(inputs - start);
            // SAFETY: the piece has room for whole blocks, and sums and tiles for whole tiles, since chunks are.
            unsafe {
                dequantize(s, &self.panel, start, len, self.piece.as_mut_ptr());
                macro_rules! tiles {
                    ($v:literal, $r:literal) => {
                        for row in (0..self.rows).step_by($r) {
                            let a = self.tiles.as_ptr().add(row * inputs + start * $r);
                            let sums = self.sums.as_mut_ptr().add(row * COLUMNS);
                            tile::<S, $v, $r>(s, a, self.piece.as_ptr(), len, start == 0, sums);
                        }
                    };
                }
                match vectors::<S>() {
                    1 => tiles!(1, 12),
                    2 => tiles!(2, 6),
                    _ => tiles!(4, 4),
                }
            }
        }
    }
}

/// # Safety
/// `a` has `len` times `R` numbers, `b` `len` times sixteen, `sums` `R` times sixteen.
#[inline(always)]
unsafe fn tile<S: Simd, const V: usize, const R: usize>(
    s: S,
    a: *const f32,
    b: *const f32,
    len: usize,
    fresh: bool,
    sums: *mut f32,
) {
    let mut own = [[s.splat(0.0); V]; R];
    // SAFETY: as the caller says.
    unsafe {
        for k in 0..len {
            let mut all = [s.splat(0.0); V];
            for (v, all) in all.iter_mut().enumerate() {
                *all = s.load(b.add(k * COLUMNS + v * S::LANES));
            }
            for (r, own) in own.iter_mut().enumerate() {
                let a = s.splat(*a.add(k * R + r));
                for v in 0..V {
                    own[v] = s.fma(a, all[v], own[v]);
                }
            }
        }
        for (r, own) in own.iter().enumerate() {
            for (v, own) in own.iter().enumerate() {
                let at = sums.add(r * COLUMNS + v * S::LANES);
                s.store(at, if fresh { *own } else { s.add(s.load(at), *own) });
            }
        }
    }
}

/// Floats of `len` inputs from `start` on, sixteen outputs each. `start` is a multiple of [`PIECE`], and so of a block.
///
/// # Safety
/// `to` has room for `len` inputs, rounded up to whole blocks.
#[inline(always)]
unsafe fn dequantize<S: Simd>(s: S, panel: &Panel, start: usize, len: usize, to: *mut f32) {
    let size = panel.code.block();
    // SAFETY: as the caller says; vectors that a panel of eight has no room for are read number by number.
    unsafe {
        for block in 0..len.div_ceil(size) {
            let (header, at) = block_at(panel, start / size + block);
            let to = to.add(block * size * COLUMNS);
            if panel.width < S::LANES {
                narrow(panel, header, at, to);
                continue;
            }
            for lane in (0..COLUMNS).step_by(S::LANES) {
                if lane >= panel.width {
                    for k in 0..size {
                        s.store(to.add(k * COLUMNS + lane), s.splat(0.0));
                    }
                    continue;
                }
                let scale = panel.parameter(s, header, 0, lane);
                let zero = match panel.zeros {
                    true => panel.parameter(s, header, 1, lane),
                    false => s.splat(panel.zero),
                };
                macro_rules! put {
                    ($k:expr, $bits:expr) => {{
                        let x = s.mul(s.sub(s.to_f($bits), zero), scale);
                        s.store(to.add(($k) * COLUMNS + lane), x);
                    }};
                }
                match panel.code {
                    Code::Eight => {
                        for k in 0..16 {
                            put!(k, s.load_i8(at.add(k * COLUMNS + lane).cast()));
                        }
                    }
                    Code::Two => {
                        let word = s.load_i(at.cast::<i32>().add(lane));
                        macro_rules! step {
                            ($($j:literal)*) => { $(
                                put!($j, s.and_i(s.shr_i::<{ 2 * $j }>(word), s.splat_i(3)));
                            )* };
                        }
                        step!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
                    }
                    Code::Four => {
                        for four in 0..4 {
                            let word = s.load_i(at.cast::<i32>().add(four * panel.width + lane));
                            macro_rules! step {
                                ($($j:literal)*) => { $(
                                    put!(4 * four + $j / 2 + $j % 2 * 16, s.and_i(s.shr_i::<{ 4 * $j }>(word), s.splat_i(15)));
                                )* };
                            }
                            step!(0 1 2 3 4 5 6 7);
                        }
                    }
                }
            }
        }
    }
}

/// A block of a panel of eight outputs with 4 bits.
///
/// # Safety
/// As [`dequantize`].
#[inline(always)]
unsafe fn narrow(panel: &Panel, header: *const u8, at: *const u8, to: *mut f32) {
    // SAFETY: as the caller says.
    unsafe {
        let parameter = |list: usize, i: usize| {
            let from = header.add(list * panel.list());
            match panel.wide {
                true => from.cast::<f32>().add(i).read_unaligned(),
                false => half::f16::from_bits(from.cast::<u16>().add(i).read_unaligned()).to_f32(),
            }
        };
        for i in 0..COLUMNS {
            let here = i < panel.width;
            let scale = if here { parameter(0, i) } else { 0.0 };
            let zero = if here && panel.zeros {
                parameter(1, i)
            } else {
                panel.zero
            };
            for k in 0..32 {
                let byte = if here {
                    *at.add(k % 16 / 4 * 4 * panel.width + 4 * i + k % 4)
                } else {
                    0
                };
                let bits = if k < 16 { byte & 15 } else { byte >> 4 };
                let x = if here { (f32::from(bits) - zero) * scale } else { 0.0 };
                to.add(k * COLUMNS + i).write(x);
            }
        }
    }
}
