//! Transposed convolutions, channels last: each number of the input is spread over the output by a kernel, `stride` apart.
//!
//! A place `y` of the output is reached by the places `i` of the input and `k` of the kernel with `y + padding = i * stride + k * dilation`. Places of
//! the output whose `y + padding` leave the same rest by the stride are reached by the same places of the kernel: of each direction there are `stride`
//! such phases, and a phase of both is an ordinary convolution of stride 1 by a part of the kernel. Nothing is multiplied by zeros between the
//! numbers of the input, and no place of the output is added to twice.
//!
//! A phase is computed in blocks that stay in a cache, from where pixels go to their places of the output.

use super::shape::Transposed;
use crate::gemm::drive::{self, Job};
use crate::gemm::finish::Finish;
use crate::gemm::rows::Rows;
use crate::gemm::{self, check};
use crate::lanes::{load, store};
use crate::pool::{self, Pool, Serial, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Epilogue, Isa};
use std::ops::Range;

/// Pixels of a block, or a few lines more.
const BLOCK: usize = 96;
/// Parts for each thread at most.
const PARTS: usize = 4;

/// One direction of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Phase {
    /// The first place of the kernel, which reads what is furthest ahead in the input; from there to the next; how many there are.
    first: usize,
    apart: usize,
    taps: usize,
    /// The first place of the output, and how many there are, `stride` apart.
    start: usize,
    count: usize,
    /// The place of the input that the first place of the output reads first, and places to the next.
    from: isize,
    step: usize,
}

impl Transposed {
    /// Of a direction, the places of the output that leave the rest `rest`.
    fn phase(&self, which: usize, rest: usize) -> Phase {
        let (stride, dilation, kernel) = (self.stride[which], self.dilation[which], self.kernel[which]);
        let common = divisor(stride, dilation);
        let (apart, step) = (stride / common, dilation / common);
        let reaches = |k: &usize| k * dilation % stride == rest;
        let first = (0..apart.min(kernel)).find(reaches);
        let taps = first.map_or(0, |first| (kernel - first).div_ceil(apart));
        let first = first.unwrap_or(0);
        // The first `q` of `y = rest - padding + stride * q` that is in the output.
        let padding = self.padding[which];
        let q = padding.saturating_sub(rest).div_ceil(stride);
        let start = rest + stride * q - padding;
        let count = self.output[which].saturating_sub(start).div_ceil(stride);
        let behind = q as isize + (rest as isize - (first * dilation) as isize) / stride as isize;
        Phase {
            first,
            apart,
            taps,
            start,
            count,
            from: behind - (taps.saturating_sub(1) * step) as isize,
            step,
        }
    }

    /// The phases of a direction.
    fn phases(&self, which: usize) -> impl Iterator<Item = Phase> + '_ {
        (0..self.stride[which]).map(move |rest| self.phase(which, rest))
    }

    /// All phases, and of each the elements of packed weights of a group before it, by so many a term.
    fn all(&self, each: usize) -> impl Iterator<Item = ([Phase; 2], usize)> + '_ {
        let pairs = self.phases(0).flat_map(|y| self.phases(1).map(move |x| [y, x]));
        pairs.scan(0, move |before, [y, x]| {
            let at = *before;
            *before += y.taps * x.taps * each;
            Some(([y, x], at))
        })
    }

    fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    fn group_outputs(&self) -> usize {
        self.out_channels / self.groups
    }

    /// One filter a channel.
    fn is_depthwise(&self) -> bool {
        self.groups == self.channels && self.groups == self.out_channels && self.groups > 1
    }
}

fn divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { divisor(b, a % b) }
}

impl Phase {
    /// The place of the kernel of a tap; taps go forward in the input.
    fn tap(&self, at: usize) -> usize {
        self.first + (self.taps - 1 - at) * self.apart
    }
}

/// Elements of packed weights of a place of the kernel and a group.
fn term(shape: &Transposed, width: usize) -> usize {
    match shape.is_depthwise() {
        true => shape.channels,
        false => shape.group_channels() * gemm::packed_len(1, shape.group_outputs(), width),
    }
}

/// Groups that have packed weights of their own.
fn packed_groups(shape: &Transposed) -> usize {
    if shape.is_depthwise() { 1 } else { shape.groups }
}

/// Floats of packed weights: of each group, phase by phase panels of columns (output channels), each `[taps down][taps across][channels of the
/// group][width]`. With one filter a channel: phase by phase `[taps down][taps across][channels]`.
pub fn packed_len(shape: &Transposed, width: usize) -> usize {
    packed_groups(shape) * shape.kernel[0] * shape.kernel[1] * term(shape, width)
}

/// Packs weights, which `source(channel, output channel of the group, y, x)` gives.
///
/// # Panics
/// If `out` is shorter than [`packed_len`].
pub fn pack(shape: &Transposed, width: usize, source: impl Fn(usize, usize, usize, usize) -> f32, out: &mut [f32]) {
    let each = term(shape, width);
    let (depth, n) = (shape.group_channels(), shape.group_outputs());
    let whole = shape.kernel[0] * shape.kernel[1] * each;
    for group in 0..packed_groups(shape) {
        for ([y, x], before) in shape.all(each) {
            let terms = y.taps * x.taps;
            let to = &mut out[group * whole + before..][..terms * each];
            let place = |at: usize| (y.tap(at / x.taps), x.tap(at % x.taps));
            if shape.is_depthwise() {
                for (at, to) in to.iter_mut().enumerate() {
                    let (ky, kx) = place(at / shape.channels);
                    *to = source(at % shape.channels, 0, ky, kx);
                }
                continue;
            }
            let get = |row: usize, column: usize| {
                let (ky, kx) = place(row / depth);
                source(group * depth + row % depth, column, ky, kx)
            };
            gemm::pack(terms * depth, n, width, get, to);
        }
    }
}

/// Lines and pixels of a block at most.
fn block(shape: &Transposed) -> [usize; 2] {
    let across = shape.output[1].div_ceil(shape.stride[1]).max(1);
    match across < BLOCK {
        true => [BLOCK.div_ceil(across), across],
        false => [1, BLOCK],
    }
}

/// A block of a phase: its image, and places of the phase.
#[derive(Debug, Clone)]
struct Unit {
    image: usize,
    phase: usize,
    lines: Range<usize>,
    pixels: Range<usize>,
}

/// What is to be done for one set of sizes.
#[derive(Debug, Clone)]
pub struct Plan {
    shape: Transposed,
    width: usize,
    /// Each with the elements of packed weights before it.
    phases: Vec<([Phase; 2], usize)>,
    units: Vec<Unit>,
}

impl Plan {
    /// Of sizes, and weights in panels of `width` columns.
    ///
    /// # Panics
    /// Groups do not divide the channels, an image has more than 2^30 rows or columns, or the width of panels is not 8, 16 or 32.
    pub fn new(shape: &Transposed, width: usize) -> Plan {
        shape.check();
        assert!(matches!(width, 8 | 16 | 32), "panels of {width} columns");
        let phases: Vec<([Phase; 2], usize)> = shape.all(term(shape, width)).collect();
        let [tall, wide] = block(shape);
        let mut units = Vec::new();
        for image in 0..shape.batch {
            for (phase, ([y, x], _)) in phases.iter().enumerate() {
                for line in (0..y.count).step_by(tall) {
                    units.extend((0..x.count).step_by(wide).map(|pixel| Unit {
                        image,
                        phase,
                        lines: line..(line + tall).min(y.count),
                        pixels: pixel..(pixel + wide).min(x.count),
                    }));
                }
            }
        }
        Plan {
            shape: *shape,
            width,
            phases,
            units,
        }
    }

    /// Floats of scratch that [`Plan::run`] asks for.
    pub fn scratch_len(&self, threads: usize) -> usize {
        match self.shape.is_depthwise() {
            true => 0,
            false => self.shape.group_channels() + threads.max(1) * PARTS * self.block_len(),
        }
    }

    fn block_len(&self) -> usize {
        let [tall, wide] = block(&self.shape);
        tall * wide * self.shape.out_channels
    }

    /// The transposed convolution `out = epilogue(input * weights)`. `weights` are as [`pack`] made them. The epilogue has no residual.
    ///
    /// # Panics
    /// If a slice is too short (`scratch`: [`Plan::scratch_len`]), or there is a residual.
    pub fn run(
        &self,
        isa: Isa,
        pool: &dyn Pool,
        input: &[f32],
        weights: &[f32],
        out: &mut [f32],
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
    ) {
        let shape = &self.shape;
        assert!(epilogue.residual.is_none(), "a residual");
        let rows = shape.batch * shape.output[0] * shape.output[1];
        let pixels = shape.batch * shape.height * shape.width;
        assert!(input.len() >= pixels * shape.channels, "too short an input");
        assert!(weights.len() >= packed_len(shape, self.width), "too few weights");
        assert!(out.len() >= rows * shape.out_channels, "too short an output");
        let threads = pool.threads();
        assert!(scratch.len() >= self.scratch_len(threads), "too little scratch");
        check(epilogue, rows, shape.out_channels, shape.out_channels);
        if rows == 0 || shape.out_channels == 0 {
            return;
        }
        let terms = shape.kernel[0] * shape.kernel[1] * shape.group_channels() * shape.out_channels;
        let [tall, wide] = block(shape);
        let work = tall * wide * terms / shape.stride[0] / shape.stride[1] / 32 + 1;
        let parts = pool::parts(pool, self.units.len(), work).min(threads.max(1) * PARTS);
        let units = |part: usize| &self.units[pool::range(self.units.len(), parts, part, 1)];
        let out = Shared::new(out);
        if shape.is_depthwise() {
            let channels = |unit| Channels {
                plan: self,
                unit,
                input,
                weights,
                epilogue,
                out,
            };
            return pool.run(parts, &|part| {
                units(part).iter().for_each(|unit| dispatch(isa, channels(unit)));
            });
        }
        let (zeros, blocks) = scratch.split_at_mut(shape.group_channels());
        zeros.fill(0.0);
        let (zeros, blocks, each) = (&*zeros, Shared::new(blocks), self.block_len());
        let finish = Finish::new(epilogue, 0);
        pool.run(parts, &|part| {
            // SAFETY: each part has a block of its own; there are no more than so many for each thread.
            let block = unsafe { blocks.slice(part * each..(part + 1) * each) };
            for unit in units(part) {
                self.block(isa, unit, input, zeros, weights, finish, block);
                // SAFETY: each pixel of the output is of one phase, and of one block of it.
                unsafe { self.spread(unit, block, out) };
            }
        });
    }

    /// Computes a block.
    fn block(
        &self,
        isa: Isa,
        unit: &Unit,
        input: &[f32],
        zeros: &[f32],
        weights: &[f32],
        finish: Finish,
        block: &mut [f32],
    ) {
        let (shape, ([y, x], before)) = (&self.shape, self.phases[unit.phase]);
        let rows = unit.lines.len() * unit.pixels.len();
        let from = |phase: Phase, range: &Range<usize>| -(phase.from as i32 + range.start as i32);
        let source = Rows {
            data: input[unit.image * shape.height * shape.width * shape.channels..].as_ptr(),
            plain: false,
            zeros: zeros.as_ptr(),
            output: [unit.lines.len(), unit.pixels.len()],
            input: [shape.height as i32, shape.width as i32],
            steps: [0, shape.width * shape.channels, shape.channels],
            stride: [1; 2],
            border: [from(y, &unit.lines), from(x, &unit.pixels)],
            dilation: [y.step as i32, x.step as i32],
            across: x.taps.max(1),
            reach: [y, x].map(|phase| (phase.taps.saturating_sub(1) * phase.step) as i32),
        };
        let (positions, depth, n) = (y.taps * x.taps, shape.group_channels(), shape.group_outputs());
        let whole = shape.kernel[0] * shape.kernel[1] * term(shape, self.width);
        assert!(block.len() >= rows * shape.out_channels);
        let own = Shared::new(block);
        for group in 0..shape.groups {
            let packed = &weights[group * whole + before..][..gemm::packed_len(positions * depth, n, self.width)];
            let job = Job {
                source: Rows {
                    data: source.data.wrapping_add(group * depth),
                    ..source
                },
                rows,
                positions,
                depth,
                weights: gemm::Stored::F32(packed),
                n,
                width: self.width,
                step: self.width,
                panel: positions * depth * self.width,
                // SAFETY: the group's first column is in the first row.
                out: unsafe { own.from(group * n) },
                out_stride: shape.out_channels,
                finish: finish.shifted(group * n),
            };
            // SAFETY: the caller has checked what is read; the block is borrowed, and has as many rows.
            unsafe { drive::run(isa, &Serial, &job) };
        }
    }

    /// Puts the pixels of a block in their places.
    ///
    /// # Safety
    /// `out` is all of the output, and nobody else touches these places.
    unsafe fn spread(&self, unit: &Unit, block: &[f32], out: Shared<f32>) {
        let (shape, ([y, x], _)) = (&self.shape, self.phases[unit.phase]);
        let channels = shape.out_channels;
        for (line, from) in unit.lines.clone().zip(block.chunks_exact(unit.pixels.len() * channels)) {
            let row = (unit.image * shape.output[0] + y.start + line * shape.stride[0]) * shape.output[1];
            for (pixel, from) in unit.pixels.clone().zip(from.chunks_exact(channels)) {
                let at = (row + x.start + pixel * shape.stride[1]) * channels;
                // SAFETY: as the caller says.
                unsafe { out.slice(at..at + channels) }.copy_from_slice(from);
            }
        }
    }
}

/// A block where each channel has a filter of its own.
struct Channels<'a> {
    plan: &'a Plan,
    unit: &'a Unit,
    input: &'a [f32],
    weights: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    out: Shared<f32>,
}

impl Op for Channels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (shape, ([down, across], before)) = (&self.plan.shape, self.plan.phases[self.unit.phase]);
        let weights = &self.weights[before..];
        let channels = shape.channels;
        for line in self.unit.lines.clone() {
            let row = self.unit.image * shape.output[0] + down.start + line * shape.stride[0];
            let y0 = down.from + line as isize;
            for pixel in self.unit.pixels.clone() {
                let x0 = across.from + pixel as isize;
                let at = (row * shape.output[1] + across.start + pixel * shape.stride[1]) * channels;
                for channel in (0..channels).step_by(S::LANES) {
                    let len = (channels - channel).min(S::LANES);
                    let mut sum = s.splat(0.0);
                    for ty in 0..down.taps {
                        let y = y0 + (ty * down.step) as isize;
                        if y < 0 || y >= shape.height as isize {
                            continue;
                        }
                        for tx in 0..across.taps {
                            let x = x0 + (tx * across.step) as isize;
                            if x < 0 || x >= shape.width as isize {
                                continue;
                            }
                            let from = (self.unit.image * shape.height + y as usize) * shape.width + x as usize;
                            let from = &self.input[from * channels + channel..][..len];
                            let weight = &weights[(ty * across.taps + tx) * channels + channel..][..len];
                            // SAFETY: as many numbers are there.
                            sum = unsafe { s.fma(load(s, from.as_ptr(), len), load(s, weight.as_ptr(), len), sum) };
                        }
                    }
                    if let Some(bias) = self.epilogue.bias {
                        // SAFETY: as many numbers are there.
                        sum = s.add(sum, unsafe { load(s, bias[channel..][..len].as_ptr(), len) });
                    }
                    let made = self.epilogue.activation.apply(s, sum);
                    // SAFETY: the pixel is of this block, and is in the output.
                    unsafe { store(s, self.out.at(at + channel), made, len) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    /// Two threads' parts, one after the other.
    struct Two;

    impl Pool for Two {
        fn threads(&self) -> usize {
            2
        }

        fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
            (0..parts).for_each(body);
        }
    }

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0)
            .collect()
    }

    /// What the definition says: every number of the input is added to the places that the kernel spreads it over.
    fn plain(shape: &Transposed, input: &[f32], source: impl Fn(usize, usize, usize, usize) -> f32) -> Vec<f64> {
        let [height, width] = shape.output;
        let (depth, n) = (shape.channels / shape.groups, shape.out_channels / shape.groups);
        let mut out = vec![0.0f64; shape.batch * height * width * shape.out_channels];
        for image in 0..shape.batch {
            for (i, j, c) in (0..shape.height)
                .flat_map(|i| (0..shape.width).map(move |j| (i, j)))
                .flat_map(|(i, j)| (0..shape.channels).map(move |c| (i, j, c)))
            {
                let x = input[((image * shape.height + i) * shape.width + j) * shape.channels + c];
                for (ky, kx) in (0..shape.kernel[0]).flat_map(|y| (0..shape.kernel[1]).map(move |x| (y, x))) {
                    let place = |which: usize, at: usize, k: usize| {
                        (at * shape.stride[which] + k * shape.dilation[which]).checked_sub(shape.padding[which])
                    };
                    let (Some(y), Some(z)) = (place(0, i, ky), place(1, j, kx)) else {
                        continue;
                    };
                    if y < height && z < width {
                        for o in 0..n {
                            let at = ((image * height + y) * width + z) * shape.out_channels + c / depth * n + o;
                            out[at] += f64::from(x) * f64::from(source(c, o, ky, kx));
                        }
                    }
                }
            }
        }
        out
    }

    #[test]
    fn phases_give_what_the_definition_does() {
        // Kernel, stride, padding, added behind, dilation.
        let kinds: [([usize; 2], [usize; 2], [usize; 2], [usize; 2], [usize; 2]); 9] = [
            ([2, 2], [2, 2], [0, 0], [0, 0], [1, 1]),
            ([3, 3], [2, 2], [1, 1], [1, 1], [1, 1]),
            ([4, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
            ([1, 16], [1, 8], [0, 4], [0, 0], [1, 1]),
            ([3, 5], [3, 2], [0, 3], [2, 1], [2, 3]),
            ([3, 3], [4, 4], [1, 0], [0, 3], [2, 2]),
            ([1, 1], [2, 3], [0, 0], [1, 2], [1, 1]),
            ([2, 3], [1, 1], [2, 1], [0, 0], [1, 1]),
            ([2, 2], [3, 3], [3, 2], [0, 0], [5, 4]),
        ];
        for (kernel, stride, padding, behind, dilation) in kinds {
            for (channels, out_channels, groups, height, width) in [
                (3, 5, 1, 4, 5),
                (16, 33, 1, 7, 3),
                (4, 6, 2, 3, 110),
                (9, 9, 9, 5, 4),
                (32, 32, 32, 1, 6),
            ] {
                let size = |which: usize, n: usize| {
                    let reach = (n - 1) * stride[which] + (kernel[which] - 1) * dilation[which] + 1;
                    (reach + behind[which]).saturating_sub(2 * padding[which])
                };
                let shape = Transposed {
                    batch: 2,
                    height,
                    width,
                    channels,
                    out_channels,
                    kernel,
                    stride,
                    padding,
                    output: [size(0, height), size(1, width)],
                    dilation,
                    groups,
                };
                let input = numbers(2 * height * width * channels, 1);
                let n = out_channels / groups;
                let all = numbers(channels * n * kernel[0] * kernel[1], 2);
                let source =
                    |c: usize, o: usize, y: usize, x: usize| all[((c * n + o) * kernel[0] + y) * kernel[1] + x];
                let bias = numbers(out_channels, 3);
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    activation: Activation::LeakyRelu(0.1),
                    ..Epilogue::default()
                };
                let want = plain(&shape, &input, source);
                for isa in Isa::all() {
                    for pool in [&Serial as &dyn Pool, &Two] {
                        let plan = Plan::new(&shape, gemm::width_for(isa));
                        let mut packed = vec![f32::NAN; packed_len(&shape, plan.width)];
                        pack(&shape, plan.width, source, &mut packed);
                        let mut out = vec![f32::NAN; want.len()];
                        let mut scratch = vec![f32::NAN; plan.scratch_len(pool.threads())];
                        plan.run(isa, pool, &input, &packed, &mut out, &epilogue, &mut scratch);
                        for (at, (have, want)) in out.iter().zip(&want).enumerate() {
                            let want = want + f64::from(bias[at % out_channels]);
                            let want = if want < 0.0 { want * 0.1 } else { want };
                            assert!(
                                (f64::from(*have) - want).abs() < 3e-5,
                                "{isa}, {shape:?}, {at}: {have}, not {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}
