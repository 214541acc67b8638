//! Rows looked up by index.

use crate::registry::Kernel;
use crate::remap::index_at;
use crate::stage::{dims_of, expect_dtype};
use crate::strided::Move;
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{Dims, MAX_RANK};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[("aten::embedding.out", embedding)];

/// Walks the elements of a strided tensor in row-major order and gives their offsets.
pub(crate) struct Offsets {
    sizes: Dims,
    strides: Dims,
    index: [i64; MAX_RANK],
    at: i64,
    left: usize,
}

impl Offsets {
    /// Over `sizes` with `strides` of one length.
    pub fn new(sizes: &Dims, strides: &Dims) -> Offsets {
        Offsets {
            sizes: *sizes,
            strides: *strides,
            index: [0; MAX_RANK],
            at: 0,
            left: sizes.numel().unwrap_or(0),
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
        self.left = self.left.checked_sub(1)?;
        let now = self.at;
        for d in (0..self.sizes.rank()).rev() {
            self.index[d] += 1;
            self.at += self.strides[d];
            if self.index[d] < self.sizes[d] {
                break;
            }
            self.at -= self.strides[d] * self.sizes[d];
            self.index[d] = 0;
        }
        Some(now as usize)
    }
}

/// An index into a dimension of `size`, which must not be negative.
///
/// # Errors
/// It is out of range.
pub(crate) fn row_index(indices: &Tensor, offset: usize, size: i64) -> Result<i64, KernelError> {
    let at = index_at(indices, offset, "indices")?;
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
    if sizes.numel() == Some(0) {
        return Offsets::of(&indices).try_for_each(|at| row_index(&indices, at, rows).map(drop));
    }
    let strides = out.strides();
    let Some((&column_stride, row_strides)) = strides.split_last() else {
        return Ok(());
    };
    let plan = Move::of(&[columns], &weight.strides()[1..], &[column_stride])?;
    let row_strides = dims_of(row_strides, "out")?;
    let targets = Offsets::new(indices.sizes(), &row_strides);
    for (from, to) in Offsets::of(&indices).zip(targets) {
        let row = row_index(&indices, from, rows)?;
        let start = (row * weight.strides()[0]) as usize;
        plan.copy_bytes(weight.dtype().size(), weight.bytes(), start, out.bytes_mut(), to)?;
    }
    Ok(())
}
