//! Operators that work element by element: the shape is the operands' broadcast one, the dtype is promoted.

use super::Rule;
use super::call::{Call, Result, to_float};
use crate::Type;
use delegraph_types::{DType, Operand, Scalar, result_dtype};

pub(super) fn rule(base: &str, overload: &str) -> Option<Rule> {
    Some(match base {
        // One operand, dtype kept.
        "neg" | "negative" | "positive" | "ceil" | "floor" | "round" | "trunc" | "fix" | "frac"
        | "sign" | "sgn" | "relu" | "relu6" | "gelu" | "silu" | "mish" | "elu" | "celu" | "selu" | "leaky_relu"
        | "hardtanh" | "hardswish" | "hardsigmoid" | "hardshrink" | "softshrink" | "softplus" | "log_sigmoid"
        | "threshold" | "nan_to_num" | "bitwise_not" | "fill" | "copy" | "zero" | "detach" | "alias" | "lift"
        | "lift_fresh" | "lift_fresh_copy" | "clone" | "contiguous" | "dropout" | "feature_dropout"
        | "alpha_dropout" | "feature_alpha_dropout" | "rrelu" | "conj" | "conj_physical" | "_conj" | "_conj_physical"
        | "resolve_conj" | "resolve_neg" | "fake_quantize_per_tensor_affine"
        | "fake_quantize_per_channel_affine" | "renorm" | "pin_memory" | "_lazy_clone" | "bernoulli" | "uniform"
        | "normal_functional" | "exponential" | "_neg_view" | "cauchy" | "log_normal" | "geometric" | "random" | "special_round"
        // The weight is one a channel.
        | "prelu" | "_prelu_kernel" => same,
        // The length of a complex number is real, and so is its angle.
        "abs" | "absolute" => |c| {
            let t = c.first()?;
            c.one(t.dtype.real(), t.shape.clone())
        },
        "angle" => |c| {
            let t = c.first()?;
            c.one(to_float(t.dtype).real(), t.shape.clone())
        },
        "square" => square,
        // One operand, integers become float.
        "sin" | "cos" | "tan" | "asin" | "acos" | "atan" | "sinh" | "cosh" | "tanh" | "asinh" | "acosh" | "atanh"
        | "arcsin" | "arccos" | "arctan" | "arcsinh" | "arccosh" | "arctanh" | "exp" | "exp2" | "expm1" | "log"
        | "log2" | "log10" | "log1p" | "sqrt" | "rsqrt" | "reciprocal" | "sigmoid" | "erf" | "erfc" | "erfinv"
        | "logit" | "lgamma" | "digamma" | "i0" | "sinc" | "deg2rad" | "rad2deg" | "polygamma" | "mvlgamma"
        | "special_expit" | "special_erf" | "special_erfc" | "special_erfcx" | "special_erfinv" | "special_exp2"
        | "special_expm1" | "special_log1p" | "special_logit" | "special_digamma" | "special_psi" | "special_gammaln"
        | "special_ndtr" | "special_ndtri" | "special_log_ndtr" | "special_sinc" | "special_entr" | "special_i0"
        | "special_i0e" | "special_i1" | "special_i1e" | "special_bessel_j0" | "special_bessel_j1" => float_unary,
        // One operand, boolean result.
        "isnan" | "isinf" | "isfinite" | "isneginf" | "isposinf" | "isreal" | "signbit" | "logical_not" => truth,
        // Two operands and more, promoted.
        "add" | "sub" | "subtract" | "mul" | "multiply" | "rsub" | "maximum" | "minimum" | "fmax" | "fmin"
        | "remainder" | "fmod" | "floor_divide" | "bitwise_and" | "bitwise_or" | "bitwise_xor" | "__and__" | "__or__"
        | "__xor__" | "__lshift__" | "__rshift__" | "bitwise_left_shift" | "bitwise_right_shift" | "gcd" | "lcm"
        | "heaviside" | "hypot" | "nextafter" | "_add_relu" | "pow" | "logaddexp"
        | "logaddexp2" | "igamma" | "igammac" => binary,
        "div" | "divide" | "true_divide" => div,
        "atan2" | "arctan2" | "xlogy" | "copysign" | "special_xlogy" | "special_xlog1py" | "special_zeta" | "ldexp" => {
            float_binary
        }
        "float_power" => |c| c.one(DType::F64, c.broadcast_of(&["self", "exponent"])?),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "not_equal" | "less" | "less_equal" | "greater" | "greater_equal"
        | "logical_and" | "logical_or" | "logical_xor" | "isclose" => compare,
        "isin" => |c| match c.operand("elements")? {
            Some((_, shape)) => c.one(DType::Bool, shape.to_vec()),
            None => c.invalid("argument `elements`: expected a tensor"),
        },
        "lerp" => |c| promote(c, &["self", "end"], &["self", "end", "weight"]),
        "addcmul" | "addcdiv" => |c| promote(c, &["self", "tensor1", "tensor2"], &["self", "tensor1", "tensor2"]),
        "clamp" | "clip" | "clamp_min" | "clamp_max" => |c| promote(c, &["self", "min", "max"], &["self", "min", "max"]),
        "where" if !overload.is_empty() => where_,
        "masked_fill" => |c| c.one(c.first()?.dtype, c.broadcast_of(&["self", "mask"])?),
        "masked_scatter" => |c| c.one(c.first()?.dtype, c.broadcast_of(&["self", "mask"])?),
        "native_dropout" => |c| {
            let t = c.first()?;
            Ok(vec![c.made(t.dtype, t.shape.clone())?, c.made(DType::Bool, t.shape.clone())?])
        },
        "log_sigmoid_forward" => |c| {
            // The second is for the backward pass; other devices than the CPU leave it empty.
            let t = c.first()?;
            Ok(vec![c.made(t.dtype, t.shape.clone())?, c.made(t.dtype, t.shape.clone())?])
        },
        "glu" => glu,
        "frexp" => |c| {
            let t = c.first()?;
            Ok(vec![c.made(t.dtype, t.shape.clone())?, c.made(DType::I32, t.shape.clone())?])
        },
        "to" | "_to_copy" | "type_as" => cast,
        "_assert_async" | "_assert_tensor_metadata" => |_| Ok(Vec::new()),
        _ => return None,
    })
}

fn same(c: &Call) -> Result<Vec<Type>> {
    c.like(c.first()?)
}

/// `square` is `pow(x, 2)`: booleans become i64.
fn square(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let operands = [Operand::tensor(t.dtype, t.rank()), Operand::Number(Scalar::Int(2))];
    c.one(result_dtype(operands).unwrap_or(t.dtype), t.shape.clone())
}

fn float_unary(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.one(to_float(t.dtype), t.shape.clone())
}

fn truth(c: &Call) -> Result<Vec<Type>> {
    c.one(DType::Bool, c.first()?.shape.clone())
}

/// The first two operands of the call, whatever they are called (`self` and `other`, `exponent`, `weight`).
fn pair(c: &Call) -> Result<[String; 2]> {
    match c.schema.params.as_slice() {
        [a, b, ..] => Ok([a.name.clone(), b.name.clone()]),
        _ => c.invalid("expected two operands"),
    }
}

fn promote(c: &Call, dtypes: &[&str], shapes: &[&str]) -> Result<Vec<Type>> {
    c.one(c.promoted(dtypes)?, c.broadcast_of(shapes)?)
}

fn binary(c: &Call) -> Result<Vec<Type>> {
    let [a, b] = pair(c)?;
    promote(c, &[&a, &b], &[&a, &b])
}

fn div(c: &Call) -> Result<Vec<Type>> {
    let [a, b] = pair(c)?;
    let dtype = c.promoted(&[&a, &b])?;
    let dtype = if c.given("rounding_mode") {
        dtype
    } else {
        to_float(dtype)
    };
    c.one(dtype, c.broadcast_of(&[&a, &b])?)
}

fn float_binary(c: &Call) -> Result<Vec<Type>> {
    let [a, b] = pair(c)?;
    c.one(to_float(c.promoted(&[&a, &b])?), c.broadcast_of(&[&a, &b])?)
}

fn compare(c: &Call) -> Result<Vec<Type>> {
    let [a, b] = pair(c)?;
    c.one(DType::Bool, c.broadcast_of(&[&a, &b])?)
}

fn where_(c: &Call) -> Result<Vec<Type>> {
    promote(c, &["self", "other"], &["condition", "self", "other"])
}

fn glu(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let mut shape = t.shape.clone();
    if shape[dim].as_int().is_some_and(|n| n % 2 != 0) {
        return c.invalid(format!("dimension {dim} of {t} is not even"));
    }
    shape[dim] = shape[dim].clone().floor_div(2.into());
    c.one(t.dtype, shape)
}

fn cast(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let dtype = match c.optional_tensor("other") {
        Ok(Some(other)) => other.dtype,
        _ => match c.arg("dtype") {
            crate::Arg::Int(e) => match e.as_int().and_then(|i| DType::from_pte(i as i8)) {
                Some(dtype) => dtype,
                None => return c.invalid("argument `dtype`: not a dtype"),
            },
            _ => c.dtype("dtype")?.unwrap_or(t.dtype),
        },
    };
    c.one(dtype, t.shape.clone())
}
