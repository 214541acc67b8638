//! What the delegate takes: every operator that has a kernel, on tensors of types that kernels have.
//!
//! A node that no pass makes a step of its own is run by its portable kernel, within the region: so there is no operator that this delegate refuses and
//! that the portable plan would run, but for a few that have to do with the whole program.

use crate::graph::Graph;
use crate::passes;
use crate::steps::generic::{dtype_of, kernel_of};
use delegraph_sdk::image::{ArgView, ImageView, Kind, NodeView};
use delegraph_sdk::{Reason, Verdict};

/// What the whole graph tells of its nodes.
pub struct Known {
    /// Nodes that have no kernel, and that passes make steps of all the same.
    steps: Vec<bool>,
}

impl Known {
    /// Of a graph. One that cannot be read has no such nodes.
    pub fn of(image: &ImageView<'_>) -> Known {
        Known {
            steps: Graph::read(image)
                .map(|mut graph| {
                    passes::halves::as_floats(&mut graph);
                    passes::taken(&graph)
                })
                .unwrap_or_default(),
        }
    }
}

/// The answer for a node of a graph.
pub fn verdict(node: &NodeView<'_>, known: &Known) -> Verdict {
    let refuse = |reason: Reason, text: String| Verdict::Refuse(reason, text.into());
    let is_step = known.steps.get(node.index().0 as usize).is_some_and(|step| *step);
    if !is_step && kernel_of(node.op()).is_none() {
        return refuse(Reason::UNKNOWN_OP, format!("`{}` has no kernel", node.op()));
    }
    for value in node.inputs().chain(node.outputs().iter()) {
        let value = node.image().value(value);
        match value.kind() {
            Kind::Tensor(dtype) if dtype_of(dtype).is_none() => {
                return refuse(Reason::DTYPE, format!("no kernel has {dtype}"));
            }
            Kind::Tensor(_) if value.quant().is_some() => {
                return refuse(
                    Reason::DTYPE,
                    "it computes with integers as the model has them".to_string(),
                );
            }
            Kind::Tensor(_) => {}
            _ => {
                return refuse(
                    Reason::OTHER,
                    "it takes tensors, not numbers that are read at run time".to_string(),
                );
            }
        }
    }
    for arg in node.args() {
        match arg {
            ArgView::Unknown(_) => {
                return refuse(Reason::ATTRIBUTE, "it has an argument of an unknown kind".to_string());
            }
            ArgView::DType(dtype) if dtype_of(dtype).is_none() => {
                return refuse(Reason::DTYPE, format!("no kernel has {dtype}"));
            }
            _ => {}
        }
    }
    // Sizes that only the data tell: no plan can be made before the run.
    let fresh = |value| node.image().value(value).dims().iter().any(|dim| is_unbound(node, dim));
    match node.outputs().iter().any(fresh) {
        true => refuse(
            Reason::DYNAMIC_SHAPE,
            "sizes of its results are known from the data alone".to_string(),
        ),
        false => Verdict::Take,
    }
}

/// Whether a size depends on a symbol that no size of an input tells.
fn is_unbound(node: &NodeView<'_>, dim: delegraph_sdk::image::ExprIndex) -> bool {
    use delegraph_sdk::image::Expr;
    match node.image().expr(dim) {
        // Names of sizes that come from data begin so in every exported program.
        Expr::Symbol(symbol) => node.image().symbol(symbol).name.starts_with('u'),
        Expr::Op(_, operands) => operands.iter().any(|operand| is_unbound(node, operand)),
        _ => false,
    }
}
