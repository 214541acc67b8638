//! Shape and dtype propagation: what an operator returns, from the types of its arguments, with symbolic sizes.
//!
//! One file a family. A rule is found by the operator's name without overload, and reads arguments by parameter name, so
//! that one rule serves every overload of its operator and its `_copy` form.

mod backward;
mod call;
mod conv;
mod create;
mod elementwise;
mod higher_order;
mod index;
mod join;
mod llm;
mod loss;
mod matmul;
mod norm;
mod pad;
mod pool;
mod quantized;
mod recurrent;
mod reduce;
mod resample;
mod sort;
mod spectral;
mod view;

use crate::{Arg, Graph, Op, Symbols, Type};
use call::Call;

/// Why the types of an operator's results are not known.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The arguments break the operator's own rules: PyTorch would refuse the call too.
    #[error("operator `{op}`: {problem}")]
    Invalid {
        /// The operator.
        op: Op,
        /// What is wrong.
        problem: String,
    },
    /// A size depends on the contents of a tensor: the node's maker has to name it with a symbol.
    #[error("operator `{op}`: a size of its result depends on data")]
    DataDependent {
        /// The operator.
        op: Op,
    },
    /// There is no rule for the operator, or not for these arguments.
    #[error("operator `{op}`: {problem} is not supported by shape propagation")]
    Unsupported {
        /// The operator.
        op: Op,
        /// What is not supported.
        problem: String,
    },
}

/// A rule: the types of the results, in order, returned lists flattened.
type Rule = fn(&Call) -> Result<Vec<Type>, InferError>;

/// The types of the results of `op` on `args`, whose values are those of `graph`. Missing arguments count as their defaults.
///
/// Sizes are expressions over the symbols of the arguments. Where broadcasting meets two different symbols, the exporter has
/// already proved them equal, and the first one is taken (a constant size before a symbol).
///
/// # Errors
/// See [`InferError`]; a malformed argument is an error, never a panic.
pub fn infer(op: Op, args: &[Arg], graph: &Graph, symbols: &Symbols) -> Result<Vec<Type>, InferError> {
    let call = Call::new(op, args, graph, symbols)?;
    let rule = rule(op).ok_or_else(|| InferError::Unsupported {
        op,
        problem: "the operator".to_string(),
    })?;
    rule(&call)
}

/// True if there is a rule for the operator.
pub fn can_infer(op: Op) -> bool {
    rule(op).is_some()
}

fn rule(op: Op) -> Option<Rule> {
    let (namespace, name) = op.name().split_once("::")?;
    let (base, overload) = name.split_once('.').unwrap_or((name, ""));
    match namespace {
        "aten" => {
            // `view_copy` is `view`; the few operators that are really called `..._copy` are found first.
            let find = |base: &str| {
                elementwise::rule(base, overload)
                    .or_else(|| view::rule(base, overload))
                    .or_else(|| reduce::rule(base, overload))
                    .or_else(|| matmul::rule(base))
                    .or_else(|| join::rule(base))
                    .or_else(|| index::rule(base, overload))
                    .or_else(|| conv::rule(base))
                    .or_else(|| pool::rule(base))
                    .or_else(|| pad::rule(base))
                    .or_else(|| norm::rule(base))
                    .or_else(|| create::rule(base, overload))
                    .or_else(|| sort::rule(base))
                    .or_else(|| resample::rule(base))
                    .or_else(|| recurrent::rule(base))
                    .or_else(|| loss::rule(base))
                    .or_else(|| spectral::rule(base))
                    .or_else(|| backward::rule(base))
            };
            find(base).or_else(|| find(base.strip_suffix("_copy")?))
        }
        "quantized_decomposed" | "torchao" => quantized::rule(base),
        "llama" => llm::rule(base),
        "dim_order_ops" => create::dim_order_rule(base),
        "higher_order" => higher_order::rule(base),
        _ => None,
    }
}
