//! Softmax and its relatives.

use crate::caps::{Operator, Refusal};
use crate::encoder::{Encoder, read, write};
use crate::kernels;
use crate::node::Node;
use crate::operators::reduce::{accept_sum, is_float};
use crate::operators::reduce_rows::{Share, code};
use crate::tensor::Layout;
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

/// What is made of a row: `what` of `softmax.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Softmax = 0,
    Logarithm = 1,
    /// A row of nothing but minus infinity gives 0.
    Safe = 2,
}

/// A dimension between others: elements before it, of it, and after it.
pub fn split(dims: &[u32], dim: usize) -> (u32, u32, u32) {
    let before = dims.iter().take(dim).product();
    let after = dims.iter().skip(dim + 1).product();
    (before, dims.get(dim).copied().unwrap_or(1), after)
}

fn encode(node: &Node<'_>, e: &mut Encoder<'_>, what: What) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let dim = node.dim(1, x.dims.len())?;
    let (before, length, after) = split(&x.dims, dim);
    let rows = before * after;
    if rows == 0 || length == 0 {
        return Ok(());
    }
    let narrow = out.element() == 2;
    let pair = narrow && after == 1 && length.is_multiple_of(2);
    let share = Share::of(rows, length, after > 1, e.facts());
    let kernel = match (share, narrow) {
        (Share::Flat, false) => &kernels::SOFTMAX_FLAT,
        (Share::Flat, true) => &kernels::SOFTMAX_FLAT_NARROW,
        (Share::Group, false) => &kernels::SOFTMAX_GROUP,
        (Share::Group, true) => &kernels::SOFTMAX_GROUP_NARROW,
        (Share::Team(_), false) => &kernels::SOFTMAX_TEAM,
        (Share::Team(_), true) => &kernels::SOFTMAX_TEAM_NARROW,
    };
    let mut params = vec![rows, code(&x)?, code(&out)?, length, what as u32, after];
    params.extend([u32::from(pair), share.rows()]);
    e.dispatch(kernel, &[read(&x), write(&out)], &params, share.grid(rows))
}

/// A conversion on the way must change nothing, and floats come out.
fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_sum(node)?;
    match crate::caps::output_dtype(node) {
        Some(out) if is_float(out) => Ok(()),
        _ => Err(Refusal::dtype(format!("`{}` in whole numbers", node.op()))),
    }
}

const fn row(name: &'static str, encode: fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>) -> Operator {
    Operator { name, accept, encode }
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::softmax.int", |n, e| encode(n, e, What::Softmax)),
    row("aten::_softmax", |n, e| encode(n, e, What::Softmax)),
    row("aten::_safe_softmax", |n, e| encode(n, e, What::Safe)),
    row("aten::log_softmax.int", |n, e| encode(n, e, What::Logarithm)),
    row("aten::_log_softmax", |n, e| encode(n, e, What::Logarithm)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_split() {
        assert_eq!(split(&[2, 3, 4], 1), (2, 3, 4));
        assert_eq!(split(&[2, 3, 4], 2), (6, 4, 1));
        assert_eq!(split(&[], 0), (1, 1, 1));
    }
}
