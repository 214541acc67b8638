//! Pooling: one-dimensional forms over a dimension of size 1, adaptive forms over tables of windows.

use super::conv::per_dim;
use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};

pub(super) const RULES: Rules = &[
    ("aten::max_pool1d", |rw| {
        Ok(max_pool1d(rw)?.map(|parts| parts[..1].to_vec()))
    }),
    ("aten::max_pool1d_with_indices", max_pool1d),
    ("aten::max_pool2d", |rw| max_pool(rw, "aten::max_pool2d_with_indices")),
    ("aten::max_pool3d", |rw| max_pool(rw, "aten::max_pool3d_with_indices")),
    ("aten::avg_pool1d", |rw| {
        let x = rw.tensor(0)?;
        let (kernel, padding) = (per_dim(rw, 1, 1, 1)?[0], per_dim(rw, 3, 1, 0)?[0]);
        let stride = per_dim(rw, 2, 1, kernel)?[0];
        let (ceil, count_pad) = (rw.arg(4), rw.arg(5));
        let rank = rw.rank(x)?;
        let flat = lifted(rw, x, rank)?;
        let y = rw.emit(
            "aten::avg_pool2d",
            args![
                flat,
                vec![1, kernel],
                vec![1, stride],
                vec![0, padding],
                ceil,
                count_pad
            ],
        )?;
        one(rw.squeeze(y, rank - 1))
    }),
    ("aten::adaptive_avg_pool1d", |rw| {
        let x = rw.tensor(0)?;
        let size = per_dim(rw, 1, 1, 1)?[0];
        let rank = rw.rank(x)?;
        let flat = lifted(rw, x, rank)?;
        let y = rw.emit("aten::adaptive_avg_pool2d", args![flat, vec![1, size]])?;
        one(rw.squeeze(y, rank - 1))
    }),
    ("aten::adaptive_avg_pool2d", |rw| {
        let (x, size) = (rw.tensor(0)?, rw.exprs(1)?);
        match size.iter().all(|s| s.as_int() == Some(1)) {
            true => one(rw.emit("aten::mean.dim", args![x, vec![-1, -2], true])),
            false => one(rw.emit("aten::_adaptive_avg_pool2d", args![x, size])),
        }
    }),
    ("aten::adaptive_avg_pool3d", adaptive_avg_pool3d),
    ("aten::_adaptive_avg_pool3d", adaptive_avg_pool3d),
    ("aten::adaptive_max_pool1d", |rw| adaptive_max_pool(rw, 1)),
    ("aten::adaptive_max_pool2d", |rw| adaptive_max_pool(rw, 2)),
    ("aten::adaptive_max_pool3d", |rw| adaptive_max_pool(rw, 3)),
];

/// `[…, L]` -> `[…, 1, L]`
fn lifted(rw: &mut Rewrite, x: ValueId, rank: usize) -> Result<ValueId, PassError> {
    match rank {
        2 | 3 => rw.unsqueeze(x, rank - 1),
        _ => Err(rw.invalid("an input of two or three dimensions is expected")),
    }
}

fn max_pool1d(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    let kernel = per_dim(rw, 1, 1, 1)?[0];
    let stride = per_dim(rw, 2, 1, kernel)?[0];
    let (padding, dilation) = (per_dim(rw, 3, 1, 0)?[0], per_dim(rw, 4, 1, 1)?[0]);
    let ceil = rw.arg(5);
    let rank = rw.rank(x)?;
    let flat = lifted(rw, x, rank)?;
    let parts = rw.emit_many(
        "aten::max_pool2d_with_indices",
        args![
            flat,
            vec![1, kernel],
            vec![1, stride],
            vec![0, padding],
            vec![1, dilation],
            ceil
        ],
    )?;
    let parts = parts.into_iter().map(|part| rw.squeeze(part, rank - 1));
    parts.collect::<Result<Vec<_>, _>>().map(Some)
}

fn max_pool(rw: &mut Rewrite, op: &str) -> Replacement {
    let args = (0..6).map(|i| rw.arg(i)).collect();
    let parts = rw.emit_many(op, args)?;
    Ok(Some(parts[..1].to_vec()))
}

/// A mean over a box is the mean over depth of means over planes: two planar poolings.
fn adaptive_avg_pool3d(rw: &mut Rewrite) -> Replacement {
    let (x, size) = (rw.tensor(0)?, rw.exprs(1)?);
    let shape = rw.shape(x)?;
    let ([.., channels, depth, height, width], [d, h, w]) = (shape.as_slice(), size.as_slice()) else {
        return Err(rw.invalid("an input of four or five dimensions and three sizes are expected"));
    };
    if size.iter().all(|s| s.as_int() == Some(1)) {
        return one(rw.emit("aten::mean.dim", args![x, vec![-1, -2, -3], true]));
    }
    let dtype = rw.dtype(x)?;
    let wide = rw.upcast(x)?;
    let batch: Vec<Expr> = shape[..shape.len() - 4].to_vec();
    let with = |tail: &[Expr]| batch.iter().chain(tail).cloned().collect::<Vec<Expr>>();
    let planes = channels.clone() * depth.clone();
    let flat = rw.view(wide, with(&[planes, height.clone(), width.clone()]))?;
    let flat = rw.emit("aten::adaptive_avg_pool2d", args![flat, vec![h.clone(), w.clone()]])?;
    let plane = h.clone() * w.clone();
    let deep = rw.view(flat, with(&[channels.clone(), depth.clone(), plane.clone()]))?;
    let deep = rw.emit("aten::adaptive_avg_pool2d", args![deep, vec![d.clone(), plane]])?;
    let y = rw.view(deep, with(&[channels.clone(), d.clone(), h.clone(), w.clone()]))?;
    one(rw.cast(y, dtype))
}

/// Windows of unequal sizes: each is gathered at the size of the largest, its last element repeated, which changes neither
/// the maximum nor the first place of it.
fn adaptive_max_pool(rw: &mut Rewrite, spatial: usize) -> Replacement {
    let x = rw.tensor(0)?;
    let want = per_dim(rw, 1, spatial, 1)?;
    let shape = rw.shape(x)?;
    if shape.len() < spatial + 1 {
        return Err(rw.invalid("too few dimensions"));
    }
    let lead = shape.len() - spatial;
    let have: Option<Vec<i64>> = shape[lead..].iter().map(Expr::as_int).collect();
    let Some(have) = have else {
        return Err(rw.unsupported("a dynamic image size"));
    };
    // Along each dimension: for every output the places of its window.
    let mut windows: Vec<(i64, Vec<i64>)> = Vec::new();
    for (&n, &m) in have.iter().zip(&want) {
        if n < 1 || m < 1 {
            return Err(rw.unsupported("an empty image"));
        }
        let start = |o: i64| (i128::from(o) * i128::from(n) / i128::from(m)) as i64;
        let end = |o: i64| ((i128::from(o + 1) * i128::from(n) + i128::from(m) - 1) / i128::from(m)) as i64;
        if m > 1 << 20 {
            return Err(rw.unsupported(format!("{m} outputs")));
        }
        let longest = (0..m).map(|o| end(o) - start(o)).max().unwrap_or(1);
        let items = super::index::places(rw, m, longest, |o, k| (start(o) + k).min(end(o) - 1))?;
        windows.push((longest, items));
    }
    // Index tensors broadcast to [o1, k1, o2, k2, …].
    let mut indices: Vec<Option<ValueId>> = vec![None; lead];
    for (d, (longest, items)) in windows.iter().enumerate() {
        let mut sizes = vec![want[d], *longest];
        sizes.extend(std::iter::repeat_n(1, 2 * (spatial - 1 - d)));
        indices.push(Some(rw.constant_i64(&sizes, items)?));
    }
    let gathered = rw.emit("aten::index.Tensor", args![x, indices])?;
    let outer = (0..spatial).map(|d| lead + 2 * d);
    let inner = (0..spatial).map(|d| lead + 2 * d + 1);
    let order: Vec<usize> = (0..lead).chain(outer).chain(inner).collect();
    let gathered = rw.permute(gathered, &order)?;
    let window: i64 = windows.iter().map(|w| w.0).product();
    let mut flat: Vec<Expr> = shape[..lead].to_vec();
    flat.extend(want.iter().map(|&w| Expr::Int(w)));
    let result = flat.clone();
    flat.push(Expr::Int(window));
    let gathered = rw.view(gathered, flat)?;
    let parts = rw.emit_many("aten::max.dim", args![gathered, -1, false])?;
    // The place within the window, looked up in the flat places of the image.
    let table = flat_places(&have, &want, &windows).ok_or_else(|| rw.unsupported("so large an output"))?;
    let cells: i64 = want.iter().product();
    let table = rw.constant_i64(&[cells * window], &table)?;
    let firsts = rw.arange(0, cells)?;
    let firsts = rw.emit("aten::mul.Tensor", vec![firsts.into(), Arg::int(window)])?;
    let firsts = rw.view(firsts, want.iter().map(|&w| Expr::Int(w)).collect())?;
    let at = rw.add(parts[1], firsts)?;
    let index = rw.emit("aten::index.Tensor", args![table, vec![Some(at)]])?;
    Ok(Some(vec![parts[0], rw.view(index, result)?]))
}

/// For every output cell and place in its window, the flat place in the image.
fn flat_places(have: &[i64], want: &[i64], windows: &[(i64, Vec<i64>)]) -> Option<Vec<i64>> {
    let window: i64 = windows.iter().try_fold(1i64, |n, w| n.checked_mul(w.0))?;
    let cells: i64 = want.iter().try_fold(1i64, |n, w| n.checked_mul(*w))?;
    let total = cells.checked_mul(window).filter(|n| *n <= 1 << 22)?;
    let mut out = Vec::with_capacity(total as usize);
    for cell in 0..cells {
        for place in 0..window {
            let (mut cell, mut place, mut flat, mut step) = (cell, place, 0, 1);
            for d in (0..have.len()).rev() {
                let (longest, items) = &windows[d];
                let (o, k) = (cell % want[d], place % longest);
                (cell, place) = (cell / want[d], place / longest);
                flat += items[(o * longest + k) as usize] * step;
                step *= have[d];
            }
            out.push(flat);
        }
    }
    Some(out)
}
