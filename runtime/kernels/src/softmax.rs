//! Softmax and its logarithm along one dimension.

use crate::elementwise::{check_category, with_real};
use crate::math::Real;
use crate::parallel::{each, portion};
use crate::registry::Kernel;
use crate::stage::{Arena, count, dim_of, load_bytes, out_bytes, parts, produce};
use crate::vector::Bulk;
use crate::{Call, KernelError};
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
    let (out, scratch) = parts(call, 0)?;
    check_category(out, 0, dtype)?;
    out.resize(input.sizes())?;
    // A tensor without dimensions is a row of one element.
    let len = input.sizes().get(dim).map_or(1, |&size| size as usize);
    let inner = input.sizes().get(dim + 1..).map_or(1, count);
    let parallel = out.parallel();
    with_real!(dtype, "self", W => {
        let mut arena = Arena::new(scratch, load_bytes::<W>(&input).saturating_add(out_bytes::<W>(out)))?;
        let src = arena.load::<W>(&input)?;
        produce::<W>(out, &mut arena, |dst, _| {
            let block = (len * inner).max(1);
            // An exponential takes some nanoseconds.
            let blocks = portion(parallel, src.len() / block, block.saturating_mul(4), 1);
            let parts = dst.chunks_mut(blocks * block).zip(src.chunks(blocks * block));
            each(parallel, parts, |(dst, src)| {
                for (dst, src) in dst.chunks_exact_mut(block).zip(src.chunks_exact(block)) {
                    match inner {
                        1 => row(dst, src, logarithm),
                        _ => columns(dst, src, inner, logarithm),
                    }
                }
                Ok(())
            })
        })
    })
}

/// Along the elements, which lie one after the other.
fn row<W: Bulk>(dst: &mut [W], src: &[W], logarithm: bool) {
    let largest = W::largest(src);
    if logarithm {
        let shift = W::from_f64(Real::ln(W::sum_of_exps(src, largest)));
        for (slot, &x) in dst.iter_mut().zip(src) {
            *slot = x.minus(largest).minus(shift);
        }
    } else {
        dst.copy_from_slice(src);
        let scale = W::from_f64(1.0 / W::shifted_exps(dst, largest));
        dst.iter_mut().for_each(|x| *x = x.times(scale));
    }
}

/// Columns that are done at a time, so that all their elements stay in a cache.
const TILE: usize = 64;

/// Along columns: `inner` elements lie between two of one column. Neighbouring columns are done together.
fn columns<W: Bulk>(dst: &mut [W], src: &[W], inner: usize, logarithm: bool) {
    for first in (0..inner).step_by(TILE) {
        let have = TILE.min(inner - first);
        let lines = || src.chunks_exact(inner).map(|line| &line[first..first + have]);
        let (mut largest, mut shifted, mut sums) = ([W::LOWEST; TILE], [W::ZERO; TILE], [0f64; TILE]);
        for line in lines() {
            for (most, &x) in largest.iter_mut().zip(line) {
                *most = most.larger(x);
            }
        }
        let targets = dst.chunks_exact_mut(inner).map(|line| &mut line[first..first + have]);
        for (target, line) in targets.zip(lines()) {
            for ((slot, &x), &most) in shifted.iter_mut().zip(line).zip(&largest) {
                *slot = x.minus(most);
            }
            W::exps(&shifted[..have], target);
            for (sum, x) in sums.iter_mut().zip(target) {
                *sum += x.to_f64();
            }
        }
        let mut factors = [W::ZERO; TILE];
        for (factor, &sum) in factors.iter_mut().zip(&sums) {
            *factor = W::from_f64(if logarithm { Real::ln(sum) } else { 1.0 / sum });
        }
        let targets = dst.chunks_exact_mut(inner).map(|line| &mut line[first..first + have]);
        for (target, line) in targets.zip(lines()) {
            if logarithm {
                for (((slot, &x), &most), &shift) in target.iter_mut().zip(line).zip(&largest).zip(&factors) {
                    *slot = x.minus(most).minus(shift);
                }
            } else {
                for (slot, &scale) in target.iter_mut().zip(&factors) {
                    *slot = slot.times(scale);
                }
            }
        }
    }
}
