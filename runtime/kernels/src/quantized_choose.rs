//! Choosing scales and zero points from the values of a tensor: `quantized_decomposed::choose_qparams*`.

use crate::affine::{Format, with_format};
use crate::elementwise::check_category;
use crate::lanes::Writer;
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows};
use crate::wide::Wide;
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("quantized_decomposed::choose_qparams.Tensor_out", |call| {
        per_tensor(call, false)
    }),
    ("quantized_decomposed::choose_qparams_symmetric.tensor_out", |call| {
        per_tensor(call, true)
    }),
    ("quantized_decomposed::choose_qparams_per_token.out", |call| {
        if call.optional_dtype(1)? != Some(DType::I8) {
            return Err(KernelError::unsupported("dtype", "a dtype other than i8"));
        }
        per_token(call, true)
    }),
    (
        "quantized_decomposed::choose_qparams_per_token_asymmetric.out",
        |call| per_token(call, false),
    ),
    (
        "quantized_decomposed::_choose_qparams_per_token_asymmetric_impl.out",
        |call| per_token(call, false),
    ),
];

/// Least and largest of a row; NaN if it has one.
fn least_and_largest<W: Num>(rows: &mut Rows<W>) -> Result<(W, W), KernelError> {
    let mut found: Option<(W, W)> = None;
    rows.each(|piece| {
        for &x in piece {
            let (low, high) = found.unwrap_or((x, x));
            found = Some((low.smaller(x), high.larger(x)));
        }
    })?;
    found.ok_or_else(|| KernelError::invalid("input", "no elements to choose a scale for"))
}

fn check_real(input: &Tensor) -> Result<(), KernelError> {
    match input.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => Ok(()),
        other => Err(KernelError::invalid("input", format!("a tensor of dtype {other}"))),
    }
}

/// `(input, quant_min, quant_max, eps, dtype)`
fn per_tensor(call: &mut Call, symmetric: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    check_real(&input)?;
    let (low, high, eps) = (call.int(1)?, call.int(2)?, call.float(3)? as f32);
    let dtype = call.optional_dtype(4)?;
    if low >= high {
        return Err(KernelError::invalid("quant_min", format!("{low} is not below {high}")));
    }
    let (least, largest) = with_format!(input.dtype(), "input", F => {
        let mut rows = Rows::<<F as Format>::W>::new(input, DimSet::ALL);
        rows.advance();
        least_and_largest(&mut rows).map(|(a, b)| (a.to_f32(), b.to_f32()))
    })?;
    let keep = |x: f32| match input.dtype() {
        DType::F16 => crate::affine::InF16::keep(x),
        DType::BF16 => crate::affine::InBf16::keep(x),
        _ => x,
    };
    let (below, above) = (least.smaller(0.0), largest.larger(0.0));
    let steps = (high as f64 - low as f64) as f32;
    let (scale, zero) = if symmetric {
        let scale = keep(below.negate().larger(above).over(steps / 2.0)).larger(eps);
        (scale, if dtype == Some(DType::U8) { 128 } else { 0 })
    } else {
        let scale = keep(keep(above - below).over(steps)).larger(eps);
        // A 32-bit integer, which is the smallest one for what does not fit.
        let shift = crate::affine::InF32::whole(below / scale);
        let shift = if shift.abs() < 2_147_483_648.0 {
            shift as i32
        } else {
            i32::MIN
        };
        let zero = low.wrapping_sub(i64::from(shift));
        (scale, zero.max(low).min(high))
    };
    let sizes = Dims::filled(1, 1);
    write(call, &sizes, |_| Ok((f64::from(scale), zero as f64)))
}

/// Scales of rows along the last dimension, of the input's shape with 1 for it.
fn per_token(call: &mut Call, symmetric: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    if !input.dtype().is_float() {
        return Err(KernelError::unsupported(
            "input",
            format!("a tensor of dtype {}", input.dtype()),
        ));
    }
    let last = input.rank().saturating_sub(1);
    let dims = if input.rank() == 0 {
        DimSet::ALL
    } else {
        DimSet::one(last)
    };
    let sizes = dims.reduce(input.sizes(), true);
    let format = match input.dtype() {
        // The largest value alone is halved in precision: a scale of it would overflow.
        DType::F16 if symmetric => DType::F32,
        other => other,
    };
    with_format!(format, "input", F => {
        let mut rows = Rows::<<F as Format>::W>::new(input, dims);
        write(call, &sizes, |_| {
            rows.advance();
            let (low, high) = least_and_largest(&mut rows)?;
            Ok(if symmetric { symmetric_token::<F>(low, high) } else { asymmetric_token::<F>(low, high) })
        })
    })
}

fn symmetric_token<F: Format>(low: F::W, high: F::W) -> (f64, f64) {
    let number = |x: f64| F::keep(F::W::from_f64(x));
    let largest = low.magnitude().larger(high.magnitude());
    let scale = F::keep(largest.larger(number(1e-5)).over(F::W::from_f64(127.0)));
    (scale.to_f64(), 0.0)
}

fn asymmetric_token<F: Format>(low: F::W, high: F::W) -> (f64, f64) {
    let number = F::W::from_f64;
    let (lowest, highest) = (number(-128.0), number(127.0));
    let (below, above) = (low.smaller(F::W::ZERO), high.larger(F::W::ZERO));
    let scale = F::keep(F::keep(above.minus(below)).over(number(255.0)));
    let scale = scale.larger(F::keep(number(f64::from(f32::EPSILON))));
    let (below, above) = (F::keep(below.over(scale)), F::keep(above.over(scale)));
    let from_low = F::keep(lowest.plus(below));
    let from_high = F::keep(highest.plus(above));
    let zero = if F::keep(from_low.plus(from_high)) > F::W::ZERO {
        F::keep(lowest.minus(below))
    } else {
        F::keep(highest.minus(above))
    };
    let zero = F::whole(zero.larger(lowest).smaller(highest));
    (scale.to_f64(), zero.to_f64())
}

/// Sizes both outputs and writes them in row-major order.
fn write(
    call: &mut Call,
    sizes: &Dims,
    mut choose: impl FnMut(usize) -> Result<(f64, f64), KernelError>,
) -> Result<(), KernelError> {
    let expected = call.args.len();
    let [scales, zeros] = call.outs else {
        return Err(KernelError::WrongKind {
            index: expected,
            expected: "two output tensors",
        });
    };
    check_category(scales, 0, DType::F16)?;
    check_category(zeros, 1, DType::I64)?;
    scales.resize(sizes)?;
    zeros.resize(sizes)?;
    let (mut to_scales, mut to_zeros) = (Writer::<f64>::whole(scales), Writer::<f64>::whole(zeros));
    for i in 0..sizes.numel().unwrap_or(0) {
        let (scale, zero) = choose(i)?;
        to_scales.push(scales, scale)?;
        to_zeros.push(zeros, zero)?;
    }
    Ok(())
}
