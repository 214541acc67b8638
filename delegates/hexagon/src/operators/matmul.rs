//! Products of matrices and vectors.
//!
//! A constant matrix on the right is the weight of a linear layer. Everything else is a `MatMul` of factors of the same number of dimensions;
//! sums with another tensor and factors come behind it, in floats.

use super::images;
use super::linear::Layer;
use super::weight::{self, Weight};
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::graph::{Param, TensorId};
use crate::node::Node;
use delegraph_sdk::image::ValueIndex;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::mm", plain),
    row("aten::bmm", plain),
    row("aten::matmul", plain),
    row("aten::linalg_matmul", plain),
    row("aten::mv", plain),
    row("aten::dot", plain),
    row("aten::vdot", plain),
    row("aten::outer", outer),
    row("aten::ger", outer),
    row("aten::addmm", summed),
    row("aten::baddbmm", summed),
    row("aten::addmv", summed),
];

const fn row(name: &'static str, lower: fn(&Node<'_>, &mut Builder<'_>) -> Result<(), Refusal>) -> Operator {
    Operator { name, lower }
}

/// One `MatMul`, each factor turned over if told so.
pub fn multiply(b: &mut Builder<'_>, factors: [TensorId; 2], turned: [bool; 2], out: TensorId) {
    let params = vec![
        ("transpose_in0", Param::Bool(turned[0])),
        ("transpose_in1", Param::Bool(turned[1])),
    ];
    b.op("MatMul", params, &factors, &[out]);
}

/// A product of two values, ready to be written.
struct Product {
    factors: [TensorId; 2],
    /// Sizes of the result, with those of 1 that vectors have here.
    dims: Vec<u32>,
}

fn product(b: &mut Builder<'_>, x: ValueIndex, y: ValueIndex) -> Result<Product, Refusal> {
    let (mut left, mut right) = (b.dims(x)?, b.dims(y)?);
    let misfit = |left: &[u32], right: &[u32]| Refusal::shape(format!("{left:?} and {right:?} have no product"));
    if left.len() == 1 {
        left.insert(0, 1);
    }
    if right.len() == 1 {
        right.push(1);
    }
    let rank = left.len().max(right.len());
    for dims in [&mut left, &mut right] {
        *dims = images::filled(dims, 1, rank);
    }
    let (m, k, n) = (left[rank - 2], left[rank - 1], right[rank - 1]);
    if right[rank - 2] != k {
        return Err(misfit(&left, &right));
    }
    let mut dims = Vec::with_capacity(rank);
    for (a, c) in left[..rank - 2].iter().zip(&right[..rank - 2]) {
        match (*a, *c) {
            (1, size) | (size, 1) => dims.push(size),
            (a, c) if a == c => dims.push(a),
            _ => return Err(misfit(&left, &right)),
        }
    }
    dims.extend([m, n]);
    let (x, y) = (b.read(x, Layout::RowMajor)?, b.read(y, Layout::RowMajor)?);
    Ok(Product {
        factors: [b.reshaped(x, &left)?, b.reshaped(y, &right)?],
        dims,
    })
}

fn plain(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, y, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    if b.constant(y)?.is_some() && b.image().value(y).rank() == 2 && b.constant(x)?.is_none() {
        let layer = Layer {
            x,
            weight: y,
            bias: None,
            inputs_first: true,
        };
        return layer.lower(node, b);
    }
    images::one_type(b, &[x, out])?;
    images::numbers(b, y)?;
    let product = product(b, x, y)?;
    let [left, id] = product.factors;
    weight::is_fine(b, left, &Weight { id, scales: Vec::new() }, out)?;
    images::output_as(b, out, &product.dims, |b, out| {
        multiply(b, product.factors, [false, false], out);
        Ok(())
    })
}

/// `beta * self + alpha * product`; `self` does not count where `beta` is 0, not even if it is NaN.
fn summed(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (added, x, y, out) = (node.value(0)?, node.value(1)?, node.value(2)?, node.output(0)?);
    let (beta, alpha) = (node.scalar(3)?.float(), node.scalar(4)?.float());
    let columns = b.dims(out)?.last().copied();
    let is_bias = b.logical_dims(added)?.iter().product::<u32>() == columns.unwrap_or(0)
        && b.image().value(added).rank() <= 1
        && beta == 1.0;
    let is_layer = b.image().value(y).rank() == 2 && b.constant(y)?.is_some() && b.constant(x)?.is_none();
    if is_layer && alpha == 1.0 && (is_bias || beta == 0.0) {
        let layer = Layer {
            x,
            weight: y,
            bias: is_bias.then_some(added),
            inputs_first: true,
        };
        return layer.lower(node, b);
    }
    images::floats(b, &[added, x, y, out])?;
    let product = product(b, x, y)?;
    let added = match beta == 0.0 {
        true => None,
        false => Some(b.read(added, Layout::RowMajor)?),
    };
    let written = b.dims(out)?;
    let (data_type, quantization) = b.representation(out)?;
    let mut sum = b.temporary(data_type, &product.dims, quantization.clone());
    multiply(b, product.factors, [false, false], sum);
    sum = b.reshaped(sum, &written)?;
    sum = scaled(b, sum, alpha)?;
    let out = b.write(out, Layout::RowMajor)?;
    match added {
        None => b.op("Reshape", Vec::new(), &[sum], &[out]),
        Some(added) => {
            let added = scaled(b, added, beta)?;
            b.op("ElementWiseAdd", Vec::new(), &[sum, added], &[out]);
        }
    }
    Ok(())
}

/// Times a number, which may be 1.
pub fn scaled(b: &mut Builder<'_>, x: TensorId, factor: f64) -> Result<TensorId, Refusal> {
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = b.number(factor, x)?;
    let out = b.like(x);
    b.op("ElementWiseMultiply", Vec::new(), &[x, factor], &[out]);
    Ok(out)
}

/// The product of a column and a row.
fn outer(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, y, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    images::floats(b, &[x, y, out])?;
    let (rows, columns) = (b.dims(x)?[0], b.dims(y)?[0]);
    let (x, y) = (b.read(x, Layout::RowMajor)?, b.read(y, Layout::RowMajor)?);
    let factors = [b.reshaped(x, &[rows, 1])?, b.reshaped(y, &[1, columns])?];
    let out = b.write(out, Layout::RowMajor)?;
    b.op("ElementWiseMultiply", Vec::new(), &factors, &[out]);
    Ok(())
}
