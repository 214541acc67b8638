//! AVX2: depthwise convolutions of 3 by 3 and 5 by 5. Bytes of two pixels of the kernel are put side by side as 16-bit numbers, so that one instruction sums
//! their products; a column's are made once for all pixels that it belongs to.

use super::Bias;
use super::columns::{Line, MOST};
use core::arch::x86_64::*;

/// Channels that are computed together.
pub(super) const WIDTH: usize = 16;
/// Pairs of a column's lines; the last line has its pairs along the line.
const PAIRS: usize = MOST / 2;

/// Sixteen channels, eight a vector.
type Halves = [__m256i; 2];

/// A column of the image: pairs of its lines, and the bytes of the last.
#[derive(Clone, Copy)]
struct Column {
    pairs: [Halves; PAIRS],
    last: __m128i,
}

/// Bytes of sixteen channels of two pixels as numbers, side by side.
#[inline]
#[target_feature(enable = "avx2")]
fn beside<const SIGNED: bool>(a: __m128i, b: __m128i) -> Halves {
    let (low, high) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
    match SIGNED {
        true => [_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)],
        false => [_mm256_cvtepu8_epi16(low), _mm256_cvtepu8_epi16(high)],
    }
}

/// Bytes of sixteen channels of one pixel, each in a lane.
#[inline]
#[target_feature(enable = "avx2")]
fn alone<const SIGNED: bool>(a: __m128i) -> Halves {
    let high = _mm_srli_si128::<8>(a);
    match SIGNED {
        true => [_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(high)],
        false => [_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(high)],
    }
}

/// Computes a line of bytes with a kernel of `K` by `K`, whose pixels are `STEP` apart.
///
/// # Safety
/// The machine has it, there are [`WIDTH`] channels or more, the grid's zero point fits 16 bits with room for a byte, and the pointers are good.
pub(super) unsafe fn line<const K: usize, const STEP: usize>(line: &Line) {
    // SAFETY: as the caller says.
    unsafe {
        match line.signed {
            true => blocks::<K, STEP, true>(line),
            false => blocks::<K, STEP, false>(line),
        }
    }
}

/// # Safety
/// As [`line`].
#[target_feature(enable = "avx2")]
unsafe fn blocks<const K: usize, const STEP: usize, const SIGNED: bool>(line: &Line) {
    for c in (0..line.channels).step_by(WIDTH) {
        // SAFETY: as the caller says; the last channels overlap those before.
        unsafe { block::<K, STEP, SIGNED>(line, c.min(line.channels - WIDTH)) };
    }
}

/// The channels from `c` on.
///
/// # Safety
/// As [`line`]; there are [`WIDTH`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn block<const K: usize, const STEP: usize, const SIGNED: bool>(line: &Line, c: usize) {
    let (channels, stage, grid) = (line.channels, &line.stage, line.grid);
    // SAFETY: as the caller says.
    unsafe {
        // Weights of pairs of lines in each column, and of the last line: pairs, and the last pixel alone.
        let (mut w, mut last) = (
            [[[_mm256_setzero_si256(); 2]; PAIRS]; K],
            [[_mm256_setzero_si256(); 2]; PAIRS + 1],
        );
        let weights = |i: usize, j: usize| _mm_loadu_si128(line.weights.add((i * K + j) * channels + c).cast());
        for j in 0..K {
            for i in 0..K / 2 {
                w[j][i] = beside::<true>(weights(2 * i, j), weights(2 * i + 1, j));
            }
        }
        for j in 0..K / 2 {
            last[j] = beside::<true>(weights(K - 1, 2 * j), weights(K - 1, 2 * j + 1));
        }
        // The upper halves of their lanes meet the inputs' signs.
        let (one, lower) = (alone::<true>(weights(K - 1, K - 1)), _mm256_set1_epi32(0xffff));
        last[K / 2] = [_mm256_and_si256(one[0], lower), _mm256_and_si256(one[1], lower)];
        // Lines outside of the image are one pixel, over and over.
        let beyond = [line.zero as u8; WIDTH];
        let mut rows = [(beyond.as_ptr(), 0); K];
        for i in 0..K {
            if !line.rows[i].is_null() {
                rows[i] = (line.rows[i].add(c), channels);
            }
        }
        let column = |lines: [__m128i; K]| {
            let mut pairs = [[_mm256_setzero_si256(); 2]; PAIRS];
            for i in 0..K / 2 {
                pairs[i] = beside::<SIGNED>(lines[2 * i], lines[2 * i + 1]);
            }
            Column {
                pairs,
                last: lines[K - 1],
            }
        };
        let border = [_mm_loadu_si128(beyond.as_ptr().cast()); K];
        let read = |x: usize| {
            let x = x.wrapping_sub(line.before);
            let mut lines = border;
            if x < line.from {
                for i in 0..K {
                    lines[i] = _mm_loadu_si128(rows[i].0.add(x * rows[i].1).cast());
                }
            }
            column(lines)
        };
        let zero = _mm256_set1_epi32(line.zero);
        let (mut start, mut scale, mut bias) = (
            [_mm256_setzero_si256(); 2],
            [_mm256_setzero_ps(); 2],
            [_mm256_setzero_ps(); 2],
        );
        for h in 0..2 {
            let at = c + 8 * h;
            let sums = _mm256_loadu_si256(line.sums.add(at).cast());
            start[h] = _mm256_sub_epi32(start[h], _mm256_mullo_epi32(sums, zero));
            scale[h] = _mm256_loadu_ps(stage.multiplier.as_ptr().add(at));
            match stage.bias {
                Bias::None => {}
                Bias::Floats(list) => bias[h] = _mm256_loadu_ps(list.as_ptr().add(at)),
                Bias::Integers(list) => {
                    start[h] = _mm256_add_epi32(start[h], _mm256_loadu_si256(list.as_ptr().add(at).cast()));
                }
            }
        }
        let inverse = _mm256_set1_ps(grid.inverse);
        // Numbers above would become the least one; those below, and what is no number, do.
        let most = _mm256_set1_ps((1 << 30) as f32);
        let shift = _mm256_set1_epi16(grid.zero as i16);
        let (low, high) = (_mm_set1_epi8(grid.low as i8), _mm_set1_epi8(grid.high as i8));
        let order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
        let mut x = [column(border); K];
        for j in STEP..K {
            x[j] = read(j - STEP);
        }
        for pixel in 0..line.to {
            for j in 0..K - STEP {
                x[j] = x[j + STEP];
            }
            for j in K - STEP..K {
                x[j] = read(pixel * STEP + j);
            }
            let mut sums = start;
            let mut meet = |x: Halves, w: Halves| {
                for h in 0..2 {
                    sums[h] = _mm256_add_epi32(sums[h], _mm256_madd_epi16(x[h], w[h]));
                }
            };
            for j in 0..K {
                for i in 0..K / 2 {
                    meet(x[j].pairs[i], w[j][i]);
                }
            }
            for j in 0..K / 2 {
                meet(beside::<SIGNED>(x[2 * j].last, x[2 * j + 1].last), last[j]);
            }
            meet(alone::<SIGNED>(x[K - 1].last), last[K / 2]);
            let mut q = [_mm256_setzero_si256(); 2];
            for h in 0..2 {
                let real = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums[h]), scale[h]), bias[h]);
                q[h] = _mm256_cvtps_epi32(_mm256_min_ps(most, _mm256_mul_ps(real, inverse)));
            }
            let words = _mm256_adds_epi16(_mm256_packs_epi32(q[0], q[1]), shift);
            let packed = match grid.low >= 0 {
                true => _mm256_packus_epi16(words, words),
                false => _mm256_packs_epi16(words, words),
            };
            let bytes = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(packed, order));
            let bytes = match grid.low >= 0 {
                true => _mm_min_epu8(_mm_max_epu8(bytes, low), high),
                false => _mm_min_epi8(_mm_max_epi8(bytes, low), high),
            };
            _mm_storeu_si128(line.out.add(pixel * channels + c).cast(), bytes);
        }
    }
}
