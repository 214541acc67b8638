//! Normal form 1: spatial operators take their tensors of four dimensions with the channels last.
//!
//! The evaluator knows one layout. It turns what such an operator reads before, and what it makes after.

use crate::caps::Refusal;
use crate::ops::view::permuted;
use crate::tensor::Tensor;
use delegraph_sdk::image::{NodeView, ValueIndex};
use delegraph_sdk::{Error, Reason};
use std::rc::Rc;

/// The operators, as the contract lists them.
const SPATIAL: [&str; 15] = [
    "aten::_adaptive_avg_pool2d",
    "aten::_native_batch_norm_legit_no_training",
    "aten::adaptive_avg_pool2d",
    "aten::avg_pool2d",
    "aten::batch_norm",
    "aten::conv2d",
    "aten::conv2d.padding",
    "aten::conv_transpose2d.input",
    "aten::convolution",
    "aten::max_pool2d",
    "aten::max_pool2d_with_indices",
    "aten::upsample_bilinear2d",
    "aten::upsample_bilinear2d.vec",
    "aten::upsample_nearest2d",
    "aten::upsample_nearest2d.vec",
];

/// The first tensor of a node that takes it with the channels last.
pub fn turned(node: &NodeView<'_>) -> Option<ValueIndex> {
    let image = node.image();
    let first = node.arg(0).value()?;
    let turns = image.normal_form() == 1 && SPATIAL.contains(&node.op()) && image.value(first).rank() == 4;
    turns.then_some(first)
}

/// The image is of a form that the evaluator knows.
///
/// # Errors
/// It is not, or a weight is the turned tensor besides.
pub fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    let refuse = |text: String| {
        Err(Refusal {
            reason: Reason::OTHER,
            text,
        })
    };
    match node.image().normal_form() {
        0 | 1 => {}
        other => return refuse(format!("it does not know graphs of normal form {other}")),
    }
    match turned(node) {
        Some(first) if node.inputs().filter(|v| *v == first).count() > 1 => {
            refuse(format!("`{}` reads one tensor twice, in two layouts", node.op()))
        }
        _ => Ok(()),
    }
}

/// Puts the first tensor of such a node in its place in the order of the operator table; gives what was there.
///
/// # Errors
/// It was not made.
pub fn unturn(
    node: &NodeView<'_>,
    values: &mut [Option<Rc<Tensor>>],
) -> Result<Option<(ValueIndex, Rc<Tensor>)>, Error> {
    let Some(index) = turned(node) else {
        return Ok(None);
    };
    let slot = &mut values[index.0 as usize];
    let last = slot
        .take()
        .ok_or_else(|| Error::internal("a value is read before it is made"))?;
    *slot = Some(Rc::new(permuted(&last, &[0, 3, 1, 2])?));
    Ok(Some((index, last)))
}

/// What such a node made, with the channels last.
///
/// # Errors
/// Too large.
pub fn turn(made: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    let each = |tensor: Tensor| match tensor.rank() {
        4 => permuted(&tensor, &[0, 2, 3, 1]),
        _ => Ok(tensor),
    };
    made.into_iter().map(each).collect()
}
