//! What the delegate takes: one table of operators, and one predicate over it.
//!
//! A row holds the operator's name, what its parameters may be, a check of what remains, and the function that evaluates it.
//! An operator that is taken but cannot be run is thereby impossible, and so is one that can be run but is never taken.

use crate::call::Call;
use crate::layout;
use crate::number::{is_known, is_stored};
use crate::ops;
use crate::quant;
use crate::tensor::Tensor;
use delegraph_sdk::image::{ArgView, Kind, NodeView, ValueIndex};
use delegraph_sdk::{DType, Error, Reason, Verdict};

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

    /// A number of dimensions.
    pub fn rank(text: impl Into<String>) -> Refusal {
        Refusal {
            reason: Reason::RANK,
            text: text.into(),
        }
    }
}

/// Looks at what the signature does not say.
pub type Check = fn(&NodeView<'_>) -> Result<(), Refusal>;
/// Computes the outputs of a node.
pub type Eval = fn(&Call<'_>) -> Result<Vec<Tensor>, Error>;

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Operator {
    /// Name with overload, as the image has it.
    pub name: &'static str,
    /// One word a parameter: its type in the schema, `?` where it may be `None`. `Operand` is a tensor or a number;
    /// `any` is a parameter that has no influence here (device, layout, memory format).
    pub signature: &'static str,
    /// What else must hold.
    pub check: Check,
    /// Evaluates it.
    pub eval: Eval,
}

/// A row.
pub const fn op(name: &'static str, signature: &'static str, check: Check, eval: Eval) -> Operator {
    Operator {
        name,
        signature,
        check,
        eval,
    }
}

/// The table, a slice an operator family.
const FAMILIES: &[&[Operator]] = &[
    ops::activation::TABLE,
    ops::attention::TABLE,
    ops::binary::TABLE,
    ops::cast::TABLE,
    ops::compare::TABLE,
    ops::conv::TABLE,
    ops::create::TABLE,
    ops::index::TABLE,
    ops::join::TABLE,
    ops::matmul::TABLE,
    ops::norm::TABLE,
    ops::pad::TABLE,
    ops::pool::TABLE,
    ops::quantized::TABLE,
    ops::recurrent::TABLE,
    ops::reduce::TABLE,
    ops::resample::TABLE,
    ops::scan::TABLE,
    ops::scatter::TABLE,
    ops::softmax::TABLE,
    ops::sort::TABLE,
    ops::ternary::TABLE,
    ops::unary::TABLE,
    ops::view::TABLE,
];

/// All operators.
pub fn operators() -> impl Iterator<Item = &'static Operator> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// The operator of a node, if the delegate takes the node.
///
/// # Errors
/// Why it does not.
pub fn accept(node: &NodeView<'_>) -> Result<&'static Operator, Refusal> {
    let operator = operators().find(|operator| operator.name == node.op());
    let operator = operator.ok_or_else(|| Refusal {
        reason: Reason::UNKNOWN_OP,
        text: format!("`{}` is not among its operators", node.op()),
    })?;
    layout::accept(node)?;
    for value in node.inputs().chain(node.outputs().iter()) {
        accept_value(node, value)?;
    }
    let words = operator.signature.split_whitespace();
    for (i, word) in words.clone().enumerate() {
        if !fits(word, &node.arg(i)) {
            return Err(Refusal::attribute(format!(
                "parameter {i} of `{}` is `{:?}`, not of type `{word}`",
                node.op(),
                node.arg(i)
            )));
        }
    }
    if (words.count()..node.arg_count()).any(|i| !node.arg(i).is_none()) {
        return Err(Refusal::attribute(format!(
            "`{}` has more parameters than its schema",
            node.op()
        )));
    }
    (operator.check)(node)?;
    Ok(operator)
}

/// The answer for a node.
pub fn verdict(node: &NodeView<'_>) -> Verdict {
    match accept(node) {
        Ok(_) => Verdict::Take,
        Err(refusal) => Verdict::Refuse(refusal.reason, refusal.text.into()),
    }
}

fn accept_value(node: &NodeView<'_>, index: ValueIndex) -> Result<(), Refusal> {
    let value = node.image().value(index);
    match value.kind() {
        Kind::Tensor(dtype) if !is_stored(dtype) => Err(Refusal::dtype(format!("it does not compute with {dtype}"))),
        Kind::Tensor(_) if value.quant().is_some() => quant::accept(&node.image(), index),
        // What only stands for numbers is read and made by who quantizes and dequantizes.
        Kind::Tensor(dtype) if !is_known(dtype) && !quant::is_explicit(node) => {
            Err(Refusal::dtype(format!("it does not compute with {dtype}")))
        }
        Kind::Tensor(_) => Ok(()),
        _ => Err(Refusal {
            reason: Reason::OTHER,
            text: "it takes tensors, not numbers that are read at run time".to_string(),
        }),
    }
}

/// Whether an argument is of a type of the signature.
fn fits(word: &str, arg: &ArgView<'_>) -> bool {
    let number = matches!(
        arg,
        ArgView::Int(_) | ArgView::Float(_) | ArgView::Bool(_) | ArgView::Expr(_)
    );
    let word = match word.strip_suffix('?') {
        Some(_) if arg.is_none() => return true,
        Some(word) => word,
        None => word,
    };
    match word {
        "any" => true,
        "Tensor" => matches!(arg, ArgView::Value(_)),
        "Operand" => number || matches!(arg, ArgView::Value(_)),
        "Scalar" => number,
        "int" => matches!(arg, ArgView::Int(_) | ArgView::Expr(_)),
        "int[]" => matches!(arg, ArgView::Ints(_)),
        "float" => matches!(arg, ArgView::Float(_) | ArgView::Int(_)),
        "float[]" => matches!(arg, ArgView::Numbers(_)),
        "bool" => matches!(arg, ArgView::Bool(_)),
        "str" => matches!(arg, ArgView::Str(_)),
        "dtype" => matches!(arg, ArgView::DType(dtype) if is_stored(*dtype)),
        "Tensor[]" => match arg {
            ArgView::Values(_) => true,
            ArgView::OptionalValues(list) => list.iter().all(|v| v.is_some()),
            _ => false,
        },
        "Tensor?[]" => matches!(arg, ArgView::Values(_) | ArgView::OptionalValues(_)),
        _ => false,
    }
}

/// Nothing else must hold.
pub fn anything(_: &NodeView<'_>) -> Result<(), Refusal> {
    Ok(())
}

/// Every tensor is of a float type.
pub fn floats(node: &NodeView<'_>) -> Result<(), Refusal> {
    dtypes(node, "floats", DType::is_float)
}

/// The first output is of a float type, the inputs of any.
pub fn to_float(node: &NodeView<'_>) -> Result<(), Refusal> {
    match output_dtype(node) {
        Some(dtype) if dtype.is_float() => Ok(()),
        _ => Err(Refusal::dtype(format!("`{}` gives floats only", node.op()))),
    }
}

/// No tensor is of a float type.
pub fn integers(node: &NodeView<'_>) -> Result<(), Refusal> {
    dtypes(node, "integers", |dtype| !dtype.is_float())
}

/// The first output is not bool.
pub fn no_bool(node: &NodeView<'_>) -> Result<(), Refusal> {
    match output_dtype(node) {
        Some(DType::BOOL) => Err(Refusal::dtype(format!("`{}` does not take bool", node.op()))),
        _ => Ok(()),
    }
}

fn dtypes(node: &NodeView<'_>, which: &str, is_fit: fn(DType) -> bool) -> Result<(), Refusal> {
    let all = node.inputs().chain(node.outputs().iter());
    for dtype in all.filter_map(|v| quant::real_dtype(node, v)) {
        if !is_fit(dtype) {
            return Err(Refusal::dtype(format!(
                "`{}` takes {which} only, not {dtype}",
                node.op()
            )));
        }
    }
    Ok(())
}

/// Element type of the tensor at an argument; that of the numbers, where it is quantized.
pub fn dtype(node: &NodeView<'_>, i: usize) -> Option<DType> {
    quant::real_dtype(node, node.arg(i).value()?)
}

/// Number of dimensions of the tensor at an argument.
pub fn rank(node: &NodeView<'_>, i: usize) -> Option<usize> {
    Some(node.image().value(node.arg(i).value()?).rank())
}

/// Element type of the first output; that of the numbers, where it is quantized.
pub fn output_dtype(node: &NodeView<'_>) -> Option<DType> {
    quant::real_dtype(node, node.outputs().get(0)?)
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

    #[test]
    fn every_word_of_every_signature_is_known() {
        for operator in operators() {
            for word in operator.signature.split_whitespace() {
                let plain = word.strip_suffix('?').unwrap_or(word);
                let known = "any Tensor Operand Scalar int int[] float float[] bool str dtype Tensor[] Tensor?[]";
                assert!(known.split(' ').any(|k| k == plain), "{word} of {}", operator.name);
            }
        }
    }
}
