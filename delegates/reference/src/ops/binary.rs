//! Arithmetic of two operands.

use super::elementwise::zip_class;
use crate::call::{Call, Operand};
use crate::caps::{Operator, Refusal, anything, floats, integers, no_bool, op, to_float};
use crate::math::{floor_div, floor_div_int, max, min, pow_int, remainder};
use crate::number::round;
use crate::tensor::Tensor;
use delegraph_sdk::image::{ArgView, NodeView};
use delegraph_sdk::{DType, Error};
use std::borrow::Cow;

type Made = Result<Vec<Tensor>, Error>;

fn operands<'a>(call: &Call<'a>) -> Result<(Operand<'a>, Operand<'a>), Error> {
    Ok((call.operand(0)?, call.operand(1)?))
}

fn arithmetic(call: &Call<'_>, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> Option<i64>) -> Made {
    let (a, b) = operands(call)?;
    zip_class(call, &a, &b, float, int)
}

/// For functions with jumps: the operands must first be what the output's dtype makes of them.
fn stepped(call: &Call<'_>, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> Option<i64>) -> Made {
    let dtype = call.out_dtype(0)?;
    let rounded = |operand: Operand<'_>| {
        Ok::<_, Error>(Operand {
            tensor: Cow::Owned(operand.tensor.to(dtype)?),
            is_number: operand.is_number,
        })
    };
    let (a, b) = operands(call)?;
    zip_class(call, &rounded(a)?, &rounded(b)?, float, int)
}

fn add(call: &Call<'_>, sign: i64) -> Made {
    let (a, b) = operands(call)?;
    let alpha = call.scalar(2)?;
    let (float, int) = (alpha.float() * sign as f64, alpha.int().wrapping_mul(sign));
    let dtype = call.out_dtype(0)?;
    zip_class(
        call,
        &a,
        &b,
        // PyTorch's vectors of 16-bit floats round the product before they add.
        |a, b| {
            if dtype == DType::F16 || dtype == DType::BF16 {
                a + round(dtype, float * b)
            } else {
                a + float * b
            }
        },
        |a, b| Some(a.wrapping_add(int.wrapping_mul(b))),
    )
}

fn rsub(call: &Call<'_>) -> Made {
    let (a, b) = operands(call)?;
    let alpha = call.scalar(2)?;
    let (float, int) = (alpha.float(), alpha.int());
    zip_class(
        call,
        &a,
        &b,
        |a, b| b - float * a,
        |a, b| Some(b.wrapping_sub(int.wrapping_mul(a))),
    )
}

fn mul(call: &Call<'_>) -> Made {
    arithmetic(call, |a, b| a * b, |a, b| Some(a.wrapping_mul(b)))
}

fn div(call: &Call<'_>) -> Made {
    arithmetic(call, |a, b| a / b, |_, _| None)
}

fn floor_divide(call: &Call<'_>) -> Made {
    stepped(call, floor_div, floor_div_int)
}

fn check_div_mode(node: &NodeView<'_>) -> Result<(), Refusal> {
    match node.arg(2) {
        ArgView::None => to_float(node),
        ArgView::Str("trunc" | "floor") => no_bool(node),
        other => Err(Refusal::attribute(format!("`rounding_mode` is `{other:?}`"))),
    }
}

fn div_mode(call: &Call<'_>) -> Made {
    if call.is_none(2) {
        return div(call);
    }
    match call.str(2)? {
        "floor" => floor_divide(call),
        _ => stepped(call, |a, b| (a / b).trunc(), i64::checked_div),
    }
}

/// The sign of the divisor.
fn rem(call: &Call<'_>) -> Made {
    stepped(call, remainder, |a, b| {
        let rest = a.checked_rem(b)?;
        Some(if rest != 0 && (rest < 0) != (b < 0) {
            rest + b
        } else {
            rest
        })
    })
}

/// The sign of the dividend.
fn fmod(call: &Call<'_>) -> Made {
    stepped(call, |a, b| a % b, i64::checked_rem)
}

fn pow(call: &Call<'_>) -> Made {
    arithmetic(call, f64::powf, |a, b| Some(pow_int(a, b)))
}

fn maximum(call: &Call<'_>) -> Made {
    arithmetic(call, max, |a, b| Some(a.max(b)))
}

fn minimum(call: &Call<'_>) -> Made {
    arithmetic(call, min, |a, b| Some(a.min(b)))
}

fn logaddexp(a: f64, b: f64) -> f64 {
    // Equal infinities have no difference.
    if a == b {
        return a + std::f64::consts::LN_2;
    }
    max(a, b) + (-(a - b).abs()).exp().ln_1p()
}

fn xlogy(x: f64, y: f64) -> f64 {
    if y.is_nan() {
        y
    } else if x == 0.0 {
        0.0
    } else {
        x * y.ln()
    }
}

fn bits(call: &Call<'_>, int: fn(i64, i64) -> i64) -> Made {
    let (a, b) = operands(call)?;
    zip_class(call, &a, &b, |a, _| a, |a, b| Some(int(a, b)))
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::add.Tensor", "Operand Operand Scalar", anything, |c| add(c, 1)),
    op("aten::add.Scalar", "Tensor Scalar Scalar", anything, |c| add(c, 1)),
    op("aten::sub.Tensor", "Operand Operand Scalar", no_bool, |c| add(c, -1)),
    op("aten::sub.Scalar", "Tensor Scalar Scalar", no_bool, |c| add(c, -1)),
    op("aten::rsub.Tensor", "Operand Operand Scalar", no_bool, rsub),
    op("aten::rsub.Scalar", "Tensor Scalar Scalar", no_bool, rsub),
    op("aten::mul.Tensor", "Operand Operand", anything, mul),
    op("aten::mul.Scalar", "Tensor Scalar", anything, mul),
    op("aten::div.Tensor", "Operand Operand", to_float, div),
    op("aten::div.Scalar", "Tensor Scalar", to_float, div),
    op(
        "aten::div.Tensor_mode",
        "Operand Operand str?",
        check_div_mode,
        div_mode,
    ),
    op("aten::div.Scalar_mode", "Tensor Scalar str?", check_div_mode, div_mode),
    op("aten::floor_divide", "Operand Operand", no_bool, floor_divide),
    op("aten::floor_divide.Scalar", "Tensor Scalar", no_bool, floor_divide),
    op("aten::remainder.Tensor", "Operand Operand", no_bool, rem),
    op("aten::remainder.Scalar", "Tensor Scalar", no_bool, rem),
    op("aten::fmod.Tensor", "Operand Operand", no_bool, fmod),
    op("aten::fmod.Scalar", "Tensor Scalar", no_bool, fmod),
    op("aten::pow.Tensor_Tensor", "Operand Operand", no_bool, pow),
    op("aten::pow.Tensor_Scalar", "Tensor Scalar", no_bool, pow),
    op("aten::pow.Scalar", "Scalar Tensor", no_bool, pow),
    op("aten::maximum", "Operand Operand", anything, maximum),
    op("aten::minimum", "Operand Operand", anything, minimum),
    op("aten::atan2", "Operand Operand", to_float, |c| {
        arithmetic(c, f64::atan2, |_, _| None)
    }),
    op("aten::hypot", "Operand Operand", floats, |c| {
        arithmetic(c, f64::hypot, |_, _| None)
    }),
    op("aten::copysign.Tensor", "Operand Operand", to_float, |c| {
        arithmetic(c, f64::copysign, |_, _| None)
    }),
    op("aten::logaddexp", "Operand Operand", floats, |c| {
        arithmetic(c, logaddexp, |_, _| None)
    }),
    op("aten::xlogy.Tensor", "Operand Operand", to_float, |c| {
        arithmetic(c, xlogy, |_, _| None)
    }),
    op("aten::bitwise_and.Tensor", "Operand Operand", integers, |c| {
        bits(c, |a, b| a & b)
    }),
    op("aten::bitwise_and.Scalar", "Tensor Scalar", integers, |c| {
        bits(c, |a, b| a & b)
    }),
    op("aten::__and__.Tensor", "Operand Operand", integers, |c| {
        bits(c, |a, b| a & b)
    }),
    op("aten::__and__.Scalar", "Tensor Scalar", integers, |c| {
        bits(c, |a, b| a & b)
    }),
    op("aten::bitwise_or.Tensor", "Operand Operand", integers, |c| {
        bits(c, |a, b| a | b)
    }),
    op("aten::bitwise_or.Scalar", "Tensor Scalar", integers, |c| {
        bits(c, |a, b| a | b)
    }),
    op("aten::__or__.Tensor", "Operand Operand", integers, |c| {
        bits(c, |a, b| a | b)
    }),
    op("aten::__or__.Scalar", "Tensor Scalar", integers, |c| {
        bits(c, |a, b| a | b)
    }),
    op("aten::bitwise_xor.Tensor", "Operand Operand", integers, |c| {
        bits(c, |a, b| a ^ b)
    }),
    op("aten::bitwise_xor.Scalar", "Tensor Scalar", integers, |c| {
        bits(c, |a, b| a ^ b)
    }),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives, i64s, refusal, try_run};
    use delegraph_sdk::Reason;
    use delegraph_sdk::image::Arg;

    #[test]
    fn arithmetic() {
        let (a, b) = (f32s(&[2, 1], &[1.0, 2.0]), f32s(&[2], &[10.0, 20.0]));
        let sum = f32s(&[2, 2], &[21.0, 41.0, 22.0, 42.0]);
        gives(
            "aten::add.Tensor",
            &[(&a).into(), (&b).into(), Arg::Int(2).into()],
            &[sum],
        );
        let (a, b) = (i64s(&[2], &[-7, 7]), i64s(&[], &[2]));
        gives(
            "aten::floor_divide",
            &[(&a).into(), (&b).into()],
            &[i64s(&[2], &[-4, 3])],
        );
        gives(
            "aten::remainder.Tensor",
            &[(&a).into(), (&b).into()],
            &[i64s(&[2], &[1, 1])],
        );
        let zero = i64s(&[], &[0]);
        assert!(
            try_run(
                "aten::floor_divide",
                &[(&a).into(), (&zero).into()],
                std::slice::from_ref(&a)
            )
            .is_err()
        );
    }

    #[test]
    fn refusals() {
        let x = f32s(&[1], &[0.0]);
        let reason =
            |op, third: Arg| refusal(op, &[(&x).into(), (&x).into(), third.into()], std::slice::from_ref(&x)).reason;
        assert_eq!(
            reason("aten::div.Tensor_mode", Arg::Str("up".into())),
            Reason::ATTRIBUTE
        );
        assert_eq!(reason("aten::bitwise_or.Tensor", Arg::None), Reason::DTYPE);
        assert_eq!(reason("aten::add.Tensor", Arg::None), Reason::ATTRIBUTE);
        assert_eq!(reason("aten::add_.Tensor", Arg::Int(1)), Reason::UNKNOWN_OP);
    }
}
