//! aarch64: with `smmla`, with `sdot`, or with widening products.

use super::gemm::Tile;
use core::arch::aarch64::*;
use core::arch::asm;

/// `count` rows, which are 8, 4, 2 or 1.
///
/// # Safety
/// The machine has `smmla` and `sdot`, and the pointers are good, with `count` rows of signed bytes.
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

/// `P` pairs of rows with `smmla`, eight outputs after eight. It wants eight inputs of an output side by side: two loads of four inputs of four
/// outputs, zipped by words, are that, so that the panels of `sdot` serve it too.
///
/// # Safety
/// The machine has `smmla`, and the pointers are good, with `2 * P` rows of signed bytes.
#[target_feature(enable = "neon,i8mm")]
unsafe fn pairs<const P: usize>(job: &Tile) {
    for half in 0..2 {
        // Of two rows and two outputs each: the first row's two, then the second's.
        let mut sums = [[vdupq_n_s32(0); 4]; P];
        // SAFETY: a panel has 64 bytes for each four inputs, a row four, and a row of sums sixteen.
        unsafe {
            let panel = job.panel.add(32 * half);
            for eight in 0..job.fours / 2 {
                let from = panel.add(128 * eight);
                let w = zipped([from, from.add(16)].map(|at| (vld1q_s32(at.cast()), vld1q_s32(at.add(64).cast()))));
                for (p, sums) in sums.iter_mut().enumerate() {
                    let row = job.rows.add(2 * p * job.stride + 8 * eight);
                    let next = row.add(job.stride);
                    meet(sums, [row, next].map(|row| row.cast::<u64>().read_unaligned()), &w);
                }
            }
            if job.fours % 2 == 1 {
                let last = job.fours - 1;
                let from = panel.add(64 * last);
                let w = zipped([from, from.add(16)].map(|at| (vld1q_s32(at.cast()), vdupq_n_s32(0))));
                for (p, sums) in sums.iter_mut().enumerate() {
                    let row = job.rows.add(2 * p * job.stride + 4 * last);
                    let next = row.add(job.stride);
                    meet(
                        sums,
                        [row, next].map(|row| u64::from(row.cast::<u32>().read_unaligned())),
                        &w,
                    );
                }
            }
            for (p, sums) in sums.iter().enumerate() {
                for q in 0..2 {
                    let [front, back] = [sums[2 * q], sums[2 * q + 1]].map(|sums| vreinterpretq_s64_s32(sums));
                    let out = job.out.add(32 * p + 8 * half + 4 * q);
                    vst1q_s32(out, vreinterpretq_s32_s64(vtrn1q_s64(front, back)));
                    vst1q_s32(out.add(16), vreinterpretq_s32_s64(vtrn2q_s64(front, back)));
                }
            }
        }
    }
}

/// Four inputs of four outputs, and the next four of them, become eight inputs of two outputs each.
#[inline]
#[target_feature(enable = "neon")]
fn zipped(fours: [(int32x4_t, int32x4_t); 2]) -> [int8x16_t; 4] {
    let [(a, b), (c, d)] = fours;
    [vzip1q_s32(a, b), vzip2q_s32(a, b), vzip1q_s32(c, d), vzip2q_s32(c, d)].map(|words| vreinterpretq_s8_s32(words))
}

/// Eight inputs of two rows by those of eight outputs.
///
/// # Safety
/// The machine has `smmla`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn meet(sums: &mut [int32x4_t; 4], rows: [u64; 2], weights: &[int8x16_t; 4]) {
    let rows = vsetq_lane_u64::<1>(rows[1], vsetq_lane_u64::<0>(rows[0], vdupq_n_u64(0)));
    for (sum, weights) in sums.iter_mut().zip(weights) {
        // SAFETY: as the caller says.
        unsafe {
            asm!(
                "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) *sum, in(vreg) rows, in(vreg) *weights,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
    }
}

/// # Safety
/// The machine has `sdot`, and the pointers are good, with `MR` rows of signed bytes.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn dotted<const MR: usize>(job: &Tile) {
    // SAFETY: as the caller says.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 4]; MR];
        for four in 0..job.fours {
            let w: [int8x16_t; 4] = core::array::from_fn(|q| vld1q_s8(job.panel.add(64 * four + 16 * q).cast()));
            for (r, sums) in sums.iter_mut().enumerate() {
                let word = job.rows.add(r * job.stride + 4 * four).cast::<i32>().read_unaligned();
                let a = vreinterpretq_s8_s32(vdupq_n_s32(word));
                for q in 0..4 {
                    let mut sum = sums[q];
                    asm!(
                        "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                        inout(vreg) sum, in(vreg) w[q], in(vreg) a,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                    sums[q] = sum;
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (q, sum) in sums.iter().enumerate() {
                vst1q_s32(job.out.add(16 * r + 4 * q), *sum);
            }
        }
    }
}

/// # Safety
/// The pointers are good, with `MR` rows of signed bytes.
pub(super) unsafe fn plain<const MR: usize>(job: &Tile) {
    // SAFETY: as the caller says.
    unsafe {
        // Two outputs in a vector, each in two lanes.
        let mut sums = [[vdupq_n_s32(0); 8]; MR];
        for four in 0..job.fours {
            for (r, sums) in sums.iter_mut().enumerate() {
                let word = job.rows.add(r * job.stride + 4 * four).cast::<u32>().read_unaligned();
                let a = vreinterpret_s8_u32(vdup_n_u32(word));
                for (q, sum) in sums.iter_mut().enumerate() {
                    let w = vld1_s8(job.panel.add(64 * four + 8 * q).cast());
                    *sum = vpadalq_s16(*sum, vmull_s8(w, a));
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for q in 0..4 {
                vst1q_s32(job.out.add(16 * r + 4 * q), vpaddq_s32(sums[2 * q], sums[2 * q + 1]));
            }
        }
    }
}
