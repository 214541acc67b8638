//! What can go wrong.

use crate::SchemeError;
use delegraph_passes::{PassError, RunError};

/// An error of quantization.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// What was asked for is no scheme.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// A static scheme without anything to observe.
    #[error(
        "`{0}` chooses ranges by what the model computes on samples\n  hint: give some by `--calibrate inputs.safetensors`, or take a \
         scheme that needs none: `w8a8-dynamic`, `8da4w`, `w8`, `w4`"
    )]
    NoSamples(String),
    /// A sample does not fit the method.
    #[error("sample `{sample}`: {problem}")]
    Sample {
        /// Its name: file and tensor.
        sample: String,
        /// What is wrong.
        problem: String,
    },
    /// A number that is not finite where the float model should have a finite one.
    #[error(
        "sample `{sample}`: node `{node}` (`{op}`) computes {what} from finite numbers in the float model\n  hint: its range cannot be \
         chosen; look at the model, leave the sample out, or keep the node in float with `keep={node}`"
    )]
    NotFinite {
        /// The sample.
        sample: String,
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// `NaN` or `an infinity`.
        what: &'static str,
    },
    /// The float model could not be run.
    #[error("sample `{sample}`: node `{node}` (`{op}`) of the float model: {source}")]
    Run {
        /// The sample.
        sample: String,
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// Why.
        source: RunError,
    },
    /// The float model holds what cannot be run node by node.
    #[error("sample `{sample}`: node `{node}` (`{op}`): {problem}")]
    Node {
        /// The sample.
        sample: String,
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What it is.
        problem: String,
    },
    /// A pass met something that it cannot do.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A defect of Delegraph.
    #[error("internal error: {0}")]
    Bug(String),
}
