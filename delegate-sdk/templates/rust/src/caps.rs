//! What the delegate takes, node by node.

use crate::ops::{OPERATORS, Operator};
use delegraph_sdk::image::{ArgView, NodeView};
use delegraph_sdk::{DType, Reason, Verdict};

/// The answer for a node.
pub fn verdict(node: &NodeView<'_>) -> Verdict {
    match accept(node) {
        Ok(_) => Verdict::Take,
        Err((reason, text)) => Verdict::Refuse(reason, text.into()),
    }
}

/// The operator of a node that is taken.
pub fn accept(node: &NodeView<'_>) -> Result<&'static Operator, (Reason, String)> {
    let refuse = |reason, text: &str| Err((reason, text.to_string()));
    let Some(operator) = OPERATORS.iter().find(|operator| operator.name == node.op()) else {
        return refuse(Reason::UNKNOWN_OP, &format!("no kernel for `{}`", node.op()));
    };
    let image = node.image();
    let result = match node.outputs().get(0) {
        Some(result) if node.outputs().len() == 1 => image.value(result),
        _ => return refuse(Reason::OTHER, "not one result"),
    };
    if result.dtype() != Some(DType::F32) {
        return refuse(Reason::DTYPE, "f32 only");
    }
    for i in 0..operator.operands {
        // A number may stand where the operator's schema says Tensor: it is an argument, but no value.
        let ArgView::Value(value) = node.arg(i) else {
            return refuse(Reason::ATTRIBUTE, "every operand must be a tensor");
        };
        let value = image.value(value);
        if value.dtype() != Some(DType::F32) {
            return refuse(Reason::DTYPE, "f32 only");
        }
        if value.weight().is_some() {
            return refuse(Reason::OTHER, "weights are not done yet");
        }
        // Equal sizes are equal expressions, known now or not.
        if !value.dims().iter().eq(result.dims().iter()) {
            return refuse(Reason::SHAPE, "operands of different shapes are not broadcast");
        }
    }
    match (operator.refuse)(node) {
        Some(why) => refuse(Reason::ATTRIBUTE, why),
        None => Ok(operator),
    }
}
