//! Comparisons and logic: the results are bool.

use super::Row;
use super::reader::Reader;
use crate::caps::Refusal;
use crate::chain::{Chain, Class, Link, Op, Operand};
use crate::node::Scalar;
use delegraph_sdk::DType;

type Described = Result<Chain, Refusal>;

/// Compares in the dtype that the operands have together.
fn compare(r: &Reader<'_>, op: Op) -> Described {
    r.pair(r.common(&[0, 1])?, op)
}

/// Whatever is not zero is true. What is computed in holds every operand's zero apart from its other numbers.
fn logic(r: &Reader<'_>, op: Op) -> Described {
    let (a, b) = (r.common(&[0])?, r.common(&[1])?);
    let dtype = match (Class::of(a), Class::of(b)) {
        (Some(Class::Float), _) | (_, Some(Class::Float)) => DType::F32,
        (Some(Class::Long), _) | (_, Some(Class::Long)) => DType::I64,
        _ => DType::I32,
    };
    let mut chain = r.load(dtype)?;
    chain.links.push(Link::of(op, r.operand(1, dtype)?));
    Ok(chain)
}

fn not(r: &Reader<'_>) -> Described {
    let mut chain = r.load(r.dtype(0)?)?;
    chain.links.push(Link::new(Op::Not));
    Ok(chain)
}

/// A test of floats; integers all have one answer.
fn test(r: &Reader<'_>, op: Op, of_integers: i64) -> Described {
    let dtype = r.dtype(0)?;
    if Class::of(dtype) == Some(Class::Float) {
        let mut chain = r.load(dtype)?;
        chain.links.push(Link::new(op));
        return Ok(chain);
    }
    let links = vec![Link::of(Op::Load, Operand::Number(Scalar::Int(of_integers)))];
    Ok(Chain { dtype, links })
}

pub(super) const ROWS: &[Row] = &[
    Row("aten::eq.Tensor", |r| compare(r, Op::Eq)),
    Row("aten::eq.Scalar", |r| compare(r, Op::Eq)),
    Row("aten::ne.Tensor", |r| compare(r, Op::Ne)),
    Row("aten::ne.Scalar", |r| compare(r, Op::Ne)),
    Row("aten::lt.Tensor", |r| compare(r, Op::Lt)),
    Row("aten::lt.Scalar", |r| compare(r, Op::Lt)),
    Row("aten::le.Tensor", |r| compare(r, Op::Le)),
    Row("aten::le.Scalar", |r| compare(r, Op::Le)),
    Row("aten::gt.Tensor", |r| compare(r, Op::Gt)),
    Row("aten::gt.Scalar", |r| compare(r, Op::Gt)),
    Row("aten::ge.Tensor", |r| compare(r, Op::Ge)),
    Row("aten::ge.Scalar", |r| compare(r, Op::Ge)),
    Row("aten::logical_and", |r| logic(r, Op::And)),
    Row("aten::logical_or", |r| logic(r, Op::Or)),
    Row("aten::logical_xor", |r| logic(r, Op::Xor)),
    Row("aten::logical_not", not),
    Row("aten::isnan", |r| test(r, Op::IsNan, 0)),
    Row("aten::isinf", |r| test(r, Op::IsInf, 0)),
    Row("aten::isfinite", |r| test(r, Op::IsFinite, 1)),
];
