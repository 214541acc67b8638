//! Operators that only move elements.

use crate::caps::Operator;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::Error;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[];

/// The same elements in another layout.
///
/// # Errors
/// The tensor does not fit the layout.
pub fn to_layout(e: &mut Encoder<'_>, tensor: &Tensor, layout: Layout) -> Result<Tensor, Error> {
    let moved = e.make(tensor.dtype, &tensor.dims, layout)?;
    let [_, channels, height, width] = tensor.dims[..] else {
        return Err(Error::internal("only tensors of four dimensions change their layout"));
    };
    if tensor.element() != 4 {
        return Err(Error::internal(format!("a transfer of {}", tensor.dtype)));
    }
    let kernel = match layout {
        Layout::Nhwc4 => &kernels::TRANSFER_TO_NHWC4,
        Layout::RowMajor => &kernels::TRANSFER_TO_NCHW,
    };
    let count = moved.stored();
    let params = [count, channels, channels.next_multiple_of(4), height * width];
    e.dispatch(kernel, &[read(tensor), write(&moved)], &params, grid(count, 64))?;
    Ok(moved)
}
