//! Losses: element by element, or reduced to one number.

use super::Rule;
use super::call::{Call, Result};
use crate::{Expr, Type};

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "mse_loss"
        | "l1_loss"
        | "smooth_l1_loss"
        | "huber_loss"
        | "binary_cross_entropy"
        | "binary_cross_entropy_with_logits"
        | "kl_div"
        | "soft_margin_loss"
        | "hinge_embedding_loss"
        | "poisson_nll_loss" => elementwise,
        "cross_entropy_loss" | "nll_loss" | "nll_loss2d" | "nll_loss_nd" => |c| {
            let t = c.first()?;
            c.one(t.dtype, class_shape(c)?)
        },
        "nll_loss_forward" | "nll_loss2d_forward" => |c| {
            let t = c.first()?;
            Ok(vec![c.made(t.dtype, class_shape(c)?)?, c.made(t.dtype, Vec::new())?])
        },
        _ => return None,
    })
}

fn reduces(c: &Call) -> Result<bool> {
    Ok(c.fixed_int("reduction")? != 0)
}

fn elementwise(c: &Call) -> Result<Vec<Type>> {
    let first = c.schema.params.first().map_or("self", |p| p.name.as_str()).to_string();
    let names = [first.as_str(), "target"];
    let shape = if reduces(c)? {
        Vec::new()
    } else {
        c.broadcast_of(&names)?
    };
    // The distance of complex numbers is real.
    c.one(c.promoted(&names)?.real(), shape)
}

/// The sizes without that of the classes, unless the loss is reduced to one number.
fn class_shape(c: &Call) -> Result<Vec<Expr>> {
    let mut shape: Vec<Expr> = Vec::new();
    if !reduces(c)? {
        shape = c.first()?.shape.clone();
        if !shape.is_empty() {
            shape.remove(usize::from(shape.len() > 1));
        }
    }
    Ok(shape)
}
