//! The fast format of weights of U85: a palette of sixteen entries of nine bits, and an index or the weight itself for each weight.
//!
//! The header has 32 bytes: the lowest two bits say how a weight is held, and the palette is in the last 18. Its entries have the sign in
//! their lowest bit, as the coded format has. Found by compiling kernels of known weights.

use super::Bits;
use crate::error::Error;

const HEADER: usize = 32;
const PALETTE: usize = 14;
const ENTRIES: usize = 16;
const ENTRY_BITS: u32 = 9;

/// Decodes a stream.
///
/// # Errors
/// It is malformed, or has more than `limit` weights.
pub fn decode(stream: &[u8], limit: usize) -> Result<Vec<i16>, Error> {
    let error = |text| Error::Weights { bit: 0, text };
    let (header, rest) = stream
        .split_at_checked(HEADER)
        .ok_or_else(|| error("the header of the fast format is cut off"))?;
    let bits = match header[0] {
        0 => 4,
        1 => 8,
        2 => 2,
        _ => return Err(error("a fast format that is not known")),
    };
    let count = rest.len() * 8 / bits as usize;
    if count > limit {
        return Err(Error::Limit {
            what: "weights",
            limit: limit as u64,
        });
    }
    if bits == 8 {
        return Ok(rest.iter().map(|b| i16::from(*b as i8)).collect());
    }
    let mut reader = Bits {
        bytes: &header[PALETTE..],
        at: 0,
    };
    let palette: Vec<i16> = (0..ENTRIES)
        .map(|_| super::number(reader.take(ENTRY_BITS) as u16))
        .collect();
    let mut reader = Bits { bytes: rest, at: 0 };
    Ok((0..count).map(|_| palette[reader.take(bits) as usize]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_of_two_bits() {
        // What Vela 5.2 writes for weights 1, 2, 1, 2.
        let mut stream = vec![0; 33];
        (stream[0], stream[14], stream[15], stream[32]) = (2, 0x02, 0x08, 0x44);
        assert_eq!(decode(&stream, 100).unwrap(), [1, 2, 1, 2]);
        (stream[0], stream[32]) = (1, 0xd8);
        assert_eq!(decode(&stream, 100).unwrap(), [-40]);
        stream[0] = 3;
        assert!(decode(&stream, 100).is_err());
        assert!(decode(&stream[..31], 100).is_err());
    }
}
