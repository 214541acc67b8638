//! Reductions to one number: sums, products, extremes, truth, norms, counts.

use crate::accumulate::{Fold, accumulate};
use crate::elementwise::{check_category, float_dtype};
use crate::lanes::{Lane, Operand};
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows, shape_reduced, with_accumulator};
use crate::wide::Wide;
use crate::{Call, KernelError, Out, Tensor};
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

/// The sum of `of` of the elements of each row, and what `finish` makes of it.
fn total<W: Lane + Wide>(
    input: Tensor,
    set: DimSet,
    out: &mut Out,
    of: impl Fn(W) -> W + Sync,
    finish: impl Fn(W) -> W + Sync,
) -> Result<(), KernelError> {
    let fold = Fold {
        start: W::ZERO,
        step: |sum: W, x| sum.plus(of(x)),
        join: W::plus,
        finish,
    };
    accumulate::<W, W, W>(input, set, out, fold)
}

/// Index of `dtype`, the argument after the dimensions, in overloads that have one.
fn dtype_index(dims: Dims) -> usize {
    if dims == Dims::All { 1 } else { 3 }
}

/// Checks the output's dtype against `dtype` or what the operator gives by default: integers and bools give `i64`.
fn sum_dtype(call: &mut Call, input: &Tensor, index: usize) -> Result<DType, KernelError> {
    let natural = if input.dtype().is_float() || input.dtype().is_complex() {
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
    if dtype.is_complex() {
        return crate::complex::sum(&input, set, keepdim, false, out);
    }
    shape_reduced(out, &input, set, keepdim)?;
    with_accumulator!(dtype, "dtype", W => total::<W>(input, set, out, |x| x, |sum| sum))
}

fn nansum(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, Dims::List, 1)?;
    let dtype = sum_dtype(call, &input, 3)?;
    let out = call.out(0)?;
    shape_reduced(out, &input, set, keepdim)?;
    with_accumulator!(dtype, "dtype", W => {
        total::<W>(input, set, out, |x| if Wide::is_nan(x) { W::ZERO } else { x }, |sum| sum)
    })
}

fn prod(call: &mut Call, dims: Dims) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    let dtype = sum_dtype(call, &input, dtype_index(dims))?;
    let out = call.out(0)?;
    shape_reduced(out, &input, set, keepdim)?;
    with_accumulator!(dtype, "dtype", W => {
        let fold = Fold {
            start: W::ONE,
            step: W::times,
            join: W::times,
            finish: |product| product,
        };
        accumulate::<W, W, W>(input, set, out, fold)
    })
}

fn mean(call: &mut Call, dims: Dims) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    let dtype = call.optional_dtype(dtype_index(dims))?.unwrap_or(input.dtype());
    if dtype.is_complex() {
        let out = call.out(0)?;
        check_category(out, 0, dtype)?;
        return crate::complex::sum(&input, set, keepdim, true, out);
    }
    if !dtype.is_float() {
        return Err(KernelError::invalid("dtype", format!("a mean in dtype {dtype}")));
    }
    let out = call.out(0)?;
    check_category(out, 0, dtype)?;
    shape_reduced(out, &input, set, keepdim)?;
    let len = row_len(&input, set) as f64;
    total::<f64>(input, set, out, |x| x, |sum| sum / len)
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
    with_accumulator!(input.dtype(), "self", W => {
        let fold = Fold {
            start: false,
            step: |found: bool, x: W| found | (x.truth() == any),
            join: |a: bool, b: bool| a | b,
            finish: |found: bool| u8::from(found == any),
        };
        accumulate::<W, bool, u8>(input, set, out, fold)
    })
}

/// Elements of a row along `set`.
fn row_len(input: &Tensor, set: DimSet) -> usize {
    set.inside(input.sizes()).numel().unwrap_or(0)
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

fn extreme(call: &mut Call, dims: Dims, largest: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    check_not_empty(&input, set)?;
    let out = call.out(0)?;
    check_category(out, 0, input.dtype())?;
    shape_reduced(out, &input, set, keepdim)?;
    extremes(input, set, out, largest)
}

/// The extreme of each row, none of which is empty.
fn extremes(input: Tensor, set: DimSet, out: &mut Out, largest: bool) -> Result<(), KernelError> {
    with_accumulator!(input.dtype(), "self", W => match largest {
        true => accumulate::<W, W, W>(input, set, out, largest_of::<W>()),
        false => {
            let fold = Fold {
                start: W::HIGHEST,
                step: W::smaller,
                join: W::smaller,
                finish: |x| x,
            };
            accumulate::<W, W, W>(input, set, out, fold)
        }
    })
}

/// The largest element, or NaN if there is one.
fn largest_of<W: Num>() -> Fold<W, fn(W, W) -> W, fn(W, W) -> W, fn(W) -> W> {
    Fold {
        start: W::LOWEST,
        step: W::larger,
        join: W::larger,
        finish: |x| x,
    }
}

fn aminmax(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, Dims::One, 1)?;
    check_not_empty(&input, set)?;
    for (index, largest) in [(0, false), (1, true)] {
        let out = call.out(index)?;
        check_category(out, index, input.dtype())?;
        shape_reduced(out, &input, set, keepdim)?;
        extremes(input, set, out, largest)?;
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
    with_accumulator!(input.dtype(), "self", W => {
        let fold = Fold {
            start: 0i64,
            step: |count: i64, x: W| count + i64::from(x.truth()),
            join: |a: i64, b: i64| a + b,
            finish: |count: i64| count,
        };
        accumulate::<W, i64, i64>(input, set, out, fold)
    })
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
    norms(input, set, out, order)
}

fn norms(input: Tensor, set: DimSet, out: &mut Out, order: f64) -> Result<(), KernelError> {
    if order.is_infinite() {
        let infinite = |start: f64, pick: fn(f64, f64) -> f64| Fold {
            start,
            step: move |have: f64, x: f64| pick(have, Num::magnitude(x)),
            join: pick,
            finish: |x: f64| x,
        };
        return match order > 0.0 {
            true => accumulate::<f64, f64, f64>(input, set, out, infinite(0.0, Num::larger)),
            false => accumulate::<f64, f64, f64>(input, set, out, infinite(f64::INFINITY, Num::smaller)),
        };
    }
    if order == 0.0 {
        total::<f64>(input, set, out, |x| if x == 0.0 { 0.0 } else { 1.0 }, |sum| sum)
    } else if order == 1.0 {
        total::<f64>(input, set, out, Num::magnitude, |sum| sum)
    } else if order == 2.0 {
        total::<f64>(input, set, out, |x| x * x, Real::sqrt)
    } else {
        let (power, root) = (
            move |x| Num::power(Num::magnitude(x), order),
            move |sum| Num::power(sum, 1.0 / order),
        );
        total::<f64>(input, set, out, power, root)
    }
}

fn logsumexp(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, Dims::List, 1)?;
    let dtype = float_dtype(&[Operand::Tensor(input)])?;
    let out = call.out(0)?;
    check_category(out, 0, dtype)?;
    shape_reduced(out, &input, set, keepdim)?;
    if row_len(&input, set) == 0 {
        return total::<f64>(input, set, out, |x| x, |_| f64::NEG_INFINITY);
    }
    // The largest element so far, and the sum of the others' exponentials relative to it: one pass, and nothing overflows.
    let join = |(a, sum_a): (f64, f64), (b, sum_b): (f64, f64)| {
        let largest = a.larger(b);
        let shift = if largest.is_finite() { largest } else { 0.0 };
        (largest, sum_a * Real::exp(a - shift) + sum_b * Real::exp(b - shift))
    };
    let fold = Fold {
        start: (f64::NEG_INFINITY, 0.0),
        step: |(largest, sum): (f64, f64), x: f64| match x <= largest && largest.is_finite() {
            true => (largest, sum + Real::exp(x - largest)),
            false => join((largest, sum), (x, 1.0)),
        },
        join,
        finish: |(largest, sum): (f64, f64)| Real::ln(sum) + if largest.is_finite() { largest } else { 0.0 },
    };
    accumulate::<f64, (f64, f64), f64>(input, set, out, fold)
}
