//! One by one: what the others are compared with.

use super::Tile;
use crate::quant::finish::COLUMNS;
use half::f16;

/// # Safety
/// The pointers are good for the sizes beside them, with `MR` rows.
pub(super) unsafe fn tile<const MR: usize>(job: &Tile) {
    let mut sums = [[0f32; COLUMNS]; MR];
    let mut at = job.panel;
    let each = if job.wide { 4 } else { 2 };
    for group in 0..job.groups {
        let blocks = job.group_blocks.min(job.blocks - group * job.group_blocks);
        let header = at;
        let parameter = |index: usize| {
            // SAFETY: the header has one for each output, or two.
            unsafe {
                let from = header.add(index * each);
                match job.wide {
                    true => from.cast::<f32>().read_unaligned(),
                    false => f16::from_bits(from.cast::<u16>().read_unaligned()).to_f32(),
                }
            }
        };
        // SAFETY: as the layout says.
        at = unsafe { at.add(job.width * each * (1 + usize::from(job.zeros))) };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are so many groups of each row.
            let offset = unsafe { *job.sums.add(row * job.groups + group) };
            for (output, sum) in sums.iter_mut().enumerate().take(job.width) {
                let mut dot = 0i32;
                for block in 0..blocks {
                    // SAFETY: as the layout says.
                    unsafe {
                        let weights = at.add(block * 16 * job.width + 4 * output);
                        let values = job
                            .values
                            .add(row * job.stride + (group * job.group_blocks + block) * 32);
                        for v in 0..4 {
                            for k in 0..4 {
                                let byte = i32::from(*weights.add(v * 4 * job.width + k));
                                dot += (byte & 15) * i32::from(*values.add(4 * v + k));
                                dot += (byte >> 4) * i32::from(*values.add(16 + 4 * v + k));
                            }
                        }
                    }
                }
                let dot = match job.zeros {
                    true => parameter(job.width + output).mul_add(offset as f32, dot as f32),
                    false => (dot + offset) as f32,
                };
                *sum = dot.mul_add(parameter(output), *sum);
            }
        }
        // SAFETY: as the layout says.
        at = unsafe { at.add(blocks * 16 * job.width) };
    }
    // SAFETY: the output has so many rows.
    unsafe { job.out.cast::<[[f32; COLUMNS]; MR]>().write(sums) };
}
