//! The sizes of a convolution.

/// How an input lies in memory. Outputs are always `ChannelsLast`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// `[batch, height, width, channels]`
    #[default]
    ChannelsLast,
    /// `[batch, channels, height, width]`: it is copied first, so it is meant for the few channels of a model's input.
    ChannelsFirst,
}

/// The sizes of a convolution. Pairs are of the vertical and the horizontal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Images.
    pub batch: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Sizes of the kernel, at least 1.
    pub kernel: [usize; 2],
    /// Steps, at least 1.
    pub stride: [usize; 2],
    /// Zeros around the input: above and below, left and right.
    pub padding: [[usize; 2]; 2],
    /// Steps between places of the kernel, at least 1.
    pub dilation: [usize; 2],
    /// Groups, which divide both numbers of channels.
    pub groups: usize,
}

impl Shape {
    /// Rows and columns of the output; 0 where the kernel does not fit.
    pub fn output(&self) -> [usize; 2] {
        std::array::from_fn(|i| {
            let padded = [self.height, self.width][i] + self.padding[i][0] + self.padding[i][1];
            let reach = (self.kernel[i] - 1) * self.dilation[i] + 1;
            match padded < reach {
                true => 0,
                false => (padded - reach) / self.stride[i] + 1,
            }
        })
    }

    /// Rows and columns of the input with as much of its border as is read.
    pub(crate) fn bordered(&self) -> [usize; 2] {
        let output = self.output();
        std::array::from_fn(|i| {
            let reach = (self.kernel[i] - 1) * self.dilation[i] + 1;
            output[i].saturating_sub(1) * self.stride[i] + reach
        })
    }

    /// Input channels of a group.
    pub fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    /// Output channels of a group.
    pub fn group_outputs(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Terms of each sum.
    pub fn terms(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.group_channels()
    }

    /// Panics if there is no such convolution.
    pub(crate) fn check(&self) {
        let all = [self.kernel, self.stride, self.dilation, [self.groups; 2]];
        assert!(all.iter().flatten().all(|x| *x > 0), "a size of 0");
        let divided = self.channels.is_multiple_of(self.groups) && self.out_channels.is_multiple_of(self.groups);
        assert!(
            divided,
            "{} groups of {} and {} channels",
            self.groups, self.channels, self.out_channels
        );
        let sizes = (0..2).map(|i| [self.height, self.width][i] + self.padding[i][0] + self.padding[i][1]);
        let reaches = (0..2).map(|i| self.kernel[i] * self.dilation[i]);
        let small = sizes.chain(reaches).chain(self.stride).all(|x| x < 1 << 30);
        assert!(small, "an image of more than 2^30 rows or columns");
    }
}

/// The sizes of a transposed convolution, channels last. Pairs are of the vertical and the horizontal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transposed {
    /// Images.
    pub batch: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Sizes of the kernel, at least 1.
    pub kernel: [usize; 2],
    /// Steps in the output, at least 1.
    pub stride: [usize; 2],
    /// Rows above and columns left of the output that are cut off.
    pub padding: [usize; 2],
    /// Rows and columns of the output: what lies behind is cut off, and what no number reaches is 0.
    pub output: [usize; 2],
    /// Steps between places of the kernel, at least 1.
    pub dilation: [usize; 2],
    /// Groups, which divide both numbers of channels.
    pub groups: usize,
}

impl Transposed {
    /// Panics if there is no such convolution.
    pub(crate) fn check(&self) {
        let all = [self.kernel, self.stride, self.dilation, [self.groups; 2]];
        assert!(all.iter().flatten().all(|x| *x > 0), "a size of 0");
        let divided = self.channels.is_multiple_of(self.groups) && self.out_channels.is_multiple_of(self.groups);
        assert!(
            divided,
            "{} groups of {} and {} channels",
            self.groups, self.channels, self.out_channels
        );
        let sizes = [self.height, self.width]
            .into_iter()
            .chain(self.output)
            .chain(self.padding);
        let reaches = (0..2).map(|i| self.kernel[i] * self.dilation[i]);
        let small = sizes.chain(reaches).chain(self.stride).all(|x| x < 1 << 30);
        assert!(small, "an image of more than 2^30 rows or columns");
    }
}
