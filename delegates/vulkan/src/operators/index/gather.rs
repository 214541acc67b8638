//! Operators that read elements by indices.

use super::{Dim, Index, combined, dims_of, front, gather, given, indexes, indexes_by_list};
use crate::caps::Operator;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::{Node, wrap};
use crate::operators::movement::views::{broadcast, row};
use crate::operators::movement::{Axis, View, kind, units, view_of};
use crate::tensor::Layout;
use delegraph_sdk::Error;

type Encode = fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>;

/// The operators that read elements by indices, and triangles.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::embedding",
        accept: |node| indexes(node, 1),
        encode: embedding,
    },
    Operator {
        name: "aten::index_select",
        accept: |node| indexes(node, 2),
        encode: index_select,
    },
    Operator {
        name: "aten::gather",
        accept: |node| indexes(node, 2),
        encode: gather_along,
    },
    Operator {
        name: "aten::take",
        accept: |node| indexes(node, 1),
        encode: take,
    },
    Operator {
        name: "aten::take_along_dim",
        accept: |node| indexes(node, 1),
        encode: take_along,
    },
    by_list("aten::index.Tensor", index),
    by_list("aten::_unsafe_index.Tensor", index),
    row("aten::tril", |node, e| triangle(node, e, true)),
    row("aten::triu", |node, e| triangle(node, e, false)),
];

const fn by_list(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: indexes_by_list,
        encode,
    }
}

fn dim(axis: &Axis) -> Dim {
    Dim {
        size: axis.size,
        source: axis.stride,
        index: 0,
    }
}

/// Rows of a table, in the sizes of the indices.
fn embedding(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (table, indices) = (e.input(node, 0)?, e.input(node, 1)?);
    let [rows, width] = table.dims[..] else {
        return Err(Error::invalid("a table has two dimensions"));
    };
    let index = Index {
        wraps: false,
        extent: rows,
        jump: i64::from(width),
        tensor: indices,
    };
    let mut dims: Vec<Dim> = dims_of(&index.tensor).collect();
    dims.push(Dim {
        size: width,
        source: 1,
        index: 0,
    });
    let out = e.output(node, 0, Layout::RowMajor)?;
    gather(e, (&table, 0), &index, &dims, &out)
}

/// Slices of a dimension, one an index.
fn index_select(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let mut view = view_of(e, node, 0)?;
    let tensor = e.input(node, 2)?;
    if view.axes.is_empty() {
        view.axes.push(Axis { size: 1, stride: 1 });
    }
    let at = node.dim(1, view.axes.len())?;
    let index = Index {
        wraps: false,
        extent: view.axes[at].size,
        jump: view.axes[at].stride,
        tensor,
    };
    let mut dims: Vec<Dim> = view.axes.iter().map(dim).collect();
    dims[at] = Dim {
        size: index.tensor.count(),
        source: 0,
        index: 1,
    };
    let out = e.output(node, 0, Layout::RowMajor)?;
    gather(e, (&view.source, view.start), &index, &dims, &out)
}

/// At each place of the index tensor, the element whose index in one dimension is given, and in the others the place's own.
fn gather_along(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let mut view = view_of(e, node, 0)?;
    let mut tensor = e.input(node, 2)?;
    // A number and a list of one are the same here.
    if view.axes.is_empty() {
        view.axes.push(Axis { size: 1, stride: 1 });
    }
    if tensor.dims.is_empty() {
        tensor = tensor.reshaped(&[1])?;
    }
    let at = node.dim(1, view.axes.len())?;
    if tensor.dims.len() != view.axes.len() && tensor.count() > 0 {
        return Err(Error::invalid("indices have another rank than what they index"));
    }
    let larger = |(d, (axis, size)): (usize, (&Axis, &u32))| d != at && *size > axis.size;
    if tensor.count() > 0 && view.axes.iter().zip(&tensor.dims).enumerate().any(larger) {
        return Err(Error::invalid("there are more indices than elements"));
    }
    let index = Index {
        wraps: false,
        extent: view.axes[at].size,
        jump: view.axes[at].stride,
        tensor,
    };
    let dims = dims_of(&index.tensor).zip(&view.axes).enumerate();
    let dims: Vec<Dim> = dims
        .map(|(d, (dim, axis))| Dim {
            source: if d == at { 0 } else { axis.stride },
            ..dim
        })
        .collect();
    let out = e.output(node, 0, Layout::RowMajor)?;
    if out.count() == 0 {
        return Ok(());
    }
    gather(e, (&view.source, view.start), &index, &dims, &out)
}

/// Elements by their places in the flattened tensor.
fn take(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (source, tensor) = (e.input(node, 0)?, e.input(node, 1)?);
    let index = Index {
        wraps: true,
        extent: source.count(),
        jump: 1,
        tensor,
    };
    let dims: Vec<Dim> = dims_of(&index.tensor).collect();
    let out = e.output(node, 0, Layout::RowMajor)?;
    gather(e, (&source, 0), &index, &dims, &out)
}

/// As `gather`, with sizes that broadcast; without a dimension as `take`.
fn take_along(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let Some(along) = node.optional_scalar(2)? else {
        return take(node, e);
    };
    let (view, tensor) = (view_of(e, node, 0)?, e.input(node, 1)?);
    let out = e.output(node, 0, Layout::RowMajor)?;
    let at = wrap(along.int(), view.axes.len())?;
    let Some(axis) = view.axes.get(at).copied() else {
        return Err(Error::invalid("a number without dimensions has nothing along them"));
    };
    let index = Index {
        wraps: false,
        extent: axis.size,
        jump: axis.stride,
        tensor,
    };
    let mut wide = out.dims.clone();
    if let Some(size) = wide.get_mut(at) {
        *size = axis.size;
    }
    let view = broadcast(view, &wide)?;
    let indices = broadcast(View::of(&index.tensor), &out.dims)?;
    let axes = view.axes.iter().zip(&indices.axes).enumerate();
    let dims: Vec<Dim> = axes
        .map(|(d, (axis, index))| Dim {
            size: index.size,
            source: if d == at { 0 } else { axis.stride },
            index: index.stride as u32,
        })
        .collect();
    gather(e, (&view.source, view.start), &index, &dims, &out)
}

/// The elements that a list of index tensors names, as `x[a, :, b]` does.
fn index(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let view = view_of(e, node, 0)?;
    let given = given(node, e)?;
    if given.last().is_some_and(|(d, _)| *d >= view.axes.len()) {
        return Err(Error::invalid("there are more indices than dimensions"));
    }
    let axes: Vec<(u32, i64)> = view.axes.iter().map(|a| (a.size, a.stride)).collect();
    let out = e.output(node, 0, Layout::RowMajor)?;
    if out.count() == 0 {
        return Ok(());
    }
    let (index, sizes) = combined(e, &given, &axes)?;
    let split = front(&given);
    let rest = |d: &usize| !given.iter().any(|(g, _)| g == d);
    let mut dims: Vec<Dim> = (0..split).filter(rest).map(|d| dim(&view.axes[d])).collect();
    let inner = crate::tensor::strides(&sizes);
    dims.extend(sizes.iter().zip(inner).map(|(size, index)| Dim {
        size: *size,
        source: 0,
        index,
    }));
    dims.extend((split..view.axes.len()).filter(rest).map(|d| dim(&view.axes[d])));
    gather(e, (&view.source, view.start), &index, &dims, &out)
}

/// The lower triangle, or the upper: elements beyond a diagonal become 0.
fn triangle(node: &Node<'_>, e: &mut Encoder<'_>, lower: bool) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let [.., rows, columns] = x.dims[..] else {
        return Err(Error::invalid("a triangle needs a matrix"));
    };
    // Beyond a corner it makes no difference how far.
    let far = i64::from(rows.max(columns));
    let diagonal = node.int(1)?.clamp(-far, far) as i32 as u32;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let (count, kind) = (out.count(), kind(out.dtype));
    if count == 0 {
        return Ok(());
    }
    let params = [count, kind, 0, 0, rows, columns, diagonal, u32::from(lower)];
    let groups = grid(units(count, kind), 64);
    e.dispatch(&kernels::TRIANGLE_WORDS, &[read(&x), write(&out)], &params, groups)
}
