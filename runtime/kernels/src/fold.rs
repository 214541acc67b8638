//! Images to columns and back: what convolutions are made of, and the operators `im2col` and `col2im`.
//!
//! A column matrix has one row for each (channel, kernel position) and one column for each position of the window.

use crate::gemm::{Panels, Plain, Widths};
use crate::registry::Kernel;
use crate::stage::{Arena, count, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError};
use alloc::format;
use core::ops::Range;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[("aten::im2col.out", im2col), ("aten::col2im.out", col2im)];

/// Windows on an image of depth, height and width; fewer dimensions have leading ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    /// Sizes of the image.
    pub image: [i64; 3],
    /// Window positions in each dimension.
    pub positions: [i64; 3],
    /// Sizes of the window.
    pub kernel: [i64; 3],
    /// Image elements between two positions.
    pub stride: [i64; 3],
    /// Zeros around the image.
    pub padding: [i64; 3],
    /// Image elements between two elements of the window.
    pub dilation: [i64; 3],
}

impl Windows {
    /// Elements of the window.
    pub fn kernel_len(&self) -> usize {
        count(&self.kernel)
    }

    /// Elements of a plane of the image.
    pub fn image_len(&self) -> usize {
        count(&self.image)
    }

    /// Number of positions.
    pub fn positions_len(&self) -> usize {
        count(&self.positions)
    }

    /// Positions `from..to` along dimension `d` at which kernel index `k` lies on the image.
    pub fn inside(&self, d: usize, k: i64) -> (i64, i64) {
        let shift = k * self.dilation[d] - self.padding[d];
        // The first p with p * stride + shift >= 0, the first with p * stride + shift >= image.
        let first = |bound: i64| {
            let need = bound - shift;
            if need <= 0 { 0 } else { (need - 1) / self.stride[d] + 1 }
        };
        let end = first(self.image[d]).min(self.positions[d]);
        (first(0).min(end), end)
    }

    /// For columns `start..end` and every kernel element, calls `run(kernel element, column, image start, steps)` for each
    /// stretch of columns along one line of the image that lies inside of it.
    fn stretches(&self, start: usize, end: usize, mut run: impl FnMut(usize, usize, usize, usize)) {
        let width = self.positions[2] as usize;
        let height = self.positions[1] as usize;
        if width == 0 || height == 0 {
            return;
        }
        let mut element = 0usize;
        for kd in 0..self.kernel[0] {
            for kh in 0..self.kernel[1] {
                for kw in 0..self.kernel[2] {
                    let (low, high) = self.inside(2, kw);
                    for line in start / width..end.div_ceil(width) {
                        let (d, h) = ((line / height) as i64, (line % height) as i64);
                        let id = d * self.stride[0] + kd * self.dilation[0] - self.padding[0];
                        let ih = h * self.stride[1] + kh * self.dilation[1] - self.padding[1];
                        if !(0..self.image[0]).contains(&id) || !(0..self.image[1]).contains(&ih) {
                            continue;
                        }
                        let from = (low as usize).max(start.saturating_sub(line * width));
                        let to = (high as usize).min(end - line * width);
                        if from >= to {
                            continue;
                        }
                        let iw = from as i64 * self.stride[2] + kw * self.dilation[2] - self.padding[2];
                        let at = (id * self.image[1] + ih) * self.image[2] + iw;
                        run(element, line * width + from - start, at as usize, to - from);
                    }
                    element += 1;
                }
            }
        }
    }

    /// Columns `start..end` of the image's channels, rows `end - start` long.
    pub fn fill_columns<W: Wide>(&self, image: &[W], channels: usize, columns: &mut [W], (start, end): (usize, usize)) {
        let (plane, kernel, width, step) = (
            self.image_len(),
            self.kernel_len(),
            end - start,
            self.stride[2] as usize,
        );
        columns.fill(W::ZERO);
        for channel in 0..channels {
            let image = &image[channel * plane..(channel + 1) * plane];
            let columns = &mut columns[channel * kernel * width..(channel + 1) * kernel * width];
            self.stretches(start, end, |element, column, at, steps| {
                let target = &mut columns[element * width + column..][..steps];
                if step == 1 {
                    target.copy_from_slice(&image[at..at + steps]);
                } else {
                    for (slot, &value) in target.iter_mut().zip(image[at..].iter().step_by(step)) {
                        *slot = value;
                    }
                }
            });
        }
    }

    /// Adds columns `start..end` to the image's channels where their windows lie.
    pub fn add_columns<W: Wide>(&self, columns: &[W], channels: usize, image: &mut [W], (start, end): (usize, usize)) {
        let (plane, kernel, width, step) = (
            self.image_len(),
            self.kernel_len(),
            end - start,
            self.stride[2] as usize,
        );
        for channel in 0..channels {
            let image = &mut image[channel * plane..(channel + 1) * plane];
            let columns = &columns[channel * kernel * width..(channel + 1) * kernel * width];
            self.stretches(start, end, |element, column, at, steps| {
                let source = &columns[element * width + column..][..steps];
                for (slot, &value) in image[at..].iter_mut().step_by(step).zip(source) {
                    *slot = slot.plus(value);
                }
            });
        }
    }
}

/// The columns of an image as a factor of a product: they are never all in memory, but packed when they are asked for.
pub(crate) struct Columns<'a, W> {
    /// The windows.
    pub windows: Windows,
    /// Planes of the image.
    pub image: &'a [W],
    /// Number of planes.
    pub channels: usize,
}

/// Positions are lanes; depth is (channel, element of the window).
impl<W: Plain> Panels<W> for Columns<'_, W> {
    fn dims(&self) -> (usize, usize) {
        (
            self.windows.positions_len(),
            self.channels.saturating_mul(self.windows.kernel_len()),
        )
    }

    fn pack(&self, lanes: Range<usize>, depth: Range<usize>, widths: Widths, panels: &mut [W]) {
        let (plane, kernel, step) = (
            self.windows.image_len(),
            self.windows.kernel_len().max(1),
            self.windows.stride[2] as usize,
        );
        // Where the window leaves the image, and behind the last lane.
        panels.fill(W::ZERO);
        for start in lanes.clone().step_by(widths.full.max(1)) {
            let end = lanes.end.min(start.saturating_add(widths.full));
            let width = widths.of(lanes.end - start);
            let panel = &mut panels[(start - lanes.start) * depth.len()..];
            self.windows.stretches(start, end, |element, lane, at, steps| {
                let first = depth.start.saturating_sub(element).div_ceil(kernel);
                let last = depth.end.saturating_sub(element).div_ceil(kernel).min(self.channels);
                for channel in first..last {
                    let row = channel * kernel + element - depth.start;
                    let target = &mut panel[row * width + lane..][..steps];
                    let source = &self.image[channel * plane + at..];
                    if step == 1 {
                        copy_short(target, source);
                    } else {
                        for (slot, &value) in target.iter_mut().zip(source.iter().step_by(step)) {
                            *slot = value;
                        }
                    }
                }
            });
        }
    }
}

/// A copy of a few elements: a call to copy memory costs more than they do.
fn copy_short<W: Copy>(target: &mut [W], source: &[W]) {
    let (target, rest) = target.as_chunks_mut::<8>();
    let (source, source_rest) = source.as_chunks::<8>();
    for (slot, values) in target.iter_mut().zip(source) {
        *slot = *values;
    }
    let source_rest = source.get(target.len()).map_or(source_rest, |eight| eight.as_slice());
    for (slot, &value) in rest.iter_mut().zip(source_rest) {
        *slot = value;
    }
}

/// The two values of a list, as the last two of three dimensions.
fn pair(list: &[i64], least: i64, first: i64, argument: &'static str) -> Result<[i64; 3], KernelError> {
    let pair = match *list {
        [one] => [first, one, one],
        [height, width] => [first, height, width],
        _ => {
            return Err(KernelError::invalid(
                argument,
                format!("{} values where 2 are expected", list.len()),
            ));
        }
    };
    // Far beyond any image, and small enough that products do not overflow.
    if pair[1..].iter().any(|&v| v < least || v > i64::from(i32::MAX)) {
        return Err(KernelError::invalid(argument, format!("values {list:?}")));
    }
    Ok(pair)
}

/// Reads `kernel_size, dilation, padding, stride` from argument `first` on.
fn windows(call: &Call, first: usize, image: [i64; 3]) -> Result<Windows, KernelError> {
    let kernel = pair(call.ints(first)?, 1, 1, "kernel_size")?;
    let dilation = pair(call.ints(first + 1)?, 1, 1, "dilation")?;
    let padding = pair(call.ints(first + 2)?, 0, 0, "padding")?;
    let stride = pair(call.ints(first + 3)?, 1, 1, "stride")?;
    let mut positions = [1; 3];
    for d in 1..3 {
        let room = image[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1;
        if room < 0 {
            return Err(KernelError::invalid(
                "kernel_size",
                format!("a window larger than the image of {image:?}"),
            ));
        }
        positions[d] = room / stride[d] + 1;
    }
    Ok(Windows {
        image,
        positions,
        kernel,
        stride,
        padding,
        dilation,
    })
}

fn im2col(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let (batch, channels, height, width) = match *source.sizes().as_slice() {
        [n, c, h, w] => (Some(n), c, h, w),
        [c, h, w] => (None, c, h, w),
        _ => {
            return Err(KernelError::invalid(
                "self",
                format!("a tensor of {} is no image", source.sizes()),
            ));
        }
    };
    let windows = windows(call, 1, [1, height, width])?;
    let (kernel, positions) = (windows.kernel_len(), windows.positions_len());
    let rows = channels.saturating_mul(kernel as i64);
    let sizes = match batch {
        Some(n) => dims_of(&[n, rows, positions as i64], "self")?,
        None => dims_of(&[rows, positions as i64], "self")?,
    };
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&sizes)?;
    with_wide!(source.dtype(), "self", W => {
        let mut arena = Arena::new(scratch, load_bytes::<W>(&source).saturating_add(out_bytes::<W>(out)))?;
        let data = arena.load::<W>(&source)?;
        produce::<W>(out, &mut arena, |dst, _| {
            let channels = channels as usize;
            let (image, columns) = (channels * windows.image_len(), channels * kernel * positions);
            for n in 0..batch.unwrap_or(1) as usize {
                let target = &mut dst[n * columns..(n + 1) * columns];
                windows.fill_columns(&data[n * image..(n + 1) * image], channels, target, (0, positions));
            }
            Ok(())
        })
    })
}

fn col2im(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let image = pair(call.ints(1)?, 1, 1, "output_size")?;
    let windows = windows(call, 2, image)?;
    let (kernel, positions) = (windows.kernel_len(), windows.positions_len());
    let (batch, rows, columns) = match *source.sizes().as_slice() {
        [n, rows, columns] => (Some(n), rows, columns),
        [rows, columns] => (None, rows, columns),
        _ => {
            return Err(KernelError::invalid(
                "self",
                format!("a tensor of {} has no columns", source.sizes()),
            ));
        }
    };
    if rows % kernel as i64 != 0 || columns != positions as i64 {
        return Err(KernelError::invalid(
            "self",
            format!(
                "{} where rows are a multiple of {kernel} and columns {positions}",
                source.sizes()
            ),
        ));
    }
    let channels = rows / kernel as i64;
    let sizes = match batch {
        Some(n) => dims_of(&[n, channels, image[1], image[2]], "output_size")?,
        None => dims_of(&[channels, image[1], image[2]], "output_size")?,
    };
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&sizes)?;
    with_wide!(source.dtype(), "self", W => {
        let mut arena = Arena::new(scratch, load_bytes::<W>(&source).saturating_add(out_bytes::<W>(out)))?;
        let data = arena.load::<W>(&source)?;
        produce::<W>(out, &mut arena, |dst, _| {
            dst.fill(W::ZERO);
            let (channels, columns) = (channels as usize, (rows as usize) * positions);
            let image = channels * windows.image_len();
            for n in 0..batch.unwrap_or(1) as usize {
                let target = &mut dst[n * image..(n + 1) * image];
                windows.add_columns(&data[n * columns..(n + 1) * columns], channels, target, (0, positions));
            }
            Ok(())
        })
    })
}
