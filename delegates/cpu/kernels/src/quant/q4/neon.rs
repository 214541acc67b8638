//! aarch64: four outputs in a vector, four inputs of each; with `sdot`, or with widening products. With `smmla`: two outputs, eight inputs of each.

use super::Tile;
use crate::quant::finish::COLUMNS;
use crate::simd::{Neon, Simd};
use core::arch::aarch64::*;
use core::arch::asm;

/// `count` rows, which are 8, 4, 2 or 1.
///
/// # Safety
/// The machine has `smmla` and `sdot`, and the pointers are good.
pub(super) unsafe fn matrix(count: usize, job: &Tile) {
    // SAFETY: as the caller says.
    unsafe {
        match count {
            8 => pairs::<4>(job),
            4 => pairs::<2>(job),
            2 => pairs::<1>(job),
            _ => dotted::<1>(job),
        }
    }
}

/// `P` pairs of rows with `smmla`, eight outputs after eight. It wants eight inputs of an output side by side: the bytes of two times four inputs,
/// zipped by words before their bits are parted, are that, so that the panels of `sdot` serve it too.
///
/// A vector of sums has two rows and two outputs each: the first row's two, then the second's.
///
/// # Safety
/// The machine has `smmla`, and the pointers are good, with `2 * P` rows.
#[target_feature(enable = "neon,i8mm")]
unsafe fn pairs<const P: usize>(job: &Tile) {
    let s = Neon::new();
    let each = if job.wide { 4 } else { 2 };
    let header = job.width * each * (1 + usize::from(job.zeros));
    for first in (0..job.width).step_by(8) {
        let mut at = job.panel;
        let mut sums = [[s.splat(0.0); 4]; P];
        // SAFETY: pointers stay in the panel, the rows and the sums, as the layout says.
        unsafe {
            for group in 0..job.groups {
                let start = group * job.group_blocks;
                let blocks = job.group_blocks.min(job.blocks - start);
                let parameters = at;
                at = at.add(header);
                let mut whole = [[s.splat_i(0); 4]; P];
                for block in start..start + blocks {
                    let values = job.values.add(block * 32);
                    // Inputs 0..8 and 16..24, then 8..16 and 24..32.
                    for eight in 0..2 {
                        let (low, high) = parted(at.add(4 * first + 8 * eight * job.width), job.width);
                        for (p, whole) in whole.iter_mut().enumerate() {
                            let from = values.add(2 * p * job.stride + 8 * eight);
                            let two = |from: *const i8| {
                                let [a, b] = [from, from.add(job.stride)].map(|at| at.cast::<u64>().read_unaligned());
                                vreinterpretq_s8_u64(vsetq_lane_u64::<1>(b, vsetq_lane_u64::<0>(a, vdupq_n_u64(0))))
                            };
                            let (a, b) = (two(from), two(from.add(16)));
                            for (c, sum) in whole.iter_mut().enumerate() {
                                *sum = product(product(*sum, a, low[c]), b, high[c]);
                            }
                        }
                    }
                    at = at.add(16 * job.width);
                }
                let parameter = |index: usize, c: usize| {
                    let from = parameters.add((index * job.width + first + c / 2 * 4) * each);
                    let four = vreinterpretq_f64_f32(if job.wide {
                        s.load(from.cast())
                    } else {
                        s.load_f16(from.cast())
                    });
                    vreinterpretq_f32_f64(match c % 2 {
                        0 => vtrn1q_f64(four, four),
                        _ => vtrn2q_f64(four, four),
                    })
                };
                let offsets: [int32x4_t; P] = core::array::from_fn(|p| {
                    let from = job.sums.add(2 * p * job.groups + group);
                    vcombine_s32(vld1_dup_s32(from), vld1_dup_s32(from.add(job.groups)))
                });
                for c in 0..4 {
                    let scale = parameter(0, c);
                    let zero = if job.zeros { parameter(1, c) } else { s.splat(0.0) };
                    for p in 0..P {
                        let dot = if job.zeros {
                            s.fma(zero, s.to_f(offsets[p]), s.to_f(whole[p][c]))
                        } else {
                            s.to_f(s.add_i(whole[p][c], offsets[p]))
                        };
                        sums[p][c] = s.fma(dot, scale, sums[p][c]);
                    }
                }
            }
            for (p, sums) in sums.iter().enumerate() {
                for q in 0..2 {
                    let (front, back) = (
                        vreinterpretq_f64_f32(sums[2 * q]),
                        vreinterpretq_f64_f32(sums[2 * q + 1]),
                    );
                    let out = job.out.add(2 * p * COLUMNS + first + 4 * q);
                    s.store(out, vreinterpretq_f32_f64(vtrn1q_f64(front, back)));
                    s.store(out.add(COLUMNS), vreinterpretq_f32_f64(vtrn2q_f64(front, back)));
                }
            }
        }
    }
}

/// Of eight outputs, two in a vector: the lower bits of eight inputs each, and the upper bits.
///
/// # Safety
/// There are 32 bytes, and 32 more behind `4 * width`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn parted(from: *const u8, width: usize) -> ([int8x16_t; 4], [int8x16_t; 4]) {
    let mut bytes = [vdupq_n_u8(0); 4];
    for q in 0..2 {
        // SAFETY: as the caller says.
        let (front, back) = unsafe {
            let from = from.add(16 * q);
            (vld1q_u32(from.cast()), vld1q_u32(from.add(4 * width).cast()))
        };
        bytes[2 * q] = vreinterpretq_u8_u32(vzip1q_u32(front, back));
        bytes[2 * q + 1] = vreinterpretq_u8_u32(vzip2q_u32(front, back));
    }
    (
        bytes.map(|bytes| vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)))),
        bytes.map(|bytes| vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes))),
    )
}

/// Two rows by two outputs, eight inputs each.
///
/// # Safety
/// The machine has `smmla`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn product(sum: int32x4_t, rows: int8x16_t, weights: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: as the caller says.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) rows, in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// With `sdot`. Four bits are the same number signed or not.
///
/// # Safety
/// The machine has it, and the pointers are good.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn dotted<const MR: usize>(job: &Tile) {
    macro_rules! dot {
        ($sum:expr, $weights:expr, $values:expr, $lane:literal) => {
            asm!(
                concat!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[", $lane, "]"),
                inout(vreg) $sum, in(vreg) $weights, in(vreg) $values,
                options(pure, nomem, nostack, preserves_flags)
            )
        };
    }
    let body = |weights: *const u8, values: *const i8, whole: &mut [int32x4_t; MR]| {
        // SAFETY: a block has these bytes, a row these values, and the instruction is there.
        unsafe {
            let bytes: [uint8x16_t; 4] = core::array::from_fn(|v| vld1q_u8(weights.add(v * 4 * job.width)));
            let low = bytes.map(|bytes| vandq_u8(bytes, vdupq_n_u8(15)));
            let high = bytes.map(|bytes| vshrq_n_u8::<4>(bytes));
            for (row, whole) in whole.iter_mut().enumerate() {
                let from = values.add(row * job.stride);
                let (a, b) = (vld1q_s8(from), vld1q_s8(from.add(16)));
                let mut sum = *whole;
                dot!(sum, low[0], a, "0");
                dot!(sum, low[1], a, "1");
                dot!(sum, low[2], a, "2");
                dot!(sum, low[3], a, "3");
                dot!(sum, high[0], b, "0");
                dot!(sum, high[1], b, "1");
                dot!(sum, high[2], b, "2");
                dot!(sum, high[3], b, "3");
                *whole = sum;
            }
        }
    };
    // SAFETY: as the caller says.
    unsafe { quarters::<MR>(job, body) }
}

/// With widening products: each is at most 15 * 128, and eight of them fit 16 bits.
///
/// # Safety
/// The pointers are good.
pub(super) unsafe fn plain<const MR: usize>(job: &Tile) {
    let body = |weights: *const u8, values: *const i8, whole: &mut [int32x4_t; MR]| {
        // SAFETY: a block has these bytes, a row these values.
        unsafe {
            let bytes: [uint8x16_t; 4] = core::array::from_fn(|v| vld1q_u8(weights.add(v * 4 * job.width)));
            for (row, whole) in whole.iter_mut().enumerate() {
                let from = values.add(row * job.stride);
                let (mut front, mut back) = (vdupq_n_s16(0), vdupq_n_s16(0));
                for (v, bytes) in bytes.iter().enumerate() {
                    let low = vreinterpretq_s8_u8(vandq_u8(*bytes, vdupq_n_u8(15)));
                    let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(*bytes));
                    let words = |at: usize| {
                        let word = from.add(at + 4 * v).cast::<u32>().read_unaligned();
                        vreinterpret_s8_u32(vdup_n_u32(word))
                    };
                    let (a, b) = (words(0), words(16));
                    front = vmlal_s8(vmlal_s8(front, vget_low_s8(low), a), vget_low_s8(high), b);
                    back = vmlal_s8(vmlal_s8(back, vget_high_s8(low), a), vget_high_s8(high), b);
                }
                *whole = vaddq_s32(*whole, vpaddq_s32(vpaddlq_s16(front), vpaddlq_s16(back)));
            }
        }
    };
    // SAFETY: as the caller says.
    unsafe { quarters::<MR>(job, body) }
}

/// The tile, four outputs after four.
#[inline(always)]
unsafe fn quarters<const MR: usize>(job: &Tile, body: impl Fn(*const u8, *const i8, &mut [int32x4_t; MR])) {
    let s = Neon::new();
    let each = if job.wide { 4 } else { 2 };
    let header = job.width * each * (1 + usize::from(job.zeros));
    for first in (0..job.width).step_by(4) {
        let mut at = job.panel;
        let mut sums = [s.splat(0.0); MR];
        // SAFETY: pointers stay in the panel, the rows and the sums, as the layout says.
        unsafe {
            for group in 0..job.groups {
                let start = group * job.group_blocks;
                let blocks = job.group_blocks.min(job.blocks - start);
                let parameter = |index: usize| {
                    let from = at.add((index * job.width + first) * each);
                    if job.wide {
                        s.load(from.cast())
                    } else {
                        s.load_f16(from.cast())
                    }
                };
                let (scale, zero) = (parameter(0), if job.zeros { parameter(1) } else { s.splat(0.0) });
                at = at.add(header);
                let mut whole = [s.splat_i(0); MR];
                for block in start..start + blocks {
                    body(at.add(4 * first), job.values.add(block * 32), &mut whole);
                    at = at.add(16 * job.width);
                }
                for (row, sum) in sums.iter_mut().enumerate() {
                    let offset = s.splat_i(*job.sums.add(row * job.groups + group));
                    let dot = if job.zeros {
                        s.fma(zero, s.to_f(offset), s.to_f(whole[row]))
                    } else {
                        s.to_f(s.add_i(whole[row], offset))
                    };
                    *sum = s.fma(dot, scale, *sum);
                }
            }
            for (row, sum) in sums.iter().enumerate() {
                s.store(job.out.add(row * COLUMNS + first), *sum);
            }
        }
    }
}
