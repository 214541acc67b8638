//! aarch64: with `sdot`, or with widening products.

use super::gemm::Tile;
use core::arch::aarch64::*;
use core::arch::asm;

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
