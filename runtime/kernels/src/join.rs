//! Operators that put tensors together, take them apart, or write one into a window of another.

use crate::registry::Kernel;
use crate::stage::{dim_of, dims_of, expect_dtype};
use crate::strided::{Axis, Move};
use crate::views::{View, fetch, fetch_axes};
use crate::wide::{convert, encode};
use crate::{Call, KernelError, Out, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims, MAX_RANK, Operand, Scalar, result_dtype};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::cat.out", cat),
    ("aten::stack.out", stack),
    ("aten::split_copy.Tensor_out", split_copy),
    ("aten::split_with_sizes_copy.out", split_with_sizes_copy),
    ("aten::unbind_copy.int_out", unbind_copy),
    ("aten::repeat.out", repeat),
    ("aten::pixel_shuffle.out", pixel_shuffle),
    ("aten::pixel_unshuffle.out", pixel_unshuffle),
    ("aten::channel_shuffle.out", channel_shuffle),
    ("aten::select_scatter.out", select_scatter),
    ("aten::slice_scatter.out", slice_scatter),
    ("aten::diagonal_scatter.out", diagonal_scatter),
    ("aten::diag_embed.out", diag_embed),
    ("aten::block_diag.out", block_diag),
    ("aten::constant_pad_nd.out", constant_pad_nd),
    ("aten::tril.out", tril),
    ("aten::triu.out", triu),
];

fn promoted(tensors: &[Tensor]) -> Result<DType, KernelError> {
    result_dtype(tensors.iter().map(|t| Operand::tensor(t.dtype(), t.rank())))
        .ok_or_else(|| KernelError::invalid("tensors", "an empty list"))
}

/// Copies all of `source`, converted, into the window of the output.
fn place(source: &Tensor, out: &mut Out, window: &View) -> Result<(), KernelError> {
    let plan = Move::of(source.sizes(), source.strides(), &window.strides)?;
    let dtype = out.dtype();
    convert(
        &plan,
        (source.dtype(), source.bytes(), 0),
        (dtype, out.bytes_mut(), window.offset),
    )
}

/// Sets every element.
///
/// # Errors
/// The dtype has no conversion from a number.
pub(crate) fn fill(out: &mut Out, value: Scalar) -> Result<(), KernelError> {
    let (bytes, width) = encode(value, out.dtype())?;
    let data = out.bytes_mut();
    if bytes[..width].iter().all(|&b| b == bytes[0]) {
        data.fill(bytes[0]);
    } else {
        for element in data.chunks_exact_mut(width) {
            element.copy_from_slice(&bytes[..width]);
        }
    }
    Ok(())
}

fn cat(call: &mut Call) -> Result<(), KernelError> {
    let tensors = call.tensors(0)?;
    let dim = call.int(1)?;
    let dtype = promoted(tensors)?;
    // Empty 1-dim tensors join with anything: an old habit of PyTorch that models rely on.
    let skipped = |t: &Tensor| t.rank() == 1 && t.numel() == 0;
    let first = tensors.iter().find(|t| !skipped(t)).or(tensors.first());
    let Some(first) = first else {
        return Err(KernelError::invalid("tensors", "an empty list"));
    };
    if first.rank() == 0 {
        return Err(KernelError::invalid("tensors", "a 0-dim tensor cannot be joined"));
    }
    let d = dim_of(first.sizes(), dim, "dim")?;
    let mut sizes = *first.sizes();
    sizes[d] = 0;
    for (i, t) in tensors.iter().enumerate().filter(|(_, t)| !skipped(t)) {
        let same = t.rank() == sizes.rank() && (0..sizes.rank()).all(|k| k == d || t.sizes()[k] == sizes[k]);
        if !same {
            return Err(KernelError::invalid(
                "tensors",
                format!(
                    "tensor {i} of {} does not join {} along dimension {d}",
                    t.sizes(),
                    first.sizes()
                ),
            ));
        }
        sizes[d] = sizes[d].saturating_add(t.sizes()[d]);
    }
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(&sizes)?;
    let strides = out.strides();
    let mut window = View::all(&sizes, &strides);
    for t in tensors.iter().filter(|t| !skipped(t)) {
        place(t, out, &window)?;
        window.offset = window
            .offset
            .wrapping_add(t.sizes()[d].wrapping_mul(strides[d]) as usize);
    }
    Ok(())
}

fn stack(call: &mut Call) -> Result<(), KernelError> {
    let tensors = call.tensors(0)?;
    let dim = call.int(1)?;
    let dtype = promoted(tensors)?;
    let Some(first) = tensors.first() else {
        return Err(KernelError::invalid("tensors", "an empty list"));
    };
    let mut sizes = *first.sizes();
    let too_deep = |error| KernelError::invalid("tensors", format!("{error}"));
    sizes.push(tensors.len() as i64).map_err(too_deep)?;
    let d = dim_of(&sizes, dim, "dim")?;
    sizes = *first.sizes();
    sizes.insert(d, tensors.len() as i64).map_err(too_deep)?;
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(&sizes)?;
    let strides = out.strides();
    for (i, t) in tensors.iter().enumerate() {
        if t.sizes() != first.sizes() {
            return Err(KernelError::invalid(
                "tensors",
                format!("tensor {i} is {}, the first is {}", t.sizes(), first.sizes()),
            ));
        }
        let window = View::all(&sizes, &strides).select(d as i64, i as i64)?;
        place(t, out, &window)?;
    }
    Ok(())
}

/// Writes consecutive parts of dimension `dim`, one to each output.
fn write_parts(call: &mut Call, dim: i64, lengths: impl Iterator<Item = i64>) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let whole = View::all(source.sizes(), source.strides());
    let mut start = 0i64;
    let mut index = 0usize;
    for length in lengths {
        let end = start.saturating_add(length);
        let view = whole.slice(dim, Some(start), Some(end), 1)?;
        fetch(&source, &view, call.out(index)?)?;
        start = end;
        index += 1;
    }
    if index != call.outs.len() {
        return Err(KernelError::invalid(
            "out",
            format!("{} outputs for {index} parts", call.outs.len()),
        ));
    }
    Ok(())
}

fn split_copy(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let (length, dim) = (call.int(1)?, call.int(2)?);
    let d = dim_of(source.sizes(), dim, "dim")?;
    let size = source.sizes().get(d).copied().unwrap_or(0);
    if length < 0 || (length == 0 && size != 0) {
        return Err(KernelError::invalid(
            "split_size",
            format!("parts of {length} of dimension {d} of size {size}"),
        ));
    }
    let parts = if length == 0 {
        1
    } else {
        (size / length + i64::from(size % length != 0)).max(1)
    };
    write_parts(call, dim, (0..parts).map(|i| length.min(size - i * length)))
}

fn split_with_sizes_copy(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let (lengths, dim) = (call.ints(1)?, call.int(2)?);
    let d = dim_of(source.sizes(), dim, "dim")?;
    let size = source.sizes().get(d).copied().unwrap_or(0);
    let total = lengths
        .iter()
        .try_fold(0i64, |sum, &n| if n < 0 { None } else { sum.checked_add(n) });
    if total != Some(size) {
        return Err(KernelError::invalid(
            "split_sizes",
            format!("sizes {lengths:?} do not add up to dimension {d} of size {size}"),
        ));
    }
    write_parts(call, dim, lengths.iter().copied())
}

fn unbind_copy(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let dim = call.int(1)?;
    let d = dim_of(source.sizes(), dim, "dim")?;
    let Some(&size) = source.sizes().get(d) else {
        return Err(KernelError::invalid("self", "a 0-dim tensor cannot be taken apart"));
    };
    if size != call.outs.len() as i64 {
        return Err(KernelError::invalid(
            "out",
            format!("{} outputs for {size} parts", call.outs.len()),
        ));
    }
    for i in 0..size {
        let view = View::all(source.sizes(), source.strides()).select(dim, i)?;
        fetch(&source, &view, call.out(i as usize)?)?;
    }
    Ok(())
}

fn repeat(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let repeats = dims_of(call.ints(1)?, "repeats")?;
    let Some(new) = repeats.rank().checked_sub(source.rank()) else {
        return Err(KernelError::invalid(
            "repeats",
            format!(
                "{} repeats for a tensor of {} dimensions",
                repeats.rank(),
                source.rank()
            ),
        ));
    };
    let size_of = |d: usize| d.checked_sub(new).map_or(1, |k| source.sizes()[k]);
    let mut sizes = repeats;
    for d in 0..sizes.rank() {
        sizes[d] = sizes[d].saturating_mul(size_of(d));
    }
    let sizes = dims_of(&sizes, "repeats")?;
    fetch_axes(&source, &sizes, call.out(0)?, |strides| {
        let mut axes = [Axis::default(); 2 * MAX_RANK];
        for d in 0..repeats.rank() {
            let stride = strides[d] as isize;
            axes[2 * d] = Axis {
                size: repeats[d] as usize,
                src: 0,
                dst: stride * size_of(d) as isize,
            };
            axes[2 * d + 1] = Axis {
                size: size_of(d) as usize,
                src: d.checked_sub(new).map_or(0, |k| source.strides()[k] as isize),
                dst: stride,
            };
        }
        (axes, 2 * repeats.rank())
    })
}

/// The shape of the last three dimensions (channels, rows, columns) and a factor that must be positive.
fn image(source: &Tensor, factor: i64, argument: &'static str) -> Result<(usize, [i64; 3], i64), KernelError> {
    let Some(first) = source.rank().checked_sub(3) else {
        return Err(KernelError::invalid(
            "self",
            format!("a tensor of {} is no image", source.sizes()),
        ));
    };
    match factor.checked_mul(factor) {
        Some(square) if factor > 0 => {
            let s = source.sizes();
            Ok((first, [s[first], s[first + 1], s[first + 2]], square))
        }
        _ => Err(KernelError::invalid(argument, format!("a factor of {factor}"))),
    }
}

/// The leading axes of a tensor and an output whose leading dimensions are the same, then `last`.
fn leading<const N: usize>(
    source: &Tensor,
    strides: &Dims,
    first: usize,
    last: [Axis; N],
) -> ([Axis; 2 * MAX_RANK], usize) {
    let mut axes = [Axis::default(); 2 * MAX_RANK];
    for d in 0..first {
        axes[d] = Axis {
            size: source.sizes()[d] as usize,
            src: source.strides()[d] as isize,
            dst: strides[d] as isize,
        };
    }
    axes[first..first + N].copy_from_slice(&last);
    (axes, first + N)
}

fn axis(size: i64, src: i64, dst: i64) -> Axis {
    Axis {
        size: size as usize,
        src: src as isize,
        dst: dst as isize,
    }
}

fn pixel_shuffle(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let factor = call.int(1)?;
    let (first, [channels, rows, columns], square) = image(&source, factor, "upscale_factor")?;
    if channels % square != 0 {
        return Err(KernelError::invalid(
            "self",
            format!("{channels} channels are no multiple of {square}"),
        ));
    }
    let mut sizes = *source.sizes();
    sizes[first] = channels / square;
    sizes[first + 1] = rows.saturating_mul(factor);
    sizes[first + 2] = columns.saturating_mul(factor);
    fetch_axes(&source, &sizes, call.out(0)?, |dst| {
        let src = &source.strides()[first..];
        let dst_image = &dst[first..];
        leading(
            &source,
            dst,
            first,
            [
                axis(channels / square, src[0] * square, dst_image[0]),
                axis(factor, src[0] * factor, dst_image[1]),
                axis(factor, src[0], dst_image[2]),
                axis(rows, src[1], dst_image[1] * factor),
                axis(columns, src[2], dst_image[2] * factor),
            ],
        )
    })
}

fn pixel_unshuffle(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let factor = call.int(1)?;
    let (first, [channels, rows, columns], square) = image(&source, factor, "downscale_factor")?;
    if rows % factor != 0 || columns % factor != 0 {
        return Err(KernelError::invalid(
            "self",
            format!("{rows}x{columns} is no multiple of {factor}"),
        ));
    }
    let mut sizes = *source.sizes();
    sizes[first] = channels.saturating_mul(square);
    sizes[first + 1] = rows / factor;
    sizes[first + 2] = columns / factor;
    fetch_axes(&source, &sizes, call.out(0)?, |dst| {
        let src = &source.strides()[first..];
        let dst_image = &dst[first..];
        leading(
            &source,
            dst,
            first,
            [
                axis(channels, src[0], dst_image[0] * square),
                axis(factor, src[1], dst_image[0] * factor),
                axis(factor, src[2], dst_image[0]),
                axis(rows / factor, src[1] * factor, dst_image[1]),
                axis(columns / factor, src[2] * factor, dst_image[2]),
            ],
        )
    })
}

fn channel_shuffle(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let groups = call.int(1)?;
    if source.rank() < 3 || groups <= 0 || source.sizes()[1] % groups != 0 {
        return Err(KernelError::invalid(
            "groups",
            format!("{groups} groups of a tensor of {}", source.sizes()),
        ));
    }
    let in_group = source.sizes()[1] / groups;
    fetch_axes(&source, source.sizes(), call.out(0)?, |dst| {
        let mut axes = [Axis::default(); 2 * MAX_RANK];
        let mut used = 0;
        let mut add = |item: Axis| {
            axes[used] = item;
            used += 1;
        };
        for d in 0..source.rank() {
            let (src, dst) = (source.strides()[d], dst[d]);
            if d == 1 {
                add(axis(groups, src * in_group, dst));
                add(axis(in_group, src, dst * groups));
            } else {
                add(axis(source.sizes()[d], src, dst));
            }
        }
        (axes, used)
    })
}

/// Copies argument 0 to the output, then argument 1 into the window of it.
fn write_window(call: &mut Call, window: impl FnOnce(View) -> Result<View, KernelError>) -> Result<(), KernelError> {
    let (source, update) = (call.tensor(0)?, call.tensor(1)?);
    let out = call.out(0)?;
    fetch(&source, &View::all(source.sizes(), source.strides()), out)?;
    let window = window(View::all(source.sizes(), &out.strides()))?;
    if window.sizes != *update.sizes() {
        return Err(KernelError::invalid(
            "src",
            format!("{} does not fit the window of {}", update.sizes(), window.sizes),
        ));
    }
    place(&update, out, &window)
}

fn select_scatter(call: &mut Call) -> Result<(), KernelError> {
    let (dim, index) = (call.int(2)?, call.int(3)?);
    write_window(call, |view| view.select(dim, index))
}

fn slice_scatter(call: &mut Call) -> Result<(), KernelError> {
    let (dim, start, end, step) = (call.int(2)?, call.optional_int(3)?, call.optional_int(4)?, call.int(5)?);
    write_window(call, |view| view.slice(dim, start, end, step))
}

fn diagonal_scatter(call: &mut Call) -> Result<(), KernelError> {
    let (offset, dim1, dim2) = (call.int(2)?, call.int(3)?, call.int(4)?);
    write_window(call, |view| view.diagonal(offset, dim1, dim2))
}

fn diag_embed(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let (offset, dim1, dim2) = (call.int(1)?, call.int(2)?, call.int(3)?);
    let Some((&length, batch)) = source.sizes().split_last() else {
        return Err(KernelError::invalid("self", "a 0-dim tensor has no diagonal"));
    };
    let side = length.saturating_add(offset.saturating_abs());
    let mut sizes = dims_of(batch, "self")?;
    let too_deep = |error| KernelError::invalid("self", format!("{error}"));
    let mut whole = sizes;
    whole.push(side).and_then(|()| whole.push(side)).map_err(too_deep)?;
    let (d1, d2) = (dim_of(&whole, dim1, "dim1")?, dim_of(&whole, dim2, "dim2")?);
    if d1 == d2 {
        return Err(KernelError::invalid("dim2", format!("dimension {d1} is given twice")));
    }
    sizes
        .insert(d1.min(d2), side)
        .and_then(|()| sizes.insert(d1.max(d2), side))
        .map_err(too_deep)?;
    let sizes = dims_of(&sizes, "offset")?;
    let out = call.out(0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&sizes)?;
    out.bytes_mut().fill(0);
    let window = View::all(&sizes, &out.strides()).diagonal(offset, d1 as i64, d2 as i64)?;
    place(&source, out, &window)
}

fn block_diag(call: &mut Call) -> Result<(), KernelError> {
    let tensors = call.tensors(0)?;
    let dtype = promoted(tensors)?;
    let shape = |t: &Tensor| match *t.sizes().as_slice() {
        [] => Ok((1, 1)),
        [columns] => Ok((1, columns)),
        [rows, columns] => Ok((rows, columns)),
        _ => Err(KernelError::invalid(
            "tensors",
            format!("a tensor of {} is no block", t.sizes()),
        )),
    };
    let mut total = (0i64, 0i64);
    for t in tensors {
        let (rows, columns) = shape(t)?;
        total = (total.0.saturating_add(rows), total.1.saturating_add(columns));
    }
    let sizes = dims_of(&[total.0, total.1], "tensors")?;
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(&sizes)?;
    out.bytes_mut().fill(0);
    let strides = out.strides();
    let mut at = (0i64, 0i64);
    for t in tensors {
        let (rows, columns) = shape(t)?;
        let mut window = View::all(t.sizes(), &Dims::filled(t.rank(), 0));
        window.strides.copy_from_slice(&strides[2 - t.rank()..]);
        window.offset =
            at.0.wrapping_mul(strides[0])
                .wrapping_add(at.1.wrapping_mul(strides[1])) as usize;
        place(t, out, &window)?;
        at = (at.0 + rows, at.1 + columns);
    }
    Ok(())
}

/// Fills with the value, then copies what is left of the input after cropping (a negative pad crops).
fn constant_pad_nd(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let (pad, value) = (call.ints(1)?, call.scalar(2)?);
    let rank = source.rank();
    if pad.len() % 2 != 0 || pad.len() / 2 > rank {
        return Err(KernelError::invalid(
            "pad",
            format!("{} pads for a tensor of {}", pad.len(), source.sizes()),
        ));
    }
    let mut sizes = *source.sizes();
    let mut inner = View::all(source.sizes(), source.strides());
    let mut start = [0i64; MAX_RANK];
    for (i, pair) in pad.chunks_exact(2).enumerate() {
        let d = rank - 1 - i;
        let (before, after) = (pair[0], pair[1]);
        sizes[d] = sizes[d].saturating_add(before).saturating_add(after);
        if sizes[d] < 0 {
            return Err(KernelError::invalid(
                "pad",
                format!(
                    "pads {before} and {after} crop more than dimension {d} of size {}",
                    source.sizes()[d]
                ),
            ));
        }
        let size = source.sizes()[d];
        let from = before.saturating_neg().clamp(0, size);
        let to = size.saturating_add(after.min(0)).clamp(from, size);
        inner = inner.slice(d as i64, Some(from), Some(to), 1)?;
        start[d] = before.max(0);
    }
    let sizes = dims_of(&sizes, "pad")?;
    let out = call.out(0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&sizes)?;
    fill(out, value)?;
    let strides = out.strides();
    let offset = (0..rank).fold(0i64, |sum, d| sum.wrapping_add(start[d].wrapping_mul(strides[d])));
    let plan = Move::of(&inner.sizes, &inner.strides, &strides)?;
    plan.copy_bytes(
        source.dtype().size(),
        source.bytes(),
        inner.offset,
        out.bytes_mut(),
        offset as usize,
    )
}

fn tril(call: &mut Call) -> Result<(), KernelError> {
    triangle(call, true)
}

fn triu(call: &mut Call) -> Result<(), KernelError> {
    triangle(call, false)
}

/// Zeros, then each row's part of the triangle.
fn triangle(call: &mut Call, lower: bool) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let diagonal = call.int(1)?;
    let rank = source.rank();
    if rank < 2 {
        return Err(KernelError::invalid(
            "self",
            format!("a tensor of {} has no triangle", source.sizes()),
        ));
    }
    let out = call.out(0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(source.sizes())?;
    out.bytes_mut().fill(0);
    let (rows, columns) = (source.sizes()[rank - 2], source.sizes()[rank - 1]);
    let strides = out.strides();
    for row in 0..rows {
        // Columns up to `row + diagonal` are the lower triangle; from there on the upper one.
        let (from, to) = match lower {
            true => (0, row.saturating_add(diagonal).saturating_add(1).clamp(0, columns)),
            false => (row.saturating_add(diagonal).clamp(0, columns), columns),
        };
        if from >= to {
            continue;
        }
        let pick = |strides: &Dims| {
            View::all(source.sizes(), strides)
                .select(rank as i64 - 2, row)
                .and_then(|view| view.slice(-1, Some(from), Some(to), 1))
        };
        let (src, dst) = (pick(source.strides())?, pick(&strides)?);
        Move::of(&src.sizes, &src.strides, &dst.strides)?.copy_bytes(
            source.dtype().size(),
            source.bytes(),
            src.offset,
            out.bytes_mut(),
            dst.offset,
        )?;
    }
    Ok(())
}
