//! What the delegate takes: a table of operators, and one predicate over it.
//!
//! A row holds the operator's name, a check of its arguments, and the function that lowers it. Device limits are not asked here: a region is
//! compiled for any device, and what does not fit one is refused when it is loaded there.

use crate::encoder::Encoder;
use crate::node::Node;
use crate::operators;
use delegraph_sdk::image::{ArgView, Kind, NodeView, ValueIndex};
use delegraph_sdk::{DType, Error, Reason, Verdict};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Why a node is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of reason.
    pub reason: Reason,
    /// In words.
    pub text: String,
}

impl Refusal {
    /// An argument's value.
    pub fn attribute(text: impl Into<String>) -> Refusal {
        Refusal {
            reason: Reason::ATTRIBUTE,
            text: text.into(),
        }
    }

    /// An element type.
    pub fn dtype(text: impl Into<String>) -> Refusal {
        Refusal {
            reason: Reason::DTYPE,
            text: text.into(),
        }
    }

    /// Sizes or their number.
    pub fn shape(text: impl Into<String>) -> Refusal {
        Refusal {
            reason: Reason::SHAPE,
            text: text.into(),
        }
    }
}

/// An operator that the delegate takes.
pub struct Operator {
    /// With its overload, for example `aten::add.Tensor`.
    pub name: &'static str,
    /// What is asked of a node beyond what is asked of all.
    pub accept: fn(&NodeView<'_>) -> Result<(), Refusal>,
    /// Lowers a node that was accepted.
    pub encode: fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>,
}

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// The operator of a node, if the delegate takes it.
///
/// # Errors
/// Why it does not.
pub fn accept(node: &NodeView<'_>) -> Result<&'static Operator, Refusal> {
    let operator = find(node.op()).ok_or_else(|| Refusal {
        reason: Reason::UNKNOWN_OP,
        text: format!("there is no kernel for `{}`", node.op()),
    })?;
    let is_unknown = |argument| match argument {
        ArgView::DType(dtype) => dtype.size().is_none(),
        argument => matches!(argument, ArgView::Unknown(_)),
    };
    if node.args().any(is_unknown) {
        return Err(Refusal::attribute(format!(
            "`{}` has an argument of a kind that is not known here",
            node.op()
        )));
    }
    let image = node.image();
    for value in node.inputs().chain(node.outputs().iter()) {
        let view = image.value(value);
        if !matches!(view.kind(), Kind::Tensor(_)) {
            return Err(Refusal {
                reason: Reason::OTHER,
                text: format!("`{}` is a number that is read at run time", view.name()),
            });
        }
        if view.rank() > MAX_RANK {
            return Err(Refusal::shape(format!(
                "`{}` has more than {MAX_RANK} dimensions",
                view.name()
            )));
        }
        if view.quant().is_some() && !reads_quantized(node) {
            return Err(Refusal {
                reason: Reason::QUANTIZATION,
                text: format!("`{}` is of a quantized type", view.name()),
            });
        }
    }
    (operator.accept)(node)?;
    Ok(operator)
}

/// Operators that look at quantized types themselves.
const QUANTIZED: &[&str] = &[
    "aten::conv2d",
    "aten::conv2d.padding",
    "aten::convolution",
    "aten::linear",
];

/// Operators that only move elements: integers stay what they are, where all stand for the same numbers.
const MOVES: &[&str] = &[
    "aten::cat",
    "aten::clone",
    "aten::expand",
    "aten::flatten.using_ints",
    "aten::max_pool2d",
    "aten::permute",
    "aten::reshape",
    "aten::select.int",
    "aten::slice.Tensor",
    "aten::squeeze.dim",
    "aten::squeeze.dims",
    "aten::t",
    "aten::transpose.int",
    "aten::unsqueeze",
    "aten::view",
];

/// True for operators that look at quantized types themselves, and for those to which integers are integers: moves, and the explicit ones,
/// which have scales among their arguments.
fn reads_quantized(node: &NodeView<'_>) -> bool {
    let op = node.op();
    if MOVES.contains(&op) {
        let quant = |value| node.image().value(value).quant();
        let mut all = node.inputs().chain(node.outputs().iter()).map(quant);
        let first = all.next();
        return all.all(|quant| Some(quant) == first);
    }
    QUANTIZED.contains(&op) || op.starts_with("quantized_decomposed::") || op.starts_with("torchao::")
}

/// The answer for a node.
pub fn verdict(node: &NodeView<'_>) -> Verdict {
    match accept(node) {
        Ok(_) => Verdict::Take,
        Err(refusal) => Verdict::Refuse(refusal.reason, refusal.text.into()),
    }
}

/// All operators.
pub fn operators() -> impl Iterator<Item = &'static Operator> {
    operators::FAMILIES.iter().flat_map(|family| family.iter())
}

fn find(name: &str) -> Option<&'static Operator> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Operator>> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| operators().map(|o| (o.name, o)).collect());
    by_name.get(name).copied()
}

/// Element type of a value, where it is a tensor.
pub fn dtype_of(node: &NodeView<'_>, value: ValueIndex) -> Option<DType> {
    node.image().value(value).dtype()
}

/// Element type of the tensor at an argument.
pub fn dtype(node: &NodeView<'_>, argument: usize) -> Option<DType> {
    dtype_of(node, node.arg(argument).value()?)
}

/// Element type of the first output.
pub fn output_dtype(node: &NodeView<'_>) -> Option<DType> {
    dtype_of(node, node.outputs().get(0)?)
}

/// Number of dimensions of the tensor at an argument.
pub fn rank(node: &NodeView<'_>, argument: usize) -> Option<usize> {
    Some(node.image().value(node.arg(argument).value()?).rank())
}

/// Every tensor that is read or made is of one of these types.
///
/// # Errors
/// The first that is not.
pub fn all_of(node: &NodeView<'_>, dtypes: &[DType]) -> Result<(), Refusal> {
    for value in node.inputs().chain(node.outputs().iter()) {
        let dtype = dtype_of(node, value);
        if !dtype.is_some_and(|d| dtypes.contains(&d)) {
            let name = node.image().value(value).name();
            let dtype = dtype.map_or("no tensor".to_string(), |d| d.to_string());
            return Err(Refusal::dtype(format!(
                "`{}` is not computed in {dtype} (`{name}`)",
                node.op()
            )));
        }
    }
    Ok(())
}

/// Every tensor is of type f32 or f16.
///
/// # Errors
/// The first that is not.
pub fn floats(node: &NodeView<'_>) -> Result<(), Refusal> {
    all_of(node, &[DType::F32, DType::F16])
}

/// Nothing more is asked.
///
/// # Errors
/// None.
pub fn anything(_: &NodeView<'_>) -> Result<(), Refusal> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_operator_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for operator in operators() {
            assert!(seen.insert(operator.name), "{}", operator.name);
            assert!(operator.name.contains("::"), "{}", operator.name);
        }
    }
}
