//! Many queries: lanes are queries.

use super::{Call, Element, KEYS, MaskValues, QUERIES, work};
use crate::lanes::numbers;
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Isa, math};

/// Vectors of queries in a tile.
const VECTORS: usize = 3;

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
                let len = (end - first).min(VECTORS * S::LANES);
                let (batch, head) = (head / a.heads, head % a.heads);
                // SAFETY: the checks of `Attention::run`, and units are of one part each.
                unsafe {
                    match len.div_ceil(S::LANES) {
                        1 => tile::<S, T, 1>(s, &self.call, batch, head, first, len, self.scratch),
                        2 => tile::<S, T, 2>(s, &self.call, batch, head, first, len, self.scratch),
                        _ => tile::<S, T, VECTORS>(s, &self.call, batch, head, first, len, self.scratch),
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
    for i in 0..width {
        let row = first + i.min(len - 1);
        let from = &call.q.values[call.q.strides.at(batch, head, row)..][..depth];
        for (d, x) in from.iter().enumerate() {
            q[d * width + i] = x * a.scale;
        }
    }
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
        if !T::FLOAT {
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
            let mut j = 0;
            if S::REGISTERS >= 32 {
                while j + 8 <= count {
                    product::<S, 8, N>(
                        s,
                        k.from.add(j * k.stride),
                        k.stride,
                        1,
                        q.as_ptr(),
                        depth,
                        scores.as_mut_ptr().add(j * width),
                        None,
                    );
                    j += 8;
                }
            }
            while j + 4 <= count {
                product::<S, 4, N>(
                    s,
                    k.from.add(j * k.stride),
                    k.stride,
                    1,
                    q.as_ptr(),
                    depth,
                    scores.as_mut_ptr().add(j * width),
                    None,
                );
                j += 4;
            }
            while j < count {
                product::<S, 1, N>(
                    s,
                    k.from.add(j * k.stride),
                    k.stride,
                    1,
                    q.as_ptr(),
                    depth,
                    scores.as_mut_ptr().add(j * width),
                    None,
                );
                j += 1;
            }
            mask(s, call, base, first, len, width, start, count, scores);
            let corrections = soften::<S, N>(s, count, scores.as_mut_ptr(), &mut tops, &mut totals);
            // Sums of values: a row a number of the value.
            let mut c = 0;
            if S::REGISTERS >= 32 {
                while c + 8 <= values {
                    product::<S, 8, N>(
                        s,
                        v.from.add(c),
                        1,
                        v.stride,
                        scores.as_ptr(),
                        count,
                        sums.as_mut_ptr().add(c * width),
                        Some(corrections),
                    );
                    c += 8;
                }
            }
            while c + 4 <= values {
                product::<S, 4, N>(
                    s,
                    v.from.add(c),
                    1,
                    v.stride,
                    scores.as_ptr(),
                    count,
                    sums.as_mut_ptr().add(c * width),
                    Some(corrections),
                );
                c += 4;
            }
            while c < values {
                product::<S, 1, N>(
                    s,
                    v.from.add(c),
                    1,
                    v.stride,
                    scores.as_ptr(),
                    count,
                    sums.as_mut_ptr().add(c * width),
                    Some(corrections),
                );
                c += 1;
            }
        }
        start += count;
    }
    let mut factors = [0.0f32; QUERIES];
    for n in 0..N {
        let unseen = a.keys == 0 || a.zero_unseen;
        let factor = s.div(s.splat(1.0), totals[n]);
        let none = s.splat(if unseen { 0.0 } else { f32::NAN });
        let factor = s.select(s.eq(totals[n], s.splat(0.0)), none, factor);
        // SAFETY: there are as many queries at most.
        unsafe { s.store(factors.as_mut_ptr().add(n * S::LANES), factor) };
    }
    for (i, factor) in factors.iter().enumerate().take(len) {
        // SAFETY: the row is in the output, and of this unit alone.
        unsafe {
            let to = call.out.at(call.out_strides.at(batch, head, first + i));
            for c in 0..values {
                *to.add(c) = sums[c * width + i] * factor;
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

/// `to[m][..] = to[m][..] * corrections + sum over d of left[m * row + d * step] * right[d][..]`, `N` vectors wide; without corrections, `to` is not read.
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
) {
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
            let mut top = [tops[n], tops[n]];
            for j in 0..count {
                top[j % 2] = s.max(top[j % 2], s.load(column.add(j * width)));
            }
            let top = s.max(top[0], top[1]);
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
