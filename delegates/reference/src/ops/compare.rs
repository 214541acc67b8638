//! Comparisons and logic: the results are bool.

use super::elementwise::{spread_bools, zip};
use crate::call::Call;
use crate::caps::{Operator, anything, floats, op};
use crate::promote::common;
use crate::tensor::{Data, Tensor};
use crate::walk::broadcast;
use delegraph_sdk::Error;
use std::cmp::Ordering::{self, Equal, Greater, Less};

/// Compares in the dtype that the operands have together. NaN has no order.
fn compare(call: &Call<'_>, holds: fn(Option<Ordering>) -> bool) -> Result<Vec<Tensor>, Error> {
    let (a, b) = (call.operand(0)?, call.operand(1)?);
    let dtype = common(&[&a, &b]);
    let (a, b) = (a.tensor.to(dtype)?, b.tensor.to(dtype)?);
    let (sizes, truth) = match (a.data(), b.data()) {
        (Data::Float(x), Data::Float(y)) => zip((x, a.sizes()), (y, b.sizes()), |x, y| {
            i64::from(holds(x.partial_cmp(&y)))
        })?,
        _ => zip((a.ints()?, a.sizes()), (b.ints()?, b.sizes()), |x, y| {
            i64::from(holds(Some(x.cmp(&y))))
        })?,
    };
    call.one(sizes, Data::Int(truth))
}

fn logic(call: &Call<'_>, f: fn(bool, bool) -> bool) -> Result<Vec<Tensor>, Error> {
    let (a, b) = (call.operand(0)?.tensor, call.operand(1)?.tensor);
    let sizes = broadcast(&[a.sizes(), b.sizes()])?;
    let (x, y) = (spread_bools(&a, &sizes)?, spread_bools(&b, &sizes)?);
    let truth = x.into_iter().zip(y).map(|(x, y)| i64::from(f(x, y))).collect();
    call.one(sizes, Data::Int(truth))
}

fn is_close(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let (a, b) = (call.operand(0)?.tensor, call.operand(1)?.tensor);
    let (rtol, atol, equal_nan) = (call.float(2)?, call.float(3)?, call.bool(4)?);
    let close = |x: f64, y: f64| {
        let near = (x - y).abs() <= atol + rtol * y.abs() && y.is_finite();
        i64::from(x == y || near || (equal_nan && x.is_nan() && y.is_nan()))
    };
    let (sizes, truth) = zip((a.floats()?, a.sizes()), (b.floats()?, b.sizes()), close)?;
    call.one(sizes, Data::Int(truth))
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::eq.Tensor", "Operand Operand", anything, |c| {
        compare(c, |o| o == Some(Equal))
    }),
    op("aten::eq.Scalar", "Tensor Scalar", anything, |c| {
        compare(c, |o| o == Some(Equal))
    }),
    op("aten::ne.Tensor", "Operand Operand", anything, |c| {
        compare(c, |o| o != Some(Equal))
    }),
    op("aten::ne.Scalar", "Tensor Scalar", anything, |c| {
        compare(c, |o| o != Some(Equal))
    }),
    op("aten::lt.Tensor", "Operand Operand", anything, |c| {
        compare(c, |o| o == Some(Less))
    }),
    op("aten::lt.Scalar", "Tensor Scalar", anything, |c| {
        compare(c, |o| o == Some(Less))
    }),
    op("aten::gt.Tensor", "Operand Operand", anything, |c| {
        compare(c, |o| o == Some(Greater))
    }),
    op("aten::gt.Scalar", "Tensor Scalar", anything, |c| {
        compare(c, |o| o == Some(Greater))
    }),
    op("aten::le.Tensor", "Operand Operand", anything, |c| {
        compare(c, |o| matches!(o, Some(Less | Equal)))
    }),
    op("aten::le.Scalar", "Tensor Scalar", anything, |c| {
        compare(c, |o| matches!(o, Some(Less | Equal)))
    }),
    op("aten::ge.Tensor", "Operand Operand", anything, |c| {
        compare(c, |o| matches!(o, Some(Greater | Equal)))
    }),
    op("aten::ge.Scalar", "Tensor Scalar", anything, |c| {
        compare(c, |o| matches!(o, Some(Greater | Equal)))
    }),
    op("aten::logical_and", "Operand Operand", anything, |c| {
        logic(c, |a, b| a && b)
    }),
    op("aten::logical_or", "Operand Operand", anything, |c| {
        logic(c, |a, b| a || b)
    }),
    op("aten::logical_xor", "Operand Operand", anything, |c| {
        logic(c, |a, b| a != b)
    }),
    op(
        "aten::isclose",
        "Tensor Tensor float float bool",
        floats_and_truth,
        is_close,
    ),
];

/// Floats are compared; the result is bool, so that [`floats`] does not fit.
fn floats_and_truth(node: &delegraph_sdk::image::NodeView<'_>) -> Result<(), crate::caps::Refusal> {
    let all_float = [0, 1]
        .iter()
        .all(|i| crate::caps::dtype(node, *i).is_some_and(|d| d.is_float()));
    if all_float { Ok(()) } else { floats(node) }
}

#[cfg(test)]
mod tests {
    use crate::testing::{bools, f32s, gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn comparisons() {
        let (x, one) = (f32s(&[3], &[1.0, f32::NAN, 3.0]), Arg::Int(1));
        gives(
            "aten::ge.Scalar",
            &[(&x).into(), one.clone().into()],
            &[bools(&[3], &[1, 0, 1])],
        );
        gives(
            "aten::ne.Scalar",
            &[(&x).into(), one.into()],
            &[bools(&[3], &[0, 1, 1])],
        );
        // An integer tensor and a float number meet in f32.
        let x = i64s(&[2], &[2, 3]);
        gives(
            "aten::gt.Scalar",
            &[(&x).into(), Arg::Float(2.5).into()],
            &[bools(&[2], &[0, 1])],
        );
    }
}
