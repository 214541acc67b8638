//! Linear layers with 4-bit weights, a scale for each group of inputs, and activations that are quantized here (`8da4w`).
//!
//! With `u` a weight's four bits, `q` an activation's byte, and `g` the group of input `k`:
//!
//! ```text
//! sum[m, n] = sum over g of scale[n, g] * (sum over k in g of (u - zero[n, g]) * q[m, k])
//! y[m, n]   = activation((sum[m, n] - zero[m] * correction[n]) * scale[m] + bias[n] + residual[m, n])
//! ```
//!
//! Symmetric weights, -8..=7, have a zero of 8. The sums over `k` are exact integers; each is converted to a float (exact below 2^24, which
//! groups up to 8192 stay under) and added with one rounding, group after group, so that every machine and number of threads gives the same
//! bits. `correction` is the sum of a row of weights, made when they are packed.
//!
//! [`pack`] makes the bytes, [`Weights`] reads them, [`linear`] multiplies.

mod pack;
mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(test)]
mod tests;

pub use pack::{PackError, Scales, Weights, pack};

use super::Dot;
use super::dynamic::{RowShape, Rows, Scheme, quantize_rows};
use super::finish::{COLUMNS, Finish};
use crate::Epilogue;
use crate::pool::{self, Pool};
use crate::simd::dispatch;

/// Rows of weights (outputs) that lie beside each other. A machine reads either; one is the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Width {
    /// For vectors of 128 and 256 bits.
    Eight,
    /// For vectors of 512 bits.
    Sixteen,
}

impl Width {
    /// The number.
    pub fn rows(self) -> usize {
        match self {
            Width::Eight => 8,
            Width::Sixteen => 16,
        }
    }

    /// The better one for a way to multiply.
    pub fn best(dot: Dot) -> Width {
        match dot {
            Dot::Avx512 | Dot::Vnni => Width::Sixteen,
            _ => Width::Eight,
        }
    }
}

/// How scales, and zero points with them, are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Halves.
    F16,
    /// Floats.
    F32,
}

/// The layout of packed weights.
///
/// Panels of [`Width`] outputs one after the other, then one correction of 32 bits for each output of a panel. In a panel, for each group: a scale for each
/// output, a zero point for each output if there are any, and blocks of 32 inputs. In a block, byte `b` belongs to the output
/// `b / 4 % width` and has input `4 * v + b % 4` in its lower half and input `16 + 4 * v + b % 4` in its upper half, with `v = b / (4 * width)`.
/// Outputs that fill the last panel have scales of 0; inputs that fill the last block count as absent, since activations are 0 there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Numbers of a row of activations.
    pub inputs: usize,
    /// Numbers of a row of results.
    pub outputs: usize,
    /// Inputs of one scale: a multiple of 32.
    pub group: usize,
    /// Outputs of a panel.
    pub width: Width,
    /// Of scales and zero points.
    pub precision: Precision,
    /// Groups have zero points.
    pub zeros: bool,
}

impl Shape {
    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.inputs.div_ceil(self.group.max(32))
    }

    /// Panels of outputs.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(self.width.rows())
    }

    /// Blocks of 32 inputs.
    fn blocks(&self) -> usize {
        self.inputs.div_ceil(32)
    }

    /// Bytes of scales and zero points of a group in a panel.
    fn header(&self) -> usize {
        let each = match self.precision {
            Precision::F16 => 2,
            Precision::F32 => 4,
        };
        self.width.rows() * each * (1 + usize::from(self.zeros))
    }

    /// Bytes of a panel.
    fn panel_len(&self) -> usize {
        self.groups() * self.header() + self.blocks() * 16 * self.width.rows()
    }

    /// Bytes of packed weights.
    pub fn packed_len(&self) -> usize {
        self.panels() * (self.panel_len() + 4 * self.width.rows())
    }

    /// Floats of scratch that [`linear`] needs for so many rows.
    pub fn scratch_len(&self, rows: usize) -> usize {
        self.rows(rows).scratch_len()
    }

    /// Sizes of quantized rows for these weights.
    pub fn rows(&self, rows: usize) -> RowShape {
        RowShape {
            rows,
            inputs: self.inputs,
            group: self.group,
        }
    }

    /// The factor of sums of groups: what is added to a product instead of the zero point of weights.
    pub fn factor(&self) -> i32 {
        if self.zeros { -1 } else { -8 }
    }
}

/// A tile: a panel of weights by a few rows of activations.
#[derive(Debug, Clone, Copy)]
struct Tile {
    panel: *const u8,
    /// Outputs of the panel.
    width: usize,
    wide: bool,
    zeros: bool,
    groups: usize,
    /// Blocks of a group; the last group has what is left.
    group_blocks: usize,
    blocks: usize,
    values: *const i8,
    stride: usize,
    sums: *const i32,
    /// Rows of [`COLUMNS`] floats.
    out: *mut f32,
}

/// Rows of one chunk: its bytes stay in the second cache while panels pass.
const CHUNK_BYTES: usize = 512 << 10;

/// `y = activation(x * weights^T + bias + residual)` with `rows` rows of floats in `x`, which are quantized by `scheme`. `y` has `rows * outputs` numbers.
///
/// `scratch` has at least [`Shape::scratch_len`] floats. The bits depend on nothing but the arguments: not on the machine, not on the pool.
///
/// # Panics
/// A slice is too short.
pub fn linear(
    dot: Dot,
    pool: &dyn Pool,
    scheme: Scheme,
    x: &[f32],
    rows: usize,
    weights: &Weights,
    epilogue: &Epilogue,
    scratch: &mut [f32],
    y: &mut [f32],
) {
    let shape = weights.shape();
    let made = quantize_rows(
        dot.checked().isa(),
        pool,
        scheme,
        x,
        shape.rows(rows),
        shape.factor(),
        scratch,
    );
    multiply(dot, pool, &made, weights, epilogue, y);
}

/// As [`linear`], with rows that are quantized already, by [`quantize_rows`] with [`Shape::rows`] and [`Shape::factor`]: layers with the same input share them.
///
/// # Panics
/// A slice is too short, or the rows are not of these sizes.
pub fn multiply(dot: Dot, pool: &dyn Pool, rows: &Rows, weights: &Weights, epilogue: &Epilogue, y: &mut [f32]) {
    let shape = *weights.shape();
    let count = rows.shape.rows;
    assert_eq!(
        (rows.shape.inputs, rows.shape.groups()),
        (shape.inputs, shape.groups()),
        "rows of another size"
    );
    let len = count * shape.outputs;
    let enough = |list: Option<&[f32]>, len: usize| list.is_none_or(|list| list.len() >= len);
    assert!(y.len() >= len && enough(epilogue.residual, len) && enough(epilogue.bias, shape.outputs));
    assert!(rows.values.len() >= count * rows.shape.stride() && rows.sums.len() >= count * shape.groups());
    assert!(rows.scales.len() >= count && rows.zeros.len() >= count);
    if len == 0 {
        return;
    }
    let dot = dot.checked();
    let chunk = (CHUNK_BYTES / rows.shape.stride().max(1)).clamp(32, 1024).min(count);
    let (panels, chunks) = (shape.panels(), count.div_ceil(chunk));
    let work = chunk * shape.inputs.max(32) * shape.width.rows() / 64;
    let parts = pool::parts(pool, panels * chunks, work);
    let out = pool::Shared::new(y);
    pool.run(parts, &|part| {
        let mut sums = [0f32; BATCH * COLUMNS];
        let mut correction = [0f32; COLUMNS];
        for unit in pool::range(panels * chunks, parts, part, 1) {
            let (panel, first) = (unit % panels, unit / panels * chunk);
            weights.corrections(panel, &mut correction);
            let end = (first + chunk).min(count);
            for at in (first..end).step_by(BATCH) {
                let batch = Batch {
                    dot,
                    rows,
                    weights,
                    panel,
                    first: at,
                    count: BATCH.min(end - at),
                };
                batch.sum(&mut sums);
                // SAFETY: slices are as long as checked above, and each tile of the output is written by one part.
                unsafe { batch.finish(&sums, &correction, epilogue, out.at(0)) };
            }
        }
    });
}

/// Rows whose sums are finished together.
const BATCH: usize = 32;

/// Some rows by a panel.
struct Batch<'a> {
    dot: Dot,
    rows: &'a Rows<'a>,
    weights: &'a Weights<'a>,
    panel: usize,
    first: usize,
    count: usize,
}

impl Batch<'_> {
    /// Sums of groups by their scales, for each row [`COLUMNS`].
    fn sum(&self, sums: &mut [f32; BATCH * COLUMNS]) {
        let (shape, rows) = (self.weights.shape(), self.rows);
        let (stride, groups) = (rows.shape.stride(), shape.groups());
        let mut at = 0;
        while at < self.count {
            let taken = largest_tile(self.dot, self.count - at);
            let row = self.first + at;
            let job = Tile {
                panel: self.weights.panel(self.panel).as_ptr(),
                width: shape.width.rows(),
                wide: shape.precision == Precision::F32,
                zeros: shape.zeros,
                groups,
                group_blocks: shape.group / 32,
                blocks: shape.blocks(),
                values: rows.values[row * stride..][..taken * stride].as_ptr(),
                stride,
                sums: rows.sums[row * groups..][..taken * groups].as_ptr(),
                out: sums[at * COLUMNS..][..taken * COLUMNS].as_mut_ptr(),
            };
            // SAFETY: this machine has `dot`, which is checked; pointers are good for the sizes beside them.
            unsafe { run(self.dot, taken, &job) };
            at += taken;
        }
    }

    /// Writes results.
    ///
    /// # Safety
    /// `out` is the output's first element, and nobody else writes these rows and columns.
    unsafe fn finish(
        &self,
        sums: &[f32; BATCH * COLUMNS],
        correction: &[f32; COLUMNS],
        epilogue: &Epilogue,
        out: *mut f32,
    ) {
        let shape = self.weights.shape();
        let column = self.panel * shape.width.rows();
        let rows = self.first..self.first + self.count;
        let finish = Finish {
            sums: &sums[..self.count * COLUMNS],
            columns: shape.width.rows().min(shape.outputs - column),
            scales: &self.rows.scales[rows.clone()],
            zeros: &self.rows.zeros[rows],
            correction,
            start: self.first * shape.outputs + column,
            column,
            stride: shape.outputs,
            epilogue,
            out,
        };
        dispatch(self.dot.isa(), finish);
    }
}

fn largest_tile(dot: Dot, left: usize) -> usize {
    let most = match dot {
        Dot::Vnni => 8,
        Dot::Avx512 => 8,
        Dot::NeonDot | Dot::NeonMatrix => 8,
        _ => 4,
    };
    let mut taken = most;
    while taken > left {
        taken /= 2;
    }
    taken
}

/// # Safety
/// The machine has `dot`, and the pointers are good.
#[inline]
unsafe fn run(dot: Dot, count: usize, job: &Tile) {
    macro_rules! by_count {
        ($($path:tt)+) => {
            match count {
                8 => $($path)+::<8>(job),
                4 => $($path)+::<4>(job),
                2 => $($path)+::<2>(job),
                _ => $($path)+::<1>(job),
            }
        };
    }
    // SAFETY: as the caller says.
    unsafe {
        match dot {
            #[cfg(target_arch = "x86_64")]
            Dot::Vnni if job.width == 16 => by_count!(avx512::vnni),
            #[cfg(target_arch = "x86_64")]
            Dot::Avx512 if job.width == 16 => by_count!(avx512::bytes),
            #[cfg(target_arch = "x86_64")]
            Dot::Avx2 | Dot::Avx512 | Dot::Vnni => by_count!(avx2::tile),
            #[cfg(target_arch = "aarch64")]
            Dot::NeonMatrix => neon::matrix(count, job),
            #[cfg(target_arch = "aarch64")]
            Dot::NeonDot => by_count!(neon::dotted),
            #[cfg(target_arch = "aarch64")]
            Dot::Neon => by_count!(neon::plain),
            _ => by_count!(scalar::tile),
        }
    }
}
