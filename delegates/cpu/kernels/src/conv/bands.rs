//! Convolutions one behind another, a band of lines at a time: what lies between them stays in a cache and is never in memory as a whole.
//!
//! A part of the threads' work is some lines of the last output, from above to below. For each band of them, each convolution computes the lines
//! of its output that the next one reads and that are not there yet; lines that two bands read are kept, in a ring. At the borders of parts some lines are
//! computed twice. Every number is computed as it would be without bands, to the bit.

use super::depthwise::{self, Ring};
use super::{Layout, Shape};
use crate::gemm::Stored;
use crate::pool::{self, Pool, Serial, Shared};
use crate::{Epilogue, Isa};
use std::ops::Range;

/// Convolutions of a chain at most.
pub const MOST: usize = 6;
/// Bytes of the lines between convolutions that a band holds: they share the second cache with weights and with what is read and written.
const HELD_BYTES: usize = 192 << 10;
/// Parts for each thread.
const PARTS: usize = 2;

/// A convolution of a chain.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Of one pixel, by a matrix in panels of `width` columns.
    Pointwise {
        /// Columns of a panel.
        width: usize,
    },
    /// With one filter a channel.
    Depthwise,
}

/// A convolution of a chain with its tensors. The residual is as large as its whole output.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// How it is computed.
    pub kind: Kind,
    /// Its sizes.
    pub shape: Shape,
    /// Packed weights.
    pub weights: &'a [f32],
    /// What is done to its sums.
    pub epilogue: Epilogue<'a>,
}

/// Whether a convolution can be a link: pixel by pixel, or with one filter a channel.
pub fn fits(kind: Kind, shape: &Shape) -> bool {
    match kind {
        Kind::Pointwise { .. } => {
            shape.kernel == [1; 2] && shape.stride == [1; 2] && shape.padding == [[0; 2]; 2] && shape.groups == 1
        }
        Kind::Depthwise => shape.groups == shape.channels && shape.groups == shape.out_channels,
    }
}

/// Lines of the input that some lines of the output read.
fn read(shape: &Shape, lines: &Range<usize>) -> Range<usize> {
    let (stride, above) = (shape.stride[0], shape.padding[0][0]);
    let reach = (shape.kernel[0] - 1) * shape.dilation[0] + 1;
    if lines.is_empty() {
        return 0..0;
    }
    let start = (lines.start * stride).saturating_sub(above).min(shape.height);
    let end = ((lines.end - 1) * stride + reach).saturating_sub(above);
    start..end.clamp(start, shape.height)
}

/// The convolution that computes some lines of the output from those that it reads alone.
fn part_of(shape: &Shape, lines: &Range<usize>, from: &Range<usize>) -> Shape {
    let (stride, above) = (shape.stride[0], shape.padding[0][0]);
    let reach = (shape.kernel[0] - 1) * shape.dilation[0] + 1;
    let border = ((lines.len() - 1) * stride + reach).saturating_sub(from.len());
    let top = above.saturating_sub(lines.start * stride).min(border);
    let bottom = border - top;
    Shape {
        batch: 1,
        height: from.len(),
        padding: [[top, bottom], shape.padding[1]],
        ..*shape
    }
}

/// Floats of a line of a convolution's output.
fn line(shape: &Shape) -> usize {
    shape.output()[1] * shape.out_channels
}

/// Lines that are held of each output but the last, for a band of `lines` of the last one.
fn held(shapes: &[Shape], lines: usize) -> [usize; MOST] {
    let (mut all, mut lines) = ([0; MOST], lines);
    for (at, shape) in shapes.iter().enumerate().skip(1).rev() {
        let reach = (shape.kernel[0] - 1) * shape.dilation[0] + 1;
        lines = ((lines.max(1) - 1) * shape.stride[0] + reach).min(shape.height);
        all[at - 1] = lines;
    }
    all
}

fn held_floats(shapes: &[Shape], lines: usize) -> usize {
    let held = held(shapes, lines);
    shapes.iter().zip(held).map(|(shape, lines)| lines * line(shape)).sum()
}

/// Lines of a band; `None`: even the least band holds more than a cache has room for.
pub fn band(shapes: &[Shape]) -> Option<usize> {
    let height = shapes.last()?.output()[0].max(1);
    let small = |lines: &usize| held_floats(shapes, *lines) * size_of::<f32>() <= HELD_BYTES;
    (1..=height).take_while(small).last()
}

fn parts(shapes: &[Shape], pool: &dyn Pool) -> usize {
    let lines = shapes.last().map_or(0, |last| last.batch * last.output()[0]);
    match pool.threads() {
        0 | 1 => 1,
        threads => (threads * PARTS).min(lines).max(1),
    }
}

/// Floats of scratch that [`conv`] asks for.
pub fn scratch_len(shapes: &[Shape], pool: &dyn Pool) -> usize {
    scratch_of(shapes, pool, band(shapes).unwrap_or(1))
}

fn scratch_of(shapes: &[Shape], pool: &dyn Pool, band: usize) -> usize {
    parts(shapes, pool) * held_floats(shapes, band).next_multiple_of(16)
}

/// The chain: each convolution of what the one before it gives, the first of `input`, the last to `out`.
///
/// # Panics
/// There are no links or more than [`MOST`], one does not fit ([`fits`]) or not behind the one before it, or a slice is too short.
pub fn conv(isa: Isa, pool: &dyn Pool, links: &[Link<'_>], input: &[f32], out: &mut [f32], scratch: &mut [f32]) {
    assert!((1..=MOST).contains(&links.len()), "a chain of {} links", links.len());
    let mut shapes = [links[0].shape; MOST];
    for (link, shape) in links.iter().zip(&mut shapes) {
        link.shape.check();
        assert!(fits(link.kind, &link.shape), "no link of a chain: {:?}", link.shape);
        *shape = link.shape;
    }
    let shapes = &shapes[..links.len()];
    for pair in shapes.windows(2) {
        let [height, width] = pair[0].output();
        let before = [pair[0].batch, height, width, pair[0].out_channels];
        let next = [pair[1].batch, pair[1].height, pair[1].width, pair[1].channels];
        assert_eq!(before, next, "links that do not fit");
    }
    let chain = Chain {
        isa,
        links,
        shapes,
        band: band(shapes).unwrap_or(1),
    };
    chain.run(pool, input, out, scratch);
}

/// Links, and lines of a band.
#[derive(Clone, Copy)]
struct Chain<'a> {
    isa: Isa,
    links: &'a [Link<'a>],
    shapes: &'a [Shape],
    band: usize,
}

impl Chain<'_> {
    fn run(self, pool: &dyn Pool, input: &[f32], out: &mut [f32], scratch: &mut [f32]) {
        let shapes = self.shapes;
        let (first, last) = (&shapes[0], &shapes[shapes.len() - 1]);
        let height = last.output()[0];
        let lines = last.batch * height;
        let image_len = first.height * first.width * first.channels;
        assert!(input.len() >= first.batch * image_len, "too short an input");
        assert!(out.len() >= lines * line(last), "too short an output");
        assert!(
            scratch.len() >= scratch_of(shapes, pool, self.band),
            "too little scratch"
        );
        if lines * line(last) == 0 {
            return;
        }
        let each = held_floats(shapes, self.band).next_multiple_of(16);
        let parts = parts(shapes, pool);
        let (out, scratch) = (Shared::new(out), Shared::new(scratch));
        pool.run(parts, &|part| {
            // SAFETY: each part has its own piece of the scratch.
            let own = unsafe { scratch.slice(part * each..(part + 1) * each) };
            let mut all = pool::range(lines, parts, part, 1);
            while !all.is_empty() {
                let (image, y) = (all.start / height, all.start % height);
                let count = all.len().min(height - y);
                let part = Part {
                    chain: self,
                    image,
                    input: &input[image * image_len..][..image_len],
                };
                part.run(y..y + count, out, own);
                all.start += count;
            }
        });
    }
}

/// Some lines of one image.
struct Part<'a> {
    chain: Chain<'a>,
    image: usize,
    input: &'a [f32],
}

impl Part<'_> {
    fn run(&self, lines: Range<usize>, out: Shared<f32>, scratch: &mut [f32]) {
        let Chain { shapes, band, .. } = self.chain;
        let last = shapes.len() - 1;
        // Each output but the last has a ring of as many lines: line `y` lies at `y % rings[at]` of it.
        let rings = held(shapes, band);
        let mut starts = [0; MOST];
        for at in 0..last {
            starts[at + 1] = starts[at] + rings[at] * line(&shapes[at]);
        }
        // How far each output has come.
        let mut done = [0; MOST];
        for top in lines.clone().step_by(band) {
            let mut wanted: [Range<usize>; MOST] = std::array::from_fn(|_| 0..0);
            wanted[last] = top..(top + band).min(lines.end);
            for at in (0..last).rev() {
                wanted[at] = read(&shapes[at + 1], &wanted[at + 1]);
            }
            for at in 0..=last {
                let len = line(&shapes[at]);
                let mut y = wanted[at].start.max(done[at]);
                while y < wanted[at].end {
                    // As many as lie one behind another, here and where pixels are read as a matrix.
                    let mut end = wanted[at].end;
                    if at < last {
                        end = end.min(y - y % rings[at] + rings[at]);
                    }
                    if at > 0 && matches!(self.chain.links[at].kind, Kind::Pointwise { .. }) {
                        end = end.min(y - y % rings[at - 1] + rings[at - 1]);
                    }
                    let (before, own) = scratch.split_at_mut(starts[at]);
                    let input = match at {
                        0 => Ring {
                            all: self.input,
                            lines: shapes[0].height,
                            start: 0,
                        },
                        _ => Ring {
                            all: &before[starts[at - 1]..],
                            lines: rings[at - 1],
                            start: 0,
                        },
                    };
                    let to = match at == last {
                        // SAFETY: they are lines of this part.
                        true => unsafe {
                            let start = (self.image * shapes[at].output()[0] + y) * len;
                            out.slice(start..start + (end - y) * len)
                        },
                        false => &mut own[y % rings[at] * len..][..(end - y) * len],
                    };
                    self.link(at, &(y..end), input, to);
                    y = end;
                }
                done[at] = done[at].max(y);
            }
        }
    }

    /// Some lines of one output, of a ring in which line `y` is at `y % lines`.
    fn link(&self, at: usize, lines: &Range<usize>, mut input: Ring<'_>, to: &mut [f32]) {
        let link = &self.chain.links[at];
        let from = read(&link.shape, lines);
        let shape = part_of(&link.shape, lines, &from);
        let start = (self.image * link.shape.output()[0] + lines.start) * line(&link.shape);
        let epilogue = Epilogue {
            residual: link.epilogue.residual.map(|residual| &residual[start..][..to.len()]),
            ..link.epilogue
        };
        input.start = from.start % input.lines.max(1);
        match link.kind {
            Kind::Depthwise => depthwise::ring(self.chain.isa, &Serial, &shape, input, link.weights, to, &epilogue),
            Kind::Pointwise { width } => {
                let pixels = &input.all[input.start * shape.width * shape.channels..];
                let (weights, layout) = (Stored::F32(link.weights), Layout::ChannelsLast);
                super::conv(
                    self.chain.isa,
                    &Serial,
                    &shape,
                    layout,
                    pixels,
                    weights,
                    width,
                    to,
                    &epilogue,
                    &mut [],
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;
    use crate::conv::{pack, packed_len};
    use crate::gemm::tests::{Several, numbers};

    fn pointwise(batch: usize, [height, width]: [usize; 2], channels: usize, out_channels: usize) -> Shape {
        Shape {
            batch,
            height,
            width,
            channels,
            out_channels,
            kernel: [1; 2],
            stride: [1; 2],
            padding: [[0; 2]; 2],
            dilation: [1; 2],
            groups: 1,
        }
    }

    fn depthwise_of(before: &Shape, kernel: usize, stride: usize, padding: [usize; 2], dilation: usize) -> Shape {
        let [height, width] = before.output();
        Shape {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [dilation; 2],
            groups: before.out_channels,
            ..pointwise(before.batch, [height, width], before.out_channels, before.out_channels)
        }
    }

    /// Chains of several kinds, each behind the other in turns.
    fn chains() -> Vec<Vec<Shape>> {
        let mut all = Vec::new();
        for (kernel, stride, padding, dilation) in [
            (3, 1, [1, 1], 1),
            (3, 2, [0, 1], 1),
            (5, 2, [2, 2], 1),
            (3, 1, [2, 2], 2),
            (2, 3, [4, 3], 1),
        ] {
            let expand = pointwise(2, [13, 9], 5, 19);
            let middle = depthwise_of(&expand, kernel, stride, padding, dilation);
            let project = pointwise(2, middle.output(), 19, 8);
            let again = depthwise_of(&project, 3, 1, [1, 1], 1);
            all.push(vec![expand, middle]);
            all.push(vec![middle, project]);
            all.push(vec![expand, middle, project, again]);
        }
        all
    }

    #[test]
    fn bands_give_the_bits_of_whole_images() {
        for shapes in chains() {
            let first = shapes[0];
            let input = numbers(first.batch * first.height * first.width * first.channels, 1);
            let sizes = shapes.iter().map(|shape| shape.batch * shape.output()[0] * line(shape));
            let tensors: Vec<_> = (shapes.iter().zip(sizes).enumerate())
                .map(|(at, (shape, size))| {
                    let given = numbers(shape.out_channels * shape.terms(), 2 + at as u32);
                    let (bias, residual) = (numbers(shape.out_channels, 20), numbers(size, 30 + at as u32));
                    let one = |out: usize, y: usize, x: usize| given[(out * shape.kernel[0] + y) * shape.kernel[1] + x];
                    let packed = match shape.groups {
                        1 => {
                            let mut packed = vec![0.0; packed_len(shape, 16)];
                            pack(
                                shape,
                                16,
                                |out, channel, _, _| given[out * shape.channels + channel],
                                &mut packed,
                            );
                            packed
                        }
                        _ => {
                            let mut packed = vec![0.0; depthwise::packed_len(shape)];
                            depthwise::pack(shape, one, &mut packed);
                            packed
                        }
                    };
                    (packed, bias, residual)
                })
                .collect();
            let links: Vec<Link<'_>> = (shapes.iter().zip(&tensors).enumerate())
                .map(|(at, (shape, (packed, bias, residual)))| Link {
                    kind: match shape.groups {
                        1 => Kind::Pointwise { width: 16 },
                        _ => Kind::Depthwise,
                    },
                    shape: *shape,
                    weights: packed,
                    epilogue: Epilogue {
                        bias: Some(bias),
                        residual: (at % 2 == 1).then_some(residual),
                        residual_last: at == 1,
                        activation: [Activation::Relu, Activation::HardSwish, Activation::None][at % 3],
                    },
                })
                .collect();
            for isa in Isa::all() {
                let mut want = input.clone();
                for link in &links {
                    let (shape, from) = (&link.shape, want);
                    want = vec![f32::NAN; shape.batch * shape.output()[0] * line(shape)];
                    match link.kind {
                        Kind::Depthwise => {
                            depthwise::conv(isa, &Serial, shape, &from, link.weights, &mut want, &link.epilogue);
                        }
                        Kind::Pointwise { width } => {
                            let weights = Stored::F32(link.weights);
                            let layout = Layout::ChannelsLast;
                            super::super::conv(
                                isa,
                                &Serial,
                                shape,
                                layout,
                                &from,
                                weights,
                                width,
                                &mut want,
                                &link.epilogue,
                                &mut [],
                            );
                        }
                    }
                }
                for (threads, band) in [(1, 1), (1, 2), (1, 100), (2, 1), (3, 3), (8, 2)] {
                    let chain = Chain {
                        isa,
                        links: &links,
                        shapes: &shapes,
                        band,
                    };
                    let pool = Several(threads);
                    let mut out = vec![f32::NAN; want.len()];
                    let mut scratch = vec![f32::NAN; scratch_of(&shapes, &pool, band)];
                    chain.run(&pool, &input, &mut out, &mut scratch);
                    let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(
                        bits(&out),
                        bits(&want),
                        "{isa:?}, {threads} threads, bands of {band}, {shapes:?}"
                    );
                }
            }
        }
    }
}
