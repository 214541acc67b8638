//! Splitting a tensor into a list and joining a list into a tensor.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Expr, ValueId};

pub(super) const RULES: Rules = &[
    ("aten::chunk", |rw| {
        let dim = rw.dim(2, rw.rank(rw.tensor(0)?)?)?;
        pieces(rw, dim)
    }),
    ("aten::split.Tensor", |rw| {
        let dim = rw.dim(2, rw.rank(rw.tensor(0)?)?)?;
        pieces(rw, dim)
    }),
    ("aten::tensor_split.sections", |rw| {
        let dim = rw.dim(2, rw.rank(rw.tensor(0)?)?)?;
        pieces(rw, dim)
    }),
    ("aten::tensor_split.indices", tensor_split),
    ("aten::hsplit.int", |rw| {
        let dim = usize::from(rw.rank(rw.tensor(0)?)? > 1);
        pieces(rw, dim)
    }),
    ("aten::vsplit.int", |rw| pieces(rw, 0)),
    ("aten::dsplit.int", |rw| pieces(rw, 2)),
    ("aten::hsplit.array", |rw| {
        let dim = usize::from(rw.rank(rw.tensor(0)?)? > 1);
        at_indices(rw, dim)
    }),
    ("aten::vsplit.array", |rw| at_indices(rw, 0)),
    ("aten::dsplit.array", |rw| at_indices(rw, 2)),
    ("aten::unbind.int", |rw| {
        let x = rw.tensor(0)?;
        let dim = rw.dim(1, rw.rank(x)?)?;
        let count = rw.node().outputs.len() as i64;
        (0..count)
            .map(|i| rw.select(x, dim, i))
            .collect::<Result<_, _>>()
            .map(Some)
    }),
    ("aten::hstack", |rw| {
        let items = each(rw, |rw, x| at_least(rw, x, 1))?;
        let dim = match items.first() {
            Some(&first) => usize::from(rw.rank(first)? > 1),
            None => 0,
        };
        one(rw.cat(items, dim))
    }),
    ("aten::vstack", |rw| {
        let items = each(rw, |rw, x| at_least(rw, x, 2))?;
        one(rw.cat(items, 0))
    }),
    ("aten::dstack", |rw| {
        let items = each(rw, |rw, x| at_least(rw, x, 3))?;
        one(rw.cat(items, 2))
    }),
    ("aten::column_stack", |rw| {
        let items = each(rw, |rw, x| {
            let shape = rw.shape(x)?;
            match shape.len() {
                0 | 1 => rw.view(x, vec![Expr::product(&shape), Expr::Int(1)]),
                _ => Ok(x),
            }
        })?;
        one(rw.cat(items, 1))
    }),
    ("aten::atleast_1d.Sequence", |rw| {
        each(rw, |rw, x| at_least(rw, x, 1)).map(Some)
    }),
    ("aten::atleast_2d.Sequence", |rw| {
        each(rw, |rw, x| at_least(rw, x, 2)).map(Some)
    }),
    ("aten::atleast_3d.Sequence", |rw| {
        each(rw, |rw, x| at_least(rw, x, 3)).map(Some)
    }),
    ("aten::meshgrid", |rw| meshgrid(rw, false)),
    ("aten::meshgrid.indexing", |rw| match rw.text(1)?.as_str() {
        "ij" => meshgrid(rw, false),
        "xy" => meshgrid(rw, true),
        other => Err(rw.invalid(format!("indexing `{other}`"))),
    }),
    ("aten::cartesian_prod", |rw| {
        let items = rw.tensors(0)?;
        if let [single] = items.as_slice() {
            return Ok(Some(vec![*single]));
        }
        let shape: Vec<Expr> = items.iter().map(|&x| rw.size(x, 0)).collect::<Result<_, _>>()?;
        let count = Expr::product(&shape);
        let mut columns = Vec::with_capacity(items.len());
        for (d, x) in items.into_iter().enumerate() {
            let grid = along(rw, x, d, &shape)?;
            columns.push(rw.view(grid, vec![count.clone(), Expr::Int(1)])?);
        }
        one(rw.cat(columns, 1))
    }),
    ("aten::block_diag", block_diag),
];

/// Consecutive pieces of the recorded sizes.
fn pieces(rw: &mut Rewrite, dim: usize) -> Replacement {
    let x = rw.tensor(0)?;
    let count = rw.node().outputs.len();
    let sizes: Vec<Expr> = (0..count)
        .map(|i| {
            rw.output_type(i)?
                .shape
                .get(dim)
                .cloned()
                .ok_or_else(|| rw.invalid("no such dimension"))
        })
        .collect::<Result<_, PassError>>()?;
    if count == 1 {
        return Ok(Some(vec![x]));
    }
    let dim_arg = dim as i64;
    rw.emit_as("aten::split_with_sizes", args![x, sizes, dim_arg], rw.output_types())
        .map(Some)
}

/// Pieces between indices, which may be negative, beyond the end, or out of order (then a piece is empty).
fn at_indices(rw: &mut Rewrite, dim: usize) -> Replacement {
    let (x, indices) = (rw.tensor(0)?, rw.exprs(1)?);
    let size = rw.size(x, dim)?;
    let Some(known) = size.as_int() else {
        return Err(rw.unsupported("a dynamic size along the dimension that is split"));
    };
    let mut bounds = vec![0];
    for index in indices {
        let Some(index) = index.as_int() else {
            return Err(rw.unsupported("a dynamic index"));
        };
        bounds.push(if index < 0 {
            (index + known).max(0)
        } else {
            index.min(known)
        });
    }
    bounds.push(known);
    let parts = bounds
        .windows(2)
        .map(|w| rw.slice(x, dim, w[0].into(), w[1].max(w[0]).into()));
    parts.collect::<Result<Vec<_>, _>>().map(Some)
}

fn tensor_split(rw: &mut Rewrite) -> Replacement {
    let dim = rw.dim(2, rw.rank(rw.tensor(0)?)?)?;
    at_indices(rw, dim)
}

fn each(
    rw: &mut Rewrite,
    f: impl Fn(&mut Rewrite, ValueId) -> Result<ValueId, PassError>,
) -> Result<Vec<ValueId>, PassError> {
    let items = rw.tensors(0)?;
    items.into_iter().map(|x| f(rw, x)).collect()
}

/// `torch.atleast_{1,2,3}d`: new dimensions in front, for three a last one too.
fn at_least(rw: &mut Rewrite, x: ValueId, rank: usize) -> Result<ValueId, PassError> {
    let shape = rw.shape(x)?;
    let one = || Expr::Int(1);
    let shape = match (rank, shape.as_slice()) {
        (1, []) => vec![one()],
        (2, []) => vec![one(), one()],
        (2, [n]) => vec![one(), n.clone()],
        (3, []) => vec![one(), one(), one()],
        (3, [n]) => vec![one(), n.clone(), one()],
        (3, [n, m]) => vec![n.clone(), m.clone(), one()],
        _ => return Ok(x),
    };
    rw.view(x, shape)
}

/// A vector laid along dimension `d` of `shape`.
fn along(rw: &mut Rewrite, x: ValueId, d: usize, shape: &[Expr]) -> Result<ValueId, PassError> {
    let mut single = vec![Expr::Int(1); shape.len()];
    single[d] = shape[d].clone();
    let x = rw.view(x, single)?;
    rw.expand(x, shape.to_vec())
}

fn meshgrid(rw: &mut Rewrite, swap: bool) -> Replacement {
    let items = rw.tensors(0)?;
    let mut shape = Vec::with_capacity(items.len());
    for &x in &items {
        shape.push(Expr::product(&rw.shape(x)?));
    }
    let swap = swap && items.len() >= 2;
    if swap {
        shape.swap(0, 1);
    }
    let mut out = Vec::with_capacity(items.len());
    for (i, x) in items.into_iter().enumerate() {
        let d = match (swap, i) {
            (true, 0) => 1,
            (true, 1) => 0,
            _ => i,
        };
        out.push(along(rw, x, d, &shape)?);
    }
    Ok(Some(out))
}

fn block_diag(rw: &mut Rewrite) -> Replacement {
    let dtype = rw.output_type(0)?.dtype;
    let items = each(rw, |rw, x| {
        let x = rw.cast(x, dtype)?;
        at_least(rw, x, 2)
    })?;
    let width = items
        .iter()
        .try_fold(Expr::Int(0), |sum, &x| Ok::<_, PassError>(sum + rw.size(x, 1)?))?;
    let (mut rows, mut before) = (Vec::new(), Expr::Int(0));
    for x in items {
        let own = rw.size(x, 1)?;
        let after = width.clone() - before.clone() - own.clone();
        rows.push(rw.emit("aten::constant_pad_nd", args![x, vec![before.clone(), after], 0])?);
        before = before + own;
    }
    one(rw.cat(rows, 0))
}
