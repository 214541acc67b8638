//! Losses. Few deployed models compute one, but exporting a training-style module leaves them whole.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};

pub(super) const RULES: Rules = &[
    ("aten::mse_loss", |rw| {
        let gap = rw.sub(rw.arg(0), rw.arg(1))?;
        rw.real_only(gap)?;
        let square = rw.mul(gap, gap)?;
        reduced(rw, square, 2)
    }),
    ("aten::l1_loss", |rw| {
        let gap = rw.sub(rw.arg(0), rw.arg(1))?;
        let size = rw.unary("aten::abs", gap)?;
        reduced(rw, size, 2)
    }),
    ("aten::smooth_l1_loss", |rw| {
        let beta = rw.float(3)?;
        let gap = rw.sub(rw.arg(0), rw.arg(1))?;
        rw.real_only(gap)?;
        let size = rw.unary("aten::abs", gap)?;
        if beta == 0.0 {
            return reduced(rw, size, 2);
        }
        let half = rw.mul(size, 0.5)?;
        let square = rw.mul(half, size)?;
        let square = rw.div(square, beta)?;
        let line = rw.sub(size, 0.5 * beta)?;
        let near = rw.emit("aten::lt.Scalar", args![size, beta])?;
        let loss = rw.select_where(near, square, line)?;
        reduced(rw, loss, 2)
    }),
    ("aten::huber_loss", |rw| {
        let delta = rw.float(3)?;
        let gap = rw.sub(rw.arg(0), rw.arg(1))?;
        rw.real_only(gap)?;
        let size = rw.unary("aten::abs", gap)?;
        let half = rw.mul(size, 0.5)?;
        let square = rw.mul(half, size)?;
        let line = rw.sub(size, 0.5 * delta)?;
        let line = rw.mul(line, delta)?;
        let near = rw.emit("aten::le.Scalar", args![size, delta])?;
        let loss = rw.select_where(near, square, line)?;
        reduced(rw, loss, 2)
    }),
    ("aten::soft_margin_loss", |rw| {
        let product = rw.mul(rw.arg(0), rw.arg(1))?;
        let negative = rw.unary("aten::neg", product)?;
        let power = rw.unary("aten::exp", negative)?;
        let loss = rw.unary("aten::log1p", power)?;
        reduced(rw, loss, 2)
    }),
    ("aten::binary_cross_entropy", |rw| {
        let (x, target) = (rw.tensor(0)?, rw.tensor(1)?);
        // Logarithms are clamped at -100, as ATen does.
        let log = rw.unary("aten::log", x)?;
        let log = rw.emit("aten::clamp", args![log, -100])?;
        let negative = rw.unary("aten::neg", x)?;
        let log_rest = rw.unary("aten::log1p", negative)?;
        let log_rest = rw.emit("aten::clamp", args![log_rest, -100])?;
        let rest = rw.sub(target, 1)?;
        let (a, b) = (rw.mul(rest, log_rest)?, rw.mul(target, log)?);
        let loss = rw.sub(a, b)?;
        weighted(rw, loss, 2, 3)
    }),
    ("aten::binary_cross_entropy_with_logits", |rw| {
        let (x, target) = (rw.tensor(0)?, rw.tensor(1)?);
        let mut log = rw.emit("aten::log_sigmoid", args![x])?;
        if let Some(weight) = rw.optional_tensor(3)? {
            let more = rw.sub(weight, 1)?;
            let more = rw.mul(more, target)?;
            let factor = rw.add(more, 1)?;
            log = rw.mul(factor, log)?;
        }
        let rest = rw.emit("aten::rsub.Scalar", args![target, 1])?;
        let product = rw.mul(rest, x)?;
        let loss = rw.sub(product, log)?;
        weighted(rw, loss, 2, 4)
    }),
    ("aten::kl_div", |rw| {
        let (x, target) = (rw.tensor(0)?, rw.tensor(1)?);
        rw.real_only(x)?;
        rw.real_only(target)?;
        let loss = if rw.bool(3)? {
            let power = rw.unary("aten::exp", target)?;
            let gap = rw.sub(target, x)?;
            rw.mul(power, gap)?
        } else {
            let own = rw.binary("aten::xlogy.Tensor", target, target)?;
            let product = rw.mul(target, x)?;
            rw.sub(own, product)?
        };
        reduced(rw, loss, 2)
    }),
    ("aten::nll_loss", nll_loss),
    ("aten::nll_loss_nd", nll_loss),
    ("aten::nll_loss2d", nll_loss),
    ("aten::nll_loss_forward", nll_loss_forward),
    ("aten::nll_loss2d_forward", nll_loss_forward),
    ("aten::cross_entropy_loss", cross_entropy),
];

/// 0: as it is, 1: mean, 2: sum (at::Reduction), by the argument at `index`.
fn reduced(rw: &mut Rewrite, loss: ValueId, index: usize) -> Replacement {
    let all: Vec<i64> = (0..rw.rank(loss)? as i64).collect();
    match rw.int(index)? {
        0 => Ok(Some(vec![loss])),
        1 => one(rw.emit("aten::mean.dim", args![loss, all, false])),
        2 => one(rw.emit("aten::sum.dim_IntList", args![loss, all, false])),
        other => Err(rw.invalid(format!("reduction {other}"))),
    }
}

fn weighted(rw: &mut Rewrite, loss: ValueId, weight: usize, reduction: usize) -> Replacement {
    let loss = match rw.optional_tensor(weight)? {
        Some(weight) => rw.mul(loss, weight)?,
        None => loss,
    };
    reduced(rw, loss, reduction)
}

/// self, target, weight, reduction, ignore_index
fn nll_loss(rw: &mut Rewrite) -> Replacement {
    let (x, reduction, ignored) = (rw.tensor(0)?, rw.int(3)?, rw.arg(4));
    Ok(Some(vec![negative_log(rw, x, reduction, ignored)?.0]))
}

fn nll_loss_forward(rw: &mut Rewrite) -> Replacement {
    let (x, reduction, ignored) = (rw.tensor(0)?, rw.int(3)?, rw.arg(4));
    let (loss, total) = negative_log(rw, x, reduction, ignored)?;
    let total = match total {
        Some(total) => total,
        None => {
            let dtype = rw.output_type(1)?.dtype;
            rw.full(Vec::new(), 0, dtype)?
        }
    };
    Ok(Some(vec![loss, total]))
}

/// The loss of log-probabilities `x` at the target classes, and the total weight where it is reduced.
fn negative_log(
    rw: &mut Rewrite,
    x: ValueId,
    reduction: i64,
    ignored: Arg,
) -> Result<(ValueId, Option<ValueId>), PassError> {
    let (target, weight) = (rw.tensor(1)?, rw.optional_tensor(2)?);
    rw.real_only(x)?;
    let (rank, dtype) = (rw.rank(x)?, rw.dtype(x)?);
    let channel = usize::from(rank >= 2);
    if rank == 0 || rw.rank(target)? + 1 != rank {
        return Err(rw.invalid("the target must have one dimension less than the input"));
    }
    let counted = rw.emit("aten::ne.Scalar", args![target, ignored])?;
    let classes = rw.select_where(counted, target, 0)?;
    let places = rw.unsqueeze(classes, channel)?;
    let at = |rw: &mut Rewrite, values: ValueId| -> Result<ValueId, PassError> {
        let picked = rw.emit("aten::gather", args![values, channel as i64, places])?;
        let picked = rw.squeeze(picked, channel)?;
        rw.select_where(counted, picked, 0)
    };
    let mut scored = x;
    let mut weights = None;
    if let Some(weight) = weight {
        let mut shape = vec![Expr::Int(1); rank];
        shape[channel] = rw.size(weight, 0)?;
        let spread = rw.view(weight, shape)?;
        scored = rw.mul(x, spread)?;
        let full = rw.shape(x)?;
        let spread = rw.expand(spread, full)?;
        weights = Some(at(rw, spread)?);
    }
    let picked = at(rw, scored)?;
    let loss = rw.unary("aten::neg", picked)?;
    if reduction == 0 {
        return Ok((loss, None));
    }
    let all: Vec<i64> = (0..rank as i64 - 1).collect();
    let counts = match weights {
        Some(weights) => weights,
        None => rw.cast(counted, dtype)?,
    };
    let total = rw.sum(counts, all.clone(), false)?;
    let sum = rw.sum(loss, all, false)?;
    match reduction {
        1 => Ok((rw.div(sum, total)?, Some(total))),
        2 => Ok((sum, Some(total))),
        other => Err(rw.invalid(format!("reduction {other}"))),
    }
}

/// self, target, weight, reduction, ignore_index, label_smoothing; the target is classes or probabilities.
fn cross_entropy(rw: &mut Rewrite) -> Replacement {
    let (x, target, weight) = (rw.tensor(0)?, rw.tensor(1)?, rw.optional_tensor(2)?);
    let (reduction, ignored, smoothing) = (rw.int(3)?, rw.arg(4), rw.float(5)?);
    let rank = rw.rank(x)?;
    let channel = usize::from(rank >= 2);
    let logs = rw.emit("aten::_log_softmax", args![x, channel as i64, false])?;
    if rw.rank(target)? != rank || !rw.dtype(target)?.is_float() {
        if smoothing != 0.0 {
            return Err(rw.unsupported("label smoothing of class indices"));
        }
        return Ok(Some(vec![negative_log(rw, logs, reduction, ignored)?.0]));
    }
    let classes = rw.size(x, channel)?;
    let mut target = target;
    if smoothing != 0.0 {
        let Some(count) = classes.as_int() else {
            return Err(rw.unsupported("a dynamic number of classes"));
        };
        let scaled = rw.mul(target, 1.0 - smoothing)?;
        target = rw.add(scaled, smoothing / count as f64)?;
    }
    let mut products = rw.mul(logs, target)?;
    if let Some(weight) = weight {
        let mut shape = vec![Expr::Int(1); rank];
        shape[channel] = classes;
        let spread = rw.view(weight, shape)?;
        products = rw.mul(products, spread)?;
    }
    let sum = rw.sum(products, vec![channel as i64], false)?;
    let loss = rw.unary("aten::neg", sum)?;
    reduced(rw, loss, 3)
}
