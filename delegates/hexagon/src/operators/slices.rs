//! Parts of tensors and tensors of parts: slices, splits, concatenations, borders.
//!
//! All of them work along dimensions, so they take what lies channels last as it lies.

use super::common::{Elements, Steps, elements, integer_in, moved, number_in, same};
use crate::builder::{Builder, Layout, axis};
use crate::caps::{Operator, Refusal};
use crate::graph::{DataType, Param, Quantization, TensorId};
use crate::node::{Node, wrap};
use delegraph_sdk::image::ValueIndex;

macro_rules! operator {
    ($name:literal, $lower:expr) => {
        Operator {
            name: $name,
            lower: $lower,
        }
    };
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    operator!("aten::slice.Tensor", sliced),
    operator!("aten::slice_copy.Tensor", sliced),
    operator!("aten::narrow", narrowed),
    operator!("aten::select.int", selected),
    operator!("aten::select_copy.int", selected),
    operator!("aten::split.Tensor", split),
    operator!("aten::split_copy.Tensor", split),
    operator!("aten::split_with_sizes", split),
    operator!("aten::split_with_sizes_copy", split),
    operator!("aten::chunk", split),
    operator!("aten::unbind.int", unbound),
    operator!("aten::cat", |n, b| joined(n, b, false)),
    operator!("aten::concat", |n, b| joined(n, b, false)),
    operator!("aten::stack", |n, b| joined(n, b, true)),
    operator!("aten::flip", flipped),
    operator!("aten::roll", rolled),
    operator!("aten::constant_pad_nd", |n, b| {
        let value = n.scalar(2)?.float();
        padded(n, b, Border::Constant(value))
    }),
    operator!("aten::pad", |n, b| {
        let border = match n.str(2)? {
            "constant" => Border::Constant(n.optional_scalar(3)?.map_or(0.0, |s| s.float())),
            "reflect" => Border::Reflect,
            "replicate" => Border::Edge,
            other => return Err(Refusal::attribute(format!("the mode `{other}`"))),
        };
        padded(n, b, border)
    }),
    operator!("aten::reflection_pad1d", |n, b| padded(n, b, Border::Reflect)),
    operator!("aten::reflection_pad2d", |n, b| padded(n, b, Border::Reflect)),
    operator!("aten::reflection_pad3d", |n, b| padded(n, b, Border::Reflect)),
    operator!("aten::replication_pad1d", |n, b| padded(n, b, Border::Edge)),
    operator!("aten::replication_pad2d", |n, b| padded(n, b, Border::Edge)),
    operator!("aten::replication_pad3d", |n, b| padded(n, b, Border::Edge)),
    operator!("aten::select_scatter", |n, b| {
        let (rank, size) = extent(n, b, 2)?;
        let dim = n.dim(2, rank)?;
        let start = index(n, 3, size)?;
        inserted(n, b, dim, start, start + 1)
    }),
    operator!("aten::slice_scatter", |n, b| {
        let (rank, size) = extent(n, b, 2)?;
        let (start, end) = range(n, 3, size)?;
        if n.int(5)? != 1 {
            return Err(Refusal::attribute("a step"));
        }
        inserted(n, b, n.dim(2, rank)?, start, end)
    }),
];

/// An index of one of `size` elements, counted from the end where it is below 0.
fn index(node: &Node<'_>, i: usize, size: i64) -> Result<i64, Refusal> {
    match node.int(i)? {
        at if (0..size).contains(&at) => Ok(at),
        at if (-size..0).contains(&at) => Ok(at + size),
        at => Err(Refusal::attribute(format!("index {at} of {size} elements"))),
    }
}

/// Rank of the first tensor, and its size along the dimension at an argument.
fn extent(node: &Node<'_>, b: &Builder<'_>, i: usize) -> Result<(usize, i64), Refusal> {
    let dims = b.logical_dims(node.value(0)?)?;
    if dims.is_empty() {
        return Err(Refusal::shape("no dimensions"));
    }
    let dim = node.dim(i, dims.len())?;
    Ok((dims.len(), i64::from(dims[dim])))
}

/// Start and end of a slice within a size.
fn range(node: &Node<'_>, i: usize, size: i64) -> Result<(i64, i64), Refusal> {
    let bound = |i: usize, missing: i64| -> Result<i64, Refusal> {
        let at = node.optional_scalar(i)?.map_or(missing, |s| s.int());
        Ok((if at < 0 { at.saturating_add(size) } else { at }).clamp(0, size))
    };
    let start = bound(i, 0)?;
    Ok((start, bound(i + 1, size)?.max(start)))
}

/// `StridedSlice` along one dimension of a tensor as it lies.
fn strided(b: &mut Builder<'_>, read: TensorId, out: TensorId, at: u32, start: i64, end: i64, step: i64) {
    let dims = b.tensor(read).dims.clone();
    let mut ranges = Vec::with_capacity(dims.len() * 3);
    for (i, size) in dims.iter().enumerate() {
        match i as u32 == at {
            true => ranges.extend([start as i32, end as i32, step as i32]),
            false => ranges.extend([0, *size as i32, 1]),
        }
    }
    let ranges = Param::I32s(vec![dims.len() as u32, 3], ranges);
    let masks = ["begin_mask", "end_mask", "shrink_axes", "new_axes_mask"];
    let mut params = vec![("ranges", ranges)];
    params.extend(masks.map(|mask| (mask, Param::U32(0))));
    b.op("StridedSlice", params, &[read], &[out]);
}

/// A slice of a tensor as a tensor between nodes.
fn part(b: &mut Builder<'_>, read: TensorId, at: u32, start: i64, end: i64) -> TensorId {
    let mut tensor = b.tensor(read).clone();
    if start == 0 && end == i64::from(tensor.dims[at as usize]) {
        return read;
    }
    tensor.dims[at as usize] = (end - start) as u32;
    let out = b.temporary(tensor.data_type, &tensor.dims, tensor.quantization);
    strided(b, read, out, at, start, end, 1);
    out
}

fn along(
    node: &Node<'_>,
    b: &mut Builder<'_>,
    dim: usize,
    rank: usize,
    (start, end, step): (i64, i64, i64),
) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let layout = b.layout_of(x);
    let read = b.read(x, layout)?;
    let at = axis(dim, rank, layout);
    if start == 0 && step == 1 && end == i64::from(b.tensor(read).dims[at as usize]) {
        return same(b, read, out, layout);
    }
    moved(b, &[read], out, layout, |b, read, written| {
        strided(b, read[0], written, at, start, end, step);
        Ok(())
    })
}

fn sliced(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (rank, size) = extent(node, b, 1)?;
    let (start, end) = range(node, 2, size)?;
    along(node, b, node.dim(1, rank)?, rank, (start, end, node.int(4)?))
}

fn narrowed(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (rank, size) = extent(node, b, 1)?;
    let (start, length) = (node.int(2)?, node.int(3)?);
    // A part without elements may begin at the end.
    let start = if start == size { size } else { index(node, 2, size)? };
    if !(0..=size - start).contains(&length) {
        return Err(Refusal::attribute(format!(
            "{length} of {size} elements from {start} on"
        )));
    }
    along(node, b, node.dim(1, rank)?, rank, (start, start + length, 1))
}

/// One place along a dimension, which is gone then.
fn selected(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (rank, size) = extent(node, b, 1)?;
    let dim = node.dim(1, rank)?;
    let start = index(node, 2, size)?;
    let (x, out) = (node.value(0)?, node.output(0)?);
    let read = b.read(x, Layout::RowMajor)?;
    if b.tensor(read).data_type == DataType::Bool {
        return moved(b, &[read], out, Layout::RowMajor, |b, read, written| {
            let one = part(b, read[0], dim as u32, start, start + 1);
            b.op("Reshape", Vec::new(), &[one], &[written]);
            Ok(())
        });
    }
    let one = part(b, read, dim as u32, start, start + 1);
    same(b, one, out, Layout::RowMajor)
}

/// Pieces along a dimension, of the sizes that the outputs have.
fn pieces(
    b: &mut Builder<'_>,
    x: ValueIndex,
    dim: usize,
    layout: Layout,
    sizes: &[u32],
) -> Result<Vec<TensorId>, Refusal> {
    let rank = b.image().value(x).rank();
    let read = b.read(x, layout)?;
    let at = axis(dim, rank, layout);
    let tensor = b.tensor(read).clone();
    if let [_] = sizes {
        return Ok(vec![read]);
    }
    let mut starts = Vec::with_capacity(sizes.len());
    let mut parts = Vec::with_capacity(sizes.len());
    let mut start = 0;
    for size in sizes {
        if start > 0 {
            starts.push(start);
        }
        start += size;
        let mut dims = tensor.dims.clone();
        dims[at as usize] = *size;
        parts.push(b.temporary(tensor.data_type, &dims, tensor.quantization.clone()));
    }
    if start != tensor.dims[at as usize] {
        return Err(Refusal::shape("pieces that are not the whole"));
    }
    let params = vec![("axis", Param::U32(at)), ("split_index", Param::list(&starts))];
    b.op("Split", params, &[read], &parts);
    Ok(parts)
}

fn outputs(node: &Node<'_>) -> Vec<ValueIndex> {
    node.view().outputs().iter().collect()
}

fn split(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let x = node.value(0)?;
    let rank = b.image().value(x).rank();
    if rank == 0 {
        return Err(Refusal::shape("no dimensions"));
    }
    let dim = node.dim(2, rank)?;
    let layout = b.layout_of(x);
    let outs = outputs(node);
    let mut sizes = Vec::with_capacity(outs.len());
    for out in &outs {
        sizes.push(b.dims(*out)?[dim]);
    }
    let parts = pieces(b, x, dim, layout, &sizes)?;
    for (part, out) in parts.into_iter().zip(outs) {
        same(b, part, out, layout)?;
    }
    Ok(())
}

fn unbound(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let x = node.value(0)?;
    let rank = b.image().value(x).rank();
    if rank == 0 {
        return Err(Refusal::shape("no dimensions"));
    }
    let dim = node.dim(1, rank)?;
    let outs = outputs(node);
    let parts = pieces(b, x, dim, Layout::RowMajor, &vec![1; outs.len()])?;
    for (part, out) in parts.into_iter().zip(outs) {
        same(b, part, out, Layout::RowMajor)?;
    }
    Ok(())
}

/// `cat`, or `stack`: along a new dimension.
fn joined(node: &Node<'_>, b: &mut Builder<'_>, stack: bool) -> Result<(), Refusal> {
    let (values, out) = (node.values(0)?, node.output(0)?);
    let rank = b.image().value(out).rank();
    let dim = node.dim(1, rank)?;
    let layout = match stack {
        true => Layout::RowMajor,
        false => b.elementwise_layout(&values, out)?,
    };
    if let Some(integers) = integers_joined(b, &values, out, dim, stack)? {
        b.dequantize_later(out, integers, Layout::RowMajor);
        return Ok(());
    }
    let mut inputs = Vec::with_capacity(values.len());
    for value in values {
        if !stack && b.image().value(value).rank() != rank {
            return Err(Refusal::shape("parts of different ranks"));
        }
        let mut read = b.read(value, layout)?;
        if stack {
            let mut dims = b.logical_dims(value)?;
            dims.insert(dim, 1);
            read = b.reshaped(read, &dims)?;
        }
        inputs.push(read);
    }
    if let [one] = inputs[..] {
        return same(b, one, out, layout);
    }
    let at = axis(dim, rank, layout);
    moved(b, &inputs, out, layout, |b, inputs, written| {
        b.op("Concat", vec![("axis", Param::U32(at))], inputs, &[written]);
        Ok(())
    })
}

/// Dequantized values that are joined and quantized again stay integers, of the scale that they then have.
fn integers_joined(
    b: &mut Builder<'_>,
    values: &[ValueIndex],
    out: ValueIndex,
    dim: usize,
    stack: bool,
) -> Result<Option<TensorId>, Refusal> {
    let parts: Option<Vec<(TensorId, Layout)>> = values.iter().map(|value| b.integers_of(*value)).collect();
    let (Some(parts), Some(quantized), false) = (parts, b.quantized_alone(out), stack) else {
        return Ok(None);
    };
    if parts.iter().any(|(_, layout)| *layout != Layout::RowMajor) {
        return Ok(None);
    }
    let (data_type, quantization) = b.representation(quantized)?;
    let mut inputs = Vec::with_capacity(parts.len());
    for (part, _) in parts {
        let have = b.tensor(part);
        let same = have.data_type == data_type && have.quantization == quantization;
        inputs.push(match same {
            true => part,
            false => b.cast("Convert", part, data_type, quantization.clone()),
        });
    }
    let dims = b.dims(out)?;
    let joined = b.temporary(data_type, &dims, quantization);
    b.op("Concat", vec![("axis", Param::U32(dim as u32))], &inputs, &[joined]);
    Ok(Some(joined))
}

fn flipped(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.image().value(x).rank();
    if rank == 0 {
        return Err(Refusal::shape("no dimensions"));
    }
    let layout = b.layout_of(x);
    let mut turned = vec![false; rank];
    for dim in node.ints(1)? {
        turned[axis(wrap(dim, rank)?, rank, layout) as usize] = true;
    }
    let read = b.read(x, layout)?;
    moved(b, &[read], out, layout, |b, read, written| {
        let dims = b.tensor(read[0]).dims.clone();
        let mut ranges = Vec::with_capacity(rank * 3);
        let mut ends = 0;
        for (i, size) in dims.iter().enumerate() {
            let size = *size as i32;
            match turned[i] {
                true => {
                    // The end before the first element is what the mask says.
                    ends |= 1 << i;
                    ranges.extend([size - 1, -1, -1]);
                }
                false => ranges.extend([0, size, 1]),
            }
        }
        let params = vec![
            ("ranges", Param::I32s(vec![rank as u32, 3], ranges)),
            ("begin_mask", Param::U32(0)),
            ("end_mask", Param::U32(ends)),
            ("shrink_axes", Param::U32(0)),
            ("new_axes_mask", Param::U32(0)),
        ];
        b.op("StridedSlice", params, read, &[written]);
        Ok(())
    })
}

/// Elements moved along dimensions, what falls off coming in again at the other end.
fn rolled(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if elements(b, x)? == Elements::Bool {
        return Err(Refusal::dtype("booleans"));
    }
    let rank = b.image().value(x).rank();
    let (shifts, dims) = (node.ints(1)?, node.ints(2)?);
    let flat = dims.is_empty();
    let mut read = b.read(x, Layout::RowMajor)?;
    let count = b.tensor(read).elements() as u32;
    if flat {
        read = b.reshaped(read, &[count])?;
    } else if rank == 0 || shifts.len() != dims.len() {
        return Err(Refusal::shape("shifts without dimensions"));
    }
    for (i, shift) in shifts.iter().enumerate() {
        let at = if flat { 0 } else { wrap(dims[i], rank)? } as u32;
        let tensor = b.tensor(read).clone();
        let size = i64::from(tensor.dims[at as usize]);
        let shift = shift.rem_euclid(size);
        if shift == 0 {
            continue;
        }
        let halves = [
            part(b, read, at, size - shift, size),
            part(b, read, at, 0, size - shift),
        ];
        read = b.temporary(tensor.data_type, &tensor.dims, tensor.quantization);
        b.op("Concat", vec![("axis", Param::U32(at))], &halves, &[read]);
    }
    same(b, read, out, Layout::RowMajor)
}

/// One tensor in the place of a part of another.
fn inserted(node: &Node<'_>, b: &mut Builder<'_>, dim: usize, start: i64, end: i64) -> Result<(), Refusal> {
    let (x, source, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    if elements(b, x)? == Elements::Bool {
        return Err(Refusal::dtype("booleans"));
    }
    if start >= end {
        return copied_if_empty(node, b, start, end);
    }
    let read = b.read(x, Layout::RowMajor)?;
    let dims = b.tensor(read).dims.clone();
    let size = i64::from(dims[dim]);
    let mut middle = dims;
    middle[dim] = (end - start) as u32;
    let source = b.read(source, Layout::RowMajor)?;
    let source = b.reshaped(source, &middle)?;
    let at = dim as u32;
    let mut inputs = Vec::new();
    if start > 0 {
        inputs.push(part(b, read, at, 0, start));
    }
    inputs.push(source);
    if end < size {
        inputs.push(part(b, read, at, end, size));
    }
    if let [one] = inputs[..] {
        return same(b, one, out, Layout::RowMajor);
    }
    moved(b, &inputs, out, Layout::RowMajor, |b, inputs, written| {
        b.op("Concat", vec![("axis", Param::U32(at))], inputs, &[written]);
        Ok(())
    })
}

fn copied_if_empty(node: &Node<'_>, b: &mut Builder<'_>, start: i64, end: i64) -> Result<(), Refusal> {
    match start == end {
        true => super::movement::copied(node, b),
        false => Err(Refusal::attribute("a part that ends before it begins")),
    }
}

/// What is put round a tensor.
#[derive(Clone, Copy)]
enum Border {
    Constant(f64),
    Reflect,
    Edge,
}

/// Most elements that a border has on one side: far more than any model's, and few enough that sizes stay sizes.
const WIDEST: u64 = 1 << 16;

/// Sizes are given from the last dimension on; negative ones take away.
fn padded(node: &Node<'_>, b: &mut Builder<'_>, border: Border) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let rank = b.image().value(x).rank();
    let sizes = node.ints(1)?;
    if sizes.len() % 2 != 0 || sizes.len() / 2 > rank {
        return Err(Refusal::shape("borders of more dimensions than there are"));
    }
    if let Some(size) = sizes.iter().find(|size| size.unsigned_abs() > WIDEST) {
        return Err(Refusal::attribute(format!(
            "a border of {size} elements; at most {WIDEST} are taken"
        )));
    }
    let kind = elements(b, x)?;
    let layout = b.layout_of(x);
    let mut read = b.read(x, layout)?;
    let mut amounts = vec![[0u32; 2]; rank];
    for (i, pair) in sizes.as_chunks::<2>().0.iter().enumerate() {
        let at = axis(rank - 1 - i, rank, layout);
        let size = i64::from(b.tensor(read).dims[at as usize]);
        let (start, end) = ((-pair[0]).max(0), size - (-pair[1]).max(0));
        if start >= end {
            return Err(Refusal::shape("a border that takes all away"));
        }
        if kind == Elements::Bool && (start, end) != (0, size) {
            return Err(Refusal::dtype("booleans that a border takes away"));
        }
        read = part(b, read, at, start, end);
        amounts[at as usize] = pair.map(|size| size.max(0) as u32);
    }
    if amounts.iter().all(|pair| *pair == [0, 0]) {
        return same(b, read, out, layout);
    }
    if matches!(kind, Elements::Int | Elements::Index) {
        return match border {
            Border::Constant(value) => surrounded(b, read, out, layout, &amounts, value),
            _ => Err(Refusal::dtype("borders of integers")),
        };
    }
    let (data_type, quantization) = b.representation(out)?;
    let scheme = match border {
        Border::Constant(_) => 0,
        Border::Reflect => 2,
        // The library drops one side of it in f16.
        Border::Edge if kind != Elements::Bool => return edged(b, read, out, layout, &amounts),
        Border::Edge => 3,
    };
    let flat: Vec<u32> = amounts.iter().flatten().copied().collect();
    let mut params = vec![
        ("scheme", Param::U32(scheme)),
        ("pad_amount", Param::U32s(vec![rank as u32, 2], flat)),
    ];
    if let Border::Constant(value) = border {
        params.push(match (&quantization, data_type) {
            (Quantization::PerTensor(pair), _) => {
                ("pad_constant_value", Param::I32(integer_in(value, data_type, *pair)?))
            }
            (_, DataType::Bool) => ("pad_constant_value", Param::I32(i32::from(value != 0.0))),
            _ => ("pad_constant_value", Param::F32(value as f32)),
        });
    }
    moved(b, &[read], out, layout, |b, read, written| {
        b.op("Pad", params, read, &[written]);
        Ok(())
    })
}

/// A border of the elements beside it, by an index of each dimension.
fn edged(
    b: &mut Builder<'_>,
    mut read: TensorId,
    out: ValueIndex,
    layout: Layout,
    amounts: &[[u32; 2]],
) -> Result<(), Refusal> {
    for (at, [before, after]) in amounts.iter().enumerate() {
        let mut tensor = b.tensor(read).clone();
        let size = tensor.dims[at];
        if before + after == 0 {
            continue;
        }
        let count = before + size + after;
        let place = |i: u32| i.saturating_sub(*before).min(size - 1) as i32;
        let bytes = (0..count).flat_map(|i| place(i).to_le_bytes()).collect();
        let index = b.fixed(DataType::Int32, &[count], Quantization::None, bytes);
        tensor.dims[at] = count;
        let wide = b.temporary(tensor.data_type, &tensor.dims, tensor.quantization);
        b.op("Gather", vec![("axis", Param::I32(at as i32))], &[read, index], &[wide]);
        read = wide;
    }
    same(b, read, out, layout)
}

/// A border of a number, by concatenation with constants: the library pads no integers.
fn surrounded(
    b: &mut Builder<'_>,
    mut read: TensorId,
    out: ValueIndex,
    layout: Layout,
    amounts: &[[u32; 2]],
    value: f64,
) -> Result<(), Refusal> {
    let one = number_in(b, value, read)?;
    let crate::graph::TensorKind::Static(element) = b.tensor(one).kind.clone() else {
        return Err(Refusal::attribute("a border that is no constant"));
    };
    for (at, pair) in amounts.iter().enumerate() {
        let mut tensor = b.tensor(read).clone();
        let inner = tensor.dims[at];
        let mut inputs = vec![read];
        for (side, amount) in pair.iter().enumerate() {
            if *amount == 0 {
                continue;
            }
            tensor.dims[at] = *amount;
            let border = b.fixed(
                tensor.data_type,
                &tensor.dims.clone(),
                tensor.quantization.clone(),
                element.repeat(tensor.elements()),
            );
            inputs.insert(if side == 0 { 0 } else { inputs.len() }, border);
        }
        if inputs.len() == 1 {
            continue;
        }
        tensor.dims[at] = inner + pair[0] + pair[1];
        read = b.temporary(tensor.data_type, &tensor.dims, tensor.quantization);
        b.op("Concat", vec![("axis", Param::U32(at as u32))], &inputs, &[read]);
    }
    same(b, read, out, layout)
}
