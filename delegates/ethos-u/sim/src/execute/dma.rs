//! Transfers between regions, and of tables into the internal memory.

use super::Interpreter;
use crate::command::{Command, register, wide};
use crate::error::Error;
use crate::memory::Memory;

/// Bit of a transfer's region: the internal memory.
const INTERNAL: u16 = 0x100;

impl Interpreter {
    pub(super) fn dma(&mut self, command: Command, memory: &mut Memory<'_>) -> Result<(), Error> {
        self.state.begin(command.offset, "DMA_START");
        let state = &self.state;
        let source = state.narrow(register::DMA0_SRC_REGION)?;
        let destination = state.narrow(register::DMA0_DST_REGION)?;
        for mode in [source >> 9 & 3, destination >> 9 & 3] {
            if mode != 0 {
                return Err(state.error(format!("stride mode {mode}")));
            }
        }
        if source & INTERNAL != 0 {
            return Err(state.error("a transfer out of the internal memory"));
        }
        let (from, to) = (state.address(wide::DMA0_SRC)?, state.address(wide::DMA0_DST)?);
        let length = state.address(wide::DMA0_LEN)?;
        let region = destination as u8;
        self.spend(Some(length))?;
        // Read before it is written: the two may be in one region.
        let bytes = memory.read(source as u8, from, length)?.to_vec();
        self.counts.transfers += 1;
        if destination & INTERNAL == 0 {
            memory.write(region, to, length)?.copy_from_slice(&bytes);
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
            None => Err(self
                .state
                .error(format!("{length} bytes at {to:#x} of {size} bytes of internal memory"))),
        }
    }
}
