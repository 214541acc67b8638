//! Softmax and its logarithm along one dimension.

use crate::columns::{Columns, Layout};
use crate::elementwise::{check_category, with_real};
use crate::lanes::{Lane, Writer};
use crate::math::Real;
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows, Starts, pieces};
use crate::stage::{dim_of, parts};
use crate::vector::Bulk;
use crate::{Call, KernelError, Out, Scratch};
use delegraph_types::DType;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_log_softmax.out", |call| half_to_float(call, true)),
    ("aten::_softmax.out", |call| half_to_float(call, false)),
    ("aten::log_softmax.int_out", |call| to_dtype(call, true)),
    ("aten::softmax.int_out", |call| to_dtype(call, false)),
];

fn half_to_float(call: &mut Call, logarithm: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?.dtype();
    let dtype = if call.bool(2)? { DType::F32 } else { input };
    softmax(call, dtype, logarithm)
}

fn to_dtype(call: &mut Call, logarithm: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?.dtype();
    let natural = if input.is_float() { input } else { DType::F32 };
    let dtype = call.optional_dtype(2)?.unwrap_or(natural);
    softmax(call, dtype, logarithm)
}

fn softmax(call: &mut Call, dtype: DType, logarithm: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let dim = dim_of(input.sizes(), call.int(1)?, "dim")?;
    let set = DimSet::one(dim);
    let (out, scratch) = parts(call, 0)?;
    check_category(out, 0, dtype)?;
    out.resize(input.sizes())?;
    with_real!(dtype, "self", W => {
        if let Some(columns) = Columns::<W>::of(input, set)
            && let Some(targets) = Layout::of(out.sizes(), &out.strides(), set)
            && columns.width() == targets.width()
        {
            return across(columns, targets, set, out, scratch, logarithm);
        }
        let mut rows = Rows::<W>::new(input, set);
        let len = rows.len();
        let row = scratch.elements::<W>(len)?;
        let (sizes, strides) = (*out.sizes(), out.strides());
        let mut starts = Starts::new(&sizes, &strides, set);
        let mut writer = Writer::<W>::new(&set.inside(&sizes), &set.inside(&strides));
        while rows.advance() {
            rows.copy_to(row)?;
            let largest = W::largest(row);
            writer.seek(starts.next().unwrap_or(0));
            if logarithm {
                let shift = Real::ln(W::sum_of_exps(row, largest)) as W;
                pieces(len, |from, count| writer.write(out, count, |slots| {
                    for (slot, &x) in slots.iter_mut().zip(&row[from..]) {
                        *slot = x - largest - shift;
                    }
                }))?;
            } else {
                let scale = (1.0 / W::shifted_exps(row, largest)) as W;
                pieces(len, |from, count| writer.write(out, count, |slots| {
                    for (slot, &x) in slots.iter_mut().zip(&row[from..]) {
                        *slot = x * scale;
                    }
                }))?;
            }
        }
        Ok(())
    })
}

/// Neighbours that are worked on together: a few lines of the first cache for each element of a row.
const GROUP: usize = 64;

/// Along a dimension that is not the last.
fn across<W: Bulk + Lane>(
    columns: Columns<W>,
    targets: Layout,
    set: DimSet,
    out: &mut Out,
    scratch: &mut Scratch,
    logarithm: bool,
) -> Result<(), KernelError> {
    let len = set.inside(out.sizes()).numel().unwrap_or(0);
    let width = columns.width().min(GROUP);
    let block = scratch.elements::<W>(len.saturating_add(1).saturating_mul(width))?;
    let (block, row) = block.split_at_mut(len * width);
    let mut writer = Writer::<W>::new(&[columns.width() as i64], &[1]);
    columns.groups_with(targets, GROUP, |reader, (start, steps), (to, to_steps), count| {
        let (mut largest, mut sums) = ([W::LOWEST; GROUP], [0f64; GROUP]);
        let row = &mut row[..count];
        for (slots, offset) in block.chunks_exact_mut(width).zip(steps) {
            reader.seek(start + offset);
            slots[..count].copy_from_slice(reader.read(count)?);
            for (most, &x) in largest.iter_mut().zip(&slots[..count]) {
                *most = most.larger(x);
            }
        }
        for slots in block.chunks_exact_mut(width) {
            let slots = &mut slots[..count];
            for (x, &most) in slots.iter_mut().zip(&largest) {
                *x = x.minus(most);
            }
            W::exps(slots, row);
            for (sum, &x) in sums.iter_mut().zip(&*row) {
                *sum += x.to_f64();
            }
            if !logarithm {
                slots.copy_from_slice(row);
            }
        }
        for sum in &mut sums {
            *sum = if logarithm { Real::ln(*sum) } else { 1.0 / *sum };
        }
        for (slots, offset) in block.chunks_exact(width).zip(to_steps) {
            writer.seek(to + offset);
            writer.write(out, count, |results| {
                for ((result, &x), &sum) in results.iter_mut().zip(slots).zip(&sums) {
                    let sum = W::from_f64(sum);
                    *result = if logarithm { x.minus(sum) } else { x.times(sum) };
                }
            })?;
        }
        Ok(())
    })
}
