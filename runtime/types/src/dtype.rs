//! Element types, with the three numberings that files use for them.

use core::fmt;
use serde::{Deserialize, Serialize};

/// The element type of a tensor.
///
/// Two numberings exist outside and they differ: `.pte` files use c10's ScalarType ([`DType::from_pte`]),
/// `.pt2` archives use torch.export's schema ([`DType::from_pt2`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
#[repr(u8)]
pub enum DType {
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
    Bool,
    BF16,
    U16,
    U32,
    U64,
    F8E5M2,
    F8E4M3,
    C64,
    C128,
}

use DType::*;

/// (dtype, short name, torch name, bytes, `.pte` code, `.pt2` code)
const TABLE: [(DType, &str, &str, usize, i8, u8); 17] = [
    (U8, "u8", "uint8", 1, 0, 1),
    (I8, "i8", "int8", 1, 1, 2),
    (I16, "i16", "int16", 2, 2, 3),
    (I32, "i32", "int32", 4, 3, 4),
    (I64, "i64", "int64", 8, 4, 5),
    (F16, "f16", "float16", 2, 5, 6),
    (F32, "f32", "float32", 4, 6, 7),
    (F64, "f64", "float64", 8, 7, 8),
    (Bool, "bool", "bool", 1, 11, 12),
    (BF16, "bf16", "bfloat16", 2, 15, 13),
    (U16, "u16", "uint16", 2, 27, 28),
    (U32, "u32", "uint32", 4, 28, 34),
    (U64, "u64", "uint64", 8, 29, 35),
    (F8E5M2, "f8e5m2", "float8_e5m2", 1, 23, 30),
    (F8E4M3, "f8e4m3", "float8_e4m3fn", 1, 24, 29),
    (C64, "c64", "complex64", 8, 9, 10),
    (C128, "c128", "complex128", 16, 10, 11),
];

impl DType {
    /// Every dtype, in declaration order.
    pub fn all() -> impl Iterator<Item = DType> {
        TABLE.iter().map(|row| row.0)
    }

    /// Short name used in reports and messages, for example `f32`.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// PyTorch's name, for example `float32`.
    pub fn torch_name(self) -> &'static str {
        TABLE[self as usize].2
    }

    /// Parses a short name or PyTorch's name.
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|row| row.1 == name || row.2 == name).map(|row| row.0)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        TABLE[self as usize].3
    }

    /// What the address of an element is a multiple of: the size, or that of one part of a complex number.
    pub fn align(self) -> usize {
        self.size() / if self.is_complex() { 2 } else { 1 }
    }

    /// ScalarType of ExecuTorch's `program.fbs`.
    pub fn pte_code(self) -> i8 {
        TABLE[self as usize].4
    }

    /// The dtype of a ScalarType of `program.fbs`; `None` where Delegraph has no such dtype.
    pub fn from_pte(code: i8) -> Option<DType> {
        TABLE.iter().find(|row| row.4 == code).map(|row| row.0)
    }

    /// ScalarType of torch.export's schema (`model.json`).
    pub fn pt2_code(self) -> u8 {
        TABLE[self as usize].5
    }

    /// The dtype of a ScalarType of torch.export's schema.
    pub fn from_pt2(code: u8) -> Option<DType> {
        TABLE.iter().find(|row| row.5 == code).map(|row| row.0)
    }

    /// True for every real floating-point dtype, the 8-bit ones included.
    pub fn is_float(self) -> bool {
        matches!(self, F16 | F32 | F64 | BF16 | F8E5M2 | F8E4M3)
    }

    /// True for complex numbers: a real and an imaginary part, one after the other in memory.
    pub fn is_complex(self) -> bool {
        matches!(self, C64 | C128)
    }

    /// The dtype of the parts of a complex one; any other is its own.
    pub fn real(self) -> DType {
        match self {
            C64 => F32,
            C128 => F64,
            other => other,
        }
    }

    /// The complex dtype whose parts hold this float; `None` for what PyTorch has none for, and for halves (`complex32`).
    pub fn complex(self) -> Option<DType> {
        match self {
            F32 | C64 => Some(C64),
            F64 | C128 => Some(C128),
            _ => None,
        }
    }

    /// True for signed and unsigned integers; `bool` is not one.
    pub fn is_int(self) -> bool {
        matches!(self, U8 | I8 | I16 | I32 | I64 | U16 | U32 | U64)
    }

    /// Smallest and largest value of an integer dtype.
    pub fn int_range(self) -> Option<(i128, i128)> {
        let bits = 8 * self.size() as u32;
        match self {
            I8 | I16 | I32 | I64 => Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)),
            U8 | U16 | U32 | U64 => Some((0, (1i128 << bits) - 1)),
            _ => None,
        }
    }
}

impl fmt::Debug for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_declaration_order_and_codes_round_trip() {
        for (i, dtype) in DType::all().enumerate() {
            assert_eq!(dtype as usize, i);
            assert_eq!(DType::from_pte(dtype.pte_code()), Some(dtype));
            assert_eq!(DType::from_pt2(dtype.pt2_code()), Some(dtype));
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
            assert_eq!(DType::from_name(dtype.torch_name()), Some(dtype));
        }
    }
}
