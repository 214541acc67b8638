//! Choices, bounds, and sums of three operands.

use super::Row;
use super::reader::Reader;
use crate::caps::Refusal;
use crate::chain::{Chain, Link, Op, Operand};
use crate::node::Scalar;
use delegraph_sdk::DType;

type Described = Result<Chain, Refusal>;

fn mask(r: &Reader<'_>, i: usize) -> Result<Operand, Refusal> {
    match r.dtype(i)? {
        DType::BOOL | DType::U8 => r.tensor(i),
        other => Err(Refusal::dtype(format!("a mask of {other}"))),
    }
}

fn choose(r: &Reader<'_>) -> Described {
    let dtype = r.out()?;
    let (mask, yes, no) = (mask(r, 0)?, r.operand(1, dtype)?, r.operand(2, dtype)?);
    let links = vec![Link::of(Op::Load, mask), Link::two(Op::Select, yes, no)];
    Ok(Chain { dtype, links })
}

fn masked_fill(r: &Reader<'_>) -> Described {
    let dtype = r.out()?;
    let mut chain = r.load(dtype)?;
    chain.links.push(Link::two(Op::Fill, r.operand(2, dtype)?, mask(r, 1)?));
    Ok(chain)
}

/// Bounds at arguments that may be `None`; where they cross, the upper one wins.
fn bounded(r: &Reader<'_>, low: Option<usize>, high: Option<usize>) -> Described {
    let dtype = r.no_bool()?;
    let mut chain = r.load(dtype)?;
    let bound = |i: Option<usize>| match i {
        Some(i) if !r.is_none(i) => r.bound(i, dtype).map(Some),
        _ => Ok(None),
    };
    match (bound(low)?, bound(high)?) {
        (Some(low), Some(high)) => chain.links.push(Link::two(Op::Clamp, low, high)),
        (Some(low), None) => chain.links.push(Link::of(Op::Max, low)),
        (None, Some(high)) => chain.links.push(Link::of(Op::Min, high)),
        (None, None) => {}
    }
    Ok(chain)
}

fn scaled(r: &Reader<'_>, op: Op) -> Described {
    let dtype = match op {
        Op::Div => r.floats()?,
        _ => r.no_bool()?,
    };
    let factor = match r.is_none(3) {
        true => Scalar::Int(1),
        false => r.number(3)?,
    };
    let mut links = vec![
        Link::of(Op::Load, r.operand(1, dtype)?),
        Link::of(op, r.operand(2, dtype)?),
    ];
    if factor.float() != 1.0 {
        links.push(Link::of(Op::Mul, Operand::Number(factor)));
    }
    links.push(Link::of(Op::Add, r.operand(0, dtype)?));
    Ok(Chain { dtype, links })
}

/// a + weight · (b - a)
fn lerp(r: &Reader<'_>) -> Described {
    let dtype = r.floats()?;
    let start = r.operand(0, dtype)?;
    let links = vec![
        Link::of(Op::Load, r.operand(1, dtype)?),
        Link::two(Op::Add, start, Operand::Number(Scalar::Int(-1))),
        Link::of(Op::Mul, r.operand(2, dtype)?),
        Link::of(Op::Add, start),
    ];
    Ok(Chain { dtype, links })
}

fn fill(r: &Reader<'_>) -> Described {
    let dtype = r.out()?;
    let links = vec![Link::of(Op::Load, r.operand(1, dtype)?)];
    Ok(Chain { dtype, links })
}

pub(super) const ROWS: &[Row] = &[
    Row("aten::where.self", choose),
    Row("aten::where.Scalar", choose),
    Row("aten::where.ScalarSelf", choose),
    Row("aten::where.ScalarOther", choose),
    Row("aten::masked_fill.Scalar", masked_fill),
    Row("aten::masked_fill.Tensor", masked_fill),
    Row("aten::clamp", |r| bounded(r, Some(1), Some(2))),
    Row("aten::clamp.Tensor", |r| bounded(r, Some(1), Some(2))),
    Row("aten::clamp_min", |r| bounded(r, Some(1), None)),
    Row("aten::clamp_min.Tensor", |r| bounded(r, Some(1), None)),
    Row("aten::clamp_max", |r| bounded(r, None, Some(1))),
    Row("aten::clamp_max.Tensor", |r| bounded(r, None, Some(1))),
    Row("aten::hardtanh", |r| bounded(r, Some(1), Some(2))),
    Row("aten::addcmul", |r| scaled(r, Op::Mul)),
    Row("aten::addcdiv", |r| scaled(r, Op::Div)),
    Row("aten::lerp.Scalar", lerp),
    Row("aten::lerp.Tensor", lerp),
    Row("aten::fill.Scalar", fill),
    Row("aten::fill.Tensor", fill),
];
