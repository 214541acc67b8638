//! Linear layers: on bytes, and on floats whose rows are made bytes here, each by a scale of its own.

use super::direct::Reach;
use super::gemm::{Job, scratch_len};
use super::stage::Place;
use super::{Bytes, Stage, Target, Weights};
use crate::pool::Pool;
use crate::quant::Dot;
use crate::quant::dynamic::{RowShape, Scheme, quantize_rows};

/// Where rows of `inputs` bytes lie, `pitch` from one to the next. The last may be too near the end.
fn rows_of(bytes: &[u8], inputs: usize, pitch: usize) -> impl Fn(usize, &mut [*const u8]) -> usize + Sync + '_ {
    let most = (bytes.len() + 1).saturating_sub(inputs.next_multiple_of(4));
    move |first, to| {
        let mut missing = 0;
        for (r, to) in to.iter_mut().enumerate() {
            let start = (first + r) * pitch;
            let here = start < most;
            missing += usize::from(!here);
            *to = if here {
                bytes.as_ptr().wrapping_add(start)
            } else {
                std::ptr::null()
            };
        }
        missing
    }
}

/// Floats of scratch that [`linear`] needs.
pub fn linear_scratch_len(inputs: usize, pool: &dyn Pool) -> usize {
    scratch_len(inputs, pool)
}

/// A linear layer on `rows` rows of quantized inputs; see the module for what is computed. Sums may wrap above 65,000 inputs.
///
/// # Panics
/// A slice is too short.
pub fn linear(
    dot: Dot,
    pool: &dyn Pool,
    x: Bytes,
    rows: usize,
    weights: Weights,
    stage: &Stage,
    scratch: &mut [f32],
    target: &mut Target,
) {
    let shape = weights.shape();
    assert!(
        x.len() >= rows * shape.inputs && stage.fits(shape.outputs),
        "an argument is too short"
    );
    let job = Job {
        dot: dot.checked(),
        weights,
        rows,
        signed: x.signed(),
        zero: x.zero(),
        zeros: &[],
        scales: &[],
        others: (&[], &[]),
        stage: *stage,
        place: Place::new(target, rows * shape.outputs),
        channel: 0,
        channels: shape.outputs,
    };
    // SAFETY: a byte is a byte, signed or not.
    let bytes = unsafe { std::slice::from_raw_parts(x.pointer(), x.len()) };
    job.run(
        pool,
        scratch,
        Reach::whole(shape.inputs),
        rows_of(bytes, shape.inputs, shape.inputs),
        |row, sink| sink.bytes(&bytes[row * shape.inputs..][..shape.inputs]),
    );
}

/// Floats of scratch that [`linear_dynamic`] needs.
pub fn linear_dynamic_scratch_len(inputs: usize, rows: usize, pool: &dyn Pool) -> usize {
    row_shape(inputs, rows).scratch_len() + scratch_len(inputs, pool)
}

fn row_shape(inputs: usize, rows: usize) -> RowShape {
    RowShape {
        rows,
        inputs,
        group: inputs.max(1),
    }
}

/// A linear layer on rows of floats that are quantized here, each by its own scale or all by one:
/// `real = (float(acc) * row scale) * multiplier[c] + bias[c]`, with the weights' scales as multipliers. Weights may have a zero point for
/// each output, or none: `weight_zeros`. An integer bias has no one scale here, and is an error of the caller's.
///
/// # Panics
/// A slice is too short.
pub fn linear_dynamic(
    dot: Dot,
    pool: &dyn Pool,
    scheme: Scheme,
    x: &[f32],
    rows: usize,
    weights: Weights,
    weight_zeros: &[i32],
    stage: &Stage,
    scratch: &mut [f32],
    target: &mut Target,
) {
    let (shape, dot) = (weights.shape(), dot.checked());
    let whole = weight_zeros.is_empty() || weight_zeros.len() >= shape.outputs;
    assert!(whole && stage.fits(shape.outputs), "an argument is too short");
    let sizes = row_shape(shape.inputs, rows);
    let (quantized, rest) = scratch.split_at_mut(sizes.scratch_len());
    let made = quantize_rows(dot.isa(), pool, scheme, x, sizes, 1, quantized);
    let sums: Vec<i32> = match weight_zeros {
        [] => Vec::new(),
        _ => (0..rows)
            .map(|row| {
                let own = &made.values[row * sizes.stride()..][..shape.inputs];
                own.iter().map(|x| i32::from(*x) - made.zeros[row]).sum()
            })
            .collect(),
    };
    let job = Job {
        dot,
        weights,
        rows,
        signed: true,
        zero: 0,
        zeros: made.zeros,
        scales: made.scales,
        others: (weight_zeros, &sums),
        stage: *stage,
        place: Place::new(target, rows * shape.outputs),
        channel: 0,
        channels: shape.outputs,
    };
    // SAFETY: a byte is a byte, signed or not.
    let values: &[u8] = unsafe { std::slice::from_raw_parts(made.values.as_ptr().cast(), made.values.len()) };
    let pitch = sizes.stride();
    let locate = rows_of(values, shape.inputs, pitch);
    job.run(pool, rest, Reach::whole(shape.inputs), locate, |row, sink| {
        sink.bytes(&values[row * pitch..][..shape.inputs]);
    });
}
