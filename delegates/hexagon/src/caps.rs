//! What the delegate takes. A node is taken if its operator's row can lower it alone; where Qualcomm's library is at hand, each QNN node that
//! comes of it is then shown to the library's own validator (`validate.rs`), whose words are the reason of a refusal.

use crate::builder::Builder;
use crate::node::Node;
use crate::operators;
use delegraph_sdk::image::{ImageView, Kind, NodeView, Sizes};
use delegraph_sdk::{Error, Reason, Verdict};
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
    /// A reason of any kind.
    pub fn new(reason: Reason, text: impl Into<String>) -> Refusal {
        Refusal {
            reason,
            text: text.into(),
        }
    }

    /// An argument's value.
    pub fn attribute(text: impl Into<String>) -> Refusal {
        Refusal::new(Reason::ATTRIBUTE, text)
    }

    /// An element type.
    pub fn dtype(text: impl Into<String>) -> Refusal {
        Refusal::new(Reason::DTYPE, text)
    }

    /// Sizes or their number.
    pub fn shape(text: impl Into<String>) -> Refusal {
        Refusal::new(Reason::SHAPE, text)
    }

    /// How integers stand for numbers.
    pub fn quantization(text: impl Into<String>) -> Refusal {
        Refusal::new(Reason::QUANTIZATION, text)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::new(Reason::ATTRIBUTE, error.message)
    }
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Verdict {
        Verdict::Refuse(refusal.reason, refusal.text.into())
    }
}

/// An operator that the delegate takes.
pub struct Operator {
    /// With its overload, for example `aten::add.Tensor`.
    pub name: &'static str,
    /// Lowers a node, or says why it cannot. While a node is only asked about, constants have no bytes ([`Builder::constant`]).
    pub lower: fn(&Node<'_>, &mut Builder<'_>) -> Result<(), Refusal>,
}

/// Most dimensions of a tensor: the library's elementwise operators end there.
pub const MAX_RANK: usize = 5;

/// All operators.
pub fn operators() -> impl Iterator<Item = &'static Operator> {
    operators::FAMILIES.iter().flat_map(|family| family.iter())
}

/// The row of an operator.
pub fn find(name: &str) -> Option<&'static Operator> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Operator>> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| operators().map(|o| (o.name, o)).collect());
    by_name.get(name).copied()
}

/// Lowers a node into a builder; asks first what is asked of all.
///
/// # Errors
/// Why it is not taken.
pub fn lower(node: &NodeView<'_>, sizes: &Sizes, builder: &mut Builder<'_>) -> Result<(), Refusal> {
    let operator = find(node.op())
        .ok_or_else(|| Refusal::new(Reason::UNKNOWN_OP, format!("`{}` has no QNN operator here", node.op())))?;
    let image = node.image();
    for value in node.inputs().chain(node.outputs().iter()) {
        let view = image.value(value);
        if !matches!(view.kind(), Kind::Tensor(_)) {
            return Err(Refusal::new(
                Reason::OTHER,
                format!("`{}` is a number that is read at run time", view.name()),
            ));
        }
        let Some(dims) = view.const_dims() else {
            return Err(Refusal::new(
                Reason::DYNAMIC_SHAPE,
                format!("`{}` has no fixed shape; compile with `--shapes`", view.name()),
            ));
        };
        if dims.len() > MAX_RANK {
            return Err(Refusal::shape(format!(
                "`{}` has more than {MAX_RANK} dimensions",
                view.name()
            )));
        }
        if dims.contains(&0) {
            return Err(Refusal::shape(format!("`{}` has no elements", view.name())));
        }
    }
    builder.begin(node);
    (operator.lower)(&Node::new(*node, sizes), builder)
}

/// Lowers a node alone, for asking about it.
///
/// # Errors
/// Why it is not taken.
pub fn alone(image: &ImageView<'_>, node: &NodeView<'_>, sizes: &Sizes) -> Result<crate::graph::Graph, Refusal> {
    let mut builder = Builder::asking(*image, node);
    lower(node, sizes, &mut builder)?;
    builder.finish(&node.outputs().iter().collect::<Vec<_>>())
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
