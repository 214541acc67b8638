//! Many queries: lanes are queries.

use super::{Call, Element, KEYS, MaskValues, QUERIES, work};
use crate::lanes::numbers;
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Isa, math};

/// Vectors of queries in a tile of an instruction set with as many registers: with as many rows as [`product`] is called with, and a number, they are
/// all in registers.
const fn vectors(registers: usize) -> usize {
    if registers >= 32 { 3 } else { 2 }
}

/// With more keys than this, rows that are apart are brought together.
const MANY_KEYS: usize = 384;

pub(super) fn run<T: Element>(isa: Isa, pool: &dyn Pool, call: Call<T>, scratch: &mut [f32]) {
    let a = call.attention;
    let units = a.batch * a.heads * a.blocks();
    let each = (QUERIES + KEYS) * (a.depth + a.value_depth + KEYS);
    let most = a.parts(pool.threads(), units);
    let wanted = pool::parts(
        pool,
        units,
        work(a.depth + a.value_depth, QUERIES.min(a.queries), a.keys),
    );
    let parts = wanted.min(most);
    let scratch = Shared::new(scratch);
    pool.run(parts, &|part| {
        // SAFETY: each part has its own piece of the scratch, which has one for each.
        let scratch = unsafe { scratch.slice(part * each..(part + 1) * each) };
        let units = pool::range(units, parts, part, 1);
        dispatch(isa, Blocks { call, units, scratch });
    });
}

struct Blocks<'a, T> {
    call: Call<'a, T>,
    units: std::ops::Range<usize>,
    scratch: &'a mut [f32],
}

impl<T: Element> Op for Blocks<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let a = self.call.attention;
        for unit in self.units {
            let (head, block) = (unit / a.blocks(), unit % a.blocks());
            let end = ((block + 1) * QUERIES).min(a.queries);
            let mut first = block * QUERIES;
            // Narrower vectors take the block in pieces.
            while first < end {
                let len = (end - first).min(vectors(S::REGISTERS) * S::LANES);
                let (batch, head) = (head / a.heads, head % a.heads);
                // SAFETY: the checks of `Attention::run`, and units are of one part each.
                unsafe {
                    match len.div_ceil(S::LANES) {
                        1 => tile::<S, T, 1>(s, &self.call, batch, head, first, len, self.scratch),
                        2 => tile::<S, T, 2>(s, &self.call, batch, head, first, len, self.scratch),
                        _ => tile::<S, T, 3>(s, &self.call, batch, head, first, len, self.scratch),
                    }
                }
                first += len;
            }
        }
    }
}

/// `len` queries from `first` on, in `N` vectors.
///
/// # Safety
/// Everything is where strides say, and nobody else writes these rows of the output.
#[inline(always)]
unsafe fn tile<S: Simd, T: Element, const N: usize>(
    s: S,
    call: &Call<T>,
    batch: usize,
    head: usize,
    first: usize,
    len: usize,
    scratch: &mut [f32],
) {
    let a = call.attention;
    let width = N * S::LANES;
    let (depth, values) = (a.depth, a.value_depth);
    let (q, rest) = scratch.split_at_mut(QUERIES * depth);
    let (sums, rest) = rest.split_at_mut(QUERIES * values);
    let (scores, wide) = rest.split_at_mut(QUERIES * KEYS);
    // Queries, scaled, with the query as the dense direction.
    // SAFETY: rows of queries are there, and the scratch is as long as its parts.
    unsafe { turn_queries::<S, T, N>(s, call, batch, head, first, len, q.as_mut_ptr()) };
    sums[..values * width].fill(0.0);
    let mut tops = [s.splat(f32::NEG_INFINITY); N];
    let mut totals = [s.splat(0.0); N];
    let kv_head = head / a.group();
    let base = call.mask_base(batch, head);
    let keys = call.seen(first + len - 1);
    let mut start = 0;
    while start < keys {
        let count = (keys - start).min(KEYS);
        let mut k = Panel {
            from: call.k.values[call.k.strides.at(batch, kv_head, start)..]
                .as_ptr()
                .cast::<f32>(),
            stride: call.k.strides.row,
        };
        let mut v = Panel {
            from: call.v.values[call.v.strides.at(batch, kv_head, start)..]
                .as_ptr()
                .cast::<f32>(),
            stride: call.v.strides.row,
        };
        // Rows that are far apart push each other out of the caches. Where there are many, it is less to bring a block together first.
        let apart = k.stride != depth || v.stride != values;
        if !T::FLOAT || (apart && keys > MANY_KEYS) {
            let (wide_k, wide_v) = wide.split_at_mut(KEYS * depth);
            for j in 0..count {
                let k = &call.k.values[call.k.strides.at(batch, kv_head, start + j)..][..depth];
                let v = &call.v.values[call.v.strides.at(batch, kv_head, start + j)..][..values];
                // SAFETY: the scratch has `KEYS` rows of either.
                unsafe {
                    widen(s, k, wide_k.as_mut_ptr().add(j * depth));
                    widen(s, v, wide_v.as_mut_ptr().add(j * values));
                }
            }
            (k, v) = (
                Panel {
                    from: wide_k.as_ptr(),
                    stride: depth,
                },
                Panel {
                    from: wide_v.as_ptr(),
                    stride: values,
                },
            );
        }
        // SAFETY: rows of keys and values are there; scratch is as long as its parts.
        unsafe {
            // Scores: a row a key.
            let to = scores.as_mut_ptr();
            products::<S, N>(s, count, k.from, k.stride, 1, q.as_ptr(), depth, to, None);
            mask(s, call, base, first, len, width, start, count, scores);
            let corrections = soften::<S, N>(s, count, scores.as_mut_ptr(), &mut tops, &mut totals);
            // Sums of values: a row a number of the value.
            let to = sums.as_mut_ptr();
            products::<S, N>(
                s,
                values,
                v.from,
                1,
                v.stride,
                scores.as_ptr(),
                count,
                to,
                Some(corrections),
            );
        }
        start += count;
    }
    let none = s.splat(if a.keys == 0 || a.zero_unseen { 0.0 } else { f32::NAN });
    for (n, total) in totals.into_iter().enumerate() {
        // Without a seen key the total is 0; a NaN among the scores shows in it.
        let factor = s.div(s.splat(1.0), total);
        let factor = s.select(s.eq(total, s.splat(0.0)), none, factor);
        let rows = len.saturating_sub(n * S::LANES).min(S::LANES);
        // SAFETY: sums are there; rows are in the output, and of this unit alone.
        unsafe {
            let sums = sums.as_mut_ptr().add(n * S::LANES);
            for c in 0..values {
                s.store(sums.add(c * width), s.mul(s.load(sums.add(c * width)), factor));
            }
            let to = call
                .out
                .at(call.out_strides.at(batch, head, first + (n * S::LANES).min(len - 1)));
            let stride = call.out_strides.row;
            let whole = if rows == S::LANES {
                values / S::LANES * S::LANES
            } else {
                0
            };
            for c in (0..whole).step_by(S::LANES) {
                s.transpose(sums.add(c * width), width, to.add(c), stride);
            }
            for i in 0..rows {
                for c in whole..values {
                    *to.add(i * stride + c) = *sums.add(c * width + i);
                }
            }
        }
    }
}

/// Scaled queries with the query as the dense direction; places behind the last repeat it.
///
/// # Safety
/// Rows are there, and `q` has `depth` rows of `N` vectors.
#[inline(always)]
unsafe fn turn_queries<S: Simd, T: Element, const N: usize>(
    s: S,
    call: &Call<T>,
    batch: usize,
    head: usize,
    first: usize,
    len: usize,
    q: *mut f32,
) {
    let (depth, width, scale) = (call.attention.depth, N * S::LANES, s.splat(call.attention.scale));
    for n in 0..N {
        let whole = if len >= (n + 1) * S::LANES {
            depth / S::LANES * S::LANES
        } else {
            0
        };
        let row = |i: usize| call.q.strides.at(batch, head, first + (n * S::LANES + i).min(len - 1));
        // SAFETY: as the caller says.
        unsafe {
            let q = q.add(n * S::LANES);
            let from = call.q.values.as_ptr();
            for d in (0..whole).step_by(S::LANES) {
                s.transpose(from.add(row(0) + d), call.q.strides.row, q.add(d * width), width);
            }
            for i in 0..S::LANES {
                for d in whole..depth {
                    *q.add(d * width + i) = *from.add(row(i) + d);
                }
            }
            for d in 0..depth {
                s.store(q.add(d * width), s.mul(s.load(q.add(d * width)), scale));
            }
        }
    }
}

/// Rows of keys or values.
#[derive(Clone, Copy)]
struct Panel {
    from: *const f32,
    stride: usize,
}

/// # Safety
/// `to` has as many elements as `from`.
#[inline(always)]
unsafe fn widen<S: Simd, T: Element>(s: S, from: &[T], to: *mut f32) {
    let whole = from.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        // SAFETY: as the caller says.
        unsafe { s.store(to.add(at), T::load(s, from.as_ptr().add(at))) };
    }
    for (at, x) in from.iter().enumerate().skip(whole) {
        // SAFETY: as the caller says.
        unsafe { *to.add(at) = x.float() };
    }
}

/// [`product`] of any number of rows.
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn products<S: Simd, const N: usize>(
    s: S,
    rows: usize,
    left: *const f32,
    row: usize,
    step: usize,
    right: *const f32,
    count: usize,
    to: *mut f32,
    corrections: Option<[S::F; N]>,
) {
    let mut m = 0;
    while m < rows {
        // SAFETY: as the caller says.
        unsafe {
            let (left, to) = (left.add(m * row), to.add(m * N * S::LANES));
            m += match rows - m {
                8.. if S::REGISTERS >= 32 => product::<S, 8, N>(s, left, row, step, right, count, to, corrections),
                6.. if S::REGISTERS < 32 => product::<S, 6, N>(s, left, row, step, right, count, to, corrections),
                4.. => product::<S, 4, N>(s, left, row, step, right, count, to, corrections),
                _ => product::<S, 1, N>(s, left, row, step, right, count, to, corrections),
            };
        }
    }
}

/// `to[m][..] = to[m][..] * corrections + sum over d of left[m * row + d * step] * right[d][..]`, `N` vectors wide; without corrections, `to` is not read.
/// It gives `M`.
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn product<S: Simd, const M: usize, const N: usize>(
    s: S,
    left: *const f32,
    row: usize,
    step: usize,
    right: *const f32,
    count: usize,
    to: *mut f32,
    corrections: Option<[S::F; N]>,
) -> usize {
    let width = N * S::LANES;
    let mut sums = [[s.splat(0.0); N]; M];
    // SAFETY: as the caller says.
    unsafe {
        if let Some(corrections) = corrections {
            for (m, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = s.mul(s.load(to.add(m * width + n * S::LANES)), corrections[n]);
                }
            }
        }
        for d in 0..count {
            let mut vectors = [s.splat(0.0); N];
            for (n, vector) in vectors.iter_mut().enumerate() {
                *vector = s.load(right.add(d * width + n * S::LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let number = s.splat(*left.add(m * row + d * step));
                for n in 0..N {
                    sums[n] = s.fma(number, vectors[n], sums[n]);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                s.store(to.add(m * width + n * S::LANES), *sum);
            }
        }
    }
    M
}

/// Adds the mask to scores, and takes those away that are not seen.
#[inline(always)]
fn mask<S: Simd, T: Element>(
    s: S,
    call: &Call<T>,
    base: usize,
    first: usize,
    len: usize,
    width: usize,
    start: usize,
    count: usize,
    scores: &mut [f32],
) {
    if let Some(mask) = &call.attention.mask {
        for j in 0..count {
            let scores = &mut scores[j * width..][..len];
            if mask.query == 0 {
                let value = mask.of(base, 0, start + j);
                scores.iter_mut().for_each(|x| *x += value);
                continue;
            }
            let from = base + first * mask.query + (start + j) * mask.key;
            match mask.values {
                MaskValues::Float(values) => {
                    for (x, value) in scores.iter_mut().zip(values[from..].iter().step_by(mask.query)) {
                        *x += value;
                    }
                }
                MaskValues::Bool(values) => {
                    for (x, value) in scores.iter_mut().zip(values[from..].iter().step_by(mask.query)) {
                        *x += if *value == 0 { f32::NEG_INFINITY } else { 0.0 };
                    }
                }
            }
        }
    }
    if let Some(causal) = call.attention.causal
        && start + count > causal + first + 1
    {
        let unseen = s.splat(f32::NEG_INFINITY);
        for j in 0..count {
            // Query `i` of the tile sees the key where `i` is at least this.
            let least = (start + j) as isize - (causal + first) as isize;
            if least <= 0 {
                continue;
            }
            for at in (0..width).step_by(S::LANES) {
                let hidden = s.lt(numbers(s), s.splat((least - at as isize) as f32));
                // SAFETY: a row of scores is `width` long.
                unsafe {
                    let to = scores.as_mut_ptr().add(j * width + at);
                    s.store(to, s.select(hidden, unseen, s.load(to)));
                }
            }
        }
    }
}

/// Exponentials of `count` rows of scores, with the largest ones and totals brought up to date: what earlier sums are multiplied with.
///
/// # Safety
/// The rows are there.
#[inline(always)]
unsafe fn soften<S: Simd, const N: usize>(
    s: S,
    count: usize,
    scores: *mut f32,
    tops: &mut [S::F; N],
    totals: &mut [S::F; N],
) -> [S::F; N] {
    let width = N * S::LANES;
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut corrections = [s.splat(0.0); N];
    for n in 0..N {
        // SAFETY: as the caller says.
        unsafe {
            let column = scores.add(n * S::LANES);
            let (mut even, mut odd) = (tops[n], tops[n]);
            for j in (0..count / 2 * 2).step_by(2) {
                even = s.max(even, s.load(column.add(j * width)));
                odd = s.max(odd, s.load(column.add((j + 1) * width)));
            }
            if !count.is_multiple_of(2) {
                even = s.max(even, s.load(column.add((count - 1) * width)));
            }
            let top = s.max(even, odd);
            // Of -infinity alone, differences would be NaN.
            let safe = s.select(s.eq(top, lowest), s.splat(0.0), top);
            corrections[n] = math::exp_flushed(s, s.sub(tops[n], safe));
            let mut total = s.mul(totals[n], corrections[n]);
            for j in 0..count {
                let to = column.add(j * width);
                let e = math::exp_flushed(s, s.sub(s.load(to), safe));
                s.store(to, e);
                total = s.add(total, e);
            }
            (tops[n], totals[n]) = (top, total);
        }
    }
    corrections
}
