//! The registers: commands set them, operations read them, and they stay what they are between operations.

use crate::command::{Command, register, wide};
use crate::error::{Error, Offset};

/// Values of all registers, and which were set.
#[derive(Debug, Clone)]
pub(crate) struct State {
    narrow: [Option<u16>; 0x100],
    /// Parameter and payload.
    wide: [Option<(u16, u32)>; 0x100],
    /// Where the running operation is, and its name.
    offset: Offset,
    operation: &'static str,
    /// Bits of an address: 32 or 40.
    address_bits: u32,
}

impl State {
    pub fn new(address_bits: u32) -> State {
        State {
            narrow: [None; 0x100],
            wide: [None; 0x100],
            offset: Offset(0),
            operation: "",
            address_bits,
        }
    }

    /// Sets the register of a command that has a name.
    pub fn set(&mut self, command: Command) {
        let opcode = usize::from(command.opcode());
        match command.payload {
            Some(payload) => {
                if let Some(slot) = self.wide.get_mut(opcode) {
                    *slot = Some((command.parameter(), payload));
                }
            }
            None => {
                if let Some(slot) = opcode.checked_sub(0x100).and_then(|at| self.narrow.get_mut(at)) {
                    *slot = Some(command.parameter());
                }
            }
        }
    }

    /// From here on, errors name this operation.
    pub fn begin(&mut self, offset: Offset, operation: &'static str) {
        self.offset = offset;
        self.operation = operation;
    }

    /// An error of the running operation.
    pub fn error(&self, text: impl Into<String>) -> Error {
        Error::Operation {
            offset: self.offset,
            operation: self.operation,
            text: text.into(),
        }
    }

    fn unset(&self, names: &[(u16, &'static str)], opcode: u16) -> Error {
        let name = names
            .iter()
            .find(|(code, _)| *code == opcode)
            .map_or("?", |(_, name)| name);
        self.error(format!("{name} was never set"))
    }

    pub fn narrow(&self, opcode: u16) -> Result<u16, Error> {
        self.narrow[usize::from(opcode) - 0x100].ok_or_else(|| self.unset(register::NAMES, opcode))
    }

    /// A register that is 0 until it is set.
    pub fn or_zero(&self, opcode: u16) -> u16 {
        self.narrow[usize::from(opcode) - 0x100].unwrap_or(0)
    }

    pub fn signed(&self, opcode: u16) -> Result<i32, Error> {
        Ok(i32::from(self.narrow(opcode)? as i16))
    }

    /// A register that holds a size less one.
    pub fn size(&self, opcode: u16) -> Result<usize, Error> {
        Ok(usize::from(self.narrow(opcode)?) + 1)
    }

    pub fn pair(&self, opcode: u16) -> Result<(u16, u32), Error> {
        self.wide[usize::from(opcode)].ok_or_else(|| self.unset(wide::NAMES, opcode))
    }

    fn whole(&self, (parameter, payload): (u16, u32)) -> u64 {
        let high = u64::from(parameter & 0xff) << 32;
        u64::from(payload) | if self.address_bits > 32 { high } else { 0 }
    }

    /// An address or a length.
    pub fn address(&self, opcode: u16) -> Result<u64, Error> {
        Ok(self.whole(self.pair(opcode)?))
    }

    /// As [`State::address`], 0 until it is set.
    pub fn address_or_zero(&self, opcode: u16) -> u64 {
        self.wide[usize::from(opcode)].map_or(0, |pair| self.whole(pair))
    }

    /// A distance between elements, which may be negative.
    pub fn stride(&self, opcode: u16) -> Result<i64, Error> {
        let value = self.address(opcode)?;
        let unused = 64 - self.address_bits;
        Ok((value << unused) as i64 >> unused)
    }
}
