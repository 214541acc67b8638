//! Softmax and its logarithm, which the library has along the last dimension.

use super::common::{Elements, Steps, elements, same};
use super::elementwise::LARGEST_DIVISOR;
use super::unary::decay;
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::graph::{DataType, Param, Quantization, TensorId};
use crate::node::Node;
use delegraph_sdk::image::ValueIndex;
use half::f16;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::softmax.int",
        lower: |n, b| lower(n, b, "Softmax"),
    },
    Operator {
        name: "aten::_softmax",
        lower: |n, b| lower(n, b, "Softmax"),
    },
    Operator {
        name: "aten::log_softmax.int",
        lower: |n, b| lower(n, b, "LogSoftmax"),
    },
    Operator {
        name: "aten::_log_softmax",
        lower: |n, b| lower(n, b, "LogSoftmax"),
    },
    Operator {
        name: "aten::logsumexp",
        lower: sum,
    },
];

/// A dimension of a value moved behind all others: the tensor, and the order that it is in; `None`: it is there in `layout`.
fn behind(b: &mut Builder<'_>, x: ValueIndex, dim: usize) -> Result<(TensorId, Layout, Option<Vec<u32>>), Refusal> {
    let rank = b.image().value(x).rank().max(1);
    if dim == 1 && rank >= 3 {
        return Ok((b.read(x, Layout::ChannelsLast)?, Layout::ChannelsLast, None));
    }
    let read = b.read(x, Layout::RowMajor)?;
    if dim + 1 == rank {
        return Ok((read, Layout::RowMajor, None));
    }
    let mut order: Vec<u32> = (0..rank as u32).filter(|d| *d != dim as u32).collect();
    order.push(dim as u32);
    Ok((b.transposed(read, &order), Layout::RowMajor, Some(order)))
}

/// The order that undoes one.
fn back(order: &[u32]) -> Vec<u32> {
    let mut back = vec![0; order.len()];
    for (at, from) in order.iter().enumerate() {
        back[*from as usize] = at as u32;
    }
    back
}

fn lower(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.image().value(x).rank();
    let dim = node.dim(1, rank)?;
    let kind = elements(b, x)?;
    if kind != elements(b, out)? || !(kind == Elements::Float || kind.is_fixed()) {
        return Err(Refusal::dtype("not of floats or quantized numbers of one type"));
    }
    let (read, layout, order) = behind(b, x, dim)?;
    if kind == Elements::Fixed16 {
        return Err(Refusal::quantization(
            "the library is off by more than a step in 16 bits",
        ));
    }
    if kind == Elements::Float {
        let result = match op {
            "Softmax" => shares(b, read),
            _ => logarithms(b, read),
        };
        let result = match &order {
            Some(order) => b.transposed(result, &back(order)),
            None => result,
        };
        return same(b, result, out, layout);
    }
    let last = b.tensor(read).dims.len() as u32 - 1;
    let params = vec![("axis", Param::U32(last)), ("beta", Param::F32(1.0))];
    let Some(order) = order else {
        let written = b.write(out, layout)?;
        b.op(op, params, &[read], &[written]);
        return Ok(());
    };
    let (data_type, quantization) = b.representation(out)?;
    let dims = b.tensor(read).dims.clone();
    let result = b.temporary(data_type, &dims, quantization);
    b.op(op, params, &[read], &[result]);
    let turned = b.transposed(result, &back(&order));
    same(b, turned, out, layout)
}

/// A reduction of f16 along the last dimension, which stays as 1.
fn along_last(b: &mut Builder<'_>, op: &'static str, x: TensorId) -> TensorId {
    let mut dims = b.tensor(x).dims.clone();
    let last = dims.len() - 1;
    dims[last] = 1;
    let out = b.temporary(DataType::Float16, &dims, Quantization::None);
    let params = vec![("axes", Param::list(&[last as u32])), ("keep_dims", Param::Bool(true))];
    b.op(op, params, &[x], &[out]);
    out
}

/// Softmax of f16 along the last dimension by its parts. The library's own is off by 0.003 where the largest element is 10, by 0.016 where it
/// is 100.
pub fn shares(b: &mut Builder<'_>, x: TensorId) -> TensorId {
    let most = along_last(b, "ReduceMax", x);
    let below = b.binary("ElementWiseSubtract", x, most);
    let mut power = decay(b, below);
    let count = b.tensor(x).dims.last().copied().unwrap_or(1);
    if count > LARGEST_DIVISOR {
        // So that their sum is no larger, whatever they are.
        let part = 0.5f64.powi((f64::from(count) / f64::from(LARGEST_DIVISOR)).log2().ceil() as i32);
        let part = f16::from_f64(part).to_le_bytes().to_vec();
        let part = b.fixed(DataType::Float16, &[1], Quantization::None, part);
        power = b.binary("ElementWiseMultiply", power, part);
    }
    let total = along_last(b, "ReduceSum", power);
    b.binary("ElementWiseDivide", power, total)
}

/// The logarithm of [`shares`].
fn logarithms(b: &mut Builder<'_>, x: TensorId) -> TensorId {
    let most = along_last(b, "ReduceMax", x);
    let below = b.binary("ElementWiseSubtract", x, most);
    let power = decay(b, below);
    let total = along_last(b, "ReduceSum", power);
    let log = b.unary("ElementWiseLog", total);
    b.binary("ElementWiseSubtract", below, log)
}

/// `m + log(sum(exp(x - m)))`, `m` being the largest: nothing overflows.
fn sum(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.image().value(x).rank();
    if elements(b, x)? != Elements::Float || rank == 0 {
        return Err(Refusal::dtype("not of floats"));
    }
    let mut axes = Vec::new();
    for dim in node.ints(1)? {
        axes.push(crate::node::wrap(dim, rank)? as u32);
    }
    let read = b.read(x, Layout::RowMajor)?;
    let mut dims = b.dims(x)?;
    axes.iter().for_each(|axis| dims[*axis as usize] = 1);
    let params = || vec![("axes", Param::list(&axes)), ("keep_dims", Param::Bool(true))];
    let most = b.temporary(DataType::Float16, &dims, Quantization::None);
    b.op("ReduceMax", params(), &[read], &[most]);
    let below = b.binary("ElementWiseSubtract", read, most);
    let power = decay(b, below);
    let total = b.like(most);
    b.op("ReduceSum", params(), &[power], &[total]);
    let log = b.unary("ElementWiseLog", total);
    let result = b.binary("ElementWiseAdd", log, most);
    same(b, result, out, Layout::RowMajor)
}
