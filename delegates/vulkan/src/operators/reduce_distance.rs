//! Distances between the rows of two batches of matrices.

use crate::caps::{self, Operator, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::operators::reduce::is_float;
use crate::operators::reduce_rows::{code, listed, merged, words};
use crate::tensor::Layout;
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

/// The number by which the kernel knows an order.
fn known(order: Option<f64>) -> Option<u32> {
    let order = order?;
    match order {
        _ if order == 0.0 => Some(0),
        _ if order == 1.0 => Some(1),
        _ if order == 2.0 => Some(2),
        _ if order == f64::INFINITY => Some(3),
        _ => None,
    }
}

fn encode(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (x, y) = (e.input(node, 0)?, e.input(node, 1)?);
    let out = e.output(node, 0, Layout::RowMajor)?;
    let order = node.scalar(2)?.float();
    let order = known(Some(order)).ok_or_else(|| Error::unsupported(format!("a distance of order {order}")))?;
    let misfit = || Error::invalid(format!("distances of {:?} from {:?}", x.dims, y.dims));
    let ([a @ .., rows, length], [b @ .., columns, other]) = (&x.dims[..], &y.dims[..]) else {
        return Err(misfit());
    };
    let batches = out
        .dims
        .len()
        .checked_sub(2)
        .and_then(|end| out.dims.get(..end))
        .ok_or_else(misfit)?;
    if length != other {
        return Err(misfit());
    }
    if out.count() == 0 {
        return Ok(());
    }
    let lists = [a, b].map(|own| -> Option<Vec<[u32; 2]>> {
        let own_strides = crate::tensor::strides(own);
        let missing = batches.len().checked_sub(own.len())?;
        let stride = |d: usize| match d.checked_sub(missing) {
            Some(d) if own.get(d) != Some(&1) => own_strides.get(d).copied().unwrap_or(0),
            _ => 0,
        };
        Some(batches.iter().enumerate().map(|(d, size)| [*size, stride(d)]).collect())
    });
    let [Some(first), Some(second)] = lists else {
        return Err(misfit());
    };
    let (first, second) = (listed(&merged(&first)), listed(&merged(&second)));
    let mut params = vec![out.count(), code(&x)?, *rows, *columns, *length, order];
    params.extend([8, 8 + first.len() as u32]);
    params.extend(first.into_iter().chain(second));
    let groups = grid(words(out.count(), out.dtype), 64);
    e.dispatch(
        &kernels::REDUCE_DISTANCE,
        &[read(&x), read(&y), write(&out)],
        &params,
        groups,
    )
}

/// Of each row from those that follow it.
fn encode_pairs(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let order = node.scalar(1)?.float();
    let order = known(Some(order)).ok_or_else(|| Error::unsupported(format!("a distance of order {order}")))?;
    let &[rows, length] = &x.dims[..] else {
        return Err(Error::invalid(format!("distances between the rows of {:?}", x.dims)));
    };
    if out.count() == 0 {
        return Ok(());
    }
    let params = [out.count(), code(&x)?, 0, rows, length, order];
    let groups = grid(words(out.count(), out.dtype), 64);
    e.dispatch(
        &kernels::REDUCE_DISTANCE,
        &[read(&x), read(&x), write(&out)],
        &params,
        groups,
    )
}

fn accept_pairs(node: &NodeView<'_>) -> Result<(), Refusal> {
    match (caps::dtype(node, 0), caps::output_dtype(node)) {
        (Some(x), Some(out)) if is_float(x) && x == out => accept_order(node, 1),
        _ => Err(Refusal::dtype("distances of whole numbers")),
    }
}

fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    match (caps::dtype(node, 0), caps::dtype(node, 1), caps::output_dtype(node)) {
        (Some(a), Some(b), Some(out)) if is_float(a) && a == b && a == out => {}
        _ => return Err(Refusal::dtype("distances of whole numbers, or of tensors of two types")),
    }
    accept_order(node, 2)
}

fn accept_order(node: &NodeView<'_>, argument: usize) -> Result<(), Refusal> {
    let order = node.arg(argument);
    match known(order.float().or(order.int().map(|i| i as f64))) {
        Some(_) => Ok(()),
        None => Err(Refusal::attribute(
            "a distance of another order than 0, 1, 2 and infinity",
        )),
    }
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::_cdist_forward",
        accept,
        encode,
    },
    Operator {
        name: "aten::_pdist_forward",
        accept: accept_pairs,
        encode: encode_pairs,
    },
    Operator {
        name: "aten::cdist",
        accept,
        encode,
    },
];
