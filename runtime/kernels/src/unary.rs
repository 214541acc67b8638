//! Elementwise operators of one tensor.

use crate::complex;
use crate::elementwise::{check_category, float_dtype, map, map1, operand, shape_out, with_real};
use crate::lanes::Operand;
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::special;
use crate::vector::Bulk;
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError};
use delegraph_types::DType;

/// Operators that give floats: integers are computed in `f32`.
macro_rules! floating {
    ($($name:literal => |$x:ident| $body:expr;)*) => {
        &[$(($name, |call| {
            fn one<W: Real>($x: W) -> W {
                $body
            }
            if complex::is_any(call, [0]) {
                return complex::unary($name, call);
            }
            let (input, dtype) = begin(call, true)?;
            with_real!(dtype, "self", W => map1::<W, W>(input, None, call.out(0)?, one::<W>))
        })),*]
    };
}

/// As `floating`, by a function of slices.
macro_rules! in_bulk {
    ($($name:literal => $function:ident;)*) => {
        &[$(($name, |call| {
            let (input, dtype) = begin(call, true)?;
            with_real!(dtype, "self", W => map::<W, W, 1>(&[input], None, call.out(0)?, &|[x], to| W::$function(x, to)))
        })),*]
    };
}

/// Operators that keep the dtype; `$int` is what they do to integers.
macro_rules! keeping {
    ($($name:literal => |$x:ident| $body:expr, $int:expr;)*) => {
        &[$(($name, |call| {
            fn one<W: Real>($x: W) -> W {
                $body
            }
            if complex::is_any(call, [0]) {
                return complex::unary($name, call);
            }
            let (input, dtype) = begin(call, false)?;
            let out = call.out(0)?;
            match dtype {
                DType::F64 => map1::<f64, f64>(input, None, out, one::<f64>),
                DType::F32 | DType::F16 | DType::BF16 => map1::<f32, f32>(input, None, out, one::<f32>),
                _ => map1::<i64, i64>(input, None, out, $int),
            }
        })),*]
    };
}

/// Operators that give truth values.
macro_rules! asking {
    ($($name:literal => |$x:ident| $body:expr;)*) => {
        &[$(($name, |call| {
            fn one<W: Ask>($x: W) -> u8 {
                u8::from($body)
            }
            let input = Operand::Tensor(call.tensor(0)?);
            let out = call.out(0)?;
            shape_out(out, &[input], DType::Bool)?;
            let dtype = input_dtype(&input);
            with_wide!(dtype, "self", W => map1::<W, u8>(input, None, out, one::<W>))
        })),*]
    };
}

/// Questions about a number; an integer is finite and has a sign.
trait Ask: Num {
    fn infinite(self) -> bool;
    fn negative_sign(self) -> bool;
}
impl Ask for i64 {
    fn infinite(self) -> bool {
        false
    }
    fn negative_sign(self) -> bool {
        self < 0
    }
}
impl Ask for f32 {
    fn infinite(self) -> bool {
        Real::is_infinite(self)
    }
    fn negative_sign(self) -> bool {
        Real::signbit(self)
    }
}
impl Ask for f64 {
    fn infinite(self) -> bool {
        Real::is_infinite(self)
    }
    fn negative_sign(self) -> bool {
        Real::signbit(self)
    }
}

/// The input and the dtype to compute in; sizes the output.
fn begin<'a>(call: &mut Call<'a, '_>, float: bool) -> Result<(Operand<'a>, DType), KernelError> {
    let input = operand(call, 0)?;
    let dtype = if float {
        float_dtype(&[input])?
    } else {
        input_dtype(&input)
    };
    shape_out(call.out(0)?, &[input], dtype)?;
    Ok((input, dtype))
}

fn input_dtype(input: &Operand) -> DType {
    match input {
        Operand::Tensor(tensor) => tensor.dtype(),
        Operand::Number(number) => number.dtype(),
    }
}

fn c<W: Real>(value: f64) -> W {
    W::from_f64(value)
}

pub(crate) const FLOATING: &[(&str, Kernel)] = floating! {
    "aten::acos.out" => |x| x.acos();
    "aten::acosh.out" => |x| x.acosh();
    "aten::asin.out" => |x| x.asin();
    "aten::asinh.out" => |x| x.asinh();
    "aten::atan.out" => |x| x.atan();
    "aten::atanh.out" => |x| x.atanh();
    "aten::cos.out" => |x| x.cos();
    "aten::cosh.out" => |x| x.cosh();
    "aten::deg2rad.out" => |x| x.times(c(core::f64::consts::PI / 180.0));
    "aten::digamma.out" => |x| special::digamma(x);
    "aten::erfc.out" => |x| x.gauss_erfc();
    "aten::erfinv.out" => |x| special::erfinv(x);
    "aten::exp2.out" => |x| x.exp2();
    "aten::expm1.out" => |x| x.expm1();
    "aten::i0.out" => |x| special::bessel_i0(x);
    "aten::lgamma.out" => |x| x.lgamma();
    "aten::log.out" => |x| x.ln();
    "aten::log10.out" => |x| x.log10();
    "aten::log1p.out" => |x| x.log1p();
    "aten::log2.out" => |x| x.log2();
    "aten::rad2deg.out" => |x| x.times(c(180.0 / core::f64::consts::PI));
    "aten::reciprocal.out" => |x| W::ONE.over(x);
    "aten::rsqrt.out" => |x| W::ONE.over(x.sqrt());
    "aten::sin.out" => |x| x.sin();
    "aten::sinc.out" => |x| special::sinc(x);
    "aten::sinh.out" => |x| x.sinh();
    "aten::sqrt.out" => |x| x.sqrt();
    "aten::tan.out" => |x| x.tan();
};

pub(crate) const IN_BULK: &[(&str, Kernel)] = in_bulk! {
    "aten::erf.out" => erfs;
    "aten::exp.out" => exps;
    "aten::sigmoid.out" => sigmoids;
    "aten::tanh.out" => tanhs;
};

pub(crate) const KEEPING: &[(&str, Kernel)] = keeping! {
    "aten::abs.out" => |x| x.magnitude(), i64::wrapping_abs;
    "aten::ceil.out" => |x| x.ceil(), |x| x;
    "aten::floor.out" => |x| x.floor(), |x| x;
    "aten::frac.out" => |x| x.minus(x.trunc()), |_| 0;
    "aten::neg.out" => |x| x.negate(), i64::wrapping_neg;
    "aten::relu.out" => |x| x.larger(W::ZERO), |x| x.max(0);
    "aten::round.out" => |x| x.round_even(), |x| x;
    "aten::sgn.out" => |x| x.sign(), i64::signum;
    "aten::sign.out" => |x| x.sign(), i64::signum;
    "aten::square.out" => |x| x.times(x), |x| x.wrapping_mul(x);
    "aten::trunc.out" => |x| x.trunc(), |x| x;
};

pub(crate) const ASKING: &[(&str, Kernel)] = asking! {
    "aten::isinf.out" => |x| x.infinite();
    "aten::isnan.out" => |x| x.is_nan();
    "aten::isneginf.out" => |x| x.infinite() && x < W::ZERO;
    "aten::isposinf.out" => |x| x.infinite() && x > W::ZERO;
    "aten::logical_not.out" => |x| !x.truth();
    "aten::signbit.out" => |x| x.negative_sign();
};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::bitwise_not.out", bitwise_not),
    ("aten::nan_to_num.out", nan_to_num),
    ("aten::round.decimals_out", round_decimals),
];

fn bitwise_not(call: &mut Call) -> Result<(), KernelError> {
    let (input, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    match dtype {
        DType::Bool => map1::<i64, u8>(input, None, out, |x| u8::from(x == 0)),
        _ if dtype.is_int() => map1::<i64, i64>(input, None, out, |x| !x),
        _ => Err(KernelError::invalid("self", alloc::format!("bits of dtype {dtype}"))),
    }
}

/// As PyTorch: `round(x * 10^d) / 10^d`, or the other way about for negative `d`.
fn round_decimals(call: &mut Call) -> Result<(), KernelError> {
    let decimals = call.int(1)?;
    let (input, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    if !dtype.is_float() {
        return map1::<i64, i64>(input, None, out, |x| x);
    }
    with_real!(dtype, "self", W => {
        let ten = Num::power(c::<W>(10.0), decimals.unsigned_abs() as W);
        map1::<W, W>(input, None, out, |x| match decimals {
            0 => Real::round_even(x),
            1.. => Real::round_even(x * ten) / ten,
            _ => Real::round_even(x / ten) * ten,
        })
    })
}

fn nan_to_num(call: &mut Call) -> Result<(), KernelError> {
    let (nan, high, low) = (
        call.optional_float(1)?,
        call.optional_float(2)?,
        call.optional_float(3)?,
    );
    let (input, dtype) = begin(call, false)?;
    let out = call.out(0)?;
    check_category(out, 0, dtype)?;
    if !dtype.is_float() {
        return map1::<i64, i64>(input, None, out, |x| x);
    }
    let largest = match dtype {
        DType::F16 => 65504.0,
        DType::BF16 => f64::from(delegraph_types::bf16::MAX.to_f32()),
        DType::F32 => f64::from(f32::MAX),
        _ => f64::MAX,
    };
    with_real!(dtype, "self", W => {
        let nan = nan.unwrap_or(0.0) as W;
        let high = high.unwrap_or(largest) as W;
        let low = low.unwrap_or(-largest) as W;
        map1::<W, W>(input, None, out, |x| {
            if Wide::is_nan(x) {
                nan
            } else if x == W::INFINITY {
                high
            } else if x == W::NEG_INFINITY {
                low
            } else {
                x
            }
        })
    })
}
