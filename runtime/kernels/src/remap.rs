//! Operators whose output element at (i, j, …) is the input element at (a[i], b[j], …): one table for each dimension.
//!
//! Padding by reflection or replication, rolling, selecting by index, and upsampling to the nearest element.

use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, count, dim_of, dims_of, expect_dtype, parts};
use crate::strided::{words, words_mut};
use crate::upsample::{Spatial, nearest_index};
use crate::{Call, KernelError, Out, Scratch, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims, MAX_RANK};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::reflection_pad1d.out", reflection_pad::<1>),
    ("aten::reflection_pad2d.out", reflection_pad::<2>),
    ("aten::reflection_pad3d.out", reflection_pad::<3>),
    ("aten::replication_pad1d.out", replication_pad::<1>),
    ("aten::replication_pad2d.out", replication_pad::<2>),
    ("aten::replication_pad3d.out", replication_pad::<3>),
    ("aten::roll.out", roll),
    ("aten::index_select.out", index_select),
    ("aten::upsample_nearest1d.out", nearest::<1, false>),
    ("aten::upsample_nearest2d.out", nearest::<2, false>),
    ("aten::upsample_nearest3d.out", nearest::<3, false>),
    ("aten::_upsample_nearest_exact1d.out", nearest::<1, true>),
    ("aten::_upsample_nearest_exact2d.out", nearest::<2, true>),
    ("aten::_upsample_nearest_exact3d.out", nearest::<3, true>),
    ("aten::upsample_nearest2d.vec_out", nearest_vec::<2, false>),
];

/// Sizes the output and gathers: `place(d, i)` is the input index in dimension `d` of output index `i`.
///
/// # Errors
/// `place` fails or gives an index out of range; the output has another dtype or does not fit.
pub(crate) fn remap(
    source: &Tensor,
    sizes: &Dims,
    (out, scratch): (&mut Out, &mut Scratch),
    mut place: impl FnMut(usize, i64) -> Result<i64, KernelError>,
) -> Result<(), KernelError> {
    expect_dtype(out, 0, source.dtype())?;
    out.resize(sizes)?;
    if sizes.numel() == Some(0) {
        return Ok(());
    }
    let mut total = 0usize;
    for &size in sizes.iter() {
        total = total.saturating_add(bytes_of::<usize>(count(&[size])));
    }
    let mut arena = Arena::new(scratch, total)?;
    let mut tables: [&[usize]; MAX_RANK] = [&[]; MAX_RANK];
    for d in 0..sizes.rank() {
        let table = arena.take::<usize>(count(&[sizes[d]]))?;
        for (i, slot) in table.iter_mut().enumerate() {
            let at = place(d, i as i64)?;
            if !(0..source.sizes()[d]).contains(&at) {
                return Err(KernelError::invalid(
                    "self",
                    format!(
                        "index {at} is out of range for dimension {d} of size {}",
                        source.sizes()[d]
                    ),
                ));
            }
            *slot = (at * source.strides()[d]) as usize;
        }
        tables[d] = table;
    }
    let tables = &tables[..sizes.rank()];
    let strides = out.strides();
    match source.dtype().size() {
        1 => gather::<u8>(source.bytes(), out.bytes_mut(), tables, &strides),
        2 => gather::<u16>(source.bytes(), out.bytes_mut(), tables, &strides),
        4 => gather::<u32>(source.bytes(), out.bytes_mut(), tables, &strides),
        8 if source.dtype() == DType::C64 => gather::<[u32; 2]>(source.bytes(), out.bytes_mut(), tables, &strides),
        16 => gather::<[u64; 2]>(source.bytes(), out.bytes_mut(), tables, &strides),
        _ => gather::<u64>(source.bytes(), out.bytes_mut(), tables, &strides),
    }
}

/// Tables hold offsets in elements of the source, each within the tensor's extent.
fn gather<E: bytemuck::Pod>(
    src: &[u8],
    dst: &mut [u8],
    tables: &[&[usize]],
    strides: &Dims,
) -> Result<(), KernelError> {
    let (src, dst): (&[E], &mut [E]) = (words(src)?, words_mut(dst)?);
    let (inner, outer) = match tables.split_last() {
        Some((inner, outer)) => (*inner, outer),
        None => (&[0usize][..], tables),
    };
    let step = strides.last().map_or(1, |&s| s as usize);
    let consecutive = step == 1 && inner.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let mut index = [0usize; MAX_RANK];
    loop {
        let from: usize = outer.iter().zip(&index).map(|(table, &i)| table[i]).sum();
        let to: usize = outer
            .iter()
            .enumerate()
            .map(|(d, _)| index[d] * strides[d] as usize)
            .sum();
        if consecutive {
            let start = from + inner[0];
            dst[to..to + inner.len()].copy_from_slice(&src[start..start + inner.len()]);
        } else {
            for (i, &offset) in inner.iter().enumerate() {
                dst[to + i * step] = src[from + offset];
            }
        }
        let mut d = outer.len();
        loop {
            if d == 0 {
                return Ok(());
            }
            d -= 1;
            index[d] += 1;
            if index[d] < outer[d].len() {
                break;
            }
            index[d] = 0;
        }
    }
}

/// Pads the last `N` dimensions; `place(index, size)` folds an index outside of `0..size` into it.
fn pad<const N: usize>(
    call: &mut Call,
    limit: impl Fn(i64) -> i64,
    place: impl Fn(i64, i64) -> i64,
) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let padding = call.ints(1)?;
    let rank = source.rank();
    if padding.len() != 2 * N || !(N + 1..=N + 2).contains(&rank) {
        return Err(KernelError::invalid(
            "padding",
            format!(
                "{} pads for {N} dimensions of a tensor of {}",
                padding.len(),
                source.sizes()
            ),
        ));
    }
    let mut sizes = *source.sizes();
    let mut before = [0i64; MAX_RANK];
    for (i, pair) in padding.chunks_exact(2).enumerate() {
        let d = rank - 1 - i;
        let size = sizes[d];
        if pair.iter().any(|&p| p > limit(size)) || size == 0 {
            return Err(KernelError::invalid(
                "padding",
                format!("pads {} and {} for dimension {d} of size {size}", pair[0], pair[1]),
            ));
        }
        before[d] = pair[0];
        sizes[d] = size.saturating_add(pair[0]).saturating_add(pair[1]);
        if sizes[d] < 1 {
            return Err(KernelError::invalid(
                "padding",
                format!("nothing is left of dimension {d} of size {size}"),
            ));
        }
    }
    let sizes = dims_of(&sizes, "padding")?;
    remap(&source, &sizes, parts(call, 0)?, |d, i| {
        Ok(place(i - before[d], source.sizes()[d]))
    })
}

fn reflection_pad<const N: usize>(call: &mut Call) -> Result<(), KernelError> {
    pad::<N>(
        call,
        |size| size - 1,
        |at, size| {
            let at = at.abs();
            if at >= size { 2 * (size - 1) - at } else { at }
        },
    )
}

fn replication_pad<const N: usize>(call: &mut Call) -> Result<(), KernelError> {
    pad::<N>(call, |_| i64::MAX / 4, |at, size| at.clamp(0, size - 1))
}

fn roll(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let (shifts, dims) = (call.ints(1)?, call.ints(2)?);
    let sizes = *source.sizes();
    if dims.is_empty() {
        // The flattened tensor is rolled.
        let &[shift] = shifts else {
            return Err(KernelError::invalid(
                "shifts",
                format!("{} shifts without dimensions", shifts.len()),
            ));
        };
        let numel = source.numel();
        let (out, scratch) = parts(call, 0)?;
        expect_dtype(out, 0, source.dtype())?;
        out.resize(&sizes)?;
        if numel == 0 {
            return Ok(());
        }
        let width = source.dtype().size();
        let bytes = numel * width;
        let mut flat = Arena::new(scratch, 2 * bytes_of::<u8>(bytes))?;
        let (row_major, rolled) = (flat.take::<u8>(bytes)?, flat.take::<u8>(bytes)?);
        crate::strided::Move::of(&sizes, source.strides(), &sizes.contiguous_strides())?.copy_bytes(
            width,
            source.bytes(),
            0,
            row_major,
            0,
        )?;
        let split = shift.rem_euclid(numel as i64) as usize * width;
        rolled[split..].copy_from_slice(&row_major[..bytes - split]);
        rolled[..split].copy_from_slice(&row_major[bytes - split..]);
        return crate::stage::store(rolled, source.dtype(), out);
    }
    if shifts.len() != dims.len() {
        return Err(KernelError::invalid(
            "shifts",
            format!("{} shifts for {} dimensions", shifts.len(), dims.len()),
        ));
    }
    let mut shift_of = [0i64; MAX_RANK];
    for (&shift, &dim) in shifts.iter().zip(dims) {
        let d = dim_of(&sizes, dim, "dims")?;
        let size = sizes.get(d).copied().unwrap_or(1).max(1);
        shift_of[d] = (shift_of[d] + shift.rem_euclid(size)) % size;
    }
    remap(&source, &sizes, parts(call, 0)?, |d, i| {
        Ok((i - shift_of[d]).rem_euclid(sizes[d]))
    })
}

/// The integer at `index` of a tensor of int32 or int64.
///
/// # Errors
/// It has another dtype.
pub(crate) fn index_at(tensor: &Tensor, offset: usize, argument: &'static str) -> Result<i64, KernelError> {
    let value = match tensor.dtype() {
        DType::I64 => tensor.data::<i64>().and_then(|data| data.get(offset)).copied(),
        DType::I32 => tensor
            .data::<i32>()
            .and_then(|data| data.get(offset))
            .map(|&i| i64::from(i)),
        other => return Err(KernelError::invalid(argument, format!("indices of dtype {other}"))),
    };
    value.ok_or_else(|| KernelError::invalid(argument, "an index outside of its memory"))
}

fn index_select(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let (dim, index) = (call.int(1)?, call.tensor(2)?);
    let d = dim_of(source.sizes(), dim, "dim")?;
    if index.rank() > 1 {
        return Err(KernelError::invalid(
            "index",
            format!("a tensor of {} is no list of indices", index.sizes()),
        ));
    }
    let length = index.numel() as i64;
    let stride = index.strides().first().map_or(0, |&s| s as usize);
    let mut sizes = *source.sizes();
    if sizes.rank() == 0 {
        for i in 0..index.numel() {
            if index_at(&index, i * stride, "index")? != 0 {
                return Err(KernelError::invalid("index", "a 0-dim tensor has only index 0"));
            }
        }
        if length != 1 {
            return Err(KernelError::invalid(
                "index",
                format!("{length} indices of a 0-dim tensor"),
            ));
        }
    } else {
        sizes[d] = length;
    }
    let sizes = dims_of(&sizes, "index")?;
    remap(&source, &sizes, parts(call, 0)?, |k, i| match k == d {
        true => {
            let at = index_at(&index, i as usize * stride, "index")?;
            let size = source.sizes()[d];
            if (0..size).contains(&at) {
                return Ok(at);
            }
            Err(KernelError::invalid(
                "index",
                format!("index {at} is out of range for dimension {d} of size {size}"),
            ))
        }
        false => Ok(i),
    })
}

fn nearest<const N: usize, const EXACT: bool>(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let spatial = Spatial::<N>::from_size(&source, call, 1, 2)?;
    nearest_of::<N, EXACT>(call, source, spatial)
}

fn nearest_vec<const N: usize, const EXACT: bool>(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let spatial = Spatial::<N>::from_size_or_factors(&source, call, 1, 2)?;
    nearest_of::<N, EXACT>(call, source, spatial)
}

fn nearest_of<const N: usize, const EXACT: bool>(
    call: &mut Call,
    source: Tensor,
    spatial: Spatial<N>,
) -> Result<(), KernelError> {
    let sizes = spatial.sizes(&source)?;
    remap(&source, &sizes, parts(call, 0)?, |d, i| match d.checked_sub(2) {
        None => Ok(i),
        Some(k) => Ok(nearest_index(i, source.sizes()[d], spatial.ratio(&source, k), EXACT)),
    })
}
