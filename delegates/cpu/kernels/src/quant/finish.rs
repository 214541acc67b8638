//! What is done to a tile of sums on its way out.

use crate::simd::{Op, Simd};
use crate::{Activation, Epilogue};

/// Columns of a tile of sums in scratch.
pub(crate) const COLUMNS: usize = 16;

/// Writes a tile of sums: `activation((sum - zero * correction) * scale + bias + residual)`, each step rounded.
pub(crate) struct Finish<'a> {
    /// `rows` rows of [`COLUMNS`].
    pub sums: &'a [f32],
    /// How many columns are there.
    pub columns: usize,
    /// Of each row; none: 1.
    pub scales: &'a [f32],
    /// Zero points of each row; none: 0.
    pub zeros: &'a [i32],
    /// Of each column, for zero points: [`COLUMNS`] numbers, or none.
    pub correction: &'a [f32],
    /// Where the first row begins in the output, and in the residual.
    pub start: usize,
    /// The first column.
    pub column: usize,
    /// Numbers from row to row of the output.
    pub stride: usize,
    /// Bias, residual, function.
    pub epilogue: &'a Epilogue<'a>,
    /// The output's first element; the tile is written and nothing else.
    pub out: *mut f32,
}

impl Op for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.sums.len() / COLUMNS;
        for row in 0..rows {
            let scale = self.scales.get(row).copied();
            let zero = self.zeros.get(row).copied().filter(|zero| *zero != 0);
            let mut at = 0;
            while at < self.columns {
                let n = S::LANES.min(self.columns - at);
                let place = self.start + row * self.stride + at;
                // SAFETY: sums and corrections have 16 columns, of which the lanes are a part; bias, residual and output have `n` more numbers
                // behind `at`, as who made this promises.
                unsafe {
                    let mut x = s.load(self.sums.as_ptr().add(row * COLUMNS + at));
                    if let Some(zero) = zero
                        && !self.correction.is_empty()
                    {
                        let correction = s.load(self.correction.as_ptr().add(at));
                        x = s.sub(x, s.mul(s.splat(zero as f32), correction));
                    }
                    if let Some(scale) = scale {
                        x = s.mul(x, s.splat(scale));
                    }
                    if let Some(bias) = self.epilogue.bias {
                        x = s.add(x, s.load_part(bias.as_ptr().add(self.column + at), n));
                    }
                    let residual = self
                        .epilogue
                        .residual
                        .map(|all| s.load_part(all.as_ptr().add(place), n));
                    x = match residual {
                        Some(r) if self.epilogue.residual_last => s.add(self.epilogue.activation.apply(s, x), r),
                        Some(r) => self.epilogue.activation.apply(s, s.add(x, r)),
                        None if self.epilogue.activation == Activation::None => x,
                        None => self.epilogue.activation.apply(s, x),
                    };
                    s.store_part(self.out.add(place), x, n);
                }
                at += n;
            }
        }
    }
}
