//! The elementwise engine: broadcast any number of operands, compute piece by piece, store in the output's dtype and layout.

use crate::lanes::{LANES, Lane, Operand, Reader, Writer};
use crate::parallel::{each, portion};
use crate::stage::dims_of;
use crate::wide::Wide;
use crate::{Arg, Call, KernelError, Out};
use alloc::format;
use delegraph_types::{DType, Dims, MAX_RANK, result_dtype};

impl Operand<'_> {
    /// Its sizes; those of a 0-dim tensor for a number.
    pub fn sizes(&self) -> Dims {
        match self {
            Operand::Tensor(tensor) => *tensor.sizes(),
            Operand::Number(_) => Dims::SCALAR,
        }
    }

    fn promotion(&self) -> delegraph_types::Operand {
        match self {
            Operand::Tensor(tensor) => delegraph_types::Operand::tensor(tensor.dtype(), tensor.rank()),
            Operand::Number(number) => delegraph_types::Operand::Number(*number),
        }
    }
}

/// The argument at `index` as a tensor or a number.
///
/// # Errors
/// It is neither.
pub(crate) fn operand<'a>(call: &Call<'a, '_>, index: usize) -> Result<Operand<'a>, KernelError> {
    match call.args.get(index) {
        Some(Arg::Tensor(tensor)) => Ok(Operand::Tensor(*tensor)),
        _ => call.scalar(index).map(Operand::Number),
    }
}

/// The dtype that PyTorch computes these operands in.
///
/// # Errors
/// It is one that no kernel computes in.
pub(crate) fn common_dtype(operands: &[Operand]) -> Result<DType, KernelError> {
    let common = result_dtype(operands.iter().map(Operand::promotion)).unwrap_or(DType::F32);
    match common {
        DType::U64 | DType::F8E4M3 | DType::F8E5M2 => Err(KernelError::unsupported(
            "self",
            format!("arithmetic in dtype {common}"),
        )),
        _ => Ok(common),
    }
}

/// The dtype of an operator that always gives floats: that of its operands, or `f32` for integers. It may be complex.
///
/// # Errors
/// As [`common_dtype`].
pub(crate) fn float_dtype(operands: &[Operand]) -> Result<DType, KernelError> {
    common_dtype(operands).map(|dtype| {
        if dtype.is_float() || dtype.is_complex() {
            dtype
        } else {
            DType::F32
        }
    })
}

/// Sizes the output for the operands broadcast together, and checks that `result` may be stored in its dtype.
///
/// # Errors
/// The operands do not broadcast, the output cannot hold them, or its dtype is of a lower category.
pub(crate) fn shape_out(out: &mut Out, operands: &[Operand], result: DType) -> Result<(), KernelError> {
    let first = match operands.first() {
        Some(Operand::Tensor(tensor)) => Some(tensor.sizes()),
        _ => None,
    };
    let same = |operand: &Operand| matches!(operand, Operand::Tensor(tensor) if Some(tensor.sizes()) == first);
    if let Some(sizes) = first.filter(|sizes| sizes.numel().is_some())
        && operands.iter().all(same)
    {
        check_category(out, 0, result)?;
        return out.resize(sizes);
    }
    let mut sizes = Dims::SCALAR;
    for operand in operands {
        let own = operand.sizes();
        sizes = sizes.broadcast(&own).ok_or_else(|| {
            KernelError::invalid("other", format!("a shape of {own} does not broadcast with {sizes}"))
        })?;
    }
    let sizes = dims_of(&sizes, "self")?;
    check_category(out, 0, result)?;
    out.resize(&sizes)
}

/// Checks that `result` may be stored in the output: PyTorch's `can_cast`.
///
/// # Errors
/// The output's dtype is of a lower category.
pub(crate) fn check_category(out: &Out, index: usize, result: DType) -> Result<(), KernelError> {
    if out.dtype().category() < result.category() {
        return Err(KernelError::OutputDtype {
            index,
            got: out.dtype(),
            want: result,
        });
    }
    Ok(())
}

/// Computes every element of `out`, which has the shape that the operands broadcast to. Operands are converted to `W`; with
/// `common`, values of another dtype are first rounded or wrapped as that dtype would.
///
/// # Errors
/// A dtype has no conversion.
pub(crate) fn map<W: Wide, R: Lane, const N: usize>(
    operands: &[Operand; N],
    common: Option<DType>,
    out: &mut Out,
    compute: &(dyn Fn([&[W]; N], &mut [R]) + Sync),
) -> Result<(), KernelError> {
    if let Some(done) = map_lines(operands, common, out, compute) {
        return done;
    }
    let (sizes, strides) = (*out.sizes(), out.strides());
    let mut order = [0usize; MAX_RANK];
    let order = &mut order[..sizes.rank()];
    for (d, slot) in order.iter_mut().enumerate() {
        *slot = d;
    }
    // Memory order of the output, so that it is written straight; insertion sort, because it is nearly always sorted.
    for i in 1..order.len() {
        let mut at = i;
        while at > 0 && strides[order[at - 1]] < strides[order[at]] {
            order.swap(at - 1, at);
            at -= 1;
        }
    }
    let order = &*order;
    let count = sizes.numel().unwrap_or(0);
    let (parallel, dtype) = (out.parallel(), out.dtype());
    let len = portion(parallel, count, 1, LANES);
    each(parallel, out.chunks(len).enumerate(), |(i, chunk)| {
        let operands = core::array::from_fn(|k| Reader::broadcast(&operands[k], &sizes, order, common));
        span(operands, i * len, &mut Out::of_chunk(dtype, chunk), compute)
    })
}

/// [`map`] where all operands lie row-major in the output's own shape and in the type that is computed in, and so does the output: nothing is
/// walked, converted or copied. `None`: they do not.
fn map_lines<W: Wide, R: Lane, const N: usize>(
    operands: &[Operand; N],
    common: Option<DType>,
    out: &mut Out,
    compute: &(dyn Fn([&[W]; N], &mut [R]) + Sync),
) -> Option<Result<(), KernelError>> {
    let mut lines: [&[W]; N] = [&[]; N];
    for (line, operand) in lines.iter_mut().zip(operands) {
        let Operand::Tensor(tensor) = operand else {
            return None;
        };
        let settled = common.is_none_or(|common| common == tensor.dtype());
        if !settled || tensor.dtype() != W::DTYPE || tensor.sizes() != out.sizes() || !tensor.is_contiguous() {
            return None;
        }
        *line = tensor.data::<W>()?;
    }
    if out.dtype() != R::PLAIN || !out.is_contiguous() {
        return None;
    }
    let parallel = out.parallel();
    let to = out.data_mut::<R>()?;
    if lines.iter().any(|line| line.len() != to.len()) {
        return None;
    }
    let len = portion(parallel, to.len(), 1, LANES);
    Some(each(parallel, to.chunks_mut(len).enumerate(), |(i, to)| {
        for (k, to) in to.chunks_mut(LANES).enumerate() {
            let first = i * len + k * LANES;
            compute(lines.map(|line| &line[first..first + to.len()]), to);
        }
        Ok(())
    }))
}

/// Computes a piece of the output, from the element `first` in the order of memory.
fn span<W: Wide, R: Lane, const N: usize>(
    readers: [Result<Reader<W>, KernelError>; N],
    first: usize,
    out: &mut Out,
    compute: &(dyn Fn([&[W]; N], &mut [R]) + Sync),
) -> Result<(), KernelError> {
    let mut failed = None;
    let mut readers = readers.map(|reader| {
        reader.unwrap_or_else(|error| {
            failed = Some(error);
            Reader::empty()
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    if first > 0 {
        readers.iter_mut().for_each(|reader| reader.skip_to(first));
    }
    let count = out.sizes()[0] as usize;
    let mut writer = Writer::<R>::new(out.sizes(), &[1]);
    let mut done = 0usize;
    while done < count {
        let take = LANES.min(count - done);
        let mut direct = [None; N];
        for (slot, reader) in direct.iter_mut().zip(&mut readers) {
            *slot = reader.load(take)?;
        }
        let pieces = core::array::from_fn(|i| direct[i].unwrap_or_else(|| readers[i].piece(take)));
        writer.write(out, take, |slots| compute(pieces, slots))?;
        done += take;
    }
    Ok(())
}

/// [`map`] of one operand.
///
/// # Errors
/// As [`map`].
pub(crate) fn map1<W: Wide, R: Lane>(
    operand: Operand,
    common: Option<DType>,
    out: &mut Out,
    compute: impl Fn(W) -> R + Sync,
) -> Result<(), KernelError> {
    map(&[operand], common, out, &|[a]: [&[W]; 1], slots| {
        for (slot, &a) in slots.iter_mut().zip(a) {
            *slot = compute(a);
        }
    })
}

/// [`map`] of two operands.
///
/// # Errors
/// As [`map`].
pub(crate) fn map2<W: Wide, R: Lane>(
    operands: &[Operand; 2],
    common: Option<DType>,
    out: &mut Out,
    compute: impl Fn(W, W) -> R + Sync,
) -> Result<(), KernelError> {
    map(operands, common, out, &|[a, b]: [&[W]; 2], slots| {
        for ((slot, &a), &b) in slots.iter_mut().zip(a).zip(b) {
            *slot = compute(a, b);
        }
    })
}

/// [`map`] of three operands.
///
/// # Errors
/// As [`map`].
pub(crate) fn map3<W: Wide, R: Lane>(
    operands: &[Operand; 3],
    common: Option<DType>,
    out: &mut Out,
    compute: impl Fn(W, W, W) -> R + Sync,
) -> Result<(), KernelError> {
    map(operands, common, out, &|[a, b, c]: [&[W]; 3], slots| {
        for (((slot, &a), &b), &c) in slots.iter_mut().zip(a).zip(b).zip(c) {
            *slot = compute(a, b, c);
        }
    })
}

/// Runs `$body` with `$W` as `f32` or `f64` for a floating dtype; an error for others.
macro_rules! with_real {
    ($dtype:expr, $argument:expr, $W:ident => $body:expr) => {{
        match $dtype {
            delegraph_types::DType::F16 | delegraph_types::DType::BF16 | delegraph_types::DType::F32 => {
                type $W = f32;
                $body
            }
            delegraph_types::DType::F64 => {
                type $W = f64;
                $body
            }
            other => Err($crate::KernelError::unsupported(
                $argument,
                alloc::format!("dtype {other}"),
            )),
        }
    }};
}
pub(crate) use with_real;
