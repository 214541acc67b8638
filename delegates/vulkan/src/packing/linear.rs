//! Forms of the weights of linear layers.

use super::Packing;
use delegraph_sdk::{DType, Error};

/// Integers of 4 bits, eight in a word, the first in its low end; `[n, k]` with `k` a multiple of 8. What is added is the least integer, which
/// lies as 0.
pub static NIBBLES: Packing = Packing {
    name: "linear-nibbles-1",
    pack: nibbles,
};

/// Eight integers become one word.
fn nibbles(dtype: DType, dims: &[u32], bytes: &[u8], arguments: &[u32]) -> Result<Vec<u8>, Error> {
    let least = arguments.first().map_or(0, |least| *least as i32);
    if !dims.last().is_some_and(|k| k.is_multiple_of(8)) || !matches!(dtype, DType::I8 | DType::U8) {
        return Err(Error::internal(format!("{dtype} of sizes {dims:?} are no nibbles")));
    }
    let nibble = |byte: u8| {
        let integer = match dtype {
            DType::I8 => i32::from(byte as i8),
            _ => i32::from(byte),
        };
        u8::try_from(integer - least)
            .ok()
            .filter(|nibble| *nibble < 16)
            .ok_or_else(|| Error::invalid(format!("a weight of 4 bits holds {integer}, and its least is {least}")))
    };
    let pairs = bytes.chunks_exact(2);
    pairs.map(|pair| Ok(nibble(pair[0])? | nibble(pair[1])? << 4)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_integer_lies_lowest() {
        let bytes: Vec<u8> = (-8..8).map(|i: i8| i as u8).collect();
        let least = [-8i32 as u32];
        let packed = nibbles(DType::I8, &[2, 8], &bytes, &least).unwrap();
        assert_eq!(packed, [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
        let packed = nibbles(DType::U8, &[1, 8], &[0, 15, 1, 2, 3, 4, 5, 6], &[0]).unwrap();
        assert_eq!(packed, [0xf0, 0x21, 0x43, 0x65]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(nibbles(DType::I8, &[1, 8], &[8; 8], &[-8i32 as u32]).is_err());
        assert!(nibbles(DType::I8, &[1, 7], &[0; 7], &[0]).is_err());
        assert!(nibbles(DType::F32, &[1, 8], &[0; 32], &[0]).is_err());
    }
}
