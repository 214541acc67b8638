//! Few queries: lanes are the depth, and keys and values are read once.

use super::{Call, Element, KEYS, work};
use crate::lanes::{first, load, store};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Isa, math};

pub(super) fn run<T: Element>(isa: Isa, pool: &dyn Pool, call: Call<T>, scratch: &mut [f32]) {
    let a = call.attention;
    let (rows, splits) = (a.queries * a.group(), a.splits());
    let units = a.batch * a.kv_heads * splits;
    let made = units * rows * (a.value_depth + 2);
    let each = rows * (a.depth + KEYS);
    let most = a.parts(pool.threads(), units);
    let parts = pool::parts(pool, units, work(a.depth + a.value_depth, 8 * rows, a.keys / splits)).min(most);
    let (made, scratch) = scratch.split_at_mut(made);
    let (results, scratch) = (Shared::new(made), Shared::new(scratch));
    pool.run(parts, &|part| {
        // SAFETY: each part has its own piece of the scratch, which has one for each.
        let scratch = unsafe { scratch.slice(part * each..(part + 1) * each) };
        let units = pool::range(units, parts, part, 1);
        dispatch(
            isa,
            Parts {
                call,
                units,
                results,
                scratch,
            },
        );
    });
    dispatch(isa, Joined { call, results: made });
}

/// Units of (batch, head of keys, part of the keys).
struct Parts<'a, T> {
    call: Call<'a, T>,
    units: std::ops::Range<usize>,
    results: Shared<f32>,
    scratch: &'a mut [f32],
}

impl<T: Element> Op for Parts<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let call = self.call;
        let a = call.attention;
        let (group, splits) = (a.group(), a.splits());
        let rows = a.queries * group;
        let (q, scores) = self.scratch.split_at_mut(rows * a.depth);
        let (k_strides, v_strides) = (self.call.k.strides, self.call.v.strides);
        for unit in self.units {
            let (head, split) = (unit / splits, unit % splits);
            let (batch, head) = (head / a.kv_heads, head % a.kv_heads);
            for row in 0..rows {
                let at = self
                    .call
                    .q
                    .strides
                    .at(batch, head * group + row / a.queries, row % a.queries);
                let from = &self.call.q.values[at..][..a.depth];
                for (to, x) in q[row * a.depth..].iter_mut().zip(from) {
                    *to = x * a.scale;
                }
            }
            let one = a.value_depth + 2;
            // SAFETY: the unit's results, which no other part has.
            let results = unsafe { self.results.slice(unit * rows * one..(unit + 1) * rows * one) };
            for result in results.chunks_mut(one) {
                result.fill(0.0);
                result[0] = f32::NEG_INFINITY;
            }
            let range = pool::range(a.keys, splits, split, KEYS);
            let end = range.end.min(self.call.seen(a.queries - 1));
            let mut start = range.start;
            while start < end {
                let count = (end - start).min(KEYS);
                let k = self.call.k.values[k_strides.at(batch, head, start)..].as_ptr();
                let v = self.call.v.values[v_strides.at(batch, head, start)..].as_ptr();
                let mut row = 0;
                // SAFETY: `count` keys and values are there, and the scratch and results have all rows.
                unsafe {
                    while row < rows {
                        let (q, scores) = (q.as_ptr().add(row * a.depth), scores.as_mut_ptr().add(row * KEYS));
                        let n = if rows - row >= 4 { 4 } else { 1 };
                        match n {
                            4 => score::<S, T, 4>(s, q, a.depth, k, k_strides.row, count, scores),
                            _ => score::<S, T, 1>(s, q, a.depth, k, k_strides.row, count, scores),
                        }
                        for r in row..row + n {
                            let scores = std::slice::from_raw_parts_mut(scores.add((r - row) * KEYS), count);
                            let (query, head) = (r % a.queries, head * group + r / a.queries);
                            masked(&call, batch, head, query, start, scores);
                            soften(s, scores, &mut results[r * one..][..one]);
                        }
                        let results = results.as_mut_ptr().add(row * one + 2);
                        match n {
                            4 => gather::<S, T, 4>(s, scores, v, v_strides.row, count, results, one, a.value_depth),
                            _ => gather::<S, T, 1>(s, scores, v, v_strides.row, count, results, one, a.value_depth),
                        }
                        row += n;
                    }
                }
                start += count;
            }
        }
    }
}

/// Adds the mask to scores of keys from `start` on, and takes those away that are not seen.
#[inline(always)]
fn masked<T: Element>(call: &Call<T>, batch: usize, head: usize, query: usize, start: usize, scores: &mut [f32]) {
    if let Some(mask) = &call.attention.mask {
        let base = call.mask_base(batch, head);
        for (j, x) in scores.iter_mut().enumerate() {
            *x += mask.of(base, query, start + j);
        }
    }
    let seen = call.seen(query).saturating_sub(start).min(scores.len());
    scores[seen..].fill(f32::NEG_INFINITY);
}

/// Scores of `R` queries, one behind the other, and `count` keys: rows of [`KEYS`].
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn score<S: Simd, T: Element, const R: usize>(
    s: S,
    q: *const f32,
    depth: usize,
    k: *const T,
    stride: usize,
    count: usize,
    scores: *mut f32,
) {
    let whole = depth / S::LANES * S::LANES;
    for j in 0..count {
        // SAFETY: as the caller says.
        unsafe {
            let key = k.add(j * stride);
            let mut sums = [[s.splat(0.0); 2]; R];
            let mut at = 0;
            while at + 2 * S::LANES <= whole {
                let (x, y) = (T::load(s, key.add(at)), T::load(s, key.add(at + S::LANES)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    sums[0] = s.fma(x, s.load(q.add(r * depth + at)), sums[0]);
                    sums[1] = s.fma(y, s.load(q.add(r * depth + at + S::LANES)), sums[1]);
                }
                at += 2 * S::LANES;
            }
            if at < whole {
                let x = T::load(s, key.add(at));
                for (r, sums) in sums.iter_mut().enumerate() {
                    sums[0] = s.fma(x, s.load(q.add(r * depth + at)), sums[0]);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let mut sum = s.sum(s.add(sums[0], sums[1]));
                for d in whole..depth {
                    sum += (*key.add(d)).float() * *q.add(r * depth + d);
                }
                *scores.add(r * KEYS + j) = sum;
            }
        }
    }
}

/// Exponentials of a row of scores; the result, which begins with the largest one and the total, is brought up to date.
#[inline(always)]
fn soften<S: Simd>(s: S, scores: &mut [f32], result: &mut [f32]) {
    let (n, to) = (scores.len(), scores.as_mut_ptr());
    let mut tops = s.splat(result[0]);
    for at in (0..n).step_by(S::LANES) {
        let len = (n - at).min(S::LANES);
        // SAFETY: `len` elements are there.
        let x = unsafe { load(s, to.add(at), len) };
        tops = s.max(
            tops,
            if len < S::LANES {
                first(s, len, x, f32::NEG_INFINITY)
            } else {
                x
            },
        );
    }
    let top = s.largest(tops);
    let safe = if top == f32::NEG_INFINITY { 0.0 } else { top };
    let mut totals = s.splat(0.0);
    for at in (0..n).step_by(S::LANES) {
        let len = (n - at).min(S::LANES);
        // SAFETY: `len` elements are there.
        unsafe {
            let e = math::exp_flushed(s, s.sub(load(s, to.add(at), len), s.splat(safe)));
            store(s, to.add(at), e, len);
            totals = s.add(totals, if len < S::LANES { first(s, len, e, 0.0) } else { e });
        }
    }
    // A block that changes nothing, the common case, corrects nothing.
    if top != result[0] {
        let correction = (result[0] - safe).exp();
        result[1..].iter_mut().for_each(|x| *x *= correction);
        result[0] = top;
    }
    result[1] += s.sum(totals);
}

/// Adds to `R` results, `one` apart, the sums of `count` values by their weights.
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn gather<S: Simd, T: Element, const R: usize>(
    s: S,
    weights: *const f32,
    v: *const T,
    stride: usize,
    count: usize,
    results: *mut f32,
    one: usize,
    values: usize,
) {
    // SAFETY: as the caller says.
    unsafe {
        let mut c = 0;
        while c + 2 * S::LANES <= values {
            let mut sums = [[s.splat(0.0); 2]; R];
            for j in 0..count {
                let from = v.add(j * stride + c);
                let (x, y) = (T::load(s, from), T::load(s, from.add(S::LANES)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let weight = s.splat(*weights.add(r * KEYS + j));
                    *sums = [s.fma(weight, x, sums[0]), s.fma(weight, y, sums[1])];
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (n, sum) in sums.iter().enumerate() {
                    let to = results.add(r * one + c + n * S::LANES);
                    s.store(to, s.add(s.load(to), *sum));
                }
            }
            c += 2 * S::LANES;
        }
        while c + S::LANES <= values {
            let mut sums = [s.splat(0.0); R];
            for j in 0..count {
                let x = T::load(s, v.add(j * stride + c));
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = s.fma(s.splat(*weights.add(r * KEYS + j)), x, *sum);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                let to = results.add(r * one + c);
                s.store(to, s.add(s.load(to), *sum));
            }
            c += S::LANES;
        }
        while c < values {
            for r in 0..R {
                let mut sum = 0.0;
                for j in 0..count {
                    sum += *weights.add(r * KEYS + j) * (*v.add(j * stride + c)).float();
                }
                *results.add(r * one + c) += sum;
            }
            c += 1;
        }
    }
}

/// Parts of the keys brought together, in their order.
struct Joined<'a, T> {
    call: Call<'a, T>,
    results: &'a [f32],
}

impl<T: Element> Op for Joined<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let a = self.call.attention;
        let (group, splits, n) = (a.group(), a.splits(), a.value_depth);
        let (rows, one) = (a.queries * group, n + 2);
        for unit in 0..a.batch * a.kv_heads {
            for row in 0..rows {
                let of = |split: usize| &self.results[((unit * splits + split) * rows + row) * one..][..one];
                let top = (0..splits).map(|split| of(split)[0]).fold(f32::NEG_INFINITY, f32::max);
                let safe = if top == f32::NEG_INFINITY { 0.0 } else { top };
                let total: f32 = (0..splits)
                    .map(|split| of(split)[1] * (of(split)[0] - safe).exp())
                    .sum();
                let factor = match total == 0.0 {
                    true if a.keys == 0 || a.zero_unseen => 0.0,
                    true => f32::NAN,
                    false => 1.0 / total,
                };
                let head = unit % a.kv_heads * group + row / a.queries;
                // SAFETY: the row is in the output, and this alone writes it.
                unsafe {
                    let at = self.call.out_strides.at(unit / a.kv_heads, head, row % a.queries);
                    let out = self.call.out.at(at);
                    for split in 0..splits {
                        let from = of(split)[2..].as_ptr();
                        let weight = s.splat((of(split)[0] - safe).exp() * factor);
                        for at in (0..n).step_by(S::LANES) {
                            let len = (n - at).min(S::LANES);
                            let mut sum = s.mul(load(s, from.add(at), len), weight);
                            if split > 0 {
                                sum = s.add(sum, load(s, out.add(at), len));
                            }
                            store(s, out.add(at), sum, len);
                        }
                    }
                }
            }
        }
    }
}
