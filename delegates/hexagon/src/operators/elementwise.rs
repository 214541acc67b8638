//! Operators on single elements.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::node::Node;

fn binary(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let (x, y, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let rank = b.image().value(out).rank();
    let layout = b.elementwise_layout(&[x, y], out)?;
    let inputs = [b.read_broadcast(x, rank, layout)?, b.read_broadcast(y, rank, layout)?];
    let out = b.write(out, layout)?;
    b.op(op, Vec::new(), &inputs, &[out]);
    Ok(())
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[Operator {
    name: "aten::mul.Tensor",
    lower: |n, b| binary(n, b, "ElementWiseMultiply"),
}];
