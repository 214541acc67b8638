//! Functions of one number: a table of what the integers become.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_sdk::arguments::Arguments;

/// A function of 8 bits, computed here for each of them and rounded once.
fn table(node: &Arguments<'_>, b: &mut Builder<'_>, f: &dyn Fn(f64) -> f64) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if (b.dtype(x)?, b.dtype(out)?) != (DType::Int8, DType::Int8) {
        return Err(Refusal::dtype("a function of 16 bits"));
    }
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    let entry = |q: i64| {
        let y = (f((q - from.zero_point) as f64 * from.scale) / to.scale).round_ties_even() + to.zero_point as f64;
        (y.clamp(to.low as f64, to.high as f64) as i64).clamp(-128, 127)
    };
    let mut used = from.low.max(-128)..=from.high.min(127);
    let number = |q: i64| f((q - from.zero_point) as f64 * from.scale);
    if used.any(|q| number(q).is_nan()) {
        return Err(Refusal::attribute("a function that is no number somewhere"));
    }
    let entries: Vec<i64> = (-128..128).map(entry).collect();
    let entries = b.integers(DType::Int8, &entries);
    let tensor = b.read(x)?;
    let shape = b.shape_of(tensor);
    let made = b.op(Op::Table, Attribute::Plain, &[tensor, entries], DType::Int8, &shape);
    b.finish_plain(out, made)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function, to within rounding of f64: its series near 0, and the continued fraction of what is left to 1.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let part = if a < 2.5 {
        // 2 / sqrt(pi) * sum of (-1)^n a^(2n+1) / (n! (2n+1)), with terms by the one before.
        let (mut power, mut sum) = (a, a);
        for n in 1..60 {
            power *= -a * a / f64::from(n);
            sum += power / f64::from(2 * n + 1);
        }
        std::f64::consts::FRAC_2_SQRT_PI * sum
    } else {
        let fraction = (1..60).rev().fold(0.0, |below, n| f64::from(n) / 2.0 / (a + below));
        1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt())
    };
    part.copysign(x)
}

fn gelu(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    match node.str(1)? {
        "tanh" => {
            let factor = (2.0 / std::f64::consts::PI).sqrt();
            table(node, b, &|x| {
                0.5 * x * (1.0 + (factor * (x + 0.044_715 * x * x * x)).tanh())
            })
        }
        "none" => table(node, b, &|x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))),
        other => Err(Refusal::attribute(format!("gelu in the form `{other}`"))),
    }
}

fn limited(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let low = node.optional_scalar(1)?.map_or(f64::NEG_INFINITY, |s| s.float());
    let high = node.optional_scalar(2)?.map_or(f64::INFINITY, |s| s.float());
    table(node, b, &|x| x.max(low).min(high))
}

fn leaky_relu(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let slope = node.scalar(1)?.float();
    table(node, b, &|x| if x > 0.0 { x } else { slope * x })
}

fn elu(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (alpha, scale, input) = (node.float(1)?, node.float(2)?, node.float(3)?);
    table(node, b, &|x| match x > 0.0 {
        true => scale * x,
        false => scale * alpha * (x * input).exp_m1(),
    })
}

/// A sum or difference with a number, which may have a factor.
fn moved(node: &Arguments<'_>, b: &mut Builder<'_>, sign: f64) -> Result<(), Refusal> {
    let by = sign * node.float(1)? * node.float(2)?;
    table(node, b, &|x| x + by)
}

fn scaled(node: &Arguments<'_>, b: &mut Builder<'_>, f: impl Fn(f64, f64) -> f64) -> Result<(), Refusal> {
    let by = node.float(1)?;
    table(node, b, &|x| f(x, by))
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::sigmoid",
        lower: |n, b| table(n, b, &sigmoid),
    },
    Operator {
        name: "aten::tanh",
        lower: |n, b| table(n, b, &f64::tanh),
    },
    Operator {
        name: "aten::silu",
        lower: |n, b| table(n, b, &|x| x * sigmoid(x)),
    },
    Operator {
        name: "aten::hardswish",
        lower: |n, b| table(n, b, &|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
    },
    Operator {
        name: "aten::hardsigmoid",
        lower: |n, b| table(n, b, &|x| (x + 3.0).clamp(0.0, 6.0) / 6.0),
    },
    Operator {
        name: "aten::exp",
        lower: |n, b| table(n, b, &f64::exp),
    },
    Operator {
        name: "aten::relu",
        lower: |n, b| table(n, b, &|x| x.max(0.0)),
    },
    Operator {
        name: "aten::relu6",
        lower: |n, b| table(n, b, &|x| x.clamp(0.0, 6.0)),
    },
    Operator {
        name: "aten::hardtanh",
        lower: limited,
    },
    Operator {
        name: "aten::clamp",
        lower: limited,
    },
    Operator {
        name: "aten::clamp_min",
        lower: |n, b| scaled(n, b, f64::max),
    },
    Operator {
        name: "aten::clamp_max",
        lower: |n, b| scaled(n, b, f64::min),
    },
    Operator {
        name: "aten::neg",
        lower: |n, b| table(n, b, &|x| -x),
    },
    Operator {
        name: "aten::abs",
        lower: |n, b| table(n, b, &f64::abs),
    },
    Operator {
        name: "aten::add.Scalar",
        lower: |n, b| moved(n, b, 1.0),
    },
    Operator {
        name: "aten::sub.Scalar",
        lower: |n, b| moved(n, b, -1.0),
    },
    Operator {
        name: "aten::mul.Scalar",
        lower: |n, b| scaled(n, b, |x, by| x * by),
    },
    Operator {
        name: "aten::div.Scalar",
        lower: |n, b| scaled(n, b, |x, by| x / by),
    },
    Operator {
        name: "aten::elu",
        lower: elu,
    },
    Operator {
        name: "aten::leaky_relu",
        lower: leaky_relu,
    },
    Operator {
        name: "aten::gelu",
        lower: gelu,
    },
];

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn the_error_function_is_that_of_the_tables() {
        // `math.erf` of Python 3.11.
        let known = [
            (0.0, 0.0),
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (-1.0, -0.842_700_792_949_714_9),
            (2.49, 0.999_570_712_132_266_1),
            (2.51, 0.999_614_294_518_275_8),
            (4.0, 0.999_999_984_582_742_1),
            (-9.0, -1.0),
        ];
        for (x, y) in known {
            assert!((erf(x) - y).abs() < 1e-14, "{x}: {} in place of {y}", erf(x));
        }
    }
}
