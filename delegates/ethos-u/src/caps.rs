//! What the delegate takes: a node is taken if its operator's row can lower it alone. What Vela then refuses is refused when a region is compiled,
//! in its own words.

use crate::builder::Builder;
use crate::operators;
use crate::target::Target;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::{Kind, NodeView, Sizes};
use delegraph_sdk::{Error, Reason, Verdict};

/// Why a node is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of reason.
    pub reason: Reason,
    /// In words.
    pub text: String,
}

impl Refusal {
    fn new(reason: Reason, text: impl Into<String>) -> Refusal {
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
    /// With its overload.
    pub name: &'static str,
    /// Lowers a node, or says why it cannot.
    pub lower: fn(&Arguments<'_>, &mut Builder<'_>) -> Result<(), Refusal>,
}

/// Lowers a node into a builder.
///
/// # Errors
/// Why it is not taken.
pub fn lower(node: &NodeView<'_>, sizes: &Sizes, builder: &mut Builder<'_>) -> Result<(), Refusal> {
    let operator = operators::FAMILIES
        .iter()
        .flat_map(|family| family.iter())
        .find(|operator| operator.name == node.op())
        .ok_or_else(|| {
            Refusal::new(
                Reason::UNKNOWN_OP,
                format!("`{}` is not lowered to TOSA here", node.op()),
            )
        })?;
    let image = node.image();
    for value in node.inputs().chain(node.outputs().iter()) {
        let view = image.value(value);
        if !matches!(view.kind(), Kind::Tensor(_)) {
            return Err(Refusal::new(
                Reason::OTHER,
                format!("`{}` is a number that is read at run time", view.name()),
            ));
        }
        if view.const_dims().is_none() {
            return Err(Refusal::new(
                Reason::DYNAMIC_SHAPE,
                format!("`{}` has no fixed shape; compile with `--shapes`", view.name()),
            ));
        }
    }
    builder.begin(node);
    (operator.lower)(&Arguments::new(*node, sizes), builder)
}

/// The answer for a node.
pub fn verdict(node: &NodeView<'_>, sizes: &Sizes, target: &'static Target) -> Verdict {
    match check(node, sizes, target) {
        Ok(()) => Verdict::Take,
        Err(refusal) => refusal.into(),
    }
}

/// Lowers a node alone, to see whether it can be.
///
/// # Errors
/// Why it is not taken.
pub fn check(node: &NodeView<'_>, sizes: &Sizes, target: &'static Target) -> Result<(), Refusal> {
    let mut builder = Builder::new(node.image(), target, None);
    // Of several results the first alone is made: folding says that nobody reads the others.
    lower(node, sizes, &mut builder)?;
    let values: Vec<_> = node.outputs().iter().take(1).filter(|v| builder.has(*v)).collect();
    builder.finish(&[], &values).map(|_| ())
}
