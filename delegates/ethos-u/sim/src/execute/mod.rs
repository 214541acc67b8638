//! Runs a stream: registers are set, operations are executed in order on the memory of the caller.
//!
//! What depends on time is not modelled: waits, block sizes, dependencies between blocks and the layout of internal buffers change no result, and
//! are read where the order of the weights needs them only.

mod conv;
mod dma;
mod elementwise;
mod extents;
mod function;
mod input;
mod output;
mod pool;
mod resize;
mod store;

pub use extents::Extents;

use crate::command::{Command, Commands, operation, register, wide};
use crate::container::{Config, Product, Stream};
use crate::error::{Error, Offset};
use crate::feature_map::{FeatureMap, Format, Storage};
use crate::memory::Memory;
use crate::state::State;
use std::collections::HashMap;

/// What a run may take, against streams that are damaged or made to harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Multiplications, moved elements and bytes, all operations together.
    pub work: u64,
    /// Elements of one tensor, or weights of one operation.
    pub elements: usize,
}

impl Default for Limits {
    /// Enough for networks of 60 thousand million multiplications, and tensors of 256 million elements.
    fn default() -> Limits {
        Limits {
            work: 1 << 36,
            elements: 1 << 28,
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Convolutions, depthwise ones included.
    pub convolutions: u64,
    /// Pools.
    pub pools: u64,
    /// Elementwise operations.
    pub elementwise: u64,
    /// Transfers.
    pub transfers: u64,
    /// Multiplications with weights.
    pub multiplications: u64,
}

/// Storage of a feature map that one operation hands to the next (U85).
const CHAINED: u16 = 2;

/// Storage of a feature map that is no tensor (U85): a number in place of an input, or an output that stays in the accumulators.
const NOWHERE: u16 = 3;

/// Units of work that a branch counts as.
const BRANCH_WORK: u64 = 1 << 14;

/// Bytes of tables at the end of the internal memory.
const TABLES: usize = 2048;

/// An interpreter with its internal memory, which lives as long as it does.
#[derive(Debug, Clone)]
pub struct Interpreter {
    config: Config,
    limits: Limits,
    /// The internal memory, of which only the tables at its end are ever read.
    internal: Vec<u8>,
    state: State,
    /// Results that the next operation takes, by number.
    chained: HashMap<u8, Vec<i32>>,
    /// Sums that the next operation goes on with (U85).
    accumulators: Option<Vec<i64>>,
    /// What a branch looks at: whether the one result of the last operation was not zero (U85). `None`: it had more.
    flag: Option<bool>,
    work: u64,
    counts: Counts,
}

impl Interpreter {
    /// For a configuration.
    pub fn new(config: Config, limits: Limits) -> Interpreter {
        let address_bits = if config.product == Product::U55 { 32 } else { 40 };
        Interpreter {
            config,
            limits,
            // Each core has its own, with the same tables. On U85 there are only the tables.
            internal: match config.product {
                Product::U85 => vec![0; TABLES],
                _ => vec![0; (config.shram_kib as usize / config.cores() * 1024).max(TABLES)],
            },
            state: State::new(address_bits),
            chained: HashMap::new(),
            accumulators: None,
            flag: None,
            work: 0,
            counts: Counts::default(),
        }
    }

    /// Runs a stream to its end. Memory may be changed by a run that fails.
    ///
    /// # Errors
    /// See [`Error`]: what is not known, or outside the memory, or beyond the limits.
    pub fn run(&mut self, stream: &Stream, memory: &mut Memory<'_>) -> Result<Counts, Error> {
        (self.work, self.counts) = (0, Counts::default());
        let mut commands = Commands::new(&stream.words);
        while let Some(command) = commands.next() {
            let command = command?;
            if command.name().is_none() {
                return Err(self.unknown(command));
            }
            if command.sets_a_register() {
                self.state.set(command);
                continue;
            }
            if let Some(target) = command.payload {
                if self.config.product != Product::U85 {
                    return Err(self.unknown(command));
                }
                if self.branch(command, target)? && commands.jump(Offset(target as usize)).is_none() {
                    return Err(self.state.error(format!("there is no command at byte {target:#x}")));
                }
                continue;
            }
            match command.opcode() {
                operation::STOP => return Ok(self.counts),
                operation::CONV => self.conv(command, memory, false)?,
                operation::DEPTHWISE => self.conv(command, memory, true)?,
                operation::POOL => self.pool(command, memory)?,
                operation::ELEMENTWISE => self.elementwise(command, memory)?,
                operation::DMA_START => self.dma(command, memory)?,
                operation::RESIZE if self.config.product == Product::U85 => self.resize(command, memory)?,
                operation::IRQ | operation::DMA_WAIT | operation::KERNEL_WAIT | operation::PMU_MASK => {}
                _ => return Err(self.unknown(command)),
            }
        }
        Err(Error::NoStop)
    }

    /// True if a branch is taken. Its work is counted by the way back, so that no loop is without end.
    fn branch(&mut self, command: Command, target: u32) -> Result<bool, Error> {
        self.state.begin(command.offset, "BRANCH");
        let back = (command.offset.0 as u64).saturating_sub(u64::from(target));
        self.spend(Some(BRANCH_WORK + back))?;
        match command.parameter() {
            0 => Ok(true),
            1 => self.flag.ok_or_else(|| {
                self.state
                    .error("a condition, where no operation before it has one result")
            }),
            other => Err(self.state.error(format!("condition {other}"))),
        }
    }

    fn unknown(&self, command: Command) -> Error {
        Error::UnknownCommand {
            offset: command.offset,
            word: command.word,
            product: self.config.product.name(),
        }
    }

    /// Counts work before it is done.
    fn spend(&mut self, work: Option<u64>) -> Result<(), Error> {
        let limit = self.limits.work;
        match work
            .and_then(|work| self.work.checked_add(work))
            .filter(|sum| *sum <= limit)
        {
            Some(sum) => {
                self.work = sum;
                Ok(())
            }
            None => Err(Error::Limit {
                what: "units of work",
                limit,
            }),
        }
    }

    /// Counts the elements of tensors before memory is taken for them.
    fn admit(&mut self, maps: &[&FeatureMap]) -> Result<(), Error> {
        for map in maps {
            let elements = map
                .elements()
                .filter(|n| *n <= self.limits.elements)
                .ok_or(Error::Limit {
                    what: "elements of a tensor",
                    limit: self.limits.elements as u64,
                })?;
            self.spend(Some(elements as u64))?;
        }
        Ok(())
    }

    /// The elements of an input.
    fn load(&self, map: &FeatureMap, memory: &Memory<'_>) -> Result<Vec<i32>, Error> {
        match map.storage {
            _ if map.bits > 32 => return Err(self.state.error("an input of 64 bits")),
            Storage::Memory => return map.read(memory),
            Storage::Chained => {}
            Storage::Nowhere => return Err(self.state.error("an input that is nowhere")),
        }
        match self.chained.get(&map.region) {
            Some(values) if Some(values.len()) == map.elements() => Ok(values.clone()),
            Some(values) => Err(self
                .state
                .error(format!("a chained input of {} elements", values.len()))),
            None => Err(self.state.error(format!("nothing was chained as {}", map.region))),
        }
    }

    fn format(&self, precision: u16) -> Result<Format, Error> {
        match precision >> 6 & 3 {
            0 => Ok(Format::Nhwc),
            1 => Ok(Format::Nhcwb16),
            other => Err(self.state.error(format!("format {other} of a feature map"))),
        }
    }

    fn bits(&self, code: u16) -> Result<u32, Error> {
        match (code & 3, self.config.product) {
            (3, Product::U55 | Product::U65) => Err(self.state.error("elements of 64 bits")),
            (code, _) => Ok(8 << code),
        }
    }

    /// The input, with sizes that the operation derives.
    fn ifm(&self, height: usize, width: usize, depth: usize) -> Result<FeatureMap, Error> {
        let precision = self.state.narrow(register::IFM_PRECISION)?;
        self.map(
            [wide::IFM_BASE0, wide::IFM_STRIDE_X],
            [
                register::IFM_REGION,
                register::IFM_WIDTH0_M1,
                register::IFM_HEIGHT0_M1,
                register::IFM_HEIGHT1_M1,
            ],
            (precision, precision >> 2),
            [height, width, depth],
        )
    }

    /// The second input of an elementwise operation.
    fn ifm2(&self, height: usize, width: usize, depth: usize) -> Result<FeatureMap, Error> {
        let precision = self.state.narrow(register::IFM2_PRECISION)?;
        self.map(
            [wide::IFM2_BASE0, wide::IFM2_STRIDE_X],
            [
                register::IFM2_REGION,
                register::IFM2_WIDTH0_M1,
                register::IFM2_HEIGHT0_M1,
                register::IFM2_HEIGHT1_M1,
            ],
            (precision, precision >> 2),
            [height, width, depth],
        )
    }

    /// The output.
    fn ofm(&self) -> Result<FeatureMap, Error> {
        let mut precision = self.state.narrow(register::OFM_PRECISION)?;
        if self.config.product != Product::U85 {
            // Its highest bits are the rounding there.
            precision &= 0x3fff;
        }
        let height = self.state.size(register::OFM_HEIGHT_M1)?;
        let width = self.state.size(register::OFM_WIDTH_M1)?;
        let depth = self.state.size(register::OFM_DEPTH_M1)?;
        self.map(
            [wide::OFM_BASE0, wide::OFM_STRIDE_X],
            [
                register::OFM_REGION,
                register::OFM_WIDTH0_M1,
                register::OFM_HEIGHT0_M1,
                register::OFM_HEIGHT1_M1,
            ],
            (precision, precision >> 1),
            [height, width, depth],
        )
    }

    fn map(
        &self,
        [base, stride_x]: [u16; 2],
        [region, width0, height0, height1]: [u16; 4],
        (precision, bits): (u16, u16),
        [height, width, depth]: [usize; 3],
    ) -> Result<FeatureMap, Error> {
        let state = &self.state;
        let format = self.format(precision)?;
        let storage = if self.config.product == Product::U85 {
            precision >> 14
        } else {
            0
        };
        let storage = match storage {
            0 => Storage::Memory,
            CHAINED => Storage::Chained,
            NOWHERE => Storage::Nowhere,
            _ => return Err(state.error("three tiles in a column")),
        };
        if storage != Storage::Memory {
            // Of what is chained, the region is the number of a buffer between two operations.
            return Ok(FeatureMap::between(
                storage,
                state.narrow(region)? as u8,
                self.bits(bits)?,
                precision & 1 != 0,
                [height, width, depth],
            ));
        }
        let bases = [0, 1, 2, 3].map(|tile| state.address_or_zero(base + tile));
        state.address(base)?;
        Ok(FeatureMap {
            storage,
            region: state.narrow(region)? as u8,
            bases,
            stride_x: state.stride(stride_x)?,
            stride_y: state.stride(stride_x + 1)?,
            stride_c: state.stride(stride_x + 2)?,
            tile_width: state.size(width0)?,
            tile_heights: (state.size(height0)?, state.size(height1)?),
            format,
            bits: self.bits(bits)?,
            signed: precision & 1 != 0,
            height,
            width,
            depth,
        })
    }
}

/// The window of a convolution or a pool.
#[derive(Debug, Clone, Copy)]
struct Window {
    rows: usize,
    columns: usize,
    stride_y: usize,
    stride_x: usize,
    dilation_y: usize,
    dilation_x: usize,
    top: usize,
    left: usize,
    bottom: usize,
    right: usize,
}

impl Window {
    fn of(state: &State) -> Result<Window, Error> {
        let stride = state.narrow(register::KERNEL_STRIDE)?;
        let (stride_x, stride_y) = crate::disassemble::strides(stride);
        let pad = |register| state.narrow(register).map(usize::from);
        let (dilation_y, dilation_x) = (1 + usize::from(stride >> 4 & 1), 1 + usize::from(stride >> 3 & 1));
        // The registers hold what the kernel covers.
        let elements = |register, dilation: usize| state.size(register).map(|covered| (covered - 1) / dilation + 1);
        Ok(Window {
            rows: elements(register::KERNEL_HEIGHT_M1, dilation_y)?,
            columns: elements(register::KERNEL_WIDTH_M1, dilation_x)?,
            stride_y,
            stride_x,
            dilation_y,
            dilation_x,
            top: pad(register::IFM_PAD_TOP)?,
            left: pad(register::IFM_PAD_LEFT)?,
            bottom: pad(register::IFM_PAD_BOTTOM)?,
            right: pad(register::IFM_PAD_RIGHT)?,
        })
    }

    fn is_padded(&self) -> bool {
        self.top + self.left + self.bottom + self.right > 0
    }

    /// Height and width of the input, which no register holds.
    fn input(&self, height: usize, width: usize) -> Option<(usize, usize)> {
        let along = |out: usize, stride: usize, size: usize, dilation: usize, pads: usize| {
            ((out - 1) * stride + (size - 1) * dilation + 1)
                .checked_sub(pads)
                .filter(|n| *n > 0)
        };
        let rows = along(
            height,
            self.stride_y,
            self.rows,
            self.dilation_y,
            self.top + self.bottom,
        )?;
        Some((
            rows,
            along(
                width,
                self.stride_x,
                self.columns,
                self.dilation_x,
                self.left + self.right,
            )?,
        ))
    }
}
