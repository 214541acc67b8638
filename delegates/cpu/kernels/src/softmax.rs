//! Softmax and its logarithm along rows.

use crate::lanes::{first, load, store, sum};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Isa, math};

/// Numbers that are added to rows before softmax. Row `r` is added the mask's row `r / divide % rows`: a mask of `[queries, columns]` over
/// `[heads, queries, columns]` has `divide` 1 and `rows` the queries; one of `[batch, 1, 1, columns]` over `[batch, heads, queries, columns]` has
/// `divide` heads times queries and `rows` the batch.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// `rows` by the columns of what it is added to.
    pub values: &'a [f32],
    /// How many rows in turn are added the same one.
    pub divide: usize,
    /// How many rows it has.
    pub rows: usize,
}

/// What is done to a row.
#[derive(Debug, Clone, Copy)]
pub struct Softmax<'a> {
    /// The length of a row.
    pub columns: usize,
    /// What elements are multiplied with first.
    pub scale: f32,
    /// What they are added then.
    pub mask: Option<Mask<'a>>,
    /// The logarithm of the result is given.
    pub log: bool,
}

impl Softmax<'_> {
    /// `softmax(x * scale + mask)` of every row. As in PyTorch, a row of nothing but -infinity, or with a NaN or +infinity, gives NaN. Results below
    /// about 1e-38 are 0.
    ///
    /// # Panics
    /// `x` and `out` differ in length, or the mask is too short.
    pub fn run(&self, isa: Isa, pool: &dyn Pool, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "the output is as long as the input");
        if x.is_empty() || self.columns == 0 {
            return;
        }
        if let Some(mask) = &self.mask {
            assert!(mask.rows > 0 && mask.divide > 0 && mask.values.len() >= mask.rows * self.columns);
        }
        let rows = x.len() / self.columns;
        let parts = pool::parts(pool, rows, 20 + self.columns / 2);
        let out = Shared::new(out);
        pool.run(parts, &|part| {
            let rows = pool::range(rows, parts, part, 1);
            dispatch(
                isa,
                Rows {
                    softmax: self,
                    x,
                    rows,
                    out,
                },
            );
        });
    }
}

struct Rows<'a> {
    softmax: &'a Softmax<'a>,
    x: &'a [f32],
    rows: std::ops::Range<usize>,
    out: Shared<f32>,
}

impl Op for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.softmax.columns;
        for row in self.rows {
            let x = self.x[row * n..][..n].as_ptr();
            let mask = match &self.softmax.mask {
                Some(mask) => mask.values[row / mask.divide % mask.rows * n..][..n].as_ptr(),
                None => std::ptr::null(),
            };
            // SAFETY: the row lies in the output, and no other part has it.
            let out = unsafe { self.out.at(row * n) };
            // SAFETY: all have `n` elements.
            unsafe { one_row(s, self.softmax, x, mask, n, out) };
        }
    }
}

/// # Safety
/// `x`, `out` and `mask`, if it is not null, have `n` elements.
#[inline(always)]
unsafe fn one_row<S: Simd>(s: S, softmax: &Softmax, x: *const f32, mask: *const f32, n: usize, out: *mut f32) {
    let scale = s.splat(softmax.scale);
    let plain = mask.is_null() && softmax.scale == 1.0;
    // What scores are, and, if they are no more than the row itself, where they are put.
    let score = |at: usize, len: usize| {
        // SAFETY: `len` elements are there.
        unsafe {
            let mut value = load(s, x.add(at), len);
            if !plain {
                value = s.mul(value, scale);
                if !mask.is_null() {
                    value = s.add(value, load(s, mask.add(at), len));
                }
                store(s, out.add(at), value, len);
            }
            value
        }
    };
    // A NaN is left out here, and comes back by the sum.
    let mut tops = [s.splat(f32::NEG_INFINITY); 4];
    let mut at = 0;
    while at + 4 * S::LANES <= n {
        for (i, top) in tops.iter_mut().enumerate() {
            *top = s.max(*top, score(at + i * S::LANES, S::LANES));
        }
        at += 4 * S::LANES;
    }
    for (i, top) in tops.iter_mut().enumerate() {
        let at = at + i * S::LANES;
        if at < n {
            let len = (n - at).min(S::LANES);
            let value = score(at, len);
            let value = if len < S::LANES {
                first(s, len, value, f32::NEG_INFINITY)
            } else {
                value
            };
            *top = s.max(*top, value);
        }
    }
    let top = s.largest(s.max(s.max(tops[0], tops[1]), s.max(tops[2], tops[3])));
    let from = if plain { x } else { out.cast_const() };
    let minus = s.splat(-top);
    let total = sum!(s, S::LANES, n, |at, len| {
        // SAFETY: `len` elements are there.
        unsafe {
            let e = math::exp_flushed(s, s.add(load(s, from.add(at), len), minus));
            if !softmax.log {
                store(s, out.add(at), e, len);
            }
            if len < S::LANES { first(s, len, e, 0.0) } else { e }
        }
    });
    let (factor, offset) = (s.splat((1.0 / total) as f32), s.splat(total.ln() as f32));
    for at in (0..n).step_by(S::LANES) {
        let len = (n - at).min(S::LANES);
        // SAFETY: `len` elements are there.
        unsafe {
            let value = match softmax.log {
                true => s.sub(s.add(load(s, from.add(at), len), minus), offset),
                false => s.mul(load(s, out.add(at), len), factor),
            };
            store(s, out.add(at), value, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;

    #[test]
    fn rows_are_those_of_doubles() {
        for n in [1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 100, 197, 1000, 5000] {
            for rows in [1, 6] {
                let x: Vec<f32> = (0..rows * n)
                    .map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 31.0)
                    .collect();
                let mut values: Vec<f32> = (0..3 * n).map(|i| ((i * 31 % 17) as f32 - 9.0) / 4.0).collect();
                (0..n).step_by(3).for_each(|i| values[i] = f32::NEG_INFINITY);
                for (scale, masked, log) in [
                    (1.0, false, false),
                    (0.125, true, false),
                    (1.0, false, true),
                    (2.0, true, true),
                ] {
                    let mask = masked.then_some(Mask {
                        values: &values,
                        divide: 2,
                        rows: 3,
                    });
                    let softmax = Softmax {
                        columns: n,
                        scale,
                        mask,
                        log,
                    };
                    for isa in Isa::all() {
                        let mut out = vec![0.0; rows * n];
                        softmax.run(isa, &Serial, &x, &mut out);
                        for row in 0..rows {
                            let y: Vec<f64> = (0..n)
                                .map(|i| {
                                    let m = if masked { values[row / 2 % 3 * n + i] } else { 0.0 };
                                    f64::from(x[row * n + i] * scale + m)
                                })
                                .collect();
                            let top = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                            let total: f64 = y.iter().map(|y| (y - top).exp()).sum();
                            for i in 0..n {
                                let have = f64::from(out[row * n + i]);
                                let want = if log {
                                    y[i] - top - total.ln()
                                } else {
                                    (y[i] - top).exp() / total
                                };
                                // The difference from the top is rounded, as are its exponential (2 ulp), the sum and the product.
                                let bound = match log {
                                    true => 2e-7 * (want.abs() + 1.0),
                                    false => want * (8e-7 + 6e-8 * (y[i] - top).abs()) + 2e-38,
                                };
                                let same = have == want || (have.is_nan() && want.is_nan());
                                assert!(
                                    same || (have - want).abs() <= bound,
                                    "{isa}, {n}, {log}: {have}, not {want}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_without_a_largest_number_are_nan() {
        let softmax = |log| Softmax {
            columns: 19,
            scale: 1.0,
            mask: None,
            log,
        };
        for isa in Isa::all() {
            for odd in [f32::NEG_INFINITY, f32::NAN, f32::INFINITY] {
                let mut x = vec![if odd == f32::NEG_INFINITY { odd } else { 1.0 }; 19];
                x[18] = odd;
                let mut out = vec![0.0; 19];
                softmax(false).run(isa, &Serial, &x, &mut out);
                assert!(out.iter().all(|x| x.is_nan()), "{isa}, {odd}: {out:?}");
            }
            let mut out = vec![0.0; 19];
            let mut x = vec![f32::NEG_INFINITY; 19];
            x[7] = 3.0;
            softmax(false).run(isa, &Serial, &x, &mut out);
            assert!(out.iter().enumerate().all(|(i, x)| *x == f32::from(i == 7)));
            softmax(true).run(isa, &Serial, &x, &mut out);
            assert!(out[7] == 0.0 && out[0] == f32::NEG_INFINITY);
        }
    }
}
