//! Tiles for x86_64 with AVX-512: fourteen rows of two vectors, of which there are 32.
#![allow(
    clippy::needless_range_loop,
    reason = "the indices are those of registers, of which several arrays are used"
)]

use super::avx2::float_tile;
use super::tile::{MOST_ROWS, Micro, Tile, heights, unrolled};
use core::arch::x86_64::*;

/// True if the machine has AVX-512.
pub(super) fn have() -> bool {
    #[cfg(test)]
    if super::tests::is_hidden("avx512") {
        return false;
    }
    #[cfg(feature = "std")]
    {
        std::arch::is_x86_feature_detected!("avx512f")
    }
    #[cfg(not(feature = "std"))]
    {
        cfg!(target_feature = "avx512f")
    }
}

/// True if it also has dot products of integers.
pub(super) fn have_vnni() -> bool {
    #[cfg(feature = "std")]
    {
        have() && std::arch::is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(feature = "std"))]
    {
        cfg!(all(target_feature = "avx512f", target_feature = "avx512vnni"))
    }
}

const TILES_F32: &[&[Tile<f32>]] = &[
    heights!(tile_f32, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    heights!(tile_f32, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
];
const TILES_F64: &[&[Tile<f64>]] = &[
    heights!(tile_f64, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    heights!(tile_f64, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
];
const TILES_I32: &[&[Tile<i32>]] = &[
    heights!(tile_i32, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    heights!(tile_i32, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
];

// SAFETY: the tiles below have one and two vectors of that many lanes and one to fourteen rows, and `number` asks `have` first.
pub(super) const F32: Micro<f32> = unsafe { Micro::new(16, 384, 56, TILES_F32) };
// SAFETY: as above.
pub(super) const F64: Micro<f64> = unsafe { Micro::new(8, 256, 56, TILES_F64) };
// SAFETY: as above; `number` asks `have_vnni` first.
pub(super) const I32: Micro<i32> = unsafe { Micro::new(16, 512, 56, TILES_I32) };

float_tile!(
    tile_f32,
    "avx512f",
    f32,
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_mul_ps
);
float_tile!(
    tile_f64,
    "avx512f",
    f64,
    __m512d,
    8,
    _mm512_setzero_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_set1_pd,
    _mm512_fmadd_pd,
    _mm512_mul_pd
);

/// Pairs of 16 bits: one instruction multiplies two steps of depth and adds them to 32 bits without saturation.
///
/// # Safety
/// As [`Tile`] says; the machine has AVX-512 with VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
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
    let mut sums = [[_mm512_setzero_si512(); V]; R];
    for _ in 0..groups {
        // SAFETY: each of `groups` steps reads R pairs of `a` and V vectors of pairs of `b`.
        unsafe {
            let mut right = [_mm512_setzero_si512(); V];
            for v in 0..V {
                right[v] = _mm512_loadu_si512(b.add(v * 32).cast());
            }
            for r in 0..R {
                let left = _mm512_set1_epi32(a.add(r * a_row).cast::<i32>().read_unaligned());
                for v in 0..V {
                    sums[r][v] = _mm512_dpwssd_epi32(sums[r][v], left, right[v]);
                }
            }
        }
        a = a.wrapping_add(a_step);
        b = b.wrapping_add(b_stride);
    }
    let alpha = _mm512_set1_epi32(alpha);
    for r in 0..R {
        for v in 0..V {
            // SAFETY: C has R rows of V vectors.
            unsafe {
                let place = c.add(r * c_stride + v * 16).cast::<__m512i>();
                let mut sum = _mm512_mullo_epi32(sums[r][v], alpha);
                if accumulate {
                    sum = _mm512_add_epi32(sum, _mm512_loadu_si512(place));
                }
                _mm512_storeu_si512(place, sum);
            }
        }
    }
}
