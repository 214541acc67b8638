//! What several kernels do with lanes: parts of vectors, and sums over slices.

use crate::simd::Simd;

static NUMBERS: [f32; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
];

/// Each lane's own number.
#[inline(always)]
pub(crate) fn numbers<S: Simd>(s: S) -> S::F {
    // SAFETY: no instruction set has more lanes.
    unsafe { s.load(NUMBERS.as_ptr()) }
}

/// The first `n` lanes of `x`, and `other` in those behind.
#[inline(always)]
pub(crate) fn first<S: Simd>(s: S, n: usize, x: S::F, other: f32) -> S::F {
    s.select(s.lt(numbers(s), s.splat(n as f32)), x, s.splat(other))
}

/// Elements that are summed in floats before the sum goes to a double.
const BLOCK: usize = 2048;

/// The sum over `n` elements of a function of `LANES` of them, that is given the place of the first and how many there are: floats over blocks,
/// doubles over the blocks. The function gives 0 in lanes that are not there.
macro_rules! sum {
    ($s:expr, $lanes:expr, $n:expr, |$at:ident, $len:ident| $value:expr) => {{
        let (s, n) = ($s, $n);
        let mut total = 0.0f64;
        let mut begin = 0;
        while begin < n {
            let end = (begin + $crate::lanes::block()).min(n);
            let mut sums = [s.splat(0.0); 4];
            let mut place = begin;
            while place + 4 * $lanes <= end {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let ($at, $len) = (place + i * $lanes, $lanes);
                    *sum = s.add(*sum, $value);
                }
                place += 4 * $lanes;
            }
            // Each by its own name: sums stay in registers if nobody asks which one.
            for (i, sum) in sums.iter_mut().enumerate() {
                let $at = place + i * $lanes;
                if $at < end {
                    let $len = (end - $at).min($lanes);
                    *sum = s.add(*sum, $value);
                }
            }
            total += f64::from(s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))));
            begin = end;
        }
        total
    }};
}
pub(crate) use sum;

/// See [`sum`].
pub(crate) const fn block() -> usize {
    BLOCK
}

/// As [`Simd::load`] of whole vectors and [`Simd::load_part`] of others.
///
/// # Safety
/// `n`, at most `LANES`, elements are there.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(s: S, from: *const f32, n: usize) -> S::F {
    // SAFETY: as the caller says.
    unsafe {
        if n == S::LANES {
            s.load(from)
        } else {
            s.load_part(from, n)
        }
    }
}

/// As [`Simd::store`] of whole vectors and [`Simd::store_part`] of others.
///
/// # Safety
/// `n`, at most `LANES`, elements are there.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(s: S, to: *mut f32, x: S::F, n: usize) {
    // SAFETY: as the caller says.
    unsafe {
        if n == S::LANES {
            s.store(to, x);
        } else {
            s.store_part(to, x, n);
        }
    }
}
