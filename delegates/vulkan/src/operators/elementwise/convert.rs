//! Other element types: casts, and quantizing by explicit operators (`quantized_decomposed`).
//!
//! PyTorch defines the latter by arithmetic in f32, whose roundings decide which integer comes out. Where it does, so do these chains.

use super::Row;
use super::reader::Reader;
use crate::caps::Refusal;
use crate::chain::{Chain, Class, Link, Op, Operand};
use crate::node::Scalar;
use delegraph_sdk::DType;
use delegraph_sdk::image::ArgView;

type Described = Result<Chain, Refusal>;

/// What holds both the source and the result: the store converts.
fn between(from: DType, to: DType) -> Result<DType, Refusal> {
    match (Class::of(from), Class::of(to)) {
        (Some(_), Some(_)) if from == to => Ok(from),
        (Some(Class::Float), Some(_)) | (Some(_), Some(Class::Float)) => Ok(DType::F32),
        (Some(Class::Long), Some(_)) | (Some(_), Some(Class::Long)) => Ok(DType::I64),
        (Some(_), Some(_)) => Ok(DType::I32),
        _ => Err(Refusal::dtype(format!("a cast of {from} to {to}"))),
    }
}

/// The dtype of the output is in the image.
fn cast(r: &Reader<'_>) -> Described {
    r.load(between(r.dtype(0)?, r.out()?)?)
}

/// A tensor in the sizes and of the dtype of another.
fn copy(r: &Reader<'_>) -> Described {
    let dtype = between(r.dtype(1)?, r.out()?)?;
    let links = vec![Link::of(Op::Load, r.tensor(1)?)];
    Ok(Chain { dtype, links })
}

fn same(r: &Reader<'_>) -> Described {
    r.load(r.out()?)
}

fn dropout(r: &Reader<'_>) -> Described {
    match r.arg(2) {
        ArgView::Bool(false) => same(r),
        _ => Err(Refusal::attribute("dropout that drops is random")),
    }
}

/// Where scale and zero point are.
enum Parameters {
    /// Numbers, or tensors of one element.
    One,
    /// Lists along the dimension at argument 3.
    Channels,
}

/// Scale and zero point.
fn parameters(r: &Reader<'_>, kind: Parameters) -> Result<(Operand, Operand), Refusal> {
    let operand = |i| match (&kind, r.arg(i)) {
        (_, ArgView::None) => Ok(Operand::Number(Scalar::Int(0))),
        (Parameters::Channels, _) => {
            let (dim, rank) = (r.number(3)?.int(), r.view(0)?.rank() as i64);
            let dim = if dim < 0 { dim + rank } else { dim };
            match (0..rank).contains(&dim) {
                true => Ok(Operand::Along(r.value(i)?, dim as u32)),
                false => Err(Refusal::attribute(format!("dimension {dim} of {rank}"))),
            }
        }
        (Parameters::One, ArgView::Value(_)) => match r.view(i)?.const_dims() {
            Some(dims) if dims.iter().all(|dim| *dim == 1) && dims.len() <= r.view(0)?.rank() => r.tensor(i),
            other => Err(Refusal::shape(format!("parameters of sizes {other:?}"))),
        },
        (Parameters::One, _) => r.number(i).map(Operand::Number),
    };
    Ok((operand(1)?, operand(2)?))
}

fn check(r: &Reader<'_>, float: DType, int: DType) -> Result<(), Refusal> {
    let is_float = Class::of(float) == Some(Class::Float);
    match is_float && matches!(int, DType::U8 | DType::I8 | DType::I16 | DType::I32) {
        true => Ok(()),
        false => Err(Refusal::dtype(format!("`{}` between {float} and {int}", r.op()))),
    }
}

/// clamp(round(x · (1 / scale)) + zero point, min, max); the bounds are arguments `bounds` and the next.
fn quantize(r: &Reader<'_>, kind: Parameters, bounds: usize) -> Described {
    check(r, r.dtype(0)?, r.out()?)?;
    let (scale, zero) = parameters(r, kind)?;
    let bound = |i| r.number(i).map(Operand::Number);
    let mut links = match scale {
        Operand::Number(scale) => {
            let inverse = Operand::Number(Scalar::Float(f64::from((1.0 / scale.float()) as f32)));
            vec![Link::of(Op::Load, r.tensor(0)?), Link::of(Op::Mul, inverse)]
        }
        scale => {
            let inverse = [Link::of(Op::Load, scale), Link::new(Op::Reciprocal)];
            [&inverse[..], &[Link::of(Op::Mul, r.tensor(0)?)]].concat()
        }
    };
    links.push(Link::new(Op::Round));
    links.push(Link::of(Op::Add, zero));
    links.push(Link::two(Op::Clamp, bound(bounds)?, bound(bounds + 1)?));
    Ok(Chain {
        dtype: DType::F32,
        links,
    })
}

/// (x - zero point) · scale
fn dequantize(r: &Reader<'_>, kind: Parameters) -> Described {
    check(r, r.out()?, r.dtype(0)?)?;
    let (scale, zero) = parameters(r, kind)?;
    let mut chain = r.load(DType::F32)?;
    chain
        .links
        .push(Link::two(Op::Add, zero, Operand::Number(Scalar::Int(-1))));
    chain.links.push(Link::of(Op::Mul, scale));
    Ok(chain)
}

pub(super) const ROWS: &[Row] = &[
    Row("aten::_to_copy", cast),
    Row("aten::to.dtype", cast),
    Row("aten::to.dtype_layout", cast),
    Row("aten::to.device", cast),
    Row("aten::to.other", cast),
    Row("aten::type_as", cast),
    Row("aten::copy", copy),
    Row("aten::clone", same),
    Row("aten::alias", same),
    Row("aten::detach", same),
    Row("aten::lift_fresh_copy", same),
    Row("aten::dropout", dropout),
    Row("quantized_decomposed::quantize_per_tensor", |r| {
        quantize(r, Parameters::One, 3)
    }),
    Row("quantized_decomposed::quantize_per_channel", |r| {
        quantize(r, Parameters::Channels, 4)
    }),
    Row("quantized_decomposed::dequantize_per_tensor", |r| {
        dequantize(r, Parameters::One)
    }),
    Row("quantized_decomposed::dequantize_per_channel", |r| {
        dequantize(r, Parameters::Channels)
    }),
];
