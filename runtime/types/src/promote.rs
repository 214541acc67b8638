//! PyTorch's type promotion, in one place for the importer, the passes and the kernels.
//!
//! Authority: `torch.result_type` and the "Type promotion" section of PyTorch's tensor attributes page: dimensioned
//! tensors decide first, then 0-dim tensors of a higher category, then wrapped numbers (Python scalars) of a higher category.

use crate::{DType, Scalar};

/// Promotion category, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Category {
    Bool,
    Int,
    Float,
    Complex,
}

/// One operand of an operator that promotes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operand {
    /// A tensor of rank 1 or more.
    Tensor(DType),
    /// A 0-dim tensor: counts only where no dimensioned tensor has its category.
    ZeroDim(DType),
    /// A Python number: counts only where no tensor has its category.
    Number(Scalar),
}

impl Operand {
    /// The operand for a tensor of this dtype and rank.
    pub fn tensor(dtype: DType, rank: usize) -> Operand {
        if rank == 0 {
            Operand::ZeroDim(dtype)
        } else {
            Operand::Tensor(dtype)
        }
    }
}

impl DType {
    /// Promotion category of this dtype.
    pub fn category(self) -> Category {
        if self == DType::Bool {
            Category::Bool
        } else if self.is_complex() {
            Category::Complex
        } else if self.is_float() {
            Category::Float
        } else {
            Category::Int
        }
    }

    /// `torch.promote_types(a, b)`, both taken as dimensioned tensors.
    ///
    /// Unsigned 16 to 64-bit types with signed ones have no common type in PyTorch; here they give the wider signed one,
    /// and [`DType::F32`] stands for two different 8-bit floats. A complex type stays as it is beside a float that its parts hold.
    pub fn promote(a: DType, b: DType) -> DType {
        use DType::*;
        if a == b {
            return a;
        }
        let (ca, cb) = (a.category(), b.category());
        if ca.max(cb) == Category::Complex {
            return if [a, b].into_iter().any(|dtype| matches!(dtype, C128 | F64)) {
                C128
            } else {
                C64
            };
        }
        if ca != cb {
            return if ca > cb { a } else { b };
        }
        match ca {
            Category::Bool => Bool,
            Category::Complex => C128,
            Category::Float => match (a, b) {
                (F64, _) | (_, F64) => F64,
                (F32, _) | (_, F32) => F32,
                (F16, BF16) | (BF16, F16) => F32,
                (F8E5M2 | F8E4M3, F8E5M2 | F8E4M3) => F32,
                (F8E5M2 | F8E4M3, other) | (other, _) => other,
            },
            Category::Int => {
                let signed = |d: DType| matches!(d, I8 | I16 | I32 | I64);
                match (signed(a), signed(b)) {
                    (true, true) | (false, false) => {
                        if a.size() >= b.size() {
                            a
                        } else {
                            b
                        }
                    }
                    (sa, _) => {
                        let (s, u) = if sa { (a, b) } else { (b, a) };
                        match u.size().max(s.size() / 2) {
                            1 => I16,
                            2 => I32,
                            _ => I64,
                        }
                    }
                }
            }
        }
    }
}

/// The complex dtype with the precision of a float. PyTorch has half-precision ones too, for halves; here they give [`DType::C64`].
fn complex_of(float: DType) -> DType {
    if float == DType::F64 { DType::C128 } else { DType::C64 }
}

/// `torch.result_type` over any number of operands; `None` for no operands.
pub fn result_dtype(operands: impl IntoIterator<Item = Operand>) -> Option<DType> {
    let mut dimensioned: Option<DType> = None;
    let mut zero_dim: Option<DType> = None;
    let mut number: Option<DType> = None;
    let join = |slot: &mut Option<DType>, dtype: DType| {
        *slot = Some(slot.map_or(dtype, |have| DType::promote(have, dtype)));
    };
    for operand in operands {
        match operand {
            Operand::Tensor(dtype) => join(&mut dimensioned, dtype),
            Operand::ZeroDim(dtype) => join(&mut zero_dim, dtype),
            Operand::Number(scalar) => join(&mut number, scalar.dtype()),
        }
    }
    let raise = |low: Option<DType>, high: Option<DType>| match (low, high) {
        (None, high) => high,
        (low, None) => low,
        (Some(low), Some(high)) if high.category() >= low.category() => Some(high),
        // A complex 0-dim tensor or number takes the precision of the floats beside it.
        (Some(low), Some(high)) if low.is_complex() && high.is_float() => Some(complex_of(high)),
        (low, _) => low,
    };
    raise(number, raise(zero_dim, dimensioned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use DType::*;

    #[test]
    fn pairs_promote_as_torch_promote_types() {
        for (a, b, want) in [
            (U8, I8, I16),
            (U8, I16, I16),
            (U8, I64, I64),
            (Bool, U8, U8),
            (I64, F16, F16),
            (F16, BF16, F32),
            (BF16, F32, F32),
            (F32, F64, F64),
            (I32, I64, I64),
            (C64, F32, C64),
            (C64, F64, C128),
            (C64, I64, C64),
            (C64, C128, C128),
            (F16, C64, C64),
        ] {
            assert_eq!(DType::promote(a, b), want, "{a} {b}");
            assert_eq!(DType::promote(b, a), want, "{b} {a}");
        }
    }

    #[test]
    fn numbers_and_zero_dim_tensors_raise_only_the_category() {
        let f = |ops: &[Operand]| result_dtype(ops.iter().copied()).unwrap();
        assert_eq!(f(&[Operand::Tensor(F16), Operand::Number(Scalar::Float(2.0))]), F16);
        assert_eq!(f(&[Operand::Tensor(I32), Operand::Number(Scalar::Float(2.0))]), F32);
        assert_eq!(f(&[Operand::Tensor(I32), Operand::Number(Scalar::Int(2))]), I32);
        assert_eq!(f(&[Operand::Tensor(Bool), Operand::Number(Scalar::Int(2))]), I64);
        assert_eq!(f(&[Operand::Tensor(F16), Operand::ZeroDim(F64)]), F16);
        assert_eq!(f(&[Operand::Tensor(I8), Operand::ZeroDim(F64)]), F64);
        assert_eq!(f(&[Operand::Tensor(F32), Operand::ZeroDim(C128)]), C64);
        assert_eq!(f(&[Operand::Tensor(F64), Operand::ZeroDim(C64)]), C128);
        assert_eq!(f(&[Operand::Tensor(I64), Operand::ZeroDim(C128)]), C128);
        assert_eq!(f(&[Operand::Tensor(C64), Operand::ZeroDim(F64)]), C64);
        assert_eq!(f(&[Operand::Tensor(C64), Operand::Number(Scalar::Float(2.0))]), C64);
        assert_eq!(f(&[Operand::ZeroDim(I32), Operand::Number(Scalar::Int(1))]), I32);
    }
}
