//! Where numbers belong in rows that are in order.

use crate::caps::{self, Operator, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::operators::reduce::accept_any;
use crate::operators::reduce_rows::code;
use crate::tensor::Layout;
use delegraph_sdk::Error;
use delegraph_sdk::image::{ArgView, NodeView};

/// Arguments: the rows, the values, and whether equals come before.
fn encode(node: &Node<'_>, e: &mut Encoder<'_>, rows: usize, values: usize, right: bool) -> Result<(), Error> {
    let (x, values) = (e.input(node, rows)?, e.input(node, values)?);
    let out = e.output(node, 0, Layout::RowMajor)?;
    if out.count() == 0 {
        return Ok(());
    }
    let length = x.dims.last().copied().unwrap_or(1);
    let of_row = match x.dims.len() {
        0 | 1 => 0,
        rank => {
            let (a, b) = (x.dims.get(..rank - 1), values.dims.get(..rank - 1));
            if values.dims.len() != rank || a != b {
                let (a, b) = (&values.dims, &x.dims);
                return Err(Error::invalid(format!("values of {a:?} in rows of {b:?}")));
            }
            values.dims.last().copied().unwrap_or(1)
        }
    };
    let params = [out.count(), code(&x)?, code(&out)?, length, of_row, u32::from(right)];
    let operands = [read(&x), read(&values), write(&out)];
    e.dispatch(&kernels::SORT_SEARCH, &operands, &params, grid(out.count(), 64))
}

/// `side` says it in a word, where it is given.
fn is_right(right: ArgView<'_>, side: ArgView<'_>) -> Option<bool> {
    match side {
        ArgView::None => right.bool(),
        ArgView::Str("left") => Some(false),
        ArgView::Str("right") => Some(true),
        _ => None,
    }
}

fn encode_search(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let right = is_right(node.view().arg(3), node.view().arg(4));
    encode(
        node,
        e,
        0,
        1,
        right.ok_or_else(|| Error::internal("neither left nor right"))?,
    )
}

fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_any(node)?;
    match (caps::dtype(node, 0), caps::dtype(node, 1)) {
        (Some(a), Some(b)) if a == b => Ok(()),
        _ => Err(Refusal::dtype("values of another type than the rows")),
    }
}

fn accept_search(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept(node)?;
    if !node.arg(5).is_none() {
        return Err(Refusal::attribute("rows in an order that another tensor says"));
    }
    match is_right(node.arg(3), node.arg(4)) {
        Some(_) => Ok(()),
        None => Err(Refusal::attribute("a side that is neither left nor right")),
    }
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::searchsorted.Tensor",
        accept: accept_search,
        encode: encode_search,
    },
    Operator {
        name: "aten::bucketize.Tensor",
        accept,
        encode: |n, e| encode(n, e, 1, 0, n.bool(3)?),
    },
];
