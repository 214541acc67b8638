//! AVX-512: sixteen outputs in a vector, four inputs of each; with VNNI, or with the products of AVX2.

use super::Tile;
use crate::quant::finish::COLUMNS;
use core::arch::x86_64::*;

/// Sixteen scales or zero points.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn parameters(from: *const u8, index: usize, wide: bool) -> __m512 {
    // SAFETY: as the caller says.
    unsafe {
        match wide {
            true => _mm512_loadu_ps(from.cast::<f32>().add(16 * index)),
            false => _mm512_cvtph_ps(_mm256_loadu_si256(from.cast::<u16>().add(16 * index).cast())),
        }
    }
}

macro_rules! tile {
    ($name:ident, $inner:ident, $features:literal, $product:ident, $what:literal) => {
        #[doc = $what]
        ///
        /// # Safety
        /// The machine has it, the panel has sixteen outputs, and the pointers are good.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name<const MR: usize>(job: &Tile) {
            // SAFETY: as the caller says.
            unsafe {
                // What most weights are, without questions.
                match job.group_blocks == 1 && !job.zeros && !job.wide {
                    true => $inner::<MR, true>(job),
                    false => $inner::<MR, false>(job),
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn $inner<const MR: usize, const PLAIN: bool>(job: &Tile) {
            let (wide, zeros) = (!PLAIN && job.wide, !PLAIN && job.zeros);
            let group_blocks = if PLAIN { 1 } else { job.group_blocks };
            let mask = _mm512_set1_epi8(15);
            let mut sums = [_mm512_setzero_ps(); MR];
            let mut at = job.panel;
            let header = 16 * if wide { 4 } else { 2 } * (1 + usize::from(zeros));
            // SAFETY: pointers stay in the panel, the rows and the sums, as the layout says.
            unsafe {
                for group in 0..job.groups {
                    let start = group * group_blocks;
                    let blocks = if PLAIN {
                        1
                    } else {
                        group_blocks.min(job.blocks - start)
                    };
                    let parameter = at;
                    at = at.add(header);
                    let offsets: [__m512i; MR] =
                        core::array::from_fn(|row| _mm512_set1_epi32(*job.sums.add(row * job.groups + group)));
                    let mut whole = if zeros {
                        [_mm512_setzero_si512(); MR]
                    } else {
                        offsets
                    };
                    for block in start..start + blocks {
                        if MR <= 4 {
                            // Prefetching behind the end harms nothing.
                            let ahead = at.wrapping_add(4096).cast::<i8>();
                            for line in 0..5 {
                                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line));
                            }
                        }
                        $product::<MR>(at, job.values.add(block * 32), job.stride, mask, &mut whole);
                        at = at.add(256);
                    }
                    let scale = parameters(parameter, 0, wide);
                    for row in 0..MR {
                        let mut dot = _mm512_cvtepi32_ps(whole[row]);
                        if zeros {
                            let zero = parameters(parameter, 1, wide);
                            dot = _mm512_fmadd_ps(zero, _mm512_cvtepi32_ps(offsets[row]), dot);
                        }
                        sums[row] = _mm512_fmadd_ps(dot, scale, sums[row]);
                    }
                }
                for (row, sum) in sums.iter().enumerate() {
                    _mm512_storeu_ps(job.out.add(row * COLUMNS), *sum);
                }
            }
        }
    };
}

tile!(
    vnni,
    vnni_inner,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c",
    dots,
    "With VNNI."
);
tile!(
    bytes,
    bytes_inner,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c",
    pairs,
    "With BW alone."
);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dots<const MR: usize>(
    at: *const u8,
    values: *const i8,
    stride: usize,
    mask: __m512i,
    whole: &mut [__m512i; MR],
) {
    // SAFETY: as the caller says.
    unsafe {
        // Two chains, since one waits for its own result.
        let mut other = [_mm512_setzero_si512(); MR];
        for v in 0..4 {
            let bytes = _mm512_loadu_si512(at.add(v * 64).cast());
            let low = _mm512_and_si512(bytes, mask);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
            for row in 0..MR {
                let from = values.add(row * stride + 4 * v).cast::<i32>();
                whole[row] = _mm512_dpbusd_epi32(whole[row], low, _mm512_set1_epi32(from.read_unaligned()));
                let to = if MR <= 2 { &mut other[row] } else { &mut whole[row] };
                *to = _mm512_dpbusd_epi32(*to, high, _mm512_set1_epi32(from.add(4).read_unaligned()));
            }
        }
        if MR <= 2 {
            for row in 0..MR {
                whole[row] = _mm512_add_epi32(whole[row], other[row]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn pairs<const MR: usize>(
    at: *const u8,
    values: *const i8,
    stride: usize,
    mask: __m512i,
    whole: &mut [__m512i; MR],
) {
    // SAFETY: as the caller says.
    unsafe {
        let mut pairs = [_mm512_setzero_si512(); MR];
        for v in 0..4 {
            let bytes = _mm512_loadu_si512(at.add(v * 64).cast());
            let low = _mm512_and_si512(bytes, mask);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
            for (row, pair) in pairs.iter_mut().enumerate() {
                let from = values.add(row * stride + 4 * v).cast::<i32>();
                let a = _mm512_maddubs_epi16(low, _mm512_set1_epi32(from.read_unaligned()));
                let b = _mm512_maddubs_epi16(high, _mm512_set1_epi32(from.add(4).read_unaligned()));
                *pair = _mm512_add_epi16(*pair, _mm512_add_epi16(a, b));
            }
        }
        for row in 0..MR {
            whole[row] = _mm512_add_epi32(whole[row], _mm512_madd_epi16(pairs[row], _mm512_set1_epi16(1)));
        }
    }
}
