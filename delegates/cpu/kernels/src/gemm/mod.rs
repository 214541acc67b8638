//! Products of matrices of `f32`: `C[m, n] = epilogue(A[m, k] * W[k, n])`.
//!
//! [`gemm`] takes weights that were packed ahead of time ([`pack`]), in `f32`, `f16` or `bf16`; [`matmul`] takes two activations, and packs the
//! right one in the caller's scratch. Each sum goes from the first term to the last in one chain of fused products, so that its bits depend
//! on neither the number of rows, nor of threads, nor the width of panels. Two exceptions: the scalar form rounds product and sum one after the
//! other, and [`matmul`] sums up to four rows by a transposed matrix lane by lane.

pub(crate) mod drive;
pub(crate) mod finish;
mod matmul;
mod pack;
pub(crate) mod rows;
mod tile;

pub use matmul::{Batch, matmul, scratch_len};
pub use pack::{Packed, Stored, pack, pack_matrix, packed_len, width_for};

use crate::pool::{Pool, Shared};
use crate::{Epilogue, Isa};
use drive::Job;
use finish::Finish;
use rows::Rows;

/// The last element of rows, and one.
pub(crate) fn extent(rows: usize, columns: usize, stride: usize) -> usize {
    match (rows, columns) {
        (0, _) | (_, 0) => 0,
        _ => (rows - 1) * stride + columns,
    }
}

/// `out[m, n] = epilogue(a[m, k] * weights[k, n])`. Row `i` of `a` begins at `i * a_stride`, of `out` at `i * out_stride`, of the residual at
/// `i * residual_stride`; nothing between rows of `out` is touched.
///
/// # Panics
/// If a slice is too short for that, or the width of panels is not 8, 16 or 32.
pub fn gemm(
    isa: Isa,
    pool: &dyn Pool,
    m: usize,
    a: &[f32],
    a_stride: usize,
    weights: &Packed<'_>,
    out: &mut [f32],
    out_stride: usize,
    epilogue: &Epilogue<'_>,
    residual_stride: usize,
) {
    let &Packed { stored, k, n, width } = weights;
    assert!(matches!(width, 8 | 16 | 32), "panels of {width} columns");
    assert!(a.len() >= extent(m, k, a_stride), "too few rows");
    assert!(stored.len() >= packed_len(k, n, width), "too few weights");
    assert!(out.len() >= extent(m, n, out_stride), "too short an output");
    assert!(m < 2 || out_stride >= n, "rows of the output overlap");
    check(epilogue, m, n, residual_stride);
    let job = Job {
        source: Rows::plain(a.as_ptr(), a_stride),
        rows: m,
        positions: 1,
        depth: k,
        weights: stored,
        n,
        width,
        step: width,
        panel: k * width,
        out: Shared::new(out),
        out_stride,
        finish: Finish::new(epilogue, residual_stride),
    };
    // SAFETY: the lengths are checked above, and the output is borrowed.
    unsafe { drive::run(isa, pool, &job) };
}

/// Panics if bias or residual are too short.
pub(crate) fn check(epilogue: &Epilogue<'_>, rows: usize, columns: usize, stride: usize) {
    assert!(
        epilogue.bias.is_none_or(|bias| bias.len() >= columns),
        "too short a bias"
    );
    let fits = epilogue
        .residual
        .is_none_or(|residual| residual.len() >= extent(rows, columns, stride));
    assert!(fits, "too short a residual");
}

#[cfg(test)]
pub(crate) mod tests;
