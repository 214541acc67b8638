//! Variance and standard deviation, in two passes in double precision.

use crate::lanes::Writer;
use crate::math::Real;
use crate::reduce::{Dims, dims_at, row_sum};
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows, shape_reduced};
use crate::{Call, KernelError};
use alloc::format;
use delegraph_types::Scalar;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::std.correction_out", |call| corrected(call, true)),
    ("aten::std.out", |call| unbiased(call, true)),
    ("aten::std_mean.correction_out", |call| corrected(call, true)),
    ("aten::var.correction_out", |call| corrected(call, false)),
    ("aten::var.out", |call| unbiased(call, false)),
    ("aten::var_mean.correction_out", |call| corrected(call, false)),
];

/// `(self, dim, *, correction, keepdim)`
fn corrected(call: &mut Call, root: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let set = DimSet::list(input.sizes(), call.ints(1)?)?;
    let correction = call.optional_scalar(2)?.map_or(1.0, Scalar::as_f64);
    let keepdim = call.bool(3)?;
    spread(call, set, keepdim, correction, root)
}

/// `(self, dim, unbiased, keepdim)`
fn unbiased(call: &mut Call, root: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, unbiased) = dims_at(call, &input, Dims::List, 1)?;
    let keepdim = call.bool(3)?;
    spread(call, set, keepdim, f64::from(u8::from(unbiased)), root)
}

/// The first output is the variance (its root for a standard deviation), the second, where there is one, the mean.
fn spread(call: &mut Call, set: DimSet, keepdim: bool, correction: f64, root: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    if !input.dtype().is_float() {
        return Err(KernelError::invalid(
            "self",
            format!("a variance in dtype {}", input.dtype()),
        ));
    }
    for out in call.outs.iter_mut() {
        crate::elementwise::check_category(out, 0, input.dtype())?;
        shape_reduced(out, &input, set, keepdim)?;
    }
    let mut rows = Rows::<f64>::new(input, set);
    let mut writer = Writer::<f64>::whole(call.out(0)?);
    let mut means = call.outs.get(1).map(Writer::<f64>::whole);
    while rows.advance() {
        let (mean, squares) = moments(&mut rows)?;
        let freedom = (rows.len() as f64 - correction).max(0.0);
        let variance = squares / freedom;
        writer.push(call.out(0)?, if root { Real::sqrt(variance) } else { variance })?;
        if let Some(means) = &mut means {
            means.push(call.out(1)?, mean)?;
        }
    }
    Ok(())
}

/// Mean of the present row, and the sum of the squared differences from it.
///
/// # Errors
/// The dtype has no conversion.
pub(crate) fn moments(rows: &mut Rows<f64>) -> Result<(f64, f64), KernelError> {
    let mean = row_sum(rows, |x| x)? / rows.len() as f64;
    let squares = row_sum(rows, |x| (x - mean) * (x - mean))?;
    Ok((mean, squares))
}
