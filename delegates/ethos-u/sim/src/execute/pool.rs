//! Pools: maximum, average, and sums over the channels.

use super::output::{Channel, Output};
use super::{Interpreter, Window};
use crate::arithmetic::{Rounding, Scale};
use crate::command::{Command, register};
use crate::container::Product;
use crate::error::Error;
use crate::feature_map::FeatureMap;
use crate::memory::Memory;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Max,
    Average,
    ReduceSum,
    Sum,
    None,
    Min,
    /// Of the columns of a window, or of its rows.
    ArgMax {
        rows: bool,
    },
}

/// Bits of the sum of an `ArgMax` below the index, which hold the largest element.
const INDEX_SHIFT: u32 = 16;

impl Interpreter {
    pub(super) fn pool(&mut self, command: Command, memory: &mut Memory<'_>) -> Result<(), Error> {
        self.state.begin(command.offset, "POOL");
        let is_u85 = self.config.product == Product::U85;
        let mode = match command.parameter() {
            0 => Mode::Max,
            1 => Mode::Average,
            2 => Mode::ReduceSum,
            3 if is_u85 => Mode::Sum,
            4 if is_u85 => Mode::None,
            5 if is_u85 => Mode::Min,
            6 | 7 if is_u85 => Mode::ArgMax {
                rows: command.parameter() == 7,
            },
            other => return Err(self.state.error(format!("mode {other}"))),
        };
        let ofm = self.ofm()?;
        if mode == Mode::None {
            return self.no_pool(&ofm, memory);
        }
        let window = Window::of(&self.state)?;
        if let Mode::ArgMax { rows } = mode
            && (if rows { window.columns } else { window.rows }) > 1
        {
            return Err(self.state.error("an index of a window that is large both ways"));
        }
        let depth = match mode {
            Mode::ReduceSum => self.state.size(register::IFM_DEPTH_M1)?,
            _ => ofm.depth,
        };
        self.admit(&[&ofm])?;
        let elements = ofm.elements().map(|n| n as u64);
        let per_output = (window.rows * window.columns) as u64 * if mode == Mode::ReduceSum { depth as u64 } else { 1 };
        self.spend(elements.and_then(|n| n.checked_mul(per_output)))?;
        let input = self.input(&ofm, &window, depth, memory)?;
        let (height, width) = (input.height, input.width);
        let beginning = self.beginning(&ofm, memory)?;
        let keeps = self.keeps_sums()?;
        let is_sum = matches!(mode, Mode::Sum | Mode::ReduceSum);
        if (beginning.is_some() || keeps) && !is_sum {
            return Err(self
                .state
                .error("sums of other operations, of a pool that does not add"));
        }
        let output = self.output(&ofm)?;
        let scales = self.scales(&ofm, &output, memory)?;
        self.counts.pools += 1;
        let mut results = Vec::with_capacity(ofm.elements().unwrap_or(0));
        let mut kept = Vec::new();
        let mut sums = vec![0i64; ofm.depth];
        for y in 0..ofm.height {
            for x in 0..ofm.width {
                let mut count = 0i64;
                let mut largest = vec![
                    i32::MIN;
                    if matches!(mode, Mode::ArgMax { .. }) {
                        ofm.depth
                    } else {
                        0
                    }
                ];
                sums.fill(match mode {
                    Mode::Max => i64::MIN,
                    Mode::Min => i64::MAX,
                    _ => 0,
                });
                for ky in 0..window.rows {
                    for kx in 0..window.columns {
                        let iy = (y * window.stride_y + ky * window.dilation_y).checked_sub(window.top);
                        let ix = (x * window.stride_x + kx * window.dilation_x).checked_sub(window.left);
                        let Some((iy, ix)) = iy.zip(ix).filter(|(iy, ix)| *iy < height && *ix < width) else {
                            continue;
                        };
                        count += 1;
                        let pixel = &input.values[(iy * width + ix) * depth..][..depth];
                        match mode {
                            Mode::ReduceSum => {
                                let sum: i64 = pixel.iter().map(|v| i64::from(*v)).sum();
                                sums.iter_mut().for_each(|s| *s += sum);
                            }
                            Mode::ArgMax { rows } => {
                                let index = (if rows { ky } else { kx }) as i64;
                                for ((sum, top), value) in sums.iter_mut().zip(&mut largest).zip(pixel) {
                                    // The first one of several.
                                    if count == 1 || value > top {
                                        *top = *value;
                                        *sum = index << INDEX_SHIFT | i64::from(*value as u16);
                                    }
                                }
                            }
                            Mode::Average | Mode::Sum | Mode::None => {
                                sums.iter_mut().zip(pixel).for_each(|(s, v)| *s += i64::from(*v));
                            }
                            Mode::Min => {
                                let pairs = sums.iter_mut().zip(pixel);
                                pairs.for_each(|(s, v)| *s = (*s).min(i64::from(*v)));
                            }
                            Mode::Max => {
                                sums.iter_mut()
                                    .zip(pixel)
                                    .for_each(|(s, v)| *s = (*s).max(i64::from(*v)));
                            }
                        }
                    }
                }
                if count == 0 {
                    return Err(self.state.error("a window that covers padding only"));
                }
                if let Some(beginning) = &beginning {
                    let pixel = &beginning[(y * ofm.width + x) * ofm.depth..][..ofm.depth];
                    sums.iter_mut()
                        .zip(pixel)
                        .for_each(|(sum, first)| *sum = sum.wrapping_add(*first));
                }
                if keeps {
                    kept.extend(&sums);
                    continue;
                }
                // Windows that padding cuts have fewer elements: these are counted here, and not in the scale. U85 always counts.
                let counts = mode == Mode::Average && (is_u85 || window.is_padded());
                results.extend(sums.iter().zip(&scales).map(|(sum, channel)| {
                    let sum = if counts { mean(*sum, count) } else { *sum };
                    output.finish(sum.wrapping_add(channel.bias), channel.scale)
                }));
            }
        }
        if keeps {
            self.accumulators = Some(kept);
            return Ok(());
        }
        self.store(&ofm, memory, &results)
    }

    /// No input: what the sums begin with, scaled; or the zero point everywhere.
    fn no_pool(&mut self, ofm: &FeatureMap, memory: &mut Memory<'_>) -> Result<(), Error> {
        self.admit(&[ofm])?;
        let sums = match self.beginning(ofm, memory)? {
            Some(sums) => sums,
            None => vec![0; ofm.elements().unwrap_or(0)],
        };
        self.counts.pools += 1;
        if self.keeps_sums()? {
            self.accumulators = Some(sums);
            return Ok(());
        }
        let output = self.output(ofm)?;
        let scales = self.scales(ofm, &output, memory)?;
        let results: Vec<i64> = sums
            .iter()
            .zip(scales.iter().cycle())
            .map(|(sum, channel)| output.finish(sum.wrapping_add(channel.bias), channel.scale))
            .collect();
        self.store(ofm, memory, &results)
    }

    /// Bias and scale of each channel: those of a table, unless there is one scale.
    fn scales(&self, ofm: &FeatureMap, output: &Output, memory: &Memory<'_>) -> Result<Vec<Channel>, Error> {
        if !output.one_scale {
            return self.channels(ofm.depth, memory);
        }
        let channel = Channel {
            bias: 0,
            scale: output.scale,
        };
        Ok(vec![channel; ofm.depth])
    }
}

/// The mean by a reciprocal of 31 bits, as TOSA's `AVG_POOL2D` defines it.
fn mean(sum: i64, count: i64) -> i64 {
    let bits = (count - 1).checked_ilog2().map_or(0, |log| log + 1);
    let multiplier = (((1i64 << 30) + 1) << bits) / count;
    let scale = Scale {
        multiplier: multiplier as u32,
        shift: 30 + bits,
    };
    scale.apply(sum, Rounding::Natural)
}
