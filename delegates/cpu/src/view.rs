//! Operators that move nothing: their result is a part of their operand, as it lies.

use crate::plan::Shapes;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::ValueIndex;

/// A value that is a part of another.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The value.
    pub value: ValueIndex,
    /// What it is a part of.
    pub of: ValueIndex,
    /// Its first byte there.
    pub offset: usize,
}

/// Operators whose result has the elements of their first argument, in the same order.
const SAME: [&str; 16] = [
    "aten::_unsafe_view",
    "aten::alias",
    "aten::alias_copy",
    "aten::detach",
    "aten::detach_copy",
    "aten::flatten.using_ints",
    "aten::reshape",
    "aten::squeeze",
    "aten::squeeze.dim",
    "aten::squeeze.dims",
    "aten::squeeze_copy.dims",
    "aten::unflatten.int",
    "aten::unsqueeze",
    "aten::unsqueeze_copy",
    "aten::view",
    "aten::view_copy",
];

/// Whether an operator may be a view by its name alone.
pub fn is_same(op: &str) -> bool {
    SAME.contains(&op)
}

/// What each output of a node is a part of, by these sizes; `None`: something has to be moved.
pub fn parts(node: &Arguments<'_>, shapes: &Shapes) -> Option<Vec<Part>> {
    let op = node.op();
    let of = node.value(0).ok()?;
    let output = node.output(0).ok()?;
    let one = |offset: usize| {
        Some(vec![Part {
            value: output,
            of,
            offset,
        }])
    };
    let same_type = shapes.dtype(of) == shapes.dtype(output);
    let same = same_type && shapes.count(of) == shapes.count(output);
    if is_same(op) || op == "aten::expand" || op == "aten::clone" || op == "aten::contiguous" || op == "aten::dropout" {
        let keeps = op != "aten::dropout" || node.float(1).ok() == Some(0.0) || !node.bool(2).unwrap_or(true);
        return (same && keeps).then(|| one(0))?;
    }
    if op == "aten::permute" || op == "aten::transpose.int" {
        return (same && is_still(node, shapes.of(of))).then(|| one(0))?;
    }
    let rank = shapes.of(of).len() as i64;
    let axis = |dim: i64| {
        usize::try_from(if dim < 0 { dim + rank } else { dim })
            .ok()
            .filter(|d| *d < rank as usize)
    };
    let (dim, start) = match op {
        "aten::slice.Tensor" if node.int(4).unwrap_or(1) == 1 => {
            let dim = axis(node.int(1).unwrap_or(0))?;
            let size = shapes.of(of)[dim] as i64;
            let start = node.optional_scalar(2).ok()?.map_or(0, |s| s.int());
            let start = if start < 0 { start + size } else { start }.clamp(0, size);
            (dim, start as usize)
        }
        "aten::select.int" => {
            let dim = axis(node.int(1).ok()?)?;
            let size = shapes.of(of)[dim] as i64;
            let index = node.int(2).ok()?;
            let index = if index < 0 { index + size } else { index };
            (dim, usize::try_from(index).ok().filter(|i| *i < size as usize)?)
        }
        "aten::split.Tensor"
        | "aten::split_with_sizes"
        | "aten::chunk"
        | "aten::unbind.int"
        | "aten::split_with_sizes_copy" => {
            return pieces(
                node,
                shapes,
                axis(node.int(if op == "aten::unbind.int" { 1 } else { 2 }).unwrap_or(0))?,
            );
        }
        _ => return None,
    };
    let sizes = shapes.of(of);
    let inner: usize = sizes[dim + 1..].iter().product();
    let outer: usize = sizes[..dim].iter().product();
    let offset = start * inner * shapes.dtype(of).size()?;
    (same_type && (outer == 1 || shapes.count(output) == shapes.count(of))).then(|| one(offset))?
}

/// Pieces along a dimension that nothing lies outside of.
fn pieces(node: &Arguments<'_>, shapes: &Shapes, dim: usize) -> Option<Vec<Part>> {
    let of = node.value(0).ok()?;
    let outer: usize = shapes.of(of)[..dim].iter().product();
    let mut offset = 0;
    let mut parts = Vec::new();
    for value in node.view().outputs().iter() {
        parts.push(Part { value, of, offset });
        offset += shapes.bytes(value);
    }
    (outer == 1 && offset <= shapes.bytes(of)).then_some(parts)
}

/// Whether dimensions change places without any element doing so: those longer than 1 keep their order.
fn is_still(node: &Arguments<'_>, sizes: &[usize]) -> bool {
    let rank = sizes.len();
    let axis = |dim: i64| (if dim < 0 { dim + rank as i64 } else { dim }) as usize;
    let mut order: Vec<usize> = (0..rank).collect();
    match node.op() {
        "aten::permute" => match node.ints(1) {
            Ok(dims) if dims.len() == rank => order = dims.iter().map(|d| axis(*d)).collect(),
            _ => return false,
        },
        _ => match (node.int(1), node.int(2)) {
            (Ok(a), Ok(b)) if axis(a) < rank && axis(b) < rank => order.swap(axis(a), axis(b)),
            _ => return false,
        },
    }
    let long: Vec<usize> = order
        .into_iter()
        .filter(|d| sizes.get(*d).is_some_and(|size| *size != 1))
        .collect();
    long.is_sorted()
}
