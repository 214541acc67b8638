//! Distances between rows: `_cdist_forward` and `_pdist_forward`.

use crate::embedding::Offsets;
use crate::math::Real;
use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, count, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{Dims, MAX_RANK};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_cdist_forward.out", between),
    ("aten::_pdist_forward.out", within),
];

/// The p-norm of the difference of two rows.
fn distance(a: &[f64], b: &[f64], p: f64) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    if p == 0.0 {
        differences.fold(0.0, |sum, x| sum + f64::from(u8::from(x != 0.0)))
    } else if p == 1.0 {
        differences.fold(0.0, |sum, x| sum + x)
    } else if p == 2.0 {
        Real::sqrt(differences.fold(0.0, |sum, x| sum + x * x))
    } else if p == f64::INFINITY {
        differences.fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
    } else {
        let sum = differences.fold(0.0, |sum, x| sum + crate::math::Num::power(x, p));
        crate::math::Num::power(sum, 1.0 / p)
    }
}

fn norm_of(call: &Call, index: usize) -> Result<f64, KernelError> {
    let p = call.float(index)?;
    if p >= 0.0 {
        return Ok(p);
    }
    Err(KernelError::invalid("p", format!("a norm of {p}")))
}

/// Rows and columns of the matrices that a tensor is a batch of.
fn matrices<'a>(tensor: &'a Tensor, argument: &'static str) -> Result<(&'a [i64], i64, i64), KernelError> {
    match tensor.sizes().as_slice() {
        [batch @ .., rows, columns] => Ok((batch, *rows, *columns)),
        _ => Err(KernelError::invalid(
            argument,
            format!("a tensor of {} has no rows", tensor.sizes()),
        )),
    }
}

/// `(x1 [..., p, m], x2 [..., r, m], p, compute_mode)`: `[..., p, r]`. The mode is a choice of algorithm, not of the result.
fn between(call: &mut Call) -> Result<(), KernelError> {
    let (a, b, p) = (call.tensor(0)?, call.tensor(1)?, norm_of(call, 2)?);
    let (a_batch, a_rows, columns) = matrices(&a, "x1")?;
    let (b_batch, b_rows, b_columns) = matrices(&b, "x2")?;
    let batch = dims_of(a_batch, "x1")?.broadcast(&dims_of(b_batch, "x2")?);
    let (Some(batch), true) = (batch, columns == b_columns) else {
        return Err(KernelError::invalid(
            "x2",
            format!("a tensor of {} for one of {}", b.sizes(), a.sizes()),
        ));
    };
    let mut sizes = [0i64; MAX_RANK];
    let rank = batch.rank() + 2;
    sizes[..rank - 2].copy_from_slice(&batch);
    sizes[rank - 2..rank].copy_from_slice(&[a_rows, b_rows]);
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, a.dtype())?;
    out.resize(&dims_of(&sizes[..rank], "x1")?)?;
    let bytes = load_bytes::<f64>(&a)
        .saturating_add(load_bytes::<f64>(&b))
        .saturating_add(out_bytes::<f64>(out));
    let mut arena = Arena::new(scratch, bytes)?;
    let (a_data, b_data) = (arena.load::<f64>(&a)?, arena.load::<f64>(&b)?);
    let (a_rows, b_rows, columns) = (a_rows as usize, b_rows as usize, columns as usize);
    let starts = Offsets::new(&batch, &repeated(&batch, a_batch)).zip(Offsets::new(&batch, &repeated(&batch, b_batch)));
    produce::<f64>(out, &mut arena, |slots, _| {
        if a_rows * b_rows == 0 {
            return Ok(());
        }
        for (slots, (i, j)) in slots.chunks_mut(a_rows * b_rows).zip(starts) {
            for (i, slots) in (i * a_rows..).zip(slots.chunks_mut(b_rows)) {
                for (j, slot) in (j * b_rows..).zip(slots) {
                    *slot = distance(
                        &a_data[i * columns..(i + 1) * columns],
                        &b_data[j * columns..(j + 1) * columns],
                        p,
                    );
                }
            }
        }
        Ok(())
    })
}

/// Strides of contiguous sizes broadcast to others.
fn repeated(to: &Dims, from: &[i64]) -> Dims {
    let mut strides = Dims::filled(to.rank(), 0);
    let lead = to.rank() - from.len();
    for d in 0..from.len() {
        if from[d] != 1 {
            strides[lead + d] = count(&from[d + 1..]) as i64;
        }
    }
    strides
}

/// `(self [n, m], p)`: every pair of rows once.
fn within(call: &mut Call) -> Result<(), KernelError> {
    let (input, p) = (call.tensor(0)?, norm_of(call, 1)?);
    let &[rows, columns] = input.sizes().as_slice() else {
        return Err(KernelError::invalid(
            "self",
            format!("a tensor of {} is no matrix", input.sizes()),
        ));
    };
    let pairs = rows.saturating_mul((rows - 1).max(0)) / 2;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, input.dtype())?;
    out.resize(&dims_of(&[pairs], "self")?)?;
    let bytes = load_bytes::<f64>(&input).saturating_add(bytes_of::<f64>(pairs as usize));
    let mut arena = Arena::new(scratch, bytes)?;
    let data = arena.load::<f64>(&input)?;
    let (rows, columns) = (rows as usize, columns as usize);
    let row = |i: usize| &data[i * columns..(i + 1) * columns];
    produce::<f64>(out, &mut arena, |slots, _| {
        let pairs = (0..rows).flat_map(|i| (i + 1..rows).map(move |j| (i, j)));
        for (slot, (i, j)) in slots.iter_mut().zip(pairs) {
            *slot = distance(row(i), row(j), p);
        }
        Ok(())
    })
}
