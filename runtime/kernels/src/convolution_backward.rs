//! Gradients of a convolution.

use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, count, dims_of, expect_dtype, load_bytes, store};
use crate::{Arg, Call, KernelError, Tensor};
use alloc::format;
use core::ops::Range;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[("aten::convolution_backward.out", backward)];

/// Along one dimension: element `o` of what a convolution gives reads `o * stride + tap * dilation - padding`.
#[derive(Clone, Copy)]
struct Axis {
    /// Elements of the larger side, which a convolution reads.
    read: usize,
    /// Elements of the smaller side, which it gives.
    given: usize,
    taps: usize,
    stride: i64,
    padding: i64,
    dilation: i64,
}

impl Axis {
    const NONE: Axis = Axis {
        read: 1,
        given: 1,
        taps: 1,
        stride: 1,
        padding: 0,
        dilation: 1,
    };

    /// The elements given that have a partner for this tap, and the first one's partner.
    fn partners(&self, tap: usize) -> (Range<usize>, usize) {
        let shift = (tap as i64).saturating_mul(self.dilation).saturating_sub(self.padding);
        let first = if shift < 0 {
            (-shift + self.stride - 1) / self.stride
        } else {
            0
        };
        let last = (self.read as i64).saturating_sub(shift);
        let end = if last <= 0 {
            0
        } else {
            (last + self.stride - 1) / self.stride
        };
        let (first, end) = (first.min(self.given as i64), end.min(self.given as i64));
        (
            first as usize..end.max(first) as usize,
            (first * self.stride + shift).max(0) as usize,
        )
    }
}

/// The sizes of a convolution that gives `y` from `x`; a transposed one is that with `x` and `y` exchanged.
struct Plan {
    batch: usize,
    groups: usize,
    /// Channels of `x` in a group.
    x_channels: usize,
    /// Channels of `y` in a group.
    y_channels: usize,
    axes: [Axis; 3],
}

impl Plan {
    /// Calls `row` with every run of products: where it starts in `x`, `y` and `w`, its length, and the step in `x`.
    fn runs(&self, mut row: impl FnMut(usize, usize, usize, usize, usize)) {
        let [a, b, c] = self.axes;
        let (x_plane, y_plane) = (a.read * b.read * c.read, a.given * b.given * c.given);
        for n in 0..self.batch * self.groups {
            let group = n % self.groups;
            for j in 0..self.y_channels {
                for i in 0..self.x_channels {
                    let x = (n * self.x_channels + i) * x_plane;
                    let y = (n * self.y_channels + j) * y_plane;
                    let w = (group * self.y_channels + j) * self.x_channels + i;
                    for tap in 0..a.taps * b.taps * c.taps {
                        let (depths, x_depth) = a.partners(tap / (b.taps * c.taps));
                        let (lines, x_line) = b.partners(tap / c.taps % b.taps);
                        let (places, x_place) = c.partners(tap % c.taps);
                        let w = w * a.taps * b.taps * c.taps + tap;
                        if places.is_empty() {
                            continue;
                        }
                        for (step_a, depth) in depths.enumerate() {
                            for (step_b, line) in lines.clone().enumerate() {
                                let x_row = (x_depth + step_a * a.stride as usize) * b.read
                                    + x_line
                                    + step_b * b.stride as usize;
                                let y_row = depth * b.given + line;
                                row(
                                    x + x_row * c.read + x_place,
                                    y + y_row * c.given + places.start,
                                    w,
                                    places.len(),
                                    c.stride as usize,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

fn list(call: &Call, index: usize, argument: &'static str, d: usize, least: i64) -> Result<i64, KernelError> {
    let items = call.ints(index)?;
    let item = match items {
        [all] => Some(all),
        items => items.get(d),
    };
    item.copied()
        .filter(|item| (least..1 << 31).contains(item))
        .ok_or_else(|| KernelError::invalid(argument, format!("{items:?}")))
}

fn plan(call: &Call, gradient: &Tensor, input: &Tensor, weight: &Tensor) -> Result<Plan, KernelError> {
    let (transposed, groups) = (call.bool(7)?, call.int(9)?);
    let mismatch = || {
        let (g, i, w) = (gradient.sizes(), input.sizes(), weight.sizes());
        KernelError::invalid("grad_output", format!("{g} for an input of {i} and a weight of {w}"))
    };
    let (x, y) = if transposed {
        (gradient, input)
    } else {
        (input, gradient)
    };
    let (&[batch, x_channels, ref read @ ..], &[same, y_channels, ref given @ ..]) =
        (x.sizes().as_slice(), y.sizes().as_slice())
    else {
        return Err(mismatch());
    };
    let &[w_y, w_x, ref taps @ ..] = weight.sizes().as_slice() else {
        return Err(mismatch());
    };
    let dims = read.len();
    if batch != same || !(1..=3).contains(&dims) || given.len() != dims || taps.len() != dims {
        return Err(mismatch());
    }
    if groups <= 0 || x_channels % groups != 0 || y_channels % groups != 0 {
        return Err(KernelError::invalid("groups", format!("{groups} groups")));
    }
    if w_y != y_channels || w_x != x_channels / groups {
        return Err(mismatch());
    }
    let mut axes = [Axis::NONE; 3];
    for (d, axis) in axes[3 - dims..].iter_mut().enumerate() {
        *axis = Axis {
            read: read[d] as usize,
            given: given[d] as usize,
            taps: taps[d] as usize,
            stride: list(call, 4, "stride", d, 1)?,
            padding: list(call, 5, "padding", d, 0)?,
            dilation: list(call, 6, "dilation", d, 1)?,
        };
    }
    Ok(Plan {
        batch: batch as usize,
        groups: groups as usize,
        x_channels: (x_channels / groups) as usize,
        y_channels: (y_channels / groups) as usize,
        axes,
    })
}

/// `(grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask)`
fn backward(call: &mut Call) -> Result<(), KernelError> {
    let (gradient, input, weight) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let plan = plan(call, &gradient, &input, &weight)?;
    let transposed = call.bool(7)?;
    let Some(&Arg::Bools(&[to_input, to_weight, to_bias])) = call.args.get(10) else {
        return Err(KernelError::invalid("output_mask", "no list of three"));
    };
    if !input.dtype().is_float() {
        return Err(KernelError::unsupported("input", format!("dtype {}", input.dtype())));
    }
    let inputs = call.args.len();
    let [input_out, weight_out, bias_out] = &mut *call.outs else {
        return Err(KernelError::WrongKind {
            index: inputs,
            expected: "three output tensors",
        });
    };
    let nothing = Dims::filled(1, 0);
    let bias_sizes = dims_of(&[gradient.sizes()[1]], "grad_output")?;
    for (i, (out, wanted, sizes)) in [
        (&mut *input_out, to_input, input.sizes()),
        (&mut *weight_out, to_weight, weight.sizes()),
        (&mut *bias_out, to_bias, &bias_sizes),
    ]
    .into_iter()
    .enumerate()
    {
        expect_dtype(out, i, input.dtype())?;
        out.resize(if wanted { sizes } else { &nothing })?;
    }
    let bytes = [&gradient, &input, &weight]
        .into_iter()
        .map(load_bytes::<f64>)
        .chain([input.numel(), weight.numel(), bias_sizes[0] as usize].map(bytes_of::<f64>))
        .fold(0, usize::saturating_add);
    let mut arena = Arena::new(call.scratch, bytes)?;
    let (g, x, w) = (
        arena.load::<f64>(&gradient)?,
        arena.load::<f64>(&input)?,
        arena.load::<f64>(&weight)?,
    );
    let sums = arena.take::<f64>(input.numel())?;
    let weight_sums = arena.take::<f64>(weight.numel())?;
    let bias_sums = arena.take::<f64>(bias_sizes[0] as usize)?;
    for sums in [&mut *sums, &mut *weight_sums, &mut *bias_sums] {
        sums.fill(0.0);
    }
    if to_input || to_weight {
        // What a convolution reads, and what it gives.
        let (read, given) = if transposed { (g, x) } else { (x, g) };
        plan.runs(|at_x, at_y, at_w, len, step| {
            let given = &given[at_y..at_y + len];
            let read_run = read[at_x..].iter().step_by(step);
            if to_weight {
                let products = given.iter().zip(read_run.clone()).map(|(a, b)| a * b);
                weight_sums[at_w] += products.sum::<f64>();
            }
            if to_input && transposed {
                for (slot, value) in sums[at_y..at_y + len].iter_mut().zip(read_run) {
                    *slot += value * w[at_w];
                }
            } else if to_input {
                for (slot, value) in sums[at_x..].iter_mut().step_by(step).zip(given) {
                    *slot += value * w[at_w];
                }
            }
        });
    }
    if to_bias {
        let plane = count(&gradient.sizes()[2..]);
        let channels = bias_sums.len();
        for (at, values) in g.chunks(plane.max(1)).enumerate() {
            bias_sums[at % channels.max(1)] += values.iter().sum::<f64>();
        }
    }
    for (out, sums, wanted) in [
        (input_out, &*sums, to_input),
        (weight_out, &*weight_sums, to_weight),
        (bias_out, &*bias_sums, to_bias),
    ] {
        if wanted {
            store(bytemuck::cast_slice(sums), DType::F64, out)?;
        }
    }
    Ok(())
}
