//! Rust types that can be elements of a tensor.

use crate::{Complex, DType, bf16, f16};
use bytemuck::Pod;

/// A Rust type that is the storage of one [`DType`].
///
/// `bool` tensors are stored as `u8` bytes and so are not an `Element`: use `u8` views on [`DType::Bool`] data, where any
/// nonzero byte means true.
pub trait Element: Pod + PartialEq + Send + Sync + 'static {
    /// The dtype stored as this type.
    const DTYPE: DType;
}

macro_rules! element {
    ($($ty:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
        })*
    };
}

element! {
    u8 => U8, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u16 => U16, u32 => U32, u64 => U64,
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64,
    Complex<f32> => C64, Complex<f64> => C128,
}
