//! Operations on single elements of one or two tensors.

use super::Interpreter;
use crate::arithmetic::{Rounding, Scale};
use crate::command::{Command, register, wide};
use crate::container::Product;
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
    // From here on of U85 only.
    LogicalShr,
    Div,
    Equal,
    NotEqual,
    GreaterEqual,
    Greater,
    And,
    Or,
    Xor,
    Not,
    AndNot,
}

impl Mode {
    fn of(parameter: u16, product: Product) -> Option<Mode> {
        use Mode::*;
        let all = [Mul, Add, Sub, Min, Max, LeakyRelu, Abs, Clz, Shr, Shl];
        match (parameter, product) {
            (0..10, _) => all.get(usize::from(parameter)).copied(),
            (10, Product::U85) => Some(LogicalShr),
            (11, Product::U85) => Some(Div),
            (16, Product::U85) => Some(Equal),
            (17, Product::U85) => Some(NotEqual),
            (18, Product::U85) => Some(GreaterEqual),
            (19, Product::U85) => Some(Greater),
            (33, Product::U85) => Some(And),
            (34, Product::U85) => Some(Or),
            (35, Product::U85) => Some(Xor),
            (36, Product::U85) => Some(Not),
            (42, Product::U85) => Some(AndNot),
            _ => None,
        }
    }

    fn is_unary(self) -> bool {
        matches!(self, Mode::LeakyRelu | Mode::Abs | Mode::Clz | Mode::Not)
    }
}

/// True if an operation of this parameter has one operand.
pub(super) fn is_unary(parameter: u16, product: Product) -> bool {
    Mode::of(parameter, product).is_some_and(Mode::is_unary)
}

/// What U85 has for true: all bits; and for false: none.
fn truth(is: bool) -> i64 {
    if is { -1 } else { 0 }
}

/// Bits of `IFM2_BROADCAST`.
const ALONG_HEIGHT: u16 = 1;
const ALONG_WIDTH: u16 = 2;
const ALONG_DEPTH: u16 = 4;
const SWAPPED: u16 = 0x40;
const SCALAR: u16 = 0x80;

/// Sizes of an operand that is in memory; `None`: it is a number.
pub(super) fn in_memory(broadcast: u16, sizes: [usize; 3]) -> Option<[usize; 3]> {
    (broadcast & SCALAR == 0).then(|| along(broadcast, sizes))
}

/// Sizes of an operand.
fn along(broadcast: u16, [height, width, depth]: [usize; 3]) -> [usize; 3] {
    if broadcast & SCALAR != 0 {
        return [1, 1, 1];
    }
    let one = |bit: u16, size: usize| if broadcast & bit != 0 { 1 } else { size };
    [
        one(ALONG_HEIGHT, height),
        one(ALONG_WIDTH, width),
        one(ALONG_DEPTH, depth),
    ]
}

/// How the two operands of a sum are brought to one scale.
#[derive(Debug, Clone, Copy)]
enum Operands {
    Plain,
    Both((Scale, Rounding), (Scale, Rounding)),
    /// One for numbers from 0 on, one for those below (U85).
    BySign((Scale, Rounding), (Scale, Rounding)),
    First(Scale, Rounding, u32),
    Second(Scale, Rounding, u32),
}

impl Operands {
    fn bring(self, a: i64, b: i64) -> (i64, i64) {
        match self {
            Operands::Plain => (a, b),
            Operands::Both(first, second) => (first.0.apply(a, first.1), second.0.apply(b, second.1)),
            Operands::BySign(above, below) => {
                let (scale, rounding) = if a >= 0 { above } else { below };
                (scale.apply(a, rounding), b)
            }
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
        let mode = Mode::of(command.parameter(), self.config.product)
            .ok_or_else(|| self.state.error(format!("mode {}", command.parameter())))?;
        let ofm = self.ofm()?;
        let is_u85 = self.config.product == Product::U85;
        let sizes = [ofm.height, ofm.width, ofm.depth];
        let first_broadcast = if is_u85 {
            self.broadcast(register::IFM_BROADCAST)?
        } else {
            0
        };
        let [a_rows, a_columns, a_depth] = along(first_broadcast, sizes);
        self.admit(&[&ofm])?;
        let zero_a = i64::from(self.state.signed(register::IFM_ZERO_POINT)?);
        let (a, bits_a) = match first_broadcast & SCALAR {
            0 => {
                let ifm = self.ifm(a_rows, a_columns, a_depth)?;
                self.admit(&[&ifm])?;
                (self.load(&ifm, memory)?, ifm.bits)
            }
            _ => {
                let precision = self.state.narrow(register::IFM_PRECISION)?;
                (vec![self.scalar()?], self.bits(precision >> 2)?)
            }
        };
        let broadcast = if mode.is_unary() {
            SCALAR
        } else {
            self.broadcast(register::IFM2_BROADCAST)?
        };
        let (b, [rows, columns, depth], zero_b, bits_b) = match mode.is_unary() {
            true => (vec![0], [1, 1, 1], 0, bits_a),
            false => self.second(broadcast, sizes, memory)?,
        };
        let output = self.output(&ofm)?;
        let operands = match mode {
            _ if is_u85 => {
                let first = (self.scale_of(wide::OPA_SCALE)?, self.rounding_of(wide::OPA_SCALE)?);
                let second = match mode {
                    Mode::Abs | Mode::Clz | Mode::Not => (Scale::ONE, Rounding::Natural),
                    _ => (self.scale_of(wide::OPB_SCALE)?, self.rounding_of(wide::OPB_SCALE)?),
                };
                if mode == Mode::LeakyRelu {
                    // The second scale is that of negative numbers.
                    Operands::BySign(first, second)
                } else {
                    Operands::Both(first, second)
                }
            }
            Mode::Add | Mode::Sub => self.operands(bits_a)?,
            _ => Operands::Plain,
        };
        let mut scale = if output.one_scale { output.scale } else { Scale::ONE };
        if mode == Mode::Mul && bits_a == 32 && bits_b == 32 {
            // Products of 32 bits are only shifted.
            scale.multiplier = 1;
        }
        self.counts.elementwise += 1;
        let mut results = Vec::with_capacity(ofm.elements().unwrap_or(0));
        for y in 0..ofm.height {
            for x in 0..ofm.width {
                let first = &a[(y.min(a_rows - 1) * a_columns + x.min(a_columns - 1)) * a_depth..][..a_depth];
                let second = &b[(y.min(rows - 1) * columns + x.min(columns - 1)) * depth..][..depth];
                for c in 0..ofm.depth {
                    let p = i64::from(first[c.min(a_depth - 1)]) - zero_a;
                    let q = i64::from(second[c.min(depth - 1)]) - zero_b;
                    let (p, q) = operands.bring(p, q);
                    let (p, q) = if broadcast & SWAPPED != 0 { (q, p) } else { (p, q) };
                    results.push(match mode {
                        Mode::Mul => output.finish(p.wrapping_mul(q), scale),
                        Mode::Add => output.finish(p + q, scale),
                        Mode::Sub => output.finish(p - q, scale),
                        Mode::Min => output.finish(p.min(q), scale),
                        Mode::Max => output.finish(p.max(q), scale),
                        Mode::Abs => output.finish(p.abs(), scale),
                        Mode::LeakyRelu if is_u85 => output.finish(p, scale),
                        Mode::LeakyRelu if p >= 0 => output.plain(p),
                        Mode::LeakyRelu => output.finish(p, scale),
                        Mode::Clz => output.plain(i64::from((p as i32).leading_zeros())),
                        Mode::Shl => output.plain(i64::from((p as i32).wrapping_shl(q.clamp(0, 31) as u32))),
                        Mode::Shr => output.plain(shifted(p, q, output.rounding())),
                        Mode::LogicalShr => output.plain(logically_shifted(p, q, bits_a)),
                        Mode::Div if q == 0 => return Err(self.state.error("a division by zero")),
                        Mode::Div => output.plain(p / q),
                        Mode::Equal => output.plain(truth(p == q)),
                        Mode::NotEqual => output.plain(truth(p != q)),
                        Mode::GreaterEqual => output.plain(truth(p >= q)),
                        Mode::Greater => output.plain(truth(p > q)),
                        Mode::And => output.plain(p & q),
                        Mode::Or => output.plain(p | q),
                        Mode::Xor => output.plain(p ^ q),
                        Mode::Not => output.plain(!p),
                        Mode::AndNot => output.plain(p & !q),
                    });
                }
            }
        }
        self.store(&ofm, memory, &results)
    }

    /// The bits of a broadcast, in the codes of U55.
    pub(super) fn broadcast(&self, register: u16) -> Result<u16, Error> {
        let bits = self.state.narrow(register)?;
        let known = match self.config.product {
            Product::U85 => ALONG_HEIGHT | ALONG_WIDTH | ALONG_DEPTH | 8,
            _ => ALONG_HEIGHT | ALONG_WIDTH | ALONG_DEPTH | SWAPPED | SCALAR,
        };
        match (bits & !known, self.config.product) {
            (0, Product::U85) if bits & 8 != 0 => Ok(SCALAR),
            (0, _) => Ok(bits),
            _ => Err(self.state.error(format!("broadcast {bits:#x}"))),
        }
    }

    /// The number in place of a tensor (U85).
    fn scalar(&self) -> Result<i32, Error> {
        Ok(self.state.pair(wide::OP_SCALAR)?.1 as i32)
    }

    /// The second operand: elements, sizes, zero point, bits.
    fn second(
        &mut self,
        broadcast: u16,
        sizes: [usize; 3],
        memory: &Memory<'_>,
    ) -> Result<(Vec<i32>, [usize; 3], i64, u32), Error> {
        let zero = i64::from(self.state.signed(register::IFM2_ZERO_POINT)?);
        let precision = self.state.narrow(register::IFM2_PRECISION)?;
        if broadcast & SCALAR != 0 && self.config.product == Product::U85 {
            return Ok((vec![self.scalar()?], [1, 1, 1], zero, self.bits(precision >> 2)?));
        }
        if broadcast & SCALAR != 0 {
            let value = self.state.narrow(register::IFM2_SCALAR)?;
            let value = if precision & 1 != 0 {
                i32::from(value as i16)
            } else {
                i32::from(value)
            };
            return Ok((vec![value], [1, 1, 1], zero, self.bits(precision >> 2)?));
        }
        let sizes = along(broadcast, sizes);
        let map = self.ifm2(sizes[0], sizes[1], sizes[2])?;
        self.admit(&[&map])?;
        Ok((self.load(&map, memory)?, sizes, zero, map.bits))
    }

    fn operands(&self, bits: u32) -> Result<Operands, Error> {
        let precision = self.state.narrow(register::IFM_PRECISION)?;
        let code = precision >> 14;
        let rounding =
            Rounding::of(code).ok_or_else(|| self.state.error(format!("rounding {code} of the operands")))?;
        let shift = if bits == 8 { 19 } else { 14 };
        Ok(match precision >> 8 & 3 {
            1 | 2 if bits == 32 => return Err(self.state.error("one operand of 32 bits brought to the other")),
            0 => {
                let narrow = |opcode| -> Result<Scale, Error> {
                    let scale = self.scale_of(opcode)?;
                    Ok(Scale {
                        multiplier: scale.multiplier & 0xffff,
                        ..scale
                    })
                };
                Operands::Both(
                    (narrow(wide::OPA_SCALE)?, rounding),
                    (narrow(wide::OPB_SCALE)?, rounding),
                )
            }
            1 => Operands::First(self.scale_of(wide::OPA_SCALE)?, rounding, shift),
            2 => Operands::Second(self.scale_of(wide::OPA_SCALE)?, rounding, shift),
            other => return Err(self.state.error(format!("scale mode {other}"))),
        })
    }
}

/// A shift to the right of so many bits as a number has, zeros coming after.
fn logically_shifted(value: i64, by: i64, bits: u32) -> i64 {
    let shifted = (value & ((1 << bits) - 1)) >> by.clamp(0, 63);
    shifted << (64 - bits) >> (64 - bits)
}

/// A shift to the right by a number of bits that comes from a tensor.
fn shifted(value: i64, by: i64, rounding: Rounding) -> i64 {
    let scale = Scale {
        multiplier: 1,
        shift: by.clamp(0, 63) as u32,
    };
    scale.apply(value, rounding)
}
