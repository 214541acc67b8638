//! AVX-512 with VNNI: depthwise convolutions of 3 by 3 and 5 by 5. Bytes of a column's lines are put side by side, so that one instruction sums up to
//! four of them; a column is made once for all pixels that it belongs to.

use super::Bias;
use super::stage::{Grid, Stage};
use core::arch::x86_64::*;

/// Channels that are computed together.
const WIDTH: usize = 32;
/// Most lines of a kernel.
pub(super) const MOST: usize = 5;

/// A line of the output.
pub(super) struct Line<'a> {
    /// The lines of the image for the kernel's; null: outside.
    pub rows: [*const u8; MOST],
    pub channels: usize,
    /// Pixels of a line of the image.
    pub from: usize,
    /// Pixels of the line.
    pub to: usize,
    /// Pixels to the left of the image.
    pub before: usize,
    pub signed: bool,
    pub zero: i32,
    /// Kernel height times kernel width times channels, and their sums.
    pub weights: *const u8,
    pub sums: *const i32,
    pub stage: Stage<'a>,
    pub grid: Grid,
    /// Numbers need no bounds before they are bytes: all bytes are allowed, and no number leaves 32 bits.
    pub saturates: bool,
    pub out: *mut u8,
}

/// Both halves of 32 channels: in each quarter of a vector, the first four channels of eight, and the others.
type Halves = [__m512i; 2];
/// A column of a kernel: four lines at a time.
type Column = [Halves; 2];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn halves(low: __m512i, high: __m512i) -> Halves {
    [_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high)]
}

/// Bytes of 32 channels, or of those of the mask, as words.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn words<const FULL: bool>(from: *const u8, mask: u32) -> __m512i {
    // SAFETY: as the caller says.
    unsafe {
        let bytes = match FULL {
            true => _mm256_loadu_si256(from.cast()),
            false => _mm256_maskz_loadu_epi8(mask, from.cast()),
        };
        _mm512_cvtepu8_epi16(bytes)
    }
}

/// A column of words, `flip` being what turns bytes to unsigned ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn column<const K: usize>(words: [__m512i; MOST], flip: __m512i) -> Column {
    // `(a | b << 8) ^ flip`
    let pair = |a: __m512i, b: __m512i| _mm512_ternarylogic_epi64::<0x56>(_mm512_slli_epi16::<8>(b), a, flip);
    let one = _mm512_and_si512(flip, _mm512_set1_epi16(0xff));
    let none = _mm512_setzero_si512();
    let [a, b, c, d, e] = words;
    match K {
        3 => [halves(pair(a, b), _mm512_xor_si512(c, one)), [none; 2]],
        _ => [halves(pair(a, b), pair(c, d)), halves(_mm512_xor_si512(e, one), none)],
    }
}

/// Numbers of 32 channels, in the order of [`Halves`].
///
/// # Safety
/// Those of the mask are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn numbers(from: *const i32, mask: u32) -> Halves {
    // SAFETY: as the caller says.
    unsafe {
        let a = _mm512_maskz_loadu_epi32(mask as __mmask16, from);
        let b = _mm512_maskz_loadu_epi32((mask >> 16) as __mmask16, from.wrapping_add(16));
        let first = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        let second = _mm512_add_epi32(first, _mm512_set1_epi32(4));
        [
            _mm512_permutex2var_epi32(a, first, b),
            _mm512_permutex2var_epi32(a, second, b),
        ]
    }
}

/// Computes a line with a kernel of `K` by `K`, whose pixels are `STEP` apart.
///
/// # Safety
/// The machine has it, the grid's zero point fits 16 bits with room for a byte, and the pointers are good.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn line<const K: usize, const STEP: usize>(line: &Line) {
    let mut c = 0;
    while c < line.channels {
        // SAFETY: as the caller says; the last channels overlap those before, or a mask says which are there.
        unsafe {
            if line.channels >= WIDTH {
                c = c.min(line.channels - WIDTH);
                block::<K, STEP, true>(line, c, u32::MAX);
            } else {
                block::<K, STEP, false>(line, c, u32::MAX >> (WIDTH - line.channels));
            }
        }
        c += WIDTH;
    }
}

/// The channels from `c` on.
///
/// # Safety
/// As [`line`]; those of the mask are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn block<const K: usize, const STEP: usize, const FULL: bool>(line: &Line, c: usize, mask: u32) {
    // SAFETY: as the caller says.
    unsafe {
        match line.saturates {
            true => pixels::<K, STEP, FULL, true>(line, c, mask),
            false => pixels::<K, STEP, FULL, false>(line, c, mask),
        }
    }
}

/// The same; `SATURATES`: numbers need no bounds before they are bytes.
///
/// # Safety
/// As [`block`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn pixels<const K: usize, const STEP: usize, const FULL: bool, const SATURATES: bool>(
    line: &Line,
    c: usize,
    mask: u32,
) {
    let (channels, stage, grid) = (line.channels, &line.stage, line.grid);
    let none = _mm512_setzero_si512();
    // SAFETY: as the caller says.
    unsafe {
        let mut w = [[[none; 2]; 2]; K];
        for j in 0..K {
            let mut all = [none; MOST];
            for i in 0..K {
                all[i] = words::<FULL>(line.weights.add((i * K + j) * channels + c), mask);
            }
            w[j] = column::<K>(all, none);
        }
        let flip = _mm512_set1_epi16(if line.signed { 0x8080_u16 as i16 } else { 0 });
        let beyond = _mm512_set1_epi16(i16::from(line.zero as u8));
        let border = column::<K>([beyond; MOST], flip);
        let read = |x: usize| -> Column {
            if x < line.before || x >= line.before + line.from {
                return border;
            }
            let at = (x - line.before) * channels + c;
            let mut all = [beyond; MOST];
            for i in 0..K {
                if !line.rows[i].is_null() {
                    all[i] = words::<FULL>(line.rows[i].add(at), mask);
                }
            }
            column::<K>(all, flip)
        };
        let zero = _mm512_set1_epi32(if line.signed { line.zero + 128 } else { line.zero });
        let sums = numbers(line.sums.add(c), mask);
        let mut start = [none; 2];
        for h in 0..2 {
            start[h] = _mm512_sub_epi32(none, _mm512_mullo_epi32(sums[h], zero));
        }
        let scale = numbers(stage.multiplier.as_ptr().add(c).cast(), mask);
        let mut bias = [none; 2];
        match stage.bias {
            Bias::None => {}
            Bias::Floats(list) => bias = numbers(list.as_ptr().add(c).cast(), mask),
            Bias::Integers(list) => {
                let list = numbers(list.as_ptr().add(c), mask);
                for h in 0..2 {
                    start[h] = _mm512_add_epi32(start[h], list[h]);
                }
            }
        }
        let inverse = _mm512_set1_ps(grid.inverse);
        let low = _mm512_set1_ps((grid.low - grid.zero) as f32);
        let high = _mm512_set1_ps((grid.high - grid.zero) as f32);
        let shift = _mm512_set1_epi16(grid.zero as i16);
        let mut x = [[[none; 2]; 2]; K];
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
            let mut q = [none; 2];
            for h in 0..2 {
                let mut sum = start[h];
                for j in 0..K {
                    for g in 0..K.div_ceil(4) {
                        sum = _mm512_dpbusd_epi32(sum, x[j][g][h], w[j][g][h]);
                    }
                }
                let real = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_castsi512_ps(scale[h]));
                let real = _mm512_add_ps(real, _mm512_castsi512_ps(bias[h]));
                let mut steps = _mm512_mul_ps(real, inverse);
                if !SATURATES {
                    steps = _mm512_min_ps(_mm512_max_ps(steps, low), high);
                }
                q[h] = _mm512_cvtps_epi32(steps);
            }
            let words = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), shift);
            let bytes = match (SATURATES, grid.low < 0) {
                (false, _) => _mm512_cvtepi16_epi8(words),
                (true, true) => _mm512_cvtsepi16_epi8(words),
                (true, false) => _mm512_cvtusepi16_epi8(_mm512_max_epi16(words, none)),
            };
            let to = line.out.add(pixel * channels + c);
            match FULL {
                true => _mm256_storeu_si256(to.cast(), bytes),
                false => _mm256_mask_storeu_epi8(to.cast(), mask, bytes),
            }
        }
    }
}
