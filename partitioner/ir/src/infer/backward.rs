//! Gradients: the backward operators of core ATen.

use super::Rule;
use super::call::{Call, Result};
use crate::{Arg, Expr, Type};

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "avg_pool2d_backward" | "_adaptive_avg_pool2d_backward" | "max_pool2d_with_indices_backward" => {
            |c| c.like(c.tensor("self")?)
        }
        "native_layer_norm_backward" => |c| masked(c, c.ints("normalized_shape")?, c.ints("normalized_shape")?),
        "native_group_norm_backward" => |c| masked(c, vec![c.int("C")?], vec![c.int("C")?]),
        "convolution_backward" => |c| {
            let gradient = c.tensor("grad_output")?;
            c.rank_at_least(gradient, 2)?;
            masked(c, c.tensor("weight")?.shape.clone(), vec![gradient.shape[1].clone()])
        },
        _ => return None,
    })
}

/// The gradients of input, weight and bias; those that the mask leaves out are empty.
fn masked(c: &Call, weight: Vec<Expr>, bias: Vec<Expr>) -> Result<Vec<Type>> {
    let input = c.tensor("input")?;
    let Arg::Bools(wanted) = c.arg("output_mask") else {
        return c.invalid("argument `output_mask`: expected a list of booleans");
    };
    if wanted.len() != 3 {
        return c.invalid("argument `output_mask`: expected three booleans");
    }
    let shapes = [input.shape.clone(), weight, bias];
    let made = shapes.into_iter().zip(wanted).map(|(shape, wanted)| {
        let shape = if *wanted { shape } else { vec![Expr::Int(0)] };
        c.made(input.dtype, shape)
    });
    made.collect()
}
