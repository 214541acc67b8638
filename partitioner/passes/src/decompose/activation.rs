//! Activations, softmax and dropout.

use super::{Replacement, Rules, one};
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Expr, ValueId};
use delegraph_types::DType;

pub(super) const RULES: Rules = &[
    ("aten::relu6", |rw| {
        one(rw.emit("aten::hardtanh", args![rw.arg(0), 0.0, 6.0]))
    }),
    ("aten::selu", |rw| {
        // at::native: SELU_ALPHA and SELU_SCALE.
        one(rw.emit(
            "aten::elu",
            args![rw.arg(0), 1.673_263_242_354_377_2, 1.050_700_987_355_480_5, 1],
        ))
    }),
    ("aten::celu", |rw| {
        let alpha = rw.float(1)?;
        if alpha == 0.0 {
            return Err(rw.invalid("`alpha` is 0"));
        }
        one(rw.emit("aten::elu", args![rw.arg(0), alpha, 1, 1.0 / alpha]))
    }),
    ("aten::silu", |rw| {
        let x = rw.tensor(0)?;
        let x = rw.upcast(x)?;
        let gate = rw.unary("aten::sigmoid", x)?;
        one(rw.mul(x, gate))
    }),
    ("aten::mish", |rw| {
        let x = rw.tensor(0)?;
        let x = rw.upcast(x)?;
        let soft = rw.emit("aten::softplus", args![x])?;
        let gate = rw.unary("aten::tanh", soft)?;
        one(rw.mul(x, gate))
    }),
    ("aten::hardsigmoid", |rw| {
        let x = rw.tensor(0)?;
        let x = rw.upcast(x)?;
        let clamped = shifted_clamp(rw, x)?;
        one(rw.div(clamped, 6.0))
    }),
    ("aten::hardswish", |rw| {
        let x = rw.tensor(0)?;
        let x = rw.upcast(x)?;
        let clamped = shifted_clamp(rw, x)?;
        let product = rw.mul(x, clamped)?;
        one(rw.div(product, 6.0))
    }),
    ("aten::softplus", softplus),
    ("aten::log_sigmoid", |rw| {
        let x = rw.tensor(0)?;
        one(log_sigmoid(rw, x))
    }),
    ("aten::log_sigmoid_forward", |rw| {
        // The second output is a buffer for the backward pass, which nobody reads here.
        let x = rw.tensor(0)?;
        let y = log_sigmoid(rw, x)?;
        let buffer = rw.output_type(1)?;
        let buffer = rw.full(buffer.shape, 0.0, buffer.dtype)?;
        Ok(Some(vec![y, buffer]))
    }),
    ("aten::prelu", |rw| {
        let (x, weight) = (rw.tensor(0)?, rw.tensor(1)?);
        let (rank, channels) = (rw.rank(x)?, rw.shape(weight)?);
        let weight = match channels.first() {
            Some(channels) if rank >= 2 => {
                let mut shape = vec![Expr::Int(1); rank];
                shape[1] = channels.clone();
                rw.view(weight, shape)?
            }
            // One slope, or a vector without a channel dimension.
            _ => rw.view(weight, vec![Expr::Int(1); rank.min(1)])?,
        };
        one(leaky(rw, x, weight))
    }),
    ("aten::_prelu_kernel", |rw| {
        let (x, weight) = (rw.tensor(0)?, rw.tensor(1)?);
        one(leaky(rw, x, weight))
    }),
    ("aten::threshold", |rw| {
        let x = rw.tensor(0)?;
        let low = rw.emit("aten::le.Scalar", args![x, rw.arg(1)])?;
        let value = rw.arg(2);
        let dtype = rw.dtype(x)?;
        let value = rw.full(Vec::new(), value, dtype)?;
        one(rw.select_where(low, value, x))
    }),
    ("aten::hardshrink", |rw| {
        let x = rw.tensor(0)?;
        let size = rw.unary("aten::abs", x)?;
        let small = rw.emit("aten::le.Scalar", args![size, rw.arg(1)])?;
        one(rw.select_where(small, 0, x))
    }),
    ("aten::softshrink", |rw| {
        let (x, lambda) = (rw.tensor(0)?, rw.float(1)?);
        let size = rw.unary("aten::abs", x)?;
        let large = rw.emit("aten::gt.Scalar", args![size, lambda])?;
        let sign = rw.unary("aten::sign", x)?;
        let step = rw.mul(sign, lambda)?;
        let shrunk = rw.sub(x, step)?;
        // Not a plain 0: a NaN is neither large nor lost.
        let rest = rw.mul(x, 0)?;
        one(rw.select_where(large, shrunk, rest))
    }),
    ("aten::softmax.int", |rw| softmax(rw, "aten::_softmax")),
    ("aten::log_softmax.int", |rw| softmax(rw, "aten::_log_softmax")),
    ("aten::_safe_softmax", |rw| {
        let x = rw.tensor(0)?;
        let dim = rw.dim(1, rw.rank(x)?)?;
        let x = match rw.dtype_arg(2)? {
            Some(dtype) => rw.cast(x, dtype)?,
            None => x,
        };
        one(super::attention::safe_softmax(rw, x, dim))
    }),
    ("aten::native_dropout", |rw| {
        let x = rw.tensor(0)?;
        if rw.arg(2).as_bool() != Some(false) && rw.float(1)? != 0.0 {
            // The kernel draws the mask.
            return Ok(None);
        }
        let shape = rw.shape(x)?;
        let mask = rw.full(shape, true, DType::Bool)?;
        Ok(Some(vec![x, mask]))
    }),
];

/// `clamp(x + 3, 0, 6)`
fn shifted_clamp(rw: &mut Rewrite, x: ValueId) -> Result<ValueId, crate::PassError> {
    let shifted = rw.add(x, 3.0)?;
    rw.emit("aten::clamp", args![shifted, 0.0, 6.0])
}

fn softplus(rw: &mut Rewrite) -> Replacement {
    let (x, beta, threshold) = (rw.tensor(0)?, rw.float(1)?, rw.float(2)?);
    let x = rw.upcast(x)?;
    let scaled = if beta == 1.0 { x } else { rw.mul(x, beta)? };
    let power = rw.unary("aten::exp", scaled)?;
    let log = rw.unary("aten::log1p", power)?;
    let soft = if beta == 1.0 { log } else { rw.div(log, beta)? };
    let linear = rw.emit("aten::gt.Scalar", args![scaled, threshold])?;
    one(rw.select_where(linear, x, soft))
}

/// `min(x, 0) - log(1 + exp(-|x|))`
fn log_sigmoid(rw: &mut Rewrite, x: ValueId) -> Result<ValueId, crate::PassError> {
    let x = rw.upcast(x)?;
    let low = rw.emit("aten::clamp", args![x, delegraph_ir::Arg::None, 0.0])?;
    let size = rw.unary("aten::abs", x)?;
    let negative = rw.unary("aten::neg", size)?;
    let power = rw.unary("aten::exp", negative)?;
    let log = rw.unary("aten::log1p", power)?;
    rw.sub(low, log)
}

fn leaky(rw: &mut Rewrite, x: ValueId, weight: ValueId) -> Result<ValueId, crate::PassError> {
    let positive = rw.emit("aten::gt.Scalar", args![x, 0])?;
    let scaled = rw.mul(weight, x)?;
    rw.select_where(positive, x, scaled)
}

fn softmax(rw: &mut Rewrite, op: &str) -> Replacement {
    let (x, dim, dtype) = (rw.tensor(0)?, rw.int(1)?, rw.dtype_arg(2)?);
    let x = match dtype {
        Some(dtype) => rw.cast(x, dtype)?,
        None => x,
    };
    one(rw.emit(op, args![x, dim, false]))
}
