//! Convolutions, depthwise ones too.

use super::output::Channel;
use super::{Interpreter, Window};
use crate::arithmetic::Scale;
use crate::command::{Command, register, wide};
use crate::container::Product;
use crate::error::Error;
use crate::feature_map::FeatureMap;
use crate::memory::Memory;
use crate::weights::{Order, OrderU85, decode, fast};

/// Bytes of a channel in the table of biases and scales.
const CHANNEL: usize = 10;

/// Bits of `WEIGHT_FORMAT`.
const FAST: u16 = 1;
const SPARSE: u16 = 0x10;

impl Interpreter {
    pub(super) fn conv(&mut self, command: Command, memory: &mut Memory<'_>, depthwise: bool) -> Result<(), Error> {
        let name = if depthwise { "DEPTHWISE" } else { "CONV" };
        self.state.begin(command.offset, name);
        let from_ifm2 = match command.parameter() {
            0 => false,
            1 if self.config.product == Product::U85 && !depthwise => true,
            other => return Err(self.state.error(format!("parameter {other}"))),
        };
        let ofm = self.ofm()?;
        let window = Window::of(&self.state)?;
        let depth = self.state.size(register::IFM_DEPTH_M1)?;
        if depthwise && depth != ofm.depth {
            return Err(self.state.error(format!("{depth} channels become {}", ofm.depth)));
        }
        let input = self.input(&ofm, &window, depth, memory)?;
        let channels = input.depth;
        let per_output = (window.rows * window.columns) as u64 * if depthwise { 1 } else { channels as u64 };
        let products = ofm.elements().and_then(|n| (n as u64).checked_mul(per_output));
        self.admit(&[&ofm])?;
        self.spend(products)?;
        let (weights, table) = match from_ifm2 {
            false => (
                self.weights(&ofm, &window, channels, depthwise, memory)?,
                self.channels(ofm.depth, memory)?,
            ),
            true => (self.second_as_weights(&ofm, &window, channels, memory)?, Vec::new()),
        };
        let beginning = self.beginning(&ofm, memory)?;
        let keeps = self.keeps_sums()?;
        let output = self.output(&ofm)?;
        let scales: Vec<Channel> = match output.one_scale {
            false => table,
            true if from_ifm2 => {
                let plain = Channel {
                    bias: 0,
                    scale: output.scale,
                };
                vec![plain; ofm.depth]
            }
            true => {
                let scaled = |channel: Channel| Channel {
                    scale: output.scale,
                    ..channel
                };
                table.into_iter().map(scaled).collect()
            }
        };
        if scales.len() != ofm.depth {
            return Err(self.state.error("a scale a channel, without a table"));
        }
        self.counts.convolutions += 1;
        self.counts.multiplications += products.unwrap_or(0);
        let wide_sums = self.ifm_bits()? > 8;
        let mut sums = vec![0i64; ofm.depth];
        let mut narrow = vec![0i32; ofm.depth];
        let elements = ofm.elements().unwrap_or(0);
        let mut results = Vec::with_capacity(if keeps { 0 } else { elements });
        let mut kept = Vec::with_capacity(if keeps { elements } else { 0 });
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
                let pixel = sums.iter().zip(&scales);
                results
                    .extend(pixel.map(|(sum, channel)| output.finish(sum.wrapping_add(channel.bias), channel.scale)));
            }
        }
        if keeps {
            self.accumulators = Some(kept);
            return Ok(());
        }
        self.store(&ofm, memory, &results)
    }

    fn ifm_bits(&self) -> Result<u32, Error> {
        self.bits(self.state.narrow(register::IFM_PRECISION)? >> 2)
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
            (wide::SCALE1_BASE, wide::SCALE1_LENGTH),
            (wide::WEIGHT3_BASE, wide::WEIGHT3_LENGTH),
        ];
        let limit = self.limits.elements;
        let format = match self.config.product {
            Product::U85 => state.narrow(register::WEIGHT_FORMAT)?,
            _ => 0,
        };
        if format & !(FAST | SPARSE) != 0 {
            return Err(state.error(format!("weight format {format}")));
        }
        let coded = |core: usize| -> Result<Vec<i16>, Error> {
            let (base, length) = streams[core];
            let stream = memory.read(region, state.address(base)?, state.address(length)?)?;
            if format & FAST != 0 {
                fast::decode(stream, limit)
            } else {
                decode(stream, limit)
            }
        };
        let block = state.size(register::OFM_BLK_DEPTH_M1)?;
        let ifm_bits = self.ifm_bits()?;
        let covered = if stride & 0x20 != 0 { 4 } else { 8 };
        // In covered rows and columns.
        let sub_kernel = (covered / window.dilation_y, covered / window.dilation_x);
        let kernel = (window.rows, window.columns);
        let ifm_depth = if depthwise { 1 } else { channels };
        let part_kernel_first = stride & 4 != 0;
        if self.config.product == Product::U85 {
            let order = OrderU85 {
                kernel,
                ifm_depth,
                ofm_depth: ofm.depth,
                block_depth: block,
                ofm_micro: self.micro_depth()?,
                cores,
                depthwise,
                part_kernel_first,
                sparse: format & SPARSE != 0,
                ifm_bits,
                sub_kernel,
                stride: (window.stride_y, window.stride_x),
            };
            // The fast format has one stream for all cores.
            let together = if format & FAST != 0 { cores } else { 1 };
            for first in (0..cores).step_by(together) {
                order.arrange(&coded(first)?, first..first + together, &mut all)?;
            }
            return Ok(all);
        }
        for core in 0..cores {
            // Cores share the channels in turn.
            let mine = (ofm.depth + cores - 1 - core) / cores;
            if mine == 0 {
                continue;
            }
            let order = Order {
                kernel,
                ifm_depth,
                ofm_depth: mine,
                block_depth: ((block + cores - 1 - core) / cores).max(1),
                ofm_micro: if self.config.macs == 32 { 4 } else { 8 },
                depthwise,
                part_kernel_first,
                ifm_bits,
                sub_kernel,
            };
            let arranged = order.arrange(&coded(core)?)?;
            for (from, to) in arranged.chunks_exact(mine).zip(all.chunks_exact_mut(ofm.depth)) {
                for (i, weight) in from.iter().enumerate() {
                    to[i * cores + core] = *weight;
                }
            }
        }
        Ok(all)
    }

    /// The second input in place of weights (U85): a row of input channels for each output channel.
    fn second_as_weights(
        &mut self,
        ofm: &FeatureMap,
        window: &Window,
        channels: usize,
        memory: &Memory<'_>,
    ) -> Result<Vec<i16>, Error> {
        if (window.rows, window.columns) != (1, 1) {
            return Err(self.state.error("a kernel larger than 1 by 1 that is a tensor"));
        }
        let map = self.ifm2(1, ofm.depth, channels)?;
        self.admit(&[&map])?;
        let zero = self.state.signed(register::IFM2_ZERO_POINT)?;
        let values = self.load(&map, memory)?;
        let mut weights = vec![0i16; values.len()];
        for (o, row) in values.chunks_exact(channels).enumerate() {
            for (i, value) in row.iter().enumerate() {
                weights[i * ofm.depth + o] = i16::try_from(value - zero)
                    .map_err(|_| self.state.error(format!("{} as a weight", value - zero)))?;
            }
        }
        Ok(weights)
    }

    /// Channels of an output micro-block of U85: what its rows and columns leave of an eighth of the multiplications.
    fn micro_depth(&self) -> Result<usize, Error> {
        let code = self.state.narrow(register::ACC_FORMAT)? >> 8 & 7;
        let pixels = match code {
            0 => 1,
            1 => 2,
            2 | 3 => 4,
            4 => 8,
            5 => 16,
            other => return Err(self.state.error(format!("micro-block {other}"))),
        };
        let depth = self.config.macs as usize / 8 / pixels;
        match depth >= 4 * self.config.cores() {
            true => Ok(depth),
            false => Err(self
                .state
                .error(format!("micro-block {code} on {} multipliers", self.config.macs))),
        }
    }

    /// Bias and scale of each channel.
    pub(super) fn channels(&self, depth: usize, memory: &Memory<'_>) -> Result<Vec<Channel>, Error> {
        let state = &self.state;
        let region = state.narrow(register::SCALE_REGION)? as u8;
        // The cores of U85 have one table.
        let is_u85 = self.config.product == Product::U85;
        let cores = if is_u85 { 1 } else { self.config.cores() };
        let wide_bias = is_u85 && self.state.narrow(register::ACC_FORMAT)? & 1 != 0;
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
                all[i * cores + core] = match (is_u85, wide_bias) {
                    (false, _) => channel(signed(&b[..5]), &b[5..9], b[9]),
                    (true, false) => channel(signed(&b[..4]), &b[4..8], b[8]),
                    (true, true) => channel(signed(&b[..6]), &b[6..8], b[8]),
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

/// A number of up to eight bytes.
fn signed(bytes: &[u8]) -> i64 {
    let whole = bytes.iter().rev().fold(0i64, |sum, b| sum << 8 | i64::from(*b));
    let unused = 64 - 8 * bytes.len() as u32;
    whole << unused >> unused
}

fn channel(bias: i64, multiplier: &[u8], shift: u8) -> Channel {
    Channel {
        bias,
        scale: Scale {
            multiplier: multiplier.iter().rev().fold(0, |sum, b| sum << 8 | u32::from(*b)),
            shift: u32::from(shift & 0x3f),
        },
    }
}
