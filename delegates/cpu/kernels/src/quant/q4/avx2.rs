//! AVX2: eight outputs in a vector, four inputs of each.
//!
//! Four bits stay unsigned, so that a product of two pairs is at most 2 * 15 * 128, and eight of them fit 16 bits.

use super::Tile;
use crate::quant::finish::COLUMNS;
use core::arch::x86_64::*;

/// # Safety
/// The machine has AVX2, FMA and F16C, and the pointers are good.
pub(super) unsafe fn tile<const MR: usize>(job: &Tile) {
    // SAFETY: as the caller says.
    unsafe {
        // What most weights are, without questions.
        match job.group_blocks == 1 && !job.zeros && !job.wide {
            true => panel::<MR, true>(job),
            false => panel::<MR, false>(job),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn panel<const MR: usize, const PLAIN: bool>(job: &Tile) {
    // SAFETY: as the caller says.
    unsafe {
        match (job.width, MR) {
            // Few rows are bound by memory, and go through it once. More rows want the registers of one half.
            (16, 1 | 2) => inner::<MR, 2, 2, PLAIN>(job, 0),
            (16, _) => {
                inner::<MR, 1, 2, PLAIN>(job, 0);
                inner::<MR, 1, 2, PLAIN>(job, 1);
            }
            _ => inner::<MR, 1, 1, PLAIN>(job, 0),
        }
    }
}

/// Eight scales or zero points.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn parameters(from: *const u8, index: usize, wide: bool) -> __m256 {
    // SAFETY: as the caller says.
    unsafe {
        match wide {
            true => _mm256_loadu_ps(from.cast::<f32>().add(8 * index)),
            false => _mm256_cvtph_ps(_mm_loadu_si128(from.cast::<u16>().add(8 * index).cast())),
        }
    }
}

/// `H` halves of eight outputs from `half` on, of the `W` that a panel has.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn inner<const MR: usize, const H: usize, const W: usize, const PLAIN: bool>(job: &Tile, half: usize) {
    let (wide, zeros) = (!PLAIN && job.wide, !PLAIN && job.zeros);
    let group_blocks = if PLAIN { 1 } else { job.group_blocks };
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sums = [[_mm256_setzero_ps(); H]; MR];
    let mut at = job.panel;
    let header = W * 8 * if wide { 4 } else { 2 } * (1 + usize::from(zeros));
    // SAFETY: pointers stay in the panel, the rows and the sums, as the layout says.
    unsafe {
        for group in 0..job.groups {
            let start = group * group_blocks;
            let blocks = if PLAIN { 1 } else { group_blocks.min(job.blocks - start) };
            let parameter = at;
            at = at.add(header);
            let mut whole = [[_mm256_setzero_si256(); H]; MR];
            for block in start..start + blocks {
                if MR <= 4 {
                    // Prefetching behind the end harms nothing.
                    let ahead = at.wrapping_add(2048).cast::<i8>();
                    for line in 0..(if half == 0 { 2 * W + 1 } else { 0 }) {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line));
                    }
                }
                let values = job.values.add(block * 32);
                let mut pairs = [[_mm256_setzero_si256(); H]; MR];
                for v in 0..4 {
                    let mut low = [_mm256_setzero_si256(); H];
                    let mut high = low;
                    for h in 0..H {
                        let bytes = _mm256_loadu_si256(at.add((v * W + half + h) * 32).cast());
                        low[h] = _mm256_and_si256(bytes, mask);
                        high[h] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
                    }
                    for row in 0..MR {
                        let from = values.add(row * job.stride + 4 * v).cast::<i32>();
                        let (a, b) = (
                            _mm256_set1_epi32(from.read_unaligned()),
                            _mm256_set1_epi32(from.add(4).read_unaligned()),
                        );
                        for h in 0..H {
                            let made =
                                _mm256_add_epi16(_mm256_maddubs_epi16(low[h], a), _mm256_maddubs_epi16(high[h], b));
                            pairs[row][h] = _mm256_add_epi16(pairs[row][h], made);
                        }
                    }
                }
                for row in 0..MR {
                    for h in 0..H {
                        whole[row][h] = _mm256_add_epi32(whole[row][h], _mm256_madd_epi16(pairs[row][h], ones));
                    }
                }
                at = at.add(128 * W);
            }
            for h in 0..H {
                let scale = parameters(parameter, half + h, wide);
                for row in 0..MR {
                    let offset = _mm256_set1_epi32(*job.sums.add(row * job.groups + group));
                    let dot = if zeros {
                        let zero = parameters(parameter, W + half + h, wide);
                        _mm256_fmadd_ps(zero, _mm256_cvtepi32_ps(offset), _mm256_cvtepi32_ps(whole[row][h]))
                    } else {
                        _mm256_cvtepi32_ps(_mm256_add_epi32(whole[row][h], offset))
                    };
                    sums[row][h] = _mm256_fmadd_ps(dot, scale, sums[row][h]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (h, sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(job.out.add(row * COLUMNS + 8 * (half + h)), *sum);
            }
        }
    }
}
