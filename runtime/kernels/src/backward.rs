//! Gradients of pooling and of norms: the backward operators that are core ATen.

use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, count, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::{Arg, Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_adaptive_avg_pool2d_backward.out", adaptive_average),
    ("aten::avg_pool2d_backward.grad_input", average),
    ("aten::max_pool2d_with_indices_backward.grad_input", max_pool),
    ("aten::native_group_norm_backward.out", group_norm),
    ("aten::native_layer_norm_backward.out", layer_norm),
];

/// Number of planes and size of each: the last two dimensions.
fn planes(tensor: &Tensor, argument: &'static str) -> Result<(usize, usize, usize), KernelError> {
    match tensor.sizes().as_slice() {
        [outer @ .., rows, columns] if (1..=2).contains(&outer.len()) => {
            Ok((count(outer), *rows as usize, *columns as usize))
        }
        _ => Err(KernelError::invalid(
            argument,
            format!("a tensor of {} is no image", tensor.sizes()),
        )),
    }
}

fn shapes(argument: &'static str, a: &Tensor, b: &Tensor) -> KernelError {
    KernelError::invalid(argument, format!("a tensor of {} for one of {}", a.sizes(), b.sizes()))
}

/// `(grad_output, self)`
fn adaptive_average(call: &mut Call) -> Result<(), KernelError> {
    let (gradient, input) = (call.tensor(0)?, call.tensor(1)?);
    let (outer, rows, columns) = planes(&gradient, "grad_output")?;
    let (same, height, width) = planes(&input, "self")?;
    if outer != same || gradient.rank() != input.rank() {
        return Err(shapes("grad_output", &gradient, &input));
    }
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, input.dtype())?;
    out.resize(input.sizes())?;
    let mut arena = Arena::new(
        scratch,
        load_bytes::<f64>(&gradient).saturating_add(out_bytes::<f64>(out)),
    )?;
    let gradient = arena.load::<f64>(&gradient)?;
    // The elements that an output averages.
    let window = |at: usize, from: usize, to: usize| (at * from / to, ((at + 1) * from).div_ceil(to));
    produce::<f64>(out, &mut arena, |slots, _| {
        slots.fill(0.0);
        let gradient = if slots.is_empty() { &[] } else { gradient };
        for (at, &gradient) in gradient.iter().enumerate() {
            let (plane, row, column) = (at / (rows * columns), at / columns % rows, at % columns);
            let ((top, bottom), (left, right)) = (window(row, height, rows), window(column, width, columns));
            let share = gradient / ((bottom - top) * (right - left)) as f64;
            for line in top..bottom {
                let start = (plane * height + line) * width;
                for slot in &mut slots[start + left..start + right] {
                    *slot += share;
                }
            }
        }
        Ok(())
    })
}

/// `(grad_output, self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)`
fn average(call: &mut Call) -> Result<(), KernelError> {
    let (gradient, input) = (call.tensor(0)?, call.tensor(1)?);
    let (outer, rows, columns) = planes(&gradient, "grad_output")?;
    let (same, height, width) = planes(&input, "self")?;
    if outer != same || gradient.rank() != input.rank() {
        return Err(shapes("grad_output", &gradient, &input));
    }
    let kernel = pair(call, 2, "kernel_size", [1, 1])?;
    let stride = pair(call, 3, "stride", kernel)?;
    let padding = pair(call, 4, "padding", [0, 0])?;
    let (count_padding, divisor) = (call.bool(6)?, call.optional_int(7)?);
    let positive = |sizes: [i64; 2]| sizes.iter().all(|&size| (1..1 << 31).contains(&size));
    if !positive(kernel)
        || !positive(stride)
        || padding.iter().any(|&p| !(0..1 << 31).contains(&p))
        || divisor == Some(0)
    {
        return Err(KernelError::invalid(
            "kernel_size",
            "a window that is empty or has no place",
        ));
    }
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, input.dtype())?;
    out.resize(input.sizes())?;
    let mut arena = Arena::new(
        scratch,
        load_bytes::<f64>(&gradient).saturating_add(out_bytes::<f64>(out)),
    )?;
    let gradient = arena.load::<f64>(&gradient)?;
    let sizes = [height as i64, width as i64];
    // The elements under the window at `at`, and how many count as averaged.
    let window = |d: usize, at: usize| {
        let start = (at as i64).saturating_mul(stride[d]) - padding[d];
        let end = (start + kernel[d]).min(sizes[d] + padding[d]);
        let (low, high) = (start.clamp(0, sizes[d]), end.clamp(0, sizes[d]));
        let counted = if count_padding { end - start } else { high - low };
        (low as usize..high.max(low) as usize, counted)
    };
    produce::<f64>(out, &mut arena, |slots, _| {
        slots.fill(0.0);
        let gradient = if slots.is_empty() { &[] } else { gradient };
        for (at, &gradient) in gradient.iter().enumerate() {
            let (plane, row, column) = (at / (rows * columns), at / columns % rows, at % columns);
            let ((lines, tall), (places, wide)) = (window(0, row), window(1, column));
            let share = gradient / divisor.unwrap_or(tall.saturating_mul(wide)) as f64;
            for line in lines {
                let start = (plane * height + line) * width;
                for slot in &mut slots[start + places.start..start + places.end] {
                    *slot += share;
                }
            }
        }
        Ok(())
    })
}

/// A list of two, or of one for both; `absent` where there is none.
fn pair(call: &Call, index: usize, argument: &'static str, absent: [i64; 2]) -> Result<[i64; 2], KernelError> {
    match call.ints(index)? {
        [] => Ok(absent),
        [both] => Ok([*both; 2]),
        [height, width] => Ok([*height, *width]),
        _ => Err(KernelError::invalid(argument, "no list of two")),
    }
}

/// `(grad_output, self, kernel_size, stride, padding, dilation, ceil_mode, indices)`: the indices say all.
fn max_pool(call: &mut Call) -> Result<(), KernelError> {
    let (gradient, input, indices) = (call.tensor(0)?, call.tensor(1)?, call.tensor(7)?);
    let (outer, rows, columns) = planes(&gradient, "grad_output")?;
    let (same, height, width) = planes(&input, "self")?;
    if outer != same || gradient.rank() != input.rank() {
        return Err(shapes("grad_output", &gradient, &input));
    }
    if indices.sizes() != gradient.sizes() || !indices.dtype().is_int() {
        return Err(shapes("indices", &indices, &gradient));
    }
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, input.dtype())?;
    out.resize(input.sizes())?;
    let bytes = load_bytes::<f64>(&gradient).saturating_add(load_bytes::<i64>(&indices));
    let mut arena = Arena::new(scratch, bytes.saturating_add(out_bytes::<f64>(out)))?;
    let (gradient, indices) = (arena.load::<f64>(&gradient)?, arena.load::<i64>(&indices)?);
    let (size, pooled) = (height * width, rows * columns);
    produce::<f64>(out, &mut arena, |slots, _| {
        slots.fill(0.0);
        for (at, (&gradient, &index)) in gradient.iter().zip(indices).enumerate() {
            let index = usize::try_from(index).ok().filter(|&index| index < size);
            let index = index.ok_or_else(|| KernelError::invalid("indices", format!("an index outside of {size}")))?;
            slots[at / pooled * size + index] += gradient;
        }
        Ok(())
    })
}

/// A norm's input as blocks that were normalized together, each of some channels of some elements.
struct Blocks {
    blocks: usize,
    /// Blocks that share their weights with the one this many before.
    period: usize,
    channels: usize,
    elements: usize,
}

/// Which outputs are wanted, at `index`.
fn mask(call: &Call, index: usize) -> Result<[bool; 3], KernelError> {
    match call.args.get(index) {
        Some(Arg::Bools(wanted)) => <[bool; 3]>::try_from(*wanted).ok(),
        _ => None,
    }
    .ok_or_else(|| KernelError::invalid("output_mask", "no list of three"))
}

/// `(grad_out, input, normalized_shape, mean, rstd, weight, bias, output_mask)`
fn layer_norm(call: &mut Call) -> Result<(), KernelError> {
    let (input, shape) = (call.tensor(1)?, call.ints(2)?);
    let weight = call.optional_tensor(5)?;
    if !input.sizes().ends_with(shape) {
        return Err(KernelError::invalid(
            "normalized_shape",
            format!("{shape:?} of a tensor of {}", input.sizes()),
        ));
    }
    let channels = count(shape);
    let blocks = Blocks {
        blocks: input.numel() / channels.max(1),
        period: 1,
        channels,
        elements: 1,
    };
    let mut sizes = Dims::SCALAR;
    for &size in shape {
        // As many as the input has, at most.
        let _ = sizes.push(size);
    }
    let outputs = mask(call, 7)?;
    norm(call, (3, 4), weight, &blocks, &sizes, outputs)
}

/// `(grad_out, input, mean, rstd, weight, N, C, HxW, group, output_mask)`
fn group_norm(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(1)?;
    let weight = call.optional_tensor(4)?;
    let size = |index: usize| call.int(index).map(|size| usize::try_from(size).unwrap_or(0));
    let (n, c, elements, groups) = (size(5)?, size(6)?, size(7)?, size(8)?);
    let whole = n.checked_mul(c).and_then(|n| n.checked_mul(elements));
    if whole != Some(input.numel()) || groups == 0 || c % groups != 0 || n.checked_mul(groups).is_none() {
        return Err(KernelError::invalid(
            "group",
            format!("{n} by {c} by {elements} in {groups} groups for {}", input.sizes()),
        ));
    }
    let blocks = Blocks {
        blocks: n * groups,
        period: groups,
        channels: c / groups,
        elements,
    };
    let outputs = mask(call, 9)?;
    norm(call, (2, 3), weight, &blocks, &Dims::filled(1, c as i64), outputs)
}

/// With `x' = (x - mean) * rstd` and `g = grad * weight`: `rstd * (g - mean(g) - x' * mean(g * x'))` for the input, and sums
/// of `grad * x'` and of `grad` for weight and bias.
fn norm(
    call: &mut Call,
    (mean, rstd): (usize, usize),
    weight: Option<Tensor>,
    blocks: &Blocks,
    sizes: &Dims,
    outputs: [bool; 3],
) -> Result<(), KernelError> {
    let (gradient, input, mean, rstd) = (call.tensor(0)?, call.tensor(1)?, call.tensor(mean)?, call.tensor(rstd)?);
    let shared = blocks.period.saturating_mul(blocks.channels);
    if gradient.sizes() != input.sizes() {
        return Err(shapes("grad_out", &gradient, &input));
    }
    for (tensor, argument, want) in [(&mean, "mean", blocks.blocks), (&rstd, "rstd", blocks.blocks)] {
        if tensor.numel() != want {
            return Err(shapes(argument, tensor, &input));
        }
    }
    if let Some(weight) = weight.filter(|weight| weight.numel() != shared) {
        return Err(shapes("weight", &weight, &input));
    }
    let total = input.numel();
    let [to_input, to_weight, to_bias] = &mut *call.outs else {
        return Err(KernelError::WrongKind {
            index: call.args.len(),
            expected: "three output tensors",
        });
    };
    for (i, out) in [&*to_input, &*to_weight, &*to_bias].into_iter().enumerate() {
        expect_dtype(out, i, input.dtype())?;
    }
    let nothing = Dims::filled(1, 0);
    to_input.resize(if outputs[0] { input.sizes() } else { &nothing })?;
    to_weight.resize(if outputs[1] { sizes } else { &nothing })?;
    to_bias.resize(if outputs[2] { sizes } else { &nothing })?;
    let loaded = [Some(&gradient), Some(&input), Some(&mean), Some(&rstd), weight.as_ref()];
    let taken = [total, shared, shared].map(bytes_of::<f64>);
    let bytes = loaded
        .map(|tensor| tensor.map_or(0, load_bytes::<f64>))
        .into_iter()
        .chain(taken)
        .fold(0, usize::saturating_add);
    let mut arena = Arena::new(call.scratch, bytes)?;
    let (gradient, x) = (arena.load::<f64>(&gradient)?, arena.load::<f64>(&input)?);
    let (mean, rstd) = (arena.load::<f64>(&mean)?, arena.load::<f64>(&rstd)?);
    let weight = match &weight {
        Some(weight) => Some(arena.load::<f64>(weight)?),
        None => None,
    };
    let (input_sums, weight_sums) = (arena.take::<f64>(total)?, arena.take::<f64>(shared)?);
    let bias_sums = arena.take::<f64>(shared)?;
    weight_sums.fill(0.0);
    bias_sums.fill(0.0);
    let len = blocks.channels * blocks.elements;
    for block in 0..blocks.blocks {
        let first_channel = block % blocks.period * blocks.channels;
        let channel = |i: usize| first_channel + i / blocks.elements.max(1);
        let (x, gradient) = (&x[block * len..][..len], &gradient[block * len..][..len]);
        let (mean, rstd) = (mean[block], rstd[block]);
        let (mut sum, mut product) = (0f64, 0f64);
        for (i, (&x, &gradient)) in x.iter().zip(gradient).enumerate() {
            let normal = (x - mean) * rstd;
            weight_sums[channel(i)] += gradient * normal;
            bias_sums[channel(i)] += gradient;
            let scaled = gradient * weight.map_or(1.0, |weight| weight[channel(i)]);
            sum += scaled;
            product += scaled * normal;
        }
        let (sum, product) = (sum / len as f64, product / len as f64);
        let slots = &mut input_sums[block * len..][..len];
        for (i, (slot, (&x, &gradient))) in slots.iter_mut().zip(x.iter().zip(gradient)).enumerate() {
            let scaled = gradient * weight.map_or(1.0, |weight| weight[channel(i)]);
            *slot = rstd * (scaled - sum - (x - mean) * rstd * product);
        }
    }
    for (out, (sums, wanted)) in [
        (to_input, (&*input_sums, outputs[0])),
        (to_weight, (&*weight_sums, outputs[1])),
        (to_bias, (&*bias_sums, outputs[2])),
    ] {
        if wanted {
            crate::stage::store(bytemuck::cast_slice(sums), DType::F64, out)?;
        }
    }
    Ok(())
}
