//! Sorting rows, and what follows from it: the k largest, the k-th, the median and the most frequent element.
//!
//! NaN is larger than every number, and equal elements keep their order.

use crate::elementwise::check_category;
use crate::lanes::Writer;
use crate::reduce::{Dims, dims_at};
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows, Starts, pieces, shape_reduced, with_accumulator};
use crate::stage::dim_of;
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError, Scratch, Tensor};
use alloc::format;
use core::cmp::Ordering;
use delegraph_types::DType;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::argsort.stable_out", argsort),
    ("aten::kthvalue.values", kth_value),
    ("aten::median.dim_values", |call| median(call, Dims::One)),
    ("aten::median.out", |call| median(call, Dims::All)),
    ("aten::mode.values", mode),
    ("aten::msort.out", msort),
    ("aten::sort.values", |call| sort(call, 1, 2)),
    ("aten::sort.values_stable", |call| sort(call, 2, 3)),
    ("aten::topk.values", topk),
];

/// Elements that are looked at together before one of them is taken.
const SCANNED: usize = 32;

fn compare<W: Wide>(a: W, b: W) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// A row and the order of its elements.
struct Sorted<'s, W> {
    values: &'s mut [W],
    order: &'s mut [i64],
}

impl<'s, W: Wide> Sorted<'s, W> {
    /// Scratch for rows of `len`; elements have at most 8 bytes.
    fn new(scratch: &'s mut Scratch, len: usize) -> Result<Sorted<'s, W>, KernelError> {
        let words = scratch.elements::<i64>(len.saturating_mul(2))?;
        let (values, order) = words.split_at_mut(len);
        let values = bytemuck::try_cast_slice_mut(values).map_err(|_| KernelError::OutOfMemory(len))?;
        // Twice as many where an element has 4 bytes.
        let values = &mut values[..len];
        Ok(Sorted { values, order })
    }

    /// Takes the present row and puts the first `keep` of the order in their places.
    fn take(&mut self, rows: &mut Rows<W>, descending: bool, keep: usize) -> Result<(), KernelError> {
        rows.copy_to(self.values)?;
        if keep > 0 && keep <= self.order.len() / 8 {
            self.shortlist(descending, keep);
            return Ok(());
        }
        for (place, slot) in self.order.iter_mut().enumerate() {
            *slot = place as i64;
        }
        let values = &*self.values;
        let before = |&a: &i64, &b: &i64| {
            let (x, y) = (values[a as usize], values[b as usize]);
            let order = if descending { compare(y, x) } else { compare(x, y) };
            order.then(a.cmp(&b))
        };
        if keep < self.order.len() && keep > 0 {
            self.order.select_nth_unstable_by(keep - 1, before);
        }
        self.order[..keep.min(values.len())].sort_unstable_by(before);
        Ok(())
    }

    /// [`Sorted::take`] of few elements: one pass over the row with a list of twice as many, which is cut to half when it is full.
    fn shortlist(&mut self, descending: bool, keep: usize) {
        let values = &*self.values;
        let before = |&a: &i64, &b: &i64| {
            let (x, y) = (values[a as usize], values[b as usize]);
            let order = if descending { compare(y, x) } else { compare(x, y) };
            order.then(a.cmp(&b))
        };
        let list = &mut self.order[..2 * keep];
        let mut have = 0usize;
        // The last of those that are kept. What is equal to it comes after it.
        let mut limit: Option<W> = None;
        let mut start = 0usize;
        for chunk in values.chunks(SCANNED) {
            let wanted = |x: W, limit: W| match descending {
                true => x > limit || Wide::is_nan(x) && !Wide::is_nan(limit),
                false => x < limit || Wide::is_nan(limit) && !Wide::is_nan(x),
            };
            let found = limit.is_none_or(|limit| chunk.iter().fold(false, |found, &x| found | wanted(x, limit)));
            if found {
                for (i, &x) in chunk.iter().enumerate() {
                    if limit.is_none_or(|limit| wanted(x, limit)) {
                        list[have] = (start + i) as i64;
                        have += 1;
                    }
                    if have == list.len() {
                        let (_, last, _) = list.select_nth_unstable_by(keep - 1, before);
                        limit = Some(values[*last as usize]);
                        have = keep;
                    }
                }
            }
            start += chunk.len();
        }
        // A row has eight times as many elements as are kept, so the list has been full.
        list[..have].sort_unstable_by(before);
    }

    /// The element and its place at `rank` of the order.
    fn at(&self, rank: usize) -> (W, i64) {
        let place = self.order.get(rank).copied().unwrap_or(0);
        (self.values.get(place as usize).copied().unwrap_or(W::ZERO), place)
    }
}

/// Writes the first `keep` of each sorted row to the outputs that are asked for.
fn sort_rows(
    call: &mut Call,
    input: Tensor,
    dim: usize,
    descending: bool,
    keep: usize,
    (values_out, order_out): (Option<usize>, Option<usize>),
) -> Result<(), KernelError> {
    // Computed in `i64`, where the upper half of its numbers is negative.
    if input.dtype() == DType::U64 {
        return Err(KernelError::unsupported("self", format!("dtype {}", input.dtype())));
    }
    let set = DimSet::one(dim);
    let mut sizes = *input.sizes();
    if let Some(size) = sizes.get_mut(dim) {
        *size = keep as i64;
    }
    for index in [values_out, order_out].into_iter().flatten() {
        call.out(index)?.resize(&sizes)?;
    }
    if let Some(index) = values_out {
        check_category(call.out(index)?, index, input.dtype())?;
    }
    let layout = |call: &mut Call, index: Option<usize>| {
        let strides = call.out(index.unwrap_or(0))?.strides();
        Ok::<_, KernelError>((Starts::new(&sizes, &strides, set), set.inside(&strides)))
    };
    let (mut value_starts, value_strides) = layout(call, values_out)?;
    let (mut order_starts, order_strides) = layout(call, order_out)?;
    let row = set.inside(&sizes);
    with_wide!(input.dtype(), "self", W => {
        let mut rows = Rows::<W>::new(input, set);
        let mut values = Writer::<W>::new(&row, &value_strides);
        let mut order = Writer::<i64>::new(&row, &order_strides);
        let Call { outs, scratch, .. } = call;
        let mut sorted = Sorted::<W>::new(scratch, rows.len())?;
        while rows.advance() {
            sorted.take(&mut rows, descending, keep)?;
            values.seek(value_starts.next().unwrap_or(0));
            order.seek(order_starts.next().unwrap_or(0));
            pieces(keep, |from, count| {
                if let Some(out) = values_out.and_then(|index| outs.get_mut(index)) {
                    values.write(out, count, |slots| {
                        for (i, slot) in slots.iter_mut().enumerate() {
                            *slot = sorted.at(from + i).0;
                        }
                    })?;
                }
                if let Some(out) = order_out.and_then(|index| outs.get_mut(index)) {
                    order.write(out, count, |slots| slots.copy_from_slice(&sorted.order[from..from + count]))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// Size of a dimension; a 0-dim tensor has one element along it.
fn size_of_dim(input: &Tensor, dim: usize) -> usize {
    input.sizes().get(dim).map_or(1, |&size| size as usize)
}

fn sort(call: &mut Call, dim_index: usize, descending_index: usize) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let dim = dim_of(input.sizes(), call.optional_int(dim_index)?.unwrap_or(-1), "dim")?;
    let descending = call.bool(descending_index)?;
    sort_rows(
        call,
        input,
        dim,
        descending,
        size_of_dim(&input, dim),
        (Some(0), Some(1)),
    )
}

fn argsort(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let dim = dim_of(input.sizes(), call.optional_int(2)?.unwrap_or(-1), "dim")?;
    let descending = call.bool(3)?;
    sort_rows(call, input, dim, descending, size_of_dim(&input, dim), (None, Some(0)))
}

fn msort(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    sort_rows(call, input, 0, false, size_of_dim(&input, 0), (Some(0), None))
}

fn topk(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let k = call.int(1)?;
    let dim = dim_of(input.sizes(), call.optional_int(2)?.unwrap_or(-1), "dim")?;
    let largest = call.is_none(3) || call.bool(3)?;
    let size = size_of_dim(&input, dim);
    match usize::try_from(k) {
        Ok(keep) if keep <= size => sort_rows(call, input, dim, largest, keep, (Some(0), Some(1))),
        _ => Err(KernelError::invalid("k", format!("{k} elements of {size}"))),
    }
}

/// Gives one element of each row, with its place where there is a second output.
fn pick(
    call: &mut Call,
    set: DimSet,
    keepdim: bool,
    choose: impl Fn(&mut dyn Row) -> (usize, bool),
) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    if set.inside(input.sizes()).contains(&0) {
        return Err(KernelError::invalid(
            "self",
            format!("no element to choose in a shape of {}", input.sizes()),
        ));
    }
    for out in call.outs.iter_mut() {
        shape_reduced(out, &input, set, keepdim)?;
    }
    check_category(call.out(0)?, 0, input.dtype())?;
    with_accumulator!(input.dtype(), "self", W => {
        let mut rows = Rows::<W>::new(input, set);
        let len = rows.len();
        let Call { outs, scratch, .. } = call;
        let mut sorted = Sorted::<W>::new(scratch, len)?;
        let mut values = outs.first().map(Writer::<W>::whole);
        let mut places = outs.get(1).map(Writer::<i64>::whole);
        while rows.advance() {
            sorted.take(&mut rows, false, len)?;
            let (rank, nan) = choose(&mut sorted);
            // The first NaN of the row comes first among those at the end of the order.
            let first_nan = (0..len).rev().take_while(|&rank| Wide::is_nan(sorted.at(rank).0)).last();
            let (value, place) = sorted.at(first_nan.filter(|_| nan).unwrap_or(rank));
            if let (Some(writer), Some(out)) = (&mut values, outs.get_mut(0)) {
                writer.push(out, value)?;
            }
            if let (Some(writer), Some(out)) = (&mut places, outs.get_mut(1)) {
                writer.push(out, place)?;
            }
        }
        Ok(())
    })
}

/// A sorted row, whatever its type.
trait Row {
    fn len(&self) -> usize;
    fn equal(&self, a: usize, b: usize) -> bool;
}

impl<W: Wide> Row for Sorted<'_, W> {
    fn len(&self) -> usize {
        self.order.len()
    }
    fn equal(&self, a: usize, b: usize) -> bool {
        compare(self.at(a).0, self.at(b).0) == Ordering::Equal
    }
}

fn kth_value(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let k = call.int(1)?;
    let dim = dim_of(input.sizes(), call.optional_int(2)?.unwrap_or(-1), "dim")?;
    let keepdim = call.bool(3)?;
    if k < 1 || k > size_of_dim(&input, dim) as i64 {
        return Err(KernelError::invalid(
            "k",
            format!("element {k} of {}", size_of_dim(&input, dim)),
        ));
    }
    pick(call, DimSet::one(dim), keepdim, |_| (k as usize - 1, false))
}

/// The lower one of two medians; NaN where there is one.
fn median(call: &mut Call, dims: Dims) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, dims, 1)?;
    pick(call, set, keepdim, |row| (row.len().saturating_sub(1) / 2, true))
}

/// The most frequent element, the smallest of several; its last place.
fn mode(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let dim = dim_of(input.sizes(), call.optional_int(1)?.unwrap_or(-1), "dim")?;
    let keepdim = call.bool(2)?;
    pick(call, DimSet::one(dim), keepdim, |row| {
        let (mut best, mut best_count, mut start) = (0usize, 0usize, 0usize);
        for rank in 0..row.len() {
            if !row.equal(start, rank) {
                start = rank;
            }
            if rank - start + 1 > best_count {
                (best, best_count) = (rank, rank - start + 1);
            }
        }
        (best, false)
    })
}
