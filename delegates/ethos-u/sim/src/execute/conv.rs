//! Convolutions, depthwise ones too.

use super::output::Channel;
use super::{Interpreter, Window};
use crate::arithmetic::Scale;
use crate::command::{Command, register, wide};
use crate::error::Error;
use crate::feature_map::FeatureMap;
use crate::memory::Memory;
use crate::weights::{Order, decode};

/// Bytes of a channel in the table of biases and scales.
const CHANNEL: usize = 10;

/// An input with its zero point taken off, and enlarged where the operation says so.
struct Input {
    height: usize,
    width: usize,
    depth: usize,
    values: Vec<i32>,
}

impl Interpreter {
    pub(super) fn conv(&mut self, command: Command, memory: &mut Memory<'_>, depthwise: bool) -> Result<(), Error> {
        let name = if depthwise { "DEPTHWISE" } else { "CONV" };
        self.state.begin(command.offset, name);
        if command.parameter() != 0 {
            return Err(self.state.error(format!("parameter {}", command.parameter())));
        }
        let ofm = self.ofm()?;
        let window = Window::of(&self.state)?;
        let input = self.enlarged(&ofm, &window, depthwise, memory)?;
        let channels = input.depth;
        let per_output = (window.rows * window.columns) as u64 * if depthwise { 1 } else { channels as u64 };
        let products = ofm.elements().and_then(|n| (n as u64).checked_mul(per_output));
        self.admit(&[&ofm])?;
        self.spend(products)?;
        let weights = self.weights(&ofm, &window, channels, depthwise, memory)?;
        let table = self.channels(ofm.depth, memory)?;
        let output = self.output(&ofm)?;
        let scales: Vec<Channel> = match output.one_scale {
            false => table,
            true => table
                .into_iter()
                .map(|c| Channel {
                    scale: output.scale,
                    ..c
                })
                .collect(),
        };
        self.counts.convolutions += 1;
        self.counts.multiplications += products.unwrap_or(0);
        let wide_sums = self.ifm_bits()? > 8;
        let mut sums = vec![0i64; ofm.depth];
        let mut narrow = vec![0i32; ofm.depth];
        let mut row = vec![0i32; ofm.depth];
        for y in 0..ofm.height {
            for x in 0..ofm.width {
                sums.fill(0);
                narrow.fill(0);
                for ky in 0..window.rows {
                    let Some(iy) = (y * window.stride_y + ky * window.dilation_y).checked_sub(window.top) else {
                        continue;
                    };
                    if iy >= input.height {
                        continue;
                    }
                    for kx in 0..window.columns {
                        let Some(ix) = (x * window.stride_x + kx * window.dilation_x).checked_sub(window.left) else {
                            continue;
                        };
                        if ix >= input.width {
                            continue;
                        }
                        let at = (iy * input.width + ix) * channels;
                        let pixel = &input.values[at..at + channels];
                        let element = ky * window.columns + kx;
                        match (depthwise, wide_sums) {
                            (true, _) => {
                                let kernel = &weights[element * ofm.depth..][..ofm.depth];
                                for ((sum, value), weight) in sums.iter_mut().zip(pixel).zip(kernel) {
                                    *sum += i64::from(*value) * i64::from(*weight);
                                }
                            }
                            (false, false) => {
                                add_products(&mut narrow, pixel, &weights[element * channels * ofm.depth..])
                            }
                            (false, true) => {
                                add_wide_products(&mut sums, pixel, &weights[element * channels * ofm.depth..]);
                            }
                        }
                    }
                }
                if !depthwise && !wide_sums {
                    sums.iter_mut()
                        .zip(&narrow)
                        .for_each(|(to, from)| *to = i64::from(*from));
                }
                for ((to, sum), channel) in row.iter_mut().zip(&sums).zip(&scales) {
                    *to = output.finish(sum + channel.bias, channel.scale);
                }
                ofm.write(memory, y, x, &row)?;
            }
        }
        Ok(())
    }

    fn ifm_bits(&self) -> Result<u32, Error> {
        self.bits(self.state.narrow(register::IFM_PRECISION)? >> 2)
    }

    fn enlarged(
        &mut self,
        ofm: &FeatureMap,
        window: &Window,
        depthwise: bool,
        memory: &Memory<'_>,
    ) -> Result<Input, Error> {
        let (height, width) = window
            .input(ofm.height, ofm.width)
            .ok_or_else(|| self.state.error("more padding than the window covers"))?;
        let depth = self.state.size(register::IFM_DEPTH_M1)?;
        if depthwise && depth != ofm.depth {
            return Err(self.state.error(format!("{depth} channels become {}", ofm.depth)));
        }
        let mode = self.state.or_zero(register::IFM_UPSCALE);
        if mode > 2 {
            return Err(self.state.error(format!("upscale mode {mode}")));
        }
        let (rows, columns) = if mode == 0 {
            (height, width)
        } else {
            (height.div_ceil(2), width.div_ceil(2))
        };
        let ifm = self.ifm(rows, columns, depth)?;
        let whole = FeatureMap {
            height,
            width,
            ..ifm.clone()
        };
        self.admit(&[&whole])?;
        let zero = self.state.signed(register::IFM_ZERO_POINT)?;
        let mut values = ifm.read(memory)?;
        values.iter_mut().for_each(|v| *v = v.wrapping_sub(zero));
        if mode != 0 {
            let mut large = vec![0; height * width * depth];
            for y in 0..height {
                for x in 0..width {
                    if mode == 2 && (y % 2 == 1 || x % 2 == 1) {
                        continue;
                    }
                    let (to, from) = ((y * width + x) * depth, (y / 2 * columns + x / 2) * depth);
                    large[to..to + depth].copy_from_slice(&values[from..from + depth]);
                }
            }
            values = large;
        }
        Ok(Input {
            height,
            width,
            depth,
            values,
        })
    }

    /// Weights `[row][column][input channel][output channel]`.
    fn weights(
        &mut self,
        ofm: &FeatureMap,
        window: &Window,
        channels: usize,
        depthwise: bool,
        memory: &Memory<'_>,
    ) -> Result<Vec<i16>, Error> {
        let state = &self.state;
        let stride = state.narrow(register::KERNEL_STRIDE)?;
        let region = state.narrow(register::WEIGHT_REGION)? as u8;
        let cores = self.config.cores();
        let total = (window.rows * window.columns)
            .checked_mul(if depthwise { 1 } else { channels })
            .and_then(|n| n.checked_mul(ofm.depth))
            .filter(|n| *n <= self.limits.elements)
            .ok_or(Error::Limit {
                what: "weights of an operation",
                limit: self.limits.elements as u64,
            })?;
        let mut all = vec![0i16; total];
        let streams = [
            (wide::WEIGHT_BASE, wide::WEIGHT_LENGTH),
            (wide::WEIGHT1_BASE, wide::WEIGHT1_LENGTH),
        ];
        for (core, (base, length)) in streams.into_iter().take(cores).enumerate() {
            // Cores share the channels in turn.
            let mine = (ofm.depth + cores - 1 - core) / cores;
            if mine == 0 {
                continue;
            }
            let block = state.size(register::OFM_BLK_DEPTH_M1)?;
            let covered = if stride & 0x20 != 0 { 4 } else { 8 };
            let order = Order {
                kernel: (window.rows, window.columns),
                ifm_depth: if depthwise { 1 } else { channels },
                ofm_depth: mine,
                block_depth: ((block + cores - 1 - core) / cores).max(1),
                ofm_micro: if self.config.macs == 32 { 4 } else { 8 },
                depthwise,
                part_kernel_first: stride & 4 != 0,
                ifm_bits: self.bits(state.narrow(register::IFM_PRECISION)? >> 2)?,
                // In covered rows and columns.
                sub_kernel: (covered / window.dilation_y, covered / window.dilation_x),
            };
            let stream = memory.read(region, state.address(base)?, state.address(length)?)?;
            let coded = decode(stream, self.limits.elements)?;
            let arranged = order.arrange(&coded)?;
            for (from, to) in arranged.chunks_exact(mine).zip(all.chunks_exact_mut(ofm.depth)) {
                for (i, weight) in from.iter().enumerate() {
                    to[i * cores + core] = *weight;
                }
            }
        }
        Ok(all)
    }

    /// Bias and scale of each channel.
    fn channels(&self, depth: usize, memory: &Memory<'_>) -> Result<Vec<Channel>, Error> {
        let state = &self.state;
        let region = state.narrow(register::SCALE_REGION)? as u8;
        let cores = self.config.cores();
        let mut all = vec![
            Channel {
                bias: 0,
                scale: Scale::ONE
            };
            depth
        ];
        let tables = [
            (wide::SCALE_BASE, wide::SCALE_LENGTH),
            (wide::SCALE1_BASE, wide::SCALE1_LENGTH),
        ];
        for (core, (base, length)) in tables.into_iter().take(cores).enumerate() {
            let mine = (depth + cores - 1 - core) / cores;
            if mine == 0 {
                continue;
            }
            let size = (mine * CHANNEL) as u64;
            if state.address(length)? < size {
                return Err(state.error(format!(
                    "a table of {} bytes for {mine} channels",
                    state.address(length)?
                )));
            }
            let bytes = memory.read(region, state.address(base)?, size)?;
            for (i, b) in bytes.chunks_exact(CHANNEL).enumerate() {
                let low = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                all[i * cores + core] = Channel {
                    bias: i64::from(low) | i64::from(b[4] as i8) << 32,
                    scale: Scale {
                        multiplier: u32::from_le_bytes([b[5], b[6], b[7], b[8]]),
                        shift: u32::from(b[9] & 0x3f),
                    },
                };
            }
        }
        Ok(all)
    }
}

/// `sums[o] += pixel[i] * weights[i][o]`, wrapping as an accumulator of 32 bits does.
fn add_products(sums: &mut [i32], pixel: &[i32], weights: &[i16]) {
    for (value, row) in pixel.iter().zip(weights.chunks_exact(sums.len())) {
        if *value != 0 {
            for (sum, weight) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(value.wrapping_mul(i32::from(*weight)));
            }
        }
    }
}

fn add_wide_products(sums: &mut [i64], pixel: &[i32], weights: &[i16]) {
    for (value, row) in pixel.iter().zip(weights.chunks_exact(sums.len())) {
        if *value != 0 {
            for (sum, weight) in sums.iter_mut().zip(row) {
                *sum += i64::from(*value) * i64::from(*weight);
            }
        }
    }
}
