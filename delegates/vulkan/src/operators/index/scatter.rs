//! Operators that write elements by indices. The tensor itself stays: each makes a new one.

use super::{Index, combined, front, given, indexes, indexes_by_list};
use crate::caps::{self, Operator, Refusal};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::{Node, Scalar};
use crate::operators::create::bits_of;
use crate::operators::movement::parts::copied;
use crate::operators::movement::views::broadcast;
use crate::operators::movement::{Axis, View, WIDE, kind, strided, view_of, widening};
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
            let meeting = Meeting::named(node.str(4)?);
            let meeting = meeting.ok_or_else(|| Error::internal("a reduction that was not checked"))?;
            scatter(node, e, meeting)
        },
    },
    replaces("aten::index_copy", |node, e| by_index(node, e, Meeting::Replace)),
    replaces("aten::index_fill.int_Scalar", |node, e| {
        by_index(node, e, Meeting::Replace)
    }),
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

fn accept_reduce(node: &NodeView<'_>) -> Result<(), Refusal> {
    indexes(node, 2)?;
    numeric(node)?;
    match (node.arg(4), node.arg(5).bool()) {
        (ArgView::Str(name), Some(true)) if Meeting::named(name).is_some() => Ok(()),
        (ArgView::Str(name), Some(true)) => Err(Refusal::attribute(format!("`reduce` is `{name}`"))),
        _ => Err(Refusal::attribute("`include_self` is not true")),
    }
}

/// How an element meets the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meeting {
    Replace,
    Sum,
    Product,
    Maximum,
    Minimum,
}

impl Meeting {
    fn named(name: &str) -> Option<Meeting> {
        Some(match name {
            "sum" => Meeting::Sum,
            "prod" => Meeting::Product,
            "amax" => Meeting::Maximum,
            "amin" => Meeting::Minimum,
            _ => return None,
        })
    }

    /// The number of `accumulate.wgsl`; `None`: nothing is computed.
    fn number(self) -> Option<u32> {
        match self {
            Meeting::Replace => None,
            Meeting::Sum => Some(0),
            Meeting::Product => Some(1),
            Meeting::Maximum => Some(2),
            Meeting::Minimum => Some(3),
        }
    }
}

/// A dimension that columns differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dim {
    size: u32,
    out: i64,
    source: i64,
    index: u32,
}

/// Elements on their way to places: see `include/columns.wgsl`.
struct Write<'t> {
    /// What is written, and where it begins.
    source: &'t Tensor,
    start: i64,
    index: &'t Index,
    /// Indices of a column, and the strides along it in the index tensor and in the source.
    count: u32,
    index_stride: u32,
    source_stride: i64,
    /// What columns differ in.
    dims: Vec<Dim>,
    meeting: Meeting,
    /// What the elements are multiplied by before they are added.
    factor: Scalar,
}

impl Write<'_> {
    fn to(mut self, e: &mut Encoder<'_>, out: &Tensor) -> Result<(), Error> {
        let columns = checked_count(&self.dims.iter().map(|d| d.size).collect::<Vec<_>>())?;
        if columns == 0 || self.count == 0 || out.count() == 0 {
            return Ok(());
        }
        self.dims = joined(&self.dims);
        let by = match self.meeting {
            Meeting::Replace => widening(kind(out.dtype), |by| self.widens(by)),
            _ => 0,
        };
        let kind = kind(out.dtype) + by;
        if let (Some((last, outer)), true) = (self.dims.split_last_mut(), by > 0) {
            last.size >>= by;
            for dim in outer {
                dim.out >>= by;
                dim.source >>= by;
            }
        }
        let (columns, index) = (columns >> by, self.index);
        let number = self.meeting.number();
        let factor = factor(out.dtype, self.factor)?;
        let mut params = vec![columns, kind, self.count, 0, (self.start >> by) as u32];
        params.extend([
            (index.jump >> by) as u32,
            index.extent,
            index.words(),
            self.index_stride,
        ]);
        params.extend([
            (self.source_stride >> by) as u32,
            code(out.dtype).unwrap_or(0),
            number.unwrap_or(0),
        ]);
        params.extend([factor[0], factor[1], self.dims.len() as u32]);
        for dim in &self.dims {
            params.extend([dim.size, dim.out as u32, dim.source as u32, dim.index]);
        }
        let kernel = match (number, kind) {
            (Some(_), 2..) => &kernels::ACCUMULATE_WORDS,
            (Some(_), _) => &kernels::ACCUMULATE_LANES,
            (None, WIDE) => &kernels::SCATTER_WIDE,
            (None, 2 | 3) => &kernels::SCATTER_WORDS,
            (None, _) => &kernels::SCATTER_LANES,
        };
        let flag = e.flag()?;
        let operands = [read(self.source), read(&index.tensor), write(&flag), write(out)];
        e.dispatch(kernel, &operands, &params, grid(columns, 64))
    }

    fn widens(&self, by: i64) -> bool {
        let whole = |n: i64| n % by == 0;
        let Some((last, outer)) = self.dims.split_last() else {
            return false;
        };
        self.index.extent > 0
            && (last.out, last.source, last.index) == (1, 1, 0)
            && whole(i64::from(last.size))
            && whole(self.start)
            && whole(self.index.jump)
            && whole(self.source_stride)
            && outer.iter().all(|d| whole(d.out) && whole(d.source))
    }
}

/// Dimensions without those of size 1, neighbours joined where they are one.
fn joined(dims: &[Dim]) -> Vec<Dim> {
    let mut kept: Vec<Dim> = Vec::with_capacity(dims.len());
    for dim in dims.iter().filter(|d| d.size != 1) {
        let inner = i64::from(dim.size);
        let joins = |outer: &&mut Dim| {
            outer.out == dim.out * inner
                && outer.source == dim.source * inner
                && i64::from(outer.index) == i64::from(dim.index) * inner
        };
        match kept.last_mut().filter(joins) {
            Some(outer) => {
                *outer = Dim {
                    size: outer.size * dim.size,
                    ..*dim
                }
            }
            None => kept.push(*dim),
        }
    }
    kept
}

/// The bits of a factor, as `accumulate.wgsl` takes them.
fn factor(dtype: DType, factor: Scalar) -> Result<[u32; 2], Error> {
    Ok(match dtype.is_float() {
        true => [(factor.float() as f32).to_bits(), 0],
        false => {
            let bits = bits_of(DType::I64, factor)?;
            [bits as u32, (bits >> 32) as u32]
        }
    })
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
    let (out, axes) = target(node, e)?;
    let at = node.dim(1, axes.len())?;
    let mut sizes: Vec<u32> = axes.iter().map(|a| a.size).collect();
    sizes[at] = tensor.count();
    let src = broadcast(src, &sizes)?;
    let index = Index {
        extent: axes[at].size,
        jump: axes[at].stride,
        tensor,
    };
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
        meeting: meeting_of(node)?,
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

    #[test]
    fn columns_are_joined() {
        let dim = |size, stride, index| Dim {
            size,
            out: stride,
            source: stride,
            index,
        };
        assert_eq!(joined(&[dim(2, 12, 0), dim(1, 5, 0), dim(3, 4, 0)]), [dim(6, 4, 0)]);
        assert_eq!(joined(&[dim(2, 12, 1), dim(3, 4, 0)]).len(), 2);
    }
}
