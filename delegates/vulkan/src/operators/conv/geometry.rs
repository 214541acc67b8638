//! What a convolution is besides its tensors: read from the arguments of each of its operators, for given sizes.

use crate::node::Node;
use delegraph_sdk::Error;

/// Along one dimension.
///
/// Output `o` and kernel element `k` meet input `(o * multiple + offset + k * step) / gap`, where that is whole. A plain convolution has gap 1 and
/// its stride as multiple; a transposed one has multiple 1 and its stride as gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Elements of the input.
    pub input: u32,
    /// Elements of the output.
    pub output: u32,
    /// Elements of the kernel.
    pub kernel: u32,
    /// Steps of the numerator from output to output.
    pub multiple: u32,
    /// The numerator at the start.
    pub offset: i32,
    /// Steps of the numerator from kernel element to kernel element.
    pub step: i32,
    /// What the numerator is divided by.
    pub gap: u32,
}

impl Axis {
    /// A dimension of one element.
    pub const POINT: Axis = Axis {
        input: 1,
        output: 1,
        kernel: 1,
        multiple: 1,
        offset: 0,
        step: 1,
        gap: 1,
    };

    /// What kernels add to the quotient, so that the numerator is never negative.
    pub fn lift(&self) -> u32 {
        let reach = i64::from(self.step) * (i64::from(self.kernel) - 1);
        let least = i64::from(self.offset) + reach.min(0);
        (-least).max(0).unsigned_abs().div_ceil(u64::from(self.gap.max(1))) as u32
    }

    /// What the quotient grows by from kernel element to kernel element, downwards where negative, and what is left over of the gap.
    pub fn step_parts(&self) -> (u32, u32) {
        let gap = i64::from(self.gap.max(1));
        let step = i64::from(self.step);
        (step.div_euclid(gap) as i32 as u32, step.rem_euclid(gap) as u32)
    }

    /// True if each output has just the input of its own place.
    pub fn is_identity(&self) -> bool {
        self.kernel == 1 && self.multiple == 1 && self.offset == 0 && self.gap == 1 && self.input == self.output
    }

    /// A plain convolution: `before` and `after` are its padding. The output follows.
    fn plain(input: u32, kernel: u32, stride: i64, dilation: i64, before: i64, after: i64) -> Option<Axis> {
        let reach = dilation.checked_mul(i64::from(kernel) - 1)?;
        let room = i64::from(input).checked_add(before)?.checked_add(after)? - 1;
        let last = room.checked_sub(reach).filter(|last| *last >= 0)?;
        let small = |n: i64| i32::try_from(n).ok();
        Some(Axis {
            input,
            output: u32::try_from(last / stride + 1).ok()?,
            kernel,
            multiple: u32::try_from(stride).ok()?,
            offset: small(-before)?,
            step: small(dilation)?,
            gap: 1,
        })
    }

    fn transposed(input: u32, kernel: u32, stride: i64, dilation: i64, padding: i64, extra: i64) -> Option<Axis> {
        let reach = dilation.checked_mul(i64::from(kernel) - 1)?;
        let spread = (i64::from(input) - 1).checked_mul(stride)?;
        let output = spread
            .checked_add(reach)?
            .checked_add(extra)?
            .checked_sub(padding.checked_mul(2)?)?
            + 1;
        let small = |n: i64| i32::try_from(n).ok();
        Some(Axis {
            input,
            output: u32::try_from(output).ok().filter(|n| *n > 0)?,
            kernel,
            multiple: 1,
            offset: small(padding)?,
            step: small(-dilation)?,
            gap: u32::try_from(stride).ok()?,
        })
    }
}

/// A convolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Images of the batch; an input without a batch is a batch of one.
    pub batch: u32,
    /// Channels of the input.
    pub channels: u32,
    /// Channels of the output.
    pub outputs: u32,
    /// Groups.
    pub groups: u32,
    /// True if weights lie as those of transposed convolutions do: inputs first.
    pub transposed: bool,
    /// Depth, height, width; missing ones in front are [`Axis::POINT`].
    pub axes: [Axis; 3],
    /// Dimensions that are not missing.
    pub space: usize,
}

/// Padding, as operators have it.
enum Padding {
    Each(Vec<i64>),
    Same,
}

impl Geometry {
    /// Of a node, for an input and weights of these sizes.
    ///
    /// # Errors
    /// The arguments and sizes do not fit.
    pub fn of(node: &Node<'_>, x: &[u32], w: &[u32]) -> Result<Geometry, Error> {
        let space = w.len().saturating_sub(2);
        let transposed = match node.op() {
            "aten::convolution" => node.bool(6)?,
            op => op.starts_with("aten::conv_transpose"),
        };
        let padding = match node.op().ends_with(".padding") {
            true if node.str(4)? == "same" => Padding::Same,
            true => Padding::Each(vec![0; space]),
            false => Padding::Each(one_each(node.ints(4)?, space)?),
        };
        let (dilation, extra, groups) = match node.op() {
            "aten::convolution" => (node.ints(5)?, node.ints(7)?, node.int(8)?),
            _ if transposed => (node.ints(7)?, node.ints(5)?, node.int(6)?),
            _ => (node.ints(5)?, vec![0], node.int(6)?),
        };
        let parts = Parts {
            stride: one_each(node.ints(3)?, space)?,
            padding,
            dilation: one_each(dilation, space)?,
            extra: match transposed {
                true => one_each(extra, space)?,
                false => vec![0; space],
            },
            transposed,
            groups,
        };
        parts.fit(x, w)
    }

    /// Channels of a group.
    pub fn inner(&self) -> u32 {
        self.channels / self.groups.max(1)
    }

    /// Outputs of a group.
    pub fn share(&self) -> u32 {
        self.outputs / self.groups.max(1)
    }

    /// Sizes of the input as four dimensions, for what has no depth.
    pub fn input4(&self) -> [u32; 4] {
        [self.batch, self.channels, self.axes[1].input, self.axes[2].input]
    }
}

/// One number for each dimension; one number stands for all.
fn one_each(list: Vec<i64>, space: usize) -> Result<Vec<i64>, Error> {
    match list[..] {
        [one] => Ok(vec![one; space]),
        _ if list.len() == space => Ok(list),
        _ => Err(Error::invalid(format!("{} numbers for {space} dimensions", list.len()))),
    }
}

struct Parts {
    stride: Vec<i64>,
    padding: Padding,
    dilation: Vec<i64>,
    extra: Vec<i64>,
    transposed: bool,
    groups: i64,
}

impl Parts {
    fn fit(&self, x: &[u32], w: &[u32]) -> Result<Geometry, Error> {
        let space = w.len().saturating_sub(2);
        let with_batch = match x.len() {
            n if n == space + 2 => x.to_vec(),
            n if n == space + 1 => [&[1], x].concat(),
            _ => return Err(Error::invalid(format!("an input of {x:?} for weights of {w:?}"))),
        };
        let (&[batch, channels, ref sizes @ ..], &[first, second, ref kernel @ ..]) = (&with_batch[..], w) else {
            return Err(Error::invalid(format!("an input of {x:?} for weights of {w:?}")));
        };
        if space == 0 || space > 3 {
            return Err(Error::unsupported(format!("a convolution of {space} dimensions")));
        }
        let groups = u32::try_from(self.groups).ok().filter(|g| *g > 0);
        let groups = groups.ok_or_else(|| Error::invalid(format!("{} groups", self.groups)))?;
        let (inputs, outputs) = match self.transposed {
            true => (Some(first), second.checked_mul(groups)),
            false => (second.checked_mul(groups), Some(first)),
        };
        let outputs = outputs.filter(|o| inputs == Some(channels) && o % groups == 0 && channels % groups == 0);
        let outputs = outputs.ok_or_else(|| {
            Error::invalid(format!(
                "{channels} channels do not fit weights of {w:?} in {groups} groups"
            ))
        })?;
        let mut axes = [Axis::POINT; 3];
        for d in 0..space {
            let (input, kernel, stride, dilation) = (sizes[d], kernel[d], self.stride[d], self.dilation[d]);
            let axis = || {
                let is_positive = kernel > 0 && stride > 0 && dilation > 0 && dilation < 1 << 31 && stride < 1 << 31;
                let (before, after) = match &self.padding {
                    Padding::Each(padding) => (padding[d], padding[d]),
                    Padding::Same => {
                        let total = dilation.checked_mul(i64::from(kernel) - 1)?;
                        (total / 2, total - total / 2)
                    }
                };
                match (is_positive && input > 0, self.transposed) {
                    (false, _) => None,
                    (true, true) => Axis::transposed(input, kernel, stride, dilation, before, self.extra[d]),
                    (true, false) => Axis::plain(input, kernel, stride, dilation, before, after),
                }
            };
            let misfit = || Error::invalid(format!("the kernel of {w:?} does not fit the input of {x:?}"));
            axes[3 - space + d] = axis().ok_or_else(misfit)?;
        }
        Ok(Geometry {
            batch,
            channels,
            outputs,
            groups,
            transposed: self.transposed,
            axes,
            space,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(stride: i64, padding: Padding, dilation: i64, transposed: bool, extra: i64) -> Parts {
        Parts {
            stride: vec![stride],
            padding,
            dilation: vec![dilation],
            extra: vec![extra],
            transposed,
            groups: 1,
        }
    }

    #[test]
    fn a_line() {
        let plain = parts(2, Padding::Each(vec![1]), 1, false, 0);
        let geometry = plain.fit(&[1, 3, 8], &[5, 3, 3]).unwrap();
        let axis = geometry.axes[2];
        assert_eq!((axis.output, axis.offset, axis.lift()), (4, -1, 1));
        assert_eq!((geometry.outputs, geometry.input4()), (5, [1, 3, 1, 8]));
        assert!(plain.fit(&[1, 2, 8], &[5, 3, 3]).is_err());
        assert!(plain.fit(&[1, 3, 8], &[5, 3, 11]).is_err());
        // Without a batch.
        assert_eq!(plain.fit(&[3, 8], &[5, 3, 3]).unwrap(), geometry);
    }

    #[test]
    fn same_keeps_the_size() {
        let same = parts(1, Padding::Same, 3, false, 0);
        let axis = same.fit(&[1, 1, 10], &[1, 1, 4]).unwrap().axes[2];
        assert_eq!((axis.output, axis.offset), (10, -4));
    }

    #[test]
    fn a_transposed_line() {
        let geometry = parts(2, Padding::Each(vec![1]), 1, true, 1)
            .fit(&[1, 3, 4], &[3, 2, 3])
            .unwrap();
        let axis = geometry.axes[2];
        assert_eq!((axis.output, axis.gap, axis.step, axis.lift()), (8, 2, -1, 1));
        assert_eq!(geometry.outputs, 2);
        assert_eq!(axis.step_parts(), (u32::MAX, 1));
        // Each pair of output and kernel element gives at most one input, and each input meets each kernel element once at most.
        let mut met = vec![0; 4];
        for o in 0..8 {
            for k in 0..3 {
                let over = o + axis.offset + k * axis.step;
                if over % 2 == 0 && (0..4).contains(&(over / 2)) && over >= 0 {
                    met[(over / 2) as usize] += 1;
                }
            }
        }
        assert_eq!(met, [2, 3, 3, 3]);
    }
}
