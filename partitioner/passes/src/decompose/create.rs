//! Tensors made from nothing: everything becomes `full` or `arange.start_step` or a constant.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, Type, ValueId};
use delegraph_types::{DType, bf16, f16};

pub(super) const RULES: Rules = &[
    ("aten::zeros", |rw| filled(rw, Arg::int(0))),
    ("aten::ones", |rw| filled(rw, Arg::int(1))),
    ("aten::zeros_like", |rw| filled(rw, Arg::int(0))),
    ("aten::ones_like", |rw| filled(rw, Arg::int(1))),
    ("aten::empty_like", |rw| filled(rw, Arg::int(0))),
    ("aten::new_zeros", |rw| filled(rw, Arg::int(0))),
    ("aten::new_ones", |rw| filled(rw, Arg::int(1))),
    ("aten::new_empty", |rw| filled(rw, Arg::int(0))),
    ("aten::new_full", |rw| filled(rw, rw.arg(2))),
    ("aten::arange", |rw| {
        let types = rw.output_types();
        let dtype = rw.output_type(0)?.dtype;
        rw.emit_as("aten::arange.start_step", args![0, rw.arg(0), 1, dtype], types)
            .map(Some)
    }),
    ("aten::arange.start", |rw| {
        let types = rw.output_types();
        let dtype = rw.output_type(0)?.dtype;
        rw.emit_as("aten::arange.start_step", args![rw.arg(0), rw.arg(1), 1, dtype], types)
            .map(Some)
    }),
    ("aten::eye", |rw| {
        let n = rw.expr(0)?;
        eye(rw, n.clone(), n)
    }),
    ("aten::eye.m", |rw| {
        let (n, m) = (rw.expr(0)?, rw.expr(1)?);
        eye(rw, n, m)
    }),
    ("aten::linspace", linspace),
    ("aten::tril_indices", |rw| {
        triangle_indices(rw, |row, column, offset| column - row <= offset)
    }),
    ("aten::triu_indices", |rw| {
        triangle_indices(rw, |row, column, offset| column - row >= offset)
    }),
    ("aten::triu", |rw| {
        let x = rw.tensor(0)?;
        let diagonal = rw.expr(1)?;
        let rank = rw.rank(x)?;
        if rank < 2 {
            return Err(rw.invalid("a matrix is expected"));
        }
        let (rows, columns) = (rw.size(x, rank - 2)?, rw.size(x, rank - 1)?);
        let gap = column_minus_row(rw, rows, columns)?;
        let kept = rw.emit("aten::ge.Scalar", args![gap, diagonal])?;
        one(rw.select_where(kept, x, 0))
    }),
    ("aten::diag_embed", |rw| {
        let x = rw.tensor(0)?;
        let rank = rw.rank(x)? + 1;
        let (offset, d1, d2) = (rw.int(1)?, rw.dim(2, rank)?, rw.dim(3, rank)?);
        one(diag_embed(rw, x, offset, d1, d2))
    }),
    ("aten::diag", |rw| {
        let (x, offset) = (rw.tensor(0)?, rw.int(1)?);
        match rw.rank(x)? {
            1 => one(diag_embed(rw, x, offset, 0, 1)),
            _ => one(rw.emit("aten::diagonal", args![x, offset])),
        }
    }),
    ("aten::diagflat", |rw| {
        let (x, offset) = (rw.tensor(0)?, rw.int(1)?);
        let count = Expr::product(&rw.shape(x)?);
        let flat = rw.view(x, vec![count])?;
        one(diag_embed(rw, flat, offset, 0, 1))
    }),
    ("aten::one_hot", |rw| {
        let (x, classes) = (rw.tensor(0)?, rw.int(1)?);
        rw.real_only(x)?;
        let rank = rw.rank(x)?;
        let classes = match classes {
            0.. => Expr::Int(classes),
            _ => classes_of(rw, x)?,
        };
        let x = rw.unsqueeze(x, rank)?;
        let classes = rw.arange(0, classes)?;
        let hot = rw.binary("aten::eq.Tensor", x, classes)?;
        one(rw.cast(hot, DType::I64))
    }),
];

/// One more than the largest class: read at run time, as the symbol that the result's type names it by.
fn classes_of(rw: &mut Rewrite, x: ValueId) -> Result<Expr, PassError> {
    let Some(classes @ Expr::Symbol(_)) = rw.output_type(0)?.shape.last().cloned() else {
        return Err(rw.unsupported("a number of classes that depends on the data and has no symbol"));
    };
    let most = rw.emit("aten::amax", args![x, Vec::<i64>::new(), false])?;
    let count = rw.add(most, 1)?;
    let ty = Type::Int(classes.clone());
    rw.emit_as("aten::_local_scalar_dense", args![count], vec![ty])?;
    Ok(classes)
}

/// Constants of more elements than this would swell the file: they are refused.
const MAX_CONSTANT: i64 = 1 << 20;

/// `value` in the recorded shape and dtype.
fn filled(rw: &mut Rewrite, value: Arg) -> Replacement {
    let ty = rw.output_type(0)?;
    one(rw.full(ty.shape, value, ty.dtype))
}

fn column_minus_row(rw: &mut Rewrite, rows: Expr, columns: Expr) -> Result<ValueId, PassError> {
    let rows = rw.arange(0, rows)?;
    let rows = rw.unsqueeze(rows, 1)?;
    let columns = rw.arange(0, columns)?;
    rw.sub(columns, rows)
}

fn eye(rw: &mut Rewrite, n: Expr, m: Expr) -> Replacement {
    let gap = column_minus_row(rw, n, m)?;
    let hot = rw.emit("aten::eq.Scalar", args![gap, 0])?;
    let dtype = rw.output_type(0)?.dtype;
    one(rw.cast(hot, dtype))
}

/// As ATen's CPU kernel: the first half counts from the start, the second from the end, every step rounded to the dtype;
/// integers are computed in `f64` and truncated.
fn linspace(rw: &mut Rewrite) -> Replacement {
    let (start, end, steps) = (rw.float(0)?, rw.float(1)?, rw.int(2)?);
    let dtype = rw.output_type(0)?.dtype;
    if !(0..=MAX_CONSTANT).contains(&steps) {
        return Err(rw.unsupported(format!("{steps} steps")));
    }
    let round = |x: f64| match dtype {
        DType::F16 => f16::from_f64(x).to_f64(),
        DType::BF16 => bf16::from_f64(x).to_f64(),
        DType::F32 => f64::from(x as f32),
        _ => x,
    };
    let whole = |x: f64| if dtype.is_float() { round(x) } else { x.trunc() };
    let (start, end) = (whole(start), whole(end));
    let step = if steps > 1 {
        round(round(end - start) / (steps - 1) as f64)
    } else {
        0.0
    };
    let at = |i: i64| match i < steps / 2 || steps == 1 {
        true => whole(start + round(step * i as f64)),
        false => whole(end - round(step * (steps - 1 - i) as f64)),
    };
    let y = match dtype.is_float() {
        true => rw.constant(
            DType::F64,
            &[steps],
            (0..steps).flat_map(|i| at(i).to_le_bytes()).collect(),
        )?,
        false => rw.constant_i64(&[steps], &(0..steps).map(|i| at(i) as i64).collect::<Vec<_>>())?,
    };
    one(rw.cast(y, dtype))
}

fn triangle_indices(rw: &mut Rewrite, kept: fn(i64, i64, i64) -> bool) -> Replacement {
    let (rows, columns, offset) = (rw.int(0)?, rw.int(1)?, rw.int(2)?);
    if rows.checked_mul(columns).is_none_or(|n| n > MAX_CONSTANT) || rows < 0 || columns < 0 {
        return Err(rw.unsupported(format!("a triangle of {rows} by {columns}")));
    }
    let places: Vec<(i64, i64)> = (0..rows)
        .flat_map(|r| (0..columns).map(move |c| (r, c)))
        .filter(|&(r, c)| kept(r, c, offset))
        .collect();
    let items: Vec<i64> = places.iter().map(|p| p.0).chain(places.iter().map(|p| p.1)).collect();
    one(rw.constant_i64(&[2, places.len() as i64], &items))
}

/// The last dimension of `x` as the diagonal of the plane of two new dimensions, zeros elsewhere.
fn diag_embed(rw: &mut Rewrite, x: ValueId, offset: i64, d1: usize, d2: usize) -> Result<ValueId, PassError> {
    if d1 == d2 {
        return Err(rw.invalid("the two dimensions are the same"));
    }
    let (offset, low, high) = if d1 < d2 { (offset, d1, d2) } else { (-offset, d2, d1) };
    let last = rw.rank(x)? as i64 - 1;
    let x = match offset {
        0 => x,
        1.. => rw.emit("aten::constant_pad_nd", args![x, vec![offset, 0], 0])?,
        _ => rw.emit("aten::constant_pad_nd", args![x, vec![0, -offset], 0])?,
    };
    // A row vector for every row of the plane; where(column - row == offset).
    let size = rw.size(x, last as usize)?;
    let x = rw.unsqueeze(x, low)?;
    let rank = rw.rank(x)?;
    let mut order: Vec<usize> = (0..rank - 1).collect();
    order.insert(high, rank - 1);
    let x = rw.permute(x, &order)?;
    let gap = column_minus_row(rw, size.clone(), size.clone())?;
    let hot = rw.emit("aten::eq.Scalar", args![gap, offset])?;
    let mut plane = vec![Expr::Int(1); rank];
    plane[low] = size.clone();
    plane[high] = size;
    let hot = rw.view(hot, plane)?;
    rw.select_where(hot, x, 0)
}
