//! What happens to a sum before it is written: scale, zero point, limits, table.

use super::{Interpreter, TABLES};
use crate::arithmetic::{Rounding, Scale};
use crate::command::{register, wide};
use crate::container::Product;
use crate::error::Error;
use crate::feature_map::FeatureMap;

/// Bias and scale of a channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub bias: i64,
    pub scale: Scale,
}

/// A code that no register has: nothing is clipped but what does not fit 32 bits.
const NO_CLIP: u16 = 0x10;

/// A table of the internal memory.
enum Table {
    /// One entry a value of 8 bits.
    Plain { entries: Vec<i32>, signed: bool },
    /// Base and slope, one a 128 values of 16 bits; the result is of 16 bits, or has the seven between them too.
    Slopes { entries: Vec<(i32, i32)>, wide: bool },
}

/// The last stage of an operation.
pub(super) struct Output {
    pub scale: Scale,
    pub one_scale: bool,
    rounding: Rounding,
    zero_point: i64,
    low: i64,
    high: i64,
    table: Option<Table>,
}

impl Output {
    /// Scales a sum, and does the rest.
    pub fn finish(&self, sum: i64, scale: Scale) -> i32 {
        let value = scale.apply(sum, self.rounding).saturating_add(self.zero_point);
        self.limit(value)
    }

    /// For what is not scaled.
    pub fn plain(&self, value: i64) -> i32 {
        self.limit(value.saturating_add(self.zero_point))
    }

    /// Rounds as the output does.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    fn limit(&self, value: i64) -> i32 {
        let value = value.clamp(self.low, self.high) as i32;
        match &self.table {
            None => value,
            Some(Table::Plain { entries, signed }) => {
                let index = if *signed { value + 128 } else { value };
                entries[index as usize & 0xff]
            }
            Some(Table::Slopes { entries, wide }) => {
                let index = (value + 32768) as usize;
                let (base, slope) = entries[index >> 7 & 0x1ff];
                let between = (index & 0x7f) as i32;
                match wide {
                    false => (base + ((slope * between + 64) >> 7)).clamp(-32768, 32767),
                    true => (base << 7) + slope * between,
                }
            }
        }
    }
}

impl Interpreter {
    pub(super) fn scale_of(&self, opcode: u16) -> Result<Scale, Error> {
        let (parameter, multiplier) = self.state.pair(opcode)?;
        Ok(Scale {
            multiplier,
            shift: u32::from(parameter & 0x3f),
        })
    }

    /// The last stage, as the registers say.
    pub(super) fn output(&self, ofm: &FeatureMap) -> Result<Output, Error> {
        let state = &self.state;
        let precision = state.narrow(register::OFM_PRECISION)?;
        let one_scale = precision & 0x100 != 0;
        let is_u85 = self.config.product == Product::U85;
        let rounding = match is_u85 {
            true => self.rounding_of(wide::OFM_SCALE)?,
            false => {
                Rounding::of(precision >> 14).ok_or_else(|| state.error(format!("rounding {}", precision >> 14)))?
            }
        };
        let activation = state.narrow(register::ACTIVATION)?;
        let (table, range) = match is_u85 {
            true => self.activation_u85(activation, ofm)?,
            false => match activation & 0xfff {
                0 => (None, activation >> 12),
                code @ 16..24 => (
                    Some(self.table(usize::from(code - 16), ofm, ofm.bits == 16)?),
                    activation >> 12,
                ),
                other => return Err(state.error(format!("activation {other}"))),
            },
        };
        let whole = match (range, ofm.bits, ofm.signed) {
            (NO_CLIP, _, _) => (i64::from(i32::MIN), i64::from(i32::MAX)),
            (0, 8, true) | (3, ..) => (-128, 127),
            (0, 8, false) | (2, ..) => (0, 255),
            (0, 16, true) | (5, ..) => (-32768, 32767),
            (0, 16, false) => (0, 65535),
            (0, _, _) => (i64::from(i32::MIN), i64::from(i32::MAX)),
            (other, ..) => return Err(state.error(format!("clip range {other}"))),
        };
        let (low, high) = match whole {
            // The limits have 16 bits: they say nothing about 32.
            (low, high) if low == i64::from(i32::MIN) => (low, high),
            (low, high) => {
                let signed = low < 0;
                let read = |register| -> Result<i64, Error> {
                    let value = state.narrow(register)?;
                    Ok(if signed {
                        i64::from(value as i16)
                    } else {
                        i64::from(value)
                    })
                };
                let min = read(register::ACTIVATION_MIN)?.max(low);
                let max = read(register::ACTIVATION_MAX)?.min(high);
                if min > max {
                    return Err(state.error(format!("activation limits {min} to {max}")));
                }
                (min, max)
            }
        };
        Ok(Output {
            scale: if one_scale {
                self.scale_of(wide::OFM_SCALE)?
            } else {
                Scale::ONE
            },
            one_scale,
            rounding,
            zero_point: i64::from(state.signed(register::OFM_ZERO_POINT)?),
            low,
            high,
            table,
        })
    }

    /// How a scale of U85 rounds.
    pub(super) fn rounding_of(&self, opcode: u16) -> Result<Rounding, Error> {
        let (parameter, _) = self.state.pair(opcode)?;
        Rounding::of_scale(parameter).ok_or_else(|| {
            let (mode, doubled) = (parameter >> 13, parameter >> 6 & 0x1f);
            self.state.error(format!("rounding {mode}, doubled at {doubled}"))
        })
    }

    /// The table of an activation of U85, and the range that is clipped to before it, in the codes of U55.
    fn activation_u85(&self, activation: u16, ofm: &FeatureMap) -> Result<(Option<Table>, u16), Error> {
        let (function, number) = (activation & 0x1f, usize::from(activation >> 5 & 7));
        let clips = activation & 0x1000 == 0;
        Ok(match function {
            0 if clips => (None, 0),
            0 if ofm.bits == 32 => (None, NO_CLIP),
            1 => (Some(self.table(number, ofm, false)?), 2),
            4 | 7 => (Some(self.table(number, ofm, false)?), 3),
            8 | 9 => (Some(self.table(number, ofm, true)?), 5),
            other => return Err(self.state.error(format!("activation {other}, clip {clips}"))),
        })
    }

    /// A table, with entries of the output's type.
    fn table(&self, number: usize, ofm: &FeatureMap, from_16_bits: bool) -> Result<Table, Error> {
        let tables = &self.internal[self.internal.len() - TABLES..];
        let size = ofm.bytes();
        if from_16_bits {
            let (words, _) = tables.as_chunks::<4>();
            let pair = |b: &[u8; 4]| {
                let base = i16::from_le_bytes([b[0], b[1]]);
                let slope = i16::from_le_bytes([b[2], b[3]]);
                (i32::from(base), i32::from(slope))
            };
            return Ok(Table::Slopes {
                entries: words.iter().map(pair).collect(),
                wide: ofm.bits == 32,
            });
        }
        let start = number * 256 * size;
        let bytes = tables
            .get(start..start + 256 * size)
            .ok_or_else(|| self.state.error(format!("table {number} of entries of {size} bytes")))?;
        let entry = |b: &[u8]| match (size, ofm.signed) {
            (1, true) => i32::from(b[0] as i8),
            (1, false) => i32::from(b[0]),
            _ => i32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        };
        let signed = self.state.narrow(register::IFM_PRECISION)? & 1 != 0;
        if ofm.bits == 64 {
            return Err(self.state.error("a table of 64 bits"));
        }
        Ok(Table::Plain {
            entries: bytes.chunks_exact(size).map(entry).collect(),
            signed,
        })
    }
}
