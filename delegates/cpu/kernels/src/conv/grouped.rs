//! Convolutions of groups of few channels, channels last: a vector holds the output channels of several groups, and each of its lanes is given
//! the input of its own group.
//!
//! Each sum goes from the first number to the last in one chain, as in [`super::conv`]: the bits are the same.

use super::{Layout, Shape, lines};
use crate::gemm::check;
use crate::gemm::finish::{Finish, Second};
use crate::gemm::rows::{Place, Rows};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Epilogue, Isa};
use std::ops::Range;

/// Whole groups of a block of `width` lanes.
fn groups_at_once(shape: &Shape, width: usize) -> usize {
    (width / shape.group_channels().max(shape.group_outputs()).max(1)).clamp(1, shape.groups)
}

/// Whether blocks of `width` lanes, 8 or 16, hold a group: it has no more channels than that.
pub fn fits(shape: &Shape, width: usize) -> bool {
    let sizes = [shape.group_channels(), shape.group_outputs()];
    matches!(width, 8 | 16) && shape.groups > 1 && sizes.iter().all(|n| (1..=width).contains(n))
}

/// The width of blocks that an instruction set is fastest with. Each reads both. On AVX-512, too, lines in blocks of eight are faster than blocks of
/// sixteen for groups of four and eight channels, and for groups of sixteen so are products of matrices.
pub fn width_for(_: Isa) -> usize {
    8
}

/// Floats of packed weights: blocks of as many whole groups as go into `width` lanes, each `[kernel height][kernel width][channels of a
/// group][width]`.
pub fn packed_len(shape: &Shape, width: usize) -> usize {
    shape.groups.div_ceil(groups_at_once(shape, width)) * shape.terms() * width
}

/// Packs weights, which `source(output channel, channel of the group, y, x)` gives.
///
/// # Panics
/// If `out` is shorter than [`packed_len`].
pub fn pack(shape: &Shape, width: usize, source: impl Fn(usize, usize, usize, usize) -> f32, out: &mut [f32]) {
    let (depth, lanes) = (
        shape.group_channels(),
        groups_at_once(shape, width) * shape.group_outputs(),
    );
    let out = &mut out[..packed_len(shape, width)];
    if shape.terms() == 0 {
        return;
    }
    for (block, to) in out.chunks_exact_mut(shape.terms() * width).enumerate() {
        for (term, to) in to.chunks_exact_mut(width).enumerate() {
            let (place, channel) = (term / depth, term % depth);
            let (y, x) = (place / shape.kernel[1], place % shape.kernel[1]);
            for (lane, to) in to.iter_mut().enumerate() {
                let out_channel = block * lanes + lane;
                *to = match lane < lanes && out_channel < shape.out_channels {
                    true => source(out_channel, channel, y, x),
                    false => 0.0,
                };
            }
        }
    }
}

/// Floats of scratch that [`conv`] asks for with so many threads.
pub fn scratch_len(shape: &Shape, width: usize, threads: usize) -> usize {
    match lines::suits_groups(shape, width) {
        true => {
            let at_once = groups_at_once(shape, width);
            lines::scratch_len(shape, Layout::ChannelsLast, at_once, threads).max(shape.channels)
        }
        false => shape.channels,
    }
}

/// The convolution `out = epilogue(input * weights)` of a shape that [`fits`]. Weights are as [`pack`] made them; the residual is laid out as the
/// output.
///
/// # Panics
/// If a slice is too short (`scratch`: [`scratch_len`] of the pool's threads), or the shape does not fit.
pub fn conv(
    isa: Isa,
    pool: &dyn Pool,
    shape: &Shape,
    input: &[f32],
    weights: &[f32],
    width: usize,
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
) {
    shape.check();
    assert!(fits(shape, width), "groups that are no part of {width} lanes");
    let [height, out_width] = shape.output();
    let rows = shape.batch * height * out_width;
    assert!(
        input.len() >= shape.batch * shape.height * shape.width * shape.channels,
        "too short an input"
    );
    assert!(weights.len() >= packed_len(shape, width), "too few weights");
    assert!(out.len() >= rows * shape.out_channels, "too short an output");
    check(epilogue, rows, shape.out_channels, shape.out_channels);
    assert!(
        scratch.len() >= scratch_len(shape, width, pool.threads()),
        "too little scratch"
    );
    if rows == 0 {
        return;
    }
    // Vectors of more lanes than a block has are of no use.
    let isa = match isa {
        Isa::Avx512 if width < 16 => Isa::Avx2,
        other => other,
    };
    if isa == Isa::Avx2 && lines::suits_groups(shape, width) {
        let call = lines::Call {
            shape,
            layout: Layout::ChannelsLast,
            input,
            weights,
            width,
            at_once: groups_at_once(shape, width),
            out: Shared::new(out),
            finish: Finish::new(epilogue, shape.out_channels),
        };
        // SAFETY: the lengths are checked above, and the output is borrowed.
        return unsafe { call.run(pool, scratch) };
    }
    let zeros = &mut scratch[..shape.channels];
    zeros.fill(0.0);
    let job = Job {
        shape,
        source: Rows::images(shape, input.as_ptr(), zeros.as_ptr()),
        weights,
        width,
        out: Shared::new(out),
        finish: Finish::new(epilogue, shape.out_channels),
    };
    let parts = pool::parts(pool, rows, shape.terms() * shape.out_channels / 16 + 1);
    pool.run(parts, &|part| {
        let rows = pool::range(rows, parts, part, ROWS);
        dispatch(isa, Part { job: &job, rows });
    });
}

/// Rows of the tallest tile.
const ROWS: usize = 12;

struct Job<'a> {
    shape: &'a Shape,
    source: Rows,
    weights: &'a [f32],
    width: usize,
    out: Shared<f32>,
    finish: Finish,
}

/// Some pixels of the output.
struct Part<'a> {
    job: &'a Job<'a>,
    rows: Range<usize>,
}

impl Op for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (job, mut row) = (self.job, self.rows.start);
        while row < self.rows.end {
            row += match self.rows.end - row {
                12.. if const { S::REGISTERS > 16 } => Tile::<12> { job, row }.run(s),
                6.. => Tile::<6> { job, row }.run(s),
                3.. => Tile::<3> { job, row }.run(s),
                _ => Tile::<1> { job, row }.run(s),
            };
        }
    }
}

/// `R` pixels of the output, all channels.
struct Tile<'a, const R: usize> {
    job: &'a Job<'a>,
    row: usize,
}

/// How lanes are given their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All lanes are of one group.
    One,
    /// The groups' channels are one vector.
    Pick,
    /// One by one.
    Each,
}

/// A vector of output channels: `lanes` of them from `first` on, and the packed weights of the first term.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    first: usize,
    lanes: usize,
    weights: *const f32,
}

impl<const R: usize> Tile<'_, R> {
    /// The pixels; how many they are.
    #[inline(always)]
    fn run<S: Simd>(&self, s: S) -> usize {
        s.vectorize(Whole(self));
        R
    }
}

struct Whole<'a, const R: usize>(&'a Tile<'a, R>);

impl<const R: usize> Op for Whole<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (job, row) = (self.0.job, self.0.row);
        let (shape, width) = (job.shape, job.width);
        let place = job.source.place::<R>(&mut job.source.pixel(row));
        let at_once = groups_at_once(shape, width);
        let block = at_once * shape.group_outputs();
        for (at, first) in (0..shape.out_channels).step_by(block).enumerate() {
            let lanes = block.min(shape.out_channels - first);
            for vector in (0..lanes).step_by(S::LANES) {
                let one = Lanes {
                    first: first + vector,
                    lanes: (lanes - vector).min(S::LANES),
                    weights: job.weights[at * shape.terms() * width + vector..].as_ptr(),
                };
                // SAFETY: the pixels and channels are there.
                unsafe { self.0.vector(s, &place, one) };
            }
        }
        if job.finish.twice() {
            s.outline(Second {
                finish: job.finish,
                // SAFETY: the output has a first element.
                out: unsafe { job.out.at(0) },
                stride: shape.out_channels,
                row,
                rows: R,
                column: 0,
                columns: shape.out_channels,
            });
        }
    }
}

impl<const R: usize> Tile<'_, R> {
    /// # Safety
    /// The pixels and output channels are there.
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, s: S, place: &Place<R>, lanes: Lanes) {
        let (job, shape) = (self.job, self.job.shape);
        let (depth, outputs) = (shape.group_channels(), shape.group_outputs());
        let first_group = lanes.first / outputs;
        let groups = (lanes.first + lanes.lanes - 1) / outputs - first_group + 1;
        let way = match groups {
            1 => Way::One,
            n if n * depth <= S::LANES => Way::Pick,
            _ => Way::Each,
        };
        let channel = first_group * depth;
        let mut sums = [s.splat(0.0); R];
        // SAFETY: as the caller says; the row of zeros has all channels.
        unsafe {
            match way {
                Way::One => self.sum(s, place, lanes, &mut sums, |pixels: [*const f32; R]| {
                    move |i: usize, r: usize| s.splat(*pixels[r].add(channel + i))
                }),
                Way::Pick => {
                    let mut at = [0i32; 16];
                    for (lane, at) in at.iter_mut().enumerate().take(lanes.lanes) {
                        *at = (((lanes.first + lane) / outputs - first_group) * depth) as i32;
                    }
                    let at = s.load_i(at.as_ptr());
                    if channel + S::LANES <= shape.channels {
                        self.sum(s, place, lanes, &mut sums, |pixels: [*const f32; R]| {
                            let x: [S::F; R] = std::array::from_fn(|r| s.load(pixels[r].add(channel)));
                            move |i: usize, r: usize| s.pick(x[r], s.add_i(at, s.splat_i(i as i32)))
                        });
                    } else {
                        let n = shape.channels - channel;
                        self.sum(s, place, lanes, &mut sums, |pixels: [*const f32; R]| {
                            let x: [S::F; R] = std::array::from_fn(|r| s.load_part(pixels[r].add(channel), n));
                            move |i: usize, r: usize| s.pick(x[r], s.add_i(at, s.splat_i(i as i32)))
                        });
                    }
                }
                Way::Each => self.sum(s, place, lanes, &mut sums, |pixels: [*const f32; R]| {
                    move |i: usize, r: usize| {
                        let mut x = [0.0f32; 16];
                        for (lane, x) in x.iter_mut().enumerate().take(lanes.lanes) {
                            *x = *pixels[r].add((lanes.first + lane) / outputs * depth + i);
                        }
                        s.load(x.as_ptr())
                    }
                }),
            }
            let to = job.out.at(self.row * shape.out_channels + lanes.first);
            if lanes.lanes == S::LANES {
                job.finish.all(s, &mut sums, self.row, lanes.first);
                for (r, sum) in sums.iter().enumerate() {
                    s.store(to.add(r * shape.out_channels), *sum);
                }
            } else {
                for (r, sum) in sums.iter().enumerate() {
                    let x = job.finish.one(s, *sum, self.row + r, lanes.first, Some(lanes.lanes));
                    s.store_part(to.add(r * shape.out_channels), x, lanes.lanes);
                }
            }
        }
    }

    /// Adds up all terms; `inputs` of the pixels of a place of the kernel gives the vector for a channel of the groups and a pixel.
    ///
    /// # Safety
    /// As `vector`.
    #[inline(always)]
    unsafe fn sum<S: Simd, I: Fn(usize, usize) -> S::F>(
        &self,
        s: S,
        place: &Place<R>,
        lanes: Lanes,
        sums: &mut [S::F; R],
        inputs: impl Fn([*const f32; R]) -> I,
    ) {
        let (job, shape) = (self.job, self.job.shape);
        let mut weights = lanes.weights;
        let mut at = [0; 2];
        for _ in 0..shape.kernel[0] * shape.kernel[1] {
            let inputs = inputs(job.source.at(place, at));
            at = job.source.next(at);
            for i in 0..shape.group_channels() {
                // SAFETY: all terms' weights are there.
                let weight = unsafe { s.load(weights) };
                weights = weights.wrapping_add(job.width);
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = s.fma(inputs(i, r), weight, *sum);
                }
            }
        }
    }
}
