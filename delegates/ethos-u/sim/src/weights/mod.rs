//! The coded weights of U55 and U65 (and of U85's standard format): a stream of slices, each with Golomb-Rice codes of weights and of the runs of
//! zeros between them. Bits are taken from the lowest of each byte on.

pub mod fast;
mod order;
mod order_u85;

pub use order::Order;
pub use order_u85::OrderU85;

use crate::error::Error;

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// Up to 16 bits; zeros behind the end, which no valid stream reads a whole field of.
    fn take(&mut self, count: u32) -> u32 {
        let mut value = 0;
        for i in 0..count {
            let byte = self.bytes.get(self.at / 8).copied().unwrap_or(0);
            value |= u32::from(byte >> (self.at % 8) & 1) << i;
            self.at += 1;
        }
        value
    }

    fn is_past(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    fn error(&self, text: &'static str) -> Error {
        Error::Weights { bit: self.at, text }
    }
}

const NO_RUNS: u32 = 6;
const END: u32 = 7;
const UNCOMPRESSED: u32 = 7;

#[derive(Default)]
struct Palette {
    entries: Vec<u16>,
    bits: u32,
    offset: u16,
}

impl Palette {
    fn read(&mut self, bits: &mut Bits<'_>) {
        self.offset = bits.take(5) as u16;
        let size = bits.take(5);
        self.bits = bits.take(3) + 2;
        let size = if size == 0 { 0 } else { size + 1 };
        self.entries = (0..size).map(|_| bits.take(self.bits) as u16).collect();
    }

    /// Bits of a symbol that is not compressed.
    fn width(&self) -> u32 {
        match self.entries.len() {
            0 => self.bits,
            size => size.next_power_of_two().ilog2(),
        }
    }

    /// The weight of a symbol: its lowest bit is the sign.
    fn weight(&self, symbol: u32) -> i16 {
        let value = match self.entries.get(symbol as usize) {
            Some(entry) => *entry,
            None => ((symbol - self.entries.len() as u32) as u16).wrapping_add(self.offset),
        };
        number(value)
    }
}

/// A number with its sign in the lowest bit.
fn number(value: u16) -> i16 {
    let magnitude = (value >> 1) as i16;
    if value & 1 == 1 { -magnitude } else { magnitude }
}

/// One of the two interleaved lists of a slice: quotients of one chunk, whose remainders come a chunk later.
#[derive(Default)]
struct Lane {
    values: Vec<u32>,
    wanted: usize,
    /// Symbols whose quotient was read.
    position: usize,
    carry: u32,
    quotients: Vec<u32>,
}

impl Lane {
    fn new(wanted: usize) -> Lane {
        Lane {
            wanted,
            ..Lane::default()
        }
    }

    fn end(&mut self, more: u32) {
        self.quotients.push(self.carry + more);
        self.carry = 0;
    }

    fn remainders(&mut self, quotients: &[u32], divisor: u32, bits: &mut Bits<'_>) {
        for quotient in quotients {
            if self.values.len() < self.wanted {
                let remainder = bits.take(divisor);
                self.values.push((quotient << divisor) + remainder);
            }
        }
    }
}

/// Decodes a stream.
///
/// # Errors
/// It is malformed, or has more than `limit` weights.
pub fn decode(stream: &[u8], limit: usize) -> Result<Vec<i16>, Error> {
    let mut bits = Bits { bytes: stream, at: 0 };
    let mut weights = Vec::new();
    let mut palette = Palette::default();
    let mut first = true;
    loop {
        let run_divisor = bits.take(3);
        if run_divisor == END {
            bits.at = bits.at.next_multiple_of(8);
            if bits.at >= stream.len() * 8 {
                return Ok(weights);
            }
            first = true;
            continue;
        }
        let count = bits.take(15) as usize + 1;
        let divisor = bits.take(3);
        let truncated = bits.take(1) == 1;
        let fresh = bits.take(1) == 1;
        match (fresh, first) {
            (true, _) => palette.read(&mut bits),
            (false, true) => return Err(bits.error("the first slice has no palette")),
            (false, false) => {}
        }
        first = false;
        let runs = run_divisor != NO_RUNS;
        let leading = usize::from(fresh);
        let (symbols, zeros) = slice(
            &mut bits,
            count,
            leading,
            divisor,
            run_divisor,
            truncated,
            palette.width(),
        );
        if bits.is_past() {
            return Err(bits.error("a slice is cut off"));
        }
        let mut zeros = zeros.into_iter();
        let mut run = |weights: &mut Vec<i16>| -> Result<(), Error> {
            let length = zeros.next().unwrap_or(0) as usize;
            if weights.len() + length > limit {
                return Err(Error::Limit {
                    what: "weights",
                    limit: limit as u64,
                });
            }
            weights.resize(weights.len() + length, 0);
            Ok(())
        };
        if runs && fresh {
            run(&mut weights)?;
        }
        for symbol in symbols {
            weights.push(palette.weight(symbol));
            if runs {
                run(&mut weights)?;
            }
        }
        if weights.len() > limit {
            return Err(Error::Limit {
                what: "weights",
                limit: limit as u64,
            });
        }
    }
}

/// Symbols and runs of a slice, chunk by chunk.
fn slice(
    bits: &mut Bits<'_>,
    count: usize,
    leading: usize,
    divisor: u32,
    run_divisor: u32,
    truncated: bool,
    width: u32,
) -> (Vec<u32>, Vec<u32>) {
    let uncompressed = divisor == UNCOMPRESSED;
    let runs = run_divisor != NO_RUNS;
    let mut weights = Lane::new(count);
    let mut zeros = Lane::new(if runs { count + leading } else { 0 });
    let (mut last_weights, mut last_zeros): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    loop {
        let ahead = weights.position as i64 - zeros.position as i64;
        let takes_weights = (!runs || ahead < 8) && weights.position < weights.wanted;
        let takes_zeros = runs && ahead >= 0 && zeros.position < zeros.wanted;
        let first = if takes_weights && !uncompressed {
            bits.take(12)
        } else {
            0
        };
        if takes_zeros {
            let length = if run_divisor == 3 { 8 } else { 12 };
            let unary = bits.take(length);
            for i in 0..length {
                match unary >> i & 1 {
                    0 => zeros.end(0),
                    _ => zeros.carry += 1,
                }
            }
        }
        if takes_weights && uncompressed {
            let symbols = if width > 5 { 8 } else { 12 };
            weights.quotients = vec![0; symbols];
        } else if takes_weights {
            let second = bits.take(first.count_ones());
            let mut ones = 0;
            for i in 0..12 {
                let mut code = first >> i & 1;
                if code == 1 {
                    code += second >> ones & 1;
                    ones += 1;
                }
                match code < 2 || truncated {
                    true => weights.end(code),
                    false => weights.carry += code,
                }
            }
        }
        weights.remainders(&last_weights, if uncompressed { width } else { divisor }, bits);
        zeros.remainders(&last_zeros, run_divisor, bits);
        let done = !takes_weights && !takes_zeros;
        last_weights = std::mem::take(&mut weights.quotients);
        last_zeros = std::mem::take(&mut zeros.quotients);
        weights.position += last_weights.len();
        zeros.position += last_zeros.len();
        if done || bits.is_past() {
            return (weights.values, zeros.values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_cut_stream_is_an_error() {
        for bytes in [&[][..], &[0], &[0, 0, 0, 0], &[0xff, 0xfe]] {
            let _ = decode(bytes, 1000);
        }
        assert!(matches!(decode(&[0, 0, 0], 1000), Err(Error::Weights { .. })));
    }
}
