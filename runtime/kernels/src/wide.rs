//! Three types to compute in (`f32`, `f64`, `i64`) and the conversions between them and every dtype.
//!
//! A conversion between two dtypes goes through the source's own wide type, which holds it exactly, so that it rounds once.

use crate::strided::{Axis, Move, words, words_mut};
use crate::{KernelError, Tensor};
use delegraph_types::{DType, Element, Scalar, bf16, f16};

/// A type that kernels compute in: `f32` for floats of up to 32 bits, `f64`, and `i64` for integers and bools, which wraps.
pub(crate) trait Wide: Element + PartialOrd + Default {
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// The smallest value, minus infinity for floats.
    const LOWEST: Self;
    /// Above or equal to every other value but NaN.
    const HIGHEST: Self;
    /// `self + other`, wrapping for integers.
    fn plus(self, other: Self) -> Self;
    /// `self * other`, wrapping for integers.
    fn times(self, other: Self) -> Self;
    /// A number; `None` if it is a fraction and this type is an integer.
    fn of(scalar: Scalar) -> Option<Self>;
    /// `self / count`, truncated for integers; 0 if `count` is 0 and this type is an integer.
    fn divided(self, count: i64) -> Self;
    /// True for a NaN.
    fn is_nan(self) -> bool;
    /// To `f32`, rounded to nearest.
    fn to_f32(self) -> f32;
    /// To `f64`, rounded to nearest.
    fn to_f64(self) -> f64;
    /// To `i64`, towards zero, saturated.
    fn to_i64(self) -> i64;
    /// From an element of a dtype that this type can hold.
    fn load<T: Stored>(value: T) -> Self;
}

macro_rules! wide_float {
    ($ty:ty, $load:ident) => {
        impl Wide for $ty {
            const ZERO: $ty = 0.0;
            const ONE: $ty = 1.0;
            const LOWEST: $ty = <$ty>::NEG_INFINITY;
            const HIGHEST: $ty = <$ty>::INFINITY;
            fn plus(self, other: $ty) -> $ty {
                self + other
            }
            fn times(self, other: $ty) -> $ty {
                self * other
            }
            fn of(scalar: Scalar) -> Option<$ty> {
                Some(scalar.as_f64() as $ty)
            }
            fn divided(self, count: i64) -> $ty {
                self / count as $ty
            }
            fn is_nan(self) -> bool {
                self != self
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn to_i64(self) -> i64 {
                self as i64
            }
            fn load<T: Stored>(value: T) -> $ty {
                value.$load()
            }
        }
    };
}
wide_float!(f32, to_f32);
wide_float!(f64, to_f64);

impl Wide for i64 {
    const ZERO: i64 = 0;
    const ONE: i64 = 1;
    const LOWEST: i64 = i64::MIN;
    const HIGHEST: i64 = i64::MAX;
    fn plus(self, other: i64) -> i64 {
        self.wrapping_add(other)
    }
    fn times(self, other: i64) -> i64 {
        self.wrapping_mul(other)
    }
    fn of(scalar: Scalar) -> Option<i64> {
        match scalar {
            Scalar::Float(x) if x != (x as i64) as f64 => None,
            _ => Some(scalar.as_i64()),
        }
    }
    fn divided(self, count: i64) -> i64 {
        self.checked_div(count).unwrap_or(0)
    }
    fn is_nan(self) -> bool {
        false
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn to_f64(self) -> f64 {
        self as f64
    }
    fn to_i64(self) -> i64 {
        self
    }
    fn load<T: Stored>(value: T) -> i64 {
        value.to_i64()
    }
}

/// An element type of tensors.
pub(crate) trait Stored: Element + PartialOrd {
    /// The type to compute in.
    type Wide: Wide;
    /// Exact for every float of up to 32 bits.
    fn to_f32(self) -> f32;
    /// Exact for every float.
    fn to_f64(self) -> f64;
    /// Exact for every integer of up to 63 bits.
    fn to_i64(self) -> i64;
    /// Rounded to nearest for floats, wrapped for integers.
    fn from_wide<W: Wide>(value: W) -> Self;
}

macro_rules! stored_float {
    ($ty:ty, $wide:ty, $to_f32:expr, $to_f64:expr, $from:expr) => {
        impl Stored for $ty {
            type Wide = $wide;
            fn to_f32(self) -> f32 {
                ($to_f32)(self)
            }
            fn to_f64(self) -> f64 {
                ($to_f64)(self)
            }
            fn to_i64(self) -> i64 {
                ($to_f64)(self) as i64
            }
            fn from_wide<W: Wide>(value: W) -> $ty {
                ($from)(value)
            }
        }
    };
}
stored_float!(f32, f32, |x| x, f64::from, W::to_f32);
stored_float!(f64, f64, |x| x as f32, |x| x, W::to_f64);
stored_float!(f16, f32, widened, |x| f64::from(widened(x)), |x: W| halved(x.to_f32()));
stored_float!(bf16, f32, bf16::to_f32, bf16::to_f64, |x: W| bf16::from_f32(x.to_f32()));

/// A half as a float, without branches, so that loops over it are vectorized. A product with 2^112 moves the exponent, and makes
/// subnormal halves normal; infinities and NaNs keep the largest exponent.
fn widened(half: f16) -> f32 {
    let bits = u32::from(half.to_bits());
    let moved = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(moved.to_bits() | special | (bits & 0x8000) << 16)
}

/// A float as the nearest half, ties to even; as [`widened`].
fn halved(float: f32) -> f16 {
    let bits = float.to_bits();
    let size = bits & 0x7fff_ffff;
    // The last bit that stays is that of a half's subnormals; the sum rounds as the hardware does.
    let small = (f32::from_bits(size) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    // From exponents around 127 to those around 15, with half of the last bit that stays, less one if that bit is even.
    let normal = size.wrapping_sub(112 << 23).wrapping_add(0xfff + (size >> 13 & 1)) >> 13;
    let kept = if size < 113 << 23 { small } else { normal };
    // What rounds beyond the largest half is infinite.
    let kept = if size >= 0x477f_f000 { 0x7c00 } else { kept };
    let kept = if size > 0x7f80_0000 { 0x7e00 } else { kept };
    f16::from_bits((kept | bits >> 16 & 0x8000) as u16)
}

macro_rules! stored_int {
    ($($ty:ty),*) => {
        $(impl Stored for $ty {
            type Wide = i64;
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn to_i64(self) -> i64 {
                self as i64
            }
            fn from_wide<W: Wide>(value: W) -> $ty {
                value.to_i64() as $ty
            }
        })*
    };
}
stored_int!(u8, i8, i16, i32, i64, u16, u32, u64);

/// Runs `$body` with `$T` as the element type of a dtype (`u8` for bool); an error for 8-bit floats.
macro_rules! with_stored {
    ($dtype:expr, $argument:expr, $T:ident => $body:expr) => {
        $crate::wide::with_stored!(@arms $dtype, $argument, $T, $body;
            U8 | Bool => u8,
            I8 => i8,
            I16 => i16,
            I32 => i32,
            I64 => i64,
            U16 => u16,
            U32 => u32,
            U64 => u64,
            F16 => delegraph_types::f16,
            BF16 => delegraph_types::bf16,
            F32 => f32,
            F64 => f64,
        )
    };
    (@arms $dtype:expr, $argument:expr, $T:ident, $body:expr; $($($name:ident)|+ => $stored:ty,)*) => {
        match $dtype {
            $($(delegraph_types::DType::$name)|+ => {
                type $T = $stored;
                $body
            })*
            other => Err($crate::KernelError::unsupported(
                $argument,
                alloc::format!("dtype {other}"),
            )),
        }
    };
}
pub(crate) use with_stored;

/// Runs `$body` with `$W` as the type to compute a dtype in; an error for 8-bit floats.
macro_rules! with_wide {
    ($dtype:expr, $argument:expr, $W:ident => $body:expr) => {{
        use delegraph_types::DType;
        match $dtype {
            DType::F16 | DType::BF16 | DType::F32 => {
                type $W = f32;
                $body
            }
            DType::F64 => {
                type $W = f64;
                $body
            }
            other if other.is_int() || other == DType::Bool => {
                type $W = i64;
                $body
            }
            other => Err($crate::KernelError::unsupported(
                $argument,
                alloc::format!("dtype {other}"),
            )),
        }
    }};
}
pub(crate) use with_wide;

/// Elements converted at a time.
const CHUNK: usize = 128;

/// Copies from `src` of `src_dtype` to `dst` of `dst_dtype` along `plan`, converting; offsets count elements.
///
/// # Errors
/// A dtype has no conversion, or a loop leaves the memory.
pub(crate) fn convert(
    plan: &Move,
    (src_dtype, src, src_offset): (DType, &[u8], usize),
    (dst_dtype, dst, dst_offset): (DType, &mut [u8], usize),
) -> Result<(), KernelError> {
    if src_dtype == dst_dtype {
        return plan.copy_bytes(src_dtype.size(), src, src_offset, dst, dst_offset);
    }
    if src_dtype.is_complex() || dst_dtype.is_complex() {
        return crate::complex::convert(plan, (src_dtype, src, src_offset), (dst_dtype, dst, dst_offset));
    }
    if src_dtype == DType::U64 && dst_dtype.is_float() {
        return convert_through::<f64>(plan, (src_dtype, src, src_offset), (dst_dtype, dst, dst_offset));
    }
    with_wide!(src_dtype, "self", W => {
        convert_through::<W>(plan, (src_dtype, src, src_offset), (dst_dtype, dst, dst_offset))
    })
}

fn convert_through<W: Wide>(
    plan: &Move,
    (src_dtype, src, src_offset): (DType, &[u8], usize),
    (dst_dtype, dst, dst_offset): (DType, &mut [u8], usize),
) -> Result<(), KernelError> {
    let (src_len, dst_len) = (src.len() / src_dtype.size(), dst.len() / dst_dtype.size());
    let mut result = Ok(());
    plan.runs((src_len, src_offset), (dst_len, dst_offset), |from, to, axis| {
        let mut buffer = [W::ZERO; CHUNK];
        let mut done = 0usize;
        while done < axis.size && result.is_ok() {
            let count = CHUNK.min(axis.size - done);
            let from = from.wrapping_add_signed(axis.src.wrapping_mul(done as isize));
            let to = to.wrapping_add_signed(axis.dst.wrapping_mul(done as isize));
            result = load_run(src_dtype, src, from, axis, &mut buffer[..count])
                .and_then(|()| store_run(dst_dtype, &buffer[..count], dst, to, axis));
            done += count;
        }
    })?;
    result
}

fn load_run<W: Wide>(dtype: DType, src: &[u8], from: usize, axis: Axis, buffer: &mut [W]) -> Result<(), KernelError> {
    with_stored!(dtype, "self", T => {
        let src: &[T] = words(src)?;
        if axis.src == 1 {
            for (slot, &value) in buffer.iter_mut().zip(&src[from..]) {
                *slot = W::load(value);
            }
        } else {
            let mut at = from;
            for slot in buffer.iter_mut() {
                *slot = W::load(src[at]);
                at = at.wrapping_add_signed(axis.src);
            }
        }
        Ok(())
    })?;
    if dtype == DType::Bool {
        for slot in buffer.iter_mut().filter(|slot| **slot != W::ZERO) {
            *slot = W::ONE;
        }
    }
    Ok(())
}

fn store_run<W: Wide>(dtype: DType, buffer: &[W], dst: &mut [u8], to: usize, axis: Axis) -> Result<(), KernelError> {
    if dtype == DType::Bool {
        let mut at = to;
        for &value in buffer {
            dst[at] = u8::from(value != W::ZERO);
            at = at.wrapping_add_signed(axis.dst);
        }
        return Ok(());
    }
    with_stored!(dtype, "out", T => {
        let dst: &mut [T] = words_mut(dst)?;
        if axis.dst == 1 {
            for (slot, &value) in dst[to..].iter_mut().zip(buffer) {
                *slot = T::from_wide(value);
            }
        } else {
            let mut at = to;
            for &value in buffer {
                dst[at] = T::from_wide(value);
                at = at.wrapping_add_signed(axis.dst);
            }
        }
        Ok(())
    })
}

/// The first element of a tensor.
///
/// # Errors
/// It is empty, or its dtype has no conversion.
pub(crate) fn first<W: Wide>(tensor: &Tensor, argument: &'static str) -> Result<W, KernelError> {
    if tensor.numel() == 0 {
        return Err(KernelError::invalid(
            argument,
            "an empty tensor where a number is expected",
        ));
    }
    let mut value = [W::ZERO];
    load_run(
        tensor.dtype(),
        tensor.bytes(),
        0,
        Axis {
            size: 1,
            src: 1,
            dst: 1,
        },
        &mut value,
    )?;
    Ok(value[0])
}

/// Writes `value` as one element of `dtype` and returns how many bytes of the array it takes.
///
/// # Errors
/// The dtype has no conversion.
pub(crate) fn encode(value: Scalar, dtype: DType) -> Result<([u8; 16], usize), KernelError> {
    let mut words = [0u64; 2];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    let axis = Axis {
        size: 1,
        src: 1,
        dst: 1,
    };
    // The imaginary part of a number is 0.
    let part = dtype.real();
    match value {
        Scalar::Float(x) => store_run(part, &[x], bytes, 0, axis)?,
        other => store_run(part, &[other.as_i64()], bytes, 0, axis)?,
    }
    Ok((bytemuck::cast(words), dtype.size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_converted_as_the_half_crate_does() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let (got, want) = (widened(half), half.to_f32());
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "{bits:#x}"
            );
        }
        // Every half, the floats next to it, those between two halves, and the floats next to those.
        for bits in 0..0x7c00u16 {
            let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
            let middle = if high.is_finite() { (low + high) / 2.0 } else { 65520.0 };
            for float in [low, middle] {
                let float = float.to_bits();
                for near in [float.saturating_sub(1), float, float + 1] {
                    for sign in [0, 1 << 31] {
                        let float = f32::from_bits(near | sign);
                        assert_eq!(halved(float).to_bits(), f16::from_f32(float).to_bits(), "{float:e}");
                    }
                }
            }
        }
        for float in [f32::INFINITY, f32::MAX, 1e-30, f32::MIN_POSITIVE, 1e5, 65536.0] {
            assert_eq!(halved(float), f16::from_f32(float), "{float}");
        }
        assert!(halved(f32::NAN).is_nan());
    }

    /// Values as `torch.tensor(x, dtype=a).to(b)` gives them.
    #[test]
    fn conversions_round_and_wrap_as_pytorch() {
        let plan = Move::of(&[3], &[1], &[1]).unwrap();
        let src = [1.75f32, -2.5, 300.0];
        let bytes = bytemuck::cast_slice(&src);
        let mut ints = [0i8; 3];
        convert(
            &plan,
            (DType::F32, bytes, 0),
            (DType::I8, bytemuck::cast_slice_mut(&mut ints), 0),
        )
        .unwrap();
        assert_eq!(ints, [1, -2, 44]);
        let mut bools = [7u8; 3];
        convert(&plan, (DType::F32, bytes, 0), (DType::Bool, &mut bools, 0)).unwrap();
        assert_eq!(bools, [1, 1, 1]);
        let mut doubles = [0f64; 3];
        convert(
            &plan,
            (DType::Bool, &[0, 2, 1], 0),
            (DType::F64, bytemuck::cast_slice_mut(&mut doubles), 0),
        )
        .unwrap();
        assert_eq!(doubles, [0.0, 1.0, 1.0]);
    }

    #[test]
    fn eight_bit_floats_are_refused() {
        let plan = Move::of(&[1], &[1], &[1]).unwrap();
        let error = convert(&plan, (DType::F8E4M3, &[0], 0), (DType::F32, &mut [0; 4], 0)).unwrap_err();
        assert!(matches!(error, KernelError::Unsupported { .. }), "{error}");
    }
}
