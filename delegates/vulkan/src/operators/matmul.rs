//! Products of matrices and vectors.

use super::product::{Batch, Product, Side, encode};
use super::strided::{Strided, operand};
use crate::caps::{self, Operator, Refusal};
use crate::encoder::Encoder;
use crate::node::Node;
use crate::tensor::{Layout, Tensor, strides};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::mm", plain),
    row("aten::mm.dtype", plain),
    row("aten::bmm", plain),
    row("aten::bmm.dtype", plain),
    row("aten::matmul", plain),
    row("aten::linalg_matmul", plain),
    row("aten::mv", plain),
    row("aten::dot", plain),
    row("aten::vdot", plain),
    row("aten::outer", |node, e| outer(node, e, 0, None)),
    row("aten::ger", |node, e| outer(node, e, 0, None)),
    row("aten::addmm", |node, e| summed(node, e, 3)),
    row("aten::addmm.dtype", |node, e| summed(node, e, 4)),
    row("aten::baddbmm", |node, e| summed(node, e, 3)),
    row("aten::baddbmm.dtype", |node, e| summed(node, e, 4)),
    row("aten::addmv", |node, e| summed(node, e, 3)),
    row("aten::addr", |node, e| outer(node, e, 1, Some(3))),
];

const fn row(name: &'static str, encode: fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>) -> Operator {
    Operator { name, accept, encode }
}

/// Types that are multiplied; sums are of f32.
pub const FLOATS: &[DType] = &[DType::F32, DType::F16, DType::BF16];

/// Most dimensions: two, and three of batches.
const MAX_RANK: usize = 5;

fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    caps::all_of(node, FLOATS)?;
    let ranks = node.inputs().map(|value| node.image().value(value).rank());
    match ranks.max().is_some_and(|rank| rank > MAX_RANK) {
        true => Err(Refusal::shape(format!(
            "`{}` of more than {MAX_RANK} dimensions",
            node.op()
        ))),
        false => Ok(()),
    }
}

/// A factor: vectors along its last dimension, or its last but one.
fn factor(node: &Node<'_>, e: &mut Encoder<'_>, argument: usize, first: bool) -> Result<Strided, Error> {
    let fits: fn(&[u32]) -> bool = match first {
        true => |steps| steps.last() == Some(&1),
        false => |steps| steps.iter().rev().take(2).any(|step| *step == 1),
    };
    operand(node, e, argument, fits)
}

/// The last two dimensions as a matrix.
fn matrix(factor: &Strided) -> Side {
    let step = |from_end: usize| {
        let at = factor.steps.len().checked_sub(from_end);
        at.map_or(0, |at| factor.steps[at])
    };
    Side {
        tensor: factor.tensor.clone(),
        base: 0,
        row: step(2),
        column: step(1),
    }
}

/// Steps over batches: dimensions that are missing have none.
fn batch_steps(factor: &Strided, inner: usize, batches: usize) -> Vec<u32> {
    let have = factor.dims.len().saturating_sub(inner);
    let mut all = vec![0; batches.saturating_sub(have)];
    all.extend_from_slice(&factor.steps[..have]);
    all
}

/// What is added to a product: a tensor that is broadcast to `[batches.., m, n]`.
pub struct Addend {
    tensor: Tensor,
    beta: f32,
}

/// The product of two factors of one or two dimensions, or of batches, with broadcasting.
fn product(a: &Strided, b: &Strided, addend: Option<&Addend>) -> Result<Product, Error> {
    let misfit = || Error::invalid(format!("sizes {:?} and {:?} have no product", a.dims, b.dims));
    let lone = |dims: &[u32]| dims.len() == 1;
    let (a_inner, b_inner) = (a.dims.len().min(2), b.dims.len().min(2));
    let Some(k) = a.dims.last().copied() else {
        return Err(misfit());
    };
    let k_of_b = match b.dims[..] {
        [k] => k,
        [.., k, _] => k,
        [] => return Err(misfit()),
    };
    if k != k_of_b {
        return Err(misfit());
    }
    let (a_batch, b_batch) = (&a.dims[..a.dims.len() - a_inner], &b.dims[..b.dims.len() - b_inner]);
    let batches = a_batch.len().max(b_batch.len());
    let size_at = |dims: &[u32], i: usize| {
        let missing = batches - dims.len();
        if i < missing { 1 } else { dims[i - missing] }
    };
    let (a_steps, b_steps) = (batch_steps(a, a_inner, batches), batch_steps(b, b_inner, batches));
    let m = if lone(&a.dims) { 1 } else { a.dims[a.dims.len() - 2] };
    let n = if lone(&b.dims) { 1 } else { b.dims[b.dims.len() - 1] };
    let mut b_side = matrix(b);
    if lone(&b.dims) {
        // A column.
        (b_side.row, b_side.column) = (b_side.column, 1);
    }
    let mut a_side = matrix(a);
    if lone(&a.dims) {
        a_side.row = k;
    }
    // The sizes of the result as the addend sees them.
    let mut result: Vec<u32> = (0..batches)
        .map(|i| match (size_at(a_batch, i), size_at(b_batch, i)) {
            (1, size) | (size, 1) => size,
            (size, _) => size,
        })
        .collect();
    for (i, size) in result.iter().enumerate() {
        if [size_at(a_batch, i), size_at(b_batch, i)]
            .iter()
            .any(|have| have != size && *have != 1)
        {
            return Err(Error::invalid("batches of different sizes"));
        }
    }
    let batch_sizes = result.clone();
    if !lone(&a.dims) {
        result.push(m);
    }
    if !lone(&b.dims) {
        result.push(n);
    }
    let mut c_steps = match addend {
        Some(addend) => spread_steps(&addend.tensor.dims, &result)?,
        None => vec![0; result.len()],
    };
    let c_column = if lone(&b.dims) { 0 } else { c_steps.pop().unwrap_or(0) };
    let c_row = if lone(&a.dims) { 0 } else { c_steps.pop().unwrap_or(0) };
    let addend = addend.map(|addend| {
        let side = Side {
            tensor: addend.tensor.clone(),
            base: 0,
            row: c_row,
            column: c_column,
        };
        (side, addend.beta)
    });
    let batch = (0..batches)
        .map(|i| Batch {
            size: batch_sizes[i],
            steps: [a_steps[i], b_steps[i], c_steps.get(i).copied().unwrap_or(0)],
        })
        .collect();
    let mut product = Product {
        m,
        n,
        k,
        batch,
        a: a_side,
        b: b_side,
        alpha: 1.0,
        addend,
    };
    // A matrix times a column is a row times the matrix turned over: its rows are read along k.
    if n == 1 && lone(&b.dims) && product.a.column == 1 {
        product = turned(product);
    }
    Ok(product)
}

/// The same sums, of a product with one column, as those of one with one row.
fn turned(product: Product) -> Product {
    let Product { m, a, b, .. } = product;
    let swap = |side: Side| Side {
        row: side.column,
        column: side.row,
        ..side
    };
    let batch = product.batch.iter().map(|dim| Batch {
        size: dim.size,
        steps: [dim.steps[1], dim.steps[0], dim.steps[2]],
    });
    Product {
        m: 1,
        n: m,
        batch: batch.collect(),
        a: Side {
            row: product.k,
            column: b.row,
            ..b
        },
        b: swap(a),
        addend: product.addend.map(|(c, beta)| (swap(c), beta)),
        ..product
    }
}

/// The steps of a row-major tensor that is broadcast to sizes.
pub fn spread_steps(dims: &[u32], to: &[u32]) -> Result<Vec<u32>, Error> {
    let missing = to.len().checked_sub(dims.len());
    let missing = missing.ok_or_else(|| Error::invalid(format!("{dims:?} does not stretch to {to:?}")))?;
    let mut steps = vec![0; missing];
    for ((step, size), want) in strides(dims).into_iter().zip(dims).zip(&to[missing..]) {
        match (*size, *want) {
            (1, _) => steps.push(0),
            (have, want) if have == want => steps.push(step),
            _ => return Err(Error::invalid(format!("{dims:?} does not stretch to {to:?}"))),
        }
    }
    Ok(steps)
}

fn plain(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (a, b) = (factor(node, e, 0, true)?, factor(node, e, 1, false)?);
    let product = product(&a, &b, None)?;
    let finish = e.finish(node, Layout::RowMajor)?;
    encode(e, product, &finish)
}

/// `beta * self + alpha * product`; `self` does not count where `beta` is 0, not even if it is NaN.
fn summed(node: &Node<'_>, e: &mut Encoder<'_>, scalars: usize) -> Result<(), Error> {
    let addend = addend(node, e, scalars)?;
    let (a, b) = (factor(node, e, 1, true)?, factor(node, e, 2, false)?);
    let mut product = product(&a, &b, addend.as_ref())?;
    product.alpha = node.scalar(scalars + 1)?.float() as f32;
    let finish = e.finish(node, Layout::RowMajor)?;
    encode(e, product, &finish)
}

fn addend(node: &Node<'_>, e: &mut Encoder<'_>, beta: usize) -> Result<Option<Addend>, Error> {
    let beta = node.scalar(beta)?.float() as f32;
    let tensor = e.input(node, 0)?;
    Ok((beta != 0.0).then_some(Addend { tensor, beta }))
}

/// The product of a column and a row.
fn outer(node: &Node<'_>, e: &mut Encoder<'_>, first: usize, scalars: Option<usize>) -> Result<(), Error> {
    let (a, b) = (e.input(node, first)?, e.input(node, first + 1)?);
    let (m, n) = (a.count(), b.count());
    let mut alpha = 1.0;
    let mut added = None;
    if let Some(scalars) = scalars {
        alpha = node.scalar(scalars + 1)?.float() as f32;
        if let Some(addend) = addend(node, e, scalars)? {
            let steps = spread_steps(&addend.tensor.dims, &[m, n])?;
            let side = Side {
                tensor: addend.tensor,
                base: 0,
                row: steps[0],
                column: steps[1],
            };
            added = Some((side, addend.beta));
        }
    }
    let side = |tensor: Tensor, row, column| Side {
        tensor,
        base: 0,
        row,
        column,
    };
    let product = Product {
        m,
        n,
        k: 1,
        batch: Vec::new(),
        a: side(a, 1, 1),
        b: side(b, n, 1),
        alpha,
        addend: added,
    };
    let finish = e.finish(node, Layout::RowMajor)?;
    encode(e, product, &finish)
}
