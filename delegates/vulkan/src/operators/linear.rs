//! Linear layers.

use super::matmul::FLOATS;
use super::product::{Product, Side, encode};
use super::quantized_linear;
use crate::caps::{self, Operator, Refusal};
use crate::encoder::Encoder;
use crate::node::Node;
use crate::tensor::Layout;
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[Operator {
    name: "aten::linear",
    accept,
    encode: linear,
}];

fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    if quantized_linear::is_quantized(node) {
        return quantized_linear::accept(node);
    }
    caps::all_of(node, FLOATS)?;
    match caps::rank(node, 1) {
        Some(1 | 2) => Ok(()),
        _ => Err(Refusal::shape("a weight of a linear layer has one or two dimensions")),
    }
}

fn linear(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    if quantized_linear::is_quantized(&node.view()) {
        return quantized_linear::linear(node, e);
    }
    let (x, weight) = (e.input(node, 0)?, e.input(node, 1)?);
    let (m, n, k) = shape(&x.dims, &weight.dims)?;
    let bias = node
        .optional_value(2)?
        .map(|bias| e.tensor(bias, Layout::RowMajor))
        .transpose()?;
    let side = |tensor, row, column| Side {
        tensor,
        base: 0,
        row,
        column,
    };
    let product = Product {
        m,
        n,
        k,
        batch: Vec::new(),
        a: side(x, k, 1),
        b: side(weight, 1, k),
        alpha: 1.0,
        addend: bias.map(|bias| {
            let step = u32::from(bias.count() != 1);
            (side(bias, 0, step), 1.0)
        }),
    };
    let finish = e.finish(node, Layout::RowMajor)?;
    encode(e, product, &finish)
}

/// Rows, columns and terms of a layer.
///
/// # Errors
/// The sizes do not fit.
pub fn shape(x: &[u32], weight: &[u32]) -> Result<(u32, u32, u32), Error> {
    let (n, k) = match weight {
        [n, k] => (*n, *k),
        [k] => (1, *k),
        _ => return Err(Error::invalid("a weight of a linear layer has one or two dimensions")),
    };
    match x {
        [rows @ .., last] if *last == k => Ok((rows.iter().product(), n, k)),
        _ => Err(Error::invalid(format!(
            "inputs of sizes {x:?} do not fit weights of sizes {weight:?}"
        ))),
    }
}
