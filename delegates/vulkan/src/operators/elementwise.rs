//! Operators on each element by itself.

use crate::caps::{self, Operator, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::Layout;
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::add.Tensor",
        accept: accept_add,
        encode: encode_add,
    },
    Operator {
        name: "aten::relu",
        accept: |node| caps::all_of(node, &[DType::F32]),
        encode: encode_relu,
    },
];

fn accept_add(node: &NodeView<'_>) -> Result<(), Refusal> {
    caps::all_of(node, &[DType::F32])?;
    let graph = node.image();
    let dims: Vec<_> = node
        .inputs()
        .chain(node.outputs().iter())
        .map(|v| graph.value(v).const_dims())
        .collect();
    match node.inputs().count() == 2 && dims.iter().all(|d| d.is_some() && *d == dims[0]) {
        true => Ok(()),
        false => Err(Refusal::shape("two tensors of one size only")),
    }
}

fn encode_add(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (a, b) = (e.input(node, 0)?, e.input(node, 1)?);
    let alpha = node.scalar(2)?.float() as f32;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let params = [out.count(), 0, alpha.to_bits()];
    e.dispatch(
        &kernels::BINARY,
        &[read(&a), read(&b), write(&out)],
        &params,
        grid(out.count(), 64),
    )
}

fn encode_relu(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let a = e.input(node, 0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let params = [out.count(), 1];
    e.dispatch(
        &kernels::BINARY,
        &[read(&a), read(&a), write(&out)],
        &params,
        grid(out.count(), 64),
    )
}
