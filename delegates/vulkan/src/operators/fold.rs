//! Windows of images as columns and back.

use crate::caps::{self, Operator, Refusal, rank};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::Layout;
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::im2col",
        accept: |node| accept_fold(node, 3),
        encode: |node, e| fold(node, e, 1),
    },
    Operator {
        name: "aten::col2im",
        accept: |node| accept_fold(node, 2),
        encode: |node, e| fold(node, e, 2),
    },
];

fn accept_fold(node: &NodeView<'_>, least: usize) -> Result<(), Refusal> {
    caps::all_of(node, &[DType::F32, DType::F16, DType::BF16])?;
    match rank(node, 0) {
        Some(rank) if rank == least || rank == least + 1 => Ok(()),
        rank => Err(Refusal::shape(format!("a tensor of rank {}", rank.unwrap_or(0)))),
    }
}

/// Two numbers, of which one may stand for both, none above `i32`.
fn pair(node: &Node<'_>, argument: usize) -> Result<[u32; 2], Error> {
    let list = node.ints(argument)?;
    let small = |n: i64| u32::try_from(n).ok().filter(|n| *n < 1 << 31);
    let both = match list[..] {
        [one] => small(one).map(|n| [n, n]),
        [a, b] => small(a).zip(small(b)).map(|(a, b)| [a, b]),
        _ => None,
    };
    both.ok_or_else(|| Error::invalid(format!("argument {argument} of `{}` is {list:?}", node.op())))
}

/// `kernel` is the argument that the kernel's size is: 1 for images to columns, 2 for columns to an image.
fn fold(node: &Node<'_>, e: &mut Encoder<'_>, kernel: usize) -> Result<(), Error> {
    let to_columns = kernel == 1;
    let x = e.input(node, 0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let (image, columns) = if to_columns { (&x, &out) } else { (&out, &x) };
    let [size, dilation, padding, stride] = [0, 1, 2, 3].map(|i| pair(node, kernel + i));
    let (size, dilation, padding, stride) = (size?, dilation?, padding?, stride?);
    if stride.contains(&0) || dilation.contains(&0) || size.contains(&0) {
        return Err(Error::invalid("kernel, stride and dilation are positive numbers"));
    }
    let [.., height, width] = image.dims[..] else {
        return Err(Error::invalid("an image has two dimensions at least"));
    };
    let along = |d: usize, input: u32| {
        let reach = u64::from(dilation[d]) * u64::from(size[d] - 1) + 1;
        let room = (u64::from(input) + 2 * u64::from(padding[d])).checked_sub(reach);
        let windows = room.map(|room| room / u64::from(stride[d]) + 1);
        windows
            .and_then(|w| u32::try_from(w).ok())
            .ok_or_else(|| Error::invalid("the kernel does not fit the image"))
    };
    let (down, across) = (along(0, height)?, along(1, width)?);
    // Rows of columns: a channel and an element of the kernel each.
    let expected = u64::from(image.count()) / (u64::from(height) * u64::from(width)).max(1)
        * (u64::from(size[0]) * u64::from(size[1]) * u64::from(down) * u64::from(across));
    if u64::from(columns.count()) != expected {
        return Err(Error::invalid(format!(
            "{:?} are not the columns of {:?}",
            columns.dims, image.dims
        )));
    }
    let words = (u64::from(out.count()) * u64::from(out.element())).div_ceil(4) as u32;
    let code = code(x.dtype).ok_or_else(|| Error::internal(format!("columns of {}", x.dtype)))?;
    let mut params = vec![words, out.count(), code, height, width, down, across, size[0], size[1]];
    for d in 0..2 {
        params.extend([stride[d], padding[d], dilation[d]]);
    }
    let kernel = match to_columns {
        true => &kernels::FOLD_IM2COL,
        false => &kernels::FOLD_COL2IM,
    };
    e.dispatch(kernel, &[read(&x), write(&out)], &params, grid(words, 64))
}
