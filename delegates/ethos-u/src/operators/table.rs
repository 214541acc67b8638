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

fn gelu(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    // The exact form needs an error function, which the standard library has not.
    match node.str(1)? {
        "tanh" => {
            let factor = (2.0 / std::f64::consts::PI).sqrt();
            table(node, b, &|x| {
                0.5 * x * (1.0 + (factor * (x + 0.044_715 * x * x * x)).tanh())
            })
        }
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
        name: "aten::leaky_relu",
        lower: leaky_relu,
    },
    Operator {
        name: "aten::gelu",
        lower: gelu,
    },
];
