//! Activations of neural networks.

use super::elementwise::{map, map_floats};
use crate::call::Call;
use crate::caps::{Operator, Refusal, floats, no_bool, op};
use crate::math::{max, min, normal_cdf, sigmoid, softplus};
use crate::tensor::{Data, Tensor, room};
use crate::walk::{dim, split_at};
use delegraph_sdk::Error;
use delegraph_sdk::image::{ArgView, NodeView};
use std::f64::consts::PI;

fn check_gelu(node: &NodeView<'_>) -> Result<(), Refusal> {
    floats(node)?;
    match node.arg(1) {
        ArgView::Str("none" | "tanh") => Ok(()),
        other => Err(Refusal::attribute(format!(
            "`approximate` is `{other:?}`, not \"none\" or \"tanh\""
        ))),
    }
}

fn gelu(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    if call.str(1)? == "tanh" {
        let inner = |x: f64| (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
        return map_floats(call, |x| 0.5 * x * (1.0 + inner(x).tanh()));
    }
    map_floats(call, |x| x * normal_cdf(x))
}

fn clip(call: &Call<'_>, low: f64, high: f64) -> Result<Vec<Tensor>, Error> {
    let int = |x: i64| x.max(low as i64).min(high as i64);
    map(call, call.tensor(0)?, |x| min(max(x, low), high), int)
}

fn elu(call: &Call<'_>, alpha: f64, scale: f64, input_scale: f64) -> Result<Vec<Tensor>, Error> {
    let negative = |x: f64| alpha * scale * (x * input_scale).exp_m1();
    map_floats(call, |x| if x < 0.0 { negative(x) } else { x * scale })
}

/// One slope, or one a channel; channels are dimension 1.
fn prelu(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let (x, slopes) = (call.tensor(0)?, call.tensor(1)?.floats()?);
    let (_, channels, after) = if x.rank() > 1 {
        split_at(x.sizes(), 1)
    } else {
        (1, 1, x.len())
    };
    if slopes.len() != 1 && slopes.len() != channels {
        return Err(Error::invalid(format!(
            "{} slopes for {channels} channels",
            slopes.len()
        )));
    }
    let slope = |i: usize| slopes[if slopes.len() == 1 { 0 } else { i / after % channels }];
    let elements = x.floats()?.iter().enumerate();
    let made = elements
        .map(|(i, x)| if *x > 0.0 { *x } else { *x * slope(i) })
        .collect();
    call.one(x.sizes().to_vec(), Data::Float(made))
}

/// The first half of a dimension, times the sigmoid of the second.
fn glu(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let (x, at) = (call.tensor(0)?, dim(call.int(1)?, call.tensor(0)?.rank())?);
    let (before, along, after) = split_at(x.sizes(), at);
    if along % 2 != 0 || x.rank() == 0 {
        return Err(Error::invalid(format!("a dimension of {along} has no halves")));
    }
    let (values, half) = (x.floats()?, along / 2 * after);
    let mut made = room(x.len() / 2)?;
    for row in values.chunks_exact((2 * half).max(1)).take(before) {
        let (a, b) = row.split_at(half);
        made.extend(a.iter().zip(b).map(|(a, b)| a * sigmoid(*b)));
    }
    let mut sizes = x.sizes().to_vec();
    sizes[at] = along / 2;
    call.one(sizes, Data::Float(made))
}

fn check_dropout(node: &NodeView<'_>) -> Result<(), Refusal> {
    match node.arg(2).bool() {
        Some(false) => Ok(()),
        _ => Err(Refusal::attribute("dropout that drops is random")),
    }
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::relu", "Tensor", no_bool, |c| clip(c, 0.0, f64::INFINITY)),
    op("aten::relu6", "Tensor", no_bool, |c| clip(c, 0.0, 6.0)),
    op("aten::hardtanh", "Tensor Scalar Scalar", no_bool, |c| {
        clip(c, c.float(1)?, c.float(2)?)
    }),
    op("aten::gelu", "Tensor str", check_gelu, gelu),
    op("aten::silu", "Tensor", floats, |c| map_floats(c, |x| x * sigmoid(x))),
    op("aten::mish", "Tensor", floats, |c| {
        map_floats(c, |x| x * softplus(x).tanh())
    }),
    op("aten::log_sigmoid", "Tensor", floats, |c| {
        map_floats(c, |x| -softplus(-x))
    }),
    op("aten::hardsigmoid", "Tensor", floats, |c| {
        map_floats(c, |x| min(max(x + 3.0, 0.0), 6.0) / 6.0)
    }),
    op("aten::hardswish", "Tensor", floats, |c| {
        map_floats(c, |x| x * min(max(x + 3.0, 0.0), 6.0) / 6.0)
    }),
    op("aten::leaky_relu", "Tensor Scalar", floats, |c| {
        let slope = c.float(1)?;
        map_floats(c, |x| if x > 0.0 { x } else { x * slope })
    }),
    op("aten::prelu", "Tensor Tensor", floats, prelu),
    op("aten::elu", "Tensor Scalar Scalar Scalar", floats, |c| {
        elu(c, c.float(1)?, c.float(2)?, c.float(3)?)
    }),
    op("aten::celu", "Tensor Scalar", floats, |c| {
        let alpha = c.float(1)?;
        elu(c, alpha, 1.0, 1.0 / alpha)
    }),
    // The constants of Klambauer et al., Self-Normalizing Neural Networks, as PyTorch has them.
    op("aten::selu", "Tensor", floats, |c| {
        elu(c, 1.673_263_242_354_377_2, 1.050_700_987_355_480_5, 1.0)
    }),
    op("aten::softplus", "Tensor Scalar Scalar", floats, |c| {
        let (beta, threshold) = (c.float(1)?, c.float(2)?);
        map_floats(c, |x| {
            if x * beta > threshold {
                x
            } else {
                softplus(x * beta) / beta
            }
        })
    }),
    op("aten::hardshrink", "Tensor Scalar", floats, |c| {
        let size = c.float(1)?;
        map_floats(c, |x| if x >= -size && x <= size { 0.0 } else { x })
    }),
    op("aten::softshrink", "Tensor Scalar", floats, |c| {
        let size = c.float(1)?;
        map_floats(c, |x| match x {
            x if x > size => x - size,
            x if x < -size => x + size,
            // Keeps NaN.
            x => x * 0.0,
        })
    }),
    op("aten::threshold", "Tensor Scalar Scalar", floats, |c| {
        let (threshold, value) = (c.float(1)?, c.float(2)?);
        map_floats(c, |x| if x <= threshold { value } else { x })
    }),
    op("aten::glu", "Tensor int", floats, glu),
    op("aten::dropout", "Tensor float bool", check_dropout, |c| {
        Ok(vec![c.tensor(0)?.clone()])
    }),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives, refusal};
    use delegraph_sdk::Reason;
    use delegraph_sdk::image::Arg;

    #[test]
    fn activations() {
        let x = f32s(&[3], &[-1.0, 0.0, 8.0]);
        gives("aten::relu6", &[(&x).into()], &[f32s(&[3], &[0.0, 0.0, 6.0])]);
        let leaky = [(&x).into(), Arg::Float(0.5).into()];
        gives("aten::leaky_relu", &leaky, &[f32s(&[3], &[-0.5, 0.0, 8.0])]);
        let gelu = [(&x).into(), Arg::Str("none".into()).into()];
        gives("aten::gelu", &gelu, &[f32s(&[3], &[-0.158_655_26, 0.0, 8.0])]);
        let (x, slopes) = (f32s(&[1, 2, 2], &[-1.0, -1.0, -1.0, 3.0]), f32s(&[2], &[0.5, 0.25]));
        let want = f32s(&[1, 2, 2], &[-0.5, -0.5, -0.25, 3.0]);
        gives("aten::prelu", &[(&x).into(), (&slopes).into()], &[want]);
    }

    #[test]
    fn an_unknown_approximation_is_refused() {
        let x = f32s(&[1], &[0.0]);
        let items = [(&x).into(), Arg::Str("fast".into()).into()];
        assert_eq!(refusal("aten::gelu", &items, &[x]).reason, Reason::ATTRIBUTE);
    }
}
