//! The order of weights in a stream of U85, as Vela 5.2 writes it: found by compiling kernels of numbered weights.
//!
//! Kernels are walked in parts of 8 by 8, down before across, and within a part row by row to and fro; blocks of input channels, too, from one
//! block of output channels to the next. Cores take four channels in turn.

use crate::error::Error;
use std::ops::Range;

/// How the weights of an operation are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrderU85 {
    /// Rows and columns of the kernel.
    pub kernel: (usize, usize),
    /// Channels of the input; 1 where depthwise.
    pub ifm_depth: usize,
    /// Channels of the output, of all cores.
    pub ofm_depth: usize,
    /// Channels of an output block, of all cores.
    pub block_depth: usize,
    /// Channels of an output micro-block, of all cores.
    pub ofm_micro: usize,
    /// Cores, each with a stream of its own.
    pub cores: usize,
    /// A kernel of its own a channel.
    pub depthwise: bool,
    /// Kernel elements before channels.
    pub part_kernel_first: bool,
    /// Two of four weights are zero.
    pub sparse: bool,
    /// Bits of an input element.
    pub ifm_bits: u32,
    /// Largest rows and columns of a part of the kernel.
    pub sub_kernel: (usize, usize),
    /// Rows and columns from one output to the next.
    pub stride: (usize, usize),
}

/// The elements of a part of a kernel: those that read one phase of a strided input after the other, each to and fro.
fn walk(height: usize, width: usize, (down, across): (usize, usize)) -> Vec<(usize, usize)> {
    let mut all = Vec::with_capacity(height * width);
    for top in 0..down.min(height) {
        for left in 0..across.min(width) {
            for (turn, y) in (top..height).step_by(down).enumerate() {
                let start = all.len();
                all.extend((left..width).step_by(across).map(|x| (y, x)));
                if turn % 2 == 1 {
                    all[start..].reverse();
                }
            }
        }
    }
    all
}

/// Channels that a core takes before the next one does.
const TURN: usize = 4;
/// Channels of the input that lie beside each other.
const LANE: usize = 8;
/// Weights of a group of depthwise kernel elements are filled up to a multiple of this.
const DEPTHWISE_GROUP: usize = 32;

impl OrderU85 {
    /// Puts the weights of a stream to `[kernel row][kernel column][input channel][output channel]`. It is that of the cores of a range, which
    /// alternate from one group of kernel elements to the next.
    ///
    /// # Errors
    /// The stream has fewer.
    pub fn arrange(&self, coded: &[i16], cores: Range<usize>, out: &mut [i16]) -> Result<(), Error> {
        let mut coded = coded.iter();
        let columns = self.kernel.1;
        let mut place = |at: Option<(usize, usize)>, ifm: usize, ofm: usize| -> Result<(), Error> {
            let weight = coded.next().ok_or(Error::Weights {
                bit: 0,
                text: "the stream has fewer weights than the operation",
            })?;
            if let Some((row, column)) = at
                && ifm < self.ifm_depth
                && ofm < self.ofm_depth
            {
                out[((row * columns + column) * self.ifm_depth + ifm) * self.ofm_depth + ofm] = *weight;
            }
            Ok(())
        };
        let depthwise = self.depthwise;
        let ifm_block = match (depthwise, self.part_kernel_first, self.ifm_bits, self.sparse) {
            (true, ..) => 1,
            (_, false, 8, true) => 128,
            (_, false, ..) => 64,
            (_, true, 16, false) => 8,
            (_, true, ..) => 16,
        };
        let step = match (depthwise, self.part_kernel_first, self.ifm_bits, self.sparse) {
            (_, false, ..) if !depthwise => 1,
            (true, ..) | (_, _, _, true) | (_, true, 16, _) => 10,
            (_, true, ..) => 5,
            (_, false, ..) => 1,
        };
        let lane = match (depthwise, self.sparse) {
            (true, _) => 1,
            (_, true) => 2 * LANE,
            (_, false) => LANE,
        };
        let ifm_blocks = self.ifm_depth.div_ceil(ifm_block);
        for (turn, block) in (0..self.ofm_depth).step_by(self.block_depth).enumerate() {
            let count = self.block_depth.min(self.ofm_depth - block);
            for base in 0..ifm_blocks {
                // To and fro, too.
                let base = ifm_block * if turn % 2 == 0 { base } else { ifm_blocks - 1 - base };
                for column in (0..self.kernel.1).step_by(self.sub_kernel.1) {
                    let width = self.sub_kernel.1.min(self.kernel.1 - column);
                    for row in (0..self.kernel.0).step_by(self.sub_kernel.0) {
                        let height = self.sub_kernel.0.min(self.kernel.0 - row);
                        for micro in (0..count).step_by(self.ofm_micro) {
                            let elements = (height * width).next_multiple_of(step);
                            let walk = walk(height, width, self.stride);
                            for group in (0..elements).step_by(step) {
                                for core in cores.clone() {
                                    for element in group..group + step {
                                        let at = walk.get(element).map(|(y, x)| (row + y, column + x));
                                        for ifm in (0..ifm_block).step_by(lane) {
                                            for ofm in self.channels(core) {
                                                for i in 0..lane {
                                                    place(at, base + ifm + i, block + micro + ofm)?;
                                                }
                                            }
                                        }
                                    }
                                    if depthwise {
                                        let size = step * self.ofm_micro / self.cores;
                                        for _ in size..size.next_multiple_of(DEPTHWISE_GROUP) {
                                            place(None, 0, 0)?;
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A core's channels of a micro-block.
    fn channels(&self, core: usize) -> impl Iterator<Item = usize> + use<> {
        let (cores, turns) = (self.cores, self.ofm_micro / (self.cores * TURN));
        (0..turns).flat_map(move |turn| (0..TURN).map(move |i| (turn * cores + core) * TURN + i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: OrderU85 = OrderU85 {
        kernel: (2, 2),
        ifm_depth: 1,
        ofm_depth: 8,
        block_depth: 16,
        ofm_micro: 16,
        cores: 2,
        depthwise: true,
        part_kernel_first: false,
        sparse: false,
        ifm_bits: 8,
        sub_kernel: (8, 8),
        stride: (1, 1),
    };

    #[test]
    fn strides_are_walked_by_phases() {
        let text: Vec<String> = walk(3, 3, (2, 2)).iter().map(|(y, x)| format!("{y}{x}")).collect();
        assert_eq!(text.join(" "), "00 02 22 20 01 21 10 12 11");
    }

    #[test]
    fn cores_take_turns_and_rows_go_to_and_fro() {
        // Ten elements of eight channels of the core, filled up to 96.
        let coded: Vec<i16> = (0..96).collect();
        let mut out = vec![-1; 2 * 2 * 8];
        SMALL.arrange(&coded, 1..2, &mut out).unwrap();
        // Row 0, columns 0 and 1: channels 4 to 7 are this core's first ones.
        assert_eq!(&out[4..8], [0, 1, 2, 3]);
        assert_eq!(&out[12..16], [8, 9, 10, 11]);
        // Row 1 is walked from the right.
        assert_eq!(&out[28..32], [16, 17, 18, 19]);
        assert_eq!(&out[20..24], [24, 25, 26, 27]);
        assert_eq!(out[0], -1);
        assert!(SMALL.arrange(&coded[..95], 1..2, &mut out).is_err());
    }
}
