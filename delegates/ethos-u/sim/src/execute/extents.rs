//! What of each region a stream reads and writes, without running it: what Linux's driver works out of a stream before it lets it run.

use super::output::ONE_SCALE;
use super::{Interpreter, Limits, Window};
use crate::command::{Command, Commands, operation, register, wide};
use crate::container::{Product, Stream};
use crate::error::Error;
use crate::feature_map::FeatureMap;
use crate::memory::REGIONS;

/// Bytes of each region that are used; `None`: the region is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extents {
    /// The byte behind the last one that is read or written.
    pub used: [Option<u64>; REGIONS],
    /// The same of what is written.
    pub written: [Option<u64>; REGIONS],
    /// The stream branches. What is said of it holds if each operation finds the registers set by the commands above it, as Vela writes them.
    pub branches: bool,
}

impl Extents {
    fn cover(&mut self, region: u16, end: u64, writes: bool) {
        let region = usize::from(region) % REGIONS;
        let grow = |slot: &mut Option<u64>| *slot = Some(slot.unwrap_or(0).max(end));
        grow(&mut self.used[region]);
        if writes {
            grow(&mut self.written[region]);
        }
    }

    fn map(&mut self, map: &FeatureMap, writes: bool) {
        if let Some(end) = map.end() {
            self.cover(u16::from(map.region), end, writes);
        }
    }

    /// Of a stream.
    ///
    /// # Errors
    /// A command that is not known, a register that was never set, or no end.
    pub fn of(stream: &Stream) -> Result<Extents, Error> {
        let mut interpreter = Interpreter::new(stream.config, Limits::default());
        let mut extents = Extents::default();
        for command in Commands::new(&stream.words) {
            let command = command?;
            if command.name().is_none() {
                return Err(interpreter.unknown(command));
            }
            if command.sets_a_register() {
                interpreter.state.set(command);
                continue;
            }
            if command.payload.is_some() {
                if stream.config.product != Product::U85 {
                    return Err(interpreter.unknown(command));
                }
                extents.branches = true;
                continue;
            }
            match command.opcode() {
                operation::STOP => return Ok(extents),
                operation::IRQ | operation::DMA_WAIT | operation::KERNEL_WAIT | operation::PMU_MASK => {}
                _ => interpreter.extents(command, &mut extents)?,
            }
        }
        Err(Error::NoStop)
    }
}

impl Interpreter {
    fn extents(&mut self, command: Command, extents: &mut Extents) -> Result<(), Error> {
        self.state.begin(command.offset, command.name().unwrap_or("?"));
        if command.opcode() == operation::DMA_START {
            return self.dma_extents(extents);
        }
        let ofm = self.ofm()?;
        extents.map(&self.written(&ofm)?, true);
        let is_u85 = self.config.product == Product::U85;
        match command.opcode() {
            operation::CONV | operation::DEPTHWISE => {
                self.window_extents(&ofm, self.state.size(register::IFM_DEPTH_M1)?, extents)?;
                match command.parameter() {
                    0 => {
                        self.weight_extents(extents)?;
                        self.scale_extents(extents)?;
                    }
                    _ => extents.map(
                        &self.ifm2(1, ofm.depth, self.state.size(register::IFM_DEPTH_M1)?)?,
                        false,
                    ),
                }
            }
            operation::POOL if is_u85 && command.parameter() == 4 => {
                if self.state.narrow(register::OFM_PRECISION)? & ONE_SCALE == 0 {
                    self.scale_extents(extents)?;
                }
            }
            operation::POOL => {
                let reduces = command.parameter() == 2;
                let depth = if reduces {
                    self.state.size(register::IFM_DEPTH_M1)?
                } else {
                    ofm.depth
                };
                self.window_extents(&ofm, depth, extents)?;
                if self.state.narrow(register::OFM_PRECISION)? & ONE_SCALE == 0 {
                    self.scale_extents(extents)?;
                }
            }
            operation::ELEMENTWISE => self.operand_extents(command, &ofm, extents)?,
            operation::RESIZE if is_u85 => {
                let height = self.state.size(register::KERNEL_HEIGHT_M1)?;
                let width = self.state.size(register::KERNEL_WIDTH_M1)?;
                extents.map(&self.ifm(height, width, ofm.depth)?, false);
            }
            _ => return Err(self.unknown(command)),
        }
        if is_u85 && self.state.narrow(register::ACC_FORMAT)? >> 4 & 3 == 2 {
            extents.map(&self.ifm2(ofm.height, ofm.width, ofm.depth)?, false);
        }
        Ok(())
    }

    fn window_extents(&self, ofm: &FeatureMap, depth: usize, extents: &mut Extents) -> Result<(), Error> {
        let (height, width) = Window::of(&self.state)?
            .input(ofm.height, ofm.width)
            .ok_or_else(|| self.state.error("more padding than the window covers"))?;
        let (rows, columns) = match self.state.or_zero(register::IFM_UPSCALE) {
            0 => (height, width),
            _ => (height.div_ceil(2), width.div_ceil(2)),
        };
        extents.map(&self.ifm(rows, columns, depth)?, false);
        Ok(())
    }

    fn operand_extents(&self, command: Command, ofm: &FeatureMap, extents: &mut Extents) -> Result<(), Error> {
        let sizes = [ofm.height, ofm.width, ofm.depth];
        let is_u85 = self.config.product == Product::U85;
        let first = if is_u85 {
            self.broadcast(register::IFM_BROADCAST)?
        } else {
            0
        };
        if let Some([height, width, depth]) = super::elementwise::in_memory(first, sizes) {
            extents.map(&self.ifm(height, width, depth)?, false);
        }
        if !super::elementwise::is_unary(command.parameter(), self.config.product) {
            let second = self.broadcast(register::IFM2_BROADCAST)?;
            if let Some([height, width, depth]) = super::elementwise::in_memory(second, sizes) {
                extents.map(&self.ifm2(height, width, depth)?, false);
            }
        }
        Ok(())
    }

    fn weight_extents(&self, extents: &mut Extents) -> Result<(), Error> {
        let state = &self.state;
        let weights = state.narrow(register::WEIGHT_REGION)?;
        let mut streams = vec![(wide::WEIGHT_BASE, wide::WEIGHT_LENGTH)];
        if self.config.cores() > 1 {
            streams.push((wide::WEIGHT1_BASE, wide::WEIGHT1_LENGTH));
        }
        if self.config.cores() > 2 {
            // Where the other processors have the second table.
            streams.push((wide::SCALE1_BASE, wide::SCALE1_LENGTH));
            streams.push((wide::WEIGHT3_BASE, wide::WEIGHT3_LENGTH));
        }
        self.covered(weights, &streams, extents)
    }

    /// Tables of biases and scales.
    fn scale_extents(&self, extents: &mut Extents) -> Result<(), Error> {
        let scales = self.state.narrow(register::SCALE_REGION)?;
        let tables = [
            (wide::SCALE_BASE, wide::SCALE_LENGTH),
            (wide::SCALE1_BASE, wide::SCALE1_LENGTH),
        ];
        let count = match self.config.product {
            Product::U85 => 1,
            _ => self.config.cores().min(2),
        };
        self.covered(scales, &tables[..count], extents)
    }

    fn covered(&self, region: u16, parts: &[(u16, u16)], extents: &mut Extents) -> Result<(), Error> {
        for (base, length) in parts {
            let length = self.state.address_or_zero(*length);
            if length > 0 {
                let end = self.state.address(*base)?.saturating_add(length);
                extents.cover(region & 0xff, end, false);
            }
        }
        Ok(())
    }

    fn dma_extents(&self, extents: &mut Extents) -> Result<(), Error> {
        let state = &self.state;
        let all = self
            .transfer()?
            .extents()
            .ok_or_else(|| state.error("a piece beyond what an address can say"))?;
        for (part, writes) in all.into_iter().zip([false, true, false]) {
            if let Some((region, end)) = part {
                extents.cover(u16::from(region), end, writes);
            }
        }
        Ok(())
    }
}
