//! Arithmetic of two operands.

use super::Row;
use super::reader::Reader;
use crate::caps::Refusal;
use crate::chain::{Chain, Class, Link, Op, Operand};
use crate::node::Scalar;
use delegraph_sdk::DType;
use delegraph_sdk::image::ArgView;

type Described = Result<Chain, Refusal>;

fn negative(number: Scalar) -> Scalar {
    match number {
        Scalar::Bool(b) => Scalar::Int(-i64::from(b)),
        Scalar::Int(i) => Scalar::Int(i.wrapping_neg()),
        Scalar::Float(f) => Scalar::Float(-f),
    }
}

/// x + factor · y
fn sum(r: &Reader<'_>, op: Op, factor: Scalar) -> Described {
    let dtype = r.out()?;
    let mut chain = r.load(dtype)?;
    let y = r.operand(1, dtype)?;
    // Both are numbers where the factor is one too.
    if let (Operand::Number(number), Op::Add, true) = (y, op, dtype.is_float()) {
        let product = Operand::Number(Scalar::Float(number.float() * factor.float()));
        chain.links.push(Link::of(op, product));
        return Ok(chain);
    }
    if matches!(dtype, DType::F16 | DType::BF16) && factor.float().abs() != 1.0 {
        return scaled_sum(r, op, factor, dtype);
    }
    chain.links.push(Link::two(op, y, Operand::Number(factor)));
    Ok(chain)
}

/// PyTorch rounds the product of 16-bit floats before it adds.
fn scaled_sum(r: &Reader<'_>, op: Op, factor: Scalar, dtype: DType) -> Described {
    let (scaled, other, factor) = match op {
        Op::Rsub => (0, 1, negative(factor)),
        _ => (1, 0, factor),
    };
    let mut links = vec![
        Link::of(Op::Load, r.operand(scaled, dtype)?),
        Link::of(Op::Mul, Operand::Number(factor)),
    ];
    links.extend(Link::rounding(dtype));
    links.push(Link::of(Op::Add, r.operand(other, dtype)?));
    Ok(Chain { dtype, links })
}

fn factor(r: &Reader<'_>) -> Result<Scalar, Refusal> {
    match r.is_none(2) {
        true => Ok(Scalar::Int(1)),
        false => r.number(2),
    }
}

fn add(r: &Reader<'_>) -> Described {
    sum(r, Op::Add, factor(r)?)
}

fn sub(r: &Reader<'_>) -> Described {
    r.no_bool()?;
    sum(r, Op::Add, negative(factor(r)?))
}

fn rsub(r: &Reader<'_>) -> Described {
    r.no_bool()?;
    sum(r, Op::Rsub, factor(r)?)
}

/// One operation on the two operands.
fn plain(r: &Reader<'_>, dtype: DType, op: Op) -> Described {
    let mut chain = r.load(dtype)?;
    chain.links.push(Link::of(op, r.operand(1, dtype)?));
    Ok(chain)
}

fn mul(r: &Reader<'_>) -> Described {
    plain(r, r.out()?, Op::Mul)
}

fn div(r: &Reader<'_>) -> Described {
    plain(r, r.floats()?, Op::Div)
}

fn float(r: &Reader<'_>, op: Op) -> Described {
    plain(r, r.floats()?, op)
}

/// For functions with jumps: the operands are first what the dtype makes of them.
fn stepped(r: &Reader<'_>, op: Op) -> Described {
    let dtype = r.no_bool()?;
    let known = !r.is_unknown(1) && r.arg(1).value().is_none();
    if !dtype.is_float() && known && r.number(1)?.int() == 0 {
        return Err(Refusal::attribute("integers are divided by zero"));
    }
    r.pair(dtype, op)
}

fn div_mode(r: &Reader<'_>) -> Described {
    match r.arg(2) {
        ArgView::None => div(r),
        ArgView::Str("trunc") => stepped(r, Op::TruncDiv),
        ArgView::Str("floor") => stepped(r, Op::FloorDiv),
        other => Err(Refusal::attribute(format!("`rounding_mode` is `{other:?}`"))),
    }
}

fn extreme(r: &Reader<'_>, op: Op) -> Described {
    r.pair(r.out()?, op)
}

fn pow(r: &Reader<'_>) -> Described {
    let dtype = r.no_bool()?;
    let mut chain = r.load(dtype)?;
    let exponent = r.operand(1, dtype)?;
    let number = match exponent {
        Operand::Number(number) => number.float(),
        _ => f64::NAN,
    };
    if Class::of(dtype) != Some(Class::Float) {
        if number < 0.0 {
            return Err(Refusal::attribute("integers have no negative powers"));
        }
        chain.links.push(Link::of(Op::Pow, exponent));
        return Ok(chain);
    }
    let x = r.operand(0, dtype)?;
    let simple: &[Link] = match number {
        1.0 => &[],
        2.0 => &[Link::new(Op::Square)],
        3.0 => &[Link::new(Op::Square), Link::of(Op::Mul, x)],
        0.5 => &[Link::new(Op::Sqrt)],
        -0.5 => &[Link::new(Op::Rsqrt)],
        -1.0 => &[Link::new(Op::Reciprocal)],
        -2.0 => &[Link::new(Op::Square), Link::new(Op::Reciprocal)],
        _ => &[Link::of(Op::Pow, exponent)],
    };
    chain.links.extend_from_slice(simple);
    Ok(chain)
}

fn bits(r: &Reader<'_>, op: Op) -> Described {
    let dtype = r.out()?;
    if dtype.is_float() {
        return Err(Refusal::dtype(format!("`{}` takes integers", r.op())));
    }
    plain(r, dtype, op)
}

fn shift(r: &Reader<'_>, op: Op) -> Described {
    r.no_bool()?;
    let mut chain = bits(r, op)?;
    let width = r.out()?.size().unwrap_or(4) as u32 * 8;
    if let Some(link) = chain.links.last_mut().filter(|_| width <= 32) {
        link.y2 = width;
    }
    Ok(chain)
}

pub(super) const ROWS: &[Row] = &[
    Row("aten::add.Tensor", add),
    Row("aten::add.Scalar", add),
    Row("aten::sub.Tensor", sub),
    Row("aten::sub.Scalar", sub),
    Row("aten::rsub.Tensor", rsub),
    Row("aten::rsub.Scalar", rsub),
    Row("aten::mul.Tensor", mul),
    Row("aten::mul.Scalar", mul),
    Row("aten::div.Tensor", div),
    Row("aten::div.Scalar", div),
    Row("aten::true_divide.Tensor", div),
    Row("aten::true_divide.Scalar", div),
    Row("aten::div.Tensor_mode", div_mode),
    Row("aten::div.Scalar_mode", div_mode),
    Row("aten::floor_divide", |r| stepped(r, Op::FloorDiv)),
    Row("aten::floor_divide.Scalar", |r| stepped(r, Op::FloorDiv)),
    Row("aten::remainder.Tensor", |r| stepped(r, Op::Remainder)),
    Row("aten::remainder.Scalar", |r| stepped(r, Op::Remainder)),
    Row("aten::remainder.Scalar_Tensor", |r| stepped(r, Op::Remainder)),
    Row("aten::fmod.Tensor", |r| stepped(r, Op::Fmod)),
    Row("aten::fmod.Scalar", |r| stepped(r, Op::Fmod)),
    Row("aten::pow.Tensor_Tensor", pow),
    Row("aten::pow.Tensor_Scalar", pow),
    Row("aten::pow.Scalar", pow),
    Row("aten::maximum", |r| extreme(r, Op::Max)),
    Row("aten::minimum", |r| extreme(r, Op::Min)),
    Row("aten::fmax", |r| extreme(r, Op::Fmax)),
    Row("aten::fmin", |r| extreme(r, Op::Fmin)),
    Row("aten::atan2", |r| float(r, Op::Atan2)),
    Row("aten::hypot", |r| float(r, Op::Hypot)),
    Row("aten::copysign.Tensor", |r| float(r, Op::Copysign)),
    Row("aten::copysign.Scalar", |r| float(r, Op::Copysign)),
    Row("aten::logaddexp", |r| float(r, Op::Logaddexp)),
    Row("aten::xlogy.Tensor", |r| float(r, Op::Xlogy)),
    Row("aten::bitwise_and.Tensor", |r| bits(r, Op::BitAnd)),
    Row("aten::bitwise_and.Scalar", |r| bits(r, Op::BitAnd)),
    Row("aten::bitwise_and.Scalar_Tensor", |r| bits(r, Op::BitAnd)),
    Row("aten::__and__.Tensor", |r| bits(r, Op::BitAnd)),
    Row("aten::__and__.Scalar", |r| bits(r, Op::BitAnd)),
    Row("aten::bitwise_or.Tensor", |r| bits(r, Op::BitOr)),
    Row("aten::bitwise_or.Scalar", |r| bits(r, Op::BitOr)),
    Row("aten::bitwise_or.Scalar_Tensor", |r| bits(r, Op::BitOr)),
    Row("aten::__or__.Tensor", |r| bits(r, Op::BitOr)),
    Row("aten::__or__.Scalar", |r| bits(r, Op::BitOr)),
    Row("aten::bitwise_xor.Tensor", |r| bits(r, Op::BitXor)),
    Row("aten::bitwise_xor.Scalar", |r| bits(r, Op::BitXor)),
    Row("aten::bitwise_xor.Scalar_Tensor", |r| bits(r, Op::BitXor)),
    Row("aten::__xor__.Tensor", |r| bits(r, Op::BitXor)),
    Row("aten::__xor__.Scalar", |r| bits(r, Op::BitXor)),
    Row("aten::bitwise_left_shift.Tensor", |r| shift(r, Op::ShiftLeft)),
    Row("aten::bitwise_left_shift.Tensor_Scalar", |r| shift(r, Op::ShiftLeft)),
    Row("aten::bitwise_left_shift.Scalar_Tensor", |r| shift(r, Op::ShiftLeft)),
    Row("aten::__lshift__.Tensor", |r| shift(r, Op::ShiftLeft)),
    Row("aten::__lshift__.Scalar", |r| shift(r, Op::ShiftLeft)),
    Row("aten::bitwise_right_shift.Tensor", |r| shift(r, Op::ShiftRight)),
    Row("aten::bitwise_right_shift.Tensor_Scalar", |r| shift(r, Op::ShiftRight)),
    Row("aten::bitwise_right_shift.Scalar_Tensor", |r| shift(r, Op::ShiftRight)),
    Row("aten::__rshift__.Tensor", |r| shift(r, Op::ShiftRight)),
    Row("aten::__rshift__.Scalar", |r| shift(r, Op::ShiftRight)),
];
