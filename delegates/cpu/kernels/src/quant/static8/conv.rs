//! Convolutions of images in NHWC, as products of matrices whose rows are gathered pixel by pixel.

use super::direct::Reach;
use super::gemm::{self, Job};
use super::stage::Place;
use super::{Bytes, Shape, Stage, Target, Weights, pack};
use crate::pool::Pool;
use crate::quant::Dot;

/// Sizes of a convolution in two dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Height and width of an image.
    pub size: [usize; 2],
    /// Channels of the input, and of the output.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps down and right; not 0.
    pub stride: [usize; 2],
    /// Pixels that stand for 0, above and to the left.
    pub before: [usize; 2],
    /// The same below and to the right.
    pub after: [usize; 2],
    /// Distance of the kernel's pixels; not 0.
    pub dilation: [usize; 2],
    /// Groups of channels: a divisor of both.
    pub groups: usize,
}

impl Conv {
    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        std::array::from_fn(|d| {
            let reach = self.dilation[d] * self.kernel[d].saturating_sub(1) + 1;
            let padded = self.size[d] + self.before[d] + self.after[d];
            if padded < reach || self.kernel[d] == 0 {
                0
            } else {
                (padded - reach) / self.stride[d].max(1) + 1
            }
        })
    }

    /// Numbers of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.size[0] * self.size[1] * self.channels[0]
    }

    /// Numbers of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.output()[0] * self.output()[1] * self.channels[1]
    }

    /// The matrix of one group. Lines of the kernel whose bytes lie side by side in an image begin at multiples of four.
    fn matrix(&self) -> Shape {
        Shape {
            inputs: self.kernel[0] * (self.line() + self.fill()),
            outputs: self.channels[1] / self.groups.max(1),
        }
    }

    /// Channels of a group.
    fn own(&self) -> usize {
        self.channels[0] / self.groups.max(1)
    }

    /// Inputs of a line of the kernel.
    fn line(&self) -> usize {
        self.kernel[1] * self.own()
    }

    /// A line of the kernel lies in one piece.
    fn is_dense(&self) -> bool {
        self.groups <= 1 && (self.dilation[1] == 1 || self.kernel[1] == 1)
    }

    /// What is put behind each line of the kernel.
    fn fill(&self) -> usize {
        match self.is_dense() {
            true => self.line().next_multiple_of(4) - self.line(),
            false => 0,
        }
    }

    /// Where the bytes of a pixel's kernel lie; `None`: not in fours.
    fn reach(&self) -> Option<Reach> {
        let line_pitch = self.dilation[0] * self.size[1] * self.channels[0];
        let reach = Reach {
            lines: self.kernel[0],
            line_pitch,
            pixels: self.kernel[1],
            pixel_pitch: self.dilation[1] * self.channels[0],
            fours: self.own() / 4,
        };
        let dense = Reach {
            pixels: 1,
            pixel_pitch: 0,
            fours: self.line().div_ceil(4),
            ..reach
        };
        match self.is_dense() {
            true => Some(dense),
            false => self.own().is_multiple_of(4).then_some(reach),
        }
    }

    /// Pixels of the output, along a dimension, whose kernels are inside.
    fn whole(&self, d: usize) -> std::ops::Range<usize> {
        let first = self.before[d].div_ceil(self.stride[d].max(1));
        let reach = self.dilation[d] * (self.kernel[d].max(1) - 1);
        let behind = match (self.size[d] + self.before[d]).checked_sub(reach + 1) {
            Some(last) => last / self.stride[d].max(1) + 1,
            None => 0,
        };
        first..behind.min(self.output()[d])
    }

    /// Bytes of packed weights.
    pub fn packed_len(&self) -> usize {
        self.groups.max(1) * self.matrix().packed_len()
    }

    /// Where pixels from one on have the first byte of their kernels, of channels from `skip` on; null where that is outside, and how many are.
    fn locate<'a>(&'a self, bytes: &'a [u8], skip: usize) -> impl Fn(usize, &mut [*const u8]) -> usize + Sync + 'a {
        let ([height, width], reach) = (self.output(), self.reach());
        let (lines, columns) = (self.whole(0), self.whole(1));
        let (pixel, row) = (self.channels[0], self.size[1] * self.channels[0]);
        // The last line is filled up with what is not there any more: from here on, pixels are too near the end.
        let most = (bytes.len() + 1).saturating_sub(reach.map_or(usize::MAX, |reach| reach.len()));
        move |first, to| {
            let (mut line, mut right, mut at, mut missing) = (first / width, first % width, 0, 0);
            while at < to.len() {
                let count = (width - right).min(to.len() - at);
                let (image, down) = (line / height, line % height);
                let own = &mut to[at..at + count];
                let inside = right.max(columns.start)..(right + count).min(columns.end);
                if lines.contains(&down) && !inside.is_empty() {
                    let top = (image * self.size[0] + down * self.stride[0] - self.before[0]) * row + skip;
                    own[..inside.start - right].fill(std::ptr::null());
                    own[inside.end - right..].fill(std::ptr::null());
                    missing += count - inside.len();
                    let mut start = top + (inside.start * self.stride[1] - self.before[1]) * pixel;
                    for to in &mut own[inside.start - right..inside.end - right] {
                        let here = start < most;
                        missing += usize::from(!here);
                        *to = if here {
                            bytes.as_ptr().wrapping_add(start)
                        } else {
                            std::ptr::null()
                        };
                        start += self.stride[1] * pixel;
                    }
                } else {
                    own.fill(std::ptr::null());
                    missing += count;
                }
                (line, right, at) = (line + 1, 0, at + count);
            }
            missing
        }
    }

    /// What is inside of the image of a kernel's extent: the first kernel pixel, and the one behind the last.
    pub(super) fn inside(&self, d: usize, output: usize) -> (usize, usize) {
        let start = (output * self.stride[d]) as isize - self.before[d] as isize;
        if self.dilation[d] == 1 {
            let (kernel, size) = (self.kernel[d] as isize, self.size[d] as isize);
            let first = (-start).clamp(0, kernel);
            return (first as usize, (size - start).clamp(first, kernel) as usize);
        }
        let dilation = self.dilation[d].max(1) as isize;
        let first = if start < 0 {
            (-start + dilation - 1) / dilation
        } else {
            0
        };
        let behind = (self.size[d] as isize - start + dilation - 1) / dilation;
        let kernel = self.kernel[d] as isize;
        let first = first.min(kernel);
        (first as usize, behind.clamp(first, kernel) as usize)
    }

    /// The image's row or column of a kernel's pixel that is inside.
    pub(super) fn pixel(&self, d: usize, output: usize, k: usize) -> usize {
        output * self.stride[d] + k * self.dilation[d] - self.before[d]
    }
}

/// Packs weights in OHWI: `channels[1]` times kernel height, kernel width, and `channels[0] / groups`.
///
/// # Panics
/// There are fewer weights.
pub fn pack_conv2d(conv: &Conv, weights: &[i8]) -> Vec<u8> {
    let matrix = conv.matrix();
    let mut bytes = Vec::with_capacity(conv.packed_len());
    let (line, fill) = (conv.line(), conv.fill());
    let each = conv.kernel[0] * line * matrix.outputs;
    for group in 0..conv.groups.max(1) {
        let own = &weights[group * each..][..each];
        if fill == 0 {
            pack(matrix, own, &mut bytes);
            continue;
        }
        let filled = own.chunks_exact(line.max(1));
        let filled = filled.flat_map(|line| line.iter().copied().chain(std::iter::repeat_n(0, fill)));
        pack(matrix, &filled.collect::<Vec<i8>>(), &mut bytes);
    }
    bytes
}

/// Floats of scratch that [`conv2d`] needs.
pub fn conv2d_scratch_len(conv: &Conv, pool: &dyn Pool) -> usize {
    let plain = gemm::scratch_len(conv.matrix().inputs, pool);
    #[cfg(target_arch = "x86_64")]
    if super::winograd::fits(conv) {
        return plain.max(super::winograd::scratch_len(conv, pool));
    }
    plain
}

/// Whether [`conv2d`] may compute a convolution by Winograd's algorithm: the machine gains by it, and these weights keep all sums of such inputs so small
/// that it is exact. It reads all weights: ask once.
pub fn conv2d_by_winograd(dot: Dot, conv: &Conv, x: &Bytes, weights: &[u8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if dot.checked() == Dot::Avx2 && super::winograd::fits(conv) {
        return Weights::new(conv.matrix(), weights).is_some_and(|weights| super::winograd::is_exact(&weights, x));
    }
    let _ = (dot, conv, x, weights);
    false
}

/// A convolution of images in NHWC with weights of [`pack_conv2d`]; see the module for what is computed. Pixels outside of an image stand for 0.
/// For one channel a group, [`depthwise2d`](super::depthwise2d) is much faster. `winograd` is what [`conv2d_by_winograd`] said, or false; sums are wrong
/// where it did not.
///
/// # Panics
/// A slice is too short.
pub fn conv2d(
    dot: Dot,
    pool: &dyn Pool,
    conv: &Conv,
    winograd: bool,
    x: Bytes,
    weights: &[u8],
    stage: &Stage,
    scratch: &mut [f32],
    target: &mut Target,
) {
    let [height, width] = conv.output();
    assert!(
        x.len() >= conv.input_len() && stage.fits(conv.channels[1]),
        "an argument is too short"
    );
    let matrix = conv.matrix();
    let place = Place::new(target, conv.output_len());
    // SAFETY: a byte is a byte, signed or not.
    let bytes = unsafe { std::slice::from_raw_parts(x.pointer(), x.len()) };
    let (all, own, fill) = (conv.channels[0], conv.own(), conv.fill());
    let reach = conv.reach().unwrap_or(Reach::whole(matrix.inputs));
    for group in 0..conv.groups.max(1) {
        let packed = &weights[group * matrix.packed_len()..][..matrix.packed_len()];
        let Some(weights) = Weights::new(matrix, packed) else {
            return;
        };
        let job = Job {
            dot: dot.checked(),
            weights,
            rows: conv.batch * height * width,
            signed: x.signed(),
            zero: x.zero(),
            zeros: &[],
            scales: &[],
            others: (&[], &[]),
            stage: *stage,
            place,
            channel: group * matrix.outputs,
            channels: conv.channels[1],
        };
        #[cfg(target_arch = "x86_64")]
        if winograd && job.dot == Dot::Avx2 && super::winograd::fits(conv) {
            return super::winograd::run(conv, &job, bytes, pool, scratch);
        }
        let _ = winograd;
        let locate = conv.locate(bytes, group * own);
        job.run(pool, scratch, reach, locate, |row, sink| {
            let (line, right) = (row / width, row % width);
            let (image, down) = (line / height, line % height);
            let (rows, columns) = (conv.inside(0, down), conv.inside(1, right));
            let line = conv.kernel[1] * own + fill;
            sink.nothing(rows.0 * line);
            for k in rows.0..rows.1 {
                let start = (image * conv.size[0] + conv.pixel(0, down, k)) * conv.size[1];
                let at = |k: usize| (start + conv.pixel(1, right, k)) * all + group * own;
                sink.nothing(columns.0 * own);
                if conv.dilation[1] == 1 && own == all && columns.0 < columns.1 {
                    sink.bytes(&bytes[at(columns.0)..][..(columns.1 - columns.0) * own]);
                } else {
                    (columns.0..columns.1).for_each(|k| sink.bytes(&bytes[at(k)..][..own]));
                }
                sink.nothing((conv.kernel[1] - columns.1) * own + fill);
            }
            sink.nothing((conv.kernel[0] - rows.1) * line);
        });
    }
}
