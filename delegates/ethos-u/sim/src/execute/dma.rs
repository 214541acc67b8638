//! Transfers between regions, and of tables into the internal memory.

use super::Interpreter;
use crate::command::{Command, register, wide};
use crate::container::Product;
use crate::error::Error;
use crate::memory::Memory;

/// Bit of a transfer's region: the internal memory.
const INTERNAL: u16 = 0x100;
/// Bit of a transfer's region: its place depends on an index (U85).
const INDEXED: u16 = 0x800;
/// Bytes of an index.
const INDEX: u64 = 4;

/// Which side of a transfer an index is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// A side of a transfer: where its pieces lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub region: u8,
    pub internal: bool,
    address: u64,
    /// Bytes from one piece to the next, and from one row of pieces to the next.
    strides: [i64; 2],
}

impl Place {
    fn at(&self, piece: u64, row: u64) -> Option<u64> {
        let far = |count: u64, stride: i64| i64::try_from(count).ok()?.checked_mul(stride);
        let offset = far(piece, self.strides[0])?.checked_add(far(row, self.strides[1])?)?;
        self.address.checked_add_signed(offset)
    }
}

/// A transfer: rows of pieces of bytes that lie beside each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    pub source: Place,
    pub destination: Place,
    length: u64,
    /// Pieces of a row, and rows.
    sizes: [u64; 2],
    index: Option<Index>,
}

/// Indices of pieces: which piece of its side is meant in place of the next one.
#[derive(Debug, Clone, Copy)]
struct Index {
    side: Side,
    region: u8,
    address: u64,
    largest: u64,
    /// Bytes between the indices of two rows.
    skip: u64,
}

impl Index {
    fn at(&self, piece: u64, row: u64, in_a_row: u64) -> Option<u64> {
        let rows = row.checked_mul((in_a_row * INDEX).checked_add(self.skip)?)?;
        self.address.checked_add(rows)?.checked_add(piece * INDEX)
    }
}

/// A part of a region: its number, and the byte behind the last one that a transfer touches.
pub(super) type Extent = (u8, u64);

impl Transfer {
    /// What it reads, besides indices; what it writes; and the indices. The internal memory is no region.
    pub fn extents(&self) -> Option<[Option<Extent>; 3]> {
        let [pieces, rows] = self.sizes;
        let end = |place: &Place, side: Side| {
            let last = match self.index {
                Some(index) if index.side == side => index.largest,
                _ => pieces - 1,
            };
            let mut end = 0;
            for (piece, row) in [(0, 0), (last, 0), (0, rows - 1), (last, rows - 1)] {
                end = end.max(place.at(piece, row)?.checked_add(self.length)?);
            }
            Some((place.region, end))
        };
        let outside = |place: &Place, side| match place.internal {
            true => Some(None),
            false => end(place, side).map(Some),
        };
        let indices = match self.index {
            None => None,
            Some(index) => Some((
                index.region,
                index.at(pieces - 1, rows - 1, pieces)?.checked_add(INDEX)?,
            )),
        };
        Some([
            outside(&self.source, Side::Source)?,
            outside(&self.destination, Side::Destination)?,
            indices,
        ])
    }
}

impl Interpreter {
    /// What the registers say.
    pub(super) fn transfer(&self) -> Result<Transfer, Error> {
        let state = &self.state;
        let (source, destination) = (
            state.narrow(register::DMA0_SRC_REGION)?,
            state.narrow(register::DMA0_DST_REGION)?,
        );
        let is_u85 = self.config.product == Product::U85;
        let mode = source >> 9 & 3;
        if mode == 3 || (!is_u85 && (source | destination) & (INDEXED | 0x600) != 0) {
            return Err(state.error(format!("mode {mode} of {source:#x} and {destination:#x}")));
        }
        let side = match (source & INDEXED != 0, destination & INDEXED != 0) {
            (false, false) => None,
            (true, false) => Some(Side::Source),
            (false, true) => Some(Side::Destination),
            (true, true) => return Err(state.error("indices of both sides")),
        };
        let place = |region: u16, address: u16, strides: [u16; 2], side_of_it: Side| -> Result<Place, Error> {
            let near = mode > 0 || side == Some(side_of_it);
            Ok(Place {
                region: region as u8 & if is_u85 { 7 } else { 0xff },
                internal: region & INTERNAL != 0,
                address: state.address(address)?,
                strides: [
                    if near { state.stride(strides[0])? } else { 0 },
                    if mode > 1 { state.stride(strides[1])? } else { 0 },
                ],
            })
        };
        let size = |dimension: u16, register: u16| match mode >= dimension {
            false => Ok(1),
            true => match state.narrow(register)? {
                0 => Err(state.error("a size of 0")),
                size => Ok(u64::from(size)),
            },
        };
        let index = match side {
            None => None,
            Some(side) => Some(Index {
                side,
                region: state.narrow(register::DMA0_IDX_REGION)? as u8 & 7,
                address: state.address(wide::DMA0_IDX)?,
                largest: u64::from(state.pair(wide::DMA0_IDX_MAX)?.1),
                skip: if mode > 1 {
                    state.address(wide::DMA0_IDX_SKIP1)?
                } else {
                    0
                },
            }),
        };
        let from = [wide::DMA0_SKIP0, wide::DMA0_SKIP1];
        let to = [wide::DMA0_DST_STRIDE0, wide::DMA0_DST_STRIDE1];
        Ok(Transfer {
            source: place(source, wide::DMA0_SRC, from, Side::Source)?,
            destination: place(destination, wide::DMA0_DST, to, Side::Destination)?,
            length: state.address(wide::DMA0_LEN)?,
            sizes: [size(1, register::DMA0_SIZE0)?, size(2, register::DMA0_SIZE1)?],
            index,
        })
    }

    pub(super) fn dma(&mut self, command: Command, memory: &mut Memory<'_>) -> Result<(), Error> {
        self.state.begin(command.offset, "DMA_START");
        let transfer = self.transfer()?;
        if transfer.source.internal {
            return Err(self.state.error("a transfer out of the internal memory"));
        }
        let [pieces, rows] = transfer.sizes;
        let bytes = (transfer.length.max(1)).checked_mul(pieces * rows);
        self.spend(bytes)?;
        self.counts.transfers += 1;
        for row in 0..rows {
            for piece in 0..pieces {
                let place = match transfer.index {
                    None => [piece; 2],
                    Some(index) => {
                        let which = self.indexed(&index, [piece, row, pieces], memory)?;
                        match index.side {
                            Side::Source => [which, piece],
                            Side::Destination => [piece, which],
                        }
                    }
                };
                let beyond = || self.state.error("a piece beyond what an address can say");
                let from = transfer.source.at(place[0], row).ok_or_else(beyond)?;
                let to = transfer.destination.at(place[1], row).ok_or_else(beyond)?;
                self.copy(&transfer, from, to, memory)?;
            }
        }
        Ok(())
    }

    /// The index of a piece.
    fn indexed(&self, index: &Index, [piece, row, pieces]: [u64; 3], memory: &Memory<'_>) -> Result<u64, Error> {
        let at = index
            .at(piece, row, pieces)
            .ok_or_else(|| self.state.error("an index beyond what an address can say"))?;
        let bytes = memory.read(index.region, at, INDEX)?;
        let which = bytes.first_chunk::<4>().map_or(0, |b| i32::from_le_bytes(*b));
        match u64::try_from(which).ok().filter(|which| *which <= index.largest) {
            Some(which) => Ok(which),
            None => Err(self
                .state
                .error(format!("index {which}, where the largest is {}", index.largest))),
        }
    }

    fn copy(&mut self, transfer: &Transfer, from: u64, to: u64, memory: &mut Memory<'_>) -> Result<(), Error> {
        // Read before it is written: the two may be in one region.
        let bytes = memory.read(transfer.source.region, from, transfer.length)?.to_vec();
        if !transfer.destination.internal {
            let place = memory.write(transfer.destination.region, to, transfer.length)?;
            place.copy_from_slice(&bytes);
            return Ok(());
        }
        let size = self.internal.len();
        let place = usize::try_from(to)
            .ok()
            .and_then(|start| self.internal.get_mut(start..start.checked_add(bytes.len())?));
        match place {
            Some(place) => {
                place.copy_from_slice(&bytes);
                Ok(())
            }
            None => Err(self.state.error(format!(
                "{} bytes at {to:#x} of {size} bytes of internal memory",
                bytes.len()
            ))),
        }
    }
}
