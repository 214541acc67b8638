//! `convolution`: one to three dimensions, strided, dilated, grouped, transposed.
//!
//! The weights times the columns of the image, which are packed as the product asks for them; a window of one element needs no
//! columns, and a group of one input channel is summed directly. Transposed ones make columns and add them to the image, a strip
//! of positions at a time so that they stay in the cache.

use crate::fold::{Columns, Windows};
use crate::gemm::{self, Matrix, MatrixMut, Plain};
use crate::parallel::{each, portion};
use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{Dims, Parallel};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::convolution.out", convolution),
    ("aten::_convolution.out", convolution),
    ("aten::convolution_overrideable.out", convolution),
];

/// Elements of a strip of columns: 1 MiB of f32.
const STRIP: usize = 1 << 18;

/// Sizes of one convolution.
struct Plan {
    /// For a transposed convolution, of the output's image and the input's positions.
    windows: Windows,
    transposed: bool,
    batch: usize,
    groups: usize,
    /// Input channels of a group.
    inputs: usize,
    /// Output channels of a group.
    outputs: usize,
}

impl Plan {
    fn input_plane(&self) -> usize {
        if self.transposed {
            self.windows.positions_len()
        } else {
            self.windows.image_len()
        }
    }

    fn output_plane(&self) -> usize {
        if self.transposed {
            self.windows.image_len()
        } else {
            self.windows.positions_len()
        }
    }

    /// A window of one element that visits every image element once.
    fn is_pointwise(&self) -> bool {
        let w = &self.windows;
        w.kernel == [1; 3] && w.stride == [1; 3] && w.padding == [0; 3] && w.image == w.positions
    }

    fn is_depthwise(&self) -> bool {
        !self.transposed && self.inputs == 1
    }

    /// Rows of the column matrix of a group.
    fn column_rows(&self) -> usize {
        let channels = if self.transposed { self.outputs } else { self.inputs };
        channels.saturating_mul(self.windows.kernel_len())
    }

    /// Positions of a strip.
    fn strip(&self) -> usize {
        (STRIP / self.column_rows().max(1))
            .max(64)
            .min(self.windows.positions_len().max(1))
    }

    /// Elements that the columns of a transposed convolution take; others are packed straight from the image.
    fn column_len(&self) -> usize {
        if self.transposed && !self.is_pointwise() {
            self.column_rows().saturating_mul(self.strip())
        } else {
            0
        }
    }

    /// Elements that products on these threads need for their panels.
    fn room<W: Plain>(&self, parallel: Parallel) -> usize {
        let (rows, positions) = (self.column_rows(), self.windows.positions_len());
        match self.transposed {
            _ if self.is_depthwise() => 0,
            true if self.is_pointwise() => gemm::room_on::<W>(parallel, rows, self.inputs, positions),
            true => gemm::room_on::<W>(parallel, rows, self.inputs, self.strip()),
            false => gemm::room_on::<W>(parallel, self.outputs, rows, positions),
        }
    }

    /// How the groups of all images are shared out: how many a thread takes at a time, in how many parts, and on how many threads
    /// each is computed. A few large ones are divided, one after the other.
    fn sharing(&self, parallel: Parallel) -> Sharing {
        let items = self.batch.saturating_mul(self.groups);
        let channels = if self.transposed { self.inputs } else { self.outputs };
        let products = self
            .column_rows()
            .saturating_mul(self.windows.positions_len())
            .saturating_mul(channels);
        let len = portion(parallel, items, (products / 8).max(1), 1);
        match items >= parallel.threads() && len < items {
            true => Sharing {
                len,
                parts: items.div_ceil(len),
                within: Parallel::SERIAL,
            },
            false => Sharing {
                len: items.max(1),
                parts: 1,
                within: parallel,
            },
        }
    }
}

/// See [`Plan::sharing`].
struct Sharing {
    len: usize,
    parts: usize,
    within: Parallel,
}

fn convolution(call: &mut Call) -> Result<(), KernelError> {
    let (input, weight, bias) = (call.tensor(0)?, call.tensor(1)?, call.optional_tensor(2)?);
    let (plan, sizes) = plan(call, &input, &weight, bias.as_ref())?;
    let dtype = input.dtype();
    if let Some(other) = [Some(&weight), bias.as_ref()]
        .into_iter()
        .flatten()
        .find(|t| t.dtype() != dtype)
    {
        return Err(KernelError::invalid(
            "weight",
            format!("dtype {} for an input of {dtype}", other.dtype()),
        ));
    }
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(&sizes)?;
    let parallel = out.parallel();
    let sharing = plan.sharing(parallel);
    with_wide!(dtype, "input", W => {
        let column_len = plan.column_len().saturating_mul(sharing.parts);
        let room = plan.room::<W>(sharing.within).saturating_mul(sharing.parts);
        let total = [
            load_bytes::<W>(&input),
            load_bytes::<W>(&weight),
            bias.as_ref().map_or(0, load_bytes::<W>),
            out_bytes::<W>(out),
            bytes_of::<W>(column_len),
            bytes_of::<W>(room),
        ];
        let mut arena = Arena::new(scratch, total.into_iter().fold(0, usize::saturating_add))?;
        let (image, weight) = (arena.load::<W>(&input)?, arena.load::<W>(&weight)?);
        let bias = bias.as_ref().map(|bias| arena.load::<W>(bias)).transpose()?;
        let columns = arena.take::<W>(column_len)?;
        let panels = arena.take::<W>(room)?;
        produce::<W>(out, &mut arena, |dst, _| {
            let rooms = split(columns, sharing.parts).zip(split(panels, sharing.parts));
            let parts = dst.chunks_mut((sharing.len * plan.outputs * plan.output_plane()).max(1)).zip(rooms);
            each(parallel, parts.enumerate(), |(i, (dst, rooms))| {
                run(&plan, sharing.within, i * sharing.len, (image, weight, bias), rooms, dst)
            })
        })
    })
}

/// Reads `stride, padding, dilation, transposed, output_padding, groups` from 3 on.
fn plan(call: &Call, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Plan, Dims), KernelError> {
    let rank = input.rank();
    if !(3..=5).contains(&rank) || weight.rank() != rank {
        return Err(KernelError::invalid(
            "weight",
            format!("a weight of {} for an input of {}", weight.sizes(), input.sizes()),
        ));
    }
    let stride = triple(call.ints(3)?, rank, 1, "stride")?;
    let padding = triple(call.ints(4)?, rank, 0, "padding")?;
    let dilation = triple(call.ints(5)?, rank, 1, "dilation")?;
    let transposed = call.bool(6)?;
    let output_padding = triple(call.ints(7)?, rank, 0, "output_padding")?;
    let groups = call.int(8)?;
    let (batch, channels) = (input.sizes()[0], input.sizes()[1]);
    let (first, second) = (weight.sizes()[0], weight.sizes()[1]);
    let wrong = || {
        KernelError::invalid(
            "groups",
            format!(
                "{groups} groups for an input of {} and a weight of {}",
                input.sizes(),
                weight.sizes()
            ),
        )
    };
    if groups <= 0 || first % groups != 0 || channels % groups != 0 {
        return Err(wrong());
    }
    let (inputs, outputs) = match transposed {
        true if first == channels => (channels / groups, second),
        false if second == channels / groups => (second, first / groups),
        _ => return Err(wrong()),
    };
    let channels_out = outputs.saturating_mul(groups);
    if bias.is_some_and(|bias| bias.sizes().as_slice() != [channels_out]) {
        return Err(KernelError::invalid(
            "bias",
            format!("a bias that is not one of {channels_out} channels"),
        ));
    }
    let (have, kernel) = (spatial(input), spatial(weight));
    let mut give = [1i64; 3];
    for d in 0..3 {
        let reach = dilation[d].saturating_mul(kernel[d] - 1);
        let size = match transposed {
            true => (have[d] - 1)
                .saturating_mul(stride[d])
                .saturating_sub(2 * padding[d])
                .saturating_add(reach)
                .saturating_add(output_padding[d] + 1),
            false => match (have[d] + 2 * padding[d]).saturating_sub(reach) - 1 {
                room if room < 0 => -1,
                room => room / stride[d] + 1,
            },
        };
        if size < 0 || kernel[d] <= 0 || have[d] > i64::from(i32::MAX) || reach > i64::from(i32::MAX) {
            return Err(KernelError::invalid(
                "weight",
                format!("a window of {kernel:?} for an image of {have:?} with padding {padding:?}"),
            ));
        }
        if transposed && output_padding[d] >= stride[d].max(dilation[d]) {
            return Err(KernelError::invalid(
                "output_padding",
                format!("{} is not below the stride or the dilation", output_padding[d]),
            ));
        }
        give[d] = size;
    }
    let mut sizes = *input.sizes();
    sizes[1] = channels_out;
    sizes[2..].copy_from_slice(&give[5 - rank..]);
    let (image, positions) = if transposed { (give, have) } else { (have, give) };
    let plan = Plan {
        windows: Windows {
            image,
            positions,
            kernel,
            stride,
            padding,
            dilation,
        },
        transposed,
        batch: batch as usize,
        groups: groups as usize,
        inputs: inputs as usize,
        outputs: outputs as usize,
    };
    Ok((plan, dims_of(&sizes, "input")?))
}

/// A value for each of three dimensions: those that the tensor lacks get `least`, which is also the smallest one allowed.
fn triple(list: &[i64], rank: usize, least: i64, argument: &'static str) -> Result<[i64; 3], KernelError> {
    let dims = rank - 2;
    let mut values = [least; 3];
    match list {
        [one] => values[3 - dims..].fill(*one),
        all if all.len() == dims => values[3 - dims..].copy_from_slice(all),
        _ => {
            return Err(KernelError::invalid(
                argument,
                format!("{} values for {dims} dimensions", list.len()),
            ));
        }
    }
    if values.iter().any(|&v| v < least || v > i64::from(i32::MAX)) {
        return Err(KernelError::invalid(argument, format!("values {list:?}")));
    }
    Ok(values)
}

/// The sizes after batch and channels, with leading ones.
fn spatial(tensor: &Tensor) -> [i64; 3] {
    let sizes = &tensor.sizes()[2..];
    let mut result = [1; 3];
    result[3 - sizes.len()..].copy_from_slice(sizes);
    result
}

/// `parts` equal pieces, which may be empty.
fn split<T>(room: &mut [T], parts: usize) -> impl ExactSizeIterator<Item = &mut [T]> {
    let len = room.len() / parts.max(1);
    let mut rest = room;
    (0..parts).map(move |_| {
        let (piece, others) = core::mem::take(&mut rest).split_at_mut(len);
        rest = others;
        piece
    })
}

/// Computes the groups that `dst` has room for, from the group `first` of all images on.
fn run<W: Plain>(
    plan: &Plan,
    parallel: Parallel,
    first: usize,
    (image, weight, bias): (&[W], &[W], Option<&[W]>),
    (columns, panels): (&mut [W], &mut [W]),
    dst: &mut [W],
) -> Result<(), KernelError> {
    let (in_plane, out_plane) = (plan.input_plane(), plan.output_plane());
    let weights = plan.inputs * plan.outputs * plan.windows.kernel_len();
    for (i, dst) in dst.chunks_exact_mut((plan.outputs * out_plane).max(1)).enumerate() {
        let item = first + i;
        let group = item % plan.groups;
        let image = &image[item * plan.inputs * in_plane..(item + 1) * plan.inputs * in_plane];
        let weight = &weight[group * weights..(group + 1) * weights];
        for (channel, plane) in dst.chunks_exact_mut(out_plane.max(1)).enumerate() {
            plane.fill(bias.map_or(W::ZERO, |bias| bias[group * plan.outputs + channel]));
        }
        if plan.transposed {
            transposed_group(plan, parallel, image, weight, (columns, panels), dst)?;
        } else if plan.is_depthwise() {
            let kernel = plan.windows.kernel_len();
            for (channel, plane) in dst.chunks_exact_mut(out_plane.max(1)).enumerate() {
                add_window(
                    &plan.windows,
                    image,
                    &weight[channel * kernel..(channel + 1) * kernel],
                    plane,
                );
            }
        } else {
            group_by_columns(plan, parallel, image, weight, panels, dst)?;
        }
    }
    Ok(())
}

fn group_by_columns<W: Plain>(
    plan: &Plan,
    parallel: Parallel,
    image: &[W],
    weight: &[W],
    panels: &mut [W],
    dst: &mut [W],
) -> Result<(), KernelError> {
    let (rows, positions) = (plan.column_rows(), plan.windows.positions_len());
    let weight = Matrix::dense(weight, plan.outputs, rows)?;
    let dst = MatrixMut::dense(dst, plan.outputs, positions)?;
    if plan.is_pointwise() {
        let image = Matrix::dense(image, rows, positions)?;
        return gemm::product(parallel, weight, image, dst, W::UNIT, true, panels);
    }
    let columns = Columns {
        windows: plan.windows,
        image,
        channels: plan.inputs,
    };
    gemm::product_of_panels(parallel, weight, &columns, dst, true, panels)
}

fn transposed_group<W: Plain>(
    plan: &Plan,
    parallel: Parallel,
    image: &[W],
    weight: &[W],
    (columns, panels): (&mut [W], &mut [W]),
    dst: &mut [W],
) -> Result<(), KernelError> {
    let (rows, positions, strip) = (plan.column_rows(), plan.windows.positions_len(), plan.strip());
    let weight = Matrix::dense(weight, plan.inputs, rows)?.transposed();
    let image = Matrix::dense(image, plan.inputs, positions)?;
    if plan.is_pointwise() {
        let dst = MatrixMut::dense(dst, rows, positions)?;
        return gemm::product(parallel, weight, image, dst, W::UNIT, true, panels);
    }
    for start in (0..positions).step_by(strip) {
        let end = (start + strip).min(positions);
        let image = image.block((0, start), (plan.inputs, end - start));
        let columns = &mut columns[..rows * (end - start)];
        let target = MatrixMut::dense(columns, rows, end - start)?;
        gemm::product(parallel, weight, image, target, W::UNIT, false, panels)?;
        plan.windows.add_columns(columns, plan.outputs, dst, (start, end));
    }
    Ok(())
}

/// Adds one channel's windows to one output plane, a kernel element and a line at a time.
fn add_window<W: Wide>(windows: &Windows, image: &[W], kernel: &[W], plane: &mut [W]) {
    let [_, height, width] = windows.image;
    let [_, out_height, out_width] = windows.positions;
    let step = windows.stride[2] as usize;
    let mut weights = kernel.iter();
    for kd in 0..windows.kernel[0] {
        let (d_from, d_to) = windows.inside(0, kd);
        for kh in 0..windows.kernel[1] {
            let (h_from, h_to) = windows.inside(1, kh);
            for kw in 0..windows.kernel[2] {
                let Some(&weight) = weights.next() else { return };
                let (from, to) = windows.inside(2, kw);
                if from >= to {
                    continue;
                }
                let first = from * windows.stride[2] + kw * windows.dilation[2] - windows.padding[2];
                for d in d_from..d_to {
                    let id = d * windows.stride[0] + kd * windows.dilation[0] - windows.padding[0];
                    for h in h_from..h_to {
                        let ih = h * windows.stride[1] + kh * windows.dilation[1] - windows.padding[1];
                        let source = &image[((id * height + ih) * width + first) as usize..];
                        let line = &mut plane[((d * out_height + h) * out_width) as usize..];
                        let line = &mut line[from as usize..to as usize];
                        if step == 1 {
                            for (slot, &value) in line.iter_mut().zip(source) {
                                *slot = slot.plus(weight.times(value));
                            }
                        } else {
                            for (slot, &value) in line.iter_mut().zip(source.iter().step_by(step)) {
                                *slot = slot.plus(weight.times(value));
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_every_position_once() {
        for (rows, positions) in [(27usize, 12544i64), (576, 3136), (1 << 20, 49), (1, 1)] {
            let windows = Windows {
                image: [1, 1, positions],
                positions: [1, 1, positions],
                kernel: [1, 1, rows as i64],
                stride: [1; 3],
                padding: [0; 3],
                dilation: [1; 3],
            };
            let plan = Plan {
                windows,
                transposed: false,
                batch: 1,
                groups: 1,
                inputs: 1,
                outputs: 1,
            };
            assert!(plan.strip() >= 1 && plan.strip() <= positions as usize);
        }
    }

    #[test]
    fn windows_know_where_they_lie_on_the_image() {
        let windows = Windows {
            image: [1, 1, 5],
            positions: [1, 1, 3],
            kernel: [1, 1, 3],
            stride: [1, 1, 2],
            padding: [0, 0, 1],
            dilation: [1; 3],
        };
        // Positions 0, 1, 2 start at -1, 1, 3.
        assert_eq!([0, 1, 2].map(|k| windows.inside(2, k)), [(1, 3), (0, 3), (0, 2)]);
    }
}
