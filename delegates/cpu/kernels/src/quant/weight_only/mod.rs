//! Linear layers with weights of 8, 4 or 2 bits and activations that stay floats (`w8`, `w4`, `w2`).
//!
//! ```text
//! y[m, n] = activation(sum over k of x[m, k] * (value[n, k] - zero[n, g]) * scale[n, g] + bias[n] + residual[m, n])
//! ```
//!
//! with `g` the group of input `k`. A few rows read the weights once and make floats of them in registers, and what belongs to a group is factored out of its sum:
//! `scale * (sum of x * bits - zero * sum of x)`. Many rows have a piece of a panel of weights made floats first, and multiply floats. The two differ in
//! rounding, as any two orders of a sum do; the bits depend on the number of rows and the instruction set, and not on the pool.
//!
//! A NaN of an activation makes its row NaN. So does an infinity with few rows where zero points are not 0, since it is subtracted from itself; PyTorch, and many rows,
//! have an infinity there.
//!
//! 4-bit weights are those of [`q4`](super::q4), packed by [`q4::pack`](super::q4::pack); [`pack`] is for the others.

mod few;
mod many;
mod pack;

#[cfg(test)]
mod tests;

pub use pack::{Bits, Shape, Values, pack};

use super::finish::{COLUMNS, Finish};
use super::q4;
use crate::pool::{self, Pool, Shared};
use crate::simd::{Simd, dispatch};
use crate::{Epilogue, Isa};
use many::{Block, CHUNK, PIECE};

/// Packed weights of either kind.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// 8 or 2 bits.
    Values(Values<'a>),
    /// 4 bits.
    Four(q4::Weights<'a>),
}

/// How bits lie in a block of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// A byte of each output for each input, signed.
    Eight,
    /// A word of each output for sixteen inputs.
    Two,
    /// A word of each output for four inputs in its lower halves of bytes, and those sixteen behind them in the upper halves.
    Four,
}

impl Code {
    /// Inputs of a block.
    pub(crate) fn block(self) -> usize {
        match self {
            Code::Four => 32,
            _ => 16,
        }
    }
}

/// A panel of weights: for each group scales, perhaps zero points, and blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) code: Code,
    pub(crate) from: *const u8,
    /// Outputs: 8 or 16.
    pub(crate) width: usize,
    /// Scales are floats, not halves.
    pub(crate) wide: bool,
    pub(crate) zeros: bool,
    /// The zero point of bits where none is stored.
    pub(crate) zero: f32,
    /// Inputs of a group.
    pub(crate) group: usize,
    pub(crate) inputs: usize,
}

impl Panel {
    /// Bytes of scales, or of zero points, of a group.
    pub(crate) fn list(&self) -> usize {
        self.width * if self.wide { 4 } else { 2 }
    }

    /// Bytes of a group's scales and zero points.
    pub(crate) fn header(&self) -> usize {
        self.list() * (1 + usize::from(self.zeros))
    }

    /// Bytes of a block.
    pub(crate) fn block_len(&self) -> usize {
        self.width
            * match self.code {
                Code::Eight => 16,
                Code::Two => 4,
                Code::Four => 16,
            }
    }

    /// Scales, or zero points, from a lane on.
    ///
    /// # Safety
    /// `header` is a group's, and it has `LANES` from there on.
    #[inline(always)]
    pub(crate) unsafe fn parameter<S: Simd>(&self, s: S, header: *const u8, list: usize, lane: usize) -> S::F {
        // SAFETY: as the caller says.
        unsafe {
            let from = header.add(list * self.list());
            match self.wide {
                true => s.load(from.cast::<f32>().add(lane)),
                false => s.load_f16(from.cast::<u16>().add(lane)),
            }
        }
    }
}

// SAFETY: it is a view of weights that nobody writes.
unsafe impl Sync for Panel {}

impl Weights<'_> {
    /// Inputs and outputs.
    pub fn sizes(&self) -> (usize, usize) {
        match self {
            Weights::Values(values) => (values.shape().inputs, values.shape().outputs),
            Weights::Four(four) => (four.shape().inputs, four.shape().outputs),
        }
    }

    fn width(&self) -> usize {
        match self {
            Weights::Values(_) => COLUMNS,
            Weights::Four(four) => four.shape().width.rows(),
        }
    }

    fn panel(&self, index: usize) -> Panel {
        match self {
            Weights::Values(values) => values.panel(index),
            Weights::Four(four) => {
                let shape = four.shape();
                Panel {
                    code: Code::Four,
                    from: four.panel(index).as_ptr(),
                    width: shape.width.rows(),
                    wide: shape.precision == q4::Precision::F32,
                    zeros: shape.zeros,
                    zero: 8.0,
                    group: shape.group,
                    inputs: shape.inputs,
                }
            }
        }
    }
}

/// Rows up to which weights become floats in registers.
const FEW: usize = 7;

/// Floats of scratch that [`linear`] needs.
pub fn scratch_len(weights: &Weights, rows: usize, pool: &dyn Pool) -> usize {
    let (inputs, _) = weights.sizes();
    scratch_len_of(inputs, rows, pool)
}

/// The same by the numbers of a row of activations, where the weights are not at hand.
pub fn scratch_len_of(inputs: usize, rows: usize, pool: &dyn Pool) -> usize {
    let prepared = inputs.next_multiple_of(32);
    if rows <= FEW {
        return rows * (prepared + inputs.div_ceil(16));
    }
    let tiles = rows.next_multiple_of(12);
    tiles * inputs + pool.threads().max(1) * 4 * (PIECE + CHUNK) * COLUMNS
}

/// The product. `x` has `rows` rows of inputs, `y` as many of outputs; `scratch` at least [`scratch_len`] floats.
///
/// # Panics
/// A slice is too short.
pub fn linear(
    isa: Isa,
    pool: &dyn Pool,
    x: &[f32],
    rows: usize,
    weights: &Weights,
    epilogue: &Epilogue,
    scratch: &mut [f32],
    y: &mut [f32],
) {
    let (inputs, outputs) = weights.sizes();
    let len = rows * outputs;
    let enough = |list: Option<&[f32]>, len: usize| list.is_none_or(|list| list.len() >= len);
    assert!(x.len() >= rows * inputs && y.len() >= len, "rows are missing");
    assert!(
        enough(epilogue.residual, len) && enough(epilogue.bias, outputs),
        "an epilogue is too short"
    );
    assert!(
        scratch.len() >= scratch_len(weights, rows, pool),
        "scratch is too short"
    );
    if len == 0 {
        return;
    }
    let job = Job {
        isa,
        x,
        rows,
        weights,
        epilogue,
        out: Shared::new(y),
    };
    if rows <= FEW {
        job.few(pool, scratch)
    } else {
        job.many(pool, scratch)
    }
}

struct Job<'a> {
    isa: Isa,
    x: &'a [f32],
    rows: usize,
    weights: &'a Weights<'a>,
    epilogue: &'a Epilogue<'a>,
    out: Shared<f32>,
}

impl Job<'_> {
    fn few(&self, pool: &dyn Pool, scratch: &mut [f32]) {
        let (inputs, outputs) = self.weights.sizes();
        let width = self.weights.width();
        let panels = outputs.div_ceil(width);
        let (stride, code) = (inputs.next_multiple_of(32), self.weights.panel(0).code);
        let group = self.weights.panel(0).group;
        let groups = inputs.div_ceil(group);
        let (prepared, sums) = scratch.split_at_mut(self.rows * stride);
        for row in 0..self.rows {
            let x = &self.x[row * inputs..][..inputs];
            few::prepare(
                code,
                x,
                group,
                &mut prepared[row * stride..][..stride],
                &mut sums[row * groups..][..groups],
            );
        }
        let (prepared, sums) = (&*prepared, &*sums);
        let parts = pool::parts(pool, panels, self.rows * inputs * width / 32);
        pool.run(parts, &|part| {
            for panel in pool::range(panels, parts, part, 1) {
                let mut row = 0;
                while row < self.rows {
                    let count = match self.rows - row {
                        1 => 1,
                        2 | 3 => 2,
                        _ => 4,
                    };
                    let mut made = [0f32; 4 * COLUMNS];
                    let work = few::Few {
                        panel: self.weights.panel(panel),
                        x: prepared[row * stride..].as_ptr(),
                        stride,
                        sums: sums[row * groups..].as_ptr(),
                        groups,
                        count,
                        out: &mut made,
                    };
                    dispatch(self.isa, work);
                    self.finish(&made[..count * COLUMNS], row, panel * width, width);
                    row += count;
                }
            }
        });
    }

    fn many(&self, pool: &dyn Pool, scratch: &mut [f32]) {
        let (inputs, outputs) = self.weights.sizes();
        let width = self.weights.width();
        let panels = outputs.div_ceil(width);
        let (tiles, pieces) = scratch.split_at_mut(self.rows.next_multiple_of(12) * inputs);
        let tile = dispatch(self.isa, many::TileRows);
        let count = self.rows.div_ceil(tile);
        let packed = Shared::new(tiles);
        let parts = pool::parts(pool, count, tile * inputs);
        pool.run(parts, &|part| {
            for index in pool::range(count, parts, part, 1) {
                // SAFETY: each tile is written once, in its own place: 12 is a multiple of the rows of a tile.
                let to = unsafe { packed.slice(index * tile * inputs..(index + 1) * tile * inputs) };
                many::pack_rows(self.x, inputs, self.rows, index * tile, tile, to);
            }
        });
        let tiles = &*tiles;
        // Chunks are whole tiles.
        let chunk = CHUNK / tile * tile;
        let chunks = self.rows.div_ceil(chunk);
        let parts = pool::parts(pool, chunks * panels, chunk.min(self.rows) * inputs * width / 32);
        let each = (PIECE + CHUNK) * COLUMNS;
        let shared = Shared::new(pieces);
        pool.run(parts, &|part| {
            // SAFETY: each part has its own piece; there are at most four for a thread.
            let own = unsafe { shared.slice(part * each..(part + 1) * each) };
            let (piece, sums) = own.split_at_mut(PIECE * COLUMNS);
            for unit in pool::range(chunks * panels, parts, part, 1) {
                let (first, panel) = (unit / panels * chunk, unit % panels);
                let rows = chunk.min(self.rows - first);
                let work = Block {
                    panel: self.weights.panel(panel),
                    tiles: &tiles[first * inputs..],
                    rows,
                    piece: &mut *piece,
                    sums: &mut *sums,
                };
                dispatch(self.isa, work);
                self.finish(&sums[..rows * COLUMNS], first, panel * width, width);
            }
        });
    }

    fn finish(&self, sums: &[f32], row: usize, column: usize, width: usize) {
        let (_, outputs) = self.weights.sizes();
        let work = Finish {
            sums,
            columns: width.min(outputs - column),
            scales: &[],
            zeros: &[],
            correction: &[],
            start: row * outputs + column,
            column,
            stride: outputs,
            epilogue: self.epilogue,
            // SAFETY: the output has elements, and a first one.
            out: unsafe { self.out.at(0) },
        };
        dispatch(self.isa, work);
    }
}

/// Where a block of a panel begins, and the header of its group.
///
/// # Safety
/// The panel has this block.
#[inline(always)]
pub(crate) unsafe fn block_at(panel: &Panel, block: usize) -> (*const u8, *const u8) {
    let per_group = panel.group / panel.code.block();
    let group = block / per_group;
    let group_len = panel.header() + per_group * panel.block_len();
    // SAFETY: as the caller says.
    unsafe {
        let header = panel.from.add(group * group_len);
        (
            header,
            header.add(panel.header() + (block - group * per_group) * panel.block_len()),
        )
    }
}

/// A function of an instruction set's lanes, for [`Op`]s that differ by their number: `1` vector of sixteen, `2` of eight, `4` of four.
#[inline(always)]
pub(crate) fn vectors<S: Simd>() -> usize {
    COLUMNS / S::LANES
}
