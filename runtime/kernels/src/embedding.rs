//! Rows looked up by index.

use crate::lanes::Walk;
use crate::registry::Kernel;
use crate::remap::index_at;
use crate::stage::{Arena, bytes_of, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::strided::Move;
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::Dims;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::embedding.out", embedding),
    ("aten::embedding_dense_backward.out", gradient),
];

/// The offsets of the elements of a strided tensor in row-major order.
pub(crate) struct Offsets {
    walk: Walk,
    /// Elements after the present run.
    left: usize,
    /// Where the next element of the run is, how far apart they are, and how many are left of it.
    at: usize,
    stride: usize,
    run: usize,
}

impl Offsets {
    /// Over `sizes` with `strides` of one length.
    pub fn new(sizes: &Dims, strides: &Dims) -> Offsets {
        Offsets {
            walk: Walk::new(sizes, strides),
            left: sizes.numel().unwrap_or(0),
            at: 0,
            stride: 0,
            run: 0,
        }
    }

    /// Over the elements of a tensor.
    pub fn of(tensor: &Tensor) -> Offsets {
        Offsets::new(tensor.sizes(), tensor.strides())
    }
}

impl Iterator for Offsets {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.run == 0 {
            if self.left == 0 {
                return None;
            }
            (self.at, self.stride, self.run) = self.walk.run(self.left);
            self.left -= self.run;
        }
        let now = self.at;
        self.run -= 1;
        self.at = self.at.wrapping_add(self.stride);
        Some(now)
    }
}

/// An index into a dimension of `size`, which must not be negative.
///
/// # Errors
/// It is out of range.
pub(crate) fn row_index(at: i64, size: i64) -> Result<i64, KernelError> {
    if (0..size).contains(&at) {
        return Ok(at);
    }
    Err(KernelError::invalid(
        "indices",
        format!("index {at} is out of range for {size} rows"),
    ))
}

fn embedding(call: &mut Call) -> Result<(), KernelError> {
    let (weight, indices) = (call.tensor(0)?, call.tensor(1)?);
    let &[rows, columns] = weight.sizes().as_slice() else {
        return Err(KernelError::invalid(
            "weight",
            format!("a tensor of {} is no table of rows", weight.sizes()),
        ));
    };
    let mut sizes = *indices.sizes();
    sizes
        .push(columns)
        .map_err(|error| KernelError::invalid("indices", format!("{error}")))?;
    let sizes = dims_of(&sizes, "indices")?;
    let out = call.out(0)?;
    expect_dtype(out, 0, weight.dtype())?;
    out.resize(&sizes)?;
    let row = |offset: usize| row_index(index_at(&indices, offset, "indices")?, rows);
    if sizes.numel() == Some(0) {
        return Offsets::of(&indices).try_for_each(|at| row(at).map(drop));
    }
    let strides = out.strides();
    let Some((&column_stride, row_strides)) = strides.split_last() else {
        return Ok(());
    };
    let plan = Move::of(&[columns], &weight.strides()[1..], &[column_stride])?;
    let row_strides = dims_of(row_strides, "out")?;
    let targets = Offsets::new(indices.sizes(), &row_strides);
    let size = weight.dtype().size();
    if weight.strides()[1] == 1 && column_stride == 1 {
        // Whole rows, of which a plan would cost as much as the copy.
        let width = columns as usize * size;
        for (from, to) in Offsets::of(&indices).zip(targets) {
            let start = (row(from)? * weight.strides()[0]) as usize * size;
            let source = weight.bytes().get(start..start.saturating_add(width));
            let target = out.bytes_mut().get_mut(to * size..(to * size).saturating_add(width));
            let (Some(source), Some(target)) = (source, target) else {
                return Err(KernelError::invalid("weight", "a row that leaves the memory"));
            };
            target.copy_from_slice(source);
        }
        return Ok(());
    }
    for (from, to) in Offsets::of(&indices).zip(targets) {
        let start = (row(from)? * weight.strides()[0]) as usize;
        plan.copy_bytes(size, weight.bytes(), start, out.bytes_mut(), to)?;
    }
    Ok(())
}

/// `(grad_output, indices, num_weights, padding_idx, scale_grad_by_freq)`: each row's gradient is the sum of those of its uses,
/// or their mean.
fn gradient(call: &mut Call) -> Result<(), KernelError> {
    let (gradient, indices) = (call.tensor(0)?, call.tensor(1)?);
    let (rows, padding, mean) = (call.int(2)?, call.int(3)?, call.bool(4)?);
    let (Some(&columns), true) = (
        gradient.sizes().last(),
        gradient.sizes().starts_with(indices.sizes()) && gradient.rank() == indices.rank() + 1,
    ) else {
        return Err(KernelError::invalid(
            "grad_output",
            format!("a tensor of {} for indices of {}", gradient.sizes(), indices.sizes()),
        ));
    };
    let sizes = dims_of(&[rows, columns], "num_weights")?;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, gradient.dtype())?;
    out.resize(&sizes)?;
    let uses = if mean { rows as usize } else { 0 };
    let bytes = [
        load_bytes::<f64>(&gradient),
        load_bytes::<i64>(&indices),
        out_bytes::<f64>(out),
        bytes_of::<f64>(uses),
    ];
    let mut arena = Arena::new(scratch, bytes.into_iter().fold(0, usize::saturating_add))?;
    let (gradient, indices) = (arena.load::<f64>(&gradient)?, arena.load::<i64>(&indices)?);
    let uses = arena.take::<f64>(uses)?;
    uses.fill(0.0);
    let columns = columns as usize;
    produce::<f64>(out, &mut arena, |slots, _| {
        slots.fill(0.0);
        for (at, &index) in indices.iter().enumerate() {
            let row = row_index(index, rows)? as usize;
            if index == padding {
                continue;
            }
            if mean {
                uses[row] += 1.0;
            }
            let slots = &mut slots[row * columns..(row + 1) * columns];
            for (slot, x) in slots.iter_mut().zip(&gradient[at * columns..]) {
                *slot += x;
            }
        }
        for (row, &uses) in uses.iter().enumerate().filter(|(_, uses)| **uses > 1.0) {
            slots[row * columns..(row + 1) * columns]
                .iter_mut()
                .for_each(|slot| *slot /= uses);
        }
        Ok(())
    })
}
