//! Reductions to one number: sums, products, extremes, truth, norms, counts.

use crate::columns::Columns;
use crate::elementwise::{check_category, float_dtype};
use crate::lanes::{Lane, Operand, Writer};
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows, shape_reduced, with_accumulator};
use crate::wide::Wide;
use crate::{Call, KernelError, Out, Tensor, vector};
use alloc::format;
use delegraph_types::{DType, Scalar};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::all.all_out", |call| truth(call, Dims::All, false)),
    ("aten::all.dims_out", |call| truth(call, Dims::List, false)),
    ("aten::all.out", |call| truth(call, Dims::One, false)),
    ("aten::any.all_out", |call| truth(call, Dims::All, true)),
    ("aten::any.dims_out", |call| truth(call, Dims::List, true)),
    ("aten::any.out", |call| truth(call, Dims::One, true)),
    ("aten::amax.out", |call| extreme(call, Dims::List, true)),
    ("aten::amin.out", |call| extreme(call, Dims::List, false)),
    ("aten::max.unary_out", |call| extreme(call, Dims::All, true)),
    ("aten::min.unary_out", |call| extreme(call, Dims::All, false)),
    ("aten::aminmax.out", aminmax),
    ("aten::count_nonzero.dim_IntList_out", |call| {
        count_nonzero(call, Dims::List)
    }),
    ("aten::count_nonzero.out", |call| count_nonzero(call, Dims::One)),
    ("aten::linalg_vector_norm.out", vector_norm),
    ("aten::norm.Scalar_out", |call| norm(call, Dims::All)),
    ("aten::norm.ScalarOpt_dtype_out", |call| norm(call, Dims::All)),
    ("aten::norm.out", |call| norm(call, Dims::List)),
    ("aten::norm.dtype_out", |call| norm(call, Dims::List)),
    ("aten::logsumexp.out", logsumexp),
    ("aten::mean.dtype_out", |call| mean(call, Dims::All)),
    ("aten::mean.out", |call| mean(call, Dims::List)),
    ("aten::nansum.out", nansum),
    ("aten::prod.int_out", |call| prod(call, Dims::One)),
    ("aten::prod.out", |call| prod(call, Dims::All)),
    ("aten::sum.IntList_out", |call| sum(call, Dims::List)),
    ("aten::sum.out", |call| sum(call, Dims::All)),
];

/// How an overload states its dimensions: arguments 1 (and `keepdim` in 2), or not at all.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Dims {
    /// There is no such argument.
    All,
    /// `int dim` or `int? dim`
    One,
    /// `int[] dim` or `int[]? dim`, where an empty list means all.
    List,
}

/// Reads `dim` at `index` and `keepdim` after it.
///
/// # Errors
/// A dimension is out of range or named twice.
pub(crate) fn dims_at(call: &Call, input: &Tensor, dims: Dims, index: usize) -> Result<(DimSet, bool), KernelError> {
    Ok(match dims {
        Dims::All => (DimSet::ALL, false),
        Dims::One => (
            DimSet::optional(input.sizes(), call.optional_int(index)?)?,
            call.bool(index + 1)?,
        ),
        Dims::List => (DimSet::list(input.sizes(), call.ints(index)?)?, call.bool(index + 1)?),
    })
}

/// Reduces each row to one number, with `empty` as what a row of no elements gives (`None`: an error).
fn each_row<W: Wide, R: Lane>(
    input: Tensor,
    dims: DimSet,
    out: &mut Out,
    mut f: impl FnMut(&mut Rows<W>) -> Result<R, KernelError>,
) -> Result<(), KernelError> {
    let mut rows = Rows::<W>::new(input, dims);
    let mut writer = Writer::<R>::whole(out);
    while rows.advance() {
        let value = f(&mut rows)?;
        writer.push(out, value)?;
    }
    Ok(())
}

/// Folds each row, element by element, from `start`.
fn fold<W: Wide>(rows: &mut Rows<W>, start: W, f: impl Fn(W, W) -> W) -> Result<W, KernelError> {
    let mut value = start;
    rows.each(|piece| value = piece.iter().fold(value, |have, &x| f(have, x)))?;
    Ok(value)
}

/// Adds up a row; several sums side by side, so that the additions need not wait for each other.
pub(crate) fn row_sum<W: Wide>(rows: &mut Rows<W>, f: impl Fn(W) -> W) -> Result<W, KernelError> {
    let mut sums = [W::ZERO; 8];
    rows.each(|piece| {
        let mut chunks = piece.chunks_exact(8);
        for chunk in &mut chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum = sum.plus(f(x));
            }
        }
        for (sum, &x) in sums.iter_mut().zip(chunks.remainder()) {
            *sum = sum.plus(f(x));
        }
    })?;
    Ok(sums.into_iter().fold(W::ZERO, W::plus))
}

/// Index of `dtype`, the argument after the dimensions, in overloads that have one.
fn dtype_index(dims: Dims) -> usize {
    if dims == Dims::All { 1 } else { 3 }
}

/// Checks the output's dtype against `dtype` or what the operator gives by default: integers and bools give `i64`.
fn sum_dtype(call: &mut Call, input: &Tensor, index: usize) -> Result<DType, KernelError> {
    let natural = if input.dtype().is_float() {
        input.dtype()
    } else {
        DType::I64
    };
    let dtype = call.optional_dtype(index)?.unwrap_or(natural);
    check_category(call.out(0)?, 0, dtype)?;
    Ok(dtype)
}

fn sum(call: &mut Call, dims: Dims) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    let dtype = sum_dtype(call, &input, dtype_index(dims))?;
    let out = call.out(0)?;
    shape_reduced(out, &input, set, keepdim)?;
    if dtype.is_float() && float_sums(input, set, out, 1.0)? {
        return Ok(());
    }
    with_accumulator!(dtype, "dtype", W => each_row::<W, W>(input, set, out, |rows| row_sum(rows, |x| x)))
}

/// Sums of single precision divided by `count`, where rows lie straight or side by side; false where they do not.
fn float_sums(input: Tensor, set: DimSet, out: &mut Out, count: f64) -> Result<bool, KernelError> {
    if input.dtype() != DType::F32 {
        return Ok(false);
    }
    let mut writer = Writer::<f64>::whole(out);
    if let Some(columns) = Columns::<f32>::of(input, set) {
        columns.sums(|sums| {
            writer.write(out, sums.len(), |slots| {
                for (slot, &sum) in slots.iter_mut().zip(sums) {
                    *slot = sum / count;
                }
            })
        })?;
        return Ok(true);
    }
    let inside = set.inside(input.sizes());
    let last = (input.rank().saturating_sub(inside.rank())..input.rank()).all(|d| set.has(d));
    match (input.data::<f32>(), inside.numel()) {
        (Some(data), Some(len @ 1..)) if input.is_contiguous() && last => {
            for row in data.chunks_exact(len) {
                writer.push(out, vector::sum(row) / count)?;
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn nansum(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, Dims::List, 1)?;
    let dtype = sum_dtype(call, &input, 3)?;
    let out = call.out(0)?;
    shape_reduced(out, &input, set, keepdim)?;
    with_accumulator!(dtype, "dtype", W => each_row::<W, W>(input, set, out, |rows| {
        row_sum(rows, |x| if Wide::is_nan(x) { W::ZERO } else { x })
    }))
}

fn prod(call: &mut Call, dims: Dims) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    let dtype = sum_dtype(call, &input, dtype_index(dims))?;
    let out = call.out(0)?;
    shape_reduced(out, &input, set, keepdim)?;
    with_accumulator!(dtype, "dtype", W => each_row::<W, W>(input, set, out, |rows| fold(rows, W::ONE, W::times)))
}

fn mean(call: &mut Call, dims: Dims) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    let dtype = call.optional_dtype(dtype_index(dims))?.unwrap_or(input.dtype());
    if !dtype.is_float() {
        return Err(KernelError::invalid("dtype", format!("a mean in dtype {dtype}")));
    }
    let out = call.out(0)?;
    check_category(out, 0, dtype)?;
    shape_reduced(out, &input, set, keepdim)?;
    let count = set.inside(input.sizes()).numel().unwrap_or(0) as f64;
    if float_sums(input, set, out, count)? {
        return Ok(());
    }
    each_row::<f64, f64>(input, set, out, |rows| Ok(row_sum(rows, |x| x)? / count))
}

/// `any` starts from false and `all` from true; both keep `u8` outputs as PyTorch does for `u8` inputs.
fn truth(call: &mut Call, dims: Dims, any: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    // An empty list of dimensions means all of them when it is None, and none of them when it is `[]`.
    let elementwise = dims == Dims::List && !call.is_none(1) && call.ints(1)?.is_empty();
    let set = if elementwise { DimSet::ALL.others() } else { set };
    let out = call.out(0)?;
    shape_reduced(out, &input, set, keepdim)?;
    with_accumulator!(input.dtype(), "self", W => each_row::<W, u8>(input, set, out, |rows| {
        let mut found = false;
        rows.each(|piece| found |= piece.iter().any(|x| x.truth() == any))?;
        Ok(u8::from(found == any))
    }))
}

/// Refuses rows of no elements, which have no extreme.
fn check_not_empty(input: &Tensor, set: DimSet) -> Result<(), KernelError> {
    match set.inside(input.sizes()).contains(&0) {
        true => Err(KernelError::invalid(
            "self",
            format!("no extreme of no elements in a shape of {}", input.sizes()),
        )),
        false => Ok(()),
    }
}

fn extreme_of<W: Num>(rows: &mut Rows<W>, largest: bool) -> Result<W, KernelError> {
    let mut value: Option<W> = None;
    rows.each(|piece| {
        let start = value.or(piece.first().copied()).unwrap_or(W::ZERO);
        value = Some(match largest {
            true => piece.iter().fold(start, |have, &x| have.larger(x)),
            false => piece.iter().fold(start, |have, &x| have.smaller(x)),
        });
    })?;
    Ok(value.unwrap_or(W::ZERO))
}

fn extreme(call: &mut Call, dims: Dims, largest: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    check_not_empty(&input, set)?;
    let out = call.out(0)?;
    check_category(out, 0, input.dtype())?;
    shape_reduced(out, &input, set, keepdim)?;
    with_accumulator!(input.dtype(), "self", W => {
        each_row::<W, W>(input, set, out, |rows| extreme_of(rows, largest))
    })
}

fn aminmax(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, Dims::One, 1)?;
    check_not_empty(&input, set)?;
    for (index, largest) in [(0, false), (1, true)] {
        let out = call.out(index)?;
        check_category(out, index, input.dtype())?;
        shape_reduced(out, &input, set, keepdim)?;
        with_accumulator!(input.dtype(), "self", W => {
            each_row::<W, W>(input, set, out, |rows| extreme_of(rows, largest))
        })?;
    }
    Ok(())
}

fn count_nonzero(call: &mut Call, dims: Dims) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let set = match dims {
        Dims::One => DimSet::optional(input.sizes(), call.optional_int(1)?)?,
        _ => DimSet::list(input.sizes(), call.ints(1)?)?,
    };
    let out = call.out(0)?;
    shape_reduced(out, &input, set, false)?;
    with_accumulator!(input.dtype(), "self", W => each_row::<W, i64>(input, set, out, |rows| {
        let mut count = 0i64;
        rows.each(|piece| count += piece.iter().filter(|x| x.truth()).count() as i64)?;
        Ok(count)
    }))
}

fn vector_norm(call: &mut Call) -> Result<(), KernelError> {
    let order = call.optional_scalar(1)?;
    norm_at(call, order, Dims::List, 2, 4)
}

/// The dtype of `norm.dtype_out` comes after `keepdim`, that of `norm.ScalarOpt_dtype_out` after `p`.
fn norm(call: &mut Call, dims: Dims) -> Result<(), KernelError> {
    let order = call.optional_scalar(1)?;
    norm_at(call, order, dims, 2, if dims == Dims::All { 2 } else { 4 })
}

fn norm_at(
    call: &mut Call,
    order: Option<Scalar>,
    dims: Dims,
    dims_index: usize,
    dtype_index: usize,
) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, dims_index)?;
    let order = order.map_or(2.0, Scalar::as_f64);
    let natural = float_dtype(&[Operand::Tensor(input)])?;
    let dtype = call.optional_dtype(dtype_index)?.unwrap_or(natural);
    let out = call.out(0)?;
    check_category(out, 0, dtype)?;
    shape_reduced(out, &input, set, keepdim)?;
    if order.is_infinite() && set.inside(input.sizes()).contains(&0) && out.sizes().numel() != Some(0) {
        return Err(KernelError::invalid("ord", "an infinite norm of no elements"));
    }
    each_row::<f64, f64>(input, set, out, |rows| norm_of(rows, order))
}

fn norm_of(rows: &mut Rows<f64>, order: f64) -> Result<f64, KernelError> {
    Ok(if order == f64::INFINITY {
        fold(rows, 0.0, |have, x| have.larger(Num::magnitude(x)))?
    } else if order == f64::NEG_INFINITY {
        fold(rows, f64::INFINITY, |have, x| have.smaller(Num::magnitude(x)))?
    } else if order == 0.0 {
        row_sum(rows, |x| if x == 0.0 { 0.0 } else { 1.0 })?
    } else if order == 1.0 {
        row_sum(rows, Num::magnitude)?
    } else if order == 2.0 {
        Real::sqrt(row_sum(rows, |x| x * x)?)
    } else {
        Num::power(row_sum(rows, |x| Num::power(Num::magnitude(x), order))?, 1.0 / order)
    })
}

fn logsumexp(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, Dims::List, 1)?;
    let dtype = float_dtype(&[Operand::Tensor(input)])?;
    let out = call.out(0)?;
    check_category(out, 0, dtype)?;
    shape_reduced(out, &input, set, keepdim)?;
    each_row::<f64, f64>(input, set, out, |rows| {
        if rows.len() == 0 {
            return Ok(f64::NEG_INFINITY);
        }
        let largest = extreme_of(rows, true)?;
        let shift = if largest.is_finite() { largest } else { 0.0 };
        Ok(Real::ln(row_sum(rows, |x| Real::exp(x - shift))?) + shift)
    })
}
