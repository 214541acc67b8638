//! AVX-512: with VNNI four products at once, unsigned activations by signed weights; without it as AVX2 does.

use super::gemm::Tile;
use core::arch::x86_64::*;

/// # Safety
/// The machine has VNNI, and the pointers are good, with `MR` rows of unsigned bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn vnni<const MR: usize>(job: &Tile) {
    let mut sums = [_mm512_setzero_si512(); MR];
    // SAFETY: as the caller says.
    unsafe {
        for four in 0..job.fours {
            let w = _mm512_loadu_si512(job.panel.add(64 * four).cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                let a = job.rows.add(r * job.stride + 4 * four).cast::<i32>().read_unaligned();
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_set1_epi32(a), w);
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            _mm512_storeu_si512(job.out.add(16 * r).cast(), *sum);
        }
    }
}

/// # Safety
/// The machine has BW, and the pointers are good, with `MR` rows of 16-bit numbers.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn wide<const MR: usize>(job: &Tile) {
    let mut sums = [[_mm512_setzero_si512(); 2]; MR];
    // SAFETY: as the caller says.
    unsafe {
        for four in 0..job.fours {
            let from = job.panel.add(64 * four);
            let w: [__m512i; 2] =
                core::array::from_fn(|q| _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.add(32 * q).cast())));
            for (r, sums) in sums.iter_mut().enumerate() {
                let at = job.rows.add(r * job.stride + 8 * four).cast::<i64>();
                let a = _mm512_set1_epi64(at.read_unaligned());
                for q in 0..2 {
                    sums[q] = _mm512_add_epi32(sums[q], _mm512_madd_epi16(w[q], a));
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (q, sum) in sums.iter().enumerate() {
                // Each output has two neighbouring lanes.
                let added = _mm512_add_epi32(*sum, _mm512_srli_epi64::<32>(*sum));
                _mm256_storeu_si256(job.out.add(16 * r + 8 * q).cast(), _mm512_cvtepi64_epi32(added));
            }
        }
    }
}
