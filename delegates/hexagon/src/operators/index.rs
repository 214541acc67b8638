//! Elements by indices. An index beyond its dimension ends the run with an error.

use super::common::{Elements, Steps, elements, moved, number_in, same};
use crate::builder::{Builder, Layout, axis};
use crate::caps::{Operator, Refusal};
use crate::graph::{DataType, Param, Quantization, TensorId};
use crate::node::Node;
use delegraph_sdk::image::ValueIndex;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::embedding",
        lower: |n, b| rows(n, b, n.value(0)?, 0, n.value(1)?, false),
    },
    Operator {
        name: "aten::index_select",
        lower: |n, b| {
            let x = n.value(0)?;
            let rank = b.image().value(x).rank();
            rows(n, b, x, n.dim(1, rank)?, n.value(2)?, false)
        },
    },
    Operator {
        name: "aten::index.Tensor",
        lower: one_index,
    },
    Operator {
        name: "aten::gather",
        lower: |n, b| elements_at(n, b, n.value(2)?, 1),
    },
    Operator {
        name: "aten::take_along_dim",
        lower: |n, b| elements_at(n, b, n.value(1)?, 2),
    },
    Operator {
        name: "aten::scatter.src",
        lower: |n, b| scattered(n, b, 0),
    },
    Operator {
        name: "aten::scatter.value",
        lower: |n, b| scattered(n, b, 0),
    },
    Operator {
        name: "aten::index_copy",
        lower: |n, b| {
            let dim = n.dim(1, b.image().value(n.value(0)?).rank())?;
            rows_put(n, b, dim, n.value(2)?, n.value(3)?)
        },
    },
    Operator {
        name: "aten::index_put",
        lower: |n, b| {
            let indices = n.optional_values(1)?;
            let [Some(index)] = indices[..] else {
                return Err(Refusal::attribute("more than one index"));
            };
            if n.bool(3)? {
                return Err(Refusal::attribute("sums at equal indices"));
            }
            rows_put(n, b, 0, index, n.value(2)?)
        },
    },
    Operator {
        name: "aten::one_hot",
        lower: one_hot,
    },
];

/// Indices as `INT_32`; `wrap`: negative ones count from the end of `size`.
fn indices(b: &mut Builder<'_>, index: ValueIndex, wrap: Option<u32>) -> Result<TensorId, Refusal> {
    if !matches!(elements(b, index)?, Elements::Int | Elements::Index) {
        return Err(Refusal::dtype("indices that are no integers"));
    }
    let read = b.read(index, Layout::RowMajor)?;
    let Some(size) = wrap else {
        return Ok(read);
    };
    if let Some(constant) = b.constant(index)? {
        // Constants are turned here.
        let numbers = b.numbers(&constant)?;
        let size = f64::from(size);
        let whole = |n: &f64| if *n < 0.0 { n + size } else { *n } as i32;
        if constant.known && numbers.iter().any(|n| *n < -size || *n >= size) {
            return Err(Refusal::attribute("a constant index beyond its dimension"));
        }
        let bytes = numbers.iter().flat_map(|n| whole(n).to_le_bytes()).collect();
        let dims = b.tensor(read).dims.clone();
        return Ok(b.fixed(DataType::Int32, &dims, Quantization::None, bytes));
    }
    let below = b.truth_with("ElementWiseLess", read, 0.0)?;
    let size = number_in(b, f64::from(size), read)?;
    let turned = b.binary("ElementWiseAdd", read, size);
    Ok(b.choose(below, turned, read))
}

/// Slices of a dimension by an index of any number of dimensions.
fn rows(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    table: ValueIndex,
    dim: usize,
    index: ValueIndex,
    wrap: bool,
) -> Result<(), Refusal> {
    let out = node.output(0)?;
    let dims = b.logical_dims(table)?;
    let size = *dims.get(dim).ok_or_else(|| Refusal::shape("no dimensions"))?;
    let index_rank = b.image().value(index).rank();
    // One index of one dimension leaves the others as they lie.
    let layout = match index_rank {
        1 => b.layout_of(table),
        _ => Layout::RowMajor,
    };
    let table = b.read(table, layout)?;
    let index = indices(b, index, wrap.then_some(size))?;
    let at = axis(dim, dims.len(), layout);
    moved(b, &[table], out, layout, |b, table, written| {
        let params = vec![("axis", Param::I32(at as i32))];
        if index_rank == 0 {
            // A single index is one of one dimension to the library.
            let mut tensor = b.tensor(table[0]).clone();
            tensor.dims[at as usize] = 1;
            let row = b.temporary(tensor.data_type, &tensor.dims, tensor.quantization);
            b.op("Gather", params, &[table[0], index], &[row]);
            b.op("Reshape", Vec::new(), &[row], &[written]);
            return Ok(());
        }
        b.op("Gather", params, &[table[0], index], &[written]);
        Ok(())
    })
}

/// One index, of any dimension.
fn one_index(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let all = node.optional_values(1)?;
    let mut given = all
        .iter()
        .enumerate()
        .filter_map(|(dim, index)| index.map(|index| (dim, index)));
    match (given.next(), given.next()) {
        (Some((dim, index)), None) => rows(node, b, node.value(0)?, dim, index, true),
        _ => Err(Refusal::attribute("more than one index")),
    }
}

/// An element for each index along a dimension.
fn elements_at(node: &Node<'_>, b: &mut Builder<'_>, index: ValueIndex, dim: usize) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let (dims, places) = (b.logical_dims(x)?, b.logical_dims(index)?);
    if dims.is_empty() || dims.len() != places.len() || node.is_none(dim) {
        return Err(Refusal::shape("indices of another rank"));
    }
    let dim = node.dim(dim, dims.len())?;
    let others = (0..dims.len()).filter(|d| *d != dim);
    if node.op() == "aten::take_along_dim" && others.clone().any(|d| dims[d] != places[d]) {
        return Err(Refusal::shape("indices that are broadcast"));
    }
    let read = b.read(x, Layout::RowMajor)?;
    let index = indices(b, index, None)?;
    moved(b, &[read], out, Layout::RowMajor, |b, read, written| {
        let params = vec![("axis", Param::U32(dim as u32))];
        b.op("GatherElements", params, &[read[0], index], &[written]);
        Ok(())
    })
}

/// Elements put to places along a dimension. Which of two at one place stays is nobody's promise, in PyTorch as here.
fn scattered(node: &Node<'_>, b: &mut Builder<'_>, reduction: u32) -> Result<(), Refusal> {
    let (x, index, out) = (node.value(0)?, node.value(2)?, node.output(0)?);
    let rank = b.image().value(x).rank();
    let places = b.logical_dims(index)?;
    if rank == 0 || places.len() != rank {
        return Err(Refusal::shape("indices of another rank"));
    }
    let kind = elements(b, x)?;
    if kind == Elements::Bool {
        return Err(Refusal::dtype("booleans"));
    }
    let dim = node.dim(1, rank)?;
    let read = b.read(x, Layout::RowMajor)?;
    let source = match node.view().arg(3).value() {
        Some(source) => {
            if elements(b, source)? != kind {
                return Err(Refusal::dtype("elements of another type"));
            }
            if b.logical_dims(source)? != places {
                return Err(Refusal::shape("more elements than indices"));
            }
            b.read(source, Layout::RowMajor)?
        }
        None => {
            let one = number_in(b, node.scalar(3)?.float(), read)?;
            filled(b, one, &places)?
        }
    };
    let index = indices(b, index, None)?;
    moved(b, &[read, source], out, Layout::RowMajor, |b, pair, written| {
        let params = vec![("axis", Param::U32(dim as u32)), ("reduction", Param::U32(reduction))];
        b.op("ScatterElements", params, &[pair[0], index, pair[1]], &[written]);
        Ok(())
    })
}

/// A constant of one number.
pub fn filled(b: &mut Builder<'_>, one: TensorId, dims: &[u32]) -> Result<TensorId, Refusal> {
    let tensor = b.tensor(one).clone();
    let crate::graph::TensorKind::Static(element) = tensor.kind else {
        return Err(Refusal::attribute("no constant"));
    };
    let count = dims.iter().map(|d| *d as usize).product();
    Ok(b.fixed(tensor.data_type, dims, tensor.quantization, element.repeat(count)))
}

/// Slices of a dimension replaced by others, by an index of one dimension without negative numbers.
fn rows_put(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    dim: usize,
    index: ValueIndex,
    source: ValueIndex,
) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let kind = elements(b, x)?;
    if kind == Elements::Bool || elements(b, source)? != kind {
        return Err(Refusal::dtype("booleans, or elements of another type"));
    }
    let (mut dims, places) = (b.dims(x)?, b.logical_dims(index)?);
    let [count] = places[..] else {
        return Err(Refusal::shape("indices of more than one dimension"));
    };
    let size = dims[dim];
    dims[dim] = count;
    if b.dims(source)? != dims {
        return Err(Refusal::shape("elements that are broadcast"));
    }
    let order = front(dims.len(), dim);
    let read = b.read(x, Layout::RowMajor)?;
    let read = b.transposed(read, &order);
    let source = b.read(source, Layout::RowMajor)?;
    let source = b.transposed(source, &order);
    let index = indices(b, index, Some(size))?;
    let index = b.reshaped(index, &[count, 1])?;
    let result = b.like(read);
    let params = vec![("reduction", Param::U32(0))];
    b.op("ScatterNd", params, &[read, index, source], &[result]);
    // The order is its own inverse: two dimensions change places.
    let result = b.transposed(result, &order);
    same(b, result, out, Layout::RowMajor)
}

/// The order that swaps a dimension with the first one.
fn front(rank: usize, dim: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rank as u32).collect();
    order.swap(0, dim);
    order
}

fn one_hot(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let depth = node.int(1)?;
    let rank = b.image().value(x).rank();
    if depth <= 0 || rank == 0 {
        return Err(Refusal::attribute("a depth that depends on the numbers"));
    }
    let index = indices(b, x, None)?;
    let written = b.write(out, Layout::RowMajor)?;
    let params = vec![("depth", Param::U32(depth as u32)), ("axis", Param::U32(rank as u32))];
    b.op("OneHot", params, &[index], &[written]);
    Ok(())
}
