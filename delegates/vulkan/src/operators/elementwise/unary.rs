//! Functions of one tensor: mathematics and activations.

use super::Row;
use super::reader::Reader;
use crate::caps::Refusal;
use crate::chain::{Chain, Class, Link, Op, Operand};
use crate::node::Scalar;
use delegraph_sdk::DType;
use delegraph_sdk::image::ArgView;

type Described = Result<Chain, Refusal>;

fn float(value: f64) -> Operand {
    Operand::Number(Scalar::Float(value))
}

fn one(r: &Reader<'_>, dtype: DType, link: Link) -> Described {
    let mut chain = r.load(dtype)?;
    chain.links.push(link);
    Ok(chain)
}

/// A function whose result is a float, of a tensor of any type.
fn math(r: &Reader<'_>, op: Op) -> Described {
    one(r, r.floats()?, Link::new(op))
}

/// A function that is of the type of its tensor.
fn same(r: &Reader<'_>, op: Op) -> Described {
    one(r, r.no_bool()?, Link::new(op))
}

fn sign(r: &Reader<'_>) -> Described {
    one(r, r.out()?, Link::new(Op::Sign))
}

fn with(r: &Reader<'_>, op: Op, y: f64, z: f64) -> Described {
    one(r, r.floats()?, Link::two(op, float(y), float(z)))
}

fn bitwise_not(r: &Reader<'_>) -> Described {
    match r.out()? {
        DType::BOOL => one(r, DType::BOOL, Link::new(Op::Not)),
        dtype if dtype.is_float() => Err(Refusal::dtype("floats have no bits to flip")),
        dtype => one(r, dtype, Link::new(Op::BitNot)),
    }
}

fn bound(r: &Reader<'_>, low: f64, high: Option<f64>) -> Described {
    let dtype = r.no_bool()?;
    match high {
        Some(high) => one(r, dtype, Link::two(Op::Clamp, float(low), float(high))),
        None => one(r, dtype, Link::of(Op::Max, float(low))),
    }
}

/// y (e^(z x) - 1) for negative x, else y2 x
fn elu(r: &Reader<'_>, alpha: f64, scale: f64, input_scale: f64) -> Described {
    let y2 = (scale as f32).to_bits();
    let link = Link::two(Op::Elu, float(alpha * scale), float(input_scale));
    one(r, r.floats()?, Link { y2, ..link })
}

fn celu(r: &Reader<'_>) -> Described {
    let alpha = r.number_or(1, 1.0)?;
    elu(r, alpha, 1.0, 1.0 / alpha)
}

fn gelu(r: &Reader<'_>) -> Described {
    match r.arg(1) {
        ArgView::None | ArgView::Str("none") => math(r, Op::Gelu),
        ArgView::Str("tanh") => math(r, Op::GeluTanh),
        other => Err(Refusal::attribute(format!("`approximate` is `{other:?}`"))),
    }
}

fn leaky(r: &Reader<'_>) -> Described {
    with(r, Op::Leaky, r.number_or(1, 0.01)?, 0.0)
}

/// One slope, or one a channel; channels are dimension 1.
fn prelu(r: &Reader<'_>) -> Described {
    let (dtype, slopes) = (r.floats()?, r.value(1)?);
    let y = match r.view(1)?.const_dims().as_deref() {
        Some([] | [1]) => Operand::Value(slopes),
        Some([_]) if r.view(0)?.rank() > 1 => Operand::Along(slopes, 1),
        other => return Err(Refusal::shape(format!("slopes of sizes {other:?}"))),
    };
    one(r, dtype, Link::of(Op::Leaky, y))
}

/// Slopes that broadcast.
fn prelu_kernel(r: &Reader<'_>) -> Described {
    one(r, r.floats()?, Link::of(Op::Leaky, r.tensor(1)?))
}

fn logit(r: &Reader<'_>) -> Described {
    let mut chain = r.load(r.floats()?)?;
    if !r.is_none(1) {
        let eps = r.number(1)?.float();
        if eps > 0.5 {
            return Err(Refusal::attribute("bounds of `logit` that cross"));
        }
        chain.links.push(Link::two(Op::Clamp, float(eps), float(1.0 - eps)));
    }
    chain.links.push(Link::new(Op::Logit));
    Ok(chain)
}

fn round_decimals(r: &Reader<'_>) -> Described {
    let decimals = r.number(1)?.int();
    let power = float(10f64.powi(decimals.unsigned_abs().min(99) as i32));
    let (before, after) = match decimals >= 0 {
        true => (Op::Mul, Op::Div),
        false => (Op::Div, Op::Mul),
    };
    let mut chain = r.load(r.floats()?)?;
    chain
        .links
        .extend([Link::of(before, power), Link::new(Op::Round), Link::of(after, power)]);
    Ok(chain)
}

fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 65504.0,
        DType::BF16 => f64::from(f32::from_bits(0x7f7f_0000)),
        _ => f64::from(f32::MAX),
    }
}

fn nan_to_num(r: &Reader<'_>) -> Described {
    let dtype = r.out()?;
    if Class::of(dtype) != Some(Class::Float) {
        return r.load(dtype);
    }
    let most = largest(dtype);
    let (nan, high, low) = (r.number_or(1, 0.0)?, r.number_or(2, most)?, r.number_or(3, -most)?);
    let y2 = (high as f32).to_bits();
    let link = Link::two(Op::NanToNum, float(nan), float(low));
    one(r, dtype, Link { y2, ..link })
}

// The constants of Klambauer et al., Self-Normalizing Neural Networks, as PyTorch has them.
const SELU: (f64, f64) = (1.673_263_242_354_377_2, 1.050_700_987_355_480_5);

pub(super) const ROWS: &[Row] = &[
    Row("aten::abs", |r| same(r, Op::Abs)),
    Row("aten::neg", |r| same(r, Op::Neg)),
    Row("aten::sign", sign),
    Row("aten::sgn", sign),
    Row("aten::square", |r| same(r, Op::Square)),
    Row("aten::ceil", |r| same(r, Op::Ceil)),
    Row("aten::floor", |r| same(r, Op::Floor)),
    Row("aten::round", |r| same(r, Op::Round)),
    Row("aten::round.decimals", round_decimals),
    Row("aten::trunc", |r| same(r, Op::Trunc)),
    Row("aten::frac", |r| math(r, Op::Frac)),
    Row("aten::bitwise_not", bitwise_not),
    Row("aten::exp", |r| math(r, Op::Exp)),
    Row("aten::exp2", |r| math(r, Op::Exp2)),
    Row("aten::expm1", |r| math(r, Op::Expm1)),
    Row("aten::log", |r| math(r, Op::Log)),
    Row("aten::log2", |r| math(r, Op::Log2)),
    Row("aten::log10", |r| math(r, Op::Log10)),
    Row("aten::log1p", |r| math(r, Op::Log1p)),
    Row("aten::sqrt", |r| math(r, Op::Sqrt)),
    Row("aten::rsqrt", |r| math(r, Op::Rsqrt)),
    Row("aten::reciprocal", |r| math(r, Op::Reciprocal)),
    Row("aten::sin", |r| math(r, Op::Sin)),
    Row("aten::cos", |r| math(r, Op::Cos)),
    Row("aten::tan", |r| math(r, Op::Tan)),
    Row("aten::asin", |r| math(r, Op::Asin)),
    Row("aten::acos", |r| math(r, Op::Acos)),
    Row("aten::atan", |r| math(r, Op::Atan)),
    Row("aten::sinh", |r| math(r, Op::Sinh)),
    Row("aten::cosh", |r| math(r, Op::Cosh)),
    Row("aten::tanh", |r| math(r, Op::Tanh)),
    Row("aten::asinh", |r| math(r, Op::Asinh)),
    Row("aten::acosh", |r| math(r, Op::Acosh)),
    Row("aten::atanh", |r| math(r, Op::Atanh)),
    Row("aten::erf", |r| math(r, Op::Erf)),
    Row("aten::erfc", |r| math(r, Op::Erfc)),
    Row("aten::logit", logit),
    Row("aten::nan_to_num", nan_to_num),
    Row("aten::sigmoid", |r| math(r, Op::Sigmoid)),
    Row("aten::relu", |r| bound(r, 0.0, None)),
    Row("aten::relu6", |r| bound(r, 0.0, Some(6.0))),
    Row("aten::hardswish", |r| math(r, Op::Hardswish)),
    Row("aten::hardsigmoid", |r| math(r, Op::Hardsigmoid)),
    Row("aten::silu", |r| math(r, Op::Silu)),
    Row("aten::mish", |r| math(r, Op::Mish)),
    Row("aten::gelu", gelu),
    Row("aten::log_sigmoid", |r| math(r, Op::LogSigmoid)),
    Row("aten::leaky_relu", leaky),
    Row("aten::prelu", prelu),
    Row("aten::_prelu_kernel", prelu_kernel),
    Row("aten::elu", |r| {
        elu(r, r.number_or(1, 1.0)?, r.number_or(2, 1.0)?, r.number_or(3, 1.0)?)
    }),
    Row("aten::celu", celu),
    Row("aten::selu", |r| elu(r, SELU.0, SELU.1, 1.0)),
    Row("aten::softplus", |r| {
        with(r, Op::Softplus, r.number_or(1, 1.0)?, r.number_or(2, 20.0)?)
    }),
    Row("aten::threshold", |r| {
        with(r, Op::Threshold, r.number(1)?.float(), r.number(2)?.float())
    }),
    Row("aten::hardshrink", |r| {
        with(r, Op::Hardshrink, r.number_or(1, 0.5)?, 0.0)
    }),
    Row("aten::softshrink", |r| {
        with(r, Op::Softshrink, r.number_or(1, 0.5)?, 0.0)
    }),
];
