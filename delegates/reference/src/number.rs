//! Element types as numbers: rounding floats, wrapping integers, bytes.
//!
//! Everything is computed in `f64` or `i64`; what a value of a narrower type can hold is decided here and nowhere else.

use delegraph_sdk::DType;

/// True for the types that the delegate computes with.
pub fn is_known(dtype: DType) -> bool {
    dtype.is_float() && !matches!(dtype, DType::F8E5M2 | DType::F8E4M3) || is_integer(dtype) || dtype == DType::BOOL
}

/// True for the types that tensors can have: `u16` besides, which only stands for numbers where a type is quantized.
pub fn is_stored(dtype: DType) -> bool {
    is_known(dtype) || dtype == DType::U16
}

/// True for integers without bool.
pub fn is_integer(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8 | DType::I16 | DType::I32 | DType::I64)
}

/// The value of a float type that is nearest; ties to even.
pub fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::F16 => F16.decode(F16.encode(value)),
        DType::BF16 => BF16.decode(BF16.encode(value)),
        _ => value,
    }
}

/// The value of an integer type that has the same low bits; bool: whether it is not 0.
pub fn wrap(dtype: DType, value: i64) -> i64 {
    match dtype {
        DType::U8 => i64::from(value as u8),
        DType::I8 => i64::from(value as i8),
        DType::I16 => i64::from(value as i16),
        DType::U16 => i64::from(value as u16),
        DType::I32 => i64::from(value as i32),
        DType::BOOL => i64::from(value != 0),
        _ => value,
    }
}

/// Machine epsilon of a float type.
pub fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => f64::from(f32::EPSILON),
    }
}

/// The largest finite value of a float type.
pub fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MAX,
        DType::F16 => 65504.0,
        DType::BF16 => BF16.decode(0x7f7f),
        _ => f64::from(f32::MAX),
    }
}

/// A float of 16 bits: IEEE 754 with these widths.
#[derive(Debug, Clone, Copy)]
pub struct Small {
    exponent_bits: u32,
    mantissa_bits: u32,
}

/// IEEE half precision.
pub const F16: Small = Small {
    exponent_bits: 5,
    mantissa_bits: 10,
};
/// bfloat16: `f32` without its lower half.
pub const BF16: Small = Small {
    exponent_bits: 8,
    mantissa_bits: 7,
};

impl Small {
    fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    fn infinity(self) -> u16 {
        ((1u16 << self.exponent_bits) - 1) << self.mantissa_bits
    }

    /// The nearest value, ties to even; too large becomes infinite.
    pub fn encode(self, value: f64) -> u16 {
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        if value.is_nan() {
            return sign | self.infinity() | (1 << (self.mantissa_bits - 1));
        }
        let magnitude = value.abs();
        if magnitude.is_infinite() {
            return sign | self.infinity();
        }
        // The exponent of the value, but no smaller than that of subnormal values: their spacing is the same.
        let exponent = (((magnitude.to_bits() >> 52) as i32) - 1023).max(1 - self.bias());
        let spacing = 2f64.powi(exponent - self.mantissa_bits as i32);
        // Division by a power of two is exact; the count of spacings is the encoding up to an offset, and a carry into
        // the next exponent comes out right by itself.
        let count = (magnitude / spacing).round_ties_even() as u32;
        let offset = ((exponent + self.bias() - 1) as u32) << self.mantissa_bits;
        let bits = offset + count;
        sign | u16::try_from(bits).unwrap_or(u16::MAX).min(self.infinity())
    }

    /// The value of an encoding.
    pub fn decode(self, bits: u16) -> f64 {
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let mantissa = f64::from(bits & ((1 << self.mantissa_bits) - 1));
        let exponent = i32::from((bits & 0x7fff) >> self.mantissa_bits);
        let unit = 2f64.powi(exponent.max(1) - self.bias() - self.mantissa_bits as i32);
        match exponent {
            0 => sign * mantissa * unit,
            e if e == (1 << self.exponent_bits) - 1 && mantissa == 0.0 => sign * f64::INFINITY,
            e if e == (1 << self.exponent_bits) - 1 => f64::NAN,
            _ => sign * (mantissa + f64::from(1u32 << self.mantissa_bits)) * unit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_reads_back() {
        for small in [F16, BF16] {
            for bits in 0..=u16::MAX {
                let value = small.decode(bits);
                if !value.is_nan() {
                    assert_eq!(small.encode(value), bits, "{value}");
                }
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        assert_eq!(round(DType::F16, 2049.0), 2048.0);
        assert_eq!(round(DType::F16, 2051.0), 2052.0);
        assert_eq!(round(DType::F16, 65519.0), 65504.0);
        assert_eq!(round(DType::F16, 65520.0), f64::INFINITY);
        assert_eq!(round(DType::F16, 2f64.powi(-25)), 0.0);
        assert_eq!(round(DType::F16, 1.5 * 2f64.powi(-25)), 2f64.powi(-24));
        assert_eq!(round(DType::BF16, 257.0), 256.0);
        assert!(round(DType::BF16, f64::NAN).is_nan());
    }

    #[test]
    fn bfloat16_is_the_upper_half_of_f32() {
        for bits in [0x0001u16, 0x3f80, 0x7f7f, 0x8080, 0xff80] {
            assert_eq!(BF16.decode(bits), f64::from(f32::from_bits(u32::from(bits) << 16)));
        }
    }

    #[test]
    fn integers_wrap() {
        assert_eq!(wrap(DType::U8, -1), 255);
        assert_eq!(wrap(DType::I8, 128), -128);
        assert_eq!(wrap(DType::I32, 1 << 31), i64::from(i32::MIN));
        assert_eq!(wrap(DType::BOOL, -7), 1);
    }
}
