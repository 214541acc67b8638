//! Constants in the form of the library: element types, orders of dimensions, single numbers.

use crate::border;
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

/// A number as f16.
///
/// # Errors
/// It is finite, and beyond f16's largest.
pub fn half(number: f64) -> Result<f16, Refusal> {
    let half = f16::from_f64(number);
    match number.is_finite() && half.is_infinite() {
        true => Err(Refusal::dtype(format!(
            "the constant {number} does not fit f16, which ends at {}",
            f16::MAX
        ))),
        false => Ok(half),
    }
}

/// Floats as f16.
///
/// # Errors
/// As [`half`]; or a type without numbers.
pub fn halves(dtype: DType, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    if dtype == DType::F16 {
        return Ok(bytes.to_vec());
    }
    let numbers = numbers(dtype, bytes).ok_or_else(|| Refusal::dtype(format!("a constant of type {dtype}")))?;
    let mut out = Vec::with_capacity(numbers.len() * 2);
    for number in numbers {
        out.extend(half(number)?.to_le_bytes());
    }
    Ok(out)
}

/// Calls `each` with every element of a row-major tensor and the block that it is in, both counted row-major.
pub fn for_blocks(dims: &[u32], block: &[u32], mut each: impl FnMut(usize, usize)) {
    let mut steps = vec![1usize; dims.len()];
    for d in (1..dims.len()).rev() {
        steps[d - 1] = steps[d] * (dims[d] / block[d]) as usize;
    }
    let count: usize = dims.iter().map(|d| *d as usize).product();
    let mut index = vec![0u32; dims.len()];
    for at in 0..count {
        let of = index.iter().zip(block).zip(&steps);
        each(at, of.map(|((i, block), step)| (i / block) as usize * step).sum());
        for d in (0..dims.len()).rev() {
            index[d] += 1;
            if index[d] < dims[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

/// Elements put `apart` along dimension `dim`; between them is `zero` in each byte.
pub fn spread(bytes: &[u8], size: usize, dims: &[u32], dim: usize, apart: u32, zero: u8) -> Vec<u8> {
    let inner: usize = dims[dim + 1..].iter().map(|d| *d as usize).product::<usize>() * size;
    let count = dims[dim] as usize;
    let length = count.saturating_sub(1) * apart as usize + 1;
    let mut out = vec![zero; bytes.len() / count.max(1) * length];
    for (i, run) in bytes.chunks_exact(inner.max(1)).enumerate() {
        let (row, at) = (i / count, i % count);
        let start = (row * length + at * apart as usize) * inner;
        out[start..start + inner].copy_from_slice(run);
    }
    out
}

/// Elements of a type after the conversion that the border makes of them.
///
/// # Errors
/// A number that does not fit.
pub fn converted(dtype: DType, bytes: &[u8], convert: Convert) -> Result<Vec<u8>, Refusal> {
    if convert == Convert::Half {
        return halves(DType::F32, bytes);
    }
    let size = dtype.size().unwrap_or(1);
    let room = match convert {
        Convert::Same | Convert::FlipSign => bytes.len(),
        Convert::Half | Convert::Narrow => bytes.len() / size * (size / 2),
        Convert::Quantize => return Err(Refusal::quantization("a constant is quantized by its program")),
    };
    let mut out = vec![0; room];
    border::inward(dtype, convert, None, bytes, &mut out).map_err(|error| Refusal::dtype(error.message))?;
    Ok(out)
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
        DataType::Float16 => Some((Quantization::None, half(number).ok()?.to_le_bytes().to_vec())),
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
    fn blocks_are_counted_row_major() {
        let mut blocks = vec![9; 8];
        for_blocks(&[2, 4], &[1, 2], |at, block| blocks[at] = block);
        assert_eq!(blocks, [0, 0, 1, 1, 2, 2, 3, 3]);
        for_blocks(&[2, 4], &[2, 1], |at, block| blocks[at] = block);
        assert_eq!(blocks, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn elements_move_apart() {
        assert_eq!(spread(&[1, 2, 3, 4], 1, &[2, 2], 1, 2, 0), [1, 0, 2, 3, 0, 4]);
        assert_eq!(spread(&[1, 2, 3, 4], 1, &[2, 2], 0, 3, 7), [1, 2, 7, 7, 7, 7, 3, 4]);
        assert_eq!(spread(&[1, 2, 3, 4], 2, &[2, 1], 0, 2, 0), [1, 2, 0, 0, 3, 4]);
    }

    #[test]
    fn a_constant_beyond_f16_is_refused() {
        assert_eq!(half(65504.0).unwrap().to_f64(), 65504.0);
        assert!(half(65520.0).unwrap_err().text.contains("f16"));
        assert!(half(f64::NEG_INFINITY).unwrap().is_infinite());
        let bytes = 1e6f32.to_le_bytes();
        assert!(converted(DType::F32, &bytes, Convert::Half).is_err());
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
        assert!(number(1.5, DataType::Int32).is_none());
    }
}
