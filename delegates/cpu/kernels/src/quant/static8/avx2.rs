//! AVX2: bytes widened to 16 bits, whose products in pairs are exact. (`vpmaddubsw` would saturate.)

use super::gemm::Tile;
use core::arch::x86_64::*;

/// # Safety
/// The machine has AVX2, and the pointers are good, with `MR` rows of 16-bit numbers.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn tile<const MR: usize>(job: &Tile) {
    // SAFETY: as the caller says.
    unsafe {
        // Eight outputs at a time: four in a vector, each in two lanes.
        for half in 0..2 {
            let mut sums = [[_mm256_setzero_si256(); 2]; MR];
            for four in 0..job.fours {
                let from = job.panel.add(64 * four + 32 * half);
                let a: [__m256i; MR] = core::array::from_fn(|r| {
                    let at = job.rows.add(r * job.stride + 8 * four).cast::<i64>();
                    _mm256_set1_epi64x(at.read_unaligned())
                });
                for q in 0..2 {
                    let w = _mm256_cvtepi8_epi16(_mm_loadu_si128(from.add(16 * q).cast()));
                    for r in 0..MR {
                        sums[r][q] = _mm256_add_epi32(sums[r][q], _mm256_madd_epi16(w, a[r]));
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                // Outputs 0 1 4 5 and 2 3 6 7, put in order.
                let added = _mm256_hadd_epi32(sums[0], sums[1]);
                let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(added);
                _mm256_storeu_si256(job.out.add(16 * r + 8 * half).cast(), ordered);
            }
        }
    }
}
