//! Tensors one after another.

use super::parts::put;
use super::{View, WIDE, as_it_lies, kind, moves, units, widening};
use crate::caps::{Operator, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::{Node, wrap};
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

/// The operators that join tensors.
pub const OPERATORS: &[Operator] = &[
    joins("aten::cat", cat),
    joins("aten::concat", cat),
    joins("aten::concatenate", cat),
    joins("aten::stack", stack),
    joins("aten::hstack", |node, e| {
        stack_along(node, e, 1, |rank| usize::from(rank > 1))
    }),
    joins("aten::vstack", |node, e| stack_along(node, e, 2, |_| 0)),
    joins("aten::row_stack", |node, e| stack_along(node, e, 2, |_| 0)),
    joins("aten::column_stack", columns),
    joins("aten::dstack", columns),
];

const fn joins(name: &'static str, encode: fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>) -> Operator {
    Operator { name, accept, encode }
}

fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    moves(node)?;
    match node.inputs().next() {
        Some(_) => Ok(()),
        None => Err(Refusal::attribute("there is nothing to join")),
    }
}

/// How many tensors the kernel joins at once.
const AT_ONCE: usize = 4;

/// A tensor's place in the rows of the output. Rows are what lies from one index of the dimensions before the joined one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Its first element in a row of the output, and the one after its last.
    begin: u32,
    end: u32,
    /// Elements of a row of its own.
    row: u32,
}

fn cat(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let mut values = node.values(0)?;
    let out = e.dims(node.output(0)?)?;
    let at = wrap(node.int(1)?, out.len())?;
    // PyTorch passes over an empty list among tensors of more dimensions.
    let mut all = Vec::with_capacity(values.len());
    for value in values.drain(..) {
        if e.dims(value)? != [0] || out.len() == 1 {
            all.push(value);
        }
    }
    let layout = e.home(node.output(0)?).unwrap_or(Layout::RowMajor);
    if let [one] = all[..] {
        let tensor = as_it_lies(e, one)?;
        e.set(node.output(0)?, tensor);
        return Ok(());
    }
    let tensors: Vec<Tensor> = all.iter().map(|v| e.tensor(*v, layout)).collect::<Result<_, _>>()?;
    let out = e.output(node, 0, layout)?;
    join(e, &tensors, at, &out)
}

fn stack(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let values = node.values(0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let at = wrap(node.int(1)?, out.dims.len())?;
    let mut tensors = Vec::with_capacity(values.len());
    for value in values {
        let tensor = e.tensor(value, Layout::RowMajor)?;
        let mut dims = tensor.dims.clone();
        if at > dims.len() {
            return Err(Error::invalid("tensors of different ranks do not stack"));
        }
        dims.insert(at, 1);
        tensors.push(tensor.reshaped(&dims)?);
    }
    join(e, &tensors, at, &out)
}

/// `column_stack` and `dstack`: vectors become columns, or matrices layers, and are joined along the last dimension of these.
fn columns(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let at = if node.op() == "aten::dstack" { 2 } else { 1 };
    let mut tensors = Vec::new();
    for value in node.values(0)? {
        let tensor = e.tensor(value, Layout::RowMajor)?;
        let mut dims = tensor.dims.clone();
        while dims.len() < at {
            // A vector lies along the dimension before the last.
            dims.insert(0, 1);
        }
        if dims.len() == at {
            dims.push(1);
        }
        if at == 1 && tensor.dims.is_empty() {
            dims = vec![1, 1];
        }
        tensors.push(tensor.reshaped(&dims)?);
    }
    let out = e.output(node, 0, Layout::RowMajor)?;
    join(e, &tensors, at, &out)
}

/// `hstack` and `vstack`: dimensions are added at the front first.
fn stack_along(node: &Node<'_>, e: &mut Encoder<'_>, rank: usize, at: fn(usize) -> usize) -> Result<(), Error> {
    let mut tensors = Vec::new();
    for value in node.values(0)? {
        let tensor = e.tensor(value, Layout::RowMajor)?;
        let mut dims = tensor.dims.clone();
        while dims.len() < rank {
            dims.insert(0, 1);
        }
        tensors.push(tensor.reshaped(&dims)?);
    }
    let out = e.output(node, 0, Layout::RowMajor)?;
    join(e, &tensors, at(out.dims.len()), &out)
}

/// Sizes in the order of memory, the padding of channels included; and where a dimension of the tensor is among them.
fn in_memory(tensor: &Tensor, at: usize) -> (Vec<u32>, usize) {
    match (tensor.layout, tensor.dims.as_slice()) {
        (Layout::Nhwc4, [n, c, h, w]) => (
            vec![*n, *h, *w, c.next_multiple_of(4)],
            [0, 3, 1, 2].get(at).copied().unwrap_or(3),
        ),
        _ => (tensor.dims.clone(), at),
    }
}

/// As [`join`], one tensor after another, each in boxes that the device binds.
fn join_large(e: &mut Encoder<'_>, tensors: &[Tensor], at: usize, out: &Tensor) -> Result<(), Error> {
    if out.stored() != out.count() {
        e.clear(out)?;
    }
    let mut begin = 0;
    for tensor in tensors {
        let len = tensor.dims.get(at).copied().unwrap_or(1);
        put(e, &View::of(tensor), &View::of(out).sliced(at, begin, len, 1))?;
        begin += i64::from(len);
    }
    match out.dims.get(at).map(|size| i64::from(*size)) == Some(begin) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{begin} elements do not make up {:?}",
            out.dims
        ))),
    }
}

/// Writes tensors of one layout to `out`, one after another along a dimension.
fn join(e: &mut Encoder<'_>, tensors: &[Tensor], at: usize, out: &Tensor) -> Result<(), Error> {
    let range = e.facts().limits.storage_range;
    let largest = tensors.iter().map(Tensor::bytes).max().unwrap_or(0).max(out.bytes());
    if largest.next_multiple_of(16) > range {
        return join_large(e, tensors, at, out);
    }
    let (sizes, place) = in_memory(out, at);
    let inner: u32 = sizes.iter().skip(place + 1).product();
    let mut begin = 0;
    let mut pieces: Vec<(Tensor, Piece)> = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let fits = tensor.dims.len() == out.dims.len()
            && (0..out.dims.len()).all(|d| d == at || tensor.dims[d] == out.dims[d]);
        if !fits {
            let (have, want) = (&tensor.dims, &out.dims);
            return Err(Error::invalid(format!("sizes {have:?} do not join {want:?}")));
        }
        let (own, _) = in_memory(tensor, at);
        let end = begin + tensor.dims[at] * inner;
        let row = own[place] * inner;
        if begin < end {
            pieces.push((tensor.clone(), Piece { begin, end, row }));
        }
        begin = end;
    }
    if out.dims.get(at).map(|size| size * inner) != Some(begin) {
        return Err(Error::invalid("tensors do not make up what they are joined to"));
    }
    let row = sizes[place] * inner;
    if out.count() == 0 {
        return Ok(());
    }
    // The padding of the last tensor becomes that of the output, where it lies in the same place.
    if let Some((_, last)) = pieces.last_mut()
        && last.begin + last.row == row
    {
        last.end = row;
    }
    let filled = pieces.last().map_or(0, |(_, last)| last.end);
    let numbers = |(_, p): &(Tensor, Piece)| [p.begin, p.end, p.row];
    let by = widening(kind(out.dtype), |by| {
        let all = pieces.iter().flat_map(numbers).chain([row, filled]);
        all.into_iter().all(|n| i64::from(n) % by == 0)
    });
    let kind = kind(out.dtype) + by;
    let (count, row, filled) = (out.stored() >> by, row >> by, filled >> by);
    let kernel = if kind == WIDE {
        &kernels::JOIN_WIDE
    } else {
        &kernels::JOIN_WORDS
    };
    let groups = pieces.len().div_ceil(AT_ONCE);
    for (group, chunk) in pieces.chunks(AT_ONCE).enumerate() {
        // The words of a row that the tensors of the group fill: all of them, where elements share words.
        let (words, first, some) = if kind < 2 {
            let all = units(count, kind);
            (all, 0, all)
        } else {
            let first = chunk.first().map_or(0, |(_, p)| p.begin >> by);
            let end = match group + 1 == groups {
                true => row,
                false => chunk.last().map_or(0, |(_, p)| p.end >> by),
            };
            (units(row, kind), units(first, kind), units(end - first, kind))
        };
        let threads = if kind < 2 { some } else { count / row * some };
        let mut params = vec![count, kind, 0, 0, row, filled, words, first, some, threads];
        params.extend(chunk.iter().flat_map(numbers).map(|n| n >> by));
        params.resize(10 + 3 * AT_ONCE, 0);
        let mut operands: Vec<_> = chunk.iter().map(|(tensor, _)| read(tensor)).collect();
        let spare = operands[0];
        operands.resize(AT_ONCE, spare);
        operands.push(write(out));
        e.dispatch(kernel, &operands, &params, grid(threads, 64))?;
    }
    Ok(())
}
