//! Reading and writing by index: everything becomes `index.Tensor`, `index_put` or `gather`.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, TensorType, ValueId};
use delegraph_types::DType;

pub(super) const RULES: Rules = &[
    ("aten::index_copy", |rw| {
        let source = rw.tensor(3)?;
        put(rw, Arg::Value(source), false)
    }),
    ("aten::index_add", |rw| {
        let mut source = rw.tensor(3)?;
        if !rw.arg(4).as_scalar().is_some_and(|s| s.as_f64() == 1.0) {
            source = rw.mul(source, rw.arg(4))?;
            let dtype = rw.output_type(0)?.dtype;
            source = rw.cast(source, dtype)?;
        }
        put(rw, Arg::Value(source), true)
    }),
    ("aten::index_fill.int_Scalar", |rw| put(rw, rw.arg(3), false)),
    ("aten::index_fill.int_Tensor", |rw| put(rw, rw.arg(3), false)),
    ("aten::take", |rw| {
        let (x, index) = (rw.tensor(0)?, rw.tensor(1)?);
        let count = Expr::product(&rw.shape(x)?);
        let flat = rw.view(x, vec![count])?;
        one(rw.emit("aten::index.Tensor", args![flat, vec![Some(index)]]))
    }),
    ("aten::take_along_dim", |rw| {
        let (mut x, mut index) = (rw.tensor(0)?, rw.tensor(1)?);
        if rw.is_none(2) {
            let (n, m) = (Expr::product(&rw.shape(x)?), Expr::product(&rw.shape(index)?));
            let (x, index) = (rw.view(x, vec![n])?, rw.view(index, vec![m])?);
            return one(rw.emit("aten::gather", args![x, 0, index]));
        }
        let (sx, si) = (rw.shape(x)?, rw.shape(index)?);
        if sx.len() != si.len() {
            return Err(rw.invalid("input and indices differ in rank"));
        }
        let dim = rw.dim(2, sx.len())?;
        // All dimensions but `dim` broadcast.
        let mut common = rw.broadcast(&[&without(&sx, dim), &without(&si, dim)])?;
        common.insert(dim, sx[dim].clone());
        x = rw.expand(x, common.clone())?;
        common[dim] = si[dim].clone();
        // With a dimension given, PyTorch takes every index modulo its size.
        if sx[dim] != Expr::Int(0) {
            index = rw.emit("aten::remainder.Scalar", args![index, sx[dim].clone()])?;
        }
        index = rw.expand(index, common)?;
        one(rw.emit("aten::gather", args![x, dim as i64, index]))
    }),
    ("aten::where", |rw| {
        let x = rw.tensor(0)?;
        let count = rw.output_type(0)?.shape.first().cloned().unwrap_or(Expr::Int(0));
        let rank = rw.node().outputs.len() as i64;
        let ty = TensorType::new(DType::I64, vec![count, Expr::Int(rank)]);
        let places = rw.emit_as("aten::nonzero", args![x], vec![ty.into()])?[0];
        (0..rank)
            .map(|d| rw.select(places, 1, d))
            .collect::<Result<_, _>>()
            .map(Some)
    }),
    ("aten::scatter.reduce", |rw| match rw.text(4)?.as_str() {
        "add" => one(rw.emit("aten::scatter_add", args![rw.arg(0), rw.arg(1), rw.arg(2), rw.arg(3)])),
        "multiply" => {
            let reduce = Arg::Str("prod".into());
            one(rw.emit(
                "aten::scatter_reduce.two",
                args![rw.arg(0), rw.arg(1), rw.arg(2), rw.arg(3), reduce, true],
            ))
        }
        other => Err(rw.unsupported(format!("the reduction `{other}`"))),
    }),
    ("aten::isin.Tensor_Tensor", |rw| {
        let (x, set, invert) = (rw.tensor(0)?, rw.tensor(1)?, rw.bool(3)?);
        rw.real_only(x)?;
        rw.real_only(set)?;
        let (rank, count) = (rw.rank(x)?, Expr::product(&rw.shape(set)?));
        let set = rw.view(set, vec![count])?;
        let x = rw.unsqueeze(x, rank)?;
        let equal = rw.binary("aten::eq.Tensor", x, set)?;
        let found = rw.emit("aten::any.dim", args![equal, -1])?;
        match invert {
            true => one(rw.unary("aten::logical_not", found)),
            false => Ok(Some(vec![found])),
        }
    }),
    ("aten::isin.Tensor_Scalar", |rw| {
        rw.real_only(rw.tensor(0)?)?;
        let op = if rw.bool(3)? {
            "aten::ne.Scalar"
        } else {
            "aten::eq.Scalar"
        };
        one(rw.emit(op, args![rw.arg(0), rw.arg(1)]))
    }),
    ("aten::im2col", im2col),
    ("aten::diagonal_scatter", |rw| {
        // A mask of the diagonal, and the source spread over the plane.
        let (x, source) = (rw.tensor(0)?, rw.tensor(1)?);
        let rank = rw.rank(x)?;
        let (offset, d1, d2) = (rw.int(2)?, rw.dim(3, rank)?, rw.dim(4, rank)?);
        let shape = rw.static_shape(x)?;
        if d1 == d2 {
            return Err(rw.invalid("the two dimensions are the same"));
        }
        let (rows, columns) = (shape[d1], shape[d2]);
        let length = rw.shape(source)?.last().and_then(Expr::as_int).unwrap_or(0);
        let row0 = (-offset).max(0);
        let items: Vec<i64> = (0..length).map(|i| row0 + i).collect();
        let row = rw.constant_i64(&[length], &items)?;
        let items: Vec<i64> = (0..length).map(|i| row0 + i + offset).collect();
        let column = rw.constant_i64(&[length], &items)?;
        if row0 + length > rows || row0 + length + offset > columns {
            return Err(rw.invalid("the source is longer than the diagonal"));
        }
        // The plane in front, so that the two indices are adjacent and stay in front.
        let mut order: Vec<usize> = vec![d1, d2];
        order.extend((0..rank).filter(|&d| d != d1 && d != d2));
        let front = rw.permute(x, &order)?;
        let source_rank = rw.rank(source)?;
        let source_order: Vec<usize> = std::iter::once(source_rank - 1).chain(0..source_rank - 1).collect();
        let source = rw.permute(source, &source_order)?;
        let front = rw.emit("aten::index_put", args![front, vec![Some(row), Some(column)], source])?;
        let mut back = vec![0; rank];
        for (to, &from) in order.iter().enumerate() {
            back[from] = to;
        }
        one(rw.permute(front, &back))
    }),
    ("aten::embedding_bag", |rw| bags(rw, -1)),
    ("aten::embedding_bag.padding_idx", |rw| {
        let rows = rw.size(rw.tensor(0)?, 0)?;
        match rw.optional_int(8)? {
            None => bags(rw, -1),
            Some(index @ 0..) => bags(rw, index),
            Some(index) => match rows.as_int() {
                Some(rows) => bags(rw, rows + index),
                None => Err(rw.unsupported("a padding index counted from the end of a dynamic table")),
            },
        }
    }),
];

/// weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset
fn bags(rw: &mut Rewrite, padding: i64) -> Replacement {
    let mut args: Vec<Arg> = (0..8).map(|index| rw.arg(index)).collect();
    args.push(Arg::int(padding));
    rw.emit_many("aten::_embedding_bag", args).map(Some)
}

fn without(shape: &[Expr], dim: usize) -> Vec<Expr> {
    let mut rest = shape.to_vec();
    rest.remove(dim);
    rest
}

/// self, dim, index: `self[…, index, …] = value`, or `+=`.
fn put(rw: &mut Rewrite, value: Arg, accumulate: bool) -> Replacement {
    let (mut x, mut index) = (rw.tensor(0)?, rw.tensor(2)?);
    let (rank, dtype, shape) = (rw.rank(x)?, rw.dtype(x)?, rw.shape(x)?);
    let dim = rw.dim(1, rank)?;
    if rank == 0 {
        x = rw.view(x, vec![Expr::Int(1)])?;
    }
    let whole = rw.shape(x)?;
    if rw.rank(index)? == 0 {
        index = rw.view(index, vec![Expr::Int(1)])?;
    }
    let count = rw.size(index, 0)?;
    let value = match value {
        Arg::Value(v) => {
            let v = rw.cast(v, dtype)?;
            // A source without the indexed dimension's one element.
            let mut full = whole;
            full[dim] = count;
            match rw.rank(v)? == full.len() || rw.rank(v)? == 0 && full.len() > 1 {
                true => v,
                false => rw.view(v, full)?,
            }
        }
        number => rw.full(Vec::new(), number, dtype)?,
    };
    let mut indices: Vec<Option<ValueId>> = vec![None; dim];
    indices.push(Some(index));
    let y = rw.emit("aten::index_put", args![x, indices, value, accumulate])?;
    one(rw.view(y, shape))
}

/// A constant `i64` vector of `outer * inner` places, viewed as `[outer, inner]`.
pub(super) fn places(
    rw: &mut Rewrite,
    outer: i64,
    inner: i64,
    at: impl Fn(i64, i64) -> i64,
) -> Result<Vec<i64>, PassError> {
    match outer.checked_mul(inner) {
        Some(n) if (0..=1 << 22).contains(&n) => Ok((0..outer)
            .flat_map(|o| (0..inner).map(move |i| (o, i)))
            .map(|(o, i)| at(o, i))
            .collect()),
        _ => Err(rw.unsupported(format!("a window table of {outer} by {inner}"))),
    }
}

/// Sliding windows as columns: rows and columns of every window by index, over the padded input.
fn im2col(rw: &mut Rewrite) -> Replacement {
    let mut x = rw.tensor(0)?;
    let list = |rw: &Rewrite, index: usize| super::conv::per_dim(rw, index, 2, 1);
    let (kernel, dilation, padding, stride) = (list(rw, 1)?, list(rw, 2)?, list(rw, 3)?, list(rw, 4)?);
    let output = rw.output_type(0)?;
    let unbatched = rw.rank(x)? == 3;
    if unbatched {
        x = rw.unsqueeze(x, 0)?;
    }
    if padding.iter().any(|&p| p != 0) {
        let pads = vec![padding[1], padding[1], padding[0], padding[0]];
        x = rw.emit("aten::constant_pad_nd", args![x, pads, 0])?;
    }
    let shape = rw.shape(x)?;
    let (Some(height), Some(width)) = (shape[2].as_int(), shape[3].as_int()) else {
        return Err(rw.unsupported("a dynamic image size"));
    };
    let mut index = Vec::new();
    for (d, size) in [height, width].into_iter().enumerate() {
        let reach = dilation[d].saturating_mul(kernel[d] - 1).saturating_add(1);
        if stride[d] < 1 || size < reach || kernel[d] < 1 {
            return Err(rw.invalid("the window is larger than the image"));
        }
        let count = (size - reach) / stride[d] + 1;
        let items = places(rw, kernel[d], count, |k, o| k * dilation[d] + o * stride[d])?;
        // [kh, oh, 1, 1] and [kw, ow] broadcast to [kh, oh, kw, ow].
        let sizes = if d == 0 {
            vec![kernel[d], count, 1, 1]
        } else {
            vec![kernel[d], count]
        };
        index.push(rw.constant_i64(&sizes, &items)?);
    }
    let windows = rw.emit(
        "aten::index.Tensor",
        args![x, vec![None, None, Some(index[0]), Some(index[1])]],
    )?;
    let ordered = rw.permute(windows, &[0, 1, 2, 4, 3, 5])?;
    one(rw.view(ordered, output.shape))
}
