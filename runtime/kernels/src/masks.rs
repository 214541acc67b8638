//! Operators whose result's size depends on the data: elements found, selected or repeated by their values.

use crate::combine::Combine;
use crate::embedding::Offsets;
use crate::registry::Kernel;
use crate::remap::index_at;
use crate::stage::{Arena, bytes_of, dims_of, expect_dtype, parts, store};
use crate::strided::Move;
use crate::views::{View, expanded};
use crate::wide::convert;
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::nonzero.out", nonzero),
    ("aten::nonzero_static.out", nonzero_static),
    ("aten::masked_select.out", masked_select),
    ("aten::masked_scatter.out", masked_scatter),
    ("aten::repeat_interleave.Tensor_out", repeat_interleave),
];

/// The truth of each element, row-major.
fn truths<'s>(tensor: &Tensor, arena: &mut Arena<'s>) -> Result<&'s [u8], KernelError> {
    let flags = arena.take::<u8>(tensor.numel())?;
    let plan = Move::of(tensor.sizes(), tensor.strides(), &tensor.sizes().contiguous_strides())?;
    convert(&plan, (tensor.dtype(), tensor.bytes(), 0), (DType::Bool, flags, 0))?;
    for flag in flags.iter_mut() {
        *flag = u8::from(*flag != 0);
    }
    Ok(flags)
}

fn nonzero(call: &mut Call) -> Result<(), KernelError> {
    find(call, None)
}

fn nonzero_static(call: &mut Call) -> Result<(), KernelError> {
    let (size, fill) = (call.int(1)?, call.int(2)?);
    if size < 0 {
        return Err(KernelError::invalid("size", format!("size {size}")));
    }
    find(call, Some((size, fill)))
}

/// Positions of nonzero elements, one a row; with a fixed number of rows, cut off or filled up.
fn find(call: &mut Call, fixed: Option<(i64, i64)>) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, DType::I64)?;
    let (numel, rank) = (source.numel(), source.rank());
    // The flags first, to know the size; then they are made again beside the positions.
    let found = truths(&source, &mut Arena::new(scratch, bytes_of::<u8>(numel))?)?
        .iter()
        .filter(|&&f| f != 0)
        .count();
    let rows = fixed.map_or(found as i64, |(size, _)| size);
    let sizes = dims_of(&[rows, rank as i64], "size")?;
    out.resize(&sizes)?;
    let items = sizes.numel().unwrap_or(0);
    let mut arena = Arena::new(scratch, bytes_of::<u8>(numel).saturating_add(bytes_of::<i64>(items)))?;
    let flags = truths(&source, &mut arena)?;
    let positions = arena.take::<i64>(items)?;
    positions.fill(fixed.map_or(0, |(_, fill)| fill));
    let trues = flags.iter().enumerate().filter(|&(_, &flag)| flag != 0).map(|(i, _)| i);
    if rank > 0 {
        for (row, mut linear) in positions.chunks_exact_mut(rank).zip(trues) {
            for d in (0..rank).rev() {
                let size = source.sizes()[d] as usize;
                row[d] = (linear % size) as i64;
                linear /= size;
            }
        }
    }
    store(bytemuck::cast_slice(positions), DType::I64, out)
}

/// `a` and `b` broadcast against each other.
fn together(a: &Tensor, b: &Tensor) -> Result<Dims, KernelError> {
    let sizes = a.sizes().broadcast(b.sizes());
    sizes.ok_or_else(|| KernelError::invalid("mask", format!("{} does not broadcast with {}", b.sizes(), a.sizes())))
}

/// The mask broadcast to `sizes`, as flags.
fn mask_flags<'s>(mask: &Tensor, sizes: &Dims, arena: &mut Arena<'s>) -> Result<&'s [u8], KernelError> {
    if !matches!(mask.dtype(), DType::Bool | DType::U8) {
        return Err(KernelError::invalid(
            "mask",
            format!("a mask of dtype {}", mask.dtype()),
        ));
    }
    let flags = arena.take::<u8>(sizes.numel().unwrap_or(0))?;
    let view = expanded(&View::all(mask.sizes(), mask.strides()), sizes)?;
    Move::of(&view.sizes, &view.strides, &sizes.contiguous_strides())?.copy(mask.bytes(), 0, flags, 0)?;
    Ok(flags)
}

fn masked_select(call: &mut Call) -> Result<(), KernelError> {
    let (source, mask) = (call.tensor(0)?, call.tensor(1)?);
    let sizes = dims_of(&together(&source, &mask)?, "mask")?;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, source.dtype())?;
    let mut arena = Arena::new(scratch, bytes_of::<u8>(sizes.numel().unwrap_or(0)))?;
    let flags = mask_flags(&mask, &sizes, &mut arena)?;
    let count = flags.iter().filter(|&&flag| flag != 0).count();
    out.resize(&dims_of(&[count as i64], "mask")?)?;
    let view = expanded(&View::all(source.sizes(), source.strides()), &sizes)?;
    let chosen = Offsets::new(&view.sizes, &view.strides)
        .zip(flags)
        .filter(|&(_, &flag)| flag != 0);
    let pairs = chosen.enumerate().map(|(to, (from, _))| Ok((from, to)));
    Combine::Assign.run(source.dtype(), source.bytes(), out.bytes_mut(), pairs)
}

fn masked_scatter(call: &mut Call) -> Result<(), KernelError> {
    let (like, mask, source) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    if source.dtype() != like.dtype() {
        return Err(KernelError::invalid(
            "source",
            format!("dtype {} for a tensor of {}", source.dtype(), like.dtype()),
        ));
    }
    let sizes = dims_of(&together(&like, &mask)?, "mask")?;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, like.dtype())?;
    out.resize(&sizes)?;
    crate::copies::assign(&like, out)?;
    let mut arena = Arena::new(scratch, bytes_of::<u8>(sizes.numel().unwrap_or(0)))?;
    let flags = mask_flags(&mask, &sizes, &mut arena)?;
    let count = flags.iter().filter(|&&flag| flag != 0).count();
    if count > source.numel() {
        return Err(KernelError::invalid(
            "source",
            format!("{} elements for {count} places", source.numel()),
        ));
    }
    let strides = out.strides();
    let places = Offsets::new(&sizes, &strides)
        .zip(flags)
        .filter(|&(_, &flag)| flag != 0);
    let pairs = Offsets::of(&source).zip(places).map(|(from, (to, _))| Ok((from, to)));
    Combine::Assign.run(source.dtype(), source.bytes(), out.bytes_mut(), pairs)
}

/// `repeats[i]` times the number `i`.
fn repeat_interleave(call: &mut Call) -> Result<(), KernelError> {
    let (repeats, size) = (call.tensor(0)?, call.optional_int(1)?);
    if repeats.rank() != 1 {
        return Err(KernelError::invalid(
            "repeats",
            format!("a tensor of {} is no list", repeats.sizes()),
        ));
    }
    let mut total = 0i64;
    for at in Offsets::of(&repeats) {
        let times = index_at(&repeats, at, "repeats")?;
        if times < 0 {
            return Err(KernelError::invalid("repeats", format!("{times} repeats")));
        }
        total = total.saturating_add(times);
    }
    if size.is_some_and(|size| size != total) {
        return Err(KernelError::invalid(
            "output_size",
            format!("a size other than {total}, the sum of the repeats"),
        ));
    }
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, repeats.dtype())?;
    let sizes = dims_of(&[total], "repeats")?;
    out.resize(&sizes)?;
    let mut arena = Arena::new(scratch, bytes_of::<i64>(total as usize))?;
    let numbers = arena.take::<i64>(total as usize)?;
    let mut done = 0usize;
    for (i, at) in Offsets::of(&repeats).enumerate() {
        let end = done + index_at(&repeats, at, "repeats")? as usize;
        numbers[done..end].fill(i as i64);
        done = end;
    }
    store(bytemuck::cast_slice(numbers), DType::I64, out)
}
