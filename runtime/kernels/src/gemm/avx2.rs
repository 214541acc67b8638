//! Tiles for x86_64 with AVX2 and FMA: six rows of two vectors, which leaves registers for two of B and one of A.
#![allow(
    clippy::needless_range_loop,
    reason = "the indices are those of registers, of which several arrays are used"
)]

use super::tile::{MOST_ROWS, Micro, Tile, heights, unrolled};
use core::arch::x86_64::*;

/// True if the machine has AVX2, FMA and conversions of half precision.
pub(crate) fn have() -> bool {
    #[cfg(test)]
    if super::tests::is_hidden("avx2") {
        return false;
    }
    #[cfg(feature = "std")]
    {
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
    }
    #[cfg(not(feature = "std"))]
    {
        cfg!(all(
            target_feature = "avx2",
            target_feature = "fma",
            target_feature = "f16c"
        ))
    }
}

const TILES_F32: &[&[Tile<f32>]] = &[heights!(tile_f32, 1: 1 2 3 4 5 6), heights!(tile_f32, 2: 1 2 3 4 5 6)];
const TILES_F64: &[&[Tile<f64>]] = &[heights!(tile_f64, 1: 1 2 3 4 5 6), heights!(tile_f64, 2: 1 2 3 4 5 6)];
const TILES_I32: &[&[Tile<i32>]] = &[heights!(tile_i32, 1: 1 2 3 4 5 6), heights!(tile_i32, 2: 1 2 3 4 5 6)];

// SAFETY: the tiles below have one and two vectors of that many lanes and one to six rows, and `number` asks `have` first.
pub(super) const F32: Micro<f32> = unsafe { Micro::new(8, 256, 12, TILES_F32) };
// SAFETY: as above.
pub(super) const F64: Micro<f64> = unsafe { Micro::new(4, 256, 12, TILES_F64) };
// SAFETY: as above.
pub(super) const I32: Micro<i32> = unsafe { Micro::new(8, 512, 12, TILES_I32) };

/// A tile of `R` rows and `V` vectors.
macro_rules! float_tile {
    ($name:ident, $features:literal, $ty:ty, $vector:ty, $lanes:literal, $zero:ident, $load:ident, $store:ident, $set:ident,
     $fma:ident, $mul:ident) => {
        /// # Safety
        /// As [`Tile`] says; the machine has AVX2 and FMA.
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const V: usize>(
            groups: usize,
            (a, a_row, a_step): (*const $ty, usize, usize),
            mut b: *const $ty,
            b_stride: usize,
            c: *mut $ty,
            c_stride: usize,
            alpha: $ty,
            accumulate: bool,
        ) {
            let mut sums = [[$zero(); V]; R];
            // Three rows share a pointer, so that all fit the registers.
            let mut rows = [a; MOST_ROWS];
            unrolled!(i < R.div_ceil(3) => {
                rows[i] = a.wrapping_add(3 * i * a_row);
            });
            // C comes while the sums are made.
            unrolled!(r < R => {
                unrolled!(v < V => {
                    _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * c_stride + v * $lanes).cast());
                });
            });
            for _ in 0..groups {
                // SAFETY: each of `groups` steps reads R elements of `a` and V vectors of `b`. The pointers may end up to a
                // step behind the panels, where they are not read: hence the wrapping sums.
                unsafe {
                    let mut right = [$zero(); V];
                    unrolled!(v < V => { right[v] = $load(b.add(v * $lanes)); });
                    unrolled!(r < R => {
                        let left = $set(*rows[r / 3].add(r % 3 * a_row));
                        unrolled!(v < V => { sums[r][v] = $fma(left, right[v], sums[r][v]); });
                    });
                }
                unrolled!(i < R.div_ceil(3) => { rows[i] = rows[i].wrapping_add(a_step); });
                b = b.wrapping_add(b_stride);
            }
            let alpha = $set(alpha);
            unrolled!(r < R => {
                unrolled!(v < V => {
                    // SAFETY: C has R rows of V vectors.
                    unsafe {
                        let place = c.add(r * c_stride + v * $lanes);
                        let sum = if accumulate {
                            $fma(sums[r][v], alpha, $load(place))
                        } else {
                            $mul(sums[r][v], alpha)
                        };
                        $store(place, sum);
                    }
                });
            });
        }
    };
}
pub(super) use float_tile;

float_tile!(
    tile_f32,
    "avx2,fma",
    f32,
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_mul_ps
);
float_tile!(
    tile_f64,
    "avx2,fma",
    f64,
    __m256d,
    4,
    _mm256_setzero_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_fmadd_pd,
    _mm256_mul_pd
);

/// Pairs of 16 bits: `madd` multiplies two steps of depth and adds them in 32 bits, exactly.
///
/// # Safety
/// As [`Tile`] says; the machine has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn tile_i32<const R: usize, const V: usize>(
    groups: usize,
    (mut a, a_row, a_step): (*const i16, usize, usize),
    mut b: *const i16,
    b_stride: usize,
    c: *mut i32,
    c_stride: usize,
    alpha: i32,
    accumulate: bool,
) {
    let mut sums = [[_mm256_setzero_si256(); V]; R];
    for _ in 0..groups {
        // SAFETY: each of `groups` steps reads R pairs of `a` and V vectors of pairs of `b`.
        unsafe {
            let mut right = [_mm256_setzero_si256(); V];
            for v in 0..V {
                right[v] = _mm256_loadu_si256(b.add(v * 16).cast());
            }
            for r in 0..R {
                let left = _mm256_set1_epi32(a.add(r * a_row).cast::<i32>().read_unaligned());
                for v in 0..V {
                    sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(left, right[v]));
                }
            }
        }
        a = a.wrapping_add(a_step);
        b = b.wrapping_add(b_stride);
    }
    let alpha = _mm256_set1_epi32(alpha);
    for r in 0..R {
        for v in 0..V {
            // SAFETY: C has R rows of V vectors.
            unsafe {
                let place = c.add(r * c_stride + v * 8).cast::<__m256i>();
                let mut sum = _mm256_mullo_epi32(sums[r][v], alpha);
                if accumulate {
                    sum = _mm256_add_epi32(sum, _mm256_loadu_si256(place));
                }
                _mm256_storeu_si256(place, sum);
            }
        }
    }
}
