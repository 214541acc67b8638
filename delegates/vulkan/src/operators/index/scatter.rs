//! Operators that write elements by indices. The tensor itself stays: each makes a new one.

use super::write::{Dim, Meeting, Write};
use super::{Index, combined, front, given, indexes, indexes_by_list, rows};
use crate::caps::{self, Operator, Refusal};
use crate::codes::code;
use crate::encoder::Encoder;
use crate::node::{Node, Scalar};
use crate::operators::create::{bits_of, filled};
use crate::operators::movement::parts::copied;
use crate::operators::movement::views::broadcast;
use crate::operators::movement::{Axis, View, strided, view_of};
use crate::tensor::{Layout, Tensor, checked_count, strides};
use delegraph_sdk::image::{ArgView, NodeView};
use delegraph_sdk::{DType, Error};

type Encode = fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>;

/// The operators that write elements by indices.
pub const OPERATORS: &[Operator] = &[
    replaces("aten::scatter.src", |node, e| scatter(node, e, Meeting::Replace)),
    replaces("aten::scatter.value", |node, e| scatter(node, e, Meeting::Replace)),
    accumulates("aten::scatter_add", |node, e| scatter(node, e, Meeting::Sum)),
    Operator {
        name: "aten::scatter_reduce.two",
        accept: accept_reduce,
        encode: |node, e| {
            let meeting = Meeting::of(node)?;
            scatter(node, e, meeting)
        },
    },
    replaces("aten::index_copy", |node, e| by_index(node, e, Meeting::Replace)),
    replaces("aten::index_fill.int_Scalar", |node, e| {
        by_index(node, e, Meeting::Replace)
    }),
    replaces("aten::index_fill.int_Tensor", |node, e| {
        by_index(node, e, Meeting::Replace)
    }),
    Operator {
        name: "aten::scatter.reduce",
        accept: accept_named,
        encode: |node, e| scatter(node, e, Meeting::of(node)?),
    },
    Operator {
        name: "aten::scatter.value_reduce",
        accept: accept_named,
        encode: |node, e| scatter(node, e, Meeting::of(node)?),
    },
    Operator {
        name: "aten::one_hot",
        accept: |node| indexes(node, 0),
        encode: one_hot,
    },
    accumulates("aten::index_add", |node, e| by_index(node, e, Meeting::Sum)),
    by_list("aten::index_put", index_put),
    by_list("aten::_index_put_impl", index_put),
    by_list("aten::_unsafe_index_put", index_put),
    Operator {
        name: "aten::put",
        accept: |node| {
            indexes(node, 1)?;
            may_accumulate(node, 3)
        },
        encode: put_flat,
    },
];

const fn replaces(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: |node| indexes(node, 2),
        encode,
    }
}

const fn accumulates(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: |node| {
            indexes(node, 2)?;
            numeric(node)
        },
        encode,
    }
}

const fn by_list(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: |node| {
            indexes_by_list(node)?;
            may_accumulate(node, 3)
        },
        encode,
    }
}

/// Types that kernels compute with.
fn numeric(node: &NodeView<'_>) -> Result<(), Refusal> {
    match caps::output_dtype(node) {
        Some(dtype) if code(dtype).is_some() => Ok(()),
        _ => Err(Refusal::dtype(format!("`{}` is not computed in this type", node.op()))),
    }
}

/// Whether elements are added is known, and where they are, it is in a type of numbers.
fn may_accumulate(node: &NodeView<'_>, argument: usize) -> Result<(), Refusal> {
    match node.arg(argument) {
        ArgView::Bool(false) => Ok(()),
        _ => numeric(node),
    }
}

fn accept_named(node: &NodeView<'_>) -> Result<(), Refusal> {
    indexes(node, 2)?;
    numeric(node)?;
    match node.arg(4) {
        ArgView::Str(name) if Meeting::named(name).is_some() => Ok(()),
        other => Err(Refusal::attribute(format!("`reduce` is `{other:?}`"))),
    }
}

fn accept_reduce(node: &NodeView<'_>) -> Result<(), Refusal> {
    indexes(node, 2)?;
    numeric(node)?;
    match (node.arg(4), node.arg(5).bool()) {
        (ArgView::Str(name), Some(true)) if Meeting::named(name).is_some() => Ok(()),
        (ArgView::Str(name), Some(true)) => Err(Refusal::attribute(format!("`reduce` is `{name}`"))),
        _ => Err(Refusal::attribute("`include_self` is not true")),
    }
}

/// What is written: a tensor, or a number that stands everywhere (then it has no dimensions).
fn written(node: &Node<'_>, e: &mut Encoder<'_>, argument: usize, dtype: DType) -> Result<View, Error> {
    let source = match node.view().arg(argument) {
        ArgView::Value(_) => e.input(node, argument)?,
        _ => {
            let bits = bits_of(dtype, node.scalar(argument)?)?.to_le_bytes();
            let size = dtype.size().unwrap_or(8).min(8);
            e.bytes(dtype, &[], bits[..size].to_vec())?
        }
    };
    match source.dtype == dtype {
        true => Ok(View::of(&source)),
        false => Err(Error::invalid(format!("elements of {} into {dtype}", source.dtype))),
    }
}

/// The tensor at argument 0 that is written to, with one dimension at least.
fn target(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(Tensor, Vec<Axis>), Error> {
    let out = copied(node, e)?;
    let mut axes = View::of(&out).axes;
    if axes.is_empty() {
        axes.push(Axis { size: 1, stride: 1 });
    }
    Ok((out, axes))
}

/// Each element of the index tensor says where one element goes along a dimension.
fn scatter(node: &Node<'_>, e: &mut Encoder<'_>, meeting: Meeting) -> Result<(), Error> {
    let dtype = e.dtype(node.output(0)?)?;
    let mut src = written(node, e, 3, dtype)?;
    let mut tensor = e.input(node, 2)?;
    let (out, axes) = target(node, e)?;
    let at = node.dim(1, axes.len())?;
    if tensor.count() == 0 {
        return Ok(());
    }
    if tensor.dims.is_empty() {
        tensor = tensor.reshaped(&[1])?;
    }
    if src.axes.is_empty() {
        src.axes = tensor.dims.iter().map(|size| Axis { size: *size, stride: 0 }).collect();
    }
    if tensor.dims.len() != axes.len() || src.axes.len() != axes.len() {
        return Err(Error::invalid("indices have another rank than what they index"));
    }
    for (d, size) in tensor.dims.iter().enumerate() {
        if *size > src.axes[d].size || (d != at && *size > axes[d].size) {
            return Err(Error::invalid("there are more indices than elements"));
        }
    }
    let index = Index {
        wraps: false,
        extent: axes[at].size,
        jump: axes[at].stride,
        tensor,
    };
    let own = strides(&index.tensor.dims);
    let others = (0..axes.len()).filter(|d| *d != at);
    let dims = others.map(|d| Dim {
        size: index.tensor.dims[d],
        out: axes[d].stride,
        source: src.axes[d].stride,
        index: own[d],
    });
    let dims = dims.collect();
    Write {
        source: &src.source,
        start: src.start,
        index: &index,
        count: index.tensor.dims[at],
        index_stride: own[at],
        source_stride: src.axes[at].stride,
        dims,
        meeting,
        factor: Scalar::Int(1),
    }
    .to(e, &out)
}

/// `index_copy`, `index_add`, `index_fill`: slices of a dimension meet those of a source, or a number.
fn by_index(node: &Node<'_>, e: &mut Encoder<'_>, meeting: Meeting) -> Result<(), Error> {
    let dtype = e.dtype(node.output(0)?)?;
    let src = written(node, e, 3, dtype)?;
    let tensor = e.input(node, 2)?;
    let mut sizes = e.dims(node.value(0)?)?;
    if sizes.is_empty() {
        sizes.push(1);
    }
    let at = node.dim(1, sizes.len())?;
    let index = Index {
        wraps: node.op().starts_with("aten::index_fill"),
        extent: sizes[at],
        jump: i64::from(strides(&sizes)[at]),
        tensor,
    };
    sizes[at] = index.tensor.count();
    let src = broadcast(src, &sizes)?;
    if meeting == Meeting::Replace && rows::replace(node, e, &index, &src, (at, 1))? {
        return Ok(());
    }
    let (out, axes) = target(node, e)?;
    let others = (0..axes.len()).filter(|d| *d != at);
    let dims = others.map(|d| Dim {
        size: axes[d].size,
        out: axes[d].stride,
        source: src.axes[d].stride,
        index: 0,
    });
    let dims = dims.collect();
    let factor = match meeting {
        Meeting::Sum => node.scalar(4)?,
        _ => Scalar::Int(1),
    };
    Write {
        source: &src.source,
        start: src.start,
        index: &index,
        count: sizes[at],
        index_stride: 1,
        source_stride: src.axes[at].stride,
        dims,
        meeting,
        factor,
    }
    .to(e, &out)
}

fn meeting_of(node: &Node<'_>) -> Result<Meeting, Error> {
    Ok(match node.bool(3)? {
        true => Meeting::Sum,
        false => Meeting::Replace,
    })
}

/// Elements to the places that a list of index tensors names, as `x[a, :, b] = values` does.
fn index_put(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let values = view_of(e, node, 2)?;
    let given = given(node, e)?;
    if values.source.dtype != e.dtype(node.output(0)?)? {
        return Err(Error::invalid(format!("values of {} are put", values.source.dtype)));
    }
    let meeting = meeting_of(node)?;
    if let ([(at, tensor)], Meeting::Replace) = (&given[..], meeting) {
        let dims = e.dims(node.value(0)?)?;
        if let (Some(extent), Some(jump)) = (dims.get(*at), strides(&dims).get(*at)) {
            let index = Index {
                wraps: true,
                extent: *extent,
                jump: i64::from(*jump),
                tensor: tensor.clone(),
            };
            let shape = [&dims[..*at], &tensor.dims, &dims[*at + 1..]].concat();
            let slices = broadcast(values.clone(), &shape)?;
            if rows::replace(node, e, &index, &slices, (*at, tensor.dims.len()))? {
                return Ok(());
            }
        }
    }
    let (out, axes) = target(node, e)?;
    if given.last().is_some_and(|(d, _)| *d >= axes.len()) {
        return Err(Error::invalid("there are more indices than dimensions"));
    }
    if out.count() == 0 {
        return Ok(());
    }
    let pairs: Vec<(u32, i64)> = axes.iter().map(|a| (a.size, a.stride)).collect();
    let (index, sizes) = combined(e, &given, &pairs)?;
    let split = front(&given);
    let rest = |d: &usize| !given.iter().any(|(g, _)| g == d);
    let before: Vec<usize> = (0..split).filter(rest).collect();
    let after: Vec<usize> = (split..axes.len()).filter(rest).collect();
    let size_of = |dims: &[usize]| dims.iter().map(|d| axes[*d].size).collect::<Vec<u32>>();
    let shape = [size_of(&before), sizes.clone(), size_of(&after)].concat();
    let mut values = broadcast(values, &shape)?;
    let inner = before.len()..before.len() + sizes.len();
    let mut source_stride = along(&values.axes[inner.clone()]);
    if source_stride.is_none() {
        // Not one stride along the indices: the values are made contiguous.
        let made = e.make(out.dtype, &shape, Layout::RowMajor)?;
        strided(e, &values, &made)?;
        values = View::of(&made);
        source_stride = along(&values.axes[inner.clone()]);
    }
    let others = before.iter().enumerate();
    let others = others.chain(after.iter().enumerate().map(|(i, d)| (inner.end + i, d)));
    let dims = others.map(|(place, d)| Dim {
        size: axes[*d].size,
        out: axes[*d].stride,
        source: values.axes[place].stride,
        index: 0,
    });
    let dims = dims.collect();
    Write {
        source: &values.source,
        start: values.start,
        index: &index,
        count: checked_count(&sizes)?,
        index_stride: 1,
        source_stride: source_stride.unwrap_or(0),
        dims,
        meeting,
        factor: Scalar::Int(1),
    }
    .to(e, &out)
}

/// The one stride that some dimensions together have; `None` if they have several.
fn along(axes: &[Axis]) -> Option<i64> {
    let mut inner: Option<Axis> = None;
    for axis in axes.iter().rev().filter(|a| a.size != 1) {
        inner = Some(match inner {
            None => *axis,
            Some(inner) if axis.stride == inner.stride * i64::from(inner.size) => Axis {
                size: inner.size * axis.size,
                stride: inner.stride,
            },
            Some(_) => return None,
        });
    }
    Some(inner.map_or(0, |a| a.stride))
}

/// Elements to places in the flattened tensor.
fn put_flat(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (tensor, source) = (e.input(node, 1)?, e.input(node, 2)?);
    let out = copied(node, e)?;
    if tensor.count() != source.count() {
        return Err(Error::invalid("there are other indices than elements"));
    }
    let index = Index {
        wraps: true,
        extent: out.count(),
        jump: 1,
        tensor,
    };
    Write {
        source: &source,
        start: 0,
        index: &index,
        count: source.count(),
        index_stride: 1,
        source_stride: 1,
        dims: Vec::new(),
        meeting: meeting_of(node)?,
        factor: Scalar::Int(1),
    }
    .to(e, &out)
}

/// A 1 at the place that each class index names, zeros elsewhere.
fn one_hot(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let tensor = e.input(node, 0)?;
    let out = filled(node, e, Scalar::Int(0))?;
    let one = bits_of(out.dtype, Scalar::Int(1))?.to_le_bytes();
    let source = e.bytes(out.dtype, &[], one[..out.element() as usize].to_vec())?;
    let classes = out.dims.last().copied().unwrap_or(0);
    if classes == 0 && tensor.count() > 0 {
        return Err(Error::invalid("an index into no classes"));
    }
    let dims = vec![Dim {
        size: tensor.count(),
        out: i64::from(classes),
        source: 0,
        index: 1,
    }];
    let index = Index {
        wraps: false,
        extent: classes,
        jump: 1,
        tensor,
    };
    Write {
        source: &source,
        start: 0,
        index: &index,
        count: 1,
        index_stride: 0,
        source_stride: 0,
        dims,
        meeting: Meeting::Replace,
        factor: Scalar::Int(1),
    }
    .to(e, &out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_with_one_stride() {
        let axis = |size, stride| Axis { size, stride };
        assert_eq!(along(&[axis(2, 12), axis(1, 7), axis(3, 4)]), Some(4));
        assert_eq!(along(&[axis(2, 0), axis(3, 0)]), Some(0));
        assert_eq!(along(&[axis(2, 0), axis(3, 1)]), None);
        assert_eq!(along(&[]), Some(0));
    }
}
