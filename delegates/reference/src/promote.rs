//! PyTorch's type promotion, for the operators whose result does not tell what they compute in (comparisons).

use crate::call::Operand;
use delegraph_sdk::DType;

/// bool, integers, floats.
fn category(dtype: DType) -> u8 {
    match dtype {
        DType::BOOL => 0,
        dtype if dtype.is_float() => 2,
        _ => 1,
    }
}

/// The dtype of two tensors together.
pub fn pair(a: DType, b: DType) -> DType {
    if a == b {
        return a;
    }
    match category(a).cmp(&category(b)) {
        std::cmp::Ordering::Less => return b,
        std::cmp::Ordering::Greater => return a,
        std::cmp::Ordering::Equal => {}
    }
    if category(a) == 2 {
        let widest = [DType::F64, DType::F32]
            .into_iter()
            .find(|wide| a == *wide || b == *wide);
        // f16 and bf16 have no other type that holds both.
        return widest.unwrap_or(DType::F32);
    }
    // u8 and a signed type of its width need the next wider one.
    let order = [DType::I64, DType::I32, DType::I16];
    let widest = order.into_iter().find(|wide| a == *wide || b == *wide);
    widest.unwrap_or(DType::I16)
}

/// The dtype of operands together: tensors with dimensions decide, then those without, then numbers; the latter only raise
/// the category, never the width within it.
pub fn common(operands: &[&Operand<'_>]) -> DType {
    let of = |class: fn(&Operand<'_>) -> bool| {
        let members = operands.iter().filter(|o| class(o)).map(|o| o.tensor.dtype());
        members.reduce(pair)
    };
    let classes = [
        of(|o| !o.is_number && o.tensor.rank() > 0),
        of(|o| !o.is_number && o.tensor.rank() == 0),
        of(|o| o.is_number).map(|dtype| if dtype.is_float() { DType::F32 } else { dtype }),
    ];
    let higher = |a: DType, b: DType| if category(b) > category(a) { b } else { a };
    classes.into_iter().flatten().reduce(higher).unwrap_or(DType::F32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Data, Tensor};
    use std::borrow::Cow;

    #[test]
    fn promotion() {
        assert_eq!(pair(DType::U8, DType::I8), DType::I16);
        assert_eq!(pair(DType::F16, DType::BF16), DType::F32);
        assert_eq!(pair(DType::I64, DType::F16), DType::F16);
        assert_eq!(pair(DType::BOOL, DType::U8), DType::U8);
        let operand = |dtype, sizes: Vec<usize>, is_number| Operand {
            tensor: Cow::Owned(Tensor::new(dtype, sizes, Data::Int(vec![0])).unwrap()),
            is_number,
        };
        let (half, int) = (operand(DType::F16, vec![1], false), operand(DType::I32, vec![1], false));
        let (zero_dim, number) = (operand(DType::F32, vec![], false), operand(DType::F64, vec![], true));
        assert_eq!(common(&[&half, &zero_dim]), DType::F16);
        assert_eq!(common(&[&int, &zero_dim]), DType::F32);
        assert_eq!(common(&[&int, &number]), DType::F32);
        assert_eq!(common(&[&half, &number]), DType::F16);
    }
}
