//! What elementwise nodes are as links of a chain. (Part V2 of the delegate completes it.)

use delegraph_sdk::image::{ArgView, NodeView, ValueIndex};

/// The operand of a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operand {
    /// A number; 0 where the operation has no operand.
    Number(f32),
    /// A tensor.
    Value(ValueIndex),
}

/// One operation on what came before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// The operation's number in `include/finish.wgsl`.
    pub op: u32,
    /// What it takes besides.
    pub operand: Operand,
    /// A parameter.
    pub a: f32,
    /// Another.
    pub b: f32,
}

/// The link that a node is, if what came before is its argument `argument`, and `finish()` can do it.
pub fn finish_link(node: &NodeView<'_>, argument: usize) -> Option<Link> {
    let other = |at: usize| match node.arg(at) {
        ArgView::Value(value) => Some(Operand::Value(value)),
        other => other.float().map(|number| Operand::Number(number as f32)),
    };
    let plain = |op, a: f32, b: f32| {
        Some(Link {
            op,
            operand: Operand::Number(0.0),
            a,
            b,
        })
    };
    match (node.op(), argument) {
        ("aten::add.Tensor", 0) => Some(Link {
            op: 0,
            operand: other(1)?,
            a: node.arg(2).float()? as f32,
            b: 0.0,
        }),
        ("aten::add.Tensor", 1) if node.arg(2).float() == Some(1.0) => Some(Link {
            op: 0,
            operand: other(0)?,
            a: 1.0,
            b: 0.0,
        }),
        ("aten::mul.Tensor", 0 | 1) => Some(Link {
            op: 1,
            operand: other(1 - argument)?,
            a: 0.0,
            b: 0.0,
        }),
        ("aten::relu", 0) => plain(2, 0.0, f32::INFINITY),
        ("aten::hardtanh", 0) => plain(2, node.arg(1).float()? as f32, node.arg(2).float()? as f32),
        ("aten::hardswish", 0) => plain(3, 0.0, 0.0),
        ("aten::hardsigmoid", 0) => plain(4, 0.0, 0.0),
        _ => None,
    }
}
