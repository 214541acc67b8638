//! Comparisons and logic of two tensors, or of a tensor and a number: they give truth values.

use crate::elementwise::{common_dtype, map2, operand, shape_out};
use crate::math::Num;
use crate::registry::Kernel;
use crate::wide::with_wide;
use crate::{Call, KernelError};
use delegraph_types::DType;

/// `$settle`: operands are first rounded to the common dtype, as comparing does.
macro_rules! comparing {
    ($($name:literal, $settle:literal => |$a:ident, $b:ident| $body:expr;)*) => {
        &[$(($name, |call| {
            fn two<W: Num>($a: W, $b: W) -> u8 {
                u8::from($body)
            }
            if crate::complex::is_any(call, [0, 1]) {
                return crate::complex::compare($name, call);
            }
            let operands = [operand(call, 0)?, operand(call, 1)?];
            let dtype = common_dtype(&operands)?;
            let out = call.out(0)?;
            shape_out(out, &operands, DType::Bool)?;
            with_wide!(dtype, "self", W => map2::<W, u8>(&operands, Some(dtype).filter(|_| $settle), out, two::<W>))
        })),*]
    };
}

pub(crate) const KERNELS: &[(&str, Kernel)] = comparing! {
    "aten::eq.Tensor_out", true => |a, b| a == b;
    "aten::eq.Scalar_out", true => |a, b| a == b;
    "aten::ne.Tensor_out", true => |a, b| a != b;
    "aten::ne.Scalar_out", true => |a, b| a != b;
    "aten::lt.Tensor_out", true => |a, b| a < b;
    "aten::lt.Scalar_out", true => |a, b| a < b;
    "aten::le.Tensor_out", true => |a, b| a <= b;
    "aten::le.Scalar_out", true => |a, b| a <= b;
    "aten::gt.Tensor_out", true => |a, b| a > b;
    "aten::gt.Scalar_out", true => |a, b| a > b;
    "aten::ge.Tensor_out", true => |a, b| a >= b;
    "aten::ge.Scalar_out", true => |a, b| a >= b;
};

/// Each operand is asked for its own truth, so that 0.5 stays true beside integers.
pub(crate) const LOGICAL: &[(&str, Kernel)] = &[
    ("aten::logical_and.out", |call| logical(call, |a, b| a && b)),
    ("aten::logical_or.out", |call| logical(call, |a, b| a || b)),
    ("aten::logical_xor.out", |call| logical(call, |a, b| a != b)),
];

fn logical(call: &mut Call, f: fn(bool, bool) -> bool) -> Result<(), KernelError> {
    let operands = [operand(call, 0)?, operand(call, 1)?];
    let dtype = common_dtype(&operands)?;
    let out = call.out(0)?;
    shape_out(out, &operands, DType::Bool)?;
    with_wide!(dtype, "self", W => map2::<W, u8>(&operands, None, out, |a, b| u8::from(f(a.truth(), b.truth()))))
}
