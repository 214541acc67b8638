//! Convolutions of few channels a group where registers are few (AVX2): lines of the input are copied with their border, a few at a time, so that
//! pixels of the output that lie side by side read numbers a fixed distance apart. So a tile needs one address for each term, however many pixels it
//! has, and no pixel asks whether it is inside.
//!
//! Each sum goes from the first number to the last in one chain, as in [`super::conv`]: the bits are the same.

use super::{Layout, Shape};
use crate::Isa;
use crate::gemm::finish::{Finish, Second};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use std::ops::Range;

/// Terms of a sum at most: as many addresses are kept.
const TERMS: usize = 1024;
/// Pixels of the widest tile.
const WIDEST: usize = 12;
/// Lanes of a vector.
const LANES: usize = 8;
/// Bytes of lines that a thread works on at once: they stay in the first cache, or nearly so.
const NEAR: usize = 40 << 10;

/// Whether this is the way of a convolution whose groups, if it has some, fill panels: faster than the others, as it was found on Zen 3. Weights are
/// read once for each line, and should stay in a near cache.
pub(super) fn suits(shape: &Shape) -> bool {
    let (terms, across) = (shape.terms(), shape.output()[1]);
    let near = terms <= TERMS && terms * shape.group_outputs() <= 1 << 16;
    let (channels, least) = if shape.groups == 1 { (15, 4) } else { (32, 12) };
    near && shape.group_channels() <= channels && across >= least
}

/// Whether it is that of groups, in blocks of `width` lanes.
pub(super) fn suits_groups(shape: &Shape, width: usize) -> bool {
    width == LANES && shape.terms() <= TERMS && shape.output()[1] >= 4
}

/// Floats of scratch with so many threads, with `at_once` groups in a vector.
pub(super) fn scratch_len(shape: &Shape, layout: Layout, at_once: usize, threads: usize) -> usize {
    most_parts(threads) * Planes::new(shape, layout, at_once).len()
}

fn most_parts(threads: usize) -> usize {
    if threads > 1 { threads * 4 } else { 1 }
}

/// How numbers lie in a place of a line.
const ONE: usize = 0;
/// A vector of channels.
const CHANNELS: usize = 1;
/// A vector whose lanes hold one channel each, of their own group.
const SPREAD: usize = 2;

/// How lines lie in the scratch: `[block][line][plane][phase][place]`. A pixel `x` of the input with its border is at place `x / stride` of the phase
/// `x % stride`.
#[derive(Debug, Clone, Copy)]
struct Planes {
    /// [`ONE`], [`CHANNELS`] or [`SPREAD`].
    kind: usize,
    /// Blocks of groups that are worked on at once.
    together: usize,
    /// Lines that are kept: those between the first and the last row of the kernel.
    lines: usize,
    planes: usize,
    phases: usize,
    places: usize,
    /// Floats of a place.
    unit: usize,
}

impl Planes {
    fn new(shape: &Shape, layout: Layout, at_once: usize) -> Planes {
        let reach: [usize; 2] = std::array::from_fn(|i| (shape.kernel[i] - 1) * shape.dilation[i]);
        let channels = shape.group_channels();
        let (kind, planes, unit) = match layout {
            Layout::ChannelsFirst => (ONE, channels, 1),
            Layout::ChannelsLast if at_once > 1 => (SPREAD, channels, LANES),
            Layout::ChannelsLast => (CHANNELS, channels.div_ceil(LANES), LANES),
        };
        let mut all = Planes {
            kind,
            together: 1,
            lines: reach[0] + 1,
            planes,
            phases: shape.stride[1].min(reach[1] + 1),
            places: shape.output()[1] + reach[1] / shape.stride[1] + WIDEST,
            unit,
        };
        // Two at least, since a line of the caches holds the pixels of two vectors.
        let most = NEAR / (4 * all.block()).max(1);
        all.together = most.max(2).min(shape.groups.div_ceil(at_once));
        all
    }

    /// Floats of a line, and of a block.
    fn line(&self) -> usize {
        self.planes * self.phases * self.places * self.unit
    }

    fn block(&self) -> usize {
        self.lines * self.line()
    }

    /// With room to begin at a line of a cache.
    fn len(&self) -> usize {
        self.together * self.block() + 16
    }

    /// Where a channel is of the place that output column 0 reads through a column of the kernel, from its line on.
    fn at(&self, channel: usize, column: usize, stride: usize) -> usize {
        let (plane, lane) = match self.kind {
            CHANNELS => (channel / LANES, channel % LANES),
            _ => (channel, 0),
        };
        ((plane * self.phases + column % stride) * self.places + column / stride) * self.unit + lane
    }
}

/// A convolution.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub shape: &'a Shape,
    pub layout: Layout,
    pub input: &'a [f32],
    /// Of each block of groups, panels of columns, each `[term][width]`.
    pub weights: &'a [f32],
    pub width: usize,
    /// Groups of a block.
    pub at_once: usize,
    pub out: Shared<f32>,
    pub finish: Finish,
}

impl Call<'_> {
    /// Runs it.
    ///
    /// # Safety
    /// Input, weights and output are as long as the shape says, and nobody else touches the output.
    pub unsafe fn run(&self, pool: &dyn Pool, scratch: &mut [f32]) {
        let (shape, threads) = (self.shape, pool.threads());
        let planes = Planes::new(shape, self.layout, self.at_once);
        let scratch = &mut scratch[..scratch_len(shape, self.layout, self.at_once, threads)];
        let [height, width] = shape.output();
        let blocks = shape.groups.div_ceil(self.at_once).div_ceil(planes.together);
        // Bands of lines, where blocks are too few for all threads.
        let bands = most_parts(threads).div_ceil(shape.batch * blocks).min(height);
        let items = shape.batch * blocks * bands;
        let work = height * width * shape.out_channels * shape.terms() / 16 / (blocks * bands) + 1;
        let parts = pool::parts(pool, items, work);
        let scratch = Shared::new(scratch);
        pool.run(parts, &|part| {
            let op = Part {
                call: self,
                planes,
                bands,
                items: pool::range(items, parts, part, 1),
                // SAFETY: each part has its own scratch, and there are no more of them than that.
                scratch: unsafe { scratch.slice(part * planes.len()..(part + 1) * planes.len()) },
            };
            dispatch(Isa::Avx2, op);
        });
    }
}

/// Some bands of blocks of images.
struct Part<'a> {
    call: &'a Call<'a>,
    planes: Planes,
    bands: usize,
    items: Range<usize>,
    scratch: &'a mut [f32],
}

impl Op for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Decided while compiling: no other instruction set takes this way.
        if const { matches!(S::ISA, Isa::Avx2) } {
            let Part {
                call,
                planes,
                bands,
                items,
                scratch,
            } = self;
            let blocks = call.shape.groups.div_ceil(call.at_once);
            let height = call.shape.output()[0];
            let begin = scratch.as_ptr().align_offset(64).min(16);
            let scratch = &mut scratch[begin..begin + planes.together * planes.block()];
            scratch.fill(0.0);
            for item in items {
                let (some, band) = (item / bands, item % bands);
                let each = blocks.div_ceil(planes.together);
                let first = some % each * planes.together;
                let one = Blocks {
                    call,
                    planes,
                    image: some / each,
                    blocks: first..(first + planes.together).min(blocks),
                    scratch: scratch.as_mut_ptr(),
                };
                // SAFETY: the call's slices are as long as its shape says, and the scratch as its planes.
                unsafe { one.lines(s, pool::range(height, bands, band, 1)) };
            }
        }
    }
}

/// Blocks of groups of an image.
struct Blocks<'a> {
    call: &'a Call<'a>,
    planes: Planes,
    image: usize,
    blocks: Range<usize>,
    scratch: *mut f32,
}

impl Blocks<'_> {
    /// Lines of the output.
    ///
    /// # Safety
    /// All that the call names is there.
    #[inline(always)]
    unsafe fn lines<S: Simd>(&self, s: S, lines: Range<usize>) {
        let (call, planes, shape) = (self.call, self.planes, self.call.shape);
        let [height, width] = shape.output();
        let terms = shape.terms();
        let outputs = call.at_once * shape.group_outputs();
        // Where the numbers of each term are in a block. From one line of the output to the next, all go some lines further, and around.
        let (around, step) = (planes.block(), shape.stride[0] % planes.lines * planes.line());
        let mut offsets = [0u32; TERMS];
        let offsets = &mut offsets[..terms];
        for (at, to) in offsets.iter_mut().enumerate() {
            let (place, channel) = (at / shape.group_channels(), at % shape.group_channels());
            let (down, across) = (place / shape.kernel[1], place % shape.kernel[1]);
            let line = (lines.start * shape.stride[0] + down * shape.dilation[0]) % planes.lines;
            *to = (line * planes.line() + planes.at(channel, across * shape.dilation[1], shape.stride[1])) as u32;
        }
        let mut filled = 0;
        for y in lines.clone() {
            let top = y * shape.stride[0];
            for line in filled.max(top)..top + planes.lines {
                let slot = line % planes.lines * planes.line();
                for (at, block) in self.blocks.clone().enumerate() {
                    // SAFETY: the slot is one of the block's.
                    unsafe { self.fill(s, line, block, self.scratch.add(at * planes.block() + slot)) };
                }
            }
            filled = top + planes.lines;
            if y > lines.start {
                for offset in offsets.iter_mut() {
                    let next = *offset + step as u32;
                    *offset = next.min(next.wrapping_sub(around as u32));
                }
            }
            let row = (self.image * height + y) * width;
            let wide = call.width.min(2 * LANES);
            for (at, block) in self.blocks.clone().enumerate() {
                let first = block * outputs;
                let columns = outputs.min(shape.out_channels - first);
                let weights = &call.weights[block * terms * outputs.next_multiple_of(call.width)..];
                for column in (0..columns).step_by(wide) {
                    s.vectorize(Strip {
                        call,
                        kind: planes.kind,
                        // SAFETY: the scratch has that block.
                        planes: unsafe { self.scratch.add(at * planes.block()) },
                        offsets,
                        weights: weights[column / call.width * terms * call.width + column % call.width..].as_ptr(),
                        row,
                        column: first + column,
                        columns: (columns - column).min(wide),
                    });
                }
            }
            if call.finish.twice() {
                let first = self.blocks.start * outputs;
                s.outline(Second {
                    finish: call.finish,
                    // SAFETY: the output has a first element.
                    out: unsafe { call.out.at(0) },
                    stride: shape.out_channels,
                    row,
                    rows: width,
                    column: first,
                    columns: (self.blocks.len() * outputs).min(shape.out_channels - first),
                });
            }
        }
    }

    /// Puts a line of the input with its border where a block has it. What is border in a line has been zero from the start.
    ///
    /// # Safety
    /// `to` has a line's planes.
    #[inline(always)]
    unsafe fn fill<S: Simd>(&self, s: S, line: usize, block: usize, to: *mut f32) {
        let (call, planes, shape) = (self.call, self.planes, self.call.shape);
        let y = line.wrapping_sub(shape.padding[0][0]);
        if y >= shape.height {
            // SAFETY: as the caller says.
            return unsafe { to.write_bytes(0, planes.line()) };
        }
        let (stride, left) = (shape.stride[1], shape.padding[1][0]);
        let channel = block * call.at_once * shape.group_channels();
        for phase in 0..planes.phases {
            // Places of this phase that are inside of the image.
            let begin = left.saturating_sub(phase).div_ceil(stride);
            let end = (left + shape.width).saturating_sub(phase).div_ceil(stride);
            let end = end.min(planes.places - WIDEST);
            if begin >= end {
                continue;
            }
            let (x, count) = (begin * stride + phase - left, end - begin);
            // SAFETY: the pixels and places are there.
            unsafe {
                let to = to.add((phase * planes.places + begin) * planes.unit);
                let from = call.input.as_ptr();
                if planes.kind == ONE {
                    for at in 0..planes.planes {
                        let line = (self.image * shape.channels + channel + at) * shape.height + y;
                        let to = to.add(at * planes.phases * planes.places);
                        apart(from.add(line * shape.width + x), stride, to, count);
                    }
                    continue;
                }
                let from = from.add(((self.image * shape.height + y) * shape.width + x) * shape.channels + channel);
                match (planes.kind, planes.planes) {
                    (CHANNELS, _) => self.channels(s, from, to, count),
                    (_, 1) => self.spread::<S, 1>(s, from, channel, to, count),
                    (_, 2) => self.spread::<S, 2>(s, from, channel, to, count),
                    (_, 3) => self.spread::<S, 3>(s, from, channel, to, count),
                    _ => self.spread::<S, 4>(s, from, channel, to, count),
                }
            }
        }
    }

    /// Channels of pixels of one group to places.
    ///
    /// # Safety
    /// The pixels are there, and as many places of each plane.
    #[inline(always)]
    unsafe fn channels<S: Simd>(&self, s: S, from: *const f32, to: *mut f32, count: usize) {
        let (shape, channels) = (self.call.shape, self.call.shape.group_channels());
        let (plane, pixel) = (
            self.planes.phases * self.planes.places * LANES,
            shape.stride[1] * shape.channels,
        );
        for channel in (0..channels).step_by(LANES) {
            let (from, to) = (from.wrapping_add(channel), to.wrapping_add(channel / LANES * plane));
            let n = channels - channel;
            // SAFETY: as the caller says.
            unsafe {
                if n >= LANES {
                    (0..count).for_each(|x| s.store(to.add(x * LANES), s.load(from.add(x * pixel))));
                } else {
                    (0..count).for_each(|x| s.store(to.add(x * LANES), s.load_part(from.add(x * pixel), n)));
                }
            }
        }
    }

    /// Channels of pixels of several groups, which have `D` each, to planes of vectors.
    ///
    /// # Safety
    /// The pixels are there, and as many places of each plane.
    #[inline(always)]
    unsafe fn spread<S: Simd, const D: usize>(
        &self,
        s: S,
        from: *const f32,
        channel: usize,
        to: *mut f32,
        count: usize,
    ) {
        let shape = self.call.shape;
        let (plane, pixel) = (
            self.planes.phases * self.planes.places * LANES,
            shape.stride[1] * shape.channels,
        );
        let mut at = [0i32; 16];
        for (lane, at) in at
            .iter_mut()
            .enumerate()
            .take(self.call.at_once * shape.group_outputs())
        {
            *at = (lane / shape.group_outputs() * D) as i32;
        }
        let there = (shape.channels - channel).min(S::LANES);
        // SAFETY: as the caller says.
        unsafe {
            let at = s.load_i(at.as_ptr());
            let at: [S::I; D] = std::array::from_fn(|i| s.add_i(at, s.splat_i(i as i32)));
            for x in 0..count {
                let from = from.add(x * pixel);
                let all = if there == S::LANES {
                    s.load(from)
                } else {
                    s.load_part(from, there)
                };
                for (i, at) in at.iter().enumerate() {
                    s.store(to.add(i * plane + x * LANES), s.pick(all, *at));
                }
            }
        }
    }
}

/// Copies every `step`th number.
///
/// # Safety
/// `count` of them are there, and as many places.
#[inline(always)]
unsafe fn apart(from: *const f32, step: usize, to: *mut f32, count: usize) {
    // SAFETY: as the caller says.
    unsafe {
        match step {
            1 => from.copy_to_nonoverlapping(to, count),
            2 => (0..count).for_each(|i| *to.add(i) = *from.add(2 * i)),
            _ => (0..count).for_each(|i| *to.add(i) = *from.add(step * i)),
        }
    }
}

/// A line of the output, by two vectors of columns at most.
struct Strip<'a> {
    call: &'a Call<'a>,
    kind: usize,
    planes: *const f32,
    /// Of each term, where its numbers for the first pixel begin.
    offsets: &'a [u32],
    weights: *const f32,
    /// The line's first pixel in the output.
    row: usize,
    column: usize,
    columns: usize,
}

impl Op for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.call.shape.output()[1];
        let mut x = 0;
        while x < width {
            let left = width - x;
            // Tiles hide how long a product takes, which takes eight sums.
            // SAFETY: the pixels and columns are there; planes have as many places as the widest tile more.
            x += unsafe {
                match (self.columns > LANES, self.kind, left) {
                    (true, ONE, 5 | 9 | 10 | 13) => self.tile::<S, ONE, 5, 2>(s, x, left),
                    (true, ONE, ..=4 | 7 | 8) => self.tile::<S, ONE, 4, 2>(s, x, left),
                    (true, ONE, _) => self.tile::<S, ONE, 6, 2>(s, x, left),
                    (true, _, 5 | 9 | 10 | 13) => self.tile::<S, CHANNELS, 5, 2>(s, x, left),
                    (true, _, ..=4 | 7 | 8) => self.tile::<S, CHANNELS, 4, 2>(s, x, left),
                    (true, _, _) => self.tile::<S, CHANNELS, 6, 2>(s, x, left),
                    (_, ONE, ..=4) => self.tile::<S, ONE, 4, 1>(s, x, left),
                    (_, ONE, 5..=8 | 13..=16) => self.tile::<S, ONE, 8, 1>(s, x, left),
                    (_, ONE, _) => self.tile::<S, ONE, 12, 1>(s, x, left),
                    (_, CHANNELS, ..=4) => self.tile::<S, CHANNELS, 4, 1>(s, x, left),
                    (_, CHANNELS, 5..=8 | 13..=16) => self.tile::<S, CHANNELS, 8, 1>(s, x, left),
                    (_, CHANNELS, _) => self.tile::<S, CHANNELS, 12, 1>(s, x, left),
                    (_, _, ..=4) => self.tile::<S, SPREAD, 4, 1>(s, x, left),
                    (_, _, 5..=8 | 13..=16) => self.tile::<S, SPREAD, 8, 1>(s, x, left),
                    _ => self.tile::<S, SPREAD, 12, 1>(s, x, left),
                }
            };
        }
    }
}

impl Strip<'_> {
    /// `T` pixels from `x` on, of which no more than `left` are stored, by `V` vectors of columns; how many were.
    ///
    /// # Safety
    /// The pixels and columns are there.
    #[allow(clippy::needless_range_loop, reason = "pixels have places, and a sum in each vector")]
    #[inline(always)]
    unsafe fn tile<S: Simd, const KIND: usize, const T: usize, const V: usize>(
        &self,
        s: S,
        x: usize,
        left: usize,
    ) -> usize {
        let unit = if KIND == ONE { 1 } else { LANES };
        let (call, count) = (self.call, left.min(T));
        let planes = self.planes.wrapping_add(x * unit);
        let mut weights = self.weights;
        let mut sums = [[s.splat(0.0); T]; V];
        // SAFETY: as the caller says.
        unsafe {
            for offset in self.offsets {
                let from = planes.add(*offset as usize);
                let weight: [S::F; V] = std::array::from_fn(|v| s.load(weights.add(v * S::LANES)));
                for t in 0..T {
                    let from = from.add(t * unit);
                    let number = if KIND == SPREAD { s.load(from) } else { s.splat(*from) };
                    for v in 0..V {
                        sums[v][t] = s.fma(number, weight[v], sums[v][t]);
                    }
                }
                weights = weights.add(call.width);
            }
            let (row, stride) = (self.row + x, call.shape.out_channels);
            let to = call.out.at(row * stride).wrapping_add(self.column);
            if count == T && self.columns == V * S::LANES {
                for (v, sums) in sums.iter_mut().enumerate() {
                    call.finish.all(s, sums, row, self.column + v * S::LANES);
                    for (t, sum) in sums.iter().enumerate() {
                        s.store(to.add(t * stride + v * S::LANES), *sum);
                    }
                }
                return count;
            }
            // A copy: the sums themselves stay in registers if nobody asks where they are.
            let mut copy = [[s.splat(0.0); T]; V];
            let all: *mut S::F = copy.as_mut_ptr().cast();
            for (v, sums) in sums.iter().enumerate() {
                for (t, sum) in sums.iter().enumerate() {
                    *all.add(v * T + t) = *sum;
                }
            }
            self.part(s, all, T, V, count, row);
        }
        count
    }

    /// Stores `count` of `tall` pixels from `row` on, by vectors of which the last may be a part.
    ///
    /// # Safety
    /// There are as many sums, and those pixels and columns.
    #[inline(always)]
    unsafe fn part<S: Simd>(&self, s: S, sums: *const S::F, tall: usize, vectors: usize, count: usize, row: usize) {
        let stride = self.call.shape.out_channels;
        for v in 0..vectors {
            let column = self.column + v * S::LANES;
            let lanes = self.columns.saturating_sub(v * S::LANES).min(S::LANES);
            for t in 0..count {
                // SAFETY: as the caller says.
                unsafe {
                    let done = (self.call.finish).one(s, *sums.add(v * tall + t), row + t, column, Some(lanes));
                    s.store_part(self.call.out.at((row + t) * stride + column), done, lanes);
                }
            }
        }
    }
}
