//! Leaves of cases as values of sessions, and back.

use delegraph::Value;
use delegraph_runner::Leaf;
use delegraph_types::{Dims, RankError};

/// A leaf as an argument of a session.
///
/// # Errors
/// More dimensions than there can be.
pub fn value(leaf: &Leaf) -> Result<Value<'_>, RankError> {
    Ok(match leaf {
        Leaf::None => Value::None,
        Leaf::Bool(b) => Value::Bool(*b),
        Leaf::Int(i) => Value::Int(*i),
        Leaf::Float(f) => Value::Float(*f),
        Leaf::Str(s) => Value::Str(s),
        Leaf::Tensor { dtype, shape, bytes } => Value::tensor(*dtype, Dims::new(shape)?, bytes),
    })
}

/// A session's value as a leaf, row-major.
pub fn leaf(value: Value<'_>) -> Leaf {
    match value {
        // What is given in place is no output.
        Value::None | Value::InPlace(_) | Value::Memory(_) => Leaf::None,
        Value::Bool(b) => Leaf::Bool(b),
        Value::Int(i) => Leaf::Int(i),
        Value::Float(f) => Leaf::Float(f),
        Value::Str(s) => Leaf::Str(s.to_string()),
        Value::Tensor(tensor) => Leaf::Tensor {
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
            bytes: tensor.to_contiguous().into_owned(),
        },
    }
}
