//! What is done to sums: in registers, and in a second pass over what was just stored.

use crate::simd::{Op, Simd};
use crate::{Activation, Epilogue};

/// What is done to sums in registers; functions that are no bounds are `after`, in a second pass over what was just stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    pub bias: *const f32,
    pub residual: *const f32,
    pub residual_stride: usize,
    pub residual_last: bool,
    pub low: f32,
    pub high: f32,
    pub after: Activation,
}

// SAFETY: what it points to is read only, and borrowed by whoever makes one.
unsafe impl Send for Finish {}
// SAFETY: as above.
unsafe impl Sync for Finish {}

impl Finish {
    /// Of an epilogue whose bias and residual are long enough.
    pub fn new(epilogue: &Epilogue<'_>, residual_stride: usize) -> Finish {
        let (low, high, after) = match epilogue.activation {
            Activation::None => (f32::NEG_INFINITY, f32::INFINITY, Activation::None),
            Activation::Relu => (0.0, f32::INFINITY, Activation::None),
            Activation::Clamp(low, high) => (low, high, Activation::None),
            other => (f32::NEG_INFINITY, f32::INFINITY, other),
        };
        Finish {
            bias: epilogue.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            residual: epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            residual_stride,
            residual_last: epilogue.residual_last,
            low,
            high,
            after,
        }
    }

    /// The same from a column on.
    pub fn shifted(mut self, column: usize) -> Finish {
        // SAFETY: who shifts has columns there.
        unsafe {
            if !self.bias.is_null() {
                self.bias = self.bias.add(column);
            }
            if !self.residual.is_null() {
                self.residual = self.residual.add(column);
            }
        }
        self
    }

    /// The same with the residual from an element on.
    pub fn moved(mut self, at: usize) -> Finish {
        if !self.residual.is_null() {
            // SAFETY: who moves it has elements there.
            self.residual = unsafe { self.residual.add(at) };
        }
        self
    }

    /// Whether a second pass is needed.
    #[inline(always)]
    pub fn twice(&self) -> bool {
        self.after != Activation::None
    }

    /// Whole vectors of `R` rows, as they are stored.
    ///
    /// # Safety
    /// Rows and columns are below those of the output.
    #[inline(always)]
    pub unsafe fn all<S: Simd, const R: usize>(&self, s: S, sums: &mut [S::F; R], row: usize, column: usize) {
        // SAFETY: as the caller says.
        unsafe {
            if !self.bias.is_null() {
                let bias = s.load(self.bias.add(column));
                sums.iter_mut().for_each(|x| *x = s.add(*x, bias));
            }
            let residual = |r: usize| s.load(self.residual.add((row + r) * self.residual_stride + column));
            if !self.residual.is_null() && !self.residual_last {
                sums.iter_mut()
                    .enumerate()
                    .for_each(|(r, x)| *x = s.add(*x, residual(r)));
            }
            let (low, high) = (s.splat(self.low), s.splat(self.high));
            sums.iter_mut().for_each(|x| *x = s.min(s.max(*x, low), high));
            if !self.residual.is_null() && self.residual_last && !self.twice() {
                sums.iter_mut()
                    .enumerate()
                    .for_each(|(r, x)| *x = s.add(*x, residual(r)));
            }
        }
    }

    /// A vector of sums, as it is stored.
    ///
    /// # Safety
    /// Row and columns are below those of the output; `part` says that only as many columns are there.
    #[inline(always)]
    pub unsafe fn one<S: Simd>(&self, s: S, sum: S::F, row: usize, column: usize, part: Option<usize>) -> S::F {
        // SAFETY: as the caller says.
        let load = |from: *const f32| unsafe {
            match part {
                None => s.load(from),
                Some(n) => s.load_part(from, n),
            }
        };
        let mut x = sum;
        if !self.bias.is_null() {
            // SAFETY: as the caller says.
            x = s.add(x, load(unsafe { self.bias.add(column) }));
        }
        if self.residual.is_null() {
            return s.min(s.max(x, s.splat(self.low)), s.splat(self.high));
        }
        // SAFETY: as the caller says.
        let residual = unsafe { self.residual.add(row * self.residual_stride + column) };
        if !self.residual_last {
            x = s.add(x, load(residual));
        }
        x = s.min(s.max(x, s.splat(self.low)), s.splat(self.high));
        if self.residual_last && !self.twice() {
            x = s.add(x, load(residual));
        }
        x
    }
}

/// The second pass: `after` of rows and columns that are stored, and the residual behind it.
pub(crate) struct Second {
    pub finish: Finish,
    pub out: *mut f32,
    pub stride: usize,
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
}

impl Op for Second {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let finish = &self.finish;
        let residual = match finish.residual_last {
            true => finish.residual,
            false => std::ptr::null(),
        };
        for row in self.row..self.row + self.rows {
            let to = self.out.wrapping_add(row * self.stride + self.column);
            let residual_at = residual.wrapping_add(row * finish.residual_stride + self.column);
            for at in (0..self.columns).step_by(S::LANES) {
                let n = (self.columns - at).min(S::LANES);
                let (to, residual_at) = (to.wrapping_add(at), residual_at.wrapping_add(at));
                // SAFETY: the rows and columns are there.
                unsafe {
                    let mut x = finish.after.apply(s, s.load_part(to, n));
                    if !residual.is_null() {
                        x = s.add(x, s.load_part(residual_at, n));
                    }
                    s.store_part(to, x, n);
                }
            }
        }
    }
}
