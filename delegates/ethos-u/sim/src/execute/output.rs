//! What happens to a sum before it is written: scale, zero point, limits, table.

use super::function::{Curve, Function};
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

/// Bit of the output's precision: there is one scale; else a table has one a channel.
pub(super) const ONE_SCALE: u16 = 0x100;

/// A code that no register has: nothing is clipped but what does not fit 32 bits.
const NO_CLIP: u16 = 0x10;

/// A table of the internal memory.
enum Table {
    /// One entry a value of 8 bits.
    Plain { entries: Vec<i32>, signed: bool },
    /// Base and slope, one a 128 values of 16 bits; the result is of 16 bits, or has the seven between them too.
    Slopes { entries: Vec<(i32, i32)>, wide: bool },
    /// A function of the hardware.
    Curve(Curve),
}

/// The last stage of an operation.
pub(super) struct Output {
    pub scale: Scale,
    pub one_scale: bool,
    rounding: Rounding,
    zero_point: i64,
    low: i64,
    high: i64,
    /// Bits that are left of what is not clipped, and whether the highest of them is a sign.
    left: Option<(u32, bool)>,
    table: Option<Table>,
}

impl Output {
    /// Scales a sum, and does the rest.
    pub fn finish(&self, sum: i64, scale: Scale) -> i64 {
        let value = scale.apply(sum, self.rounding).saturating_add(self.zero_point);
        self.limit(value)
    }

    /// For what is not scaled.
    pub fn plain(&self, value: i64) -> i64 {
        self.limit(value.saturating_add(self.zero_point))
    }

    /// Rounds as the output does.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    fn limit(&self, value: i64) -> i64 {
        let value = match self.left {
            None => value,
            Some((bits, true)) => value << (64 - bits) >> (64 - bits),
            Some((bits, false)) => value & ((1 << bits) - 1),
        };
        let value = value.clamp(self.low, self.high);
        match &self.table {
            None => value,
            Some(Table::Curve(curve)) => curve.of(value),
            Some(Table::Plain { entries, signed }) => {
                let index = if *signed { value + 128 } else { value };
                i64::from(entries[index as usize & 0xff])
            }
            Some(Table::Slopes { entries, wide }) => {
                let index = (value + 32768) as usize;
                let (base, slope) = entries[index >> 7 & 0x1ff];
                let between = (index & 0x7f) as i32;
                i64::from(match wide {
                    false => (base + ((slope * between + 64) >> 7)).clamp(-32768, 32767),
                    true => (base << 7) + slope * between,
                })
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
        let one_scale = precision & ONE_SCALE != 0;
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
                3 => (self.function(Function::Tanh, ofm)?, NO_CLIP),
                4 => (self.function(Function::Sigmoid, ofm)?, NO_CLIP),
                code @ 16..24 => (
                    Some(self.table(usize::from(code - 16), ofm, ofm.bits == 16)?),
                    activation >> 12,
                ),
                other => return Err(state.error(format!("activation {other}"))),
            },
        };
        let left = (range == NO_CLIP && table.is_none() && ofm.bits < 32).then_some((ofm.bits, ofm.signed));
        let whole = match (range, ofm.bits, ofm.signed) {
            // A function takes numbers of more bits than its result has.
            _ if matches!(table, Some(Table::Curve(_))) => (i64::from(i32::MIN), i64::from(i32::MAX)),
            (NO_CLIP | 0, 64, _) => (i64::MIN, i64::MAX),
            (NO_CLIP, _, _) => (i64::from(i32::MIN), i64::from(i32::MAX)),
            (0, 8, true) | (3, ..) => (-128, 127),
            (0, 8, false) | (2, ..) => (0, 255),
            (0, 16, true) | (5, ..) => (-32768, 32767),
            (0, 16, false) => (0, 65535),
            (0, _, _) => (i64::from(i32::MIN), i64::from(i32::MAX)),
            (other, ..) => return Err(state.error(format!("clip range {other}"))),
        };
        let (low, high) = match whole {
            // The limits have 16 bits: they say nothing about more.
            (low, high) if low <= i64::from(i32::MIN) => (low, high),
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
            left,
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
            0 => (None, NO_CLIP),
            1 => (Some(self.table(number, ofm, false)?), 2),
            4 | 5 | 7 => (Some(self.table(number, ofm, false)?), 3),
            8 | 9 => (Some(self.table(number, ofm, true)?), 5),
            10 => (self.function(Function::Tanh, ofm)?, NO_CLIP),
            11 => (self.function(Function::Sigmoid, ofm)?, NO_CLIP),
            other => return Err(self.state.error(format!("activation {other}, clip {clips}"))),
        })
    }

    /// A function of the hardware: U85 finds its curve where tables are.
    fn function(&self, function: Function, ofm: &FeatureMap) -> Result<Option<Table>, Error> {
        if (ofm.bits, ofm.signed) != (16, true) {
            return Err(self
                .state
                .error(format!("a function with a result of {} bits", ofm.bits)));
        }
        let tables = &self.internal[self.internal.len() - TABLES..];
        Ok(Some(Table::Curve(match self.config.product {
            Product::U85 => Curve::new(function, pairs(tables)),
            _ => Curve::within(function),
        })))
    }

    /// A table, with entries of the output's type.
    fn table(&self, number: usize, ofm: &FeatureMap, from_16_bits: bool) -> Result<Table, Error> {
        let tables = &self.internal[self.internal.len() - TABLES..];
        let size = ofm.bytes();
        if from_16_bits {
            return Ok(Table::Slopes {
                entries: pairs(tables),
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
            (2, _) => i32::from(i16::from_le_bytes([b[0], b[1]])),
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

/// Entries of two numbers of 16 bits: a point, and how far it is to the next one.
fn pairs(table: &[u8]) -> Vec<(i32, i32)> {
    let (words, _) = table.as_chunks::<4>();
    let pair = |b: &[u8; 4]| {
        let base = i16::from_le_bytes([b[0], b[1]]);
        let slope = i16::from_le_bytes([b[2], b[3]]);
        (i32::from(base), i32::from(slope))
    };
    words.iter().map(pair).collect()
}
