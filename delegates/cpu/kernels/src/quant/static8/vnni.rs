//! AVX-512 with VNNI: up to four panels by up to twelve rows, which are read where they lie; sums become bytes without leaving registers.

use super::direct::{PANELS, Ready, Tile};
use crate::pool::Shared;
use core::arch::asm;
use core::arch::x86_64::*;

/// Four bytes in every lane, each changed as `flip` says: one instruction, of which compilers make three.
///
/// # Safety
/// The machine has it, and the bytes are there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn spread(from: *const u8, at: usize, flip: __m512i) -> __m512i {
    let made: __m512i;
    // SAFETY: as the caller says.
    unsafe {
        asm!(
            "vpxord {made}, {flip}, dword ptr [{from} + {at}]{{1to16}}",
            made = lateout(zmm_reg) made, flip = in(zmm_reg) flip, from = in(reg) from, at = in(reg) at,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    made
}

/// Sums of `R` rows by `P` panels, beginning with `start`: sixteen for each panel.
///
/// # Safety
/// The machine has it, and the tile's pointers are good.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn sums<const R: usize, const P: usize>(tile: &Tile, start: *const i32) -> [[__m512i; P]; R] {
    let mut sums = [[_mm512_setzero_si512(); P]; R];
    let mut rows = [std::ptr::null::<u8>(); R];
    let reach = tile.reach;
    let flip = _mm512_set1_epi32(if tile.signed { 0x8080_8080_u32 as i32 } else { 0 });
    // SAFETY: as the caller says.
    unsafe {
        for r in 0..R {
            rows[r] = *tile.rows.add(r);
            for p in 0..P {
                sums[r][p] = _mm512_loadu_si512(start.add(16 * p).cast());
            }
        }
        let mut panel = tile.panel;
        for line in 0..reach.lines {
            for pixel in 0..reach.pixels {
                let from = line * reach.line_pitch + pixel * reach.pixel_pitch;
                for at in (from..from + 4 * reach.fours).step_by(4) {
                    let mut w = [_mm512_setzero_si512(); P];
                    for p in 0..P {
                        w[p] = _mm512_loadu_si512(panel.add(p * tile.panel_len).cast());
                    }
                    panel = panel.add(64);
                    for r in 0..R {
                        let x = spread(rows[r], at, flip);
                        for p in 0..P {
                            sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], x, w[p]);
                        }
                    }
                }
            }
        }
    }
    sums
}

/// Writes sums as they are: for each row, sixteen a panel.
///
/// # Safety
/// As [`sums`], and `to` has room.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn plain<const R: usize, const P: usize>(tile: &Tile, to: *mut i32) {
    // SAFETY: as the caller says.
    unsafe {
        let start = [0i32; 16 * PANELS];
        let sums = sums::<R, P>(tile, start.as_ptr());
        for r in 0..R {
            for p in 0..P {
                _mm512_storeu_si512(to.add(16 * (r * P + p)).cast(), sums[r][p]);
            }
        }
    }
}

/// Writes bytes: the row of `R` at each of `places`, `columns` of the panels' outputs.
///
/// # Safety
/// As [`sums`], and `out` has the places.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn bytes<const R: usize, const P: usize>(
    tile: &Tile,
    ready: &Ready,
    out: Shared<u8>,
    places: *const usize,
    columns: usize,
) {
    // SAFETY: as the caller says.
    unsafe {
        let sums = sums::<R, P>(tile, ready.start.as_ptr());
        match ready.saturates {
            true => finish::<R, P, true>(sums, ready, out, places, columns),
            false => finish::<R, P, false>(sums, ready, out, places, columns),
        }
    }
}

/// Sums as bytes; `SATURATES`: see [`Ready::saturates`].
///
/// # Safety
/// As [`bytes`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn finish<const R: usize, const P: usize, const SATURATES: bool>(
    sums: [[__m512i; P]; R],
    ready: &Ready,
    out: Shared<u8>,
    places: *const usize,
    columns: usize,
) {
    // SAFETY: as the caller says.
    unsafe {
        let grid = ready.grid;
        let inverse = _mm512_set1_ps(grid.inverse);
        let low = _mm512_set1_ps((grid.low - grid.zero) as f32);
        let high = _mm512_set1_ps((grid.high - grid.zero) as f32);
        // Panel by panel, so that what belongs to its outputs is loaded once; the numbers stay where the sums were.
        let mut all = sums;
        for p in 0..P {
            let scale = _mm512_loadu_ps(ready.multiplier.as_ptr().add(16 * p));
            let bias = _mm512_loadu_ps(ready.bias.as_ptr().add(16 * p));
            for r in 0..R {
                let real = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(all[r][p]), scale), bias);
                let mut steps = _mm512_mul_ps(real, inverse);
                if !SATURATES {
                    steps = _mm512_min_ps(_mm512_max_ps(steps, low), high);
                }
                all[r][p] = _mm512_cvtps_epi32(steps);
            }
        }
        for r in 0..R {
            let mut q = [_mm512_setzero_si512(); PANELS];
            for (q, all) in q.iter_mut().zip(all[r]) {
                *q = all;
            }
            store::<P>(q, grid.zero, grid.low >= 0, out.at(*places.add(r)), columns);
        }
    }
}

/// Writes `columns` bytes, each the sum of a number and the zero point, or the least or the largest byte where that is none.
///
/// # Safety
/// There is room for them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn store<const P: usize>(
    q: [__m512i; PANELS],
    zero: i32,
    unsigned: bool,
    to: *mut u8,
    columns: usize,
) {
    // SAFETY: as the caller says.
    unsafe {
        let zero = _mm512_set1_epi16(zero as i16);
        let pair = |a: __m512i, b: __m512i| _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
        let (a, b) = match P {
            1 => (pair(q[0], q[0]), None),
            2 => (pair(q[0], q[1]), None),
            3 => (pair(q[0], q[1]), Some(pair(q[2], q[2]))),
            _ => (pair(q[0], q[1]), Some(pair(q[2], q[3]))),
        };
        let b = b.unwrap_or(a);
        let packed = match unsigned {
            true => _mm512_packus_epi16(a, b),
            false => _mm512_packs_epi16(a, b),
        };
        // Each quarter has four bytes of every panel.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let made = _mm512_permutexvar_epi32(order, packed);
        match P {
            1 if columns == 16 => _mm_storeu_si128(to.cast(), _mm512_castsi512_si128(made)),
            2 if columns == 32 => _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(made)),
            3 if columns == 48 => {
                _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(made));
                _mm_storeu_si128(to.add(32).cast(), _mm512_extracti32x4_epi32::<2>(made));
            }
            4 if columns == 64 => _mm512_storeu_si512(to.cast(), made),
            _ => _mm512_mask_storeu_epi8(to.cast(), u64::MAX >> (64 - columns.clamp(1, 64)), made),
        }
    }
}

/// Bytes of a table of 256, by VBMI.
///
/// # Safety
/// The machine has it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(super) unsafe fn map(table: &[u8; 256], x: &[u8], out: &mut [u8]) {
    // SAFETY: of a slice as many bytes are read or written as it has, and of the table all.
    unsafe {
        let quarter = |q: usize| _mm512_loadu_si512(table.as_ptr().add(64 * q).cast());
        let (a, b, c, d) = (quarter(0), quarter(1), quarter(2), quarter(3));
        for (x, out) in x.chunks(64).zip(out.chunks_mut(64)) {
            let mask = u64::MAX >> (64 - x.len().min(out.len()));
            let index = _mm512_maskz_loadu_epi8(mask, x.as_ptr().cast());
            let low = _mm512_permutex2var_epi8(a, index, b);
            let high = _mm512_permutex2var_epi8(c, index, d);
            let made = _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
            _mm512_mask_storeu_epi8(out.as_mut_ptr().cast(), mask, made);
        }
    }
}
