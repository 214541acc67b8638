//! Tensors of one number, whatever the inputs are.

use super::common::{Elements, elements};
use super::index::filled;
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::node::Node;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::full",
        lower: |n, b| constant(n, b, n.scalar(1)?.float()),
    },
    Operator {
        name: "aten::full_like",
        lower: |n, b| constant(n, b, n.scalar(1)?.float()),
    },
    Operator {
        name: "aten::scalar_tensor",
        lower: |n, b| constant(n, b, n.scalar(0)?.float()),
    },
    Operator {
        name: "aten::zeros",
        lower: |n, b| constant(n, b, 0.0),
    },
    Operator {
        name: "aten::zeros_like",
        lower: |n, b| constant(n, b, 0.0),
    },
    Operator {
        name: "aten::ones",
        lower: |n, b| constant(n, b, 1.0),
    },
    Operator {
        name: "aten::ones_like",
        lower: |n, b| constant(n, b, 1.0),
    },
];

fn constant(node: &Node<'_>, b: &mut Builder<'_>, number: f64) -> Result<(), Refusal> {
    let out = node.output(0)?;
    if elements(b, out)? == Elements::Small {
        return Err(Refusal::dtype("integers of 8 or 16 bits"));
    }
    let (data_type, _) = b.representation(out)?;
    let one = b.number_of(number, data_type)?;
    let dims = b.dims(out)?;
    let all = filled(b, one, &dims)?;
    b.bind(out, Layout::RowMajor, all);
    Ok(())
}
