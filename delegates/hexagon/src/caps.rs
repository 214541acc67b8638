//! What the delegate takes. A node is taken if its operator's row can lower it alone; where Qualcomm's library is at hand, each QNN node that
//! comes of it is then shown to the library's own validator (`validate.rs`), whose words are the reason of a refusal.

use crate::builder::Builder;
use crate::node::Node;
use crate::operators;
use delegraph_sdk::image::{ImageView, Kind, NodeIndex, NodeView, Sizes, ValueIndex};
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

/// Operators of which the first result is made, and no other: they are taken where nobody reads the others.
const FIRST_ONLY: &[&str] = &[
    "aten::max_pool2d_with_indices",
    "aten::native_layer_norm",
    "aten::native_group_norm",
    "aten::_native_batch_norm_legit_no_training",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
];

/// Most dimensions of a tensor: the library's elementwise operators end there.
pub const MAX_RANK: usize = 5;

/// Most elements of a tensor: of eight bytes each they are still counted in 31 bits.
pub const MAX_ELEMENTS: i64 = 1 << 28;

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
    // Statistics, places of maxima: not made here, and most programs read the first result alone.
    let others = node.outputs().iter().skip(1);
    let unmade: Vec<ValueIndex> = match FIRST_ONLY.contains(&operator.name) {
        true => others.collect(),
        false => Vec::new(),
    };
    if let Some(read) = unmade.iter().find(|value| is_used(node, **value)) {
        let name = image.value(*read).name();
        return Err(Refusal::new(
            Reason::OTHER,
            format!("`{name}` is read, and only the first result is made"),
        ));
    }
    for value in node
        .inputs()
        .chain(node.outputs().iter())
        .filter(|v| !unmade.contains(v))
    {
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
        // The library counts bytes in 32 bits, and does not look.
        let elements = dims.iter().try_fold(1i64, |all, dim| all.checked_mul(*dim));
        if elements.is_none_or(|elements| elements > MAX_ELEMENTS) {
            return Err(Refusal::shape(format!(
                "`{}` has more elements than the library counts",
                view.name()
            )));
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
    // What nobody reads need not be made.
    let outputs: Vec<ValueIndex> = node.outputs().iter().filter(|v| builder.is_made(*v)).collect();
    builder.finish(&outputs)
}

/// True if a node of the image reads the value, or the image gives it.
fn is_used(node: &NodeView<'_>, value: ValueIndex) -> bool {
    let image = node.image();
    let later = node.index().0 + 1..image.node_count();
    image.outputs().iter().any(|v| v == value)
        || later
            .into_iter()
            .any(|i| image.node(NodeIndex(i)).inputs().any(|v| v == value))
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
