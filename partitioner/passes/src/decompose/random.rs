//! Dropout while training and other noise: over the operators that draw random numbers.
//!
//! Outside training these are identities, which simplification removes.

use super::{Replacement, Rules, one};
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr};

pub(super) const RULES: Rules = &[
    ("aten::dropout", |rw| {
        if is_off(rw)? {
            return Ok(Some(vec![rw.tensor(0)?]));
        }
        let parts = rw.emit_many("aten::native_dropout", args![rw.arg(0), rw.arg(1), true])?;
        Ok(Some(vec![parts[0]]))
    }),
    ("aten::feature_dropout", |rw| noise(rw, true, false)),
    ("aten::alpha_dropout", |rw| noise(rw, false, true)),
    ("aten::feature_alpha_dropout", |rw| noise(rw, true, true)),
    ("aten::normal_functional", |rw| {
        let ty = rw.output_type(0)?;
        let args = args![rw.arg(1), rw.arg(2), Arg::Ints(ty.shape), Arg::None, ty.dtype];
        one(rw.emit("aten::normal.float_float", args))
    }),
    ("aten::rrelu", |rw| {
        let (x, lower, upper) = (rw.tensor(0)?, rw.float(1)?, rw.float(2)?);
        if !rw.bool(3)? {
            return one(rw.emit("aten::leaky_relu", args![x, (lower + upper) / 2.0]));
        }
        let slope = rw.emit("aten::uniform", args![x, lower, upper])?;
        let scaled = rw.mul(x, slope)?;
        let low = rw.emit("aten::le.Scalar", args![x, 0])?;
        one(rw.select_where(low, scaled, x))
    }),
];

/// input, p, train
fn is_off(rw: &Rewrite) -> Result<bool, crate::PassError> {
    Ok(!rw.bool(2)? || rw.float(1)? == 0.0)
}

/// As ATen's `_dropout_impl`: `feature` drops whole channels, `alpha` keeps the mean and deviation of what a SELU gives.
fn noise(rw: &mut Rewrite, feature: bool, alpha: bool) -> Replacement {
    let (x, p) = (rw.tensor(0)?, rw.float(1)?);
    if is_off(rw)? {
        return Ok(Some(vec![x]));
    }
    let mut shape = rw.shape(x)?;
    let dtype = rw.dtype(x)?;
    if p == 1.0 {
        let zeros = rw.full(shape, 0, dtype)?;
        return one(rw.mul(x, zeros));
    }
    if feature {
        if shape.len() < 2 {
            return Err(rw.invalid("an input with channels is expected"));
        }
        shape[2..].fill(Expr::Int(1));
    }
    let kept = rw.full(shape, 1.0 - p, dtype)?;
    let kept = rw.emit("aten::bernoulli", args![kept])?;
    if !alpha {
        let scale = rw.div(kept, 1.0 - p)?;
        return one(rw.mul(x, scale));
    }
    // Minus the value that a SELU tends to on the left.
    const ALPHA: f64 = 1.758_099_340_847_376_6;
    let factor = 1.0 / ((ALPHA * ALPHA * p + 1.0) * (1.0 - p)).sqrt();
    let shift = rw.sub(kept, 1.0)?;
    let shift = rw.mul(shift, ALPHA * factor)?;
    let shift = rw.add(shift, ALPHA * factor * p)?;
    let scale = rw.mul(kept, factor)?;
    let scaled = rw.mul(x, scale)?;
    one(rw.add(scaled, shift))
}
