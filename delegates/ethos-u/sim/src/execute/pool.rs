//! Pools: maximum, average, and sums over the channels.

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
}

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
            other => return Err(self.state.error(format!("mode {other}"))),
        };
        let ofm = self.ofm()?;
        if mode == Mode::None {
            return self.no_pool(&ofm, memory);
        }
        let window = Window::of(&self.state)?;
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
        if beginning.is_some() && mode != Mode::Sum {
            return Err(self.state.error("a second input of a pool"));
        }
        let output = self.output(&ofm)?;
        self.counts.pools += 1;
        let mut results = Vec::with_capacity(ofm.elements().unwrap_or(0));
        let mut sums = vec![0i64; ofm.depth];
        for y in 0..ofm.height {
            for x in 0..ofm.width {
                let mut count = 0i64;
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
                    let pixel = &beginning[results.len()..][..ofm.depth];
                    sums.iter_mut()
                        .zip(pixel)
                        .for_each(|(sum, first)| *sum += i64::from(*first));
                }
                // Windows that padding cuts have fewer elements: these are counted here, and not in the scale. U85 always counts.
                let counts = mode == Mode::Average && (is_u85 || window.is_padded());
                let scale = if output.one_scale { output.scale } else { Scale::ONE };
                results.extend(sums.iter().map(|sum| {
                    let sum = if counts { mean(*sum, count) } else { *sum };
                    output.finish(sum, scale)
                }));
            }
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
        let output = self.output(ofm)?;
        self.counts.pools += 1;
        let results: Vec<i32> = sums
            .iter()
            .map(|sum| output.finish(i64::from(*sum), output.scale))
            .collect();
        self.store(ofm, memory, &results)
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
