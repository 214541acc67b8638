//! Elements on their way between the host's tensors and the graph's.

use crate::graph::{Convert, ScaleOffset};
use delegraph_sdk::{DType, Error};
use half::f16;

/// True if the host's bytes are the graph's as they are.
pub fn is_same(dtype: DType, convert: Convert) -> bool {
    convert == Convert::Same && dtype != DType::BOOL
}

/// Writes the graph's elements of the host's. Both are contiguous and of as many elements. `pair`: scale and offset of the graph's tensor,
/// where [`Convert::Quantize`] asks for it.
///
/// # Errors
/// A number that the graph's type does not hold: an integer of more than 32 bits, a finite float beyond f16, NaN among what is quantized.
pub fn inward(
    dtype: DType,
    convert: Convert,
    pair: Option<ScaleOffset>,
    host: &[u8],
    graph: &mut [u8],
) -> Result<(), Error> {
    match convert {
        Convert::Same if dtype == DType::BOOL => truths(host, graph),
        Convert::Same => graph.copy_from_slice(host),
        Convert::Half => {
            let (floats, halves) = (host.as_chunks::<4>().0, graph.as_chunks_mut::<2>().0);
            for (half, float) in halves.iter_mut().zip(floats) {
                let number = f32::from_le_bytes(*float);
                let rounded = f16::from_f32(number);
                if rounded.is_infinite() && number.is_finite() {
                    return Err(Error::invalid(format!(
                        "{number} is beyond f16, which the chip computes in: its largest number is {}",
                        f16::MAX
                    )));
                }
                *half = rounded.to_le_bytes();
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
        Convert::Quantize => quantize(scale(pair)?, host, graph)?,
    }
    Ok(())
}

fn scale(pair: Option<ScaleOffset>) -> Result<ScaleOffset, Error> {
    pair.ok_or_else(|| Error::internal("quantizing without a scale"))
}

/// f32 as unsigned integers of the size that the room has: `round(x / scale) - offset` within the type, halves to the even integer, as
/// PyTorch's `quantize_per_tensor` computes it.
fn quantize(pair: ScaleOffset, host: &[u8], graph: &mut [u8]) -> Result<(), Error> {
    let floats = host.as_chunks::<4>().0;
    let size = graph.len() / floats.len().max(1);
    let most = if size == 1 { 255.0 } else { 65535.0 };
    let (inverse, zero) = (1.0 / pair.scale, -pair.offset as f32);
    for (q, float) in graph.chunks_exact_mut(size.max(1)).zip(floats) {
        let number = f32::from_le_bytes(*float);
        if number.is_nan() {
            return Err(Error::invalid("NaN stands for no integer"));
        }
        let integer = ((number * inverse).round_ties_even() + zero).clamp(0.0, most) as u16;
        q.copy_from_slice(&integer.to_le_bytes()[..q.len()]);
    }
    Ok(())
}

/// The f32 numbers that unsigned integers stand for.
fn dequantize(pair: ScaleOffset, graph: &[u8], host: &mut [u8]) {
    let floats = host.as_chunks_mut::<4>().0;
    let size = graph.len() / floats.len().max(1);
    for (float, q) in floats.iter_mut().zip(graph.chunks_exact(size.max(1))) {
        let low = q.first().copied().map_or(0, i32::from);
        let high = q.get(1).copied().map_or(0, i32::from);
        *float = ((low + 256 * high + pair.offset) as f32 * pair.scale).to_le_bytes();
    }
}

/// Writes the host's elements of the graph's; `pair` as for [`inward`].
///
/// # Errors
/// There is no scale where one is asked for.
pub fn outward(
    dtype: DType,
    convert: Convert,
    pair: Option<ScaleOffset>,
    graph: &[u8],
    host: &mut [u8],
) -> Result<(), Error> {
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
        Convert::Quantize => dequantize(scale(pair)?, graph, host),
    }
    Ok(())
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
        inward(dtype, convert, None, host, &mut made).unwrap();
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
            outward(dtype, convert, None, graph, &mut back).unwrap();
            assert_eq!(back, host, "{dtype} {convert:?}");
        }
        there(DType::BOOL, Convert::Same, &[0, 7, 255], &[0, 1, 1]);
    }

    #[test]
    fn a_number_that_does_not_fit_is_an_error() {
        let large = (1i64 << 31).to_le_bytes();
        let error = inward(DType::I64, Convert::Narrow, None, &large, &mut [0; 4]).unwrap_err();
        assert!(error.message.contains("2147483648"), "{error}");
        let half = |number: f32| inward(DType::F32, Convert::Half, None, &number.to_le_bytes(), &mut [0; 2]);
        assert!(half(65520.0).unwrap_err().message.contains("65520"));
        assert!(half(65519.0).is_ok() && half(f32::INFINITY).is_ok());
        let pair = Some(ScaleOffset { scale: 1.0, offset: 0 });
        assert!(inward(DType::F32, Convert::Quantize, pair, &f32::NAN.to_le_bytes(), &mut [0]).is_err());
        assert!(inward(DType::F32, Convert::Quantize, None, &[0; 4], &mut [0]).is_err());
    }

    #[test]
    fn floats_are_quantized_as_pytorch_does_it() {
        let floats = [0.25f32, 0.75, -0.25, 1.25, 100.0, -100.0, 0.5, 12.75, f32::INFINITY];
        let host: Vec<u8> = floats.iter().flat_map(|f| f.to_le_bytes()).collect();
        let pair = Some(ScaleOffset {
            scale: 0.5,
            offset: -10,
        });
        let mut bytes = [0; 9];
        inward(DType::F32, Convert::Quantize, pair, &host, &mut bytes).unwrap();
        // torch.ops.quantized_decomposed.quantize_per_tensor(x, 0.5, 10, 0, 255, torch.uint8)
        assert_eq!(bytes, [10, 12, 10, 12, 210, 0, 11, 36, 255]);
        let mut words = [0; 18];
        inward(DType::F32, Convert::Quantize, pair, &host, &mut words).unwrap();
        assert_eq!(words[8..12], [210, 0, 0, 0]);
        assert_eq!(words[16..], [0xff, 0xff]);
        let mut back = [0; 36];
        outward(DType::F32, Convert::Quantize, pair, &bytes, &mut back).unwrap();
        assert_eq!(back[12..20], [1.0f32.to_le_bytes(), 100.0f32.to_le_bytes()].concat());
        assert_eq!(back[32..], 122.5f32.to_le_bytes());
    }
}
