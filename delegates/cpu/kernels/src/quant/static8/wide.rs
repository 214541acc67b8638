//! AVX2 without products of bytes: rows and weights are made 16 bits, whose products in pairs are exact. (`vpmaddubsw` would saturate.) A block of rows is copied
//! once for all panels, and a panel is widened once for all rows of a block; so that tiles of six rows by sixteen outputs do nothing but multiply, and their sums
//! become bytes without leaving registers.

use super::direct::{Reach, SMALL};
use super::gemm::{Finish, Form, Job, Sink};
use super::stage::{Bias, Grid, Place};
use crate::Activation;
use crate::pool::{self, Pool, Shared};
use crate::simd::dispatch;
use core::arch::x86_64::*;

/// Rows from which on it is worth to widen weights.
pub(super) const LEAST: usize = 6;
/// Most rows of a block.
const BLOCK: usize = 60;
/// The same where they have many inputs, so that a block stays in the second cache.
const FEW: usize = 30;
/// Inputs of a panel that are gone over at once: as many as the first cache holds with some rows.
const CHUNK: usize = 512;
/// Numbers of a part's place for widened weights: a chunk of a panel, or all weights of a layer.
const ROOM: usize = 16 * 1024;
/// Rows of a tile at most.
const ROWS: usize = 6;

macro_rules! by_rows {
    ($rows:expr, $name:ident($($arg:expr),*)) => {
        match $rows {
            6 => $name::<6>($($arg),*),
            5 => $name::<5>($($arg),*),
            4 => $name::<4>($($arg),*),
            3 => $name::<3>($($arg),*),
            2 => $name::<2>($($arg),*),
            _ => $name::<1>($($arg),*),
        }
    };
}

/// Most rows of a block with so many inputs.
fn most(inputs: usize) -> usize {
    if inputs > 4 * CHUNK { FEW } else { BLOCK }
}

/// Numbers from row to row of a block: whole lines of a cache, and an odd count of them.
fn pitch(inputs: usize) -> usize {
    (inputs.div_ceil(32) | 1) * 32
}

/// Floats of scratch of a part.
pub(super) fn scratch_len(inputs: usize) -> usize {
    (most(inputs) * pitch(inputs) + ROOM) / 2
}

/// Copies bytes as numbers without their zero point.
///
/// # Panics
/// The place is shorter.
pub(super) fn spread(bytes: &[u8], signed: bool, zero: i32, to: &mut [[u8; 2]]) {
    let to = &mut to[..bytes.len()];
    // SAFETY: only machines with AVX2 have rows in this form, and there is room for as many numbers as bytes.
    unsafe {
        match signed {
            true => widen::<true>(bytes.as_ptr(), bytes.len(), zero, to.as_mut_ptr().cast()),
            false => widen::<false>(bytes.as_ptr(), bytes.len(), zero, to.as_mut_ptr().cast()),
        }
    }
}

/// # Safety
/// The machine has AVX2; there are `count` bytes, and room for as many numbers.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn widen<const SIGNED: bool>(from: *const u8, count: usize, zero: i32, to: *mut i16) {
    let zeros = _mm256_set1_epi16(zero as i16);
    // SAFETY: as the caller says; the last sixteen or eight overlap those before.
    unsafe {
        if count >= 16 {
            let mut at = 0;
            loop {
                let x = _mm_loadu_si128(from.add(at).cast());
                let x = match SIGNED {
                    true => _mm256_cvtepi8_epi16(x),
                    false => _mm256_cvtepu8_epi16(x),
                };
                _mm256_storeu_si256(to.add(at).cast(), _mm256_sub_epi16(x, zeros));
                at += 16;
                if at + 16 > count {
                    if at >= count {
                        return;
                    }
                    at = count - 16;
                }
            }
        }
        if count >= 8 {
            for at in [0, count - 8] {
                let x = _mm_loadl_epi64(from.add(at).cast());
                let x = match SIGNED {
                    true => _mm_cvtepi8_epi16(x),
                    false => _mm_cvtepu8_epi16(x),
                };
                _mm_storeu_si128(to.add(at).cast(), _mm_sub_epi16(x, _mm256_castsi256_si128(zeros)));
            }
            return;
        }
        for at in 0..count {
            let x = *from.add(at);
            let x = if SIGNED { i16::from(x as i8) } else { i16::from(x) };
            to.add(at).write_unaligned(x - zero as i16);
        }
    }
}

/// Copies the rows that have a start, each to its place, without their zero points.
///
/// # Safety
/// The machine has AVX2, and rows lie as `reach` says.
#[target_feature(enable = "avx2")]
unsafe fn gather<const SIGNED: bool>(
    starts: &[*const u8],
    reach: &Reach,
    zero: impl Fn(usize) -> i32,
    to: &mut [[u8; 2]],
    pitch: usize,
) {
    let count = 4 * reach.fours;
    for (row, to) in to.chunks_exact_mut(pitch).enumerate().take(starts.len()) {
        let to = &mut to[..reach.lines * reach.pixels * count];
        if starts[row].is_null() {
            continue;
        }
        let (zero, mut to) = (zero(row), to.as_mut_ptr().cast());
        for line in 0..reach.lines {
            for pixel in 0..reach.pixels {
                // SAFETY: as the caller says, and there is room for so many numbers.
                unsafe {
                    let from = starts[row].add(line * reach.line_pitch + pixel * reach.pixel_pitch);
                    widen::<SIGNED>(from, count, zero, to);
                    to = to.add(count);
                }
            }
        }
    }
}

/// Four inputs of eight outputs: the first two of each, then the others.
///
/// # Safety
/// The machine has AVX2, and there are 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn twos(from: *const u8) -> [__m256i; 2] {
    let order = _mm256_setr_epi8(
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
    );
    let none = _mm256_setzero_si256();
    // SAFETY: as the caller says.
    let w = _mm256_shuffle_epi8(unsafe { _mm256_loadu_si256(from.cast()) }, order);
    let (front, back) = (_mm256_unpacklo_epi8(none, w), _mm256_unpackhi_epi8(none, w));
    [_mm256_srai_epi16::<8>(front), _mm256_srai_epi16::<8>(back)]
}

/// Widens `fours` times four inputs of a panel. For each two inputs, there are those of outputs 0 to 7 side by side, then those of 8 to 15.
///
/// # Safety
/// The machine has AVX2, and there are 64 bytes for each four inputs, and room for as many numbers.
#[target_feature(enable = "avx2")]
unsafe fn widen_panel(panel: *const u8, fours: usize, to: *mut i16) {
    for at in 0..2 * fours {
        // SAFETY: as the caller says.
        unsafe {
            let [front, back] = twos(panel.add(32 * at));
            let to = to.add(64 * (at / 2) + 16 * (at % 2));
            _mm256_storeu_si256(to.cast(), front);
            _mm256_storeu_si256(to.add(32).cast(), back);
        }
    }
}

/// A tile: sixteen outputs by a few rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub panel: *const i16,
    /// Inputs, in twos.
    pub twos: usize,
    pub rows: *const i16,
    /// Numbers from row to row.
    pub pitch: usize,
    /// What sums begin with: sixteen, or sixteen for each row.
    pub start: *const i32,
    pub start_pitch: usize,
}

/// What belongs to sixteen outputs: numbers beyond the last are 0.
pub(super) struct Ready {
    start: [i32; 16],
    multiplier: [f32; 16],
    bias: [f32; 16],
    grid: Grid,
}

/// # Safety
/// The machine has AVX2, and the tile's pointers are good.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<const R: usize>(tile: &Tile) -> [[__m256i; 2]; R] {
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    let (mut panel, mut rows) = (tile.panel, tile.rows);
    // SAFETY: as the caller says.
    unsafe {
        for r in 0..R {
            let start = tile.start.add(r * tile.start_pitch);
            sums[r] = [
                _mm256_loadu_si256(start.cast()),
                _mm256_loadu_si256(start.add(8).cast()),
            ];
        }
        for _ in 0..tile.twos {
            let w = [
                _mm256_loadu_si256(panel.cast()),
                _mm256_loadu_si256(panel.add(16).cast()),
            ];
            for r in 0..R {
                let x = _mm256_set1_epi32(rows.add(r * tile.pitch).cast::<i32>().read_unaligned());
                for q in 0..2 {
                    sums[r][q] = _mm256_add_epi32(sums[r][q], _mm256_madd_epi16(w[q], x));
                }
            }
            (panel, rows) = (panel.add(32), rows.add(2));
        }
    }
    sums
}

/// Writes sums as they are, sixteen a row.
///
/// # Safety
/// As [`sums`], and `to` has room.
#[target_feature(enable = "avx2")]
unsafe fn plain<const R: usize>(tile: &Tile, to: *mut i32) {
    // SAFETY: as the caller says.
    unsafe {
        let sums = sums::<R>(tile);
        for r in 0..R {
            for q in 0..2 {
                _mm256_storeu_si256(to.add(16 * r + 8 * q).cast(), sums[r][q]);
            }
        }
    }
}

/// Bytes of two rows of sums, sixteen each.
///
/// # Safety
/// The machine has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn settle(ready: &Ready, rows: [[__m256i; 2]; 2]) -> __m256i {
    let grid = ready.grid;
    let inverse = _mm256_set1_ps(grid.inverse);
    // Numbers above would become the least one; those below, and what is no number, do.
    let most = _mm256_set1_ps((1 << 30) as f32);
    let zero = _mm256_set1_epi16(grid.zero as i16);
    let mut words = [zero; 2];
    for (words, sums) in words.iter_mut().zip(rows) {
        let mut q = [zero; 2];
        for half in 0..2 {
            // SAFETY: there are sixteen of each.
            let (scale, bias) = unsafe {
                (
                    _mm256_loadu_ps(ready.multiplier.as_ptr().add(8 * half)),
                    _mm256_loadu_ps(ready.bias.as_ptr().add(8 * half)),
                )
            };
            let real = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums[half]), scale), bias);
            q[half] = _mm256_cvtps_epi32(_mm256_min_ps(most, _mm256_mul_ps(real, inverse)));
        }
        *words = _mm256_adds_epi16(_mm256_packs_epi32(q[0], q[1]), zero);
    }
    let [a, b] = words;
    let (low, high) = (_mm256_set1_epi8(grid.low as i8), _mm256_set1_epi8(grid.high as i8));
    let made = match grid.low >= 0 {
        true => _mm256_min_epu8(_mm256_max_epu8(_mm256_packus_epi16(a, b), low), high),
        false => _mm256_min_epi8(_mm256_max_epi8(_mm256_packs_epi16(a, b), low), high),
    };
    // In each half of a vector, four bytes of either eight outputs, of one row and of the other.
    _mm256_permutevar8x32_epi32(made, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}

/// Writes the bytes of a few rows of sums, each to its place.
///
/// # Safety
/// The machine has AVX2, and `to` has the places.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn settle_rows(ready: &Ready, rows: &[[i32; 16]], to: Shared<u8>, places: &[usize], columns: usize) {
    // SAFETY: as the caller says, and there are sixteen of each.
    unsafe {
        let start = (ready.start.as_ptr(), ready.start.as_ptr().wrapping_add(8));
        let start = (_mm256_loadu_si256(start.0.cast()), _mm256_loadu_si256(start.1.cast()));
        for (rows, places) in rows.chunks(2).zip(places.chunks(2)) {
            let last = rows.len() - 1;
            let mut sums = [[start.0; 2]; 2];
            for (sums, row) in sums.iter_mut().zip([&rows[0], &rows[last]]) {
                sums[0] = _mm256_add_epi32(start.0, _mm256_loadu_si256(row.as_ptr().cast()));
                sums[1] = _mm256_add_epi32(start.1, _mm256_loadu_si256(row.as_ptr().add(8).cast()));
            }
            let made = settle(ready, sums);
            store(to.at(places[0]), _mm256_castsi256_si128(made), columns);
            if last > 0 {
                store(to.at(places[1]), _mm256_extracti128_si256::<1>(made), columns);
            }
        }
    }
}

/// Writes bytes: `columns` of each row, which are `pitch` apart.
///
/// # Safety
/// As [`sums`], and `to` has room.
#[target_feature(enable = "avx2")]
unsafe fn bytes<const R: usize>(tile: &Tile, ready: &Ready, to: *mut u8, pitch: usize, columns: usize) {
    // SAFETY: as the caller says.
    unsafe {
        let sums = sums::<R>(tile);
        for r in (0..R).step_by(2) {
            let next = if r + 1 < R { r + 1 } else { r };
            let made = settle(ready, [sums[r], sums[next]]);
            store(to.add(r * pitch), _mm256_castsi256_si128(made), columns);
            if r + 1 < R {
                store(to.add((r + 1) * pitch), _mm256_extracti128_si256::<1>(made), columns);
            }
        }
    }
}

/// Writes the first `columns` of sixteen bytes.
///
/// # Safety
/// There is room for them.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(to: *mut u8, bytes: __m128i, columns: usize) {
    // SAFETY: as the caller says.
    unsafe {
        match columns {
            16 => _mm_storeu_si128(to.cast(), bytes),
            8 => _mm_storel_epi64(to.cast(), bytes),
            _ => {
                let mut all = [0u8; 16];
                _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
                std::ptr::copy_nonoverlapping(all.as_ptr(), to, columns.min(16));
            }
        }
    }
}

/// Writes sums of up to six rows as they are, sixteen a row.
///
/// # Safety
/// The machine has AVX2, the tile's pointers are good for so many rows, and `to` has room.
pub(super) unsafe fn products(rows: usize, tile: &Tile, to: *mut i32) {
    // SAFETY: as the caller says.
    unsafe { by_rows!(rows, plain(tile, to)) }
}

/// Widened weights of a part.
struct Widened<'a> {
    room: &'a mut [[u8; 2]],
    /// All weights of the layer are there.
    whole: bool,
}

impl<'a> Widened<'a> {
    /// Of a place for [`ROOM`] numbers, which all weights are put to where that is enough.
    fn new(job: &Job, room: &'a mut [[u8; 2]]) -> Widened<'a> {
        let shape = job.weights.shape();
        let (panels, len) = (shape.panels(), shape.panel_len());
        let whole = panels * len <= room.len();
        if whole {
            for panel in 0..panels {
                // SAFETY: only machines with AVX2 come here, and all panels have room.
                unsafe {
                    let to = room[panel * len..].as_mut_ptr().cast();
                    widen_panel(job.weights.panel(panel).as_ptr(), len / 64, to);
                }
            }
        }
        Widened { room, whole }
    }
}

impl Job<'_> {
    /// Runs it, as [`Job::run`] does.
    pub(super) fn wide(
        &self,
        pool: &dyn Pool,
        scratch: &mut [f32],
        reach: Reach,
        locate: impl Fn(usize, &mut [*const u8]) -> usize + Sync,
        fill: impl Fn(usize, &mut Sink) + Sync,
    ) {
        let shape = self.weights.shape();
        let (panels, inputs) = (shape.panels(), shape.inputs);
        // Blocks are alike, so that none is so small that its weights were better not widened.
        let blocks = self.rows.div_ceil(most(inputs));
        // Panels are divided too where rows alone are too few for all threads.
        let splits = match pool.threads() {
            1 => 1,
            threads => (2 * threads).div_ceil(blocks).clamp(1, panels),
        };
        let work = self.rows.div_ceil(blocks) * inputs.max(16) * 16 * panels.div_ceil(splits) / 64;
        let parts = pool::parts(pool, blocks * splits, work);
        let each = scratch_len(inputs);
        let shared = Shared::new(scratch);
        pool.run(parts, &|part| {
            // SAFETY: each part has its own piece; there are at most four for a thread. Numbers of 16 bits lie wherever floats do.
            let own = unsafe {
                let floats = shared.slice(part * each..(part + 1) * each);
                std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast::<[u8; 2]>(), each * 2)
            };
            let (rows, room) = own.split_at_mut(most(inputs) * pitch(inputs));
            let mut weights = Widened::new(self, room);
            let (mut copied, mut acc) = (usize::MAX, [0i32; BLOCK * 16]);
            for piece in pool::range(blocks * splits, parts, part, 1) {
                let (block, split) = (piece / splits, piece % splits);
                let (first, behind) = (self.rows * block / blocks, self.rows * (block + 1) / blocks);
                if copied != block {
                    self.copy_wide(first..behind, rows, reach, &locate, &fill);
                    copied = block;
                }
                for panel in pool::range(panels, splits, split, 1) {
                    self.tiles(panel, first..behind, rows, &mut weights, &mut acc);
                }
            }
        });
    }

    /// Copies rows.
    fn copy_wide(
        &self,
        range: std::ops::Range<usize>,
        to: &mut [[u8; 2]],
        reach: Reach,
        locate: impl Fn(usize, &mut [*const u8]) -> usize,
        fill: impl Fn(usize, &mut Sink),
    ) {
        let (first, inputs) = (range.start, self.weights.shape().inputs);
        let pitch = pitch(inputs);
        let mut starts = [std::ptr::null(); BLOCK];
        let starts = &mut starts[..range.len()];
        let missing = locate(first, starts);
        let zero = |row: usize| self.zeros.get(first + row).copied().unwrap_or(self.zero);
        // SAFETY: only machines with AVX2 come here, and rows that are located lie so.
        unsafe {
            match self.signed {
                true => gather::<true>(starts, &reach, zero, to, pitch),
                false => gather::<false>(starts, &reach, zero, to, pitch),
            }
        }
        if missing > 0 {
            for (row, to) in to.chunks_exact_mut(pitch).enumerate().take(starts.len()) {
                if starts[row].is_null() {
                    // Weights are 0 there, but what is multiplied should be the same at every run.
                    to[inputs..inputs.next_multiple_of(4)].fill([0; 2]);
                    let sink = &mut Sink::new(to.as_flattened_mut(), Form::Wide, self.signed, zero(row));
                    fill(first + row, sink);
                }
            }
        }
    }

    /// Multiplies copied rows by a panel.
    fn tiles(
        &self,
        panel: usize,
        range: std::ops::Range<usize>,
        rows: &[[u8; 2]],
        weights: &mut Widened,
        acc: &mut [i32; 16 * BLOCK],
    ) {
        let shape = self.weights.shape();
        let (first, count) = (range.start, range.len());
        let (pitch, fours) = (pitch(shape.inputs), shape.inputs.div_ceil(4));
        assert!(rows.len() >= count * pitch && count <= BLOCK, "rows are missing");
        let columns = 16.min(shape.outputs - 16 * panel);
        let channel = self.channel + 16 * panel;
        let ready = self.quick(panel, columns);
        let chunks = if weights.whole {
            1
        } else {
            fours.div_ceil(CHUNK / 4).max(1)
        };
        let none = [0; 16];
        for chunk in 0..chunks {
            let (from, to) = (fours * chunk / chunks, fours * (chunk + 1) / chunks);
            let packed = &self.weights.panel(panel)[64 * from..64 * to];
            let widened = match weights.whole {
                true => weights.room[panel * shape.panel_len()..].as_ptr().cast(),
                false => {
                    let room = &mut weights.room[..packed.len()];
                    // SAFETY: only machines with AVX2 come here, and the chunk has room.
                    unsafe { widen_panel(packed.as_ptr(), to - from, room.as_mut_ptr().cast()) };
                    room.as_ptr().cast()
                }
            };
            let start = ready.as_ref().map_or(&none, |ready| &ready.start);
            let tiles = count.div_ceil(ROWS);
            for tile in 0..tiles {
                let (row, behind) = (count * tile / tiles, count * (tile + 1) / tiles);
                let sums = acc[16 * row..16 * behind].as_mut_ptr();
                let tile = Tile {
                    panel: widened,
                    twos: 2 * (to - from),
                    rows: rows.as_ptr().wrapping_add(row * pitch + 4 * from).cast(),
                    pitch,
                    start: if chunk > 0 { sums } else { start.as_ptr() },
                    start_pitch: if chunk > 0 { 16 } else { 0 },
                };
                // SAFETY: as above; rows are as long as was asserted, sums have room, and the output has these rows and channels.
                unsafe {
                    match (&ready, self.place) {
                        (Some(ready), Place::Bytes(out, _)) if chunk + 1 == chunks => {
                            let to = out.at((first + row) * self.channels + channel);
                            by_rows!(behind - row, bytes(&tile, ready, to, self.channels, columns));
                        }
                        _ => products(behind - row, &tile, sums),
                    }
                }
            }
        }
        if ready.is_none() {
            let places: [usize; BLOCK] = std::array::from_fn(|r| (first + r) * self.channels);
            let finish = Finish {
                job: self,
                form: Form::Wide,
                acc,
                pitch: 16,
                sums: &self.weights.sums(panel),
                places: &places[..count],
                column: 16 * panel,
                columns,
            };
            dispatch(self.dot.isa(), finish);
        }
    }

    /// What the quick way needs; `None`: it is not for this layer.
    pub(super) fn quick(&self, panel: usize, columns: usize) -> Option<Ready> {
        let Place::Bytes(_, grid) = self.place else { return None };
        if self.stage.activation != Activation::None || self.is_per_row() || grid.zero.unsigned_abs() > SMALL {
            return None;
        }
        let mut ready = Ready {
            start: [0; 16],
            multiplier: [0.0; 16],
            bias: [0.0; 16],
            grid,
        };
        let channels = self.channel + 16 * panel..self.channel + 16 * panel + columns;
        ready.multiplier[..columns].copy_from_slice(&self.stage.multiplier[channels.clone()]);
        match self.stage.bias {
            Bias::None => {}
            Bias::Integers(bias) => ready.start[..columns].copy_from_slice(&bias[channels]),
            Bias::Floats(bias) => ready.bias[..columns].copy_from_slice(&bias[channels]),
        }
        Some(ready)
    }
}
