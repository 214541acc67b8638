//! The order of weights in a stream of U55 and U65: blocks of channels, parts of the kernel, micro-blocks.

use crate::error::Error;

/// How the weights of an operation are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Order {
    /// Rows and columns of the kernel.
    pub kernel: (usize, usize),
    /// Channels of the input; 1 where depthwise.
    pub ifm_depth: usize,
    /// Channels of the output that are in this stream.
    pub ofm_depth: usize,
    /// Channels of an output block.
    pub block_depth: usize,
    /// Channels of an output micro-block.
    pub ofm_micro: usize,
    /// A kernel of its own a channel.
    pub depthwise: bool,
    /// Kernel elements before channels.
    pub part_kernel_first: bool,
    /// Bits of an input element.
    pub ifm_bits: u32,
    /// Largest rows and columns of a part of the kernel.
    pub sub_kernel: (usize, usize),
}

const IFM_MICRO: usize = 8;

impl Order {
    /// Weights `[kernel row][kernel column][input channel][output channel]` from their order in the stream.
    ///
    /// # Errors
    /// The stream has fewer.
    pub fn arrange(&self, coded: &[i16]) -> Result<Vec<i16>, Error> {
        let (rows, columns) = self.kernel;
        let mut out = vec![0i16; rows * columns * self.ifm_depth * self.ofm_depth];
        let mut coded = coded.iter();
        let mut missing = false;
        self.walk(|row, column, ifm, ofm| match coded.next() {
            Some(weight) => {
                if let Some((row, column)) = row.zip(column)
                    && ifm < self.ifm_depth
                    && ofm < self.ofm_depth
                {
                    out[((row * columns + column) * self.ifm_depth + ifm) * self.ofm_depth + ofm] = *weight;
                }
                true
            }
            None => {
                missing = true;
                false
            }
        });
        match missing {
            true => Err(Error::Weights {
                bit: 0,
                text: "the stream has fewer weights than the operation",
            }),
            false => Ok(out),
        }
    }

    /// Visits positions in the order of the stream: row and column (`None`: padding), input channel, output channel; until it says no.
    fn walk(&self, mut visit: impl FnMut(Option<usize>, Option<usize>, usize, usize) -> bool) {
        let (rows, columns) = self.kernel;
        let ifm_block = if self.part_kernel_first || self.ifm_bits == 16 {
            16
        } else {
            32
        };
        let ifm_end = if self.depthwise { 1 } else { self.ifm_depth };
        for ofm_block in (0..self.ofm_depth).step_by(self.block_depth) {
            let ofm_count = self.block_depth.min(self.ofm_depth - ofm_block);
            for ifm_base in (0..ifm_end).step_by(ifm_block) {
                let depth = match (self.depthwise, self.part_kernel_first) {
                    (true, _) => IFM_MICRO,
                    (false, true) => ifm_block.min(self.ifm_depth - ifm_base),
                    (false, false) => ifm_block,
                };
                let (outer, inner) = if self.part_kernel_first { (depth, 1) } else { (1, depth) };
                for row in (0..rows).step_by(self.sub_kernel.0) {
                    let height = self.sub_kernel.0.min(rows - row);
                    for column in (0..columns).step_by(self.sub_kernel.1) {
                        let width = self.sub_kernel.1.min(columns - column);
                        let elements = match (self.depthwise, self.part_kernel_first, self.ifm_bits) {
                            (true, ..) => (height * width).next_multiple_of(4),
                            (false, true, 16) => (height * width).next_multiple_of(2),
                            (false, true, _) => (height * width).next_multiple_of(4),
                            (false, false, _) => height * width,
                        };
                        for ifm_outer in (0..outer).step_by(IFM_MICRO) {
                            for ofm_micro in (0..ofm_count).step_by(self.ofm_micro) {
                                for element in 0..elements {
                                    let (y, x) = (element / width, element % width);
                                    let at = (y < height).then_some((row + y, column + x));
                                    for ifm_inner in (0..inner).step_by(IFM_MICRO) {
                                        for ofm in 0..self.ofm_micro {
                                            let lanes = if self.depthwise { 1 } else { IFM_MICRO };
                                            for lane in 0..lanes {
                                                let ifm = ifm_base + ifm_outer + ifm_inner + lane;
                                                let (row, column) = (at.map(|a| a.0), at.map(|a| a.1));
                                                if !visit(row, column, ifm, ofm_block + ofm_micro + ofm) {
                                                    return;
                                                }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_channel_is_in_the_first_lane() {
        let order = Order {
            kernel: (1, 1),
            ifm_depth: 1,
            ofm_depth: 1,
            block_depth: 8,
            ofm_micro: 8,
            depthwise: false,
            part_kernel_first: false,
            ifm_bits: 8,
            sub_kernel: (8, 8),
        };
        let mut coded = vec![0; 4 * 8 * 8];
        coded[0] = 7;
        assert_eq!(order.arrange(&coded).unwrap(), [7]);
        assert!(order.arrange(&coded[..9]).is_err());
    }
}
