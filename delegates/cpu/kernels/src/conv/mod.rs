//! Convolutions of `f32`, channels last: input `[batch, height, width, channels]`, output `[batch, out_height, out_width, out_channels]`.
//!
//! [`conv`] is any of them, as a product whose rows are gathered where they lie; [`depthwise`] has one filter a channel; [`grouped`] has groups of
//! few channels; [`winograd`] is for 3 by 3 with stride 1; [`transposed`] spreads the input over the output; [`bands`] is some of them one behind another.
//! One dimension is the case `height = 1`.

pub mod bands;
pub mod depthwise;
pub mod grouped;
mod lines;
mod shape;
mod transform;
pub mod transposed;
pub mod winograd;

pub use shape::{Layout, Shape, Transposed};

use crate::gemm::drive::{self, Job};
use crate::gemm::finish::Finish;
use crate::gemm::rows::Rows;
use crate::gemm::{self, Stored, check};
use crate::pool::{self, Pool, Serial, Shared};
use crate::{Epilogue, Isa};

/// Numbers of a kernel row below which rows of kernels are read as one run of an image with its border, rather than place by place.
const SHORT: usize = 16;

/// Elements of packed weights: of each group, panels of columns (output channels), each `[kernel height][kernel width][channels of the
/// group][width]`.
pub fn packed_len(shape: &Shape, width: usize) -> usize {
    shape.groups * gemm::packed_len(shape.terms(), shape.group_outputs(), width)
}

/// Packs weights, which `source(output channel, channel of the group, y, x)` gives.
///
/// # Panics
/// If `out` is shorter than [`packed_len`].
pub fn pack<T: Copy + Default>(
    shape: &Shape,
    width: usize,
    source: impl Fn(usize, usize, usize, usize) -> T,
    out: &mut [T],
) {
    let (k, n, depth) = (shape.terms(), shape.group_outputs(), shape.group_channels());
    let each = gemm::packed_len(k, n, width);
    for group in 0..shape.groups {
        let get = |row: usize, column: usize| {
            let (place, channel) = (row / depth, row % depth);
            let (y, x) = (place / shape.kernel[1], place % shape.kernel[1]);
            source(group * n + column, channel, y, x)
        };
        gemm::pack(k, n, width, get, &mut out[group * each..(group + 1) * each]);
    }
}

/// How the input is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Pixels are the rows of a matrix.
    Matrix,
    /// Place by place of the kernel; a row of zeros stands for the border.
    Places,
    /// Row by row of the kernel, where there is no border.
    Runs,
    /// As `Runs` or `Places`, of a copy with its border in the scratch.
    Copied,
}

fn way(shape: &Shape, layout: Layout) -> Way {
    let border = shape.padding != [[0; 2]; 2];
    let runs = shape.groups == 1 && shape.dilation[1] == 1;
    match layout {
        Layout::ChannelsFirst => Way::Copied,
        _ if shape.kernel == [1, 1] && shape.stride == [1, 1] && !border && shape.groups == 1 => Way::Matrix,
        _ if runs && !border => Way::Runs,
        _ if runs && shape.channels < SHORT => Way::Copied,
        _ => Way::Places,
    }
}

/// Floats of scratch that [`conv`] asks for with so many threads.
pub fn scratch_len(shape: &Shape, layout: Layout, threads: usize) -> usize {
    let way = way(shape, layout);
    let lines = match way != Way::Matrix && lines::suits(shape) {
        true => lines::scratch_len(shape, layout, 1, threads),
        false => 0,
    };
    let others = match way {
        Way::Matrix | Way::Runs => 0,
        Way::Places => shape.group_channels(),
        Way::Copied => {
            let [height, width] = shape.bordered();
            shape.batch * height * width * shape.channels
        }
    };
    lines.max(others)
}

/// The convolution `out = epilogue(input * weights)`. `weights` are as [`pack`] made them, in panels of `width` columns; the residual is laid
/// out as the output.
///
/// # Panics
/// If a slice is too short (`scratch`: [`scratch_len`] of the pool's threads), groups do not divide the channels, or an image has more than 2^30 rows
/// or columns.
pub fn conv(
    isa: Isa,
    pool: &dyn Pool,
    shape: &Shape,
    layout: Layout,
    input: &[f32],
    weights: Stored<'_>,
    width: usize,
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
) {
    shape.check();
    assert!(matches!(width, 8 | 16 | 32), "panels of {width} columns");
    let [out_height, out_width] = shape.output();
    let rows = shape.batch * out_height * out_width;
    assert!(
        input.len() >= shape.batch * shape.height * shape.width * shape.channels,
        "too short an input"
    );
    assert!(weights.len() >= packed_len(shape, width), "too few weights");
    assert!(out.len() >= rows * shape.out_channels, "too short an output");
    assert!(
        scratch.len() >= scratch_len(shape, layout, pool.threads()),
        "too little scratch"
    );
    check(epilogue, rows, shape.out_channels, shape.out_channels);
    if rows == 0 || shape.out_channels == 0 {
        return;
    }
    let way = way(shape, layout);
    if let Stored::F32(weights) = weights
        && drive::isa_for(isa, width) == Isa::Avx2
        && way != Way::Matrix
        && lines::suits(shape)
    {
        let call = lines::Call {
            shape,
            layout,
            input,
            weights,
            width,
            at_once: 1,
            out: Shared::new(out),
            finish: Finish::new(epilogue, shape.out_channels),
        };
        // SAFETY: the lengths are checked above, and the output is borrowed.
        return unsafe { call.run(pool, scratch) };
    }
    let mut pixels = Rows::images(shape, input.as_ptr(), std::ptr::null());
    let (mut positions, mut depth) = (shape.kernel[0] * shape.kernel[1], shape.group_channels());
    match way {
        Way::Matrix | Way::Runs => {}
        Way::Places => {
            scratch[..depth].fill(0.0);
            pixels.zeros = scratch.as_ptr();
        }
        Way::Copied => {
            let [height, width] = shape.bordered();
            copy(pool, shape, layout, input, scratch);
            pixels.data = scratch.as_ptr();
            pixels.input = [height as i32, width as i32];
            pixels.steps = [height * width * shape.channels, width * shape.channels, shape.channels];
            pixels.border = [0; 2];
        }
    }
    // Places of a kernel row lie one behind another: they are one run.
    if matches!(way, Way::Runs | Way::Copied) && shape.groups == 1 && shape.dilation[1] == 1 {
        (positions, depth) = (shape.kernel[0], shape.kernel[1] * shape.channels);
        (pixels.across, pixels.reach[1]) = (1, 0);
    }
    let finish = Finish::new(epilogue, shape.out_channels);
    let shared = Shared::new(out);
    if way == Way::Matrix {
        let source = Rows::plain(input.as_ptr(), shape.channels);
        let job = job(shape, source, rows, positions, depth, weights, width, shared, finish, 0);
        // SAFETY: the lengths are checked above, and the output is borrowed.
        return unsafe { drive::run(isa, pool, &job) };
    }
    let group = |pool: &dyn Pool, group: usize| {
        let mut pixels = pixels;
        // Of a copy with one kernel row a run there is but one group.
        pixels.data = pixels.data.wrapping_add(group * shape.group_channels());
        let job = job(
            shape, pixels, rows, positions, depth, weights, width, shared, finish, group,
        );
        // SAFETY: as above; groups have different columns.
        unsafe { drive::run(isa, pool, &job) }
    };
    // Many groups are divided as they are; few, each in parts.
    match shape.groups >= pool.threads() * 2 {
        true => pool.run(shape.groups, &|at| group(&Serial, at)),
        false => (0..shape.groups).for_each(|at| group(pool, at)),
    }
}

fn job<'a>(
    shape: &Shape,
    source: Rows,
    rows: usize,
    positions: usize,
    depth: usize,
    weights: Stored<'a>,
    width: usize,
    out: Shared<f32>,
    finish: Finish,
    group: usize,
) -> Job<'a> {
    let n = shape.group_outputs();
    let each = gemm::packed_len(shape.terms(), n, width);
    let range = group * each..(group + 1) * each;
    Job {
        source,
        rows,
        positions,
        depth,
        weights: match weights {
            Stored::F32(all) => Stored::F32(&all[range]),
            Stored::F16(all) => Stored::F16(&all[range]),
            Stored::BF16(all) => Stored::BF16(&all[range]),
        },
        n,
        width,
        step: width,
        panel: shape.terms() * width,
        // SAFETY: the group's first column is in the first row.
        out: unsafe { out.from(group * n) },
        out_stride: shape.out_channels,
        finish: finish.shifted(group * n),
    }
}

/// Copies the input with its border, channels last.
fn copy(pool: &dyn Pool, shape: &Shape, layout: Layout, input: &[f32], scratch: &mut [f32]) {
    let ([height, width], channels) = (shape.bordered(), shape.channels);
    let (shared, lines) = (Shared::new(scratch), shape.batch * height);
    let parts = pool::parts(pool, lines, width * channels / 4 + 1);
    pool.run(parts, &|part| {
        for line in pool::range(lines, parts, part, 1) {
            // SAFETY: lines are different places of the scratch, which is as long as all of them.
            let to = unsafe { shared.slice(line * width * channels..(line + 1) * width * channels) };
            let (image, y) = (line / height, (line % height).wrapping_sub(shape.padding[0][0]));
            if y >= shape.height {
                to.fill(0.0);
                continue;
            }
            let left = (shape.padding[1][0] * channels).min(to.len());
            let (border, to) = to.split_at_mut(left);
            border.fill(0.0);
            let inner = (shape.width * channels).min(to.len());
            let (to, border) = to.split_at_mut(inner);
            border.fill(0.0);
            match layout {
                Layout::ChannelsLast => {
                    let from = (image * shape.height + y) * shape.width * channels;
                    to.copy_from_slice(&input[from..from + inner]);
                }
                Layout::ChannelsFirst if to.is_empty() => {}
                Layout::ChannelsFirst => {
                    let line = |channel: usize| {
                        let from = ((image * channels + channel) * shape.height + y) * shape.width;
                        &input[from..from + shape.width]
                    };
                    match channels {
                        1 => to.copy_from_slice(&line(0)[..inner]),
                        2 => together([0, 1].map(line), to),
                        3 => together([0, 1, 2].map(line), to),
                        4 => together([0, 1, 2, 3].map(line), to),
                        _ => (0..channels).for_each(|channel| {
                            let places = to[channel..].iter_mut().step_by(channels);
                            places.zip(line(channel)).for_each(|(to, from)| *to = *from);
                        }),
                    }
                }
            }
        }
    });
}

/// Puts the numbers of some lines in turns.
fn together<const N: usize>(lines: [&[f32]; N], to: &mut [f32]) {
    for (x, to) in to.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        for (line, to) in lines.iter().zip(to) {
            *to = line[x];
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
