//! Operators that make tensors from sizes and numbers.

use super::Rule;
use super::call::{Call, Result, to_float};
use crate::{Arg, Expr, ExprOp, Type};
use delegraph_types::{DType, Operand, result_dtype};

pub(super) fn rule(base: &str, overload: &str) -> Option<Rule> {
    Some(match base {
        "full" => |c| c.one(c.dtype("dtype")?.map_or_else(|| fill_dtype(c), Ok)?, c.ints("size")?),
        "zeros" | "ones" | "empty" | "empty_strided" | "empty_permuted" | "rand" | "randn" | "_efficientzerotensor" => {
            |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), c.ints("size")?)
        }
        "full_like" | "zeros_like" | "ones_like" | "empty_like" | "rand_like" | "randn_like" | "randint_like" => |c| {
            let t = c.first()?;
            c.one(c.dtype("dtype")?.unwrap_or(t.dtype), t.shape.clone())
        },
        "new_full" | "new_zeros" | "new_ones" | "new_empty" | "new_empty_strided" => |c| {
            let t = c.first()?;
            c.one(c.dtype("dtype")?.unwrap_or(t.dtype), c.ints("size")?)
        },
        "scalar_tensor" => |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), Vec::new()),
        "arange" | "range" => arange,
        "linspace" | "logspace" => |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), vec![c.int("steps")?]),
        "eye" => |c| {
            let rows = c.int("n")?;
            let columns = if c.has("m") { c.int("m")? } else { rows.clone() };
            c.one(c.dtype("dtype")?.unwrap_or(DType::F32), vec![rows, columns])
        },
        "normal" if overload.starts_with("float_float") => {
            |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), c.ints("size")?)
        }
        "normal" => |c| {
            c.one(
                to_float(c.promoted(&["mean", "std"])?),
                c.broadcast_of(&["mean", "std"])?,
            )
        },
        "randint" => |c| c.one(c.dtype("dtype")?.unwrap_or(DType::I64), c.ints("size")?),
        "resize" => |c| c.one(c.first()?.dtype, c.ints("size")?),
        "randperm" => |c| c.one(c.dtype("dtype")?.unwrap_or(DType::I64), vec![c.int("n")?]),
        "tril_indices" | "triu_indices" => triangle,
        "hann_window" | "hamming_window" | "blackman_window" | "bartlett_window" | "kaiser_window" => {
            |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), vec![c.int("window_length")?])
        }
        "_local_scalar_dense" | "item" => scalar,
        "sym_size" => |c| {
            let t = c.first()?;
            c.rank_at_least(t, 1)?;
            Ok(vec![Type::Int(t.shape[c.dim("dim", t.rank())?].clone())])
        },
        "sym_numel" => |c| Ok(vec![Type::Int(Expr::product(&c.first()?.shape))]),
        // Every tensor counts as contiguous.
        "sym_stride" => |c| {
            let t = c.first()?;
            c.rank_at_least(t, 1)?;
            Ok(vec![Type::Int(Expr::product(&t.shape[c.dim("dim", t.rank())? + 1..]))])
        },
        "sym_storage_offset" => |_| Ok(vec![Type::Int(Expr::Int(0))]),
        "sym_is_contiguous" => |_| Ok(vec![Type::Bool]),
        "_shape_as_tensor" => |c| c.one(DType::I64, vec![Expr::Int(c.first()?.rank() as i64)]),
        "_cast_Byte" => |c| c.one(DType::U8, c.first()?.shape.clone()),
        "_cast_Char" => |c| c.one(DType::I8, c.first()?.shape.clone()),
        "_cast_Short" => |c| c.one(DType::I16, c.first()?.shape.clone()),
        "_cast_Int" => |c| c.one(DType::I32, c.first()?.shape.clone()),
        "_cast_Long" => |c| c.one(DType::I64, c.first()?.shape.clone()),
        "_cast_Half" => |c| c.one(DType::F16, c.first()?.shape.clone()),
        "_cast_Float" => |c| c.one(DType::F32, c.first()?.shape.clone()),
        "_cast_Double" => |c| c.one(DType::F64, c.first()?.shape.clone()),
        "_dim_arange" => |c| {
            let t = c.first()?;
            c.rank_at_least(t, 1)?;
            c.one(DType::I64, vec![t.shape[c.dim("dim", t.rank())?].clone()])
        },
        _ => return None,
    })
}

/// `dim_order_ops::*`
pub(super) fn dim_order_rule(base: &str) -> Option<Rule> {
    Some(match base {
        "_to_dim_order_copy" => |c| {
            let t = c.first()?;
            c.one(c.dtype("dtype")?.unwrap_or(t.dtype), t.shape.clone())
        },
        "_clone_dim_order" => |c| c.like(c.first()?),
        "_empty_dim_order" => |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), c.ints("size")?),
        _ => return None,
    })
}

/// The dtype of `fill_value`.
fn fill_dtype(c: &Call) -> Result<DType> {
    match c.operand("fill_value")? {
        Some((operand, _)) => Ok(result_dtype([operand]).unwrap_or(DType::F32)),
        None => c.invalid("argument `fill_value`: expected a number"),
    }
}

/// A number as an expression: exact where it is an integer.
fn number(c: &Call, name: &str, absent: i64) -> Result<Expr> {
    match c.arg(name) {
        Arg::None => Ok(Expr::Int(absent)),
        Arg::Float(f) => Ok(Expr::float(*f)),
        Arg::Sym(e) => Ok(e.clone()),
        _ => c.int(name),
    }
}

fn arange(c: &Call) -> Result<Vec<Type>> {
    let mut operands = Vec::new();
    for name in ["start", "end", "step"] {
        operands.extend(c.operand(name)?.map(|(operand, _)| operand));
    }
    let floats = operands
        .iter()
        .any(|o| matches!(o, Operand::Number(n) if n.dtype() == DType::F32));
    let dtype = c
        .dtype("dtype")?
        .unwrap_or(if floats { DType::F32 } else { DType::I64 });
    let (start, end, step) = (number(c, "start", 0)?, number(c, "end", 0)?, number(c, "step", 1)?);
    if step.as_int() == Some(0) {
        return c.invalid("`step` is 0");
    }
    let count = match floats {
        false => match step.as_int() {
            Some(s) if s < 0 => c.ceil_div(start - end, Expr::Int(s.saturating_neg())),
            _ => c.ceil_div(end - start, step),
        },
        true => {
            let span = Expr::op(
                ExprOp::Add,
                vec![end, Expr::op(ExprOp::Mul, vec![Expr::Int(-1), start])],
            );
            Expr::op(ExprOp::Ceil, vec![Expr::op(ExprOp::TrueDiv, vec![span, step])])
        }
    };
    let count = match c.schema.name.starts_with("aten::range") {
        true if !floats => return c.unsupported("the operator with integers"),
        true => return c.unsupported("the operator"),
        false => c.not_negative(count),
    };
    c.one(dtype, vec![count])
}

/// Positions of a triangle of a matrix: counted row by row, so the sizes have to be constant.
fn triangle(c: &Call) -> Result<Vec<Type>> {
    let (rows, columns, offset) = (c.fixed_int("row")?, c.fixed_int("col")?, c.fixed_int("offset")?);
    if rows < 0 || columns < 0 || rows > 1 << 32 || columns > 1 << 32 {
        return c.invalid("sizes out of range");
    }
    let (rows, columns, offset) = (i128::from(rows), i128::from(columns), i128::from(offset));
    // Elements (i, j) with j - i <= offset: row i holds clamp(i + offset + 1, 0, columns) of them.
    let arithmetic = |from: i128, to: i128| {
        if to < from {
            0
        } else {
            (from + to) * (to - from + 1) / 2
        }
    };
    let first = (-offset).clamp(0, rows); // the first row that holds one
    let full = (columns - offset - 1).clamp(first, rows); // the first row that holds all
    let lower = arithmetic(first + offset + 1, full + offset) + (rows - full) * columns;
    let lower = if first >= rows { 0 } else { lower };
    let count = match c.schema.name.starts_with("aten::tril") {
        true => lower,
        false => {
            // The rest of the matrix, with the diagonal itself: j - i >= offset.
            let below = offset - 1;
            let first = (-below).clamp(0, rows);
            let full = (columns - below - 1).clamp(first, rows);
            let strictly = arithmetic(first + below + 1, full + below) + (rows - full) * columns;
            rows * columns - if first >= rows { 0 } else { strictly }
        }
    };
    let Ok(count) = i64::try_from(count) else {
        return c.invalid("sizes out of range");
    };
    c.one(
        c.dtype("dtype")?.unwrap_or(DType::I64),
        vec![Expr::Int(2), Expr::Int(count)],
    )
}

/// A number read from a tensor: an integer needs a symbol, which the importer names.
fn scalar(c: &Call) -> Result<Vec<Type>> {
    match c.first()?.dtype {
        DType::Bool => Ok(vec![Type::Bool]),
        dtype if dtype.is_float() => Ok(vec![Type::Float]),
        dtype if dtype.is_complex() => c.unsupported(format!("a number of dtype {dtype}")),
        _ => c.data_dependent(),
    }
}
