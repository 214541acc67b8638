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
            for eight in 0..job.fours.div_ceil(2) {
                let there = 2 * eight + 1 < job.fours;
                let from = job.panel.add(128 * eight + 32 * half);
                let mut w = [vdupq_n_s8(0); 4];
                for q in 0..2 {
                    let low = vld1q_s32(from.add(16 * q).cast());
                    let high = match there {
                        true => vld1q_s32(from.add(64 + 16 * q).cast()),
                        false => vdupq_n_s32(0),
                    };
                    w[2 * q] = vreinterpretq_s8_s32(vzip1q_s32(low, high));
                    w[2 * q + 1] = vreinterpretq_s8_s32(vzip2q_s32(low, high));
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    let row = |r: usize| {
                        let from = job.rows.add((2 * p + r) * job.stride + 8 * eight);
                        match there {
                            true => vld1_s8(from.cast()),
                            false => vcreate_s8(u64::from(from.cast::<u32>().read_unaligned())),
                        }
                    };
                    let a = vcombine_s8(row(0), row(1));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        asm!(
                            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
                            inout(vreg) *sum, in(vreg) a, in(vreg) w,
                            options(pure, nomem, nostack, preserves_flags)
                        );
                    }
                }
            }
            for (p, sums) in sums.iter().enumerate() {
                for q in 0..2 {
                    let (front, back) = (
                        vreinterpretq_s64_s32(sums[2 * q]),
                        vreinterpretq_s64_s32(sums[2 * q + 1]),
                    );
                    let out = job.out.add(32 * p + 8 * half + 4 * q);
                    vst1q_s32(out, vreinterpretq_s32_s64(vtrn1q_s64(front, back)));
                    vst1q_s32(out.add(16), vreinterpretq_s32_s64(vtrn2q_s64(front, back)));
                }
            }
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
