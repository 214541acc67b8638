//! Functions of three operands: choices, bounds, sums of products.

use super::elementwise::{spread_bools, spread_floats, spread_ints};
use crate::call::{Call, Operand};
use crate::caps::{Operator, Refusal, anything, dtype, floats, no_bool, op};
use crate::math::{max, min};
use crate::tensor::{Data, Tensor};
use crate::walk::broadcast;
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Made = Result<Vec<Tensor>, Error>;

/// Where the mask is true the first, else the second.
fn choose(call: &Call<'_>, mask: &Tensor, yes: &Tensor, no: &Tensor) -> Made {
    let sizes = broadcast(&[mask.sizes(), yes.sizes(), no.sizes()])?;
    let mask = spread_bools(mask, &sizes)?;
    let data = if call.out_dtype(0)?.is_float() {
        let (yes, no) = (spread_floats(yes, &sizes)?, spread_floats(no, &sizes)?);
        let pairs = yes.into_iter().zip(no).zip(mask);
        Data::Float(pairs.map(|((yes, no), mask)| if mask { yes } else { no }).collect())
    } else {
        let (yes, no) = (spread_ints(yes, &sizes)?, spread_ints(no, &sizes)?);
        let pairs = yes.into_iter().zip(no).zip(mask);
        Data::Int(pairs.map(|((yes, no), mask)| if mask { yes } else { no }).collect())
    };
    call.one(sizes, data)
}

fn check_mask(node: &NodeView<'_>, i: usize) -> Result<(), Refusal> {
    match dtype(node, i) {
        Some(DType::BOOL | DType::U8) => Ok(()),
        _ => Err(Refusal::dtype("a mask is bool")),
    }
}

fn choice(call: &Call<'_>) -> Made {
    let (yes, no) = (call.operand(1)?, call.operand(2)?);
    choose(call, call.tensor(0)?, &yes.tensor, &no.tensor)
}

fn masked_fill(call: &Call<'_>) -> Made {
    let (x, value) = (call.tensor(0)?, call.operand(2)?);
    choose(call, call.tensor(1)?, &value.tensor, x)
}

/// Holds elements between two optional operands; where they cross, the upper one wins.
fn clamp(call: &Call<'_>, low: Option<Operand<'_>>, high: Option<Operand<'_>>) -> Made {
    let x = call.operand(0)?.tensor;
    let bounds: Vec<&Tensor> = [&low, &high].into_iter().flatten().map(|o| &*o.tensor).collect();
    let mut all = vec![x.sizes()];
    all.extend(bounds.iter().map(|b| b.sizes()));
    let sizes = broadcast(&all)?;
    let data = if call.out_dtype(0)?.is_float() {
        let mut values = spread_floats(&x, &sizes)?;
        if let Some(low) = &low {
            let low = spread_floats(&low.tensor, &sizes)?;
            values.iter_mut().zip(low).for_each(|(v, low)| *v = max(*v, low));
        }
        if let Some(high) = &high {
            let high = spread_floats(&high.tensor, &sizes)?;
            values.iter_mut().zip(high).for_each(|(v, high)| *v = min(*v, high));
        }
        Data::Float(values)
    } else {
        let mut values = spread_ints(&x, &sizes)?;
        if let Some(low) = &low {
            let low = spread_ints(&low.tensor, &sizes)?;
            values.iter_mut().zip(low).for_each(|(v, low)| *v = (*v).max(low));
        }
        if let Some(high) = &high {
            let high = spread_ints(&high.tensor, &sizes)?;
            values.iter_mut().zip(high).for_each(|(v, high)| *v = (*v).min(high));
        }
        Data::Int(values)
    };
    call.one(sizes, data)
}

fn clamp_both(call: &Call<'_>) -> Made {
    let bound = |i| {
        if call.is_none(i) {
            Ok(None)
        } else {
            call.operand(i).map(Some)
        }
    };
    clamp(call, bound(1)?, bound(2)?)
}

/// `a + value * f(b, c)`
fn add_scaled(call: &Call<'_>, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> Made {
    let [a, b, c] = [
        call.operand(0)?.tensor,
        call.operand(1)?.tensor,
        call.operand(2)?.tensor,
    ];
    let value = call.scalar(3)?;
    let sizes = broadcast(&[a.sizes(), b.sizes(), c.sizes()])?;
    let data = if call.out_dtype(0)?.is_float() {
        let pairs = spread_floats(&b, &sizes)?.into_iter().zip(spread_floats(&c, &sizes)?);
        let products = pairs.map(|(b, c)| value.float() * float(b, c));
        Data::Float(
            spread_floats(&a, &sizes)?
                .into_iter()
                .zip(products)
                .map(|(a, p)| a + p)
                .collect(),
        )
    } else {
        let pairs = spread_ints(&b, &sizes)?.into_iter().zip(spread_ints(&c, &sizes)?);
        let products = pairs.map(|(b, c)| value.int().wrapping_mul(int(b, c)));
        let sums = spread_ints(&a, &sizes)?.into_iter().zip(products);
        Data::Int(sums.map(|(a, p)| a.wrapping_add(p)).collect())
    };
    call.one(sizes, data)
}

fn lerp(call: &Call<'_>) -> Made {
    let [a, b, weight] = [
        call.operand(0)?.tensor,
        call.operand(1)?.tensor,
        call.operand(2)?.tensor,
    ];
    let sizes = broadcast(&[a.sizes(), b.sizes(), weight.sizes()])?;
    let pairs = spread_floats(&a, &sizes)?.into_iter().zip(spread_floats(&b, &sizes)?);
    let all = pairs.zip(spread_floats(&weight, &sizes)?);
    call.one(sizes, Data::Float(all.map(|((a, b), w)| a + w * (b - a)).collect()))
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op(
        "aten::where.self",
        "Tensor Operand Operand",
        |n| check_mask(n, 0),
        choice,
    ),
    op(
        "aten::where.ScalarSelf",
        "Tensor Scalar Tensor",
        |n| check_mask(n, 0),
        choice,
    ),
    op(
        "aten::where.ScalarOther",
        "Tensor Tensor Scalar",
        |n| check_mask(n, 0),
        choice,
    ),
    op(
        "aten::where.Scalar",
        "Tensor Scalar Scalar",
        |n| check_mask(n, 0),
        choice,
    ),
    op(
        "aten::masked_fill.Scalar",
        "Tensor Tensor Scalar",
        |n| check_mask(n, 1),
        masked_fill,
    ),
    op(
        "aten::masked_fill.Tensor",
        "Tensor Tensor Operand",
        |n| check_mask(n, 1),
        masked_fill,
    ),
    op("aten::clamp", "Operand Scalar? Scalar?", no_bool, clamp_both),
    op("aten::clamp.Tensor", "Operand Tensor? Tensor?", no_bool, clamp_both),
    op("aten::clamp_min", "Tensor Scalar", no_bool, |c| {
        clamp(c, Some(c.operand(1)?), None)
    }),
    op("aten::clamp_max", "Tensor Scalar", no_bool, |c| {
        clamp(c, None, Some(c.operand(1)?))
    }),
    op("aten::clamp_min.Tensor", "Tensor Tensor", no_bool, |c| {
        clamp(c, Some(c.operand(1)?), None)
    }),
    op("aten::clamp_max.Tensor", "Tensor Tensor", no_bool, |c| {
        clamp(c, None, Some(c.operand(1)?))
    }),
    op("aten::addcmul", "Operand Operand Operand Scalar", no_bool, |c| {
        add_scaled(c, |b, c| b * c, i64::wrapping_mul)
    }),
    op("aten::addcdiv", "Operand Operand Operand Scalar", floats, |c| {
        add_scaled(c, |b, c| b / c, |b, _| b)
    }),
    op("aten::lerp.Scalar", "Tensor Tensor Scalar", floats, lerp),
    op("aten::lerp.Tensor", "Tensor Tensor Tensor", floats, lerp),
    op("aten::fill.Scalar", "Tensor Scalar", anything, fill),
    op("aten::fill.Tensor", "Tensor Tensor", anything, fill),
];

/// Every element is the value.
fn fill(call: &Call<'_>) -> Made {
    let (x, value) = (call.tensor(0)?, call.operand(1)?);
    let sizes = x.sizes().to_vec();
    let data = match value.tensor.data() {
        Data::Float(_) => Data::Float(spread_floats(&value.tensor, &sizes)?),
        Data::Int(_) => Data::Int(spread_ints(&value.tensor, &sizes)?),
    };
    call.one(sizes, data)
}

#[cfg(test)]
mod tests {
    use crate::testing::{bools, f32s, gives};
    use delegraph_sdk::image::Arg;

    #[test]
    fn choices_and_bounds() {
        let mask = bools(&[2], &[1, 0]);
        let (a, b) = (f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), f32s(&[], &[9.0]));
        let want = f32s(&[2, 2], &[1.0, 9.0, 3.0, 9.0]);
        gives("aten::where.self", &[(&mask).into(), (&a).into(), (&b).into()], &[want]);
        let bounds = [(&a).into(), Arg::Float(1.5).into(), Arg::Int(3).into()];
        gives("aten::clamp", &bounds, &[f32s(&[2, 2], &[1.5, 2.0, 3.0, 3.0])]);
    }
}
