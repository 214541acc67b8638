//! Indexing by tensors as Python writes it: `x[i, :, mask]`, read and written.
//!
//! Each index tensor adds to the offset of an element: an integer one the stride times its value, a mask the offsets of its true
//! elements. The sums are made once; the dimensions that are not indexed are one [`Move`] for each of them.

use crate::combine::Combine;
use crate::embedding::Offsets;
use crate::registry::Kernel;
use crate::remap::index_at;
use crate::scatter::start_from;
use crate::stage::{Arena, bytes_of, dims_of, expect_dtype, parts};
use crate::strided::Move;
use crate::views::{View, expanded};
use crate::{Call, KernelError, Out, Scratch, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims, MAX_RANK};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::index.Tensor_out", index),
    ("aten::index_put.out", index_put),
    ("aten::index_put_", index_put_in_place),
];

/// What an index expression does with the dimensions of a tensor.
struct Shape {
    /// Broadcast of the index tensors; masks count as one dimension.
    indices: Dims,
    /// Sizes of the result.
    result: Dims,
    /// Where in the result the dimensions of `indices` are.
    place: usize,
    /// The tensor's dimensions that no index takes.
    kept: [usize; MAX_RANK],
    kept_len: usize,
    /// First dimension of the tensor for each index tensor.
    first: [usize; MAX_RANK],
    /// Bytes that the offsets take in the arena.
    bytes: usize,
}

fn is_mask(index: &Tensor) -> bool {
    matches!(index.dtype(), DType::Bool | DType::U8)
}

/// Bytes of a mask, row-major or not: any nonzero one is true.
fn true_offsets<'a>(mask: &Tensor<'a>) -> impl Iterator<Item = usize> + use<'a> {
    let bytes = mask.bytes();
    Offsets::of(mask)
        .enumerate()
        .filter(move |&(_, at)| bytes.get(at).is_some_and(|&b| b != 0))
        .map(|(i, _)| i)
}

fn too_deep(error: delegraph_types::RankError) -> KernelError {
    KernelError::invalid("indices", format!("{error}"))
}

fn shape(sizes: &Dims, indices: &[Option<Tensor>]) -> Result<Shape, KernelError> {
    if indices.len() > MAX_RANK {
        return Err(KernelError::invalid("indices", format!("{} indices", indices.len())));
    }
    let mut shape = Shape {
        indices: Dims::SCALAR,
        result: Dims::SCALAR,
        place: 0,
        kept: [0; MAX_RANK],
        kept_len: 0,
        first: [0; MAX_RANK],
        bytes: 0,
    };
    // Dimensions that are indexed: their first, the end of the last run, and whether there was one run.
    let (mut run, mut adjacent) = (None::<(usize, usize)>, true);
    let mut d = 0usize;
    for (i, index) in indices.iter().enumerate() {
        let too_many = || KernelError::invalid("indices", format!("more indices than dimensions of {sizes}"));
        let Some(index) = index else {
            if d >= sizes.rank() {
                return Err(too_many());
            }
            shape.kept[shape.kept_len] = d;
            shape.kept_len += 1;
            d += 1;
            continue;
        };
        shape.first[i] = d;
        let (covers, own) = if is_mask(index) {
            if index.rank() == 0 {
                return Err(KernelError::unsupported("indices", "a 0-dim mask"));
            }
            let end = d + index.rank();
            if end > sizes.rank() || sizes[d..end] != index.sizes()[..] {
                return Err(KernelError::invalid(
                    "indices",
                    format!("a mask of {} at dimension {d} of a tensor of {sizes}", index.sizes()),
                ));
            }
            let trues = true_offsets(index).count();
            shape.bytes = shape.bytes.saturating_add(bytes_of::<usize>(trues));
            (index.rank(), Dims::new(&[trues as i64]).map_err(too_deep)?)
        } else {
            (1, *index.sizes())
        };
        if d + covers > sizes.rank() {
            return Err(too_many());
        }
        shape.indices = shape.indices.broadcast(&own).ok_or_else(|| {
            KernelError::invalid(
                "indices",
                format!("an index of {own} does not broadcast with {}", shape.indices),
            )
        })?;
        run = match run {
            None => Some((d, d + covers)),
            Some((start, end)) => {
                adjacent &= end == d;
                Some((start, d + covers))
            }
        };
        d += covers;
    }
    let Some((start, _)) = run else {
        return Err(KernelError::invalid("indices", "no index tensor"));
    };
    for rest in d..sizes.rank() {
        shape.kept[shape.kept_len] = rest;
        shape.kept_len += 1;
    }
    // Index tensors side by side: their dimensions come in place; else they come first.
    shape.place = if adjacent {
        shape.kept[..shape.kept_len].iter().filter(|&&k| k < start).count()
    } else {
        0
    };
    for k in 0..=shape.kept_len {
        if k == shape.place {
            for &size in shape.indices.iter() {
                shape.result.push(size).map_err(too_deep)?;
            }
        }
        if k < shape.kept_len {
            shape.result.push(sizes[shape.kept[k]]).map_err(too_deep)?;
        }
    }
    dims_of(&shape.result, "indices")?;
    let numel = shape.indices.numel().unwrap_or(usize::MAX);
    shape.bytes = shape.bytes.saturating_add(bytes_of::<usize>(numel));
    Ok(shape)
}

/// For each element of the broadcast index tensors, the offset that they give in a tensor of `sizes` and `strides`.
fn offsets<'s>(
    shape: &Shape,
    (sizes, strides): (&Dims, &Dims),
    indices: &[Option<Tensor<'s>>],
    scratch: &'s mut Scratch,
) -> Result<&'s [usize], KernelError> {
    let mut arena = Arena::new(scratch, shape.bytes)?;
    let sums = arena.take::<usize>(shape.indices.numel().unwrap_or(0))?;
    sums.fill(0);
    for (i, index) in indices.iter().enumerate() {
        let Some(index) = index else { continue };
        let d = shape.first[i];
        if is_mask(index) {
            let trues = arena.take::<usize>(true_offsets(index).count())?;
            let positions = Offsets::new(index.sizes(), &dims_of(&strides[d..d + index.rank()], "indices")?);
            let flags = Offsets::of(index).map(|at| index.bytes().get(at).is_some_and(|&b| b != 0));
            let found = positions
                .zip(flags)
                .filter(|&(_, flag)| flag)
                .map(|(position, _)| position);
            for (slot, position) in trues.iter_mut().zip(found) {
                *slot = position;
            }
            let view = View::all(&Dims::filled(1, trues.len() as i64), &Dims::filled(1, 1));
            let view = expanded(&view, &shape.indices)?;
            for (sum, at) in sums.iter_mut().zip(Offsets::new(&view.sizes, &view.strides)) {
                *sum += trues.get(at).copied().unwrap_or(0);
            }
        } else {
            let view = expanded(&View::all(index.sizes(), index.strides()), &shape.indices)?;
            let size = sizes[d];
            for (sum, at) in sums.iter_mut().zip(Offsets::new(&view.sizes, &view.strides)) {
                let value = index_at(index, at, "indices")?;
                let wrapped = if value < 0 { value.saturating_add(size) } else { value };
                if !(0..size).contains(&wrapped) {
                    return Err(KernelError::invalid(
                        "indices",
                        format!("index {value} is out of range for dimension {d} of size {size}"),
                    ));
                }
                *sum += (wrapped * strides[d]) as usize;
            }
        }
    }
    Ok(sums)
}

impl Shape {
    /// Sizes of the kept dimensions, with their strides in the tensor and in something of the result's sizes.
    fn kept(&self, sizes: &Dims, strides: &Dims, result_strides: &Dims) -> Result<[Dims; 3], KernelError> {
        let mut all = [Dims::SCALAR; 3];
        for (k, &d) in self.kept[..self.kept_len].iter().enumerate() {
            let in_result = if k < self.place { k } else { k + self.indices.rank() };
            for (dims, value) in all.iter_mut().zip([sizes[d], strides[d], result_strides[in_result]]) {
                dims.push(value).map_err(too_deep)?;
            }
        }
        Ok(all)
    }

    /// Offsets of the elements of the index dimensions in something of the result's sizes.
    fn places(&self, result_strides: &Dims) -> Result<Offsets, KernelError> {
        let strides = &result_strides[self.place..self.place + self.indices.rank()];
        Ok(Offsets::new(&self.indices, &Dims::new(strides).map_err(too_deep)?))
    }
}

fn index(call: &mut Call) -> Result<(), KernelError> {
    let (source, indices) = (call.tensor(0)?, call.optional_tensors(1)?);
    let shape = shape(source.sizes(), indices)?;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&shape.result)?;
    let from = offsets(&shape, (source.sizes(), source.strides()), indices, scratch)?;
    let strides = out.strides();
    let [sizes, src, dst] = shape.kept(source.sizes(), source.strides(), &strides)?;
    let plan = Move::of(&sizes, &src, &dst)?;
    for (&from, to) in from.iter().zip(shape.places(&strides)?) {
        plan.copy_bytes(source.dtype().size(), source.bytes(), from, out.bytes_mut(), to)?;
    }
    Ok(())
}

fn index_put(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    start_from(&source, call.out(0)?)?;
    index_put_in_place(call)
}

/// Argument 0 is the output.
fn index_put_in_place(call: &mut Call) -> Result<(), KernelError> {
    let (indices, values, accumulate) = (call.optional_tensors(1)?, call.tensor(2)?, call.bool(3)?);
    let (out, scratch) = parts(call, 0)?;
    put(out, scratch, indices, &values, accumulate)
}

fn put(
    out: &mut Out,
    scratch: &mut Scratch,
    indices: &[Option<Tensor>],
    values: &Tensor,
    accumulate: bool,
) -> Result<(), KernelError> {
    if values.dtype() != out.dtype() {
        return Err(KernelError::invalid(
            "values",
            format!("dtype {} for a tensor of {}", values.dtype(), out.dtype()),
        ));
    }
    let (sizes, strides) = (*out.sizes(), out.strides());
    let shape = shape(&sizes, indices)?;
    let values_view = expanded(&View::all(values.sizes(), values.strides()), &shape.result)?;
    let to = offsets(&shape, (&sizes, &strides), indices, scratch)?;
    let [kept, dst, src] = shape.kept(&sizes, &strides, &values_view.strides)?;
    let froms = shape.places(&values_view.strides)?;
    if accumulate {
        let pairs = to.iter().zip(froms).flat_map(|(&to, from)| {
            let inner = Offsets::new(&kept, &src).zip(Offsets::new(&kept, &dst));
            inner.map(move |(s, d)| Ok((from + s, to + d)))
        });
        return Combine::Add.run(values.dtype(), values.bytes(), out.bytes_mut(), pairs);
    }
    let plan = Move::of(&kept, &src, &dst)?;
    for (&to, from) in to.iter().zip(froms) {
        plan.copy_bytes(values.dtype().size(), values.bytes(), from, out.bytes_mut(), to)?;
    }
    Ok(())
}
