//! Few rows and panels for x86_64 with AVX2: whatever reads eight numbers at a time and converts them on the way.
#![allow(
    clippy::needless_range_loop,
    reason = "the indices are those of registers, of which several arrays are used"
)]

use super::few::{CHUNK, Few, PAD, ROWS, lines};
use super::number::{Factor, Packed};
use super::tile::unrolled;
use core::arch::x86_64::*;
use delegraph_types::{bf16, f16};

/// Elements of which 32-bit units of a panel are made: one float, or a pair of bytes as a pair of i16.
pub(super) trait Units: Factor {
    /// Elements of a unit.
    const EACH: usize;
    /// Eight units.
    ///
    /// # Safety
    /// That many elements can be read; the machine has AVX2 and F16C.
    unsafe fn load(from: *const Self) -> __m256;
    /// `sums + a * b`; `a` is eight units as panels hold them.
    ///
    /// # Safety
    /// Eight units of `a` can be read; the machine has AVX2 and FMA.
    unsafe fn with(sums: __m256, a: *const Packed<Self>, b: __m256) -> __m256;
    /// The sum of all eight.
    ///
    /// # Safety
    /// The machine has AVX2.
    unsafe fn total(sums: __m256) -> Self::Sum;
}

macro_rules! float_units {
    ($ty:ty, $from:ident => $load:expr) => {
        impl Units for $ty {
            const EACH: usize = 1;

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn load($from: *const $ty) -> __m256 {
                // SAFETY: the caller promised that eight elements can be read.
                unsafe { $load }
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn with(sums: __m256, a: *const f32, b: __m256) -> __m256 {
                // SAFETY: the caller promised that eight elements can be read.
                _mm256_fmadd_ps(unsafe { _mm256_loadu_ps(a) }, b, sums)
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn total(sums: __m256) -> f32 {
                let four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
    };
}
float_units!(f32, from => _mm256_loadu_ps(from));
float_units!(f16, from => _mm256_cvtph_ps(_mm_loadu_si128(from.cast())));
float_units!(bf16, from => {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()))))
});

macro_rules! byte_units {
    ($ty:ty, $widen:ident) => {
        impl Units for $ty {
            const EACH: usize = 2;

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn load(from: *const $ty) -> __m256 {
                // SAFETY: the caller promised that sixteen elements can be read.
                _mm256_castsi256_ps($widen(unsafe { _mm_loadu_si128(from.cast()) }))
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn with(sums: __m256, a: *const i16, b: __m256) -> __m256 {
                // SAFETY: the caller promised that sixteen elements can be read.
                let a = unsafe { _mm256_loadu_si256(a.cast()) };
                let products = _mm256_madd_epi16(a, _mm256_castps_si256(b));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sums), products))
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn total(sums: __m256) -> i32 {
                let sums = _mm256_castps_si256(sums);
                let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
                let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
                _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
            }
        }
    };
}
byte_units!(i8, _mm256_cvtepi8_epi16);
byte_units!(u8, _mm256_cvtepu8_epi16);

/// The functions for floats.
pub(super) const fn floats<T: Units<Sum = f32>>() -> Few<T> {
    // SAFETY: each function keeps the contract of its type, and `number` asks `avx2::have` first.
    unsafe { Few::new(dots::<T>, float_lines::<T>, Some(interleave::<T>)) }
}

/// The functions for bytes.
pub(super) const fn bytes<T: Units<Sum = i32>>() -> Few<T> {
    // SAFETY: as above.
    unsafe { Few::new(dots::<T>, byte_lines::<T>, Some(interleave::<T>)) }
}

/// # Safety
/// As [`super::few::Dots`] says; the machine has what `avx2::have` asks for.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<T: Units>(
    a: (*const Packed<T>, usize),
    rows: usize,
    (b, b_stride): (*const T, usize),
    depth: usize,
    columns: usize,
    out: &mut [[T::Sum; CHUNK]; ROWS],
) {
    // Several runs at once: the memory serves several streams better than one, and their sums do not wait for each other.
    let together = if rows > 2 { 3 } else { 4 };
    let mut column = 0;
    while column < columns {
        // SAFETY: the caller promised `columns` runs, and `rows` rows, of `depth` elements.
        unsafe {
            let b = (b.add(column * b_stride), b_stride);
            let single = columns - column < together;
            match (rows, single) {
                (1, false) => dot::<T, 1, 4, 2>(a, b, depth, column, out),
                (2, false) => dot::<T, 2, 4, 1>(a, b, depth, column, out),
                (3, false) => dot::<T, 3, 3, 1>(a, b, depth, column, out),
                (4, false) => dot::<T, 4, 3, 1>(a, b, depth, column, out),
                (1, true) => dot::<T, 1, 1, 2>(a, b, depth, column, out),
                (2, true) => dot::<T, 2, 1, 2>(a, b, depth, column, out),
                (3, true) => dot::<T, 3, 1, 2>(a, b, depth, column, out),
                (_, true) => dot::<T, 4, 1, 2>(a, b, depth, column, out),
                _ => return,
            }
            column += if single { 1 } else { together };
        }
    }
}

/// `M` rows by `Q` runs, `U` vectors of each at a time, to columns `column..column + Q` of `out`.
///
/// # Safety
/// `a` has M rows of `depth` elements, padded with zeros to [`PAD`], and `b` has Q runs of `depth` elements; the machine has
/// what `avx2::have` asks for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot<T: Units, const M: usize, const Q: usize, const U: usize>(
    (a, a_stride): (*const Packed<T>, usize),
    (b, b_stride): (*const T, usize),
    depth: usize,
    column: usize,
    out: &mut [[T::Sum; CHUNK]; ROWS],
) {
    let each = 8 * T::EACH;
    let mut sums = [[[_mm256_setzero_ps(); U]; Q]; M];
    let whole = depth / (each * U) * (each * U);
    let mut at = 0;
    while at < whole {
        unrolled!(u < U => {
            // SAFETY: `at + each * U` is at most `depth`.
            unsafe {
                let mut right = [_mm256_setzero_ps(); Q];
                unrolled!(q < Q => { right[q] = T::load(b.add(q * b_stride + at + u * each)); });
                unrolled!(m < M => {
                    let left = a.add(m * a_stride + at + u * each);
                    unrolled!(q < Q => { sums[m][q][u] = T::with(sums[m][q][u], left, right[q]); });
                });
            }
        });
        at += each * U;
    }
    while at < depth {
        let have = each.min(depth - at);
        for q in 0..Q {
            // PAD elements are as many as a vector has of any type.
            let mut rest = [T::default(); PAD];
            // SAFETY: there are `have` elements left of the run, at most PAD; A's rows are padded, so that a vector of them can
            // be read.
            unsafe {
                core::ptr::copy_nonoverlapping(b.add(q * b_stride + at), rest.as_mut_ptr(), have);
                let right = T::load(rest.as_ptr());
                for m in 0..M {
                    sums[m][q][0] = T::with(sums[m][q][0], a.add(m * a_stride + at), right);
                }
            }
        }
        at += each;
    }
    for m in 0..M {
        for q in 0..Q {
            // SAFETY: the machine has AVX2.
            let total = sums[m][q].map(|sum| unsafe { T::total(sum) });
            out[m][column + q] = total.into_iter().fold(T::Sum::default(), super::number::Sum::added);
        }
    }
}

/// # Safety
/// As [`super::few::Lines`] says; the machine has what `avx2::have` asks for.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn float_lines<T: Units<Sum = f32>>(
    (a, a_stride): (*const Packed<T>, usize),
    rows: usize,
    (b, b_stride): (*const T, usize),
    depth: usize,
    columns: usize,
    (c, c_stride): (*mut f32, usize),
) {
    /// Rows of B that are added at once: fewer trips of C's row through the cache.
    const DEEP: usize = 4;
    let whole = depth / DEEP * DEEP;
    // SAFETY: the parts below are parts of what the caller promised.
    unsafe {
        for d in (0..whole).step_by(DEEP) {
            let (a, b) = ((a.cast::<f32>().add(d), a_stride), (b.add(d * b_stride), b_stride));
            match rows {
                1 => float_line::<T, 1, DEEP, 1>(a, b, columns, (c, c_stride)),
                2 => float_line::<T, 2, DEEP, 1>(a, b, columns, (c, c_stride)),
                3 => float_line::<T, 3, DEEP, 2>(a, b, columns, (c, c_stride)),
                _ => float_line::<T, 4, DEEP, 2>(a, b, columns, (c, c_stride)),
            }
        }
        for d in whole..depth {
            for row in 0..rows {
                let a = (a.cast::<f32>().add(row * a_stride + d), a_stride);
                let b = (b.add(d * b_stride), b_stride);
                float_line::<T, 1, 1, 1>(a, b, columns, (c.add(row * c_stride), c_stride));
            }
        }
    }
}

/// Adds `D` rows of B to `M` rows of C, `V` vectors at a time.
///
/// # Safety
/// `a` has M rows of D elements, `b` has D rows and `c` M rows of `columns` elements; the machine has what `avx2::have` asks for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn float_line<T: Units<Sum = f32>, const M: usize, const D: usize, const V: usize>(
    (a, a_stride): (*const f32, usize),
    (b, b_stride): (*const T, usize),
    columns: usize,
    (c, c_stride): (*mut f32, usize),
) {
    let mut at = 0;
    while at + 8 * V <= columns {
        let mut sums = [[_mm256_setzero_ps(); V]; M];
        // SAFETY: `at + 8 * V` is at most `columns`.
        unsafe {
            unrolled!(m < M => {
                unrolled!(v < V => { sums[m][v] = _mm256_loadu_ps(c.add(m * c_stride + at + 8 * v)); });
            });
            unrolled!(d < D => {
                let mut right = [_mm256_setzero_ps(); V];
                unrolled!(v < V => { right[v] = T::load(b.add(d * b_stride + at + 8 * v)); });
                unrolled!(m < M => {
                    let left = _mm256_set1_ps(*a.add(m * a_stride + d));
                    unrolled!(v < V => { sums[m][v] = _mm256_fmadd_ps(left, right[v], sums[m][v]); });
                });
            });
            unrolled!(m < M => {
                unrolled!(v < V => { _mm256_storeu_ps(c.add(m * c_stride + at + 8 * v), sums[m][v]); });
            });
        }
        at += 8 * V;
    }
    for column in at..columns {
        for m in 0..M {
            // SAFETY: `column` is below `columns`.
            unsafe {
                let place = c.add(m * c_stride + column);
                for d in 0..D {
                    *place += *a.add(m * a_stride + d) * (*b.add(d * b_stride + column)).widen();
                }
            }
        }
    }
}

/// The portable loops, compiled for this machine.
///
/// # Safety
/// As [`super::few::Lines`] says; the machine has what `avx2::have` asks for.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn byte_lines<T: Units<Sum = i32>>(
    a: (*const Packed<T>, usize),
    rows: usize,
    b: (*const T, usize),
    depth: usize,
    columns: usize,
    c: (*mut i32, usize),
) {
    // SAFETY: the caller promised the same.
    unsafe { lines::<T>(a, rows, b, depth, columns, c) }
}

/// # Safety
/// As [`super::few::Interleave`] says; the machine has what `avx2::have` asks for.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn interleave<T: Units>(
    (runs, stride): (*const T, usize),
    have: usize,
    depth: usize,
    width: usize,
    (panel, len): (*mut Packed<T>, usize),
) -> usize {
    // In units from here on: a unit is 32 bits of the panel.
    let (panel, len) = (panel.cast::<f32>(), len / T::EACH);
    if width == 0 || width > 16 && !width.is_multiple_of(8) {
        return 0;
    }
    // Eight steps are stored eight lanes at a time: where the width is no multiple of that, a store runs into the next step,
    // which is stored afterwards. The last steps, where there is none, are left to the caller.
    let over = width.next_multiple_of(8) - width;
    let steps = (depth / T::EACH).min((len / width).saturating_sub(usize::from(over > 0))) / 8 * 8;
    let together = if over == 0 { 1 } else { width.div_ceil(8) };
    // A few lanes to the end, then the next: the lines that they share with later steps are still in the cache.
    for first in (0..width).step_by(8 * together) {
        for done in (0..steps).step_by(8) {
            // SAFETY: eight units are left of each run, and eight steps of the panel, or nine if this runs over.
            unsafe {
                let from = (runs.add(first * stride + done * T::EACH), stride);
                let to = (panel.add(done * width + first), width);
                let have = have.saturating_sub(first);
                match (together, have) {
                    (1, 8..) => eight_steps::<T, 1, true>(from, have, to),
                    (1, _) => eight_steps::<T, 1, false>(from, have, to),
                    (_, 16..) => eight_steps::<T, 2, true>(from, have, to),
                    _ => eight_steps::<T, 2, false>(from, have, to),
                }
            }
        }
    }
    steps * T::EACH
}

/// Transposes eight units of `8 * G` runs, of which there are only `have` if not `ALL`.
///
/// # Safety
/// The runs have eight units each; eight steps of `8 * G` lanes can be written; the machine has what `avx2::have` asks for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn eight_steps<T: Units, const G: usize, const ALL: bool>(
    (runs, stride): (*const T, usize),
    have: usize,
    (panel, width): (*mut f32, usize),
) {
    let mut lanes = [[_mm256_setzero_ps(); 8]; G];
    unrolled!(eight < G => {
        unrolled!(i < 8 => {
            if ALL || eight * 8 + i < have {
                // SAFETY: there is such a run.
                lanes[eight][i] = unsafe { T::load(runs.add((eight * 8 + i) * stride)) };
            }
        });
        lanes[eight] = transposed(lanes[eight]);
    });
    unrolled!(step < 8 => {
        unrolled!(eight < G => {
            // SAFETY: the caller promised eight steps.
            unsafe { _mm256_storeu_ps(panel.add(step * width + eight * 8), lanes[eight][step]) };
        });
    });
}

/// Rows and columns of eight by eight units exchanged.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(r: [__m256; 8]) -> [__m256; 8] {
    let pairs = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let ((a0, a1), (a2, a3)) = (pairs(r[0], r[1]), pairs(r[2], r[3]));
    let ((a4, a5), (a6, a7)) = (pairs(r[4], r[5]), pairs(r[6], r[7]));
    let low = |a, b| _mm256_shuffle_ps::<0x44>(a, b);
    let high = |a, b| _mm256_shuffle_ps::<0xee>(a, b);
    let (b0, b1, b2, b3) = (low(a0, a2), high(a0, a2), low(a1, a3), high(a1, a3));
    let (b4, b5, b6, b7) = (low(a4, a6), high(a4, a6), low(a5, a7), high(a5, a7));
    let left = |a, b| _mm256_permute2f128_ps::<0x20>(a, b);
    let right = |a, b| _mm256_permute2f128_ps::<0x31>(a, b);
    [
        left(b0, b4),
        left(b1, b5),
        left(b2, b6),
        left(b3, b7),
        right(b0, b4),
        right(b1, b5),
        right(b2, b6),
        right(b3, b7),
    ]
}
