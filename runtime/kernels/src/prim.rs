//! Operators on numbers: ExecuTorch's symbolic arithmetic, sizes, and the value of a tensor of one element.

use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::stage::dim_of;
use crate::wide::first;
use crate::{Call, KernelError};
use alloc::format;
use core::cmp::Ordering;
use delegraph_types::{Category, DType, Scalar};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_local_scalar_dense", local_scalar),
    ("aten::item", local_scalar),
    ("aten::sym_numel", |call| {
        let count = call.tensor(0)?.numel();
        give(call, Scalar::Int(count as i64))
    }),
    ("aten::sym_size.int", |call| {
        let input = call.tensor(0)?;
        let dim = dim_of(input.sizes(), call.int(1)?, "dim")?;
        let size = input.sizes().get(dim).copied();
        let size = size.ok_or_else(|| KernelError::invalid("dim", "a 0-dim tensor has no sizes"))?;
        give(call, Scalar::Int(size))
    }),
    // Every tensor counts as contiguous: programs know nothing of the strides that eager mode would have.
    ("aten::sym_stride.int", |call| {
        let input = call.tensor(0)?;
        let dim = dim_of(input.sizes(), call.int(1)?, "dim")?;
        let stride = input.sizes().contiguous_strides().get(dim).copied();
        let stride = stride.ok_or_else(|| KernelError::invalid("dim", "a 0-dim tensor has no strides"))?;
        give(call, Scalar::Int(stride))
    }),
    ("aten::sym_storage_offset", |call| {
        call.tensor(0)?;
        give(call, Scalar::Int(0))
    }),
    ("aten::sym_is_contiguous", |call| {
        let input = call.tensor(0)?;
        // c10::MemoryFormat; the order of its dimensions from the innermost.
        let order: &[usize] = match call.optional_int(1)?.unwrap_or(0) {
            0 | 1 => return give(call, Scalar::Bool(true)),
            2 => &[1, 3, 2, 0],
            3 => &[1, 4, 3, 2, 0],
            other => return Err(KernelError::invalid("memory_format", format!("format {other}"))),
        };
        let (sizes, strides) = (input.sizes(), input.sizes().contiguous_strides());
        let mut expected = 1i64;
        let same = sizes.rank() == order.len()
            && order.iter().all(|&d| {
                let fits = sizes[d] == 1 || strides[d] == expected;
                expected = expected.saturating_mul(sizes[d]);
                fits
            });
        give(call, Scalar::Bool(same))
    }),
    ("executorch_prim::add.Scalar", |call| {
        arithmetic(call, i64::checked_add, |a, b| a + b)
    }),
    ("executorch_prim::sub.Scalar", |call| {
        arithmetic(call, i64::checked_sub, |a, b| a - b)
    }),
    ("executorch_prim::mul.Scalar", |call| {
        arithmetic(call, i64::checked_mul, |a, b| a * b)
    }),
    ("executorch_prim::floordiv.Scalar", floor_divide),
    ("executorch_prim::floordiv.int", floor_divide),
    ("executorch_prim::mod.Scalar", modulo),
    ("executorch_prim::mod.int", modulo),
    ("executorch_prim::truediv.Scalar", |call| {
        let (a, b) = (number(call, 0)?.as_f64(), number(call, 1)?.as_f64());
        if b == 0.0 {
            return Err(by_zero());
        }
        give(call, Scalar::Float(a / b))
    }),
    ("executorch_prim::neg.Scalar", |call| match number(call, 0)? {
        Scalar::Float(x) => give(call, Scalar::Float(-x)),
        other => {
            let negated = other.as_i64().checked_neg().ok_or_else(overflow)?;
            give(call, Scalar::Int(negated))
        }
    }),
    ("executorch_prim::eq.Scalar", |call| {
        compare(call, |order| order == Some(Ordering::Equal))
    }),
    ("executorch_prim::ge.Scalar", |call| {
        compare(call, |order| order.is_some_and(Ordering::is_ge))
    }),
    ("executorch_prim::gt.Scalar", |call| {
        compare(call, |order| order.is_some_and(Ordering::is_gt))
    }),
    ("executorch_prim::le.Scalar", |call| {
        compare(call, |order| order.is_some_and(Ordering::is_le))
    }),
    ("executorch_prim::lt.Scalar", |call| {
        compare(call, |order| order.is_some_and(Ordering::is_lt))
    }),
    ("executorch_prim::ceil.Scalar", |call| rounded(call, Real::ceil)),
    ("executorch_prim::round.Scalar", |call| rounded(call, Real::round_even)),
    ("executorch_prim::trunc.Scalar", |call| rounded(call, Real::trunc)),
    ("executorch_prim::sym_int.Scalar", |call| rounded(call, Real::trunc)),
    ("executorch_prim::sym_float.Scalar", |call| {
        let value = number(call, 0)?.as_f64();
        give(call, Scalar::Float(value))
    }),
    ("executorch_prim::sym_ite.Scalar", |call| {
        let value = if number(call, 0)?.as_bool() {
            number(call, 1)?
        } else {
            number(call, 2)?
        };
        give(call, value)
    }),
    ("executorch_prim::sym_max.Scalar", |call| {
        arithmetic(call, |a, b| Some(a.max(b)), Num::larger)
    }),
    ("executorch_prim::sym_min.Scalar", |call| {
        arithmetic(call, |a, b| Some(a.min(b)), Num::smaller)
    }),
    ("executorch_prim::sym_not.Scalar", |call| {
        let value = !number(call, 0)?.as_bool();
        give(call, Scalar::Bool(value))
    }),
];

fn give(call: &mut Call, value: Scalar) -> Result<(), KernelError> {
    call.result = Some(value);
    Ok(())
}

fn number(call: &Call, index: usize) -> Result<Scalar, KernelError> {
    call.scalar(index)
}

fn overflow() -> KernelError {
    KernelError::invalid("a", "the result is out of the range of 64 bits")
}

fn by_zero() -> KernelError {
    KernelError::invalid("b", "division by zero")
}

/// Two integers give an integer, anything with a float a float.
fn arithmetic(
    call: &mut Call,
    ints: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> Result<(), KernelError> {
    let value = match (number(call, 0)?, number(call, 1)?) {
        (a @ Scalar::Float(_), b) | (a, b @ Scalar::Float(_)) => Scalar::Float(floats(a.as_f64(), b.as_f64())),
        (a, b) => Scalar::Int(ints(a.as_i64(), b.as_i64()).ok_or_else(overflow)?),
    };
    give(call, value)
}

fn floor_divide(call: &mut Call) -> Result<(), KernelError> {
    check_divisor(call)?;
    arithmetic(
        call,
        |a, b| {
            if (a, b) == (i64::MIN, -1) {
                None
            } else {
                Some(a.quotient_floor(b))
            }
        },
        Num::quotient_floor,
    )
}

/// Python's remainder, with the sign of the divisor.
fn modulo(call: &mut Call) -> Result<(), KernelError> {
    check_divisor(call)?;
    arithmetic(call, |a, b| Some(Num::remainder(a, b)), Num::remainder)
}

fn check_divisor(call: &Call) -> Result<(), KernelError> {
    match number(call, 1)?.as_bool() {
        true => Ok(()),
        false => Err(by_zero()),
    }
}

fn compare(call: &mut Call, test: fn(Option<Ordering>) -> bool) -> Result<(), KernelError> {
    let order = match (number(call, 0)?, number(call, 1)?) {
        (a @ Scalar::Float(_), b) | (a, b @ Scalar::Float(_)) => a.as_f64().partial_cmp(&b.as_f64()),
        (a, b) => Some(a.as_i64().cmp(&b.as_i64())),
    };
    give(call, Scalar::Bool(test(order)))
}

/// To an integer.
fn rounded(call: &mut Call, round: fn(f64) -> f64) -> Result<(), KernelError> {
    let value = match number(call, 0)? {
        Scalar::Float(x) => {
            let whole = round(x);
            // The limits of i64 as doubles: -2^63 is one of its values, 2^63 is not.
            if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole) {
                return Err(overflow());
            }
            whole as i64
        }
        other => other.as_i64(),
    };
    give(call, Scalar::Int(value))
}

fn local_scalar(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    if input.numel() != 1 {
        return Err(KernelError::invalid(
            "self",
            format!("a tensor of shape {} is not one number", input.sizes()),
        ));
    }
    let value = match input.dtype().category() {
        Category::Float => Scalar::Float(first::<f64>(&input, "self")?),
        Category::Int if input.dtype() == DType::U64 => {
            return Err(KernelError::unsupported("self", "a number of dtype u64"));
        }
        Category::Int => Scalar::Int(first::<i64>(&input, "self")?),
        Category::Bool => Scalar::Bool(first::<i64>(&input, "self")? != 0),
        Category::Complex => {
            return Err(KernelError::unsupported(
                "self",
                format!("a number of dtype {}", input.dtype()),
            ));
        }
    };
    give(call, value)
}
