//! One by one: what the others are compared with.

use super::gemm::Tile;

/// # Safety
/// The pointers are good for the sizes beside them, with `MR` rows of signed bytes.
pub(super) unsafe fn tile<const MR: usize>(job: &Tile) {
    let mut sums = [[0i32; 16]; MR];
    // SAFETY: as the caller says.
    unsafe {
        for four in 0..job.fours {
            let weights = job.panel.add(64 * four).cast::<[[i8; 4]; 16]>().read_unaligned();
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = job
                    .rows
                    .add(r * job.stride + 4 * four)
                    .cast::<[i8; 4]>()
                    .read_unaligned();
                for (sum, w) in sums.iter_mut().zip(weights) {
                    for k in 0..4 {
                        *sum += i32::from(a[k]) * i32::from(w[k]);
                    }
                }
            }
        }
        job.out.cast::<[[i32; 16]; MR]>().write(sums);
    }
}
