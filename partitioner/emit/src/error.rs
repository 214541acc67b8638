//! Why a module could not be written.

use delegraph_ir::{Expr, RegionId};

/// An error of the emitter. All but `Write` mean that an earlier pass left something it should not have.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The portable dialect has no such operator.
    #[error(
        "node `{node}`: operator `{op}` has no out-variant\n  hint: it has no portable form yet; no file can hold it"
    )]
    NoOutVariant {
        /// Node name.
        node: String,
        /// Operator.
        op: String,
    },
    /// An argument that instructions cannot hold.
    #[error("node `{node}` `{op}`, argument `{argument}`: {problem}")]
    Argument {
        /// Node name.
        node: String,
        /// Operator.
        op: String,
        /// Parameter name.
        argument: String,
        /// What is wrong.
        problem: String,
    },
    /// A size expression whose symbols nothing binds at run time, or that no primitive computes.
    #[error("size `{0}` cannot be computed at run time: {1}")]
    Size(Expr, String),
    /// A region's nodes are not one contiguous run.
    #[error("region {0} is not contiguous in the node order")]
    Region(RegionId),
    /// A value is read that no instruction makes.
    #[error("value `{0}` is read before it is made")]
    Undefined(String),
    /// A constant's window lies outside its storage.
    #[error("constant `{0}` lies outside its storage")]
    Constant(String),
    /// The file could not be written.
    #[error("cannot write the program: {0}")]
    Write(String),
}
