//! Constants in the form of the library: element types, orders of dimensions, single numbers.

use crate::caps::Refusal;
use crate::graph::{Convert, DataType, Quantization, ScaleOffset};
use delegraph_sdk::DType;
use half::f16;

/// The numbers of a constant; `None`: its type has none.
pub fn numbers(dtype: DType, bytes: &[u8]) -> Option<Vec<f64>> {
    macro_rules! each {
        ($ty:ty) => {
            bytes
                .as_chunks::<{ size_of::<$ty>() }>()
                .0
                .iter()
                .map(|b| <$ty>::from_le_bytes(*b))
        };
    }
    Some(match dtype {
        DType::F32 => each!(f32).map(f64::from).collect(),
        DType::F64 => each!(f64).collect(),
        DType::F16 => each!(f16).map(f64::from).collect(),
        DType::I64 => each!(i64).map(|i| i as f64).collect(),
        DType::I32 => each!(i32).map(f64::from).collect(),
        DType::I16 => each!(i16).map(f64::from).collect(),
        DType::U16 => each!(u16).map(f64::from).collect(),
        DType::I8 => each!(i8).map(f64::from).collect(),
        DType::U8 | DType::BOOL => each!(u8).map(f64::from).collect(),
        _ => return None,
    })
}

/// Elements of a type after the conversion that the border makes of them.
///
/// # Errors
/// A number that does not fit.
pub fn converted(dtype: DType, bytes: &[u8], convert: Convert) -> Result<Vec<u8>, Refusal> {
    match convert {
        Convert::Same => Ok(bytes.to_vec()),
        Convert::Half => {
            let (floats, _) = bytes.as_chunks::<4>();
            let halves = floats.iter().map(|b| f16::from_f32(f32::from_le_bytes(*b)));
            Ok(halves.flat_map(|h| h.to_le_bytes()).collect())
        }
        Convert::Narrow => {
            let (wide, _) = bytes.as_chunks::<8>();
            let mut out = Vec::with_capacity(wide.len() * 4);
            for bytes in wide {
                let number = i64::from_le_bytes(*bytes);
                let narrow = i32::try_from(number)
                    .map_err(|_| Refusal::dtype(format!("the constant {number} does not fit 32 bits")))?;
                out.extend(narrow.to_le_bytes());
            }
            Ok(out)
        }
        Convert::FlipSign => {
            let mut out = bytes.to_vec();
            let size = dtype.size().unwrap_or(1);
            // The highest byte of each element, which is its last.
            out.iter_mut().skip(size - 1).step_by(size).for_each(|b| *b ^= 0x80);
            Ok(out)
        }
    }
}

/// Elements in another order of dimensions: dimension `i` of the result is dimension `order[i]`.
pub fn permuted(bytes: &[u8], size: usize, dims: &[u32], order: &[u32]) -> Vec<u8> {
    let mut strides = vec![1usize; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i] as usize;
    }
    let shape: Vec<usize> = order.iter().map(|o| dims[*o as usize] as usize).collect();
    let steps: Vec<usize> = order.iter().map(|o| strides[*o as usize]).collect();
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * size);
    let mut index = vec![0usize; shape.len()];
    let mut at = 0usize;
    for _ in 0..count {
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            at += steps[d];
            if index[d] < shape[d] {
                break;
            }
            at -= steps[d] * shape[d];
            index[d] = 0;
        }
    }
    out
}

/// One number in a type, exact where the type is an integer one.
pub fn number(number: f64, data_type: DataType) -> Option<(Quantization, Vec<u8>)> {
    let fixed = |bytes: usize| {
        // `q` of 1 with the number as the scale; a negative one is an offset of -1 with its size.
        let scale = number.abs() as f32;
        let (q, scale, offset) = match number {
            0.0 => (0u16, 1.0, 0),
            n if n > 0.0 => (1, scale, 0),
            _ => (0, scale, -1),
        };
        let pair = ScaleOffset { scale, offset };
        let fits = scale.is_finite() && scale > 0.0;
        fits.then(|| (Quantization::PerTensor(pair), q.to_le_bytes()[..bytes].to_vec()))
    };
    let whole = || (number.fract() == 0.0).then_some(number as i64);
    match data_type {
        DataType::Float16 => Some((Quantization::None, f16::from_f64(number).to_le_bytes().to_vec())),
        DataType::Float32 => Some((Quantization::None, (number as f32).to_le_bytes().to_vec())),
        DataType::UFixed8 => fixed(1),
        DataType::UFixed16 => fixed(2),
        DataType::Int32 => {
            let int = i32::try_from(whole()?).ok()?;
            Some((Quantization::None, int.to_le_bytes().to_vec()))
        }
        DataType::Bool => Some((Quantization::None, vec![u8::from(number != 0.0)])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_change_their_order() {
        // [2, 3] of bytes, turned.
        assert_eq!(permuted(&[1, 2, 3, 4, 5, 6], 1, &[2, 3], &[1, 0]), [1, 4, 2, 5, 3, 6]);
        // [1, 2, 2] of two bytes, channels last.
        let bytes = [1, 0, 2, 0, 3, 0, 4, 0];
        assert_eq!(permuted(&bytes, 2, &[1, 2, 2], &[0, 2, 1]), [1, 0, 3, 0, 2, 0, 4, 0]);
    }

    #[test]
    fn signed_integers_become_unsigned_ones() {
        assert_eq!(
            converted(DType::I8, &[0x80, 0, 0x7f], Convert::FlipSign).unwrap(),
            [0, 0x80, 0xff]
        );
        assert_eq!(
            converted(DType::I16, &[0, 0x80, 1, 0], Convert::FlipSign).unwrap(),
            [0, 0, 1, 0x80]
        );
        let large = (1i64 << 31).to_le_bytes();
        assert!(converted(DType::I64, &large, Convert::Narrow).is_err());
    }

    #[test]
    fn numbers_are_exact_in_fixed_point() {
        for number in [0.0, 0.1, -3.5] {
            let (quantization, bytes) = super::number(number, DataType::UFixed8).unwrap();
            let Quantization::PerTensor(pair) = quantization else {
                panic!()
            };
            assert_eq!((i32::from(bytes[0]) + pair.offset) as f32 * pair.scale, number as f32);
        }
        assert!(super::number(1.5, DataType::Int32).is_none());
    }
}
