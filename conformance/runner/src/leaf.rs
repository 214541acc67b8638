//! A leaf of a model's flattened arguments or results.

use delegraph_types::{DType, bf16, f16};

/// A tensor or a Python value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Leaf {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// Row-major little-endian bytes.
    Tensor {
        dtype: DType,
        shape: Vec<i64>,
        bytes: Vec<u8>,
    },
}

impl Leaf {
    /// Parts of complex numbers, which are the last dimension, as the numbers; `None` for what is not that.
    pub fn as_complex(&self) -> Option<Leaf> {
        match self {
            Leaf::Tensor { dtype, shape, bytes } if shape.last() == Some(&2) && dtype.is_float() => {
                Some(Leaf::Tensor {
                    dtype: dtype.complex()?,
                    shape: shape[..shape.len() - 1].to_vec(),
                    bytes: bytes.clone(),
                })
            }
            _ => None,
        }
    }

    /// `f32[2,3]`, or the value.
    pub fn describe(&self) -> String {
        match self {
            Leaf::None => "None".to_string(),
            Leaf::Bool(b) => b.to_string(),
            Leaf::Int(i) => i.to_string(),
            Leaf::Float(f) => format!("{f:?}"),
            Leaf::Str(s) => format!("{s:?}"),
            Leaf::Tensor { dtype, shape, .. } => {
                let sizes: Vec<String> = shape.iter().map(i64::to_string).collect();
                format!("{dtype}[{}]", sizes.join(","))
            }
        }
    }
}

/// The elements, or the parts of complex ones, as f64 (exact for every dtype but 64-bit integers beyond 2^53).
pub fn to_f64(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    macro_rules! each {
        ($ty:ty, $n:literal, $f:expr) => {
            bytes
                .chunks_exact($n)
                .map(|chunk| {
                    let mut raw = [0u8; $n];
                    raw.copy_from_slice(chunk);
                    $f(<$ty>::from_le_bytes(raw))
                })
                .collect()
        };
    }
    match dtype {
        DType::F32 | DType::C64 => each!(f32, 4, f64::from),
        DType::F64 | DType::C128 => each!(f64, 8, |x| x),
        DType::F16 => each!(u16, 2, |b| f16::from_bits(b).to_f64()),
        DType::BF16 => each!(u16, 2, |b| bf16::from_bits(b).to_f64()),
        DType::I8 => each!(i8, 1, f64::from),
        DType::U8 | DType::F8E5M2 | DType::F8E4M3 => each!(u8, 1, f64::from),
        DType::Bool => each!(u8, 1, |b| f64::from(u8::from(b != 0))),
        DType::I16 => each!(i16, 2, f64::from),
        DType::U16 => each!(u16, 2, f64::from),
        DType::I32 => each!(i32, 4, f64::from),
        DType::U32 => each!(u32, 4, f64::from),
        DType::I64 => each!(i64, 8, |x| x as f64),
        DType::U64 => each!(u64, 8, |x| x as f64),
    }
}
