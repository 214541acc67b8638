//! Reductions over dimensions.

use crate::caps::{self, Operator, Refusal};
use crate::codes;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::operators::reduce_rows::{GROUP, Lying, Rows, along, along_dims, code, words};
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Encoded = Result<(), Error>;

/// What is done to an element before it is combined: `mapped()` of `reduce_float.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Map {
    Itself = 0,
    Magnitude = 1,
    Square = 2,
    Truth = 3,
    /// The square of its distance from the row's number.
    SquareFrom = 4,
    /// e to the power of its distance from the row's number.
    ExpFrom = 5,
    /// 0 in place of NaN.
    NanAsZero = 6,
}

/// How two are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Combine {
    Sum = 0,
    Product = 1,
    Max = 2,
    Min = 3,
}

/// What is done to the result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Last {
    /// Nothing.
    Itself,
    /// Divided by a number.
    Over(f32),
    /// The square root.
    Root,
    /// Divided by a number, and of that the square root.
    RootOver(f32),
    /// The logarithm, and the row's number added.
    LogPlus,
    /// 0 in place of an infinity.
    InfiniteAsZero,
    /// Divided by a number, another added, and of that one over the square root.
    InverseRoot(f32, f32),
}

impl Last {
    fn words(self) -> [u32; 3] {
        match self {
            Last::Itself => [0, 0, 0],
            Last::Over(by) => [1, by.to_bits(), 0],
            Last::Root => [2, 0, 0],
            Last::RootOver(by) => [3, by.to_bits(), 0],
            Last::LogPlus => [4, 0, 0],
            Last::InfiniteAsZero => [5, 0, 0],
            Last::InverseRoot(by, plus) => [6, by.to_bits(), plus.to_bits()],
        }
    }
}

/// A reduction in f32. `aux`: one number a row, where the map or the last step asks for it.
///
/// # Errors
/// Beyond the device's limits.
pub fn fold(
    e: &mut Encoder<'_>,
    (x, rows): (&Lying, &Rows),
    (map, combine, last): (Map, Combine, Last),
    aux: Option<&Tensor>,
    out: &Tensor,
) -> Encoded {
    if let Some(pieces) = pieces(e, x, rows) {
        let (slots, of_slots) = slots(e, DType::F32, pieces.len())?;
        for (at, (piece, rows)) in pieces.iter().enumerate() {
            fold(e, (piece, rows), (map, combine, Last::Itself), aux, &slot(&slots, at))?;
        }
        return fold_once(e, (&slots, &of_slots), (Map::Itself, combine, last), aux, out, 1);
    }
    let plan = rows.plan();
    if plan.segments > 1 {
        let parts = e.make(DType::F32, &[rows.count, plan.segments], Layout::RowMajor)?;
        fold_once(e, (x, rows), (map, combine, Last::Itself), aux, &parts, plan.segments)?;
        let rows = rows.of_segments(plan.segments);
        let parts = Lying::new(parts);
        return fold_once(e, (&parts, &rows), (Map::Itself, combine, last), aux, out, 1);
    }
    fold_once(e, (x, rows), (map, combine, last), aux, out, 1)
}

/// A row of all elements of a tensor that the device does not bind at once, as rows that it binds.
fn pieces(e: &Encoder<'_>, x: &Lying, rows: &Rows) -> Option<Vec<(Lying, Rows)>> {
    let most = e.facts().limits.storage_range / 256 * 256;
    let (count, element) = (x.tensor.count(), u64::from(x.tensor.element()));
    let is_all = rows.count == 1 && rows.length == count && x.tensor.stored() == count;
    if !is_all || x.tensor.bytes().next_multiple_of(16) <= most {
        return None;
    }
    let at_once = u32::try_from(most / element).unwrap_or(u32::MAX);
    let piece = |first: u32| {
        let length = at_once.min(count - first);
        let tensor = Tensor {
            offset: x.tensor.offset + u64::from(first) * element,
            dims: vec![length],
            layout: Layout::RowMajor,
            ..x.tensor.clone()
        };
        let rows = Rows {
            kept: Vec::new(),
            reduced: vec![[length, 1]],
            count: 1,
            length,
        };
        (Lying::new(tensor), rows)
    };
    Some((0..count).step_by(at_once as usize).map(piece).collect())
}

/// Places for one number a piece, each where a binding can begin; and the row of them.
fn slots(e: &mut Encoder<'_>, dtype: DType, count: usize) -> Result<(Lying, Rows), Error> {
    let apart = 256 / dtype.size().unwrap_or(1) as u32;
    let count = count as u32;
    let tensor = e.make(dtype, &[count, apart], Layout::RowMajor)?;
    let rows = Rows {
        kept: Vec::new(),
        reduced: vec![[count, apart]],
        count: 1,
        length: count,
    };
    Ok((Lying::new(tensor), rows))
}

fn slot(slots: &Lying, at: usize) -> Tensor {
    Tensor {
        offset: slots.tensor.offset + 256 * at as u64,
        dims: vec![1],
        ..slots.tensor.clone()
    }
}

fn fold_once(
    e: &mut Encoder<'_>,
    (x, rows): (&Lying, &Rows),
    (map, combine, last): (Map, Combine, Last),
    aux: Option<&Tensor>,
    out: &Tensor,
    segments: u32,
) -> Encoded {
    let plan = rows.plan();
    let outputs = rows.count * segments;
    let [finish, number, plus] = last.words();
    let length = if segments > 1 { plan.length } else { rows.length };
    let (lists, kept, reduced) = rows.params(13);
    let mut params = vec![outputs, x.code()?, code(out)?, rows.length, segments, length];
    params.extend([map as u32, combine as u32, finish, number, kept, reduced, plus]);
    params.extend(lists);
    let (kernel, groups) = match plan.group {
        true => (&kernels::REDUCE_FLOAT_GROUP, grid(words(outputs, out.dtype), 1)),
        false => (&kernels::REDUCE_FLOAT_FLAT, grid(words(outputs, out.dtype), GROUP)),
    };
    skip_empty(outputs, || {
        let aux = aux.unwrap_or(&x.tensor);
        e.dispatch(kernel, &[read(&x.tensor), read(aux), write(out)], &params, groups)
    })
}

fn skip_empty(outputs: u32, dispatch: impl FnOnce() -> Encoded) -> Encoded {
    if outputs == 0 { Ok(()) } else { dispatch() }
}

/// How integers are combined: `combined()` of `reduce_whole.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Sum = 0,
    Product = 1,
    Count = 2,
}

fn fold_whole(e: &mut Encoder<'_>, x: &Lying, rows: &Rows, how: Whole, out: &Tensor) -> Encoded {
    if let Some(pieces) = pieces(e, x, rows) {
        let (slots, of_slots) = slots(e, DType::I64, pieces.len())?;
        for (at, (piece, rows)) in pieces.iter().enumerate() {
            fold_whole(e, piece, rows, how, &slot(&slots, at))?;
        }
        let how = if how == Whole::Count { Whole::Sum } else { how };
        return fold_whole_once(e, (&slots, &of_slots), how, out, 1);
    }
    let plan = rows.plan();
    if plan.segments == 1 {
        return fold_whole_once(e, (x, rows), how, out, 1);
    }
    let parts = e.make(DType::I64, &[rows.count, plan.segments], Layout::RowMajor)?;
    fold_whole_once(e, (x, rows), how, &parts, plan.segments)?;
    let how = if how == Whole::Count { Whole::Sum } else { how };
    fold_whole_once(e, (&Lying::new(parts), &rows.of_segments(plan.segments)), how, out, 1)
}

fn fold_whole_once(
    e: &mut Encoder<'_>,
    (x, rows): (&Lying, &Rows),
    how: Whole,
    out: &Tensor,
    segments: u32,
) -> Encoded {
    let plan = rows.plan();
    let outputs = rows.count * segments;
    let length = if segments > 1 { plan.length } else { rows.length };
    let (lists, kept, reduced) = rows.params(12);
    let mut params = vec![outputs, x.code()?, code(out)?, rows.length, segments, length];
    params.extend([how as u32, 0, 0, 0, kept, reduced]);
    params.extend(lists);
    let (kernel, groups) = match plan.group {
        true => (&kernels::REDUCE_WHOLE_GROUP, grid(words(outputs, out.dtype), 1)),
        false => (&kernels::REDUCE_WHOLE_FLAT, grid(words(outputs, out.dtype), GROUP)),
    };
    skip_empty(outputs, || {
        e.dispatch(kernel, &[read(&x.tensor), write(out)], &params, groups)
    })
}

/// The largest or smallest elements of rows, and where they are in them.
///
/// # Errors
/// Rows without elements.
pub fn extreme(
    e: &mut Encoder<'_>,
    x: &Lying,
    rows: &Rows,
    smallest: bool,
    (values, indices): (Option<&Tensor>, Option<&Tensor>),
) -> Encoded {
    if rows.length == 0 && rows.count > 0 {
        return Err(Error::invalid("rows without elements have no largest or smallest one"));
    }
    if let (Some(values), None, Some(pieces)) = (values, indices, pieces(e, x, rows)) {
        let (slots, of_slots) = slots(e, x.tensor.dtype, pieces.len())?;
        for (at, (piece, rows)) in pieces.iter().enumerate() {
            extreme(e, piece, rows, smallest, (Some(&slot(&slots, at)), None))?;
        }
        return extreme(e, &slots, &of_slots, smallest, (Some(values), None));
    }
    let wanted = u32::from(values.is_some()) | u32::from(indices.is_some()) << 1;
    let (values, indices) = (
        values.unwrap_or(&x.tensor).clone(),
        indices.unwrap_or(&x.tensor).clone(),
    );
    let plan = rows.plan();
    if plan.segments == 1 {
        let candidates = (rows.length, 0, &x.tensor);
        return extreme_once(e, (x, rows), smallest, candidates, (wanted, &values, &indices), 1);
    }
    let places = e.make(DType::I32, &[rows.count, plan.segments], Layout::RowMajor)?;
    let candidates = (rows.length, 0, &x.tensor);
    extreme_once(e, (x, rows), smallest, candidates, (4, &values, &places), plan.segments)?;
    let candidates = (plan.segments, 1, &places);
    extreme_once(e, (x, rows), smallest, candidates, (wanted, &values, &indices), 1)
}

fn extreme_once(
    e: &mut Encoder<'_>,
    (x, rows): (&Lying, &Rows),
    smallest: bool,
    (length, kind, places): (u32, u32, &Tensor),
    (wanted, values, indices): (u32, &Tensor, &Tensor),
    segments: u32,
) -> Encoded {
    let plan = rows.plan();
    let outputs = rows.count * segments;
    let part = if segments > 1 { plan.length } else { length };
    let (lists, kept, reduced) = rows.params(12);
    let mut params = vec![outputs, x.code()?, u32::from(smallest), length, segments, part];
    params.extend([wanted, kind, 0, 0, kept, reduced]);
    params.extend(lists);
    let count = words(outputs, x.tensor.dtype);
    let (kernel, groups) = match plan.group && length > 64 {
        true => (&kernels::REDUCE_EXTREME_GROUP, grid(count, 1)),
        false => (&kernels::REDUCE_EXTREME_FLAT, grid(count, GROUP)),
    };
    let unused = e.make(DType::I32, &[4], Layout::RowMajor)?;
    let values = if wanted & 1 != 0 { values } else { &unused };
    let indices = if wanted & 6 != 0 { indices } else { &unused };
    skip_empty(outputs, || {
        let operands = [read(&x.tensor), read(places), write(values), write(indices)];
        e.dispatch(kernel, &operands, &params, groups)
    })
}

/// The input, its rows, and a row-major output.
fn reduced(node: &Node<'_>, e: &mut Encoder<'_>, along: &[bool]) -> Result<(Lying, Rows, Tensor), Error> {
    let x = Lying::input(node, 0, e)?;
    let rows = Rows::new(&x, along)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    Ok((x, rows, out))
}

fn rank(node: &Node<'_>, e: &Encoder<'_>) -> Result<usize, Error> {
    Ok(e.dims(node.value(0)?)?.len())
}

/// Which dimensions: those of argument `i`, or all.
fn chosen(node: &Node<'_>, e: &Encoder<'_>, i: Option<usize>) -> Result<Vec<bool>, Error> {
    let rank = rank(node, e)?;
    match i {
        Some(i) => along(node, i, rank),
        None => Ok(vec![true; rank]),
    }
}

/// Sum or product, in floats or whole numbers as the output is.
fn encode_fold(node: &Node<'_>, e: &mut Encoder<'_>, dims: Option<usize>, map: Map, combine: Combine) -> Encoded {
    let along = chosen(node, e, dims)?;
    let (x, rows, out) = reduced(node, e, &along)?;
    if is_float(out.dtype) {
        return fold(e, (&x, &rows), (map, combine, Last::Itself), None, &out);
    }
    let how = if combine == Combine::Product {
        Whole::Product
    } else {
        Whole::Sum
    };
    fold_whole(e, &x, &rows, how, &out)
}

fn encode_mean(node: &Node<'_>, e: &mut Encoder<'_>, dims: Option<usize>) -> Encoded {
    let along = chosen(node, e, dims)?;
    let (x, rows, out) = reduced(node, e, &along)?;
    let last = Last::Over(rows.length as f32);
    fold(e, (&x, &rows), (Map::Itself, Combine::Sum, last), None, &out)
}

fn encode_extreme(node: &Node<'_>, e: &mut Encoder<'_>, dims: Option<usize>, smallest: bool) -> Encoded {
    let along = chosen(node, e, dims)?;
    let (x, rows, out) = reduced(node, e, &along)?;
    extreme(e, &x, &rows, smallest, (Some(&out), None))
}

fn encode_both(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let along = chosen(node, e, (!node.is_none(1)).then_some(1))?;
    let (x, rows, low) = reduced(node, e, &along)?;
    let high = e.output(node, 1, Layout::RowMajor)?;
    extreme(e, &x, &rows, true, (Some(&low), None))?;
    extreme(e, &x, &rows, false, (Some(&high), None))
}

fn encode_place(node: &Node<'_>, e: &mut Encoder<'_>, smallest: bool) -> Encoded {
    let along = chosen(node, e, (!node.is_none(1)).then_some(1))?;
    let (x, rows, out) = reduced(node, e, &along)?;
    extreme(e, &x, &rows, smallest, (None, Some(&out)))
}

fn encode_with_place(node: &Node<'_>, e: &mut Encoder<'_>, smallest: bool) -> Encoded {
    let along = along_dims(&[node.int(1)?], rank(node, e)?)?;
    let (x, rows, values) = reduced(node, e, &along)?;
    let indices = e.output(node, 1, Layout::RowMajor)?;
    extreme(e, &x, &rows, smallest, (Some(&values), Some(&indices)))
}

fn encode_truth(node: &Node<'_>, e: &mut Encoder<'_>, dims: Option<usize>, combine: Combine) -> Encoded {
    let rank = rank(node, e)?;
    let along = match dims {
        // Here an empty list names no dimension.
        Some(i) if !node.is_none(i) => along_dims(&node.ints(i)?, rank)?,
        _ => vec![true; rank],
    };
    let (x, rows, out) = reduced(node, e, &along)?;
    // The largest of nothing is minus infinity, which is false; the smallest is infinity, which is true.
    fold(e, (&x, &rows), (Map::Truth, combine, Last::Itself), None, &out)
}

fn encode_count(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let along = chosen(node, e, (!node.is_none(1)).then_some(1))?;
    let (x, rows, out) = reduced(node, e, &along)?;
    fold_whole(e, &x, &rows, Whole::Count, &out)
}

fn encode_trace(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let x = Lying::input(node, 0, e)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let [height, width] = x.tensor.dims[..] else {
        return Err(Error::invalid("a trace needs a matrix"));
    };
    let length = height.min(width);
    let reduced = vec![[length, width.saturating_add(1)]];
    let rows = Rows {
        kept: Vec::new(),
        reduced,
        count: 1,
        length,
    };
    match is_float(out.dtype) {
        true => fold(e, (&x, &rows), (Map::Itself, Combine::Sum, Last::Itself), None, &out),
        false => fold_whole(e, &x, &rows, Whole::Sum, &out),
    }
}

/// Where an operator of spread has its arguments.
struct Spread {
    dims: Option<usize>,
    /// A number that is taken from the count; or a truth value, 1 if true.
    correction: usize,
    root: bool,
    /// The mean is the second output.
    mean: bool,
}

fn encode_spread(node: &Node<'_>, e: &mut Encoder<'_>, spread: &Spread) -> Encoded {
    let along = chosen(node, e, spread.dims)?;
    let (x, rows, out) = reduced(node, e, &along)?;
    let correction = node.optional_scalar(spread.correction)?.map_or(1.0, |c| c.float());
    let count = f64::from(rows.length);
    let mean = e.make(DType::F32, &[rows.count], Layout::RowMajor)?;
    let average = (Map::Itself, Combine::Sum, Last::Over(count as f32));
    fold(e, (&x, &rows), average, None, &mean)?;
    let by = (count - correction).max(0.0) as f32;
    let last = if spread.root {
        Last::RootOver(by)
    } else {
        Last::Over(by)
    };
    fold(e, (&x, &rows), (Map::SquareFrom, Combine::Sum, last), Some(&mean), &out)?;
    if spread.mean {
        let out = e.output(node, 1, Layout::RowMajor)?;
        fold(e, (&x, &rows), average, None, &out)?;
    }
    Ok(())
}

fn encode_log_sum_exp(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let along = chosen(node, e, Some(1))?;
    let (x, rows, out) = reduced(node, e, &along)?;
    let top = e.make(DType::F32, &[rows.count], Layout::RowMajor)?;
    fold(
        e,
        (&x, &rows),
        (Map::Itself, Combine::Max, Last::InfiniteAsZero),
        None,
        &top,
    )?;
    fold(
        e,
        (&x, &rows),
        (Map::ExpFrom, Combine::Sum, Last::LogPlus),
        Some(&top),
        &out,
    )
}

fn encode_norm(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let along = chosen(node, e, Some(2))?;
    let (x, rows, out) = reduced(node, e, &along)?;
    let order = node.optional_scalar(1)?.map_or(2.0, |p| p.float());
    let steps = steps_of_norm(order).ok_or_else(|| Error::unsupported(format!("a norm of order {order}")))?;
    // The largest of nothing is 0 here.
    let steps = if rows.length == 0 && order == f64::INFINITY {
        steps_of_norm(1.0).unwrap_or(steps)
    } else {
        steps
    };
    if order == f64::NEG_INFINITY && rows.length == 0 && rows.count > 0 {
        return Err(Error::invalid("rows without elements have no smallest one"));
    }
    fold(e, (&x, &rows), steps, None, &out)
}

fn steps_of_norm(order: f64) -> Option<(Map, Combine, Last)> {
    if order == 0.0 {
        return Some((Map::Truth, Combine::Sum, Last::Itself));
    }
    if order == 1.0 {
        return Some((Map::Magnitude, Combine::Sum, Last::Itself));
    }
    if order == 2.0 {
        return Some((Map::Square, Combine::Sum, Last::Root));
    }
    if order == f64::INFINITY {
        return Some((Map::Magnitude, Combine::Max, Last::Itself));
    }
    if order == f64::NEG_INFINITY {
        return Some((Map::Magnitude, Combine::Min, Last::Itself));
    }
    None
}

/// True for element types that are computed in f32.
pub fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

fn dtypes(node: &NodeView<'_>) -> Result<(DType, DType), Refusal> {
    for value in node.inputs().chain(node.outputs().iter()) {
        let dtype = caps::dtype_of(node, value);
        if dtype.and_then(codes::code).is_none() {
            let name = dtype.map_or("no tensor".to_string(), |d| d.to_string());
            return Err(Refusal::dtype(format!("`{}` is not computed in {name}", node.op())));
        }
    }
    match (caps::dtype(node, 0), caps::output_dtype(node)) {
        (Some(x), Some(out)) => Ok((x, out)),
        _ => Err(Refusal::dtype(format!(
            "`{}` of something else than a tensor",
            node.op()
        ))),
    }
}

/// The input may be of any type that kernels read.
///
/// # Errors
/// Another type.
pub fn accept_any(node: &NodeView<'_>) -> Result<(), Refusal> {
    dtypes(node).map(|_| ())
}

/// Elements are converted to the output's type before they are combined: taken where that changes nothing but the range.
///
/// # Errors
/// Another conversion.
pub fn accept_sum(node: &NodeView<'_>) -> Result<(), Refusal> {
    let (x, out) = dtypes(node)?;
    let fits = match (is_float(x), is_float(out)) {
        (true, true) => x == out || out == DType::F32,
        (false, true) => out == DType::F32 || x == DType::BOOL,
        (false, false) => out != DType::BOOL,
        (true, false) => false,
    };
    match fits {
        true => Ok(()),
        false => Err(Refusal::dtype(format!("`{}` of {x} in {out}", node.op()))),
    }
}

fn accept_mean(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_sum(node)?;
    accept_to_float(node)
}

fn accept_to_float(node: &NodeView<'_>) -> Result<(), Refusal> {
    match dtypes(node)? {
        (_, out) if is_float(out) => Ok(()),
        (_, out) => Err(Refusal::dtype(format!("`{}` in {out}", node.op()))),
    }
}

fn accept_floats(node: &NodeView<'_>) -> Result<(), Refusal> {
    match dtypes(node)? {
        (x, out) if is_float(x) && is_float(out) => Ok(()),
        (x, out) => Err(Refusal::dtype(format!("`{}` of {x} in {out}", node.op()))),
    }
}

fn accept_norm(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_floats(node)?;
    accept_sum(node)?;
    let order = match node.arg(1) {
        argument if argument.is_none() => Some(2.0),
        argument => argument.float().or(argument.int().map(|i| i as f64)),
    };
    match order.and_then(steps_of_norm) {
        Some(_) => Ok(()),
        None => Err(Refusal::attribute("a norm of another order than 0, 1, 2 and infinity")),
    }
}

const fn row(
    name: &'static str,
    accept: fn(&NodeView<'_>) -> Result<(), Refusal>,
    encode: fn(&Node<'_>, &mut Encoder<'_>) -> Encoded,
) -> Operator {
    Operator { name, accept, encode }
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::sum", accept_sum, |n, e| {
        encode_fold(n, e, None, Map::Itself, Combine::Sum)
    }),
    row("aten::sum.dim_IntList", accept_sum, |n, e| {
        encode_fold(n, e, Some(1), Map::Itself, Combine::Sum)
    }),
    row("aten::nansum", accept_sum, |n, e| {
        encode_fold(n, e, Some(1), Map::NanAsZero, Combine::Sum)
    }),
    row("aten::prod", accept_sum, |n, e| {
        encode_fold(n, e, None, Map::Itself, Combine::Product)
    }),
    row("aten::prod.dim_int", accept_sum, |n, e| {
        encode_fold(n, e, Some(1), Map::Itself, Combine::Product)
    }),
    row("aten::mean", accept_mean, |n, e| encode_mean(n, e, None)),
    row("aten::mean.dim", accept_mean, |n, e| encode_mean(n, e, Some(1))),
    row("aten::amax", accept_any, |n, e| encode_extreme(n, e, Some(1), false)),
    row("aten::amin", accept_any, |n, e| encode_extreme(n, e, Some(1), true)),
    row("aten::max", accept_any, |n, e| encode_extreme(n, e, None, false)),
    row("aten::min", accept_any, |n, e| encode_extreme(n, e, None, true)),
    row("aten::max.dim", accept_any, |n, e| encode_with_place(n, e, false)),
    row("aten::min.dim", accept_any, |n, e| encode_with_place(n, e, true)),
    row("aten::aminmax", accept_any, encode_both),
    row("aten::argmax", accept_any, |n, e| encode_place(n, e, false)),
    row("aten::argmin", accept_any, |n, e| encode_place(n, e, true)),
    row("aten::any", accept_any, |n, e| encode_truth(n, e, None, Combine::Max)),
    row("aten::any.dim", accept_any, |n, e| {
        encode_truth(n, e, Some(1), Combine::Max)
    }),
    row("aten::any.dims", accept_any, |n, e| {
        encode_truth(n, e, Some(1), Combine::Max)
    }),
    row("aten::all", accept_any, |n, e| encode_truth(n, e, None, Combine::Min)),
    row("aten::all.dim", accept_any, |n, e| {
        encode_truth(n, e, Some(1), Combine::Min)
    }),
    row("aten::all.dims", accept_any, |n, e| {
        encode_truth(n, e, Some(1), Combine::Min)
    }),
    row("aten::count_nonzero", accept_any, encode_count),
    row("aten::count_nonzero.dim_IntList", accept_any, encode_count),
    row("aten::trace", accept_sum, encode_trace),
    row("aten::logsumexp", accept_to_float, encode_log_sum_exp),
    row("aten::linalg_vector_norm", accept_norm, encode_norm),
    row("aten::norm.ScalarOpt_dim", accept_norm, encode_norm),
    row("aten::var", accept_floats, |n, e| {
        encode_spread(n, e, &spread(None, 1, false, false))
    }),
    row("aten::var.dim", accept_floats, |n, e| {
        encode_spread(n, e, &spread(Some(1), 2, false, false))
    }),
    row("aten::var.correction", accept_floats, |n, e| {
        encode_spread(n, e, &spread(Some(1), 2, false, false))
    }),
    row("aten::std", accept_floats, |n, e| {
        encode_spread(n, e, &spread(None, 1, true, false))
    }),
    row("aten::std.dim", accept_floats, |n, e| {
        encode_spread(n, e, &spread(Some(1), 2, true, false))
    }),
    row("aten::std.correction", accept_floats, |n, e| {
        encode_spread(n, e, &spread(Some(1), 2, true, false))
    }),
    row("aten::var_mean", accept_floats, |n, e| {
        encode_spread(n, e, &spread(None, 1, false, true))
    }),
    row("aten::var_mean.dim", accept_floats, |n, e| {
        encode_spread(n, e, &spread(Some(1), 2, false, true))
    }),
    row("aten::var_mean.correction", accept_floats, |n, e| {
        encode_spread(n, e, &spread(Some(1), 2, false, true))
    }),
    row("aten::std_mean", accept_floats, |n, e| {
        encode_spread(n, e, &spread(None, 1, true, true))
    }),
    row("aten::std_mean.dim", accept_floats, |n, e| {
        encode_spread(n, e, &spread(Some(1), 2, true, true))
    }),
    row("aten::std_mean.correction", accept_floats, |n, e| {
        encode_spread(n, e, &spread(Some(1), 2, true, true))
    }),
];

const fn spread(dims: Option<usize>, correction: usize, root: bool, mean: bool) -> Spread {
    Spread {
        dims,
        correction,
        root,
        mean,
    }
}
