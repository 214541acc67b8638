//! Pooling in one to three dimensions: largest value with its index, average, and both with adaptive windows.
//!
//! One engine: every output element has a box of input elements; an operator says how it is summed up.

use crate::parallel::{each, portion};
use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, count, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce, store};
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError, Tensor};
use alloc::format;
use core::ops::Range;
use delegraph_types::{DType, Dims, Parallel};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::max_pool2d_with_indices.out", max_pool::<2>),
    ("aten::max_pool3d_with_indices.out", max_pool::<3>),
    ("aten::adaptive_max_pool2d.out", adaptive_max_pool::<2>),
    ("aten::adaptive_max_pool3d.out", adaptive_max_pool::<3>),
    ("aten::avg_pool1d.out", avg_pool::<1>),
    ("aten::avg_pool2d.out", avg_pool::<2>),
    ("aten::avg_pool3d.out", avg_pool::<3>),
    ("aten::adaptive_avg_pool1d.out", adaptive_avg_pool::<1>),
    ("aten::adaptive_avg_pool2d.out", adaptive_avg_pool::<2>),
    ("aten::adaptive_avg_pool3d.out", adaptive_avg_pool::<3>),
    ("aten::_adaptive_avg_pool2d.out", adaptive_avg_pool::<2>),
    ("aten::_adaptive_avg_pool3d.out", adaptive_avg_pool::<3>),
];

/// The input elements of one output index in one dimension: `start, start + step, …` below `end`.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: i64,
    end: i64,
    step: i64,
    /// Elements counting the padding.
    padded: i64,
}

impl Span {
    const ONE: Span = Span {
        start: 0,
        end: 1,
        step: 1,
        padded: 1,
    };
}

/// How output indices of a dimension look at the input.
#[derive(Debug, Clone, Copy)]
enum Looking {
    Window {
        kernel: i64,
        stride: i64,
        padding: i64,
        dilation: i64,
    },
    /// The input divided in as many parts as there are outputs, overlapping where it does not divide.
    Adaptive { parts: i64 },
}

impl Looking {
    fn span(self, i: i64, size: i64) -> Span {
        match self {
            Looking::Window {
                kernel,
                stride,
                padding,
                dilation,
            } => {
                let start = i * stride - padding;
                let end = start + (kernel - 1) * dilation + 1;
                // The first element of the window that is not in the padding.
                let skipped = if start < 0 {
                    (-start + dilation - 1) / dilation
                } else {
                    0
                };
                Span {
                    start: start + skipped * dilation,
                    end: end.min(size),
                    step: dilation,
                    padded: end.min(size + padding) - start,
                }
            }
            Looking::Adaptive { parts } => {
                let start = (i as i128 * size as i128 / parts as i128) as i64;
                let end = (((i + 1) as i128 * size as i128 + parts as i128 - 1) / parts as i128) as i64;
                Span {
                    start,
                    end,
                    step: 1,
                    padded: end - start,
                }
            }
        }
    }
}

/// The dimensions of a pooling: the last `N` of the tensor, as the last of three.
struct Pooling {
    looking: [Looking; 3],
    input: [i64; 3],
    output: [i64; 3],
    sizes: Dims,
    planes: usize,
}

impl Pooling {
    fn new<const N: usize>(source: &Tensor, looking: [Looking; N], output: [i64; N]) -> Result<Pooling, KernelError> {
        let rank = source.rank();
        let first = rank - N;
        let mut pooling = Pooling {
            looking: [Looking::Adaptive { parts: 1 }; 3],
            input: [1; 3],
            output: [1; 3],
            sizes: *source.sizes(),
            planes: count(&source.sizes()[..first]),
        };
        pooling.looking[3 - N..].copy_from_slice(&looking);
        pooling.input[3 - N..].copy_from_slice(&source.sizes()[first..]);
        pooling.output[3 - N..].copy_from_slice(&output);
        pooling.sizes[first..].copy_from_slice(&output);
        pooling.sizes = dims_of(&pooling.sizes, "output_size")?;
        Ok(pooling)
    }

    fn input_len(&self) -> usize {
        count(&self.input)
    }

    fn output_len(&self) -> usize {
        count(&self.output)
    }

    /// How many planes make a part, if an element of a box takes a nanosecond.
    fn portion(&self, parallel: Parallel) -> usize {
        // Boxes overlap or leave gaps, but mostly do not.
        portion(parallel, self.planes, self.input_len().max(self.output_len()).max(1), 1)
    }

    /// Calls `run(plane, output element, box)` for all of `planes` in order; output elements are counted from the first plane's on.
    fn boxes(&self, planes: Range<usize>, mut run: impl FnMut(usize, usize, [Span; 3])) {
        let mut at = 0usize;
        for plane in planes {
            for d in 0..self.output[0] {
                let depth = self.span(0, d);
                for h in 0..self.output[1] {
                    let height = self.span(1, h);
                    for w in 0..self.output[2] {
                        run(plane, at, [depth, height, self.span(2, w)]);
                        at += 1;
                    }
                }
            }
        }
    }

    fn span(&self, d: usize, i: i64) -> Span {
        match self.looking[d] {
            Looking::Adaptive { parts: 1 } if self.input[d] == 1 => Span::ONE,
            looking => looking.span(i, self.input[d]),
        }
    }

    /// Calls `run(offset in the plane, length, step)` for each line of a box.
    fn lines(&self, [depth, height, width]: [Span; 3], mut run: impl FnMut(usize, usize, usize)) {
        let length = if width.end > width.start {
            (width.end - width.start - 1) / width.step + 1
        } else {
            0
        };
        if length == 0 {
            return;
        }
        let mut d = depth.start;
        while d < depth.end {
            let mut h = height.start;
            while h < height.end {
                let at = (d * self.input[1] + h) * self.input[2] + width.start;
                run(at as usize, length as usize, width.step as usize);
                h += height.step;
            }
            d += depth.step;
        }
    }
}

/// Checks that a tensor has `N` dimensions to pool after a batch and channels, or channels alone.
fn check_rank<const N: usize>(source: &Tensor) -> Result<usize, KernelError> {
    let rank = source.rank();
    let first = rank.wrapping_sub(N);
    let empty = rank >= N && source.sizes()[1.min(rank)..].contains(&0);
    if !(1..=2).contains(&first) || empty {
        return Err(KernelError::invalid(
            "self",
            format!("a tensor of {} cannot be pooled in {N} dimensions", source.sizes()),
        ));
    }
    Ok(first)
}

/// `N` values from a list of one or `N`.
fn values<const N: usize>(list: &[i64], least: i64, argument: &'static str) -> Result<[i64; N], KernelError> {
    let values = match list {
        [one] => [*one; N],
        all => all
            .try_into()
            .map_err(|_| KernelError::invalid(argument, format!("{} values for {N} dimensions", list.len())))?,
    };
    if values.iter().any(|&v| v < least || v > i64::from(i32::MAX)) {
        return Err(KernelError::invalid(argument, format!("values {list:?}")));
    }
    Ok(values)
}

/// Windows of a pooling: `kernel, stride (empty: the kernel), padding, dilation` and ceil mode.
fn windows<const N: usize>(
    source: &Tensor,
    [kernel, stride, padding, dilation]: [&[i64]; 4],
    ceil: bool,
) -> Result<Pooling, KernelError> {
    let first = check_rank::<N>(source)?;
    let kernel = values::<N>(kernel, 1, "kernel_size")?;
    let stride = if stride.is_empty() {
        kernel
    } else {
        values::<N>(stride, 1, "stride")?
    };
    let padding = values::<N>(padding, 0, "padding")?;
    let dilation = values::<N>(dilation, 1, "dilation")?;
    let mut looking = [Looking::Adaptive { parts: 1 }; N];
    let mut output = [1i64; N];
    for d in 0..N {
        let size = source.sizes()[first + d];
        let reach = dilation[d].saturating_mul(kernel[d] - 1);
        if padding[d] > (reach + 1) / 2 || size > i64::from(i32::MAX) {
            return Err(KernelError::invalid(
                "padding",
                format!(
                    "padding {} is more than half of the window of {}",
                    padding[d], kernel[d]
                ),
            ));
        }
        // `pooling_output_shape`: in ceil mode the last window must start inside of the input or its left padding.
        let room = size + 2 * padding[d] - reach - 1;
        let mut windows = (room + if ceil { stride[d] - 1 } else { 0 }).div_euclid(stride[d]) + 1;
        if ceil && (windows - 1) * stride[d] >= size + padding[d] {
            windows -= 1;
        }
        if windows < 1 {
            return Err(KernelError::invalid(
                "kernel_size",
                format!("a window of {} for dimension {} of size {size}", kernel[d], first + d),
            ));
        }
        output[d] = windows;
        looking[d] = Looking::Window {
            kernel: kernel[d],
            stride: stride[d],
            padding: padding[d],
            dilation: dilation[d],
        };
    }
    Pooling::new(source, looking, output)
}

fn adaptive<const N: usize>(source: &Tensor, call: &Call) -> Result<Pooling, KernelError> {
    check_rank::<N>(source)?;
    let output = values::<N>(call.ints(1)?, 0, "output_size")?;
    Pooling::new(
        source,
        output.map(|parts| Looking::Adaptive { parts: parts.max(1) }),
        output,
    )
}

fn max_pool<const N: usize>(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let lists = [call.ints(1)?, call.ints(2)?, call.ints(3)?, call.ints(4)?];
    let pooling = windows::<N>(&source, lists, call.bool(5)?)?;
    largest(call, source, pooling)
}

fn adaptive_max_pool<const N: usize>(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let pooling = adaptive::<N>(&source, call)?;
    largest(call, source, pooling)
}

/// Values to output 0, their positions in the plane to output 1.
fn largest(call: &mut Call, source: Tensor, pooling: Pooling) -> Result<(), KernelError> {
    let scratch = &mut *call.scratch;
    let [out, indices] = &mut *call.outs else {
        return Err(KernelError::invalid("out", "two outputs are expected"));
    };
    expect_dtype(out, 0, source.dtype())?;
    expect_dtype(indices, 1, DType::I64)?;
    out.resize(&pooling.sizes)?;
    indices.resize(&pooling.sizes)?;
    let numel = count(&pooling.sizes);
    let parallel = out.parallel();
    with_wide!(source.dtype(), "self", W => {
        let total = load_bytes::<W>(&source)
            .saturating_add(out_bytes::<W>(out))
            .saturating_add(bytes_of::<i64>(numel));
        let mut arena = Arena::new(scratch, total)?;
        let data = arena.load::<W>(&source)?;
        let positions = arena.take::<i64>(numel)?;
        produce::<W>(out, &mut arena, |dst, _| {
            let (plane_len, planes) = (pooling.input_len(), pooling.portion(parallel));
            let len = (planes * pooling.output_len()).max(1);
            let chunks = dst.chunks_mut(len).zip(positions.chunks_mut(len));
            each(parallel, chunks.enumerate(), |(i, (dst, positions))| {
                let planes = i * planes..((i + 1) * planes).min(pooling.planes);
                pooling.boxes(planes, |plane, at, window| {
                let image = &data[plane * plane_len..(plane + 1) * plane_len];
                let mut best = W::LOWEST;
                let mut best_at = None;
                pooling.lines(window, |start, length, step| {
                    for i in 0..length {
                        let position = start + i * step;
                        let value = image[position];
                        if best_at.is_none() || value > best || value.is_nan() {
                            best = value;
                            best_at = Some(position);
                        }
                    }
                });
                dst[at] = best;
                positions[at] = best_at.unwrap_or(0) as i64;
                });
                Ok(())
            })
        })?;
        store(bytemuck::cast_slice(positions), DType::I64, indices)
    })
}

fn avg_pool<const N: usize>(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let lists = [call.ints(1)?, call.ints(2)?, call.ints(3)?, &[1]];
    let pooling = windows::<N>(&source, lists, call.bool(4)?)?;
    let include_pad = call.bool(5)?;
    let divisor = call.optional_int(6)?;
    if divisor == Some(0) {
        return Err(KernelError::invalid("divisor_override", "a divisor of zero"));
    }
    average(call, source, pooling, |padded, real| match divisor {
        Some(divisor) => divisor,
        None if include_pad => padded,
        None => real,
    })
}

fn adaptive_avg_pool<const N: usize>(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let pooling = adaptive::<N>(&source, call)?;
    average(call, source, pooling, |_, real| real)
}

/// Sums divided by `divisor(elements with padding, elements of the input)`.
fn average(
    call: &mut Call,
    source: Tensor,
    pooling: Pooling,
    divisor: impl Fn(i64, i64) -> i64 + Sync,
) -> Result<(), KernelError> {
    let (out, scratch) = parts(call, 0)?;
    let parallel = out.parallel();
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&pooling.sizes)?;
    with_wide!(source.dtype(), "self", W => {
        let mut arena = Arena::new(scratch, load_bytes::<W>(&source).saturating_add(out_bytes::<W>(out)))?;
        let data = arena.load::<W>(&source)?;
        produce::<W>(out, &mut arena, |dst, _| {
            let (plane_len, planes) = (pooling.input_len(), pooling.portion(parallel));
            let chunks = dst.chunks_mut((planes * pooling.output_len()).max(1));
            each(parallel, chunks.enumerate(), |(i, dst)| {
                let planes = i * planes..((i + 1) * planes).min(pooling.planes);
                pooling.boxes(planes, |plane, at, window| {
                let image = &data[plane * plane_len..(plane + 1) * plane_len];
                let (mut sum, mut real) = (W::ZERO, 0usize);
                pooling.lines(window, |start, length, step| {
                    real += length;
                    if step == 1 {
                        sum = image[start..start + length].iter().fold(sum, |sum, &value| sum.plus(value));
                    } else {
                        sum = image[start..].iter().step_by(step).take(length).fold(sum, |sum, &value| sum.plus(value));
                    }
                });
                let padded = window.iter().map(|span| span.padded).product();
                dst[at] = if real == 0 { W::ZERO } else { sum.divided(divisor(padded, real as i64)) };
                });
                Ok(())
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_skip_the_padding_in_steps_of_the_dilation() {
        let looking = Looking::Window {
            kernel: 3,
            stride: 2,
            padding: 1,
            dilation: 2,
        };
        let spans = [0, 1].map(|i| looking.span(i, 5)).map(|s| (s.start, s.end, s.padded));
        assert_eq!(spans, [(1, 4, 5), (1, 5, 5)]);
    }

    #[test]
    fn adaptive_windows_cover_the_input() {
        // torch.nn.functional.adaptive_avg_pool1d of 7 to 3: [0, 3), [2, 5), [4, 7).
        let spans = [0, 1, 2]
            .map(|i| Looking::Adaptive { parts: 3 }.span(i, 7))
            .map(|s| (s.start, s.end));
        assert_eq!(spans, [(0, 3), (2, 5), (4, 7)]);
    }
}
