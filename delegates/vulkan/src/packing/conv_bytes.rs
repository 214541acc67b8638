//! Weights of convolutions of bytes: four input channels a word, as signed bytes whatever they were.

use super::Packing;
use delegraph_sdk::{DType, Error};

/// For `conv_bytes`: kernel element, block of input channels of a group, block of output channels, four outputs, and four inputs in each word;
/// behind them the sum of each output's weights.
pub static BLOCKS: Packing = Packing {
    name: "conv.bytes",
    pack: blocks,
};

/// For `conv_bytes_depthwise`: kernel element, block of channels, and four channels in each word.
pub static DEPTHWISE: Packing = Packing {
    name: "conv.bytes.depthwise",
    pack: depthwise,
};

/// What signed bytes have in place of unsigned ones.
fn signed(dtype: DType, byte: u8) -> Result<i8, Error> {
    match dtype {
        DType::I8 => Ok(byte as i8),
        DType::U8 => Ok((byte ^ 0x80) as i8),
        _ => Err(Error::unsupported(format!(
            "weights of a convolution of bytes in {dtype}"
        ))),
    }
}

fn sizes(dims: &[u32], bytes: &[u8]) -> Result<[usize; 3], Error> {
    let [outputs, inner, kernel @ ..] = dims else {
        return Err(Error::invalid("weights of a convolution have two dimensions at least"));
    };
    let volume: usize = kernel.iter().map(|d| *d as usize).product();
    let sizes = [*outputs as usize, *inner as usize, volume];
    match sizes.iter().try_fold(1usize, |n, size| n.checked_mul(*size)) == Some(bytes.len()) {
        true => Ok(sizes),
        false => Err(Error::invalid(format!(
            "{} bytes are not weights of {dims:?}",
            bytes.len()
        ))),
    }
}

fn blocks(dtype: DType, dims: &[u32], bytes: &[u8], _: &[u32]) -> Result<Vec<u8>, Error> {
    let [outputs, inner, volume] = sizes(dims, bytes)?;
    let (inputs, blocks) = (inner.div_ceil(4), outputs.div_ceil(4));
    let start = volume * inputs * blocks * 16;
    let mut made = vec![0; start + blocks * 16];
    for o in 0..outputs {
        let mut sum = 0i32;
        for c in 0..inner {
            for k in 0..volume {
                let byte = signed(dtype, bytes[(o * inner + c) * volume + k])?;
                sum += i32::from(byte);
                made[((k * inputs + c / 4) * blocks + o / 4) * 16 + o % 4 * 4 + c % 4] = byte as u8;
            }
        }
        made[start + 4 * o..start + 4 * o + 4].copy_from_slice(&sum.to_le_bytes());
    }
    Ok(made)
}

fn depthwise(dtype: DType, dims: &[u32], bytes: &[u8], _: &[u32]) -> Result<Vec<u8>, Error> {
    let [channels, inner, volume] = sizes(dims, bytes)?;
    if inner != 1 {
        return Err(Error::invalid("a channel of a group is needed"));
    }
    let padded = channels.next_multiple_of(4);
    let mut made = vec![0; volume * padded];
    for c in 0..channels {
        for k in 0..volume {
            made[k * padded + c] = signed(dtype, bytes[c * volume + k])? as u8;
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_inputs_are_a_word() {
        // 2 outputs, 5 inputs, 1 kernel element.
        let bytes: Vec<u8> = (1..=10).collect();
        let made = blocks(DType::I8, &[2, 5, 1, 1], &bytes, &[]).unwrap();
        assert_eq!(made.len(), 2 * 16 + 16);
        assert_eq!(made[..8], [1, 2, 3, 4, 6, 7, 8, 9]);
        assert_eq!(made[16..24], [5, 0, 0, 0, 10, 0, 0, 0]);
        assert_eq!(made[32..40], [15, 0, 0, 0, 40, 0, 0, 0]);
        let made = blocks(DType::U8, &[1, 1, 1], &[130], &[]).unwrap();
        assert_eq!((made[0], made[16]), (2, 2));
        assert!(blocks(DType::I16, &[1, 1, 1], &[1], &[]).is_err());
        assert!(blocks(DType::I8, &[2, 1, 1], &[1], &[]).is_err());
    }

    #[test]
    fn four_channels_are_a_word() {
        let made = depthwise(DType::I8, &[2, 1, 1, 2], &[1, 2, 3, 4], &[]).unwrap();
        assert_eq!(made, [1, 3, 0, 0, 2, 4, 0, 0]);
    }
}
