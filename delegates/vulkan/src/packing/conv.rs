//! Weights of convolutions in blocks of four output channels.
//!
//! What does the same on the device, to weights that are computed, is `conv_pack.wgsl`.

use super::Packing;
use delegraph_sdk::{DType, Error};

/// For `conv_direct` and `conv_point`: kernel element, input channel of a group (padded to 4), block of output channels, and four outputs.
/// The arguments are the number of groups, and 1 for the weights of a transposed convolution.
pub static BLOCKS: Packing = Packing {
    name: "conv.blocks",
    pack: blocks,
};

/// For `conv_depthwise`: kernel element, block of channels, and four channels.
pub static DEPTHWISE: Packing = Packing {
    name: "conv.depthwise",
    pack: depthwise,
};

/// For Winograd's F(2x2, 3x3), always f32: product, input channel (padded to 4), block of output channels, and four outputs.
pub static WINOGRAD: Packing = Packing {
    name: "conv.winograd",
    pack: winograd,
};

/// Sizes of weights: out × in × kernel, or in × out × kernel where they are transposed.
struct Sizes {
    first: usize,
    second: usize,
    volume: usize,
}

fn sizes(dtype: DType, dims: &[u32], bytes: &[u8]) -> Result<Sizes, Error> {
    let [first, second, kernel @ ..] = dims else {
        return Err(Error::invalid("weights of a convolution have two dimensions at least"));
    };
    let volume = kernel.iter().map(|d| *d as usize).product();
    let sizes = Sizes {
        first: *first as usize,
        second: *second as usize,
        volume,
    };
    let element = match dtype {
        DType::F32 => 4,
        DType::F16 => 2,
        _ => return Err(Error::unsupported(format!("weights of a convolution in {dtype}"))),
    };
    let count = sizes
        .first
        .checked_mul(sizes.second)
        .and_then(|n| n.checked_mul(volume));
    match count.and_then(|n| n.checked_mul(element)) == Some(bytes.len()) {
        true => Ok(sizes),
        false => Err(Error::invalid(format!(
            "{} bytes are not weights of {dims:?}",
            bytes.len()
        ))),
    }
}

fn blocks(dtype: DType, dims: &[u32], bytes: &[u8], arguments: &[u32]) -> Result<Vec<u8>, Error> {
    let sizes = sizes(dtype, dims, bytes)?;
    let [groups, transposed] = *arguments else {
        return Err(Error::internal("groups and whether it is transposed are needed"));
    };
    let (groups, transposed) = (groups.max(1) as usize, transposed != 0);
    let (inner, outputs) = match transposed {
        true => (sizes.first / groups, sizes.second * groups),
        false => (sizes.second, sizes.first),
    };
    let share = outputs / groups;
    let (padded, blocks) = (inner.next_multiple_of(4), outputs.div_ceil(4));
    let element = bytes.len() / (sizes.first * sizes.second * sizes.volume).max(1);
    let mut made = vec![0; sizes.volume * padded * blocks * 4 * element];
    for o in 0..outputs {
        for c in 0..inner {
            for k in 0..sizes.volume {
                let from = match transposed {
                    true => ((o / share * inner + c) * share + o % share) * sizes.volume + k,
                    false => (o * inner + c) * sizes.volume + k,
                };
                let to = ((k * padded + c) * blocks + o / 4) * 4 + o % 4;
                copy(bytes, from, &mut made, to, element);
            }
        }
    }
    Ok(made)
}

fn depthwise(dtype: DType, dims: &[u32], bytes: &[u8], _: &[u32]) -> Result<Vec<u8>, Error> {
    let sizes = sizes(dtype, dims, bytes)?;
    if sizes.second != 1 {
        return Err(Error::invalid("a channel of a group is needed"));
    }
    let padded = sizes.first.next_multiple_of(4);
    let element = bytes.len() / (sizes.first * sizes.volume).max(1);
    let mut made = vec![0; sizes.volume * padded * element];
    for c in 0..sizes.first {
        for k in 0..sizes.volume {
            copy(bytes, c * sizes.volume + k, &mut made, k * padded + c, element);
        }
    }
    Ok(made)
}

fn winograd(dtype: DType, dims: &[u32], bytes: &[u8], _: &[u32]) -> Result<Vec<u8>, Error> {
    let sizes = sizes(dtype, dims, bytes)?;
    if dims.get(2..) != Some(&[3, 3]) {
        return Err(Error::invalid("a kernel of 3 by 3 is needed"));
    }
    let (padded, blocks) = (sizes.second.next_multiple_of(4), sizes.first.div_ceil(4));
    let element = bytes.len() / (sizes.first * sizes.second * 9).max(1);
    let mut made = vec![0; 16 * padded * blocks * 4 * 4];
    for o in 0..sizes.first {
        for c in 0..sizes.second {
            let start = (o * sizes.second + c) * 9;
            let mut tile = [[0.0; 3]; 3];
            for (i, slot) in tile.iter_mut().flatten().enumerate() {
                *slot = number(bytes, start + i, element);
            }
            for (i, down) in TRANSFORM.iter().enumerate() {
                for (j, across) in TRANSFORM.iter().enumerate() {
                    let row = |r: &[f64; 3]| r.iter().zip(across).map(|(g, a)| g * a).sum::<f64>();
                    let sum: f64 = tile.iter().zip(down).map(|(r, d)| row(r) * d).sum();
                    let to = (((i * 4 + j) * padded + c) * blocks + o / 4) * 4 + o % 4;
                    made[to * 4..to * 4 + 4].copy_from_slice(&(sum as f32).to_le_bytes());
                }
            }
        }
    }
    Ok(made)
}

/// What becomes of three weights in a line.
const TRANSFORM: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

fn copy(bytes: &[u8], from: usize, made: &mut [u8], to: usize, element: usize) {
    made[to * element..][..element].copy_from_slice(&bytes[from * element..][..element]);
}

fn number(bytes: &[u8], at: usize, element: usize) -> f64 {
    let bytes = &bytes[at * element..][..element];
    match *bytes {
        [a, b] => half(u16::from_le_bytes([a, b])),
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        _ => 0.0,
    }
}

fn half(bits: u16) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if sign == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(numbers: impl Iterator<Item = usize>) -> Vec<u8> {
        numbers.flat_map(|n| (n as f32).to_le_bytes()).collect()
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        let words = bytes.chunks_exact(4);
        words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn outputs_lie_side_by_side() {
        // 2 outputs, 3 inputs, 2 kernel elements: the weight at (o, c, k) is 6 o + 2 c + k.
        let made = blocks(DType::F32, &[2, 3, 2], &bytes(0..12), &[1, 0]).unwrap();
        let made = floats(&made);
        assert_eq!(made.len(), 2 * 4 * 4);
        assert_eq!(
            made[..12],
            [0.0, 6.0, 0.0, 0.0, 2.0, 8.0, 0.0, 0.0, 4.0, 10.0, 0.0, 0.0]
        );
        assert_eq!(made[12..16], [0.0; 4]);
        assert_eq!(made[16..18], [1.0, 7.0]);
    }

    #[test]
    fn weights_of_a_transposed_convolution_are_turned() {
        // 8 inputs in 2 groups, 4 outputs each: the weight at (i, o) is 4 i + o.
        let made = blocks(DType::F32, &[8, 4, 1], &bytes(0..32), &[2, 1]).unwrap();
        let made = floats(&made);
        // Input 0 of each group: outputs 0 to 3 of group 0, 4 to 7 of group 1.
        assert_eq!(made[..8], [0.0, 1.0, 2.0, 3.0, 16.0, 17.0, 18.0, 19.0]);
        assert_eq!(made[8..12], [4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn channels_lie_side_by_side() {
        let made = depthwise(DType::F32, &[3, 1, 2], &bytes(1..7), &[]).unwrap();
        assert_eq!(floats(&made), [1.0, 3.0, 5.0, 0.0, 2.0, 4.0, 6.0, 0.0]);
    }

    #[test]
    fn winograd_of_a_line() {
        let made = winograd(
            DType::F32,
            &[1, 1, 3, 3],
            &bytes([1, 0, 0, 0, 0, 0, 0, 0, 0].into_iter()),
            &[],
        )
        .unwrap();
        let made = floats(&made);
        let firsts: Vec<f32> = (0..16).map(|product| made[product * 16]).collect();
        let row = [1.0, 0.5, 0.5, 0.0];
        let expected: Vec<f32> = row.iter().flat_map(|a| row.iter().map(move |b| a * b)).collect();
        assert_eq!(firsts, expected);
        assert!(winograd(DType::F32, &[1, 1, 3, 2], &[0; 24], &[]).is_err());
    }

    #[test]
    fn halves_are_read() {
        assert_eq!(half(0x3c00), 1.0);
        assert_eq!(half(0xc100), -2.5);
        assert_eq!(half(0x0001), 2f64.powi(-24));
        let made = depthwise(DType::F16, &[2, 1, 1], &[0, 60, 0, 64], &[]).unwrap();
        assert_eq!(made, [0, 60, 0, 64, 0, 0, 0, 0]);
        assert!(depthwise(DType::F16, &[2, 1, 1], &[0, 60], &[]).is_err());
    }
}
