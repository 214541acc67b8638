//! A few rows: weights become floats in registers.
//!
//! Bits in the middle of a word are converted where they stand, and so are a power of two too large; the activation that they meet is made smaller by it before,
//! which rounds nothing but numbers below the normal ones. The highest bits of a word would be a sign, and are moved down.

use super::{Code, Panel, block_at, vectors};
use crate::quant::finish::COLUMNS;
use crate::simd::{Op, Simd};

/// Activations as a code wants them, zeros behind them, and the sum of each group.
pub(super) fn prepare(code: Code, x: &[f32], group: usize, to: &mut [f32], sums: &mut [f32]) {
    let scale = |k: usize| {
        let bits = match code {
            Code::Eight => 0,
            Code::Two if k % 16 < 15 => 2 * (k % 16),
            Code::Four if k % 32 < 16 => 8 * (k % 4),
            Code::Four if k % 4 < 3 => 8 * (k % 4) + 4,
            _ => 0,
        };
        f32::from_bits((127 - bits as u32) << 23)
    };
    let scales: [f32; 32] = std::array::from_fn(scale);
    let (here, behind) = to.split_at_mut(x.len());
    for (to, x) in here.chunks_mut(32).zip(x.chunks(32)) {
        for ((to, x), scale) in to.iter_mut().zip(x).zip(scales) {
            *to = x * scale;
        }
    }
    behind.fill(0.0);
    for (sum, x) in sums.iter_mut().zip(x.chunks(group)) {
        let mut lanes = [0f32; 8];
        for x in x.chunks(8) {
            lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane += x);
        }
        *sum = lanes.iter().sum();
    }
}

/// `count` rows, 1, 2 or 4, by a panel.
pub(super) struct Few<'a> {
    pub panel: Panel,
    /// Prepared rows.
    pub x: *const f32,
    pub stride: usize,
    /// Sums of groups of each row.
    pub sums: *const f32,
    pub groups: usize,
    pub count: usize,
    pub out: &'a mut [f32; 4 * COLUMNS],
}

impl Op for Few<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let lanes = self.panel.width.min(COLUMNS);
        // Eight outputs at a time, or all lanes where there are more: few enough sums for any number of registers.
        let mut lane = 0;
        while lane < lanes {
            // SAFETY: pointers are good for these rows and this panel.
            unsafe {
                match (vectors::<S>(), lanes - lane) {
                    // A vector of sixteen for a panel of eight would read the next one's weights, and so would two of eight.
                    (1, 8) => {
                        plain(&mut self, lane);
                        lane += 8;
                    }
                    (1, _) | (2, 8) => lane += S::LANES * rows::<S, 1>(s, &mut self, lane),
                    _ => lane += S::LANES * rows::<S, 2>(s, &mut self, lane),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, const V: usize>(s: S, job: &mut Few, lane: usize) -> usize {
    // SAFETY: as the caller says.
    unsafe {
        match job.count {
            1 => columns::<S, V, 1, 4>(s, job, lane),
            2 => columns::<S, V, 2, 2>(s, job, lane),
            _ => columns::<S, V, 4, 1>(s, job, lane),
        }
    }
    V
}

/// `V` vectors of outputs of `R` rows, each sum in `C` parts.
#[inline(always)]
unsafe fn columns<S: Simd, const V: usize, const R: usize, const C: usize>(s: S, job: &mut Few, lane: usize) {
    let panel = job.panel;
    let size = panel.code.block();
    let per_group = panel.group / size;
    let mut total = [[s.splat(0.0); V]; R];
    // SAFETY: the panel has these groups and blocks, and rows are filled up to whole blocks.
    unsafe {
        for group in 0..job.groups {
            let first = group * per_group;
            let blocks = per_group.min(panel.inputs.div_ceil(size) - first);
            let (header, mut at) = block_at(&panel, first);
            let mut sums = [[[s.splat(0.0); C]; V]; R];
            for block in first..first + blocks {
                let x = job.x.add(block * size);
                macro_rules! meet {
                    ($step:expr, $k:expr, $weight:expr) => {
                        for v in 0..V {
                            let weight = $weight(v);
                            for r in 0..R {
                                let x = s.splat(*x.add(r * job.stride + $k));
                                sums[r][v][$step % C] = s.fma(weight, x, sums[r][v][$step % C]);
                            }
                        }
                    };
                }
                match panel.code {
                    Code::Eight => {
                        for k in 0..16 {
                            let from = at.add(k * COLUMNS + lane);
                            meet!(k, k, |v: usize| s.to_f(s.load_i8(from.add(v * S::LANES).cast())));
                        }
                    }
                    Code::Two => {
                        let words: [S::I; V] =
                            std::array::from_fn(|v| s.load_i(at.cast::<i32>().add(lane + v * S::LANES)));
                        macro_rules! step {
                            ($($j:literal)*) => { $(
                                meet!($j, $j, |v: usize| s.to_f(s.and_i(words[v], s.splat_i(3 << (2 * $j)))));
                            )* };
                        }
                        step!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                        meet!(15, 15, |v: usize| s
                            .to_f(s.and_i(s.shr_i::<30>(words[v]), s.splat_i(3))));
                    }
                    Code::Four => {
                        for four in 0..4 {
                            let from = at.cast::<i32>().add(four * panel.width + lane);
                            let words: [S::I; V] = std::array::from_fn(|v| s.load_i(from.add(v * S::LANES)));
                            macro_rules! step {
                                ($($j:literal)*) => { $(
                                    meet!($j, 4 * four + $j / 2 + $j % 2 * 16, |v: usize| {
                                        s.to_f(s.and_i(words[v], s.splat_i(15 << (4 * $j))))
                                    });
                                )* };
                            }
                            step!(0 1 2 3 4 5 6);
                            meet!(7, 4 * four + 19, |v: usize| s
                                .to_f(s.and_i(s.shr_i::<28>(words[v]), s.splat_i(15))));
                        }
                    }
                }
                at = at.add(panel.block_len());
            }
            for v in 0..V {
                let scale = panel.parameter(s, header, 0, lane + v * S::LANES);
                let zero = match panel.zeros {
                    true => panel.parameter(s, header, 1, lane + v * S::LANES),
                    false => s.splat(panel.zero),
                };
                for r in 0..R {
                    let mut sum = sums[r][v][0];
                    for c in 1..C {
                        sum = s.add(sum, sums[r][v][c]);
                    }
                    if panel.zeros || panel.zero != 0.0 {
                        let all = s.splat(*job.sums.add(r * job.groups + group));
                        sum = s.sub(sum, s.mul(zero, all));
                    }
                    total[r][v] = s.fma(sum, scale, total[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                s.store(job.out.as_mut_ptr().add(r * COLUMNS + lane + v * S::LANES), total[r][v]);
            }
        }
    }
}

/// Eight outputs of a panel of eight where vectors have sixteen lanes: number by number, which compilers make vectors of.
#[inline(always)]
unsafe fn plain(job: &mut Few, lane: usize) {
    let panel = job.panel;
    let per_group = panel.group / 32;
    for r in 0..job.count {
        let mut total = [0f32; 8];
        // SAFETY: as in `columns`.
        unsafe {
            for group in 0..job.groups {
                let first = group * per_group;
                let blocks = per_group.min(panel.inputs.div_ceil(32) - first);
                let (header, mut at) = block_at(&panel, first);
                let mut sums = [[0f32; 8]; 2];
                for block in first..first + blocks {
                    for k in 0..16 {
                        let x = job.x.add(r * job.stride + block * 32 + k);
                        // What the activations were made smaller by.
                        let low = (1u32 << (8 * (k % 4))) as f32;
                        let high = if k % 4 == 3 { 1.0 } else { low * 16.0 };
                        let (low, high) = (*x * low, *x.add(16) * high);
                        for i in 0..8 {
                            let byte = *at.add(k / 4 * 4 * panel.width + 4 * (lane + i) + k % 4);
                            sums[0][i] += f32::from(byte & 15) * low;
                            sums[1][i] += f32::from(byte >> 4) * high;
                        }
                    }
                    at = at.add(panel.block_len());
                }
                let all = *job.sums.add(r * job.groups + group);
                for i in 0..8 {
                    let parameter = |list: usize| {
                        let from = header.add(list * panel.list());
                        match panel.wide {
                            true => from.cast::<f32>().add(lane + i).read_unaligned(),
                            false => half::f16::from_bits(from.cast::<u16>().add(lane + i).read_unaligned()).to_f32(),
                        }
                    };
                    let zero = if panel.zeros { parameter(1) } else { panel.zero };
                    total[i] += (sums[0][i] + sums[1][i] - zero * all) * parameter(0);
                }
            }
        }
        job.out[r * COLUMNS + lane..][..8].copy_from_slice(&total);
    }
}
