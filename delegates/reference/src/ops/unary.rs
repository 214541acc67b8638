//! Functions of single elements.

use super::elementwise::{map, map_floats};
use crate::call::Call;
use crate::caps::{Operator, anything, integers, no_bool, op, to_float};
use crate::math::{erf, erfc, sigmoid};
use crate::number::largest;
use crate::tensor::{Data, Tensor};
use delegraph_sdk::{DType, Error};

/// A test of each element.
fn test(call: &Call<'_>, float: fn(f64) -> bool, int: fn(i64) -> bool) -> Result<Vec<Tensor>, Error> {
    let x = call.tensor(0)?;
    let truth = match x.data() {
        Data::Float(values) => values.iter().map(|v| i64::from(float(*v))).collect(),
        Data::Int(values) => values.iter().map(|v| i64::from(int(*v))).collect(),
    };
    call.one(x.sizes().to_vec(), Data::Int(truth))
}

fn whole(call: &Call<'_>, float: fn(f64) -> f64) -> Result<Vec<Tensor>, Error> {
    map(call, call.tensor(0)?, float, |x| x)
}

fn bitwise_not(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let x = call.tensor(0)?;
    let is_bool = x.dtype() == DType::BOOL;
    map(call, x, |x| x, |x| if is_bool { i64::from(x == 0) } else { !x })
}

fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { 0.0 } else { x.signum() }
}

/// `ln(x / (1 - x))`, of `x` held between `eps` and `1 - eps`.
fn logit(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let eps = call.optional_scalar(1)?.map(|eps| eps.float());
    map_floats(call, |x| {
        let x = match eps {
            Some(eps) if x < eps => eps,
            Some(eps) if x > 1.0 - eps => 1.0 - eps,
            _ => x,
        };
        (x / (1.0 - x)).ln()
    })
}

fn nan_to_num(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let x = call.tensor(0)?;
    let most = largest(x.dtype());
    let number = |i, default| Ok::<f64, Error>(call.optional_scalar(i)?.map_or(default, |s| s.float()));
    let (nan, high, low) = (number(1, 0.0)?, number(2, most)?, number(3, -most)?);
    let replace = |x: f64| match x {
        x if x.is_nan() => nan,
        f64::INFINITY => high,
        f64::NEG_INFINITY => low,
        x => x,
    };
    map(call, x, replace, |x| x)
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::abs", "Tensor", no_bool, |c| {
        map(c, c.tensor(0)?, f64::abs, i64::wrapping_abs)
    }),
    op("aten::neg", "Tensor", no_bool, |c| {
        map(c, c.tensor(0)?, |x| -x, i64::wrapping_neg)
    }),
    op("aten::sign", "Tensor", anything, |c| {
        map(c, c.tensor(0)?, sign, i64::signum)
    }),
    op("aten::sgn", "Tensor", anything, |c| {
        map(c, c.tensor(0)?, sign, i64::signum)
    }),
    op("aten::square", "Tensor", no_bool, |c| {
        map(c, c.tensor(0)?, |x| x * x, |x| x.wrapping_mul(x))
    }),
    op("aten::ceil", "Tensor", no_bool, |c| whole(c, f64::ceil)),
    op("aten::floor", "Tensor", no_bool, |c| whole(c, f64::floor)),
    op("aten::round", "Tensor", no_bool, |c| whole(c, f64::round_ties_even)),
    op("aten::trunc", "Tensor", no_bool, |c| whole(c, f64::trunc)),
    op("aten::frac", "Tensor", to_float, |c| map_floats(c, |x| x - x.trunc())),
    op("aten::exp", "Tensor", to_float, |c| map_floats(c, f64::exp)),
    op("aten::exp2", "Tensor", to_float, |c| map_floats(c, f64::exp2)),
    op("aten::expm1", "Tensor", to_float, |c| map_floats(c, f64::exp_m1)),
    op("aten::log", "Tensor", to_float, |c| map_floats(c, f64::ln)),
    op("aten::log2", "Tensor", to_float, |c| map_floats(c, f64::log2)),
    op("aten::log10", "Tensor", to_float, |c| map_floats(c, f64::log10)),
    op("aten::log1p", "Tensor", to_float, |c| map_floats(c, f64::ln_1p)),
    op("aten::sqrt", "Tensor", to_float, |c| map_floats(c, f64::sqrt)),
    op("aten::rsqrt", "Tensor", to_float, |c| map_floats(c, |x| 1.0 / x.sqrt())),
    op("aten::reciprocal", "Tensor", to_float, |c| map_floats(c, |x| 1.0 / x)),
    op("aten::sin", "Tensor", to_float, |c| map_floats(c, f64::sin)),
    op("aten::cos", "Tensor", to_float, |c| map_floats(c, f64::cos)),
    op("aten::tan", "Tensor", to_float, |c| map_floats(c, f64::tan)),
    op("aten::asin", "Tensor", to_float, |c| map_floats(c, f64::asin)),
    op("aten::acos", "Tensor", to_float, |c| map_floats(c, f64::acos)),
    op("aten::atan", "Tensor", to_float, |c| map_floats(c, f64::atan)),
    op("aten::sinh", "Tensor", to_float, |c| map_floats(c, f64::sinh)),
    op("aten::cosh", "Tensor", to_float, |c| map_floats(c, f64::cosh)),
    op("aten::tanh", "Tensor", to_float, |c| map_floats(c, f64::tanh)),
    op("aten::asinh", "Tensor", to_float, |c| map_floats(c, f64::asinh)),
    op("aten::acosh", "Tensor", to_float, |c| map_floats(c, f64::acosh)),
    op("aten::atanh", "Tensor", to_float, |c| map_floats(c, f64::atanh)),
    op("aten::erf", "Tensor", to_float, |c| map_floats(c, erf)),
    op("aten::erfc", "Tensor", to_float, |c| map_floats(c, erfc)),
    op("aten::sigmoid", "Tensor", to_float, |c| map_floats(c, sigmoid)),
    op("aten::logit", "Tensor float?", to_float, logit),
    op("aten::nan_to_num", "Tensor float? float? float?", anything, nan_to_num),
    op("aten::isnan", "Tensor", anything, |c| test(c, f64::is_nan, |_| false)),
    op("aten::isinf", "Tensor", anything, |c| {
        test(c, f64::is_infinite, |_| false)
    }),
    op("aten::isfinite", "Tensor", anything, |c| {
        test(c, f64::is_finite, |_| true)
    }),
    op("aten::logical_not", "Tensor", anything, |c| {
        test(c, |x| x == 0.0, |x| x == 0)
    }),
    op("aten::bitwise_not", "Tensor", integers, bitwise_not),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives};
    use delegraph_sdk::DType;

    #[test]
    fn elements_by_themselves() {
        let x = f32s(&[3], &[-1.5, 0.0, 4.0]);
        gives("aten::abs", &[(&x).into()], &[f32s(&[3], &[1.5, 0.0, 4.0])]);
        gives("aten::sign", &[(&x).into()], &[f32s(&[3], &[-1.0, 0.0, 1.0])]);
        gives(
            "aten::round",
            &[(&f32s(&[2], &[0.5, 1.5])).into()],
            &[f32s(&[2], &[0.0, 2.0])],
        );
        let x = x.to(DType::I32).unwrap();
        let flipped = f32s(&[3], &[0.0, -1.0, -5.0]).to(DType::I32).unwrap();
        gives("aten::bitwise_not", &[(&x).into()], &[flipped]);
    }
}
