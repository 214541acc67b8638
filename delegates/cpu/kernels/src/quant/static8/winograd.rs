//! AVX2: convolutions of 3 by 3 with stride 1 by Winograd's F(4x4, 3x3): a quarter of the products of the direct form, and the same sums, exactly.
//!
//! 16 bits are what AVX2 multiplies, and more than bytes need: a transformed tile is within 100 * 255, and a filter, transformed with the
//! denominators left out, within 49 * 128. What they give is the sum times 9 and a power of two of at most 64. All is computed modulo 2^32, where 9 has an inverse;
//! so that the sum is exact where it is below 2^25, which its weights say before anything is computed ([`is_exact`]).
//!
//! Weights are those of the direct form: they are transformed on the way, a few channels at a time, which costs as much as one or two tiles do.

use super::gemm::{Finish, Form, Job};
use super::stage::Place;
use super::wide::{self, Tile};
use super::{Bytes, Conv, Weights};
use crate::pool::{self, Pool, Shared};
use crate::simd::dispatch;
use core::arch::x86_64::*;

/// Channels whose filters are transformed at once.
const CHUNK: usize = 32;
/// Bytes of a block's transformed tiles.
const BLOCK_BYTES: usize = 256 << 10;
/// Tiles of a block: at most, and where there are that many, at least.
const MOST: usize = 48;
const LEAST: usize = 16;
/// Bytes between matrices, so that they do not all fall on the same lines of a cache.
const GAP: usize = 64;
/// Numbers of a transformed tile.
const SQUARE: usize = 36;

/// Whether there is such a form of a convolution, and it is quicker: not where most of a tile is outside of the image.
pub(super) fn fits(conv: &Conv) -> bool {
    let [height, width] = conv.output();
    let [down, right] = tiles(conv);
    conv.kernel == [3, 3]
        && conv.stride == [1, 1]
        && conv.dilation == [1, 1]
        && conv.groups <= 1
        && conv.channels[0] > 0
        && conv.channels[0].is_multiple_of(16)
        && conv.channels[1] >= 16
        && height * width >= 8 * down * right
        && down * right > 0
}

/// Whether the sums of all outputs are below 2^25, by their weights and the largest input that there can be.
pub(super) fn is_exact(weights: &Weights, x: &Bytes) -> bool {
    let zero = i64::from(x.zero());
    let (low, high) = if x.signed() { (-128, 127) } else { (0, 255) };
    let largest = (high - zero).max(zero - low);
    let shape = weights.shape();
    if !(low..=high).contains(&zero) {
        return false;
    }
    if shape.inputs as i64 * 128 * largest < 1 << 25 {
        return true;
    }
    (0..shape.panels()).all(|panel| {
        // SAFETY: only machines with AVX2 come here.
        let sums = unsafe { magnitudes(weights.panel(panel)) };
        sums.iter().all(|sum| i64::from(*sum) * largest < 1 << 25)
    })
}

/// Sums of the absolute values of a panel's weights, output by output.
///
/// # Safety
/// The machine has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn magnitudes(panel: &[u8]) -> [i32; 16] {
    let (bytes, words) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); 2];
    let mut all = [0i32; 16];
    // SAFETY: each piece has 64 bytes, and there are sixteen sums.
    unsafe {
        for four in panel.chunks_exact(64) {
            for half in 0..2 {
                let w = _mm256_abs_epi8(_mm256_loadu_si256(four.as_ptr().add(32 * half).cast()));
                let pairs = _mm256_maddubs_epi16(w, bytes);
                sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, words));
            }
        }
        for half in 0..2 {
            _mm256_storeu_si256(all.as_mut_ptr().add(8 * half).cast(), sums[half]);
        }
    }
    all
}

/// Rows and columns of tiles.
fn tiles(conv: &Conv) -> [usize; 2] {
    conv.output().map(|size| size.div_ceil(4))
}

/// How tiles and panels are divided: blocks of tiles, tiles of a block, pieces of panels.
fn division(conv: &Conv, threads: usize) -> (usize, usize, usize) {
    let count = conv.batch * tiles(conv).iter().product::<usize>();
    let most = (BLOCK_BYTES / (2 * SQUARE * conv.channels[0].max(1))).clamp(LEAST, MOST);
    let threads = threads.max(1);
    if count < threads * LEAST {
        let blocks = count.div_ceil(most).max(1);
        return (
            blocks,
            count.div_ceil(blocks),
            threads.min(conv.channels[1].div_ceil(16).max(1)),
        );
    }
    let blocks = count.div_ceil(most).next_multiple_of(threads);
    (blocks, count.div_ceil(blocks), 1)
}

/// Numbers from matrix to matrix: of tiles, of filters, of products.
fn pitches(conv: &Conv, block: usize) -> [usize; 3] {
    [
        block * conv.channels[0] + GAP / 2,
        16 * CHUNK + GAP / 2,
        16 * block + GAP / 4,
    ]
}

/// Floats of scratch of a part.
fn part_len(conv: &Conv, block: usize) -> usize {
    let [tiles, filters, products] = pitches(conv, block);
    SQUARE * ((tiles + filters) / 2 + products)
}

/// Floats of scratch of [`run`].
pub(super) fn scratch_len(conv: &Conv, pool: &dyn Pool) -> usize {
    pool.threads().max(1) * part_len(conv, division(conv, pool.threads()).1)
}

/// `v = B d`, with
///
/// ```text
///     4  0 -5  0  1  0
///     0 -4 -4  1  1  0
/// B = 0  4 -4 -1  1  0
///     0 -2 -1  2  1  0
///     0  2 -1 -2  1  0
///     0  4  0 -5  0  1
/// ```
#[inline]
#[target_feature(enable = "avx2")]
fn tile_line(d: [__m256i; 6]) -> [__m256i; 6] {
    let (add, sub) = (_mm256_add_epi16, _mm256_sub_epi16);
    let a = sub(d[4], _mm256_slli_epi16::<2>(d[2]));
    let b = sub(d[3], _mm256_slli_epi16::<2>(d[1]));
    let c = sub(d[4], d[2]);
    let e = _mm256_slli_epi16::<1>(sub(d[3], d[1]));
    [
        add(_mm256_slli_epi16::<2>(sub(d[0], d[2])), c),
        add(a, b),
        sub(a, b),
        add(c, e),
        sub(c, e),
        sub(sub(d[5], d[3]), _mm256_slli_epi16::<1>(e)),
    ]
}

/// `u = G g`, with rows `6 0 0`, `1 1 1`, `1 -1 1`, `1 2 4`, `1 -2 4`, `0 0 6`.
#[inline]
#[target_feature(enable = "avx2")]
fn filter_line(g: [__m256i; 3]) -> [__m256i; 6] {
    let (add, sub) = (_mm256_add_epi16, _mm256_sub_epi16);
    let six = |x| {
        let two = _mm256_slli_epi16::<1>(x);
        add(two, _mm256_slli_epi16::<1>(two))
    };
    let ends = add(g[0], g[2]);
    let far = add(g[0], _mm256_slli_epi16::<2>(g[2]));
    let two = _mm256_slli_epi16::<1>(g[1]);
    [
        six(g[0]),
        add(ends, g[1]),
        sub(ends, g[1]),
        add(far, two),
        sub(far, two),
        six(g[2]),
    ]
}

/// `y = A m`, with
///
/// ```text
///     1 -4 -4  1  1  0     / 24
/// A = 0 -2  2  1 -1  0     / 12
///     0 -1 -1  1  1  0     / 6
///     0 -1  1  2 -2  1     / 6
/// ```
///
/// where what is divided by is left out.
#[inline]
#[target_feature(enable = "avx2")]
fn product_line(m: [__m256i; 6]) -> [__m256i; 4] {
    let (add, sub) = (_mm256_add_epi32, _mm256_sub_epi32);
    let (p, n) = (add(m[1], m[2]), sub(m[2], m[1]));
    let (r, t) = (add(m[3], m[4]), sub(m[3], m[4]));
    [
        add(sub(m[0], _mm256_slli_epi32::<2>(p)), r),
        add(_mm256_slli_epi32::<1>(n), t),
        sub(r, p),
        add(add(n, _mm256_slli_epi32::<1>(t)), m[5]),
    ]
}

/// The powers of two of [`product_line`]'s divisors.
const SHIFTS: [i32; 4] = [3, 2, 1, 1];
/// The inverse of 9 modulo 2^32.
const NINTH: i32 = 0x38e3_8e39;

/// Transforms sixteen channels of a tile of 6 by 6 pixels.
///
/// # Safety
/// The machine has AVX2, the pixels are there, and `to` has room.
#[target_feature(enable = "avx2")]
unsafe fn tile(from: *const u8, pitches: [usize; 2], signed: bool, zero: i32, to: *mut i16, matrix: usize) {
    // Unsigned bytes are made signed ones.
    let (flip, zero) = if signed { (0, zero) } else { (-128, zero - 128) };
    let (flip, zero) = (_mm_set1_epi8(flip), _mm256_set1_epi16(zero as i16));
    let mut lines = [[_mm256_setzero_si256(); 6]; 6];
    // SAFETY: as the caller says.
    unsafe {
        for j in 0..6 {
            let mut column = [_mm256_setzero_si256(); 6];
            for i in 0..6 {
                let x = _mm_loadu_si128(from.add(i * pitches[0] + j * pitches[1]).cast());
                column[i] = _mm256_sub_epi16(_mm256_cvtepi8_epi16(_mm_xor_si128(x, flip)), zero);
            }
            let made = tile_line(column);
            for i in 0..6 {
                lines[i][j] = made[i];
            }
        }
        for i in 0..6 {
            let made = tile_line(lines[i]);
            for j in 0..6 {
                _mm256_storeu_si256(to.add((6 * i + j) * matrix).cast(), made[j]);
            }
        }
    }
}

/// Transforms the filters of a panel, `fours` times four channels from `panel` on, which has `tap` bytes for each pixel of a kernel.
///
/// # Safety
/// The machine has AVX2, the bytes are there, and `to` has room.
#[target_feature(enable = "avx2")]
unsafe fn filters(panel: *const u8, tap: usize, fours: usize, to: *mut i16, matrix: usize) {
    for four in 0..fours {
        for half in 0..2 {
            let mut g = [[[_mm256_setzero_si256(); 3]; 3]; 2];
            // SAFETY: as the caller says.
            unsafe {
                for k in 0..9 {
                    let both = wide::twos(panel.add(k * tap + 64 * four + 32 * half));
                    for two in 0..2 {
                        g[two][k % 3][k / 3] = both[two];
                    }
                }
                for two in 0..2 {
                    let to = to.add(64 * four + 32 * two + 16 * half);
                    let mut lines = [[_mm256_setzero_si256(); 3]; 6];
                    for j in 0..3 {
                        let made = filter_line(g[two][j]);
                        for i in 0..6 {
                            lines[i][j] = made[i];
                        }
                    }
                    for i in 0..6 {
                        let made = filter_line(lines[i]);
                        for j in 0..6 {
                            _mm256_storeu_si256(to.add((6 * i + j) * matrix).cast(), made[j]);
                        }
                    }
                }
            }
        }
    }
}

/// Sums of 4 by 4 pixels and sixteen outputs of their transformed ones.
///
/// # Safety
/// The machine has AVX2, and the products are there.
#[target_feature(enable = "avx2")]
unsafe fn back(from: *const i32, matrix: usize, to: &mut [[i32; 16]; 16]) {
    let ninth = _mm256_set1_epi32(NINTH);
    for half in 0..2 {
        let mut lines = [[_mm256_setzero_si256(); 6]; 4];
        // SAFETY: as the caller says, and there is room for sixteen sums of each pixel.
        unsafe {
            for j in 0..6 {
                let mut column = [_mm256_setzero_si256(); 6];
                for i in 0..6 {
                    column[i] = _mm256_loadu_si256(from.add((6 * i + j) * matrix + 8 * half).cast());
                }
                let made = product_line(column);
                for i in 0..4 {
                    lines[i][j] = made[i];
                }
            }
            for i in 0..4 {
                let made = product_line(lines[i]);
                for j in 0..4 {
                    let whole = _mm256_mullo_epi32(made[j], ninth);
                    let sum = _mm256_sra_epi32(whole, _mm_cvtsi32_si128(SHIFTS[i] + SHIFTS[j]));
                    _mm256_storeu_si256(to[4 * i + j].as_mut_ptr().add(8 * half).cast(), sum);
                }
            }
        }
    }
}

/// Computes a convolution that [`fits`] and [`is_exact`] on bytes; its job is that of the direct form.
///
/// # Panics
/// A slice is too short.
pub(super) fn run(conv: &Conv, job: &Job, bytes: &[u8], pool: &dyn Pool, scratch: &mut [f32]) {
    let total = conv.batch * tiles(conv).iter().product::<usize>();
    let (blocks, block, splits) = division(conv, pool.threads());
    let panels = job.weights.shape().panels();
    let each = part_len(conv, block);
    assert!(
        bytes.len() >= conv.input_len() && scratch.len() >= scratch_len(conv, pool),
        "an argument is too short"
    );
    let products = block * SQUARE * conv.channels[0] * 16 * panels.div_ceil(splits);
    let parts = pool::parts(pool, blocks * splits, products / 64).min(pool.threads().max(1));
    let work = Work {
        conv,
        job,
        bytes,
        pitches: pitches(conv, block),
    };
    let shared = Shared::new(scratch);
    pool.run(parts, &|part| {
        // SAFETY: each part has its own piece, and there are no more parts than threads.
        let own = unsafe { shared.slice(part * each..(part + 1) * each) };
        let mut made = usize::MAX;
        for piece in pool::range(blocks * splits, parts, part, 1) {
            let (at, split) = (piece / splits, piece % splits);
            let range = total * at / blocks..total * (at + 1) / blocks;
            if made != at {
                work.tiles(range.clone(), own);
                made = at;
            }
            for panel in pool::range(panels, splits, split, 1) {
                work.panel(panel, range.clone(), own);
            }
        }
    });
}

struct Work<'a> {
    conv: &'a Conv,
    job: &'a Job<'a>,
    bytes: &'a [u8],
    /// From matrix to matrix; see [`pitches`].
    pitches: [usize; 3],
}

impl Work<'_> {
    /// Tiles, filters, products in a part's scratch.
    fn places(&self, own: &mut [f32]) -> (*mut i16, *mut i16, *mut i32) {
        let [tiles, filters, products] = self.pitches;
        assert!(
            own.len() >= SQUARE * ((tiles + filters) / 2 + products),
            "scratch is too short"
        );
        let (first, rest) = own.split_at_mut(SQUARE * tiles / 2);
        let (second, rest) = rest.split_at_mut(SQUARE * filters / 2);
        (
            first.as_mut_ptr().cast(),
            second.as_mut_ptr().cast(),
            rest.as_mut_ptr().cast(),
        )
    }

    /// Image, row and column of a tile's first pixel.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [down, right] = tiles(self.conv);
        [tile / (down * right), tile / right % down * 4, tile % right * 4]
    }

    /// Transforms tiles of the image.
    fn tiles(&self, range: std::ops::Range<usize>, own: &mut [f32]) {
        let (conv, job) = (self.conv, self.job);
        let ([height, width], channels) = (conv.size, conv.channels[0]);
        let (to, matrix) = (self.places(own).0, self.pitches[0]);
        for (at, index) in range.enumerate() {
            let [image, down, right] = self.place(index);
            // The part of the tile that is in the image.
            let [rows, columns] = [(down, conv.before[0], height), (right, conv.before[1], width)]
                .map(|(at, before, size)| before.saturating_sub(at).min(6)..(size + before).saturating_sub(at).min(6));
            let first = |i: usize, j: usize| {
                let (y, x) = (down + i - conv.before[0], right + j - conv.before[1]);
                ((image * height + y) * width + x) * channels
            };
            let whole = rows == (0..6) && columns == (0..6);
            for c in (0..channels).step_by(16) {
                let mut copy = [job.zero as u8; SQUARE * 16];
                let (from, pitches) = if whole {
                    (self.bytes[first(0, 0) + c..].as_ptr(), [width * channels, channels])
                } else {
                    for i in rows.clone() {
                        for j in columns.clone() {
                            let from = &self.bytes[first(i, j) + c..][..16];
                            copy[(6 * i + j) * 16..][..16].copy_from_slice(from);
                        }
                    }
                    (copy.as_ptr(), [6 * 16, 16])
                };
                // SAFETY: only machines with AVX2 come here, the tile is in the image or in the copy, and each tile of a block has room.
                unsafe { tile(from, pitches, job.signed, job.zero, to.add(at * channels + c), matrix) };
            }
        }
    }

    /// Multiplies a block's tiles by a panel, and finishes what comes out.
    fn panel(&self, panel: usize, range: std::ops::Range<usize>, own: &mut [f32]) {
        let (job, channels, count) = (self.job, self.conv.channels[0], range.len());
        let (tiles, filtered, products) = self.places(own);
        let [tile_pitch, filter_pitch, product_pitch] = self.pitches;
        let packed = job.weights.panel(panel);
        let none = [0i32; 16];
        for first in (0..channels).step_by(CHUNK) {
            let taken = CHUNK.min(channels - first);
            // SAFETY: only machines with AVX2 come here; a panel has sixteen bytes for each channel of each pixel, and all places have room.
            unsafe {
                let from = packed[16 * first..].as_ptr();
                filters(from, 16 * channels, taken / 4, filtered, filter_pitch);
                for k in 0..SQUARE {
                    for at in 0..count.div_ceil(6) {
                        let parts = count.div_ceil(6);
                        let (row, behind) = (count * at / parts, count * (at + 1) / parts);
                        let sums = products.add(k * product_pitch + 16 * row);
                        let tile = Tile {
                            panel: filtered.add(k * filter_pitch),
                            twos: taken / 2,
                            rows: tiles.add(k * tile_pitch + row * channels + first),
                            pitch: channels,
                            start: if first > 0 { sums } else { none.as_ptr() },
                            start_pitch: if first > 0 { 16 } else { 0 },
                        };
                        wide::products(behind - row, &tile, sums);
                    }
                }
            }
        }
        let columns = 16.min(job.weights.shape().outputs - 16 * panel);
        let ready = job.quick(panel, columns);
        for (at, tile) in range.enumerate() {
            let mut sums = [[0i32; 16]; 16];
            // SAFETY: as above.
            unsafe { back(products.add(16 * at), product_pitch, &mut sums) };
            self.finish(tile, panel, columns, &sums, ready.as_ref());
        }
    }

    /// Writes the pixels of a tile that are in the output.
    fn finish(&self, tile: usize, panel: usize, columns: usize, sums: &[[i32; 16]; 16], ready: Option<&wide::Ready>) {
        let (job, [height, width]) = (self.job, self.conv.output());
        let [image, down, right] = self.place(tile);
        let wide = 4.min(width - right);
        for i in 0..4.min(height - down) {
            let first = ((image * height + down + i) * width + right) * job.channels;
            let places: [usize; 4] = std::array::from_fn(|j| first + j * job.channels);
            let (sums, places) = (&sums[4 * i..4 * i + wide], &places[..wide]);
            match (ready, job.place) {
                (Some(ready), Place::Bytes(out, _)) => {
                    let channel = job.channel + 16 * panel;
                    // SAFETY: only machines with AVX2 come here, and the output has these pixels and channels.
                    unsafe { wide::settle_rows(ready, sums, out.from(channel), places, columns) };
                }
                _ => {
                    let finish = Finish {
                        job,
                        form: Form::Wide,
                        acc: sums.as_flattened(),
                        pitch: 16,
                        sums: &job.weights.sums(panel),
                        places,
                        column: 16 * panel,
                        columns,
                    };
                    dispatch(job.dot.isa(), finish);
                }
            }
        }
    }
}
