//! Elements on their way between the host's tensors and the graph's.

use crate::graph::Convert;
use delegraph_sdk::{DType, Error};
use half::f16;

/// True if the host's bytes are the graph's as they are.
pub fn is_same(dtype: DType, convert: Convert) -> bool {
    convert == Convert::Same && dtype != DType::BOOL
}

/// Writes the graph's elements of the host's. Both are contiguous and of as many elements.
///
/// # Errors
/// An integer that does not fit 32 bits.
pub fn inward(dtype: DType, convert: Convert, host: &[u8], graph: &mut [u8]) -> Result<(), Error> {
    match convert {
        Convert::Same if dtype == DType::BOOL => truths(host, graph),
        Convert::Same => graph.copy_from_slice(host),
        Convert::Half => {
            let (floats, halves) = (host.as_chunks::<4>().0, graph.as_chunks_mut::<2>().0);
            for (half, float) in halves.iter_mut().zip(floats) {
                *half = f16::from_f32(f32::from_le_bytes(*float)).to_le_bytes();
            }
        }
        Convert::Narrow => {
            let (wide, narrow) = (host.as_chunks::<8>().0, graph.as_chunks_mut::<4>().0);
            for (narrow, wide) in narrow.iter_mut().zip(wide) {
                let number = i64::from_le_bytes(*wide);
                let fits = i32::try_from(number).map_err(|_| {
                    Error::invalid(format!("{number} does not fit the 32 bits that the chip computes in"))
                })?;
                *narrow = fits.to_le_bytes();
            }
        }
        Convert::FlipSign => flip(dtype, host, graph),
    }
    Ok(())
}

/// Writes the host's elements of the graph's.
pub fn outward(dtype: DType, convert: Convert, graph: &[u8], host: &mut [u8]) {
    match convert {
        Convert::Same if dtype == DType::BOOL => truths(graph, host),
        Convert::Same => host.copy_from_slice(graph),
        Convert::Half => {
            let (halves, floats) = (graph.as_chunks::<2>().0, host.as_chunks_mut::<4>().0);
            for (float, half) in floats.iter_mut().zip(halves) {
                *float = f16::from_le_bytes(*half).to_f32().to_le_bytes();
            }
        }
        Convert::Narrow => {
            let (narrow, wide) = (graph.as_chunks::<4>().0, host.as_chunks_mut::<8>().0);
            for (wide, narrow) in wide.iter_mut().zip(narrow) {
                *wide = i64::from(i32::from_le_bytes(*narrow)).to_le_bytes();
            }
        }
        Convert::FlipSign => flip(dtype, graph, host),
    }
}

/// 1 for whatever is not 0.
fn truths(from: &[u8], to: &mut [u8]) {
    to.iter_mut()
        .zip(from)
        .for_each(|(to, from)| *to = u8::from(*from != 0));
}

/// Turns over the highest bit of each element, in its last byte.
fn flip(dtype: DType, from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(from);
    let size = dtype.size().unwrap_or(1);
    to.iter_mut()
        .skip(size - 1)
        .step_by(size)
        .for_each(|byte| *byte ^= 0x80);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(dtype: DType, convert: Convert, host: &[u8], graph: &[u8]) {
        let mut made = vec![0; graph.len()];
        inward(dtype, convert, host, &mut made).unwrap();
        assert_eq!(made, graph, "{dtype} {convert:?}");
    }

    #[test]
    fn elements_go_in_and_come_out() {
        let cases: [(DType, Convert, &[u8], &[u8]); 6] = [
            // 1.5 is 0x3fc00000 and 0x3e00.
            (DType::F32, Convert::Half, &[0, 0, 0xc0, 0x3f], &[0, 0x3e]),
            (DType::F16, Convert::Same, &[0, 0x3e], &[0, 0x3e]),
            (
                DType::I64,
                Convert::Narrow,
                &[0xfe, 255, 255, 255, 255, 255, 255, 255],
                &[0xfe, 255, 255, 255],
            ),
            (DType::I8, Convert::FlipSign, &[0x80, 0, 0x7f], &[0, 0x80, 0xff]),
            (DType::I16, Convert::FlipSign, &[0, 0x80, 1, 0], &[0, 0, 1, 0x80]),
            (DType::BOOL, Convert::Same, &[0, 1], &[0, 1]),
        ];
        for (dtype, convert, host, graph) in cases {
            there(dtype, convert, host, graph);
            let mut back = vec![0; host.len()];
            outward(dtype, convert, graph, &mut back);
            assert_eq!(back, host, "{dtype} {convert:?}");
        }
        there(DType::BOOL, Convert::Same, &[0, 7, 255], &[0, 1, 1]);
    }

    #[test]
    fn an_integer_that_does_not_fit_is_an_error() {
        let large = (1i64 << 31).to_le_bytes();
        let error = inward(DType::I64, Convert::Narrow, &large, &mut [0; 4]).unwrap_err();
        assert!(error.message.contains("2147483648"), "{error}");
    }
}
