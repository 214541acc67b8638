//! Images that are read at places which another tensor names.

use crate::caps::{self, Operator, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::operators::reduce::is_float;
use crate::operators::reduce_rows::{code, words};
use crate::tensor::Layout;
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

/// Interpolation and padding are 0, 1 or 2, and the image has two dimensions.
fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    match (caps::dtype(node, 0), caps::dtype(node, 1)) {
        (Some(image), Some(grid)) if is_float(image) && image == grid => {}
        _ => {
            return Err(Refusal::dtype(format!(
                "`{}` of an image and a grid of other types",
                node.op()
            )));
        }
    }
    if caps::rank(node, 0) != Some(4) || caps::rank(node, 1) != Some(4) {
        return Err(Refusal::shape("an image of other than two dimensions"));
    }
    let known = |i: usize| matches!(node.arg(i).int(), Some(0..=2));
    match known(2) && known(3) && node.arg(4).bool().is_some() {
        true => Ok(()),
        false => Err(Refusal::attribute(
            "an interpolation or a padding that is not known here",
        )),
    }
}

fn encode(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (x, places) = (e.input(node, 0)?, e.input(node, 1)?);
    let out = e.output(node, 0, Layout::RowMajor)?;
    let (&[images, channels, height, width], &[grids, rows, columns, 2]) = (&x.dims[..], &places.dims[..]) else {
        return Err(Error::invalid(format!(
            "a grid of {:?} for an image of {:?}",
            places.dims, x.dims
        )));
    };
    if grids != images || height == 0 || width == 0 {
        return Err(Error::invalid(format!(
            "a grid of {:?} for an image of {:?}",
            places.dims, x.dims
        )));
    }
    if out.count() == 0 {
        return Ok(());
    }
    let mut params = vec![out.count(), code(&x)?, channels, height, width, rows * columns];
    params.extend([node.int(2)? as u32, node.int(3)? as u32, u32::from(node.bool(4)?)]);
    let groups = grid(words(out.count(), out.dtype), 64);
    e.dispatch(
        &kernels::GRID_SAMPLER,
        &[read(&x), read(&places), write(&out)],
        &params,
        groups,
    )
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::grid_sampler_2d",
        accept,
        encode,
    },
    Operator {
        name: "aten::grid_sampler",
        accept,
        encode,
    },
];
