//! Operations on single elements of one or two tensors.

use super::Interpreter;
use crate::arithmetic::{Rounding, Scale};
use crate::command::{Command, register, wide};
use crate::disassemble::ELEMENTWISE;
use crate::error::Error;
use crate::memory::Memory;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Mul,
    Add,
    Sub,
    Min,
    Max,
    LeakyRelu,
    Abs,
    Clz,
    Shr,
    Shl,
}

impl Mode {
    fn of(parameter: u16) -> Option<Mode> {
        use Mode::*;
        let all = [Mul, Add, Sub, Min, Max, LeakyRelu, Abs, Clz, Shr, Shl];
        all.get(usize::from(parameter)).copied()
    }

    fn is_unary(self) -> bool {
        matches!(self, Mode::LeakyRelu | Mode::Abs | Mode::Clz)
    }
}

/// Bits of `IFM2_BROADCAST`.
const ALONG_HEIGHT: u16 = 1;
const ALONG_WIDTH: u16 = 2;
const ALONG_DEPTH: u16 = 4;
const SWAPPED: u16 = 0x40;
const SCALAR: u16 = 0x80;

/// How the two operands of a sum are brought to one scale.
#[derive(Debug, Clone, Copy)]
enum Operands {
    Plain,
    Both(Scale, Scale, Rounding),
    First(Scale, Rounding, u32),
    Second(Scale, Rounding, u32),
}

impl Operands {
    fn bring(self, a: i64, b: i64) -> (i64, i64) {
        match self {
            Operands::Plain => (a, b),
            Operands::Both(first, second, rounding) => (first.apply(a, rounding), second.apply(b, rounding)),
            Operands::First(scale, rounding, shift) => (scale.apply(a, rounding), b << shift),
            Operands::Second(scale, rounding, shift) => (a << shift, scale.apply(b, rounding)),
        }
    }
}

impl Interpreter {
    pub(super) fn elementwise(&mut self, command: Command, memory: &mut Memory<'_>) -> Result<(), Error> {
        let name = ELEMENTWISE.iter().find(|(code, _)| *code == command.parameter());
        self.state
            .begin(command.offset, name.map_or("ELEMENTWISE", |(_, name)| *name));
        let mode =
            Mode::of(command.parameter()).ok_or_else(|| self.state.error(format!("mode {}", command.parameter())))?;
        let ofm = self.ofm()?;
        let ifm = self.ifm(ofm.height, ofm.width, ofm.depth)?;
        self.admit(&[&ifm, &ofm])?;
        let a = ifm.read(memory)?;
        let zero_a = i64::from(self.state.signed(register::IFM_ZERO_POINT)?);
        let broadcast = if mode.is_unary() {
            SCALAR
        } else {
            self.state.narrow(register::IFM2_BROADCAST)?
        };
        if broadcast & !(ALONG_HEIGHT | ALONG_WIDTH | ALONG_DEPTH | SWAPPED | SCALAR) != 0 {
            return Err(self.state.error(format!("broadcast {broadcast:#x}")));
        }
        let (b, [rows, columns, depth], zero_b, bits_b) = match mode.is_unary() {
            true => (vec![0], [1, 1, 1], 0, ifm.bits),
            false => self.second(broadcast, [ofm.height, ofm.width, ofm.depth], memory)?,
        };
        let output = self.output(&ofm)?;
        let operands = match mode {
            Mode::Add | Mode::Sub if ifm.bits < 32 && bits_b < 32 => self.operands(ifm.bits)?,
            _ => Operands::Plain,
        };
        let scale = if output.one_scale { output.scale } else { Scale::ONE };
        self.counts.elementwise += 1;
        let mut row = vec![0i32; ofm.depth];
        for y in 0..ofm.height {
            for x in 0..ofm.width {
                let first = &a[(y * ofm.width + x) * ofm.depth..][..ofm.depth];
                let second = &b[(y.min(rows - 1) * columns + x.min(columns - 1)) * depth..][..depth];
                for (c, to) in row.iter_mut().enumerate() {
                    let p = i64::from(first[c]) - zero_a;
                    let q = i64::from(second[c.min(depth - 1)]) - zero_b;
                    let (p, q) = operands.bring(p, q);
                    let (p, q) = if broadcast & SWAPPED != 0 { (q, p) } else { (p, q) };
                    *to = match mode {
                        Mode::Mul => output.finish(p.wrapping_mul(q), scale),
                        Mode::Add => output.finish(p + q, scale),
                        Mode::Sub => output.finish(p - q, scale),
                        Mode::Min => output.finish(p.min(q), scale),
                        Mode::Max => output.finish(p.max(q), scale),
                        Mode::Abs => output.finish(p.abs(), scale),
                        Mode::LeakyRelu if p >= 0 => output.plain(p),
                        Mode::LeakyRelu => output.finish(p, scale),
                        Mode::Clz => output.plain(i64::from((p as i32).leading_zeros())),
                        Mode::Shl => output.plain(i64::from((p as i32).wrapping_shl(q.clamp(0, 31) as u32))),
                        Mode::Shr => output.plain(shifted(p, q, output.rounding())),
                    };
                }
                ofm.write(memory, y, x, &row)?;
            }
        }
        Ok(())
    }

    /// The second operand: elements, sizes, zero point, bits.
    fn second(
        &mut self,
        broadcast: u16,
        [height, width, depth]: [usize; 3],
        memory: &Memory<'_>,
    ) -> Result<(Vec<i32>, [usize; 3], i64, u32), Error> {
        let zero = i64::from(self.state.signed(register::IFM2_ZERO_POINT)?);
        let precision = self.state.narrow(register::IFM2_PRECISION)?;
        if broadcast & SCALAR != 0 {
            let value = self.state.narrow(register::IFM2_SCALAR)?;
            let value = if precision & 1 != 0 {
                i32::from(value as i16)
            } else {
                i32::from(value)
            };
            return Ok((vec![value], [1, 1, 1], zero, self.bits(precision >> 2)?));
        }
        let along = |bit: u16, size: usize| if broadcast & bit != 0 { 1 } else { size };
        let sizes = [
            along(ALONG_HEIGHT, height),
            along(ALONG_WIDTH, width),
            along(ALONG_DEPTH, depth),
        ];
        let map = self.ifm2(sizes[0], sizes[1], sizes[2])?;
        self.admit(&[&map])?;
        Ok((map.read(memory)?, sizes, zero, map.bits))
    }

    fn operands(&self, bits: u32) -> Result<Operands, Error> {
        let precision = self.state.narrow(register::IFM_PRECISION)?;
        let code = precision >> 14;
        let rounding =
            Rounding::of(code).ok_or_else(|| self.state.error(format!("rounding {code} of the operands")))?;
        let shift = if bits == 8 { 19 } else { 14 };
        Ok(match precision >> 8 & 3 {
            0 => {
                let narrow = |opcode| -> Result<Scale, Error> {
                    let scale = self.scale_of(opcode)?;
                    Ok(Scale {
                        multiplier: scale.multiplier & 0xffff,
                        ..scale
                    })
                };
                Operands::Both(narrow(wide::OPA_SCALE)?, narrow(wide::OPB_SCALE)?, rounding)
            }
            1 => Operands::First(self.scale_of(wide::OPA_SCALE)?, rounding, shift),
            2 => Operands::Second(self.scale_of(wide::OPA_SCALE)?, rounding, shift),
            other => return Err(self.state.error(format!("scale mode {other}"))),
        })
    }
}

/// A shift to the right by a number of bits that comes from a tensor.
fn shifted(value: i64, by: i64, rounding: Rounding) -> i64 {
    let scale = Scale {
        multiplier: 1,
        shift: by.clamp(0, 63) as u32,
    };
    scale.apply(value, rounding)
}
