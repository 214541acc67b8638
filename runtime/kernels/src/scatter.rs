//! Elements moved by an index tensor along one dimension: gather, scatter with every reduction, and the `index_*` writers.

use crate::combine::Combine;
use crate::copies::assign;
use crate::embedding::Offsets;
use crate::registry::Kernel;
use crate::remap::index_at;
use crate::stage::{Arena, bytes_of, dim_of, dims_of, expect_dtype, parts};
use crate::strided::Move;
use crate::wide::{Wide, convert, encode, with_wide};
use crate::{Call, KernelError, Out, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims, Element, Scalar};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::gather.out", gather),
    ("aten::take.out", take),
    ("aten::put.out", put),
    ("aten::scatter.src_out", scatter_src),
    ("aten::scatter.value_out", scatter_value),
    ("aten::scatter.reduce_out", scatter_reduce_src),
    ("aten::scatter.value_reduce_out", scatter_reduce_value),
    ("aten::scatter_add.out", scatter_add),
    ("aten::scatter_reduce.two_out", scatter_reduce),
    ("aten::index_add.out", index_add),
    ("aten::index_copy.out", index_copy),
    ("aten::index_fill.int_Scalar_out", index_fill_scalar),
    ("aten::index_fill.int_Tensor_out", index_fill_tensor),
];

/// An index along dimension `d` of `size`; negative ones count from the end only where `wrap` says so.
fn checked(at: i64, d: usize, size: i64, wrap: bool) -> Result<i64, KernelError> {
    let index = if wrap && at < 0 { at.saturating_add(size) } else { at };
    if (0..size).contains(&index) {
        return Ok(index);
    }
    Err(KernelError::invalid(
        "index",
        format!("index {at} is out of range for dimension {d} of size {size}"),
    ))
}

/// A tensor seen along dimension `d`: its strides with that of `d` taken out. A 0-dim tensor counts as one of one element.
struct Along {
    /// Strides of the other dimensions, 0 for `d`.
    others: Dims,
    stride: i64,
    size: i64,
}

impl Along {
    fn new(sizes: &Dims, strides: &Dims, d: usize) -> Along {
        if sizes.rank() == 0 {
            return Along {
                others: Dims::SCALAR,
                stride: 0,
                size: 1,
            };
        }
        let mut others = *strides;
        others[d] = 0;
        Along {
            others,
            stride: strides[d],
            size: sizes[d],
        }
    }
}

/// Every dimension of `index` but `d` must be at most that of `other`.
fn fits(index: &Tensor, other: &Dims, d: Option<usize>, argument: &'static str) -> Result<(), KernelError> {
    let rank = |dims: &Dims| dims.rank().max(1);
    let same_rank = rank(index.sizes()) == rank(other);
    let inside = same_rank && (0..index.rank().min(other.rank())).all(|k| Some(k) == d || index.sizes()[k] <= other[k]);
    if inside || index.numel() == 0 {
        return Ok(());
    }
    Err(KernelError::invalid(
        argument,
        format!("an index of {} for a tensor of {other}", index.sizes()),
    ))
}

/// Pads strides of a 0-dim tensor for an index of one dimension, and drops them the other way round.
fn aligned(strides: &Dims, rank: usize) -> Dims {
    if strides.rank() == rank {
        *strides
    } else {
        Dims::filled(rank, 0)
    }
}

fn gather(call: &mut Call) -> Result<(), KernelError> {
    let (source, dim, index) = (call.tensor(0)?, call.int(1)?, call.tensor(2)?);
    let d = dim_of(source.sizes(), dim, "dim")?;
    fits(&index, source.sizes(), Some(d), "index")?;
    let out = call.out(0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(index.sizes())?;
    let along = Along::new(source.sizes(), source.strides(), d);
    let others = Offsets::new(index.sizes(), &aligned(&along.others, index.rank()));
    let targets = Offsets::new(index.sizes(), &out.strides());
    let pairs = Offsets::of(&index).zip(others).zip(targets).map(|((at, other), to)| {
        let step = checked(index_at(&index, at, "index")?, d, along.size, false)?;
        Ok((other + (step * along.stride) as usize, to))
    });
    Combine::Assign.run(source.dtype(), source.bytes(), out.bytes_mut(), pairs)
}

/// The offset of an element counted in row-major order.
fn offset_of(mut linear: i64, sizes: &Dims, strides: &Dims) -> usize {
    let mut offset = 0;
    for d in (0..sizes.rank()).rev() {
        offset += linear % sizes[d] * strides[d];
        linear /= sizes[d];
    }
    offset as usize
}

fn take(call: &mut Call) -> Result<(), KernelError> {
    let (source, index) = (call.tensor(0)?, call.tensor(1)?);
    let out = call.out(0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(index.sizes())?;
    let numel = source.numel() as i64;
    let targets = Offsets::new(index.sizes(), &out.strides());
    let pairs = Offsets::of(&index).zip(targets).map(|(at, to)| {
        let linear = checked(index_at(&index, at, "index")?, 0, numel, true)?;
        Ok((offset_of(linear, source.sizes(), source.strides()), to))
    });
    Combine::Assign.run(source.dtype(), source.bytes(), out.bytes_mut(), pairs)
}

fn put(call: &mut Call) -> Result<(), KernelError> {
    let (source, index, values) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let how = if call.bool(3)? { Combine::Add } else { Combine::Assign };
    if values.numel() != index.numel() {
        return Err(KernelError::invalid(
            "source",
            format!("{} for an index of {}", values.sizes(), index.sizes()),
        ));
    }
    same_dtype(&source, &values, "source")?;
    let out = call.out(0)?;
    start_from(&source, out)?;
    let strides = out.strides();
    let numel = source.numel() as i64;
    let pairs = Offsets::of(&index).zip(Offsets::of(&values)).map(|(at, from)| {
        let linear = checked(index_at(&index, at, "index")?, 0, numel, true)?;
        Ok((from, offset_of(linear, source.sizes(), &strides)))
    });
    how.run(source.dtype(), values.bytes(), out.bytes_mut(), pairs)
}

fn same_dtype(source: &Tensor, other: &Tensor, argument: &'static str) -> Result<(), KernelError> {
    if source.dtype() == other.dtype() {
        return Ok(());
    }
    Err(KernelError::invalid(
        argument,
        format!("dtype {} for a tensor of {}", other.dtype(), source.dtype()),
    ))
}

/// The output begins as a copy of `source`.
pub(crate) fn start_from(source: &Tensor, out: &mut Out) -> Result<(), KernelError> {
    expect_dtype(out, 0, source.dtype())?;
    out.resize(source.sizes())?;
    assign(source, out)
}

/// What a scatter writes.
// Made once a call and copied freely: a box would cost more than the room.
#[allow(clippy::large_enum_variant)]
enum Values<'a> {
    Tensor(Tensor<'a>),
    Number(Scalar),
}

fn scatter_src(call: &mut Call) -> Result<(), KernelError> {
    let values = Values::Tensor(call.tensor(3)?);
    scatter(call, values, Combine::Assign)
}

fn scatter_value(call: &mut Call) -> Result<(), KernelError> {
    let values = Values::Number(call.scalar(3)?);
    scatter(call, values, Combine::Assign)
}

fn scatter_reduce_src(call: &mut Call) -> Result<(), KernelError> {
    let (values, how) = (Values::Tensor(call.tensor(3)?), Combine::parse(call.str(4)?)?);
    scatter(call, values, how)
}

fn scatter_reduce_value(call: &mut Call) -> Result<(), KernelError> {
    let (values, how) = (Values::Number(call.scalar(3)?), Combine::parse(call.str(4)?)?);
    scatter(call, values, how)
}

fn scatter_add(call: &mut Call) -> Result<(), KernelError> {
    let values = Values::Tensor(call.tensor(3)?);
    scatter(call, values, Combine::Add)
}

/// `out[.., index, ..] (combined with)= values` on a copy of argument 0.
fn scatter(call: &mut Call, values: Values, how: Combine) -> Result<(), KernelError> {
    let (source, dim, index) = (call.tensor(0)?, call.int(1)?, call.tensor(2)?);
    let d = dim_of(source.sizes(), dim, "dim")?;
    fits(&index, source.sizes(), Some(d), "index")?;
    let out = call.out(0)?;
    start_from(&source, out)?;
    let (encoded, _) = match &values {
        Values::Tensor(tensor) => {
            same_dtype(&source, tensor, "src")?;
            fits(&index, tensor.sizes(), None, "src")?;
            ([0; 16], 0)
        }
        Values::Number(value) => encode(*value, source.dtype())?,
    };
    // Words, so that it is aligned for every dtype.
    let encoded: [u64; 2] = bytemuck::cast(encoded);
    let (bytes, strides) = match &values {
        Values::Tensor(tensor) => (tensor.bytes(), aligned(tensor.strides(), index.rank())),
        Values::Number(_) => (bytemuck::cast_slice(&encoded), Dims::filled(index.rank(), 0)),
    };
    let along = Along::new(source.sizes(), &out.strides(), d);
    let others = Offsets::new(index.sizes(), &aligned(&along.others, index.rank()));
    let froms = Offsets::new(index.sizes(), &strides);
    let pairs = Offsets::of(&index).zip(others).zip(froms).map(|((at, other), from)| {
        let step = checked(index_at(&index, at, "index")?, d, along.size, false)?;
        Ok((from, other + (step * along.stride) as usize))
    });
    how.run(source.dtype(), bytes, out.bytes_mut(), pairs)
}

/// `scatter_reduce`, which may leave the first value out and may average.
fn scatter_reduce(call: &mut Call) -> Result<(), KernelError> {
    let (source, dim, index) = (call.tensor(0)?, call.int(1)?, call.tensor(2)?);
    let (values, name, include_self) = (call.tensor(3)?, call.str(4)?, call.bool(5)?);
    let how = Combine::parse(name)?;
    let mean = name == "mean";
    let d = dim_of(source.sizes(), dim, "dim")?;
    fits(&index, source.sizes(), Some(d), "index")?;
    fits(&index, values.sizes(), None, "src")?;
    same_dtype(&source, &values, "src")?;
    let (out, scratch) = parts(call, 0)?;
    start_from(&source, out)?;
    let dtype = source.dtype();
    let numel = source.numel();
    with_wide!(dtype, "self", W => {
        let counts_bytes = bytes_of::<i64>(numel);
        let mut arena = Arena::new(scratch, counts_bytes.saturating_add(bytes_of::<W>(numel)))?;
        // Sums of halves are kept in f32 until the end.
        let (counts, sums) = (arena.take::<i64>(numel)?, arena.take::<W>(numel)?);
        let flat = source.sizes().contiguous_strides();
        let plan = Move::of(source.sizes(), source.strides(), &flat)?;
        convert(&plan, (dtype, source.bytes(), 0), (W::DTYPE, bytemuck::cast_slice_mut(sums), 0))?;
        counts.fill(i64::from(include_self));
        let along = Along::new(source.sizes(), &flat, d);
        let others = || Offsets::new(index.sizes(), &aligned(&along.others, index.rank()));
        let target = |at: usize, other: usize| -> Result<usize, KernelError> {
            let step = checked(index_at(&index, at, "index")?, d, along.size, false)?;
            Ok(other + (step * along.stride) as usize)
        };
        let froms = Offsets::new(index.sizes(), &aligned(values.strides(), index.rank()));
        for ((at, other), from) in Offsets::of(&index).zip(others()).zip(froms) {
            let to = target(at, other)?;
            let one = Move::of(&[], &[], &[])?;
            let mut value = [W::ZERO];
            convert(&one, (dtype, values.bytes(), from), (W::DTYPE, bytemuck::cast_slice_mut(&mut value), 0))?;
            let first = counts[to] == 0;
            let how = if first { Combine::Assign } else { how };
            sums[to] = how.apply(sums[to], value[0]);
            counts[to] = counts[to].saturating_add(1);
        }
        if mean {
            for (sum, &count) in sums.iter_mut().zip(counts.iter()) {
                *sum = floor_divided(*sum, count.max(1));
            }
        }
        if dtype == DType::Bool {
            for sum in sums.iter_mut() {
                *sum = if *sum == W::ZERO { W::ZERO } else { W::ONE };
            }
        }
        crate::stage::store(bytemuck::cast_slice(sums), W::DTYPE, out)
    })
}

/// Means of integers are rounded down.
fn floor_divided<W: Wide>(sum: W, count: i64) -> W {
    let quotient = sum.divided(count);
    let exact = quotient.times(W::load(count)) == sum;
    if W::DTYPE == DType::I64 && !exact && sum < W::ZERO {
        return quotient.plus(W::load(-1i64));
    }
    quotient
}

/// Writes slices of `values` to `out[.., index[i], ..]`, multiplied by `alpha` if there is one.
fn write_slices(call: &mut Call, values: Values, how: Combine, alpha: Option<Scalar>) -> Result<(), KernelError> {
    let (source, dim, index) = (call.tensor(0)?, call.int(1)?, call.tensor(2)?);
    let d = dim_of(source.sizes(), dim, "dim")?;
    if index.rank() > 1 {
        return Err(KernelError::invalid(
            "index",
            format!("a tensor of {} is no list of indices", index.sizes()),
        ));
    }
    let mut window = *source.sizes();
    if window.rank() > 0 {
        window[d] = index.numel() as i64;
    } else if index.numel() != 1 {
        return Err(KernelError::invalid(
            "index",
            format!("{} indices of a 0-dim tensor", index.numel()),
        ));
    }
    let window = dims_of(&window, "index")?;
    let dtype = source.dtype();
    let (out, scratch) = parts(call, 0)?;
    start_from(&source, out)?;
    let scaled = alpha.filter(|alpha| *alpha != Scalar::Int(1));
    let scaled_bytes = if scaled.is_some() {
        window.numel().unwrap_or(0) * 8
    } else {
        0
    };
    let mut arena = Arena::new(scratch, bytes_of::<u8>(scaled_bytes).saturating_add(bytes_of::<u64>(2)))?;
    let (bytes, strides): (&[u8], Dims) = match &values {
        Values::Number(value) => {
            let words = arena.take::<u64>(2)?;
            words.copy_from_slice(&bytemuck::cast::<_, [u64; 2]>(encode(*value, dtype)?.0));
            (bytemuck::cast_slice(words), Dims::filled(window.rank(), 0))
        }
        Values::Tensor(values) => {
            same_dtype(&source, values, "source")?;
            let same = *values.sizes() == window || (window.rank() <= 1 && values.numel() == index.numel());
            if !same {
                return Err(KernelError::invalid(
                    "source",
                    format!("{} where {window} is expected", values.sizes()),
                ));
            }
            match scaled {
                None => (values.bytes(), aligned(values.strides(), window.rank())),
                Some(alpha) => (scale(values, alpha, &mut arena)?, window.contiguous_strides()),
            }
        }
    };
    let along = Along::new(source.sizes(), &out.strides(), d);
    let stride = index.strides().first().map_or(0, |&s| s as usize);
    let others = Offsets::new(&window, &along.others);
    let froms = Offsets::new(&window, &strides);
    // Position along `d` of each element of the window.
    let inner: usize = window.iter().skip(d + 1).map(|&s| s as usize).product();
    let length = index.numel().max(1);
    let pairs = others.zip(froms).enumerate().map(|(i, (other, from))| {
        let step = checked(
            index_at(&index, i / inner.max(1) % length * stride, "index")?,
            d,
            along.size,
            false,
        )?;
        Ok((from, other + (step * along.stride) as usize))
    });
    how.run(dtype, bytes, out.bytes_mut(), pairs)
}

/// `values * alpha` in the dtype of the values, row-major.
fn scale<'s>(values: &Tensor, alpha: Scalar, arena: &mut Arena<'s>) -> Result<&'s [u8], KernelError> {
    let dtype = values.dtype();
    with_wide!(dtype, "source", W => {
        let alpha = W::of(alpha).ok_or_else(|| KernelError::invalid("alpha", format!("{alpha} for {dtype}")))?;
        let bytes = arena.take::<u8>(values.numel() * dtype.size())?;
        let one = Move::of(&[], &[], &[])?;
        for (to, from) in Offsets::of(values).enumerate() {
            let mut value = [W::ZERO];
            convert(&one, (dtype, values.bytes(), from), (W::DTYPE, bytemuck::cast_slice_mut(&mut value), 0))?;
            value[0] = value[0].times(alpha);
            convert(&one, (W::DTYPE, bytemuck::cast_slice(&value), 0), (dtype, bytes, to))?;
        }
        Ok(&*bytes)
    })
}

fn index_add(call: &mut Call) -> Result<(), KernelError> {
    let (values, alpha) = (Values::Tensor(call.tensor(3)?), call.scalar(4)?);
    write_slices(call, values, Combine::Add, Some(alpha))
}

fn index_copy(call: &mut Call) -> Result<(), KernelError> {
    let values = Values::Tensor(call.tensor(3)?);
    write_slices(call, values, Combine::Assign, None)
}

fn index_fill_scalar(call: &mut Call) -> Result<(), KernelError> {
    let value = Values::Number(call.scalar(3)?);
    write_slices(call, value, Combine::Assign, None)
}

fn index_fill_tensor(call: &mut Call) -> Result<(), KernelError> {
    let value = call.tensor(3)?;
    if value.rank() != 0 {
        return Err(KernelError::invalid(
            "value",
            format!("a tensor of {} where one number is expected", value.sizes()),
        ));
    }
    let number = match value.dtype().is_float() {
        true => Scalar::Float(crate::wide::first::<f64>(&value, "value")?),
        false => Scalar::Int(crate::wide::first::<i64>(&value, "value")?),
    };
    write_slices(call, Values::Number(number), Combine::Assign, None)
}
