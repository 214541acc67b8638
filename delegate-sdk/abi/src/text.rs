//! Names of codes for people.

use crate::c::{DType, Status};
use core::fmt;

impl fmt::Display for Status {
    /// As the header spells it without prefix, for example `UNSUPPORTED`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "status {}", self.0),
        }
    }
}

impl DType {
    /// Bytes of one element; `None` for a code that this version does not know.
    pub const fn size(self) -> Option<usize> {
        match self {
            DType::U8 | DType::I8 | DType::BOOL | DType::F8E5M2 | DType::F8E4M3 => Some(1),
            DType::I16 | DType::F16 | DType::BF16 | DType::U16 => Some(2),
            DType::I32 | DType::F32 | DType::U32 => Some(4),
            DType::I64 | DType::F64 | DType::U64 | DType::C64 => Some(8),
            DType::C128 => Some(16),
            _ => None,
        }
    }

    /// True for every real floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            DType::F16 | DType::F32 | DType::F64 | DType::BF16 | DType::F8E5M2 | DType::F8E4M3
        )
    }
}

impl fmt::Display for DType {
    /// `f32`; `dtype 99` for a code that this version does not know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => name.chars().try_for_each(|c| write!(f, "{}", c.to_ascii_lowercase())),
            None => write!(f, "dtype {}", self.0),
        }
    }
}
